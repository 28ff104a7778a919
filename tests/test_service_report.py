"""The page on backtests: complete, closed, escaped, and with the numbers of the results."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cl_lib
from cl_lib import policies
from cl_lib.errors import InputError
from cl_lib.record import Record
from cl_lib.report.service import page, service_page
from cl_lib.report.service_entries import served
from cl_lib.report.service_maps import slice_column
from cl_lib.service import Backtest, backtest
from cl_lib.service.auditing import audit
from cl_lib.service.gate_curves import gate_curve
from cl_lib.service.result_file import to_json

GATED = policies.Gated(policies.Every(), (policies.NoSliceDrop("class", 0.0),))
NAMES = ["never", "every 2", "on_gain", "gated every"]


@pytest.fixture(scope="module")
def record(served_run: Path) -> Record:
    return Record.load(served_run)


@pytest.fixture(scope="module")
def results(record: Record) -> list[Backtest]:
    chosen = policies.Never(), policies.Every(2), policies.OnGain(), GATED
    return [backtest(record, policy, delay=delay, start=2) for delay in (0, 1) for policy in chosen]


@pytest.fixture(scope="module")
def whole(record: Record, results: list[Backtest]) -> str:
    return page(record, results, NAMES * 2)


def text_of(text: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)))


def cells(text: str, table: str) -> list[list[str]]:
    part = text[text.index(f'id="{table}"') :]
    body = part[part.index("<tbody>") : part.index("</tbody>")]
    rows = re.findall(r"<tr>(.*?)</tr>", body, flags=re.DOTALL)
    return [[" ".join(text_of(c).split()) for c in re.findall(r"<t[hd].*?</t[hd]>", r, flags=re.DOTALL)] for r in rows]


def test_the_page_has_all_its_parts(whole):
    for heading in (
        "When the policies updated",
        "Loss against number of updates",
        "What updates did to slices",
        "Which alarms were right",
        "What a gate would have blocked",
        "Cost",
        "The run",
    ):
        assert f"<h2>{heading}</h2>" in whole
    assert whole.count("<svg") == 5 == whole.count("<b>What to look at:</b>")
    assert whole.count('<p class="lead">') == 3  # what is compared, and the outcome at each of two delays


def test_the_page_is_closed(record, results, tmp_path):
    path = service_page(record, results[:2], NAMES[:2], tmp_path / "new" / "page.html")
    text = path.read_text()
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text)
    assert not re.search(r"<(script|link|iframe|img)|@import|url\((?!#)", text)
    again = service_page(record, results[:2], NAMES[:2], path)  # replaces its own page, with the same bytes
    assert again.read_text() == text


def test_the_table_holds_the_numbers_of_the_results(whole, results):
    rows = cells(whole, "policies")
    assert [row[0] for row in rows] == (["always updated"] + NAMES) * 2
    lines = [row for row in rows if row[0] != "always updated"]
    for row, result in zip(lines, results, strict=True):
        assert row[1] == str(result.delay)
        for shown, part in zip(row[2:5], (result.mean_loss, result.random, result.oracle), strict=True):
            assert shown == f"{part.mean():.4f}"
        assert row[5] == (f"{np.nanmean(result.skill):.2f}" if np.isfinite(result.skill).any() else "–")
        assert row[6:9] == [f"{part.mean():.1f}" for part in (result.updates, result.harmful, result.refused.sum(-1))]
    for row, result in zip(cells(whole, "cost"), results, strict=True):
        assert row[2:] == [f"{result.labels.mean():,.0f}", f"{result.steps.mean():,.0f}"]


def test_the_first_paragraphs_hold_the_numbers_of_the_results(whole, results):
    first, at_once, late = re.findall(r'<p class="lead">(.*?)</p>', whole, flags=re.DOTALL)
    assert "4 rules" in first
    assert f"{len(results[0].windows)} windows" in first
    for text, result in ((at_once, results[0]), (late, results[4])):
        assert f"{result.never.mean():.4f}" in text
        assert f"{result.always.mean():.4f}" in text
    skilled = max(results[:4], key=lambda result: np.nan_to_num(result.skill, nan=-np.inf).mean())
    assert f"skill {np.nanmean(skilled.skill):.2f}" in at_once


def test_the_gate_table_is_on_the_curve(whole, record):
    curve = gate_curve(record, start=2)
    zero = next(row for row in cells(whole, "gate") if row[0] == "0")
    for shown, share in zip(zero[1:], curve.at(0.0), strict=True):
        assert shown == ("–" if np.isnan(share) else f"{100 * share:.0f} %")
    assert f"{curve.harmful} of {curve.harmful + curve.good} were" in " ".join(text_of(whole).split())


def test_marked_cells_are_counted(whole, record):
    flagged = int(audit(record, "class").flags("class").any(0).sum())
    assert slice_column(record, None) == "class"
    assert f"{flagged or 'no'} cell" in " ".join(text_of(whole).split())


def test_a_point_of_a_grid_is_a_row(record):
    result = backtest(record, policies.Every(), grid={"windows": [1, 2, 3]})
    rows = cells(page(record, [result], ["every"]), "policies")
    assert [row[0] for row in rows] == ["never updated", "every windows=1", "every windows=2", "every windows=3"]
    assert [row[2] for row in rows[1:]] == [f"{loss.mean():.4f}" for loss in result.mean_loss]


def test_intervals_are_those_of_the_results_and_left_out_below_12_windows(record):
    stream = cl_lib.streams.rotated(cl_lib.datasets.digits(), experiences=13)
    long = cl_lib.run(stream, cl_lib.strategies.Finetune(), seeds=2)
    result = backtest(long, policies.Every(), grid={"windows": [2, 3]})
    low, high = result.interval("skill")[1]
    rows = cells(page(long, [result], ["every"]), "policies")
    assert rows[-1][5] == f"{result.skill[1].mean():.2f} [{low:.2f}, {high:.2f}]"
    assert [line.interval for line in served([result], ["every"])][1] == (low, high)
    assert to_json([result], long)["results"][1]["skill"]["interval"] == [low, high]
    tested = served([result], ["every"])
    assert [line.p_value for line in tested] == result.p_value().tolist()
    firm = [line.name for line in tested if line.p_value < 0.05]
    assert firm or "Better timing than chance is not shown for any policy" in page(long, [result], ["every"])
    lucky = replace(result, deployed=result.deployed + 1)  # every other time is worse
    said = "every windows=2 and every windows=3 choose better times than chance"
    assert said in " ".join(text_of(page(long, [lucky], ["every"])).split())
    short = backtest(record, policies.Every(2))
    assert to_json([short], record)["results"][0]["skill"]["interval"] == [None, None]
    assert "too few for an interval" in page(record, [short])


def test_labels_are_escaped(record):
    evil = '<script>alert("$x$ & y")</script>'
    columns = [f"{evil}{i}" for i in range(6)]
    labels = [f"<b>{i}</b>" for i in range(10)]
    changed = replace(
        record,
        strategy="<config>",
        stream={**record.stream, "name": "<stream>", "columns": columns},
        slices={**record.slices, "class": {**record.slices["class"], "labels": labels}},
    )
    text = page(changed, [backtest(changed, policies.Every(2)), backtest(changed, GATED)], ["<i>two", evil])
    for raw in ("<script", "<b>0</b>", "<i>two", "<stream>", "<config>"):
        assert raw not in text, raw
    assert "&lt;script&gt;" in text


def test_without_predictions_the_page_leaves_out_what_needs_them(record):
    bare = replace(record, predictions_sha256=None, samples=None, directory="")
    text = page(bare, [backtest(bare, policies.Every(2))])
    assert text.count("<svg") == 3
    assert "What updates did to slices" not in text
    assert "<td>not stored</td>" in text


def test_a_diverged_replica_and_few_windows_are_drawn(record):
    arrays = {k: v.copy() for k, v in record.arrays.items()}
    for name in ("nll", "brier", "accuracy"):
        arrays[f"matrix.{name}"][1, 2:] = np.nan
    broken = replace(record, arrays=arrays, predictions_sha256=None, directory="")
    chosen = [backtest(broken, policies.Every(2)), backtest(broken, policies.OnDecay(), until=3)]
    for result in chosen:
        text = page(broken, [result])
        assert "<svg" in text
        assert "nan" not in text_of(text).lower().replace("nano", "")
    data = to_json(chosen, broken)
    assert data["results"][0]["loss"]["per_replica"][1] is None


@pytest.mark.parametrize(("options", "message"), [({"by": "clas"}, "did you mean class"), ({}, "at least one")])
def test_mistakes_are_named(record, results, options, message):
    with pytest.raises(InputError, match=message):
        page(record, results[:1] if options else [], **options)
    with pytest.raises(InputError, match="same metric"):
        page(record, [results[0], backtest(record, policies.Never(), metric="error", start=2)])


def test_a_directory_or_another_file_is_not_replaced(record, results, tmp_path):
    with pytest.raises(InputError, match="is a directory"):
        service_page(record, results, NAMES * 2, tmp_path)

"""Reports say what the records hold: numbers against independent calls, nulls, escapes, one closed file."""

import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cl_lib
from cl_lib.errors import InputError
from cl_lib.record import Metric, Record
from cl_lib.report.bars import slice_bars
from cl_lib.report.canvas import style
from cl_lib.report.entries import entries
from cl_lib.report.html import page, write_report
from cl_lib.report.plots import accuracy_matrices, over_time, reliability_diagrams
from cl_lib.report.table import as_text, comparison, notes, summary
from cl_lib.stats import holm, paired_difference, summarise

SPLIT = cl_lib.streams.split(cl_lib.datasets.digits())


@pytest.fixture(scope="module")
def er() -> Record:
    return cl_lib.run(SPLIT, cl_lib.strategies.ER(), seeds=7)


@pytest.fixture(scope="module")
def finetune() -> Record:
    return cl_lib.run(SPLIT, cl_lib.strategies.Finetune(), seeds=7)


@pytest.fixture(scope="module")
def grid() -> Record:
    return cl_lib.run(SPLIT, cl_lib.strategies.ER(), seeds=3, lift="always", grid={"optim.lr": [0.03, 0.1, 1e20]})


@pytest.fixture(scope="module")
def online() -> Record:
    stream = cl_lib.streams.online(SPLIT, chunk=300)
    return cl_lib.run(stream, cl_lib.strategies.ER(), seeds=2)


def numbers(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"[-+]?\d+\.\d+", text)]


def text_of(page_: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", page_, flags=re.DOTALL)))


def with_accuracy(record: Record, values: list[float | None], **changes: Any) -> Record:
    got = summarise(values)
    metric = Metric(got.mean, got.std, list(got.ci95) if got.ci95 else None, got.n, values)
    return replace(record, metrics={**record.metrics, "accuracy": metric}, **changes)


# ---------------------------------------------------------------------- table
def test_comparison_agrees_with_stats(finetune: Record, er: Record) -> None:
    frame = comparison([finetune, er])
    assert list(frame["label"]) == ["finetune", "er"]
    for record, row in zip((finetune, er), frame.to_dict("records"), strict=True):
        for name, column in (("accuracy", "accuracy"), ("bwt", "BWT"), ("nll", "NLL")):
            mean, std, ci, _ = summarise(record.metrics[name].per_seed)
            assert numbers(row[column]) == pytest.approx([mean, std, *(ci or ())], abs=5.1e-4)
    ours, theirs = (r.metrics["accuracy"].per_seed for r in (er, finetune))
    result = paired_difference(ours, theirs)
    assert result.ci95 is not None
    assert numbers(frame["difference"][1]) == pytest.approx([result.mean, *result.ci95], abs=5.1e-4)
    assert float(frame["p"][1]) == pytest.approx(result.p_value, rel=1e-2)
    assert frame["difference"][0] == frame["p"][0] == "baseline"


def test_baseline_holm_and_common_seeds(er: Record) -> None:
    base = np.linspace(0.5, 0.8, 7).tolist()
    rng = np.random.default_rng(0)
    shifted = [[v + 0.1 + e for v, e in zip(base, rng.normal(0, 0.1, 7), strict=True)] for _ in range(3)]
    records = [with_accuracy(er, v, strategy=f"s{i}") for i, v in enumerate([*shifted, base])]
    frame = comparison(records, baseline="s3")
    p = [paired_difference(v, base).p_value for v in shifted]
    assert [float(v) for v in frame["p"][:3]] == pytest.approx(p, rel=1e-2)
    assert [float(v) for v in frame["p (Holm)"][:3]] == pytest.approx(holm(p), rel=1e-2)
    # seeds 4 to 10: three in common, and paired by seed, not by place
    replicas = [{**r, "seed": r["seed"] + 4} for r in er.replicas]
    moved = with_accuracy(er, [base[4] + 0.5, base[5] + 0.5, base[6] + 0.5, 0, 0, 0, 0], strategy="moved")
    moved = replace(moved, replicas=replicas, seeds=[r["seed"] for r in replicas])
    frame = comparison([records[3], moved])
    assert numbers(frame["difference"][1])[0] == 0.5
    assert float(frame["p"][1]) == 0.25
    assert any("seeds (4–10, not 0–6; 3 in common)" in note for note in notes([records[3], moved]))
    assert any("With 3 seeds the smallest possible p-value is 0.25" in note for note in notes([records[3], moved]))


def test_unknown_baseline_names_the_labels(finetune: Record, er: Record) -> None:
    with pytest.raises(InputError, match=r"baseline='ewc'.*finetune, er"):
        comparison([finetune, er], baseline="ewc")
    with pytest.raises(InputError, match="at least one"):
        comparison([])


def test_labels(er: Record, grid: Record) -> None:
    strategy = {**er.job["strategy"], "memory": {**er.job["strategy"]["memory"], "capacity": 7}}
    small = replace(er, job={**er.job, "strategy": strategy})
    assert [e.label for e in entries([er, small])] == ["er capacity=500", "er capacity=7"]
    assert [e.label for e in entries([grid])] == ["er lr=0.03", "er lr=0.1", "er lr=1e+20"]
    assert [e.label for e in entries([er, grid])] == ["er", "er lr=0.03", "er lr=0.1", "er lr=1e+20"]
    assert [e.label for e in entries([er, er])] == ["er #1", "er #2"]
    named = [replace(er, directory=f"runs/{name}") for name in "ab"]
    assert [e.label for e in entries(named)] == ["er a", "er b"]


def test_summary_says_everything(er: Record, grid: Record) -> None:
    text = summary(er)
    for said in ("er on split_digits", "7 seeds (0–6)", "1 epoch", "seen classes", "adaptive ECE", "worst experience"):
        assert said in text
    line = next(row for row in text.splitlines() if row.strip().startswith("forgetting"))
    metric = er.metrics["forgetting"]
    assert numbers(line) == pytest.approx([metric.mean, metric.std, *(metric.ci95 or ())], abs=5.1e-4)
    assert "only seen classes may be predicted" in text  # why there is no FWT
    lines = summary(grid).splitlines()
    assert [row.split()[:2] for row in lines if row.startswith("er lr=")] == [
        ["er", "lr=0.03"], ["er", "lr=0.1"], ["er", "lr=1e+20"]
    ]  # fmt: skip
    assert "3 of 3 replicas diverged" in summary(grid)
    assert str(er) == text


def test_summary_names_diverged_seeds(er: Record) -> None:
    replicas = [dict(r) for r in er.replicas]
    replicas[2] |= {"status": "diverged", "diverged_at": 41}
    assert "1 of 7 replicas diverged: seed 2 (step 41)" in summary(replace(er, replicas=replicas))


def test_text_fits(finetune: Record, er: Record) -> None:
    frame = comparison([finetune, er])
    for width in (100, 120, 200):
        lines = as_text(frame, width).splitlines()
        assert len(lines) == 3
        assert max(map(len, lines)) <= width
    assert "difference" in as_text(frame)
    assert "worst class" in as_text(frame, 200)
    assert "worst class" not in as_text(frame, 80)


# ---------------------------------------------------------------------- notes
def test_other_streams_are_not_compared(er: Record, online: Record) -> None:
    frame = comparison([er, online])
    assert frame["difference"][1] == frame["p"][1] == "–"
    assert any("cannot be compared" in n and "online_split_digits, not split_digits" in n for n in notes([er, online]))
    hashed = replace(er, strategy="other", stream={**er.stream, "data_hash": "0"})
    assert any("data hash (0, not" in note for note in notes([er, hashed]))
    valid = replace(er, strategy="other", job={**er.job, "eval_on": "valid"})
    assert comparison([er, valid])["difference"][1] == "–"
    assert any("eval_on (valid, not test)" in note for note in notes([er, valid]))
    assert "% of the validation samples correctly" in text_of(page([valid]))


def test_other_settings_are_named(er: Record, finetune: Record) -> None:
    assert not any("settings" in note for note in notes([er, finetune]))
    other = replace(er, strategy="other", job={**er.job, "epochs": 9, "model": "another"})
    found = [note for note in notes([er, other]) if "settings" in note]
    assert len(found) == 1
    assert "epochs (9, not 1), model" in found[0]
    assert comparison([er, other])["difference"][1] != "–"


def test_notes_on_seeds_nulls_and_grids(er: Record, grid: Record) -> None:
    many = [with_accuracy(er, np.linspace(a, 0.9, 41).tolist(), strategy=f"s{a}", seeds=list(range(41)),
                          replicas=[{**er.replicas[0], "seed": s} for s in range(41)]) for a in (0.1, 0.2)]  # fmt: skip
    assert any("estimated from 99,999 random" in note for note in notes(many))
    assert not any("estimated" in note for note in notes([er]))
    found = notes([grid])
    assert any("er lr=1e+20: 3 of 3 replicas diverged" in note and "seed 0 at step" in note for note in found)
    assert any("smallest possible p-value is 0.25" in note for note in found)
    assert any("fewer than 6 seeds" in note for note in found)
    assert any("evaluated on the test data" in note for note in found)
    assert any(note.startswith("FWT is not given") and "eval_classes=seen" in note for note in found)


# ---------------------------------------------------------------------- grid points
def test_grid_points_are_drawn_from_their_own_replicas(grid: Record) -> None:
    single = cl_lib.run(SPLIT, cl_lib.strategies.ER(), optim=cl_lib.SGD(lr=0.03), seeds=3, lift="always")
    point = entries([grid])[0]
    for name in ("class", "experience", "age"):
        for key in ("support", "accuracy"):
            values = np.array(point.slices()[name][key], float)
            assert values == pytest.approx(np.array(single.slices[name][key], float), abs=1e-12, nan_ok=True)
    for when in ("before", "after"):
        ours, theirs = (np.array(r[when]["count"], float) for r in (point.reliability(), single.reliability))
        assert theirs.sum() > 0
        assert (ours == theirs).all()
    frame = comparison([grid])
    assert numbers(frame["accuracy"][0])[0] == pytest.approx(single.metrics["accuracy"].mean, abs=5.1e-4)
    assert frame["seeds"][2] == "0 of 3"
    assert frame["accuracy"][2] == "–"


# ---------------------------------------------------------------------- the page
def test_page_is_self_contained_and_complete(finetune: Record, er: Record, tmp_path: Path) -> None:
    path = write_report([finetune, er], tmp_path / "new" / "report.html", title="A <title>")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]  # no temporary left
    text = path.read_text()
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text)
    assert not re.search(r"<(script|link|iframe|img)|@import|url\((?!#)", text)
    assert len(text) < 1_000_000
    assert "A &lt;title&gt;" in text
    assert "<title>A <" not in text
    told = " ".join(text_of(text).split())
    best = er.metrics["accuracy"].mean
    assert best is not None
    assert f"er classifies {100 * best:.1f} % of the test samples correctly, averaged over all test sets" in told
    gap = paired_difference(er.metrics["accuracy"].per_seed, finetune.metrics["accuracy"].per_seed).mean
    assert gap is not None
    assert f"er is {100 * gap:.1f} percentage points above finetune" in told
    assert er.stream["data_hash"] in told
    assert "capacity: 500" in told  # the resolved configuration
    assert er.environment["torch"] in told
    assert "Linear(in_features=64" in told
    for title in ("adaptive ECE", "Cost", "Replicas", "By class", "By age"):
        assert title in told
    assert text.count("<svg") == 6
    assert page([er]) == page([er])  # the same record, the same bytes


def test_everything_is_escaped(er: Record) -> None:
    evil = '<script>alert("$x$ & y")</script>'
    slices = {**er.slices, "class": {**er.slices["class"], "labels": [f"<b>{i}</b>" for i in range(10)]}}
    slices["<i>column"] = slices["experience"]
    record = replace(er, strategy=evil, slices=slices, stream={**er.stream, "name": "<stream>"})
    record = replace(record, config={"note": "<config>"}, environment={**er.environment, "command": "run <b>"})
    text = page([record, er])
    for raw in ("<script", "<b>0</b>", "<i>column", "<stream>", "<config>", "run <b>"):
        assert raw not in text
    assert evil in text_of(text)
    assert "<config>" in text_of(text)


def test_page_survives_what_runs_can_do(er: Record, grid: Record, online: Record) -> None:
    one = cl_lib.run(SPLIT, cl_lib.strategies.Finetune(), seeds=1)
    lost = cl_lib.run(SPLIT, cl_lib.strategies.Finetune(), optim=cl_lib.SGD(lr=1e20), seeds=2, name="lost")
    bare = replace(er, arrays={}, strategy="bare")
    told = text_of(page([er, grid, online, one, lost, bare]))
    assert "2 of 2 diverged" in told
    assert "Calibration on online_split_digits" in told
    assert "nan" not in told.lower().replace("finetune", "")
    assert "None" not in re.sub(r"Resolved configuration.*?Network", "", told, flags=re.DOTALL).replace(
        "clip_norm=None", ""
    )
    assert "no accuracy to report" in text_of(page([lost]))
    assert "single random seed" in text_of(page([one]))
    assert "accuracy minus" not in text_of(page([one]))
    null = {name: Metric(None, None, None, 0, [None] * 7, "a reason") for name in er.metrics}
    assert "a reason" in text_of(page([replace(er, metrics=null)]))


def test_figures_at_scale(er: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = {
        "labels": [f"c{i}" for i in range(100)],
        "support": [50.0] * 99 + [3.0],
        "accuracy": [0.5] * 98 + [0.2, 0.1],
    }
    long = replace(er, arrays={}, accuracy_matrix=[[0.5] * 5] * 400, slices={"class": wide})
    long = replace(
        long, rows=[{"experience": i, "step": i} for i in range(400)], stream={**er.stream, "experiences": 399}
    )
    for draw in (accuracy_matrices, over_time, reliability_diagrams):
        assert len(draw(entries([long]))) < 400_000
    assert "n = 3–50 test samples each" in slice_bars(entries([long]), "class")
    assert over_time(entries([replace(er, strategy=f"s{i}") for i in range(14)])).count("s13<") == 1
    monkeypatch.setattr("cl_lib.report.html.DRAWN", 1)
    text = page([er, replace(er, strategy="other")])
    assert "first 1 of 2" in text_of(text)
    assert text.count("<svg") == 6


def test_an_entry_keeps_its_colour(finetune: Record, er: Record) -> None:
    lines = entries([finetune, er])
    for draw in (over_time, reliability_diagrams, lambda some: slice_bars(some, "class")):
        alone = draw(lines[1:])
        assert style(1).colour in alone
        assert style(0).colour not in alone
    assert len({style(i) for i in range(36)}) == 36


def test_write_report_is_atomic(er: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")
    with pytest.raises(InputError, match="is a directory"):
        write_report([er], tmp_path)
    with pytest.raises(InputError, match="baseline"):
        write_report([er], target, baseline="none")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        write_report([er], target)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("report.html", "old")]

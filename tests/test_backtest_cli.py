"""``cl-backtest``: what it prints and writes, exit codes, and one line for a mistake."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import cl_lib
from cl_lib import policies
from cl_lib.cli.backtest import _backtest, read_options
from cl_lib.cli.main import _guarded
from cl_lib.cli.policy_options import candidates
from cl_lib.errors import InputError
from cl_lib.record import Record
from cl_lib.service import backtest, result_file, table
from cl_lib.service.gate_curves import gate_curve
from cl_lib.service.refusals import refusals
from cl_lib.service.result_schema import check, schema


def run(*argv: object) -> int:
    return _guarded("cl-backtest", _backtest, [str(a) for a in argv])


@pytest.fixture
def folder(served_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(served_run, tmp_path / "run"))


@pytest.fixture(scope="module")
def record(served_run: Path) -> Record:
    return Record.load(served_run)


def test_it_prints_the_table_and_writes_the_results(folder, record, capsys):
    assert run(folder, "policy=every,on_gain", "policy.windows=2", "delay=0,1") == 0
    out = capsys.readouterr().out
    chosen = policies.Every(2), policies.OnGain()
    results = [backtest(record, policy, delay=delay, start=2) for delay in (0, 1) for policy in chosen]
    assert out.startswith(table(results, ["every windows=2", "on_gain"] * 2))
    data = result_file.read(folder)
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(data, schema())
    assert data["record"]["sha256"] == hashlib.sha256((folder / "record.json").read_bytes()).hexdigest()
    for entry, result in zip(data["results"], results, strict=True):
        assert entry["path"] == result.path.tolist()
        assert entry["updates"] == result.updates.tolist()
        assert entry["loss"]["per_replica"] == result.mean_loss.tolist()
        assert np.allclose(np.array(entry["skill"]["per_replica"], float), result.skill, rtol=0, equal_nan=True)
        assert entry["loss_by_window"]["mean"] == pytest.approx(result.loss.mean(0))
        assert entry["alarms"] == [np.flatnonzero(alarms).tolist() for alarms in result.alarms]
        assert entry["costs"]["steps"] == result.steps.tolist()
    assert data["results"][0]["policy"] == {"name": "Every", "fields": {"windows": 2.0}}


def test_a_grid_gives_one_entry_for_each_point_even_over_whole_numbers(folder, capsys):
    grid = ("grid.policy.effect=[.05,.2]", "grid.policy.n=[1,2]")
    assert run(folder, "policy=on_drift", "policy.watch=confidence,errors", *grid) == 0
    out = capsys.readouterr().out
    entries = result_file.read(folder)["results"]
    assert len(entries) == 8
    assert [entry["point"] for entry in entries[:2]] == [{"effect": 0.05}, {"effect": 0.2}]
    assert entries[0]["policy"]["fields"]["watch"]["name"] == "Confidence"
    assert "on_drift watch=errors n=2 effect=0.2" in out


def test_gates_wrap_the_policies_and_refusals_have_reasons(folder, record, capsys):
    assert run(folder, "policy=every", "gate=no_worse,no_slice_drop", "gate.by=class", "gate.drop=0") == 0
    assert "gated every" in capsys.readouterr().out
    (entry,) = result_file.read(folder)["results"]
    gates = policies.NoWorse(), policies.NoSliceDrop("class", 0.0)
    result = backtest(record, policies.Gated(policies.Every(), gates))
    assert entry["path"] == result.path.tolist()
    assert len(entry["refused"]) == result.refused.sum() == len(refusals(record, result)) > 0
    for refusal in entry["refused"]:
        assert result.refused[refusal["replica"], refusal["window"]]
        assert "not met on window" in refusal["reason"]


def test_the_page_and_the_results_go_where_they_are_asked_to(folder, tmp_path, capsys):
    page, other = tmp_path / "page.html", tmp_path / "new" / "other.json"
    assert run(folder, "--out", page, "--json", other, "policy=every", "policy.windows=2", "by=class") == 0
    assert page.exists()
    assert result_file.read(other)["results"][0]["name"] == "every windows=2"
    assert not (folder / "backtest.json").exists()
    assert f"report: {page}" in capsys.readouterr().out
    page.write_text("mine")
    assert run(folder, "--out", page) == 2
    assert page.read_text() == "mine"


def test_the_default_needs_predictions_only_where_there_are_some(folder, capsys):
    record = Record.load(folder)
    shutil.rmtree(folder)
    cl_lib.run(  # the same run without predictions
        cl_lib.streams.rotated(cl_lib.datasets.digits(), experiences=6),
        cl_lib.strategies.Finetune(),
        seeds=2,
        out=folder,
    )
    assert run(folder) == 0
    assert "on_drift" not in capsys.readouterr().out
    assert run(folder, "policy=on_drift") == 2
    assert "needs predictions" in capsys.readouterr().err
    assert Record.load(folder).metrics == record.metrics


MISTAKES = {
    "policy=on_dirft": "policy=on_dirft: unknown name; did you mean on_drift",
    "polcy=never": "polcy: unknown option; did you mean policy?",
    "policy=every policy.rise=.1": "policy.rise: none of the named policies has this field",
    "policy=every grid.policy.window=[1,2]": "grid.policy.window: none of the named policies has this field; did you",
    "policy=every grid.policy.windows=many": "grid.policy.windows='many': must be a list of numbers",
    "policy=every policy.windows=1,2": "policy.windows=1,2: is one number; for several give grid.policy.windows=[1,2]",
    "policy=every policy.windows=many": "policy.windows='many': must be a number",
    "policy=": "policy=: must be one or several names",
    "policy=on_drift policy.watch=input": "policy.watch=input: unknown name; did you mean inputs?",
    "policy=on_drift policy.watch.recnt=2": "policy.watch.recnt: Confidence has no such field; did you mean recent?",
    "policy=on_drift policy.watch.kind=inputs": "policy.watch.kind: Confidence has no such field; there are",
    "policy=on_drift policy.m=3": "m=3, n=1",
    "policy=on_decay policy.metric=acc": "metric='acc': unknown",
    "gate=no_wrose": "gate=no_wrose: unknown name; did you mean no_worse?",
    "gate=no_slice_drop": "gate=no_slice_drop: needs gate.by",
    "gate=no_slice_drop gate.by=clas": "slice 'clas': the predictions have no such column; did you mean class?",
    "gate.by=class": "gate.by: needs a gate",
    "gate=no_worse gate.staleness=0": "policy.staleness=0: must be at least 1",
    "delay=x": "delay='x': must be a whole number",
    "delay=0,9": "delay=9: leaves no decision",
    "delay=[]": "delay=[]: must be one or several whole numbers",
    "delay=[[1]]": "delay=[1]: must be a whole number",
    "metric=acc": "metric='acc': must be one of nll, error, brier",
    "start=40": "start=40: must be a window",
    "until=1.5": "until=1.5: must be a window",
    "by=clas": "by=clas: the record has no such column; did you mean class?",
    "by=clas --out page.html": "by=clas: the record has no such column; did you mean class?",
    "policy={": "policy={: cannot be read",
}


@pytest.mark.parametrize("options", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(options, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(folder, *options.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"cl-backtest: {MISTAKES[options]}")
    assert err.count("\n") == 1
    assert not (tmp_path / "page.html").exists()
    assert not (folder / "backtest.json").exists()


def test_a_record_that_cannot_be_used_is_a_mistake(tmp_path, capsys):
    assert run(tmp_path / "nothing") == 2
    assert "there is no record" in capsys.readouterr().err
    stream = cl_lib.streams.split(cl_lib.datasets.digits())
    cl_lib.run(stream, cl_lib.strategies.Finetune(), out=tmp_path / "split")
    assert run(tmp_path / "split") == 2
    assert "class-incremental" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_a_mistake(folder, capsys):
    folder.chmod(0o555)
    assert run(folder) == 2
    folder.chmod(0o755)
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["record.json", "arrays.npz", "notes.txt"])
def test_other_files_are_not_replaced_by_results(name, folder, capsys):
    (folder / "notes.txt").write_text("mine")
    before = (folder / name).read_bytes()
    assert run(folder, "policy=never", "--json", folder / name) == 2
    assert "holds no results of cl-backtest and is not replaced" in capsys.readouterr().err
    assert (folder / name).read_bytes() == before
    assert run(folder, "policy=never", "--json", folder / "other.json") == 0
    assert run(folder, "policy=every", "--json", folder / "other.json") == 0
    assert result_file.read(folder / "other.json")["results"][0]["name"] == "every"


def test_a_directory_is_no_file_for_results(folder, tmp_path, capsys):
    assert run(folder, "--json", tmp_path) == 2
    assert "is a directory" in capsys.readouterr().err


def test_help_lists_everything(capsys):
    with pytest.raises(SystemExit) as stop:
        _backtest(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for word in ("policy", "delay", "metric", "start", "until", "gate", "by", "example:", "--out", "--json"):
        assert word in out
    from cl_lib.cli.policy_options import GATES, POLICIES, WATCHES

    for name in (*POLICIES, *WATCHES, *GATES):
        assert name in out, name


def test_options_are_read_by_name():
    got = read_options(["delay=0,1", "until=5", "policy.cost=.1", "gate=no_worse"])
    assert got == {"delay": [0, 1], "until": 5, "policy.cost": 0.1, "gate": "no_worse"}
    first, second = candidates(["never", "cost_aware"], {"cost": 0.1}, {"cost": [1, 2]}, [], {})
    assert (first.policy, first.grid) == (policies.Never(), {})
    assert second.policy == policies.CostAware(0.1)
    assert second.grid == {"cost": [1, 2]}


# ---------------------------------------------------------------------- the file
BREAKS = {
    "schema": lambda d: d.update(schema="other/1"),
    "surprise": lambda d: d.update(surprise=1),
    "path": lambda d: d["results"][0].pop("path"),
    "path[1]": lambda d: d["results"][0]["path"][1].pop(),
    "updates": lambda d: d["results"][0]["updates"].append(3),
    "recall: mean": lambda d: d["results"][0]["recall"].update(mean=1.5),
    "never_by_window": lambda d: d["results"][0]["never_by_window"].pop(),
}


@pytest.mark.parametrize("name", BREAKS)
def test_reading_refuses_what_does_not_fit(name, record, tmp_path):
    data = json.loads(json.dumps(result_file.to_json([backtest(record, policies.Every(2))], record)))
    check(data)
    BREAKS[name](data)
    (tmp_path / "backtest.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"backtest\.json") as caught:
        result_file.read(tmp_path)
    assert name in str(caught.value)
    with pytest.raises(InputError):
        result_file.write(data, tmp_path / "new.json")
    assert not (tmp_path / "new.json").exists()


def test_undefined_numbers_are_null(record):
    (entry,) = result_file.to_json([backtest(record, policies.Never())], record)["results"]
    assert entry["skill"] == {"mean": None, "per_replica": [None, None], "interval": [None, None]}


# ---------------------------------------------------------------------- the gate curve
def test_the_gate_curve_equals_its_definition(record):
    table_, limit = record.arrays["matrix.nll"], 0.05
    for delay in (0, 1):
        counts = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
        for replica in table_:
            for w in range(delay + 3, 6):
                c = w - delay - 1
                refused = replica[c, c] - replica[c - 1, c] > limit
                harmful = not replica[c, w] < replica[c - 1, w]
                counts[harmful, bool(refused)] += 1
        curve = gate_curve(record, "nll", delay, [limit])
        assert curve.harmful == counts[True, True] + counts[True, False]
        assert curve.good == counts[False, True] + counts[False, False]
        for share, part, of in ((curve.blocked, True, curve.harmful), (curve.refused, False, curve.good)):
            assert np.isnan(share[0]) if not of else share[0] == counts[part, True] / of


def test_a_diverged_model_is_refused_and_may_be_replaced(record):
    arrays = {name: array.copy() for name, array in record.arrays.items()}
    arrays["matrix.nll"][0, 3] = np.nan  # the model after window 2, of the first seed only
    broken = dataclasses.replace(record, arrays=arrays)
    result = backtest(broken, policies.Gated(policies.Every(), (policies.NoWorse(),)), start=2)
    assert 3 not in result.path[0]
    stuck = backtest(broken, policies.Gated(policies.Every(), (policies.NoWorse(),)), start=3)
    assert stuck.path[0, 0] == 3
    assert stuck.path[0, 2] == 4  # tested on window 4, as soon as it can be
    curve, whole = gate_curve(broken, start=4), gate_curve(record, start=4)
    assert curve.harmful + curve.good == whole.harmful + whole.good


def test_the_whole_gate_curve_runs_from_refusing_all_to_none(record):
    curve = gate_curve(record)
    shares = [share for share in (curve.blocked, curve.refused) if np.isfinite(share).all()]
    for share in shares:
        assert (share[0], share[-1]) == (1.0, 0.0)
        assert (np.diff(share) <= 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "acc"}, "metric='acc'"),
        ({"delay": 3}, "leaves no update"),
        ({"start": 1.5}, "leaves no update"),
        ({"tolerances": ["x"]}, "is not a number"),
        ({"until": 7}, "leaves no update"),
    ],
)
def test_the_gate_curve_refuses_what_it_cannot_use(record, options, message):
    with pytest.raises(InputError, match=message):
        gate_curve(record, **options)

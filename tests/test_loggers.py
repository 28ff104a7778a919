"""Loggers: what they see, and that none of them can cost a run its record."""

from __future__ import annotations

import csv
import itertools
import signal
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest

import cl_lib
from cl_lib import InputError, datasets, strategies, streams
from cl_lib.harness.dispatch import check_loggers
from cl_lib.loggers import CSVLogger, WandbLogger, means


class Kept:
    """Keeps rows, and fails where it is told to."""

    def __init__(self, log_fails_at: int | None = None, close_fails: bool = False, error: type = RuntimeError) -> None:
        self.rows, self.closed, self.calls = [], 0, 0
        self.at, self.close_fails, self.error = log_fails_at, close_fails, error

    def log(self, row):
        self.calls += 1
        if self.at is not None and self.calls > self.at:
            raise self.error("the disk is full")
        self.rows.append(row)

    def close(self):
        self.closed += 1
        if self.close_fails:
            raise self.error("no network")


@pytest.fixture(scope="module")
def stream():
    return streams.split(datasets.digits())


@pytest.fixture(scope="module")
def uneven():
    """A stream whose seeds have experiences of other sizes, so that they train one after another."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), [30, 70, 40, 50])
    x = rng.normal(size=(len(y), 6)).astype(np.float32) + y[:, None]
    data = datasets.from_arrays((x, y), (x[::2], y[::2]))
    return streams.split(data, experiences=2, class_order="seed")


def test_a_logger_gets_every_row_and_is_closed(stream):
    kept = Kept()
    record = cl_lib.run(stream, strategies.ER(), seeds=2, loggers=[kept])
    assert [row.experience for row in kept.rows] == [0, 1, 2, 3, 4, 5]
    assert [row.step for row in kept.rows] == [r["step"] for r in record.rows]
    assert kept.closed == 1


@pytest.mark.parametrize("error", [RuntimeError, KeyError, MemoryError, OSError, InputError, SystemExit])
@pytest.mark.parametrize("at", [0, 2, 5, None])
def test_a_logger_that_raises_costs_one_warning_and_no_record(stream, tmp_path, at, error):
    bad, good = Kept(at, close_fails=True, error=error), Kept()
    with pytest.warns(UserWarning, match="logger Kept") as said:
        record = cl_lib.run(stream, strategies.ER(), seeds=2, out=tmp_path / "x", loggers=[bad, good])
    (one,) = [str(w.message) for w in said]
    assert "logger Kept" in one
    assert error.__name__ in one
    assert bad.calls == (6 if at is None else at + 1), "it is not called again"
    assert len(good.rows) == 6
    assert (bad.closed, good.closed) == (1, 1)
    assert (tmp_path / "x" / "record.json").exists()
    assert record.accuracy_matrix == cl_lib.run(stream, strategies.ER(), seeds=2).accuracy_matrix


def test_loggers_are_closed_when_the_run_raises_or_is_interrupted(stream):
    class Stops(Kept):
        def log(self, row):
            raise KeyboardInterrupt

    kept, stops = Kept(), Stops()
    with pytest.raises(KeyboardInterrupt):
        cl_lib.run(stream, strategies.ER(), loggers=[kept, stops])
    assert (kept.closed, stops.closed) == (1, 1)
    with pytest.raises(InputError, match="batch_size=0"):
        cl_lib.run(stream, strategies.ER(), batch_size=0, loggers=[kept])
    assert kept.closed == 2


def test_control_c_while_a_row_is_logged_ends_at_a_step_with_a_checkpoint(stream, tmp_path):
    class Slow(Kept):
        def log(self, row):
            super().log(row)
            if row.experience == 2:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(cl_lib.Interrupted, match="interrupted at step"):
        cl_lib.run(stream, strategies.ER(), out=tmp_path / "x", loggers=[Slow()])
    assert (tmp_path / "x" / "checkpoint.npz").exists()


def test_a_logger_cannot_change_the_record(stream):
    class Changes(Kept):
        def log(self, row):
            row.arrays["accuracy"][:] = 0

    with pytest.warns(UserWarning, match="read-only"):
        record = cl_lib.run(stream, strategies.ER(), seeds=2, loggers=[Changes()])
    assert record.metrics["accuracy"].mean > 0.5


def test_steps_rise_over_groups_of_replicas(uneven, tmp_path):
    kept = Kept()
    record = cl_lib.run(uneven, strategies.ER(), seeds=4, loggers=[kept, CSVLogger(tmp_path / "rows.csv")])
    assert len({tuple(row.replicas) for row in kept.rows}) > 1, "several groups"
    steps = [row.step for row in kept.rows]
    assert all(a < b for a, b in itertools.pairwise(steps))
    with (tmp_path / "rows.csv").open() as file:
        lines = list(csv.DictReader(file))
    own = [int(line["step"]) for line in lines if line["replica"] == "0" and line["column"] == "1"]
    assert own == record.arrays["step"][0].tolist(), "a replica's own steps"
    for replica in range(4):
        assert next(line["step"] for line in lines if int(line["replica"]) == replica) == "0"


def test_means_run_over_healthy_replicas_and_say_how_many(stream):
    kept = Kept()
    record = cl_lib.run(
        stream, strategies.Finetune(), seeds=1, grid={"optim.lr": [0.1, 1e30]}, loggers=[kept], eval_every=5
    )
    assert [r["status"] for r in record.replicas] == ["ok", "diverged"]
    last = means(kept.rows[-1])
    assert last["replicas"] == 1
    assert last["accuracy"] == pytest.approx(kept.rows[-1].arrays["pooled.accuracy"][0])
    assert all(np.isfinite(list(last.values())))


# ---------------------------------------------------------------------- CSV
def test_a_resumed_run_leaves_every_row_once(stream, tmp_path):
    class Stops(Kept):
        def log(self, row):
            super().log(row)
            if len(self.rows) == 3:
                raise KeyboardInterrupt

    def go(directory, *more, resume=False):
        loggers = [CSVLogger("rows.csv", directory), *more]
        return cl_lib.run(stream, strategies.ER(), seeds=2, out=directory, resume=resume, loggers=loggers)

    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "cut", Stops())
    go(tmp_path / "cut", resume=True)
    go(tmp_path / "whole")
    whole = (tmp_path / "whole" / "rows.csv").read_text()
    assert (tmp_path / "cut" / "rows.csv").read_text() == whole
    go(tmp_path / "whole", resume=True)
    assert (tmp_path / "whole" / "rows.csv").read_text() == whole, "a finished run is not logged again"


def test_a_file_holds_the_rows_of_one_writer(stream, tmp_path):
    path = tmp_path / "rows.csv"
    with pytest.warns(UserWarning, match=r"logger CSVLogger: log failed .*rows.csv was changed by another writer"):
        cl_lib.run(stream, strategies.ER(), seeds=2, loggers=[CSVLogger(path), CSVLogger(path)])
    lines = path.read_text().splitlines()
    assert len(lines) == len(set(lines)) == 1 + 2 * 5 * 6


def test_a_file_that_cannot_be_written_costs_a_warning(stream, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="logger CSVLogger"):
        record = cl_lib.run(stream, strategies.ER(), loggers=[CSVLogger(tmp_path / "file" / "rows.csv")])
    assert record.metrics["accuracy"].n == 1


def test_a_csv_logger_replaces_nothing_but_rows(tmp_path):
    (tmp_path / "data.csv").write_text("age,income\n1,2\n")
    with pytest.raises(InputError, match=r"data.csv: was not written by this logger"):
        CSVLogger(tmp_path / "data.csv")
    (tmp_path / "link.csv").symlink_to(tmp_path / "data.csv")
    with pytest.raises(InputError, match="is not a regular file"):
        CSVLogger(tmp_path / "link.csv")
    with pytest.raises(InputError, match="is not a regular file"):
        CSVLogger("/dev/null")


# ---------------------------------------------------------------------- Weights & Biases
@pytest.fixture
def wandb(monkeypatch):
    """A stand-in that keeps what is logged: by W&B's rules a step that does not rise is dropped."""
    runs = []

    class Run:
        def __init__(self, **options):
            self.options, self.rows, self.finished = options, {}, False
            runs.append(self)

        def log(self, values, step):
            if not self.rows or step > max(self.rows):
                self.rows[step] = values

        def finish(self):
            self.finished = True

    def login(prompt=True, verify=True):
        return False

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=Run, login=login, runs=runs))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return runs


def test_wandb_gets_every_row_of_every_group(uneven, wandb):
    kept = Kept()
    cl_lib.run(uneven, strategies.ER(), seeds=4, loggers=[WandbLogger("p", "er"), kept])
    (run,) = wandb
    assert len(run.rows) == len(kept.rows)
    assert run.options["mode"] == "offline"
    assert run.finished


def test_a_wandb_run_is_finished_when_the_job_raises(stream, wandb):
    class Broken(strategies.ER):
        def consolidate(self, net, state, data):
            raise RuntimeError("boom")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="boom"):
            cl_lib.run(stream, Broken(), loggers=[WandbLogger("p")])
    assert [run.finished for run in wandb] == [True, True], "each job has a run of its own"


def test_wandb_online_without_a_login_is_refused(wandb):
    with pytest.raises(InputError, match="mode=online: no W&B login found"):
        WandbLogger("p", mode="online")
    with pytest.raises(InputError, match="must be one of auto, online, offline, disabled"):
        WandbLogger("p", mode="on")
    assert not wandb


# ---------------------------------------------------------------------- what is none, and what was before
@pytest.mark.parametrize("loggers", [5, "csv", CSVLogger("x.csv"), [print], [CSVLogger], [None], {"csv": 1}])
def test_what_is_no_logger_is_named(stream, loggers):
    with pytest.raises(InputError, match="loggers"):
        cl_lib.run(stream, strategies.ER(), loggers=loggers)


def test_sinks_still_work_and_are_deprecated(stream, tmp_path):
    rows = []
    with pytest.warns(DeprecationWarning, match="use loggers") as said:
        cl_lib.run(stream, strategies.ER(), sinks=[rows.append, lambda row: None])
    assert len(said) == 1
    assert len(rows) == 6
    with pytest.warns(DeprecationWarning, match="CSVLogger"):
        sink = cl_lib.sinks.csv_sink(tmp_path / "rows.csv")
    for row in cl_lib.iter_run(stream, strategies.ER()):
        sink(row)
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 31


def test_a_sink_that_raises_costs_no_record(stream, tmp_path):
    def broken(row):
        raise ValueError("no")

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        cl_lib.run(stream, strategies.ER(), out=tmp_path / "x", sinks=[broken])
    assert [w.category for w in said] == [DeprecationWarning, UserWarning]
    assert "broken: log failed (ValueError: no)" in str(said[1].message)
    assert Path(tmp_path / "x" / "record.json").exists()


def test_no_loggers_cost_nothing_to_check():
    assert check_loggers(()) == []

"""Sweeps and the command line's edges: no job ends the others; exit codes, outputs and signals."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import cl_lib
from cl_lib import InputError, Memory, datasets, strategies, streams
from cl_lib.cli import main as cli
from cl_lib.cli.overrides import as_typed, compose_all, compose_config, directory_of
from cl_lib.cli.sweep import finished
from cl_lib.files import Lock

QUICK = ["epochs=1", "seeds=1", "progress=false", "device=cpu", "eval_every=5"]
BROKEN = """
import sys
from dataclasses import dataclass
import torch
from cl_lib import InputError
from cl_lib.strategies import ER

@dataclass(frozen=True)
class Broken(ER):
    how: str = "runtime"

    def consolidate(self, net, state, data):
        match self.how:
            case "runtime":
                raise RuntimeError("boom\\nand more")
            case "input":
                raise InputError("strategy.how=input: noticed late")
            case "memory":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
            case "exit":
                sys.exit(0)
        return state
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """The option that makes ``strategy=broken`` known."""
    (tmp_path / "broken_strategy.py").write_text(BROKEN)
    (tmp_path / "mine" / "strategy").mkdir(parents=True)
    (tmp_path / "mine" / "strategy" / "broken.yaml").write_text(
        "_target_: broken_strategy.Broken\nhow: runtime\nmemory:\n  _target_: cl_lib.Memory\n  capacity: 20\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path[1:]]))
    return "--config-dir=mine"


def bench(*argv: str) -> int:
    return cli._guarded("cl-bench", cli._bench, [*argv])


def report(*argv: str) -> int:
    return cli._guarded("cl-report", cli._report, [*argv])


def program(*argv: str, **options) -> subprocess.Popen:
    code = "import sys; from cl_lib.cli import bench; sys.argv[0] = 'cl-bench'; bench()"
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("environment", {})}
    return subprocess.Popen([sys.executable, "-c", code, *argv], env=environment, **options)


# ---------------------------------------------------------------------- one job does not end a sweep
LAUNCHERS = ["basic", "joblib"]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_jobs_that_fail_are_named_and_the_others_compared(broken, launcher, capfd):
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs hydra-joblib-launcher")
    how = "strategy.how=runtime,none,input,memory,exit"
    argv = [broken, "-m", "strategy=broken", how, f"hydra/launcher={launcher}", "out=x", *QUICK]
    assert bench(*argv) == 1
    out, error = capfd.readouterr()
    assert "Traceback" not in error
    named = [line for line in error.splitlines() if " failed: " in line]
    assert [line.split(" failed: ")[0] for line in named] == [
        f"cl-bench: strategy.how={name}" for name in ("runtime", "input", "memory", "exit")
    ]
    assert "RuntimeError: boom (broken_strategy.py, line 15)" in named[0]
    assert named[1].endswith("failed: strategy.how=input: noticed late")
    assert "do not fit into memory" in named[2]
    assert "SystemExit: 0" in named[3]
    assert "report: x/report.html" in out
    assert [p.name for p in Path("x").iterdir() if finished(p)] == ["strategy.how=none"]
    assert not Path("multirun.yaml").exists()


def test_a_baseline_that_failed_is_replaced(broken, capsys):
    assert bench(broken, "-m", "strategy=broken,er,finetune", "baseline=broken", "out=x", *QUICK) == 1
    assert "note: the baseline broken is not finished" in capsys.readouterr().out
    assert Path("x/report.html").exists()


def test_a_sweep_without_a_finished_run_exits_with_one(broken, capsys):
    assert bench(broken, "-m", "strategy=broken", "strategy.how=runtime,input", "out=x", *QUICK) == 1
    assert capsys.readouterr().err.count(" failed: ") == 2


# ---------------------------------------------------------------------- Hydra's ways to write sweeps
@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (["strategy=choice(er,finetune)"], ["er", "finetune"]),
        (["strategy=glob(er_*,exclude=*s)"], ["er_ace", "er_compressed"]),
        (["epochs=range(1,3)"], ["epochs=1", "epochs=2"]),
        (["strategy=shuffle(er,finetune)"], ["er", "finetune"]),
        (["strategy=sort(finetune,er)"], ["er", "finetune"]),
        (["strategy.memory.capacity=choice(20,30)"], ["strategy.memory.capacity=20", "strategy.memory.capacity=30"]),
    ],
    ids=lambda v: v[0] if "=" in v[0] else "",
)
def test_hydras_sweeps_are_read(argv, names):
    from cl_lib.cli.overrides import expand, swept_keys

    jobs = expand([*argv, "out=x"], None, True)
    swept = swept_keys(jobs)
    own = [directory_of("", job, swept).name for job in jobs] if len(jobs) > 1 else [jobs[0][0].split("=")[1]]
    assert sorted(own) == names


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-m", "optim.lr=interval(0.01,0.1)"], "optim.lr=interval(0.01,0.1): an interval needs a sweeper"),
        (["optim.lr=interval(0.01,0.1)"], "several values need -m"),
        (["-m", "strategy=glob(zz*)"], "strategy=glob(zz*): matches no strategy; there are"),
        (["-m", "strategy=choice(er,ewv)"], "strategy=ewv: there is no strategy of that name; did you mean ewc"),
        (["-m", "hydra/sweeper=nope", "strategy=er"], "Could not find 'hydra/sweeper/nope'"),
        (["-m", "hydra.sweeper.max_batch_size=2", "out=x"], "hydra.sweeper: the basic sweeper has no options here"),
        (["resume=true"], "resume=true: needs out=DIR"),
        (["-m", "strategy=er,finetune", "resume=True"], "resume=true: needs out=DIR"),
        (["out=' '"], "out=' ': must not be blank"),
        (["out=" + 300 * "a"], "a…: cannot be a directory (File name too long)"),
        (["-m", "strategy=er,finetune", "out=" + 300 * "a"], "a…: cannot be a directory (File name too long)"),
        (["-m", "strategy=er,finetune", "out=/proc/none"], "out=/proc/none: cannot be created as a directory"),
        (["out=[a]"], "out=['a']: must be a string"),
        (["stream.name=[a]"], "stream.name=['a']: must be a string"),
        (["seeds=[-1]"], "seeds: -1 is not a valid seed"),
        (["logger=wandb", "logger.mode=on"], "logger.mode='on': must be one of auto, online, offline, disabled"),
        (["logger=csv", "logger.file=a/b.csv"], "logger.file='a/b.csv': must be the name of a .csv file"),
        (["logger=csv", "logger.file=5"], "logger.file=5: must be a string"),
    ],
    ids=lambda v: " ".join(v)[:60] if isinstance(v, list) else "",
)
def test_mistakes_are_named(argv, message, capsys):
    assert bench(*argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1


def test_out_is_a_name_as_it_was_typed():
    for name in ("5", "2026_11", "1e3", "a=b", "x/optim.lr=0.1", "it's"):
        (quoted,) = as_typed([f"out={name}"])
        assert compose_config([quoted], None)["out"] == name
    assert bench("out=5", *QUICK) == 0
    assert Path("5/record.json").exists()


def test_long_names_of_a_sweeps_runs_are_cut_and_differ():
    job = [f"stream.data.root={300 * 'é'}{i}" for i in range(2)]
    names = [directory_of("x", [one], ["stream.data.root"]).name for one in job]
    assert len(set(names)) == 2
    assert all(len(name.encode()) <= 200 for name in names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_target_: cl_lib.strategies.ER\nmemory:\n\tcapacity: 5\n", "odd.yaml, line 3: found character '\\t'"),
        ("_target_: cl_lib.strategies.ER\nbeta: 1\nbeta: 2\n", "odd.yaml, line 3: found duplicate key beta"),
        ("_target_: [\n", "odd.yaml, line 2:"),
        ("_target_: 'é\0'\n", "odd.yaml"),
    ],
)
def test_yaml_mistakes_name_file_and_line(text, message, tmp_path, capsys):
    (tmp_path / "mine" / "strategy").mkdir(parents=True)
    (tmp_path / "mine" / "strategy" / "odd.yaml").write_text(text)
    assert bench("--config-dir", "mine", "strategy=odd") == 2
    assert message in capsys.readouterr().err


def test_yaml_that_is_no_text_is_named(tmp_path, capsys):
    (tmp_path / "mine" / "strategy").mkdir(parents=True)
    (tmp_path / "mine" / "strategy" / "odd.yaml").write_bytes(b"_target_: \xff\xfe\n")
    assert bench("--config-dir", "mine", "strategy=odd") == 2
    assert "odd.yaml: is not valid UTF-8" in capsys.readouterr().err


def test_what_jobs_share_is_composed_once(monkeypatch):
    import hydra
    from omegaconf import OmegaConf

    from cl_lib.cli.overrides import _hydra

    jobs = [[f"strategy={s}", f"optim.lr={lr}", "++grid.optim.momentum=[0,0.9]"] for s in ("er", "si") for lr in (1, 2)]
    with _hydra(None):
        alone = [OmegaConf.to_container(hydra.compose("config", job), resolve=True) for job in jobs]
    calls, compose = [], hydra.compose
    monkeypatch.setattr(hydra, "compose", lambda *a: calls.append(a) or compose(*a))
    assert compose_all(jobs, None) == alone
    assert len(calls) == 2


# ---------------------------------------------------------------------- sweepers that search
def test_a_run_returns_its_accuracy_and_goes_into_a_numbered_directory(monkeypatch, capsys):
    from hydra.core.plugins import Plugins

    instantiate, returned = Plugins.instantiate_sweeper, []

    class Search:
        """Runs two points one after the other, as Optuna's sweeper does."""

        def __init__(self, launcher):
            self.launcher = launcher

        def sweep(self, arguments):
            fixed = [a for a in arguments if "interval" not in a]
            for i, lr in enumerate((0.1, 0.1)):
                (job,) = self.launcher.launch([[*fixed, f"optim.lr={lr}"]], initial_job_idx=i)
                returned.append(float(job.return_value))

    monkeypatch.setattr(Plugins, "instantiate_sweeper", lambda *a, **k: Search(instantiate(*a, **k).launcher))
    monkeypatch.setattr("cl_lib.cli.main.searches", lambda o: True)
    monkeypatch.setattr("cl_lib.cli.sweep.searches", lambda o: True)
    monkeypatch.setattr("cl_lib.cli.overrides.searches", lambda o: True)
    assert bench("-m", "optim.lr=interval(0.01,0.1)", "out=x", *QUICK) == 0
    means = [json.loads(Path(f"x/{i}/record.json").read_text())["metrics"]["accuracy"]["mean"] for i in range(2)]
    assert returned == means
    assert "report: x/report.html" in capsys.readouterr().out


# ---------------------------------------------------------------------- exit codes and signals
def test_a_run_that_fails_by_itself_exits_with_one(broken):
    with program(broken, "strategy=broken", "out=x", *QUICK) as process:
        _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "RuntimeError: boom" in error


def test_the_module_is_the_program():
    done = subprocess.run(
        [sys.executable, "-m", "cl_lib.cli", "out=x", *QUICK], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert "er on split_digits" in done.stdout
    assert finished(Path("x"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_has_exit_codes_of_its_own(number, code):
    options = ["-m", "strategy=er,derpp", "seeds=2", "epochs=400", "device=cpu", "out=cut"]
    with program(*options) as process:
        os.read(process.stderr.fileno(), 4096)  # the progress bar: training has begun
        time.sleep(1)
        process.send_signal(number)
        _, error = process.communicate(timeout=120)
    assert process.returncode == code
    assert "there is a checkpoint in cut/er. Resume with: cl-bench -m" in error
    assert "resume=true" in error


def test_a_second_control_c_says_whether_there_is_a_checkpoint(monkeypatch, capsys):
    def stopped(*given, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("cl_lib.harness.runner.run_job", stopped)
    assert bench("out=x", *QUICK) == 130
    assert "cl-bench: stopped; there is no checkpoint in x" in capsys.readouterr().err
    Path("x").mkdir(exist_ok=True)
    Path("x/checkpoint.npz").touch()
    monkeypatch.setattr("cl_lib.cli.preflight._claimable", lambda *given: None)
    assert bench("out=x", *QUICK) == 130
    assert "cl-bench: stopped; there is a checkpoint in x. Resume with: cl-bench" in capsys.readouterr().err


def test_an_interruption_survives_a_launcher(monkeypatch):
    from hydra.core.plugins import Plugins

    instantiate = Plugins.instantiate_sweeper

    class Remote:
        """Sends what a job raises through pickle, as joblib does."""

        def __init__(self, launcher):
            self.launcher = launcher

        def launch(self, *given, **options):
            try:
                return self.launcher.launch(*given, **options)
            except BaseException as error:
                raise pickle.loads(pickle.dumps(error)) from None

    def remote(*given, **options):
        sweeper = instantiate(*given, **options)
        sweeper.launcher = Remote(sweeper.launcher)
        return sweeper

    def stopped(*given, **options):
        raise cl_lib.Interrupted(3, 10, Path("x"))

    monkeypatch.setattr(Plugins, "instantiate_sweeper", remote)
    monkeypatch.setattr("cl_lib.harness.runner.run_job", stopped)
    assert bench("-m", "strategy=er,finetune", "out=x", *QUICK) == 130


def test_slurms_requeue_goes_on(monkeypatch, capsys):
    stop = cl_lib.harness.session.Session._stops
    monkeypatch.setattr(cl_lib.harness.session.Session, "_stops", lambda self, done: done > 100)
    assert bench("out=x", *QUICK) == 130
    monkeypatch.setattr(cl_lib.harness.session.Session, "_stops", stop)
    assert bench("out=x", *QUICK) == 2
    assert "holds an unfinished run" in capsys.readouterr().err
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert bench("out=x", *QUICK, "batch_size=20") == 2, "another job is refused"
    assert bench("out=x", *QUICK) == 0


def test_a_record_that_cannot_be_written_is_shown(monkeypatch, capsys):
    record = cl_lib.run(streams.split(datasets.digits()), strategies.ER())

    def full(*given, **options):
        error = InputError("out=x: the record cannot be written (No space left on device)")
        error.record = record
        raise error

    monkeypatch.setattr("cl_lib.harness.runner.run_job", full)
    assert bench("out=x", *QUICK) == 2
    out, error = capsys.readouterr()
    assert "er on split_digits" in out
    assert error == "cl-bench: out=x: the record cannot be written (No space left on device)\n"


def test_resuming_needs_a_directory():
    stream = streams.split(datasets.digits())
    with pytest.raises(InputError, match="resume=True: needs out"):
        cl_lib.run(stream, strategies.ER(), resume=True)


# ---------------------------------------------------------------------- outputs
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_outputs_of_other_encodings(encoding):
    with program("out=x", *QUICK, "seeds=2", environment={"PYTHONIOENCODING": encoding}, text=False) as process:
        out, error = process.communicate(timeout=120)
    assert (process.returncode, error) == (0, b"")
    assert b"accuracy" in out
    out.decode(encoding)


@pytest.mark.parametrize(
    ("redirected", "code"),
    [
        ("2>&-", 0),
        (">&-", 0),
        (">&- 2>&-", 0),
        ("| true", 0),
        ("2>&1 | true", 0),
        ("2>/dev/full", 0),
        (">/dev/full", 2),
    ],
)
def test_outputs_that_are_closed_broken_or_full(redirected, code):
    argv = " ".join(["out=x", "seeds=1", "epochs=1", "device=cpu", "progress=true"])
    shell = f"set -o pipefail; {sys.executable} -m cl_lib.cli {argv} {redirected}"
    done = subprocess.run(["bash", "-c", shell], stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert finished(Path("x"))


# ---------------------------------------------------------------------- cl-report
@pytest.fixture
def one(tmp_path):
    stream = streams.split(datasets.digits())
    cl_lib.run(stream, strategies.Finetune(), eval_every=5, out=tmp_path / "sweep" / "finetune")
    return "sweep"


def test_reports_name_unfinished_runs(one, capsys):
    Path("sweep/er").mkdir()
    Path("sweep/er/partial.json").write_text("{}")
    assert report(one) == 0
    assert "note: sweep/er holds an unfinished run" in capsys.readouterr().out
    assert report("sweep/er") == 2
    assert "sweep/er is unfinished, resume it with resume=true" in capsys.readouterr().err


def test_a_report_replaces_nothing_but_a_report(one, tmp_path, capsys):
    others = {"notes.html": "<html>mine</html>", "empty.html": "", "x.npz": "PK"}
    for name, text in others.items():
        Path(name).write_text(text)
    Path("link.html").symlink_to("notes.html")
    Path("dangling.html").symlink_to("nothing.html")
    os.mkfifo("pipe.html")
    Path("folder.html").mkdir()
    for name in [*others, "link.html", "dangling.html", "pipe.html", "folder.html", "/dev/null", "/dev/stdout"]:
        assert report(one, "--out", name) == 2, name
        assert name in capsys.readouterr().err
    assert {name: Path(name).read_text() for name in others} == others
    assert Path("link.html").is_symlink()
    assert not Path("nothing.html").exists()
    assert report(one, "--out", "own.html") == 0
    assert report(one, "--out", "own.html") == 0, "its own earlier report"
    Path("own.html").chmod(0o444)
    assert report(one, "--out", "own.html") == 2
    assert "own.html: is read-only" in capsys.readouterr().err
    assert report(one, "--out", "/proc/none/report.html") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_sweep_does_not_replace_a_file_of_ones_own(capsys):
    Path("x").mkdir()
    Path("x/report.html").write_text("mine")
    assert bench("-m", "strategy=er,finetune", "out=x", *QUICK) == 2
    assert "x/report.html: is not a report of cl-report" in capsys.readouterr().err
    assert not list(Path("x").glob("*/record.json")), "noticed before any work"


# ---------------------------------------------------------------------- NumPy's numbers
def test_numpys_numbers_are_numbers(tmp_path):
    stream = streams.split(datasets.digits(), experiences=np.int64(5), valid=np.float32(0.25))
    strategy = strategies.ER(beta=np.float32(0.5), combine="sum", memory=Memory(np.int64(50), batch=np.int32(5)))
    options = {
        "seeds": np.arange(2), "epochs": np.array([1, 1, 1, 1, 2]), "batch_size": np.int64(10),
        "eval_every": np.uint8(5), "optim": cl_lib.SGD(lr=np.float64(0.1), momentum=np.float32(0)),
    }  # fmt: skip
    record = cl_lib.run(stream, strategy, **options, out=tmp_path / "x")
    assert record.seeds == [0, 1]
    own = json.loads((tmp_path / "x" / "record.json").read_text())["job"]
    assert (own["batch_size"], own["strategy"]["memory"]["capacity"], own["strategy"]["beta"]) == (10, 50, 0.5)
    ewc = strategies.EWC()
    grid = cl_lib.run(stream, ewc, grid={"strategy.lam": np.logspace(0, 1, 2)}, eval_every=5)
    assert [p["hyper"]["strategy.lam"] for p in grid.grid] == [1.0, 10.0]


@pytest.mark.parametrize("value", [True, np.True_, 1.5, np.float64(2), "3", None])
def test_what_is_no_whole_number_stays_none(value):
    stream = streams.split(datasets.digits())
    with pytest.raises(InputError, match=r"batch_size=.*: must be a whole number, 1 or more"):
        cl_lib.run(stream, strategies.ER(), batch_size=value)
    with pytest.raises(InputError, match="must be a whole number"):
        cl_lib.run(stream, strategies.ER(memory=Memory(capacity=value)))


# ---------------------------------------------------------------------- two at once
def test_runs_begun_in_the_same_second_both_survive(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cl_lib.cli", "seeds=1", "epochs=1", "progress=false", "strategy=finetune"]
    environment = os.environ | {"PYTHONPATH": str(Path(cl_lib.__file__).parents[1])}
    both = [
        subprocess.Popen([*command, f"batch_size={size}"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE)
        for size in (20, 30)
    ]
    assert [process.communicate(timeout=120) and process.returncode for process in both] == [0, 0]
    records = [cl_lib.Record.load(path) for path in (tmp_path / "runs").iterdir()]
    assert sorted(record.job["batch_size"] for record in records) == [20, 30]


def test_a_default_name_that_is_taken_gets_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cl_lib.cli.overrides.time.strftime", lambda *_: "20260101-000000")
    for _ in range(2):
        assert cli._guarded("cl-bench", cli._bench, ["seeds=1", "epochs=1", "progress=false", "strategy=finetune"]) == 0
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == ["split_digits-finetune-20260101-000000", "split_digits-finetune-20260101-000000-2"]


def test_two_sweeps_do_not_share_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["-m", "strategy=finetune,frozen", "seeds=1", "epochs=1", "progress=false", f"out={tmp_path}"]
    with Lock(tmp_path):
        assert cli._guarded("cl-bench", cli._bench, argv) == 2
    assert f"another run (process {os.getpid()} on " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

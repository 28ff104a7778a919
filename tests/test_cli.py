"""The command line: what it leaves, and what it says to a mistake (one line, exit code 2, no traceback)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import cl_lib
from cl_lib.cli import main as cli
from cl_lib.cli.overrides import compose_config
from cl_lib.datasets import write_idx

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
QUICK = ["epochs=1", "seeds=2", "progress=false", "device=cpu"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def bench(*argv: str) -> int:
    return cli._guarded("cl-bench", cli._bench, [*argv])


def report(*argv: str) -> int:
    return cli._guarded("cl-report", cli._report, [*argv])


def record(path: str | Path) -> dict:
    return json.loads((Path(path) / "record.json").read_text())


# ---------------------------------------------------------------------- what it does
def test_no_argument_runs_er_on_split_digits_with_ten_seeds(tmp_path, capsys):
    assert bench() == 0
    out = capsys.readouterr()
    assert "er on split_digits" in out.out
    assert "10 seeds" in out.out
    (directory,) = (tmp_path / "runs").iterdir()
    own = record(directory)
    assert own["strategy"] == "er"
    assert own["seeds"] == list(range(10))
    assert own["stream"]["name"] == "split_digits"
    assert len(own["metrics"]["accuracy"]["per_seed"]) == 10
    assert 0.8 < own["metrics"]["accuracy"]["mean"] < 1
    assert len(own["accuracy_matrix"]) == 6
    assert {p.name for p in directory.iterdir()} == {"record.json", "arrays.npz", "config.yaml"}
    assert own["environment"]["command"] == "cl-bench"


def test_the_fixed_option_names_reach_the_record(tmp_path):
    options = [
        "stream=split_digits", "strategy=er", "strategy.memory.capacity=50", "strategy.memory.batch=5", "optim.lr=0.05",
        "optim.momentum=0.9", "optim.weight_decay=0.0001", "stream.experiences=2", "seeds=[3,5]", "epochs=2",
        "batch_size=20", "eval_every=2", "engine.lift=always", "engine.compile=false", "device=cpu", "out=x",
    ]  # fmt: skip
    assert bench(*options, "progress=false") == 0
    own = record("x")
    assert own["seeds"] == [3, 5]
    assert own["config"]["strategy"]["memory"]["capacity"] == 50
    assert own["job"]["strategy"]["memory"]["batch"] == 5
    assert own["job"]["optim"] == own["job"]["optim"] | {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.0001}
    assert own["stream"]["experiences"] == 2
    assert [r["experience"] for r in own["rows"]] == [0, 2]
    assert [r["seed"] for r in own["replicas"]] == [3, 5]


@pytest.mark.timeout(300)
def test_a_sweep_ends_with_one_table_and_one_report(capsys):
    assert bench("-m", "strategy=finetune,er,joint", "out=x", *QUICK) == 0
    out = capsys.readouterr().out
    for name in ("finetune", "er", "joint"):
        assert record(f"x/{name}")["strategy"] == name
        assert f"{name}: accuracy" in out
    assert "baseline" in out
    assert "<html" in Path("x/report.html").read_text()
    assert report("x/er", "x/finetune", "--out", "again.html", "--baseline", "er") == 0
    assert Path("again.html").exists()


def test_a_sweep_over_an_option_names_its_directories_by_it():
    assert bench("-m", "optim.lr=0.05,0.1", "out=x", *QUICK) == 0
    assert sorted(p.name for p in Path("x").iterdir()) == ["optim.lr=0.05", "optim.lr=0.1", "report.html"]


def test_a_grid_is_trained_as_replicas_of_one_run_crossed_with_the_seeds():
    assert bench("strategy=ewc_online", "grid.strategy.lam=[1,10,100]", "out=x", *QUICK) == 0
    own = record("x")
    assert [(r["hyper"]["strategy.lam"], r["seed"]) for r in own["replicas"]] == [
        (1, 0), (1, 1), (10, 0), (10, 1), (100, 0), (100, 1),
    ]  # fmt: skip
    assert [p["hyper"]["strategy.lam"] for p in own["grid"]] == [1, 10, 100]
    assert bench("strategy=ewc_online", "strategy.lam=10", "out=y", *QUICK) == 0
    alone = record("y")["metrics"]["accuracy"]["per_seed"]
    assert own["grid"][1]["metrics"]["accuracy"]["per_seed"] == pytest.approx(alone)


STREAMS = sorted(p.stem for p in (Path(cl_lib.__file__).parent / "conf" / "stream").glob("*digits.yaml"))


@pytest.mark.parametrize("stream", STREAMS)
def test_every_digits_stream_runs(stream):
    size = "stream.windows=12" if stream.startswith("drifting") else "stream.experiences=2"
    assert bench(f"stream={stream}", size, "out=x", "eval_every=5", *QUICK, "seeds=1") == 0
    assert record("x")["stream"]["name"] == stream


STRATEGIES = sorted(p.stem for p in (Path(cl_lib.__file__).parent / "conf" / "strategy").glob("*.yaml"))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_configuration_instantiates(strategy):
    config = compose_config([f"strategy={strategy}"], None)
    job = cli.make_job(config)
    assert isinstance(job.strategy, cl_lib.strategies.Strategy)


@pytest.mark.parametrize("model", ["mlp", "convnet", "slim_resnet18"])
@pytest.mark.parametrize("optim", ["sgd", "adam", "adamw"])
def test_every_model_and_optimiser_configuration_instantiates(model, optim):
    extra = ["stream.data.test=0.3"] if model != "slim_resnet18" else []
    cli.make_job(compose_config([f"model={model}", f"optim={optim}", *extra], None))


def test_configurations_of_ones_own(tmp_path):
    own = tmp_path / "mine" / "strategy"
    own.mkdir(parents=True)
    (own / "tiny.yaml").write_text(
        "_target_: cl_lib.strategies.ER\nmemory:\n  _target_: cl_lib.Memory\n  capacity: 20\n"
    )
    assert bench("--config-dir", "mine", "strategy=tiny", "out=x", *QUICK) == 0
    assert record("x")["strategy"] == "tiny"
    assert record("x")["job"]["strategy"]["memory"]["capacity"] == 20


def test_the_csv_logger_writes_a_line_for_each_replica_test_set_and_evaluation():
    assert bench("logger=csv", "out=x", *QUICK) == 0
    assert len(Path("x/rows.csv").read_text().splitlines()) == 1 + 2 * 5 * 6


@pytest.mark.filterwarnings("ignore")
def test_the_wandb_logger_is_offline_without_a_login(monkeypatch, tmp_path):
    pytest.importorskip("wandb", reason="needs the wandb extra")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert bench("logger=wandb", "out=x", *QUICK) == 0
    assert list(Path("x").glob("wandb/offline-run-*/*.wandb"))
    assert record("x")["strategy"] == "er"


# ---------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["strategy=er2"], "strategy=er2: there is no strategy of that name; did you mean er"),
        (["-m", "strategy=er,finetun"], "strategy=finetun: there is no strategy of that name; did you mean finetune"),
        (["stream=split_digit"], "there is no stream of that name; did you mean split_digits"),
        (["model=mpl"], "model=mpl: there is no model of that name; did you mean mlp"),
        (["optim=sdg"], "optim=sdg: there is no optim of that name; did you mean sgd"),
        (["logger=tensorboard"], "there is no logger of that name; there are csv, none, wandb"),
        (
            ["strategy.memory.capasity=5"],
            "strategy.memory.capasity: unknown option; did you mean strategy.memory.capacity",
        ),
        (["seed=5"], "seed: unknown option; did you mean seeds"),
        (["strategy.memory.capacity=many"], "strategy.memory.capacity='many': must be a whole number"),
        (["strategy.memory.capacity=1.5"], "strategy.memory.capacity=1.5: must be a whole number"),
        (["optim.lr=fast"], "optim.lr='fast': must be a number"),
        (["optim.lr=-1"], "optim.lr=-1.0: must be a number"),
        (["strategy.memory.capacity=-1"], "strategy.memory.capacity=-1: must be 0 or more"),
        (
            ["strategy=icarl", "strategy.memory.capacity=5"],
            "strategy.memory.capacity=5: this strategy needs at least 10",
        ),
        (["batch_size=0"], "batch_size=0: must be a whole number, 1 or more"),
        (["batch_size=-3"], "batch_size=-3: must be a whole number"),
        (["epochs=0"], "epochs=0: must be a whole number, 1 or more"),
        (["epochs=abc"], "epochs='abc': must be a whole number"),
        (["epochs=[1,2]"], "epochs: a list needs one number for each of the 5 experiences, got 2"),
        (["eval_every=0"], "eval_every=0: must be a whole number, 1 or more"),
        (["seeds=0"], "seeds=0: must be a whole number, 1 or more"),
        (["seeds=[]"], "seeds=[]: must be a count"),
        (["seeds=[1,2,1]"], "seeds=[1, 2, 1]: 1 given more than once"),
        (["seeds=[-1]"], "seeds: -1 is not a valid seed"),
        (["seeds=some"], "seeds='some': must be a count"),
        (
            ["stream.experiences=3"],
            "stream.experiences=3: must divide the number of classes, 10; choose one of 1, 2, 5, 10",
        ),
        (["stream.experiences=0"], "stream.experiences=0"),
        (["stream.valid=1.5"], "stream.valid=1.5: must be at least 0 and below 1"),
        (["stream.scenario=instance"], "stream.scenario='instance': must be one of class, task, domain"),
        (["stream.class_order=[0,1]"], "stream.class_order=[0, 1]: must contain each of 0 to 9 once"),
        (["eval_on=valid"], "eval_on=valid: this stream holds no validation data"),
        (["engine.lift=maybe"], "engine.lift='maybe': must be one of auto, always, never"),
        (["engine.store=maybe"], "engine.store='maybe': must be one of auto, resident, streamed"),
        (["engine.compile=maybe"], "engine.compile='maybe': must be true or false"),
        (["seeds=[99999999999999999999999]"], "is too large; seeds are below 2**63"),
        (["seeds=99999999999"], "seeds=99999999999: at most 10,000"),
        (["engine.threads=100000"], "engine.threads=100000: this machine has"),
        (["engine=5"], "engine=5: must contain lift, compile, matmul, store and threads"),
        (["~seeds"], "seeds: is missing from the configuration"),
        (["+new=1"], "new: unknown option"),
        (["--config-name=foo"], "cl-bench has one configuration"),
        (["stream.data=null"], "stream.data=None: must be Dataset"),
        (["strategy.memory=null"], "strategy.memory"),
        (["strategy.memory.admission=strategy"], "ER does not fill its memory itself; choose reservoir"),
        (["stream=rotated_digits", "stream.experiences=2", "stream.angles=[0,nan]"], "must be finite numbers, degrees"),
        (["model.hidden=[1000000000]"], "model: cannot be built"),
        (["logger=csv", "logger.file="], "logger.file='': must be the name of a .csv file"),
        (["out=[5]"], "out=[5]: must be a string"),
        (["grid=5"], "grid"),
        (["-m", "out=x1,x2", "strategy=finetune"], "out: must be one directory for the whole sweep"),
        (["-m", "model=mlp,null"], "model=null: there is no model of that name"),
        (["-m", "strategy=er,er"], "the sweep contains this run twice"),
        (["engine.threads=0"], "engine.threads=0: must be a whole number"),
        (["device=tpu"], "device='tpu': must be one of auto, cpu, cuda"),
        (["dtype=half"], "dtype='half': must be one of float32, float64"),
        (["resume=perhaps"], "resume='perhaps': must be true or false"),
        (["strategy=key_value", "strategy.slots=1000000000000"], "keyvalue: 10 replicas do not fit into memory"),
        (["grid.strategy.lam=[1,2]"], "grid.strategy.lam: no float hyper-parameter of that name"),
        (["grid.optim.lr=[]"], "grid.optim.lr=[]: must be a list of at least one number"),
        (["grid.optim.lr=[0.1,-1]"], "optim.lr=-1"),
        (["grid.optim.lr=[0.1,0.1]"], "holds a value twice"),
        (["strategy=er,finetune"], "several values need -m"),
        (["strategy=[er"], "cannot read the options"),
        (["model.hidden=[0]"], "model.hidden[0]=0: must be a whole number, 1 or more"),
        (["model.hidden=wide"], "model.hidden='wide': must be a list"),
        (["model=convnet", "model.channels=[8,8,8,8]"], "must be fewer, each halves the 8x8 images"),
        (["--config-dir", "nowhere"], "--config-dir nowhere: there is no such directory"),
        (["stream=split_fashion_mnist", "stream.data.root=nowhere", "stream.data.download=false"], "nowhere"),
        (
            ["baseline=er", "-m", "strategy=finetune,joint", "epochs=1", "seeds=1", "out=z"],
            "baseline=er: must be one of the runs: finetune; joint",
        ),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_a_mistake_is_named(argv, message, capsys, tmp_path):
    assert bench(*argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not list(tmp_path.glob("runs/*/*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device(capsys):
    assert bench("device=cuda") == 2
    assert "device=cuda: no CUDA device is available here" in capsys.readouterr().err


def test_missing_data_say_how_to_get_them(capsys):
    assert bench("stream=split_mnist", "stream.data.root=nowhere", "stream.data.download=false") == 2
    error = capsys.readouterr().err
    assert "nowhere" in error
    assert "CL_LIB_DATA" in error or "download" in error


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / IMAGES).write_bytes((d / IMAGES).read_bytes()[:100]), IMAGES),
        (lambda d: (d / LABELS).write_bytes((d / IMAGES).read_bytes()), LABELS),
        (lambda d: (d / "t10k-labels-idx1-ubyte").write_bytes(b"\x00\x00"), "t10k-labels-idx1-ubyte"),
        (lambda d: write_idx(d / LABELS, np.full(60, 200, np.uint8)), "200"),
    ],
    ids=["truncated", "images for labels", "corrupt", "label out of range"],
)  # fmt: skip
def test_a_spoilt_idx_file_is_named(spoil, message, tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for part, n in (("train", 60), ("t10k", 40)):
        write_idx(folder / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (n, 28, 28), dtype=np.uint8))
        write_idx(folder / f"{part}-labels-idx1-ubyte", np.arange(n).astype(np.uint8) % 10)
    good = ["stream=split_mnist", f"stream.data.root={folder}", "stream.data.download=false"]
    cli.make_job(compose_config(good, None))
    from cl_lib.cli import build as config

    config._data.clear()
    spoil(folder)
    assert bench(*good) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_directory_that_holds_another_run_is_not_touched(capsys):
    assert bench("out=x", *QUICK) == 0
    before = {p.name: p.read_bytes() for p in Path("x").iterdir()}
    assert bench("strategy=finetune", "out=x", *QUICK) == 2
    assert "out=x: already holds a run" in capsys.readouterr().err
    assert bench("strategy=finetune", "out=x", "resume=true", *QUICK) == 2
    assert "out=x: holds a finished run with other options (strategy)" in capsys.readouterr().err
    assert bench("out=x", "resume=true", *QUICK) == 0
    assert bench("-m", "strategy=er,finetune", "out=x", *QUICK) == 2
    assert {p.name: p.read_bytes() for p in Path("x").iterdir()} == before


def test_reports_of_what_is_no_run(capsys, tmp_path):
    assert report("nowhere") == 2
    assert "nowhere: there is no such directory" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert report("empty") == 2
    assert "contains no record.json" in capsys.readouterr().err
    (tmp_path / "empty" / "record.json").write_text('{"schema": "other/1"}')
    assert report("empty") == 2
    assert "schema is 'other/1'" in capsys.readouterr().err


def program(*argv: str, **options) -> subprocess.Popen:
    code = "import sys; from cl_lib.cli import bench; sys.argv[0] = 'cl-bench'; bench()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *argv],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_mistake_exits_with_two_and_no_traceback():
    with program("strategy=er", "batch_size=0") as process:
        out, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert error.strip() == "cl-bench: batch_size=0: must be a whole number, 1 or more"
    assert out == ""


@pytest.mark.timeout(300)
def test_control_c_keeps_what_is_done_and_says_how_to_go_on(tmp_path):
    options = ["strategy=derpp", "seeds=3", "epochs=60", "device=cpu"]
    with program(*options, "out=cut") as process:
        deadline = time.monotonic() + 120
        while not any("experience 2" in line for line in _read(process)) and time.monotonic() < deadline:
            pass
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in error
    assert "interrupted at step" in error
    assert "resume=true" in error
    partial = json.loads(Path("cut/partial.json").read_text())
    assert len(partial["rows"]) >= 3
    with program(*options, "out=cut") as process:
        _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "holds an unfinished run; resume it with resume=true" in error
    with program(*options, "out=cut", "resume=true") as process:
        process.communicate(timeout=200)
    assert process.returncode == 0
    with program(*options, "out=whole") as process:
        process.communicate(timeout=200)
    cut, whole = record("cut"), record("whole")
    for own in (cut, whole):
        for name in [name for name in own["cost"] if "second" in name]:
            own["cost"].pop(name)
    assert cut == whole
    with np.load("cut/arrays.npz") as a, np.load("whole/arrays.npz") as b:
        assert a.files == b.files
        assert all(np.array_equal(a[k], b[k], equal_nan=True) for k in a.files)
    assert not Path("cut/checkpoint.npz").exists()


def _read(process) -> list[str]:
    """What stands in the progress bar now: it is redrawn after carriage returns."""
    text = os.read(process.stderr.fileno(), 4096).decode(errors="replace")
    return text.split("\r")


def test_the_base_of_a_bias_correction_is_chosen_by_its_class():
    options = ["strategy=bic", "strategy.base._target_=cl_lib.strategies.SI", "+strategy.base.c=0.3"]
    assert cli.make_job(compose_config(options, None)).strategy.base == cl_lib.strategies.SI(c=0.3)

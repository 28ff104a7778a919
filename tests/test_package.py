"""The package as it is installed: light to import, typed, its configurations and schema inside the wheel."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch

import cl_lib
from cl_lib import Memory, Record, datasets, strategies, streams
from cl_lib.harness.assembly import make_plan
from cl_lib.record import check_record, schema

ROOT = Path(cl_lib.__file__).parent


def test_importing_cl_lib_imports_neither_wandb_avalanche_hydra_nor_matplotlib():
    heavy = ("wandb", "avalanche", "hydra", "matplotlib", "torchvision", "pandas", "sklearn")
    code = f"import cl_lib, sys; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert out.stdout.strip() == "[]"


def test_the_wheel_holds_types_configurations_schema_and_template(tmp_path):
    project, source = ROOT.parent, tmp_path / "source"
    if not (project / "pyproject.toml").exists():
        pytest.skip("cl_lib is installed without its sources")
    shutil.copytree(ROOT, source / "cl_lib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(project / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no wheel can be built here: {done.stderr.strip().splitlines()[-1]}")
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"cl_lib/py.typed", "cl_lib/record/record.schema.json", "cl_lib/service/backtest.schema.json"} <= names
    assert {f"cl_lib/report/{name}.html" for name in ("template", "service", "style")} <= names
    shipped = {str(p.relative_to(ROOT.parent)) for p in (ROOT / "conf").rglob("*.yaml")}
    assert shipped <= names
    assert not [n for n in names if n.startswith("tests/")]


def test_no_room_is_called_utils():
    banned = {"utils.py", "helpers.py", "common.py", "misc.py"}
    assert not [p for p in ROOT.rglob("*.py") if p.name in banned]


@pytest.mark.parametrize("room", ["memory", "models", "metrics", "datasets", "streams", "curvature", "strategies"])
def test_a_room_imports_downwards_only(room):
    for path in (ROOT / room).glob("*.py"):
        lines = [line for line in path.read_text().splitlines() if line.startswith(("from cl_lib", "import cl_lib"))]
        assert not [line for line in lines if "cl_lib.engine" in line or "cl_lib.report" in line], path.name


def test_strategies_are_one_short_file_each():
    for path in (ROOT / "strategies").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 200, path.name


# ---------------------------------------------------------------------- the record
@pytest.fixture(scope="module")
def record() -> Record:
    stream = streams.permuted(datasets.digits(), 3)
    return cl_lib.run(
        stream, strategies.ER(Memory(capacity=50)), seeds=3, model=cl_lib.models.MLP.factory(hidden=(16,))
    )


def test_a_record_comes_back_from_disk_as_it_was(record, tmp_path):
    again = Record.load(record.save(tmp_path / "x"))
    assert again == record
    assert again.arrays.keys() == record.arrays.keys()
    assert all(np.array_equal(again.arrays[k], record.arrays[k], equal_nan=True) for k in record.arrays)


def test_a_record_follows_its_schema_by_an_independent_validator(record):
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(json.loads(json.dumps(record.to_json())), schema())


BREAKS = {
    "missing": lambda d: d.pop("metrics"),
    "a metric is missing": lambda d: d["metrics"].pop("ece"),
    "not a number": lambda d: d["cost"].update(steps="many"),
    "unknown key": lambda d: d.update(surprise=1),
    "seed is a text": lambda d: d["replicas"][0].update(seed="0"),
    "a matrix is flat": lambda d: d.update(accuracy_matrix=[1.0]),
}


@pytest.mark.parametrize("name", BREAKS)
def test_our_check_and_the_validator_refuse_the_same(record, name):
    data = json.loads(json.dumps(record.to_json()))
    check_record(data)
    BREAKS[name](data)
    with pytest.raises(cl_lib.InputError, match=r"record\.json"):
        check_record(data)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema())


def test_a_record_of_another_version_is_refused(record, tmp_path):
    path = record.save(tmp_path / "x") / "record.json"
    path.write_text(path.read_text().replace("cl_lib.record/1", "cl_lib.record/9"))
    with pytest.raises(cl_lib.InputError, match=r"schema is 'cl_lib.record/9', this version reads 'cl_lib.record/1'"):
        Record.load(tmp_path / "x")


def test_metrics_equal_a_computation_by_hand_from_the_matrix_of_each_replica(record):
    for r, a in enumerate(record.arrays["matrix.accuracy"]):
        assert a.shape == (4, 3)
        by_hand = {
            "accuracy": (a[3, 0] + a[3, 1] + a[3, 2]) / 3,
            "average_accuracy": (a[1, 0] + (a[2, 0] + a[2, 1]) / 2 + (a[3, 0] + a[3, 1] + a[3, 2]) / 3) / 3,
            "learning_accuracy": (a[1, 0] + a[2, 1] + a[3, 2]) / 3,
            "forgetting": ((max(a[1, 0], a[2, 0]) - a[3, 0]) + (max(a[1, 1], a[2, 1]) - a[3, 1])) / 2,
            "bwt": ((a[3, 0] - a[1, 0]) + (a[3, 1] - a[2, 1])) / 2,
            "fwt": ((a[1, 1] - a[0, 1]) + (a[2, 2] - a[0, 2])) / 2,
        }
        for name, value in by_hand.items():
            assert record.metrics[name].per_seed[r] == pytest.approx(value, abs=1e-12), name
    assert np.allclose(record.accuracy_matrix, record.arrays["matrix.accuracy"].mean(0))


def test_age_is_steps_since_a_class_was_last_trained_on_replay_excluded():
    stream = streams.split(datasets.digits())
    record = cl_lib.run(stream, strategies.ER(), seeds=1)
    steps = [row["step"] for row in record.rows]
    age = record.arrays["age"][0, -1]
    for experience in range(5):
        passed = steps[5] - steps[experience + 1]
        assert passed <= age[2 * experience : 2 * experience + 2].min() < passed + 10
    assert (record.arrays["age"][0, 0] == -1).all()


def test_null_metrics_say_why():
    stream = streams.split(datasets.digits())
    record = cl_lib.run(stream, strategies.Finetune(), seeds=2)
    assert record.metrics["fwt"].mean is None
    assert "eval_classes=seen" in record.metrics["fwt"].reason
    assert record.matrices["nll"][1][1:] == [None] * 4
    whole = cl_lib.run(streams.split(datasets.digits(), eval_classes="all"), strategies.Finetune(), seeds=2)
    assert whole.metrics["fwt"].mean < 0
    assert None not in whole.matrices["nll"][1]


def test_online_streams_are_judged_by_the_parents_test_sets():
    stream = streams.online(streams.split(datasets.digits()), chunk=100)
    record = cl_lib.run(stream, strategies.ER(), seeds=2, eval_every=2)
    assert [row["experience"] for row in record.rows] == [0, 2, 4, 6, 8, 10, 12, 14, 15]
    # each experience has three chunks: finished after 3, 6, 9, 12 and 15, begun after 0, 3, 6, 9 and 12
    assert record.learned == [2, 3, 5, 6, 8]
    assert record.before == [0, 1, 3, 4, 6]
    matrix = record.arrays["matrix.accuracy"]
    learnt = np.mean([matrix[:, row, column] for column, row in enumerate(record.learned)], 0)
    assert record.metrics["learning_accuracy"].per_seed == pytest.approx(learnt.tolist())
    assert 0 < record.metrics["anytime_accuracy"].mean < 1


# ---------------------------------------------------------------------- names
@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("cl_lib.types", "Out", "NetOutput"),
        ("cl_lib.types", "Stored", "KeptSpec"),
        ("cl_lib.types", "Experienced", "ExperienceData"),
        ("cl_lib.streams.stream", "Realisation", "SeededStream"),
    ],
)
def test_old_public_names_work_with_a_warning(module, old, new):
    module = importlib.import_module(module)
    with pytest.warns(DeprecationWarning, match=f"{old} is deprecated; use {new}"):
        assert getattr(module, old) is getattr(module, new)
    with pytest.raises(AttributeError, match="Nothing"):
        getattr(module, "Nothing")  # noqa: B009


def test_the_old_field_of_a_gradient_works_with_a_warning():
    loss = torch.zeros(())
    gradient = strategies.Gradient({}, loss, {}, {"z": loss})
    with pytest.warns(DeprecationWarning, match="use Gradient.aux"):
        assert gradient.found is gradient.aux
    with pytest.warns(DeprecationWarning, match="use aux="):
        assert strategies.Gradient({}, loss, {}, found={"z": loss}).aux == gradient.aux
    with pytest.warns(DeprecationWarning, match="use aux="):
        assert gradient._replace(found={}).aux == {}
    assert gradient._replace(aux={}).aux == {}


def test_public_names_of_runs_and_records():
    from cl_lib import harness, record

    assert cl_lib.run is harness.run
    assert cl_lib.iter_run is harness.iter_run
    assert cl_lib.Record is record.Record
    assert cl_lib.Job is harness.Job
    assert cl_lib.Session is harness.Session
    assert cl_lib.memory.Memory is cl_lib.Memory


def test_run_and_iter_run_show_every_option_with_the_default_of_job():
    job = {f.name: f for f in dataclasses.fields(cl_lib.Job)}
    for function in (cl_lib.run, cl_lib.iter_run):
        parameters = inspect.signature(function).parameters
        assert job.keys() <= parameters.keys()
        assert not [p for p in parameters.values() if p.kind is p.VAR_KEYWORD]
        for name, field in job.items():
            if field.default is not dataclasses.MISSING:
                assert parameters[name].default == field.default, name


def test_the_configuration_names_every_option_of_a_job():
    import yaml

    config = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text())
    options = {f.name for f in dataclasses.fields(cl_lib.Job)} - {"stream", "strategy", "model", "optim", "policy"}
    assert options <= config.keys() | config["engine"].keys()
    for name in options & config["engine"].keys():
        assert config["engine"][name] == getattr(cl_lib.Job, name), name


def test_objects_have_short_reprs():
    job = cl_lib.Job(streams.split(datasets.digits()), strategies.ER(), seeds=2, grid={"optim.lr": [0.1, 0.2]})
    session = cl_lib.Session(job)
    rows = list(session)
    record = cl_lib.run(job.stream, job.strategy, seeds=2)
    plan = make_plan(session.job, session.groups[0])
    shown = [job, job.stream, job.stream.realise(0), *job.stream.realise(0).experiences, session, *rows]
    shown += [session.result(), *session.groups, session.learner, plan, next(plan.experience(0)), record]
    for value in shown:
        assert len(repr(value)) < 120, repr(value)
        assert repr(value).startswith(type(value).__name__)
    assert repr(job) == "Job(er on split_digits, 2 seeds x 2 grid points)"

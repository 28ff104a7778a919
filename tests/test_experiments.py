"""The published pages are what the committed tables say, and say what they missed."""

from __future__ import annotations

import dataclasses
import gzip
import importlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import cl_lib

ROOT = Path(__file__).parent.parent
EXPERIMENTS = ROOT / "experiments"
MEGABYTES = 3

pytestmark = pytest.mark.skipif(
    not (EXPERIMENTS / "study.py").exists(), reason="experiments are not part of an installed package"
)
STUDIES = [
    "split_digits",
    "split_fashion_mnist",
    "split_fashion_mnist_every",
    "domain_incremental",
    "fisher_variants",
    "plasticity",
]
SEARCHED = {"split_digits": 3, "split_fashion_mnist_every": 1, "plasticity": 3}
"""Studies that search for every strategy, with the seeds of a search."""


@pytest.fixture(autouse=True)
def _path(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))


@pytest.fixture
def load():
    return importlib.import_module


@pytest.fixture
def study(load, request):
    return load(request.param).STUDY


each_study = pytest.mark.parametrize("study", STUDIES, indirect=True)


@each_study
def test_a_table_is_complete_and_its_page_and_figures_follow_from_it(study):
    runs = study.known()
    assert list(runs) == study.runs
    for path, text in study.pages(runs).items():
        assert path.read_text() == text, path.name


@each_study
def test_runs_name_their_command_commit_configuration_and_machine(study):
    for name, run in study.known().items():
        for key in ("command", "commit", "config_hash", "data_hash", "device", "torch", "python", "training_seconds"):
            assert run.info[key], (name, key)
        assert run.info["command"].startswith("cl-bench ")


@each_study
def test_a_table_is_written_to_the_same_bytes_and_read_as_it_was(study, load, tmp_path):
    table = load("table")
    runs = study.known()
    table.write(study.name, runs, tmp_path)
    written, committed = (folder / f"{study.name}.csv.gz" for folder in (tmp_path, table.TABLES))
    first = written.read_bytes()
    table.write(study.name, runs, tmp_path)
    assert written.read_bytes() == first
    # Python 3.13 writes another byte into the header of gzip than 3.11, and zlib may compress otherwise
    assert gzip.decompress(first) == gzip.decompress(committed.read_bytes())
    again = table.read(study.name, tmp_path)
    assert {n: (r.info, r.replicas, r.metrics) for n, r in again.items()} == {
        n: (r.info, r.replicas, r.metrics) for n, r in runs.items()
    }
    for name, run in runs.items():
        assert list(again[name].arrays) == list(run.arrays)
        for key, values in run.arrays.items():
            np.testing.assert_array_equal(again[name].arrays[key], values)


@pytest.mark.parametrize(("name", "seeds"), SEARCHED.items())
def test_searches_have_the_same_budget_never_see_test_data_and_decide_the_runs(name, seeds, load):
    study, best = load(name).STUDY, load("every_strategy").best
    runs = study.known()
    for search in [run for run in runs.values() if run.name.endswith("/search")]:
        assert len(search.points()) == 9, search.name
        assert len(search.seeds) == seeds
        assert search.info["eval_on"] == "valid"
        final = runs[search.name.replace("/search", "/run")]
        assert final.info["eval_on"] == "test"
        assert len(final.seeds) == 10
        for key, value in best(search).items():
            assert f"{key}={value:g}" in final.info["command"].split(), search.name


def test_the_options_of_a_study_are_those_of_its_commands(load):
    """Options that decide the result; commands of the table were written by ``cl-bench`` itself."""
    for name in STUDIES:
        study = load(name).STUDY
        runs = study.known()
        for run in runs.values():
            wanted = [option for option in study.options(run.name, runs) if not option.startswith("progress=")]
            written = [option.removeprefix("++") for option in run.info["command"].split()[1:]]
            assert sorted(wanted) == sorted(written), (name, run.name)


def test_the_published_table_has_ten_healthy_seeds_within_their_bars(load):
    script = load("split_fashion_mnist")
    targets = script.targets()
    for name, run in script.results(script.STUDY.known()).items():
        assert len(run.seeds) == 10
        assert not run.diverged
        if targets[name]["low"]:
            assert float(targets[name]["low"]) <= run.metric("accuracy").mean <= float(targets[name]["high"])


def test_the_readme_quotes_the_table(load):
    readme = (ROOT / "README.md").read_text()
    runs = load("split_fashion_mnist").STUDY.known()
    for name in ("er", "joint"):
        accuracy = runs[name].metric("accuracy")
        assert f"{100 * accuracy.mean:.2f} ± {100 * accuracy.std:.2f} %" in readme


def test_joints_learning_rate_is_the_best_on_validation_data(load):
    script = load("split_fashion_mnist")
    runs = script.STUDY.known()
    assert runs["joint_search"].info["eval_on"] == "valid"
    assert runs["joint"].info["eval_on"] == "test"
    assert f"optim.lr={script.best_lr(runs['joint_search']):g}" in runs["joint"].info["command"]


def test_the_strategies_pages_follow_from_the_tables(load):
    for path, text in load("strategies").pages().items():
        assert path.read_text() == text, path.name


def test_the_drift_page_follows_from_its_tables(load):
    script, page = load("drift_kinds"), load("drift_page")
    lines = script.known()
    assert {page.part_of(line) for line in lines} == set(page.parts())
    assert {line["n"] for line in lines if line["measure"] == "found"} == {str(page.DEALS)}
    for path, text in page.pages(lines).items():
        assert path.read_text() == text, path.name


def test_the_page_on_updates_follows_from_its_tables(load):
    script = load("when_to_update")
    assert (EXPERIMENTS.parent / "docs" / "results" / "when_to_update.md").read_text() == script.page()
    best = min(script.read(script.NETWORKS), key=lambda line: line["always"])
    assert best["network"] == script.PRESET  # decided on the first weeks, by their losses alone
    scored = [line for line in script.read(script.POLICIES) if line["policy"] in script.GRIDS]
    assert len(scored) == len(script.GRIDS) * len(script.STREAMS) * len(script.DELAYS)
    assert {line["decisions"] for line in scored} == {52 - script.TUNED - 1}
    for line in scored:
        fields = json.loads(line["fields"])
        assert set(fields) == set(script.GRIDS[line["policy"]][1])
        assert all(value in script.GRIDS[line["policy"]][1][name] for name, value in fields.items())


def test_watches_of_one_deal_see_the_drift_that_they_can_see(load):
    pytest.importorskip("river")
    script, page = load("drift_kinds"), load("drift_page")
    part = page.Part("gaussians", "concept", "recurring", "1")
    deal = script.watch(part, script.gaussians(samples=40_000), 0)
    changed = [window in (*range(10, 14), 18, 19) for window in range(page.WINDOWS)]
    assert deal.alarms["errors", "effect 0.1"].tolist() == changed
    for by in ("inputs", "labels", "predicted", "confidence"):
        assert not deal.alarms[by, "effect 0.1"].any(), by
    assert deal.start[[4, 5, 20]].tolist() == [0, 2_000, 32_000]
    assert 0 < script.first(deal.positions["page_hinkley"], deal.start[10], deal.start[14]) < 2_000


@pytest.mark.parametrize(
    ("argv", "words"),
    [([], "the table is not complete"), (["--missing", "--folder", "absent"], "there is no such folder")],
)
def test_the_drift_table_needs_its_data(argv, words, load, tmp_path, monkeypatch, capsys):
    script = load("drift_kinds")
    monkeypatch.setattr(script, "TABLE", tmp_path / "drift_kinds.csv")
    with pytest.raises(SystemExit, match="2"):
        script.main(argv)
    assert words in capsys.readouterr().err


def test_tables_stay_small():
    files = [*(EXPERIMENTS / "tables").iterdir()]
    assert {path.suffix for path in files} <= {".gz", ".npz"}
    assert sum(path.stat().st_size for path in files) <= MEGABYTES * 2**20


# ---------------------------------------------------------------------- running again
@pytest.mark.parametrize("name", ["finetune", "er", "slda"])
def test_part_of_split_digits_comes_out_again(name, load):
    """Two of the ten seeds, run now; another machine may round otherwise."""
    script = load("split_digits")
    run = script.STUDY.known()[f"{name}/run"]
    given = dict(option.split("=", 1) for option in run.info["command"].split()[1:])
    strategy = {
        "finetune": cl_lib.strategies.Finetune(),
        "er": cl_lib.strategies.ER(),
        "slda": cl_lib.strategies.SLDA("identity", shrinkage=float(given.get("strategy.shrinkage", 1e-4))),
    }[name]
    again = cl_lib.run(
        cl_lib.streams.split(cl_lib.datasets.digits()),
        strategy,
        seeds=2,
        epochs=3,
        optim=cl_lib.SGD(lr=float(given["optim.lr"])),
    )
    assert again.metrics["accuracy"].per_seed == pytest.approx(run.metrics["accuracy"][:2], abs=0.03)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """The template's study, run once into a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXPERIMENTS))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(cl_lib.__file__).parents[1]), *sys.path[:0]]))
        script, study = importlib.import_module("template"), importlib.import_module("study")
        folder = tmp_path_factory.mktemp("study")
        small = dataclasses.replace(
            script.STUDY,
            tables=folder,
            pages=lambda runs: {folder / "page.md": next(iter(script.pages(runs).values()))},
        )
        assert study.main(small, ["--missing"]) == 0
        yield small, study.main, folder


def test_the_template_runs_and_writes_its_page(template):
    small, _, folder = template
    runs = small.known()
    assert list(runs) == ["finetune", "er"]
    assert runs["er"].metric("accuracy").mean > runs["finetune"].metric("accuracy").mean + 0.2
    assert "| `er` |" in (folder / "page.md").read_text()


def test_a_rerun_is_equal_and_a_changed_table_is_noticed(template, load, capsys):
    small, main, _ = template
    assert main(small, ["--rerun", "--only", "finetune"]) == 0
    assert "equal bit for bit" in capsys.readouterr().out
    table, runs = load("table"), small.known()
    run = runs["finetune"]
    for change, code, words in ((1e-9, 0, "largest difference 1.0e-09"), (0.5, 1, "DIFFERS by more than 0.03")):
        accuracy = [run.metrics["accuracy"][0] + change, *run.metrics["accuracy"][1:]]
        changed = dataclasses.replace(run, metrics=run.metrics | {"accuracy": accuracy})
        table.write(small.name, runs | {"finetune": changed}, small.tables)
        assert main(small, ["--rerun", "--only", "finetune"]) == code
        assert words in capsys.readouterr().out
    table.write(small.name, runs, small.tables)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--rerun", "--only", "era"], "--only era: no run of that name; there are finetune, er"),
        (["--only", "er"], "--only: needs --missing, --rerun or --update"),
        (["--rerun", "--update"], "not allowed with"),
        (["--wrong"], "unrecognized arguments"),
    ],
)
def test_a_users_mistake_exits_with_two(argv, words, template, capsys):
    small, main, _ = template
    with pytest.raises(SystemExit, match="2"):
        main(small, argv)
    assert words in capsys.readouterr().err


def test_a_study_without_a_table_says_so(template, tmp_path, capsys):
    small, main, _ = template
    empty = dataclasses.replace(small, tables=tmp_path)
    assert main(empty, ["--rerun"]) == 1
    assert "not in the table: finetune, er" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(empty, [])
    assert "template has no table yet; --missing makes one" in capsys.readouterr().err


@pytest.fixture
def pair(load):
    """`compare`, and a run to compare with."""
    replicas = [{"seed": s, "hyper": {}, "status": "ok", "diverged_at": None, "selection": 0.5} for s in (0, 1)]
    metrics = {"accuracy": [0.5, 0.6], "fwt": [None, None]}
    info, arrays = {"data_hash": "a", "eval_on": "test"}, {"matrix": np.array([1.0, np.nan])}
    return load("compare").compare, load("table").Run("a", info, replicas, metrics, arrays)


def test_a_run_is_equal_to_itself(pair):
    compare, run = pair
    assert compare(run, run) == (True, "equal bit for bit")
    assert compare(run, dataclasses.replace(run, metrics={"accuracy": [0.5, 0.6]})) == (True, "equal bit for bit")


@pytest.mark.parametrize(
    ("part", "value", "agrees", "words"),
    [
        ("info", {"data_hash": "b", "eval_on": "test"}, False, "data_hash is a in the table and b now"),
        ("info", {"data_hash": "a", "eval_on": "valid"}, False, "eval_on is test in the table and valid now"),
        ("metrics", {"accuracy": [0.5, 0.6], "fwt": [None, 0.1]}, False, "fwt of seed 1 is None"),
        ("metrics", {"fwt": [None, None]}, False, "accuracy of seed 0 is 0.5 in the table and None now"),
        ("metrics", {"accuracy": [0.5, 0.6], "bwt": [0.1, 0.1]}, False, "bwt of seed 0 is None"),
        ("metrics", {"accuracy": [0.5, float("nan")]}, False, "accuracy of seed 1 is 0.6 in the table and nan now"),
        ("metrics", {"accuracy": [0.5, 0.61]}, True, "largest difference 1.0e-02 (accuracy of seed 1)"),
        ("arrays", {"matrix": np.array([2.0, np.nan])}, True, "other arrays: matrix"),
        ("arrays", {}, True, "other arrays: matrix"),
    ],
)
def test_comparing_notices_what_is_other(part, value, agrees, words, pair):
    compare, run = pair
    same, sentence = compare(run, dataclasses.replace(run, **{part: value}))
    assert same == agrees
    assert words in sentence


@pytest.mark.parametrize(
    ("change", "agrees"),
    [({"selection": 0.6}, True), ({"diverged_at": 3}, False), ({"status": "diverged"}, False), (None, False)],
)
def test_comparing_notices_other_replicas(change, agrees, pair):
    compare, run = pair
    replicas = [run.replicas[0], run.replicas[1] | change] if change else run.replicas[:1]
    same, sentence = compare(run, dataclasses.replace(run, replicas=replicas))
    assert same == agrees
    assert "equal bit for bit" not in sentence

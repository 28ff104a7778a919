"""The gate: each rule passes and fails, no evidence of trained windows, mistakes are one line and exit code 2."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

import cl_lib
from cl_lib.cli import gating
from cl_lib.cli.main import _guarded
from cl_lib.errors import InputError
from cl_lib.record import Metric, Record
from cl_lib.record.predictions import Predictions
from cl_lib.service import choosing, gate, read_expectations
from cl_lib.service import gating as gating_module
from cl_lib.service.requirements import Bound
from cl_lib.service.rules import meets

COLUMNS = [f"rotation {i}" for i in range(1, 6)]


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Directories of three small runs; never written to."""
    home = tmp_path_factory.mktemp("runs")
    rotated = cl_lib.streams.rotated(cl_lib.datasets.digits(), experiences=5)
    for name, stream, strategy, options in (
        ("new", rotated, cl_lib.strategies.Cumulative(), {"save_predictions": True}),
        ("old", rotated, cl_lib.strategies.Finetune(), {"save_predictions": True}),
        ("split", cl_lib.streams.split(cl_lib.datasets.digits()), cl_lib.strategies.Finetune(), {}),
    ):
        cl_lib.run(stream, strategy, seeds=3, out=home / name, **options)
    return home


@pytest.fixture(scope="session")
def new(runs):
    return Record.load(runs / "new")


@pytest.fixture(scope="session")
def old(runs):
    return Record.load(runs / "old")


@pytest.fixture(scope="session")
def split(runs):
    return Record.load(runs / "split")


@pytest.fixture
def here(runs, tmp_path, monkeypatch):
    """A folder with copies of the runs and a file of expectations that everything meets."""
    shutil.copytree(runs, tmp_path / "runs")
    (tmp_path / "easy.yaml").write_text("metrics:\n  accuracy: {min: 0.1}\n")
    (tmp_path / "hard.yaml").write_text("metrics:\n  accuracy: {min: 1.0}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def main(*argv: str) -> int:
    return _guarded("cl-gate", gating._gate, argv)


def only(verdict):
    (check,) = verdict.checks
    return check


def made(record, bits, codes, labels):
    """A record like the given one, with correct predictions ``(R, T + 1, E, N)`` and slices ``(N,)`` made by hand."""
    replicas, rows, windows, size = bits.shape
    total = windows * size
    flat = bits.reshape(replicas, rows, total)
    arrays = record.arrays | {"support": np.full((replicas, rows, windows), float(size))}
    arrays["matrix.accuracy"] = bits.mean(-1)
    arrays["column.site.count"] = np.zeros((replicas, rows, len(labels)))
    column = np.repeat(np.arange(windows), size)[None]
    samples = Predictions(
        {
            "bits": np.packbits(flat, axis=-1),
            "predicted": np.zeros(flat.shape, np.uint8),
            "confidence": np.zeros(flat.shape, np.float16),
            "nll": np.zeros(flat.shape, np.float16),
            "index": np.arange(total)[None],
            "column": column,
            "label": np.zeros((1, total), int),
            "slice.site": np.tile(codes, windows)[None],
        }
    )
    slices = record.slices | {"site": record.slices["class"] | {"labels": labels}}
    return dataclasses.replace(
        record, arrays=arrays, slices=slices, samples=samples, predictions_sha256=None, arrays_sha256=None
    )


# ---------------------------------------------------------------------- the rules
@pytest.mark.parametrize(
    ("section", "passes", "fails"),
    [
        ("metrics", {"accuracy": {"min": 0.3}}, {"accuracy": {"min": 0.99}}),
        ("metrics", {"nll": {"max": 9.0}}, {"nll": {"max": 0.01}}),
        ("metrics", {"ece": {"max": 0.9}}, {"ece": {"max": 0.0001}}),
        ("metrics", {"next_accuracy": {"min": 0.2}}, {"next_accuracy": {"min": 0.99}}),
        ("change", {"accuracy": {"max_drop": 0.0}}, {"accuracy": {"max_drop": -0.9}}),
        ("change", {"nll": {"max_rise": 0.0}}, {"nll": {"max_rise": -9.0}}),
        ("change", {"next_nll": {"max_rise": 1.0}}, {"next_nll": {"max_rise": -9.0}}),
        ("slices", {"class": {"min_accuracy": 0.01}}, {"class": {"min_accuracy": 0.99}}),
        ("slices", {"class": {"max_drop": 1.0}}, None),
        ("calibration", {"max_ece": 0.9}, {"max_ece": 0.0001}),
        ("calibration", {"max_rise": 0.9}, {"max_rise": -0.9}),
        ("staleness", {"max_windows": 1}, {"max_windows": 0}),
        ("flips", {"max_negative": 0.9}, {"max_negative": 0.0}),
    ],
)
def test_each_section_passes_and_fails(new, old, section, passes, fails):
    verdict = gate(new, old, expectations={section: passes})
    assert verdict.accepted, str(verdict)
    assert (verdict.row, verdict.against_row) == (4, 4)
    if fails is not None:
        verdict = gate(new, old, expectations={section: fails})
        assert not verdict.accepted, str(verdict)
        check = only(verdict)
        assert check.reason
        assert f"{check.name}: {check.reason[:30]}" in str(verdict)


def test_values_are_those_of_the_next_window(new):
    expected = {"metrics": {"accuracy": {"min": 0.0}, "nll": {"max": 9}, "next_accuracy": {"min": 0}}}
    accuracy, nll, following = gate(new, expectations=expected, row=3).checks
    assert accuracy.value == pytest.approx(new.arrays["matrix.accuracy"][:, 3, 3].mean())
    assert nll.value == pytest.approx(new.arrays["matrix.nll"][:, 3, 3].mean())
    assert following.value == pytest.approx(np.mean([new.arrays["matrix.accuracy"][:, i, i] for i in (1, 2, 3)]))
    assert (accuracy.windows, accuracy.n) == (("rotation 4",), 450)
    assert (following.windows, following.n) == (tuple(COLUMNS[1:4]), 3 * 450)


def test_values_over_several_windows(new):
    expected = {"metrics": {"accuracy": {"min": 0.0}}, "windows": 2}
    check = only(gate(new, expectations=expected))
    assert check.windows == ("rotation 4", "rotation 5")
    assert check.value == pytest.approx(new.arrays["matrix.accuracy"][:, 3, 3:].mean())


def test_flips_count_what_became_wrong(new, old):
    check = only(gate(new, old, expectations={"flips": {"max_negative": 0.5}}, row=2, against_row=3))
    place = new.predictions.positions[3]
    lost = old.predictions.correct(3)[:, place] & ~new.predictions.correct(2)[:, place]
    assert check.value == pytest.approx(lost.mean())
    assert check.windows == ("rotation 4",)


def test_final_metrics_of_a_stream_without_time(split):
    expected = {"metrics": {"accuracy": {"min": 0.1}, "forgetting": {"max": 0.5}, "negative_flip_rate": {"max": 0.9}}}
    verdict = gate(split, expectations=expected)
    for check, name in zip(verdict.checks, ("accuracy", "forgetting", "negative_flip_rate"), strict=True):
        assert check.value == pytest.approx(split.metrics[name].mean)
        assert check.windows == ()
    assert [check.passed for check in verdict.checks] == [True, False, True]


def test_slices_of_a_record_without_predictions(split):
    counts, hits = (split.arrays[f"class.{part}"][:, -1] for part in ("count", "correct"))
    check = only(gate(split, expectations={"slices": {"class": {"min_accuracy": 0.5}}}))
    assert check.value == pytest.approx((hits / counts).mean(0).min())
    assert "of 10 slices fail" in check.reason


# ---------------------------------------------------------------------- confidence
VALUES = np.array([0.70, 0.74, 0.79, 0.81, 0.82, 0.83])


@pytest.mark.parametrize(
    ("key", "limit", "rule", "met"),
    [
        ("min", 0.78, "mean", True),
        ("min", 0.79, "mean", False),
        ("max", 0.79, "mean", True),
        ("max", 0.78, "mean", False),
        ("min", 0.78, "lower", False),
        ("min", 0.70, "lower", True),
        ("max", 0.79, "upper", False),
        ("max", 0.83, "upper", True),
        ("min", 0.79, "significant", True),
        ("min", 0.84, "significant", False),
        ("max", 0.78, "significant", True),
        ("max", 0.69, "significant", False),
        ("min", 0.60, "significant", True),
    ],
)
def test_confidence_rules(key, limit, rule, met):
    value, passed, reason = meets(VALUES, Bound("metrics", "accuracy", key, limit, rule, ""))
    assert value == pytest.approx(VALUES.mean())
    assert passed is met, reason
    assert "6 seeds" in reason


def test_a_bound_that_is_just_met_passes():
    assert meets(np.array([0.1 + 0.2, 0.3]), Bound("change", "accuracy", "max_drop", 0.3, "mean", ""))[1]


def of_six_seeds(split):
    """Whether bounds on six accuracies are met, each by its own rule, and what is right."""
    metric = Metric(float(VALUES.mean()), None, None, 6, VALUES.tolist())
    record = dataclasses.replace(split, metrics={"accuracy": metric}, replicas=split.replicas * 2, seeds=[*range(6)])
    cases = ((0.75, "mean"), (0.75, "lower"), (0.79, "lower"), (0.79, "significant"), (0.84, "significant"))
    expected = [{"metrics": {"accuracy": {"min": limit, "confidence": rule}}} for limit, rule in cases]
    return [gate(record, expectations=e).accepted for e in expected], [True, False, False, True, False]


def test_a_gate_that_ignores_its_confidence_rule_is_caught(split, monkeypatch):
    """Mutants: every rule decided by the mean, the strict one by the lenient end, and the lenient one always passed."""
    decided, right = of_six_seeds(split)
    assert decided == right

    def by_mean(values, bound):
        return meets(values, dataclasses.replace(bound, confidence="mean"))

    def lenient(values, bound):
        rule = "significant" if bound.confidence == "lower" else bound.confidence
        return meets(values, dataclasses.replace(bound, confidence=rule))

    def never_significant(values, bound):
        value, passed, reason = meets(values, bound)
        return value, passed or bound.confidence == "significant", reason

    for mutant in (by_mean, lenient, never_significant):
        monkeypatch.setattr(gating_module, "meets", mutant)
        decided, right = of_six_seeds(split)
        assert decided != right, mutant.__name__


def test_too_few_seeds_for_a_rule(new):
    single = Bound("metrics", "accuracy", "min", 0.5, "lower", "")
    assert meets(np.array([0.9]), single)[1:] == (False, "a single seed gives no interval")
    expected = {"metrics": {"accuracy": {"min": 0.5, "confidence": "significant"}}}
    with pytest.raises(InputError, match=r"with 3 seeds, since the smallest p-value is 0.125; 5 seeds would do"):
        gate(new, expectations=expected)


# ---------------------------------------------------------------------- time
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"row": 5}, r"row=5: was trained on the windows up to rotation 5, which leaves no window .* tested is 4"),
        ({"row": 4, "windows": 2}, r"row=4: .* leaves only 1 of 2 windows to test it; the newest .* tested is 3"),
        ({"row": 4, "windows": ["rotation 3"]}, r"windows: row 4 was trained on window rotation 3 .* rotation 5 on"),
        ({"row": 5, "windows": ["rotation 3"]}, r"windows: row 5 .* was not trained on no window; test row 4"),
        ({"windows": ["rotation 1"]}, r"every row was trained on the first window rotation 1"),
        ({"row": 2, "against_row": 5}, r"against_row=5: was trained on the windows up to rotation 5"),
        ({"row": 2, "against_row": 4, "windows": ["rotation 3"]}, r"windows: against_row 4 was trained on window"),
        ({"windows": 5}, r"windows: 5 windows of evidence leave no row to test; at most 4"),
        ({"windows": ["rotation 9"]}, r"windows: there is no window 'rotation 9'; did you mean"),
        ({"row": 0}, r"row=0: must be a row from 1 to 5"),
        ({"row": 9}, r"row=9: must be a row from 1 to 5"),
        ({"row": 1.0}, r"row=1.0: must be a row"),
        ({"row": 3, "against_row": 3}, r"is the same model, row 3 of the same record"),
    ],
)
def test_evidence_is_never_of_a_window_trained_on(new, options, message):
    expected = {"metrics": {"accuracy": {"min": 0.1}}}
    if "windows" in options:
        expected["windows"] = options.pop("windows")
    with pytest.raises(InputError, match=message):
        gate(new, expectations=expected, **options)


@pytest.mark.parametrize("name", ["forgetting", "average_accuracy", "learning_accuracy", "negative_flip_rate"])
def test_metrics_of_trained_windows_are_refused(new, name):
    bound = {"max": 0.5} if name in ("forgetting", "negative_flip_rate") else {"min": 0.5}
    with pytest.raises(InputError, match=rf"metrics.{name}.m..: includes results on windows that row 4 was trained on"):
        gate(new, expectations={"metrics": {name: bound}})


EVERYTHING = {
    "metrics": {"accuracy": {"min": 0.4}, "next_nll": {"max": 9}},
    "change": {"accuracy": {"max_drop": 0.1}, "nll": {"max_rise": 0.1}},
    "calibration": {"max_ece": 0.3, "max_rise": 0.1},
    "slices": {"class": {"min_accuracy": 0.2, "max_drop": 0.1}},
    "flips": {"max_negative": 0.1},
}


def hidden(record):
    """The record with other results on the windows that each row was trained on."""
    after = np.arange(5) >= np.arange(6)[:, None]  # row i was not trained on windows i and later
    arrays = {k: np.where(after, v, 0.5) if k.startswith("matrix.") else v for k, v in record.arrays.items()}
    parts = dict(record.predictions.arrays)
    keep = after[:, parts["column"][0]]
    bits = np.unpackbits(parts["bits"], axis=-1, count=keep.shape[1]).astype(bool) & keep
    parts["bits"] = np.packbits(bits, axis=-1)
    return dataclasses.replace(record, arrays=arrays, samples=Predictions(parts), predictions_sha256=None)


@pytest.mark.parametrize("row", [2, 3, 4])
def test_no_decision_depends_on_trained_windows(new, old, row):
    first = gate(new, old, expectations=EVERYTHING, row=row, against_row=3)
    assert first == gate(hidden(new), hidden(old), expectations=EVERYTHING, row=row, against_row=3)


def test_a_gate_that_tests_on_the_last_trained_window_is_caught(new, old, monkeypatch):
    monkeypatch.setattr(choosing, "_windows", lambda *_: (4, 4, [3]))
    assert gate(new, old, expectations=EVERYTHING) != gate(hidden(new), hidden(old), expectations=EVERYTHING)


def test_rollback_is_an_older_row(new):
    expected = {"change": {"accuracy": {"max_drop": -0.05}}}
    verdict = gate(new, expectations=expected, row=4, against_row=1)
    assert only(verdict).windows == ("rotation 5",)
    back = gate(new, expectations=expected, row=1, against_row=4)
    assert only(back).windows == ("rotation 5",)
    assert only(back).value == pytest.approx(-only(verdict).value)


def test_streams_without_time_have_no_rows_to_choose(split):
    with pytest.raises(InputError, match=r"row=2: split_digits is class-incremental .* only its last row, 5"):
        gate(split, expectations={"metrics": {"accuracy": {"min": 0.1}}}, row=2)
    with pytest.raises(InputError, match=r"windows: split_digits has no windows in time"):
        gate(split, expectations={"metrics": {"accuracy": {"min": 0.1}}, "windows": 1})
    with pytest.raises(InputError, match=r"staleness.max_windows: split_digits has no windows in time"):
        gate(split, expectations={"staleness": {"max_windows": 1}})
    with pytest.raises(InputError, match=r"metrics.nll.max: is undefined in the record \(.*\)"):
        gate(
            dataclasses.replace(split, metrics={"nll": Metric(None, None, None, 0, [None] * 3, "why")}),
            expectations={"metrics": {"nll": {"max": 1}}},
        )


# ---------------------------------------------------------------------- slices
def planted(record, drop, size=4000, slices=4, seed=0):
    """Two records of 80 % accuracy; in the second the first slice loses ``drop`` and the others make up for it."""
    rng = np.random.default_rng(seed)
    codes = np.arange(size) % slices
    before = rng.random((3, 6, 5, size)) < 0.8
    change = np.where(codes == 0, -drop, drop / (slices - 1))
    u = rng.random(before.shape)
    after = np.where(change < 0, before & ~(u < -change / 0.8), before | (u < change / 0.2))
    labels = [str(s) for s in range(slices)]
    return made(record, after, codes, labels), made(record, before, codes, labels)


def test_a_drop_in_one_slice_under_a_flat_aggregate_is_refused(new):
    after, before = planted(new, 0.10)
    expected = {"change": {"accuracy": {"max_drop": 0.01}}, "slices": {"site": {"max_drop": 0.05}}}
    verdict = gate(after, before, expectations=expected)
    assert [(check.name, check.passed) for check in verdict.checks] == [
        ("change.accuracy.max_drop", True),
        ("slices.site.max_drop", False),
    ]
    (check,) = verdict.failed
    assert re.match(r"1 of 4 slices fail: site 0: \+0\.\d+ \(n 1,000, significant in 3 of 3 seeds\)", check.reason)
    assert check.value == pytest.approx(0.1, abs=0.02)
    assert gate(*planted(new, 0.0), expectations=expected).accepted


def test_noise_in_small_slices_is_no_drop(new):
    """With many small slices the largest drop is noise, which the test tells from a drop and the estimate does not."""
    rng = np.random.default_rng(1)
    codes = np.arange(4000) % 100
    before, after = (rng.random((3, 6, 5, 4000)) < 0.8 for _ in range(2))
    pair = [made(new, bits, codes, [str(s) for s in range(100)]) for bits in (after, before)]
    assert gate(*pair, expectations={"slices": {"site": {"max_drop": 0.05}}}).accepted
    assert not gate(*pair, expectations={"slices": {"site": {"max_drop": 0.05, "alpha": 1}}}).accepted


def test_small_slices_are_left_out(new):
    check = only(gate(new, expectations={"slices": {"class": {"min_accuracy": 0.01, "min_support": 45}}}))
    assert re.search(r"(\d) slices meet it.*; (\d) with fewer than 45 samples not checked", check.reason)
    check = only(gate(new, expectations={"slices": {"class": {"min_accuracy": 0.01, "min_support": 1000}}}))
    assert (check.passed, check.value) == (False, None)
    assert check.reason == "no slice has enough samples; 10 with fewer than 1000 samples not checked"


# ---------------------------------------------------------------------- diverged replicas
def diverged(record, row):
    """The record with its second replica diverged from a row on."""
    arrays = {k: v.copy() if k.startswith("matrix.") else v for k, v in record.arrays.items()}
    for name in arrays:
        if name.startswith("matrix."):
            arrays[name][1, row:] = np.nan
    replicas = [dict(replica) for replica in record.replicas]
    replicas[1] |= {"status": "diverged", "diverged_at": 300}
    return dataclasses.replace(record, arrays=arrays, replicas=replicas)


def test_diverged_replicas_fail_every_check(new, old):
    expected = {
        "metrics": {"accuracy": {"min": 0}},
        "change": {"nll": {"max_rise": 9}},
        "slices": {"class": {"min_accuracy": 0.0, "max_drop": 1}},
        "staleness": {"max_windows": 1},
    }
    verdict = gate(diverged(new, 3), old, expectations=expected)
    assert [check.value for check in verdict.checks] == [None] * 5
    assert {check.reason for check in verdict.checks} == {"1 of 3 replicas diverged (seeds 1)"}
    assert not verdict.accepted
    assert gate(diverged(new, 3), old, expectations=expected | {"staleness": {"max_windows": 3}}, row=2).accepted
    against = gate(new, diverged(old, 3), expectations=expected)
    assert against.accepted
    assert "over 2 seeds" in against.checks[1].reason


def test_diverged_replicas_of_final_metrics(split):
    replicas = [replica | {"status": "diverged", "diverged_at": 3} for replica in split.replicas]
    metric = Metric(None, None, None, 0, [None] * 3, "every replica diverged")
    record = dataclasses.replace(split, replicas=replicas, metrics=split.metrics | {"accuracy": metric})
    expected = {"metrics": {"accuracy": {"min": 0}}, "slices": {"class": {"min_accuracy": 0}}}
    verdict = gate(record, expectations=expected)
    assert [check.value for check in verdict.checks] == [None, None]
    with pytest.raises(InputError, match=r"against: every replica of it diverged"):
        gate(split, dataclasses.replace(record, arrays_sha256=""), expectations=expected)


# ---------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metrics:\n  accuracy: {mim: 0.8}", "line 2: metrics.accuracy.mim: unknown key; did you mean min?"),
        ("metric:\n  accuracy: {min: 0.8}", "line 1: metric: unknown key; did you mean metrics?"),
        ("metrics:\n  accuracy: {min: 0.8}\n  accuracy: {min: 0.9}", "line 3: metrics.accuracy: is given twice"),
        ("metrics:\n\taccuracy: {min: 0.8}", "line 2: is not valid YAML (found character '\\t' that cannot start"),
        ("metrics: [1", "is not valid YAML"),
        ("a: 1\n---\nb: 2", "line 2: is not valid YAML"),
        ("metrics: *x", "line 1: is not valid YAML (found undefined alias"),
        ("metrics: \x01", "is not valid YAML"),
        ("? [1]\n: 2", "line 1: a key must be a name"),
        ("", "is empty"),
        ("[]", "must be a mapping with metrics, change"),
        ("metrics:", "line 1: metrics: must be a mapping"),
        ("metrics: {}", "line 1: metrics: is empty"),
        ("windows: 1", "expects nothing; give at least one of metrics"),
        ("metrics:\n  accuracy: 0.8", "line 2: metrics.accuracy: must be a mapping with min, max, confidence"),
        ("metrics:\n  accuracy: {confidence: mean}", "line 2: metrics.accuracy: needs one of min, max"),
        ("metrics:\n  bwt: {min: 0.8, max: 0.9}", "line 2: metrics.bwt: needs one of min, max"),
        ("metrics:\n  accuracy:\n    min: 80", "line 3: metrics.accuracy.min: must be a number in [0, 1], found '80'"),
        ("metrics:\n  accuracy:\n    min: .nan", "line 3: metrics.accuracy.min: must be a number in [0, 1]"),
        ("metrics:\n  accuracy:\n    min: yes", "line 3: metrics.accuracy.min: must be a number in [0, 1]"),
        ("metrics:\n  accuracy:\n    min: [0.8]", "line 3: metrics.accuracy.min: must be a single value"),
        ("metrics:\n  nll: {min: 0.8}", "line 2: metrics.nll.min: lower values of nll are better; use max"),
        (
            "change:\n  nll: {max_drop: 0.8}",
            "line 2: change.nll.max_drop: lower values of nll are better; use max_rise",
        ),
        (
            "metrics:\n  nll: {max: 1, confidence: lower}",
            "metrics.nll.confidence: the worse end of the interval is the upper",
        ),
        (
            "metrics:\n  nll: {max: 1, confidence: often}",
            "metrics.nll.confidence: must be one of mean, lower, upper, sig",
        ),
        ("slices:\n  class: {alpha: 0.1}", "line 2: slices.class: needs at least one of min_accuracy, max_drop"),
        ("slices:\n  class: {alpha: 0.1, min_accuracy: 0}", "slices.class.alpha: is the level of the test of a drop"),
        ("slices:\n  class: {alpha: 0, max_drop: 0}", "line 2: slices.class.alpha: must be above 0"),
        (
            "slices:\n  class: {min_support: 0, max_drop: 0}",
            "slices.class.min_support: must be a whole number, 1 or more",
        ),
        (
            "slices:\n  clas: {max_drop: 0}",
            "line 2: slices.clas: the record has no slices by clas; did you mean class?",
        ),
        (
            "staleness: {max_windows: 1.5}",
            "line 1: staleness.max_windows: must be a whole number, 0 or more, found '1.5'",
        ),
        ("metrics:\n  acuracy: {min: 0.8}", "line 2: metrics.acuracy.min: unknown metric; did you mean accuracy or"),
        ('metrics:\n  "a\\nb": {min: 0.8}', r"line 2: metrics.a\nb.min: unknown metric"),
        ("windows: 0\nflips: {max_negative: 1}", "line 1: windows: must be a whole number, 1 or more"),
        ("windows: []\nflips: {max_negative: 1}", "line 1: windows: must be a list of at least one name"),
        ("change:\n  nll: {max_rise: 0}", "change.nll.max_rise: needs another model to compare with"),
        ("flips: {max_negative: 0}", "line 1: flips.max_negative: needs another model to compare with"),
        ("slices:\n  class: {max_drop: 0}", "line 2: slices.class.max_drop: needs another model to compare with"),
    ],
)
def test_malformed_expectations_are_one_line(here, capsys, text, message):
    (here / "bad.yaml").write_text(text)
    assert main("runs/new", "--expect", "bad.yaml") == 2
    err = capsys.readouterr().err
    assert err.startswith("cl-gate: bad.yaml: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (here / "runs/new/gate.json").exists()


def test_files_that_cannot_be_read(here, capsys):
    (here / "latin.yaml").write_bytes(b"metrics: \xff")
    (here / "deep.yaml").write_text("[" * 20000)
    (here / "large.yaml").write_text("#" * 1_000_001)
    for name, message in (
        ("none.yaml", "there is no such file"),
        ("runs", "is not a file"),
        ("latin.yaml", "is not a text in UTF-8"),
        ("deep.yaml", "is not valid YAML"),
        ("large.yaml", "is larger than 1,000,000 bytes"),
    ):
        assert main("runs/new", "--expect", name) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1


def test_a_live_model_is_as_stale_as_its_last_update():
    rotated = cl_lib.streams.rotated(cl_lib.datasets.digits(), experiences=5)
    live = cl_lib.run(rotated, cl_lib.strategies.Finetune(), policy=cl_lib.policies.Never(), seeds=2)
    for limit in (3, 4):
        verdict = gate(live, expectations={"staleness": {"max_windows": limit}})
        assert (verdict.row, verdict.checks[0].value, verdict.accepted) == (4, 4, limit == 4)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["runs/none"], "runs/none: there is no record"),
        (
            ["runs/new", "--against", "runs/split"],
            "against: the records cannot be compared, since their columns differ",
        ),
        (["runs/new", "--against", "runs/new"], "--against runs/new: is the same record; name its row"),
        (["runs/new", "--row", "5"], "row=5: was trained on the windows up to rotation 5"),
        (["runs/new", "--row", "one"], "argument --row: invalid int value: 'one'"),
        (["runs/new", "--rows"], "unrecognized arguments"),
        ([], "the following arguments are required: DIR"),
        (["runs/new", "--json", "none/x.json"], "--json none/x.json: there is no directory none"),
        (["runs/new", "--json", "easy.yaml"], "easy.yaml: is damaged"),
        (["runs/new", "--json", "runs/old/record.json"], "is not a verdict of cl-gate and is not replaced"),
        (["runs/new", "--json", "runs/new/gate.json"], "keeps the verdicts of a run"),
    ],
)
def test_mistakes_on_the_command_line(here, capsys, argv, message):
    argv = [*argv, "--expect", "easy.yaml"]
    argv = [a for a in argv if a != "--rows"] + [a for a in argv if a == "--rows"]
    assert main(*argv) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (here / "runs/new/gate.json").exists()


def test_records_of_other_data_or_seeds(new, old):
    expected = {"metrics": {"accuracy": {"min": 0}}}
    for changed, message in (
        ({"seeds": [0, 1, 5]}, r"their seeds differ: \[0, 1, 2\] and \[0, 1, 5\]"),
        ({"stream": old.stream | {"data_hash": "x"}}, "their data_hash differ: .* and x; rows of one record are"),
        ({"stream": old.stream | {"column_hash": "x"}}, "their column_hash differ"),
        ({"job": old.job | {"eval_on": "valid"}}, "their eval_on differ: test and valid"),
        ({"arrays": old.arrays | {"support": old.arrays["support"] + 1}}, "their numbers of test samples differ"),
        ({"grid": [{}]}, r"record finetune: has a grid of 1 points"),
    ):
        with pytest.raises(InputError, match=message):
            gate(new, dataclasses.replace(old, **changed), expectations=expected)


def test_predictions_are_needed_for_tests(new, old):
    bare = dataclasses.replace(new, predictions_sha256=None)
    for expected in ({"flips": {"max_negative": 0.5}}, {"slices": {"class": {"min_accuracy": 0}}}):
        with pytest.raises(InputError, match=r"has no predictions; run with save_predictions=true"):
            gate(bare, old, expectations=expected)


def test_a_dictionary_has_keys_and_no_lines():
    with pytest.raises(InputError, match=r"^expectations: metrics.accuracy.min: must be a number in \[0, 1\]"):
        read_expectations({"metrics": {"accuracy": {"min": 2}}})
    assert read_expectations({"metrics": {"accuracy": {"min": np.float64(0.5)}}}).bounds[0].limit == 0.5


# ---------------------------------------------------------------------- the command
def test_exit_codes_and_the_verdicts_that_stay(here, capsys):
    assert main("runs/new", "--against", "runs/old", "--expect", "easy.yaml", "--json", "one.json") == 0
    assert capsys.readouterr().out.startswith("accepted: cumulative row 4, compared with finetune row 4, 3 seeds")
    assert main("runs/new", "--expect", "hard.yaml", "--row", "3") == 1
    assert "refused: cumulative row 3, 3 seeds" in capsys.readouterr().out
    first, second = json.loads((here / "runs/new/gate.json").read_text())
    assert json.loads((here / "one.json").read_text()) == first
    assert (first["accepted"], second["accepted"], second["row"]) == (True, False, 3)
    assert "is below 1" in second["checks"][0]["reason"]
    assert first["record"]["sha256"] != first["serving"]["sha256"]
    assert second["serving"] is None
    assert first["expectations"]["sha256"] != second["expectations"]["sha256"]
    assert first["time"] <= second["time"]
    assert {p.name for p in (here / "runs/new").iterdir()} == {
        "record.json", "arrays.npz", "predictions.npz", "config.yaml", "gate.json",
    }  # fmt: skip
    assert main("runs/new", "--expect", "easy.yaml", "--json", "one.json") == 0


def test_rollback_from_the_command_line(here, capsys):
    argv = ["runs/new", "--expect", "easy.yaml", "--row", "1", "--against-row", "3"]
    assert main(*argv) == 0
    assert "cumulative row 1, compared with cumulative row 3" in capsys.readouterr().out
    assert main(*argv, "--against", "runs/new") == 0


@pytest.mark.parametrize("content", ["[", "{}", "[1]", "[{}]", '[{"schema": "cl_lib.gate/1"}]', "[NaN]", "\xff"])
def test_a_damaged_file_of_verdicts_is_an_error_before_the_decision(here, capsys, monkeypatch, content):
    (here / "runs/new/gate.json").write_bytes(content.encode("latin-1"))
    monkeypatch.setattr("cl_lib.service.gating.gate", lambda *_, **__: pytest.fail("decided"))
    assert main("runs/new", "--expect", "easy.yaml") == 2
    err = capsys.readouterr().err
    assert "runs/new/gate.json: is damaged" in err
    assert err.count("\n") == 1
    assert (here / "runs/new/gate.json").read_bytes() == content.encode("latin-1")

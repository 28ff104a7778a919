"""Drifting streams: known change points, what changes at them, and what does not."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import cl_lib
from cl_lib.datasets import Dataset, digits, from_arrays
from cl_lib.engine.resident import gather, tables, upload
from cl_lib.errors import InputError
from cl_lib.streams import Stream, check_stream, drifting
from cl_lib.streams.regimes import keep_shares, label_tables, regimes

DATA = digits()


def flat(n: int = 6000, classes: int = 4, **options: Any) -> Dataset:
    """Normal features with labels of equal proportions."""
    rng = np.random.default_rng(0)
    return from_arrays((rng.normal(3.0, 2.0, (n, 5)), np.arange(n) % classes), 0.25, mean=3.0, std=2.0, **options)


def inputs(stream: Stream, window: int, index: Tensor) -> Tensor:
    """What a learner is given for train samples of one window, in float64."""
    shared = upload(stream.data, stream.data.train, torch.float64, torch.device("cpu"))
    table = {k: v[0] for k, v in tables([stream.realise(0)], torch.float64, torch.device("cpu")).items()}
    return gather(shared, table, index, torch.full_like(index, window), torch.float64)[0]


def proportions(stream: Stream) -> Tensor:
    """``(T, C)`` share of each class in each window, train and test together."""
    real = stream.realise(0)
    rows = []
    for e, test in zip(real.experiences, real.tests, strict=True):
        y = torch.cat([stream.data.train.y[e.train], stream.data.test.y[test]])
        rows.append(y.bincount(minlength=len(stream.classes)) / len(y))
    return torch.stack(rows)


KINDS = ("covariate", "concept", "label", "none")
SHAPES = ("abrupt", "gradual", "recurring")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("valid", [0.0, 0.2])
def test_no_sample_is_in_two_windows(kind: Any, shape: Any, valid: float) -> None:
    stream = drifting(DATA, windows=12, kind=kind, shape=shape, at=[5], valid=valid, strength=0.8)
    report = check_stream(stream)
    if kind == "label":
        assert report.train + report.valid < len(DATA.train)
        sizes = {
            len(e.train) + len(v) for e, v in zip(stream.realise().experiences, stream.realise().valids, strict=True)
        }
        assert len(sizes) == 1
    else:
        assert (report.train + report.valid, report.test) == (len(DATA.train), len(DATA.test))
        assert {len(test) for test in stream.realise(0).tests} == {37, 38}
    assert (report.valid > 0) == (valid > 0)
    assert (stream.scenario, stream.length, stream.columns[11]) == ("domain", 12, "window 12")


@pytest.mark.parametrize(
    ("kind", "shape", "options", "changes"),
    [
        ("covariate", "abrupt", {"at": [5]}, [5]),
        ("concept", "abrupt", {"at": (3, 7)}, [3, 7]),
        ("label", "gradual", {"at": [2, 6], "width": 3}, [2, 3, 4, 6, 7, 8]),
        ("covariate", "gradual", {"at": [5], "width": 4}, [5, 6, 7, 8]),
        ("concept", "gradual", {"at": [5], "width": 4}, [5, 6, 7, 8]),
        ("concept", "recurring", {"at": [3], "width": 4}, [3, 7, 11]),
        ("covariate", "abrupt", {"at": 5}, [5]),
        ("label", "recurring", {"at": [2], "width": 1}, list(range(2, 12))),
        ("none", "recurring", {"at": [3]}, []),
        ("none", "abrupt", {}, []),
    ],
)
def test_changes_are_the_truth_and_in_the_options(
    kind: Any, shape: Any, options: dict[str, Any], changes: list[int]
) -> None:
    stream = drifting(flat(classes=8), windows=12, kind=kind, shape=shape, **options)
    assert stream.options["changes"] == changes
    told = {key: stream.options[key] for key in ("kind", "drift", "shape", "strength", "width", "seed")}
    width = options.get("width", 4)
    assert told == {"kind": "drifting", "drift": kind, "shape": shape, "strength": 1.0, "width": width, "seed": 0}
    assert stream.describe()["options"]["at"] == [5] if options.get("at") == 5 else list(options.get("at", (10,)))


def test_two_deals_differ_and_one_seed_gives_one_stream_to_all_runs() -> None:
    one, same, other = (drifting(DATA, seed=seed).realise(0) for seed in (0, 0, 1))
    assert torch.equal(one.experiences[3].train, same.experiences[3].train)
    assert not torch.equal(one.experiences[3].train, other.experiences[3].train)
    assert one.transform is not None and other.transform is not None  # noqa: PT018
    assert not torch.equal(one.transform.pixel, other.transform.pixel)
    assert torch.equal(drifting(DATA).realise(7).tests[2], one.tests[2])


# ---------------------------------------------------------------------- covariate
@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_inputs_are_as_stored_before_the_change_and_mixed_with_a_permutation_after(strength: float) -> None:
    stream = drifting(flat(), windows=6, at=[2, 4], strength=strength)
    index = torch.arange(50)
    stored = (stream.data.train.x[:50].double() - 3) / 2
    real = stream.realise(0)
    assert real.transform is not None
    assert real.targets is None
    first, second = (real.transform.pixel[t, :, -1] for t in (2, 4))
    assert not torch.equal(first, second)
    for window, order in ((0, None), (1, None), (2, first), (3, first), (4, second), (5, second)):
        expected = stored if order is None else (1 - strength) * stored + strength * stored[:, order]
        assert torch.allclose(inputs(stream, window, index), expected, atol=1e-7)
        assert order is not None or torch.equal(inputs(stream, window, index), stored)


def test_a_gradual_covariate_drift_moves_the_weights_linearly() -> None:
    stream = drifting(flat(), windows=8, at=[2], shape="gradual", width=4, strength=0.8)
    index, stored = torch.arange(50), None
    stored = inputs(stream, 0, index)
    end = inputs(stream, 7, index)
    for window, rise in enumerate([0, 0, 0.25, 0.5, 0.75, 1, 1, 1]):
        assert torch.allclose(inputs(stream, window, index), (1 - rise) * stored + rise * end, atol=1e-6)


def test_a_recurring_covariate_drift_returns() -> None:
    stream = drifting(DATA, windows=9, at=[3], shape="recurring", width=2)
    index = torch.arange(20)
    seen = [inputs(stream, t, index) for t in range(9)]
    for t, drifted in enumerate([0, 0, 0, 1, 1, 0, 0, 1, 1]):
        assert torch.equal(seen[t], seen[0] if not drifted else seen[3])
    assert not torch.equal(seen[0], seen[3])


# ---------------------------------------------------------------------- concept
def test_labels_move_on_in_a_circle() -> None:
    mix = regimes(6, "abrupt", [1, 3], 4)
    assert label_tables(mix, 5, 1.0)[[0, 1, 2, 3, 5]].tolist() == [
        [0, 1, 2, 3, 4],
        [1, 2, 3, 4, 0],
        [1, 2, 3, 4, 0],
        [2, 3, 4, 0, 1],
        [2, 3, 4, 0, 1],
    ]
    assert label_tables(mix, 5, 0.6)[1].tolist() == [1, 2, 0, 3, 4]
    assert label_tables(mix, 5, 0.01)[1].tolist() == [1, 0, 2, 3, 4]
    stream = drifting(flat(), windows=6, kind="concept", at=[3])
    real = stream.realise(0)
    y = stream.data.train.y[real.experiences[4].train]
    assert torch.equal(real.labels(y, real.experiences[4].task), (y + 1) % 4)
    assert real.transform is None


def test_a_gradual_concept_drift_moves_one_class_after_the_other_and_stays_a_permutation() -> None:
    table = label_tables(regimes(12, "gradual", [2, 7], 4), 8, 1.0)
    moved = (table != torch.arange(8)).sum(1).tolist()
    assert moved[:7] == [0, 0, 2, 4, 6, 8, 8]
    assert (table.sort(1).values == torch.arange(8)).all()
    assert table[-1].tolist() == [(c + 2) % 8 for c in range(8)]
    changed = (table[1:] != table[:-1]).any(1).nonzero()[:, 0] + 1
    assert changed.tolist() == [2, 3, 4, 5, 7, 8, 9, 10]


# ---------------------------------------------------------------------- label
def test_class_proportions_are_those_of_the_closed_form() -> None:
    stream = drifting(flat(24_000), windows=6, kind="label", at=[2, 4], strength=0.75)
    before, after, later = [0.25] * 4, [0.1, 0.1, 0.4, 0.4], [0.4, 0.4, 0.1, 0.1]
    expected = torch.tensor([before, before, after, after, later, later])
    n = sum(len(part[0]) for part in ([e.train for e in stream.realise().experiences], stream.realise().tests))
    assert (proportions(stream) - expected).abs().max() < 4 * (0.4 * 0.6 / n) ** 0.5
    gone = proportions(drifting(flat(), windows=6, kind="label", at=[2]))
    assert gone[2:, :2].sum() == 0


def test_a_gradual_label_drift_is_a_linear_mixture() -> None:
    share = keep_shares(regimes(8, "gradual", [2], 4), 4, 0.8)
    assert torch.allclose(share[:, 0], torch.tensor([1, 1, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2], dtype=torch.float64))
    assert (share[:, 2:] == 1).all()


def test_without_a_drift_of_labels_classes_are_dealt_at_random() -> None:
    counts = proportions(drifting(flat(24_000), windows=20, kind="none")) * 1200
    statistic = float(((counts - 300) ** 2 / 300).sum())
    assert 30 < statistic < 90  # chi-squared with 57 degrees of freedom


# ---------------------------------------------------------------------- mistakes and runs
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": 2}, r"stream\.windows=2: must be a whole number, 3 or more"),
        ({"windows": 40}, r"stream\.windows=40: digits leaves 44 samples in a window; each needs 50 or more"),
        ({"kind": "label"}, r"stream\.windows=20: .*take fewer windows, or less strength"),
        ({"kind": "covariant"}, r"stream\.kind='covariant': must be one of covariate, concept, label, none"),
        ({"shape": "sudden"}, r"stream\.shape='sudden': must be one of abrupt, gradual, recurring"),
        ({"at": [0]}, r"stream\.at=\[0\]: must be rising windows from 1 to 19, counted from 0"),
        ({"at": [20]}, r"stream\.at=\[20\]: must be rising windows"),
        ({"at": []}, r"stream\.at=\[\]: must be rising windows"),
        ({"at": [8, 5]}, r"stream\.at=\[8, 5\]: must be rising windows"),
        ({"at": [5, 5]}, r"stream\.at=\[5, 5\]: must be rising windows"),
        ({"at": [2.5]}, r"stream\.at=2\.5: must be a whole number"),
        ({"at": [3, 9], "shape": "recurring"}, r"stream\.at=\[3, 9\]: give one window, from which a recurring drift"),
        ({"at": [3, 5], "shape": "gradual"}, r"stream\.at=\[3, 5\]: a gradual change needs width=4 windows before"),
        ({"at": [18], "shape": "gradual"}, r"stream\.at=\[18\]: a gradual change needs width=4 windows before"),
        ({"strength": 0}, r"stream\.strength=0: must be above 0 and at most 1"),
        ({"strength": 1.5}, r"stream\.strength=1\.5: must be above 0 and at most 1"),
        ({"strength": float("nan")}, r"stream\.strength=nan: must be above 0"),
        ({"width": 0}, r"stream\.width=0: must be a whole number, 1 or more"),
        ({"valid": 1.0}, r"stream\.valid=1\.0: must be at least 0 and below 1"),
        ({"seed": -1}, r"stream\.seed=-1: must be a whole number, 0 or more"),
        (
            {"kind": "concept", "shape": "gradual", "strength": 0.3},
            r"stream\.width=4: a gradual concept drift moves.*3 cl",
        ),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        drifting(DATA, **options)


@pytest.mark.parametrize("kind", ["concept", "label"])
def test_labels_cannot_drift_with_one_class(kind: Any) -> None:
    with pytest.raises(InputError, match=rf"stream\.kind={kind}: needs 2 classes or more"):
        drifting(flat(classes=1), kind=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_sees_the_change(kind: Any) -> None:
    stream = drifting(DATA, windows=6, kind=kind, at=[3], width=2)
    record = cl_lib.run(stream, cl_lib.strategies.Finetune(), seeds=2, epochs=4, progress=False)
    matrix = record.arrays["matrix.accuracy"].mean(0)
    before, after = matrix[3, :3].mean(), matrix[3, 3:].mean()  # after three windows, all before the change
    assert before > 0.8
    if kind in ("covariate", "concept"):
        assert after < 0.3
    else:
        assert after > 0.7


@pytest.mark.parametrize(("classes", "width"), [(3, 2), (4, 3), (5, 4), (10, 4), (10, 9)])
def test_a_gradual_concept_drift_moves_more_classes_in_each_step(classes: int, width: int) -> None:
    tables = label_tables(regimes(width + 4, "gradual", [2], width), classes, 1.0)
    moved = [int((row != torch.arange(classes)).sum()) for row in tables]
    steps = moved[1 : width + 2]
    assert steps[0] == 0
    assert steps[-1] == classes
    assert all(a < b for a, b in itertools.pairwise(steps)), moved
    assert all(sorted(row.tolist()) == list(range(classes)) for row in tables)


@pytest.mark.parametrize(("classes", "width"), [(2, 2), (4, 4), (3, 3)])
def test_a_gradual_concept_drift_with_too_few_classes_is_refused(classes: int, width: int) -> None:
    with pytest.raises(cl_lib.InputError, match=f"stream.width={width}"):
        label_tables(regimes(width + 4, "gradual", [2], width), classes, 1.0)

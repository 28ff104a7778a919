"""Replicas whose experiences have different sizes train in groups; each one's record is as if it had run alone."""

from __future__ import annotations

import numpy as np
import pytest

import cl_lib
from cl_lib import datasets, strategies, streams
from cl_lib.models import MLP
from cl_lib.record import Record

SIZES = (30, 200, 60, 400)


@pytest.fixture(scope="module")
def data() -> datasets.Dataset:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), SIZES)
    x = (rng.normal(size=(len(y), 6)) + 2.5 * rng.normal(size=(4, 6))[y]).astype(np.float32)
    held = np.arange(len(y)) % 5 == 0
    return datasets.from_arrays((x[~held], y[~held]), (x[held], y[held]), name="unequal")


def record(data: datasets.Dataset, seeds: list[int], kind: str) -> Record:
    stream = streams.split(data, 4, class_order="seed")
    if kind == "online":
        stream = streams.online(stream, 25)
    return cl_lib.run(
        stream,
        strategies.ER(cl_lib.Memory(20, 8)),
        model=MLP.factory(hidden=(8,)),
        seeds=seeds,
        dtype="float64",
        device="cpu",
        lift="always",
    )


@pytest.mark.parametrize("kind", ["split", "online"])
def test_every_number_is_the_same_alone_and_in_company(data: datasets.Dataset, kind: str) -> None:
    together = record(data, [0, 1, 2, 3], kind)
    steps = together.arrays["step"]
    assert len(np.unique(steps, axis=0)) > 1, "the seeds must have different schedules"
    assert None in [row["step"] for row in together.rows]
    for r in range(4):
        alone = record(data, [r], kind)
        assert together.arrays.keys() == alone.arrays.keys()
        for name, values in alone.arrays.items():
            np.testing.assert_array_equal(together.arrays[name][r], values[0], err_msg=name)
        for name, metric in alone.metrics.items():
            assert together.metrics[name].per_seed[r] == metric.per_seed[0], name
        assert together.replicas[r] == alone.replicas[0]
        assert [row["step"] for row in alone.rows] == steps[r].tolist()


def test_anytime_accuracy_is_over_a_replica_s_own_steps(data: datasets.Dataset) -> None:
    got = record(data, [0, 1], "split")
    for r, per_seed in enumerate(got.metrics["anytime_accuracy"].per_seed):
        steps, curve = got.arrays["step"][r], got.arrays["matrix.accuracy"][r].mean(1)
        assert per_seed == pytest.approx(np.trapezoid(curve, steps) / (steps[-1] - steps[0]), abs=1e-12)


def test_a_report_of_unequal_schedules_is_drawn(data: datasets.Dataset) -> None:
    from cl_lib.report.entries import entries
    from cl_lib.report.plots import accuracy_matrices, over_time

    lines = entries([record(data, [0, 1], "split")])
    assert over_time(lines).startswith("<svg")
    assert accuracy_matrices(lines).startswith("<svg")

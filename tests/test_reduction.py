"""The reduction of a run to its record, without any training: rows made by hand, numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cl_lib.harness.groups import Group
from cl_lib.harness.job import Replica
from cl_lib.harness.reduction import make_record
from cl_lib.harness.result import Result
from cl_lib.metrics.scores import BINS
from cl_lib.types import Row

CLASSES, COLUMNS, SAMPLES = 2, 2, 100
ACCURACY = {  # by seed: rows are the untrained network and the two evaluations, columns the test sets
    0: [[0.5, 0.4], [1.0, 0.3], [0.6, 0.9]],
    1: [[0.5, 0.5], [0.8, 0.5], [0.7, 1.0]],
}


def row(number: int, member: int, step: int, diverged: int = -1) -> Row:
    correct = np.array([ACCURACY[member][number]]) * SAMPLES
    count = np.full((1, COLUMNS), float(SAMPLES))
    bins = np.zeros((1, COLUMNS, BINS, 3))
    bins[..., -1, :] = np.stack([count, count * 0.95, correct], -1)
    matrix = correct / count
    arrays = {name: matrix.copy() for name in ("accuracy", "nll", "brier", "ece", "adaptive_ece", "classwise_ece")}
    arrays |= {f"pooled.{name}": values.mean(1) for name, values in arrays.items()}
    arrays |= {"support": count, "experience.bins": bins, "pooled.bins": bins.sum(1)}
    arrays |= {"class.count": count, "class.correct": correct, "class.bins": bins}
    arrays |= {"column.site.count": count, "column.site.correct": correct, "column.site.bins": bins}
    arrays |= {"age": np.array([[step - 1 if number else -1, -1 if number < 2 else 0]]), "loss": np.array([0.1])}
    return Row(number, step, [member], arrays | {"diverged": np.array([diverged])})


def result(steps: tuple[int, int] = (10, 10), diverged: int = -1) -> Result:
    """Two seeds on schedules of their own; seed 1 trains first."""
    groups = []
    for member in (1, 0):
        rows = [row(i, member, i * steps[member], diverged if member else -1) for i in range(3)]
        learned, before = np.array([[1, 2]]), np.array([[0, 1]])
        group = Group([member], [], rows, learned, before, parameters=7, memory_bytes=70, steps=2 * steps[member])
        groups.append(group)
    stream = {"name": "made", "scenario": "class", "experiences": 2, "classes": 2, "columns": ["a", "b"]}
    seconds = dict.fromkeys(("training", "consolidation", "evaluation", "planning", "preparation"), 1.0)
    return Result(
        description={"stream": stream, "optim": {"lr": 0.1}},
        seeds=[0, 1],
        replicas=[Replica(0, {}), Replica(1, {})],
        groups=groups,
        length=2,
        eval_classes="all",
        classes=["cat", "dog"],
        columns=["a", "b"],
        slices={"site": ["here", "there"]},
        seconds=seconds,
        batch_size=5,
        device=torch.device("cpu"),
    )


def test_replicas_are_in_the_order_of_their_seeds_whatever_group_trained_first():
    record = make_record(result(), "made")
    assert record.arrays["matrix.accuracy"][0].tolist() == ACCURACY[0]
    assert record.metrics["accuracy"].per_seed == pytest.approx([0.75, 0.85])
    assert record.accuracy_matrix == np.mean([ACCURACY[0], ACCURACY[1]], 0).tolist()


def test_metrics_are_those_of_each_matrix():
    metrics = make_record(result(), "made").metrics
    assert metrics["forgetting"].per_seed == pytest.approx([1.0 - 0.6, 0.8 - 0.7])
    assert metrics["bwt"].per_seed == pytest.approx([-0.4, -0.1])
    assert metrics["fwt"].per_seed == pytest.approx([0.3 - 0.4, 0.5 - 0.5])
    assert metrics["learning_accuracy"].per_seed == pytest.approx([0.95, 0.9])
    assert metrics["worst_class_accuracy"].per_seed == pytest.approx([0.6, 0.7])
    assert metrics["class_gap"].per_seed == pytest.approx([0.3, 0.3])


def test_steps_that_differ_between_replicas_are_null_and_costs_add_up():
    record = make_record(result(steps=(10, 20)), "made")
    assert [entry["step"] for entry in record.rows] == [0, None, None]
    assert record.arrays["step"].tolist() == [[0, 10, 20], [0, 20, 40]]
    assert record.cost["steps"] == 30  # of a replica, on average
    assert record.cost["samples_per_second"] == 30 * 5 * 2 / 2  # training and consolidation took two seconds


def test_a_diverged_replica_is_left_out_of_every_mean():
    record = make_record(result(diverged=13), "made")
    assert record.replicas[1] == {"seed": 1, "hyper": {}, "status": "diverged", "diverged_at": 13}
    assert record.metrics["accuracy"].per_seed == [pytest.approx(0.75), None]
    assert record.metrics["accuracy"].n == 1


def test_slices_and_reliability_are_those_of_the_sums():
    record = make_record(result(), "made")
    assert record.slices["class"]["accuracy"] == pytest.approx([0.65, 0.95])
    assert record.slices["site"]["labels"] == ["here", "there"]
    assert record.slices["class"]["forgetting"] == [pytest.approx(0.25), None]  # the second class has no past
    after = record.reliability["after"]
    assert after["count"][-1] == 2 * COLUMNS * SAMPLES
    assert after["confidence"][-1] == pytest.approx(0.95)
    assert after["accuracy"][-1] == pytest.approx(0.8)

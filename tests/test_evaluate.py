"""Evaluations against a slow loop over samples in float64."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import cl_lib
from cl_lib.datasets import Dataset, from_arrays
from cl_lib.errors import InputError
from cl_lib.harness import evaluate
from cl_lib.harness.evaluate import Evaluator
from cl_lib.streams import Stream, blurry, online, permuted, rotated, split

BINS, CHUNK = 15, 250
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small data take several."""
    monkeypatch.setattr(evaluate, "CHUNK", CHUNK)


def data(n: int = 320, classes: int = 6) -> Dataset:
    """Images of which the test part is longer than a chunk; two metadata columns."""
    rng = np.random.default_rng(0)
    assert n > CHUNK
    y = rng.permutation(np.arange(2 * n) % classes)
    x = rng.integers(0, 256, (2 * n, 1, 4, 4)).astype(np.uint8)
    columns = {
        "site": (rng.choice(["a", "b", "c"], n).tolist(), rng.choice(["a", "b", "c"], n).tolist()),
        "night": ((y[:n] > 2).tolist(), (y[n:] > 2).tolist()),
    }
    return from_arrays((x[:n], y[:n]), (x[n:], y[n:]), columns=columns, mean=20.0, std=70.0)


DATA = data()


class Linear:
    """One fixed linear map for each replica, that also looks at the task."""

    def __init__(self, replicas: int, classes: int, scale: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(1)
        self.weight = scale * torch.randn(replicas, 16, classes, generator=generator, dtype=torch.float64)
        self.asked = 0
        self.begun = 0

    def begin_evaluation(self) -> None:
        self.begun += 1

    def predict(self, x: Tensor | Sequence[Tensor], task: Tensor) -> Tensor:
        x = x.expand(len(self.weight), *x.shape) if isinstance(x, Tensor) else torch.stack(list(x))
        assert task.shape == x.shape[:2]
        assert task.shape[1] <= CHUNK
        self.asked += task.shape[1]
        return torch.log_softmax(x.flatten(2) @ self.weight + 0.1 * task[..., None], -1)


def inputs(stream: Stream, real: Any, part: str, i: int, column: int) -> tuple[np.ndarray, int]:
    """One sample as its column asks for it, by direct indexing."""
    samples = stream.data.test if part == "test" else stream.data.train
    x = samples.x[i].double().numpy().ravel()
    if real.transform is not None:
        index = real.transform.pixel[column].numpy()
        weight = real.transform.weight
        x = (x[index] * (1 if weight is None else weight[column].double().numpy())).sum(-1)
    x = (x - 20.0) / 70.0  # a rotated image's corners are black, not grey
    y = int(samples.y[i])
    return x, y if real.targets is None else int(real.targets[column, y])


def slow(stream: Stream, learner: Linear, seen: np.ndarray, part: str = "test", seeds: tuple[int, ...] = (0, 1)) -> Any:
    """Every sample of every column, with its probabilities over the answerable classes, replica by replica."""
    out = []
    for r, seed in enumerate(seeds):
        real, rows = stream.realise(seed), []
        for column in range(len(stream.columns)):
            asked = real.tests[column] if part == "test" else real.valids[column]
            for i in asked.tolist():
                x, y = inputs(stream, real, part, i, column)
                z = x @ learner.weight[r].numpy()
                allowed = np.ones(len(z), bool)
                if stream.eval_classes == "experience":
                    allowed = real.classes[column].numpy()
                elif stream.eval_classes == "seen" and seen.any():
                    allowed = seen[r]
                e = np.where(allowed, np.exp(z - z[allowed].max()), 0)
                rows.append((column, i, y, e / e.sum()))
        out.append(rows)
    return out


def calibration(rows: list[Any]) -> float:
    bins: dict[int, list[tuple[float, bool]]] = {}
    for _, _, y, p in rows:
        bins.setdefault(min(int(np.float32(p.max()) * BINS), BINS - 1), []).append((p.max(), p.argmax() == y))
    return sum(abs(sum(float(hit) - c for c, hit in own)) for own in bins.values()) / len(rows)


def numbers(rows: list[Any]) -> dict[str, float]:
    with np.errstate(divide="ignore"):
        return {
            "accuracy": float(np.mean([p.argmax() == y for _, _, y, p in rows])),
            "nll": float(np.mean([-np.log(p[y]) for _, _, y, p in rows])),
            "brier": float(np.mean([((p - np.eye(len(p))[y]) ** 2).sum() for _, _, y, p in rows])),
            "ece": calibration(rows),
        }


def run(stream: Stream, learner: Linear, seen: np.ndarray, part: str = "test", seeds: Any = (0, 1)) -> Any:
    evaluator = Evaluator(stream, [stream.realise(s) for s in seeds], part, torch.float64, CPU)
    return evaluator.run(learner, seen)


def assert_same(got: Any, expected: Any, columns: int, null: tuple[str, ...] = ()) -> None:
    for r, rows in enumerate(expected):
        for name, value in numbers(rows).items():
            if name not in null:
                assert got[f"pooled.{name}"][r] == pytest.approx(value, abs=1e-10), name
        for column in range(columns):
            own = [row for row in rows if row[0] == column]
            assert got["support"][r, column] == len(own)
            for name, value in numbers(own).items():
                if name not in null:
                    assert got[name][r, column] == pytest.approx(value, abs=1e-10), name


STREAMS = {
    "class": split(DATA, 3, class_order="seed"),
    "class over all": split(DATA, 3, class_order="seed", eval_classes="all"),
    "task": split(DATA, 3, scenario="task", class_order="seed"),
    "domain": split(DATA, 3, scenario="domain", class_order=[5, 0, 3, 1, 2, 4]),
    "permuted": permuted(DATA, 3),
    "permuted task": permuted(DATA, 2, scenario="task"),
    "permuted class": permuted(DATA, 2, scenario="class", eval_classes="all"),
    "rotated": rotated(DATA, 2, by_seed=False),
    "online": online(split(DATA, 3, eval_classes="all"), 40),
    "blurry": blurry(split(DATA, 3, eval_classes="all"), 0.3),
}


@pytest.mark.parametrize("name", STREAMS)
def test_rows_equal_a_loop_over_the_samples(name: str) -> None:
    stream = STREAMS[name]
    learner = Linear(2, len(stream.classes))
    seen = np.ones((2, len(stream.classes)), bool)
    assert_same(run(stream, learner, seen), slow(stream, learner, seen), len(stream.columns))
    assert learner.begun == 1


def test_only_seen_classes_may_be_answered_and_nll_of_unseen_ones_is_null() -> None:
    stream = split(DATA, 3, class_order="seed")
    learner = Linear(2, 6)
    seen = np.stack([stream.realise(s).classes[:2].any(0).numpy() for s in (0, 1)])
    got, expected = run(stream, learner, seen), slow(stream, learner, seen)
    assert_same(got, expected, 3, null=("nll",))
    assert np.isnan(got["pooled.nll"]).all()
    assert np.isnan(got["nll"]).tolist() == [[False, False, True]] * 2
    for r in range(2):
        for column in range(2):
            own = [row for row in expected[r] if row[0] == column]
            assert got["nll"][r, column] == pytest.approx(numbers(own)["nll"], abs=1e-10)
    assert (got["accuracy"][:, 2] == 0).all()


def test_before_training_every_class_may_be_answered() -> None:
    stream, learner, seen = split(DATA, 3), Linear(2, 6), np.zeros((2, 6), bool)
    got = run(stream, learner, seen)
    assert_same(got, slow(stream, learner, seen), 3)
    assert np.isfinite(got["nll"]).all()


def test_saturated_predictions_stay_finite() -> None:
    stream = split(DATA, 3, scenario="task")
    got = run(stream, Linear(2, 6, scale=200.0), np.ones((2, 6), bool))
    assert all(np.isfinite(got[k]).all() for k in ("accuracy", "nll", "brier", "ece", "adaptive_ece", "classwise_ece"))


@pytest.mark.parametrize("name", ["class", "permuted"])
def test_replicas_are_evaluated_as_each_would_be_alone(name: str) -> None:
    stream = STREAMS[name]
    learner, seen = Linear(2, 6), np.ones((2, 6), bool)
    together = run(stream, learner, seen)
    for r in range(2):
        one = Linear(1, 6)
        one.weight = learner.weight[r : r + 1]
        alone = run(stream, one, seen[:1], seeds=(r,))
        for key, value in alone.items():
            np.testing.assert_allclose(value[0], together[key][r], rtol=0, atol=1e-9, err_msg=key)


class Answers:
    """Log-probabilities written down beforehand, (R, N, C)."""

    def __init__(self, log_probs: Tensor) -> None:
        self.log_probs = log_probs
        self.asked = 0

    def begin_evaluation(self) -> None:
        self.asked = 0

    def predict(self, x: Tensor | Sequence[Tensor], task: Tensor) -> Tensor:
        self.asked += task.shape[1]
        return self.log_probs[:, self.asked - task.shape[1] : self.asked]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["class", "task", "permuted"])
def test_neither_the_replicas_beside_one_nor_what_is_scored_at_once_change_a_bit(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, seeds = STREAMS[name], (0, 1, 2)
    rng = torch.Generator().manual_seed(3)
    logits = torch.randn(3, 3 * len(DATA.test), len(stream.classes), generator=rng, dtype=dtype)
    log_probs, seen = (8 * logits).log_softmax(-1), np.tile(np.arange(len(stream.classes)) != 1, (3, 1))
    together = run(stream, Answers(log_probs), seen, seeds=seeds)
    for scored in (1, 2**30):
        monkeypatch.setattr(evaluate, "SCORED", scored)
        monkeypatch.setattr(evaluate, "SORTED", scored)
        for r in seeds:
            alone = run(stream, Answers(log_probs[r : r + 1]), seen[:1], seeds=(r,))
            for key, value in alone.items():
                np.testing.assert_array_equal(value[0], together[key][r], err_msg=key)


def test_with_too_many_columns_and_classes_the_classwise_error_is_known_for_all_samples_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, learner, seen = STREAMS["class"], Linear(2, 6), np.ones((2, 6), bool)
    expected = run(stream, learner, seen)
    monkeypatch.setattr(evaluate, "CELLS", 17)
    got = run(stream, learner, seen)
    assert np.isnan(got.pop("classwise_ece")).all()
    for key, value in got.items():
        np.testing.assert_allclose(value, expected[key], rtol=0, atol=1e-12, err_msg=key)


def test_labels_without_an_answer_are_refused() -> None:
    stream = split(DATA, 3)
    with pytest.raises(InputError, match="labels must lie between 0 and 4"):
        run(replace(stream, classes=stream.classes[:-1]), Linear(2, 5), np.ones((2, 5), bool))


def test_shared_samples_are_predicted_once_and_transformed_ones_for_each_column() -> None:
    for name, times in (("class", 1), ("domain", 1), ("permuted", 3)):
        learner = Linear(2, len(STREAMS[name].classes))
        run(STREAMS[name], learner, np.ones((2, len(STREAMS[name].classes)), bool))
        assert learner.asked == times * len(DATA.test)


# ---------------------------------------------------------------------- slices
@pytest.mark.parametrize("name", ["class", "permuted"])
def test_metadata_slices_equal_a_loop_over_the_samples(name: str) -> None:
    stream = STREAMS[name]
    learner, seen = Linear(2, 6), np.ones((2, 6), bool)
    got, expected = run(stream, learner, seen), slow(stream, learner, seen)
    for key in ("site", "night"):
        column = DATA.test.columns[key]
        for r, rows in enumerate(expected):
            for code in range(len(column.labels)):
                own = [row for row in rows if int(column.codes[row[1]]) == code]
                assert len(own) > 0
                assert got[f"column.{key}.count"][r, code] == len(own)
                assert got[f"column.{key}.correct"][r, code] == sum(p.argmax() == y for _, _, y, p in own)


def test_class_counts_equal_a_loop_over_the_samples() -> None:
    stream = STREAMS["permuted task"]
    learner, seen = Linear(2, 12), np.ones((2, 12), bool)
    got, expected = run(stream, learner, seen), slow(stream, learner, seen)
    for r, rows in enumerate(expected):
        for c in range(12):
            own = [p.argmax() == y for _, _, y, p in rows if y == c]
            assert (got["class.count"][r, c], got["class.correct"][r, c]) == (len(own), sum(own))
    assert got["pooled.bins"][..., 0].sum() == got["support"].sum()


# ---------------------------------------------------------------------- validation part
@pytest.mark.parametrize("make", [split, permuted, rotated])
def test_the_validation_part_asks_what_was_held_out(make: Any) -> None:
    stream = make(DATA, 3, valid=0.2, eval_classes="all")
    learner, seen = Linear(2, 6), np.ones((2, 6), bool)
    assert_same(run(stream, learner, seen, "valid"), slow(stream, learner, seen, "valid"), 3)


def test_the_validation_part_of_an_online_stream_is_its_parents() -> None:
    parent = split(DATA, 3, valid=0.2)
    learner, seen = Linear(2, 6), np.ones((2, 6), bool)
    one, other = (run(s, learner, seen, "valid") for s in (parent, online(parent, 40)))
    assert all(np.array_equal(one[k], other[k], equal_nan=True) for k in one)


def test_the_validation_part_of_a_blurry_stream_is_its_parents() -> None:
    parent = split(DATA, 3, valid=0.2)
    learner, seen = Linear(2, 6), np.ones((2, 6), bool)
    one, other = (run(s, learner, seen, "valid") for s in (parent, blurry(parent, 1.0)))
    assert all(np.array_equal(one[k], other[k], equal_nan=True) for k in one)


def test_validation_without_held_out_samples_is_refused() -> None:
    with pytest.raises(InputError, match=r"holds no validation data; make it with stream\.valid above 0"):
        cl_lib.run(split(DATA, 3), cl_lib.strategies.Finetune(), eval_on="valid")


def test_an_online_stream_can_be_run_on_its_validation_part() -> None:
    cl_lib.run(online(split(DATA, 3, valid=0.2), 40), cl_lib.strategies.Finetune(), eval_on="valid")


def test_a_record_holds_the_bins_of_the_first_and_the_last_evaluation_only() -> None:
    arrays = cl_lib.run(split(DATA, 3), cl_lib.strategies.Finetune(), seeds=2).arrays
    shapes = {name: values.shape for name, values in arrays.items() if name.endswith("bins")}
    assert shapes["experience.bins"] == (2, 2, 3, BINS, 3)
    assert shapes["class.bins"] == (2, 2, 6, BINS, 3)
    assert shapes["pooled.bins"] == (2, 2, BINS, 3)
    assert {shape[1] for shape in shapes.values()} == {2}

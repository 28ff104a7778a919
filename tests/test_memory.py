"""Memory: which samples enter and which come back, against slow references and χ² tests."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats

from cl_lib.errors import InputError
from cl_lib.memory.store import Memory
from cl_lib.plan import recall
from cl_lib.plan.admission import ClassBalanced, Reservoir, Ring, admit

KINDS = ("reservoir", "class_balanced", "ring")
CHANCE = 1e-3
"""Seeds are fixed: a p-value below this is a defect, not bad luck."""


def fill(kind: str, capacity: int, classes: int, labels: np.ndarray, seed: int = 0, chunk: int = 7) -> np.ndarray:
    """Offer the labels in chunks; the position held in each slot, -1 for empty ones."""
    policy, rng, held = admit(kind, capacity, classes), np.random.default_rng(seed), np.full(capacity, -1)
    for start in range(0, len(labels), chunk):
        for i, slot in enumerate(policy.offer(labels[start : start + chunk], rng)):
            assert 0 <= slot <= capacity
            if slot < capacity:
                held[slot] = start + i
        assert policy.filled == (held >= 0).sum()
        assert (held[: policy.filled] >= 0).all()
    return held


# ---------------------------------------------------------------------- admission
def test_reservoir_holds_every_offered_index_equally_often() -> None:
    runs, offered, capacity = 4000, 30, 6
    labels = np.zeros(offered, int)
    held = np.concatenate([fill("reservoir", capacity, 1, labels, seed) for seed in range(runs)])
    counts = np.bincount(held, minlength=offered)
    # a run holds exactly `capacity`: scaled by (1 - k / n) n / (n - 1) the statistic is χ² with n - 1 degrees
    expected = runs * capacity / offered
    statistic = ((counts - expected) ** 2 / expected).sum() / ((1 - capacity / offered) * offered / (offered - 1))
    assert stats.chi2.sf(statistic, offered - 1) > CHANCE


def test_reservoir_holds_every_pair_of_indices_equally_often() -> None:
    runs, offered, capacity = 3000, 6, 2
    pairs = {pair: i for i, pair in enumerate(combinations(range(offered), 2))}
    held = [pairs[tuple(sorted(fill("reservoir", capacity, 1, np.zeros(offered, int), seed)))] for seed in range(runs)]
    assert stats.chisquare(np.bincount(held, minlength=len(pairs))).pvalue > CHANCE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("capacity", [0, 1, 5, 17, 400])
def test_slots_are_a_prefix_and_never_more_than_the_capacity(kind: str, capacity: int) -> None:
    labels = np.random.default_rng(capacity).integers(0, 5, 300)
    held = fill(kind, capacity, 5, labels)
    filled = (held >= 0).sum()
    if kind == "ring":
        assert filled == sum(min(capacity // 5, n) for n in np.bincount(labels, minlength=5))
    else:
        assert filled == min(capacity, 300)
    assert len(np.unique(held[held >= 0])) == filled


@pytest.mark.parametrize("kind", KINDS)
def test_without_capacity_nothing_enters(kind: str) -> None:
    assert (admit(kind, 0, 3).offer(np.array([0, 1, 2, 2]), np.random.default_rng(0)) == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_each_memory_follows_its_seed_alone(kind: str) -> None:
    labels = np.random.default_rng(1).integers(0, 3, 200)
    assert (fill(kind, 9, 3, labels, seed=4) == fill(kind, 9, 3, labels, seed=4)).all()
    if kind != "ring":
        assert (fill(kind, 9, 3, labels, seed=4) != fill(kind, 9, 3, labels, seed=5)).mean() > 0.5


def slow_class_balanced(capacity: int, labels: list[int], chances: list[float], places: list[float]) -> list[int]:
    """Chrysakis & Moens 2020, algorithm 1, word by word; the first of several largest classes."""
    stored: list[int] = []  # the class in each slot
    order: dict[int, list[int]] = {}  # slots of a class in the order that `places` refers to
    full: set[int] = set()
    seen: dict[int, int] = {}
    slots = []
    for c, u, v in zip(labels, chances, places, strict=True):
        seen[c] = seen.get(c, 0) + 1
        slot = capacity
        if len(stored) < capacity:
            slot = len(stored)
            stored.append(c)
            order.setdefault(c, []).append(slot)
        elif c not in full:
            most = max(stored.count(k) for k in stored)
            largest = min(k for k in stored if stored.count(k) == most)
            instances = order[largest]
            slot = instances[int(v * len(instances))]
            instances[instances.index(slot)] = instances[-1]
            instances.pop()
            stored[slot] = c
            order.setdefault(c, []).append(slot)
        elif u <= stored.count(c) / seen[c]:
            slot = order[c][int(v * len(order[c]))]
        if len(stored) == capacity:
            most = max(stored.count(k) for k in stored)
            full |= {k for k in stored if stored.count(k) == most}
        slots.append(slot)
    return slots


@pytest.mark.parametrize("seed", range(6))
def test_class_balanced_reservoir_equals_the_algorithm_of_the_paper(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    labels = rng.choice(6, 500, p=[0.5, 0.25, 0.15, 0.06, 0.03, 0.01])
    if seed % 2:
        labels = np.sort(labels)  # classes one after the other
    drawn = np.random.default_rng(seed)
    chances, places = drawn.random(500).tolist(), drawn.random(500).tolist()
    slots = ClassBalanced(40, classes=6).offer(labels, np.random.default_rng(seed))
    assert slots.tolist() == slow_class_balanced(40, labels.tolist(), chances, places)


def test_class_balanced_reservoir_keeps_the_balance_of_an_imbalanced_stream() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [900, 300, 60, 5]))
    counts = np.bincount(labels[fill("class_balanced", 40, 4, labels)], minlength=4)
    assert counts[3] == 5  # all there are
    assert counts.sum() == 40
    assert counts[:3].max() - counts[:3].min() <= 1


def test_class_balanced_reservoir_is_a_reservoir_within_each_class() -> None:
    runs, labels = 3000, np.arange(60) % 2
    held = np.concatenate([fill("class_balanced", 10, 2, labels, seed, chunk=60) for seed in range(runs)])
    counts = np.bincount(held, minlength=60)[0::2]
    expected = counts.mean()
    variance = expected * (1 - 5 / 30) * 30 / 29
    assert stats.chi2.sf(((counts - expected) ** 2).sum() / variance, 29) > CHANCE


def test_ring_holds_the_last_of_each_class() -> None:
    labels = np.random.default_rng(3).integers(0, 4, 120)
    held = fill("ring", 22, 4, labels)  # 22 // 4 = 5 of each
    for label in range(4):
        own = held[held >= 0][labels[held[held >= 0]] == label]
        assert sorted(own) == np.flatnonzero(labels == label)[-5:].tolist()


def test_admit_knows_its_kinds() -> None:
    assert [type(admit(kind, 3, 2)) for kind in KINDS] == [Reservoir, ClassBalanced, Ring]
    with pytest.raises(ValueError, match="unknown admission 'oldest'"):
        admit("oldest", 3, 2)


# ---------------------------------------------------------------------- recall
@pytest.mark.parametrize(("filled", "batch"), [(40, 3), (8, 3)], ids=["sparse", "dense"])
def test_uniform_recall_draws_every_slot_at_every_place_equally_often(filled: int, batch: int) -> None:
    drawn = recall.uniform(np.full(20_000, filled), batch, np.random.default_rng(0))
    for place in range(batch):
        assert stats.chisquare(np.bincount(drawn[:, place], minlength=filled)).pvalue > CHANCE


@pytest.mark.parametrize(("filled", "batch"), [(12, 2), (8, 3)], ids=["sparse", "dense"])
def test_uniform_recall_draws_every_pair_equally_often(filled: int, batch: int) -> None:
    assert (filled > batch * batch) == (batch == 2)  # on either side of the switch
    drawn = np.sort(recall.uniform(np.full(40_000, filled), batch, np.random.default_rng(1))[:, :2], 1)
    counts = np.bincount(drawn[:, 0] * filled + drawn[:, 1], minlength=filled * filled).reshape(filled, filled)
    assert stats.chisquare(counts[np.triu_indices(filled, 1)]).pvalue > CHANCE


def test_uniform_recall_draws_each_subset_equally_often() -> None:
    drawn = np.sort(recall.uniform(np.full(20_000, 5), 3, np.random.default_rng(2)), 1)
    counts = np.bincount(drawn @ [25, 5, 1])
    assert len(counts[counts > 0]) == 10
    assert stats.chisquare(counts[counts > 0]).pvalue > CHANCE


@pytest.mark.parametrize("balanced", [False, True])
def test_recall_draws_no_slot_twice_and_filled_ones_only(balanced: bool) -> None:
    filled, batch = np.arange(60).repeat(20), 6
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, (len(filled), 60))
    drawn = recall.class_balanced(labels, filled, batch, rng) if balanced else recall.uniform(filled, batch, rng)
    assert drawn.shape == (len(filled), batch)
    for own, n in zip(drawn, filled, strict=True):
        real = own[own >= 0]
        assert len(real) == len(set(real)) == min(n, batch)
        assert (own[: len(real)] >= 0).all()  # padding comes last
        assert (real < n).all()


def test_class_balanced_recall_draws_first_each_class_equally_often() -> None:
    labels = np.tile(np.repeat([0, 1, 2], [30, 9, 1]), (30_000, 1))
    drawn = recall.class_balanced(labels, np.full(30_000, 40), 1, np.random.default_rng(0))[:, 0]
    assert stats.chisquare(np.bincount(labels[0][drawn])).pvalue > CHANCE
    within = np.bincount(drawn[drawn < 30], minlength=30)
    assert stats.chisquare(within).pvalue > CHANCE


def test_class_balanced_recall_follows_a_weighted_draw_without_replacement() -> None:
    labels, weights = np.array([0, 0, 0, 1]), np.array([1 / 3, 1 / 3, 1 / 3, 1])
    drawn = recall.class_balanced(np.tile(labels, (30_000, 1)), np.full(30_000, 4), 2, np.random.default_rng(7))
    share = {
        (i, j): weights[i] / weights.sum() * weights[j] / (weights.sum() - weights[i])
        for i in range(4)
        for j in range(4)
        if i != j
    }
    counts = [(drawn == pair).all(1).sum() for pair in share]
    assert stats.chisquare(counts, 30_000 * np.array(list(share.values()))).pvalue > CHANCE


def test_class_balanced_recall_does_not_see_the_labels_of_empty_slots() -> None:
    one, other = np.array([[0, 0, 1, 1, 1, 1]]), np.array([[0, 0, 1, 0, 0, 0]])
    draws = [
        recall.class_balanced(np.tile(labels, (500, 1)), np.full(500, 3), 2, np.random.default_rng(0))
        for labels in (one, other)
    ]
    assert (draws[0] == draws[1]).all()


@pytest.mark.parametrize("batch", [1, 10])
def test_recall_from_nothing_is_all_padding(batch: int) -> None:
    rng = np.random.default_rng(0)
    assert (recall.uniform(np.zeros(4, int), batch, rng) == -1).all()
    assert (recall.class_balanced(np.zeros((4, 0), int), np.zeros(4, int), batch, rng) == -1).all()
    assert (recall.class_balanced(np.zeros((4, 9), int), np.zeros(4, int), batch, rng) == -1).all()


# ---------------------------------------------------------------------- the store
@pytest.mark.parametrize(
    ("memory", "message"),
    [
        (Memory(capacity=-1), r"strategy\.memory\.capacity=-1: must be 0 or more"),
        (Memory(batch=0), r"strategy\.memory\.batch=0: must be 1 or more"),
        (Memory(admission="oldest"), r"strategy\.memory\.admission='oldest': must be one of reservoir"),  # type: ignore[arg-type]
        (Memory(recall="newest"), r"strategy\.memory\.recall='newest': must be one of uniform"),  # type: ignore[arg-type]
    ],
)
def test_check_names_what_cannot_work(memory: Memory, message: str) -> None:
    with pytest.raises(InputError, match=message):
        memory.check()


def test_check_knows_the_capacity_that_a_strategy_needs() -> None:
    Memory(capacity=10).check(least=10)
    with pytest.raises(InputError, match=r"capacity=9: this strategy needs at least 10"):
        Memory(capacity=9).check(least=10)


def test_size_counts_samples_labels_indices_and_what_is_kept() -> None:
    keeps = {"logits": (10,), "score": (), "map": (2, 3)}
    for dtype, item in ((torch.float32, 4), (torch.float64, 8)):
        assert Memory(capacity=7).size(64, keeps, dtype) == 7 * (64 + 3 * 8 + (10 + 1 + 6) * item)
    assert Memory(capacity=0).size(64, keeps, torch.float32) == 0


def test_init_makes_one_row_more_than_the_capacity() -> None:
    planned = Memory(capacity=4).init({"logits": (3,)}, torch.float64, torch.device("cpu"))
    assert {k: (v.shape, v.dtype) for k, v in planned.items()} == {"logits": ((5, 3), torch.float64)}
    chosen = Memory(capacity=4, admission="strategy").init({}, torch.float32, torch.device("cpu"))
    assert {k: tuple(v.shape) for k, v in chosen.items()} == {"index": (5,), "task": (5,), "count": ()}

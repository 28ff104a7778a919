"""The plan: batches, admissions and recalls, against a literal simulation step by step."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from cl_lib.memory.store import Memory
from cl_lib.plan.plan import STEPS, Block, Plan
from cl_lib.strategies import Phase
from cl_lib.types import Experience

CLASSES = 6
CHANCE = 1e-3


def labels(index: np.ndarray, task: np.ndarray) -> np.ndarray:
    return (index * 7 + task) % CLASSES


def experiences(*sizes: int, start: int = 0) -> list[Experience]:
    parts = torch.arange(start, start + sum(sizes)).split(list(sizes))
    return [Experience(p, torch.full_like(p, e), e) for e, p in enumerate(parts)]


def make(*sizes: int, seeds: Sequence[int] = (0,), phases: Any = None, epochs: int = 1, **options: Any) -> Plan:
    options = {"batch_size": 10, **options}
    return Plan(
        streams=[experiences(*sizes, start=1000 * seed) for seed in seeds],
        labels=[labels] * len(seeds),
        seeds=seeds,
        classes=CLASSES,
        epochs=[epochs] * len(sizes),
        phases=phases or [(Phase(),)] * len(sizes),
        **options,
    )


def blocks(plan: Plan) -> list[Block]:
    return [block for e in range(len(plan.phases)) for block in plan.experience(e)]


def tensors(block: Block) -> list[Tensor]:
    return [*block.batch.values(), *(t for draw in block.draws for t in draw.values()), *block.noise.values()]


def steps(plan: Plan, r: int = 0) -> list[dict[str, Any]]:
    """One replica's plan as plain lists, step after step."""
    out = []
    for e in range(len(plan.phases)):
        for block in plan.experience(e):
            for s in range(len(block)):
                batch = {k: v[s, r].tolist() for k, v in block.batch.items()}
                draws = [{k: v[s, r].tolist() for k, v in draw.items()} for draw in block.draws]
                out.append({"experience": e, "epoch": block.epoch, "size": block.size[s], "draws": draws, **batch})
    return out


def simulate(plan: Plan, memory: Memory, r: int = 0) -> dict[int, tuple[int, int]]:
    """Replay the plan literally, checking each recall; what the memory holds at the end."""
    sink, held, offered = memory.capacity, {}, set()
    for step in steps(plan, r):
        n = step["size"]
        for draw in step["draws"]:
            real = min(memory.batch, len(held))
            assert draw["weight"] == [1.0] * real + [0.0] * (memory.batch - real)
            assert len(set(draw["slot"][:real])) == real
            recalled = list(zip(draw["index"], draw["task"], strict=True))
            if real:
                assert [held[slot] for slot in draw["slot"]] == recalled  # padding repeats recalled samples
                assert set(recalled) == set(recalled[:real])
                assert set(recalled) <= offered
            else:
                assert draw["slot"] == [sink] * memory.batch
                assert set(recalled) <= set(zip(step["index"], step["task"], strict=True))
        assert len(set(held)) == len(held) <= sink
        real = list(zip(step["index"], step["task"], strict=True))[:n]
        offered |= set(real)
        written = [slot for slot in step["slot"] if slot < sink]
        assert len(set(written)) == len(written), "slots are unique within a step"
        assert step["slot"][n:] == [sink] * (len(step["slot"]) - n), "padding is not admitted"
        for slot, sample in zip(step["slot"], real, strict=False):
            if slot < sink:
                held[slot] = sample
        assert sorted(held) == list(range(len(held)))
    return held


MEMORIES = [
    Memory(capacity, batch, admission, recall)  # type: ignore[arg-type]
    for admission in ("reservoir", "class_balanced", "ring")
    for recall in ("uniform", "class_balanced")
    for capacity, batch in ((12, 5), (7, 20), (60, 3))
]


@pytest.mark.parametrize("memory", MEMORIES, ids=str)
def test_recalls_are_what_a_literal_memory_would_give(memory: Memory) -> None:
    options = {"seeds": (3, 4), "memory": memory, "draws": (memory.batch, memory.batch), "epochs": 2}
    for r in range(2):
        plan = make(83, 61, 40, **options)  # type: ignore[arg-type]
        held = simulate(plan, memory, r)
        assert {s: (plan.held[r].index[s], plan.held[r].task[s]) for s in held} == held
        assert len(held) == plan.admits[r].filled


def test_contents_carry_over_from_block_to_block() -> None:
    memory = Memory(capacity=30, batch=6)
    plan = make(4 * STEPS + 3, 3 * STEPS, batch_size=1, memory=memory, draws=(6,))
    assert len(blocks(make(4 * STEPS + 3, 3 * STEPS, batch_size=1, memory=memory, draws=(6,)))) == 8
    held = simulate(plan, memory)
    assert len(held) == 30


def test_the_last_writer_of_a_step_wins() -> None:
    """Through one batch that is far larger than the memory, against the offers themselves."""
    from cl_lib.plan.admission import Reservoir

    memory = Memory(capacity=4, batch=2)
    (step,) = steps(make(50, batch_size=50, memory=memory, draws=(2,)))
    offers = Reservoir(4, CLASSES).offer(np.zeros(50, int), np.random.default_rng([0, 0, 0, 1]))
    last = {slot: i for i, slot in enumerate(offers.tolist())}
    expected = [slot if slot < 4 and last[slot] == i else 4 for i, slot in enumerate(offers.tolist())]
    assert step["slot"] == expected
    assert sum(slot < 4 for slot in expected) == 4


def test_the_reservoir_of_a_plan_is_uniform() -> None:
    seeds = range(1500)
    plan = make(20, 20, seeds=list(seeds), batch_size=7, memory=Memory(capacity=8, batch=2), draws=(2,))
    blocks(plan)
    held = np.concatenate([own.index - 1000 * seed for own, seed in zip(plan.held, seeds, strict=True)])
    counts, expected = np.bincount(held, minlength=40), 1500 * 8 / 40
    scale = expected * (1 - 8 / 40) * 40 / 39
    assert stats.chi2.sf(((counts - expected) ** 2).sum() / scale, 39) > CHANCE


def test_recall_in_a_plan_is_uniform_over_the_filled_slots() -> None:
    plan = make(40, 400, batch_size=1, seeds=range(20), memory=Memory(capacity=40, batch=4), draws=(4,))
    later = [block for block in blocks(plan) if block.first_step >= 40]
    slots = torch.cat([block.draws[0]["slot"].flatten() for block in later])
    assert stats.chisquare(np.bincount(slots.numpy(), minlength=40)).pvalue > CHANCE


# ---------------------------------------------------------------------- batches
@pytest.mark.parametrize("batch_size", [1, 7, 10, 83, 200])
def test_each_epoch_covers_each_sample_once(batch_size: int) -> None:
    seen: dict[tuple[int, int], list[int]] = {}
    for step in steps(make(83, 20, epochs=3, batch_size=batch_size)):
        real = [i for i, w in zip(step["index"], step["weight"], strict=True) if w == 1]
        assert real == step["index"][: step["size"]]
        assert set(step["weight"]) <= {0.0, 1.0}
        seen.setdefault((step["experience"], step["epoch"]), []).extend(real)
    assert {k: sorted(v) for k, v in seen.items()} == {
        (e, epoch): list(own) for e, own in enumerate((range(83), range(83, 103))) for epoch in range(3)
    }
    orders = [tuple(seen[0, epoch]) for epoch in range(3)]
    assert len(set(orders)) == 3


def test_padding_repeats_real_samples_of_the_same_batch_with_weight_0() -> None:
    last = steps(make(23))[-1]
    assert last["size"] == 3
    assert last["weight"] == [1.0] * 3 + [0.0] * 7
    assert last["index"] == (last["index"][:3] * 4)[:10]


def test_memory_is_offered_samples_in_the_first_epoch_only() -> None:
    memory = Memory(capacity=1000, batch=2)
    for step in steps(make(40, 30, epochs=3, memory=memory, draws=(2,))):
        written = [slot for slot in step["slot"] if slot < 1000]
        assert len(written) == (step["size"] if step["epoch"] == 0 else 0)


@pytest.mark.parametrize("memory", [None, Memory(capacity=0)], ids=str)
def test_without_capacity_nothing_is_written_and_recalls_weigh_nothing(memory: Memory | None) -> None:
    plan = make(23, 12, memory=memory, draws=(10,) if memory else ())
    for block in blocks(plan):
        assert (block.batch["slot"] == 0).all()
        assert len(block.draws) == (memory is not None)
        for draw in block.draws:
            assert (draw["weight"] == 0).all()


def test_independent_draws_differ() -> None:
    plan = make(300, memory=Memory(capacity=200, batch=10), draws=(10, 10, 4))
    (block,) = blocks(plan)
    first, second, third = (draw["slot"][-10:] for draw in block.draws)
    assert third.shape[-1] == 4
    assert (first != second).any(-1).all()
    assert (first[..., :4] != third).any(-1).all()


def test_a_draw_does_not_depend_on_the_other_draws() -> None:
    memory = Memory(capacity=50, batch=10)
    (one,), (several,) = (blocks(make(300, memory=memory, draws=draws)) for draws in ((10,), (10, 4, 10)))
    assert all(torch.equal(one.draws[0][k], several.draws[0][k]) for k in one.draws[0])


# ---------------------------------------------------------------------- populations and repetition
def options_of_everything() -> dict[str, Any]:
    memory = Memory(capacity=25, batch=6, admission="class_balanced", recall="class_balanced")
    return {"memory": memory, "draws": (6, 6), "noise": {"flip": (), "mask": (2, 3)}, "batch_size": 1, "epochs": 2}


def test_each_replica_is_planned_as_it_would_be_alone() -> None:
    seeds = (5, 0, 9, 2)
    together = blocks(make(150, 90, seeds=seeds, **options_of_everything()))
    for r, seed in enumerate(seeds):
        alone = blocks(make(150, 90, seeds=[seed], **options_of_everything()))
        for one, all_ in zip(alone, together, strict=True):
            assert all(torch.equal(a, b[:, r : r + 1]) for a, b in zip(tensors(one), tensors(all_), strict=True))


def test_planning_again_gives_the_same_and_another_seed_something_else() -> None:
    first, second = (blocks(make(150, 90, **options_of_everything())) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))
    third = make(150, 90, **options_of_everything())
    third.seeds = [1]
    one, other = first[0], blocks(third)[0]
    assert (one.batch["index"] != other.batch["index"]).float().mean() > 0.5
    assert all((one.noise[k] != other.noise[k]).float().mean() > 0.9 for k in ("flip", "mask"))
    late = slice(len(one) // 2, None)  # the memory is full
    for a, b in zip(one.draws, other.draws, strict=True):
        assert (a["index"][late] != b["index"][late]).float().mean() > 0.5


def test_the_experience_enters_the_seed() -> None:
    one, other = (blocks(make(20, 20))[e].batch["index"] % 20 for e in range(2))
    assert not torch.equal(one, other)


def test_a_seed_draws_the_same_whatever_the_type() -> None:
    """Which also keeps noise below 1: a float64 just below it would be rounded up to 1 in float32."""
    options = options_of_everything()
    for single, double in zip(
        blocks(make(150, **options)), blocks(make(150, dtype=torch.float64, **options)), strict=True
    ):
        for a, b in zip(tensors(single), tensors(double), strict=True):
            assert b.dtype in (torch.int64, torch.float64)
            assert torch.equal(a.to(b.dtype), b)


# ---------------------------------------------------------------------- bookkeeping
def test_blocks_are_bounded_and_count_the_steps() -> None:
    plan = make(3 * STEPS + 5, 50, epochs=2, batch_size=1)
    counted, parts = 0, blocks(plan)
    assert [len(block) for block in parts] == ([STEPS] * 3 + [5]) * 2 + [50] * 2
    for block in parts:
        assert len(block) <= STEPS
        assert block.first_step == counted
        experience = int(counted >= 2 * (3 * STEPS + 5))
        assert block.within == (counted - experience * 2 * (3 * STEPS + 5), plan.steps_in(experience))
        counted += len(block)
    assert counted == plan.total == plan.step == plan.steps_in(0) + plan.steps_in(1)


def test_last_step_is_when_a_class_was_last_trained_on_replay_excluded() -> None:
    options = {"seeds": (0, 1), "memory": Memory(capacity=9, batch=5), "draws": (5,), "epochs": 2}
    plan = make(3, 31, 2, **options)  # type: ignore[arg-type]
    for r in range(2):
        expected = np.full(CLASSES, -1)
        for number, step in enumerate(steps(make(3, 31, 2, **options), r)):  # type: ignore[arg-type]
            real = np.array(step["index"])[: step["size"]], np.array(step["task"])[: step["size"]]
            expected[labels(*real)] = number
        if r == 0:
            blocks(plan)
        assert plan.last_step[r].tolist() == expected.tolist()


def test_classes_in_says_what_an_experience_trains_on() -> None:
    plan = make(3, 40, phases=[(Phase(),), (Phase(source="so_far"),)])
    assert np.flatnonzero(plan.classes_in(0)[0]).tolist() == sorted({0 * 7 % 6, 1, 2})
    assert plan.classes_in(1).all()


# ---------------------------------------------------------------------- phases
def test_phases_take_their_own_data_epochs_and_batch_size() -> None:
    phases = [
        (Phase("warm", epochs=2, batch_size=4), Phase()),
        (Phase(source="so_far"), Phase("last", source="full", batch_size=30)),
        (),
    ]
    plan = make(20, 15, 10, phases=phases, epochs=3)
    seen: dict[tuple[int, str, int], list[tuple[int, int]]] = {}
    widths = {}
    for e in range(3):
        for block in plan.experience(e):
            key = e, block.phase.name, block.epoch
            widths[key[:2]] = block.batch["index"].shape[-1]
            real = block.batch["weight"][:, 0] == 1
            pairs = zip(
                block.batch["index"][:, 0][real].tolist(), block.batch["task"][:, 0][real].tolist(), strict=True
            )
            seen.setdefault(key, []).extend(pairs)
    samples = [(i, 0) for i in range(20)] + [(i, 1) for i in range(20, 35)] + [(i, 2) for i in range(35, 45)]
    assert {k: sorted(v) for k, v in seen.items()} == {
        **{(0, "warm", epoch): samples[:20] for epoch in range(2)},
        **{(0, "train", epoch): samples[:20] for epoch in range(3)},
        **{(1, "train", epoch): samples[:35] for epoch in range(3)},
        **{(1, "last", epoch): samples for epoch in range(3)},
    }
    assert widths == {(0, "warm"): 4, (0, "train"): 10, (1, "train"): 10, (1, "last"): 30}
    assert [plan.steps_in(e) for e in range(3)] == [2 * 5 + 3 * 2, 3 * 4 + 3 * 2, 0]


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown phase source 'past'"):
        make(5, phases=[(Phase(source="past"),)])  # type: ignore[arg-type]


# ---------------------------------------------------------------------- numbers for the strategy
def test_noise_has_its_shapes_and_is_uniform() -> None:
    parts = blocks(make(400, seeds=(0, 1), noise={"keep": (), "shift": (2, 3)}))
    keep, shift = (torch.cat([block.noise[k] for block in parts]) for k in ("keep", "shift"))
    assert keep.shape == (40, 2, 10)
    assert shift.shape == (40, 2, 10, 2, 3)
    for values in (keep, shift):
        assert values.dtype == torch.float32
        assert values.min() >= 0
        assert values.max() < 1
        assert stats.kstest(values.flatten().numpy(), "uniform").pvalue > CHANCE
    assert not torch.equal(keep[:, 0], keep[:, 1])


def test_a_memory_filled_by_the_strategy_gets_uniform_numbers() -> None:
    plan = make(300, 200, memory=Memory(capacity=9, batch=6, admission="strategy"), draws=(6, 2))
    parts = blocks(plan)
    assert [set(draw) for draw in parts[0].draws] == [{"uniform"}, {"uniform"}]
    assert parts[0].draws[1]["uniform"].shape == (30, 1, 2)
    values = torch.cat([block.draws[0]["uniform"].flatten() for block in parts])
    assert values.min() >= 0
    assert values.max() < 1
    assert stats.kstest(values.numpy(), "uniform").pvalue > CHANCE
    assert all((block.batch["slot"] == 9).all() for block in parts)


def test_uniform_numbers_for_an_experience_follow_the_seed_and_the_experience() -> None:
    plan = make(30, 30, seeds=(0, 3))
    one, two = plan.uniform(0), plan.uniform(1)
    assert one.shape == (2, 30)
    assert not torch.equal(one, two)
    assert torch.equal(one[1:], make(30, 30, seeds=(3,)).uniform(0))
    double = make(30, 30, seeds=(0, 3), dtype=torch.float64).uniform(0)
    assert torch.equal(double, one.double())


def test_arrays_are_the_shuffled_experience_of_each_replica() -> None:
    plan = make(50, 40, seeds=(0, 2))
    index, task = plan.arrays(1)
    for own, start in zip(index, (50, 2050), strict=True):
        assert sorted(own) == list(range(start, start + 40))
        assert own.tolist() != sorted(own)
    assert task.tolist() == [[1] * 40] * 2
    assert (index[1:] == make(50, 40, seeds=(2,)).arrays(1)[0]).all()

"""The plan: the indices of every batch, admission and recall of a run, computed before training in blocks of steps.

The plan depends on labels, counts and seeds alone. It can therefore be tested without a model, and the plan of a
replica does not depend on the other replicas of the run. There is a separate generator for each seed, experience, phase
and purpose, so a resumed run has the same plan as the interrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cl_lib.memory.store import Memory
from cl_lib.plan import recall
from cl_lib.plan.admission import admit
from cl_lib.plan.slots import Held, History, last_writer
from cl_lib.types import Experience, Phase, Shape

Ints = np.ndarray
STEPS = 128
"""Steps in a block; a constant, because the numbers drawn must not depend on the number of replicas."""

ORDER, ADMIT, RECALL, NOISE, SAMPLE = range(5)


@dataclass(frozen=True)
class Block:
    """Up to `STEPS` steps of one phase. Tensors are ``(S, R, ...)``; ``size`` is the number of real samples a step."""

    phase: Phase
    begins: bool
    """Whether this is the first block of its phase."""
    epoch: int
    first_step: int
    within: tuple[int, int]
    """Position of the first step in its experience, and the number of steps of the experience."""
    size: list[int]
    batch: dict[str, Tensor]
    """index, task, slot (int64) and weight, each ``(S, R, B)``; slot is the capacity for rejected samples."""
    draws: tuple[dict[str, Tensor], ...]
    """For each draw index, task, slot and weight ``(S, R, b)``, or ``uniform`` if the strategy fills the memory."""
    noise: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.size)

    def __repr__(self) -> str:
        return f"Block({self.phase.name}, {len(self)} steps from {self.first_step})"


class Generators:
    """Generators of one replica in one phase: for order, admission and noise, and for each draw."""

    def __init__(self, plan: Plan, replica: int, experience: int, phase: int) -> None:
        self.order, self.admit, self.noise = (
            plan.rng(replica, experience, phase, purpose) for purpose in (ORDER, ADMIT, NOISE)
        )
        self.recall = [plan.rng(replica, experience, phase, RECALL, i) for i in range(len(plan.draws))]


@dataclass
class Plan:
    """Plans for ``R`` replicas with the same schedule.

    Parameters
    ----------
    streams : sequence of R sequences of Experience
    labels : sequence of R callables
        ``labels(index, task)``: labels of train samples, as the replica's stream defines them.
    seeds : sequence of R int
    classes, batch_size : int
    epochs : sequence of int
        Epochs of each experience.
    phases : sequence of sequences of Phase
        Phases of each experience.
    memory : Memory, optional
    draws : tuple of int
        Samples recalled in each independent draw of a step.
    noise : dict of shapes
        Shapes per sample of the planned noise.
    dtype : torch.dtype, default float32
        Of weights and noise.
    """

    streams: Sequence[Sequence[Experience]]
    labels: Sequence[Callable[[Ints, Ints], Ints]]
    seeds: Sequence[int]
    classes: int
    batch_size: int
    epochs: Sequence[int]
    phases: Sequence[Sequence[Phase]]
    memory: Memory | None = None
    draws: tuple[int, ...] = ()
    noise: dict[str, Shape] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        capacity = self.capacity
        planned = self.memory is not None and self.memory.planned
        kind = self.memory.admission if self.memory is not None and planned else "reservoir"
        self.admits = [admit(kind, capacity, self.classes) for _ in self.seeds]
        self.held = [Held(np.zeros(capacity, np.int64), np.zeros(capacity, np.int64)) for _ in self.seeds]
        self.step = self._number = self._begun = 0
        self.total = sum(self.steps_in(e) for e in range(len(self.phases)))
        """Number of steps of the run."""
        self.last_step = np.full((len(self.seeds), self.classes), -1)
        """``(R, C)``, step at which a sample of each class was last trained on, replay excluded; -1: never."""

    def __repr__(self) -> str:
        return f"Plan({len(self.seeds)} replicas, {self.total} steps)"

    @property
    def capacity(self) -> int:
        return self.memory.capacity if self.memory is not None else 0

    def steps_in(self, experience: int) -> int:
        """Number of steps of one experience."""
        return sum(
            (phase.epochs or self.epochs[experience])
            * -(-self._count(experience, phase) // self._size(experience, phase))
            for phase in self.phases[experience]
        )

    def classes_in(self, number: int) -> Ints:
        """Classes ``(R, C)``, bool, that are trained on in experience ``number``."""
        present = np.zeros((len(self.seeds), self.classes), bool)
        for r in range(len(self.seeds)):
            for phase in self.phases[number]:
                present[r, self.labels[r](*self._items(r, number, phase))] = True
        return present

    def arrays(self, number: int) -> tuple[Ints, Ints]:
        """Training samples of an experience, ``index`` and ``task`` ``(R, n)``, in random order."""
        experiences = [stream[number] for stream in self.streams]
        orders = [self.rng(r, number, 0, SAMPLE, 1).permutation(len(e.train)) for r, e in enumerate(experiences)]
        pairs = list(zip(experiences, orders, strict=True))
        return np.stack([e.train.numpy()[o] for e, o in pairs]), np.stack([e.task.numpy()[o] for e, o in pairs])

    def uniform(self, experience: int) -> Tensor:
        """Uniform numbers ``(R, n)`` for sampling at the end of an experience."""
        rows = [
            self.rng(r, experience, 0, SAMPLE, 0).random(len(s[experience].train), np.float32)
            for r, s in enumerate(self.streams)
        ]
        return torch.tensor(np.stack(rows), dtype=self.dtype)

    def keys(self, experience: int) -> Tensor:
        """Keys ``(R,)`` for random numbers of other shapes at the end of an experience."""
        return torch.tensor([self.rng(r, experience, 0, SAMPLE, 2).integers(2**62) for r in range(len(self.seeds))])

    def contents(self) -> dict[str, Tensor]:
        """Current contents of the replicas' memories: ``index`` and ``task`` ``(R, capacity)``, ``count`` ``(R,)``."""
        index, task = (np.stack([getattr(held, name) for held in self.held]) for name in ("index", "task"))
        count = [admission.filled for admission in self.admits]
        return {"index": torch.from_numpy(index), "task": torch.from_numpy(task), "count": torch.tensor(count)}

    def experience(self, number: int) -> Iterator[Block]:
        """Generate the blocks of one experience; experiences must be planned in order."""
        self._number, self._begun = number, self.step
        sources = [phase.source for phase in self.phases[number]]
        first = sources.index("experience") if "experience" in sources else -1
        for p, phase in enumerate(self.phases[number]):
            size = self._size(number, phase)
            rngs = [Generators(self, r, number, p) for r in range(len(self.seeds))]
            items = [self._items(r, number, phase) for r in range(len(self.seeds))]
            for epoch in range(phase.epochs or self.epochs[number]):
                orders = [rng.order.permutation(len(index)) for rng, (index, _) in zip(rngs, items, strict=True)]
                # each sample is offered to the memory once: in the first epoch of the first phase on this experience
                offer = p == first and epoch == 0 and self.capacity > 0
                for start in range(0, len(orders[0]), STEPS * size):
                    chosen = [order[start : start + STEPS * size] for order in orders]
                    yield self._block(phase, epoch + start == 0, epoch, size, chosen, items, rngs, offer)

    def rng(self, replica: int, *purpose: int) -> np.random.Generator:
        """Generator of a replica for one purpose: experience, phase, purpose and, optionally, a number."""
        return np.random.default_rng([self.seeds[replica], *purpose])

    def _size(self, number: int, phase: Phase) -> int:
        """Samples in a batch, at most the number of samples of the phase."""
        return min(phase.batch_size or self.batch_size, self._count(number, phase))

    def _count(self, number: int, phase: Phase) -> int:
        """Number of samples of a phase; reservoir and class-balanced memories are full before they reject samples."""
        if phase.source != "memory":
            return len(self._items(0, number, phase)[0])
        offered = [e for e in range(number + 1) if any(p.source == "experience" for p in self.phases[e])]
        return min(self.capacity, sum(len(self.streams[0][e].train) for e in offered))

    def _items(self, replica: int, number: int, phase: Phase) -> tuple[Ints, Ints]:
        stream = self.streams[replica]
        match phase.source:
            case "experience":
                parts: Sequence[Experience] = [stream[number]]
            case "so_far":
                parts = stream[: number + 1]
            case "full":
                parts = stream
            case "memory":
                held, filled = self.held[replica], self.admits[replica].filled
                return held.index[:filled], held.task[:filled]
            case _:
                raise ValueError(f"unknown phase source {phase.source!r}")
        return np.concatenate([e.train.numpy() for e in parts]), np.concatenate([e.task.numpy() for e in parts])

    def _block(
        self,
        phase: Phase,
        begins: bool,
        epoch: int,
        size: int,
        chosen: list[Ints],
        items: list[tuple[Ints, Ints]],
        rngs: list[Generators],
        offer: bool,
    ) -> Block:
        steps = -(-len(chosen[0]) // size)
        last = len(chosen[0]) - (steps - 1) * size
        valid = np.ones((steps, size), bool)
        valid[-1, last:] = False
        rows = []
        for r, order in enumerate(chosen):
            # padding repeats real samples of the same batch
            order = np.concatenate([order, np.resize(order[-last:], steps * size - len(order))]).reshape(steps, size)
            samples = items[r][0][order], items[r][1][order]
            if phase.source != "memory":  # what comes back from it counts as replay
                self._note(r, self.labels[r](*samples), valid)
            rows.append(self._replica(r, *samples, valid, rngs[r], offer))
        batches, draws, noises = zip(*rows, strict=True)
        block = Block(
            phase,
            begins,
            epoch,
            self.step,
            (self.step - self._begun, self.steps_in(self._number)),
            [size] * (steps - 1) + [last],
            self._tensors(batches),
            tuple(self._tensors(draw) for draw in zip(*draws, strict=True)),
            self._tensors(noises),
        )
        self.step += steps
        return block

    def _note(self, r: int, labels: Ints, valid: Ints) -> None:
        """Record the step at which each class was last trained on."""
        at = np.broadcast_to(np.arange(len(labels))[:, None], labels.shape)
        np.maximum.at(self.last_step[r], labels[valid], self.step + at[valid])

    def _replica(
        self, r: int, index: Ints, task: Ints, valid: Ints, rng: Generators, offer: bool
    ) -> tuple[dict[str, Ints], list[dict[str, Ints]], dict[str, Ints]]:
        """Batches, draws and noise of one replica in a block."""
        steps, size = index.shape
        slot, filled = self._admit(r, index, task, valid, rng, offer)
        history = History(self.held[r], index, task, slot)
        draws = [
            self._draw(r, count, history, filled, index, task, generator)
            for count, generator in zip(self.draws, rng.recall, strict=True)
        ]
        history.close()
        # drawn in float32, because a float64 just below 1 would be rounded to 1
        noise = {k: rng.noise.random((steps, size, *shape), np.float32) for k, shape in self.noise.items()}
        batch = {"index": index, "task": task, "slot": slot, "weight": valid.astype(float)}
        if self.memory is not None and not self.memory.planned:
            batch["offered"] = (valid & offer).astype(float)
        return batch, draws, noise

    def _admit(self, r: int, index: Ints, task: Ints, valid: Ints, rng: Generators, offer: bool) -> tuple[Ints, Ints]:
        """Slot that each sample is written to ``(S, B)``, and number of filled slots before each step ``(S,)``."""
        admit, capacity = self.admits[r], self.capacity
        slot, filled = np.full(index.shape, capacity), np.full(len(index), admit.filled)
        if not offer or self.memory is None or not self.memory.planned:
            return slot, filled
        before = admit.filled
        slot[valid] = admit.offer(self.labels[r](index, task)[valid], rng.admit)
        top = np.maximum.accumulate(np.where(slot < capacity, slot + 1, 0).max(1))
        filled[1:] = np.maximum(before, top[:-1])
        return last_writer(slot, capacity), filled

    def _draw(
        self,
        r: int,
        count: int,
        history: History,
        filled: Ints,
        index: Ints,
        task: Ints,
        rng: np.random.Generator,
    ) -> dict[str, Ints]:
        """Draw ``count`` samples from memory in each step of a block."""
        assert self.memory is not None
        steps, size = index.shape
        if not self.memory.planned:
            return {"uniform": rng.random((steps, count), np.float32)}
        slots = self._recalled_slots(r, count, history, filled, rng)
        # padding repeats real samples: recalled samples or, if the memory is empty, those of the batch
        real = slots >= 0
        slots = np.take_along_axis(slots, np.arange(count) % np.maximum(real.sum(1), 1)[:, None], 1)
        some = np.broadcast_to((real.sum(1) > 0)[:, None], slots.shape)
        step = np.broadcast_to(np.arange(steps)[:, None], slots.shape)
        recalled_index, recalled_task = (part[:, np.arange(count) % size].copy() for part in (index, task))
        recalled_index[some], recalled_task[some] = history.at(slots[some], step[some])
        return {
            "index": recalled_index,
            "task": recalled_task,
            "slot": np.where(some, slots, self.capacity),
            "weight": real.astype(float),
        }

    def _recalled_slots(self, r: int, count: int, history: History, filled: Ints, rng: np.random.Generator) -> Ints:
        """Slots ``(S, count)``; -1 at the end of a row where the memory holds fewer samples."""
        assert self.memory is not None
        if self.memory.recall == "uniform":
            return recall.uniform(filled, count, rng)
        slots = np.broadcast_to(np.arange(self.capacity), (len(filled), self.capacity))
        step = np.broadcast_to(np.arange(len(filled))[:, None], slots.shape)
        return recall.class_balanced(self.labels[r](*history.at(slots, step)), filled, count, rng)

    def _tensors(self, rows: Sequence[dict[str, Ints]]) -> dict[str, Tensor]:
        """Stack the replicas' arrays ``(S, ...)`` to tensors ``(S, R, ...)``."""
        out = {}
        for name in rows[0]:
            tensor = torch.from_numpy(np.stack([row[name] for row in rows], 1))
            out[name] = tensor.to(self.dtype) if tensor.is_floating_point() else tensor
        return out

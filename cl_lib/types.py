"""The nouns of the library: what a strategy is given, what it returns, and what the harness knows of a learner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from cl_lib.memory.store import Contents

Tensors = dict[str, Tensor]
Shape = tuple[int, ...]
OWN = "~"
"""What the names of trainable tensors begin with that are a strategy's own, not the network's."""


@dataclass(frozen=True)
class Experience:
    """One experience of a stream, for one seed: indices into the data set, nothing copied.

    Attributes
    ----------
    train : Tensor
        ``(n,)`` int64 indices into the data set's train part.
    task : Tensor
        ``(n,)`` int64, for each train sample the test column it belongs to: the row of the class mask and of
        the transform table. In blurry streams one experience mixes several.
    column : int
        The test column that this experience is meant to be learnt for.
    """

    train: Tensor
    task: Tensor
    column: int


@dataclass(frozen=True)
class Batch:
    """Samples as one replica sees them in a step. ``weight`` is 0 for padding: losses are weighted means.

    Attributes
    ----------
    x : Tensor
        ``(B, *shape)`` normalised inputs.
    y : Tensor
        ``(B,)`` int64 labels.
    weight : Tensor
        ``(B,)`` 1 for a real sample, 0 for padding (which repeats real samples).
    task : Tensor
        ``(B,)`` int64 experience of each sample (0-based).
    noise : dict
        What the strategy declared as ``noise``: ``(B, *shape)`` uniform in [0, 1).
    phase : str
        Name of the running phase; static, so Python may branch on it.
    """

    x: Tensor
    y: Tensor
    weight: Tensor
    task: Tensor
    noise: Tensors = field(default_factory=dict)
    phase: str = "train"


@dataclass(frozen=True)
class Recalled:
    """Samples drawn from memory: as `Batch`, with the ``slot`` they lie in and what was ``kept`` beside them."""

    x: Tensor
    y: Tensor
    weight: Tensor
    task: Tensor
    slot: Tensor
    kept: Tensors = field(default_factory=dict)


def join(batch: Batch, recalled: Recalled) -> Batch:
    """New and recalled samples as one batch, new ones first."""
    x, y, weight, task = (
        torch.cat((getattr(batch, name), getattr(recalled, name))) for name in ("x", "y", "weight", "task")
    )
    return Batch(x, y, weight, task, phase=batch.phase)


class State(NamedTuple):
    """All that a learner is: a tree of tensors. For an author without, in the engine with a leading replica axis."""

    params: Tensors
    buffers: Tensors
    optimiser: dict[str, Any]
    memory: Tensors
    extra: dict[str, Any]


class Out(NamedTuple):
    """What a network answers: ``logits`` (B, C) masked to the answerable classes, ``raw`` before the mask, ``features``
    (B, F) that enter the last linear layer, and the network's ``buffers`` after the call."""

    logits: Tensor
    raw: Tensor
    features: Tensor
    buffers: Tensors


class Stored(NamedTuple):
    """Shape and dtype of what is kept beside a sample in memory, where the dtype is not the run's."""

    shape: Shape
    dtype: torch.dtype


class Spec(NamedTuple):
    """What `Strategy.init` and `Strategy.phases` may rely on; static for a run."""

    classes: int
    experiences: int
    capacity: int
    shape: Shape
    features: int


@dataclass(frozen=True)
class Experienced:
    """The training data of the experience that just ended, for one replica; read in chunks of bounded size.

    Attributes
    ----------
    number : int
        0-based number of the experience.
    classes : Tensor
        ``(C,)`` bool, classes present in it.
    seen : Tensor
        ``(C,)`` bool, classes present in it or before.
    class_count, seen_count : int
        How many of them there are (equal for all replicas of a run).
    index, task : Tensor
        ``(n,)`` int64.
    uniform : Tensor
        ``(n,)`` uniform numbers in [0, 1) for what must be sampled.
    key : Tensor
        0-d int64, another for each replica and experience: what `cl_lib.noise.uniform` draws any other shape from.
    gather : callable
        ``gather(index, task) -> x, y``.
    memory : Contents, optional
        What the replica's memory holds now, where the strategy has one.
    """

    number: int
    classes: Tensor
    seen: Tensor
    class_count: int
    seen_count: int
    index: Tensor
    task: Tensor
    uniform: Tensor
    key: Tensor
    gather: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    memory: Contents | None = None

    def __len__(self) -> int:
        return self.index.shape[0]

    def batches(self, size: int, limit: int | None = None) -> list[slice]:
        """Slices of at most ``size`` samples that cover the first ``limit`` (default all)."""
        n = len(self) if limit is None else min(limit, len(self))
        return [slice(i, min(i + size, n)) for i in range(0, n, size)]

    def read(self, part: slice) -> Batch:
        """The samples of one slice."""
        x, y = self.gather(self.index[part], self.task[part])
        return Batch(x, y, torch.ones_like(y, dtype=x.dtype), self.task[part])


@runtime_checkable
class Learner(Protocol):
    """All the harness knows of a learner; anyone may write one with an ordinary module and ``torch.optim``.

    Two optional methods make its runs resumable: ``save_state()`` and ``load_state(tree)``, with nested
    dicts of tensors that hold all of it, the optimiser's state included.
    """

    def observe(self, batch: Batch) -> None:
        """Learn from one batch."""

    def end_experience(self, data: Experienced) -> None:
        """Told once after the last batch of an experience."""

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        """Log-probabilities ``(N, C)`` for inputs ``(N, *shape)`` of experiences ``task`` ``(N,)``."""


def _register(kind: Any, static: tuple[str, ...]) -> None:
    """Make a dataclass a pytree whose ``static`` fields are structure (part of a trace's key), not leaves."""
    names = [n for n in kind.__dataclass_fields__ if n not in static]

    def flatten(value: Any) -> tuple[list[Any], Any]:
        return [getattr(value, n) for n in names], tuple(getattr(value, n) for n in static)

    def unflatten(children: Any, context: Any) -> Any:
        fields: Mapping[str, Any] = dict(zip(names, children, strict=True))
        return kind(**fields, **dict(zip(static, context, strict=True)))

    pytree.register_pytree_node(kind, flatten, unflatten)


_register(Batch, ("phase",))
_register(Recalled, ())

"""The nouns of the library: what a strategy is given, what it returns, and what the harness knows of a learner."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cl_lib.errors import renamed

MASKED = -1e9
"""The logit of a class that may not be predicted; finite, so that no gradient is NaN."""
Tensors = dict[str, Tensor]
Shape = tuple[int, ...]
Arrays = dict[str, np.ndarray]
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

    def __repr__(self) -> str:
        return f"Experience({len(self.train):,} samples, column {self.column})"


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


class NetOutput(NamedTuple):
    """What a network answers: ``logits`` (B, C) masked to the answerable classes, ``raw`` before the mask, ``features``
    (B, F) that enter the last linear layer, and the network's ``buffers`` after the call."""

    logits: Tensor
    raw: Tensor
    features: Tensor
    buffers: Tensors


class Net(Protocol):
    """The network as a function. ``buffers`` (BatchNorm's statistics) are carried along by the engine.

    With ``start=(layer, latent)`` it begins at the layer of that name, which ``latent`` enters.
    """

    module: nn.Module
    buffers: Tensors
    mask: Tensor | None

    def __call__(
        self,
        params: Tensors,
        x: Tensor,
        task: Tensor,
        *,
        train: bool | None = None,
        buffers: Tensors | None = None,
        start: tuple[str, Tensor] | None = None,
    ) -> NetOutput: ...


class Gradient(NamedTuple):
    """What a step descends along, the loss it belongs to, what to keep beside the samples in memory, and, in
    ``aux``, what else `Strategy.after_step` and `Strategy.admit` are to know."""

    grads: Tensors
    loss: Tensor
    kept: Tensors
    aux: Tensors = {}  # noqa: RUF012

    @property
    def found(self) -> Tensors:
        """Deprecated: the old name of ``aux``."""
        warnings.warn("Gradient.found is deprecated; use Gradient.aux", DeprecationWarning, stacklevel=2)
        return self.aux


class KeptSpec(NamedTuple):
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
class Phase:
    """One stretch of training within an experience.

    Parameters
    ----------
    name : str
        Shown in the progress bar, and what ``batch.phase`` says.
    source : {"experience", "so_far", "full", "memory"}
        The data: of this experience, of all experiences so far, of the whole stream (an upper bound), or what the
        memory holds when the phase begins.
    epochs, batch_size : int, optional
        Default: the run's.
    trainable : tuple of str, optional
        Prefixes of the names of the parameters that are trained; default all, ``()`` none.
    reset : bool, default False
        Begin with the initial parameters, buffers and optimiser.
    """

    name: str = "train"
    source: Literal["experience", "so_far", "full", "memory"] = "experience"
    epochs: int | None = None
    batch_size: int | None = None
    trainable: tuple[str, ...] | None = None
    reset: bool = False


@dataclass(frozen=True)
class Contents:
    """What one replica's memory holds, for a readout: rows below ``count`` are valid (``valid`` says so)."""

    index: Tensor
    task: Tensor
    valid: Tensor
    gather: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

    def batches(self, size: int = 500) -> Iterator[Batch]:
        """All rows, at most ``size`` at a time; only those are held at once."""
        return (self.read(slice(i, i + size)) for i in range(0, self.index.shape[0], size))

    def read(self, part: slice) -> Batch:
        """The samples of some rows; ``weight`` is 0 beyond the memory's fill."""
        x, y = self.gather(self.index[part], self.task[part])
        return Batch(x, y, self.valid[part].to(x.dtype), self.task[part])


@dataclass(frozen=True)
class ExperienceData:
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

    def end_experience(self, data: ExperienceData) -> None:
        """Told once after the last batch of an experience."""

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        """Log-probabilities ``(N, C)`` for inputs ``(N, *shape)`` of experiences ``task`` ``(N,)``."""


@dataclass
class Row:
    """What is known at one evaluation.

    Attributes
    ----------
    experience : int
        Experiences trained on so far; 0 for the untrained network.
    step : int
        Steps taken so far.
    replicas : list of int
        Which replicas of the run (positions in ``record.replicas``) these are.
    arrays : dict of ndarray
        ``accuracy, nll, brier, ece, adaptive_ece, classwise_ece`` ``(R, E)``, their ``pooled.*`` ``(R,)``, class and
        column sums, ``age`` ``(R, C)``, ``loss`` and ``diverged`` ``(R,)``.
    """

    experience: int
    step: int
    replicas: list[int]
    arrays: Arrays

    def __repr__(self) -> str:
        count = f"{len(self.replicas)} replica{'s' if len(self.replicas) != 1 else ''}"
        return f"Row(experience {self.experience}, step {self.step}, {count})"

    @property
    def accuracy(self) -> np.ndarray:
        """``(R, E)`` accuracy on each experience's test set."""
        return self.arrays["accuracy"]


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

__getattr__ = renamed(__name__, {"Out": "NetOutput", "Stored": "KeptSpec", "Experienced": "ExperienceData"}, globals())


def _accept_found(function: Callable[..., Gradient]) -> Callable[..., Gradient]:
    """A method of `Gradient` that also takes ``aux`` under its old name, until the next version."""

    def call(*args: Any, **fields: Any) -> Gradient:
        if "found" in fields:
            warnings.warn("Gradient(found=...) is deprecated; use aux=...", DeprecationWarning, stacklevel=2)
            fields["aux"] = fields.pop("found")
        return function(*args, **fields)

    return call


Gradient.__new__ = _accept_found(Gradient.__new__)  # type: ignore[method-assign, assignment]
Gradient._replace = _accept_found(Gradient._replace)  # type: ignore[method-assign, assignment]

"""Data types shared by the whole library: batches, states, network outputs, phases, experiences and evaluations."""

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
"""Prefix of the names of trainable tensors that belong to the strategy, not to the network."""


@dataclass(frozen=True)
class Experience:
    """One experience of a stream for one seed, as indices into the data set; no data is copied.

    Attributes
    ----------
    train : Tensor
        ``(n,)`` int64 indices into the data set's train part.
    task : Tensor
        ``(n,)`` int64, the test column of each train sample: the row of the class mask and of the transform table
        that applies to it. In blurry streams one experience mixes several columns.
    column : int
        The test column that corresponds to this experience.
    """

    train: Tensor
    task: Tensor
    column: int

    def __repr__(self) -> str:
        return f"Experience({len(self.train):,} samples, column {self.column})"


@dataclass(frozen=True)
class Batch:
    """The samples of one training step of one replica. Losses are means weighted with ``weight``, 0 for padding.

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
        The random inputs that the strategy declared as ``noise``: ``(B, *shape)``, uniform in [0, 1).
    phase : str
        Name of the current phase; static, so Python code may branch on it.
    """

    x: Tensor
    y: Tensor
    weight: Tensor
    task: Tensor
    noise: Tensors = field(default_factory=dict)
    phase: str = "train"


@dataclass(frozen=True)
class Recalled:
    """Samples drawn from memory: the fields of `Batch`, their memory ``slot`` and the tensors ``kept`` with them."""

    x: Tensor
    y: Tensor
    weight: Tensor
    task: Tensor
    slot: Tensor
    kept: Tensors = field(default_factory=dict)


def join(batch: Batch, recalled: Recalled) -> Batch:
    """Concatenate new and recalled samples to one batch, new samples first."""
    x, y, weight, task = (
        torch.cat((getattr(batch, name), getattr(recalled, name))) for name in ("x", "y", "weight", "task")
    )
    return Batch(x, y, weight, task, phase=batch.phase)


class State(NamedTuple):
    """The complete state of a learner, a tree of tensors.

    In the methods of a strategy the tensors have no replica axis; in the engine they have a leading one.
    """

    params: Tensors
    buffers: Tensors
    optimiser: dict[str, Any]
    memory: Tensors
    extra: dict[str, Any]


class NetOutput(NamedTuple):
    """Output of a network.

    ``logits`` ``(B, C)``, masked to the classes that may be predicted; ``raw``, the logits before masking; ``features``
    ``(B, F)``, the inputs of the last linear layer; and the network's ``buffers`` after the call.
    """

    logits: Tensor
    raw: Tensor
    features: Tensor
    buffers: Tensors


class Net(Protocol):
    """The network as a function of its parameters. The engine carries its ``buffers`` (BatchNorm's statistics).

    With ``start=(layer, latent)`` the forward pass starts at the layer of that name, with ``latent`` as its input.
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
    """Result of `Strategy.gradient`.

    ``grads``, the gradients that the optimiser applies; their ``loss``; the tensors to be ``kept`` with the samples in
    memory; and ``aux``, further tensors for `Strategy.after_step` and `Strategy.admit`.
    """

    grads: Tensors
    loss: Tensor
    kept: Tensors
    aux: Tensors = {}  # noqa: RUF012

    @property
    def found(self) -> Tensors:
        """Deprecated alias of ``aux``."""
        warnings.warn("Gradient.found is deprecated; use Gradient.aux", DeprecationWarning, stacklevel=2)
        return self.aux


class KeptSpec(NamedTuple):
    """Shape and dtype of a tensor kept with each sample in memory, where the dtype differs from the run's."""

    shape: Shape
    dtype: torch.dtype


class Spec(NamedTuple):
    """Sizes that `Strategy.init` and `Strategy.phases` are given; static for a run."""

    classes: int
    experiences: int
    capacity: int
    shape: Shape
    features: int


@dataclass(frozen=True)
class Phase:
    """A training phase within an experience.

    Parameters
    ----------
    name : str
        Shown in the progress bar, and the value of ``batch.phase``.
    source : {"experience", "so_far", "full", "memory"}
        The data: this experience, all experiences so far, the whole stream (an upper bound), or the contents of the
        memory when the phase begins.
    epochs, batch_size : int, optional
        Default: the run's.
    trainable : tuple of str, optional
        Prefixes of the names of the parameters that are trained; default: all; ``()``: none.
    reset : bool, default False
        Whether the phase starts from the initial parameters, buffers and optimiser state.
    """

    name: str = "train"
    source: Literal["experience", "so_far", "full", "memory"] = "experience"
    epochs: int | None = None
    batch_size: int | None = None
    trainable: tuple[str, ...] | None = None
    reset: bool = False


@dataclass(frozen=True)
class Contents:
    """Contents of one replica's memory, for a readout; ``valid`` marks the filled rows, which come first."""

    index: Tensor
    task: Tensor
    valid: Tensor
    gather: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

    def batches(self, size: int = 500) -> Iterator[Batch]:
        """Iterate over all rows in batches of at most ``size``; one batch is in memory at a time."""
        return (self.read(slice(i, i + size)) for i in range(0, self.index.shape[0], size))

    def read(self, part: slice) -> Batch:
        """Read the samples of a slice of rows; ``weight`` is 0 for empty rows."""
        x, y = self.gather(self.index[part], self.task[part])
        return Batch(x, y, self.valid[part].to(x.dtype), self.task[part])


@dataclass(frozen=True)
class ExperienceData:
    """The training data of the experience that has just ended, for one replica; read in chunks of bounded size.

    Attributes
    ----------
    number : int
        0-based number of the experience.
    classes : Tensor
        ``(C,)`` bool, classes present in the experience.
    seen : Tensor
        ``(C,)`` bool, classes present in this or an earlier experience.
    class_count, seen_count : int
        Number of classes in ``classes`` and in ``seen`` (equal for all replicas of a run).
    index, task : Tensor
        ``(n,)`` int64.
    uniform : Tensor
        ``(n,)`` uniform numbers in [0, 1), for sampling.
    key : Tensor
        0-d int64, different for each replica and experience: the key for random numbers of any other shape, see
        `cl_lib.noise.uniform`.
    gather : callable
        ``gather(index, task) -> x, y``.
    memory : Contents, optional
        Current contents of the replica's memory, if the strategy has one.
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
        """Slices of at most ``size`` samples that cover the first ``limit`` samples (default: all)."""
        n = len(self) if limit is None else min(limit, len(self))
        return [slice(i, min(i + size, n)) for i in range(0, n, size)]

    def read(self, part: slice) -> Batch:
        """Read the samples of one slice."""
        x, y = self.gather(self.index[part], self.task[part])
        return Batch(x, y, torch.ones_like(y, dtype=x.dtype), self.task[part])


@runtime_checkable
class Learner(Protocol):
    """The interface between the harness and a learner; it can be written with an ordinary module and ``torch.optim``.

    Two optional methods make its runs resumable: ``save_state()`` and ``load_state(tree)``, where the tree consists of
    nested dicts of tensors that hold the complete state, including the optimiser's.
    """

    def observe(self, batch: Batch) -> None:
        """Learn from one batch."""

    def end_experience(self, data: ExperienceData) -> None:
        """Called once after the last batch of an experience."""

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        """Predict log-probabilities ``(N, C)`` for inputs ``(N, *shape)`` of experiences ``task`` ``(N,)``."""


@dataclass
class Row:
    """Results of one evaluation.

    Attributes
    ----------
    experience : int
        Number of experiences trained on so far; 0 for the untrained network.
    step : int
        Number of training steps so far.
    replicas : list of int
        The evaluated replicas, as positions in ``record.replicas``.
    arrays : dict of ndarray
        ``accuracy, nll, brier, ece, adaptive_ece, classwise_ece`` ``(R, E)``; the same over all samples as ``pooled.*``
        ``(R,)``; class and column sums; ``age`` ``(R, C)``, the steps since each class was last trained (recency);
        ``loss`` and ``diverged`` ``(R,)``.
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
    """Register a dataclass as a pytree whose ``static`` fields are structure (part of a trace's key), not leaves."""
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
    """Let a method of `Gradient` accept ``aux`` under its old name ``found`` as well, until the next version."""

    def call(*args: Any, **fields: Any) -> Gradient:
        if "found" in fields:
            warnings.warn("Gradient(found=...) is deprecated; use aux=...", DeprecationWarning, stacklevel=2)
            fields["aux"] = fields.pop("found")
        return function(*args, **fields)

    return call


Gradient.__new__ = _accept_found(Gradient.__new__)  # type: ignore[method-assign, assignment]
Gradient._replace = _accept_found(Gradient._replace)  # type: ignore[method-assign, assignment]

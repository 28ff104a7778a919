"""Where samples lie: how much a memory holds, which enter, which come back. Everything in it can be planned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cl_lib.errors import InputError
from cl_lib.types import KeptSpec, Shape
from cl_lib.validation import check_choice, check_whole

Admission = Literal["reservoir", "class_balanced", "ring", "strategy"]
Recall = Literal["uniform", "class_balanced"]


@dataclass(frozen=True)
class Memory:
    """A replay memory of fixed capacity.

    The samples themselves stay in the data set: the memory holds their indices, and what a strategy keeps beside.

    Parameters
    ----------
    capacity : int, default 500
        Samples held at most (0: none, replay is off).
    batch : int, default 10
        Samples recalled a step, without replacement; fewer while the memory holds fewer.
    admission : {"reservoir", "class_balanced", "ring", "strategy"}
        Which samples enter, see `cl_lib.plan.admission`; ``"strategy"``: the strategy chooses when an experience ends.
    recall : {"uniform", "class_balanced"}
        Which come back, see `cl_lib.plan.recall`.

    Examples
    --------
    >>> Memory(capacity=200, batch=32).check()
    >>> Memory(capacity=-1).check()
    Traceback (most recent call last):
        ...
    cl_lib.errors.InputError: strategy.memory.capacity=-1: must be 0 or more
    """

    capacity: int = 500
    batch: int = 10
    admission: Admission = "reservoir"
    recall: Recall = "uniform"

    def check(self, least: int = 0, classes: int = 0) -> None:
        """Raise `InputError` for values that cannot work; ``least`` is the capacity that a strategy needs."""
        for name, number in (("capacity", self.capacity), ("batch", self.batch)):
            check_whole(f"strategy.memory.{name}", number)
        if self.capacity < 0:
            raise InputError(f"strategy.memory.capacity={self.capacity}: must be 0 or more")
        if self.capacity > 10**8:
            raise InputError(f"strategy.memory.capacity={self.capacity}: must be at most {10**8:,}")
        if self.admission == "ring" and 0 < self.capacity < classes:
            raise InputError(
                f"strategy.memory.capacity={self.capacity}: a ring keeps as many samples of each class, so it needs at "
                f"least one for each of the {classes} classes"
            )
        if self.capacity < least:
            raise InputError(
                f"strategy.memory.capacity={self.capacity}: this strategy needs at least {least} on this stream"
            )
        if self.batch < 1:
            raise InputError(f"strategy.memory.batch={self.batch}: must be 1 or more (capacity=0 switches replay off)")
        for name, value, known in (
            ("admission", self.admission, ("reservoir", "class_balanced", "ring", "strategy")),
            ("recall", self.recall, ("uniform", "class_balanced")),
        ):
            check_choice(f"strategy.memory.{name}", value, known)

    @property
    def planned(self) -> bool:
        """Whether its contents follow from labels, counts and the seed alone."""
        return self.admission != "strategy"

    def init(self, keeps: dict[str, Shape | KeptSpec], dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """Tensors of one replica, with one row more than the capacity: the sink that rejected samples go to."""
        rows = self.capacity + 1
        stored = {k: _stored(kept, dtype) for k, kept in keeps.items()}
        tensors = {k: torch.zeros(rows, *spec.shape, dtype=spec.dtype, device=device) for k, spec in stored.items()}
        if not self.planned:
            for name in ("index", "task"):
                tensors[name] = torch.zeros(rows, dtype=torch.long, device=device)
            tensors["count"] = torch.zeros((), dtype=torch.long, device=device)
        return tensors

    def size(self, sample_bytes: int, keeps: dict[str, Shape | KeptSpec], dtype: torch.dtype) -> int:
        """Bytes that ``capacity`` samples with all that is kept beside them stand for, labels and indices included.

        The samples count in their stored type, as they would where the stream is not at hand any more.

        Examples
        --------
        >>> Memory(capacity=500).size(784, {"logits": (10,)}, torch.float32)
        424000
        """
        stored = [_stored(kept, dtype) for kept in keeps.values()]
        beside = sum(torch.Size(spec.shape).numel() * spec.dtype.itemsize for spec in stored)
        return self.capacity * (sample_bytes + 8 + 8 + 8 + beside)  # index, task, label: int64 each


def _stored(kept: Shape | KeptSpec, dtype: torch.dtype) -> KeptSpec:
    return kept if isinstance(kept, KeptSpec) else KeptSpec(kept, dtype)

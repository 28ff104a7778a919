"""Settings of a replay memory: capacity, admission and recall."""

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

    The samples stay in the data set: the memory stores their indices and the tensors that a strategy keeps with them.

    Parameters
    ----------
    capacity : int, default 500
        Maximum number of samples (0 switches replay off).
    batch : int, default 10
        Samples recalled per step, without replacement; fewer while the memory holds fewer.
    admission : {"reservoir", "class_balanced", "ring", "strategy"}
        Rule by which samples are admitted, see `cl_lib.plan.admission`; ``"strategy"``: the strategy chooses them.
    recall : {"uniform", "class_balanced"}
        Distribution from which samples are recalled, see `cl_lib.plan.recall`.

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
        """Raise `InputError` for invalid values; ``least`` is the smallest capacity that the strategy supports."""
        for name, number in (("capacity", self.capacity), ("batch", self.batch)):
            check_whole(f"strategy.memory.{name}", number)
        if self.capacity < 0:
            raise InputError(f"strategy.memory.capacity={self.capacity}: must be 0 or more")
        if self.capacity > 10**8:
            raise InputError(f"strategy.memory.capacity={self.capacity}: must be at most {10**8:,}")
        if self.admission == "ring" and 0 < self.capacity < classes:
            raise InputError(
                f"strategy.memory.capacity={self.capacity}: a ring stores equally many samples of each class, so it "
                f"needs at least one slot for each of the {classes} classes"
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
        """Whether the contents of the memory depend only on labels, counts and the seed."""
        return self.admission != "strategy"

    def init(self, keeps: dict[str, Shape | KeptSpec], dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """Tensors of one replica, with one row more than the capacity: rejected samples are written to the last row."""
        rows = self.capacity + 1
        specs = {k: _spec(kept, dtype) for k, kept in keeps.items()}
        tensors = {k: torch.zeros(rows, *spec.shape, dtype=spec.dtype, device=device) for k, spec in specs.items()}
        if not self.planned:
            for name in ("index", "task"):
                tensors[name] = torch.zeros(rows, dtype=torch.long, device=device)
            tensors["count"] = torch.zeros((), dtype=torch.long, device=device)
        return tensors

    def size(self, sample_bytes: int, keeps: dict[str, Shape | KeptSpec], dtype: torch.dtype) -> int:
        """Bytes of ``capacity`` samples and the tensors kept with them, including labels and indices.

        The samples are counted in their stored type, as if they were copied out of the data set.

        Examples
        --------
        >>> Memory(capacity=500).size(784, {"logits": (10,)}, torch.float32)
        424000
        """
        specs = [_spec(kept, dtype) for kept in keeps.values()]
        kept_bytes = sum(torch.Size(spec.shape).numel() * spec.dtype.itemsize for spec in specs)
        return self.capacity * (sample_bytes + 8 + 8 + 8 + kept_bytes)  # index, task, label: int64 each


def _spec(kept: Shape | KeptSpec, dtype: torch.dtype) -> KeptSpec:
    return kept if isinstance(kept, KeptSpec) else KeptSpec(kept, dtype)

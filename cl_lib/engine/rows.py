"""Rows of the data, wherever these lie: on the device, in the host's memory or in a file."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor

from cl_lib.datasets.mapped import is_mapped, loaded, take

Store = Literal["auto", "resident", "streamed"]
"""Where inputs are while a run lasts: ``resident`` all on the device; ``streamed`` where they were, but for those that
are needed next; ``auto``: those that are memory-mapped are streamed."""


def is_streamed(x: Tensor, store: Store) -> bool:
    """Whether inputs stay where they are."""
    return store == "streamed" or (store == "auto" and is_mapped(x))


def place(x: Tensor, store: Store, device: torch.device) -> Tensor:
    """The inputs where rows can be read from."""
    return x.contiguous() if is_streamed(x, store) else loaded(x, device)


def read(source: Tensor, index: Tensor) -> Tensor:
    """Rows ``(*index.shape, *shape)`` on the index's device; no page of a file stays in memory.

    Examples
    --------
    >>> read(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1], [0]]))
    tensor([[[3, 4]],
            [[1, 2]]])
    """
    rows = take(source, index.reshape(-1).to(source.device))
    return rows.view(*index.shape, *source.shape[1:]).to(index.device)


# an operation of its own: under vmap, whose index has another axis, it is still one call that need not be on a device
torch.library.define("cl_lib::read_rows", "(Tensor source, Tensor index) -> Tensor")
torch.library.impl("cl_lib::read_rows", "CompositeExplicitAutograd")(read)


def read_rows(source: Tensor, index: Tensor) -> Tensor:
    """`read`, for what is lifted: the source is the same for all replicas.

    Examples
    --------
    >>> x = torch.arange(6).view(3, 2)
    >>> torch.func.vmap(lambda index: read_rows(x, index))(torch.tensor([[2, 0], [1, 1]]))
    tensor([[[4, 5],
             [0, 1]],
            [[2, 3],
             [2, 3]]])
    """
    return cast(Tensor, torch.ops.cl_lib.read_rows(source, index))


def _lifted(info: Any, axes: tuple[int | None, int | None], source: Tensor, index: Tensor) -> tuple[Tensor, int]:
    assert axes[0] is None
    assert axes[1] is not None
    return read_rows(source, index.movedim(axes[1], 0)), 0


torch.library.register_vmap("cl_lib::read_rows", _lifted)

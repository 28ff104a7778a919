"""Reading rows of data that are on the device, in host memory or in a file."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor

from cl_lib.datasets.mapped import is_mapped, loaded, take

Store = Literal["auto", "resident", "streamed"]
"""Where inputs are stored during a run. ``resident``: all on the device; ``streamed``: in their original place, with
only those that are needed next on the device; ``auto``: memory-mapped inputs are streamed, others are resident."""


def is_streamed(x: Tensor, store: Store) -> bool:
    """Whether inputs are streamed."""
    return store == "streamed" or (store == "auto" and is_mapped(x))


def place(x: Tensor, store: Store, device: torch.device) -> Tensor:
    """The inputs, on the device unless they are streamed."""
    return x.contiguous() if is_streamed(x, store) else loaded(x, device)


def read(source: Tensor, index: Tensor) -> Tensor:
    """Rows ``(*index.shape, *shape)`` on the index's device; no page of a file is kept in memory.

    Examples
    --------
    >>> read(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1], [0]]))
    tensor([[[3, 4]],
            [[1, 2]]])
    """
    rows = take(source, index.reshape(-1).to(source.device))
    return rows.view(*index.shape, *source.shape[1:]).to(index.device)


# a custom operator: under vmap, which adds an axis to the index, it stays one call, and the source may be on the host
torch.library.define("cl_lib::read_rows", "(Tensor source, Tensor index) -> Tensor")
torch.library.impl("cl_lib::read_rows", "CompositeExplicitAutograd")(read)


def read_rows(source: Tensor, index: Tensor) -> Tensor:
    """`read` as an operator that supports ``vmap`` over the index; the source is the same for all replicas.

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

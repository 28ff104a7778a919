"""The data of a run: one copy in its compact dtype; rows are gathered and normalised in the step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cl_lib.datasets import Dataset, Samples
from cl_lib.engine.rows import Store, place, read_rows
from cl_lib.streams.stream import SeededStream
from cl_lib.types import Tensors


def upload(data: Dataset, samples: Samples, dtype: torch.dtype, device: torch.device, store: Store = "auto") -> Tensors:
    """Tensors shared by all replicas: ``x`` (N, *shape), ``y`` (N,) and, if needed, ``mean`` and ``std``.

    All are on the device, except ``x`` if it is streamed; ``mean`` and ``std`` broadcast to a sample.
    """
    shape = (-1,) + (1,) * (len(data.shape) - 1)
    shared = {"x": place(samples.x, store, device), "y": samples.y.to(device)}
    for name, values, neutral in (("mean", data.mean, 0.0), ("std", data.std, 1.0)):
        if any(v != neutral for v in values):
            shared[name] = torch.tensor(values, dtype=dtype, device=device).reshape(shape)
    return shared


def tables(realisations: Sequence[SeededStream], dtype: torch.dtype, device: torch.device) -> Tensors:
    """Stacked tensors of each replica: ``targets`` (R, T, C0), ``pixel`` and ``pixel_weight`` (R, K, T, D).

    K precedes T and D, so that each gather reads whole rows, which is three times as fast as with K last.
    """
    out = {}
    if realisations[0].targets is not None:
        out["targets"] = torch.stack([r.targets for r in realisations if r.targets is not None])
    if realisations[0].transform is not None:
        transforms = [r.transform for r in realisations if r.transform is not None]
        out["pixel"] = torch.stack([t.pixel for t in transforms]).movedim(-1, 1)
        if transforms[0].weight is not None:
            weight = torch.stack([t.weight for t in transforms if t.weight is not None])
            out["pixel_weight"] = weight.to(dtype).movedim(-1, 1)
    return {k: v.contiguous().to(device) for k, v in out.items()}


def gather(shared: Tensors, table: Tensors, index: Tensor, task: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """One replica's normalised, transformed inputs ``(B, *shape)`` and labels ``(B,)``."""
    return prepare(shared, table, read_rows(shared["x"], index), shared["y"][index], task, dtype)


def rows(shared: Tensors, items: Tensors) -> tuple[Tensor, Tensor]:
    """Inputs ``(..., *shape)`` and labels ``(...)`` as they are stored, for an ``index`` of any shape.

    If inputs are streamed, ``x`` is a window and ``row`` contains the positions in it. Rows are read by
    ``index_select``: torch's general indexing of bytes takes fifteen times as long.
    """
    x, y, index = shared["x"], shared["y"], items["index"]
    flat = index.reshape(-1)
    row = items["row"].reshape(-1) if "row" in items else flat
    return x.index_select(0, row).view(*index.shape, *x.shape[1:]), y.index_select(0, flat).view(index.shape)


def prepare(
    shared: Tensors, table: Tensors, x: Tensor, y: Tensor, task: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Transform and normalise rows for one replica's network, in place if ``x`` has ``dtype``."""
    x = x.to(dtype)
    # images are transformed before normalisation, so that a black border stays black; features after it
    image = x.ndim == 4
    if "pixel" in table and image:
        x = _transform(table, x, task)
    if "mean" in shared:
        x.sub_(shared["mean"])
    if "std" in shared:
        x.div_(shared["std"])
    if "pixel" in table and not image:
        x = _transform(table, x, task)
    if "targets" in table:
        targets = table["targets"]
        y = targets.reshape(-1)[task * targets.shape[-1] + y]
    return x, y


def _transform(table: Tensors, x: Tensor, task: Tensor) -> Tensor:
    """Apply each sample's linear map of pixels, chosen by its task; a 0-d ``task`` applies to all samples."""
    planes = x.reshape(x.shape[0], -1, table["pixel"].shape[-1])  # (B, channels, D)
    across = planes.flatten(0, 1).mT.contiguous() if task.ndim == 0 else None  # moving whole rows is much faster
    total: Tensor | None = None
    for k, pixel in enumerate(table["pixel"]):
        if across is not None:
            tap = across.index_select(0, pixel[task])
        else:
            tap = planes.gather(-1, pixel[task].unsqueeze(1).expand_as(planes))
        if "pixel_weight" in table:
            weight = table["pixel_weight"][k][task]
            tap = tap * weight.unsqueeze(1)
        total = tap if total is None else total + tap
    assert total is not None
    return (total if across is None else total.mT).reshape(x.shape)

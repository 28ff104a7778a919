"""Blurry streams: experiences that exchange a fraction of their samples."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from cl_lib.errors import InputError
from cl_lib.streams.stream import SeededStream, Stream
from cl_lib.types import Experience


def blurry(parent: Stream, blur: float = 0.1, *, name: str | None = None) -> Stream:
    """Exchange a fraction of the samples between the experiences of a stream (Bang et al. 2021).

    From each experience, ``floor(blur * n)`` random samples are pooled, shuffled and redistributed in the same numbers,
    so the sizes of the experiences do not change. The stream is evaluated on the parent's test sets.

    Parameters
    ----------
    parent : Stream
    blur : float, default 0.1
        Fraction of exchanged samples, in [0, 1]; 0 gives the parent, 1 a stationary stream.

    Examples
    --------
    >>> from cl_lib import datasets, streams
    >>> stream = blurry(streams.split(datasets.digits()), 0.5)
    >>> [len(e.task.unique()) for e in stream.realise(0).experiences]
    [5, 5, 5, 5, 5]
    """
    if not 0 <= blur <= 1:
        raise InputError(f"stream.blur={blur}: must lie between 0 and 1")

    return replace(
        parent,
        name=name or f"blurry_{parent.name}",
        make=partial(_realise, parent, blur),
        options={"kind": "blurry", "blur": blur, "parent": parent.options},
    )


def _realise(parent: Stream, blur: float, seed: int) -> SeededStream:
    real = parent.realise(seed)
    generator = torch.Generator().manual_seed(seed)
    index = torch.cat([e.train for e in real.experiences])
    task = torch.cat([e.task for e in real.experiences])
    sizes = [len(e.train) for e in real.experiences]
    offset, chosen = 0, []
    for size in sizes:
        chosen.append(offset + torch.randperm(size, generator=generator)[: int(blur * size)])
        offset += size
    places = torch.cat(chosen)
    moved = places[torch.randperm(len(places), generator=generator)]
    order = torch.arange(len(index))
    order[places] = moved
    parts = zip(index[order].split(sizes), task[order].split(sizes), real.experiences, strict=True)
    return real._replace(experiences=tuple(Experience(i, t, e.column) for i, t, e in parts))

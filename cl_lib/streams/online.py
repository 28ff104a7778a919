"""Online streams: one pass over another stream in chunks of fixed size."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from cl_lib.streams.stream import SeededStream, Stream
from cl_lib.types import Experience
from cl_lib.validation import check_whole


def online(parent: Stream, chunk: int = 100, *, name: str | None = None) -> Stream:
    """Split each experience of ``parent`` into shuffled chunks, each of which is an experience.

    The stream is evaluated on the parent's test sets; reduce the number of evaluations with ``eval_every``. A chunk
    contains samples of one experience of the parent, so the last chunk of each may be smaller.

    Parameters
    ----------
    parent : Stream
    chunk : int, default 100
        Number of samples in a chunk.

    Examples
    --------
    >>> from cl_lib import datasets, streams
    >>> stream = online(streams.split(datasets.digits()), chunk=100)
    >>> stream.length, len(stream.columns)
    (15, 5)
    """
    check_whole("stream.chunk", chunk, 1)

    make = partial(_realise, parent, chunk)
    return replace(
        parent,
        name=name or f"online_{parent.name}",
        length=len(make(0).experiences),
        make=make,
        options={"kind": "online", "chunk": chunk, "parent": parent.options},
    )


def _realise(parent: Stream, chunk: int, seed: int) -> SeededStream:
    real = parent.realise(seed)
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for experience in real.experiences:
        order = torch.randperm(len(experience.train), generator=generator)
        for chunk_of in order.split(int(chunk)):
            parts.append(Experience(experience.train[chunk_of], experience.task[chunk_of], experience.column))
    return real._replace(experiences=tuple(parts))

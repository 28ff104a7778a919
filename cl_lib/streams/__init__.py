"""Streams of experiences: class-, task- and domain-incremental, online, blurry, drifting."""

from cl_lib.streams.blurry import blurry
from cl_lib.streams.by_column import by_column
from cl_lib.streams.drifting import drifting
from cl_lib.streams.online import online
from cl_lib.streams.permuted import permuted
from cl_lib.streams.rotated import rotated
from cl_lib.streams.split import split
from cl_lib.streams.stream import SeededStream, Stream, StreamReport, check_stream

__all__ = [
    "SeededStream",
    "Stream",
    "StreamReport",
    "blurry",
    "by_column",
    "check_stream",
    "drifting",
    "online",
    "permuted",
    "rotated",
    "split",
]

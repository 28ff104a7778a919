"""CUDA's graphs and streams on the host, for `pretended_cuda`: a replay knows addresses and no Python.

While recording nothing is executed: results are new tensors full of NaN. A replay repeats the recorded operations on
the recorded addresses. Inputs are held weakly, so that one which was freed is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes


class Address:
    """Where a tensor lies, without keeping it alive."""

    def __init__(self, tensor: Tensor) -> None:
        self.storage = StorageWeakRef(tensor.untyped_storage())
        self.place = tensor.storage_offset(), tensor.size(), tensor.stride()
        self.dtype = tensor.dtype

    def tensor(self) -> Tensor:
        """What lies there now."""
        if self.storage.expired():
            raise RuntimeError("replay: a tensor that the graph was recorded with has been freed")
        storage = torch.UntypedStorage._new_with_weak_ptr(self.storage.cdata)
        return torch.empty(0, dtype=self.dtype).set_(storage, *self.place)


class Graph:
    """Stands for `torch.cuda.CUDAGraph`; the device that records into it is told by `recording`.

    Attributes
    ----------
    failed : bool
        Whether something was asked for that waits for the device.
    replays : int
    """

    recording: Graph | None = None

    def __init__(self) -> None:
        self.failed, self.replays = False, 0
        self.calls: list[tuple[Any, Any, Any, list[Tensor | None]]] = []
        self.pool: dict[int, Tensor] = {}  # results, by their storage: a graph keeps them alive

    def replay(self) -> None:
        """Repeat all operations."""
        if self.failed:
            raise RuntimeError("replay of a graph whose recording failed")
        self.replays += 1
        with _disable_current_modes():
            for call, args, kwargs, results in self.calls:
                args, kwargs = pytree.tree_map(lambda t: t.tensor() if isinstance(t, Address) else t, (args, kwargs))
                for result, value in zip(results, tensors(call(*args, **kwargs)), strict=True):
                    if result is not None:
                        result.copy_(value)

    def record(self, call: Any, args: Any, kwargs: Any, on_device: set[int]) -> Any:
        """Note an operation; its results hold no values. ``on_device``: the ids of the device's tensors."""
        written = {a.name for a in call._schema.arguments if a.alias_info is not None and a.alias_info.is_write}
        names = [a.name for a in call._schema.arguments]
        originals: dict[int, Tensor] = {}

        def spared(name: str, value: Any) -> Any:
            """What would be written to, as a copy: nothing is executed."""

            def one(t: Any) -> Any:
                if not isinstance(t, Tensor) or name not in written:
                    return t
                copy = t.clone()
                originals[id(copy)] = t
                return copy

            return pytree.tree_map(one, value)

        tried = call(
            *(spared(name, arg) for name, arg in zip(names, args, strict=False)),
            **{name: spared(name, arg) for name, arg in kwargs.items()},
        )
        results: list[Tensor | None] = []

        def empty(t: Any) -> Any:
            if not isinstance(t, Tensor):
                return t
            if id(t) in originals:
                results.append(None)  # the argument itself
                return originals[id(t)]
            own = torch.empty_strided(t.size(), t.stride(), dtype=t.dtype).fill_(
                torch.nan if t.is_floating_point() else 0
            )
            self.pool[own.untyped_storage()._cdata] = own
            results.append(own.detach())  # operations in place may change the other's shape
            return own

        def place(t: Any) -> Any:
            if not isinstance(t, Tensor):
                return t
            if id(t) not in on_device:
                return t.clone()  # numbers of the host are copied when the kernel is launched
            return t.detach() if t.untyped_storage()._cdata in self.pool else Address(t)

        out = pytree.tree_map(empty, tried)
        self.calls.append((call, pytree.tree_map(place, args), pytree.tree_map(place, kwargs), results))
        return out


class Stream:
    """Stands for `torch.cuda.Stream`: which one is current, not in what order they run."""

    current: Stream

    def wait_stream(self, other: Stream) -> None:
        """Nothing runs at the same time here."""


DEFAULT = Stream.current = Stream()


@contextmanager
def on_stream(stream: Stream) -> Iterator[None]:
    """Stands for `torch.cuda.stream`."""
    before, Stream.current = Stream.current, stream
    try:
        yield
    finally:
        Stream.current = before


@contextmanager
def recording(graph: Graph, stream: Stream | None = None, capture_error_mode: str = "global") -> Iterator[None]:
    """Stands for `torch.cuda.graph`: the end of a failed recording raises too, and its stream stays the current one."""
    assert Graph.recording is None
    before, Stream.current = Stream.current, stream or Stream()
    Graph.recording = graph
    try:
        yield
    finally:
        Graph.recording = None
        if graph.failed:
            raise torch.AcceleratorError("CUDA error: operation failed due to a previous error during capture")
        Stream.current = before


def tensors(tree: Any) -> list[Tensor]:
    """All tensors of a tree."""
    return [t for t in pytree.tree_leaves(tree) if isinstance(t, Tensor)]

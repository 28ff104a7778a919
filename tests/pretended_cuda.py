"""CUDA's rules without CUDA: tensors of a device whose numbers lie on the host.

``with pretended() as machine:`` makes ``device="cuda"`` a device that checks each operation:

* tensors of the device and of the host cannot be mixed, but for 0-d ones where CUDA allows them;
* whatever makes the host wait for the device is noted in ``machine.waits``, with what the engine was doing;
* steps are recorded into the graphs of `pretended_graphs`, where waiting is refused.

Operations compute on the host, so a whole run has numbers that can be compared with those of the CPU. Not covered:
CUDA's kernels, autocast, compiled programs, the order in which streams run, and memory.

The device is torch's unused ``lazy`` one: of those without a driver it alone can be differentiated on.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from pretended_graphs import DEFAULT, Graph, Stream, on_stream, recording, tensors
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from cl_lib.datasets import mapped
from cl_lib.engine import blocks, launch, net, rows, window
from cl_lib.harness.job import Job

DEVICE = torch.device("lazy", 0)
READS = frozenset(
    "_local_scalar_dense item repeat_interleave is_nonzero equal nonzero masked_select unique_consecutive _unique2 "
    "unique_dim bincount histc _linalg_check_errors linalg_eig".split()
)
SOLVERS = frozenset(  # of cuSOLVER: they read a status, or allocate where no graph may
    "_linalg_eigh _linalg_svd linalg_inv_ex _linalg_solve_ex linalg_qr linalg_lu_factor_ex linalg_cholesky_ex "
    "linalg_lstsq linalg_ldl_factor_ex _linalg_slogdet _linalg_det".split()
)
INDEXING = frozenset("index index_put index_put_ _index_put_impl_ _unsafe_index".split())
DOING = {  # the innermost of these functions says what the engine was doing
    "prepare": "trace",
    "_record": "record",
    "_load": "load",
    "observe": "step",
    "end_experience": "consolidate",
    "begin_evaluation": "evaluate",
    "predict": "evaluate",
    "_row": "evaluate",
    "_save": "save",
}


class Away(Tensor):
    """A tensor on the pretended device; ``host`` holds its numbers."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> Away:
        out: Any = torch.Tensor._make_wrapper_subclass(
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            layout=host.layout,
            device=DEVICE,
        )
        out.host = host
        return out

    def __init__(self, host: Tensor) -> None:
        pass

    @classmethod
    def __torch_dispatch__(cls, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return Machine.active.run(call, args, kwargs or {})

    def numpy(self, *args: Any, **options: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def data_ptr(self) -> int:
        return self.host.data_ptr()


class Machine(TorchDispatchMode):
    """The device, and what it saw.

    Attributes
    ----------
    waits : Counter
        ``(what the engine was doing, why the host waited)``.
    graphs : list of Graph
    """

    active: Machine
    _mode_key = torch._C._TorchDispatchModeKey.FAKE  # below the mode that traces, which other modes are not
    shape_env = None

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.graphs: list[Graph] = []

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(call, args, kwargs or {})

    def graph(self) -> Graph:
        """A new one, which is kept to be looked at."""
        self.graphs.append(Graph())
        return self.graphs[-1]

    def wait(self, call: Any, why: str) -> None:
        """The host waits for the device; no graph can be recorded meanwhile."""
        if Graph.recording is not None:
            Graph.recording.failed = True
            raise torch.AcceleratorError(f"CUDA error: operation not permitted when stream is capturing\n{call}: {why}")
        self.waits[doing(), f"{call}: {why}"] += 1

    def run(self, call: Any, args: Any, kwargs: Any) -> Any:
        """Check an operation, and compute it on the host."""
        if call is torch.ops.prim.device.default:
            return DEVICE
        away = [t for t in tensors((args, kwargs)) if isinstance(t, Away)]
        here = [t for t in tensors((args, kwargs)) if not isinstance(t, Away)]
        to = kwargs.get("device", next((a for a in args if isinstance(a, torch.device)), None))
        there = to is not None and torch.device(to).type == DEVICE.type
        if not away and not there:
            with _disable_current_modes():
                return call(*args, **kwargs)
        if call.namespace not in ("aten", "prims"):  # somebody's own: its Python runs as on the device
            with self:
                return python_of(call)(*args, **kwargs)
        if call.namespace == "aten" and call._can_decompose():  # inside one's own operations nothing else does
            with self:
                return call.decompose(*args, **kwargs)
        self.check(call, args, kwargs, away, here, there)
        return self.compute(call, args, kwargs, home=call._opname == "_to_copy" and to is not None and not there)

    def check(self, call: Any, args: Any, kwargs: Any, away: list[Tensor], here: list[Tensor], there: bool) -> None:
        """Note what the host waits for, and raise where devices are mixed."""
        name = call._opname
        by_number = name in INDEXING and all(p is None or p.dtype not in (torch.bool, torch.uint8) for p in args[1])
        if name in READS or torch.Tag.data_dependent_output in call.tags:
            self.wait(call, "the host reads a value")
        elif torch.Tag.dynamic_output_shape in call.tags and not by_number:
            self.wait(call, "a shape depends on values")
        elif name in SOLVERS:
            self.wait(call, "cuSOLVER")
        if name == "_to_copy":
            if not away and not (kwargs.get("non_blocking") and here[0].is_pinned()):
                self.wait(call, "host to device")
            elif away and kwargs.get("device") is not None and not there:
                self.wait(call, "device to host")
        elif name == "copy_":
            if isinstance(args[0], Away) != isinstance(args[1], Away):
                self.wait(call, "host to device" if isinstance(args[0], Away) else "device to host")
        elif here and name in INDEXING and isinstance(args[0], Away):
            self.wait(call, "host to device")
        elif here:
            numbers = torch.Tag.pointwise in call.tags or name in ("where", "fill_", "fill")
            if not numbers or any(t.ndim for t in here):
                raise RuntimeError(
                    "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
                    f"({call}, {doing()})"
                )

    def compute(self, call: Any, args: Any, kwargs: Any, home: bool) -> Any:
        """The operation on the host, or noted in the graph that is being recorded; ``home``: the result stays there."""
        kwargs = {k: v for k, v in kwargs.items() if k != "pin_memory"}
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
        given = {id(t.host) if isinstance(t, Away) else id(t): t for t in tensors((args, kwargs))}
        args, kwargs = pytree.tree_map(lambda t: t.host if isinstance(t, Away) else t, (args, kwargs))
        of_view = call.is_view or torch.Tag.inplace_view in call.tags
        with _disable_current_modes():
            if Graph.recording is None or of_view:
                out = call(*args, **kwargs)
            else:
                on_device = {key for key, t in given.items() if isinstance(t, Away)}
                out = Graph.recording.record(call, args, kwargs, on_device)

        def wrapped(t: Any) -> Any:
            if not isinstance(t, Tensor):
                return t
            known = given.get(id(t))
            if isinstance(known, Away) and torch.Tag.inplace_view in call.tags:
                known.data = Away(t)  # its shape changes along
            return known if known is not None else t if home else Away(t)

        return pytree.tree_map(wrapped, out)


def python_of(call: Any) -> Callable[..., Any]:
    """The function behind an operation that is not torch's own."""
    from torch._library.custom_ops import OPDEFS

    name = call._schema.name
    return rows.read if name == "cl_lib::read_rows" else OPDEFS[name]._init_fn


def doing() -> str:
    """What the engine is doing."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if "/cl_lib/" in frame.f_code.co_filename and frame.f_code.co_name in DOING:
            return DOING[frame.f_code.co_name]
        frame = frame.f_back
    return "else"


def moved(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`torch.tensor` and its like build below all modes: on the host, then."""

    def build(data: Any, *args: Any, device: Any = None, **options: Any) -> Tensor:
        there = device is not None and torch.device(device).type == DEVICE.type
        if not there or isinstance(data, Away):
            return make(data, *args, device=device, **options)
        return make(data, *args, **options).to(device)

    return build


@contextmanager
def pretended() -> Iterator[Machine]:
    """A CUDA device: ``device="cuda"`` and ``device="auto"`` run on it."""
    machine = Machine.active = Machine()
    Stream.current = DEFAULT
    is_mapped, autocast = mapped.is_mapped, torch.autocast
    chosen: Any = Job.torch_device.fget

    def device(job: Job) -> torch.device:
        return DEVICE if chosen(job).type == "cuda" else chosen(job)

    replaced = [
        (torch, "tensor", moved(torch.tensor)),
        (torch, "as_tensor", moved(torch.as_tensor)),
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "Stream", Stream),
        (torch.cuda, "current_stream", lambda: Stream.current),
        (torch.cuda, "stream", on_stream),
        (torch.cuda, "CUDAGraph", machine.graph),
        (torch.cuda, "graph", recording),
        (Job, "torch_device", property(device)),
        (blocks, "recorder", lambda device: launch.cuda_graph if device == DEVICE else None),
        (
            net.torch,
            "autocast",
            lambda kind, *rest, **how: autocast("cpu" if kind == DEVICE.type else kind, *rest, **how),
        ),
        *((m, "is_mapped", lambda t: not isinstance(t, Away) and is_mapped(t)) for m in (mapped, rows)),
    ]
    with ExitStack() as stack:
        for target, name, new in replaced:
            stack.enter_context(mock.patch.object(target, name, new))
        stack.enter_context(mock.patch.dict(window.BYTES, {DEVICE.type: window.BYTES["cuda"]}))
        stack.enter_context(machine)
        yield machine

"""Tracing: a step is traced once into a flat program of tensor operations, which is checked for untraceable ones."""

from __future__ import annotations

import operator
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from cl_lib.engine.lower import lower
from cl_lib.errors import InputError

TRACING = threading.Lock()
"""Lock held while a step is traced or compiled."""


class TraceError(InputError):
    """A step that would silently be traced wrongly: randomness, data-dependent shapes, captured tensors."""


class Program:
    """``program(fixed, varying)`` runs ``step(tree)`` on trees of tensors, updating ``fixed`` in place.

    Traced once for each static argument, structure (dict keys, static fields), shape, dtype and device of its inputs.

    Parameters
    ----------
    step : callable
        ``step(static, fixed, varying) -> None``, writing its results into the tensors of ``fixed``.
    traced : bool
        Whether to trace the step; if False, it runs eagerly.
    compiled : bool
        Whether to compile the traced program with TorchInductor; if that fails, warn once and use the traced program.
    probe : callable, optional
        ``probe(static, fixed, varying)`` runs the step once before tracing, to raise errors that tracing would not.
    """

    def __init__(
        self,
        step: Callable[[Any, Any, Any], None],
        traced: bool = True,
        compiled: bool = False,
        probe: Callable[[Any, Any, Any], None] | None = None,
    ) -> None:
        self.step, self.traced, self.compiled, self.probe = step, traced, compiled, probe
        self.seconds = 0.0
        """Seconds spent on tracing and compiling."""
        self.changes: dict[Callable[..., Any], list[int]] = {}
        """Positions of the inputs that a program changes, for programs that contain only torch's operations."""
        self._programs: dict[Any, Callable[..., Any]] = {}

    def prepare(self, fixed: Any, varying: Any, static: Any = None) -> Callable[..., Any]:
        """The program ``run(*leaves of fixed, *leaves of varying)``, traced if it is new; no input is changed."""
        flat, spec = pytree.tree_flatten((fixed, varying))
        key = (static, spec, tuple((t.shape, t.dtype, t.device) for t in flat))
        if key not in self._programs:
            began = time.perf_counter()
            self._programs[key] = self._make(flat, spec, static, len(pytree.tree_leaves(fixed)))
            self.seconds += time.perf_counter() - began
        return self._programs[key]

    def _make(self, flat: list[Tensor], spec: Any, static: Any, fixed: int) -> Callable[..., Any]:
        def program(*leaves: Tensor) -> list[Tensor]:
            self.step(static, *pytree.tree_unflatten(list(leaves), spec))
            return []

        if not self.traced:
            return program
        # tracing runs the step, so it gets copies: otherwise the state would be updated
        copies = [t.clone() for t in flat]
        try:
            # tracing patches torch for the whole process; anomaly mode reads values, which a trace cannot
            with TRACING, torch.autograd.set_detect_anomaly(False):
                if self.probe is not None:
                    self.probe(static, *pytree.tree_unflatten([t.clone() for t in flat], spec))
                graph = make_fx(program)(*copies)
        except RuntimeError as error:
            raise _explained(error) from error
        check_graph(graph)
        plain = all(_is_torch_operation(node) for node in graph.graph.nodes)
        run = self._compile(graph, flat) if self.compiled else None
        run = lower(graph, fixed) if run is None else run
        if plain:
            self.changes[run] = [i for i, t in enumerate(copies) if t._version]
        return run

    def _compile(self, graph: GraphModule, flat: list[Tensor]) -> Callable[..., Any] | None:
        try:
            # the compiler is called directly: what torch.compile's guards check cannot change here, and checking takes
            # as long as a step of a small network
            with TRACING:
                run = compile_graph(graph, [t.clone() for t in flat])
            run(*(t.clone() for t in flat))
        except Exception as error:  # the compiler raises many types; the traced program is valid in any case
            reason = str(error).strip().splitlines()
            warnings.warn(
                f"engine.compile: falling back to the traced program ({reason[0] if reason else type(error).__name__})",
                stacklevel=2,
            )
            self.compiled = False
            return None
        return run


def compile_graph(graph: GraphModule, inputs: list[Any]) -> Callable[..., Any]:
    """Compile the graph with TorchInductor for inputs of these shapes and dtypes."""
    from torch import _inductor

    return cast("Callable[..., Any]", _inductor.compile(graph, inputs))


def check_graph(graph: GraphModule) -> None:
    """Raise `TraceError` for operations whose result a trace would freeze."""
    for node in graph.graph.nodes:
        if node.op == "get_attr" and isinstance(getattr(graph, str(node.target), None), Tensor):
            raise TraceError(
                "the step uses a tensor that is not one of its inputs; its value would be frozen: put it into "
                "`extra` in `init`, or make it a hyper-parameter"
            )
        tags = getattr(node.target, "tags", ())
        if "scaled_dot_product" in str(node.target):
            raise TraceError(
                f"the step runs fused attention ({node.target}), which is not supported yet; put it, in the model's "
                "forward, under torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)"
            )
        if torch.Tag.nondeterministic_seeded in tags:
            raise TraceError(
                f"the step draws random numbers ({node.target}); they would not follow the plan: declare `noise` and "
                "use `batch.noise` instead (dropout: leave it out of the model)"
            )
        shaped_by_data = torch.Tag.dynamic_output_shape in tags or torch.Tag.data_dependent_output in tags
        if shaped_by_data and not _indexed_by_integers(node):
            raise TraceError(
                f"the step's shapes depend on its data ({node.target}: boolean indexing, nonzero, unique or .item()); "
                "the trace would freeze them: use torch.where, masks or topk"
            )


def _is_torch_operation(node: Node) -> bool:
    """Whether the node is a torch operation; those that a user defined may have unknown effects on the host."""
    if node.op != "call_function" or node.target is operator.getitem:
        return True
    return isinstance(node.target, OpOverload) and node.target.namespace in ("aten", "prims")


def _indexed_by_integers(node: Node) -> bool:
    """Whether the node indexes by integers only; the shape of the result depends on the values of booleans."""
    if node.target is not torch.ops.aten.index.Tensor:
        return False
    places: Any = node.args[1]
    return all(place is None or place.meta["val"].dtype != torch.bool for place in places)


def _explained(error: RuntimeError) -> Exception:
    text = str(error)
    if "randomness" in text or "random operation" in text:
        return TraceError(
            "the step draws random numbers; they would not follow the plan: declare `noise` and use `batch.noise` "
            "instead (dropout: leave it out of the model)"
        )
    if "Batching rule not implemented" in text or "we do not yet support" in text:
        return TraceError(
            "the step runs an operation that torch cannot run for several replicas at once "
            f"({text.splitlines()[0]}); write it with other operations (spectral_norm, for example, cannot be used)"
        )
    frozen = ("data-dependent", ".item()", "dynamic shape", "Cannot access data pointer", "tracing tensor")
    if any(sign in text for sign in frozen):
        return TraceError(
            "the step branches on, indexes by or reads out a tensor's value (if tensor, .item(), .tolist(), .numpy(), "
            f"boolean indexing, masked_select, one_hot); use torch.where, masks or topk ({text.splitlines()[0]})"
        )
    return error

"""Launches of several steps at once: a CUDA graph replaces about sixty kernel launches per step by one per launch."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

LAUNCH = 16
"""Steps per launch; a divisor of a block's 128 steps."""

Record = Callable[[Callable[[], None], Sequence[Tensor]], Callable[[], None]]


def recorder(device: torch.device) -> Record | None:
    """The function that records steps on a device; None if steps run one by one there."""
    return cuda_graph if device.type == "cuda" else None


def cuda_graph(body: Callable[[], None], state: Sequence[Tensor]) -> Callable[[], None]:
    """Record ``body`` as a CUDA graph; ``state``, all that the body changes, is restored even if recording fails."""
    before, graph = [t.clone() for t in state], torch.cuda.CUDAGraph()
    current, capture = torch.cuda.current_stream(), torch.cuda.Stream()
    capture.wait_stream(current)
    try:
        # this context includes the recording, which on failure leaves its stream as the current one
        with torch.cuda.stream(capture):
            # the first run on a stream allocates library workspaces, which must not be recorded
            body()
            # other threads may allocate memory during the capture
            with torch.cuda.graph(graph, stream=capture, capture_error_mode="thread_local"):
                body()
    finally:
        current.wait_stream(capture)
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
    return graph.replay


class Launch:
    """``launch(varying, s)`` runs steps ``s`` to ``s + LAUNCH - 1`` of a block at once.

    Parameters
    ----------
    run : callable
        The program, ``run(*fixed, *varying of a step)``.
    fixed : list of Tensor
        Tensors that keep their addresses for the whole run.
    varying : list of Tensor
        Tensors of a block, ``(S, ...)`` each; their values are copied into tensors that keep their addresses.
    loss : int
        Position in ``varying`` of the tensor that a step writes.
    state : list of Tensor
        The tensors of ``fixed`` that the program changes.
    record : callable
        The function that records the steps (see `recorder`).
    """

    def __init__(
        self,
        run: Callable[..., Any],
        fixed: list[Tensor],
        varying: list[Tensor],
        loss: int,
        state: list[Tensor],
        record: Record,
    ) -> None:
        self.loss, self.inputs = loss, [leaf[:LAUNCH].clone() for leaf in varying]
        steps = list(zip(*(leaf.unbind(0) for leaf in self.inputs), strict=True))

        def body() -> None:
            for step in steps:
                run(*fixed, *step)

        self.replay = record(body, state)

    def __call__(self, varying: list[Tensor], s: int) -> None:
        for target, leaf in zip(self.inputs, varying, strict=True):
            target.copy_(leaf[s : s + LAUNCH])
        self.replay()
        varying[self.loss][s : s + LAUNCH].copy_(self.inputs[self.loss])


def try_to_record(*arguments: Any) -> Launch | None:
    """A launch, or None after a warning if the steps cannot be recorded (e.g. because they synchronise)."""
    handled = sys.exception()  # handled by the caller, so not the reason of this failure
    try:
        return Launch(*arguments)
    except RuntimeError as error:
        first: BaseException = error
        while first.__context__ not in (None, handled):  # ending a failed recording raises as well
            first = first.__context__
        reason = (str(first).strip() or type(first).__name__).splitlines()[0]
        warnings.warn(f"engine: no CUDA graph can be recorded, steps are launched one by one ({reason})", stacklevel=2)
        return None

"""Several steps launched as one: on CUDA a recorded graph costs a single launch instead of some sixty a step."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

LAUNCH = 16
"""Steps of a launch; a divisor of a block's 128."""

Record = Callable[[Callable[[], None], Sequence[Tensor]], Callable[[], None]]


def recorder(device: torch.device) -> Record | None:
    """How steps are recorded on a device; None where they are run one by one."""
    return cuda_graph if device.type == "cuda" else None


def cuda_graph(body: Callable[[], None], state: Sequence[Tensor]) -> Callable[[], None]:
    """``body`` as a CUDA graph; ``state``, all that the body changes, stays as it was, also where recording fails."""
    before, graph = [t.clone() for t in state], torch.cuda.CUDAGraph()
    current, capture = torch.cuda.current_stream(), torch.cuda.Stream()
    capture.wait_stream(current)
    try:
        # around the recording too: where that fails it leaves its stream the current one
        with torch.cuda.stream(capture):
            # libraries take a stream's workspace on a first run there, which no graph may record
            body()
            # other threads may go on allocating meanwhile
            with torch.cuda.graph(graph, stream=capture, capture_error_mode="thread_local"):
                body()
    finally:
        current.wait_stream(capture)
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
    return graph.replay


class Launch:
    """``launch(varying, s)``: steps ``s`` to ``s + LAUNCH - 1`` of a block at once.

    Parameters
    ----------
    run : callable
        The program, ``run(*fixed, *varying of a step)``.
    fixed : list of Tensor
        Same addresses for the whole run.
    varying : list of Tensor
        A block's, ``(S, ...)`` each; their places are taken by tensors that keep their addresses.
    loss : int
        Which of ``varying`` is written by a step.
    state : list of Tensor
        Those of ``fixed`` that the program changes.
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
    """A launch, or None after a warning where the steps cannot be recorded (they wait for the device, say)."""
    handled = sys.exception()  # by the caller: no reason of ours
    try:
        return Launch(*arguments)
    except RuntimeError as error:
        first: BaseException = error
        while first.__context__ not in (None, handled):  # the end of a failed recording raises too
            first = first.__context__
        reason = (str(first).strip() or type(first).__name__).splitlines()[0]
        warnings.warn(f"engine: no CUDA graph can be recorded, steps are launched one by one ({reason})", stacklevel=2)
        return None

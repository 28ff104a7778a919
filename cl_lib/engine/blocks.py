"""Execution of the plan's blocks on the device, one step or several steps per launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from cl_lib.engine.launch import LAUNCH, Launch, recorder, try_to_record
from cl_lib.engine.lift import Part
from cl_lib.engine.optim import Schedule
from cl_lib.engine.step import write
from cl_lib.engine.trace import Program
from cl_lib.engine.window import Window, new_samples
from cl_lib.plan.plan import STEPS, Block, Plan
from cl_lib.types import Tensors


class Blocks:
    """Run the steps of each block in order and store their losses.

    Parameters
    ----------
    program : Program
        The training step, traced when the first block is loaded.
    parts : list of Part
        The groups of replicas that run as one program.
    plan : Plan
    schedule : Schedule
        Learning-rate schedule.
    per_replica : dict
        ``state``, ``hyper`` and ``table`` of all replicas, ``(R, ...)``; the tensors keep their addresses.
    shared : dict of Tensor
        The data shared by all replicas.
    window : Window, optional
        The window of the inputs, if they are streamed.
    sized : bool
        Whether a short last batch is cut to its size, because batch statistics must not include padding.
    """

    def __init__(
        self,
        program: Program,
        parts: list[Part],
        plan: Plan,
        schedule: Schedule,
        per_replica: dict[str, Any],
        shared: Tensors,
        window: Window | None,
        sized: bool,
    ) -> None:
        self.program, self.parts, self.plan, self.schedule = program, parts, plan, schedule
        self.per_replica, self.shared, self.window, self.sized = per_replica, shared, window, sized
        replicas, rate = len(plan.seeds), per_replica["hyper"]["optim"]["lr"]
        self.status = {
            "diverged": rate.new_full((replicas,), -1, dtype=torch.long),
            "loss": rate.new_full((replicas,), torch.nan),
        }
        """First step with a non-finite loss for each replica (-1 if there is none), and the loss of its last step."""
        self.losses = rate.new_zeros(STEPS, replicas)
        if window is not None and window.held:
            per_replica["table"]["memory_row"] = torch.zeros_like(per_replica["state"]["memory"]["index"])
        resets = any(phase.reset for phases in plan.phases for phase in phases)
        names = ("params", "buffers", "optimiser") if resets else ()
        self._initial = {k: pytree.tree_map(torch.clone, per_replica["state"][k]) for k in names}
        self._block: Block | None = None
        self._from = self._until = 0
        self._fixed: list[dict[str, Any]] = []
        self._calls: list[list[tuple[Callable[..., Any], list[Tensor], tuple[Tensor, ...]]]] = []
        self._recorded: dict[tuple[str, int], Launch | None] = {}
        self._launches: list[tuple[Launch, list[Tensor]]] = []
        self._same_size = 0

    def cut(self, block: Block) -> list[Block]:
        """Split a block into parts if its inputs are streamed and exceed the window."""
        return [block] if self.window is None else self.window.cut(block)

    def observe(self, block: Block, s: int, ahead: Block | None = None) -> int:
        """Run step ``s`` of a block, or a whole launch of steps from ``s`` on; return the number of steps run.

        If inputs are streamed, those of the block ``ahead`` are read in the background.
        """
        if block is not self._block:
            self._load(block, s, ahead)
        count = LAUNCH if self._launches and s + LAUNCH <= self._same_size else 1
        if count > 1:
            for launch, plan in self._launches:
                launch(plan, s)
        else:
            for run, fixed, varying in self._calls[s]:
                run(*fixed, *varying)
        self._until = s + count
        return count

    def _load(self, block: Block, start: int, ahead: Block | None) -> None:
        """Upload a block and prepare its programs."""
        self.settle()
        if block.phase.reset and block.begins and start == 0:
            write({k: self.per_replica["state"][k] for k in self._initial}, self._initial)
        self._block, self._from, self._until = block, start, start
        shared, needed = self._window(block, ahead)
        sizes = {n: self._inputs(block, n, needed) for n in (set(block.size) if self.sized else block.size[:1])}
        if not self._fixed:  # these tensors keep their addresses
            self._fixed = [
                {**pytree.tree_map(lambda t, p=p: t[p], self.per_replica), "shared": shared} for p in self.parts
            ]
        first = block.size[0]
        self._same_size = block.size.index(block.size[-1]) if self.sized and block.size[-1] != first else len(block)
        self._calls, self._launches = [[] for _ in block.size], []
        for part, fixed in zip(self.parts, self._fixed, strict=True):
            self._prepare(block, part, fixed, sizes)
        if len(self._launches) < len(self.parts):
            self._launches = []

    def _prepare(self, block: Block, part: Any, fixed: dict[str, Any], sizes: dict[int, dict[str, Any]]) -> None:
        """Prepare the programs of a part, one for each batch size, and the calls of each step."""
        first, leaves, programs = block.size[0], pytree.tree_leaves(fixed), {}
        steps: dict[int, list[tuple[Tensor, ...]]] = {}
        for n, inputs in sizes.items():
            varying = pytree.tree_map(lambda t: t[:, part], inputs)
            plan, spec = pytree.tree_flatten(varying)
            steps[n] = list(zip(*(leaf.unbind(0) for leaf in plan), strict=True))
            step = pytree.tree_unflatten(list(steps[n][0]), spec)
            programs[n] = self.program.prepare(fixed, step, block.phase)
            if n == first and len(block) >= LAUNCH:
                loss = next(i for i, leaf in enumerate(plan) if leaf is varying["loss"])
                self._record(part, programs[n], leaves, plan, loss)
        for s, calls in enumerate(self._calls):
            n = block.size[s] if self.sized else first
            calls.append((programs[n], leaves, steps[n][s]))

    def _record(self, part: Any, run: Any, fixed: list[Tensor], plan: list[Tensor], loss: int) -> None:
        """Record the steps of a part if the device can launch several at once."""
        record = recorder(self.losses.device)
        if record is None or run not in self.program.changes:
            return
        key = str(part), id(run)
        if key not in self._recorded:
            changed = [fixed[i] for i in self.program.changes[run] if i < len(fixed)]
            self._recorded[key] = try_to_record(run, fixed, plan, loss, changed, record)
        launch = self._recorded[key]
        if launch is not None:
            self._launches.append((launch, plan))

    def _window(self, block: Block, ahead: Block | None) -> tuple[Tensors, Tensor | None]:
        """The data that a step reads from and, if inputs are streamed, the indices of the rows in the window."""
        if self.window is None:
            return self.shared, None
        memory = self.per_replica["state"]["memory"]["index"].contiguous() if self.window.held else None
        held = None if memory is None else memory.cpu()
        needed = self.window.load(block, held)
        if memory is not None:
            self.per_replica["table"]["memory_row"].copy_(torch.searchsorted(needed, memory))
        if ahead is not None:
            # a strategy may admit samples of this block to its memory before the next one begins
            self.window.prefetch(ahead, None if held is None else torch.cat([held.flatten(), new_samples(block)]))
        return {**self.shared, "x": self.window.x}, needed

    def _inputs(self, block: Block, size: int, needed: Tensor | None) -> dict[str, Any]:
        """A block's inputs on the device, its batches cut to ``size`` so that batch statistics include no padding."""
        plan = pytree.tree_map(
            lambda t: t.to(self.losses.device), {"batch": block.batch, "draws": block.draws, "noise": block.noise}
        )
        batch = {k: v.narrow(2, 0, size) for k, v in plan["batch"].items()}
        planned = [draw for draw in plan["draws"] if "index" in draw]
        within, total = (block.first_step, self.plan.total) if self.schedule.span == "run" else block.within
        factors = self.schedule.factors(within, len(block), total)
        rate = self.per_replica["hyper"]["optim"]["lr"]
        items = {k: torch.cat((batch[k], *(draw[k] for draw in planned)), 2) for k in ("index", "task", "weight")}
        return {
            "items": items if needed is None else items | {"row": torch.searchsorted(needed, items["index"])},
            **{k: batch[k] for k in ("slot", "offered") if k in batch},
            "draws": tuple({k: draw[k] for k in ("slot", "uniform") if k in draw} for draw in plan["draws"]),
            "noise": {k: v.narrow(2, 0, size) for k, v in plan["noise"].items()},
            "lr": torch.tensor(factors, dtype=rate.dtype, device=rate.device)[:, None] * rate,
            "loss": self.losses[: len(block)],
        }

    def settle(self) -> None:
        """Record which replicas have non-finite losses; done once per block, so that no step synchronises."""
        if self._block is None or self._until == self._from:
            return
        losses = self.losses[self._from : self._until]
        bad = ~torch.isfinite(losses)
        first = bad.long().argmax(0) + self._block.first_step + self._from
        diverged = self.status["diverged"]
        diverged.copy_(torch.where(bad.any(0) & (diverged < 0), first, diverged))
        self.status["loss"].copy_(losses[-1])
        self._from = self._until

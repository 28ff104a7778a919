"""One training step of a population: the function that is traced.

A step recalls samples, computes the gradient, updates the parameters, and writes the batch's outputs *before* the
update into memory. All results are written into the tensors passed in, so that their addresses never change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cl_lib.engine.net import FunctionalNet
from cl_lib.engine.optim import Optimiser
from cl_lib.engine.resident import prepare, rows
from cl_lib.errors import InputError
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, Gradient, Phase, Recalled, Spec, State, Tensors


class Step:
    """``step(phase, fixed, plan)`` updates ``fixed`` (state, hyper-parameters and tables) in place.

    ``plan`` contains ``items`` (index, task and weight of the batch's samples followed by the recalled samples; if
    inputs are streamed, also their rows in the window), the batch's ``slot`` and ``noise``, the ``draws`` (slots, or
    the uniform numbers that choose them), the learning rate ``lr``, and the tensor that ``loss`` is written to.

    Parameters
    ----------
    strategy : Strategy
    module : nn.Module
        The network's structure.
    optimiser : Optimiser
    spec : Spec
    dtype : torch.dtype
    lifted : bool
        Whether tensors have a leading replica axis.
    bfloat16 : bool
        Whether networks compute in bfloat16.
    """

    def __init__(
        self,
        strategy: Strategy,
        module: nn.Module,
        optimiser: Optimiser,
        spec: Spec,
        dtype: torch.dtype,
        lifted: bool,
        bfloat16: bool = False,
    ) -> None:
        self.strategy, self.module, self.optimiser = strategy, module, optimiser
        self.spec, self.dtype, self.lifted, self.bfloat16 = spec, dtype, lifted, bfloat16

    def probe(self, phase: Phase, fixed: dict[str, Any], plan: dict[str, Any]) -> None:
        """Run an unlifted step once under vmap, which raises for operations that a trace would silently freeze."""
        shared = fixed.pop("shared")
        single = pytree.tree_map(lambda t: t[None], fixed) | {"shared": shared}
        self(phase, single, pytree.tree_map(lambda t: t[None], plan), lifted=True)

    def __call__(self, phase: Phase, fixed: dict[str, Any], plan: dict[str, Any], lifted: bool | None = None) -> None:
        """Run one step in place: recall, update, then write the batch's outputs *before* the update."""
        lifted = self.lifted if lifted is None else lifted
        shared, state, hyper, table = fixed["shared"], State(**fixed["state"]), fixed["hyper"], fixed["table"]
        has_after_step = type(self.strategy).after_step is not Strategy.after_step
        over_replicas: Any = torch.func.vmap if lifted else (lambda f: f)

        items, draws = plan["items"], plan["draws"]
        if self.strategy.fills_memory:  # the contents of the slots are not known before the step
            draws = tuple(over_replicas(self._find)(state.memory, table, draw["uniform"]) for draw in draws)
            items = {k: torch.cat((v, *(draw[k] for draw in draws)), -1) for k, v in items.items()}
        # outside vmap: one call reads the rows of all replicas, new and recalled
        x, y = rows(shared, items)

        def replica_gradient(
            state: State, hyper: Tensors, table: Tensors, plan: dict[str, Any]
        ) -> tuple[Gradient, Tensors, Batch]:
            net = FunctionalNet(self.module, state.buffers, table.get("mask"), training=True, bfloat16=self.bfloat16)
            samples = plan["items"]
            x, y = prepare(shared, table, samples["x"], samples["y"], samples["task"], self.dtype)
            batch, recalled = self._parts(x, y, plan, state.memory, phase)
            return bound(self.strategy, hyper).gradient(net, state, batch, recalled), net.buffers, batch

        def after(old: State, new: State, hyper: Tensors, table: Tensors, batch: Batch, gradient: Gradient) -> Any:
            net = FunctionalNet(self.module, new.buffers, table.get("mask"))
            return bound(self.strategy, hyper).after_step(net, old, new, batch, gradient)

        inputs = {**plan, "items": {**items, "x": x, "y": y}, "draws": draws}
        gradient, buffers, batch = over_replicas(replica_gradient)(state, hyper["strategy"], table, inputs)
        old = state
        if has_after_step:
            old = state._replace(params={k: p.clone() for k, p in state.params.items()})
        grads = gradient.grads
        if phase.trainable is not None:
            grads = {k: g for k, g in grads.items() if k.startswith(phase.trainable)} if phase.trainable else {}
        if grads:
            self.optimiser.update_(state.params, grads, state.optimiser, hyper["optim"], plan["lr"])
            for name, value in buffers.items():
                state.buffers[name].copy_(value)
        if has_after_step:
            changed = over_replicas(after)(old, state, hyper["strategy"], table, batch, gradient)
            if isinstance(changed, State):
                write(state.params, changed.params)
                changed = changed.extra
            write(state.extra, changed)
        slot, row = plan["slot"], table["row"] if lifted and "row" in table else None
        if type(self.strategy).admit is not Strategy.admit:
            slot = self._admit(over_replicas, state, hyper, table, batch, gradient, plan, row)
        for name, value in gradient.kept.items():
            keep(state.memory[name], slot, value, row)
        plan["loss"].copy_(gradient.loss)

    def _admit(
        self,
        over_replicas: Any,
        state: State,
        hyper: Tensors,
        table: Tensors,
        batch: Batch,
        gradient: Gradient,
        plan: dict[str, Any],
        row: Tensor | None,
    ) -> Tensor:
        """Let the strategy choose slots, and write the indices and tasks of the samples into them."""
        sink = self.spec.capacity

        def admit_replica(
            state: State, hyper: Tensors, table: Tensors, batch: Batch, gradient: Gradient, offered: Tensor
        ) -> tuple[Tensor, Tensors, dict[str, Any], Tensor]:
            net = FunctionalNet(self.module, state.buffers, table.get("mask"))
            slot, whole, extra = bound(self.strategy, hyper).admit(net, state, batch, gradient, offered)
            slot = torch.where(offered > 0, slot, sink)
            place = torch.arange(slot.shape[0], device=slot.device)
            overwritten = ((slot[:, None] == slot) & (place > place[:, None])).any(-1)
            slot = torch.where(overwritten, sink, slot)  # if several samples choose one slot, the last is stored
            top = torch.where(slot < sink, slot + 1, 0).max()
            return slot, whole, extra, torch.maximum(state.memory["count"], top)

        slot, whole, extra, count = over_replicas(admit_replica)(
            state, hyper["strategy"], table, batch, gradient, plan["offered"]
        )
        size = plan["slot"].shape[-1]
        for name in ("index", "task"):
            keep(state.memory[name], slot, plan["items"][name][..., :size], row)
        if "memory_row" in table:
            keep(table["memory_row"], slot, plan["items"]["row"][..., :size], row)
        state.memory["count"].copy_(count)
        for name, value in whole.items():
            state.memory[name].copy_(value)
        write(state.extra, extra)
        return slot

    def _parts(
        self, x: Tensor, y: Tensor, plan: dict[str, Any], memory: Tensors, phase: Phase
    ) -> tuple[Batch, tuple[Recalled, ...]]:
        """Split the samples of one replica's step into the batch and the recalled samples of each draw."""
        items, start = plan["items"], plan["slot"].shape[-1]
        batch = Batch(x[:start], y[:start], items["weight"][:start], items["task"][:start], plan["noise"], phase.name)
        recalled = []
        for draw in plan["draws"]:
            part, slot = slice(start, start + draw["slot"].shape[-1]), draw["slot"]
            kept = {k: memory[k][slot] for k in self.strategy.keeps(self.spec)}
            recalled.append(Recalled(x[part], y[part], items["weight"][part], items["task"][part], slot, kept))
            start = part.stop
        return batch, tuple(recalled)

    def _find(self, memory: Tensors, table: Tensors, uniform: Tensor) -> Tensors:
        """Items recalled by uniform numbers from a memory that the strategy fills."""
        slot = (uniform * memory["count"]).long().clamp_max(self.spec.capacity)
        weight = (memory["count"] > 0).to(self.dtype).expand(slot.shape)
        recalled = {"slot": slot, "index": memory["index"][slot], "task": memory["task"][slot], "weight": weight}
        return recalled | ({"row": table["memory_row"][slot]} if "memory_row" in table else {})


def bound(strategy: Strategy, hyper: Tensors) -> Strategy:
    """The strategy with its float fields replaced by 0-d tensors of one replica."""
    return dataclasses.replace(strategy, **cast(Any, hyper))


def keep(memory: Tensor, slot: Tensor, value: Tensor, row: Tensor | None) -> None:
    """Write what is stored with samples ``(R, B, ...)`` into their slots, or ``(B, ...)`` where ``row`` is None.

    ``row`` is each replica's first row in the flattened memory: one flat index makes this a single write.
    """
    if row is not None:
        memory, value, slot = memory.flatten(0, 1), value.flatten(0, 1), slot + row[:, None]
    memory.index_put_((slot.reshape(-1),), value)


def write(target: Any, source: Any, where: str = "") -> None:
    """Copy a tree into another in place; raise `InputError` if structure, shapes or dtypes differ."""
    if isinstance(target, Mapping):
        if not isinstance(source, Mapping) or target.keys() != source.keys():
            got = sorted(source) if isinstance(source, Mapping) else type(source).__name__
            raise InputError(f"strategy: state{where} must keep its keys {sorted(target)}, it returned {got}")
        for key, value in target.items():
            write(value, source[key], f"{where}.{key}")
    elif target.shape != source.shape or target.dtype != source.dtype:
        raise InputError(
            f"strategy: state{where} must stay {tuple(target.shape)} {target.dtype}, "
            f"it returned {tuple(source.shape)} {source.dtype}"
        )
    elif target is not source:
        target.copy_(source)

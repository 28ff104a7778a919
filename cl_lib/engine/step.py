"""One training step of a population: what is traced.

Recall, gradient, update, then write into memory what the batch answered *before* the update; all results go into the
tensors that were given, so that their addresses never change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn
from torch.utils import _pytree as pytree

from cl_lib.engine.net import FunctionalNet
from cl_lib.engine.optim import Optimiser
from cl_lib.engine.resident import gather
from cl_lib.errors import InputError
from cl_lib.strategies.strategy import Gradient, Phase, Strategy
from cl_lib.types import Batch, Recalled, Spec, State, Tensors


class Step:
    """``step(phase, fixed, plan)``: ``fixed`` holds state, hyper-parameters, tables and status, updated in place.

    Parameters
    ----------
    strategy : Strategy
    module : nn.Module
        The network's structure.
    optimiser : Optimiser
    spec : Spec
    dtype : torch.dtype
    lifted : bool
        Whether tensors carry a replica axis.
    """

    def __init__(
        self,
        strategy: Strategy,
        module: nn.Module,
        optimiser: Optimiser,
        spec: Spec,
        dtype: torch.dtype,
        lifted: bool,
    ) -> None:
        self.strategy, self.module, self.optimiser = strategy, module, optimiser
        self.spec, self.dtype, self.lifted = spec, dtype, lifted

    def probe(self, phase: Phase, fixed: dict[str, Any], plan: dict[str, Any]) -> None:
        """Run an unlifted step once lifted: vmap raises for what a trace would freeze without a word."""
        shared = fixed.pop("shared")
        one = pytree.tree_map(lambda t: t[None], fixed) | {"shared": shared}
        clock = {k: plan.pop(k) for k in ("factor", "step")}
        self(phase, one, pytree.tree_map(lambda t: t[None], plan) | clock, lifted=True)

    def __call__(self, phase: Phase, fixed: dict[str, Any], plan: dict[str, Any], lifted: bool | None = None) -> None:
        """One step in place: recall, update, then write what the batch answered *before* the update."""
        lifted = self.lifted if lifted is None else lifted
        shared, state, hyper = fixed["shared"], State(**fixed["state"]), fixed["hyper"]
        table, status = fixed["table"], fixed["status"]
        follows = type(self.strategy).after_step is not Strategy.after_step

        def one(state: State, hyper: Tensors, table: Tensors, plan: dict[str, Any]) -> tuple[Gradient, Tensors]:
            net = FunctionalNet(self.module, state.buffers, table.get("mask"), training=True)
            batch = self._batch(shared, table, plan, phase.name)
            recalled = tuple(self._recall(shared, table, state.memory, draw) for draw in plan["draws"])
            gradient = bound(self.strategy, hyper).gradient(net, state, batch, recalled)
            return gradient, net.buffers

        def after(old: State, new: State, hyper: Tensors, table: Tensors, plan: Any, gradient: Gradient) -> Any:
            net = FunctionalNet(self.module, new.buffers, table.get("mask"))
            batch = self._batch(shared, table, plan, phase.name)
            return bound(self.strategy, hyper).after_step(net, old, new, batch, gradient)

        each: Any = torch.func.vmap if lifted else (lambda f: f)
        inputs = {k: plan[k] for k in ("batch", "draws", "noise")}
        gradient, buffers = each(one)(state, hyper["strategy"], table, inputs)
        old = state
        if follows:
            old = state._replace(params={k: p.clone() for k, p in state.params.items()})
        grads = gradient.grads
        if phase.trainable is not None:
            grads = {k: g for k, g in grads.items() if k.startswith(phase.trainable)} if phase.trainable else {}
        if grads:
            lr = hyper["optim"]["lr"] * plan["factor"]
            self.optimiser.update_(state.params, grads, state.optimiser, hyper["optim"], lr)
            for name, value in buffers.items():
                state.buffers[name].copy_(value)
        if follows:
            extra = each(after)(old, state, hyper["strategy"], table, inputs, gradient)
            write(state.extra, extra)
        for name, value in gradient.kept.items():
            slot, rows = plan["batch"]["slot"], state.memory[name]
            # one flat row index for all replicas: a plain index_copy, whatever the shape of what is kept
            if lifted:
                slot = slot + table["row"][:, None]
                rows, value = rows.flatten(0, 1), value.flatten(0, 1)
            rows.index_put_((slot.reshape(-1),), value)
        bad = ~torch.isfinite(gradient.loss) & (status["diverged"] < 0)
        status["diverged"].copy_(torch.where(bad, plan["step"], status["diverged"]))
        status["loss"].copy_(gradient.loss)

    def _batch(self, shared: Tensors, table: Tensors, plan: dict[str, Any], phase: str) -> Batch:
        own = plan["batch"]
        x, y = gather(shared, table, own["index"], own["task"], self.dtype)
        return Batch(x, y, own["weight"], own["task"], plan["noise"], phase)

    def _recall(self, shared: Tensors, table: Tensors, memory: Tensors, draw: Tensors) -> Recalled:
        keeps = self.strategy.keeps(self.spec)
        if "uniform" in draw:  # the strategy fills the memory: which sample lies in a slot is known only now
            slot = (draw["uniform"] * memory["count"]).long().clamp_max(self.spec.capacity)
            index, task = memory["index"][slot], memory["task"][slot]
            weight = (memory["count"] > 0).to(self.dtype).expand(slot.shape)
        else:
            slot, index, task, weight = (draw[k] for k in ("slot", "index", "task", "weight"))
        x, y = gather(shared, table, index, task, self.dtype)
        return Recalled(x, y, weight, task, slot, {k: memory[k][slot] for k in keeps})


def bound(strategy: Strategy, hyper: Tensors) -> Strategy:
    """The strategy with its float fields as 0-d tensors of one replica."""
    return dataclasses.replace(strategy, **cast(Any, hyper))


def write(target: Any, source: Any, where: str = "") -> None:
    """Copy a tree into another in place; a strategy must keep structure, shapes and dtypes."""
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

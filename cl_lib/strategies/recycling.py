"""Helpers of strategies that re-initialise unused hidden units."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from cl_lib import noise
from cl_lib.models.layers import layers_of, listen
from cl_lib.types import Batch, Net, Tensors


def hidden(module: nn.Module, params: Tensors) -> list[tuple[str, str]]:
    """Names of pairs of consecutive linear layers, where the first layer's outputs are the second layer's inputs."""
    linear = [(name, layer) for name, layer in layers_of(module) if isinstance(layer, nn.Linear)]
    pairs = [(a, b) for (a, before), (b, after) in pairwise(linear) if before.out_features == after.in_features]
    return [(a, b) for a, b in pairs if {f"{a}.weight", f"{b}.weight"} <= set(params)]


def activity(net: Net, params: Tensors, batch: Batch, pairs: list[tuple[str, str]]) -> Tensors:
    """Mean absolute activation ``(units,)`` of each hidden layer over the batch, by name of the preceding layer."""
    entered: dict[str, list[Tensor]] = {}
    listen(layers_of(net.module), net, params, batch, {}, entered, lambda out: out.raw)
    share = batch.weight / batch.weight.sum().clamp_min(1e-12)
    return {a: share @ entered[b][0].abs() for a, b in pairs}


def recycled(params: Tensors, initial: Tensors, pair: tuple[str, str], chosen: Tensor, key: Tensor) -> Tensors:
    """Re-initialise the units ``chosen`` ``(units,)``, bool.

    Incoming weights are drawn from the layer's initial weights, outgoing weights are 0. The network's output is
    therefore that of the network without these units.
    """
    before, after = pair
    out = dict(params)
    for number, name in enumerate((f"{before}.weight", f"{before}.bias")):
        if name in params:
            old, start = params[name], initial[name].flatten()
            # one random number per unit and one per input: one per weight would cost more than the whole step
            place = _places(key + number, old.shape[:1], start.shape[0]).view(-1, *[1] * (old.ndim - 1))
            place = place + _places(key + 500 + number, old.shape[1:], start.shape[0])
            mask = chosen.view(-1, *[1] * (old.ndim - 1))
            out[name] = torch.where(mask, start[place % start.shape[0]], old)
    out[f"{after}.weight"] = torch.where(chosen, 0.0, params[f"{after}.weight"])
    return out


def _places(key: Tensor, shape: tuple[int, ...], count: int) -> Tensor:
    """Random integers below ``count``."""
    return (noise.uniform(key, shape) * count).long()

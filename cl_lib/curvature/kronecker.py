"""The Fisher information of linear and convolutional layers as Kronecker products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cl_lib.curvature.per_sample import CHUNK, log_probabilities, propagated
from cl_lib.models.layers import layers_of, listen, rows
from cl_lib.types import ExperienceData, Tensors


def kronecker_factors(
    net: Any, params: Tensors, data: ExperienceData, *, samples: int | None = None
) -> dict[str, dict[str, Tensor]]:
    r"""Factors of each layer's Fisher information, :math:`F_W \approx G \otimes A` (Martens & Grosse 2015).

    .. math::
        A = \frac1N \sum_i \bar a_i \bar a_i^\top, \qquad
        G = \frac1N \sum_i \sum_c p_\theta(c \mid x_i)\, e_{ic} e_{ic}^\top, \qquad
        e_{ic} = \frac{\partial \log p_\theta(c \mid x_i)}{\partial s_i}

    with :math:`\bar a` the input of the layer and a 1 for its bias, and s its output. For a convolution A is a sum over
    the patches at all positions and G a mean over positions (Grosse & Martens 2016).

    Parameters
    ----------
    net : Net
    params : dict of Tensor
    data : ExperienceData
    samples : int, optional
        Use the first ``samples`` samples (default: all); the engine passes them shuffled.

    Returns
    -------
    dict of dict of Tensor
        For each layer ``A`` (inputs + 1, inputs + 1) and ``G`` (outputs, outputs), symmetric and positive
        semi-definite. A has the last row and column, those of the 1, also where the layer has no bias.
    """
    layers = [(name, layer) for name, layer in layers_of(net.module) if f"{name}.weight" in params]
    _, left = listen(layers, net, params, data.read(slice(0, 1)), {}, {}, lambda out: out.raw)
    shapes = {name: out.shape[1:] for name, out in left.items()}
    total: dict[str, dict[str, Tensor]] = {}
    parts = data.batches(CHUNK, samples)
    for part in parts:
        batch = data.read(part)
        log_p, pull, entered = propagated(layers, shapes, net, params, batch, log_probabilities)
        for name, layer in layers:
            x = rows(layer, entered[name])
            x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
            factors = total.setdefault(name, {})
            factors["A"] = factors.get("A", 0) + x.mT @ x
        for c in range(log_p.shape[-1]):
            cotangent = torch.zeros_like(log_p[0])
            cotangent = torch.where(torch.arange(log_p.shape[-1], device=log_p.device) == c, 1.0, cotangent)
            (errors,) = pull(cotangent.expand_as(log_p))
            p = log_p[:, c].exp()
            for name, error in errors.items():
                flat = error.flatten(2).transpose(1, 2) if error.ndim == 4 else error[:, None]  # (n, L, outputs)
                weighted = flat * (p / flat.shape[1])[:, None, None]
                factors = total[name]
                factors["G"] = factors.get("G", 0) + weighted.flatten(0, 1).mT @ flat.flatten(0, 1)
    count = sum(p.stop - p.start for p in parts)
    return {name: {k: v / count for k, v in factors.items()} for name, factors in total.items()}

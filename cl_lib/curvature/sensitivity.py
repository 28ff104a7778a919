"""Sensitivity of a network's output to each parameter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cl_lib.curvature.per_sample import mean_over_samples
from cl_lib.types import MASKED, Batch, ExperienceData, NetOutput, Tensors


def output_sensitivity(net: Any, params: Tensors, data: ExperienceData, *, samples: int | None = None) -> Tensors:
    r"""Mean absolute gradient of the squared norm of the logits (Aljundi et al. 2018).

    .. math::
        \Omega_k = \frac1N \sum_i \left| \frac{\partial \lVert f_\theta(x_i) \rVert_2^2}{\partial \theta_k} \right|

    Labels are not used. Classes that may not be predicted for a sample's task do not contribute.

    Parameters
    ----------
    net : Net
    params : dict of Tensor
    data : ExperienceData
    samples : int, optional
        Use the first ``samples`` samples (default: all); the engine passes them shuffled.

    Returns
    -------
    dict of Tensor
        With the shapes of ``params``; values are 0 or more.
    """
    return mean_over_samples(net, params, data, _logits, _norm, torch.abs, samples)


def _logits(out: NetOutput) -> Tensor:
    return out.logits


def _norm(logits: Tensor, batch: Batch, uniform: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(torch.where(logits > MASKED / 10, 2 * logits, 0.0), torch.ones_like(logits[:, 0]))]

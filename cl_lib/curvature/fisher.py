"""The diagonal of the Fisher information, in four variants."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from cl_lib.curvature.per_sample import log_probabilities, mean, mean_over_samples, one_hot
from cl_lib.noise import choose
from cl_lib.types import Batch, ExperienceData, Tensors

Variant = Literal["exact", "sample", "empirical", "batched"]
VARIANTS = ("exact", "sample", "empirical", "batched")


def diagonal_fisher(
    net: Any,
    params: Tensors,
    data: ExperienceData,
    variant: Variant = "exact",
    *,
    samples: int | None = None,
    batch: int = 128,
) -> Tensors:
    r"""Diagonal of the Fisher information of a classifier, averaged over samples (van de Ven 2025).

    .. math::
        \text{exact:}\;     F &= \tfrac1N \sum_i \sum_c p_\theta(c \mid x_i)
            \big(\partial \log p_\theta(c \mid x_i)\big)^2 \\
        \text{sample:}\;    F &= \tfrac1N \sum_i \big(\partial \log p_\theta(\hat y_i \mid x_i)\big)^2,
            \ \hat y_i \sim p_\theta \\
        \text{empirical:}\; F &= \tfrac1N \sum_i \big(\partial \log p_\theta(y_i \mid x_i)\big)^2 \\
        \text{batched:}\;   F &= \tfrac1J \sum_j \Big(\partial \tfrac{1}{|B_j|}
            \sum_{i \in B_j} \log p_\theta(y_i \mid x_i)\Big)^2

    The first three need the gradient of each sample. For linear and convolutional layers its square follows from the
    layer's input and the back-propagated error, so all samples of a chunk share one backward pass; networks with other
    parametrised layers take per-sample gradients by ``vmap``.

    Parameters
    ----------
    net : Net
    params : dict of Tensor
    data : ExperienceData
        The samples; its ``uniform`` numbers determine the labels drawn for ``sample``.
    variant : {"exact", "sample", "empirical", "batched"}
    samples : int, optional
        Use the first ``samples`` samples (default: all); the engine passes them shuffled.
    batch : int, default 128
        :math:`|B_j|` of ``batched``.

    Returns
    -------
    dict of Tensor
        With the shapes of ``params``; values are 0 or more.
    """
    if variant == "batched":
        parts = data.batches(batch, samples)
        return mean((_batch_gradient(net, params, data.read(p)) for p in parts), len(parts))
    targets = partial(_targets, variant)
    return mean_over_samples(net, params, data, log_probabilities, targets, torch.square, samples)


def _batch_gradient(net: Any, params: Tensors, batch: Batch) -> Tensors:
    def average(params: Tensors) -> Tensor:
        return log_probabilities(net(params, batch.x, batch.task, train=False)).gather(-1, batch.y[:, None]).mean()

    return {k: g.square() for k, g in torch.func.grad(average)(params).items()}


def _targets(variant: Variant, log_probs: Tensor, batch: Batch, uniform: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Pairs of cotangent ``(n, C)``, which selects a log-probability of each sample, and weight ``(n,)``."""
    classes, y = log_probs.shape[-1], batch.y
    if variant == "exact":
        eye = torch.eye(classes, dtype=log_probs.dtype, device=log_probs.device)
        p = log_probs.exp()
        return [(eye[c].expand_as(log_probs), p[:, c]) for c in range(classes)]
    if variant == "sample":
        y = choose(log_probs.exp(), uniform)
    return [(one_hot(y, log_probs), torch.ones_like(log_probs[:, 0]))]

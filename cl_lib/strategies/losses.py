"""Losses shared by strategies: weighted means, in which padding has weight 0."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cl_lib.types import Batch, Recalled, Tensors, join


def cross_entropy(logits: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    r"""Weighted mean cross-entropy :math:`\sum_i w_i\,(-\log p_{i, y_i}) / \sum_i w_i`; 0 where all weights are 0.

    Parameters
    ----------
    logits : Tensor
        ``(B, C)``.
    y, weight : Tensor
        ``(B,)``.
    """
    return weighted_mean(negative_log_likelihood(logits, y), weight)


def negative_log_likelihood(logits: Tensor, y: Tensor) -> Tensor:
    r""":math:`-\log p_{i, y_i}` of each sample, ``(B,)``, from logits ``(B, C)``."""
    return -torch.log_softmax(logits, -1).gather(-1, y[:, None]).squeeze(-1)


def log_sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute log σ(x) and log σ(-x) by a softmax over two classes.

    An elementwise sigmoid rounds the last few elements of a tensor differently from the others, so that the last bits
    of a replica would depend on the number of replicas that run with it.
    """
    yes, no = torch.log_softmax(torch.stack([x, torch.zeros_like(x)], -1), -1).unbind(-1)
    return yes, no


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean ``sum(w * v) / sum(w)``; 0 if all weights are 0 (an empty memory)."""
    return (values * weight).sum() / weight.sum().clamp_min(1e-12)


def replayed(net: Any, params: Tensors, batch: Batch, recalled: Recalled) -> Tensor:
    """Loss of experience replay: one cross-entropy over new and recalled samples together."""
    both = join(batch, recalled)
    return cross_entropy(net(params, both.x, both.task).logits, both.y, both.weight)

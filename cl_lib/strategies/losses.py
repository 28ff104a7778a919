"""Losses that strategies share: means over samples that may be padding."""

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
    """log σ(x) and log σ(-x), by a softmax over two: an elementwise sigmoid rounds the last few elements of a tensor
    in another way than the rest, so that a replica's last bits would depend on how many run beside it."""
    yes, no = torch.log_softmax(torch.stack([x, torch.zeros_like(x)], -1), -1).unbind(-1)
    return yes, no


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """``sum(w * v) / sum(w)``, and 0 where every weight is 0 (an empty memory)."""
    return (values * weight).sum() / weight.sum().clamp_min(1e-12)


def replayed(net: Any, params: Tensors, batch: Batch, recalled: Recalled) -> Tensor:
    """Experience replay: one cross-entropy over new and recalled samples together."""
    both = join(batch, recalled)
    return cross_entropy(net(params, both.x, both.task).logits, both.y, both.weight)

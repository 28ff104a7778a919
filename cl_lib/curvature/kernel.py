"""Covariance of a network's outputs under a Gaussian distribution of its weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cl_lib.curvature.algebra import as_rows
from cl_lib.curvature.per_sample import Answer, per_sample_gradients
from cl_lib.types import Batch, Tensors


def kernels(net: Any, params: Tensors, batch: Batch, answer: Answer, deviation: Tensors) -> Tensor:
    r"""Kernel of each class's output, :math:`K_c = J_c \, \mathrm{diag}(\sigma^2) \, J_c^\top` (Khan et al. 2019).

    Parameters
    ----------
    net : Net
    params : dict of Tensor
    batch : Batch
        n samples; only inputs and tasks are used.
    answer : callable
        Maps the network's output to the tensor ``(n, C)`` whose gradients with respect to ``params`` are J.
    deviation : dict of str to Tensor
        σ, the standard deviation of each weight.

    Returns
    -------
    Tensor
        ``(C, n, n)``.

    Examples
    --------
    >>> x, none, w = torch.tensor([[1.0, 0.0], [1.0, 2.0]]), torch.zeros(2, dtype=torch.long), torch.zeros(2, 1)
    >>> linear = lambda params, x, task, train: x @ params["w"]
    >>> batch = Batch(x, none, torch.ones(2), none)
    >>> kernels(linear, {"w": w}, batch, lambda out: out, {"w": torch.ones(2, 1)})  # the inner products
    tensor([[[1., 1.],
             [1., 5.]]])
    """
    outputs = answer(net(params, batch.x, batch.task, train=False))
    blocks = []
    for cotangent in torch.eye(outputs.shape[-1], dtype=outputs.dtype, device=outputs.device).unbind(0):
        grads = per_sample_gradients(net, params, batch, answer, cotangent.expand_as(outputs))
        scaled = as_rows({k: g * deviation[k] for k, g in grads.items()})
        blocks.append(scaled @ scaled.mT)
    return torch.stack(blocks)

"""How a network's answers vary together, when its weights are known up to a Gaussian."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cl_lib.curvature.algebra import as_rows
from cl_lib.types import Tensors


def kernels(
    answers: Callable[[Any, Tensors, Tensor, Tensor], Tensor],
    net: Any,
    params: Tensors,
    x: Tensor,
    task: Tensor,
    deviation: Tensors,
) -> Tensor:
    r"""Kernel of each class's answers, :math:`K_c = J_c \, \mathrm{diag}(\sigma^2) \, J_c^\top` (Khan et al. 2019).

    Parameters
    ----------
    answers : callable
        ``answers(net, params, x, task)`` has ``(n, C)`` numbers; J are their gradients with respect to ``params``.
    x, task : Tensor
        n samples.
    deviation : dict of str to Tensor
        σ, the standard deviation of each weight.

    Returns
    -------
    Tensor
        ``(C, n, n)``.

    Examples
    --------
    >>> linear = lambda net, params, x, task: x @ params["w"]
    >>> x, task, w = torch.tensor([[1.0, 0.0], [1.0, 2.0]]), torch.zeros(2, dtype=torch.long), torch.zeros(2, 1)
    >>> kernels(linear, None, {"w": w}, x, task, {"w": torch.ones(2, 1)})  # of a linear model: the inner products
    tensor([[[1., 1.],
             [1., 5.]]])
    """

    def answer(params: Tensors, x: Tensor, task: Tensor, one: Tensor) -> Tensor:
        return answers(net, params, x[None], task[None])[0] @ one

    classes = answers(net, params, x[:1], task[:1]).shape[-1]
    gradients: Any = torch.func.vmap(torch.func.grad(answer), in_dims=(None, 0, 0, None))
    blocks = []
    for one in torch.eye(classes, dtype=x.dtype, device=x.device).unbind(0):
        found = gradients(params, x, task, one)
        scaled = as_rows({k: g * deviation[k] for k, g in found.items()})
        blocks.append(scaled @ scaled.mT)
    return torch.stack(blocks)

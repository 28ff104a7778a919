"""Linear algebra on trees of parameters, and eigenvalues of symmetric matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from cl_lib.types import Tensors


def inner(a: Tensors, b: Tensors) -> Tensor:
    r"""Inner product :math:`\sum_k a_k b_k` of two trees with the same names, 0-d.

    Examples
    --------
    >>> inner({"w": torch.ones(2, 2)}, {"w": torch.full((2, 2), 3.0)})
    tensor(12.)
    """
    return torch.stack([(a[k] * b[k]).sum() for k in a]).sum()


def quadratic(importance: Tensors, params: Tensors, anchor: Tensors) -> Tensor:
    r"""Weighted squared distance :math:`\sum_k \Omega_k (\theta_k - \theta^*_k)^2`, 0-d.

    Examples
    --------
    >>> quadratic({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 1.0])}, {"w": torch.zeros(2)})
    tensor(11.)
    """
    return torch.stack([(w * (params[k] - anchor[k]).square()).sum() for k, w in importance.items()]).sum()


def as_rows(gradients: Tensors) -> Tensor:
    """Flatten n trees that are stacked on a leading axis to one row each, ``(n, numel of a tree)``.

    Examples
    --------
    >>> as_rows({"w": torch.ones(3, 2, 2), "s": torch.zeros(3)}).shape
    torch.Size([3, 5])
    """
    return torch.cat([g.flatten(1) if g.ndim > 1 else g[:, None] for g in gradients.values()], 1)


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``(..., n)``, ascending, and eigenvectors ``(..., n, n)`` in columns, of symmetric matrices.

    Computed in float64: in float32 the solver that torch calls fails for some matrices of low rank, such as those of a
    layer with dead units. For a matrix that is not finite (a diverged replica) the eigenvalues are NaN; an exception
    would also stop the other replicas.

    Examples
    --------
    >>> values, vectors = eigh(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    >>> values
    tensor([1., 3.])
    """
    finite = matrix.isfinite().all(-1).all(-1)
    values, vectors = torch.linalg.eigh(torch.where(finite[..., None, None], matrix, 0.0).double())
    return torch.where(finite[..., None], values, torch.nan).to(matrix.dtype), vectors.to(matrix.dtype)

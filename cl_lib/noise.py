"""Random numbers as a function of a key: the same whoever runs beside, inside a lift and a trace."""

from __future__ import annotations

import torch
from torch import Tensor

MIX = -7046029254386353131, -4658895280553007687, -7723592293110705685
"""The increment and the two multipliers of splitmix64 (Steele et al. 2014), as signed integers."""


def uniform(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Independent numbers uniform in [0, 1): splitmix64 counted up from the key.

    Parameters
    ----------
    key : Tensor
        0-d int64; each key gives numbers of its own.
    shape : tuple of int
    dtype : torch.dtype, default float32

    Examples
    --------
    >>> x = uniform(torch.tensor(7), (1000,))
    >>> round(x.mean().item(), 2), round(x.var().item(), 3)  # 1/2 and 1/12
    (0.51, 0.085)
    """
    count = torch.arange(torch.Size(shape).numel(), device=key.device)
    z = (_scrambled(key * MIX[0]) + (count + 1) * MIX[0]).view(shape)
    return (_scrambled(z) >> 40 & 0xFFFFFF).to(dtype) / 2**24


def choose(weight: Tensor, number: Tensor) -> Tensor:
    """Index in proportion to weights, by inverting their cumulative sum at a uniform number.

    Parameters
    ----------
    weight : Tensor
        ``(..., n)``, 0 or more; where all are 0 the last is chosen.
    number : Tensor
        ``(...)`` uniform in [0, 1).

    Examples
    --------
    >>> choose(torch.tensor([1.0, 0.0, 3.0]).expand(2, 3), torch.tensor([0.1, 0.3]))
    tensor([0, 2])
    """
    total = weight.cumsum(-1)
    return (number[..., None] * total[..., -1:] >= total).sum(-1).clamp_max(weight.shape[-1] - 1)


def _scrambled(z: Tensor) -> Tensor:
    """A bijection of 64 bits whose every output bit depends on every input bit; shifts are of unsigned numbers."""
    z = (z ^ (z >> 30 & (1 << 34) - 1)) * MIX[1]
    z = (z ^ (z >> 27 & (1 << 37) - 1)) * MIX[2]
    return z ^ (z >> 31 & (1 << 33) - 1)

"""Random numbers as functions of a key (independent of the other replicas, of vmap and of tracing) or of a seed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

MIX = -7046029254386353131, -4658895280553007687, -7723592293110705685
"""The increment and the two multipliers of splitmix64 (Steele et al. 2014), as signed integers."""


def uniform(key: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Independent numbers, uniform in [0, 1): splitmix64 of a counter that starts at the key.

    Parameters
    ----------
    key : Tensor
        0-d int64; different keys give different numbers.
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
    """Draw an index with probability proportional to its weight, by inverting the cumulative sum at a uniform number.

    Parameters
    ----------
    weight : Tensor
        ``(..., n)``, 0 or more; where all weights are 0 the last index is chosen.
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
    """Bijection of 64-bit integers in which every output bit depends on every input bit; the shifts are unsigned."""
    z = (z ^ (z >> 30 & (1 << 34) - 1)) * MIX[1]
    z = (z ^ (z >> 27 & (1 << 37) - 1)) * MIX[2]
    return z ^ (z >> 31 & (1 << 33) - 1)


class SeededRandom(TorchDispatchMode):
    """Context in which torch's random operations of this thread draw from a generator with the given seed.

    The numbers are those that ``torch.manual_seed(seed)`` would give. Torch's global generators are neither read nor
    changed, so other threads cannot interfere.

    Examples
    --------
    >>> with SeededRandom(3):
    ...     seeded = torch.rand(2)
    >>> _ = torch.manual_seed(3)
    >>> torch.equal(seeded, torch.rand(2))
    True
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.generators: dict[torch.device, torch.Generator] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded in func.tags and kwargs.get("generator") is None:
            device = next((a.device for a in args if isinstance(a, Tensor)), None)
            device = torch.device(kwargs.get("device") or device or "cpu")
            func = func if _takes_generator(func) else _with_generator(func)
            if device.type != "meta" and func is not None and _takes_generator(func):
                kwargs["generator"] = self._generator(device)
        return func(*args, **kwargs)

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self.generators:
            self.generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self.generators[device]


def _takes_generator(func: Any) -> bool:
    return any(argument.name == "generator" for argument in func._schema.arguments)


def _with_generator(func: Any) -> Any:
    """The overload that also takes a generator (``rand.generator`` for ``rand.default``), or else the operation."""
    names = [argument.name for argument in func._schema.arguments]
    packet = func.overloadpacket
    for overload in (getattr(packet, name) for name in packet.overloads()):
        taken = [argument.name for argument in overload._schema.arguments]
        if "generator" in taken and [name for name in taken if name != "generator"] == names:
            return overload
    return func

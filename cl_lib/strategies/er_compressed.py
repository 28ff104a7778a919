"""Replay of quantised inputs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from cl_lib.memory.store import Memory
from cl_lib.strategies.losses import replayed
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, KeptSpec, Net, Recalled, Shape, Spec, State, Tensors
from cl_lib.validation import check_choice

BITS = (1, 2, 4, 8)


@dataclass(frozen=True)
class CompressedER(Strategy):
    r"""Experience replay from a quantised memory (as in Hayes et al. 2020, "REMIND Your Neural Network to Prevent
    Catastrophic Forgetting").

    For a sample x the memory stores codes q of b bits and the range of x; the decoded inputs are replayed:

    .. math::
        q_i = \Big\lfloor (2^b - 1)\,\frac{x_i - \min x}{\max x - \min x} + \tfrac12 \Big\rfloor, \qquad
        \hat x_i = \min x + \frac{q_i}{2^b - 1} (\max x - \min x)

    so that the same number of bytes stores 8 / b times as many samples as with one byte per value.

    Parameters
    ----------
    memory : Memory
        Default: reservoir of 1000, 10 recalled per step.
    bits : {1, 2, 4, 8}, default 4
        b. A sample of D values takes ``ceil(D b / 8)`` bytes and two numbers for its range.

    Raises
    ------
    InputError
        By ``check``: a number of bits that is not supported, an invalid memory.

    Notes
    -----
    Cost: the step of `ER`, and packing and unpacking of bits. Memory: codes of ``capacity`` samples. The quantised
    inputs are those of the network, after transform and normalisation.

    Differences from the paper: uniform quantisation of the inputs instead of a pre-trained product quantiser of
    features.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, CompressedER(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    keeps_inputs: ClassVar[bool] = False
    memory: Memory = field(default_factory=lambda: Memory(capacity=1000))
    bits: int = 4

    def check(self, spec: Spec) -> None:
        super().check(spec)
        check_choice("strategy.bits", self.bits, BITS)

    def keeps(self, spec: Spec) -> dict[str, Shape | KeptSpec]:
        numbers = torch.Size(spec.shape).numel()
        return {"code": KeptSpec((-(-numbers * self.bits // 8),), torch.uint8), "range": (2,)}

    def loss(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> tuple[Tensor, Tensors]:
        (old,) = recalled
        code, ends = packed(batch.x, self.bits)
        decoded = replace(old, x=unpacked(old.kept["code"], old.kept["range"], self.bits, old.x))
        return replayed(net, state.params, batch, decoded), {"code": code, "range": ends}


def packed(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Encode inputs ``(B, *shape)`` as bytes ``(B, ceil(D * bits / 8))`` and ranges ``(B, 2)``.

    Examples
    --------
    >>> code, ends = packed(torch.tensor([[0.0, 0.2, 1.0]]), 4)
    >>> code.tolist(), ends.tolist()
    ([[48, 15]], [[0.0, 1.0]])
    """
    flat = x.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    step = (high - low).clamp_min(1e-30) / (2**bits - 1)
    number = ((flat - low) / step).round()
    per_byte = 8 // bits
    number = torch.nn.functional.pad(number, (0, -number.shape[1] % per_byte))
    places = 2 ** (bits * torch.arange(per_byte, device=x.device))
    return (number.view(len(x), -1, per_byte) * places).sum(-1).to(torch.uint8), torch.cat([low, high], 1)


def unpacked(code: Tensor, ends: Tensor, bits: int, like: Tensor) -> Tensor:
    """Decode codes and ranges to inputs with the shape of ``like`` (B, *shape).

    Examples
    --------
    >>> unpacked(*packed(torch.tensor([[0.0, 0.2, 1.0]]), 4), 4, torch.zeros(1, 3))
    tensor([[0.0000, 0.2000, 1.0000]])
    """
    places = bits * torch.arange(8 // bits, device=code.device)
    number = (code.long()[..., None] >> places & 2**bits - 1).flatten(1)[:, : like[0].numel()].to(like.dtype)
    low, high = ends[:, :1], ends[:, 1:]
    return (low + number * ((high - low) / (2**bits - 1))).view_as(like)

"""Replay of inputs that are kept in a few bits a number."""

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

    What is kept of a sample x are codes of b bits and the ends of its range; replayed is what they stand for:

    .. math::
        q_i = \Big\lfloor (2^b - 1)\,\frac{x_i - \min x}{\max x - \min x} + \tfrac12 \Big\rfloor, \qquad
        \hat x_i = \min x + \frac{q_i}{2^b - 1} (\max x - \min x)

    so that the same bytes hold 8 / b as many samples as with one byte a number.

    Parameters
    ----------
    memory : Memory
        Default: reservoir of 1000, 10 recalled a step.
    bits : {1, 2, 4, 8}, default 4
        b. A sample of D numbers takes ``ceil(D b / 8)`` bytes and its range two numbers more.

    Raises
    ------
    InputError
        By ``check``: other bits, a memory that cannot work.

    Notes
    -----
    Cost: the step of `ER`, and packing and unpacking of bits. Memory: ``capacity`` samples in codes; inputs as they are
    given to the network, so transformed and normalised, are what is coded.

    Differences from the paper: a uniform code of the inputs, not a product quantiser of features that is trained
    before.

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
        again = replace(old, x=unpacked(old.kept["code"], old.kept["range"], self.bits, old.x))
        return replayed(net, state.params, batch, again), {"code": code, "range": ends}


def packed(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Bytes ``(B, ceil(D * bits / 8))`` and ranges ``(B, 2)`` of inputs ``(B, *shape)``.

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
    """Inputs of the shape of ``like`` (B, *shape) that codes and ranges stand for.

    Examples
    --------
    >>> unpacked(*packed(torch.tensor([[0.0, 0.2, 1.0]]), 4), 4, torch.zeros(1, 3))
    tensor([[0.0000, 0.2000, 1.0000]])
    """
    places = bits * torch.arange(8 // bits, device=code.device)
    number = (code.long()[..., None] >> places & 2**bits - 1).flatten(1)[:, : like[0].numel()].to(like.dtype)
    low, high = ends[:, :1], ends[:, 1:]
    return (low + number * ((high - low) / (2**bits - 1))).view_as(like)

"""Optimisers as functions on stacked parameters, equal to ``torch.optim``; every float may differ between replicas.

They update in place and outside the vectorised function: out-of-place updates take 1.5 times as long at ten replicas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from cl_lib.errors import InputError
from cl_lib.types import Tensors
from cl_lib.validation import check_choice, is_number


@dataclass(frozen=True)
class Schedule:
    """Learning-rate schedule: a factor on the learning rate for each step.

    Parameters
    ----------
    kind : {"constant", "exponential", "cosine", "step"}
        ``exponential``: ``decay**t``; ``cosine``: from 1 to ``final`` over the span; ``step``: ``decay`` at each of
        ``milestones`` (fractions of the span).
    decay : float, default 0.1
    final : float, default 0
    milestones : tuple of float
    span : {"run", "experience"}
        Whether ``t`` counts from the start of the run or of the experience.

    Examples
    --------
    >>> [round(f, 3) for f in Schedule("cosine").factors(0, 4, 4)]
    [1.0, 0.854, 0.5, 0.146]
    """

    kind: Literal["constant", "exponential", "cosine", "step"] = "constant"
    decay: float = 0.1
    final: float = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    span: Literal["run", "experience"] = "run"

    def check(self) -> None:
        """Raise `InputError` for an unknown kind or span."""
        check_choice("optim.schedule.kind", self.kind, ("constant", "exponential", "cosine", "step"))
        check_choice("optim.schedule.span", self.span, ("run", "experience"))
        for name, number in (("decay", self.decay), ("final", self.final)):
            if not is_number(number) or not 0 <= number < math.inf:
                raise InputError(f"optim.schedule.{name}={number!r}: must be a number, 0 or more")
        if list(self.milestones) != sorted(self.milestones) or not all(0 <= m <= 1 for m in self.milestones):
            raise InputError(
                f"optim.schedule.milestones={list(self.milestones)}: must be sorted fractions of the span, from 0 to 1"
            )

    def factors(self, start: int, count: int, total: int) -> list[float]:
        """Factors of steps ``start`` to ``start + count - 1`` of a span of ``total`` steps."""
        return [self._factor(t, total) for t in range(start, start + count)]

    def _factor(self, t: int, total: int) -> float:
        match self.kind:
            case "exponential":
                return self.decay**t
            case "cosine":
                return self.final + (1 - self.final) * (1 + math.cos(math.pi * t / max(total, 1))) / 2
            case "step":
                return self.decay ** sum(t >= m * total for m in self.milestones)
        return 1.0


class Optimiser(Protocol):
    """Protocol of optimisers: their fields are the hyper-parameters."""

    @property
    def schedule(self) -> Schedule: ...

    def check(self) -> None: ...

    def init(self, params: Tensors, hyper: Tensors) -> dict[str, Any]: ...

    def update_(self, params: Tensors, grads: Tensors, state: dict[str, Any], hyper: Tensors, lr: Tensor) -> None: ...


def _check(optimiser: Any, ranges: dict[str, tuple[float, float]]) -> None:
    for name, (low, high) in ranges.items():
        value = getattr(optimiser, name)
        if not is_number(value) or not low <= value < high:
            raise InputError(f"optim.{name}={value!r}: must be a number, {low:g} or more" + f" and below {high:g}")
    limit = optimiser.clip_norm
    if limit is not None and (not is_number(limit) or not limit > 0):
        raise InputError(f"optim.clip_norm={optimiser.clip_norm!r}: must be above 0, or null for no clipping")
    optimiser.schedule.check()


def _as(h: Tensor, like: Tensor) -> Tensor:
    """A per-replica number, reshaped to multiply a stacked tensor; 0-d for a single replica."""
    return h.reshape(h.shape + (1,) * (like.ndim - h.ndim)) if h.ndim else h


def _clip(grads: Tensors, hyper: Tensors) -> Tensors:
    """Scale each replica's gradient to a norm of at most ``clip_norm`` (as ``torch.nn.utils.clip_grad_norm_``)."""
    if "clip_norm" not in hyper:
        return grads
    limit = hyper["clip_norm"]
    squares = [g.square().reshape(*limit.shape, -1).sum(-1) for g in grads.values()]
    total = squares[0]
    for square in squares[1:]:  # sequentially, since the sum over a stack would depend on the number of replicas
        total = total + square
    norm = total.sqrt()
    scale = (limit / (norm + 1e-6)).clamp_max(1.0)
    return {k: g * _as(scale, g) for k, g in grads.items()}


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent, equal to ``torch.optim.SGD``.

    Parameters
    ----------
    lr : float, default 0.1
    momentum, weight_decay : float, default 0
    nesterov : bool, default False
    clip_norm : float, optional
        Largest norm of a replica's gradient.
    schedule : Schedule

    Raises
    ------
    InputError
        By ``check``: a negative number, or Nesterov without momentum.
    """

    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    clip_norm: float | None = None
    schedule: Schedule = field(default_factory=Schedule)

    def check(self) -> None:
        """Raise `InputError` for values out of range."""
        _check(self, {"lr": (0, math.inf), "momentum": (0, 1), "weight_decay": (0, math.inf)})
        if self.nesterov and not self.momentum:
            raise InputError("optim.nesterov=true: needs optim.momentum above 0")

    def init(self, params: Tensors, hyper: Tensors) -> dict[str, Any]:
        """Optimiser state: the momentum buffers, if any replica has momentum."""
        return {"momentum": {k: torch.zeros_like(p) for k, p in params.items()}} if "momentum" in hyper else {}

    def update_(self, params: Tensors, grads: Tensors, state: dict[str, Any], hyper: Tensors, lr: Tensor) -> None:
        """Update the parameters and the optimiser state in place."""
        for k, g in _clip(grads, hyper).items():
            p = params[k]
            if "weight_decay" in hyper:
                g = torch.addcmul(g, p, _as(hyper["weight_decay"], p))
            if "momentum" in hyper:
                # torch initialises the buffer with the first gradient, which equals decaying a buffer of zeros
                v, m = state["momentum"][k], _as(hyper["momentum"], p)
                v.mul_(m).add_(g)
                g = torch.addcmul(g, v, m) if self.nesterov else v
            p.addcmul_(g, _as(lr, p), value=-1)


@dataclass(frozen=True)
class Adam:
    """Adam, equal to ``torch.optim.Adam``, or ``torch.optim.AdamW`` with ``decoupled=True``.

    Parameters
    ----------
    lr : float, default 1e-3
    beta1, beta2 : float, default 0.9, 0.999
    eps : float, default 1e-8
    weight_decay : float, default 0
        Added to the gradient or, if decoupled, subtracted from the parameters.
    decoupled : bool, default False
    clip_norm : float, optional
    schedule : Schedule
    """

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False
    clip_norm: float | None = None
    schedule: Schedule = field(default_factory=Schedule)

    def check(self) -> None:
        """Raise `InputError` for values out of range."""
        infinite, unit = (0, math.inf), (0, 1)
        _check(self, {"lr": infinite, "beta1": unit, "beta2": unit, "eps": infinite, "weight_decay": infinite})

    def init(self, params: Tensors, hyper: Tensors) -> dict[str, Any]:
        """Optimiser state: the powers of the two betas, and the moments."""
        zeros = {k: torch.zeros_like(p) for k, p in params.items()}
        ones = torch.ones_like(hyper["lr"])
        powers = {"power1": ones, "power2": ones.clone()}
        return powers | {"mean": zeros, "square": {k: z.clone() for k, z in zeros.items()}}

    def update_(self, params: Tensors, grads: Tensors, state: dict[str, Any], hyper: Tensors, lr: Tensor) -> None:
        """Update the parameters and the optimiser state in place."""
        beta1, beta2 = hyper["beta1"], hyper["beta2"]
        # products instead of pow, whose last bit depends on the number of replicas
        power1, power2 = state["power1"].mul_(beta1), state["power2"].mul_(beta2)
        rate, root = lr / (1 - power1), (1 - power2).sqrt()
        for k, g in _clip(grads, hyper).items():
            p, mean, square = params[k], state["mean"][k], state["square"][k]
            if "weight_decay" in hyper:
                decay = _as(hyper["weight_decay"], p)
                if self.decoupled:
                    p.mul_(1 - _as(lr, p) * decay)
                else:
                    g = torch.addcmul(g, p, decay)
            mean.lerp_(g, _as(1 - beta1, p).expand_as(p))
            square.mul_(_as(beta2, p)).addcmul_(g * g, _as(1 - beta2, p))
            p.addcmul_(mean / ((square.sqrt() / _as(root, p)).add_(_as(hyper["eps"], p))), _as(rate, p), value=-1)

"""Bias correction of the newest classes' logits, fitted at the end of an experience."""

from __future__ import annotations

import torch
from torch import Tensor

from cl_lib import noise


def fit_bias(
    logits: Tensor, y: Tensor, weight: Tensor, newest: Tensor, key: Tensor, *, epochs: int, batch: int, lr: float
) -> tuple[Tensor, Tensor]:
    r"""Fit scale a and shift b of the newest classes' logits by gradient descent on the cross-entropy from a = b = 0.

    .. math::
        \hat f_c = (1 + a) f_c + b \ \text{ for the newest classes, else } f_c

    Parameters
    ----------
    logits : Tensor
        ``(N, C)``.
    y, weight : Tensor
        ``(N,)``; samples of weight 0 are ignored.
    newest : Tensor
        ``(C,)`` bool.
    key : Tensor
        0-d int64, for the order of the samples in each epoch.
    epochs, batch : int
    lr : float

    Returns
    -------
    a, b : Tensor
        0-d.

    Examples
    --------
    >>> f = torch.tensor([[0.0, 2.0], [0.0, 2.0]])  # overconfident in class 1, which is right half the time
    >>> a, b = fit_bias(f, torch.tensor([0, 1]), torch.ones(2), torch.tensor([False, True]), torch.tensor(0),
    ...                 epochs=200, batch=2, lr=0.1)
    >>> round(float((1 + a) * 2 + b), 3)
    0.0
    """
    scale = shift = torch.zeros_like(logits[0, 0])
    classes = torch.arange(logits.shape[-1], device=logits.device)
    for epoch in range(epochs):
        order = noise.uniform(key + epoch, y.shape).argsort()
        for part in order.split(batch):
            f, weights = logits[part], weight[part]
            error = torch.softmax(corrected(f, scale, shift, newest), -1) - (y[part, None] == classes).to(f.dtype)
            share = torch.where(newest, error, 0.0) * weights[:, None] / weights.sum().clamp_min(1e-12)
            scale, shift = scale - lr * (share * f).sum(), shift - lr * share.sum()
    return scale, shift


def corrected(logits: Tensor, scale: Tensor, shift: Tensor, newest: Tensor) -> Tensor:
    """Logits ``(N, C)`` with those of the newest classes scaled and shifted."""
    return torch.where(newest, (1 + scale) * logits + shift, logits)

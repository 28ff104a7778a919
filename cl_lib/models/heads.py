"""Output layers of networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cl_lib.errors import InputError


class CosineHead(nn.Module):
    r"""Cosine of features and class vectors, times a learnt scale: :math:`s\,\cos(z, w_c)` (Hou et al. 2019, LUCIR).

    Parameters
    ----------
    features, classes : int
    scale : float, default 10
        Initial value of the learnt scale.
    """

    def __init__(self, features: int, classes: int, scale: float = 10.0) -> None:
        super().__init__()
        self.start = scale
        self.weight = nn.Parameter(torch.empty(classes, features))
        self.scale = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Re-initialise the parameters."""
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        nn.init.constant_(self.scale, self.start)

    def forward(self, z: Tensor) -> Tensor:
        """Logits ``(N, classes)`` of features ``(N, F)``."""
        return self.scale * nn.functional.normalize(z, dim=-1) @ nn.functional.normalize(self.weight, dim=-1).mT


def make_head(kind: str, features: int, classes: int) -> nn.Module:
    """Make a head by name.

    ``multi`` is a linear head with an output for every class: on task-incremental streams only the classes of the
    sample's experience are predicted (``train_classes`` and ``eval_classes`` = ``experience``), so no head has to be
    added or selected.

    Examples
    --------
    >>> make_head("multi", 100, 10)
    Linear(in_features=100, out_features=10, bias=True)
    """
    match kind:
        case "linear" | "multi":
            return nn.Linear(features, classes)
        case "cosine":
            return CosineHead(features, classes)
    raise InputError(f"model.head={kind!r}: must be one of linear, multi, cosine")

"""Multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from cl_lib.models.heads import make_head
from cl_lib.types import Shape
from cl_lib.validation import check_choice, check_whole


class MLP(nn.Module):
    """Fully connected layers with ReLU, then a head.

    Parameters
    ----------
    shape : tuple of int
        Shape of a sample; inputs are flattened.
    classes : int
        Width of the head.
    hidden : sequence of int, default (100, 100)
    init : {"xavier", "torch"}, default "xavier"
        Glorot-uniform weights with zero biases, as in the published protocols, or PyTorch's default initialisation.
    head : {"linear", "multi", "cosine"}, default "linear"

    Examples
    --------
    >>> sum(p.numel() for p in MLP((1, 28, 28), 10, hidden=(256, 256)).parameters())
    269322
    """

    def __init__(
        self,
        shape: Shape,
        classes: int,
        hidden: Sequence[int] = (100, 100),
        init: Literal["xavier", "torch"] = "xavier",
        head: str = "linear",
    ) -> None:
        super().__init__()
        for i, width in enumerate(hidden):
            check_whole(f"model.hidden[{i}]", width, 1)
        check_choice("model.init", init, ("xavier", "torch"))
        widths = [torch.Size(shape).numel(), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for entering, leaving in pairwise(widths):
            layers += [nn.Linear(entering, leaving), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = make_head(head, widths[-1], classes)
        if init == "xavier":
            for layer in self.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, classes)`` of inputs ``(N, *shape)``."""
        return self.head(self.body(x))

    @classmethod
    def factory(cls, **options: object) -> partial[MLP]:
        """Bind the options of the class; the result is called with shape and classes, and is a ``model`` of `run`."""
        return partial(cls, **options)  # type: ignore[arg-type]

"""A small convolutional network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from cl_lib.errors import InputError
from cl_lib.models.heads import make_head
from cl_lib.types import Shape


class ConvNet(nn.Module):
    """3x3 convolutions with ReLU and 2x2 max-pooling, then one hidden layer and a head.

    Parameters
    ----------
    shape : tuple of int
        (channels, height, width) of a sample.
    classes : int
    channels : sequence of int, default (16, 32)
        Output channels of each convolution; each convolution is followed by pooling that halves height and width.
    hidden : int, default 64
    head : {"linear", "multi", "cosine"}, default "linear"

    Examples
    --------
    >>> sum(p.numel() for p in ConvNet((1, 28, 28), 10).parameters())
    105866
    """

    def __init__(
        self,
        shape: Shape,
        classes: int,
        channels: Sequence[int] = (16, 32),
        hidden: int = 64,
        head: str = "linear",
    ) -> None:
        super().__init__()
        if len(shape) != 3:
            raise InputError(f"model=convnet: needs images of shape (C, H, W), this stream has {tuple(shape)}")
        side, layers, entering = min(shape[1:]), [], shape[0]
        if side >> len(channels) < 1:
            raise InputError(
                f"model.channels={list(channels)}: must be fewer, each halves the {shape[1]}x{shape[2]} images"
            )
        for leaving in channels:
            layers += [nn.Conv2d(entering, leaving, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            entering = leaving
        height, width = shape[1] >> len(channels), shape[2] >> len(channels)
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(entering * height * width, hidden), nn.ReLU())
        self.head = make_head(head, hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, classes)`` of images ``(N, C, H, W)``."""
        return self.head(self.body(x))

    @classmethod
    def factory(cls, **options: object) -> partial[ConvNet]:
        """Bind the options of the class; the result is called with shape and classes."""
        return partial(cls, **options)  # type: ignore[arg-type]

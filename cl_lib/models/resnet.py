"""Slim ResNet-18: the reduced ResNet of the continual-learning literature."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from cl_lib.errors import InputError
from cl_lib.models.heads import make_head
from cl_lib.types import Shape

Norm = Literal["group", "batch"]


def _norm(kind: Norm, channels: int) -> nn.Module:
    return nn.GroupNorm(min(4, channels), channels) if kind == "group" else nn.BatchNorm2d(channels)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, entering: int, leaving: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(entering, leaving, 3, stride, 1, bias=False),
            _norm(norm, leaving),
            nn.ReLU(),
            nn.Conv2d(leaving, leaving, 3, 1, 1, bias=False),
            _norm(norm, leaving),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or entering != leaving:
            self.shortcut = nn.Sequential(nn.Conv2d(entering, leaving, 1, stride, bias=False), _norm(norm, leaving))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class SlimResNet18(nn.Module):
    """ResNet-18 with a third of the width (Lopez-Paz & Ranzato 2017).

    Parameters
    ----------
    shape : tuple of int
        (channels, height, width) of a sample.
    classes : int
    width : int, default 20
        Channels of the first of four stages, doubled in each further stage; a multiple of 4 for ``norm="group"``.
    norm : {"group", "batch"}, default "group"
        GroupNorm (4 groups) normalises each sample separately; BatchNorm is the published variant, and its batches are
        not padded.
    head : {"linear", "multi", "cosine"}, default "linear"

    Examples
    --------
    >>> sum(p.numel() for p in SlimResNet18((3, 32, 32), 100).parameters())
    1109240
    """

    def __init__(self, shape: Shape, classes: int, width: int = 20, norm: Norm = "group", head: str = "linear") -> None:
        super().__init__()
        if len(shape) != 3:
            raise InputError(f"model=slim_resnet18: needs images of shape (C, H, W), this stream has {tuple(shape)}")
        if norm not in ("group", "batch"):
            raise InputError(f"model.norm={norm!r}: must be group or batch")
        if width < 1 or (norm == "group" and width % 4):
            raise InputError(f"model.width={width}: must be 1 or more, and a multiple of 4 with norm=group")
        stem = [nn.Conv2d(shape[0], width, 3, 1, 1, bias=False), _norm(norm, width), nn.ReLU()]
        blocks, entering = [], width
        for stage in range(4):
            for number in range(2):
                leaving = width << stage
                blocks.append(Block(entering, leaving, 2 if stage and not number else 1, norm))
                entering = leaving
        self.body = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = make_head(head, entering, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, classes)`` of images ``(N, C, H, W)``."""
        return self.head(self.body(x))

    @classmethod
    def factory(cls, **options: object) -> partial[SlimResNet18]:
        """Bind the options of the class; the result is called with shape and classes."""
        return partial(cls, **options)  # type: ignore[arg-type]

"""Precision of float32 matrix products and convolutions on CUDA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch


@contextmanager
def products(precision: Literal["ieee", "tf32"], device: torch.device) -> Iterator[None]:
    """Set whether CUDA rounds the inputs of float32 products; by default torch does for convolutions, not for matrices.

    Examples
    --------
    >>> with products("tf32", torch.device("cuda")):
    ...     torch.backends.cuda.matmul.fp32_precision
    'tf32'
    """
    if device.type != "cuda":
        yield
        return
    backends: Any = torch.backends
    kinds = backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn
    before = [kind.fp32_precision for kind in kinds]
    for kind in kinds:
        kind.fp32_precision = precision
    try:
        yield
    finally:
        for kind, value in zip(kinds, before, strict=True):
            kind.fp32_precision = value

"""Random guessing: chance level."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Net, Phase, Spec, State, Tensors

TINY = 1e-4


@dataclass(frozen=True)
class RandomGuess(Strategy):
    r"""Learn nothing and predict all classes with equal probability; the predicted class is arbitrary.

    .. math:: p(c \mid x) \propto e^{\epsilon\, (x^\top A)_c}, \qquad \epsilon = 10^{-4}

    with a fixed random matrix A, whose small terms only break ties. Accuracy is at chance level, the confidence 1 / C
    and the NLL log C.

    Cost: none; no memory.

    Differences from the paper: none; a reference point.

    Raises
    ------
    InputError
        Never; the strategy has no parameters.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits(), eval_classes="all")
    >>> record = cl_lib.run(stream, RandomGuess(), seeds=2)
    >>> round(record.metrics["nll"].mean, 2)  # log 10
    2.3
    """

    skips: ClassVar[dict[str, str]] = {
        "beats_chance": "it is chance",
        "seeds_differ": "its matrix is the same for all seeds",
    }

    def phases(self, experience: int, spec: Spec) -> tuple[Phase, ...]:
        return ()

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        like = next(iter(params.values()))
        size = torch.Size(spec.shape).numel()
        matrix = np.random.default_rng(0).standard_normal((size, spec.classes)) / size**0.5
        return {"matrix": torch.as_tensor(matrix, dtype=like.dtype, device=like.device)}

    def logits(self, net: Net, state: State, readout: Tensors, x: Tensor, task: Tensor) -> Tensor:
        return TINY * (x.flatten(1) @ state.extra["matrix"])

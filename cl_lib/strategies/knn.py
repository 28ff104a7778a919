"""Replay, with predictions by the nearest neighbours in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cl_lib.strategies.bounds import above, at_least
from cl_lib.strategies.episodic import FAR, AnswersFromMemory, votes
from cl_lib.types import NetOutput, Spec, Tensors


@dataclass(frozen=True)
class KNN(AnswersFromMemory):
    r"""k nearest neighbours in an episodic memory (Khandelwal et al. 2020, "Generalization through Memorization").

    Trained as experience replay. The prediction for a test sample is a vote of the k samples in memory with the most
    similar features,

    .. math::
        p(c \mid x) \propto \sum_{j \in N_k(x)} [y_j = c]\, \exp\big(\cos(z(x), z(x_j)) / T\big)

    Parameters
    ----------
    memory : Memory
        Default: class-balanced, 500, 10 recalled per step.
    k : int, default 10
        Number of neighbours that vote, 1 or more; the whole memory if it holds fewer samples.
    temperature : float, default 0.1
        T above 0. May differ by replica.

    Raises
    ------
    InputError
        By ``check``: k below 1, a capacity below 1, a temperature that is not above 0.

    Notes
    -----
    Cost: the step of `ER`; before an evaluation the features of the memory, and for a test sample one product with all
    of them (exact, on the device). Memory: ``capacity`` samples.

    Differences from the paper: a classifier, not a language model; the neighbours' vote is not mixed with the network's
    prediction; no class has a probability below 1e-6. With an empty memory predictions are the network's logits.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, KNN(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    k: int = 10
    temperature: float = 0.1

    def check(self, spec: Spec) -> None:
        super().check(spec)
        at_least(self, 1, "k")
        above(self, 0, "temperature")

    def answer(self, out: NetOutput, readout: Tensors) -> Tensor:
        cosine = normalize(out.features, dim=-1) @ readout["keys"].mT
        near = torch.where(readout["valid"] > 0, cosine, FAR).topk(min(self.k, cosine.shape[1]))
        label = readout["label"][near.indices]
        weight = torch.softmax(near.values / self.temperature, -1)
        return votes(weight, label, out.raw.shape[-1])

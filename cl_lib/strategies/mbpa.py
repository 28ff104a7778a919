"""Memory-based parameter adaptation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cl_lib.strategies.bounds import above, at_least
from cl_lib.strategies.episodic import FAR, AnswersFromMemory
from cl_lib.types import NetOutput, Spec, Tensors


@dataclass(frozen=True)
class MbPA(AnswersFromMemory):
    r"""MbPA (Sprechmann et al. 2018, "Memory-based Parameter Adaptation").

    Trained as experience replay. For each test sample the head's weights W are adapted to its k nearest neighbours in
    memory by a few steps of gradient descent from the trained weights :math:`W_0`; the adapted weights are used for
    this sample only:

    .. math::
        W \leftarrow W - \eta\, \nabla_W \Big( \sum_{j \in N_k(x)} w_j\,\big(-\log p_W(y_j \mid z_j)\big)
        + \lambda \lVert W - W_0 \rVert_2^2 \Big), \qquad w_j \propto e^{\cos(z(x), z_j) / T}

    Parameters
    ----------
    memory : Memory
        Default: class-balanced, 500, 10 recalled per step.
    k : int, default 20
        Number of neighbours, 1 or more; the whole memory if it holds fewer samples.
    steps : int, default 5
        Steps of adaptation, 0 or more; with 0 predictions are the network's logits.
    eta : float, default 0.02
        η, 0 or more. May differ by replica.
    lam : float, default 0.01
        λ, 0 or more. May differ by replica.
    temperature : float, default 0.1
        T above 0. May differ by replica.

    Raises
    ------
    InputError
        By ``check``: k below 1, steps, η or λ below 0, a temperature not above 0, a capacity below 1.

    Notes
    -----
    Cost: the step of `ER`; for a test sample one product with all features in memory, and ``steps`` products of k x k
    with k x C numbers: an adapted head is the trained head plus a sum over neighbours, so it is never materialised.
    Memory: ``capacity`` samples.

    Differences from the paper: only a linear head is adapted (with any other head: an additional linear term), on the
    network's features; keys are the current features of the stored samples, not those at the time of storage; cosine
    similarity.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, MbPA(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    k: int = 20
    steps: int = 5
    eta: float = 0.02
    lam: float = 0.01
    temperature: float = 0.1

    def check(self, spec: Spec) -> None:
        super().check(spec)
        at_least(self, 1, "k")
        at_least(self, 0, "steps", "eta", "lam")
        above(self, 0, "temperature")

    def answer(self, out: NetOutput, readout: Tensors) -> Tensor:
        z = out.features
        cosine = torch.where(readout["valid"] > 0, normalize(z, dim=-1) @ readout["keys"].mT, FAR)
        near = cosine.topk(min(self.k, cosine.shape[1]))
        weight = torch.softmax(near.values / self.temperature, -1)[..., None]
        around, start = readout["features"][near.indices], readout["logits"][near.indices]  # (N, k, F), (N, k, C)
        target = (readout["label"][near.indices][..., None] == torch.arange(start.shape[-1], device=z.device)).to(
            z.dtype
        )
        # W - W0 is a sum over neighbours of (coefficients C) x (features F, and a 1 for the bias)
        gram, query = around @ around.mT + 1, around @ z[..., None] + 1
        coefficients = torch.zeros_like(start)
        for _ in range(self.steps):
            error = torch.softmax(start + gram @ coefficients, -1) - target
            coefficients = (1 - 2 * self.eta * self.lam) * coefficients - self.eta * weight * error
        return out.raw + (query * coefficients).sum(-2)

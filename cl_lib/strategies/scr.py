"""Supervised contrastive replay."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cl_lib import noise
from cl_lib.memory.store import Memory
from cl_lib.strategies.bounds import above, at_least
from cl_lib.strategies.episodic import FAR, remembered
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, Contents, Net, Recalled, Spec, State, Tensors, join


@dataclass(frozen=True)
class SCR(Strategy):
    r"""SCR (Mai et al. 2021, "Supervised Contrastive Replay").

    New and recalled samples are trained with a supervised contrastive loss on the outputs of a projection head,
    :math:`v = \mathrm{normalize}(W_2\,\mathrm{relu}(W_1 z))`. Predictions are by the nearest class mean of the memory's
    features z:

    .. math::
        L = -\frac{1}{|A|} \sum_{i \in A} \frac{1}{|P(i)|} \sum_{p \in P(i)}
        \log \frac{e^{v_i^\top v_p / T}}{\sum_{a \ne i} e^{v_i^\top v_a / T}}, \qquad
        p(c \mid x) \propto e^{-\lVert \hat z(x) - \hat\mu_c \rVert_2^2 / T}

    with P(i) the other samples of the class of sample i, A the samples with at least one such sample, and hats for
    normalised vectors.

    Parameters
    ----------
    memory : Memory
        Default: reservoir of 500, 50 recalled per step.
    temperature : float, default 0.1
        T above 0. May differ by replica.
    width : int, default 64
        Number of outputs of the projection head, 1 or more.

    Raises
    ------
    InputError
        By ``check``: a temperature not above 0, a width or a capacity below 1.

    Notes
    -----
    Cost: a pass over ``batch_size + memory.batch`` samples and a matrix of their similarities per step; before an
    evaluation the features of the memory. Memory: ``capacity`` samples. State: the projection head, which is trained
    too.

    Differences from the paper: no augmented view of each sample, so a sample that is alone in its class has no loss;
    class means of normalised features. With an empty memory predictions are the network's logits.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, SCR(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    memory: Memory = field(default_factory=lambda: Memory(batch=50))
    temperature: float = 0.1
    width: int = 64

    def check(self, spec: Spec) -> None:
        super().check(spec)
        self.memory.check(least=1)
        above(self, 0, "temperature")
        at_least(self, 1, "width")

    def parameters(self, net: Net, params: Tensors, spec: Spec, key: Tensor) -> Tensors:
        like, size = next(iter(params.values())), spec.features
        shapes = {"~projection.1": (size, size), "~projection.2": (size, self.width)}
        bound = (6 / size) ** 0.5
        return {k: bound * (2 * noise.uniform(key + i, s, like.dtype) - 1) for i, (k, s) in enumerate(shapes.items())}

    def loss(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> tuple[Tensor, Tensors]:
        both = join(batch, recalled[0])
        z = net(state.params, both.x, both.task).features
        v = normalize(torch.relu(z @ state.params["~projection.1"]) @ state.params["~projection.2"], dim=-1)
        return self.contrast(v, both), {}

    def contrast(self, v: Tensor, batch: Batch) -> Tensor:
        """The loss for projected, normalised features ``v`` (B, width)."""
        itself = torch.eye(v.shape[0], dtype=torch.bool, device=v.device)
        others = (batch.weight > 0) & ~itself  # [i, a]
        similarity = torch.where(others, v @ v.mT / self.temperature, FAR)
        log_p = similarity - similarity.logsumexp(-1, keepdim=True)
        partners = (others & (batch.y == batch.y[:, None])).to(v.dtype)
        count = partners.sum(-1)
        losses = -(partners * log_p).sum(-1) / count.clamp_min(1)
        counted = batch.weight * (count > 0)
        return (counted * losses).sum() / counted.sum().clamp_min(1)

    def readout(self, net: Net, state: State, memory: Contents | None) -> Tensors:
        stored = remembered(net, state, memory)
        classes = torch.arange(stored["logits"].shape[-1], device=stored["label"].device)
        member = (stored["label"] == classes[:, None]) * stored["valid"]
        mean = member @ normalize(stored["features"], dim=-1)
        return {"mean": normalize(mean, dim=-1), "known": member.sum(-1) > 0}

    def logits(self, net: Net, state: State, readout: Tensors, x: Tensor, task: Tensor) -> Tensor:
        out = net(state.params, x, task, train=False)
        distance = (normalize(out.features, dim=-1)[:, None] - readout["mean"]).square().sum(-1)
        nearest = torch.where(readout["known"], -distance / self.temperature, FAR)
        return torch.where(readout["known"].any(), nearest, out.raw)

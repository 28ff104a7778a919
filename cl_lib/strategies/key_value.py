"""Key-value memory with trained values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cl_lib.strategies.bounds import above, at_least, share
from cl_lib.strategies.frozen_features import FrozenFeatures
from cl_lib.strategies.gradient import gradient_of
from cl_lib.strategies.losses import cross_entropy
from cl_lib.types import Batch, Gradient, Net, Phase, Recalled, Spec, State, Tensors

FAR = -1e9
VALUE, SHARPNESS = "~memory.value", "~memory.sharpness"


@dataclass(frozen=True)
class KeyValue(FrozenFeatures):
    r"""Key-value memory (as in Träuble et al. 2023, "Discrete Key-Value Bottleneck").

    Frozen features z are looked up among keys :math:`k_j`. The prediction is a weighted sum of the trained values
    :math:`v_j` of the nearest keys only, so that training in one region of the feature space does not change the
    predictions in others:

    .. math::
        f(x) = \sum_{j \in N_k(z)} a_j\, v_j, \qquad
        a = \mathrm{softmax}_{j \in N_k(z)} \big( e^{s} \cos(z, k_j) \big)

    The values v and the sharpness s are trained by the run's optimiser. After each step the keys are updated: a sample
    whose cosine similarity with every key is below ``novelty`` becomes a new key, while there are free slots; each
    existing key moves by a share ``rate`` of the distance to the mean features of the other samples nearest to it.

    Parameters
    ----------
    features, width
        As for `cl_lib.strategies.SLDA`; default ``"first"``.
    slots : int, default 500
        Number of keys, 1 or more.
    k : int, default 5
        Number of nearest keys used for a prediction, 1 or more; all keys if there are fewer.
    novelty : float, default 0.9
        In [0, 1]; 0: only samples with a negative cosine similarity to all keys become keys. May differ by replica.
    rate : float, default 0.01
        In [0, 1]; 0: existing keys do not move. May differ by replica.
    sharpness : float, default 10
        :math:`e^s` at the beginning, above 0. May differ by replica.

    Raises
    ------
    InputError
        By ``check``: unknown features, width, slots or k below 1, novelty or rate outside [0, 1], a sharpness that is
        not above 0.

    Notes
    -----
    Cost: a forward pass and one product with all keys per step (with ``first`` fine-tuning before, in experience 1).
    State: ``slots`` keys of F numbers and values of C numbers; no samples.

    Differences from the paper: one codebook instead of many heads of random projections; keys are updated throughout
    training, not learnt beforehand and frozen; the values of several keys are combined by a softmax with a learnt
    sharpness; values are initialised to 0.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, KeyValue(features="identity"), seeds=2, epochs=3, optim=cl_lib.SGD(lr=1.0))
    >>> record.metrics["accuracy"].mean > 0.7
    True
    """

    slots: int = 500
    k: int = 5
    novelty: float = 0.9
    rate: float = 0.01
    sharpness: float = 10.0

    def check(self, spec: Spec) -> None:
        super().check(spec)
        at_least(self, 1, "slots", "k")
        share(self, "novelty", "rate")
        above(self, 0, "sharpness")

    def phases(self, experience: int, spec: Spec) -> tuple[Phase, ...]:
        return self.after_features(experience, Phase("memory", trainable=("~memory.",)))

    def parameters(self, net: Net, params: Tensors, spec: Spec, key: Tensor) -> Tensors:
        like = next(iter(params.values()))
        start = torch.as_tensor(self.sharpness, dtype=like.dtype, device=like.device)
        return {VALUE: like.new_zeros(self.slots, spec.classes), SHARPNESS: start.log()}

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        like = next(iter(params.values()))
        written = {"key": like.new_zeros(self.slots, self.size(spec)), "used": like.new_zeros(())}
        return super().init(net, params, spec) | written

    def alike(self, extra: dict[str, Any], z: Tensor) -> Tensor:
        """Cosine similarities ``(B, slots)`` of features with the keys; ``FAR`` for free slots."""
        cosine = normalize(z, dim=-1) @ normalize(extra["key"], dim=-1).mT
        return torch.where(torch.arange(self.slots, device=z.device) < extra["used"], cosine, FAR)

    def read(self, params: Tensors, extra: dict[str, Any], z: Tensor) -> Tensor:
        """Logits f(x), ``(B, C)``, for features ``z``."""
        near = self.alike(extra, z).topk(min(self.k, self.slots))
        weight = torch.softmax(params[SHARPNESS].exp() * near.values, -1)
        return (weight[..., None] * params[VALUE][near.indices]).sum(-2)

    def gradient(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> Gradient:
        if batch.phase != "memory":
            return super().gradient(net, state, batch, recalled)
        z = self.frozen(net, state, batch.x, batch.task)

        def objective(params: Tensors) -> tuple[Tensor, Tensors]:
            logits = self.read(params, state.extra, z)
            logits = logits if net.mask is None else torch.where(net.mask[batch.task], logits, FAR)
            return cross_entropy(logits, batch.y, batch.weight), {}

        new = gradient_of(net, state.params, objective)
        return new._replace(grads={k: new.grads[k] for k in (VALUE, SHARPNESS)}, aux={"z": z})

    def after_step(self, net: Net, old: State, new: State, batch: Batch, gradient: Gradient) -> dict[str, Any]:
        if batch.phase != "memory":
            return new.extra
        z, key, used = gradient.aux["z"], new.extra["key"], new.extra["used"]
        best = self.alike(new.extra, z).max(-1)
        fresh = ((best.values < self.novelty) & (batch.weight > 0)).to(z.dtype)
        place = used + fresh.cumsum(0) - 1
        slots = torch.arange(self.slots, device=z.device)
        writes = (place[:, None] == slots) * fresh[:, None]  # all False for places beyond the last slot
        pulls = (best.indices[:, None] == slots) * ((1 - fresh) * batch.weight)[:, None]
        count = pulls.sum(0)[:, None]
        moved = key + self.rate * torch.where(count > 0, pulls.mT @ z / count.clamp_min(1) - key, 0.0)
        key = torch.where(writes.any(0)[:, None], writes.mT @ z, moved)
        return new.extra | {"key": key, "used": (used + fresh.sum()).clamp_max(self.slots)}

    def logits(self, net: Net, state: State, readout: Tensors, x: Tensor, task: Tensor) -> Tensor:
        return self.read(state.params, state.extra, self.frozen(net, state, x, task))

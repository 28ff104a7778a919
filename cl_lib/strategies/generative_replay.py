"""Generative replay with a variational autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cl_lib import noise
from cl_lib.strategies.bounds import above, at_least
from cl_lib.strategies.losses import cross_entropy, weighted_mean
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import MASKED, Batch, ExperienceData, Net, Recalled, Shape, Spec, State, Tensors

LAYERS = "encode", "code", "decode", "draw"


@dataclass(frozen=True)
class GenerativeReplay(Strategy):
    r"""Deep generative replay (Shin et al. 2017, "Continual Learning with Deep Generative Replay").

    A variational autoencoder is trained together with the network. In each step the autoencoder of the end of the last
    experience generates as many samples :math:`\tilde x` as there are new ones, and the network of that time gives
    their soft labels over the old classes:

    .. math::
        L = \frac{1}{e} \Big( \text{CE}(B) + V(B) \Big) + \frac{e - 1}{e} \Big( T^2\,
        \mathrm{KL}\big(q_T(\cdot \mid \tilde x)\,\|\,p_T(\cdot \mid \tilde x)\big) + V(\tilde B) \Big), \\
        V(x) = \tfrac12 \lVert x - g(z) \rVert_2^2
        + \mathrm{KL}\big(\mathcal N(\mu, \sigma^2)\,\|\,\mathcal N(0, 1)\big)

    in the e-th experience, with z drawn from :math:`\mathcal N(\mu(x), \sigma^2(x))` and V divided by the number of
    inputs.

    Parameters
    ----------
    codes : int, default 16
        Dimension of z, 1 or more.
    hidden : int, default 128
        Units of the hidden layers of encoder and decoder, 1 or more.
    temperature : float, default 2
        T above 0. May differ by replica.

    Raises
    ------
    InputError
        By ``check``: codes or hidden below 1, a temperature not above 0.

    Notes
    -----
    Cost: fine-tuning on twice the samples, one forward pass of the old network, and the autoencoder. State: a copy of
    the network and two of the autoencoder; no samples.

    Differences from the paper: a VAE instead of a GAN; soft labels as in van de Ven et al. 2020; generated samples are
    the mean of the decoder, without its noise; generator and network are trained by the same optimiser in the same
    steps (Adam suits both; with plain gradient descent the generator learns slowly).

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.permuted(cl_lib.datasets.digits(), 2)
    >>> record = cl_lib.run(stream, GenerativeReplay(), seeds=2, epochs=5)
    >>> record.metrics["accuracy"].mean > 0.7
    True
    """

    codes: int = 16
    hidden: int = 128
    temperature: float = 2.0

    def check(self, spec: Spec) -> None:
        super().check(spec)
        at_least(self, 1, "codes", "hidden")
        above(self, 0, "temperature")

    def noise(self, spec: Spec) -> dict[str, Shape]:
        return {"codes": (3, self.codes)}  # to generate samples, and to encode new and generated samples

    def parameters(self, net: Net, params: Tensors, spec: Spec, key: Tensor) -> Tensors:
        like, inputs = next(iter(params.values())), torch.Size(spec.shape).numel()
        widths = (inputs, self.hidden), (self.hidden, 2 * self.codes), (self.codes, self.hidden), (self.hidden, inputs)
        layers = {}
        for number, (name, (into, out)) in enumerate(zip(LAYERS, widths, strict=True)):
            bound = (6 / (into + out)) ** 0.5
            layers[f"~{name}.weight"] = bound * (2 * noise.uniform(key + number, (into, out), like.dtype) - 1)
            layers[f"~{name}.bias"] = like.new_zeros(out)
        return layers

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        like = next(iter(params.values()))
        old = torch.zeros(spec.classes, dtype=torch.bool, device=like.device)
        return {"teacher": params, "buffers": net.buffers, "old": old, "experiences": like.new_zeros(())}

    def loss(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> tuple[Tensor, Tensors]:
        extra, drawn = state.extra, gaussian(batch.noise["codes"])
        x = decoded(extra["teacher"], drawn[:, 0]).view_as(batch.x)
        teacher = net(extra["teacher"], x, batch.task, train=False, buffers=extra["buffers"]).raw
        logits = net(state.params, x, batch.task).logits
        # soft labels cover the old classes, predictions all classes: generated samples are never of a new class
        log_q = torch.log_softmax(torch.where(extra["old"], teacher / self.temperature, MASKED), -1)
        log_p = torch.log_softmax(logits / self.temperature, -1)
        divergence = self.temperature**2 * (torch.softmax(log_q, -1) * (log_q - log_p)).sum(-1)
        new = cross_entropy(net(state.params, batch.x, batch.task).logits, batch.y, batch.weight)
        new = new + weighted_mean(free_energy(state.params, batch.x.flatten(1), drawn[:, 1]), batch.weight)
        past = weighted_mean(divergence + free_energy(state.params, x.flatten(1), drawn[:, 2]), batch.weight)
        share = 1 / (extra["experiences"] + 1)
        return share * new + (1 - share) * past, {}

    def consolidate(self, net: Net, state: State, data: ExperienceData) -> State:
        number = state.extra["experiences"] + 1
        extra = {"teacher": state.params, "buffers": net.buffers, "old": data.seen, "experiences": number}
        return state._replace(extra=extra)


def gaussian(uniform: Tensor) -> Tensor:
    """Transform numbers uniform in [0, 1) to standard normal numbers, of absolute value at most 5.3."""
    return 2**0.5 * torch.erfinv((2 * uniform - 1).clamp(-1 + 1e-7, 1 - 1e-7))


def decoded(params: Tensors, z: Tensor) -> Tensor:
    """Decode codes ``(B, codes)`` to inputs ``(B, D)``."""
    hidden = torch.relu(z @ params["~decode.weight"] + params["~decode.bias"])
    return hidden @ params["~draw.weight"] + params["~draw.bias"]


def free_energy(params: Tensors, x: Tensor, normal: Tensor) -> Tensor:
    """Loss V of each input ``(B, D)``, with codes sampled by the normal numbers ``(B, codes)``."""
    hidden = torch.relu(x @ params["~encode.weight"] + params["~encode.bias"])
    mean, log_variance = (hidden @ params["~code.weight"] + params["~code.bias"]).chunk(2, -1)
    log_variance = log_variance.clamp(-8, 8)
    z = mean + (0.5 * log_variance).exp() * normal
    away = 0.5 * (x - decoded(params, z)).square().sum(-1)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
    return (away + divergence) / x.shape[-1]

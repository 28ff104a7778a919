"""The diagonal Fisher information, in its four variants by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from cl_lib.types import Batch, Experienced, Out, Tensors

Variant = Literal["exact", "sample", "empirical", "batched"]
VARIANTS = ("exact", "sample", "empirical", "batched")
Layers = list[tuple[str, nn.Module]]
CHUNK, LINEAR_CHUNK = 128, 512
"""Samples whose activations are held at once; more where all layers are linear, since they hold little."""


class TappedNet(Protocol):
    """A network whose layers can be listened to, see `cl_lib.engine.net.FunctionalNet`."""

    module: nn.Module

    def __call__(self, params: Tensors, x: Tensor, task: Tensor, *, train: bool | None = None) -> Out: ...


def diagonal_fisher(
    net: Any,
    params: Tensors,
    data: Experienced,
    variant: Variant = "exact",
    *,
    samples: int | None = None,
    batch: int = 128,
) -> Tensors:
    r"""Diagonal of the Fisher information of a classifier, a mean over samples (van de Ven 2025).

    .. math::
        \text{exact:}\;     F &= \tfrac1N \sum_i \sum_c p_\theta(c \mid x_i)
            \big(\partial \log p_\theta(c \mid x_i)\big)^2 \\
        \text{sample:}\;    F &= \tfrac1N \sum_i \big(\partial \log p_\theta(\hat y_i \mid x_i)\big)^2,
            \ \hat y_i \sim p_\theta \\
        \text{empirical:}\; F &= \tfrac1N \sum_i \big(\partial \log p_\theta(y_i \mid x_i)\big)^2 \\
        \text{batched:}\;   F &= \tfrac1J \sum_j \Big(\partial \tfrac{1}{|B_j|}
            \sum_{i \in B_j} \log p_\theta(y_i \mid x_i)\Big)^2

    The first three treat each sample apart. For linear and convolutional layers the square of a sample's gradient
    follows from what enters the layer and what comes back through it, so all samples of a chunk share one backward
    pass; networks with other parametrised layers take per-sample gradients by ``vmap``.

    Parameters
    ----------
    net : Net
    params : dict of Tensor
    data : Experienced
        The samples; its ``uniform`` numbers decide the drawn labels of ``sample``.
    variant : {"exact", "sample", "empirical", "batched"}
    samples : int, optional
        Use the first so many; the engine hands them over shuffled.
    batch : int, default 128
        :math:`|B_j|` of ``batched``.

    Returns
    -------
    dict of Tensor
        Of the shapes of ``params``, 0 or more.
    """
    if variant == "batched":
        parts = data.batches(batch, samples)
        return _mean((_batch_gradient(net, params, data.read(p)) for p in parts), len(parts))
    layers = _layers(net.module)
    shapes = _structure(layers, net, params, data)
    squares = _by_sample if shapes is None else partial(_by_layer, layers, shapes)
    linear = shapes is not None and all(isinstance(layer, nn.Linear) for _, layer in layers)
    parts = data.batches(LINEAR_CHUNK if linear else CHUNK, samples)
    count = sum(p.stop - p.start for p in parts)
    return _mean((squares(net, params, data.read(p), data.uniform[p], variant) for p in parts), count)


def _mean(parts: Iterable[Tensors], count: int) -> Tensors:
    """One part after the other, so that no more than one is held beside the total."""
    total: Tensors = {}
    for part in parts:
        _add_(total, part)
    return {k: v.div_(count) for k, v in total.items()}


def _add_(total: Tensors, part: Tensors) -> None:
    """Add in place; what is not there yet is taken over."""
    for k, v in part.items():
        total[k] = total[k].add_(v) if k in total else v


def _log_probs(net: Any, params: Tensors, batch: Batch) -> Tensor:
    return torch.log_softmax(net(params, batch.x, batch.task, train=False).logits, -1)


def _batch_gradient(net: Any, params: Tensors, batch: Batch) -> Tensors:
    def mean(params: Tensors) -> Tensor:
        return _log_probs(net, params, batch).gather(-1, batch.y[:, None]).mean()

    return {k: g.square() for k, g in torch.func.grad(mean)(params).items()}


def _targets(log_probs: Tensor, y: Tensor, uniform: Tensor, variant: Variant) -> list[tuple[Tensor, Tensor]]:
    """Pairs of cotangent ``(n, C)`` (which log-probability of each sample) and weight ``(n,)``."""
    classes = log_probs.shape[-1]
    if variant == "exact":
        eye = torch.eye(classes, dtype=log_probs.dtype, device=log_probs.device)
        p = log_probs.exp()
        return [(eye[c].expand_as(log_probs), p[:, c]) for c in range(classes)]
    if variant == "sample":  # by inverting the cumulative distribution
        cumulative = log_probs.exp().cumsum(-1)
        y = (uniform[:, None] > cumulative).sum(-1).clamp_max(classes - 1)
    chosen = (torch.arange(classes, device=y.device) == y[:, None]).to(log_probs.dtype)
    return [(chosen, torch.ones_like(log_probs[:, 0]))]


# ---------------------------------------------------------------------- by the structure of the layers
def _structure(layers: Layers, net: Any, params: Tensors, data: Experienced) -> dict[str, torch.Size] | None:
    """Shapes of one sample's outputs by layer, if every parameter belongs to a linear (2-d input) or convolutional
    layer that is used once."""
    owned = {f"{name}.{own}" for name, _ in layers for own in ("weight", "bias")}
    if not set(params) <= owned:
        return None
    entered: dict[str, list[Tensor]] = {}
    _, left = _listen(layers, net, params, data.read(slice(0, 1)), {}, entered)
    once = all(
        len(entered.get(name, ())) == 1 and (isinstance(layer, nn.Conv2d) or entered[name][0].ndim == 2)
        for name, layer in layers
    )
    return {name: out.shape[1:] for name, out in left.items()} if once else None


def _layers(module: nn.Module) -> Layers:
    return [
        (name, layer)
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
        or (
            isinstance(layer, nn.Conv2d)
            and layer.groups == 1
            and layer.padding_mode == "zeros"
            and not isinstance(layer.padding, str)
        )
    ]


def _listen(
    layers: Layers, net: Any, params: Tensors, batch: Batch, added: Tensors, entered: dict[str, list[Tensor]]
) -> tuple[Tensor, Tensors]:
    """Log-probabilities with ``added[name]`` on each layer's output; records what enters; returns the outputs."""
    left: Tensors = {}

    def hook(name: str, layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        entered.setdefault(name, []).append(args[0])
        left[name] = out
        return out + added[name] if name in added else out

    handles = [layer.register_forward_hook(partial(hook, name)) for name, layer in layers]
    try:
        return _log_probs(net, params, batch), left
    finally:
        for handle in handles:
            handle.remove()


def _by_layer(
    layers: Layers,
    shapes: dict[str, torch.Size],
    net: Any,
    params: Tensors,
    batch: Batch,
    uniform: Tensor,
    variant: Variant,
) -> Tensors:
    """Sums over a chunk of squared per-sample gradients, from the layers' inputs and back-propagated errors."""
    added = {name: batch.x.new_zeros(len(batch.y), *shape) for name, shape in shapes.items()}

    def forward(added: Tensors) -> tuple[Tensor, dict[str, Tensor]]:
        entered: dict[str, list[Tensor]] = {}
        log_probs, _ = _listen(layers, net, params, batch, added, entered)
        return log_probs, {name: values[0] for name, values in entered.items()}

    pulled: Any = torch.func.vjp(forward, added, has_aux=True)
    log_probs, pull, entered = pulled
    columns = {name: _columns(layer, entered[name]) for name, layer in layers}
    total: Tensors = {}
    for cotangent, weight in _targets(log_probs, batch.y, uniform, variant):
        (errors,) = pull(cotangent)
        for name, error in errors.items():
            if columns[name].ndim == 2:  # linear: the gradient is an outer product, so is its square
                square = error.square() * weight[:, None]
                weights, biases = square.mT @ columns[name], square.sum(0)
            else:  # convolution: a sample's gradient sums over positions before it is squared
                flat = error.flatten(2)  # (n, out, L)
                gradient = flat @ columns[name].mT  # (n, out, in * k * k)
                weights = torch.tensordot(weight, gradient.square(), dims=([0], [0]))
                biases = (flat.sum(-1).square() * weight[:, None]).sum(0)
            values = {f"{name}.weight": weights, f"{name}.bias": biases}
            _add_(total, {k: v.reshape(params[k].shape) for k, v in values.items() if k in params})
    return total


def _columns(layer: nn.Module, x: Tensor) -> Tensor:
    """What multiplies the weights: ``(n, in)`` squared for a linear layer, ``(n, in * k * k, L)`` for a convolution."""
    if not isinstance(layer, nn.Conv2d):
        return x.square()
    assert not isinstance(layer.padding, str)
    return nn.functional.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)


# ---------------------------------------------------------------------- any other network
def _by_sample(net: Any, params: Tensors, batch: Batch, uniform: Tensor, variant: Variant) -> Tensors:
    """The same by one gradient for each sample, materialised a few at a time."""
    total = {k: torch.zeros_like(p) for k, p in params.items()}
    targets = _targets(_log_probs(net, params, batch), batch.y, uniform, variant)

    def one(cotangent: Tensor, x: Tensor, y: Tensor, task: Tensor) -> Tensors:
        def chosen(params: Tensors) -> Tensor:
            own = Batch(x[None], y[None], torch.ones_like(cotangent[:1]), task[None])
            return (_log_probs(net, params, own)[0] * cotangent).sum()

        return torch.func.grad(chosen)(params)

    each: Callable[..., Tensors] = torch.func.vmap(one)
    for cotangent, weight in targets:
        for i in range(0, len(weight), 16):
            part = slice(i, i + 16)
            grads = each(cotangent[part], batch.x[part], batch.y[part], batch.task[part])
            for k, g in grads.items():
                total[k] += torch.tensordot(weight[part], g.square(), dims=([0], [0]))
    return total

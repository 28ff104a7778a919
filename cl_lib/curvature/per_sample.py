"""Sums over samples of the squares, or the absolute values, of per-sample gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cl_lib.models.layers import Layers, layers_of, listen, patches
from cl_lib.types import OWN, Batch, ExperienceData, NetOutput, Tensors

Answer = Callable[[NetOutput], Tensor]
"""Maps a network's output to the tensor ``(n, C)`` that is differentiated."""
Targets = Callable[[Tensor, Batch, Tensor], list[tuple[Tensor, Tensor]]]
"""Maps that tensor, the samples and uniform numbers to pairs of cotangent ``(n, C)`` and weight ``(n,)``."""
Measure = Callable[[Tensor], Tensor]
"""`torch.square` or `torch.abs`: the measure of a product must be the product of the measures."""
CHUNK, LINEAR_CHUNK = 128, 512
"""Samples whose activations are in memory at a time; more if all layers are linear, whose activations are small."""


def mean_over_samples(
    net: Any,
    params: Tensors,
    data: ExperienceData,
    answer: Answer,
    targets: Targets,
    measure: Measure,
    samples: int | None = None,
) -> Tensors:
    r"""Mean over samples i of :math:`\sum_t w_{it}\, m\big(v_{it}^\top \partial a(x_i) / \partial \theta\big)`.

    For linear and convolutional layers the measure m of a sample's gradient follows from the layer's input and the
    back-propagated error, so all samples of a chunk share one backward pass for each target v; networks with other
    parametrised layers take per-sample gradients by ``vmap``.
    """
    layers = layers_of(net.module)
    of_strategy = {k: torch.zeros_like(p) for k, p in params.items() if k.startswith(OWN)}
    params = {k: p for k, p in params.items() if k not in of_strategy}
    shapes = structure(layers, net, params, data.read(slice(0, 1)))
    parts_of = _by_sample if shapes is None else partial(_by_layer, layers, shapes)
    linear = shapes is not None and all(isinstance(layer, nn.Linear) for _, layer in layers)
    parts = data.batches(LINEAR_CHUNK if linear else CHUNK, samples)
    count = sum(p.stop - p.start for p in parts)
    measured = (parts_of(net, params, data.read(p), data.uniform[p], answer, targets, measure) for p in parts)
    return mean(measured, count) | of_strategy


def mean(parts: Iterable[Tensors], count: int) -> Tensors:
    """Sum of the parts divided by ``count``; the total and one part are in memory at a time."""
    total: Tensors = {}
    for part in parts:
        _add_(total, part)
    return {k: v.div_(count) for k, v in total.items()}


def _add_(total: Tensors, part: Tensors) -> None:
    """Add ``part`` to ``total`` in place; missing names are inserted."""
    for k, v in part.items():
        total[k] = total[k].add_(v) if k in total else v


def _outputs(net: Any, params: Tensors, batch: Batch, answer: Answer) -> Tensor:
    return answer(net(params, batch.x, batch.task, train=False))


# ---------------------------------------------------------------------- linear and convolutional layers
def structure(layers: Layers, net: Any, params: Tensors, sample: Batch) -> dict[str, torch.Size] | None:
    """Output shapes of the layers for one sample, or None.

    None unless every parameter belongs to a linear (2-d input) or convolutional layer that is used once.
    """
    covered = {f"{name}.{part}" for name, _ in layers for part in ("weight", "bias")}
    if not set(params) <= covered:
        return None
    entered: dict[str, list[Tensor]] = {}
    _, left = listen(layers, net, params, sample, {}, entered, lambda out: out.raw)
    once = all(
        len(entered.get(name, ())) == 1 and (isinstance(layer, nn.Conv2d) or entered[name][0].ndim == 2)
        for name, layer in layers
    )
    return {name: out.shape[1:] for name, out in left.items()} if once else None


def propagated(
    layers: Layers, shapes: dict[str, torch.Size], net: Any, params: Tensors, batch: Batch, answer: Answer
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensors]], Tensors]:
    """Outputs ``(n, C)``, the function from their cotangent to the errors at the layers' outputs, and layers' inputs.

    Where a layer is used more than once, its input is that of the first use.
    """
    added = {name: batch.x.new_zeros(len(batch.y), *shape) for name, shape in shapes.items()}

    def forward(added: Tensors) -> tuple[Tensor, Tensors]:
        entered: dict[str, list[Tensor]] = {}
        outputs, _ = listen(layers, net, params, batch, added, entered, answer)
        return outputs, {name: values[0] for name, values in entered.items()}

    pulled: Any = torch.func.vjp(forward, added, has_aux=True)
    outputs, pull, first = pulled
    return outputs, pull, first


def _by_layer(
    layers: Layers,
    shapes: dict[str, torch.Size],
    net: Any,
    params: Tensors,
    batch: Batch,
    uniform: Tensor,
    answer: Answer,
    targets: Targets,
    measure: Measure,
) -> Tensors:
    """Sums over a chunk of measured per-sample gradients, from the layers' inputs and back-propagated errors."""
    outputs, pull, entered = propagated(layers, shapes, net, params, batch, answer)
    columns = {name: _columns(layer, entered[name], measure) for name, layer in layers}
    total: Tensors = {}
    for cotangent, weight in targets(outputs, batch, uniform):
        (errors,) = pull(cotangent)
        for name, error in errors.items():
            if columns[name].ndim == 2:  # linear: the gradient is an outer product, so is its measure
                measured = measure(error) * weight[:, None]
                weights, biases = measured.mT @ columns[name], measured.sum(0)
            else:  # convolution: a sample's gradient sums over positions before it is measured
                flat = error.flatten(2)  # (n, out, L)
                gradient = flat @ columns[name].mT  # (n, out, in * k * k)
                weights = torch.tensordot(weight, measure(gradient), dims=([0], [0]))
                biases = (measure(flat.sum(-1)) * weight[:, None]).sum(0)
            values = {f"{name}.weight": weights, f"{name}.bias": biases}
            _add_(total, {k: v.reshape(params[k].shape) for k, v in values.items() if k in params})
    return total


def _columns(layer: nn.Module, x: Tensor, measure: Measure) -> Tensor:
    """Factors of the weights: ``(n, in)``, measured, for linear layers, ``(n, in * k * k, L)`` for convolutions."""
    return patches(layer, x) if isinstance(layer, nn.Conv2d) else measure(x)


# ---------------------------------------------------------------------- all other networks
def _by_sample(
    net: Any, params: Tensors, batch: Batch, uniform: Tensor, answer: Answer, targets: Targets, measure: Measure
) -> Tensors:
    """The same sums from per-sample gradients, materialised for 16 samples at a time."""
    total = {k: torch.zeros_like(p) for k, p in params.items()}
    for cotangent, weight in targets(_outputs(net, params, batch, answer), batch, uniform):
        for i in range(0, len(weight), 16):
            part = slice(i, i + 16)
            samples = Batch(batch.x[part], batch.y[part], batch.weight[part], batch.task[part])
            for k, g in per_sample_gradients(net, params, samples, answer, cotangent[part]).items():
                total[k] += torch.tensordot(weight[part], measure(g), dims=([0], [0]))
    return total


def per_sample_gradients(net: Any, params: Tensors, batch: Batch, answer: Answer, cotangent: Tensor) -> Tensors:
    """Gradients of each sample's ``sum_c cotangent_c answer_c``: the parameters' shapes with a leading axis n.

    Parameters
    ----------
    net : Net
    params : dict of Tensor
    batch : Batch
        n samples; their weights are ignored.
    answer : callable
        Maps the network's output to the tensor ``(n, C)`` that is differentiated.
    cotangent : Tensor
        ``(n, C)``.
    """

    def gradient(cotangent: Tensor, x: Tensor, y: Tensor, task: Tensor) -> Tensors:
        def chosen(params: Tensors) -> Tensor:
            sample = Batch(x[None], y[None], torch.ones_like(cotangent[:1]), task[None])
            return (_outputs(net, params, sample, answer)[0] * cotangent).sum()

        return torch.func.grad(chosen)(params)

    gradients: Callable[..., Tensors] = torch.func.vmap(gradient)
    return gradients(cotangent, batch.x, batch.y, batch.task)


def log_probabilities(out: NetOutput) -> Tensor:
    """Log-probabilities over the classes that may be predicted, ``(n, C)``."""
    return torch.log_softmax(out.logits, -1)


def one_hot(y: Tensor, like: Tensor) -> Tensor:
    """One-hot labels, with the shape ``(n, C)`` and dtype of ``like``."""
    return (torch.arange(like.shape[-1], device=y.device) == y[:, None]).to(like.dtype)

"""How alike samples' gradients are, without the gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cl_lib.curvature.algebra import as_rows
from cl_lib.curvature.per_sample import log_probabilities, one_hot, per_sample_gradients, propagated, structure
from cl_lib.models.layers import Layers, layers_of, patches
from cl_lib.types import OWN, Batch, Tensors


def gradient_gram(net: Any, params: Tensors, batch: Batch) -> Tensor:
    r"""Inner products :math:`g_i^\top g_j` of the gradients of samples' cross-entropies, ``(n, n)``.

    The gradient of a linear layer is the outer product of what enters it, h, and the error δ that comes back, so that

    .. math::
        g_i^\top g_j = \sum_l (\delta_{il}^\top \delta_{jl}) (h_{il}^\top h_{jl} + 1)

    (1 for the bias) costs one forward and backward pass; of a convolution each sample's gradient is made, as are all
    gradients of networks with other parametrised layers, by ``vmap``. The network answers as in an evaluation.

    Parameters
    ----------
    net : Net
    params : dict of Tensor
        Those that the strategy brought along do not count.
    batch : Batch
        n samples; weights are not looked at.

    Returns
    -------
    Tensor
        ``(n, n)``, in the dtype of the answers.

    Examples
    --------
    >>> from cl_lib.engine.net import FunctionalNet
    >>> net = FunctionalNet(nn.Sequential(nn.Linear(2, 2)), {})
    >>> params = {"0.weight": torch.zeros(2, 2), "0.bias": torch.zeros(2)}  # answers (½, ½), δ = ±(½, -½)
    >>> x, y = torch.tensor([[1.0, 0.0], [1.0, 2.0]]), torch.tensor([0, 1])
    >>> gradient_gram(net, params, Batch(x, y, torch.ones(2), torch.zeros(2, dtype=torch.long)))  # ∓½ (h'h + 1)
    tensor([[ 1., -1.],
            [-1.,  3.]])
    """
    params = {k: p for k, p in params.items() if not k.startswith(OWN)}
    layers = layers_of(net.module)
    one = Batch(batch.x[:1], batch.y[:1], batch.weight[:1], batch.task[:1])
    shapes = structure(layers, net, params, one)
    return _by_sample(net, params, batch) if shapes is None else _by_layer(layers, shapes, net, params, batch)


def _by_layer(layers: Layers, shapes: dict[str, torch.Size], net: Any, params: Tensors, batch: Batch) -> Tensor:
    answers, pull, entered = propagated(layers, shapes, net, params, batch, log_probabilities)
    (errors,) = pull(one_hot(batch.y, answers))
    total = answers.new_zeros(len(batch.y), len(batch.y))
    for name, layer in layers:
        error, entry, held = errors[name], entered[name], [k in params for k in (f"{name}.weight", f"{name}.bias")]
        if isinstance(layer, nn.Conv2d):
            error = error.flatten(2)  # (n, out, positions)
            grads = [(error @ patches(layer, entry).mT).flatten(1), error.sum(-1)]
            total = total + sum(g @ g.mT for g, trained in zip(grads, held, strict=True) if trained)
        else:
            total = total + (error @ error.mT) * (held[0] * (entry @ entry.mT) + held[1])
    return total


def _by_sample(net: Any, params: Tensors, batch: Batch) -> Tensor:
    labels = one_hot(batch.y, log_probabilities(net(params, batch.x, batch.task, train=False)))
    grads = as_rows(per_sample_gradients(net, params, batch, log_probabilities, labels))
    return grads @ grads.mT

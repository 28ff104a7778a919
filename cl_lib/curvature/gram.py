"""Inner products of per-sample gradients, for linear layers without materialising the gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cl_lib.curvature.algebra import as_rows
from cl_lib.curvature.per_sample import log_probabilities, one_hot, per_sample_gradients, propagated, structure
from cl_lib.models.layers import Layers, layers_of, patches
from cl_lib.types import OWN, Batch, Tensors


def gradient_gram(net: Any, params: Tensors, batch: Batch) -> Tensor:
    r"""Inner products :math:`g_i^\top g_j` of the gradients of each sample's cross-entropy, ``(n, n)``.

    The gradient of a linear layer is the outer product of its input h and the back-propagated error δ, so that

    .. math::
        g_i^\top g_j = \sum_l (\delta_{il}^\top \delta_{jl}) (h_{il}^\top h_{jl} + 1)

    (1 for the bias) costs one forward and one backward pass. For convolutions each sample's gradient is materialised;
    networks with other parametrised layers take per-sample gradients by ``vmap``. The network is in eval mode.

    Parameters
    ----------
    net : Net
    params : dict of Tensor
        Parameters that belong to the strategy are ignored.
    batch : Batch
        n samples; their weights are ignored.

    Returns
    -------
    Tensor
        ``(n, n)``, in the dtype of the logits.

    Examples
    --------
    >>> from cl_lib.engine.net import FunctionalNet
    >>> net = FunctionalNet(nn.Sequential(nn.Linear(2, 2)), {})
    >>> params = {"0.weight": torch.zeros(2, 2), "0.bias": torch.zeros(2)}  # probabilities (½, ½), δ = ±(½, -½)
    >>> x, y = torch.tensor([[1.0, 0.0], [1.0, 2.0]]), torch.tensor([0, 1])
    >>> gradient_gram(net, params, Batch(x, y, torch.ones(2), torch.zeros(2, dtype=torch.long)))  # ∓½ (h'h + 1)
    tensor([[ 1., -1.],
            [-1.,  3.]])
    """
    params = {k: p for k, p in params.items() if not k.startswith(OWN)}
    layers = layers_of(net.module)
    sample = Batch(batch.x[:1], batch.y[:1], batch.weight[:1], batch.task[:1])
    shapes = structure(layers, net, params, sample)
    return _by_sample(net, params, batch) if shapes is None else _by_layer(layers, shapes, net, params, batch)


def _by_layer(layers: Layers, shapes: dict[str, torch.Size], net: Any, params: Tensors, batch: Batch) -> Tensor:
    log_p, pull, inputs = propagated(layers, shapes, net, params, batch, log_probabilities)
    (errors,) = pull(one_hot(batch.y, log_p))
    total = log_p.new_zeros(len(batch.y), len(batch.y))
    for name, layer in layers:
        error, x, trained = errors[name], inputs[name], [k in params for k in (f"{name}.weight", f"{name}.bias")]
        if isinstance(layer, nn.Conv2d):
            error = error.flatten(2)  # (n, out, positions)
            grads = [(error @ patches(layer, x).mT).flatten(1), error.sum(-1)]
            total = total + sum(g @ g.mT for g, is_trained in zip(grads, trained, strict=True) if is_trained)
        else:
            total = total + (error @ error.mT) * (trained[0] * (x @ x.mT) + trained[1])
    return total


def _by_sample(net: Any, params: Tensors, batch: Batch) -> Tensor:
    labels = one_hot(batch.y, log_probabilities(net(params, batch.x, batch.task, train=False)))
    grads = as_rows(per_sample_gradients(net, params, batch, log_probabilities, labels))
    return grads @ grads.mT

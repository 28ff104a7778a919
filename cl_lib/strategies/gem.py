"""Gradient episodic memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cl_lib.curvature.algebra import as_rows
from cl_lib.memory.store import Memory
from cl_lib.strategies.bounds import at_least
from cl_lib.strategies.losses import cross_entropy
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, ExperienceData, Gradient, Net, Recalled, Spec, State, Tensors


@dataclass(frozen=True)
class GEM(Strategy):
    r"""GEM (Lopez-Paz & Ranzato 2017, "Gradient Episodic Memory for Continual Learning").

    With g the gradient on the new batch and :math:`g_e` the gradient on the recalled samples of each past experience e,
    the step follows the nearest direction that, to first order, increases the loss of no past experience,

    .. math::
        \min_{\tilde g} \tfrac12 \lVert \tilde g - g \rVert_2^2 \ \text{ s.t. } \tilde g^\top g_e \ge 0
        \quad\Leftrightarrow\quad
        \tilde g = g + \sum_e v_e g_e,\ \ \min_{v \ge \gamma} \tfrac12 v^\top K v + v^\top q, \
        \ K_{ee'} = g_e^\top g_{e'},\ q_e = g_e^\top g

    If no constraint is violated, g is not changed.

    Parameters
    ----------
    memory : Memory
        Default: ring of 500 with 64 recalled per step, shared by the constraints of all past experiences.
    margin : float, default 0
        γ, 0 or more; above 0 the step also moves along the gradients of past experiences. May differ by replica.

    Raises
    ------
    InputError
        By ``check``: a margin below 0, an invalid memory.

    Notes
    -----
    Cost: one backward pass on the batch and one on the recalled samples for each experience of the stream; a quadratic
    program with one variable for each experience, solved on the host by SciPy's non-negative least squares (on CUDA
    each step waits for it). Memory: ``capacity`` samples.

    Differences from the paper: a constraint's gradient is computed on the recalled samples of its experience, not on
    all stored samples; default margin 0 (the paper: 0.5); the classes in the softmax are the stream's ``train_classes``
    (the paper: task-incremental).

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.permuted(cl_lib.datasets.digits(), 3)
    >>> record = cl_lib.run(stream, GEM(), seeds=2)
    >>> record.metrics["accuracy"].mean > 0.5
    True
    """

    memory: Memory = field(default_factory=lambda: Memory(batch=64, admission="ring"))
    margin: float = 0.0

    def check(self, spec: Spec) -> None:
        super().check(spec)
        at_least(self, 0, "margin")

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        return {"past": next(iter(params.values())).new_zeros(spec.experiences)}

    def gradient(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> Gradient:
        (old,), past = recalled, state.extra["past"]
        new, buffers = super().gradient(net, state, batch, recalled), net.buffers

        def gradient_with(weight: Tensor) -> Tensors:
            def loss(params: Tensors) -> Tensor:
                return cross_entropy(net(params, old.x, old.task, train=False).logits, old.y, weight)

            return torch.func.grad(loss)(state.params)

        experiences = torch.arange(past.shape[0], device=past.device)
        weights = (old.task == experiences[:, None]) * old.weight * past[:, None]  # (E, B)
        gradients = torch.func.vmap(gradient_with)(weights)
        net.buffers = buffers
        rows = as_rows(gradients)
        flat = torch.cat([g.flatten() for g in new.grads.values()])
        along = (flat[None] @ rows.mT)[0]  # with many replicas, products with columns are several times slower
        weight = torch.ops.cl_lib.cone_weights(rows @ rows.mT, along, torch.ones_like(along) * self.margin)
        flat = torch.where((along < 0).any(), flat + (weight[None] @ rows)[0], flat)
        parts = flat.split([g.numel() for g in new.grads.values()])
        return new._replace(grads={k: p.view_as(g) for (k, g), p in zip(new.grads.items(), parts, strict=True)})

    def consolidate(self, net: Net, state: State, data: ExperienceData) -> State:
        past = state.extra["past"]
        done = torch.arange(past.shape[0], device=past.device) == data.number
        return state._replace(extra={"past": torch.where(done, 1.0, past)})


@torch.library.custom_op("cl_lib::cone_weights", mutates_args=())
def cone_weights(gram: Tensor, along: Tensor, least: Tensor) -> Tensor:
    """Minimise ``v K v / 2 + v q`` over v of at least ``least`` (..., E); opaque to tracing, solved in float64."""
    from scipy.optimize import nnls  # slow to import

    k, q, low = (t.detach().double().cpu().numpy() for t in (gram, along, least))
    out = np.full(q.shape, np.nan)
    for i in np.ndindex(q.shape[:-1]):
        if not (np.isfinite(k[i]).all() and np.isfinite(q[i]).all()):
            continue  # a diverged replica
        values, vectors = np.linalg.eigh(k[i])
        root = np.sqrt(values.clip(0))[:, None] * vectors.T  # root' root = K
        wanted = np.linalg.lstsq(root.T, -(q[i] + k[i] @ low[i]), rcond=1e-12)[0]
        out[i] = nnls(root, wanted, maxiter=100 * len(q[i]))[0] + low[i]
    return torch.from_numpy(out).to(along)


@cone_weights.register_fake
def _(gram: Tensor, along: Tensor, least: Tensor) -> Tensor:
    return torch.empty_like(along)


@cone_weights.register_vmap
def _(info: Any, dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[Tensor, int]:
    moved = [
        t.unsqueeze(0).expand(info.batch_size, *t.shape) if d is None else t.movedim(d, 0)
        for t, d in zip(tensors, dims, strict=True)
    ]
    return torch.ops.cl_lib.cone_weights(*moved), 0

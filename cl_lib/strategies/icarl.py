"""iCaRL: distillation, herding, nearest mean of exemplars."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cl_lib.memory.exemplars import update_exemplars
from cl_lib.memory.store import Memory
from cl_lib.strategies.losses import log_sigmoid, weighted_mean
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import MASKED, Batch, Contents, ExperienceData, Net, Recalled, Spec, State, Tensors, join

CHUNK = 500


@dataclass(frozen=True)
class ICaRL(Strategy):
    r"""iCaRL (Rebuffi et al. 2017, "Incremental Classifier and Representation Learning").

    New and recalled samples are trained with one binary cross-entropy per class. Its targets for the old classes O are
    the predictions of the network of the end of the last experience:

    .. math::
        L = \frac{1}{|B \cup M|} \sum_{B \cup M} \sum_c \mathrm{BCE}\big(\sigma(f_c(x)), t_c\big),\qquad
        t_c = \sigma(f^{old}_c(x)) \text{ for } c \in O,\ \text{else } [y = c]

    At the end of an experience each seen class keeps the first ``capacity // seen`` samples in herding order: each
    sample brings the mean of the chosen features nearest to the class mean. The predicted class of a test sample is the
    one whose exemplars' mean feature is nearest; probabilities are a softmax over negative squared distances.

    Parameters
    ----------
    memory : Memory
        Default: 500 exemplars, 32 recalled per step; ``admission`` must be ``"strategy"``.

    Raises
    ------
    InputError
        By ``check``: a capacity below the number of classes, another admission.

    Notes
    -----
    Cost: two forward and one backward pass per step over ``batch_size + memory.batch`` samples; after an experience its
    features, and one matrix-vector product for each chosen exemplar. State: one copy of the network.

    Differences from the paper: a batch of exemplars is recalled in each step, instead of training on the union of new
    samples and exemplars; the first experience has no distillation; features and means are normalised, as in the paper.
    The stream's ``train_classes`` determine which unseen classes the cross-entropy covers (the paper: ``seen``). In
    streams with recurring classes, which the paper does not have, new samples are trained on their labels, and the
    exemplars of a class are shared among its experiences.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits(), train_classes="seen")
    >>> record = cl_lib.run(stream, ICaRL(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    fills_memory: ClassVar[bool] = True
    memory: Memory = field(default_factory=lambda: Memory(batch=32, admission="strategy"))

    def check(self, spec: Spec) -> None:
        super().check(spec)
        self.memory.check(least=spec.classes)

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        device = next(iter(params.values())).device
        return {
            "teacher": params,
            "buffers": net.buffers,
            "old": torch.zeros(spec.classes, dtype=torch.bool, device=device),
            "rank": torch.zeros(spec.capacity, dtype=torch.long, device=device),
            "times": torch.zeros(spec.classes, dtype=torch.long, device=device),
        }

    def loss(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> tuple[Tensor, Tensors]:
        both, extra = join(batch, recalled[0]), state.extra
        logits = net(state.params, both.x, both.task).logits
        teacher = net(extra["teacher"], both.x, both.task, train=False, buffers=extra["buffers"]).raw
        classes = torch.arange(logits.shape[-1], device=logits.device)
        labelled = both.y[:, None] == classes
        # for old classes the target is the teacher's prediction, except for new samples of a recurring class
        fresh = torch.arange(both.y.shape[0], device=labelled.device)[:, None] < batch.y.shape[0]
        target = torch.where(
            extra["old"] & ~(labelled & fresh), log_sigmoid(teacher)[0].exp(), labelled.to(logits.dtype)
        )
        yes, no = log_sigmoid(logits)
        errors = torch.where(logits > MASKED / 2, -(target * yes + (1 - target) * no), 0.0)  # 0 for masked classes
        return weighted_mean(errors.sum(-1), both.weight), {}

    def consolidate(self, net: Net, state: State, data: ExperienceData) -> State:
        parts = map(data.read, data.batches(CHUNK))  # lazily, so that one part is in memory at a time
        read = [(_features(net, state.params, part), part.y) for part in parts]
        features, labels = (torch.cat(column) for column in zip(*read, strict=True))
        times = state.extra["times"]
        memory, rank = update_exemplars(state.memory, state.extra["rank"], times, features, labels, data)
        extra = {
            "teacher": state.params,
            "buffers": net.buffers,
            "old": data.seen,
            "rank": rank,
            "times": times + data.classes.long(),
        }
        return state._replace(memory=memory, extra=extra)

    def readout(self, net: Net, state: State, memory: Contents | None) -> Tensors:
        assert memory is not None
        classes = torch.arange(state.extra["old"].shape[0], device=memory.index.device)
        total: Tensor | None = None
        for batch in memory.batches():
            member = (batch.y == classes[:, None]) * batch.weight
            part = member @ _features(net, state.params, batch)
            total = part if total is None else total + part
        assert total is not None
        return {"means": normalize(total, dim=-1), "known": total.abs().sum(-1) > 0}

    def logits(self, net: Net, state: State, readout: Tensors, x: Tensor, task: Tensor) -> Tensor:
        out = net(state.params, x, task, train=False)
        distance = (normalize(out.features, dim=-1)[:, None] - readout["means"]).square().sum(-1)
        nearest = torch.where(readout["known"], -distance, MASKED)
        # without exemplars there are no class means: predictions are the network's logits
        return torch.where(readout["known"].any(), nearest, out.raw)


def _features(net: Net, params: Tensors, batch: Batch) -> Tensor:
    return normalize(net(params, batch.x, batch.task, train=False).features, dim=-1)

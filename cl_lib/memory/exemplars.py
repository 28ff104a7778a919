"""Exemplar sets: equally many samples of each seen class, in herding order, reduced as the number of classes grows."""

from __future__ import annotations

import torch
from torch import Tensor

from cl_lib.memory.herding import by_class, herd
from cl_lib.types import ExperienceData, Tensors


def update_exemplars(
    memory: Tensors, rank: Tensor, times: Tensor, features: Tensor, labels: Tensor, data: ExperienceData
) -> tuple[Tensors, Tensor]:
    """Choose exemplars of the classes of an experience, and drop exemplars of older classes beyond their quota.

    Each of the ``k`` seen classes has a quota of ``capacity // k``. A class that was present in ``t`` earlier
    experiences keeps the first ``quota * t // (t + 1)`` of its exemplars and takes the others from the new experience.

    Parameters
    ----------
    memory : dict of Tensor
        ``index`` and ``task`` ``(capacity + 1,)`` and ``count`` (0-d).
    rank : Tensor
        ``(capacity,)`` int64, position of each exemplar in the herding order of its class.
    times : Tensor
        ``(C,)`` int64, number of earlier experiences in which each class was present.
    features : Tensor
        ``(n, F)``, features of the experience's samples.
    labels : Tensor
        ``(n,)`` int64.
    data : ExperienceData
        The experience; its ``memory`` must not be None.

    Returns
    -------
    memory : dict of Tensor
        The tensors of ``memory`` with the new exemplars, ordered by class and within a class by rank.
    rank : Tensor
        ``(capacity,)``.
    """
    capacity, classes = rank.shape[0], data.seen.shape[0]
    quota = capacity // data.seen_count
    past = torch.where(data.classes, quota * times // (times + 1), quota)
    assert data.memory is not None
    label = [torch.cat([part.y for part in data.memory.batches()])]
    index, task, ranks = [memory["index"][:-1]], [memory["task"][:-1]], [rank]
    valid = [data.memory.valid & (rank < past[label[0]])]
    present = torch.sort((~data.classes).long(), stable=True).indices[: data.class_count]
    places = torch.arange(quota, device=features.device)
    for kind in present.unbind(0):
        chosen, real = herd(features, labels == kind, quota)
        index.append(data.index[chosen])
        task.append(data.task[chosen])
        ranks.append(places)
        label.append(kind.expand(quota))
        valid.append(real & (places < quota - torch.where(times[kind] > 0, past[kind], 0)))
    keep = torch.cat(valid)
    order, place = by_class(torch.cat(label), torch.cat(ranks), keep, classes)
    order, place = order[:capacity], place[:capacity]
    new = {"index": torch.cat(index)[order], "task": torch.cat(task)[order]}
    return {k: torch.cat([v, memory[k][-1:]]) for k, v in new.items()} | {"count": keep.sum()}, place

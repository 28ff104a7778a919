"""The works that are timed: class-incremental Split-Fashion-MNIST, one pass, on a cut of the data."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cl_lib import Memory, datasets, streams
from cl_lib.datasets import Dataset
from cl_lib.engine.weights import ModelFactory
from cl_lib.models import MLP, ConvNet
from cl_lib.strategies import AGEM, ER, EWC, DERpp, Strategy
from cl_lib.streams.stream import Stream

EXPERIENCES, LR, CAPACITY = 5, 0.1, 500


@dataclass(frozen=True)
class Work:
    """One strategy on one network with one batch size.

    Attributes
    ----------
    title : str
        What the table says of it.
    strategy : Strategy
    model : callable
        ``(shape, classes) -> nn.Module``, the same for all sides.
    batch : int
        New samples a step; the memory says how many are recalled.
    bar : bool
        Whether a target is set for it, or it is shown only.
    """

    title: str
    strategy: Strategy
    model: ModelFactory
    batch: int
    bar: bool = True


def er(batch: int) -> ER:
    """Experience replay with ``batch`` recalled samples a step."""
    return ER(Memory(CAPACITY, batch))


MIDDLE = MLP.factory(hidden=(100, 100))
WORKS = {
    "W1": Work("ER, MLP 784-16-16-10, 10 + 10", er(10), MLP.factory(hidden=(16, 16)), 10),
    "W2": Work("ER, MLP 784-100-100-10, 10 + 10", er(10), MIDDLE, 10),
    "W3": Work("ER, MLP 784-256-256-10, 10 + 128", er(128), MLP.factory(hidden=(256, 256)), 10),
    "W4": Work("ER, convnet, 32 + 32", er(32), ConvNet.factory(), 32),
    "W2-DER++": Work("DER++, MLP 784-100-100-10, 10 + 10 + 10", DERpp(Memory(CAPACITY, 10)), MIDDLE, 10, bar=False),
    "W2-EWC": Work(
        "online EWC, MLP 784-100-100-10, 10",
        EWC(lam=1.0, mode="online", fisher="empirical", samples=200),
        MIDDLE,
        10,
        bar=False,
    ),
    "W2-A-GEM": Work("A-GEM, MLP 784-100-100-10, 10 + 10", AGEM(Memory(CAPACITY, 10, "ring")), MIDDLE, 10, bar=False),
}


def cut(data: Dataset, per_experience: int, test: int) -> Dataset:
    """The same samples for every side and seed: so many of each pair of classes, and the first ``test`` to be asked."""
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
    pair = data.train.y[order] // (len(data.classes) // EXPERIENCES)
    chosen = torch.cat([order[pair == e][:per_experience] for e in range(EXPERIENCES)])
    return Dataset(data.name, data.train.take(chosen), data.test.take(slice(test)), data.classes, data.mean, data.std)


def make_stream(work: Work, steps: int, test: int) -> Stream:
    """Five experiences of at most ``steps`` steps; every answer is over all ten classes."""
    data = cut(datasets.fashion_mnist(), steps * work.batch, test)
    return streams.split(data, EXPERIENCES, eval_classes="all")

"""Conversion of a stream to an Avalanche benchmark; no other module imports Avalanche."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from cl_lib.engine.resident import gather, tables, upload
from cl_lib.errors import InputError
from cl_lib.streams.stream import Stream


def benchmark(stream: Stream, seed: int = 0) -> Any:
    """Convert a stream for one seed to a benchmark that Avalanche's strategies can train on.

    Parameters
    ----------
    stream : Stream
        A stream whose training loss is over all classes, or a task-incremental stream.
    seed : int, default 0
        Seed of the stream: class order, permutations, angles.

    Returns
    -------
    avalanche.benchmarks.CLScenario
        ``train_stream`` with the experiences of the stream, ``test_stream`` with an experience for each test set.
        Inputs are float32, normalised and transformed; targets are the stream's labels; task labels are the test column
        in task-incremental streams (as multi-head models need) and 0 in all others.

    Raises
    ------
    InputError
        If Avalanche is not installed, and for streams that it cannot express: a class mask within one head, or data
        that are not tensors.

    Notes
    -----
    All inputs are copied to float32 tensors in memory, those of permuted and rotated streams once for each experience:
    3.1 kB for an image of 28x28. Avalanche decides which classes may be predicted at test time (``eval_classes`` is not
    used). Validation sets are left out.

    Examples
    --------
    >>> from cl_lib import datasets, streams
    >>> scenario = benchmark(streams.split(datasets.digits()))  # doctest: +SKIP
    >>> [len(e.dataset) for e in scenario.train_stream]  # doctest: +SKIP
    [270, 270, 272, 270, 265]
    """
    _check(stream)
    try:
        from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline, with_task_labels
        from avalanche.benchmarks.utils.classification_dataset import TaskAwareSupervisedClassificationDataset
        from avalanche.benchmarks.utils.data_attribute import DataAttribute, TaskLabels
    except ImportError as error:
        raise InputError(
            f'interop.avalanche: needs Avalanche; run pip install "cl-lib[avalanche]" ({error})'
        ) from error

    real, dtype, device = stream.realise(seed), torch.float32, torch.device("cpu")
    table = {name: values[0] for name, values in tables([real], dtype, device).items()}
    train, test = (upload(stream.data, part, dtype, device) for part in (stream.data.train, stream.data.test))

    def dataset(shared: dict[str, Tensor], index: Tensor, task: Tensor) -> Any:
        x, y = gather(shared, table, index, task, dtype)
        task_labels = task if stream.scenario == "task" else torch.zeros_like(task)
        attributes = [DataAttribute(y.tolist(), "targets"), TaskLabels(task_labels.tolist())]
        return TaskAwareSupervisedClassificationDataset([TensorDataset(x, y)], data_attributes=attributes)

    scenario = benchmark_from_datasets(
        train=[dataset(train, e.train, e.task) for e in real.experiences],
        test=[dataset(test, index, torch.full_like(index, column)) for column, index in enumerate(real.tests)],
    )
    return with_task_labels(with_classes_timeline(scenario))


def _check(stream: Stream) -> None:
    """Raise `InputError` for a stream that Avalanche would train on differently."""
    if not isinstance(stream, Stream):
        raise InputError(f"stream: expected a cl_lib stream, got {type(stream).__name__}")
    if not all(isinstance(part.x, Tensor) for part in (stream.data.train, stream.data.test)):
        raise InputError(f"stream {stream.name}: its data must be tensors in memory for Avalanche")
    masked = stream.train_classes == "seen" or (stream.train_classes == "experience" and stream.scenario != "task")
    if masked:
        raise InputError(
            f"stream.train_classes={stream.train_classes}: Avalanche has no class mask within one head; use "
            "train_classes=all, or scenario=task"
        )

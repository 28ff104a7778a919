"""A stream handed to Avalanche is the one that cl_lib trains on."""

from __future__ import annotations

import importlib.util
import sys
import warnings

import pytest
import torch

from cl_lib import InputError, datasets, streams
from cl_lib.engine.resident import gather, tables, upload
from cl_lib.interop.avalanche import benchmark

NEEDED = pytest.mark.skipif(
    importlib.util.find_spec("avalanche") is None, reason='Avalanche is not installed: pip install "cl-lib[avalanche]"'
)
STREAMS = {
    "split": lambda data: streams.split(data, class_order="seed"),
    "task": lambda data: streams.split(data, scenario="task"),
    "domain": lambda data: streams.split(data, scenario="domain"),
    "permuted": lambda data: streams.permuted(data, 3),
    "rotated": lambda data: streams.rotated(data, 3),
    "online": lambda data: streams.online(streams.split(data), chunk=100),
}


@pytest.fixture(scope="module")
def _imported():
    with warnings.catch_warnings():  # what Avalanche's own imports warn of is not ours to mend
        warnings.simplefilter("ignore")
        import avalanche.benchmarks  # noqa: F401


@NEEDED
@pytest.mark.usefixtures("_imported")
@pytest.mark.parametrize("name", STREAMS)
def test_each_experience_has_the_inputs_labels_and_tasks_of_the_realisation(name):
    stream = STREAMS[name](datasets.digits())
    made, real = benchmark(stream, seed=3), stream.realise(3)
    cpu = torch.device("cpu")
    table = {k: v[0] for k, v in tables([real], torch.float32, cpu).items()}
    trained = [(e.train, e.task) for e in real.experiences]
    asked = [(index, torch.full_like(index, j)) for j, index in enumerate(real.tests)]
    for part, ours, theirs in (
        (stream.data.train, trained, made.train_stream),
        (stream.data.test, asked, made.test_stream),
    ):
        shared = upload(stream.data, part, torch.float32, cpu)
        assert len(ours) == len(theirs)
        for (index, task), experience in zip(ours, theirs, strict=True):
            x, y = gather(shared, table, index, task, torch.float32)
            assert len(experience.dataset) == len(index)
            assert list(experience.dataset.targets) == y.tolist()
            tasks = task.tolist() if stream.scenario == "task" else [0] * len(index)
            assert list(experience.dataset.targets_task_labels) == tasks
            assert experience.classes_in_this_experience == set(y.tolist())
            for i in (0, len(index) - 1):
                sample = experience.dataset[i]
                assert torch.equal(sample[0], x[i])
                assert (int(sample[1]), int(sample[2])) == (int(y[i]), tasks[i])


@NEEDED
@pytest.mark.usefixtures("_imported")
def test_avalanche_trains_on_it():
    from avalanche.training.supervised import Naive

    scenario = benchmark(streams.split(datasets.digits()))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    before = net[1].weight.detach().clone()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    strategy = Naive(model=net, optimizer=optimiser, train_mb_size=10, evaluator=lambda: _silent())
    strategy.train(scenario.train_stream[0])
    assert strategy.clock.train_iterations == 27
    assert not torch.equal(net[1].weight, before)


def _silent():
    from avalanche.training.plugins import EvaluationPlugin

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing will be logged
        return EvaluationPlugin()


@pytest.mark.parametrize("classes", ["seen", "experience"])
def test_a_class_mask_is_refused(classes):
    with pytest.raises(InputError, match=rf"train_classes={classes}: Avalanche has no class mask"):
        benchmark(streams.split(datasets.digits(), train_classes=classes))


def test_what_is_no_stream_is_refused():
    with pytest.raises(InputError, match="expected a cl_lib stream, got list"):
        benchmark([])


def test_without_avalanche_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "avalanche", None)
    monkeypatch.setitem(sys.modules, "avalanche.benchmarks", None)
    with pytest.raises(InputError, match=r'pip install "cl-lib\[avalanche\]"'):
        benchmark(streams.split(datasets.digits()))

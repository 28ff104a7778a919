"""What a group of replicas is trained with: its plan, its learners and its evaluators."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from cl_lib.engine.learners import Learners
from cl_lib.engine.looped import Looped
from cl_lib.engine.net import FunctionalNet
from cl_lib.engine.population import Population
from cl_lib.engine.weights import build
from cl_lib.errors import InputError
from cl_lib.harness.evaluate import Evaluator
from cl_lib.harness.groups import Group, first_and_last, labels
from cl_lib.harness.job import Job
from cl_lib.models.structure import has_batch_statistics, head_of, is_convolutional
from cl_lib.plan.plan import Plan
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Phase


def check_batches(job: Job, group: Group) -> None:
    """Raise `InputError` if a batch of the stream is too small for the model's batch statistics."""
    spec = job.spec()
    if not has_batch_statistics(job.module) or not isinstance(job.strategy, Strategy):
        return
    for number, experience in enumerate(group.realisations[0].experiences):
        for phase in job.strategy.phases(number, spec):
            size = phase.batch_size or job.batch_size
            if phase.source == "experience" and len(experience.train) % size == 1 and phase.trainable != ():
                raise InputError(
                    f"batch_size={size}: leaves a last batch of one sample in experience {number + 1} "
                    f"({len(experience.train)} samples), and BatchNorm needs two; choose another batch_size"
                )


def make_plan(job: Job, group: Group) -> Plan:
    """Plan of a group; sets the group's ``steps``, ``learned`` and ``before``."""
    spec = job.spec()
    strategy = job.strategy if isinstance(job.strategy, Strategy) else None
    y = job.stream.data.train.y
    phases = [strategy.phases(e, spec) if strategy else (Phase(),) for e in range(job.stream.length)]
    plan = Plan(
        streams=[r.experiences for r in group.realisations],
        labels=[labels(r, y) for r in group.realisations],
        seeds=[job.replicas[m].seed for m in group.members],
        classes=spec.classes,
        batch_size=job.batch_size,
        epochs=job.epoch_list,
        phases=phases,
        memory=strategy.memory if strategy else None,
        draws=strategy.draws() if strategy else (),
        noise=strategy.noise(spec) if strategy else {},
        dtype=job.torch_dtype,
    )
    group.steps = plan.total
    evaluated = [0, *(e + 1 for e in range(job.stream.length) if job.evaluates(e))]
    rows = [first_and_last(job.stream, real, phases, evaluated) for real in group.realisations]
    group.learned, group.before = (np.stack(part) for part in zip(*rows, strict=True))
    return plan


def make_learners(job: Job, group: Group, plan: Plan) -> Learners:
    """The replicas of a group, not yet trained."""
    replicas = job.replicas
    members = [replicas[m] for m in group.members]
    if not isinstance(job.strategy, Strategy):
        learners = [job.make_learner(m.seed) for m in members]
        data = job.stream.data
        return Looped(learners, plan, data, group.realisations, job.torch_dtype, job.torch_device, job.store)
    spec = job.spec()
    modules = build(job.model, spec.shape, spec.classes, [m.seed for m in members])
    # vectorised convolutions become grouped convolutions, which on a CPU are slower than replicas in sequence
    worth = len(members) > 1 and not (job.torch_device.type == "cpu" and is_convolutional(modules[0]))
    always = job.lift == "always"
    lifted = job.strategy.liftable and (always or (job.lift == "auto" and worth))
    return Population(
        job.strategy,
        modules,
        job.optim,
        plan,
        job.stream.data,
        group.realisations,
        job.spec(_features(modules[0], spec.shape, job)),
        hyper={name: [m.hyper[name] for m in members] for name in job.grid},
        train_classes=job.stream.train_classes,
        dtype=job.torch_dtype,
        device=job.torch_device,
        lifted=lifted,
        together=not (always and job.torch_device.type == "cpu"),
        compiled=job.compile,
        bfloat16=job.matmul == "bf16",
        store=job.store,
    )


def make_evaluator(job: Job, group: Group) -> Evaluator:
    """Evaluator of a group on the run's test sets."""
    real, device = group.realisations, job.torch_device
    return Evaluator(job.stream, real, job.eval_on, job.torch_dtype, device, job.store, job.save_predictions)


def make_validator(job: Job, group: Group) -> Evaluator | None:
    """Evaluator on the validation samples of each window in time, None if there are none."""
    windows = job.stream.length == len(job.stream.columns) and job.eval_every == 1 and job.eval_on == "test"
    first = group.realisations[0]
    if not windows or first.targets is not None or not all(map(len, first.valids)):
        return None
    if any(not torch.equal(a, b) for r in group.realisations for a, b in zip(r.valids, first.valids, strict=True)):
        return None
    return Evaluator(job.stream, group.realisations, "valid", job.torch_dtype, job.torch_device, job.store)


def _features(module: nn.Module, shape: tuple[int, ...], job: Job) -> int:
    """Number of features, 0 if the network's head is unknown."""
    if head_of(module) is None:
        return 0
    with torch.no_grad():
        buffers = dict(module.named_buffers())
        first = next(module.parameters())
        x = torch.zeros(2, *shape, dtype=first.dtype, device=first.device)  # batch statistics need two samples
        out = FunctionalNet(module, buffers)(dict(module.named_parameters()), x, torch.zeros(2, dtype=torch.long))
    return out.features.shape[1]

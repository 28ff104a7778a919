"""The training loop: plan, train and evaluate, with one row per evaluation; interruptible at every step."""

from __future__ import annotations

import errno
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from cl_lib.engine.learners import Learners
from cl_lib.engine.looped import Looped
from cl_lib.engine.net import FunctionalNet
from cl_lib.engine.population import Population
from cl_lib.engine.precision import products
from cl_lib.engine.weights import build
from cl_lib.errors import InputError, within_memory
from cl_lib.files import Lock, plain
from cl_lib.harness import resume as checkpoints
from cl_lib.harness.evaluate import Evaluator
from cl_lib.harness.groups import Group, first_and_last, labels, make_groups
from cl_lib.harness.job import Job, Replica
from cl_lib.harness.live import CANDIDATE, LOSSES, Live
from cl_lib.harness.result import Result
from cl_lib.models.structure import has_batch_statistics, head_of, is_convolutional
from cl_lib.plan.plan import Block, Plan
from cl_lib.record.record import CHECKPOINT
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Phase, Row

CHECKPOINT_SECONDS = 60.0


class Interrupted(KeyboardInterrupt):
    """Raised on Ctrl-C after the state has been saved; ``step`` of ``steps`` steps were done."""

    def __init__(self, step: int, steps: int, out: Path | None) -> None:
        self.step, self.steps, self.out = step, steps, out
        super().__init__(f"interrupted at step {step} of {steps}")


class Session:
    """Execution of one job; iterating over it trains and yields the rows."""

    def __init__(self, job: Job, out: Path | None = None, resume: bool = False, progress: bool = False) -> None:
        job.check()
        self.job, self.out, self.progress = job, out, progress
        self.replicas: list[Replica] = job.replicas
        self.device = job.torch_device
        self.groups = make_groups(job, self.replicas)
        self.seconds = {"training": 0.0, "consolidation": 0.0, "evaluation": 0.0, "planning": 0.0, "preparation": 0.0}
        self.stop = False
        self.done = self.total = 0
        self.saved_at = 0.0
        self.learner: Learners | None = None
        """The replicas being trained; after the run, those of the last group."""
        self.description = plain(job.describe())
        self.lock: Lock | None = None
        """Lock that keeps other runs from writing to ``out``."""
        self.warned = False
        self.live: Live | None = None
        self.valid: Evaluator | None = None
        self.before: dict[str, Any] | None = None
        """State before the experience within which a run with a policy is resumed."""
        self.start: dict[str, Any] = {"group": 0, "experience": 0, "step": 0}
        self.saved: dict[str, Any] = {}
        self._check_model()
        if resume and out is not None and (out / CHECKPOINT).exists():
            self.saved, self.start, seconds = checkpoints.load(out, self.description, self.groups)
            self.seconds |= seconds

    def __repr__(self) -> str:
        return f"Session({self.job!r}, step {self.done} of {self.total})" if self.total else f"Session({self.job!r})"

    def _check_model(self) -> None:
        """Raise `InputError` if a batch of the stream is too small for the model's batch statistics."""
        job, spec = self.job, self.job.spec()
        if not has_batch_statistics(job.module) or not isinstance(job.strategy, Strategy):
            return
        for number, experience in enumerate(self.groups[0].realisations[0].experiences):
            for phase in job.strategy.phases(number, spec):
                size = phase.batch_size or job.batch_size
                if phase.source == "experience" and len(experience.train) % size == 1 and phase.trainable != ():
                    raise InputError(
                        f"batch_size={size}: leaves a last batch of one sample in experience {number + 1} "
                        f"({len(experience.train)} samples), and BatchNorm needs two; choose another batch_size"
                    )

    def __iter__(self) -> Iterator[Row]:
        with within_memory(f"{self.job.name}: {len(self.replicas)} replicas"):
            yield from self._rows()

    def _rows(self) -> Iterator[Row]:
        if self.device.type == "cuda":
            torch.cuda.init()
            torch.cuda.reset_peak_memory_stats()
        plans = [self._plan(group) for group in self.groups]
        self.total = sum(plan.total for plan in plans)
        done = sum(plan.total for plan in plans[: self.start["group"]]) + self.start["step"]
        for finished in self.groups[: self.start["group"]]:  # groups finished before the run was resumed
            if self.job.save_predictions:
                finished.samples = self._evaluator(finished).samples()
            yield from finished.rows
        with tqdm(
            total=self.total, initial=done, disable=not self.progress, unit="step", desc=self.job.name, leave=False
        ) as bar:
            for number in range(self.start["group"], len(self.groups)):
                yield from self._run(number, self.groups[number], plans[number], bar)

    def result(self) -> Result:
        """Result of the finished run, from which its record is computed."""
        stream = self.job.stream
        return Result(
            description=self.description,
            seeds=[int(seed) for seed in self.job.seed_list],
            replicas=self.replicas,
            groups=self.groups,
            length=stream.length,
            eval_classes=stream.eval_classes,
            classes=list(stream.classes),
            columns=list(stream.columns),
            slices={name: list(column.labels) for name, column in stream.data.test.columns.items()},
            seconds=self.seconds,
            batch_size=self.job.batch_size,
            device=self.device,
        )

    # ------------------------------------------------------------------ one group of replicas
    def _plan(self, group: Group) -> Plan:
        job, spec = self.job, self.job.spec()
        strategy = job.strategy if isinstance(job.strategy, Strategy) else None
        y = job.stream.data.train.y
        phases = [strategy.phases(e, spec) if strategy else (Phase(),) for e in range(job.stream.length)]
        plan = Plan(
            streams=[r.experiences for r in group.realisations],
            labels=[labels(r, y) for r in group.realisations],
            seeds=[self.replicas[m].seed for m in group.members],
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
        evaluated = [0, *(e + 1 for e in range(job.stream.length) if self._evaluates(e))]
        rows = [first_and_last(job.stream, real, phases, evaluated) for real in group.realisations]
        group.learned, group.before = (np.stack(part) for part in zip(*rows, strict=True))
        return plan

    def _learner(self, group: Group, plan: Plan) -> Learners:
        job = self.job
        members = [self.replicas[m] for m in group.members]
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

    def _run(self, number: int, group: Group, plan: Plan, bar: tqdm[Any]) -> Iterator[Row]:
        start = self.start if self.start["group"] == number else {"experience": 0, "step": 0}
        with self._computing():
            self.live = None
            self.learner, evaluator = self._begin(group, plan)
            self.live = Live(self.job.policy, group, self.job) if self.job.policy is not None else None
        yield from group.rows
        self.done, self.saved_at = int(bar.n), time.perf_counter()
        for e in range(self.job.stream.length):
            row: Row | None = None
            with self._guard(), self._computing():
                blocks = self._blocks(plan, e, self.learner)
                if e < start["experience"]:
                    for _ in blocks:
                        pass
                    continue
                self.learner.begin_experience(e)
                if self.live is not None and not self.live.begin(e, self.learner, self.before):
                    blocks = self._skipped(blocks, bar)
                self.before = None
                for block, ahead in blocks:
                    with products("tf32" if self.job.matmul == "tf32" else "ieee", self.device):
                        self._train(block, ahead, max(0, start["step"] - block.first_step), (number, e), bar)
                if self.live is None or self.live.trains:
                    began = self._now()
                    self.learner.end_experience(e)
                    self.seconds["consolidation"] += self._now() - began
                if self._evaluates(e):
                    row = self._row(e + 1, group, plan, self.learner, evaluator)
                    self._show(bar, row)
                if self.stop:
                    self._interrupt(number, e + 1, plan.step)
            if row is not None:
                yield row
        group.parameters, group.memory_bytes = self.learner.parameters, self.learner.memory_bytes
        self.seconds["preparation"] += self.learner.preparation

    def _begin(self, group: Group, plan: Plan) -> tuple[Learners, Evaluator]:
        """Replicas of a group and their evaluator: restored from a checkpoint, or new and evaluated before training."""
        job = self.job
        learner = self._learner(group, plan)
        evaluator = self._evaluator(group)
        if job.save_predictions:
            group.samples = evaluator.samples()
            self.valid = self._valid(group)
        if group.rows:  # resumed
            self.before = self.saved.pop("before", None)
            learner.restore(self.saved)
            self.saved = {}
        else:
            self._row(0, group, plan, learner, evaluator)
        return learner, evaluator

    def _valid(self, group: Group) -> Evaluator | None:
        """Evaluator on the validation samples of each window in time, None if there are none."""
        job = self.job
        windows = job.stream.length == len(job.stream.columns) and job.eval_every == 1 and job.eval_on == "test"
        first = group.realisations[0]
        if not windows or first.targets is not None or not all(map(len, first.valids)):
            return None
        if any(not torch.equal(a, b) for r in group.realisations for a, b in zip(r.valids, first.valids, strict=True)):
            return None
        return Evaluator(job.stream, group.realisations, "valid", job.torch_dtype, self.device, job.store)

    def _evaluator(self, group: Group) -> Evaluator:
        job, real = self.job, group.realisations
        return Evaluator(job.stream, real, job.eval_on, job.torch_dtype, self.device, job.store, job.save_predictions)

    def _train(self, block: Block, ahead: Block | None, s: int, position: tuple[int, int], bar: tqdm[Any]) -> None:
        """Train a block from its step ``s`` on, writing checkpoints periodically."""
        assert self.learner is not None
        began = self._now()
        while s < len(block):
            count = self.learner.observe(block, s, ahead)
            s += count
            bar.update(count)
            self.done += count
            stop = self._stops(self.done)
            if stop or time.perf_counter() - self.saved_at > CHECKPOINT_SECONDS:
                self.seconds["training"] += self._now() - began
                if stop:
                    self._interrupt(*position, block.first_step + s)
                self._save(*position, block.first_step + s)
                began = self.saved_at = self._now()
        self.seconds["training"] += self._now() - began

    def _blocks(self, plan: Plan, experience: int, learner: Learners) -> Iterator[tuple[Block, Block | None]]:
        """Yield each block with the next block, which is planned in advance so that its data can be prefetched."""
        blocks = (part for block in plan.experience(experience) for part in learner.cut(block))
        block = self._planned(blocks)
        while block is not None:
            ahead = self._planned(blocks)
            yield block, ahead
            block = ahead

    def _planned(self, blocks: Iterator[Block]) -> Block | None:
        began = time.perf_counter()
        block = next(blocks, None)
        self.seconds["planning"] += time.perf_counter() - began
        return block

    def _evaluates(self, experience: int) -> bool:
        number = experience + 1
        return number % self.job.eval_every == 0 or number == self.job.stream.length

    def _row(self, number: int, group: Group, plan: Plan, learner: Learners, evaluator: Evaluator) -> Row:
        began = self._now()
        trained = plan.last_step >= 0
        last = group.rows[-1].arrays if group.rows else {}
        live = self.live if self.job.policy is not None else None
        if live is not None and not live.trains:
            return self._unchanged(number, group, plan, live)
        temperature = np.ones(len(group.members)) if self.valid is not None else None
        if self.valid is not None and number > 0:
            temperature = self.valid.temperature(learner, trained, number - 1)
        arrays = evaluator.run(learner, trained, last.get("samples.bits"), temperature)
        if temperature is not None:
            arrays["recalibration.temperature"] = temperature
        diverged = learner.diverged
        for name, values in arrays.items():
            if not name.endswith("count") and name != "support" and not name.startswith("samples."):
                values[diverged >= 0] = np.nan
        if self.job.policy is None:
            arrays["age"] = np.where(trained, plan.step - 1 - plan.last_step, -1)
        arrays["diverged"] = diverged
        if (loss := learner.loss) is not None:
            arrays["loss"] = loss
        if live is not None:
            arrays = live.end(arrays, learner)
        elif self.job.policy is not None:
            arrays |= self._untrained(arrays)
        if self.job.save_predictions:
            arrays |= _memory(learner, len(self.job.stream.columns))
        else:
            last.pop("samples.bits", None)
        row = Row(number, plan.step, group.members, arrays)
        group.rows.append(row)
        if live is not None:
            live.take(row)
        self.seconds["evaluation"] += self._now() - began
        return row

    def _untrained(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What a policy adds to the row of the untrained network."""
        assert self.job.policy is not None
        candidates = [name for name in arrays if name in LOSSES.values()] if self.job.policy.candidates else []
        served = np.zeros(len(arrays["accuracy"]), int)
        return {"served": served, **{CANDIDATE + name: arrays[name].copy() for name in candidates}}

    def _unchanged(self, number: int, group: Group, plan: Plan, live: Live) -> Row:
        """Row after a window that no replica was trained on."""
        assert self.learner is not None
        arrays = live.end(None, self.learner)
        if self.job.save_predictions:
            arrays |= _memory(self.learner, len(self.job.stream.columns))
        row = Row(number, plan.step, group.members, arrays)
        group.rows.append(row)
        live.take(row)
        return row

    def _skipped(
        self, blocks: Iterator[tuple[Block, Block | None]], bar: tqdm[Any]
    ) -> Iterator[tuple[Block, Block | None]]:
        """Plan blocks that are not trained; the planned memory goes on."""
        for block, _ in blocks:
            bar.update(len(block))
            self.done += len(block)
        yield from ()

    def _show(self, bar: tqdm[Any], row: Row) -> None:
        if self.progress and np.isfinite(row.accuracy).any():
            bar.set_postfix_str(f"experience {row.experience}, accuracy {np.nanmean(row.accuracy):.3f}")

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    # ------------------------------------------------------------------ interrupting and resuming
    def _stops(self, done: int) -> bool:
        """Whether to stop after ``done`` steps."""
        return self.stop

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Full precision outside training steps; inference mode is off, since its tensors cannot be trained."""
        with torch.inference_mode(False), products("ieee", self.device):
            yield

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Defer Ctrl-C to the end of a step, when the state is consistent; a second Ctrl-C stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: FrameType | None) -> None:
            if self.stop:
                raise KeyboardInterrupt
            self.stop = True

        before = signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, group: int, experience: int, step: int) -> NoReturn:
        """Save the state and end the run."""
        self._save(group, experience, step)
        raise Interrupted(self.done, self.total, self.out)

    def _save(self, group: int, experience: int, step: int) -> None:
        if self.out is None or self.learner is None or not self.learner.tree:
            return
        position = {"group": group, "experience": experience, "step": step}
        try:
            if self.lock is not None and not self.lock.held:
                raise FileNotFoundError(errno.ENOENT, "it was removed while the run was writing there")
            tree = self.learner.tree
            if self.live is not None and self.live.before is not None:
                tree = {**tree, "before": self.live.before}
            checkpoints.save(self.out, self.description, tree, self.groups, position, self.seconds)
        except OSError as error:
            if not self.warned or self.stop:
                self.warned = True
                effect = "training goes on" if not self.stop else "the steps since the last checkpoint are lost"
                warnings.warn(
                    f"out={self.out}: the checkpoint cannot be written ({error.strerror or error}); {effect}",
                    RuntimeWarning,
                    stacklevel=2,
                )


def _memory(learner: Learners, columns: int) -> dict[str, np.ndarray]:
    """``(R, E)`` number of samples in memory by the experience that they come from, if there is a memory."""
    held = learner.contents()
    if not held:
        return {}
    task = held["task"].cpu()
    valid = torch.arange(task.shape[1]) < held["count"].cpu()[:, None]
    count = torch.zeros(len(task), columns, dtype=torch.int64)
    return {"memory.column": count.scatter_add_(1, task.clamp_min(0).long(), valid.long()).numpy()}


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

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
from tqdm import tqdm

from cl_lib.engine.learners import Learners
from cl_lib.engine.precision import products
from cl_lib.errors import within_memory
from cl_lib.files import Lock, plain
from cl_lib.harness import resume as checkpoints
from cl_lib.harness.assembly import check_batches, make_evaluator, make_learners, make_plan, make_validator
from cl_lib.harness.evaluate import Evaluator, memory_contents
from cl_lib.harness.groups import Group, make_groups
from cl_lib.harness.job import Job, Replica
from cl_lib.harness.live import Live
from cl_lib.harness.result import Result
from cl_lib.plan.plan import Block, Plan
from cl_lib.record.record import CHECKPOINT
from cl_lib.types import Arrays, Row

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
        self.validator: Evaluator | None = None
        self.before: dict[str, Any] | None = None
        """State before the experience within which a run with a policy is resumed."""
        self.start: dict[str, Any] = {"group": 0, "experience": 0, "step": 0}
        self.saved: dict[str, Any] = {}
        check_batches(job, self.groups[0])
        if resume and out is not None and (out / CHECKPOINT).exists():
            self.saved, self.start, seconds = checkpoints.load(out, self.description, self.groups)
            self.seconds |= seconds

    def __repr__(self) -> str:
        return f"Session({self.job!r}, step {self.done} of {self.total})" if self.total else f"Session({self.job!r})"

    def __iter__(self) -> Iterator[Row]:
        with within_memory(f"{self.job.name}: {len(self.replicas)} replicas"):
            yield from self._rows()

    def _rows(self) -> Iterator[Row]:
        if self.device.type == "cuda":
            torch.cuda.init()
            torch.cuda.reset_peak_memory_stats()
        plans = [make_plan(self.job, group) for group in self.groups]
        self.total = sum(plan.total for plan in plans)
        done = sum(plan.total for plan in plans[: self.start["group"]]) + self.start["step"]
        for finished in self.groups[: self.start["group"]]:  # groups finished before the run was resumed
            if self.job.save_predictions:
                finished.samples = make_evaluator(self.job, finished).samples()
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
    def _run(self, number: int, group: Group, plan: Plan, bar: tqdm[Any]) -> Iterator[Row]:
        start = self.start if self.start["group"] == number else {"experience": 0, "step": 0}
        with self._computing():
            self.learner, evaluator = self._begin(group, plan)
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
                trains = self.live is None or self.live.begin(e, self.learner, self.before)
                self.before = None
                for block, ahead in blocks:
                    if not trains:  # the planned memory goes on
                        self._advance(len(block), bar)
                        continue
                    with products("tf32" if self.job.matmul == "tf32" else "ieee", self.device):
                        self._train(block, ahead, max(0, start["step"] - block.first_step), (number, e), bar)
                if trains:
                    began = self._now()
                    self.learner.end_experience(e)
                    self.seconds["consolidation"] += self._now() - began
                if self.job.evaluates(e):
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
        learner, evaluator = make_learners(job, group, plan), make_evaluator(job, group)
        if job.save_predictions:
            group.samples = evaluator.samples()
            self.validator = make_validator(job, group)
        self.live = Live(job.policy, group, job) if job.policy is not None else None
        if group.rows:  # resumed
            self.before = self.saved.pop("before", None)
            learner.restore(self.saved)
            self.saved = {}
        else:
            self._row(0, group, plan, learner, evaluator)
        return learner, evaluator

    def _train(self, block: Block, ahead: Block | None, s: int, position: tuple[int, int], bar: tqdm[Any]) -> None:
        """Train a block from its step ``s`` on, writing checkpoints periodically."""
        assert self.learner is not None
        began = self._now()
        while s < len(block):
            count = self.learner.observe(block, s, ahead)
            s += count
            self._advance(count, bar)
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

    def _advance(self, steps: int, bar: tqdm[Any]) -> None:
        bar.update(steps)
        self.done += steps

    def _row(self, number: int, group: Group, plan: Plan, learner: Learners, evaluator: Evaluator) -> Row:
        """Evaluate a group, and add the row to it."""
        began = self._now()
        last = group.rows[-1].arrays if group.rows else {}
        arrays = None
        if self.live is None or self.live.trains:
            arrays = self._evaluated(number, plan, learner, evaluator, last.get("samples.bits"))
        if self.live is not None:
            arrays = self.live.end(arrays, learner)
        assert arrays is not None
        if self.job.save_predictions:
            arrays |= memory_contents(learner, len(self.job.stream.columns))
        else:
            last.pop("samples.bits", None)
        row = Row(number, plan.step, group.members, arrays)
        group.rows.append(row)
        if self.live is not None:
            self.live.take(row)
        self.seconds["evaluation"] += self._now() - began
        return row

    def _evaluated(
        self, number: int, plan: Plan, learner: Learners, evaluator: Evaluator, previous: np.ndarray | None
    ) -> Arrays:
        """Results of the replicas as they are; of diverged replicas they are NaN."""
        trained = plan.last_step >= 0
        temperature = None
        if self.validator is not None:
            temperature = np.ones(len(trained))
            if number > 0:
                temperature = self.validator.temperature(learner, trained, number - 1)
        arrays = evaluator.run(learner, trained, previous, temperature)
        if temperature is not None:
            arrays["recalibration.temperature"] = temperature
        diverged = learner.diverged
        for name, values in arrays.items():
            if not name.endswith("count") and name != "support" and not name.startswith("samples."):
                values[diverged >= 0] = np.nan
        if self.live is None:
            arrays["age"] = np.where(trained, plan.step - 1 - plan.last_step, -1)
        arrays["diverged"] = diverged
        if (loss := learner.loss) is not None:
            arrays["loss"] = loss
        return arrays

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

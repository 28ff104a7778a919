"""Plain learners (ordinary modules with ``torch.optim``), trained one after the other by the same harness."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cl_lib.datasets import Dataset
from cl_lib.engine import checkpoint
from cl_lib.engine.resident import gather, tables, upload
from cl_lib.engine.rows import Store
from cl_lib.engine.weights import hash_of
from cl_lib.errors import InputError
from cl_lib.plan.plan import Block, Plan
from cl_lib.streams.stream import SeededStream
from cl_lib.types import Batch, ExperienceData, Learner, Tensors

NORMALISED = 1e-2
"""Tolerance on the logarithm of a sum of probabilities; large enough for learners that compute in half precision."""


class Looped:
    """``R`` learners that receive their batches in turn; the counterpart of `Population`."""

    def __init__(
        self,
        learners: Sequence[Learner],
        plan: Plan,
        data: Dataset,
        realisations: Sequence[SeededStream],
        dtype: torch.dtype,
        device: torch.device,
        store: Store = "auto",
    ) -> None:
        self.learners, self.plan, self.dtype, self.device = learners, plan, dtype, device
        self.shared = upload(data, data.train, dtype, device, store)
        self.table = tables(realisations, dtype, device)
        self.found = np.full(len(learners), -1)
        self.parameters = self.memory_bytes = self.loss = None
        self.preparation = 0.0
        self.width = plan.classes
        _check_tree(self.tree)

    def _gather(self, r: int, index: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        table = {k: v[r] for k, v in self.table.items()}
        return gather(self.shared, table, index.to(self.device), task.to(self.device), self.dtype)

    def begin_experience(self, number: int) -> None:
        """Do nothing."""

    def cut(self, block: Block) -> list[Block]:
        """The whole block: its inputs are read at each step."""
        return [block]

    def observe(self, block: Block, s: int, ahead: Block | None = None) -> int:
        """Run step ``s`` of a block; a short last batch of an epoch is not padded."""
        for r, learner in enumerate(self.learners):
            n = block.size[s]
            index, task, weight = (block.batch[k][s, r, :n] for k in ("index", "task", "weight"))
            x, y = self._gather(r, index, task)
            learner.observe(Batch(x, y, weight.to(self.device), task.to(self.device), phase=block.phase.name))
        return 1

    def end_experience(self, number: int) -> None:
        """Call ``end_experience`` of each learner with the experience's data."""
        index, task = (torch.from_numpy(a) for a in self.plan.arrays(number))
        classes = self.plan.classes_in(number)
        seen = np.logical_or.reduce([self.plan.classes_in(e) for e in range(number + 1)])
        uniform, keys = self.plan.uniform(number), self.plan.keys(number)
        for r, learner in enumerate(self.learners):
            learner.end_experience(
                ExperienceData(
                    number,
                    torch.from_numpy(classes[r]),
                    torch.from_numpy(seen[r]),
                    int(classes[r].sum()),
                    int(seen[r].sum()),
                    index[r],
                    task[r],
                    uniform[r],
                    keys[r],
                    partial(self._gather, r),
                )
            )

    def begin_evaluation(self) -> None:
        """Do nothing."""

    def predict(self, x: Tensor | Sequence[Tensor], task: Tensor) -> Tensor:
        """Log-probabilities ``(R, N, C)``."""
        if isinstance(x, Tensor) and x.ndim == self.shared["x"].ndim:
            x = x.expand(len(self.learners), *x.shape)
        predictions = []
        for inputs, learner, tasks in zip(x, self.learners, task, strict=True):
            log_probs = learner.predict(inputs, tasks)
            expected = (task.shape[1], self.width)
            if not isinstance(log_probs, Tensor) or tuple(log_probs.shape) != expected:
                got = tuple(log_probs.shape) if isinstance(log_probs, Tensor) else type(log_probs).__name__
                raise InputError(f"learner: predict returned {got}, log-probabilities of shape {expected} are needed")
            predictions.append(log_probs.detach())
        stacked = torch.stack(predictions)
        total = torch.logsumexp(stacked.float(), -1)
        bad = ~torch.isfinite(total).all(1).cpu().numpy()
        sums = total.exp()[torch.isfinite(total)]
        if len(sums) and (worst := sums[(sums.log().abs()).argmax()]).log().abs() > NORMALISED:
            raise InputError(
                "learner: predict must return log-probabilities, whose exponentials sum to 1 for each sample, not to "
                f"{worst:.3g}; apply torch.log_softmax(logits, -1)"
            )
        self.found[bad & (self.found < 0)] = self.plan.step
        return stacked

    @property
    def diverged(self) -> np.ndarray:
        """``(R,)`` step at which each learner's predictions were detected to be non-finite, -1 if they were not."""
        return self.found.copy()

    def contents(self) -> Tensors:
        """Empty: what plain learners keep is unknown."""
        return {}

    @property
    def tree(self) -> dict[str, Any]:
        """The state that must be saved to resume training; empty unless every learner can be saved."""
        if not all(hasattr(learner, "save_state") and hasattr(learner, "load_state") for learner in self.learners):
            return {}
        found = torch.from_numpy(self.found)
        return {"found": found, **{str(r): x.save_state() for r, x in enumerate(self.learners)}}  # type: ignore[attr-defined]

    def restore(self, tree: dict[str, Any]) -> None:
        """Restore a saved tree."""
        current = self.tree
        if not current:
            raise InputError("resume: this learner has no save_state and load_state; it can only start again")
        self.found = tree["found"].numpy()
        for r, learner in enumerate(self.learners):
            state = current[str(r)]
            checkpoint.restore(state, tree[str(r)])
            learner.load_state(state)  # type: ignore[attr-defined]


def options_of(learner: Learner) -> dict[str, Any]:
    """Attributes that distinguish learners of the same class, as JSON: numbers, strings, networks, optimisers.

    Examples
    --------
    >>> class MyLearner:
    ...     def __init__(self, lr):
    ...         self.lr, self.net = lr, torch.nn.Identity()
    >>> options_of(MyLearner(0.1))
    {'lr': 0.1, 'net': {'model': 'Identity()', 'weights': 'e3b0c44298fc1c14'}}
    """
    return {name: _option(value) for name, value in sorted(getattr(learner, "__dict__", {}).items())}


def _option(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, nn.Module):
        return {"model": str(value), "weights": hash_of(value.state_dict())}
    if isinstance(value, torch.optim.Optimizer):
        groups = [{k: v for k, v in group.items() if k != "params"} for group in value.param_groups]
        return {"name": type(value).__name__, "groups": [_option(group) for group in groups]}
    if isinstance(value, (Tensor, np.ndarray)):
        return hash_of({"": torch.as_tensor(value)})
    if isinstance(value, Mapping):
        return {str(k): _option(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_option(v) for v in value]
    return getattr(value, "__qualname__", type(value).__qualname__)


def _check_tree(tree: Any, where: str = "save_state") -> None:
    """Raise `InputError` before training starts if a state cannot be stored in a checkpoint."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            _check_tree(value, f"{where}[{key!r}]")
    elif not isinstance(tree, Tensor):
        raise InputError(f"learner: {where} is a {type(tree).__name__}; its state must be nested dicts of tensors")

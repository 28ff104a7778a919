"""One evaluation: predictions on every experience's test set, reduced to additive sums on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cl_lib.engine.resident import gather, tables, upload
from cl_lib.metrics import ClasswiseSums, GroupSums, Scores, adaptive_ece, classwise_ece, ece
from cl_lib.streams.stream import Realisation, Stream

Arrays = dict[str, np.ndarray]
CHUNK = 250
"""Samples predicted at once; a constant, so that results do not depend on the number of replicas."""
MASKED = -1e9


class Predictor(Protocol):
    """What an evaluation needs of a population."""

    def begin_evaluation(self) -> None: ...

    def predict(self, x: Tensor, task: Tensor) -> Tensor: ...


class Evaluator:
    """The test (or validation) sets of ``R`` replicas, and the sums over them.

    Parameters
    ----------
    stream : Stream
    realisations : sequence of R Realisation
    part : {"test", "valid"}
        Whether columns are the stream's test sets or what it held out of each experience.
    """

    def __init__(
        self,
        stream: Stream,
        realisations: Sequence[Realisation],
        part: str,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.stream, self.dtype, self.device = stream, dtype, device
        self.replicas, self.columns, self.classes = len(realisations), len(stream.columns), len(stream.classes)
        samples = stream.data.test if part == "test" else stream.data.train
        self.shared = upload(stream.data, samples, dtype, device)
        self.table = tables(realisations, dtype, device)
        self.answerable = torch.stack([r.classes for r in realisations]).to(device)
        sets = [list(r.tests if part == "test" else r.valids) for r in realisations]
        self.index, self.task = _items(sets, len(samples), realisations[0].transform is not None)
        self.slices = {
            name: (column.codes.to(device), column.labels) for name, column in samples.columns.items() if column.labels
        }

    @torch.no_grad()
    def run(self, learner: Predictor, seen: np.ndarray) -> Arrays:
        """Evaluate; ``seen`` is ``(R, C)`` bool, all False before training (then every class may be answered).

        Returns
        -------
        dict of float64 arrays
            Matrices' rows ``(R, E)`` by metric name; ``pooled.*`` ``(R,)`` over all test samples;
            ``class.count/correct`` ``(R, C)`` and ``class.bins``; the same for each metadata column.
        """
        learner.begin_evaluation()
        cells = GroupSums.zeros(self.replicas, self.columns * self.classes, device=self.device)
        classwise = ClasswiseSums.zeros(self.replicas, self.columns, self.classes, device=self.device)
        slices = {k: GroupSums.zeros(self.replicas, len(v[1]), device=self.device) for k, v in self.slices.items()}
        confidences, corrects = [], []
        mask = self._mask(seen)
        for start in range(0, self.task.shape[1], CHUNK):
            index = self.index[:, start : start + CHUNK].to(self.device)
            task = self.task[:, start : start + CHUNK].to(self.device)
            x, y = self._read(index, task)
            log_probs = learner.predict(x, task)
            if mask is not None:
                allowed = torch.gather(mask, 1, task[..., None].expand(-1, -1, self.classes))
                log_probs = torch.log_softmax(torch.where(allowed, log_probs.clamp_min(-1e6), MASKED), -1)
            scores = Scores.from_log_probs(log_probs, y)
            cells.add_(scores, task * self.classes + y)
            classwise.add_(scores, task)
            for name, sums in slices.items():
                sums.add_(scores, self.slices[name][0][index])
            confidences.append(scores.confidence)
            corrects.append(scores.correct)
        return self._reduce(cells, classwise, slices, torch.cat(confidences, 1), torch.cat(corrects, 1), seen)

    def _mask(self, seen: np.ndarray) -> Tensor | None:
        """``(R, T, C)`` answerable classes, None for all."""
        if self.stream.eval_classes == "experience":
            return self.answerable
        if self.stream.eval_classes == "seen" and seen.any():
            return torch.from_numpy(seen).to(self.device)[:, None].expand(-1, self.columns, -1)
        return None

    def _read(self, index: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs ``(N, ...)`` where all replicas are asked the same, else ``(R, N, ...)``; labels ``(R, N)``."""
        if index.shape[0] == 1 and "pixel" not in self.table:
            x, y = gather(self.shared, {}, index[0], task[0], self.dtype)
            y = y.expand(self.replicas, -1)
            if "targets" in self.table:
                flat = self.table["targets"].flatten(1)
                y = flat.gather(1, task * self.table["targets"].shape[-1] + y)
            return x, y
        return torch.func.vmap(lambda table, i, t: gather(self.shared, table, i, t, self.dtype))(
            self.table, index.expand(self.replicas, -1), task
        )

    def _reduce(
        self,
        cells: GroupSums,
        classwise: ClasswiseSums,
        slices: dict[str, GroupSums],
        confidence: Tensor,
        correct: Tensor,
        seen: np.ndarray,
    ) -> Arrays:
        shape = (self.replicas, self.columns, self.classes)
        sums = {
            name: getattr(cells, name).cpu().numpy().reshape(shape) for name in ("count", "correct", "nll", "brier")
        }
        bins = cells.bins.cpu().numpy().reshape(*shape, *cells.bins.shape[2:])
        out: Arrays = {}
        count = sums["count"].sum(2)
        for name, source in (("accuracy", "correct"), ("nll", "nll"), ("brier", "brier")):
            total = sums[source].sum(2)
            out[name], out[f"pooled.{name}"] = total / count, total.sum(1) / count.sum(1)
        out["ece"], out["pooled.ece"] = ece(bins.sum(2)), ece(bins.sum((1, 2)))
        by_class = classwise.bins.cpu().numpy()
        out["classwise_ece"], out["pooled.classwise_ece"] = classwise_ece(by_class), classwise_ece(by_class.sum(1))
        out["pooled.adaptive_ece"] = adaptive_ece(confidence, correct).cpu().numpy().astype(float)
        out["adaptive_ece"] = np.array(
            [
                [float(adaptive_ece(c[t == j], k[t == j])) for j in range(self.columns)]
                for c, k, t in zip(confidence, correct, self.task.to(self.device), strict=True)
            ]
        )
        if self.stream.eval_classes == "seen" and seen.any():
            # a class that may not be answered has probability 0: its NLL says nothing
            unseen = ((sums["count"] > 0) & ~seen[:, None]).any(2)
            out["nll"][unseen] = np.nan
            out["pooled.nll"][unseen.any(1)] = np.nan
        out["pooled.bins"] = bins.sum((1, 2))
        out["support"] = count
        out["class.count"], out["class.correct"] = sums["count"].sum(1), sums["correct"].sum(1)
        out["class.bins"] = bins.sum(1)
        out["experience.bins"] = bins.sum(2)
        for name, total in slices.items():
            out[f"column.{name}.count"], out[f"column.{name}.correct"] = (
                t.cpu().numpy() for t in (total.count, total.correct)
            )
            out[f"column.{name}.bins"] = total.bins.cpu().numpy()
        return out


def _items(sets: list[list[Tensor]], size: int, transformed: bool) -> tuple[Tensor, Tensor]:
    """What is asked: ``index (1|R, N)`` and ``task (R, N)``.

    Replicas share the inputs where no transform depends on the task and each sample is asked once.
    """
    first = torch.cat(sets[0])
    if not transformed and all(len(torch.cat(own).unique()) == len(torch.cat(own)) == len(first) for own in sets):
        union = first.sort().values
        if all(torch.equal(torch.cat(own).sort().values, union) for own in sets):
            task = torch.zeros(len(sets), size, dtype=torch.long)
            for r, own in enumerate(sets):
                for column, test in enumerate(own):
                    task[r, test] = column
            return union[None], task[:, union]
    index = torch.stack([torch.cat(own) for own in sets])
    columns = [torch.cat([torch.full_like(test, j) for j, test in enumerate(own)]) for own in sets]
    return index, torch.stack(columns)

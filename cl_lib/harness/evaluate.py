"""Evaluation: predictions on every experience's test set, reduced to additive sums on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from cl_lib.engine.learners import Learners, Predictor
from cl_lib.engine.resident import gather, tables, upload
from cl_lib.engine.rows import Store
from cl_lib.errors import InputError
from cl_lib.metrics import ClasswiseSums, GroupSums, Scores, adaptive_ece, classwise_ece, ece
from cl_lib.metrics.calibration import grouped_adaptive_ece
from cl_lib.streams.stream import SeededStream, Stream
from cl_lib.types import MASKED, Tensors

Arrays = dict[str, np.ndarray]
CHUNK, LARGE = 2000, 1024
"""Number of samples predicted at once, halved for samples of more than ``LARGE`` numbers; it depends on nothing else,
so that results do not depend on the number of replicas."""
SCORED = 2**17
"""Number of probabilities (of all replicas) scored at once, at least one chunk: few calls, on tensors that fit a CPU's
cache. Results do not depend on it."""
SORTED = 2**20
"""Number of samples (of all replicas) sorted at once for the adaptive ECE, rounded to whole replicas."""
FEATURES = 256
"""Maximum of features whose inputs are counted by bin."""
CELLS = 2**17
"""Maximum of columns × classes for which classwise calibration is summed by column, in 50 MB per replica. Above it the
matrix is NaN and only the pooled value is defined."""


class Evaluator:
    """Evaluator of ``R`` replicas on their test or validation sets.

    In addition to the data it keeps 8 bytes per test sample on the device, shared by replicas with the same test sets;
    while it runs, 8 bytes more per sample and replica. All other tensors are sums.

    Parameters
    ----------
    stream : Stream
    realisations : sequence of R SeededStream
    part : {"test", "valid"}
        Whether columns are the stream's test sets or the validation samples held out of each experience.
    store : {"auto", "resident", "streamed"}
    save_predictions : bool
        Whether the results of `run` include the prediction of every sample, as ``samples.*``.
    """

    def __init__(
        self,
        stream: Stream,
        realisations: Sequence[SeededStream],
        part: str,
        dtype: torch.dtype,
        device: torch.device,
        store: Store = "auto",
        save_predictions: bool = False,
    ) -> None:
        self.save_predictions = save_predictions
        self.stream, self.dtype, self.device = stream, dtype, device
        self.replicas, self.columns, self.classes = len(realisations), len(stream.columns), len(stream.classes)
        self.chunk = CHUNK if torch.Size(stream.data.shape).numel() <= LARGE else CHUNK // 2
        samples = stream.data.test if part == "test" else stream.data.train
        self.shared = upload(stream.data, samples, dtype, device, store)
        self.table = tables(realisations, dtype, device)
        self.answerable = torch.stack([r.classes for r in realisations]).to(device)
        sets = [list(r.tests if part == "test" else r.valids) for r in realisations]
        index, task = _items(sets, len(samples), realisations[0].transform is not None)
        self.index, self.task = index.int().to(device), task.int().to(device)
        self.alike = [bool((part == part[:, :1]).all()) for part in task.split(self.chunk, 1)]  # chunks with one task
        self.slices = {
            name: (column.codes.to(device), column.labels) for name, column in samples.columns.items() if column.labels
        }
        self.present = self._present().cpu().numpy()

    def _present(self) -> Tensor:
        """``(R, E, C)`` bool, the labels in each column; raise `InputError` for labels out of range."""
        present = torch.zeros(self.replicas, self.columns * self.classes, dtype=torch.bool, device=self.device)
        valid = torch.ones((), dtype=torch.bool, device=self.device)
        for piece in self._pieces():
            _, task, label = self._samples(piece)
            valid &= ((label >= 0) & (label < self.classes)).all()
            present.scatter_(1, task * self.classes + label.clamp(0, self.classes - 1), True)
        if not valid:
            raise InputError(f"labels must lie between 0 and {self.classes - 1}")
        return present.view(self.replicas, self.columns, self.classes)

    @torch.no_grad()
    def run(
        self,
        learner: Predictor,
        seen: np.ndarray,
        previous: np.ndarray | None = None,
        temperature: np.ndarray | None = None,
    ) -> Arrays:
        """Evaluate.

        Parameters
        ----------
        learner : Predictor
        seen : ndarray
            ``(R, C)`` bool, all False before training (then every class may be predicted).
        previous : ndarray, optional
            ``samples.bits`` of the evaluation before.
        temperature : ndarray, optional
            ``(R,)``; calibration is also evaluated with logits divided by it, as ``recalibrated.*``.

        Returns
        -------
        dict of arrays
            Rows of the matrices ``(R, E)`` by metric name; ``pooled.*`` ``(R,)`` over all test samples;
            ``class.count/correct`` ``(R, C)`` and ``class.bins``; the same for each metadata column; ``predicted``
            ``(R, C)``, how often each class is predicted, and ``confidence.count`` ``(R, bins)``;
            ``flips.negative/positive`` ``(R, E)``, samples correct in the previous evaluation only and in this only.
            ``samples.bits`` ``(R, ceil(N / 8))`` uint8, the correct predictions as packed bits.
        """
        learner.begin_evaluation()
        replicas, by_column = self.replicas, self.columns * self.classes <= CELLS
        columns = GroupSums.zeros(replicas, self.columns, device=self.device)
        classes = GroupSums.zeros(replicas, self.classes, device=self.device)
        slices = {k: GroupSums.zeros(replicas, len(v[1]), device=self.device) for k, v in self.slices.items()}
        classwise = ClasswiseSums.zeros(replicas, self.columns if by_column else 1, self.classes, device=self.device)
        predicted = torch.zeros(replicas, self.classes, dtype=torch.float64, device=self.device)
        scaled = GroupSums.zeros(replicas, self.columns, device=self.device) if temperature is not None else None
        confidences, corrects, samples = [], [], []
        mask = self._mask(seen)
        for piece in self._pieces():
            index, task, label = self._samples(piece)
            single_task = self.alike[piece.start // self.chunk :]
            chunks = zip(index.split(self.chunk, 1), task.split(self.chunk, 1), single_task, strict=False)
            predictions = [self._predict(learner, mask, i, t, single) for i, t, single in chunks]
            log_probs = (predictions[0] if len(predictions) == 1 else torch.cat(predictions, 2)).transpose(1, 2)
            scores = Scores.from_log_probs(log_probs, label, check=False)
            columns.add_(scores, task, check=False)
            classes.add_(scores, label, check=False)
            for name, sums in slices.items():
                sums.add_(scores, self.slices[name][0][index], check=False)
            classwise.add_(scores, task if by_column else torch.zeros_like(task), check=False)
            assert scores.predicted is not None
            predicted.scatter_add_(1, scores.predicted, torch.ones_like(scores.nll, dtype=torch.float64))
            if scaled is not None:
                divisor = torch.from_numpy(temperature).to(log_probs)[:, None, None]
                scaled.add_(
                    Scores.from_log_probs((log_probs / divisor).log_softmax(2), label, check=False), task, check=False
                )
            confidences.append(scores.confidence)
            corrects.append(scores.correct)
            if self.save_predictions:
                samples.append((scores.predicted, scores.nll))
        confidence, correct = torch.cat(confidences, 1), torch.cat(corrects, 1)
        out = self._reduce(columns, classes, classwise, slices, confidence, correct, seen)
        out["predicted"] = predicted.cpu().numpy()
        out["confidence.count"] = out["pooled.bins"][..., 0]
        out |= self._flips(correct == 1, previous)
        if scaled is not None:
            count = scaled.count.cpu().numpy()
            out |= {f"recalibrated.{k}": getattr(scaled, k).cpu().numpy() / count for k in ("nll", "brier")}
            out["recalibrated.ece"] = ece(scaled.bins.cpu().numpy())
        if self.save_predictions:
            out["samples.confidence"] = confidence.half().cpu().numpy()
            out["samples.predicted"] = torch.cat([p for p, _ in samples], 1).cpu().numpy().astype(self._codes)
            out["samples.nll"] = torch.cat([nll for _, nll in samples], 1).clamp_max(6e4).half().cpu().numpy()
        return out

    @torch.no_grad()
    def temperature(self, learner: Predictor, seen: np.ndarray, column: int) -> np.ndarray:
        """``(R,)`` temperature that minimises the NLL of each replica on a column with the same samples for all."""
        from scipy.optimize import minimize_scalar

        learner.begin_evaluation()
        place = (self.task[0] == column).nonzero()[:, 0]
        mask, parts = self._mask(seen), []
        for chunk in place.split(self.chunk):
            index, task = self.index[:, chunk].long(), self.task[:, chunk].long().expand(self.replicas, -1)
            parts.append(self._predict(learner, mask, index, task, True))
        logits = torch.cat(parts, 2).double().cpu()  # (R, C, N)
        label = self.shared["y"][self.index[:, place].long()].expand(self.replicas, -1).cpu()

        def nll(log_temperature: float, z: Tensor, y: Tensor) -> float:
            return float(torch.nn.functional.cross_entropy(z.T / np.exp(log_temperature), y))

        found = [
            minimize_scalar(nll, bounds=(-3, 3), args=(z, y), method="bounded")
            for z, y in zip(logits, label, strict=True)
        ]
        return np.array([np.exp(f.x) if np.isfinite(f.fun) else np.nan for f in found])

    @property
    def _codes(self) -> type[np.unsignedinteger]:
        return np.uint8 if self.classes <= 2**8 else np.uint16 if self.classes <= 2**16 else np.uint32

    def _flips(self, correct: Tensor, previous: np.ndarray | None) -> Arrays:
        """Correct predictions as packed bits, and how many changed since the previous evaluation in each column."""
        bits = np.packbits(correct.cpu().numpy(), axis=-1)
        if previous is None:
            return {"samples.bits": bits}
        before = np.unpackbits(previous, axis=-1, count=correct.shape[1])
        was = torch.from_numpy(before).to(self.device).bool()
        task = self.task.long().expand_as(correct)
        out = {"samples.bits": bits}
        for name, flipped in (("negative", was & ~correct), ("positive", ~was & correct)):
            count = torch.zeros(self.replicas, self.columns, dtype=torch.float64, device=self.device)
            out[f"flips.{name}"] = count.scatter_add_(1, task, flipped.double()).cpu().numpy()
        return out

    def samples(self) -> Arrays:
        """Test samples in the order of predictions: ``index``, ``column``, ``label`` and ``slice.*`` ``(R or 1, N)``.

        ``inputs`` ``(E, F, 10)`` counts the values of at most 256 features of each column in bins between the deciles
        of the first column; ``(R, E, F, 10)`` where replicas have different inputs.
        """
        labels: list[Tensor] = []
        slices: dict[str, list[Tensor]] = {name: [] for name in self.slices}
        for piece in self._pieces():
            index, _, label = self._samples(piece)
            labels.append(label)
            for name, found in slices.items():
                found.append(self.slices[name][0][index])
        parts = {"index": self.index, "column": self.task, "label": torch.cat(labels, 1)}
        parts |= {f"slice.{name}": torch.cat(found, 1) for name, found in slices.items()}
        out = {}
        for name, codes in parts.items():
            values = codes.int().cpu().numpy()
            out[name] = values[:1] if (values == values[:1]).all() else values
        read = [self.index, self.task, *(values for name, values in self.table.items() if name != "targets")]
        alike = all(bool((values == values[:1]).all()) for values in read)
        inputs = np.stack([self._inputs(replica).numpy() for replica in range(1 if alike else self.replicas)])
        out["inputs"] = inputs[0] if (inputs == inputs[:1]).all() else inputs
        return out

    def _inputs(self, replica: int) -> Tensor:
        """``(E, F, 10)`` int64 histograms of the inputs of a replica."""
        edges: Tensor | None = None
        counts = []
        indices, tasks = (part[replica if len(part) > 1 else 0] for part in (self.index, self.task))
        for column in range(self.columns):
            index = indices[tasks == column]
            parts = []
            for chunk in index.long().split(self.chunk):
                table = {name: values[replica] for name, values in self.table.items() if name != "targets"}
                task = torch.full_like(chunk, column)
                x = gather(self.shared, table, chunk, task, self.dtype)[0].flatten(1)
                parts.append(x[:, :: max(1, -(-x.shape[1] // FEATURES))].cpu())
            x = torch.cat(parts).float().T.contiguous()
            if edges is None:
                edges = x.quantile(torch.linspace(0.1, 0.9, 9), 1).T.contiguous()
            bins = torch.searchsorted(edges, x, right=True)
            counts.append(torch.zeros(len(x), 10, dtype=torch.int64).scatter_add_(1, bins, torch.ones_like(bins)))
        return torch.stack(counts)

    def _pieces(self) -> Iterator[slice]:
        """Slices of the samples that are scored at once, in whole chunks."""
        size = self.chunk * max(1, SCORED // (self.replicas * self.classes * self.chunk))
        for start in range(0, self.task.shape[1], size):
            yield slice(start, start + size)

    def _samples(self, piece: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Indices ``(1|R, N)``, tasks and labels ``(R, N)``."""
        index, task = self.index[:, piece].long(), self.task[:, piece].long().expand(self.replicas, -1)
        label = self.shared["y"][index].expand(self.replicas, -1)
        if "targets" in self.table:
            targets = self.table["targets"]
            label = targets.flatten(1).gather(1, task * targets.shape[-1] + label)
        return index, task, label

    def _predict(self, learner: Predictor, mask: Tensor | None, index: Tensor, task: Tensor, single: bool) -> Tensor:
        """Log-probabilities of a chunk over the classes that may be predicted, ``(R, C, N)``.

        Samples are contiguous in memory: reductions over the few classes are then many times as fast.
        """
        log_probs = learner.predict(self._read(index, task[:, 0] if single else task), task).transpose(1, 2)
        if mask is None:
            return log_probs
        if mask.shape[2] > 1:
            mask = mask.gather(2, task.unsqueeze(1).expand(-1, self.classes, -1))
        return log_probs.clamp_min(-1e6).masked_fill_(mask, MASKED).log_softmax(1)

    def _mask(self, seen: np.ndarray) -> Tensor | None:
        """``(R, C, T)`` bool, classes that may not be predicted; ``(R, C, 1)`` if the same for all columns; or None."""
        if self.stream.eval_classes == "experience":
            return ~self.answerable.transpose(1, 2)
        if self.stream.eval_classes == "seen" and seen.any():
            return torch.from_numpy(~seen).to(self.device).unsqueeze(-1)
        return None

    def _read(self, index: Tensor, task: Tensor) -> Tensor | list[Tensor]:
        """Inputs ``(N, ...)`` if all replicas have the same samples, else a list of R; ``task`` is (R, N) or (R,)."""
        table = {name: values for name, values in self.table.items() if name != "targets"}

        def read_replica(table: Tensors, index: Tensor, task: Tensor) -> Tensor:
            return gather(self.shared, table, index, task, self.dtype)[0]

        if len(index) == 1 and not table:
            return read_replica({}, index[0], task[0])
        index = index.expand(self.replicas, -1)
        if self.device.type != "cpu":
            return torch.func.vmap(read_replica)(table, index, task)
        # one replica after the other: memory for all at once would be allocated again every time, which takes longer
        return [read_replica({k: v[r] for k, v in table.items()}, index[r], task[r]) for r in range(self.replicas)]

    def _reduce(
        self,
        columns: GroupSums,
        classes: GroupSums,
        classwise: ClasswiseSums,
        slices: dict[str, GroupSums],
        confidence: Tensor,
        correct: Tensor,
        seen: np.ndarray,
    ) -> Arrays:
        out: Arrays = {}
        count, bins = columns.count.cpu().numpy(), columns.bins.cpu().numpy()
        for name, sums in (("accuracy", columns.correct), ("nll", columns.nll), ("brier", columns.brier)):
            total = sums.cpu().numpy()
            out[name], out[f"pooled.{name}"] = total / count, total.sum(1) / count.sum(1)
        out["ece"], out["pooled.ece"] = ece(bins), ece(bins.sum(1))
        by_class = classwise.bins.cpu().numpy()
        out["pooled.classwise_ece"] = classwise_ece(by_class.sum(1))
        known = by_class.shape[1] == self.columns
        out["classwise_ece"] = classwise_ece(by_class) if known else np.full_like(count, np.nan)
        out["adaptive_ece"], out["pooled.adaptive_ece"] = self._adaptive(confidence, correct)
        if self.stream.eval_classes == "seen" and seen.any():
            # a class that may not be predicted has probability 0: its NLL is meaningless
            unseen = (self.present & ~seen[:, None]).any(2)
            out["nll"][unseen] = np.nan
            out["pooled.nll"][unseen.any(1)] = np.nan
        out["support"] = count
        out["experience.bins"], out["pooled.bins"] = bins, bins.sum(1)
        for name, group in (("class", classes), *((f"column.{k}", v) for k, v in slices.items())):
            for part, sums in (("count", group.count), ("correct", group.correct), ("bins", group.bins)):
                out[f"{name}.{part}"] = sums.cpu().numpy()
        return out

    def _adaptive(self, confidence: Tensor, correct: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Adaptive ECE by column ``(R, E)`` and over all samples ``(R,)``."""
        at_once = max(1, SORTED // confidence.shape[1])
        columns, pooled = [], []
        task = self.task.long().expand_as(confidence)
        for c, k, t in zip(confidence.split(at_once), correct.split(at_once), task.split(at_once), strict=True):
            columns.append(grouped_adaptive_ece(c, k, t, self.columns))
            pooled.append(adaptive_ece(c, k))
        return torch.cat(columns).cpu().numpy(), torch.cat(pooled).cpu().numpy()


def _items(sets: list[list[Tensor]], size: int, transformed: bool) -> tuple[Tensor, Tensor]:
    """The test samples: ``index (1|R, N)`` and ``task (1|R, N)``, one row where it is the same for all replicas.

    If no transform depends on the task and each sample is in one test set, all replicas use the same order of samples.
    """
    samples = [torch.cat(tests) for tests in sets]
    if not transformed and _same_samples(samples):
        index = samples[0].sort().values
        task = torch.zeros(len(sets), size, dtype=torch.long)
        for r, tests in enumerate(sets):
            for column, test in enumerate(tests):
                task[r, test] = column
        return index[None], task[:, index]
    if all(len(a) == len(b) and torch.equal(a, b) for tests in sets[1:] for a, b in zip(sets[0], tests, strict=True)):
        sets = sets[:1]
    columns = [torch.cat([torch.full_like(test, j) for j, test in enumerate(tests)]) for tests in sets]
    return torch.stack(samples[: len(sets)]), torch.stack(columns)


def _same_samples(samples: list[Tensor]) -> bool:
    """Whether all replicas have the same test samples, without repetition."""
    first = samples[0].sort().values
    return len(first.unique()) == len(first) and all(torch.equal(other.sort().values, first) for other in samples[1:])


def memory_contents(learner: Learners, columns: int) -> Arrays:
    """``(R, E)`` number of samples in memory by the experience that they come from, if there is a memory."""
    held = learner.contents()
    if not held:
        return {}
    task = held["task"].cpu()
    valid = torch.arange(task.shape[1]) < held["count"].cpu()[:, None]
    count = torch.zeros(len(task), columns, dtype=torch.int64)
    return {"memory.column": count.scatter_add_(1, task.clamp_min(0).long(), valid.long()).numpy()}

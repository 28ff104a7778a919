"""The result of a backtest: path, losses, alarms, costs, and the skill against random and best schedules."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cl_lib.policies.policy import Policy
from cl_lib.service.resampling import block_samples
from cl_lib.validation import check_choice, check_whole


@dataclass(frozen=True)
class Tuned:
    """A policy whose thresholds were chosen on the windows before ``until``; `backtest` scores it from there on."""

    policy: Policy
    until: int
    delay: int | None = None
    """Label delay and hash of the data with which it was tuned; `backtest` refuses others. None: unknown."""
    data: str | None = None


@dataclass(frozen=True, eq=False)
class Backtest:
    """How a policy served W windows in R replicas; a grid of G points adds a leading axis to what is marked with G.

    Attributes
    ----------
    policy : Policy
    points : list of dict
        Points of the grid; empty without one.
    delay : int
        Windows that labels are late.
    metric : str
        The loss.
    windows : list of str
        Names of the windows that were served.
    first : int
        Position of the first of them.
    path : ndarray
        ``(G, R, W)`` int, the row that served each window.
    loss : ndarray
        ``(G, R, W)`` mean loss of that row on the window.
    always : ndarray
        ``(R, W)`` loss of the newest row.
    kept : ndarray
        ``(G, R, W)`` loss on each window of the row that served the window before.
    alarms : ndarray
        ``(G, R, W)`` bool, whether an update was asked for before the window.
    random_loss, oracle_loss : ndarray
        ``(R, W, W)``: mean loss of all schedules with k updates, and loss of the best of them, for k = 0 to W - 1 and
        each window.
    deployed : ndarray
        ``(R, W, W)`` loss on each window of the newest row before each window; NaN for windows before it.
    labels : ndarray
        ``(G, R)`` labelled test samples: of all windows if the policy reads labels, or up to the last deployed model.
    steps : ndarray
        ``(G, R)`` training steps: of all windows if the policy reads candidates, else of the last window of each
        deployed model (the cost if only these windows are trained).
    """

    policy: Policy
    points: list[dict[str, float]]
    delay: int
    metric: str
    windows: list[str]
    first: int
    path: np.ndarray
    loss: np.ndarray
    always: np.ndarray
    kept: np.ndarray
    alarms: np.ndarray
    random_loss: np.ndarray
    oracle_loss: np.ndarray
    deployed: np.ndarray
    labels: np.ndarray
    steps: np.ndarray

    # ------------------------------------------------------------------ updates
    @cached_property
    def updated(self) -> np.ndarray:
        """``(G, R, W)`` bool, whether another row serves than before; False for the first window."""
        return np.concatenate([np.zeros_like(self.path[..., :1], bool), np.diff(self.path, axis=-1) != 0], -1)

    @property
    def updates(self) -> np.ndarray:
        """``(G, R)`` number of updates, rollbacks included."""
        return np.asarray(self.updated.sum(-1))

    @property
    def refused(self) -> np.ndarray:
        """``(G, R, W)`` bool, alarms that led to no update."""
        return self.alarms & ~self.updated

    # ------------------------------------------------------------------ losses
    @property
    def mean_loss(self) -> np.ndarray:
        """``(G, R)`` mean over the windows; NaN where a diverged model served."""
        return np.asarray(self.loss.mean(-1))

    @property
    def never(self) -> np.ndarray:
        """``(R, W)`` loss of the first row."""
        return self.random_loss[:, 0]

    @cached_property
    def random(self) -> np.ndarray:
        """``(G, R)`` mean loss of all schedules with as many updates."""
        return self._at_updates(self.random_loss).mean(-1)

    @cached_property
    def oracle(self) -> np.ndarray:
        """``(G, R)`` mean loss of the best schedule with as many updates."""
        return self._at_updates(self.oracle_loss).mean(-1)

    @cached_property
    def skill(self) -> np.ndarray:
        r"""``(G, R)`` skill for the policy's number of updates k: 0 is chance, 1 the best schedule.

        .. math:: \frac{\text{random}_k - \text{loss}}{\text{random}_k - \text{oracle}_k}

        NaN without updates, with an update before every window, and for replicas served by a diverged model. A policy
        that rolls back or deploys older rows can be above 1.
        """
        return self._skill(self.random, self.mean_loss, self.oracle)

    def _skill(self, random: np.ndarray, loss: np.ndarray, oracle: np.ndarray) -> np.ndarray:
        defined = (self.updates > 0) & (self.updates < len(self.windows) - 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(defined & (random > oracle), (random - loss) / (random - oracle), np.nan)

    def _at_updates(self, table: np.ndarray) -> np.ndarray:
        """``(G, R, W)`` losses at the policy's number of updates."""
        return np.asarray(table[np.arange(len(table)), np.minimum(self.updates, table.shape[1] - 1)])

    def interval(self, name: str = "skill", block: int = 4, resamples: int = 2000, seed: int = 0) -> np.ndarray:
        """95 % interval of ``skill`` or ``mean_loss``, means over replicas, by a moving-block bootstrap of windows.

        Seeds share one history, so an interval over seeds misses the chance in that history; blocks of consecutive
        windows, at most half of all, keep its dependence in time. The times of the updates stay as they are, so that an
        interval of the skill above 0 does not show that they are better than random ones; `p_value` tests that.

        Returns
        -------
        ndarray
            ``(G, 2)``, low and high; NaN where no replica has a skill.

        Raises
        ------
        InputError
            For another name, and for lengths that are not whole numbers of at least 1.
        """
        check_choice("name", name, ("skill", "mean_loss"))
        check_whole("block", block, 1)
        block = min(block, max(1, len(self.windows) // 2))
        draws = block_samples(len(self.windows), block, resamples, seed)
        parts = [self._at_updates(self.random_loss), self.loss, self._at_updates(self.oracle_loss)]
        if name == "mean_loss":
            parts = [self.loss]
        means = [np.stack([part[..., d].mean(-1) for d in draws]) for part in parts]  # (resamples, G, R)
        values = self._skill(*means) if name == "skill" else means[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # no replica with a skill
            return np.moveaxis(np.nanquantile(np.nanmean(values, -1), [0.025, 0.975], axis=0), 0, -1)

    def p_value(self, resamples: int = 999, seed: int = 0) -> np.ndarray:
        """Probability of a mean loss as low as this one if the times of the updates were random.

        A permutation test: the windows before which updates were made are permuted, the same way in all replicas, which
        keeps the number of updates of each replica and what replicas have in common. It is exact for policies whose
        times are random. Replicas with rows that diverged are left out.

        Returns
        -------
        ndarray
            ``(G,)``; NaN where no replica has a skill.

        Raises
        ------
        InputError
            For numbers that are not whole, or below 1 (resamples) or 0 (seed).
        """
        check_whole("resamples", resamples, 1)
        check_whole("seed", seed, 0)
        width = len(self.windows)
        upper = np.triu_indices(width)
        kept = np.isfinite(self.deployed[:, *upper]).all(-1)
        rng, places = np.random.default_rng(seed), np.arange(width)
        orders = rng.permuted(np.tile(np.arange(width - 1), (resamples, 1)), axis=1)
        table = self.deployed[kept]
        out = []
        for updated, loss, skill in zip(
            *(v if self.points else v[None] for v in (self.updated, self.mean_loss, self.skill)), strict=True
        ):
            if np.isnan(skill[kept]).all():
                out.append(np.nan)
                continue
            moved = np.zeros((len(table), resamples, width), int)
            moved[..., 1:] = np.where(updated[kept, 1:][:, orders], places[1:], 0)
            rows = np.maximum.accumulate(moved, -1)
            losses = table[np.arange(len(table))[:, None, None], rows, places].mean((0, 2))
            out.append((1 + (losses <= loss[kept].mean() + 1e-12).sum()) / (resamples + 1))
        return np.array(out) if self.points else np.asarray(out[0])

    # ------------------------------------------------------------------ alarms against what updates would have done
    @cached_property
    def helpful(self) -> np.ndarray:
        """``(G, R, W)`` bool, whether the newest row had a lower loss on the window than the row that served before."""
        out = np.asarray((self.always < self.kept) | (np.isnan(self.kept) & ~np.isnan(self.always)))
        out[..., 0] = False
        return out

    @property
    def harmful(self) -> np.ndarray:
        """``(G, R)`` number of updates that did not lower the loss on the window; updates to a diverged model count."""
        better = (self.loss < self.kept) | (np.isnan(self.kept) & ~np.isnan(self.loss))
        return np.asarray((self.updated & ~better).sum(-1))

    @property
    def precision(self) -> np.ndarray:
        """``(G, R)`` share of alarms at which an update would have helped; NaN without alarms."""
        return _ratio((self.alarms & self.helpful).sum(-1), self.alarms.sum(-1))

    @property
    def recall(self) -> np.ndarray:
        """``(G, R)`` share of the windows in which an update would have helped that had an alarm."""
        return _ratio((self.alarms & self.helpful).sum(-1), self.helpful.sum(-1))

    @property
    def costs(self) -> dict[str, np.ndarray]:
        """``updates``, ``labels`` and ``steps``, each ``(G, R)``."""
        return {"updates": self.updates, "labels": self.labels, "steps": self.steps}

    def __repr__(self) -> str:
        size = f"{len(self.windows)} windows, {self.path.shape[-2]} replicas"
        grid = f", {len(self.points)} grid points" if self.points else ""
        return f"Backtest({self.policy!r}, {size}{grid}, delay {self.delay})"

    def __str__(self) -> str:
        return table([self])


def table(results: Sequence[Backtest], names: Sequence[str] | None = None) -> str:
    """Backtests of one record side by side, one line for each policy and grid point; means over replicas."""
    first = results[0]
    head = ("policy", "delay", first.metric, "random", "oracle", "skill", "updates", "harmful", "precision", "recall")
    lines: list[tuple[str, ...]] = [head]
    done: set[int] = set()
    for number, result in enumerate(results):
        if result.delay not in done:
            done.add(result.delay)
            for name, loss in (("never", result.never), ("always", result.always)):
                count = "0" if name == "never" else str(len(result.windows) - 1)
                lines.append((name, str(result.delay), _number(loss), "", "", "", count, "", "", ""))
        values = [result.mean_loss, result.random, result.oracle, result.skill]
        counts, shares = [result.updates, result.harmful], [result.precision, result.recall]
        title = names[number] if names is not None else type(result.policy).__name__
        for g, point in enumerate(result.points or [{}]):
            at = (g,) if result.points else ()
            label = " ".join([title, *(f"{k}={v:g}" for k, v in point.items())])
            lines.append(
                (
                    label,
                    str(result.delay),
                    *(_number(v[at]) for v in values),
                    *(f"{v[at].mean():.1f}" for v in counts),
                    *(_number(v[at], 2) for v in shares),
                )
            )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            f"{c:<{w}}" if i == 0 else f"{c:>{w}}" for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _number(values: np.ndarray, digits: int = 4) -> str:
    finite = values[np.isfinite(values)]
    return f"{finite.mean():.{digits}f}" if finite.size else "–"


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(whole > 0, part / whole, np.nan))

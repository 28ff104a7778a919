"""Temperature scaling on held-out data: what it changes on data that come later, before and after side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from cl_lib.errors import InputError
from cl_lib.service.auditing import windows_of
from cl_lib.stats import paired_difference
from cl_lib.validation import check_choice

if TYPE_CHECKING:
    from cl_lib.record import Record

MEASURES = ("ece", "nll", "brier")


@dataclass(frozen=True, eq=False)
class Recalibration:
    """Calibration of U rows before and after temperature scaling, R replicas.

    Attributes
    ----------
    rows : list of int
    temperature : ndarray
        ``(R, U)``; above 1 where the model was overconfident.
    before, after : dict of ndarray
        ``ece``, ``nll`` and ``brier``, ``(R, U)``: mean over the windows that a row is evaluated on. Accuracy does not
        change.
    """

    rows: list[int]
    temperature: np.ndarray
    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]

    def __repr__(self) -> str:
        return f"Recalibration({len(self.rows)} rows, {len(self.temperature)} replicas)"

    def __str__(self) -> str:
        lines = [f"temperature {np.nanmean(self.temperature):.3f} (mean of {self.temperature.size})"]
        lines.append(f"{'':<6} {'before':>8} {'after':>8} {'change':>9}  95 % interval over seeds  p")
        for name in MEASURES:
            before, after = (np.nanmean(part[name], 1) for part in (self.before, self.after))
            change = paired_difference(after, before)
            interval = "–" if change.ci95 is None else "[{:+.4f}, {:+.4f}]".format(*change.ci95)
            p = "–" if change.p_value is None else f"{change.p_value:.3g}"
            lines.append(
                f"{name:<6} {np.nanmean(before):>8.4f} {np.nanmean(after):>8.4f} {change.mean or 0.0:>+9.4f}  "
                f"{interval:<24}  {p}"
            )
        return "\n".join(lines)


def recalibrate(record: Record, on: Literal["next", "seen", "all"] = "next") -> Recalibration:
    r"""Report what temperature scaling on the validation samples of the newest window does to later predictions.

    After each window the temperature that minimises the NLL of its held-out validation samples is fitted,

    .. math:: \tau = \arg\min_\tau -\sum_n \log \operatorname{softmax}(z_n / \tau)_{y_n},

    and the test predictions are scaled with it. Nothing is switched on: the record's other metrics are those without.

    Parameters
    ----------
    record : Record
        Of a run with ``save_predictions=True`` on a stream with ``valid`` above 0.
    on : {"next", "seen", "all"}
        Windows that each row is evaluated on: the next one, those it was trained on, or all.

    Returns
    -------
    Recalibration
        Prints as a table.

    Raises
    ------
    InputError
        If the record has no temperatures, or no row has such windows.

    References
    ----------
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.rotated(cl_lib.datasets.digits(), experiences=4, valid=0.2)
    >>> record = cl_lib.run(stream, cl_lib.strategies.Finetune(), seeds=2, save_predictions=True)
    >>> recalibrate(record, on="seen")
    Recalibration(4 rows, 2 replicas)
    """
    check_choice("on", on, ("next", "seen", "all"))
    arrays = record.arrays
    if "recalibration.temperature" not in arrays:
        raise InputError(
            "record: has no temperatures; run with save_predictions=true on a stream with validation data, such as "
            "stream.valid=0.1"
        )
    chosen = [(row, windows_of(record, row, row, on)) for row in range(1, len(record.rows))]
    chosen = [(row, windows) for row, windows in chosen if windows]
    if not chosen:
        raise InputError(f"record {record.strategy}: no row has windows to evaluate on (on={on})")

    def means(prefix: str) -> dict[str, np.ndarray]:
        return {
            name: np.stack([arrays[f"{prefix}.{name}"][:, row, windows].mean(-1) for row, windows in chosen], 1)
            for name in MEASURES
        }

    rows = [row for row, _ in chosen]
    return Recalibration(rows, arrays["recalibration.temperature"][:, rows], means("matrix"), means("recalibrated"))

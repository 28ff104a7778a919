"""Sequential change detectors on a series of errors or measurements, by way of river."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cl_lib.drift.detectors import DETECTORS, build, check_options
from cl_lib.drift.samples import Floats, numbers
from cl_lib.errors import InputError, nearest
from cl_lib.validation import check_whole


def detect(values: ArrayLike, detector: str = "adwin", rest: int = 0, **options: Any) -> NDArray[np.int64]:
    """Positions at which a sequential detector raises an alarm.

    Parameters
    ----------
    values : array_like, shape (n,)
        In order of time: errors (0 or 1) for ddm and eddm, values in [0, 1] for hddm_a and hddm_w, any numbers for the
        others. The defaults of adwin and page_hinkley suit values in [0, 1].
    detector : str, default "adwin"
        adwin, ddm, hddm_a and page_hinkley are recommended. eddm, hddm_w and kswin are there for comparison: eddm and
        hddm_w raise too many false alarms (2.3 in 10,000 for hddm_w), kswin misses small changes and is hundreds of
        times as slow as adwin. adwin, kswin and page_hinkley (``mode``) notice rises and falls, hddm_a and hddm_w falls
        with ``two_sided_test=True``, ddm and eddm rises only.
    rest : int, default 0
        Alarms at most this many values after a reported one are dropped; the detector itself goes on. Detectors start
        anew at an alarm and may raise several while a change is under way.
    **options
        Options of the detector in river, see `DETECTORS`. ``alpha`` of eddm is a level of warning, without effect here.

    Returns
    -------
    ndarray of int64, shape (alarms,)
        Positions from 0, ascending. An alarm at position i has seen ``values[:i + 1]`` only.

    Raises
    ------
    InputError
        If river is not installed; if ``values`` are empty, NaN or not what the detector is defined for; for unknown
        detectors and options, and options out of range.

    Notes
    -----
    From ``python experiments/drift_detectors.py``, with the default options: false alarms per 10,000 in 1,000,000
    errors of probability 0.25, as one stream and as 100 streams with a new detector each; median delay with 95 %
    bootstrap interval, and share of 400 series without an alarm within 5,000, after a rise to 0.35 at once, a rise over
    2,000 values, and the return to 0.25 after 5,000. Of kswin 20,000 errors and 10 series only.

    ============  ==========  ========  ========================  ========================  =========================
    detector      one stream  new ones  abrupt                    gradual                   return
    ============  ==========  ========  ========================  ========================  =========================
    adwin         0.00        0.00      503 (471 to 535), 0 %     1783 (1751 to 1815), 0 %  559 (527 to 591), 0 %
    ddm           0.00        0.56      452 (426 to 498), 0 %     1474 (1421 to 1530), 0 %  none, 100 %
    eddm          0.00        19.92     387 (300 to 452), 0 %     1390 (1186 to 1618), 0 %  none, 87 %
    hddm_a        0.00        0.17      440 (404 to 468), 0 %     1752 (1692 to 1802), 0 %  none, 97 %
    hddm_w        2.38        2.26      185 (167 to 211), 0 %     1031 (950 to 1100), 0 %   3998 (3593 to 4436), 38 %
    kswin         0.50        0.50      4636 (3869 to inf), 40 %  4636 (3895 to inf), 40 %  none, 60 %
    page_hinkley  0.58        0.13      402 (386 to 420), 0 %     1376 (1348 to 1412), 0 %  378 (364 to 395), 0 %
    ============  ==========  ========  ========================  ========================  =========================

    The longer a stream has been in control, the later ddm notices a change.

    References
    ----------
    Bifet & Gavalda, Learning from Time-Changing Data with Adaptive Windowing, SDM 2007 (adwin); Gama et al., Learning
    with Drift Detection, SBIA 2004 (ddm); Frias-Blanco et al., Online and Non-Parametric Drift Detection Methods Based
    on Hoeffding's Bounds, TKDE 2015 (hddm_a, hddm_w); Page, Continuous Inspection Schemes, Biometrika 1954
    (page_hinkley); Baena-Garcia et al., Early Drift Detection Method, 2006 (eddm); Raab et al., Reactive Soft Prototype
    Computing for Concept Drift Streams, Neurocomputing 2020 (kswin).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> errors = rng.random(8_000) < np.repeat([0.25, 0.35], 4_000)
    >>> detect(errors, "adwin"), detect(errors, "page_hinkley", threshold=60)
    (array([4447]), array([4673]))
    """
    if not isinstance(detector, str) or detector not in DETECTORS:
        hint = nearest(str(detector), DETECTORS, more=False)
        raise InputError(f"detector={detector!r}: must be one of {', '.join(sorted(DETECTORS))}{hint}")
    check_whole("rest", rest, 0)
    series = _series(values, detector)
    check_options(detector, options)
    model = build(detector, options)
    alarms: list[int] = []
    for position, value in enumerate(series.tolist()):
        model.update(value)
        if model.drift_detected and (not alarms or position > alarms[-1] + rest):
            alarms.append(position)
    return np.array(alarms, dtype=np.int64)


def _series(values: ArrayLike, detector: str) -> Floats:
    series, kind = numbers("values", values), DETECTORS[detector].values
    if kind == "bits":
        wrong, right = (series != 0) & (series != 1), "0 or 1 (an error)"
    elif kind == "[0, 1]":
        wrong, right = (series < 0) | (series > 1), "in [0, 1]"
    else:
        return series
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(f"values[{first}]={series[first]:g}: must be {right} for {detector}")
    return series

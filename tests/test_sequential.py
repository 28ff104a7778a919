"""Sequential detectors: river's answers, the rest period, false alarms, delays, and what is refused."""

from __future__ import annotations

import builtins
import csv
import importlib
import inspect
import math
from pathlib import Path

import numpy as np
import pytest

from cl_lib.drift import DETECTORS, detect
from cl_lib.errors import InputError

pytest.importorskip("river")
EXPERIMENTS = Path(__file__).parent.parent / "experiments"
TABLE = EXPERIMENTS / "results" / "drift_detectors.csv"
RECOMMENDED = ["adwin", "ddm", "hddm_a", "page_hinkley"]
with_table = pytest.mark.skipif(not TABLE.exists(), reason="experiments are not part of an installed package")


def errors(seed: int, before: int = 5_000, after: int = 3_000, high: float = 0.35) -> np.ndarray:
    return np.random.default_rng(seed).random(before + after) < np.repeat([0.25, high], [before, after])


def by_hand(values: np.ndarray, kind: str, **options) -> list[int]:
    """The loop around river's own class, with its own defaults for what is not given."""
    from river import drift

    module = drift if hasattr(drift, kind) else drift.binary
    detector, found = getattr(module, kind)(**options), []
    for i, value in enumerate(values):
        detector.update(int(value))
        if detector.drift_detected:
            found.append(i)
    return found


@pytest.mark.parametrize(
    ("name", "kind", "given", "same"),
    [
        ("adwin", "ADWIN", {}, {}),
        ("adwin", "ADWIN", {"delta": 0.2, "clock": 1}, {}),
        ("ddm", "DDM", {"warm_start": 100, "drift_threshold": 2.25}, {}),
        ("ddm", "DDM", {}, {"warm_start": 300, "drift_threshold": 2.5}),
        ("eddm", "EDDM", {}, {}),
        ("hddm_a", "HDDMA", {}, {}),
        ("hddm_a", "HDDMA", {"two_sided_test": True, "drift_confidence": 0.01}, {}),
        ("hddm_w", "HDDMW", {}, {}),
        ("page_hinkley", "PageHinkley", {"delta": 0.005, "threshold": 50}, {}),
        ("page_hinkley", "PageHinkley", {"mode": "up"}, {"delta": 0.02, "threshold": 40}),
    ],
)
def test_alarms_are_rivers(name, kind, given, same):
    drift = pytest.importorskip("river.drift")
    if not hasattr(drift, kind) and not hasattr(drift.binary, kind):
        pytest.skip("another version of river")
    values = np.concatenate([errors(0), errors(1)])
    found = detect(values, name, **given)
    assert found.dtype == np.int64
    assert found.tolist() == by_hand(values, kind, **(given | same))
    assert found.size


def test_kswin_sees_a_change_of_the_spread_and_its_seed_decides():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=400), 10 * rng.normal(size=200) + 5])
    found = detect(values, "kswin", rest=600)
    assert 400 <= found[0] <= 450
    assert detect(values, "kswin", rest=600).tolist() == found.tolist()


def test_the_rest_period_drops_alarms_that_follow():
    values = errors(2)
    every = detect(values, "eddm")
    assert every.size > 8
    for rest in (0, 1, 100, 700, 10_000):
        kept: list[int] = []
        for position in every.tolist():
            if not kept or position - kept[-1] > rest:
                kept.append(position)
        assert detect(values, "eddm", rest).tolist() == kept
    assert detect(values, "eddm", 10_000).tolist() == [every[0]]
    gap = int(every[1] - every[0])
    assert every[1] in detect(values, "eddm", gap - 1)
    assert every[1] not in detect(values, "eddm", gap), "an alarm on the last position of the rest is dropped"


@pytest.mark.parametrize("name", [name for name in DETECTORS if name != "kswin"])
def test_later_values_change_no_earlier_alarm(name):
    values = errors(3)
    found = detect(values, name)
    assert found.tolist() == sorted(set(found.tolist()))
    for stop in (1, 700, 5_600):
        assert detect(values[:stop], name).tolist() == [i for i in found if i < stop]


@pytest.mark.parametrize("name", RECOMMENDED)
def test_few_false_alarms_and_a_short_delay(name):
    """The committed table has a million values and 400 series; this finds a broken default."""
    rng = np.random.default_rng(5)
    assert sum(detect(rng.random(10_000) < 0.25, name).size for _ in range(10)) <= 10
    delays = []
    for seed in range(15):
        late = detect(errors(seed), name)
        delays.append(min((i - 5_000 for i in late if i >= 5_000), default=math.inf))
    assert np.median(delays) <= 700


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adwin", {"delta": 1.0, "clock": 1}),
        ("page_hinkley", {"threshold": 15}),
        ("ddm", {"drift_threshold": 0.5}),
        ("hddm_a", {"drift_confidence": 0.5}),
    ],
)
def test_a_careless_threshold_would_be_noticed(name, options):
    rng = np.random.default_rng(5)
    assert sum(detect(rng.random(10_000) < 0.25, name, **options).size for _ in range(10)) > 10


def table() -> dict[tuple[str, str], dict[str, str]]:
    with TABLE.open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["part"] == "report"]
    return {(line["detector"], line["measure"]): line for line in lines}


@with_table
def test_the_table_holds_what_the_defaults_promise():
    lines = table()
    assert {name for name, _ in lines} == set(DETECTORS)
    for name in RECOMMENDED:
        for streams in ("one stream", "new streams"):
            line = lines[name, f"false alarms, {streams}"]
            assert int(line["n"]) == 1_000_000
            assert float(line["high"]) <= 1, (name, streams)
        assert float(lines[name, "delay, abrupt"]["high"]) <= 600, name
    for name in ("eddm", "hddm_w"):
        assert float(lines[name, "false alarms, new streams"]["low"]) > 1, name
    assert float(lines["kswin", "delay, abrupt"]["value"]) > 600


@with_table
def test_the_table_is_of_todays_defaults_and_quoted_in_the_docstring(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    script = importlib.import_module("drift_detectors")
    lines = script.known()
    assert {script.job_of(line) for line in lines} == set(script.jobs())
    text = inspect.getdoc(detect)
    for line in script.summary(lines):
        assert line in text


@with_table
def test_the_script_goes_on_where_it_was_interrupted(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    script = importlib.import_module("drift_detectors")
    monkeypatch.setattr(script, "CHOICES", {})
    monkeypatch.setattr(script, "TABLE", tmp_path / "results" / "small.csv")
    for name, value in (("IN_CONTROL", 20_000), ("SERIES", 3), ("RESAMPLES", 99)):
        monkeypatch.setattr(script, name, value)
    assert script.main(["--only", "adwin"]) == 0
    first = script.known()
    assert {line["detector"] for line in first} == {"adwin"}
    monkeypatch.setattr(script, "DETECTORS", {name: DETECTORS[name] for name in ("adwin", "ddm")})
    assert script.main([]) == 0
    assert script.known()[: len(first)] == first
    assert "ddm" in capsys.readouterr().out
    other = DETECTORS["ddm"]._replace(options={"warm_start": 30, "drift_threshold": 3.0})
    monkeypatch.setattr(script, "DETECTORS", {"adwin": DETECTORS["adwin"], "ddm": other})
    assert script.known() == first, "measured with other defaults"
    with pytest.raises(SystemExit, match="2"):
        script.main(["--only", "adwim"])


def test_numbers_and_other_containers():
    step = np.repeat([0.0, 4.0], 300) + np.random.default_rng(0).normal(size=600)
    for name in ("adwin", "page_hinkley"):
        assert 300 <= detect(step, name)[0] < 364
        assert detect(step.tolist(), name).tolist() == detect(step, name).tolist()
    assert detect(errors(0).astype(np.uint8), "ddm").tolist() == detect(errors(0), "ddm").tolist()
    assert detect([0.5]).shape == (0,)
    assert detect(np.linspace(0, 1, 500), "hddm_a").size, "values in [0, 1]"


@pytest.mark.parametrize(
    ("values", "detector", "options", "words"),
    [
        ([], "adwin", {}, r"values: must hold at least 1 value; its shape is \(0,\)"),
        ([0, math.nan, 1], "adwin", {}, "values: 1 of 3 values is NaN or infinite; all must be finite"),
        ([[0, 1]], "adwin", {}, "values: must have 1 dimension"),
        ([0, 1, 2], "ddm", {}, r"values\[2\]=2: must be 0 or 1 \(an error\) for ddm"),
        ([0.5], "eddm", {}, r"values\[0\]=0.5: must be 0 or 1 \(an error\) for eddm"),
        ([0, -0.5], "hddm_a", {}, r"values\[1\]=-0.5: must be in \[0, 1\] for hddm_a"),
        ([0, 1.5], "hddm_w", {}, r"values\[1\]=1.5: must be in \[0, 1\] for hddm_w"),
        ([0, 1], "adwim", {}, "detector='adwim': must be one of adwin, ddm, .*; did you mean adwin"),
        ([0, 1], "adwin", {"rest": -1}, "rest=-1: must be a whole number, 0 or more"),
        ([0, 1], "adwin", {"delt": 1}, "delt=1: adwin has the options delta, clock, .*; did you mean delta"),
        ([0, 1], "ddm", {"delta": 1}, "delta=1: ddm has the options warm_start, drift_threshold"),
        ([0, 1], "adwin", {"delta": 0}, "delta=0: must lie above 0 and be at most 1"),
        ([0, 1], "adwin", {"delta": math.nan}, "delta=nan: must lie above 0"),
        ([0, 1], "adwin", {"delta": "x"}, "delta='x': must be a number"),
        ([0, 1], "adwin", {"clock": 0}, "clock=0: must be a whole number, 1 or more"),
        ([0, 1], "page_hinkley", {"threshold": -1}, "threshold=-1: must be 0 or more"),
        ([0, 1], "page_hinkley", {"threshold": math.inf}, "threshold=inf: must be 0 or more"),
        ([0, 1], "page_hinkley", {"mode": "left"}, "mode='left': must be one of up, down, both"),
        ([0, 1], "hddm_a", {"two_sided_test": 1}, "two_sided_test=1: must be true or false"),
        ([0, 1], "kswin", {"seed": -1}, "seed=-1: must be a whole number, 0 or more"),
        ([0, 1], "kswin", {"stat_size": 200}, "kswin: stat_size must be smaller"),
        ([0, 1], "eddm", {"beta": 0.99}, "eddm: 'alpha' must be greater"),
    ],
)
def test_what_is_refused(values, detector, options, words):
    with pytest.raises(InputError, match=f"^{words}"):
        detect(values, detector, **options)


def test_without_river_one_line_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.partition(".")[0] == "river":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(InputError) as caught:
        detect([0, 1, 0])
    assert str(caught.value) == "drift: river is not installed; pip install 'cl-lib[drift]'"
    with pytest.raises(InputError, match=r"^detector="):
        detect([0, 1], "nothing")  # a mistake is named first

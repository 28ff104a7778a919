"""The speed comparison: what it measures, refuses, flags and records. No time is asserted."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cl_lib import InputError, datasets, streams

SPEED = Path(__file__).parent.parent / "benchmarks" / "speed"
pytestmark = pytest.mark.skipif(not SPEED.exists(), reason="benchmarks are not part of an installed package")
CPU = torch.device("cpu")


def fashion_is_missing() -> bool:
    try:
        datasets.fashion_mnist(download=False)
    except InputError:
        return True
    return False


FASHION = pytest.mark.skipif(fashion_is_missing(), reason="the Fashion-MNIST files are not on this machine")


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(SPEED))  # a folder of scripts, which import each other by their plain names
    try:
        importlib.import_module("page")
        return importlib.import_module("side_by_side")
    finally:
        sys.path.remove(str(SPEED))


@pytest.fixture(autouse=True)
def _threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def idle(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0.1, 0.1))


def module(script, name):
    """A sibling of the script, as it imported it."""
    assert script is not None
    return sys.modules[name]


# ---------------------------------------------------------------------- what is measured
@pytest.fixture
def measured(script):
    summary, Lap = module(script, "summary"), module(script, "laps").Lap

    def make(seconds, replicas=1, compiled=None, accuracy=0.8):
        warm = Lap(10, 5.0)
        laps = [[warm, *(Lap(10, s, planning=s / 2) for s in seconds)]]
        return summary.Measured(replicas, compiled, laps, [[accuracy] * replicas])

    return make


def test_medians_leave_out_the_first_experience_and_count_each_replica(measured):
    side = measured([0.1, 0.2, 0.6], replicas=4)
    assert side.milliseconds(planning=False) == pytest.approx(1e3 * 0.02 / 4)
    assert side.milliseconds(planning=True) == pytest.approx(1e3 * 0.03 / 4)
    assert side.start_up == pytest.approx(5.0 - 0.3)


def test_ratios_are_to_the_hand_loop_and_raw_samples_are_kept(script, measured):
    summary = module(script, "summary")
    sides = {summary.HAND: measured([0.1, 0.1]), "traced R=10": measured([0.2, 0.2], 10, False)}
    out = summary.summarise(sides)
    assert out["traced R=10"]["ratio_training"] == pytest.approx(0.2)
    assert out["traced R=10"]["samples"][0][0] == {
        "steps": 10,
        "training": 5.0,
        "planning": 0.0,
        "consolidation": 0.0,
        "evaluation": 0.0,
    }
    assert "traced R=10" in summary.table(out)


# ---------------------------------------------------------------------- nobody is fast by doing less
@pytest.mark.parametrize(
    ("mean", "std", "odd"),
    [
        (0.800, 0.02, False),
        (0.741, 0.02, False),  # 5.9 points below, three deviations are 6
        (0.739, 0.02, True),
        (0.861, 0.02, True),  # learning more is odd as well
        (0.786, 0.001, False),  # a deviation is at least half a point
        (0.784, 0.001, True),
        (0.784, None, True),
        (float("nan"), 0.02, True),
    ],
)
def test_an_accuracy_far_from_the_populations_is_flagged(script, mean, std, odd):
    assert (module(script, "summary").flag(mean, 0.8, std) is not None) is odd


def test_the_flag_stands_in_the_summary_and_in_the_remarks(script, measured):
    summary = module(script, "summary")
    sides = {summary.HAND: measured([0.1], accuracy=0.5), "traced R=10": measured([0.1], 10, False)}
    out = summary.summarise(sides)
    assert out["traced R=10"]["flag"] is None
    assert out[summary.HAND]["flag"] == "accuracy 50.0 % is 30.0 points from 80.0 %, more than 1.5"
    assert summary.remarks(out) == [f"{summary.HAND}: {out[summary.HAND]['flag']}"]
    assert "flagged" in summary.table(out)


def test_accuracies_are_compared_with_the_traced_population_nearest_to_ten(script, measured):
    summary = module(script, "summary")
    sides = {summary.HAND: measured([0.1]), "compiled R=10": measured([0.1], 10, True)}
    for replicas in (1, 10, 32):
        sides[f"traced R={replicas}"] = measured([0.1], replicas, False)
    assert summary.reference(sides) == "traced R=10"
    del sides["traced R=10"], sides["compiled R=10"]
    assert summary.reference(sides) == "traced R=32"


# ---------------------------------------------------------------------- the record
def test_a_work_run_again_replaces_its_entry_and_keeps_the_others(script, tmp_path):
    archive, path = module(script, "archive"), tmp_path / "deep" / "record.json"
    archive.merge(path, {"W1": {"ms": 1.0}, "W2": {"ms": 2.0}})
    archive.merge(path, {"W1": {"ms": 3.0, "accuracies": [[float("nan"), 0.5]]}})
    assert json.loads(path.read_text())["works"] == {"W1": {"ms": 3.0, "accuracies": [[None, 0.5]]}, "W2": {"ms": 2.0}}
    assert [p.name for p in path.parent.iterdir()] == ["record.json"]


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": "other/1"}'])
def test_another_file_is_not_overwritten(script, tmp_path, capsys, idle, text):
    path = tmp_path / "record.json"
    path.write_text(text)
    assert script.main(["--works", "W1", "--out", str(path)]) == 2
    assert "move it away" in capsys.readouterr().err
    assert path.read_text() == text


# ---------------------------------------------------------------------- what is refused
def test_nothing_is_timed_on_a_busy_machine(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "getloadavg", lambda: (0.51, 0.0, 0.0))
    assert script.main(["--works", "W1", "--out", str(tmp_path / "record.json")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "load 0.51" in line
    assert not list(tmp_path.iterdir())


def test_without_a_cuda_device_it_says_so_and_is_content(script, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert script.main(["--device", "cuda"]) == 0
    assert capsys.readouterr().out == "skipped: no CUDA device\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--works", "W2-DERPP"], "did you mean W2-DER"),
        (["--replicas", "1,x"], "--replicas=1,x"),
        (["--replicas", "0"], "--replicas=0"),
        (["--steps", "0"], "--steps=0"),
        (["--rounds", "-1"], "--rounds=-1"),
    ],
)
def test_a_mistake_costs_one_line(script, idle, capsys, options, message):
    assert script.main(options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


# ---------------------------------------------------------------------- which device
def test_a_whole_run_is_labelled_with_the_device_it_ran_on(script, idle, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(SPEED))
    whole_run, ran = importlib.import_module("whole_run"), []
    cost = {"training_seconds": 1.0, "planning_seconds": 1.0, "evaluation_seconds": 1.0}
    ended = SimpleNamespace(cost=cost, metrics={"accuracy": SimpleNamespace(mean=0.5)})
    monkeypatch.setattr(whole_run.cl_lib, "run", lambda *args, **options: ran.append(options["device"]) or ended)
    monkeypatch.setattr(whole_run, "make_stream", lambda *args: None)
    monkeypatch.setattr(whole_run, "start_up", lambda rounds: {"import torch": 1.0})
    monkeypatch.setattr(module(script, "machine"), "roof", lambda threads, device: {"of": device.type})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    for device, gpu in (("cpu", None), ("cuda", "a GPU")):
        path = tmp_path / f"{device}.json"
        assert whole_run.main(["--device", device, "--replicas", "1", "--threads", "1", "--out", str(path)]) == 0
        record = json.loads(path.read_text())
        assert ran.pop() == record["device"] == record["roof"]["of"] == device
        assert record["machine"]["gpu"] == gpu


def test_a_whole_run_on_cuda_needs_a_device(script, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(SPEED))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert importlib.import_module("whole_run").main(["--device", "cuda"]) == 0
    assert capsys.readouterr().out == "skipped: no CUDA device\n"


def test_a_gpus_roof_is_of_each_precision_and_lies_beyond_its_caches(script, monkeypatch):
    machine, seen = module(script, "machine"), []
    products = torch.backends.cuda.matmul
    before = products.fp32_precision

    def fastest(work, device, calls=1):
        seen.append((products.fp32_precision, calls, work().dtype))
        return 1.0

    monkeypatch.setattr(machine, "_fastest", fastest)
    found = machine._cuda_roof(torch.device("meta"))
    assert products.fp32_precision == before
    assert list(found) == ["gflops", "gflops_tf32", "gflops_bf16", "gbytes_per_second"]
    assert [precision for precision, *_ in seen[:2]] == ["ieee", "tf32"]
    assert [dtype for *_, dtype in seen] == [torch.float32, torch.float32, torch.bfloat16, torch.float32]
    assert all(calls > 1 for _, calls, _ in seen)
    assert found["gbytes_per_second"] * 1e9 / 2 >= 256e6


def test_many_calls_are_timed_between_two_looks_at_the_clock(script, monkeypatch):
    machine, looks, calls = module(script, "machine"), [], []
    monkeypatch.setattr(machine, "now", lambda device: looks.append(len(calls)) or float(len(calls)))
    assert machine._fastest(lambda: calls.append(0), CPU, 5) == 1.0
    assert looks[:4] == [0, 5, 5, 10]


# ---------------------------------------------------------------------- the hand-written loops
def test_a_reservoir_holds_each_sample_equally_often(script):
    memories, counts = module(script, "memories"), np.zeros(40)
    for seed in range(500):
        memory = memories.Reservoir(10, seed)
        for start in range(0, 40, 8):
            taken = memory.offer(np.arange(start, start + 8))
            assert all(memory.held[slot] == start + place for slot, place in taken.items())
        assert len(set(memory.held.tolist())) == memory.filled == 10
        counts[memory.held] += 1
    assert abs(counts - 125).max() < 4.5 * (125 * 0.75) ** 0.5
    assert len(set(memory.recall(7).tolist())) == 7


def test_a_ring_holds_the_last_of_each_class(script):
    memory = module(script, "memories").Ring(4, 0, labels=np.array([0, 0, 0, 1, 0]), classes=2)
    memory.offer(np.arange(3))
    assert memory.filled == 2
    memory.offer(np.array([3, 4]))
    assert sorted(memory.held[: memory.filled].tolist()) == [2, 3, 4]


@pytest.mark.parametrize("name", ["W1", "W4", "W2-DER++", "W2-EWC", "W2-A-GEM"])
def test_each_loop_starts_from_cl_libs_network_and_learns(script, name):
    from cl_lib.engine.weights import build

    work, stream = script.WORKS[name], streams.split(datasets.digits(), eval_classes="all")
    loop = script.hand_loop(work, stream, 3, CPU)
    (module_,) = build(work.model, stream.data.shape, 10, [3])
    assert all(torch.equal(p, q) for p, q in zip(loop.params, module_.parameters(), strict=True))
    before = [p.detach().clone() for p in loop.params]
    laps = [loop.train() for _ in range(2)]
    assert [lap.steps for lap in laps] == [-(-270 // work.batch)] * 2
    assert all(torch.isfinite(p).all() for p in loop.params)
    assert not any(torch.equal(p, b) for p, b in zip(loop.params, before, strict=True))
    assert 0.05 < loop.accuracy()[0] <= 0.25  # only the two trained classes, of ten, are answered


# ---------------------------------------------------------------------- all of it
@pytest.mark.fashion
@FASHION
def test_a_tiny_run_writes_a_well_formed_record(script, idle, tmp_path, capsys, monkeypatch):
    path = tmp_path / "record.json"
    options = ["--works", "W1", "--steps", "5", "--test", "200", "--rounds", "1", "--threads", "1", "--no-compile"]
    assert script.main([*options, "--replicas", "1,2", "--no-avalanche", "--out", str(path)]) == 0
    entry = json.loads(path.read_text())["works"]["W1"]
    assert list(entry["sides"]) == ["hand loop", "traced R=1", "traced R=2"]
    assert entry["command"].startswith("python benchmarks/speed/side_by_side.py --works W1 --steps 5")
    assert entry["load_at_start"] == 0.1
    assert {"processor", "cores", "ram_gib", "system", "python", "torch", "avalanche"} <= entry["machine"].keys()
    for side in entry["sides"].values():
        assert [lap["steps"] for lap in side["samples"][0]] == [5] * 5
        assert all(lap["training"] > 0 for lap in side["samples"][0])
        assert len(side["accuracies"][0]) == side["replicas"]
        assert side["ms_training_and_planning"] >= side["ms_training"] > 0
    assert entry["sides"]["hand loop"]["ratio_training"] == 1
    assert "traced R=2" in capsys.readouterr().out

    monkeypatch.setattr(module(script, "peers"), "version", lambda: None)
    assert script.main([*options, "--replicas", "1", "--out", str(path)]) == 0
    assert "pip install cl-lib[avalanche]" in capsys.readouterr().out
    assert "Avalanche" not in json.loads(path.read_text())["works"]["W1"]["sides"]


@pytest.mark.fashion
@FASHION
def test_the_cut_has_the_same_samples_of_each_pair_for_all_sides(script):
    works = module(script, "works")
    data = works.cut(datasets.fashion_mnist(), 30, 100)
    assert torch.equal(torch.bincount(data.train.y // 2), torch.full((5,), 30))
    assert len(data.test) == 100
    assert torch.equal(data.train.x, works.cut(datasets.fashion_mnist(), 30, 100).train.x)


def test_the_performance_page_is_what_the_records_say(script):
    page = module(script, "page")
    assert page.PAGE.read_text() == page.page(), "run python benchmarks/speed/page.py"
    for name, bars in page.BARS.items():
        assert set(bars) <= page.read("side_by_side")["works"][name]["sides"].keys()

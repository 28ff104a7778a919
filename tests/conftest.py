"""The fast layer: ``pytest -m "not slow"`` leaves out what is marked here, and takes about a minute on one core."""

from __future__ import annotations

from pathlib import Path

import pytest

FAST_FILES = {
    "test_plan.py",
    "test_memory.py",
    "test_metrics_calibration.py",
    "test_metrics_matrix.py",
    "test_metrics_slices.py",
    "test_metrics_sums.py",
    "test_streams.py",
    "test_datasets_arrays.py",
    "test_datasets_frame.py",
    "test_datasets_samples.py",
    "test_idx.py",
    "test_optim.py",
    "test_stats.py",
    "test_flights.py",
    "test_table.py",
    "test_drifting.py",
    "test_lower.py",
    "test_imports.py",
    "test_reduction.py",
    "test_two_sample.py",
    "test_policies.py",
    "test_backtest.py",
    "test_audit.py",
    "test_watch.py",
}
"""Files all of whose tests are fast; a test of theirs may still be marked slow."""
FAST_STRATEGIES = ("er", "ewc_online", "icarl")
"""Strategies whose generic checks belong to the fast layer."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not _is_fast(item):
            item.add_marker(pytest.mark.slow)


def _is_fast(item: pytest.Item) -> bool:
    path = Path(item.path)
    if path.parent != Path(__file__).parent:
        return False  # examples of docstrings and pages, notebooks, benchmarks
    if path.name == "test_strategies.py":
        name = getattr(getattr(item, "callspec", None), "id", "")
        return item.name.startswith("test_generic_check[") and name.startswith(tuple(f"{s}-" for s in FAST_STRATEGIES))
    return path.name in FAST_FILES


@pytest.fixture(scope="session")
def served_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a small run with six windows and stored predictions, for tests of models in service."""
    import cl_lib

    stream = cl_lib.streams.rotated(cl_lib.datasets.digits(), experiences=6)
    record = cl_lib.run(stream, cl_lib.strategies.Finetune(), seeds=2, save_predictions=True)
    return record.save(tmp_path_factory.mktemp("service") / "run")

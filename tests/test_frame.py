"""Records and comparisons as tables of numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import cl_lib
from cl_lib import report, streams
from cl_lib.datasets import digits
from cl_lib.strategies import EWC, Finetune

STREAM = streams.split(digits(), experiences=5)


@pytest.fixture(scope="module")
def records() -> list[cl_lib.Record]:
    grid = cl_lib.run(STREAM, EWC(), seeds=[3, 5], grid={"strategy.lam": [1.0, 10.0]})
    return [cl_lib.run(STREAM, Finetune(), seeds=[3, 5]), grid]


def test_a_frame_has_every_cell_of_every_matrix(records: list[cl_lib.Record]) -> None:
    record = records[1]
    table = record.frame()
    assert len(table) == 4 * 6 * 5
    assert all(np.issubdtype(kind, np.number) for kind in table.dtypes)
    for name in ("accuracy", "nll", "brier", "ece", "adaptive_ece", "classwise_ece"):
        matrix = record.arrays[f"matrix.{name}"]
        for _, line in table.sample(40, random_state=0).iterrows():
            r, column = int(line["replica"]), int(line["test_set"]) - 1
            cell = matrix[r, int(line["experience"]), column]
            assert np.isclose(line[name], cell, rtol=0, atol=0, equal_nan=True)
            assert (line["seed"], line["strategy.lam"]) == (
                record.replicas[r]["seed"],
                record.replicas[r]["hyper"]["strategy.lam"],
            )
            assert line["step"] == record.arrays["step"][r, int(line["experience"])]
            assert line["support"] == record.arrays["support"][r, int(line["experience"]), column]


def test_a_frame_of_few_evaluations_names_the_experiences() -> None:
    table = cl_lib.run(STREAM, Finetune(), eval_every=2).frame()
    assert sorted(table["experience"].unique()) == [0, 2, 4, 5]


def test_a_record_without_arrays_has_no_frame(records: list[cl_lib.Record], tmp_path) -> None:
    records[0].save(tmp_path)
    (tmp_path / "arrays.npz").unlink()
    with pytest.raises(cl_lib.InputError, match=r"has no arrays\.npz"):
        cl_lib.Record.load(tmp_path).frame()


def test_a_numeric_comparison_says_what_the_strings_say(records: list[cl_lib.Record]) -> None:
    numbers, strings = report.comparison(records, numeric=True), report.comparison(records)
    assert numbers["label"].tolist() == strings["label"].tolist()
    assert len(numbers) == 3
    assert all(np.issubdtype(kind, np.number) for name, kind in numbers.dtypes.items() if name != "label")
    for line, said in zip(numbers.itertuples(), strings["accuracy"], strict=True):
        interval = f"[{line.accuracy_low:.3f}, {line.accuracy_high:.3f}]"
        assert said == f"{line.accuracy:.3f} ± {line.accuracy_std:.3f} {interval}"
    assert numbers.loc[0, "accuracy"] == records[0].metrics["accuracy"].mean
    assert pd.isna(numbers.loc[0, "difference"])
    assert np.isclose(numbers.loc[1, "difference"], numbers.loc[1, "accuracy"] - numbers.loc[0, "accuracy"])
    assert (numbers["p_holm"].dropna() >= numbers["p"].dropna()).all()

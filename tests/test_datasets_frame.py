"""Tables as data sets: features, slices, splits, and every way a table can be wrong."""

import numpy as np
import pandas as pd
import pytest
import torch

from cl_lib.datasets import from_frame
from cl_lib.errors import InputError


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 90, 80),
            "income": rng.normal(50_000, 9_000, 80),
            "member": rng.random(80) < 0.5,
            "region": rng.choice(["north", "south", "west"], 80),
            "churn": np.where(np.arange(80) % 4 == 0, "yes", "no"),
            "late": np.arange(80) >= 60,
        }
    )


def test_features_are_standardised_by_the_train_part(table):
    data = from_frame(table, "churn", features=["age", "member", "income"], test="late")
    expected = table.loc[:59, ["age", "member", "income"]].to_numpy(dtype=np.float32)
    assert np.array_equal(data.train.x.numpy(), expected)
    assert data.mean == pytest.approx(expected.astype(np.float64).mean(0))
    assert data.std == pytest.approx(expected.astype(np.float64).std(0))
    assert data.classes == ("no", "yes")
    assert data.test.y.tolist() == [1, 0, 0, 0] * 5
    seen = (data.train.x.double() - torch.tensor(data.mean)) / torch.tensor(data.std)
    assert seen.mean(0).abs().max() < 1e-6
    assert torch.allclose(seen.std(0, correction=0), torch.ones(3, dtype=torch.float64), atol=1e-6)


def test_default_features_leave_out_target_slices_and_test_column(table):
    data = from_frame(table, "churn", slices="region", test="late")
    assert data.shape == (3,)
    assert from_frame(table, "churn", slices=["region", "income"], test="late").shape == (2,)
    both = from_frame(table, "churn", slices="income", features="income")
    assert both.shape == (1,)
    assert "income" in both.test.columns


def test_split_by_share_is_stratified_and_seeded(table):
    def make(**options):
        return from_frame(table, "churn", features="age", **options)

    assert make().test.y.bincount().tolist() == [15, 5]
    assert len(make(test=0.5).test) == 40
    assert make().fingerprint() == make(seed=0).fingerprint() != make(seed=1).fingerprint()


def test_slice_categories_stay_beside_their_rows(table):
    table["grade"] = pd.Categorical(np.where(table["age"] > 50, "high", "low"), ["none", "low", "high"], ordered=True)
    data = from_frame(table, "churn", features="income", slices=["region", "member", "grade"], test="late")
    for part, rows in ((data.train, table[:60]), (data.test, table[60:])):
        for name in ("region", "member", "grade"):
            column = part.columns[name]
            assert [column.labels[code] for code in column.codes] == rows[name].astype(str).tolist()
    assert data.test.columns["grade"].labels == ("low", "high")
    assert data.test.columns["member"].labels == ("False", "True")


def test_numeric_slices_are_cut_at_the_train_quartiles():
    table = pd.DataFrame({"v": np.arange(100.0), "y": [0, 1] * 50, "t": np.arange(100) >= 80})
    data = from_frame(table, "y", slices="v", features="v", test="t")
    column = data.train.columns["v"]
    assert column.labels == ("v <= 19.75", "19.75 < v <= 39.5", "39.5 < v <= 59.25", "v > 59.25")
    assert column.codes.bincount().tolist() == [20, 20, 20, 20]
    assert data.test.columns["v"].codes.tolist() == [3] * 20


def test_ten_numbers_are_categories_and_eleven_are_cut():
    def labels(distinct):
        table = pd.DataFrame({"v": np.arange(220) % distinct, "y": [0, 1] * 110})
        return from_frame(table, "y", slices="v", features="v").test.columns["v"].labels

    assert labels(10) == tuple("0123456789")
    assert len(labels(11)) == 4


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0] * 80 + list(range(1, 21)), ("v <= 0", "v > 0")),
        (list(range(20)) + [50] * 80, ("v <= 19", "v > 19")),
        ([7] * 50 + list(range(50)), ("any v",)),
    ],
)
def test_lopsided_numbers_still_make_slices(values, labels):
    table = pd.DataFrame({"v": values, "y": [0, 1] * 50, "t": False})
    train = 50 if labels == ("any v",) else 100
    table.loc[train:, "t"] = True
    table.loc[[0, 1], "t"] = [False, train == 100]
    data = from_frame(table, "y", slices="v", features="v", test="t")
    column = data.train.columns["v"]
    assert column.labels == labels
    assert column.codes.tolist() == [int(len(labels) == 2 and v > int(labels[0][5:])) for v in data.train.x[:, 0]]


def test_a_constant_feature_gets_std_one():
    table = pd.DataFrame({"a": [0.1] * 8, "b": range(8), "y": [0, 1] * 4})
    data = from_frame(table, "y")
    assert data.std[0] == 1.0
    assert data.std[1] > 1.0


def test_target_classes_are_sorted_as_what_they_are():
    rows = {"x": range(6)}
    assert from_frame(pd.DataFrame({**rows, "y": [10, 9, 10, 9, 9, 10]}), "y").classes == ("9", "10")
    assert from_frame(pd.DataFrame({**rows, "y": [1.0, 0.0] * 3}), "y").classes == ("0", "1")
    assert from_frame(pd.DataFrame({**rows, "y": [True, False] * 3}), "y").classes == ("False", "True")


def test_nullable_columns_and_unusual_labels():
    table = pd.DataFrame(
        {0: pd.array([1, 2, 3, 4], "Int64"), 1: pd.array([True, False] * 2, "boolean"), "y": list("abab")}
    )
    data = from_frame(table, "y")
    assert sorted(data.train.x.tolist() + data.test.x.tolist()) == [[1.0, 1.0], [2.0, 0.0], [3.0, 1.0], [4.0, 0.0]]


def test_the_frame_is_not_touched(table):
    before = table.copy(deep=True)
    data = from_frame(table, "churn", features=["income"], slices="region")
    data.train.x.zero_()
    pd.testing.assert_frame_equal(table, before)


def spoil(table, column, value, rows=(3, 5)):
    return table.assign(**{column: [value if i in rows else old for i, old in enumerate(table[column])]})


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (None, {"target": "chrn"}, r"frame has no column 'chrn': did you mean 'churn'\?"),
        (None, {"slices": "Region"}, r"frame has no column 'Region': did you mean 'region'\?"),
        (None, {"features": ["age", "incme"]}, r"no column 'incme': did you mean 'income'\?"),
        (None, {"test": "lat"}, r"no column 'lat': did you mean 'late'\?"),
        (None, {"target": "zzz"}, r"no column 'zzz': the columns are age, income, member, region, churn, late"),
        (None, {}, r"feature columns 'region' are not numeric: encode them \(pd.get_dummies.*features="),
        (None, {"features": ["region"]}, r"feature columns 'region' are not numeric"),
        (None, {"features": []}, r"there are no feature columns"),
        (None, {"features": ["age", "churn"]}, r"features name 'churn', which is the target or the test column"),
        (None, {"features": ["late"], "test": "late"}, r"features name 'late', which is the target or the test"),
        (None, {"features": "age", "test": "member", "target": "income"}, r"target 'income' has \d+ values.*such as"),
        (None, {"features": "age", "test": "income"}, r"test column 'income' is float64: give a boolean one"),
        (None, {"features": "age", "test": 1.5}, r"test is 1.5: give the fraction"),
        (("income", np.nan), {"features": "income"}, r"column 'income' has 2 missing values: fill them in"),
        (("region", None), {"features": "age", "slices": "region"}, r"column 'region' has 2 missing values"),
        (("churn", None), {"features": "age"}, r"column 'churn' has 2 missing values"),
        (("income", np.inf), {"features": "income"}, r"column 'income' has 2 values that are infinite in float32"),
        (("income", 1e300), {"features": "income"}, r"column 'income' has 2 values that are infinite in float32"),
        (("late", True, range(80)), {"features": "age", "test": "late"}, r"frame, train: there are no samples"),
        (("late", False, range(80)), {"features": "age", "test": "late"}, r"frame, test: there are no samples"),
    ],
)
def test_errors_name_the_column_and_the_remedy(table, change, options, message):
    if change:
        table = spoil(table, *change)
    with pytest.raises(InputError, match=message):
        from_frame(table, **{"target": "churn", **options})


def test_missing_values_in_unused_columns_do_not_matter(table):
    assert len(from_frame(spoil(table, "income", np.nan), "churn", features="age").train) == 60


def test_repeated_columns_and_other_types(table):
    twice = pd.concat([table, table[["age"]]], axis=1)
    with pytest.raises(InputError, match="frame has 2 columns 'age'"):
        from_frame(twice, "churn", features="age")
    with pytest.raises(InputError, match="frame is a dict: give a pandas DataFrame"):
        from_frame({"a": [1]}, "a")

"""Samples, columns, the check every data set passes, the split, and the embedded digits."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

from cl_lib.datasets import Column, Dataset, Samples, check_dataset, digits
from cl_lib.datasets.split import stratified_split
from cl_lib.errors import InputError


def part(n=4, **changes):
    fields = {"x": torch.arange(n * 12, dtype=torch.uint8).reshape(n, 3, 2, 2), "y": torch.arange(n) % 2}
    return Samples(**{**fields, **changes})


def dataset(**changes):
    return Dataset(**{"name": "toy", "train": part(), "test": part(2), "classes": ("a", "b"), **changes})


def test_a_sound_dataset_comes_back_unchanged():
    data = dataset(mean=(1.0, 2.0, 3.0), std=(255.0,))
    assert check_dataset(data) is data
    assert data.shape == (3, 2, 2)
    assert len(data.train) == 4


@pytest.mark.parametrize("kind", [Column, Samples, Dataset])
def test_the_records_are_frozen(kind):
    made = {Column: Column.of("ab"), Samples: part(), Dataset: dataset()}[kind]
    field = dataclasses.fields(kind)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, field, None)


def test_one_readable_line():
    columns = {"site": Column.of([3, 1])}
    assert repr(part(2, columns=columns)) == "Samples(2 x uint8 (3, 2, 2), columns site)"
    text = "Dataset(toy: 4 train + 2 test, 2 classes, uint8 (3, 2, 2), columns site)"
    assert str(dataset(test=part(2, columns=columns))) == text


FULL = torch.zeros(4, 2)
NAN = torch.zeros(4, 2)
NAN[2, 1], NAN[3, 0] = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": part(y=torch.tensor([0, 1, 5, -1]))}, r"toy, train: y\[2\] is 5, outside \[0, 2\).*from 0 to 1"),
        ({"test": part(2, y=torch.tensor([0, -1]))}, r"toy, test: y\[1\] is -1, outside \[0, 2\)"),
        ({"train": part(x=NAN)}, r"toy, train: x contains 2 non-finite values .* first in sample 2"),
        ({"train": part(y=torch.tensor([0, 1]))}, r"toy, train: x has 4 samples and y 2 labels"),
        ({"train": part(0)}, r"toy, train: there are no samples"),
        ({"test": part(0)}, r"toy, test: there are no samples"),
        ({"train": part(x=torch.zeros(4, 5))}, r"sample shape of train is \(5,\), of test \(3, 2, 2\)"),
        ({"test": part(2, x=torch.zeros(2, 3, 2, 2))}, r"dtype of train is torch.uint8, of test torch.float32"),
        ({"train": part(x=torch.zeros(4, 2, dtype=torch.int64))}, r"toy, train: x is torch.int64: give uint8"),
        ({"train": part(x=torch.zeros(4, 2, dtype=torch.bool))}, r"toy, train: x is torch.bool: give uint8"),
        ({"train": part(x=torch.zeros(4))}, r"toy, train: x has shape \(4,\): give \(N, \*shape\)"),
        ({"train": part(y=torch.zeros(4))}, r"toy, train: y is torch.float32: labels are integers"),
        ({"train": part(y=torch.zeros(4, dtype=torch.int32))}, r"toy, train: y is torch.int32: give int64"),
        ({"train": part(y=torch.zeros(4, 1).long())}, r"y has shape \(4, 1\): give one label per sample, shape \(4,\)"),
        ({"classes": ()}, r"toy: classes is empty"),
        ({"mean": (1.0, 2.0)}, r"toy: mean has 2 values: give 1, or 3, one per channel"),
        ({"std": (1.0, 0.0, 1.0)}, r"toy: std\[1\] is 0.0: it must be positive and finite"),
        ({"mean": (float("nan"),)}, r"toy: mean\[0\] is nan: it must be finite"),
        ({"train": part(columns={"s": Column.of("ab")})}, r"column 's' has codes of shape \(2,\) .* shape \(4,\)"),
        (
            {"train": part(columns={"s": Column(torch.tensor([0, 1, 2, 0]), ("a", "b"))})},
            r"toy, train: column 's' has codes from 0 to 2: its 2 labels allow \[0, 2\)",
        ),
        (
            {"train": part(columns={"s": Column(torch.tensor([0.0, 1, 1, 0]), ("a", "b"))})},
            r"column 's' .*torch.float32: give one int64 code",
        ),
        ({"train": part(columns={"s": Column.of("abab")})}, r"the columns of train is .*'s'.*, of test \{\}"),
    ],
)
def test_check_names_value_place_and_remedy(changes, message):
    with pytest.raises(InputError, match=message):
        check_dataset(dataset(**changes))


def test_fingerprint_follows_the_data_and_nothing_else():
    data = dataset()
    assert data.fingerprint() == dataset(name="other", std=(2.0,)).fingerprint()
    assert len(data.fingerprint()) == 16
    pixel = data.train.x.clone()
    pixel[3, 2, 1, 1] += 1
    others = [
        dataset(train=part(x=pixel)),
        dataset(train=part(y=torch.tensor([1, 0, 0, 1]))),
        dataset(test=part(2, y=torch.tensor([1, 0]))),
        dataset(train=part(x=data.train.x.reshape(4, 12))),
        dataset(train=data.test, test=data.train),
    ]
    prints = {other.fingerprint() for other in others}
    assert len(prints) == len(others)
    assert data.fingerprint() not in prints


def test_fingerprint_reads_values_not_memory_layout():
    turned = part(x=part().x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2))
    assert not turned.x.is_contiguous()
    assert dataset(train=turned).fingerprint() == dataset().fingerprint()
    half = Samples(torch.ones(2, 3, dtype=torch.bfloat16), torch.tensor([0, 1]))
    assert len(dataset(train=half, test=half).fingerprint()) == 16


def test_column_sorts_numbers_as_numbers_and_anything_else_as_text():
    assert Column.of(np.array([10, 9, 100])).labels == ("9", "10", "100")
    assert Column.of(torch.tensor([2, 1])).codes.tolist() == [1, 0]
    assert Column.of(["b", 1, "a"]).labels == ("1", "a", "b")
    assert Column.of(iter("ba")).codes.dtype == torch.int64


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_column_refuses_missing_values(missing):
    with pytest.raises(InputError, match="column value 1 is missing"):
        Column.of(["a", missing])


def test_take_keeps_columns_beside_their_samples():
    taken = part(columns={"s": Column.of("wxyz")}).take(torch.tensor([3, 0]))
    assert taken.x[:, 0, 0, 0].tolist() == [36, 0]
    assert taken.columns["s"].codes.tolist() == [3, 0]
    assert taken.columns["s"].labels == ("w", "x", "y", "z")


def test_split_is_stratified_complete_and_seeded():
    y = torch.tensor([0] * 40 + [1] * 8 + [2] * 2 + [3])
    train, test = stratified_split(y, 0.25, seed=3)
    assert sorted(train.tolist() + test.tolist()) == list(range(len(y)))
    assert y[test].bincount(minlength=4).tolist() == [10, 2, 1, 0]
    assert torch.equal(test, stratified_split(y, 0.25, seed=3)[1])
    assert not torch.equal(test, stratified_split(y, 0.25, seed=4)[1])
    assert y[stratified_split(y, 0.99, seed=0)[0]].unique().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.2, True, float("nan"), "half"])
def test_split_refuses_what_is_no_share(share):
    with pytest.raises(InputError, match=r"test is .*: give the fraction .* between 0 and 1"):
        stratified_split(torch.tensor([0, 1]), share, seed=0)


def test_digits_are_the_real_ones():
    from sklearn.datasets import load_digits

    data = digits()
    x = torch.cat([data.train.x, data.test.x])
    assert x.dtype == torch.uint8
    assert x.shape == (1797, 1, 8, 8)
    assert int(x.max()) == 16
    ours = sorted(map(bytes, x.flatten(1).numpy()))
    assert ours == sorted(map(bytes, load_digits().data.astype("uint8")))
    assert int(data.test.y.bincount().min()) >= 30
    assert (data.mean, data.std, data.classes[7]) == ((0.0,), (16.0,), "7")


def test_digits_split_follows_the_seed():
    assert digits().fingerprint() == digits(seed=0).fingerprint() != digits(seed=1).fingerprint()
    with pytest.raises(InputError, match=r"test is 2\.0"):
        digits(test=2.0)


def test_importing_the_room_imports_no_optional_library():
    code = "import sys, cl_lib.datasets; print([m for m in ('torchvision', 'sklearn', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"

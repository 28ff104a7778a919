"""Arrays and torch data sets: kept as they are, or refused with the place named."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset, TensorDataset

from cl_lib.datasets import Column, from_arrays, from_torch
from cl_lib.errors import InputError

X, Y = np.arange(24, dtype=np.float32).reshape(12, 2), np.arange(12) % 3


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.int8, ">i4", bool])
def test_integer_labels_of_any_width_become_int64(dtype):
    data = from_arrays((X, (Y % 2).astype(dtype)), (X[:2], np.array([1, 0])))
    assert data.train.y.dtype == torch.int64
    assert data.train.y.tolist() == (Y % 2).tolist()
    assert data.classes == ("0", "1")


def test_arrays_keep_dtype_and_memory():
    data = from_arrays((X, Y), (X[:2].astype(np.float32), Y[:2]))
    assert data.train.x.data_ptr() == X.ctypes.data
    assert (data.mean, data.std, data.name) == ((0.0,), (1.0,), "arrays")
    assert from_arrays((X.astype(np.float64), Y), 0.25).train.x.dtype == torch.float64


@pytest.mark.parametrize(
    "make", [lambda x: x[::-1], lambda x: x.astype(">f4"), lambda x: x.T.copy().T, np.asfortranarray]
)
def test_any_memory_layout(make):
    x = make(X)
    x.flags.writeable = False
    assert np.array_equal(from_arrays((x, Y), (x, Y)).train.x.numpy(), x)


def test_tensors_lose_their_graph():
    x = torch.from_numpy(X).requires_grad_()
    assert not from_arrays((x, torch.from_numpy(Y)), 0.5).train.x.requires_grad


def test_share_splits_samples_and_columns_together():
    data = from_arrays((X, Y), 0.25, columns={"row": np.arange(12)}, seed=2)
    assert data.test.y.bincount().tolist() == [1, 1, 1]
    for part in (data.train, data.test):
        assert torch.equal(part.columns["row"].codes * 2, part.x[:, 0].long())
    assert data.fingerprint() != from_arrays((X, Y), 0.25, seed=3).fingerprint()


def test_paired_columns_share_their_codes():
    data = from_arrays((X[:2], Y[:2]), (X[2:4], Y[:2]), columns={"site": (np.array(["b", "c"]), ["a", "b"])})
    assert data.train.columns["site"].codes.tolist() == [1, 2]
    assert data.test.columns["site"].codes.tolist() == [0, 1]
    assert isinstance(data.test.columns["site"], Column)


@pytest.mark.parametrize("scale", [3.0, [3.0], np.array([3.0]), torch.tensor(3.0), torch.full((1, 1, 1), 3.0)])
def test_scales_and_their_defaults(scale):
    images = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    assert from_arrays(images, images).std == (255.0,)
    data = from_arrays(images, images, mean=scale, std=scale, classes=["cat", "dog", "unseen"])
    assert (data.mean, data.std, data.classes) == ((3.0,), (3.0,), ("cat", "dog", "unseen"))


@pytest.mark.parametrize(
    ("train", "options", "message"),
    [
        (X, {}, r"arrays, train: give a pair \(x, y\), not ndarray"),
        ((X, Y, Y), {}, r"arrays, train: give a pair"),
        ((X.tolist(), Y), {}, r"arrays, train: x is a list: give a tensor or a NumPy array"),
        ((X, Y.astype(str)), {}, r"arrays, train: y is an array of <U\d+: give numbers"),
        ((X, Y.astype(np.float32)), {}, r"arrays, train: y is torch.float32: labels are integers"),
        ((np.float32(3) + np.zeros(()), Y), {}, r"arrays, train: x is a float\d+"),
        ((torch.tensor(3.0), Y), {}, r"arrays, train: x is a single number: give one entry per sample"),
        ((X, Y[:5]), {}, r"arrays, train: x has 12 samples and y 5 labels"),
        ((X, Y[:, None]), {}, r"arrays, train: y has shape \(12, 1\)"),
        ((X, Y - 1), {}, r"arrays, train: y\[0\] is -1, outside \[0, 2\)"),
        ((X, Y), {"classes": ["a", "b"]}, r"arrays, train: y\[2\] is 2, outside \[0, 2\)"),
        ((X, Y + 10**9), {}, r"arrays: the largest label is 1000000002: number the classes from 0, or give classes="),
        ((np.where(X == 23, np.nan, X), Y), {}, r"arrays, train: x contains 1 non-finite values .* first in sample 11"),
        ((X.astype(int), Y), {}, r"arrays, train: x is torch.int64: give uint8"),
        ((X[:0], Y[:0]), {}, r"arrays, train: there are no samples"),
        ((X, Y), {"test": (X, Y[:3])}, r"arrays, test: x has 12 samples and y 3 labels"),
        ((X, Y), {"test": (X[:, :1], Y)}, r"sample shape of train is \(2,\), of test \(1,\)"),
        ((X, Y), {"test": 1.0}, r"test is 1.0: give the fraction"),
        ((X, Y), {"test": True}, r"test is True: give the fraction"),
        ((X, Y), {"columns": {"s": "ab"}}, r"arrays: column 's' has 2 values: give 12, one per sample"),
        ((X, Y), {"columns": {"s": [None] * 12}}, r"arrays: column 's': column value 0 is missing"),
        ((X, Y), {"test": (X, Y), "columns": {"s": Y}}, r"column 's' must be a pair \(train values, test values\)"),
        ((X, Y), {"test": (X, Y), "columns": {"s": (Y, Y[:1])}}, r"column 's' has 13 values: give 24"),
        ((X, Y), {"std": [1.0, 2.0, 3.0]}, r"std has 3 values: give 1, or 2"),
    ],
)
def test_from_arrays_errors(train, options, message):
    with pytest.raises(InputError, match=message):
        from_arrays(train, **{"test": 0.25, **options})


def picture(mode, size=(4, 3)):
    return Image.new(mode, size, 1)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 4), ("P", 3)])
def test_pictures_become_channels_first_bytes(mode, channels):
    data = from_torch([(picture(mode), 0), (picture(mode), 1)], [(picture(mode), 0)])
    assert (data.shape, data.train.x.dtype, data.std) == ((channels, 3, 4), torch.uint8, (255.0,))


def test_pixels_land_where_they_belong():
    array = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    for item in (Image.fromarray(array), array):
        data = from_torch([(item, 0)], [(item, 0)])
        assert np.array_equal(data.train.x[0].numpy(), array.transpose(2, 0, 1))
    assert from_torch([(picture("1"), 0)], [(picture("1"), 0)]).train.x.unique().tolist() == [255]


def test_tensors_and_other_arrays_stay_as_they_are():
    hwc = torch.zeros(5, 5, 2, dtype=torch.uint8)
    assert from_torch([(hwc, 0)], [(hwc, 0)]).shape == (5, 5, 2)
    floats = np.zeros((5, 5, 2), dtype=">f8")
    assert from_torch([(floats, 0)], [(floats, 0)]).train.x.dtype == torch.float64
    assert from_torch([(np.zeros((5, 6), np.uint8), 0)], [(np.zeros((5, 6), np.uint8), 0)]).shape == (1, 5, 6)


def test_a_tensor_dataset_is_read_once_and_in_order():
    class Counted(TensorDataset):
        reads = 0

        def __getitem__(self, index):
            self.reads += 1
            return super().__getitem__(index)

    train = Counted(torch.from_numpy(X), torch.from_numpy(Y))
    data = from_torch(train, TensorDataset(torch.from_numpy(X[:3]), torch.from_numpy(Y[:3])), name="mine")
    assert train.reads == 12
    assert np.array_equal(data.train.x.numpy(), X)
    assert data.train.y.tolist() == Y.tolist()
    assert (data.name, data.classes) == ("mine", ("0", "1", "2"))


def test_class_names_that_the_data_set_carries():
    train = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    train.classes = ["a", "b", "c", "d"]
    assert from_torch(train, train).classes == ("a", "b", "c", "d")
    assert from_torch(train, train, classes="xyz").classes == ("x", "y", "z")


class Endless(IterableDataset):
    def __iter__(self):
        return iter(())


ROW = torch.zeros(2)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (Endless(), r"torch, train is of type Endless: give a map-style data set"),
        (iter([]), r"torch, train is of type list_iterator: give a map-style"),
        ([], r"torch, train: there are no samples"),
        ([(ROW, 0), ROW], r"torch, train: item 1 is a Tensor: every item must be a pair"),
        ([(ROW, 0), ("text", 0)], r"torch, train: x of item 1 is of type str: give a tensor, a PIL image or an array"),
        ([(np.array(["a"]), 0)], r"torch, train: x of item 0 is of type ndarray of <U1"),
        ([(ROW, 0), (torch.zeros(3), 0)], r"x of item 1 is torch.float32 of shape \(3,\), of item 0 .*\(2,\)"),
        ([(ROW, 0), (ROW.double(), 0)], r"x of item 1 is torch.float64 .*of item 0 torch.float32"),
        ([(ROW, 0), (ROW, 0.5)], r"torch, train: y of item 1 is 0.5: give an integer class label"),
        ([(ROW, torch.tensor(1.0))], r"y of item 0 is 1.0: give an integer"),
        ([(ROW, "cat")], r"y of item 0 is 'cat': give an integer"),
        ([(ROW, torch.zeros(2).long())], r"y of item 0 is 'Tensor': give an integer"),
        ([(ROW, -1)], r"torch, train: y\[0\] is -1, outside"),
        ([(torch.zeros(2).long(), 0)], r"torch, train: x is torch.int64: give uint8"),
    ],
)
def test_from_torch_errors_name_the_item(items, message):
    with pytest.raises(InputError, match=message):
        from_torch(items, [(ROW, 0)])

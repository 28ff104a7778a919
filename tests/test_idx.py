"""The idx format, and where MNIST and Fashion-MNIST are looked for."""

import gzip
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cl_lib.datasets import fashion_mnist, idx, mnist, read_idx, write_idx
from cl_lib.errors import InputError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
NAMES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


@pytest.fixture(autouse=True)
def _nothing_installed(tmp_path, monkeypatch):
    """An empty home, working directory and system."""
    for place in ("home", "work"):
        (tmp_path / place).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("CL_LIB_DATA", raising=False)
    monkeypatch.setattr(idx, "FASHION_MNIST", replace(idx.FASHION_MNIST, system=(tmp_path / "system",)))


@pytest.fixture
def offline(monkeypatch):
    import torchvision.datasets

    for kind in ("MNIST", "FashionMNIST"):
        monkeypatch.setattr(getattr(torchvision.datasets, kind), "mirrors", ["file:///nowhere/"])


def put(folder, shade=0, n=20, end="", dot="-"):
    """Write the four files; `shade` of every pixel tells one set from another."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, size in (("train", n), ("t10k", n // 2)):
        write_idx(folder / f"{part}-images{dot}idx3-ubyte{end}", np.full((size, 28, 28), shade, np.uint8))
        write_idx(folder / f"{part}-labels{dot}idx1-ubyte{end}", np.arange(size).astype(np.uint8) % 10)
    return folder


def shade(data):
    return int(data.train.x[0, 0, 0, 0])


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("shape", [(7,), (3, 2, 4)])
def test_round_trip(tmp_path, end, shape):
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    write_idx(tmp_path / f"file{end}", array)
    back = read_idx(str(tmp_path / f"file{end}"))
    assert np.array_equal(back, array)
    assert back.flags.writeable
    assert (tmp_path / f"file{end}").read_bytes().startswith(b"\x1f\x8b" if end else b"\0\0\x08")


def test_compression_is_known_by_content(tmp_path):
    (tmp_path / "plain-name").write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x02\x05\x06", mtime=0))
    assert read_idx(tmp_path / "plain-name").tolist() == [5, 6]


GOOD = b"\0\0\x08\x01\0\0\0\x02\x05\x06"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (GOOD[:-1], r"is truncated: its header says shape \(2,\), 10 bytes in total, and it has 9"),
        (GOOD + b"\0", r"is too long: .* 10 bytes in total, and it has 11"),
        (GOOD[:6], r"ends within its header, after 6 of 8 bytes"),
        (b"", r"starts with bytes '', so it is not an idx file"),
        (b"\0\0\x0d\x01\0\0\0\0", r"starts with bytes '00 00 0d 01'.*'00 00 08'"),
        (b"\x89PNG....", r"starts with bytes '89 50 4e 47', so it is not an idx file"),
        (b"\0\0\x08\x03" + b"\xff" * 12, r"truncated: its header says shape \(4294967295, 4294967295, 42949"),
        (gzip.compress(GOOD, mtime=0)[:-9], r"is a damaged gzip file"),
        (
            gzip.compress(GOOD, mtime=0)[:12] + b"\xff\xff" + gzip.compress(GOOD, mtime=0)[14:],
            r"is a damaged gzip file",
        ),
    ],
)
def test_damaged_files_say_what_is_wrong(tmp_path, raw, message):
    (tmp_path / "damaged").write_bytes(raw)
    with pytest.raises(InputError, match=message) as caught:
        read_idx(tmp_path / "damaged")
    assert str(tmp_path / "damaged") in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"none cannot be read \(No such file"):
        read_idx(tmp_path / "none")
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory"):
        read_idx(tmp_path)


@pytest.mark.parametrize("array", [np.zeros(3), np.uint8(3), np.zeros((1,) * 5, np.uint8)])
def test_write_refuses_what_the_format_cannot_hold(tmp_path, array):
    with pytest.raises(InputError, match="idx files hold uint8 in 1 to 4 dimensions"):
        write_idx(tmp_path / "file", array)


@pytest.mark.parametrize("inside", [".", "FashionMNIST/raw", "fashion-mnist"])
@pytest.mark.parametrize(("end", "dot"), [("", "-"), (".gz", "-"), ("", "."), (".gz", ".")])
def test_root_and_file_names(tmp_path, inside, end, dot):
    put(tmp_path / "root" / inside, shade=9, end=end, dot=dot)
    data = fashion_mnist(str(tmp_path / "root"), download=False)
    assert (len(data.train), len(data.test), data.shape, shade(data)) == (20, 10, (1, 28, 28), 9)
    assert (data.train.x.dtype, data.train.y.dtype) == (torch.uint8, torch.int64)
    assert (data.mean, data.std) == ((0.0,), (255.0,))


def test_only_the_folder_tells_the_families_apart(tmp_path, monkeypatch):
    put(tmp_path / "all" / "MNIST" / "raw", shade=1)
    put(tmp_path / "all" / "fashion-mnist", shade=2)
    monkeypatch.setenv("CL_LIB_DATA", str(tmp_path / "all"))
    assert shade(mnist(download=False)) == 1
    assert shade(fashion_mnist(download=False)) == 2
    assert mnist(download=False).classes[0] == "0"
    assert fashion_mnist(download=False).classes[0] == "T-shirt/top"


def test_places_in_their_documented_order(tmp_path, monkeypatch):
    (tmp_path / "named").mkdir()
    monkeypatch.setenv("CL_LIB_DATA", str(tmp_path / "named"))
    home = tmp_path / "home" / ".cache"
    places = [tmp_path / "named", Path("data"), home / "torchvision", home / "cl_lib"]
    places = [place / "FashionMNIST" / "raw" for place in places] + [tmp_path / "system"]
    for i, place in reversed(list(enumerate(places))):
        put(place, shade=i)
        assert shade(fashion_mnist(download=False)) == i
    put(tmp_path / "root", shade=99)
    assert shade(fashion_mnist(tmp_path / "root")) == 99


def test_an_incomplete_place_is_passed_over(tmp_path):
    put(Path("data/mnist"), shade=1)
    (Path("data/mnist") / NAMES[3]).unlink()
    put(tmp_path / "home/.cache/cl_lib/mnist", shade=2)
    assert shade(mnist(download=False)) == 2


def test_a_given_root_is_never_replaced_by_another_place(tmp_path):
    put(tmp_path / "system")
    with pytest.raises(InputError, match=r"Fashion-MNIST is not complete in any of .*elsewhere.*dataset-fashion-mnist"):
        fashion_mnist(tmp_path / "elsewhere", download=False)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="which is a file: give the folder"):
        fashion_mnist(tmp_path / "file")


def test_nowhere_to_be_found_says_where_it_looked_and_how_to_get_it():
    with pytest.raises(InputError) as caught:
        mnist(download=False)
    for words in ("data/MNIST/raw", "run mnist() once", "train-images-idx3-ubyte.gz", "$CL_LIB_DATA"):
        assert words in str(caught.value)
    assert "Debian" not in str(caught.value)


def test_a_misspelt_data_folder_is_an_error_even_where_files_exist(tmp_path, monkeypatch):
    put(tmp_path / "system")
    monkeypatch.setenv("CL_LIB_DATA", str(tmp_path / "missing"))
    with pytest.raises(InputError, match=r"\$CL_LIB_DATA is '.*missing', which is not a folder"):
        fashion_mnist()
    monkeypatch.setenv("CL_LIB_DATA", "")
    assert len(fashion_mnist().train) == 20


def test_mislabelled_and_mismatched_files(tmp_path):
    root = put(tmp_path / "root")
    images, labels = (root / name for name in NAMES[:2])
    swapped = images.read_bytes(), labels.read_bytes()
    labels.write_bytes(swapped[0])
    with pytest.raises(InputError, match=r"train-labels-idx1-ubyte has shape \(20, 28, 28\): must be labels"):
        mnist(root)
    images.write_bytes(swapped[1])
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte has shape \(20,\): must be images"):
        mnist(root)
    images.write_bytes(swapped[0])
    write_idx(labels, np.zeros(19, np.uint8))
    with pytest.raises(InputError, match=r"has 20 images and .*train-labels-idx1-ubyte 19 labels"):
        mnist(root)
    write_idx(labels, np.full(20, 47, np.uint8))
    with pytest.raises(InputError, match=r"mnist, train: y\[0\] is 47, outside \[0, 10\)"):
        mnist(root)
    write_idx(images, np.zeros((20, 32, 32), np.uint8))
    with pytest.raises(InputError, match=r"has shape \(20, 32, 32\): must be images of shape \(N, 28, 28\)"):
        mnist(root)


@pytest.mark.usefixtures("offline")
def test_a_failed_download_says_how_else(tmp_path):
    with pytest.raises(InputError, match=r"FashionMNIST could not be downloaded to .*target.*dataset-fashion-mnist"):
        fashion_mnist(tmp_path / "target")
    with pytest.raises(InputError, match=r"MNIST could not be downloaded to .*run mnist\(\) once"):
        mnist()


def test_without_torchvision_the_message_names_both_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(InputError, match=r'pip install "cl-lib\[vision\]".*Debian\'s package dataset-fashion-mnist'):
        fashion_mnist()


def test_outdated_torchvision_files_are_named(tmp_path, monkeypatch):
    import torchvision.datasets

    monkeypatch.setattr(torchvision.datasets, "MNIST", lambda root, download: None)
    with pytest.raises(InputError, match=r"MNIST is in .*MNIST/processed in an outdated format"):
        mnist(tmp_path / "root")


@pytest.mark.fashion
@pytest.mark.skipif(not DEBIAN.is_dir(), reason=f"the real Fashion-MNIST is not in {DEBIAN}")
def test_the_real_fashion_mnist(monkeypatch):
    data = fashion_mnist(DEBIAN, download=False)
    assert data.train.x.shape == (60_000, 1, 28, 28)
    assert data.train.y.bincount().tolist() == [6000] * 10
    assert data.test.y.bincount().tolist() == [1000] * 10
    assert data.train.y[:5].tolist() == [9, 0, 0, 3, 0]
    assert [data.classes[y] for y in data.test.y[:2]] == ["Ankle boot", "Pullover"]
    counts = data.train.x.flatten().bincount(minlength=256).double() / data.train.x.numel()  # the published moments
    grey = torch.arange(256) / 255
    mean = float((counts * grey).sum())
    assert mean == pytest.approx(0.2860, abs=5e-5)
    assert float((counts * (grey - mean) ** 2).sum()) ** 0.5 == pytest.approx(0.3530, abs=5e-5)
    monkeypatch.setattr(idx, "FASHION_MNIST", replace(idx.FASHION_MNIST, system=(DEBIAN,)))
    assert fashion_mnist(download=False).fingerprint() == data.fingerprint()

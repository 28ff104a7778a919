"""Downloads through torchvision, from a local server with small files in the formats of the real ones."""

import hashlib
import http.client
import io
import pickle
import sys
import tarfile
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import torch
import torchvision.datasets
from scipy.io import savemat

from cl_lib.datasets import cifar10, cifar100, fashion_mnist, idx, svhn, write_idx
from cl_lib.errors import InputError

LOADERS = {"CIFAR10": cifar10, "CIFAR100": cifar100, "SVHN": svhn}


class OldDtype:
    """NumPy's uint8 as the files, written by Python 2, pickle it."""

    def __reduce__(self):
        return np.dtype, ("u1", 0, 1), (3, "|", None, None, None, -1, -1, 0)


class OldArray:
    def __init__(self, array):
        self.array = array

    def __reduce__(self):
        state = (1, self.array.shape, OldDtype(), False, self.array.tobytes())
        return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state


def pixels(n, seed):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, 32, 32)).astype(np.uint8)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder, and the address under which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as httpd:
        thread = Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()
        thread.join()


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def serve(monkeypatch, server, kind, files):
    """Pack `files` as the archive of `kind`, and have torchvision fetch it from `server` with its true checksums."""
    cls = getattr(torchvision.datasets, kind)
    raw = {name: pickle.dumps(content, protocol=2) for name, content in files.items()}
    folder, address = server
    archive = folder / cls.filename
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in raw.items():
            member = tarfile.TarInfo(f"{cls.base_folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    sums = {name: hashlib.md5(content).hexdigest() for name, content in raw.items()}
    monkeypatch.setattr(cls, "url", address + cls.filename)
    monkeypatch.setattr(cls, "tgz_md5", md5(archive))
    for which in ("train_list", "test_list"):
        monkeypatch.setattr(cls, which, [[name, sums[name]] for name, _ in getattr(cls, which)])
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": sums[cls.meta["filename"]]})


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CL_LIB_DATA", raising=False)
    return tmp_path / ".cache" / "cl_lib"


def test_cifar10(server, monkeypatch, home):
    x = pixels(12, seed=0)
    y = [i % 10 for i in range(12)]
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    files = {
        name: {"data": OldArray(x[2 * i : 2 * i + 2].reshape(2, 3072)), "labels": y[2 * i : 2 * i + 2]}
        for i, name in enumerate(names)
    }
    labels = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    serve(monkeypatch, server, "CIFAR10", files | {"batches.meta": {"label_names": labels}})
    data = cifar10()
    assert repr(data) == "Dataset(cifar10: 10 train + 2 test, 10 classes, uint8 (3, 32, 32))"
    assert np.array_equal(data.train.x.numpy(), x[:10])
    assert np.array_equal(data.test.x.numpy(), x[10:])
    assert data.train.x.is_contiguous()
    assert data.train.y.tolist() + data.test.y.tolist() == y
    assert (data.classes[3], data.std) == ("cat", (255.0,))
    assert cifar10(home, download=False).fingerprint() == data.fingerprint()


def test_cifar100_keeps_its_superclasses(server, monkeypatch, home):
    x = pixels(6, seed=1)

    def batch(rows, fine, coarse):
        return {"data": OldArray(x[rows].reshape(-1, 3072)), "fine_labels": fine, "coarse_labels": coarse}

    fine, coarse = [f"fine {i}" for i in range(100)], [f"coarse {i}" for i in range(20)]
    files = {
        "train": batch(slice(4), [19, 29, 0, 99], [11, 15, 4, 13]),
        "test": batch(slice(4, 6), [49, 33], [10, 10]),
        "meta": {"fine_label_names": fine, "coarse_label_names": coarse},
    }
    serve(monkeypatch, server, "CIFAR100", files)
    data = cifar100()
    assert np.array_equal(data.train.x.numpy(), x[:4])
    assert data.train.y.tolist() == [19, 29, 0, 99]
    assert data.classes == tuple(fine)
    column = data.test.columns["superclass"]
    assert [column.labels[code] for code in column.codes] == ["coarse 10", "coarse 10"]
    assert data.train.columns["superclass"].codes.tolist() == [11, 15, 4, 13]


def test_svhn(tmp_path, server, monkeypatch):
    folder, address = server
    x = pixels(5, seed=2)
    y = np.array([10, 1, 9, 2, 10], dtype=np.uint8)  # the files call the digit 0 ten
    split_list = {}
    for part, rows in (("train", slice(3)), ("test", slice(3, 5))):
        file = folder / f"{part}_32x32.mat"
        savemat(file, {"X": x[rows].transpose(2, 3, 1, 0), "y": y[rows, None]})
        split_list[part] = [address + file.name, file.name, md5(file)]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", split_list)
    monkeypatch.setenv("CL_LIB_DATA", str(tmp_path / "named"))
    (tmp_path / "named").mkdir()
    data = svhn()
    assert (tmp_path / "named" / "test_32x32.mat").is_file()
    assert np.array_equal(data.train.x.numpy(), x[:3])
    assert data.train.y.tolist() + data.test.y.tolist() == [0, 1, 9, 2, 0]
    assert (data.train.y.dtype, data.classes[0]) == (torch.int64, "0")


@pytest.mark.parametrize("named", [None, "root", "environment"])
def test_fashion_mnist_lands_where_it_is_looked_for(server, tmp_path, monkeypatch, home, named):
    folder, address = server
    for part, n in (("train", 20), ("t10k", 10)):
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", np.full((n, 28, 28), 5, np.uint8))
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(n).astype(np.uint8) % 10)
    sums = [(file.name, md5(file)) for file in sorted(folder.iterdir())]
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [address])
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", sums)
    monkeypatch.setattr(idx, "FASHION_MNIST", replace(idx.FASHION_MNIST, system=()))
    monkeypatch.chdir(tmp_path)
    target = home if named is None else tmp_path / "target"
    if named == "environment":
        target.mkdir()
        monkeypatch.setenv("CL_LIB_DATA", str(target))
    root = target if named == "root" else None
    data = fashion_mnist(root)
    assert (len(data.train), len(data.test), int(data.train.x.min())) == (20, 10, 5)
    assert (target / "FashionMNIST" / "raw" / "train-images-idx3-ubyte").is_file()
    assert fashion_mnist(root, download=False).fingerprint() == data.fingerprint()


def test_a_damaged_download_is_refused(server, monkeypatch, home):
    folder, address = server
    (folder / "cifar-10-python.tar.gz").write_bytes(b"an error page")
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", address + "cifar-10-python.tar.gz")
    with pytest.raises(InputError, match=r"CIFAR10 could not be downloaded to .*corrupted"):
        cifar10()


@pytest.mark.parametrize("kind", LOADERS)
def test_missing_files_say_how_to_get_them(kind, tmp_path):
    message = rf"{kind} was not found in .*root .*run {kind.lower()}\(\) once with a network, or put .*CL_LIB_DATA"
    with pytest.raises(InputError, match=message):
        LOADERS[kind](tmp_path / "root", download=False)


@pytest.mark.parametrize("kind", LOADERS)
def test_a_failed_download_says_how_else(kind, tmp_path, monkeypatch, home):
    cls = getattr(torchvision.datasets, kind)
    if kind == "SVHN":
        nowhere = {part: ["file:///nowhere.mat", f"{part}.mat", "0"] for part in ("train", "test")}
        monkeypatch.setattr(cls, "split_list", nowhere)
    else:
        monkeypatch.setattr(cls, "url", "file:///nowhere.tar.gz")
    with pytest.raises(InputError, match=rf"{kind} could not be downloaded to .*cl_lib .*nowhere.*run {kind.lower()}"):
        LOADERS[kind]()


def test_a_broken_connection_is_reported_alike(monkeypatch, home):
    def break_off(root, **options):
        raise http.client.IncompleteRead(b"")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", break_off)
    with pytest.raises(InputError, match="CIFAR10 could not be downloaded"):
        cifar10()


@pytest.mark.parametrize("kind", LOADERS)
def test_without_torchvision(kind, monkeypatch, home):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(InputError, match=rf'{kind} needs torchvision.*pip install "cl-lib\[vision\]"'):
        LOADERS[kind]()


def test_places_that_are_no_folder(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="which is a file"):
        cifar10(tmp_path / "file")
    monkeypatch.setenv("CL_LIB_DATA", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"\$CL_LIB_DATA is '.*file', which is not a folder"):
        cifar10()

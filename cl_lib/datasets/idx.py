"""MNIST and Fashion-MNIST, from the folders where their idx files are usually stored."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cl_lib.datasets.fetch import ENVIRONMENT, chosen_root, data_home, images, torchvision_set
from cl_lib.datasets.idx_files import find_files, read_part
from cl_lib.datasets.samples import Dataset
from cl_lib.errors import InputError

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class _Family:
    """A data set in MNIST's four files, and the folders it is usually stored in."""

    name: str
    title: str
    kind: str  # torchvision's class, which downloads to <kind>/raw
    folders: tuple[str, ...]
    classes: tuple[str, ...]
    system: tuple[Path, ...] = ()
    hint: str = ""


MNIST = _Family("mnist", "MNIST", "MNIST", ("mnist", "MNIST/raw"), tuple("0123456789"))
FASHION_MNIST = _Family(
    "fashion_mnist",
    "Fashion-MNIST",
    "FashionMNIST",
    ("fashion-mnist", "FashionMNIST/raw"),
    ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    system=(Path("/usr/share/datasets/fashion-mnist"),),
    hint=", or install Debian's package dataset-fashion-mnist",
)


def mnist(root: PathLike | None = None, download: bool = True) -> Dataset:
    """Return MNIST: 60,000 train and 10,000 test handwritten digits of 28x28 pixels.

    Parameters
    ----------
    root : path, default None
        Folder with the four files, or with the folder ``mnist`` or ``MNIST/raw``. If given, no other folder is
        searched. None searches ``$CL_LIB_DATA``, ``./data``, ``~/.cache/torchvision`` and ``~/.cache/cl_lib``, in
        this order.
    download : bool, default True
        Whether torchvision may download missing files (12 MB): to `root`, or if it is None to ``$CL_LIB_DATA`` or
        ``~/.cache/cl_lib``.

    Returns
    -------
    Dataset
        `x` uint8 of shape (N, 1, 28, 28) in [0, 255], mean 0, std 255; ten classes.

    Raises
    ------
    InputError
        If the files are nowhere and cannot be downloaded, a file is damaged, or images and labels are exchanged or
        differ in number.

    Notes
    -----
    MNIST and Fashion-MNIST use the same file names and are distinguished by the folder only: keep them in separate
    folders.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from cl_lib.datasets import write_idx
    >>> with TemporaryDirectory() as folder:
    ...     for part, n in (("train", 20), ("t10k", 10)):
    ...         write_idx(f"{folder}/{part}-images-idx3-ubyte.gz", np.zeros((n, 28, 28), np.uint8))
    ...         write_idx(f"{folder}/{part}-labels-idx1-ubyte.gz", np.arange(n).astype(np.uint8) % 10)
    ...     mnist(folder, download=False)
    Dataset(mnist: 20 train + 10 test, 10 classes, uint8 (1, 28, 28))
    """
    return _load(MNIST, root, download)


def fashion_mnist(root: PathLike | None = None, download: bool = True) -> Dataset:
    """Return Fashion-MNIST: 60,000 train and 10,000 test images of clothes of 28x28 pixels.

    Parameters
    ----------
    root : path, default None
        Folder with the four files, or with the folder ``fashion-mnist`` or ``FashionMNIST/raw``. If given, no other
        folder is searched. None searches ``$CL_LIB_DATA``, ``./data``, ``~/.cache/torchvision``, ``~/.cache/cl_lib``
        and ``/usr/share/datasets/fashion-mnist`` (Debian's package dataset-fashion-mnist), in this order.
    download : bool, default True
        Whether torchvision may download missing files (31 MB): to `root`, or if it is None to ``$CL_LIB_DATA`` or
        ``~/.cache/cl_lib``.

    Returns
    -------
    Dataset
        `x` uint8 of shape (N, 1, 28, 28) in [0, 255], mean 0, std 255; ten classes.

    Raises
    ------
    InputError
        If the files are nowhere and cannot be downloaded, a file is damaged, or images and labels are exchanged or
        differ in number.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from cl_lib.datasets import write_idx
    >>> with TemporaryDirectory() as folder:
    ...     for part, n in (("train", 20), ("t10k", 10)):
    ...         write_idx(f"{folder}/{part}-images-idx3-ubyte", np.zeros((n, 28, 28), np.uint8))
    ...         write_idx(f"{folder}/{part}-labels-idx1-ubyte", np.arange(n).astype(np.uint8) % 10)
    ...     fashion_mnist(folder, download=False).classes[9]
    'Ankle boot'
    """
    return _load(FASHION_MNIST, root, download)


def _load(family: _Family, root: PathLike | None, download: bool) -> Dataset:
    target = chosen_root(root)
    if root is not None:
        places = _inside(family, target)
    else:
        caches = [Path("data"), Path.home() / ".cache" / "torchvision", Path.home() / ".cache" / "cl_lib"]
        places = [place for home in (data_home(), *caches) for place in _inside(family, home)]
        places += family.system
    files = find_files(places)
    if files is None:
        searched = ", ".join(dict.fromkeys(str(place) for place in places))
        advice = (
            f"run {family.name}() once with torchvision and a network, or put the four files "
            f"(train-images-idx3-ubyte.gz and so on) into the folder given as root or in ${ENVIRONMENT}{family.hint}"
        )
        if not download:
            raise InputError(f"{family.title} is not complete in any of {searched}: {advice}")
        torchvision_set(family.kind, target, advice, download=True)
        files = find_files([target / family.kind / "raw"])
        if files is None:  # torchvision does not download if there are files that an old release had converted
            old = target / family.kind / "processed"
            raise InputError(f"{family.title} is in {old} in an outdated format only: delete that folder and retry")
    train, test = (read_part(*files[part]) for part in ("train", "t10k"))
    return images(family.name, train, test, family.classes)


def _inside(family: _Family, folder: Path) -> list[Path]:
    # folders named after the data set first: files in `folder` itself may belong to the other data set
    return [folder / name for name in family.folders] + [folder]

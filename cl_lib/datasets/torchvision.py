"""CIFAR-10, CIFAR-100 and SVHN, loaded, downloaded and verified by torchvision."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cl_lib.datasets.columns import Column
from cl_lib.datasets.fetch import ENVIRONMENT, chosen_root, images, torchvision_set
from cl_lib.datasets.samples import Dataset, Samples

Root = str | os.PathLike[str] | None


def cifar10(root: Root = None, download: bool = True) -> Dataset:
    """Return CIFAR-10: 50,000 train and 10,000 test photographs of 32x32 pixels in 10 classes.

    Parameters
    ----------
    root : path, default None
        Folder that contains ``cifar-10-batches-py`` or to download it to; None is ``$CL_LIB_DATA`` or
        ``~/.cache/cl_lib``.
    download : bool, default True
        Whether torchvision may download missing files (170 MB).

    Returns
    -------
    Dataset
        `x` uint8 of shape (N, 3, 32, 32) in [0, 255], channels first; mean 0, std 255.

    Raises
    ------
    InputError
        If torchvision, the files or the network is missing, or a file is damaged.

    Examples
    --------
    >>> cifar10()  # doctest: +SKIP
    Dataset(cifar10: 50,000 train + 10,000 test, 10 classes, uint8 (3, 32, 32))
    >>> cifar10("an-empty-folder", download=False)
    Traceback (most recent call last):
        ...
    cl_lib.errors.InputError: CIFAR10 ...
    """
    advice = _advice("cifar10", "cifar-10-batches-py (from cifar-10-python.tar.gz)")
    train, test = _parts("CIFAR10", root, download, advice)
    return images("cifar10", _cifar(train), _cifar(test), train.classes)


def cifar100(root: Root = None, download: bool = True) -> Dataset:
    """Return CIFAR-100: 50,000 train and 10,000 test photographs in 100 classes.

    Parameters
    ----------
    root : path, default None
        Folder that contains ``cifar-100-python`` or to download it to; None is ``$CL_LIB_DATA`` or
        ``~/.cache/cl_lib``.
    download : bool, default True
        Whether torchvision may download missing files (169 MB).

    Returns
    -------
    Dataset
        `x` uint8 of shape (N, 3, 32, 32) in [0, 255], channels first; mean 0, std 255. The 20 superclasses are the
        column ``superclass``.

    Raises
    ------
    InputError
        If torchvision, the files or the network is missing, or a file is damaged.

    Examples
    --------
    >>> cifar100()  # doctest: +SKIP
    Dataset(cifar100: 50,000 train + 10,000 test, 100 classes, uint8 (3, 32, 32), columns superclass)
    >>> cifar100("an-empty-folder", download=False)
    Traceback (most recent call last):
        ...
    cl_lib.errors.InputError: CIFAR100 ...
    """
    advice = _advice("cifar100", "cifar-100-python (from cifar-100-python.tar.gz)")
    train, test = _parts("CIFAR100", root, download, advice)
    return images("cifar100", _coarse(train, "train"), _coarse(test, "test"), train.classes)


def svhn(root: Root = None, download: bool = True) -> Dataset:
    """Return Street View House Numbers: 73,257 train and 26,032 test photographs of single digits.

    Parameters
    ----------
    root : path, default None
        Folder that contains ``train_32x32.mat`` and ``test_32x32.mat`` or to download them to; None is
        ``$CL_LIB_DATA`` or ``~/.cache/cl_lib``.
    download : bool, default True
        Whether torchvision may download missing files (246 MB).

    Returns
    -------
    Dataset
        `x` uint8 of shape (N, 3, 32, 32) in [0, 255], channels first; mean 0, std 255; label 0 is the digit 0
        (10 in the files).

    Raises
    ------
    InputError
        If torchvision, the files or the network is missing, or a file is damaged.

    Examples
    --------
    >>> svhn()  # doctest: +SKIP
    Dataset(svhn: 73,257 train + 26,032 test, 10 classes, uint8 (3, 32, 32))
    >>> svhn("an-empty-folder", download=False)
    Traceback (most recent call last):
        ...
    cl_lib.errors.InputError: SVHN ...
    """
    advice = _advice("svhn", "train_32x32.mat and test_32x32.mat")
    folder = chosen_root(root)
    parts = [torchvision_set("SVHN", folder, advice, split=part, download=download) for part in ("train", "test")]
    train, test = (Samples(_uint8(part.data), torch.tensor(part.labels)) for part in parts)
    return images("svhn", train, test, "0123456789")


def _advice(name: str, files: str) -> str:
    return f"run {name}() once with a network, or put {files} into the folder given as root or in ${ENVIRONMENT}"


def _parts(kind: str, root: Root, download: bool, advice: str) -> tuple[Any, Any]:
    folder = chosen_root(root)
    train = torchvision_set(kind, folder, advice, train=True, download=download)
    return train, torchvision_set(kind, folder, advice, train=False, download=download)


def _uint8(data: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(data))


def _cifar(part: Any) -> Samples:
    return Samples(_uint8(part.data.transpose(0, 3, 1, 2)), torch.tensor(part.targets))


def _coarse(part: Any, file: str) -> Samples:
    # torchvision drops the superclasses; it has just verified the checksums of these files
    folder = Path(part.root, part.base_folder)
    codes = pickle.loads((folder / file).read_bytes(), encoding="latin1")["coarse_labels"]
    labels = pickle.loads((folder / "meta").read_bytes(), encoding="latin1")["coarse_label_names"]
    samples = _cifar(part)
    return Samples(samples.x, samples.y, {"superclass": Column(torch.tensor(codes), tuple(labels))})

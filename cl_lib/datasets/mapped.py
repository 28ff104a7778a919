"""Memory-mapped tensors: their creation, reading them in pieces, and releasing the pages that were read."""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Iterator
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from cl_lib.errors import InputError

PIECE = 2**25
"""Largest number of bytes of a tensor that are read together and kept in memory in a pass over it."""
AROUND = 2**21
"""Bytes that the system may map around a row that is read: the page cache can store a file in pieces of this size."""

_files: WeakValueDictionary[int, np.memmap] = WeakValueDictionary()
"""Mapped file by the address of a tensor's storage. The tensor keeps the file alive, so no entry is outdated."""


def from_memmap(array: np.ndarray) -> Tensor | None:
    """Tensor that shares the file of a memory-mapped array, or None if there is no file or it cannot be shared.

    Arrays and their contiguous slices can be shared if they are in C order and the native byte order. The tensor must
    not be written to.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/x.npy", np.arange(6.0).reshape(3, 2))
    ...     tensor = from_memmap(np.load(f"{folder}/x.npy", mmap_mode="r")[1:])
    >>> tensor, is_mapped(tensor), is_mapped(tensor.clone())
    (tensor([[2., 3.],
            [4., 5.]], dtype=torch.float64), True, False)
    """
    file: object = array
    while isinstance(file, np.ndarray) and not isinstance(file.base, mmap.mmap):
        file = file.base
    # changes of an array of mode "c" are not in the file and would be lost when pages are released
    if not isinstance(file, np.memmap) or file.mode == "c":
        return None
    flags = array.flags
    if not (flags.c_contiguous and flags.aligned and array.dtype.isnative and array.dtype.kind in "biufc"):
        return None
    if not (array.ndim and array.size):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the array is not writable: the tensor is never written to
        tensor = torch.from_numpy(array)
    _files[tensor.untyped_storage().data_ptr()] = file
    return tensor


def is_mapped(tensor: Tensor) -> bool:
    """Whether a tensor, or the base of a view, was made by `from_memmap`."""
    return tensor.untyped_storage().data_ptr() in _files


def check_file(tensor: Tensor) -> None:
    """Raise `InputError` if the file of a mapped tensor has become shorter: reading it would kill the process."""
    file = _files.get(tensor.untyped_storage().data_ptr())
    if file is not None and _map(file).size() < file.offset + file.nbytes:
        raise InputError(f"{file.filename}: has become shorter since it was opened; do not change data that are in use")


def release(tensor: Tensor) -> None:
    """Release the memory pages of a mapped contiguous tensor, to be read again from the file; else do nothing."""
    file = _files.get(tensor.untyped_storage().data_ptr())
    if file is None or not tensor.numel() or not hasattr(mmap, "MADV_DONTNEED"):
        return
    first = file.ctypes.data - file.offset % mmap.ALLOCATIONGRANULARITY
    start = tensor.data_ptr() - first
    page = start - start % mmap.PAGESIZE
    _map(file).madvise(mmap.MADV_DONTNEED, page, start + tensor.nbytes - page)


def pieces(tensor: Tensor) -> Iterator[Tensor]:
    """Yield a tensor's rows in order, at most `PIECE` bytes at once; pages of a mapped tensor are released after use.

    Examples
    --------
    >>> [len(piece) for piece in pieces(torch.zeros(5, 2**22))]
    [2, 2, 1]
    """
    for piece in tensor.split(max(1, PIECE // max(1, tensor[:1].nbytes))):
        check_file(piece)
        yield piece
        release(piece)


def loaded(tensor: Tensor, device: torch.device) -> Tensor:
    """Tensor on the device; a mapped tensor is read into memory once."""
    if not is_mapped(tensor):
        return tensor.to(device)
    out, start = torch.empty_like(tensor, device=device), 0
    for piece in pieces(tensor):
        out[start : start + len(piece)] = piece
        start += len(piece)
    return out


def take(tensor: Tensor, index: Tensor) -> Tensor:
    """Rows of a tensor, on its device; those of a mapped tensor in memory."""
    if not is_mapped(tensor):
        return tensor.index_select(0, index)
    rows = torch.empty(len(index), *tensor.shape[1:], dtype=tensor.dtype)
    copy_rows(tensor, index.numpy(), rows)
    return rows


def copy_rows(tensor: Tensor, index: np.ndarray, out: Tensor) -> None:
    """Copy rows of a contiguous tensor, in memory or mapped, to ``out``; an ascending ``index`` is fastest.

    Many rows are copied by one call in one thread, without the interpreter lock, so that computation can go on.
    """
    if not len(index):
        return
    check_file(tensor)
    if not 0 <= index.min() <= index.max() < len(tensor):
        raise IndexError(f"rows {index.min()} to {index.max()} of {len(tensor)}")
    rows, copy = (_bytes(t) for t in (tensor, out))
    at_once = max(1, PIECE // max(AROUND, rows.shape[1])) if is_mapped(tensor) else len(index)
    for start in range(0, len(index), at_once):
        part = index[start : start + at_once]
        np.take(rows, part, axis=0, out=copy[start : start + len(part)], mode="clip")
        release(tensor[int(part.min()) : int(part.max()) + 1])


def _bytes(tensor: Tensor) -> np.ndarray:
    """View the same memory as rows of bytes, since NumPy does not have all dtypes of PyTorch."""
    return tensor.detach().view(len(tensor), -1).view(torch.uint8).numpy()


def _map(file: np.memmap) -> mmap.mmap:
    return file.base  # type: ignore[return-value]

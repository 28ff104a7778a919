"""Data sets: inputs in their compact dtype, integer labels and slice columns, with one module per source.

Importing this package imports neither torchvision, scikit-learn nor pandas: each loader imports what it needs.
"""

from cl_lib.datasets.arrays import from_arrays
from cl_lib.datasets.check import check_dataset
from cl_lib.datasets.columns import Column
from cl_lib.datasets.digits import digits
from cl_lib.datasets.flights import flights
from cl_lib.datasets.frame import from_frame
from cl_lib.datasets.idx import fashion_mnist, mnist
from cl_lib.datasets.idx_files import read_idx, write_idx
from cl_lib.datasets.items import from_torch
from cl_lib.datasets.npy import npy
from cl_lib.datasets.samples import Dataset, Samples
from cl_lib.datasets.table import table
from cl_lib.datasets.torchvision import cifar10, cifar100, svhn

__all__ = [
    "Column",
    "Dataset",
    "Samples",
    "check_dataset",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "flights",
    "from_arrays",
    "from_frame",
    "from_torch",
    "mnist",
    "npy",
    "read_idx",
    "svhn",
    "table",
    "write_idx",
]

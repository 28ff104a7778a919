"""Every strategy under the protocol of the published Split-Fashion-MNIST table: hours on one core.

`study.py` explains the command line.
"""

from __future__ import annotations

import sys

from every_strategy import Protocol, study
from split_fashion_mnist import OPTIONS
from study import main

PROTOCOL = Protocol("split_fashion_mnist_every", OPTIONS, seeds_of_search=1, recalled=32)
STUDY = study(PROTOCOL)

if __name__ == "__main__":
    sys.exit(main(STUDY))

"""Strategies against forgetting, one file per algorithm."""

from cl_lib.strategies.agem import AGEM
from cl_lib.strategies.derpp import DERpp
from cl_lib.strategies.er import ER
from cl_lib.strategies.ewc import EWC
from cl_lib.strategies.finetune import Finetune
from cl_lib.strategies.icarl import ICaRL
from cl_lib.strategies.joint import Joint
from cl_lib.strategies.lwf import LwF
from cl_lib.strategies.slda import SLDA
from cl_lib.strategies.strategy import (
    Gradient,
    Net,
    Phase,
    Strategy,
    cross_entropy,
    gradient_of,
    weighted_mean,
)
from cl_lib.types import join

__all__ = [
    "AGEM",
    "ER",
    "EWC",
    "SLDA",
    "DERpp",
    "Finetune",
    "Gradient",
    "ICaRL",
    "Joint",
    "LwF",
    "Net",
    "Phase",
    "Strategy",
    "cross_entropy",
    "gradient_of",
    "join",
    "weighted_mean",
]

"""Strategies against forgetting, one file per algorithm."""

from cl_lib.strategies.er import ER
from cl_lib.strategies.finetune import Finetune
from cl_lib.strategies.strategy import Gradient, Phase, Strategy, cross_entropy, gradient_of, weighted_mean

__all__ = ["ER", "Finetune", "Gradient", "Phase", "Strategy", "cross_entropy", "gradient_of", "weighted_mean"]

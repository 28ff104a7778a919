"""Metrics: accuracy, transfer, calibration and slices, and the additive sums from which they are computed."""

from cl_lib.metrics.accuracy import accuracy, average_accuracy, learning_accuracy
from cl_lib.metrics.anytime import anytime_accuracy
from cl_lib.metrics.calibration import Reliability, adaptive_ece, classwise_ece, ece, mce, reliability
from cl_lib.metrics.flips import flip_rate
from cl_lib.metrics.scores import Scores
from cl_lib.metrics.slices import (
    SliceTable,
    age_groups,
    gap,
    merge_groups,
    slice_forgetting,
    slice_table,
    worst,
)
from cl_lib.metrics.sums import ClasswiseSums, GroupSums
from cl_lib.metrics.transfer import bwt, forgetting, fwt, next_experience

__all__ = [
    "ClasswiseSums",
    "GroupSums",
    "Reliability",
    "Scores",
    "SliceTable",
    "accuracy",
    "adaptive_ece",
    "age_groups",
    "anytime_accuracy",
    "average_accuracy",
    "bwt",
    "classwise_ece",
    "ece",
    "flip_rate",
    "forgetting",
    "fwt",
    "gap",
    "learning_accuracy",
    "mce",
    "merge_groups",
    "next_experience",
    "reliability",
    "slice_forgetting",
    "slice_table",
    "worst",
]

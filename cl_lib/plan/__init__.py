"""The plan of a run: the indices of every batch, admission and recall, computed before training."""

from cl_lib.plan.plan import Block, Plan

__all__ = ["Block", "Plan"]

"""The plan of a run: every batch, admission and recall as integers, made before training."""

from cl_lib.plan.plan import Block, Plan

__all__ = ["Block", "Plan"]

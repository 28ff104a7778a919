"""Replay memories: their settings, and the choice of samples by strategies (eviction, herding, exemplars)."""

from cl_lib.memory.eviction import eviction
from cl_lib.memory.exemplars import update_exemplars
from cl_lib.memory.herding import herd
from cl_lib.memory.store import Memory

__all__ = ["Memory", "eviction", "herd", "update_exemplars"]

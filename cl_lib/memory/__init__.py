"""Replay memories: how much they hold, and which samples strategies choose for them."""

from cl_lib.memory.eviction import eviction
from cl_lib.memory.exemplars import update_exemplars
from cl_lib.memory.herding import herd
from cl_lib.memory.store import Memory

__all__ = ["Memory", "eviction", "herd", "update_exemplars"]

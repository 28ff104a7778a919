"""What an experience's training is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Phase:
    """One stretch of training within an experience.

    Parameters
    ----------
    name : str
        Shown in the progress bar, and what ``batch.phase`` says.
    source : {"experience", "so_far", "full", "memory"}
        The data: of this experience, of all experiences so far, of the whole stream (an upper bound), or what the
        memory holds when the phase begins.
    epochs, batch_size : int, optional
        Default: the run's.
    trainable : tuple of str, optional
        Prefixes of the names of the parameters that are trained; default all, ``()`` none.
    reset : bool, default False
        Begin with the initial parameters, buffers and optimiser.
    """

    name: str = "train"
    source: Literal["experience", "so_far", "full", "memory"] = "experience"
    epochs: int | None = None
    batch_size: int | None = None
    trainable: tuple[str, ...] | None = None
    reset: bool = False

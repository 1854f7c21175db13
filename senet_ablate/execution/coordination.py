"""What an executor is, and how drivers share a study."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol

from senet_ablate.training.request import Event, RunRequest

ExecutorKind = Literal["local", "slurm", "ray"]


Fits = Callable[[RunRequest], bool]
"""Says of a run, when its turn comes, whether to begin it."""


class Executor(Protocol):
    """Does runs somewhere. Events are for the display; what counts is in the runs' folders."""

    def execute(self, requests: Sequence[RunRequest]) -> Iterator[Event | None]:
        """Do all runs, yielding events as they happen and None at least every half second."""

"""The time that a call of `run` may take: which runs still fit into it, and when it is over.

For a machine that is there for minutes only. What was begun and does not end in time goes on from its checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from senet_ablate.training.request import RunRequest


class TimeLimit:
    """Says of each run, when its turn comes, whether it should end in time.

    Args:
        ends_at: when time is up, by `clock`; infinity for never.
        work: of each run by its id, in any unit; a begun run counts for what is open of it.
    """

    def __init__(self, ends_at: float, work: Mapping[str, float], clock: Callable[[], float] = time.monotonic) -> None:
        self._ends_at, self._work, self._clock = ends_at, work, clock
        self._slowest = 0.0
        self._under_way: dict[str, tuple[float, float]] = {}

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return self._ends_at - self._clock()

    def begun(self, request: RunRequest) -> None:
        """A run has begun."""
        self._under_way[request.spec.run_id] = (self._clock(), self._open(request))

    def ended(self, request: RunRequest) -> None:
        """A run that had begun is finished: how long it took is what others may take."""
        if begun := self._under_way.pop(request.spec.run_id, None):
            since, work = begun
            self._slowest = max(self._slowest, (self._clock() - since) / work)

    def fits(self, request: RunRequest) -> bool:
        """Whether it should end in time, at the pace of the slowest run so far; before any has ended, all may begin."""
        return self._slowest * self._open(request) <= max(0.0, self.left_s)

    def _open(self, request: RunRequest) -> float:
        progress = request.folder.progress()
        done = progress.epoch / progress.epochs if progress else 0.0
        return self._work[request.spec.run_id] * max(1 - done, 1e-3)  # testing is work, too

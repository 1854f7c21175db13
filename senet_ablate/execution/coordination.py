"""How drivers share a study, and what of it a call has time for."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from senet_ablate.execution.executor import Executor, Fits
from senet_ablate.execution.progress import share_done
from senet_ablate.results.lease import Watch, discard_dead
from senet_ablate.training.request import Event, RunRequest, is_found

LOOK_S = 0.5
"""Seconds between two looks at the runs that others do."""


def share(executor: Executor, requests: Sequence[RunRequest], fits: Fits) -> Generator[Event | None]:
    """Do all runs, but those that another driver does; these are waited for when nothing else is left to do.

    A run that another driver has finished is told as `found`; one that it dropped is done here. Ends when every run
    is finished, failed or left.
    """
    watch = Watch()
    todo, waiting = list(requests), dict[str, RunRequest]()
    try:
        while todo or waiting:
            for event in executor.execute(todo, fits) if todo else ():
                if event is None:
                    for request in waiting.values():
                        watch.look(request.folder.path)
                elif event.kind == "busy":
                    waiting[event.request.spec.run_id] = event.request
                yield event
            todo = []
            for run_id, request in list(waiting.items()):
                free, state = watch.look(request.folder.path)
                if not free:
                    continue
                del waiting[run_id]
                if is_found(request):
                    yield Event("found", request)
                else:
                    todo.append(replace(request, overdue=state))
            if waiting and not todo:
                yield None
                time.sleep(LOOK_S)
    finally:
        for request in requests:  # of workers that ended with this driver: others need not find out by waiting
            with suppress(OSError):
                discard_dead(request.folder.path)


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
        return self._work[request.spec.run_id] * max(1 - share_done(request), 1e-3)  # testing is work, too

"""The executor: hands runs to a queue, repeats those that are lost, and shares a study with other drivers.

A queue is this machine's workers (`local.py`) or a cluster's. It does not say whether a run is finished: that is read
from the run's folder, which therefore lies on a file system that all machines share.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Literal, Protocol

from senet_ablate.results.lease import Watch, discard_dead
from senet_ablate.results.records import Failure
from senet_ablate.training.request import Event, RunRequest, is_found, note_failure

ExecutorKind = Literal["local", "slurm", "ray"]

Fits = Callable[[RunRequest], bool]
"""Says of a run, when its turn comes, whether to begin it."""

TRIES = 3
"""How often in a row a run may be lost (killed, out of memory, its node gone) without a new checkpoint.

Not in all: on nodes that come and go a long run is lost often, and still gets on.
"""

TICK_S = 0.5
"""How often `execute` returns to its caller while nothing happens, so that a display can be kept."""

LOOK_S = 5.0
"""How often the files of runs that did not begin yet are looked at."""


class Queue(Protocol):
    """What does runs: workers of this machine, or an engine elsewhere."""

    def open(self) -> Iterator[None]:
        """Get ready to take runs; yields while that lasts."""

    def submit(self, requests: Sequence[RunRequest]) -> None:
        """Take runs over. Raises UserError if they are refused."""

    def ended(self) -> Iterable[Event]:
        """Wait for at most a tick; what became of runs: `lost` with its cause where the queue cannot tell.

        A queue that knows when a run begins tells `started`, too.
        """

    def close(self) -> None:
        """End what is still open, and free what the queue holds."""


class Executor:
    """Does runs through a queue, `at_once` of them at a time or as many as the queue takes.

    Events are for the display; what counts is in the runs' folders.
    """

    def __init__(self, open_queue: Callable[[Sequence[RunRequest]], Queue], at_once: int | None = None) -> None:
        self._open_queue, self.at_once = open_queue, at_once

    def execute(
        self, requests: Sequence[RunRequest], fits: Fits = lambda request: True
    ) -> Generator[Event | None, None, None]:
        """Do the runs in the given order, but those that do not fit, yielding None at least every half second.

        Raises:
            UserError: the queue refuses the runs, or answers no more.
            KeyboardInterrupt: after what was open is ended; checkpoints stay for the next call.
        """
        queue, waiting = self._open_queue(requests), deque(requests)
        given: dict[str, RunRequest] = {}
        begun: set[str] = set()
        marks: dict[str, object] = {}
        losses: Counter[str] = Counter()
        look = time.monotonic()
        try:
            for _ in queue.open():
                yield None
            while waiting or given:
                batch: list[RunRequest] = []
                while waiting and (self.at_once is None or len(given) < self.at_once):
                    request = waiting.popleft()
                    if is_found(request):  # done meanwhile by somebody else
                        yield Event("found", request)
                    elif not fits(request):
                        yield Event("left", request)
                    else:
                        batch.append(request)
                        given[request.spec.run_id] = request
                        marks[request.spec.run_id] = checkpoint_mark(request)
                if batch:
                    queue.submit(batch)
                for event in queue.ended() if given else ():
                    run_id = event.request.spec.run_id
                    if event.kind == "started":
                        begun.add(run_id)
                        yield event
                        continue
                    request = given.pop(run_id)
                    begun.discard(run_id)
                    if event.kind != "lost":
                        yield event
                    elif request.folder.record_file.exists():
                        yield Event("finished", request)
                    else:
                        losses[run_id] = losses[run_id] + 1 if checkpoint_mark(request) == marks[run_id] else 1
                        if losses[run_id] < TRIES:
                            waiting.appendleft(request)
                        else:
                            yield failed(request, f"{event.cause}, {TRIES} times without a new checkpoint")
                if time.monotonic() >= look:
                    look = time.monotonic() + LOOK_S
                    for run_id, request in given.items():
                        if run_id not in begun and request.folder.progress_file.exists():
                            begun.add(run_id)
                            yield Event("started", request)
                yield None
        finally:
            # Files are written whole or not at all, so ending a run loses nothing but the epoch under way.
            queue.close()


def share(executor: Executor, requests: Sequence[RunRequest], fits: Fits) -> Generator[Event | None]:
    """Do all runs, but those that another driver does; these are waited for when nothing else is left to do.

    A run that another driver finished is reported as `found`; one that it gave up is done here. Ends when every run
    is finished, failed or left.
    """
    watch = Watch()
    remaining, waiting = list(requests), dict[str, RunRequest]()
    try:
        while remaining or waiting:
            for event in executor.execute(remaining, fits) if remaining else ():
                if event is None:
                    for request in waiting.values():
                        watch.look(request.folder.path)
                elif event.kind == "busy":
                    waiting[event.request.spec.run_id] = event.request
                yield event
            remaining = []
            for run_id, request in list(waiting.items()):
                free, state = watch.look(request.folder.path)
                if not free:
                    continue
                del waiting[run_id]
                if is_found(request):
                    yield Event("found", request)
                else:
                    remaining.append(replace(request, overdue=state))
            if waiting and not remaining:
                yield None
                time.sleep(TICK_S)
    finally:
        for request in requests:  # of workers that ended with this driver: others need not find out by waiting
            with suppress(OSError):
                discard_dead(request.folder.path)


def checkpoint_mark(request: RunRequest) -> object:
    """Differs when the run has a new checkpoint; compares times of one file system, not of two clocks."""
    try:
        found = request.folder.checkpoint_file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def failed(request: RunRequest, cause: str, traceback: str = "") -> Event:
    """The event of a run that could not be done; the cause, in one line, is noted in its folder."""
    cause = " ".join(cause.split())[:300]
    note_failure(request, Failure(cause=cause, traceback=traceback))
    return Event("failed", request, cause)

"""How far a study is: what `run` prints of it while it runs, and which runs it still has time for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from senet_ablate.errors import UserError
from senet_ablate.results.worklist import duration
from senet_ablate.training.request import Event, RunRequest

SILENCE_S = 240.0
"""After this time without a line there is one that says what is under way; in a file, where there is no bar."""

NAMED = 3
"""Runs under way that it names."""


class ProgressLog:
    """Tells how far a study is.

    Args:
        console: where to.
        work: of each run that is to be done, by its id, in any unit.
    """

    def __init__(self, console: Console, work: Mapping[str, float]) -> None:
        self.console, self.work, self.total = console, work, sum(work.values())
        self.active: dict[str, RunRequest] = {}
        self.ended = 0
        self.finished = 0.0
        self.resumed: dict[str, float] = {}
        self.began = self.told = time.monotonic()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task(self.counted, total=self.total, left="")

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *how: object) -> None:
        """Leave the bar as it is."""
        self._bar.stop()

    @property
    def counted(self) -> str:
        """How many runs have ended."""
        return f"{self.ended} of {len(self.work)} runs"

    def take(self, event: Event | None) -> None:
        """Take in what happened, None for nothing, and print what is to be told of it."""
        if event is not None:
            run_id = event.request.spec.run_id
            if event.kind in ("started", "busy"):
                self.active[run_id] = event.request
                self.resumed.setdefault(run_id, self._share(event.request))
            else:
                self.active.pop(run_id, None)
                self.finished += self.work[run_id]
                self.ended += event.kind != "left"
            if event.kind == "failed":
                self._print(f"failed {run_id}: {event.cause}; {self.counted} done{self._left()}")
            elif event.kind in ("finished", "found"):
                self._print(f"{in_words(event)}; {self.counted} done{self._left()}")
        if not self._bar.disable:
            self._bar.update(
                self._task, completed=self.finished + self._partial, description=self.counted, left=self._left()[2:]
            )
        elif time.monotonic() - self.told >= SILENCE_S:
            self._print(f"{self.counted} done{self._left()}; under way: {self._under_way}")

    def _print(self, text: str) -> None:
        self.told = time.monotonic()
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @property
    def _partial(self) -> float:
        """Work that is done of the runs under way; read from their files, so it does not matter who does them."""
        return sum(self._share(request) for request in self.active.values())

    def _share(self, request: RunRequest) -> float:
        return self.work[request.spec.run_id] * share_done(request)

    def _left(self) -> str:
        """The time left, at the pace so far; epochs of an earlier call say nothing about it."""
        done = self.finished + self._partial
        now = done - sum(self.resumed.values())
        if not 0 < now <= done < self.total:
            return ""
        return f", about {duration((time.monotonic() - self.began) * (self.total - done) / now)} left"

    @property
    def _under_way(self) -> str:
        names = []
        for request in list(self.active.values())[:NAMED]:
            progress = request.folder.progress()
            names.append(named(request) + (f" at epoch {progress.epoch} of {progress.epochs}" if progress else ""))
        more = len(self.active) - len(names)
        return ", ".join(names + ([f"{more} more"] if more else [])) or "none"


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


def share_done(request: RunRequest) -> float:
    """Which share of a run's epochs is done."""
    progress = request.folder.progress()
    return progress.epoch / progress.epochs if progress else 0.0


def named(request: RunRequest) -> str:
    """A run as people call it."""
    return f"{request.spec.variant.slug} seed {request.spec.seed}"


def in_words(event: Event) -> str:
    """What a run came to."""
    try:
        record = event.request.folder.record()
    except UserError:  # damaged: that is for `verify` to say
        record = None
    name = named(event.request)
    by = " by another driver" if event.kind == "found" else ""
    if record is None:
        return f"{name}: finished{by}"
    came_to = f"{record.metrics.top1_err:.2f} % error" if record.metrics else "diverged"
    return f"{name}: {came_to} in {duration(record.provenance.wall_s)}{by}"

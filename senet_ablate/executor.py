"""What an executor is: something that does runs, here or elsewhere, and says what becomes of them.

A request is plain data and `worker.attempt` does one; the files in a run's folder are the state. So an engine (the
local pool, a cluster's queue) has only to call it somewhere and to pass its events on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from senet_ablate.records import Failure
from senet_ablate.specs import RunSpec
from senet_ablate.store import RunFolder

DeviceKind = Literal["cpu", "cuda", "mps"]
ExecutorKind = Literal["local", "slurm", "ray"]


@dataclass(frozen=True)
class RunRequest:
    """All that a worker needs to do one run.

    With `data_fingerprint` the run refuses other images than those of its study.
    `devices` share each batch of the run; `threads` and `loader_workers` are for each of them; `levers` are in use.
    """

    spec: RunSpec
    folder: RunFolder
    data_path: Path | None = None
    data_fingerprint: str | None = None
    device: DeviceKind = "cpu"
    devices: int = 1
    threads: int = 1
    loader_workers: int = 0
    levers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    """What happened to a run. A failure has its cause in one line."""

    kind: Literal["started", "finished", "failed"]
    request: RunRequest
    cause: str = ""


class Executor(Protocol):
    """Does runs somewhere. Events are for the display; what counts is in the runs' folders."""

    def execute(self, requests: Sequence[RunRequest]) -> Iterator[Event | None]:
        """Do all runs, yielding events as they happen and None at least every half second."""


def note_failure(request: RunRequest, failure: Failure) -> None:
    """Leave the cause in the run's folder, if the disk still takes it; the event tells it anyway."""
    with suppress(OSError):
        request.folder.fail(failure)

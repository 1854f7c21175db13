"""What an executor is: something that does runs, here or elsewhere, and says what becomes of them.

A request is plain data and `attempt` does one; the files in a run's folder are the state. So an engine (the local pool,
a cluster's queue) has only to call `attempt` somewhere and to pass its events on.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from senet_ablate.errors import UserError
from senet_ablate.records import Failure, RunFolder
from senet_ablate.specs import RunSpec

DeviceKind = Literal["cpu", "cuda", "mps"]


@dataclass(frozen=True)
class RunRequest:
    """All that a worker needs to do one run.

    With `data_fingerprint` the run refuses other images than those of its study.
    `devices` share each batch of the run; `threads` and `loader_workers` are for each of them.
    """

    spec: RunSpec
    folder: RunFolder
    data_path: Path | None = None
    data_fingerprint: str | None = None
    device: DeviceKind = "cpu"
    devices: int = 1
    threads: int = 1
    loader_workers: int = 0


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


def attempt(request: RunRequest) -> Event:
    """Do one run here; whatever goes wrong is noted in its folder and does not stop other runs."""
    from senet_ablate.training import train_run  # in the worker, where torch is wanted

    try:
        train_run(request)
    except Exception as error:
        cause = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        if "Traceback" in cause:  # from a process of the run, whose last line says it
            cause = cause.strip().splitlines()[-1]
        cause = " ".join(cause.split())[:300]
        note_failure(request, Failure(cause=cause, traceback=traceback.format_exc()))
        return Event("failed", request, cause)
    return Event("finished", request)

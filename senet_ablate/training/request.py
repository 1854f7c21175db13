"""What is asked of one run, and what became of it: plain data that travels to a worker and back."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from senet_ablate.errors import UserError
from senet_ablate.results.records import Failure
from senet_ablate.results.store import RunFolder
from senet_ablate.spec.protocol import DeviceKind, RunSpec

TrackerKind = Literal["tensorboard", "wandb", "mlflow"]


@dataclass(frozen=True)
class RunRequest:
    """All that a worker needs to do one run.

    With `data_fingerprint` the run refuses other images than those of its study. `overdue` is a lease on it that the
    driver saw unchanged for so long that its holder counts as dead (see `results/lease.py`).
    `devices` share each batch of the run; `threads` and `loader_workers` are for each of them.
    `optimisations` are those in use.
    `keep_weights` leaves the trained weights beside the record; `trackers` get each epoch.
    """

    spec: RunSpec
    folder: RunFolder
    data_path: Path | None = None
    data_fingerprint: str | None = None
    device: DeviceKind = "cpu"
    devices: int = 1
    threads: int = 1
    loader_workers: int = 0
    optimisations: tuple[str, ...] = ()
    keep_weights: bool = False
    trackers: tuple[TrackerKind, ...] = ()
    overdue: bytes | None = None


@dataclass(frozen=True)
class Event:
    """What happened to a run. A failure has its cause in one line.

    `busy`: another driver does it, and nothing was done here. `found`: another driver has finished it. `left`: it
    would not end in the time of this call. `lost`: a process of the run died, as its worker may, and it can be tried
    again.
    """

    kind: Literal["started", "finished", "failed", "busy", "found", "left", "lost"]
    request: RunRequest
    cause: str = ""


def is_done(request: RunRequest) -> bool:
    """Whether the run's folder has its result, on the images that are asked for.

    Raises:
        UserError: there is a record but it is damaged.
    """
    record = request.folder.record()
    asked = request.data_fingerprint
    return record is not None and record.spec == request.spec and asked in (None, record.data_fingerprint)


def is_found(request: RunRequest) -> bool:
    """The same of a run that another driver may have done; what is damaged is for the run's own try to tell."""
    try:
        return is_done(request)
    except UserError:
        return False


def note_failure(request: RunRequest, failure: Failure) -> None:
    """Leave the cause in the run's folder, if the disk still takes it; the event tells it anyway."""
    with suppress(OSError):
        request.folder.fail(failure)

"""Runs on other machines: what each asks of its node, and a watch over them that trusts no engine alone.

An engine (a cluster's queue) is handed requests and says which of them it is done with. Whether a run is finished is
read from its folder, which therefore lies on a file system that all machines share.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Protocol, TypeVar

from pydantic import Field

from senet_ablate.errors import UserError, is_plain
from senet_ablate.execution import local
from senet_ablate.execution.machine import ALLOCATOR, Resources, optimisations_on, process_environment
from senet_ablate.results.records import Failure
from senet_ablate.spec.protocol import DeviceKind
from senet_ablate.spec.schema import Spec, parse_value, validate
from senet_ablate.training.request import Event, RunRequest, note_failure

LOOK_S = 5.0
"""How often the files of runs that did not begin yet are looked at."""

LOADER_CPUS = 3
"""Processor cores per GPU, beside the one that trains, where a call does not say how many; they read images."""


class NodeOptions(Spec):
    """What each run asks of its node, as `--executor-option` says it."""

    gpus: Annotated[float, Field(ge=0, le=1024)] | None = None
    cpus: Annotated[int, Field(ge=1, le=65_536)] | None = None
    memory_gb: Annotated[float, Field(ge=0.001, le=1_000_000)] | None = None


OptionsT = TypeVar("OptionsT", bound=NodeOptions)


def read_options(model: type[OptionsT], pairs: Sequence[str]) -> OptionsT:
    """The `KEY=VALUE` texts of `--executor-option`; a dotted key is an entry of a table (`sbatch.reservation=spring`).

    Raises:
        UserError: an unknown key or a value that does not fit; the message has what would be right.
    """
    raw: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        table, dot, entry = key.partition(".")
        if not (equals and table and text and is_plain(text)) or (dot and not entry):
            raise UserError(f"--executor-option {pair!r}: expected KEY=VALUE; allowed: {', '.join(model.model_fields)}")
        if dot:
            entries = raw.setdefault(table, {})
            if not isinstance(entries, dict):
                raise UserError(f"--executor-option {pair!r}: {table} is given as a single value, too")
            entries[entry] = text
        else:
            field = model.model_fields.get(key)
            # An account may be called 2024, and a time is not TOML's.
            raw[key] = text if field and field.annotation == str | None else parse_value(text)
    return validate(model, raw, "--executor-option")


def node_resources(
    options: NodeOptions, device: str, devices: int, threads: int, without: Collection[str] = ()
) -> Resources:
    """What each run gets on its node; the machine of the driver says nothing about it.

    `auto` is CUDA for runs that are given GPUs, else the processor.

    Raises:
        UserError: device, GPUs, processor cores and threads do not fit each other.
    """
    if device == "mps":
        raise UserError("--device mps: Apple's GPUs are for --executor local; on a cluster cuda or cpu")
    kind: DeviceKind = "cuda" if device == "cuda" or (device == "auto" and options.gpus) else "cpu"
    gpus = run_gpus(options, kind, devices)
    if kind == "cpu" and options.gpus:
        raise UserError(f"--executor-option gpus={options.gpus:g}: these runs are on --device cpu; say --device cuda")
    if kind == "cuda" and not gpus:
        raise UserError("--executor-option gpus=0: --device cuda needs a GPU for each run, or a part of one")
    if kind == "cuda" and gpus != devices and not (devices == 1 and gpus < 1):
        raise UserError(
            f"--executor-option gpus={gpus:g}: a run uses as many GPUs as --devices-per-run says, {devices}"
            + ("; or a part of one, such as 0.5" if devices == 1 else "")
        )
    cpus = run_cpus(options, kind, devices, threads)
    if cpus < devices * threads:
        raise UserError(
            f"--executor-option cpus={cpus}: --devices-per-run {devices} with --threads {threads} needs "
            f"at least {devices * threads}"
        )
    optimisations = optimisations_on(kind, without)
    environment = process_environment(kind, threads) | ALLOCATOR
    loaders = max(1, cpus // devices - 1) if kind == "cuda" else 0
    return Resources(kind, (environment,), devices, threads, loaders, optimisations)


def run_gpus(options: NodeOptions, device: DeviceKind, devices: int) -> float:
    """GPUs of a run: as many as devices, where the call does not say."""
    if options.gpus is not None:
        return options.gpus
    return devices if device == "cuda" else 0


def run_cpus(options: NodeOptions, device: DeviceKind, devices: int, threads: int) -> int:
    """Processor cores of a run: one for each thread and, beside a GPU, some that read images."""
    return options.cpus or devices * (threads + (LOADER_CPUS if device == "cuda" else 0))


def users_own(environment: Mapping[str, str]) -> dict[str, str]:
    """The same variables, but as the user has set them where that is so."""
    return {name: os.environ.get(name, value) for name, value in environment.items()}


def do(request: RunRequest) -> Event:
    """One run, called on its node. It may be called again after any end: what is finished stays so."""
    if request.folder.record_file.exists():  # the engine lost the run between its last file and its report
        return Event("finished", request)
    from senet_ablate.execution.worker import attempt  # imports torch, which the driver can do without

    return attempt(request)


class Queue(Protocol):
    """An engine that does runs elsewhere."""

    def open(self) -> Iterator[None]:
        """Get ready to take runs; yields while that lasts."""

    def submit(self, requests: Sequence[RunRequest]) -> None:
        """Take runs over. Raises UserError if the engine refuses them."""

    def ended(self) -> Iterable[tuple[RunRequest, Event | str]]:
        """Wait for at most a tick; runs that the engine is done with: their event, or how it lost them."""

    def close(self) -> None:
        """End what is still open, and free what the engine holds."""


class Losses:
    """Counts how often in a row a run was lost with no new checkpoint, and gives it up after `pool.TRIES`.

    Not in all: on nodes that come and go a long run is lost often, and still gets on.
    """

    def __init__(self) -> None:
        self._marks: dict[str, object] = {}
        self._losses: Counter[str] = Counter()

    def begin(self, request: RunRequest) -> None:
        """Remember how far the run is."""
        self._marks[request.spec.run_id] = checkpoint_mark(request)

    def give_up(self, request: RunRequest, cause: str) -> Event | None:
        """The run was lost: None if it shall be tried again, else its failure, noted in its folder."""
        run_id = request.spec.run_id
        gained = checkpoint_mark(request) != self._marks.get(run_id)
        self._losses[run_id] = 1 if gained else self._losses[run_id] + 1
        if self._losses[run_id] < local.TRIES:
            return None
        return failed(request, f"{cause}, {local.TRIES} times without a new checkpoint")


def checkpoint_mark(request: RunRequest) -> object:
    """Differs when the run has a new checkpoint; compares times of one file system, not of two clocks."""
    try:
        found = request.folder.checkpoint_file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def failed(request: RunRequest, cause: str, traceback: str = "") -> Event:
    """The event of a run that its engine could not do; the cause is noted in its folder."""
    cause = " ".join(cause.split())[:300]
    note_failure(request, Failure(cause=cause, traceback=traceback))
    return Event("failed", request, cause)


class Watch:
    """An executor around a queue: hands runs over, reads their files, repeats what was lost, leaves nothing open."""

    def __init__(self, open_queue: Callable[[Sequence[RunRequest]], Queue], at_once: int | None = None) -> None:
        self._open_queue = open_queue
        self._at_once = at_once

    def execute(self, requests: Sequence[RunRequest]) -> Iterator[Event | None]:
        """Do the runs in the given order, `at_once` of them or as many as the engine likes.

        Raises:
            UserError: the engine refuses the runs, or answers no more.
            KeyboardInterrupt: after what was open is cancelled; checkpoints stay for the next call.
        """
        queue, losses = self._open_queue(requests), Losses()
        waiting, given, begun = deque(requests), dict[str, RunRequest](), set[str]()
        look = time.monotonic()
        try:
            for _ in queue.open():
                yield None
            while waiting or given:
                room = len(waiting) if self._at_once is None else self._at_once - len(given)
                batch: list[RunRequest] = []
                while waiting and len(batch) < room:
                    request = waiting.popleft()
                    if request.folder.record_file.exists():  # done meanwhile by somebody else
                        yield Event("found", request)
                        continue
                    losses.begin(request)
                    batch.append(request)
                if batch:
                    given |= {request.spec.run_id: request for request in batch}
                    queue.submit(batch)
                if not given:
                    continue
                for request, outcome in queue.ended():
                    del given[request.spec.run_id]
                    begun.discard(request.spec.run_id)
                    if isinstance(outcome, Event) and outcome.kind == "lost":
                        outcome = outcome.cause
                    if isinstance(outcome, Event):
                        yield outcome
                    elif request.folder.record_file.exists():
                        yield Event("finished", request)
                    elif event := losses.give_up(request, outcome):
                        yield event
                    else:
                        waiting.append(request)
                if time.monotonic() >= look:
                    look = time.monotonic() + LOOK_S
                    for run_id, request in given.items():
                        if run_id not in begun and request.folder.progress_file.exists():
                            begun.add(run_id)
                            yield Event("started", request)
                yield None
        finally:
            queue.close()

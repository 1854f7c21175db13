"""Do the open runs of a study: choose the executor, prepare the images once, execute."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from senet_ablate.errors import UserError
from senet_ablate.execution.cluster import NodeOptions, node_resources, read_options
from senet_ablate.execution.executor import Executor, ExecutorKind, share
from senet_ablate.execution.local import local_executor
from senet_ablate.execution.machine import Resources, find_machine, share_out
from senet_ablate.execution.progress import ProgressLog, TimeLimit
from senet_ablate.execution.ray import RayOptions, ray_executor
from senet_ablate.execution.slurm import SlurmOptions, slurm_executor
from senet_ablate.files import write_atomic
from senet_ablate.results.store import SKIPPED, Study
from senet_ablate.spec.protocol import Protocol, RunSpec, check_fit
from senet_ablate.training.request import RunRequest, TrackerKind

REMOTE: dict[ExecutorKind, tuple[type[NodeOptions], Callable[..., Executor], str]] = {
    "slurm": (SlurmOptions, slurm_executor, "in Slurm's queue"),
    "ray": (RayOptions, ray_executor, "by Ray"),
}
"""What an engine elsewhere takes as options, what sets it up, and how the user is told that runs are done there."""


@dataclass(frozen=True)
class Engine:
    """An executor that is ready to begin, what each of its runs gets, and where they are done, if elsewhere."""

    resources: Resources
    executor: Executor
    elsewhere: str = ""

    def where(self, runs: int) -> str:
        """How that many runs are done, for the user."""
        return self.elsewhere or f"{min(self.executor.at_once or runs, runs)} at once"


def set_up(
    kind: ExecutorKind,
    options: Sequence[str],
    device: str,
    jobs: int | None,
    devices: int,
    threads: int,
    without: Collection[str],
    say: Callable[[str], None],
) -> Engine:
    """Check what was typed against this machine or against itself; nothing is started.

    Raises:
        UserError: an option that the executor does not have, more than there is, or an extra that is not installed.
    """
    if kind in REMOTE:
        model, build, where = REMOTE[kind]
        wishes = read_options(model, options)
        resources = node_resources(wishes, device, devices, threads, without)
        return Engine(resources, build(wishes, resources, jobs, say), where)
    if options:
        raise UserError(
            f"--executor-option {options[0]!r}: --executor local has none; its workers follow from --jobs, "
            "--devices-per-run and --threads"
        )
    resources = share_out(find_machine(device), jobs, devices, threads, without)
    return Engine(resources, local_executor(resources.environments))


@dataclass(frozen=True)
class Summary:
    """What a call of `run` did.

    `found` are the runs that other drivers finished meanwhile, `left` those for which there was no time; `wall_s` is
    in seconds.
    """

    trained: int
    found: int
    failed: dict[str, str]
    left: int
    wall_s: float


def prepare(protocol: Protocol, study: Study, data_path: Path | None, devices: int, say: Callable[[str], None]) -> str:
    """Load the images once before any worker does (download, decode, check), and pin the study to them.

    Returns:
        The fingerprint of the images.

    Raises:
        UserError: data, protocol and study do not fit each other.
    """
    from senet_ablate.data.datasets import load_data  # imports torch

    study.check(protocol)  # before a long download
    data = load_data(protocol.data, data_path, stream=protocol.recipe.augmentation.resized_crop, announce=say)
    for notice in data.notices:
        say(notice)
    check_fit(protocol.recipe, protocol.data, data.facts, devices)
    study.begin(protocol, data.facts)
    if data.skipped:
        text = "\n".join(data.skipped).encode(errors="backslashreplace")  # names of files are bytes
        write_atomic(study.root / SKIPPED, text + b"\n", inside=study.root)
        say(f"all {len(data.skipped)} are named in {study.root / SKIPPED}")
    return data.facts.fingerprint


def requests(
    specs: Sequence[RunSpec],
    study: Study,
    data_path: Path | None,
    fingerprint: str | None,
    resources: Resources,
    *,
    keep_weights: bool = False,
    trackers: Sequence[TrackerKind] = (),
) -> list[RunRequest]:
    """Runs as plain data for the workers; relative paths become absolute, a worker may sit elsewhere."""
    from senet_ablate.data.datasets import image_root  # imports torch

    absolute = Study(study.root.resolve())
    return [
        RunRequest(
            spec=spec,
            folder=absolute.run(spec.run_id),
            data_path=image_root(spec.data, data_path),
            data_fingerprint=fingerprint,
            device=resources.device,
            devices=resources.devices,
            threads=resources.threads,
            loader_workers=resources.loader_workers,
            optimisations=resources.optimisations,
            keep_weights=keep_weights,
            trackers=tuple(trackers),
        )
        for spec in specs
    ]


def execute(
    executor: Executor,
    remaining: Sequence[RunRequest],
    work: Mapping[str, float],
    console: Console,
    ends_at: float = math.inf,
    keep: Callable[[], None] = lambda: None,
) -> Summary:
    """Do the runs, beside other drivers, and tell of each as it ends; `work` is that of each, by its id, in any unit.

    When it is `ends_at` by the monotonic clock, what is under way stops; its checkpoint stays. `keep` is called at
    least every half second.
    """
    began = time.monotonic()
    limit = TimeLimit(ends_at, work)
    told: Counter[str] = Counter()
    failed = {}
    with ProgressLog(console, work) as log, closing(share(executor, remaining, limit.fits)) as events:
        for event in events:
            with suppress(OSError):  # of a full disk
                keep()
            if event is not None:
                told[event.kind] += 1
                if event.kind == "started":
                    limit.begun(event.request)
                elif event.kind == "finished":
                    limit.ended(event.request)
                elif event.kind == "failed":
                    failed[event.request.spec.run_id] = event.cause
            log.take(event)
            if limit.left_s <= 0:
                break
    left = len(remaining) - told["finished"] - told["found"] - len(failed)
    return Summary(told["finished"], told["found"], failed, left, time.monotonic() - began)

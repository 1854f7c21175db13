"""Do the open runs of a plan: choose device and workers, prepare the images once, execute, and show how far it is."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from senet_ablate import pool
from senet_ablate.errors import UserError
from senet_ablate.execution.coordination import Executor, Fits
from senet_ablate.levers import ALLOCATOR, in_use
from senet_ablate.results.store import Study
from senet_ablate.results.worklist import Plan
from senet_ablate.sharing import share
from senet_ablate.spec.protocol import DeviceKind, Protocol, check_fit
from senet_ablate.time_limit import TimeLimit
from senet_ablate.training.request import RunRequest, TrackerKind


@dataclass(frozen=True)
class Machine:
    """What this machine gives to a study: kind of device, how many of them and how many processor cores."""

    device: DeviceKind
    gpus: int
    cores: int


def find_machine(device: str) -> Machine:
    """Look at the hardware; `auto` prefers CUDA, then Apple's MPS, then the processor.

    Raises:
        UserError: the device asked for is not there.
    """
    import torch  # only here and where it trains: planning needs no torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = torch.backends.mps.is_available()
    present: dict[str, Machine] = {"cpu": Machine("cpu", 0, cores)}
    if mps:
        present = {"mps": Machine("mps", 1, cores)} | present
    if gpus:
        present = {"cuda": Machine("cuda", gpus, cores)} | present
    if device == "auto":
        return next(iter(present.values()))
    if device not in present:
        raise UserError(f"--device {device}: not on this machine; present: {', '.join(present)}")
    return present[device]


@dataclass(frozen=True)
class Resources:
    """How a machine is shared out: one environment per worker (one for all on a cluster), and what each run gets."""

    device: DeviceKind
    environments: tuple[Mapping[str, str], ...]
    devices: int
    threads: int
    loader_workers: int
    levers: tuple[str, ...]


def process_environment(device: DeviceKind, threads: int) -> dict[str, str]:
    """What a worker's process has to find in its environment, wherever it is."""
    if device == "cuda":
        # cuBLAS is deterministic only with a fixed workspace, and reads this when it starts.
        return {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    return {"OMP_NUM_THREADS": str(threads)} if device == "cpu" else {}


def share_out(
    machine: Machine, jobs: int | None, devices: int, threads: int, without: Collection[str] = ()
) -> Resources:
    """Give each worker its part: as many workers as cores allow, or one per GPU (or group of `devices` GPUs).

    Raises:
        UserError: more devices for a run than there are.
    """
    levers = in_use(machine.device, without)
    if machine.device == "cpu":
        slots = max(1, machine.cores // (devices * threads))
        workers = slots if jobs is None else jobs
        return Resources("cpu", (process_environment("cpu", threads),) * workers, devices, threads, 0, levers)
    if devices > machine.gpus:
        raise UserError(f"--devices-per-run {devices}: this machine has {machine.gpus} {machine.device} devices")
    slots = machine.gpus // devices
    workers = slots if jobs is None else jobs
    environments: tuple[Mapping[str, str], ...] = ({},) * workers
    if machine.device == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(machine.gpus)))).split(",")
        groups = [",".join(visible[slot * devices : (slot + 1) * devices]) for slot in range(slots)]
        environments = tuple(
            process_environment("cuda", threads) | {"CUDA_VISIBLE_DEVICES": groups[worker % slots]}
            for worker in range(workers)
        )
    loaders = max(1, machine.cores // (workers * devices) - 1)
    return Resources(machine.device, environments, devices, threads, loaders, levers)


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

    study.check_protocol(protocol)  # before a long download
    stream = protocol.recipe.augmentation.resized_crop
    data = load_data(protocol.data, data_path, stream=stream, announce=say)
    for notice in data.notices:
        say(notice)
    check_fit(protocol.recipe, protocol.data, data.facts, devices)
    study.begin(protocol, data.facts)
    return data.facts.fingerprint


def requests(
    plan: Plan,
    study: Study,
    data_path: Path | None,
    fingerprint: str | None,
    resources: Resources,
    *,
    keep_weights: bool = False,
    trackers: Sequence[TrackerKind] = (),
) -> list[RunRequest]:
    """The open runs as plain data for the workers; relative paths become absolute, a worker may sit elsewhere."""
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
            levers=resources.levers,
            keep_weights=keep_weights,
            trackers=tuple(trackers),
        )
        for spec in plan.todo
    ]


def execute(
    start: Callable[[Fits], Executor],
    todo: Sequence[RunRequest],
    plan: Plan,
    console: Console,
    ends_at: float = math.inf,
) -> Summary:
    """Do the runs, beside other drivers; show progress on a terminal, say nothing but failures elsewhere.

    Progress is read from the files of the runs, so it does not matter where they are done, or by whom. When it is
    `ends_at` by the monotonic clock, what is under way stops; its checkpoint stays.
    """
    began = time.monotonic()
    work = {run.run_id: float(arm.complexity.macs * run.recipe.epochs) for arm in plan.arms for run in arm.runs}
    limit = TimeLimit(ends_at, work)
    total = sum(work[request.spec.run_id] for request in todo)
    active: dict[str, RunRequest] = {}
    finished = 0.0
    trained, found, failed = 0, 0, {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(compact=True),
    )
    shown = Progress(*columns, console=console, disable=not console.is_terminal, speed_estimate_period=600)
    with shown as display, closing(share(start(limit.fits), todo)) as events:
        bar = display.add_task(f"0 of {len(todo)} runs", total=total)
        for event in events:
            if event is not None:
                run_id = event.request.spec.run_id
                if event.kind in ("started", "busy"):
                    active[run_id] = event.request
                else:
                    active.pop(run_id, None)
                    finished += work[run_id]
                    trained += event.kind == "finished"
                    found += event.kind == "found"
                if event.kind == "started":
                    limit.begun(event.request)
                elif event.kind == "finished":
                    limit.ended(event.request)
                if event.kind == "failed":
                    failed[run_id] = event.cause
                    console.print(f"failed {run_id}: {event.cause}", highlight=False, markup=False, soft_wrap=True)
            if limit.left_s <= 0:
                break
            if display.disable:
                continue
            done = trained + found + len(failed)
            partial = 0.0
            for run_id, request in active.items():
                progress = request.folder.progress()
                partial += work[run_id] * progress.epoch / progress.epochs if progress else 0.0
            display.update(bar, completed=finished + partial, description=f"{done} of {len(todo)} runs")
    left = len(todo) - trained - found - len(failed)
    return Summary(trained, found, failed, left, time.monotonic() - began)


def warm_up(without: Collection[str]) -> None:
    """Let this machine's workers begin their imports while the images are read."""
    pool.warm_up({} if "kept-memory" in without else ALLOCATOR)


def local_executor(resources: Resources, fits: Fits) -> Executor:
    """The pool of worker processes on this machine."""
    return pool.LocalPool(resources.environments, fits)

"""The executor that a call names, with what each run gets: the pool of this machine, Slurm's queue, or Ray's tasks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from senet_ablate.errors import UserError
from senet_ablate.execution.coordination import Executor, ExecutorKind, Fits
from senet_ablate.on_ray import RayOptions, ray_executor
from senet_ablate.on_slurm import SlurmOptions, slurm_executor
from senet_ablate.remote import NodeOptions, node_resources, read_options
from senet_ablate.runner import Resources, find_machine, local_executor, share_out

REMOTE: dict[ExecutorKind, tuple[type[NodeOptions], Callable[..., Executor], str]] = {
    "slurm": (SlurmOptions, slurm_executor, "in Slurm's queue"),
    "ray": (RayOptions, ray_executor, "by Ray"),
}
"""What an engine elsewhere takes as options, what sets it up, and how the user is told that runs are done there."""


@dataclass(frozen=True)
class Call:
    """What was typed: the executor with its options, and what each run shall get."""

    executor: ExecutorKind
    options: Sequence[str]
    device: str
    jobs: int | None
    devices: int
    threads: int
    without: Collection[str]


@dataclass(frozen=True)
class Engine:
    """An executor that is ready to begin; `start` begins it, which nothing does before there is something to train.

    `start` takes what says of each run, when its turn comes, whether to begin it. Only the pool of this machine asks.
    """

    resources: Resources
    start: Callable[[Fits], Executor]
    where: Callable[[int], str]
    """How that many runs are done, for the user."""


def set_up(call: Call, say: Callable[[str], None]) -> Engine:
    """Check what was typed against this machine or against itself; nothing is started.

    Raises:
        UserError: an option that the executor does not have, more than there is, or an extra that is not installed.
    """
    if call.executor in REMOTE:
        model, build, where = REMOTE[call.executor]
        options = read_options(model, call.options)
        resources = node_resources(options, call.device, call.devices, call.threads, call.without)
        executor = build(options, resources, call.jobs, say)
        return Engine(resources, lambda fits: executor, lambda runs: where)
    if call.options:
        raise UserError(
            f"--executor-option {call.options[0]!r}: --executor local has none; its workers follow from --jobs, "
            "--devices-per-run and --threads"
        )
    resources = share_out(find_machine(call.device), call.jobs, call.devices, call.threads, call.without)
    workers = len(resources.environments)
    return Engine(resources, lambda fits: local_executor(resources, fits), lambda runs: f"{min(workers, runs)} at once")

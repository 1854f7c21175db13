"""Runs as Ray tasks: on this machine's cores, or on a cluster whose nodes come and go (extra `ray`)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from senet_ablate.errors import UserError, not_installed
from senet_ablate.execution import executor
from senet_ablate.execution.cluster import NodeOptions, do, users_own
from senet_ablate.execution.executor import Executor, failed
from senet_ablate.execution.machine import Resources
from senet_ablate.training.request import Event, RunRequest

PASSED_ON = ("SENET_ABLATE_CACHE", "XDG_CACHE_HOME")
"""Variables of the driver that tell a worker where decoded images are."""


class RayOptions(NodeOptions):
    """Of `--executor-option`: `address` of a cluster, and each run's `gpus` (also 0.5), `cpus` and `memory_gb`.

    Without an address it is RAY_ADDRESS, else a cluster of this machine alone is started. `auto` is one that is up
    here; Ray's own default is that, too, and waits for minutes for one that was killed.
    """

    address: str | None = None


def ray_executor(options: RayOptions, resources: Resources, jobs: int | None, say: Callable[[str], None]) -> Executor:
    """The executor that hands each run to Ray as a task.

    Raises:
        UserError: Ray is not installed.
    """
    try:
        import ray  # noqa: F401
    except ImportError:
        raise UserError("--executor ray: Ray is " + not_installed("ray")) from None
    return Executor(lambda requests: RayQueue(options, resources, say), jobs)


class RayQueue:
    """Ray's queue of tasks. A task that dies with its worker or node is handed over again by the `Executor`."""

    def __init__(self, options: RayOptions, resources: Resources, say: Callable[[str], None]) -> None:
        self._options, self._resources, self._say = options, resources, say
        self._open: dict[Any, RunRequest] = {}

    def open(self) -> Iterator[None]:
        """Join the cluster, or start one on this machine."""
        # Ray reports home unless told otherwise; whoever wants that has set it.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        environment = users_own(self._resources.environments[0])
        environment |= {name: os.environ[name] for name in PASSED_ON if os.environ.get(name)}
        address = self._options.address or os.environ.get("RAY_ADDRESS") or "local"
        try:
            ray.init(
                address=address,
                runtime_env={"env_vars": environment},
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"--executor ray: no cluster at {address!r}: {error}") from None
        wanted = {
            "CPU": self._resources.cpus,
            "GPU": self._resources.gpus,
            "memory": (self._options.memory_gb or 0) * 2**30,
        }
        offers = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(offer.get(name, 0) >= amount for name, amount in wanted.items()) for offer in offers):
            asked = ", ".join(f"{name} {amount:g}" for name, amount in wanted.items() if amount)
            self._say(f"no node of the Ray cluster offers {asked}; the runs wait until one joins")
        # The executor counts retries: Ray's own have no limit where memory runs out, and do not see the checkpoint.
        self._task = ray.remote(do).options(
            num_cpus=wanted["CPU"], num_gpus=wanted["GPU"], memory=wanted["memory"] or None, max_retries=0
        )
        yield from ()

    def submit(self, requests: Sequence[RunRequest]) -> None:
        """One task per run, in this order."""
        self._open |= {self._task.remote(request): request for request in requests}

    def ended(self) -> Iterable[Event]:
        """Tasks that are done, failed, or lost with their worker or node."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        ready, _ = ray.wait(list(self._open), num_returns=len(self._open), timeout=executor.TICK_S)
        for task in ready:
            request = self._open.pop(task)
            try:
                yield ray.get(task)
            except RayTaskError as error:  # not from the run, which tells by its event: the package is missing there
                lines = str(error).strip().splitlines()
                yield failed(request, f"on its Ray node: {lines[-1]}", str(error))
            except RayError as error:
                cause = f"lost by Ray: {type(error).__name__}: {str(error).strip().partition('.')[0]}"
                yield Event("lost", request, cause)

    def close(self) -> None:
        """Cancel what is open and leave the cluster; one that was started here ends."""
        import ray

        for task in self._open:
            ray.cancel(task, force=True)
        ray.shutdown()

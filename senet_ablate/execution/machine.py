"""What this machine gives to a study: devices, cores and their shares, optimisations, and who may use it now."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from senet_ablate.environment import cores, user_id
from senet_ablate.errors import UserError
from senet_ablate.spec.protocol import DeviceKind

try:
    import fcntl
except ImportError:  # not on this platform, where nobody is kept out
    fcntl = None  # type: ignore[assignment]


@contextmanager
def _lock(kind: str, taken: Callable[[], None]) -> Iterator[None]:
    """Have this user's lock, `LOCK_SH` or `LOCK_EX`; where somebody else has it, call `taken` and wait.

    It keeps measurements honest and nothing else: where there can be none, nobody is kept out. Named by the user's id:
    names may be missing, or shared. A link that somebody put there is not followed.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    with ExitStack() as stack:
        with suppress(OSError):  # somebody else's, no temporary folder, a file system without locks
            handle = os.open(Path(tempfile.gettempdir()) / f"senet-ablate-{user_id()}.lock", flags, 0o600)
            stack.callback(os.close, handle)
            if fcntl is not None:
                try:
                    fcntl.flock(handle, getattr(fcntl, kind) | fcntl.LOCK_NB)
                except BlockingIOError:
                    taken()
                    fcntl.flock(handle, getattr(fcntl, kind))
        yield


def shared(say: Callable[[str], None]) -> AbstractContextManager[None]:
    """Train here, beside others that train; waits for a measurement that is under way, and says so."""
    return _lock(
        "LOCK_SH", lambda: say("times are being measured on this machine (`latency`); waiting until that is done")
    )


def alone() -> AbstractContextManager[None]:
    """Measure here, beside nobody.

    Raises:
        UserError: a study is training on this machine.
    """

    def refuse() -> None:
        raise UserError("a study trains on this machine, and times would be those of both; wait for it")

    return _lock("LOCK_EX", refuse)


def load_of_others() -> float | None:
    """Processes per core that have lately been at work here; None where the system does not tell."""
    return os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else None


OPTIMISATIONS = {"matrix-product": ("cpu",), "float32-depthwise": ("cpu",)}
"""What makes training faster without changing what is learnt, and the kinds of device on which it pays.

`matrix-product`: convolutions of small maps are computed as matrix products; `float32-depthwise`: depthwise ones in
float32 under bf16 (`models/fastconv.py`). The network computes the same function with and without, up to rounding, so
an optimisation is no part of a run's identity; those in use are recorded in its provenance, as `levers`.
"""

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 31),
    "MALLOC_TOP_PAD_": str(1 << 26),
}
"""Keeps glibc from returning every large tensor to the system and getting it anew, zeroed, at each step.

It is read when a process starts, so it stands in the environment before the workers do; a user's own setting is kept.
"""


def optimisations_on(device: str, left_out: Collection[str] = ()) -> tuple[str, ...]:
    """The optimisations that pay on a kind of device, but those left out."""
    return tuple(name for name, devices in OPTIMISATIONS.items() if device in devices and name not in left_out)


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

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    kinds: dict[DeviceKind, int] = {"cuda": gpus, "mps": int(torch.backends.mps.is_available()), "cpu": 0}
    present = {kind: Machine(kind, count, cores()) for kind, count in kinds.items() if count or kind == "cpu"}
    found = next((machine for kind, machine in present.items() if device in ("auto", kind)), None)
    if found is None:
        raise UserError(f"--device {device}: not on this machine; present: {', '.join(present)}")
    return found


@dataclass(frozen=True)
class Resources:
    """How a machine is divided: one environment per worker (one for all on a cluster), and what each run gets."""

    device: DeviceKind
    environments: tuple[Mapping[str, str], ...]
    devices: int
    threads: int
    loader_workers: int
    optimisations: tuple[str, ...]
    gpus: float = 0
    """GPUs and processor cores that a run asks of its node, on a cluster."""
    cpus: int = 0


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
    on_cpu = machine.device == "cpu"
    if devices > machine.gpus and not on_cpu:
        raise UserError(f"--devices-per-run {devices}: this machine has {machine.gpus} {machine.device} devices")
    slots = max(1, machine.cores // (devices * threads)) if on_cpu else machine.gpus // devices
    workers = slots if jobs is None else jobs
    environments = [process_environment(machine.device, threads) for _ in range(workers)]
    if machine.device == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(machine.gpus)))).split(",")
        for worker, environment in enumerate(environments):
            first = worker % slots * devices
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(visible[first : first + devices])
    loaders = 0 if on_cpu else max(1, machine.cores // (workers * devices) - 1)
    optimisations = optimisations_on(machine.device, without)
    return Resources(machine.device, tuple(environments), devices, threads, loaders, optimisations)

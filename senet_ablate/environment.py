"""What a process inherits and what results come from: code version, libraries, processor, cores."""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import multiprocessing
import os
import platform
import subprocess
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path

LIBRARIES = ("torch", "torchvision", "pytorch-lightning", "numpy", "scikit-learn", "pillow", "fvcore")


@functools.cache
def package_version() -> str:
    """The installed version of this package."""
    return importlib.metadata.version("senet-ablate")


def python_version() -> str:
    """The interpreter's version."""
    return platform.python_version()


@functools.cache
def library_versions() -> dict[str, str]:
    """Versions of the libraries that can change a number."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


@functools.cache
def code_state() -> tuple[str | None, bool | None]:
    """Commit of the checkout that runs, and whether its code differs from it; (None, None) outside one."""
    root = Path(__file__).parent.parent

    def git(*arguments: str) -> str:
        answer = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=True)
        return os.fsdecode(answer.stdout).strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return None, None  # installed somewhere inside another project's checkout
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", "senet_ablate", "ablations"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


@functools.cache
def cpu_model() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def die_with_driver() -> None:
    """End this worker process as soon as the process that started it is gone, however it went."""
    threading.Thread(target=_watch_driver, daemon=True).start()


def _watch_driver() -> None:
    driver = multiprocessing.parent_process()
    assert driver is not None
    wait([driver.sentinel])
    os._exit(1)


@contextmanager
def unwarned() -> Iterator[None]:
    """Read data in here: what is data must not depend on the warning filter, under which a warning may be an error.

    Filters are the process's, so enter it before threads begin.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def uncollected() -> Iterator[None]:
    """Import in here what a process keeps for good."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()

"""Who uses this machine: studies may share it, a measurement of time wants it for itself."""

from __future__ import annotations

import getpass
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from senet_ablate.errors import UserError

try:
    import fcntl
except ImportError:  # not on this platform, where nobody is kept out
    fcntl = None  # type: ignore[assignment]


def _lock_file() -> Path:
    return Path(tempfile.gettempdir()) / f"senet-ablate-{getpass.getuser()}.lock"


@contextmanager
def shared() -> Iterator[None]:
    """Train here, beside others that train; waits for a measurement that is under way."""
    with _lock_file().open("a") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def alone() -> Iterator[None]:
    """Measure here, beside nobody.

    Raises:
        UserError: a study is training on this machine.
    """
    with _lock_file().open("a") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(
                    "a study trains on this machine, and times would be those of both; wait for it"
                ) from None
        yield


def load_of_others() -> float | None:
    """Processes per core that have lately been at work here; None where the system does not tell."""
    return os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else None

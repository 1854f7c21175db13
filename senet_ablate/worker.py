"""What a worker does with a request, in a process of the local pool or on a cluster."""

from __future__ import annotations

import traceback

from senet_ablate.errors import UserError
from senet_ablate.executor import Event, RunRequest, note_failure
from senet_ablate.records import Failure
from senet_ablate.training import train_run


def attempt(request: RunRequest) -> Event:
    """Do one run here; whatever goes wrong is noted in its folder and does not stop other runs."""
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

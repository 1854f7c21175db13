"""What a worker does with a request, in a process of the local pool or on a cluster."""

from __future__ import annotations

import atexit
import errno
import os
import re
import sys
import traceback

from senet_ablate.environment import settle, uncollected
from senet_ablate.errors import UserError
from senet_ablate.execution.executor import failed
from senet_ablate.results.lease import Lease, Taken, leased
from senet_ablate.results.store import Study
from senet_ablate.training.request import Event, RunRequest, is_done

settle()
with uncollected():
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

    from senet_ablate.training.train import train_run  # torch and Lightning

PEER_LOST = re.compile(r"Connection (?:reset|closed) by peer")

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def attempt(request: RunRequest) -> Event:
    """Do one run here, unless another process does it; whatever goes wrong is noted in its folder and stops no other.

    Returns:
        `finished` or `failed`; `lost` if a process of the run died; `busy` if another driver's does it (or took it
        over), `found` if one had finished it.
    """
    settle()  # Lightning leaves a run's port to the next one
    try:
        with leased(request.folder.path, request.overdue) as lease:
            return _attempt(request, lease)
    except Taken as taken:
        return Event("busy", request, str(taken))
    except OSError as error:  # the lease could not be written
        return _told(request, error)


def _attempt(request: RunRequest, lease: Lease) -> Event:
    try:
        if is_done(request):
            return Event("found", request)
        check_pin(request)
        train_run(request, lease)
    except Exception as error:
        if isinstance(error, Taken) or not lease.held():  # from another process of the run it has another type
            raise Taken("the run was taken over, or its folder deleted") from None
        if how := _how_it_died(error):
            return Event("lost", request, how)
        return _told(request, error)
    return Event("finished", request)


def _how_it_died(error: Exception) -> str:
    """What ended one of several processes of a run, seen from their parent or by a process that lost it."""
    if isinstance(error, ProcessExitedException):
        return f"{error.msg} (out of memory?)" if error.signal_name == "SIGKILL" else str(error.msg)
    lost = isinstance(error, ProcessRaisedException) and PEER_LOST.search(str(error))
    return "a process of the run lost the others" if lost else ""


def check_pin(request: RunRequest) -> None:
    """Refuse a run that is not of its study: another driver may have begun it with something else at the same moment.

    Raises:
        UserError: what the study is pinned to makes another run of this, or has other images.
    """
    study = Study(request.folder.path.parent)
    pin = study.pin()
    if pin is None:
        return
    spec = request.spec
    images = request.data_fingerprint in (None, pin.data.fingerprint)
    if not images or pin.protocol.run_spec(spec.variant, spec.seed) != spec:
        raise UserError(
            f"another driver began study {study.name!r} with {'another protocol' if images else 'other images'}; "
            "give the new runs a name of their own with --study NAME"
        )


def _told(request: RunRequest, error: Exception) -> Event:
    """The event of a run that failed, and why."""
    text = "".join(traceback.format_exception(error))
    cause = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    if any(os.strerror(number) in text for number in NO_SPACE):  # also in the text of another process of the run
        place = getattr(error, "filename", None) or request.folder.path
        cause = f"no space left in {place}; free some and give the same command again"
    elif "Traceback" in cause:  # from a process of the run, whose last line says it
        cause = cause.strip().splitlines()[-1]
    return failed(request, cause, text)


if sys.argv[0] == "-c" and "multiprocessing.forkserver" in sys.modules:  # not in a process that wants its exit status
    # It has nothing to tidy up, and whoever reads the driver's output through a pipe waits for its end, too.
    atexit.register(os._exit, 0)

"""Doing runs beside other drivers: what another does is left to it, waited for, and taken over if it dies.

Any number of drivers may work on one study, on one machine or on several that share its folder. All that they have in
common are the runs' folders.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import replace

from senet_ablate.errors import UserError
from senet_ablate.execution.coordination import Executor
from senet_ablate.results.lease import Watch, discard_dead
from senet_ablate.training.request import Event, RunRequest, is_done

LOOK_S = 0.5
"""Seconds between two looks at the runs that others do."""


def share(executor: Executor, requests: Sequence[RunRequest]) -> Generator[Event | None]:
    """Do all runs, but those that another driver does; these are waited for when nothing else is left to do.

    A run that another driver has finished is told as `found`; one that it dropped is done here. Ends when every run
    is finished, failed or left.
    """
    watch = Watch()
    todo, waiting = list(requests), dict[str, RunRequest]()
    try:
        while todo or waiting:
            for event in executor.execute(todo) if todo else ():
                if event is None:
                    for request in waiting.values():
                        watch.look(request.folder.path)
                elif event.kind == "busy":
                    waiting[event.request.spec.run_id] = event.request
                yield event
            todo = []
            for run_id, request in list(waiting.items()):
                free, state = watch.look(request.folder.path)
                if not free:
                    continue
                del waiting[run_id]
                if _is_found(request):
                    yield Event("found", request)
                else:
                    todo.append(replace(request, overdue=state))
            if waiting and not todo:
                yield None
                time.sleep(LOOK_S)
    finally:
        for request in requests:  # of workers that ended with this driver: others need not find out by waiting
            with suppress(OSError):
                discard_dead(request.folder.path)


def _is_found(request: RunRequest) -> bool:
    try:
        return is_done(request)
    except UserError:  # damaged: the run's own try tells it
        return False

"""Local executor: warm worker processes that a dying worker cannot break.

Workers are forked from a server that has imported torch and Lightning once, keep their data set between runs, and are
replaced when they die; the run they had goes on from its checkpoint in another worker. A worker that loses its driver
ends itself. Any other engine (a cluster's) needs to offer only `Executor.execute`.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from senet_ablate.environment import die_with_driver, ensure_sockets
from senet_ablate.errors import UserError
from senet_ablate.execution.coordination import Fits
from senet_ablate.results.records import Failure
from senet_ablate.training.request import Event, RunRequest, note_failure

TRIES = 3
"""How often a run is begun or continued when its worker dies under it (killed, out of memory)."""

PATIENCE_S = 1.0
"""How long a worker has to end the processes that it shares a run with."""

TICK_S = 0.5
"""How often `execute` returns to its caller while nothing happens, so that a display can be kept."""


def warm_up(environment: Mapping[str, str] = MappingProxyType({})) -> Any:
    """Let the workers' server begin its imports, so that they are done when the driver has read the images.

    `environment` is what processes read when they start; what the user has set stays. A second call changes nothing,
    but for a server that died: it is started again.

    Returns:
        The context in which to start workers.
    """
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    ensure_sockets()
    # Apple's GPU libraries do not survive a fork.
    forks = "forkserver" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"
    context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(["senet_ablate.execution.preload"])
        _ensure_server()
    return context


def _ensure_server() -> None:
    """Start the workers' server, again if it died.

    It is born deaf to Ctrl-C: by itself it becomes so only after its imports, in which Ctrl-C would be a traceback.
    """
    main = threading.current_thread() is threading.main_thread()  # others cannot change it
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        ensure_running()
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    environment: Mapping[str, str]
    request: RunRequest | None = None


class LocalPool:
    """One worker process per entry of `environments`, whose variables it gets (which GPU it may see).

    `fits` is asked of each run when its turn comes; what does not fit is left.
    """

    def __init__(self, environments: Sequence[Mapping[str, str]], fits: Fits = lambda request: True) -> None:
        self.environments, self.fits = environments, fits
        self._context = warm_up()

    def execute(self, requests: Sequence[RunRequest]) -> Iterator[Event | None]:
        """Do the runs in the given order, as many at once as there are workers.

        Raises:
            UserError: no worker can import what it needs, or be started.
            KeyboardInterrupt: after the workers are gone; checkpoints stay for the next call.
        """
        queue = deque(requests)
        deaths: Counter[str] = Counter()
        with TemporaryDirectory(prefix="senet-", ignore_cleanup_errors=True) as scratch:
            # torch leaves files in the temporary folder when a process of a run fails, and so does one that is killed.
            yield from self._execute(queue, deaths, [{**each, "TMPDIR": scratch} for each in self.environments])

    def _execute(
        self, queue: deque[RunRequest], deaths: Counter[str], environments: Sequence[Mapping[str, str]]
    ) -> Iterator[Event | None]:
        workers = [self._start(environment) for environment in environments[: len(queue)]]
        try:
            while queue or any(worker.request for worker in workers):
                for number, worker in enumerate(workers):
                    while worker.request is None and queue and not self.fits(queue[0]):
                        yield Event("left", queue.popleft())
                    if worker.request is None and queue:
                        try:
                            worker.connection.send(queue[0])
                        except OSError:  # it died idle; its successor takes the run in the next round
                            workers[number] = self._start(worker.environment)
                            continue
                        worker.request = queue.popleft()
                        yield Event("started", worker.request)
                ready = wait([worker.connection for worker in workers if worker.request], timeout=TICK_S)
                if not ready:
                    yield None
                for number, worker in enumerate(workers):
                    if worker.connection not in ready or worker.request is None:
                        continue
                    try:
                        event = worker.connection.recv()
                    except (EOFError, OSError):  # the worker died with its run
                        worker.process.join()
                        event = Event("lost", worker.request, f"worker died {_how(worker.process.exitcode)}")
                    if isinstance(event, UserError):  # what one cannot import no other can
                        raise event
                    worker.request = None
                    if event.kind in ("failed", "lost"):  # it may have broken more than itself, a CUDA context for one
                        self._stop([worker])
                        workers[number] = self._start(worker.environment)
                    if event.kind == "lost":
                        run_id = event.request.spec.run_id
                        deaths[run_id] += 1
                        if deaths[run_id] < TRIES:
                            queue.appendleft(event.request)
                            continue
                        cause = f"{event.cause}, {TRIES} times"
                        note_failure(event.request, Failure(cause=cause, traceback=""))
                        event = Event("failed", event.request, cause)
                    yield event
        finally:
            # Files are written whole or not at all, so killing loses nothing but the epoch under way.
            self._stop(workers)

    def _stop(self, workers: Sequence[_Worker]) -> None:
        for worker in workers:
            worker.process.terminate()
        deadline = time.monotonic() + PATIENCE_S
        for worker in workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            worker.process.kill()  # one that is stopped, or computes something long
            worker.process.join()
            worker.connection.close()

    def _start(self, environment: Mapping[str, str]) -> _Worker:
        ours, theirs = self._context.Pipe()
        # Not daemonic: a run on several devices starts processes of its own.
        process = self._context.Process(target=_work, args=(theirs, dict(environment)), name="senet-ablate worker")
        for wait_s in (0.1, 1.0, None):
            warm_up()
            try:
                process.start()
                break
            except (EOFError, OSError) as error:  # the server is dying; once it is dead there is a new one
                if wait_s is None:
                    cause = str(error) or type(error).__name__
                    raise UserError(f"no worker process can be started here: {cause}") from None
                time.sleep(wait_s)
        theirs.close()
        return _Worker(process, ours, environment)


def _how(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"with exit code {exitcode}"


def _work(connection: Connection, environment: Mapping[str, str]) -> None:
    # Ctrl-C is the driver's to answer. Not SIG_IGN, which processes started from here would inherit: those of a run on
    # several devices end by SIGINT when their parent dies.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    os.environ.update(environment)
    tempfile.tempdir = None  # the server may have asked for it
    die_with_driver()
    try:
        from senet_ablate.execution.worker import attempt  # torch, which the driver's process can do without
    except Exception as error:  # whatever a broken installation or a stray setting makes them raise
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        with suppress(EOFError, OSError):
            connection.send(UserError(f"workers cannot import what they need: {cause}"))
            connection.recv()  # so that the driver, who is about to hand over a run, reads this first
        return

    gc.freeze()  # so no collection writes to the pages that the workers share with their server

    while True:
        try:
            request = connection.recv()
        except (EOFError, OSError):  # the driver is gone, or does without this worker
            return
        event = attempt(request)
        with suppress(OSError):
            connection.send(event)

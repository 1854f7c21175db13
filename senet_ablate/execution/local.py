"""Runs on this machine: warm worker processes that a dying worker cannot break.

Workers are forked from a server that has imported torch and Lightning once, keep their data set between runs, and are
replaced when they die; the run they had goes on from its checkpoint in another worker. A worker that loses its driver
ends itself.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from tempfile import TemporaryDirectory
from typing import Any

from senet_ablate.environment import die_with_driver, ensure_sockets
from senet_ablate.errors import UserError
from senet_ablate.execution import executor
from senet_ablate.execution.executor import Executor
from senet_ablate.execution.machine import ALLOCATOR
from senet_ablate.training.request import Event, RunRequest

PATIENCE_S = 1.0
"""How long a worker has to end the processes that it shares a run with."""


def local_executor(environments: Sequence[Mapping[str, str]]) -> Executor:
    """Does runs on this machine, in a worker process per entry of `environments`."""
    return Executor(lambda requests: LocalQueue(environments[: len(requests)]), len(environments))


def warm_up() -> Any:
    """Let the workers' server begin its imports, so that they are done when the driver has read the images.

    A second call changes nothing, but for a server that died: it is started again.

    Returns:
        The context in which to start workers.
    """
    for name, value in ALLOCATOR.items():  # read when a process starts
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


class LocalQueue:
    """Worker processes, one per entry of `environments`, whose variables it gets (which GPU it may see)."""

    def __init__(self, environments: Sequence[Mapping[str, str]]) -> None:
        self._context = warm_up()  # first: it looks for a temporary folder that is fit
        # torch leaves files in the temporary folder when a process of a run fails, and so does one that is killed.
        self._scratch = TemporaryDirectory(prefix="senet-", ignore_cleanup_errors=True)
        self._environments = [{**each, "TMPDIR": self._scratch.name} for each in environments]
        self._workers: list[_Worker] = []
        self._begun: list[Event] = []

    def open(self) -> Iterator[None]:
        """Start the workers."""
        for environment in self._environments:
            self._workers.append(self._start(environment))
        yield from ()

    def submit(self, requests: Sequence[RunRequest]) -> None:
        """Hand runs to idle workers, of which there are enough."""
        idle = [number for number, worker in enumerate(self._workers) if worker.request is None]
        for request, number in zip(requests, idle, strict=False):
            while self._workers[number].request is None:
                try:
                    self._workers[number].connection.send(request)
                    self._workers[number].request = request
                except OSError:  # it died idle; its successor takes the run
                    self._renew(number)
            self._begun.append(Event("started", request))

    def ended(self) -> Iterator[Event]:
        """Runs that were begun, and those that a worker has done or died with."""
        yield from self._begun
        self._begun.clear()
        ready = wait([worker.connection for worker in self._workers if worker.request], timeout=executor.TICK_S)
        for number, worker in enumerate(self._workers):
            if worker.request is None or worker.connection not in ready:
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
                self._renew(number)
            yield event

    def close(self) -> None:
        """End the workers."""
        self._stop(self._workers)
        self._scratch.cleanup()

    def _renew(self, number: int) -> None:
        self._stop([self._workers[number]])
        self._workers[number] = self._start(self._workers[number].environment)

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

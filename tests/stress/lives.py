"""Drivers for the fault harness: each a call of `run` of its own, and every process that comes from it.

A driver's environment has a mark that all its processes inherit, so none escapes a look at /proc, whatever its parent.
Beside it travels a `sitecustomize` that notes each record that is put in its place and each run that is taken over, by
whomever; that kills its process at the very step that a trap names; and that lets leases go stale within seconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARK, LOG, TRAP = "SENET_ABLATE_CHAOS", "SENET_ABLATE_CHAOS_LOG", "SENET_ABLATE_CHAOS_TRAP"

BEAT_S, STALE_S = 1.0, 15.0
"""Heartbeat and staleness of leases here; as shipped (10 and 180 s) a take-over would be rare within the time."""

SITE = f"""
import os, re, signal, sys

LOG, TRAP = os.environ["{LOG}"], os.environ["{TRAP}"]

def note(what, path):
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(log, (what + " " + path.split("/")[-2] + "\\n").encode())
    os.close(log)

def spring(step):
    try:
        with open(TRAP) as file:
            wanted = file.read()
        if wanted == step:
            os.unlink(TRAP)
            os.kill(os.getpid(), signal.SIGKILL)
    except FileNotFoundError:
        pass

def whole(path, folder):
    path = str(path)
    return path if path[0] == "/" or folder in (None, -1) else os.readlink(f"/proc/self/fd/{{folder}}") + "/" + path

def watch(event, args):
    if event in ("os.rename", "os.remove"):
        path = whole(args[1], args[3]) if event == "os.rename" else whole(args[0], args[1])
        if path != TRAP:
            spring(event + " " + path.split("/")[-1])
        if event == "os.rename" and path.endswith("/record.json"):
            note("finished", path)
    elif event == "open" and args[2] & os.O_EXCL and re.search(r"/lease-([2-9]|1.+)\\.json$", str(args[0])):
        note("taken-over", str(args[0]))

sys.addaudithook(watch)
from senet_ablate.results import lease
lease.BEAT_S, lease.STALE_S = {BEAT_S}, {STALE_S}
"""

SERVER = b"multiprocessing.forkserver"


@dataclass(eq=False)
class Life:
    """One call of `run`, from its start to its end; its workers may live a little longer."""

    mark: str
    process: subprocess.Popen[bytes]
    output: Path
    begun: float
    ended: float | None = None
    gone: float | None = None
    attended: bool = False

    @property
    def alive(self) -> bool:
        """Whether the driver is there; notes when it was first seen not to be."""
        alive = self.process.poll() is None
        if not alive and self.ended is None:
            self.ended = time.monotonic()
        return alive

    @property
    def text(self) -> str:
        """What it said until now."""
        return self.output.read_text(errors="replace")

    def server(self) -> int | None:
        """The process that its workers are forked from."""
        mine = (pid for pid in marked(self.mark) if _is_server(pid) and parent(pid) == self.process.pid)
        return next(mine, None)

    def workers(self) -> list[int]:
        """Its workers, as long as it is alive."""
        return [pid for pid in marked(self.mark) if _is_server(pid) and parent(pid) != self.process.pid]

    def of_runs(self) -> list[int]:
        """The processes among which its runs are shared, if they are."""
        return [pid for pid in marked(self.mark) if _has(pid, b"multiprocessing.spawn")]


def marked(mark: str) -> dict[int, str]:
    """The living processes whose mark is this or begins with it and a dot, by id."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        with suppress(OSError):  # it ended meanwhile, or is another user's
            for entry in Path("/proc", name, "environ").read_bytes().split(b"\0"):
                key, _, value = entry.decode(errors="replace").partition("=")
                if key == MARK and f"{value}.".startswith(f"{mark}."):
                    found[int(name)] = value
    return found


def parent(pid: int) -> int | None:
    """The process that a process belongs to now."""
    stat = _stat(pid)
    return int(stat[1]) if stat else None


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped."""
    return _stat(pid)[:1] == ["T"]


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def described(pid: int) -> str:
    """A process in words."""
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return f"process {pid} {''.join(_stat(pid)[:1])}: {command[:120]}"
    return f"process {pid}"


class Stable:
    """Starts drivers on one study and knows all of them."""

    def __init__(self, mark: str, command: Sequence[str], place: Path) -> None:
        self.mark, self.command, self.place = mark, command, place
        self.log, self.trap = place / "noted.log", place / "trap"
        self.lives: list[Life] = []
        site = place / "site"
        site.mkdir(parents=True)
        (site / "sitecustomize.py").write_text(SITE)
        self.log.touch()

    def environment(self, mark: str) -> dict[str, str]:
        """What a driver inherits."""
        ways = [str(self.place / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
        own = {MARK: mark, LOG: str(self.log), TRAP: str(self.trap), "PYTHONPATH": os.pathsep.join(ways)}
        return os.environ | own

    def start(self) -> Life:
        """A driver in a session of its own, as in a terminal of its own."""
        mark = f"{self.mark}.{len(self.lives)}"
        output = self.place / f"driver-{len(self.lives)}.log"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "senet_ablate", *self.command],
                cwd=self.place,
                env=self.environment(mark),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                # A shell's background job ignores SIGINT, and so would what it starts.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        life = Life(mark, process, output, time.monotonic())
        self.lives.append(life)
        return life

    def living(self) -> list[Life]:
        """The drivers that are there."""
        return [life for life in self.lives if life.alive]

    def look(self) -> None:
        """Note which drivers ended, and when the last process of each was gone."""
        for life in self.lives:
            if not life.alive and life.gone is None and not marked(life.mark):
                life.gone = time.monotonic()

    def left(self, wait_s: float) -> list[str]:
        """Processes that are still there after so many seconds in which they could end by themselves; then killed."""
        deadline = time.monotonic() + wait_s
        while marked(self.mark) and time.monotonic() < deadline:
            self.look()
            time.sleep(0.2)
        self.look()
        rest = marked(self.mark)
        words = [described(pid) for pid in rest]
        for pid in rest:
            send(pid, signal.SIGKILL)
        for life in self.lives:
            life.process.wait()
        return words

    def noted(self, what: str) -> list[str]:
        """The runs that were `finished` (their record was put in its place) or `taken-over`, each time, in order."""
        lines = (line.split() for line in self.log.read_text().splitlines())
        return [run for event, run in lines if event == what]


def _stat(pid: int) -> list[str]:
    """State, parent and what follows in /proc; empty if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _is_server(pid: int) -> bool:
    """Whether it is the workers' server or one of the workers, which have its command line."""
    return _has(pid, SERVER)


def _has(pid: int, words: bytes) -> bool:
    try:
        return words in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)

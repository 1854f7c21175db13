"""What can go wrong, as a table: each fault does one thing to a study under way and says what it did, if it could."""

from __future__ import annotations

import os
import random
import re
import resource
import signal
import stat
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from arena import Arena
from lives import STALE_S, is_stopped, marked, send

from senet_ablate.files import ARRAY_LIMIT, read_file

OF_A_RECORD = ("record.json", "curve.csv", "predictions.npz")
BALLAST = "ballast"

STEPS = (
    "os.rename progress.json",
    "os.rename previous.ckpt",
    "os.rename last.ckpt",
    "os.rename curve.csv",
    "os.rename predictions.npz",
    "os.rename record.json",
    "os.remove last.ckpt",  # the run is finished, and not yet tidied
    "os.remove progress.json",
)
"""Where a worker may be killed: before it puts a file in its place or removes one."""

AT_A_STEP = "worker killed at a step"
LINKED = "link in the place of an unfinished run"
SHARED = "process of a shared run killed"
"""A fault of studies with two devices for each run, and of no others."""

Fault = Callable[[Arena], str | None]


def kill_worker(arena: Arena) -> str | None:
    """As the kernel does when memory is short."""
    pid = arena.worker()
    if pid is None:
        return None
    send(pid, signal.SIGKILL)
    return f"worker {pid}"


def kill_worker_at_a_step(arena: Arena) -> str | None:
    """Between two steps of writing, where chance would hardly ever hit: a trap for whoever comes there next."""
    if arena.stable.trap.exists() or arena.worker() is None:
        return None
    step = arena.rng.choice(STEPS)
    arena.stable.trap.write_text(step)
    return f"before {step}"


def kill_driver(arena: Arena) -> str | None:
    """Its workers have to find out by themselves."""
    life = arena.driver()
    if life is None:
        return None
    life.process.kill()
    return f"driver {life.process.pid}"


def kill_server(arena: Arena) -> str | None:
    """The process that workers are forked from: those that are there stay, and cannot be waited for any more."""
    life = arena.driver(begun=False)
    pid = life.server() if life else None
    if pid is None:
        return None
    send(pid, signal.SIGKILL)
    return f"server {pid}"


def stop_worker(arena: Arena) -> str | None:
    """For less than a lease lasts: its driver waits."""
    pid = arena.worker()
    if pid is None:
        return None
    seconds = arena.rng.uniform(0.3, STALE_S / 3)
    arena.pause(pid, seconds)
    return f"worker {pid} for {seconds:.1f} s"


def stop_worker_beyond_its_lease(arena: Arena) -> str | None:
    """Another driver takes its run over; what it does when it goes on must harm nobody."""
    holding = {pid for pid in _holders(arena) if not is_stopped(pid)}
    if not holding or len(arena.stable.living()) > 2:
        return None
    pid = arena.rng.choice(sorted(holding))
    seconds = STALE_S + arena.rng.uniform(3, 8)
    arena.pause(pid, seconds)
    if len(arena.stable.living()) < 2:
        arena.stable.start()
    return f"worker {pid} for {seconds:.1f} s"


def stop_driver_beside_another(arena: Arena) -> str | None:
    """Its workers go on; nobody takes their events."""
    life = arena.driver()
    if life is None or is_stopped(life.process.pid):
        return None
    if len(arena.stable.living()) < 2:
        arena.stable.start()
    seconds = arena.rng.uniform(2, 8)
    arena.pause(life.process.pid, seconds)
    return f"driver {life.process.pid} for {seconds:.1f} s"


def interrupt(arena: Arena) -> str | None:
    """Ctrl-C, which a terminal sends to all processes of the command, also while it is still getting ready."""
    life = arena.driver(begun=False)
    if life is None or life.server() is None:
        return None
    with suppress(ProcessLookupError):
        os.killpg(life.process.pid, signal.SIGINT)
    return f"driver {life.process.pid}"


def terminate(arena: Arena) -> str | None:
    """As `timeout`, `kill` or a machine that shuts down do it."""
    life = arena.driver()
    if life is None:
        return None
    send(life.process.pid, signal.SIGTERM)
    return f"driver {life.process.pid}"


def two_at_once(arena: Arena) -> str | None:
    """Two more drivers on the same folder at the same moment."""
    if len(arena.stable.living()) > 1:
        return None
    pids = [arena.stable.start().process.pid for _ in range(2)]
    return f"drivers {pids[0]} and {pids[1]}"


def fill_disk(arena: Arena) -> str | None:
    """Take all space of the results' file system for a while."""
    assert arena.disk is not None
    ballast = arena.disk / BALLAST
    if ballast.exists():
        return None
    with ballast.open("wb", buffering=0) as file:
        for size in (2**20, 2**12):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass
    seconds = arena.rng.uniform(1, 4)
    arena.later(seconds, ballast.unlink)
    return f"full for {seconds:.1f} s"


def refuse_writes(arena: Arena) -> str | None:
    """A worker's files may not become larger than 4 kB for a while."""
    pid = arena.worker()
    if pid is None:
        return None

    def limit(size: int) -> None:
        with suppress(OSError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    limit(4096)
    seconds = arena.rng.uniform(1, 4)
    arena.later(seconds, lambda: pid in marked(arena.stable.mark) and limit(resource.RLIM_INFINITY))
    return f"worker {pid} for {seconds:.1f} s"


def remove_unfinished(arena: Arena) -> str | None:
    """The user deletes the folder of a run that is under way, or was."""
    folders = arena.folders(finished=False)
    if not folders:
        return None
    folder = arena.rng.choice(folders)
    arena.suspects.add(folder.name)  # who just writes its result may leave a part of it
    arena.forget(folder)
    return folder.name


def _holders(arena: Arena) -> set[int]:
    """Workers that have a lease, of drivers that are there."""
    text = "".join(_read(path).decode(errors="replace") for path in arena.study.glob("*/lease-*.json"))
    return {pid for life in arena.stable.living() for pid in life.workers() if f'"pid":{pid},' in text}


def _read(path: Path) -> bytes:
    try:
        return read_file(path, inside=path.parents[1])  # in its place there may be a pipe, or a file without end
    except OSError:
        return b""


def _one_bit(content: bytes, rng: random.Random) -> bytes:
    spoilt = bytearray(content)
    if spoilt:
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def _noise(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) or 1)
    return content[:start] + b"\x00\xff" + rng.randbytes(62) + content[start + 64 :]


WAYS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut off": lambda content, rng: content[: rng.randrange(len(content) or 1)],
    "emptied": lambda content, rng: b"",
    "one bit turned": _one_bit,
    "overwritten in part": _noise,
    "replaced by noise": lambda content, rng: b"\x00\xff" + rng.randbytes(rng.randrange(1, 4096)),
}
BREAKING = ("cut off", "emptied", "overwritten in part", "replaced by noise")
"""Ways that cannot make another valid text: in study.json a turned bit may be another protocol."""


def _is_ours(path: Path) -> bool:
    """Whether it is a file as the suite writes them, and not what was put in its place."""
    with suppress(OSError):
        status = path.lstat()
        return stat.S_ISREG(status.st_mode) and status.st_size <= ARRAY_LIMIT
    return False


IMAGES = re.compile(rb'"data_fingerprint": *"([^"]*)"')

OF_THE_PLAN = ("plan.json", "study.json")


def harm(arena: Arena, pattern: str, finished: bool | None, ways: tuple[str, ...] = tuple(WAYS)) -> str | None:
    """Spoil a file in its place; `finished` says of which runs it may be, None is a file of the study."""
    folders = [arena.study] if finished is None else arena.folders(finished=finished)
    files = [path for folder in folders for path in sorted(folder.glob(pattern)) if _is_ours(path)]
    if not files or (pattern in OF_THE_PLAN and not arena.plan_elsewhere(pattern)):
        return None
    path, way = arena.rng.choice(files), arena.rng.choice(ways)
    if path.name in OF_A_RECORD:  # also of an unfinished run, which may finish at this moment
        arena.suspects.add(path.parent.name)
    try:
        with path.open("r+b") as file:  # never makes a file
            content = file.read()
            spoilt = WAYS[way](content, arena.rng)
            if way == "one bit turned" and IMAGES.findall(content) != IMAGES.findall(spoilt):
                arena.removed[path.parent.name] += 1  # now a result on other images, and the run is done again
            file.seek(0)
            file.write(spoilt)
            file.truncate()
    except OSError:  # gone, or the disk is full
        return None
    return f"{path.parent.name}/{path.name} {way}"


def _pipe(path: Path, another: Path) -> None:
    os.mkfifo(path)


def _huge(path: Path, another: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 * 2**30)  # of no blocks


STRANGE: dict[str, Callable[[Path, Path], None]] = {
    "a pipe": _pipe,
    "ten empty gigabytes": _huge,
    "a link to another's file": lambda path, another: path.symlink_to(another),
    "a link to an endless device": lambda path, another: path.symlink_to("/dev/zero"),
    "a link to nowhere": lambda path, another: path.symlink_to("nowhere"),
    "a folder": lambda path, another: path.mkdir(),
}


def put_strange(arena: Arena, names: tuple[str, ...], of_the_study: bool = False) -> str | None:
    """As a stranger's archive has it that is unpacked over a study: something else in the place of a file."""
    folders = [arena.study] if of_the_study else arena.folders(finished=False)
    if not folders or not arena.study.exists():
        return None
    path = arena.rng.choice(folders) / arena.rng.choice(names)
    if of_the_study and not arena.plan_elsewhere(path.name):
        return None
    what = arena.rng.choice(list(STRANGE))
    aside = arena.outside.parent / f"strange-{len(arena.strange)}"
    try:
        STRANGE[what](aside, arena.outside / path.name)
        if what == "a folder":
            path.unlink(missing_ok=True)
        aside.rename(path)
    except OSError:  # the run was finished, or its folder removed
        return None
    arena.strange.append(path)
    return f"{path.parent.name}/{path.name} is {what}"


def remove_plan(arena: Arena) -> str | None:
    """The user deletes the plan's file of a study under way."""
    path = arena.study / "plan.json"
    if path.is_symlink() or not path.is_file() or not arena.plan_elsewhere(path.name):
        return None
    path.unlink()
    return path.name


def link_a_run(arena: Arena) -> str | None:
    """The folder of a run under way is somebody's link to a folder with files of the same names."""
    folders = arena.folders(finished=False)
    if not folders:
        return None
    folder = arena.rng.choice(folders)
    arena.suspects.add(folder.name)
    arena.forget(folder)
    with suppress(OSError):
        folder.symlink_to(arena.outside, target_is_directory=True)
        arena.strange.append(folder)
        return f"{folder.name} is a link"
    return None


def kill_process_of_a_run(arena: Arena) -> str | None:
    """One of several that share a run: the run goes on as if its worker had died."""
    pids = sorted(pid for life in arena.stable.living() for pid in life.of_runs())
    if not pids:
        return None
    pid = arena.rng.choice(pids)
    send(pid, signal.SIGKILL)
    return f"process {pid}"


FAULTS: dict[str, Fault] = {
    "worker killed": kill_worker,
    AT_A_STEP: kill_worker_at_a_step,
    "driver killed": kill_driver,
    "workers' server killed": kill_server,
    "worker stopped": stop_worker,
    "worker stopped beyond its lease": stop_worker_beyond_its_lease,
    "driver stopped beside another": stop_driver_beside_another,
    "Ctrl-C": interrupt,
    "driver terminated": terminate,
    "two more drivers at once": two_at_once,
    "disk full": fill_disk,
    "writes refused": refuse_writes,
    "last.ckpt harmed": partial(harm, pattern="last.ckpt", finished=False),
    "previous.ckpt harmed": partial(harm, pattern="previous.ckpt", finished=False),
    "lease harmed": partial(harm, pattern="lease-*.json", finished=False),
    "progress.json harmed": partial(harm, pattern="progress.json", finished=False),
    "progress.csv harmed": partial(harm, pattern="progress.csv", finished=False),
    "unfinished run's curve.csv harmed": partial(harm, pattern="curve.csv", finished=False),
    "unfinished run removed": remove_unfinished,
    LINKED: link_a_run,
    "strange thing for a checkpoint": partial(put_strange, names=("last.ckpt", "previous.ckpt")),
    "strange thing for a lease": partial(put_strange, names=("lease-1.json", "lease-9.json")),
    "strange thing for a note of a run": partial(put_strange, names=("progress.json", "progress.csv", "failure.json")),
    "strange thing for a result": partial(put_strange, names=OF_A_RECORD),
    "strange thing for a plan": partial(put_strange, names=("plan.json",), of_the_study=True),
    "plan.json removed": remove_plan,
    "plan.json harmed": partial(harm, pattern="plan.json", finished=None),
    SHARED: kill_process_of_a_run,
    "study.json harmed": partial(harm, pattern="study.json", finished=None, ways=BREAKING),
    "record.json harmed": partial(harm, pattern="record.json", finished=True),
    "curve.csv harmed": partial(harm, pattern="curve.csv", finished=True),
    "predictions.npz harmed": partial(harm, pattern="predictions.npz", finished=True),
}

STRANGERS = [LINKED, SHARED, *(kind for kind in FAULTS if kind.startswith("strange"))]
"""What a stranger's archive, or several processes of one run, bring with them."""

WEIGHTS = Counter({"worker killed": 2, AT_A_STEP: 3, "driver killed": 2, "worker stopped": 2})
WEIGHTS.update(dict.fromkeys(STRANGERS, 2))
"""How often a fault comes in each cycle, if not once."""


PATIENCE_S = 8.0
"""Seconds of work in which no fault of a cycle could be done, before the next one is begun all the same."""


class Schedule:
    """All kinds in turn, shuffled anew in each cycle; one that cannot be done now is kept for later."""

    def __init__(self, rng: random.Random, kinds: list[str]) -> None:
        self.rng, self.kinds = rng, [kind for kind in kinds for _ in range(WEIGHTS[kind] or 1)]
        self.possible: Callable[[str], bool] = lambda kind: True
        self._next: list[str] = []
        self._last = time.monotonic()

    def inject(self, arena: Arena) -> tuple[str, str] | None:
        """Do the first fault of the cycle that can be done: its kind, and what was done."""
        waited = time.monotonic() - self._last >= PATIENCE_S and arena.worker() is not None
        if waited or not self._next:
            self._next += self.rng.sample(self.kinds, len(self.kinds))
            self._last = time.monotonic()
        for place, kind in enumerate(self._next):
            if self.possible(kind) and (done := FAULTS[kind](arena)):
                del self._next[place]
                self._last = time.monotonic()
                return kind, done
        return None

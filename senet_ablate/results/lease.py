"""One run, one owner: a lease in the run's folder that its holder keeps alive and loses when it dies.

A lease is a file `lease-N.json` created with O_EXCL, so of any number of processes one gets it; the highest number
counts. The holder writes a heartbeat into it, through the descriptor that created it. A lease is stale when its process
is gone, if that can be asked (same machine), else when its heartbeat was not seen to change for `STALE_S`, measured by
the observer's own monotonic clock and only while it was looking: clocks of two machines are never compared, and a clock
that jumps or a machine that slept makes no lease stale. To take over number N is to create N + 1, which again one of
several can; if N then turns out to be no longer what was seen to be stale, the taker withdraws.

A holder that was stopped and wakes up later writes its heartbeat into a file that was deleted, so it cannot harm its
successor; it finds out at the end of its epoch and gives up. So does one whose folder was deleted.

What is promised: on one machine, and on a file system shared by machines where O_EXCL is atomic (NFS from version 3
on), no run has two owners, but for the rest of an epoch after a holder was silent for `STALE_S` and came back. NFS may
show a heartbeat up to a minute late, hence the wide margin. Not promised: that of two machines cut off from each other
only one goes on, or anything where O_EXCL is not atomic (some FUSE and object stores). Results stay right even then: a
run writes the same bytes, every file is whole, the last rename wins, and the record has the checksums of its files. A
holder that hangs but lives keeps its lease.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import platform
import re
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, ValidationError

from senet_ablate.files import read_file, refuse_links, sync
from senet_ablate.spec.schema import Spec

BEAT_S = 10.0
"""Seconds between two heartbeats."""

STALE_S = 180.0
"""Seconds without a new heartbeat after which a holder counts as dead; NFS clients may cache a file for 60."""

LEASE = re.compile(r"lease-([1-9][0-9]*)\.json")


class Taken(Exception):  # noqa: N818 - no error: somebody else does the work
    """Another process does the run; the message says which."""


class Holder(Spec):
    """Who does a run.

    `node` is one boot of one machine as its processes see it, where `pid` means something, together with `born`, when
    that process began (empty where the system does not tell): a container that starts again has the same ids for other
    processes. `token` is drawn for each lease; `beat` counts heartbeats in a fixed number of digits, so that writing it
    changes nothing else.
    """

    host: str
    node: str
    pid: Annotated[int, Field(ge=1)]
    token: str
    started: str
    beat: str
    born: str = ""

    def content(self, beat: int) -> bytes:
        """The lease file at this heartbeat."""
        return self.model_copy(update={"beat": f"{beat:012d}"}).model_dump_json().encode()


@dataclass(frozen=True)
class Lease:
    """The right to do the run of a folder. Plain data, so that the processes that share a run can carry it."""

    folder: Path
    token: str

    def held(self) -> bool:
        """Whether it is still this lease that counts."""
        try:
            holder = current(self.folder).holder
        except OSError:
            return False
        return holder is not None and holder.token == self.token


@contextmanager
def leased(folder: Path, overdue: bytes | None = None) -> Iterator[Lease]:
    """Hold the lease on a run's folder, which is made, while the block runs, with a heartbeat from a thread of its own.

    `overdue` is a lease that the caller saw unchanged for too long (`Watch.look`); it is taken over if it still is as
    it was seen.

    Raises:
        Taken: another process holds it.
        OSError: it cannot be written, or the folder is a link.
    """
    holder, path, handle = _take(folder, overdue)
    stop = threading.Event()
    thread = threading.Thread(target=_keep_alive, args=(handle, holder, stop), name="lease", daemon=True)
    thread.start()
    lease = Lease(folder, holder.token)
    try:
        yield lease
    finally:
        stop.set()
        thread.join()
        ours = _is_file(handle, path)  # whatever somebody wrote into it, others need not wait till it goes stale
        os.close(handle)
        with suppress(OSError):  # unreachable: it goes stale
            if ours:
                path.unlink(missing_ok=True)


class Current(NamedTuple):
    """The lease that counts: its number, and the file's content; 0 and None if there is none."""

    number: int
    state: bytes | None

    @property
    def holder(self) -> Holder | None:
        """Whose it is, if it is a whole lease."""
        try:
            return None if self.state is None else Holder.model_validate_json(self.state)
        except ValidationError:
            return None

    @property
    def dead(self) -> bool:
        """Whether the holder's process is known to be gone: one of this machine that no longer exists."""
        holder = self.holder
        return holder is not None and holder.node == this_node() and _is_gone(holder.pid, holder.born)


def current(folder: Path) -> Current:
    """The lease on a folder, as it is now."""
    for number in _numbers(folder):
        with suppress(FileNotFoundError):  # released just now
            return Current(number, _content(folder, number))
    return Current(0, None)


def discard_dead(folder: Path) -> None:
    """Remove a lease whose process is known to be gone."""
    refuse_links(folder, folder.parent)
    found = current(folder)
    if found.dead:
        _file(folder, found.number).unlink(missing_ok=True)


def seems_held(folder: Path) -> bool:
    """Whether there is a lease whose process is not known to be gone."""
    try:
        found = current(folder)
    except OSError:
        return True
    return found.state is not None and not found.dead


class LeaseStatus(NamedTuple):
    """What a look at a lease tells: whether the run can be had, and the lease as it was."""

    free: bool
    state: bytes | None


class Watch:
    """Tells which leases have come free, by this process's own monotonic clock."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[bytes, float, float]] = {}

    def look(self, folder: Path) -> LeaseStatus:
        """Look at a lease; the run is free if there is none, its process is gone, or it stood still for `STALE_S`.

        Only time in which the caller was looking counts: between two looks no more than the time of a heartbeat.
        """
        try:
            found = current(folder)
        except OSError:  # no file, or not to be read: what it is will show when it is taken
            found = Current(0, b"")
        state = found.state
        if state is None or found.dead:
            return LeaseStatus(True, state)
        now = time.monotonic()
        before, waited, last = self._seen.get(folder, (None, 0.0, now))
        waited = waited + min(now - last, BEAT_S) if before == state else 0.0
        self._seen[folder] = (state, waited, now)
        return LeaseStatus(waited >= STALE_S, state)


@functools.cache
def this_node() -> str:
    """One boot of this machine, and on Linux the namespace of its process ids: containers may share a host's name."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _take(folder: Path, overdue: bytes | None) -> tuple[Holder, Path, int]:
    holder = Holder(
        host=platform.node(),
        node=this_node(),
        pid=os.getpid(),
        token=secrets.token_hex(8),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        beat="",
        born=_process(os.getpid())[1],
    )
    refuse_links(folder, folder.parent)
    folder.mkdir(parents=True, exist_ok=True)
    before = current(folder)
    if before.state is not None and before.state != overdue and not before.dead:
        other = before.holder
        raise Taken(
            f"process {other.pid} on {other.host} does it since {other.started}" if other else "another does it"
        )
    path = _file(folder, before.number + 1)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        raise Taken("another process began it at the same moment") from None
    try:
        _write(handle, holder.content(0))
        # The holder before may have beaten again or released it, and others may have come and gone.
        if before.number and _content(folder, before.number) != before.state:
            raise Taken("its holder came back at the same moment")
        if current(folder).number != before.number + 1:
            raise Taken("another process took it over at the same moment")
    except (Taken, OSError) as error:
        os.close(handle)
        path.unlink(missing_ok=True)
        if isinstance(error, FileNotFoundError):
            raise Taken("its holder released it at the same moment") from None
        raise
    for number in _numbers(folder)[1:]:
        with suppress(OSError):
            _file(folder, number).unlink()
    return holder, path, handle


def _file(folder: Path, number: int) -> Path:
    return folder / f"lease-{number}.json"


def _content(folder: Path, number: int) -> bytes:
    return read_file(_file(folder, number), inside=folder.parent)


def _numbers(folder: Path) -> list[int]:
    """The numbers of the leases there, from the highest down."""
    try:
        found = map(LEASE.fullmatch, os.listdir(folder))
    except FileNotFoundError:
        return []
    return sorted((int(match[1]) for match in found if match), reverse=True)


def _keep_alive(handle: int, holder: Holder, stop: threading.Event) -> None:
    for beat in itertools.count(1):
        if stop.wait(BEAT_S):
            return
        with suppress(OSError):  # of a disk that is full or gone for a while; the end of the epoch tells
            _write(handle, holder.content(beat))


def _write(handle: int, content: bytes) -> None:
    os.lseek(handle, 0, os.SEEK_SET)
    if os.write(handle, content) < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(handle, len(content))  # of what somebody else wrote behind it, a beat makes a lease again
    sync(handle)


def _is_file(handle: int, path: Path) -> bool:
    """Whether what is open is still what lies there."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _is_gone(pid: int, born: str) -> bool:
    if sys.platform == "win32":  # there the question would end the process
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass  # somebody else's
    state, since = _process(pid)
    return state == "Z" or (bool(born and since) and born != since)  # killed but not yet collected; or another process


def _process(pid: int) -> tuple[str, str]:
    """State of a process and when it began, in ticks since the machine was started; empty where it is not told."""
    try:  # man 5 proc: after the name in brackets, which may hold anything, come fields 3 and following
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()
        return fields[0], fields[19]
    except (OSError, IndexError, UnicodeDecodeError):
        return "", ""

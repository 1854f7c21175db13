"""One run, one doer: who gets a lease, who keeps it, who loses it, and what nobody can do to another's."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from senet_ablate.results import lease
from senet_ablate.results.lease import (
    Holder,
    Lease,
    LeaseStatus,
    Taken,
    Watch,
    current,
    discard_dead,
    leased,
    seems_held,
    this_node,
)

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")


def holder(**changes: object) -> Holder:
    usual = {"host": "elsewhere", "node": "another", "pid": 7, "token": "t", "started": "then", "beat": ""}
    return Holder(**(usual | changes))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run, not yet made."""
    return tmp_path / "run"


@pytest.fixture
def foreign(run: Path) -> Path:
    """A lease of a process on another machine."""
    run.mkdir()
    path = run / "lease-4.json"
    path.write_bytes(holder().content(0))
    return path


def test_a_lease_is_held_within_its_block_and_leaves_nothing_behind(run: Path) -> None:
    with leased(run) as mine:
        assert mine.held()
        assert not Lease(run, "another token").held()
        assert seems_held(run)
        assert [path.name for path in run.iterdir()] == ["lease-1.json"]
    assert not mine.held()
    assert list(run.iterdir()) == []


def test_it_is_given_back_when_the_block_fails(run: Path) -> None:
    with pytest.raises(KeyboardInterrupt), leased(run):
        raise KeyboardInterrupt
    assert list(run.iterdir()) == []


def test_whoever_comes_second_is_told_who_is_first(run: Path) -> None:
    with leased(run) as mine:
        with pytest.raises(Taken, match=f"process {os.getpid()} on "), leased(run):
            pass
        assert mine.held()


def contend(run: Path, count: int, stale: bytes | None) -> list[str]:
    """So many threads want a lease at once, and who gets it keeps it till the others gave up."""
    start, all_tried, lock, fates = threading.Barrier(count), threading.Barrier(count), threading.Lock(), []

    def attempt() -> None:
        start.wait()
        try:
            with leased(run, overdue=stale) as mine:
                all_tried.wait()
                with lock:
                    fates.append("has it" if mine.held() else "lost it")
        except Taken:
            all_tried.wait()

    threads = [threading.Thread(target=attempt) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return fates


@pytest.mark.parametrize("times", range(20))
def test_of_many_that_come_at_once_one_gets_a_free_lease(run: Path, times: int) -> None:
    assert contend(run, 8, None) == ["has it"]
    assert list(run.iterdir()) == []


@pytest.mark.parametrize("times", range(20))
def test_of_many_that_come_at_once_one_gets_a_stale_lease(foreign: Path, run: Path, times: int) -> None:
    assert contend(run, 8, foreign.read_bytes()) == ["has it"]
    assert list(run.iterdir()) == []


@pytest.fixture
def gone() -> int:
    """The id of a process that has ended and was collected."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


@posix
def test_a_dead_process_of_this_machine_loses_its_lease_at_once(foreign: Path, run: Path, gone: int) -> None:
    foreign.write_bytes(holder(node=this_node(), pid=gone).content(0))
    assert not seems_held(run)
    assert Watch().look(run).free
    with leased(run) as mine:
        assert mine.held()
        assert [path.name for path in run.iterdir()] == ["lease-5.json"]


@posix
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_process_that_was_killed_but_not_collected_is_dead(foreign: Path, run: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    foreign.write_bytes(holder(node=this_node(), pid=process.pid).content(0))
    assert seems_held(run)
    process.kill()
    deadline = time.monotonic() + 20
    while seems_held(run):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.communicate()


@posix
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_another_process_with_the_id_of_a_dead_one_does_not_keep_its_lease(foreign: Path, run: Path) -> None:
    """A container that starts again gives its processes the ids they had."""
    with leased(run.parent / "other"):
        mine = Holder.model_validate_json(current(run.parent / "other").state or b"")
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    assert (mine.pid, mine.born) == (os.getpid(), fields[22 - 3])  # proc(5): field 22, counted from the third
    foreign.write_bytes(mine.content(0))
    assert seems_held(run)
    foreign.write_bytes(mine.model_copy(update={"born": "1"}).content(0))
    assert not seems_held(run)
    with leased(run) as lease:
        assert lease.held()


@pytest.mark.skipif(not Path("/proc/self/comm").exists(), reason="needs /proc")
def test_a_process_with_any_name_can_be_asked_for(run: Path) -> None:
    comm = Path("/proc/self/comm")
    before = comm.read_bytes()
    comm.write_bytes(b"\xff) Z (")
    try:
        with leased(run):
            assert seems_held(run)
    finally:
        comm.write_bytes(before)


@posix
def test_a_lease_of_before_the_birth_was_noted_is_judged_by_the_id_alone(foreign: Path, run: Path) -> None:
    foreign.write_bytes(holder(node=this_node(), pid=os.getpid()).content(0))
    assert seems_held(run)


def test_a_file_system_without_fsync_takes_a_lease(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", refuse)
    with leased(run) as mine:
        assert mine.held()


def test_the_same_process_id_on_another_machine_says_nothing(foreign: Path, run: Path, gone: int) -> None:
    foreign.write_bytes(holder(pid=gone).content(0))
    assert seems_held(run)
    with pytest.raises(Taken, match=f"process {gone} on elsewhere"), leased(run):
        pass
    discard_dead(run)
    assert foreign.exists()


def test_dead_leases_are_cleared_and_living_ones_are_not(run: Path, gone: int) -> None:
    with leased(run) as mine:
        discard_dead(run)
        assert mine.held()
    (run / "lease-7.json").write_bytes(holder(node=this_node(), pid=gone).content(0))
    discard_dead(run)
    assert list(run.iterdir()) == []
    discard_dead(run)


def test_the_highest_number_counts(run: Path) -> None:
    run.mkdir()
    for number in (2, 10, 9):
        (run / f"lease-{number}.json").write_bytes(holder(token=str(number)).content(0))
    for name in ("lease-0.json", "lease-011.json", "lease-99.json.old", "lease-x.json", "lease-١.json"):
        (run / name).write_bytes(b"none of ours")
    assert current(run) == (10, holder(token="10").content(0))
    assert Lease(run, "10").held()
    assert not Lease(run, "9").held()


# --- heartbeats, as a watcher sees them ---


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The watcher's monotonic clock, to be set forward by hand; the clock of the wall goes wild."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: -1e9 * now[0])
    return now


def looks(watch: Watch, run: Path, clock: list[float], seconds: float, step: float = 1.0) -> LeaseStatus:
    """Look once a `step` for so many seconds; the last sight."""
    for _ in range(round(seconds / step)):
        clock[0] += step
        sight = watch.look(run)
    return sight


def test_a_heartbeat_that_stands_still_for_long_frees_a_lease_and_each_beat_begins_anew(
    foreign: Path, run: Path, clock: list[float]
) -> None:
    watch = Watch()
    assert not watch.look(run).free
    assert not looks(watch, run, clock, lease.STALE_S - 2).free
    foreign.write_bytes(holder().content(1))
    assert not looks(watch, run, clock, lease.STALE_S - 2).free
    assert looks(watch, run, clock, 4) == (True, holder().content(1))


def test_only_time_in_which_it_was_looking_counts(foreign: Path, run: Path, clock: list[float]) -> None:
    """After a sleep of the whole machine the holder had no chance to beat either."""
    watch = Watch()
    watch.look(run)
    clock[0] += 1e6
    assert not watch.look(run).free
    assert not looks(watch, run, clock, lease.STALE_S - 2 * lease.BEAT_S).free
    assert looks(watch, run, clock, 2 * lease.BEAT_S).free


def test_a_lease_that_nobody_can_read_goes_stale_like_any_other(foreign: Path, run: Path, clock: list[float]) -> None:
    """Cut off between its creation and its content, or overwritten."""
    watch = Watch()
    for content in (b"", b"\x00\xff", b'{"pid": -1}', b"[" * 100_000):
        foreign.write_bytes(content)
        assert not watch.look(run).free
        with pytest.raises(Taken, match="another does it"), leased(run):
            pass
        free, state = looks(watch, run, clock, lease.STALE_S + 1)
        assert free
        with leased(run, state) as mine:
            assert mine.held()


def test_no_lease_is_a_free_one(run: Path) -> None:
    assert Watch().look(run) == (True, None)


def test_what_was_seen_stale_is_not_taken_over_if_it_beats_again(foreign: Path, run: Path) -> None:
    with pytest.raises(Taken), leased(run, overdue=holder().content(5)):
        pass
    assert foreign.read_bytes() == holder().content(0)


@pytest.mark.parametrize("ends", ["beats", "released", "taken over twice"])
def test_a_taker_withdraws_if_what_it_takes_over_was_not_stale(
    foreign: Path, run: Path, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its look and its own lease."""
    create = os.open

    def late(path: Path, *flags: int) -> int:
        if not flags[0] & os.O_EXCL:  # a look
            return create(path, *flags)
        monkeypatch.setattr(os, "open", create)
        if ends == "beats":
            foreign.write_bytes(holder().content(1))
        else:
            foreign.unlink()
        if ends == "taken over twice":
            (run / "lease-6.json").write_bytes(holder(token="later").content(0))
        return create(path, *flags)

    monkeypatch.setattr(os, "open", late)
    with pytest.raises(Taken, match="at the same moment"), leased(run, overdue=holder().content(0)):
        pass
    left = {"beats": ["lease-4.json"], "released": [], "taken over twice": ["lease-6.json"]}[ends]
    assert [path.name for path in run.iterdir()] == left


def test_who_saw_no_lease_withdraws_before_a_higher_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which a folder's listing, kept by a network's file system, did not tell yet."""
    run.mkdir()
    theirs = run / "lease-3.json"
    seen = lease.current

    def stale_listing(folder: Path) -> lease.Current:
        monkeypatch.setattr(lease, "current", seen)
        theirs.write_bytes(holder().content(0))
        return lease.Current(0, None)

    monkeypatch.setattr(lease, "current", stale_listing)
    with pytest.raises(Taken), leased(run):
        pass
    assert list(run.iterdir()) == [theirs]


def test_the_holder_beats(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.01)
    with leased(run) as mine:
        seen = set()
        deadline = time.monotonic() + 20
        while len(seen) < 3:
            assert time.monotonic() < deadline
            seen.add(current(run).state)
        assert {Holder.model_validate_json(state).token for state in seen} == {mine.token}
        assert len({len(state) for state in seen}) == 1, "no write changes the length, so none is ever seen in part"


@pytest.mark.parametrize("spoilt", [b"", b"{", b"\x00\xff" * 1000])
def test_a_lease_that_somebody_spoils_is_whole_again_after_a_beat(
    run: Path, monkeypatch: pytest.MonkeyPatch, spoilt: bytes
) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.01)
    with leased(run) as mine:
        (run / "lease-1.json").write_bytes(spoilt)
        deadline = time.monotonic() + 20
        while not mine.held():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_lease_that_somebody_spoilt_is_released_all_the_same(run: Path) -> None:
    """Unreadable it would keep others from the run until it is stale."""
    with leased(run) as mine:
        (run / "lease-1.json").write_bytes(b"{")
        assert not mine.held()
    assert list(run.iterdir()) == []


def test_a_lease_that_fits_the_disk_in_part_is_none(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: write(handle, content[:20]))
    with pytest.raises(OSError, match="No space left"), leased(run):
        pass
    assert list(run.iterdir()) == []


def test_a_folder_that_is_deleted_takes_the_lease_with_it(run: Path) -> None:
    with leased(run) as mine:
        shutil.rmtree(run)
        assert not mine.held()
    assert not run.exists()


def test_a_disk_without_space_is_told_and_leaves_no_empty_lease(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), leased(run):
        pass
    assert list(run.iterdir()) == []


HOLDER = """
import pathlib, sys
from senet_ablate.results import lease
lease.BEAT_S = 0.02
with lease.leased(pathlib.Path(sys.argv[1])) as mine:
    print("held", flush=True)
    input()
    print(mine.held(), flush=True)
    input()
"""


@posix
def test_a_holder_that_was_stopped_and_wakes_up_harms_nobody_and_finds_out(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.1)
    monkeypatch.setattr(lease, "STALE_S", 0.5)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGSTOP)
        watch, deadline = Watch(), time.monotonic() + 20
        while not (sight := watch.look(run)).free:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with leased(run, sight.state) as mine:
            process.send_signal(signal.SIGCONT)
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "False\n"
            time.sleep(0.1)  # some of its heartbeats
            assert mine.held()
            process.communicate("\n")
            assert mine.held(), "it released what was its own only"
    assert process.returncode == 0
    assert list(run.iterdir()) == []

"""A run on two devices: its processes die, are interrupted, and leave nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import helpers
import pytest
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from senet_ablate.execution import worker
from senet_ablate.results.merge import merge
from senet_ablate.results.store import Study

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@pytest.mark.parametrize(
    ("error", "kind", "cause"),
    [
        (ProcessExitedException("process 1: signal SIGKILL", 1, 7, -9, "SIGKILL"), "lost", "SIGKILL (out"),
        (ProcessRaisedException("RuntimeError: gloo: Connection closed by peer", 0, 7), "lost", "lost the others"),
        (ProcessRaisedException("Traceback\nValueError: wrong", 0, 7), "failed", "ValueError: wrong"),
    ],
)  # fmt: skip
def test_a_run_that_lost_a_process_is_no_run_that_failed(
    error: Exception, kind: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_run(*args: object) -> None:
        raise error

    monkeypatch.setattr(worker, "train_run", train_run)
    one = helpers.request(tmp_path, 0)
    event = worker.attempt(one)
    assert event.kind == kind
    assert cause in event.cause
    assert one.folder.failure_file.exists() == (kind == "failed")


class Running:
    """The command in a session of its own, with a temporary folder of its own."""

    def __init__(self, place: Path) -> None:
        self.results = place / "results"
        self.temporary = Path(tempfile.mkdtemp(prefix="t"))  # a short name: sockets lie there
        words = ["run", "ratio", "--rows", "r16", "--seeds", "1", "--devices-per-run", "2", "--jobs", "1"]
        short = ["--set", "recipe.epochs=6", "--device", "cpu", "--study", "first", "--results", str(self.results)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "senet_ablate", *words, *short],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ | {"TMPDIR": str(self.temporary)},
        )

    def of_the_run(self) -> list[int]:
        """The two processes that share the run."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                session = int(stat.read_bytes().rpartition(b")")[2].split()[3])
                if session == self.process.pid and b"spawn_main" in (stat.parent / "cmdline").read_bytes():
                    found.append(int(stat.parent.name))
            except OSError:
                continue
        return sorted(found)

    def wait_for(self, condition: Callable[[], object]) -> None:
        while not condition():
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.05)

    def has_epoch(self) -> bool:
        return bool(list(self.results.glob("first/*/last.ckpt")))

    def ended(self) -> str:
        text = self.process.communicate(timeout=300)[0]
        deadline = time.monotonic() + 30
        while self.of_the_run() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert self.of_the_run() == []
        # torch makes an empty folder for a cache of its own, and the lock stays for the next call.
        left = [path.name for path in self.temporary.iterdir() if not path.name.startswith("torchinductor")]
        shutil.rmtree(self.temporary)
        assert [name for name in left if not name.endswith(".lock")] == []
        assert "Traceback" not in text
        return text


ORPHAN = '''
import multiprocessing, os, sys, time
from pathlib import Path
from senet_ablate.training.train import EndsQuietly

class Late:
    """Arrives in the child after the parent has died."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return arrive, (self.place, os.getpid())

def arrive(place, parent):
    Path(place, "child").write_text(str(os.getpid()))
    while os.getppid() == parent:
        time.sleep(0.01)

def wait_for_the_others(late, callback):
    time.sleep(600)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process
    process(target=wait_for_the_others, args=(Late(sys.argv[1]), EndsQuietly())).start()
    while not Path(sys.argv[1], "child").exists() or not Path(sys.argv[1], "child").read_text():
        time.sleep(0.01)
    os._exit(0)
'''


@linux
def test_a_process_whose_parent_died_before_it_was_there_ends_by_itself(tmp_path: Path) -> None:
    (tmp_path / "orphan.py").write_text(ORPHAN)
    subprocess.run([sys.executable, tmp_path / "orphan.py", tmp_path], check=True, timeout=120)
    place = Path("/proc") / (tmp_path / "child").read_text()
    deadline = time.monotonic() + 30
    while place.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    left = place.exists()
    if left:
        os.kill(int(place.name), signal.SIGKILL)
    assert not left


@linux
@pytest.mark.slow
def test_a_killed_process_of_a_run_is_retried_and_the_run_comes_out_the_same(tmp_path: Path) -> None:
    whole = Running(tmp_path / "whole")
    whole.ended()
    killed = Running(tmp_path / "killed")
    killed.wait_for(killed.has_epoch)
    os.kill(killed.of_the_run()[-1], signal.SIGKILL)
    assert "trained 1 runs" in killed.ended()
    assert killed.process.returncode == 0
    for name in ("curve.csv", "predictions.npz"):
        ((one,), (other,)) = (list(each.results.glob(f"first/*/{name}")) for each in (whole, killed))
        assert one.read_bytes() == other.read_bytes(), name
    merged = merge([killed.results / "first"], Study(whole.results / "first"))
    assert (merged.same, merged.conflicts, merged.added) == (1, [], [])


@linux
@pytest.mark.slow
@pytest.mark.parametrize("when", ["in an epoch", "while processes start"])
def test_ctrl_c_ends_all_processes_of_a_run_without_a_traceback(when: str, tmp_path: Path) -> None:
    running = Running(tmp_path)
    running.wait_for(running.has_epoch if when == "in an epoch" else running.of_the_run)
    os.killpg(running.process.pid, signal.SIGINT)
    assert "stopped; finished runs are kept" in running.ended()
    assert running.process.returncode == 130

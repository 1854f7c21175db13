"""Where output goes: a full disk or a reader that has gone is no reason to stop training, nor a run that failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")
COMMAND = [sys.executable, "-m", "senet_ablate"]


def without_reader() -> int:
    """The end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_study_is_trained_whatever_becomes_of_its_messages(tmp_path: Path) -> None:
    command = [*COMMAND, "run", "ratio", "--rows", "original", "--seeds", "1", "--device", "cpu", "--jobs", "1"]
    short = ["--set", "recipe.epochs=1", "--set", "recipe.schedule.warmup_epochs=0", "--study", "first"]
    for number, open_stderr in enumerate((lambda: os.open(FULL, os.O_WRONLY), without_reader)):
        results = tmp_path / str(number)
        stderr = open_stderr()
        done = subprocess.run([*command, *short, "--results", str(results)], stderr=stderr, check=False)
        os.close(stderr)
        assert done.returncode == 0
        assert len(list((results / "first").glob("*/record.json"))) == 2


@pytest.mark.parametrize("arguments", [["list"], ["count"], ["verify", "--results", "results"]])
def test_a_reader_that_has_seen_enough_makes_no_failed_run(arguments: list[str]) -> None:
    """`| head -1`: a shell's number for SIGPIPE, not the 1 of a run that failed."""
    root = Path(__file__).parents[2]
    writing = without_reader()
    done = subprocess.run([*COMMAND, *arguments], stdout=writing, stderr=subprocess.PIPE, cwd=root, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")

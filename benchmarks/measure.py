"""How the benchmarks measure: processes, idle processor time, memory, and ratios per round."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from senet_ablate.execution.machine import ALLOCATOR

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
HERE = Path(__file__).parent


def say(text: str) -> None:
    """Print progress to standard error."""
    print(text, file=sys.stderr, flush=True)


def tuned(*, kept_memory: bool = True) -> dict[str, str]:
    """The environment that the suite gives to its workers."""
    return {**os.environ, **(ALLOCATOR if kept_memory else {}), "OMP_NUM_THREADS": "1"}


def together(commands: Sequence[Sequence[str]], environment: dict[str, str]) -> list[dict]:
    """Run commands at the same time; the JSON line that each prints last."""
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    outputs = [process.communicate() for process in running]
    for process, (_, errors) in zip(running, outputs, strict=True):
        if process.returncode:
            raise SystemExit(f"{commands[0]} failed:\n{errors[-2000:]}")
    return [json.loads(output.splitlines()[-1]) for output, _ in outputs]


def rounds(ways: dict[str, Callable[[], float]], count: int) -> dict[str, list[float]]:
    """Measure all ways in turn, `count` times, so that whatever else the machine does hits all of them."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(count):
        for name, measured in ways.items():
            found[name].append(measured())
        say(f"  round {number + 1} of {count}: " + ", ".join(f"{name} {each[-1]:.4g}" for name, each in found.items()))
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least, largest and number."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """The ratios of the rounds, summed up."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


@dataclass(frozen=True)
class StudyRun:
    """One call of `run`: seconds, the share of the cores that was busy once workers were up, and memory per worker."""

    wall_s: float
    busy: float
    worker_mb: float


LOOK_S = 4.0
"""How often a worker's memory is looked at, which takes a twentieth of a second of one core."""


def run_study(arguments: Sequence[str]) -> StudyRun:
    """Time `senet-ablate run` with these arguments in an empty folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        return run_study_in(Path(folder), "bench", arguments)


def run_study_in(results: Path, study: str, arguments: Sequence[str]) -> StudyRun:
    """Time `senet-ablate run` with these arguments.

    Workers are up when the first run shows progress; the share of busy cores is taken from there to the end.
    """
    command = [sys.executable, "-m", "senet_ablate", "run", *arguments, "--results", str(results), "--study", study]
    begun, memory, first = time.perf_counter(), 0.0, None
    looked = -math.inf
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        time.sleep(0.1)
        if first is None and list(results.glob(f"{study}/*/progress.json")):
            first = _ticks()
        if first is not None and time.perf_counter() - looked > LOOK_S:
            memory, looked = max(memory, _largest_worker(process.pid)), time.perf_counter()
    wall, last = time.perf_counter() - begun, _ticks()
    assert process.stderr is not None
    if process.returncode or not memory or first is None:
        raise SystemExit(f"{command} failed:\n{process.stderr.read()[-2000:]}")
    return StudyRun(wall, (last[0] - first[0]) / (last[1] - first[1]), memory)


def _ticks() -> tuple[int, int]:
    """Ticks that all cores of a Linux machine spent at work, and all their ticks."""
    ticks = [int(field) for field in Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)  # idle, iowait


def _largest_worker(driver: int) -> float:
    """Megabytes of the largest process that the driver's server forked, memory shared with others counted in parts."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except (OSError, ValueError):  # it ended meanwhile
            continue

    largest = 0
    for pid, parent in parents.items():
        if parents.get(parent) == driver:
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
            except OSError:
                continue
            largest = max(largest, next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0))
    return largest / 1024

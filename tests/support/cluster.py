"""A small study for real engines: undisturbed on this machine, then through the engine, and what must be equal."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from senet_ablate.spec.loading import declarations_dir

STUDY = ["ratio", "--rows", "r2,original", "--set", "recipe.epochs=12", "--seeds", "2", "--study", "small"]
RUNS = 6
"""Two rows and the reference, two seeds each."""


def command(*arguments):
    place = ["--ablations", str(declarations_dir().resolve())]
    return [sys.executable, "-m", "senet_ablate", "run", *STUDY, *place, "--device", "cpu", *arguments, "--report"]


def begin(folder, *arguments, environment=None):
    """Start the study through an engine, as a user would."""
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(driver, seconds=400):
    told, _ = driver.communicate(timeout=seconds)
    return driver.returncode, told


def finished(driver):
    """What a driver that did all of its runs has told, on one line."""
    code, told = end(driver)
    assert code == 0, told
    return " ".join(told.split())


def interrupted(driver):
    """Ctrl-C, which ends a driver soon and without a traceback."""
    driver.send_signal(signal.SIGINT)
    code, told = end(driver, 60)
    assert code == 130, told
    assert "Traceback" not in told


def undisturbed(folder):
    finished(begin(folder))
    return folder


def wait_for(condition, seconds=120, driver=None):
    """What `condition` gives as soon as that is true; the driver must not end before."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert driver is None or driver.poll() is None, driver.communicate()[0]
        assert time.monotonic() < deadline, condition
        time.sleep(0.05)
    return found


def under_way(folder):
    """Runs with a checkpoint that are not finished."""
    begun = folder.glob("results/small/*/last.ckpt")
    return [path.parent for path in begun if not (path.parent / "record.json").exists()]


def free_ports(count):
    """Ports of this machine that nobody uses, all different."""
    with ExitStack() as probes:
        held = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in held:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in held]


def processes(*words):
    """Ids of the processes in whose command or environment all words are."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            told = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
        except OSError:  # it ended, or is not ours
            continue
        if all(word.encode() in told for word in words):
            found.append(int(path.name))
    return sorted(set(found) - {os.getpid()})


def kill(*pids, by=signal.SIGKILL):
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, by)


def records(folder):
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("results/small/*/record.json")}


TIMED = ("cost.md", "index.html", "REPORT.md")
"""Pages of a report that have wall times, which no two runs share."""


def assert_same_results(one, other):
    """Every run's curve and the outcome of every test image, every table and figure, byte for byte."""

    def files(folder):
        runs = [path for name in ("predictions.npz", "curve.csv") for path in folder.glob(f"results/small/*/{name}")]
        pages = [path for path in folder.glob("reports/small/**/*") if path.is_file() and path.name not in TIMED]
        return {str(path.relative_to(folder)): path.read_bytes() for path in runs + pages}

    ours, theirs = files(one), files(other)
    assert len([name for name in ours if name.endswith("predictions.npz")]) == RUNS
    assert sorted(ours) == sorted(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []

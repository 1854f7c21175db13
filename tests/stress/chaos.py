"""Does a study survive what can go wrong? `make chaos`, or `python tests/stress/chaos.py --help`.

A small study is trained undisturbed, then again and again under faults drawn at random (`faults.py`): processes killed
and stopped, drivers that come and go, a full disk, spoilt files. A driver that ended is started again, and what it asks
of its user is done. In the end each disturbed study must equal the undisturbed one bit for bit, no run may have been
trained to the end twice, and no process may be left. Exit 1 if anything of that does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aftermath import (
    FAILED,
    PIN_TOLD,
    PLAN_TOLD,
    STRANGE,
    STUDY,
    TOLD,
    differences,
    generalised,
    last_line,
    leftovers,
    outcome,
    repeated,
)
from arena import Arena
from faults import AT_A_STEP, FAULTS, OF_A_RECORD, SHARED, STRANGERS, Schedule
from lives import BEAT_S, STALE_S, Life, Stable, say

from senet_ablate import environment

DISK_MB = 64
GRACE_S = 60.0
"""Seconds after which processes whose driver ended count as left; the workers' server may be importing torch."""

CHECKS = {
    "same": "every table, figure, curve and outcome of a test image equals the undisturbed study's, bit for bit",
    "once": "nothing was trained to the end twice",
    "gone": "no process is left",
    "sound": "`verify` finds nothing, and a finished run's folder has its three files alone",
    "outside": "nothing outside of the study was touched",
    "plain": "the user was told what happened and what to do, without a traceback",
}


@dataclass
class Found:
    """What came of one disturbed study."""

    faults: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    wall_s: float = 0.0
    completions: int = 0
    taken_over: int = 0
    asked: int = 0
    slowest_end_s: float = 0.0
    problems: dict[str, list[str]] = field(default_factory=lambda: {check: [] for check in CHECKS})

    @property
    def failed(self) -> list[str]:
        """The checks that do not hold."""
        return [check for check, problems in self.problems.items() if problems]

    def add(self, other: Found) -> None:
        """Sum up."""
        self.faults += other.faults
        self.ends += other.ends
        self.causes += other.causes
        self.wall_s += other.wall_s
        self.completions += other.completions
        self.taken_over += other.taken_over
        self.asked += other.asked
        self.slowest_end_s = max(self.slowest_end_s, other.slowest_end_s)
        for check, problems in other.problems.items():
            self.problems[check] += problems


@dataclass(frozen=True)
class Task:
    """The study that is trained: two networks, a few seeds, a few epochs on the embedded digits."""

    seeds: int
    epochs: int
    jobs: int
    devices: int = 1

    @property
    def runs(self) -> int:
        """Runs of the study."""
        return 2 * self.seeds

    def run(self, results: Path) -> list[str]:
        """The arguments that train it."""
        words = ["run", "ratio", "--rows", "original", "--seeds", str(self.seeds), "--study", STUDY]
        words += ["--set", f"recipe.epochs={self.epochs}", "--set", "recipe.schedule.warmup_epochs=0"]
        words += ["--devices-per-run", str(self.devices)]
        return [*words, "--device", "cpu", "--jobs", str(self.jobs), "--results", str(results)]


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the suite that nobody disturbs."""
    command = [sys.executable, "-m", "senet_ablate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def write_reports(results: Path, reports: Path) -> None:
    """The study's report."""
    done = call("report", "ratio", "--study", STUDY, "--results", str(results), "--reports", str(reports))
    if done.returncode:
        raise SystemExit(f"report failed:\n{done.stdout}{done.stderr}")


def attend(arena: Arena, life: Life, found: Found) -> None:
    """Read what a driver that ended said, and do what it asks of its user."""
    life.attended = True
    code, text = life.process.returncode, life.text
    found.ends[f"by signal {-code}" if code < 0 else f"with exit code {code}"] += 1
    for _, cause in FAILED.findall(text):
        found.causes[generalised(cause)] += 1
    if "Traceback" in text:
        found.problems["plain"].append(f"a traceback, {life.output.name}: {last_line(text)}")
    obey(arena, text, life.begun, found)
    if code == 2 and not any(asks.search(text) for asks in (TOLD, PIN_TOLD, PLAN_TOLD, STRANGE)):
        found.causes[generalised(last_line(text))] += 1
        if "No space left" not in text:
            found.problems["plain"].append(f"an error that no fault explains, {life.output.name}: {last_line(text)}")


def obey(arena: Arena, text: str, begun: float, found: Found) -> None:
    """Remove the folders of runs that a command begun then says to be damaged, and a pin or a plan that is."""
    for name in TOLD.findall(text):
        folder = Path(name)
        if arena.removed_at.get(folder.name, 0.0) > begun:
            continue  # done already
        if folder.name not in arena.suspects:
            found.problems["plain"].append(f"a run was called damaged that nobody harmed: {folder.name}")
        found.asked += 1
        arena.forget(folder)
    for path in map(Path, STRANGE.findall(text)):
        if path not in arena.strange:
            found.problems["plain"].append(f"something was called strange that nobody put there: {path}")
        elif path.is_symlink() or (path.exists() and not path.is_file()) or _is_huge(path):
            found.asked += 1
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    for name, told in (("study.json", PIN_TOLD), ("plan.json", PLAN_TOLD)):
        if told.search(text) and arena.removed_at.get(name, 0.0) <= begun:
            found.asked += 1
            arena.removed_at[name] = time.monotonic()
            (arena.study / name).unlink(missing_ok=True)


def _is_huge(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 2**33


def contents(place: Path) -> dict[str, tuple[bytes, int]]:
    """The files of a folder with their times."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(place.iterdir())}


def disturb(arena: Arena, task: Task, schedule: Schedule, every_s: float, quota: int, end: float, found: Found) -> None:
    """Keep a driver at work and do one fault after the other, until there are enough or all runs are finished."""
    begun, due = time.monotonic(), time.monotonic()
    while found.faults.total() < quota and time.monotonic() < end:
        arena.undo()
        arena.stable.look()
        for life in arena.stable.lives:
            if not life.alive and not life.attended:
                attend(arena, life, found)
        if not arena.stable.living():
            if len(arena.folders(finished=True)) == task.runs:
                break
            arena.stable.start()
        if time.monotonic() >= due and (done := schedule.inject(arena)):
            kind, what = done
            found.faults[kind] += 1
            due = time.monotonic() + arena.rng.expovariate(1 / every_s)
            say(f"{time.monotonic() - begun:7.1f} s  {found.faults.total():3d}  {kind}: {what}")
        time.sleep(0.1)
    if arena.stable.trap.exists():  # nobody came there any more
        arena.stable.trap.unlink()
        found.faults[AT_A_STEP] -= 1


def calm(arena: Arena, limit_s: float, found: Found) -> None:
    """Undo all, let drivers end, and give the command again until nothing is to be done and `verify` finds nothing."""
    arena.undo(everything=True)
    deadline, ended_well = time.monotonic() + limit_s, False
    while time.monotonic() < deadline:
        arena.stable.look()
        if arena.stable.living():
            time.sleep(0.1)
            continue
        for life in arena.stable.lives:
            if not life.attended:
                attend(arena, life, found)
        if ended_well and arena.stable.lives[-1].process.returncode == 0:
            begun = time.monotonic()
            told = call("verify", STUDY, "--results", str(arena.study.parent))
            if told.returncode == 0 or not any(asks.search(told.stdout) for asks in (TOLD, PLAN_TOLD, STRANGE)):
                found.problems["sound"] += [] if told.returncode == 0 else told.stdout.splitlines()
                return
            obey(arena, told.stdout, begun, found)
        ended_well = True
        arena.stable.start()
    found.problems["same"].append(f"the study was not finished {limit_s:.0f} s after the last fault")
    for life in arena.stable.living():
        life.process.kill()


@contextmanager
def small_disk(place: Path) -> Iterator[Path | None]:
    """A file system of its own at `place`; None, and `place` a plain folder, where none can be mounted."""
    place.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(place)]
    able = shutil.which("mount") is not None and not subprocess.run(mount, capture_output=True, check=False).returncode
    try:
        yield place if able else None
    finally:
        if able:
            subprocess.run(["umount", "-l", str(place)], check=True)


def kinds_here(place: Path) -> list[str]:
    """The faults that this machine lets happen."""
    with small_disk(place) as disk:
        return [kind for kind in FAULTS if kind != "disk full" or disk]


def one_study(
    task: Task, place: Path, whole: dict[str, bytes], schedule: Schedule, every_s: float, quota: int, end: float
) -> Found:
    """One study under faults, up to the checks; its folder is gone afterwards."""
    found, begun = Found(), time.monotonic()
    with small_disk(place / "disk") as disk:
        results = place / "disk" / "results"
        stable = Stable(f"{os.getpid()}-{secrets.token_hex(4)}", task.run(results), place / "drivers")
        outside = place / "disk" / "outside"
        outside.mkdir()
        for name in (".hidden", "weights.pt", "plan.json", "last.ckpt", "progress.json", *OF_A_RECORD):
            (outside / name).write_text("nobody's business")
        arena = Arena(schedule.rng, results / STUDY, stable, disk, outside)
        before = contents(outside)
        try:
            disturb(arena, task, schedule, every_s, quota, end, found)
            calm(arena, GRACE_S + 4 * STALE_S + 10 * task.runs * task.epochs / environment.cores(), found)
        finally:
            arena.undo(everything=True)
            for life in stable.living():
                life.process.kill()
            found.problems["gone"] += stable.left(GRACE_S)
        if not found.problems["same"]:
            write_reports(results, place / "reports")
            found.problems["same"] += differences(whole, outcome(results, place / "reports"))
        finished = stable.noted("finished")
        found.completions, found.taken_over = len(finished), len(stable.noted("taken-over"))
        found.problems["once"] += repeated(finished, arena.removed)
        strange = {f"{path.parent.name}/{path.name}: left over" for path in arena.strange}
        found.problems["sound"] += [problem for problem in leftovers(arena.study) if problem not in strange]
        after = contents(outside)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        found.problems["outside"] += [f"{name}, outside of the study, was changed" for name in changed]
    ends = (life.gone - life.ended for life in stable.lives if life.ended and life.gone)
    found.slowest_end_s = max(ends, default=0.0)
    found.wall_s = time.monotonic() - begun
    return found


def undisturbed(task: Task, place: Path) -> dict[str, bytes]:
    """The outcome of the study when nothing happens to it."""
    done = call(*task.run(place / "results"))
    if done.returncode:
        raise SystemExit(f"the undisturbed study failed:\n{done.stderr}")
    write_reports(place / "results", place / "reports")
    return outcome(place / "results", place / "reports")


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    made, problems = result["hardware"], result["problems"]
    counts = {**result["faults"], **result["left_out"]}
    ends = ", ".join(f"{how} ({count})" for how, count in sorted(result["ends"].items()))
    lines = [
        "# Faults",
        "",
        "**A check does not hold.**" if any(problems.values()) else "All checks hold.",
        "",
        f"`make chaos` on {made['cpu']}, {made['cores']} cores, Python {made['python']}, torch {made['torch']}, commit "
        f"{(made['commit'] or 'none')[:10]}, seed {result['seed']}: {result['injected']} faults in {result['studies']} "
        f"{'study' if result['studies'] == 1 else 'studies'} of {result['runs']} runs of {result['epochs']} epochs "
        f"on the embedded digits ({result['shared']} of them of 2 runs that two devices share), "
        f"{result['wall_s'] / 60:.0f} minutes. Leases beat each {BEAT_S:.0f} s and are stale after {STALE_S:.0f} s.",
        "",
        "| check | outcome |",
        "|:--|:--|",
        *(f"| {words} | {'fails' if problems[check] else 'holds'} |" for check, words in CHECKS.items()),
        "",
        *(f"- {problem}" for each in problems.values() for problem in each),
        "",
        "| fault | times |",
        "|:--|--:|",
        *(f"| {kind} | {counts.get(kind, 0)} |" for kind in FAULTS),
        "",
        f"{sum(counts.get(kind, 0) for kind in STRANGERS)} of them are what a stranger's archive may hold, or befell a "
        "process of several that share a run. "
        f"{sum(result['ends'].values())} drivers ended: {ends}. The last process of a driver was gone at most "
        f"{result['slowest_end_s']:.1f} s after it, stopped ones included. {result['completions']} times a run was "
        f"finished, {result['taken_over']} times taken over from a process that was dead or silent; {result['asked']} "
        "times the user was told to remove something.",
        "",
        "| cause of a run that failed, as a driver told it | times |",
        "|:--|--:|",
        *(f"| {cause.replace('|', '/')} | {count} |" for cause, count in sorted(result["causes"].items())),
    ]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def hardware() -> dict[str, Any]:
    """Where this ran."""
    return {
        "cpu": environment.cpu_model(),
        "cores": environment.cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: environment.library_versions()[name] for name in ("torch", "pytorch-lightning")},
        "commit": environment.code_state()[0],
    }


def main() -> None:
    """Disturb studies until there were enough faults, print, and write reports/chaos/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=250, help="how many to do [%(default)s]")
    parser.add_argument("--most", type=int, default=32, help="of one study; then it may come to its end [%(default)s]")
    parser.add_argument("--minutes", type=float, default=40.0, help="do none later than this [%(default)s]")
    parser.add_argument("--every", type=float, default=2.5, help="mean seconds between two [%(default)s]")
    parser.add_argument("--kinds", nargs="+", choices=FAULTS, metavar="KIND", help=f"of {', '.join(FAULTS)} [all]")
    parser.add_argument("--seed", type=int, default=0, help="of the order of faults and of what they hit [%(default)s]")
    parser.add_argument("--seeds", type=int, default=4, help="runs of each of the study's two networks [%(default)s]")
    parser.add_argument("--epochs", type=int, default=8, help="of each run [%(default)s]")
    parser.add_argument(
        "--shared",
        type=int,
        nargs="*",
        default=[2, 3],
        metavar="N",
        help="numbers of the studies whose runs are shared by two devices; they have one seed [2 3]",
    )
    parser.add_argument("--jobs", type=int, default=2, help="workers of each driver [%(default)s]")
    parser.add_argument("--output", type=Path, default=Path("reports/chaos"))
    chosen = parser.parse_args()
    if not Path("/proc/self/environ").exists():
        parser.error("processes are looked for in /proc, which this system does not have")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing of it is left either
    begun, task = time.monotonic(), Task(chosen.seeds, chosen.epochs, chosen.jobs)
    found, studies = Found(), 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        here = kinds_here(place / "try")
        for kind in FAULTS.keys() - here:
            say(f"left out, for a file system cannot be mounted here: {kind}")
        shared = Task(seeds=1, epochs=chosen.epochs, jobs=1, devices=2)
        whole = {each: undisturbed(each, place / f"undisturbed-{each.devices}") for each in (task, shared)}
        say(f"undisturbed study of {task.runs} runs: {time.monotonic() - begun:.0f} s")
        schedule = Schedule(random.Random(chosen.seed), [kind for kind in chosen.kinds or here if kind in here])
        end = time.monotonic() + 60 * chosen.minutes
        while found.faults.total() < chosen.faults and time.monotonic() < end and not found.failed:
            studies += 1
            quota = min(chosen.most, chosen.faults - found.faults.total())
            this = shared if studies in chosen.shared else task
            schedule.possible = lambda kind, this=this: kind != SHARED or this.devices > 1
            one = one_study(this, place / str(studies), whole[this], schedule, chosen.every, quota, end)
            verdict = ", ".join(one.failed) or "all checks hold"
            say(f"study {studies}: {one.faults.total()} faults, {one.wall_s:.0f} s, {verdict}")
            found.add(one)
    result = {
        "hardware": hardware(),
        "seed": chosen.seed,
        "studies": studies,
        "shared": sum(number <= studies for number in chosen.shared),
        "runs": task.runs,
        "epochs": task.epochs,
        "injected": found.faults.total(),
        "left_out": {kind: "not possible here" for kind in FAULTS if kind not in here},
        **vars(found),
        "wall_s": time.monotonic() - begun,
    }
    chosen.output.mkdir(parents=True, exist_ok=True)
    (chosen.output / "chaos.json").write_text(json.dumps(result, indent=1) + "\n")
    (chosen.output / "chaos.md").write_text(page(result))
    print(page(result))
    sys.exit(1 if found.failed else 0)


if __name__ == "__main__":
    main()

"""What each executor costs beyond the runs: seconds of a study of trivial runs less the runs' own time over the cores.

    python benchmarks/executors.py [--runs 40] [--executors local ray slurm] [--executor-option KEY=VALUE]

An executor that this machine does not have is named and left out. Start of the command, reading of the images, start
of workers or jobs, and waiting for the engine are all in it. Rounds go through the executors in turn.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from measure import CORES, rounds, say, spread

EXECUTORS = ("local", "ray", "slurm")
TRIVIAL = ("ratio", "--rows", "original", "--set", "recipe.epochs=1", "--set", "recipe.schedule.warmup_epochs=0")
"""Two networks, one epoch on the embedded digits."""


def beyond_ideal(executor: str, runs: int, options: list[str]) -> float:
    """Seconds of the study less the sum of the runs' own time, shared by all cores."""
    place = Path("build").resolve()  # not tracked, and where a cluster's nodes see it
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        command = [sys.executable, "-m", "senet_ablate", "run", *TRIVIAL, "--seeds", str(runs // 2), "--device", "cpu"]
        command += ["--results", folder, "--study", "trivial", "--executor", executor]
        command += [word for option in options for word in ("--executor-option", option)]
        begun = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - begun
        if done.returncode:
            raise SystemExit(f"{executor} failed:\n{done.stderr[-2000:]}")
        records = [json.loads(path.read_text()) for path in Path(folder).glob("trivial/*/record.json")]
        assert len(records) == runs, f"{len(records)} of {runs} runs finished"
    return wall - sum(record["provenance"]["wall_s"] for record in records) / CORES


def present(executor: str) -> bool:
    """Whether this machine has it; tells what is missing."""
    missing = {
        "local": False,
        "ray": find_spec("ray") is None,
        "slurm": find_spec("submitit") is None or shutil.which("sbatch") is None,
    }[executor]
    if missing:
        say(f"{executor} is left out: it is not on this machine")
    return not missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=40, help="trivial runs of each study, an even number")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--executors", nargs="+", default=EXECUTORS, choices=EXECUTORS)
    parser.add_argument("--executor-option", action="append", default=[], help="for all but local")
    given = parser.parse_args()
    if given.runs < 2 or given.runs % 2:
        parser.error(f"--runs {given.runs}: expected an even number, for two networks")
    ways = {
        name: lambda name=name: beyond_ideal(name, given.runs, [] if name == "local" else given.executor_option)
        for name in given.executors
        if present(name)
    }
    say(f"{given.runs} runs of one epoch on {CORES} cores")
    found = {name: spread(seconds) for name, seconds in rounds(ways, given.rounds).items()}
    print(json.dumps({"runs": given.runs, "cores": CORES, "beyond_ideal_s": found}, indent=1))


if __name__ == "__main__":
    main()

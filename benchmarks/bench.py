"""How fast the suite is, as ratios measured in one run: `make bench`, or `python benchmarks/bench.py --help`.

Each comparison alternates its sides, so that whatever else the machine does hits both, and is printed as median, least
and largest of its rounds. Rates are of the whole machine: the suite and the bare loop train as many networks at once as
there are cores, the usual script one after the other with all threads, as it is used.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).parent
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
QUIET = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}


def tuned() -> dict[str, str]:
    """The environment that the suite gives to its workers."""
    from senet_ablate.levers import ALLOCATOR

    return os.environ | ALLOCATOR | {"OMP_NUM_THREADS": "1"}


def together(commands: Sequence[Sequence[str]], environment: dict[str, str]) -> list[dict[str, float]]:
    """Run commands at the same time; the JSON line that each prints."""
    running = [subprocess.Popen(command, env=environment, **QUIET) for command in commands]
    outputs = [process.communicate()[0] for process in running]
    assert all(process.returncode == 0 for process in running), commands[0]
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def epoch_rates(protocol: str, data: list[str], epochs: int) -> dict[str, Callable[[], float]]:
    """Epochs per second of the whole machine, by each way."""
    common = ["--protocol", protocol, "--epochs", str(epochs), *data]

    def timed(way: str) -> Callable[[], float]:
        command = [sys.executable, str(HERE / "one.py"), way, *common]
        return lambda: sum(1 / found["epoch_s"] for found in together([command] * CORES, tuned()))

    usual = [sys.executable, str(HERE / "usual_script.py"), *common]
    return {
        "ours": timed("ours"),
        "bare": timed("bare"),
        "usual": lambda: 1 / together([usual], dict(os.environ))[0]["epoch_s"],
    }


def rounds(ways: dict[str, Callable[[], float]], count: int) -> dict[str, list[float]]:
    """Measure all ways in turn, `count` times."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(count):
        for name, measure in ways.items():
            found[name].append(measure())
            print(f"  round {number + 1} of {count}: {name} {found[name][-1]:.4g}", file=sys.stderr)
    return found


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """Median, least and largest ratio of the rounds."""
    values = [a / b for a, b in zip(over, under, strict=True)]
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def study_seconds(protocol: str, data: list[str], epochs: int | None, seeds: int) -> tuple[float, float]:
    """Seconds of `run ratio` with some seeds in an empty folder, and the share of the cores that was busy."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = ["--set", f"recipe.epochs={epochs}", "--set", "recipe.schedule.warmup_epochs=0"] if epochs else []
        command = [sys.executable, "-m", "senet_ablate", "run", "ratio", "--protocol", protocol, "--seeds", str(seeds)]
        command += ["--results", folder, "--study", "bench", *overrides, *data]
        begun, before = time.perf_counter(), processor_ticks()
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        wall, after = time.perf_counter() - begun, processor_ticks()
        return wall, (after[0] - before[0]) / (after[1] - before[1])


def processor_ticks() -> tuple[int, int]:
    """Ticks that all cores of a Linux machine spent at work, and all their ticks.

    Not the processor time of children: the workers are children of a server that nobody waits for.
    """
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)  # idle, iowait


def usual_seconds(protocol: str, data: list[str], epochs: int | None, row: str) -> float:
    """Seconds of the usual script for one row and seed, its start included."""
    command = [sys.executable, str(HERE / "usual_script.py"), "--protocol", protocol, "--row", row, *data]
    begun = time.perf_counter()
    together([command + (["--epochs", str(epochs)] if epochs else [])], dict(os.environ))
    return time.perf_counter() - begun


def start_up() -> dict[str, float]:
    """Seconds of processor time that each command needs in an empty folder."""
    found = {}
    for name in ("list", "plan", "status"):
        before = os.times()
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "senet_ablate", name]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        found[name] = after.children_user + after.children_system - before.children_user - before.children_system
    return found


def hardware() -> dict[str, str | int]:
    """Where this was measured."""
    import torch

    from senet_ablate import provenance

    versions = provenance.library_versions()
    return {
        "cpu": provenance.cpu_model(),
        "cores": CORES,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: versions[name] for name in ("pytorch-lightning", "torchvision")},
        "commit": str(provenance.code_state()[0]),
    }


def page(result: dict) -> str:
    """The result as Markdown."""
    lines = [
        "# Speed\n",
        f"Measured on {result['hardware']['cpu']}, {result['hardware']['cores']} cores, torch "
        f"{result['hardware']['torch']}, by `make bench`; ratios of rates of the whole machine, sides in turn.\n",
        "| comparison | median | least | largest | rounds |",
        "|:--|--:|--:|--:|--:|",
    ]
    for name, found in result.items():
        if isinstance(found, dict) and "median" in found:
            text = " | ".join(f"{found[key]:.2f}" for key in ("median", "min", "max"))
            lines.append(f"| {name.replace('_', ' ')} | {text} | {found['n']} |")
    lines += ["", "| command | processor seconds to start |", "|:--|--:|"]
    lines += [f"| {name} | {seconds:.2f} |" for name, seconds in result["start_up_s"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write reports/bench/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, help="an image folder for cifar10-folder; without it digits alone")
    parser.add_argument("--epochs", type=int, default=2, help="timed epochs of the image folder")
    parser.add_argument("--output", type=Path, default=Path("reports/bench"))
    chosen = parser.parse_args()
    result: dict = {"hardware": hardware(), "start_up_s": start_up()}
    settings = {"digits": ("digits", [], 20)}
    if chosen.data:
        settings["images"] = ("cifar10-folder", ["--data", str(chosen.data)], chosen.epochs)
    for name, (protocol, data, epochs) in settings.items():
        print(f"{name}: epochs per second", file=sys.stderr)
        rates = rounds(epoch_rates(protocol, data, epochs), chosen.rounds)
        suffix = "" if name == list(settings)[-1] else f"_{name}"
        result[f"epoch_vs_usual_script{suffix}"] = ratio(rates["ours"], rates["usual"])
        result[f"epoch_vs_bare_loop{suffix}"] = ratio(rates["ours"], rates["bare"])
        result[f"epochs_per_s_{name}"] = rates
    print("digits: `run ratio` with 3 seeds against the usual script once per row and seed", file=sys.stderr)
    from senet_ablate.suite import declarations_dir, load_ablations

    rows = [row.id for row in load_ablations(declarations_dir(), ["ratio"])[0].rows]
    ours, usual, busy = [], [], []
    for number in range(chosen.rounds):
        wall, share = study_seconds("digits", [], None, 3)
        ours.append(wall)
        busy.append(share)
        # One row a round stands for the 18 trainings: the rows differ by a tenth in cost.
        usual.append(18 * usual_seconds("digits", [], None, rows[number % len(rows)]))
        print(f"  ours {ours[-1]:.1f} s, {share:.0%} of the cores; usual {usual[-1]:.1f} s", file=sys.stderr)
    result["study_vs_usual_script"] = ratio(usual, ours)
    result["cores_busy"] = {"median": statistics.median(busy), "min": min(busy), "max": max(busy), "n": len(busy)}
    chosen.output.mkdir(parents=True, exist_ok=True)
    (chosen.output / "bench.json").write_text(json.dumps(result, indent=1) + "\n")
    (chosen.output / "bench.md").write_text(page(result))
    print(page(result))


if __name__ == "__main__":
    main()

"""(a) An epoch and (b) a whole study, beside the script one would usually write and beside a bare loop."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import CORES, HERE, ratio, rounds, run_study, run_study_in, say, spread, together, tuned
from optimisations import compare

from senet_ablate.spec.loading import declarations_dir, load_ablations

SEEDS = 3
MOBILENET = ["--protocol", "cifar10-mobilenet", "--set", "data.dataset=folder", "--epochs", "2"]


class Setting:
    """A protocol with its images and how many epochs to time."""

    def __init__(self, name: str, protocol: str, data: Path | None, epochs: int, study_epochs: int | None) -> None:
        self.name, self.epochs, self.study_epochs = name, epochs, study_epochs
        self.choice = ["--protocol", protocol, *(["--data", str(data)] if data else [])]

    def one(self, way: str, *extra: str) -> list[str]:
        """The command that times one training, our way or as a bare loop."""
        return [sys.executable, str(HERE / "one.py"), way, *self.choice, "--epochs", str(self.epochs), *extra]

    def usual(self, row: str, epochs: int | None) -> list[str]:
        """The command of the usual script for one row."""
        some = ["--epochs", str(epochs)] if epochs else []
        return [sys.executable, str(HERE / "usual_script.py"), *self.choice, "--row", row, *some]

    def study(self) -> list[str]:
        """Arguments of `run` for the ratio table."""
        short = ["recipe.schedule.warmup_epochs=0", f"recipe.epochs={self.study_epochs}"] if self.study_epochs else []
        return ["ratio", *self.choice, "--seeds", str(SEEDS), *(word for key in short for word in ("--set", key))]


def epochs(setting: Setting, count: int) -> dict[str, Any]:
    """Epochs per second of the whole machine: ours and the bare loop on each core, the usual script with all threads.

    Beside the ratios, what a step of ours costs more than one of the bare loop: Lightning, curve and checkpoints.
    """
    say(f"{setting.name}: epochs per second")

    def machine(way: str) -> Callable[[], float]:
        return lambda: sum(1 / found["epoch_s"] for found in together([setting.one(way)] * CORES, tuned()))

    found = rounds(
        {
            "ours": machine("ours"),
            "bare": machine("bare"),
            "usual": lambda: 1 / together([setting.usual("r16", setting.epochs)], dict(os.environ))[0]["epoch_s"],
        },
        count,
    )
    return {
        "epoch_vs_usual_script": ratio(found["ours"], found["usual"]),
        "epoch_vs_bare_loop": ratio(found["ours"], found["bare"]),
        "epochs_per_s": found,
    }


def optimisations(setting: Setting, count: int) -> dict[str, Any]:
    """How much longer an epoch of the bare loop takes without each optimisation (depthwise convolutions: MobileNet)."""
    say(f"{setting.name}: seconds per epoch with all optimisations, and without each")

    def timed(*extra: str, **environment: bool) -> Callable[[], float]:
        return lambda: together([setting.one("bare", *extra)] * CORES, tuned(**environment))[0]["epoch_s"]

    ways = {
        "all": timed(),
        "matrix-product": timed("--without", "matrix-product"),
        "kept-memory": timed(kept_memory=False),
        "bf16": timed("--precision", "fp32"),
    }
    depthwise = {
        "mobilenet": timed(*MOBILENET),
        "float32-depthwise": timed(*MOBILENET, "--without", "float32-depthwise"),
    }
    if setting.name == "digits":  # its protocol says fp32
        del ways["bf16"]
        depthwise = {}
    found = rounds(ways | depthwise, count)
    slower = {name: ratio(found[name], found["all"]) for name in ways if name != "all"}
    return slower | {name: ratio(found[name], found["mobilenet"]) for name in depthwise if name != "mobilenet"}


def study(setting: Setting, count: int) -> dict[str, Any]:
    """A whole `run ratio` with three seeds against running the usual script once per row and seed."""
    say(f"{setting.name}: `run ratio` with {SEEDS} seeds against the usual script once per row and seed")
    rows = [row.id for row in load_ablations(declarations_dir(), ["ratio"])[0].rows]
    ours, usual = [], []
    for number in range(count):
        ours.append(run_study(setting.study()))
        # One row per round stands for all: their costs differ by about a tenth.
        begun = time.perf_counter()
        together([setting.usual(rows[(number + 2) % len(rows)], setting.study_epochs)], dict(os.environ))
        usual.append((time.perf_counter() - begun) * len(rows) * SEEDS)
        say(f"  suite {ours[-1].wall_s:.0f} s, {ours[-1].busy:.0%} of processor time in use; usual {usual[-1]:.0f} s")
    return {
        "study_vs_usual_script": ratio(usual, [each.wall_s for each in ours]),
        "cores_busy": spread([each.busy for each in ours]),
        "study_s": [each.wall_s for each in ours],
        "worker_mb": max(each.worker_mb for each in ours),
    }


def ablate(page: Path) -> dict[str, Any]:
    """All tables of the default protocol, with all optimisations and without, and a comparison of their errors.

    One round, which takes as long as `make ablate` twice. The comparison goes to `page`.
    """
    say("digits: all tables, with all optimisations and without")
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        tuned_study = run_study_in(results, "with-optimisations", [])
        without = run_study_in(results, "without-optimisations", ["--without", "all"])
        compared = compare(results / "without-optimisations", results / "with-optimisations")
        page.write_text(compared, encoding="utf-8")
    return {
        "cores_busy_ablate": tuned_study.busy,
        "ablate_s": tuned_study.wall_s,
        "ablate_without_levers_s": without.wall_s,
    }

"""(c) How a study's time grows with variants, seeds, images and their size; how long commands take to start."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from images import make
from measure import run_study, say, spread

from senet_ablate.spec.loading import declarations_dir, load_ablations

SHORT = ("--set", "recipe.schedule.warmup_epochs=0", "--set", "recipe.epochs=5")


def growth() -> dict[str, list[dict[str, float]]]:
    """Seconds and megabytes per worker of short studies, one thing varied at a time."""
    rows = [row.id for row in load_ablations(declarations_dir(), ["ratio"])[0].rows if row.id != "r16"]
    found: dict[str, list[dict[str, float]]] = {}

    def point(what: str, value: float, arguments: Sequence[str]) -> None:
        run = run_study(arguments)
        found.setdefault(what, []).append({"value": value, "wall_s": run.wall_s, "worker_mb": run.worker_mb})
        say(f"  {what} {value}: {run.wall_s:.1f} s, {run.worker_mb:.0f} MB per worker")

    say("growth: digits, 5 epochs; and made images, 1 epoch")
    for arms in (2, 4, 6):
        point("arms", arms, ["ratio", "--seeds", "2", "--rows", ",".join(rows[: arms - 1]), *SHORT])
    for seeds in (1, 2, 4):
        point("seeds", seeds, ["ratio", "--seeds", str(seeds), "--rows", "original", *SHORT])
    with tempfile.TemporaryDirectory() as folder:
        common = ["ratio", "--protocol", "cifar10-folder", "--seeds", "1", "--rows", "original", *SHORT[:2]]
        for images in (2_000, 4_000, 8_000):
            data = make(Path(folder) / str(images), images, 1_000)
            point("images", images, [*common, "--set", "recipe.epochs=2", "--data", str(data)])
        for size in (8, 16, 32):
            some = ["--set", "recipe.epochs=2", "--set", f"data.resolution={size}"]
            point("pixels", size, [*common, *some, "--data", str(Path(folder) / "2000")])
    return found


def start_up(count: int) -> dict[str, Any]:
    """Seconds of processor time that each command takes in an empty folder."""
    say("start of each command")
    found: dict[str, list[float]] = {}
    for _ in range(count):
        for name in ("list", "plan", "status", "report --help", "run --help"):
            before = os.times()
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-m", "senet_ablate", *name.split()]
                subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            after = os.times()
            spent = after.children_user + after.children_system - before.children_user - before.children_system
            found.setdefault(name, []).append(spent)
    return {name: spread(seconds) for name, seconds in found.items()}

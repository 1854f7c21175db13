"""Under test: heavy libraries stay in the modules that need them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "senet_ablate"
WORKING = (
    "se, eca, resnet, speedup, schedules, folders, loaders, data, complexity, latency, anatomy, evaluation, "
    "checkpoints, training, trackers, run, worker, server, excitation, pruning, subjects, legacy, excitation_figures, "
    "excitation_report"
)
"""Modules that train networks or look into them; all others start without torch and without an engine."""
DESCRIBING = {path.stem for path in PACKAGE.glob("[!_]*.py")} - {*WORKING.split(", ")}


def test_describing_modules_never_import_torch():
    code = f"import sys; from senet_ablate import {', '.join(sorted(DESCRIBING))}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {f"senet_ablate.{name}" for name in DESCRIBING} <= imported
    assert not {"torch", "torchvision", "pytorch_lightning", "fvcore", "submitit", "ray"} & imported


@pytest.mark.parametrize(
    ("library", "rooms"), [("pytorch_lightning", {"training.py", "trackers.py"}), ("fvcore", {"complexity.py"})]
)
def test_lightning_and_its_loggers_and_fvcore_stay_in_their_rooms(library, rooms):
    users = {
        path.name for path in PACKAGE.glob("*.py") if re.search(rf"^ *(from|import) {library}", path.read_text(), re.M)
    }
    assert users == rooms

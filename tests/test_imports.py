"""Under test: heavy libraries stay in the modules that need them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DESCRIBING = (
    "specs, backbones, geometry, declarations, claims, suite, rules, contrasts, overhead, counting, records, store, "
    "planning, provenance, tables, figures, page, report, executor, lease, sharing, merging, verification, pool, "
    "runner, levers, machine, timings, terminal, inspection, exchange, cli"
)


def test_describing_modules_never_import_torch():
    code = f"import sys; from senet_ablate import {DESCRIBING}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {f"senet_ablate.{name}" for name in DESCRIBING.split(", ")} <= imported
    assert not {"torch", "torchvision", "pytorch_lightning", "fvcore"} & imported


@pytest.mark.parametrize(
    ("library", "rooms"), [("pytorch_lightning", {"training.py", "trackers.py"}), ("fvcore", {"complexity.py"})]
)
def test_lightning_and_its_loggers_and_fvcore_stay_in_their_rooms(library, rooms):
    package = Path(__file__).parents[1] / "senet_ablate"
    users = {
        path.name for path in package.glob("*.py") if re.search(rf"^ *(from|import) {library}", path.read_text(), re.M)
    }
    assert users == rooms

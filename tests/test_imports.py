"""Under test: commands that neither train nor count start without torch, Lightning or an engine."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "torchvision", "pytorch_lightning", "fvcore", "submitit", "ray"}

IMPORT_ROOM = """
import importlib, pkgutil, sys
room = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(room.__path__, room.__name__ + "."):
    importlib.import_module(module.name)
print(*sys.modules)
"""


@pytest.mark.parametrize("room", ["spec", "results", "analysis", "report", "cli"])
def test_a_room_that_does_not_train_imports_no_heavy_library(room):
    command = [sys.executable, "-c", IMPORT_ROOM, f"senet_ablate.{room}"]
    imported = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert any(name.startswith(f"senet_ablate.{room}.") for name in imported)
    assert not HEAVY & imported

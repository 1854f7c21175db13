"""(d) The time of the SE block by position and squeeze: networks with it and without SE, measured in turn.

    python benchmarks/block.py --network small|paper --rounds 5

Inference at batch 1 and at a large batch, and a training step, on one thread, eager, float32. Prints milliseconds by
round as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

import torch

from senet_ablate.execution.machine import optimisations_on
from senet_ablate.models.build import build_network
from senet_ablate.models.fastconv import speed_up
from senet_ablate.models.latency import in_turn, stopwatches
from senet_ablate.spec.loading import declarations_dir, load_ablations
from senet_ablate.spec.network import Network

ARMS = {
    "plain": ("ratio", "original"),
    "standard": ("integration", "standard"),
    "pre": ("integration", "pre"),
    "post": ("integration", "post"),
    "identity": ("integration", "identity"),
    "inner 3x3": ("inner", "inner-3x3"),
    "max squeeze": ("squeeze", "max"),
    "no squeeze": ("nosqueeze", "nosqueeze"),
}
NETWORKS = {
    "small": (Network(backbone="resnet14", width=16, stem="small"), 32, 128),
    "paper": (Network(backbone="resnet50", width=64, stem="imagenet"), 224, 0),  # batch 1, inference: its figure
}


def watches(network: Network, size: int, batch: int, arm: str) -> dict[str, Callable[[], float]]:
    """Functions that measure milliseconds of each kind of work for one arm."""
    table, row = ARMS[arm]
    variant = load_ablations(declarations_dir(), [table])[0].row(row).variant
    model = build_network(network, variant, in_channels=3, classes=10, resolution=size).to(
        memory_format=torch.channels_last
    )
    speed_up(model, optimisations_on("cpu"))

    def images(count: int) -> torch.Tensor:
        return torch.randn(count, 3, size, size).to(memory_format=torch.channels_last)

    inference = {f"inference, batch {count}": images(count) for count in (1, batch) if count}
    steps = {f"training step, batch {batch}": images(batch)} if batch else {}
    return stopwatches(model, inference, steps, bf16=False, threads=1)


def main() -> None:
    """Measure all arms in turn and print the milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=list(NETWORKS), default="small")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    measured = {arm: watches(*NETWORKS[chosen.network], arm) for arm in ARMS}
    found = in_turn(measured, chosen.rounds, lambda done: print(f"  round {done}", file=sys.stderr, flush=True))
    by_kind = {kind: {arm: kinds[kind] for arm, kinds in found.items()} for kind in found["plain"]}
    print(json.dumps(by_kind))


if __name__ == "__main__":
    main()

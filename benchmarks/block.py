"""(d) What the SE block costs in time, by place and squeeze: networks with it beside the plain one, in turn.

    python benchmarks/block.py --network small|paper --rounds 5

Latency of inference at batch 1 and large and of a training step, one thread, eager, float32, by
`torch.utils.benchmark`. Prints milliseconds of each round as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils.benchmark import Timer

from senet_ablate.levers import in_use
from senet_ablate.resnet import ResNet
from senet_ablate.specs import Network
from senet_ablate.speedup import speed_up
from senet_ablate.suite import declarations_dir, load_ablations

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


def timers(network: Network, size: int, batch: int, arm: str) -> dict[str, Callable[[], float]]:
    """Functions that measure milliseconds of each kind of work for one arm."""
    table, row = ARMS[arm]
    variant = load_ablations(declarations_dir(), [table])[0].row(row).variant
    model = ResNet(network, variant, in_channels=3, classes=10).to(memory_format=torch.channels_last)
    speed_up(model, in_use("cpu"))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def images(count: int) -> torch.Tensor:
        return torch.randn(count, 3, size, size).to(memory_format=torch.channels_last)

    def infer(x: torch.Tensor) -> None:
        model.eval()
        with torch.inference_mode():
            model(x)

    def train(x: torch.Tensor) -> None:
        model.train()
        loss = F.cross_entropy(model(x), torch.zeros(len(x), dtype=torch.int64))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def measured(work: Callable[[torch.Tensor], None], count: int) -> Callable[[], float]:
        timer = Timer("work(x)", globals={"work": work, "x": images(count)}, num_threads=1)
        return lambda: 1e3 * timer.blocked_autorange(min_run_time=0.3).median

    found = {"inference, batch 1": measured(infer, 1)}
    if batch:
        found[f"inference, batch {batch}"] = measured(infer, batch)
        found[f"training step, batch {batch}"] = measured(train, batch)
    return found


def main() -> None:
    """Measure all arms in turn and print the milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=list(NETWORKS), default="small")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    measured = {arm: timers(*NETWORKS[chosen.network], arm) for arm in ARMS}
    found: dict[str, dict[str, list[float]]] = {}
    for number in range(chosen.rounds):
        for arm, kinds in measured.items():
            for kind, milliseconds in kinds.items():
                found.setdefault(kind, {}).setdefault(arm, []).append(milliseconds())
        print(f"  round {number + 1} of {chosen.rounds}", file=sys.stderr, flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()

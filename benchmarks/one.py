"""One timed training for `bench.py`, in a process of its own: the suite's, or a bare loop with all optimisations.

    python benchmarks/one.py ours|bare --protocol digits --epochs N [--data FOLDER] [--without OPTIMISATION]

Prints seconds per epoch of training and validation: the suite's with Lightning, curve, progress file and checkpoint;
the bare loop with nothing more.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F

from senet_ablate.data.datasets import load_data
from senet_ablate.data.loaders import EpochSampler
from senet_ablate.execution.machine import optimisations_on
from senet_ablate.models.build import build_network
from senet_ablate.models.fastconv import speed_up
from senet_ablate.results.store import Study
from senet_ablate.spec.loading import declarations_dir, load_ablations, load_protocol
from senet_ablate.spec.protocol import RunSpec
from senet_ablate.training.checkpoint import EpochFiles
from senet_ablate.training.evaluation import resolve_precision
from senet_ablate.training.request import RunRequest
from senet_ablate.training.schedule import learning_rate
from senet_ablate.training.train import train_run


def bare(spec: RunSpec, data: Path | None, optimisations: tuple[str, ...]) -> float:
    """Seconds per epoch of a bare loop: images resident, channels last, one thread, no framework, no file."""
    torch.set_num_threads(1)
    loaded = load_data(spec.data, data, stream=False, announce=lambda text: None)
    model = build_network(
        spec.network,
        spec.variant,
        in_channels=loaded.facts.channels,
        classes=loaded.facts.classes,
        resolution=spec.data.resolution,
        seed=spec.seed,
    )
    model.to(memory_format=torch.channels_last)
    speed_up(model, optimisations)
    model.train()
    recipe = spec.recipe
    optimizer = torch.optim.SGD(
        model.parameters(), recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
    )
    order = EpochSampler(len(loaded.train), seed=spec.seed, batch_size=recipe.batch_size)
    batches = loaded.train.loader(order, recipe.augmentation, torch.device("cpu"), 0)
    own_order = EpochSampler(len(loaded.validation), seed=None, batch_size=recipe.batch_size)
    validation = loaded.validation.loader(own_order, None, torch.device("cpu"), 0)
    bf16 = resolve_precision(spec.precision, "cpu") == "bf16"
    ends = []
    for epoch in range(recipe.epochs):
        order.set_epoch(epoch)
        for step, (images, labels) in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, epoch + step / len(batches), [])
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = F.cross_entropy(model(images), labels, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            wrong = sum(int((model(images).argmax(1) != labels).sum()) for images, labels in validation)
        assert 0 <= wrong <= len(loaded.validation)
        model.train()
        ends.append(time.perf_counter())
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def ours(spec: RunSpec, data: Path | None, optimisations: tuple[str, ...]) -> float:
    """Seconds per epoch of the suite's own run, the first epoch left out: the time between the ends of its epochs."""
    ends = []
    finish_epoch = EpochFiles.on_train_epoch_end

    def noted(self: EpochFiles, *arguments: Any) -> None:
        finish_epoch(self, *arguments)
        ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(EpochFiles, "on_train_epoch_end", noted):
        train_run(
            RunRequest(
                spec=spec, folder=Study(Path(folder)).run(spec.run_id), data_path=data, optimisations=optimisations
            )
        )
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def main() -> None:
    """Time one way and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=["ours", "bare"])
    parser.add_argument("--protocol", default="digits")
    parser.add_argument("--row", default="r16")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--without", action="append", default=[], help="an optimisation")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of the protocol")
    parser.add_argument("--precision")
    chosen = parser.parse_args()
    overrides = [*chosen.set, f"recipe.epochs={chosen.epochs + 1}", "recipe.schedule.warmup_epochs=0"]
    overrides += [f"precision={chosen.precision}"] if chosen.precision else []
    protocol = load_protocol(declarations_dir(), chosen.protocol, overrides)
    variant = load_ablations(declarations_dir(), ["ratio"])[0].row(chosen.row).variant
    way = {"ours": ours, "bare": bare}[chosen.way]
    optimisations = optimisations_on("cpu", chosen.without)
    print(json.dumps({"epoch_s": way(protocol.run_spec(variant, 0), chosen.data, optimisations)}))


if __name__ == "__main__":
    main()

"""A usual script for one row of the table: the fair, readable baseline of `bench.py`.

Lightning, torchvision transforms on PIL images in a DataLoader with workers, float32, torch's default threads, one run
after the other, each in a process of its own. Network and recipe are the suite's, so only the way of running differs.

    python benchmarks/usual_script.py --protocol digits --row r16 --seed 0 [--data FOLDER] [--epochs N]
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from senet_ablate.blocks.se import SqueezeExcitation
from senet_ablate.models.build import build_network
from senet_ablate.spec.loading import declarations_dir, load_ablations, load_protocol
from senet_ablate.spec.network import Variant
from senet_ablate.spec.protocol import Protocol
from senet_ablate.training.schedule import learning_rate


class Digits(Dataset):
    """scikit-learn's digits as PIL images."""

    def __init__(self, rows: slice, view: transforms.Compose) -> None:
        images, labels = load_digits(return_X_y=True)
        self.images = (images[rows].reshape(-1, 8, 8) * 255 / 16).round().astype("uint8")
        self.targets, self.view = labels[rows], view
        self.to_image = transforms.ToPILImage()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.view(self.to_image(self.images[index])), int(self.targets[index])


def data_sets(protocol: Protocol, folder: Path | None) -> dict[str, Dataset]:
    """Images that train, validate and test, about as many of each as in the protocol, with the usual transforms."""
    size, recipe = protocol.data.resolution, protocol.recipe.augmentation
    normalise = [transforms.ToTensor(), transforms.Normalize([0.5], [0.5])]
    small = [transforms.Resize(size)] if protocol.data.dataset == "folder" else []
    crop = [transforms.RandomCrop(size, padding=recipe.crop_padding)] if recipe.crop_padding else []
    flip = [transforms.RandomHorizontalFlip()] if recipe.horizontal_flip else []
    augmented, plain = transforms.Compose([*small, *crop, *flip, *normalise]), transforms.Compose([*small, *normalise])
    if protocol.data.dataset == "digits":
        train, held = (Digits(slice(1029), view) for view in (augmented, plain))
        test = Digits(slice(1029, None), plain)
    else:
        assert folder is not None
        train, held = (ImageFolder(folder / "train", view) for view in (augmented, plain))
        test = ImageFolder(folder / "test", plain)
    kept, validating = train_test_split(
        range(len(train)), test_size=protocol.data.validation, stratify=train.targets, random_state=0
    )
    return {"train": Subset(train, kept), "validation": Subset(held, validating), "test": test}


class UsualModule(pl.LightningModule):
    """What a tutorial would write."""

    def __init__(self, protocol: Protocol, variant: Variant, channels: int, classes: int) -> None:
        super().__init__()
        self.recipe = protocol.recipe
        self.model = build_network(
            protocol.network, variant, in_channels=channels, classes=classes, resolution=protocol.data.resolution
        )
        for block in self.model.modules():
            if isinstance(block, SqueezeExcitation):
                block.squeeze = nn.AdaptiveAvgPool2d(1)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        images, labels = batch
        loss = F.cross_entropy(self.model(images), labels, label_smoothing=self.recipe.label_smoothing)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> None:
        images, labels = batch
        logits = self.model(images)
        self.log("val_loss", F.cross_entropy(logits, labels))
        self.log("val_error", (logits.argmax(1) != labels).float().mean())

    def test_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> None:
        images, labels = batch
        self.log("test_error", (self.model(images).argmax(1) != labels).float().mean())

    def configure_optimizers(self) -> dict:
        recipe, steps = self.recipe, self.trainer.estimated_stepping_batches / self.recipe.epochs
        optimizer = torch.optim.SGD(
            self.parameters(), recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate(recipe, min(step / steps, recipe.epochs - 1e-9), []) / recipe.lr
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}


def train(protocol: Protocol, variant: Variant, seed: int, folder: Path | None, workers: int = 2) -> dict[str, float]:
    """Train, validate and test one row; seconds of the quickest epoch and of all, and the test error in percent."""
    begun = time.perf_counter()
    pl.seed_everything(seed, verbose=False)
    images = data_sets(protocol, folder)
    classes = 10 if protocol.data.dataset == "digits" else len(images["test"].classes)  # type: ignore[attr-defined]
    channels = 1 if protocol.data.dataset == "digits" else 3
    batch = protocol.recipe.batch_size
    loaders = {"batch_size": batch, "num_workers": workers, "persistent_workers": workers > 0}
    module = UsualModule(protocol, variant, channels, classes)
    clock = EpochClock()
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=protocol.recipe.epochs, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[clock],
    )  # fmt: skip
    train_batches = DataLoader(images["train"], shuffle=True, drop_last=True, **loaders)
    trainer.fit(module, train_batches, DataLoader(images["validation"], **loaders))
    found = trainer.test(module, DataLoader(images["test"], **loaders), verbose=False)
    return {
        "epoch_s": min(clock.epochs),
        "total_s": time.perf_counter() - begun,
        "test_error": 100 * found[0]["test_error"],
    }


class EpochClock(pl.Callback):
    """Seconds of each epoch, its look at the validation part included."""

    def __init__(self) -> None:
        self.epochs: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.begun = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.epochs.append(time.perf_counter() - self.begun)


def main() -> None:
    """Train one row and print what came out as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protocol", default="digits")
    parser.add_argument("--row", default="r16", help="a row of Table 10")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--epochs", type=int)
    chosen = parser.parse_args()
    overrides = [f"recipe.epochs={chosen.epochs}", "recipe.schedule.warmup_epochs=0"] if chosen.epochs else []
    protocol = load_protocol(declarations_dir(), chosen.protocol, overrides)
    ratio = load_ablations(declarations_dir(), ["ratio"])[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        print(json.dumps(train(protocol, ratio.row(chosen.row).variant, chosen.seed, chosen.data)))


if __name__ == "__main__":
    main()

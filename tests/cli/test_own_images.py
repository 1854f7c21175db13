"""Commands on a folder of the user's: its classes and counts, warnings before training, no figures of other data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from click.testing import CliRunner, Result
from helpers import PROTOCOL, image_folder, random_image
from PIL import ExifTags, Image

from senet_ablate.analysis.power import assumed_sd
from senet_ablate.cli.main import main
from senet_ablate.results.store import Study
from senet_ablate.spec.protocol import DataConfig, DataFacts, Recipe, weaknesses

pytestmark = pytest.mark.usefixtures("decode_cache")

PROTOCOL_TEXT = """
name = "mine"
description = "two classes"
seeds = 2
[network]
backbone = "resnet14"
width = 16
stem = "small"
[data]
dataset = "folder"
resolution = 8
[recipe]
epochs = 1
batch_size = 4
lr = 0.01
"""
FACTS = DataFacts(
    fingerprint="f00d",
    channels=3,
    class_names=("cat", "dog"),
    n_train=4000,
    n_validation=400,
    n_test=500,
    parts=("train", "test"),
    train_counts=(2200, 2200),
    test_counts=(250, 250),
)
RECIPE = Recipe(epochs=10, batch_size=40, lr=0.1)


@pytest.fixture
def mine(tmp_path: Path) -> list[str]:
    """Options that name a protocol and a folder."""
    (tmp_path / "mine.toml").write_text(PROTOCOL_TEXT)
    image_folder(tmp_path / "images", per_class=(10, 4))
    return ["--protocol", "mine.toml", "--data", "images"]


def test_enough_images_and_steps_are_no_reason_to_warn() -> None:
    assert weaknesses(RECIPE, FACTS) == []


@pytest.mark.parametrize(
    ("recipe", "facts", "words"),
    [
        ({"epochs": 9}, {}, ["900 optimiser steps", "9 epochs of 4,000 images in batches of 40"]),
        ({}, {"n_test": 499}, ["499 test images", "0.2 points"]),
        ({}, {"train_counts": (4381, 19)}, ["fewer than 20 images of a class in train: dog (19)"]),
        ({}, {"test_counts": (2, 498)}, ["fewer than 20 images of a class in test: cat (2)"]),
        ({}, {"repeated": 3}, ["3 test images are also in train"]),
    ],
    ids=["steps", "test", "class", "test-class", "repeated"],
)
def test_each_weakness_is_told_alone(recipe: dict[str, int], facts: dict[str, object], words: list[str]) -> None:
    (told,) = weaknesses(RECIPE.model_copy(update=recipe), FACTS.model_copy(update=facts))
    assert all(word in told for word in words), told


def test_plan_takes_classes_and_counts_from_the_folder(call: Callable[..., Result], mine: list[str]) -> None:
    result = call("plan", "ratio", *mine)
    assert result.exit_code == 0, result.output
    for text in (
        "images: 20 of train/ (18 to train, 2 for validation), 8 of test/ to test; 2 classes: cat, dog; images of a "
        "class: 10 in train/, 4 in test/",
        "WARNING: 4 optimiser steps (1 epochs of 18 images in batches of 4)",
        "WARNING: 8 test images",
        "WARNING: fewer than 20 images of a class in train: cat (10), dog (10)",
        "WARNING: the minimum detectable SE gain is",
        f"{assumed_sd(50.0, 8, 2, 1):.2f} points, from formulas, for an error of 50 % on 8 test images",
    ):
        assert text in result.output, result.output


def test_without_the_folder_no_power_is_told_and_no_plan_is_made(call: Callable[..., Result], mine: list[str]) -> None:
    result = call("plan", "ratio", *mine[:2], "--classes", "2")
    assert result.exit_code == 0, result.output
    assert "No power" in result.output
    assert "number of test images" in result.output
    assert "Noise of one run" not in result.output
    for more in (["--runs", "30"], ["--write"]):
        refused = call("plan", "ratio", *mine[:2], "--classes", "2", *more)
        assert (refused.exit_code, "--data FOLDER" in refused.output) == (2, True)
    neither = call("plan", "ratio", *mine[:2])
    assert (neither.exit_code, "--data FOLDER" in neither.output) == (2, True)


def test_audit_takes_the_number_of_classes_from_the_folder(call: Callable[..., Result], mine: list[str]) -> None:
    result = call("audit", "squeeze", *mine)
    assert result.exit_code == 0, result.output
    assert "0 undeclared" in result.output


def test_run_says_what_was_taken_and_warns_and_other_images_are_refused_afterwards(
    call: Callable[..., Result], mine: list[str], tmp_path: Path
) -> None:
    result = call("run", "gain", "--rows", "original", *mine, "--seeds", "1", "--jobs", "1")
    assert result.exit_code == 0, result.output
    assert "images: 20 of train/ (18 to train, 2 for validation), 8 of test/ to test" in result.output
    assert result.output.index("WARNING: 8 test images") < result.output.index("trained 2 runs")
    pin = Study(tmp_path / "results" / "mine").pinned()
    assert (pin.data.parts, pin.data.train_counts, pin.data.test_counts) == (("train", "test"), (10, 10), (4, 4))
    image_folder(tmp_path / "other", per_class=(9, 4))
    for command in ("plan", "status", "audit", "report"):
        same = call(command, *(["gain"] if command != "report" else []), *mine)
        assert same.exit_code == 0, same.output
        other = call(command, *(["gain"] if command != "report" else []), *mine[:3], "other")
        assert other.exit_code == 2
        assert "was begun with other images" in other.output


@pytest.mark.slow
def test_from_a_folder_to_a_report_with_pretrained_weights(call: Callable[..., Result], tmp_path: Path) -> None:
    """One broken file, one on its side, one in both parts; the weights are of a network of other classes."""
    root = image_folder(tmp_path / "images", per_class=(12, 6), side=64)
    (root / "train" / "cat" / "0.png").write_bytes(b"")
    aside = Image.Exif()
    aside[ExifTags.Base.Orientation] = 6
    random_image(50, 64, 64).save(root / "train" / "dog" / "0.png", exif=aside)
    (root / "test" / "dog" / "1.png").write_bytes((root / "train" / "dog" / "1.png").read_bytes())
    torch.manual_seed(0)
    state = torchvision.models.resnet18(num_classes=7).state_dict()
    torch.save(state, tmp_path / "w.pt")
    written = CliRunner().invoke(main, ["init", "--data", "images", "--weights", "w.pt"])
    assert "1 files cannot be read" in written.output, written.output
    mine = ("gain", "--protocol", "mine.toml", "--data", "images")
    assert "11,178,564" not in call("plan", *mine).output, "that is the size for four classes"
    still = [f"--set=recipe.{key}" for key in ("epochs=1", "schedule.warmup_epochs=0", "lr=1e-9", "backbone_lr=1e-12")]
    run = call(
        "run", *mine, *still, "--rows=original", "--seeds=1", "--jobs=1", "--study=s", "--report", "--keep-weights"
    )
    assert run.exit_code == 0, run.output
    # 2 x 12 less the broken one; a tenth of each class, at least one, is kept for validation.
    for text in (
        "images: 23 of train/ (21 to train, 2 for validation), 12 of test/ to test; 2 classes: cat, dog",
        "1 images were turned upright",
        "WARNING: 1 test images are also in train",
    ):
        assert text in run.output
    plain = torchvision.models.resnet18(num_classes=2)
    (record,) = (each for each in Study(tmp_path / "results" / "s").records() if each.spec.variant.is_plain)
    assert record.complexity.params == sum(weight.numel() for weight in plain.parameters())
    assert record.spec.network.source == hashlib.blake2b((tmp_path / "w.pt").read_bytes(), digest_size=6).hexdigest()
    assert record.provenance.libraries["torchvision"] == torchvision.__version__.partition("+")[0]
    kept = torch.load(tmp_path / "results" / "s" / record.run_id / "weights.pt", weights_only=True)
    for name in ("conv1.weight", "layer4.1.conv2.weight"):
        torch.testing.assert_close(kept[name], state[name], rtol=0, atol=1e-6)
    assert "torchvision:resnet18, pretrained; images at 64x64" in (tmp_path / "reports" / "s" / "REPORT.md").read_text()


def test_facts_of_older_studies_read_the_same() -> None:
    old = {key: value for key, value in FACTS.model_dump().items() if value}
    for key in ("parts", "train_counts", "test_counts"):
        del old[key]
    facts = DataFacts(**old)
    assert (facts.parts, facts.rotated, facts.repeated) == ((), 0, 0)
    config = DataConfig(dataset="folder", resolution=8)
    assert "splits" not in config.model_dump(exclude_defaults=True)
    assert PROTOCOL.data.splits == ""

"""From a folder to a protocol: what `init` finds, what it writes, and what it refuses."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from click.testing import Result
from helpers import image_folder, random_image
from PIL import Image

from senet_ablate.cli.main import main
from senet_ablate.data.datasets import load_data
from senet_ablate.models.build import build_network
from senet_ablate.spec.loading import declarations_dir, load_protocol
from senet_ablate.spec.network import Variant

pytestmark = pytest.mark.usefixtures("decode_cache")

Init = Callable[..., Result]


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Init:
    """Run `init` in an empty folder."""
    from click.testing import CliRunner

    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, ["init", *arguments])


def flat(root: Path, *, per_class: int = 10, side: int = 8) -> Path:
    """Class folders without parts."""
    made = image_folder(root.with_name("made"), ("a", "b"), per_class=(per_class, 1), side=side)
    return (made / "train").rename(root)


def test_what_is_in_a_folder_is_said(init: Init, tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images", per_class=(6, 3), side=16)
    (root / "train" / "cat" / "0.png").write_bytes(b"x")
    (root / "train" / "cat" / "note.txt").write_text("x")
    (root / "train" / "cat" / "@eaDir").mkdir()
    (root / "test" / "dog" / "0.png").write_bytes((root / "train" / "dog" / "1.png").read_bytes())
    Image.open(root / "train" / "dog" / "2.png").save(root / "test" / "dog" / "1.bmp")
    random_image(0, 20, 12).save(root / "train" / "dog" / "0.png")
    result = init("--data", "images")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines()]
    assert ["cat", "5", "3"] in rows
    assert ["dog", "6", "4"] in rows
    assert ["all", "11", "7"] in rows
    for text in (
        "18 images in 2 classes",
        "16x16 (17), 20x12 (1); median short side 16",
        "1 files cannot be read:\n  images/train/cat/0.png",
        "1 files are not images:\n  images/train/cat/note.txt",
        "'@eaDir'",
        "2 images are there more than once: 1 as equal files, 1 as equal pixels in other files",
        "2 of them are in more than one part:",
        "senet-ablate plan gain --protocol mine.toml --data images\n",
        "senet-ablate run gain --protocol mine.toml --data images --report\n",
    ):
        assert text in result.output


def test_every_key_of_the_protocol_has_a_comment_and_its_numbers_are_those_of_the_folder(
    init: Init, tmp_path: Path
) -> None:
    root = image_folder(tmp_path / "images", per_class=(40, 3), side=40)
    assert init("--data", "images").exit_code == 0
    lines = Path("mine.toml").read_text().splitlines()
    assert all("#" in line for line in lines if "=" in line and not line.startswith("description"))
    protocol = load_protocol(declarations_dir(), "mine.toml")
    facts = load_data(protocol.data, root).facts
    assert f"80 images to train, {facts.n_test} to test" in protocol.description
    steps = protocol.recipe.epochs * (facts.n_train // protocol.recipe.batch_size)
    assert f"passes over {facts.n_train} images: {steps} steps" in "\n".join(lines)
    assert protocol.data.resolution == 32, "the largest that the images have"


def test_a_test_part_is_drawn_written_down_and_followed(init: Init, tmp_path: Path) -> None:
    root = flat(tmp_path / "images")
    before = sorted(root.rglob("*"))
    result = init("--data", "images", "--split", "0.2")
    assert result.exit_code == 0, result.output
    assert sorted(root.rglob("*")) == before
    rows = list(csv.DictReader(Path("splits.csv").read_text().splitlines()))
    assert Counter((row["part"], row["class"]) for row in rows) == {
        ("train", "a"): 8,
        ("test", "a"): 2,
        ("train", "b"): 8,
        ("test", "b"): 2,
    }
    protocol = load_protocol(declarations_dir(), "mine.toml")
    assert load_data(protocol.data, root).facts.test_counts == (2, 2)
    random_image(999).save(root / "a" / "new.png")
    assert init("--data", "images", "--split", "0.2", "--out", "again.toml").exit_code == 0
    again = {row["path"]: row["part"] for row in csv.DictReader(Path("again-splits.csv").read_text().splitlines())}
    assert all(again[row["path"]] == row["part"] for row in rows if row["class"] == "b")


def test_equal_images_are_drawn_into_one_part(init: Init, tmp_path: Path) -> None:
    root = flat(tmp_path / "images")
    for number in range(10):
        Image.open(root / "a" / f"{number}.png").save(root / "a" / f"{number}.bmp")
    assert init("--data", "images", "--split", "0.3").exit_code == 0
    parts = {row["path"]: row["part"] for row in csv.DictReader(Path("splits.csv").read_text().splitlines())}
    assert all(parts[f"a/{number}.png"] == parts[f"a/{number}.bmp"] for number in range(10))
    assert Counter(parts[f"a/{number}.png"] for number in range(10)) == {"train": 7, "test": 3}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "flat"], ["flat has no test part", "--split 0.2"]),
        (["--data", "whole", "--split", "0.2"], ["--split 0.2", "has a test part already, test/"]),
        (["--data", "nowhere"], ["nowhere: no such folder"]),
        (["--data", "empty"], ["empty: no images in class folders", "found nothing"]),
        (["--data", "whole", "--out", "Mine.toml"], ["--out Mine.toml", "such as mine.toml"]),
        (["--data", "whole", "--out", "there.toml"], ["there.toml exists", "--out other.toml"]),
        (["--data", "few", "--split", "0.2"], ["class 'a' has 2 different images"]),
        (["--data", "whole", "--split", "0.7"], ["--split", "0<x<=0.5"]),
        (["--data", "whole", "--weights", "there.toml"], ["there.toml: cannot be read as weights"]),
        (["--data", "whole", "--weights", "other.pt"], ["other.pt: not the weights of torchvision:resnet18", "conv1"]),
        (["--data", "rest", "--splits", "half.csv"], ["half.csv: no image of the test part can be read"]),
    ],
    ids=["no-test", "test", "nowhere", "empty", "name", "exists", "few", "share", "no-weights", "other-net", "half"],
)
def test_what_cannot_be_done_is_refused(arguments: list[str], words: list[str], init: Init, tmp_path: Path) -> None:
    image_folder(tmp_path / "whole")
    flat(tmp_path / "flat")
    (tmp_path / "made" / "test").rename(tmp_path / "rest")
    (tmp_path / "made").rmdir()
    flat(tmp_path / "few", per_class=2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.toml").write_text("")
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "other.pt")
    (tmp_path / "half.csv").write_text("path,part,class\na/0.png,train,a\nb/0.png,train,b\n")
    result = init(*arguments)
    assert result.exit_code == 2
    assert all(word in result.output for word in words), result.output
    assert not Path("mine.toml").exists()


def test_a_class_with_one_training_image_is_refused_as_by_run(init: Init, tmp_path: Path) -> None:
    image_folder(tmp_path / "images", per_class=(1, 2))
    result = init("--data", "images")
    assert result.exit_code == 2
    assert "has a single training image; train and validation need one each" in result.output
    assert not list(tmp_path.glob("*.toml"))


def test_weights_from_a_file_begin_a_pretrained_network(init: Init, tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images", side=64)
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, tmp_path / "weights.pt")
    assert init("--data", "images", "--weights", "weights.pt").exit_code == 0
    protocol = load_protocol(declarations_dir(), "mine.toml")
    classes = load_data(protocol.data, root).facts.classes
    model = build_network(
        protocol.network, Variant(), in_channels=3, classes=classes, resolution=protocol.data.resolution, seed=0
    )
    assert torch.equal(model.state_dict()["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])


def test_a_list_of_files_stands_for_folders(init: Init, tmp_path: Path) -> None:
    root = flat(tmp_path / "images")
    lines = [f"{name}/{n}.png,{'test' if n > 6 else 'train'},{name}" for name in "ab" for n in range(10)]
    name = 'my "list".csv'
    (tmp_path / name).write_text("\n".join(["path,part,class", *lines]) + "\n")
    result = init("--data", "images", "--splits", name)
    assert result.exit_code == 0, result.output
    assert ["all", "14", "6"] in [line.split() for line in result.output.splitlines()]
    protocol = load_protocol(declarations_dir(), "mine.toml")
    facts = load_data(protocol.data, root).facts
    assert (protocol.data.splits, facts.train_counts, facts.test_counts) == (name, (7, 7), (3, 3))


def test_images_that_one_part_has_twice_are_named(init: Init, tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images")
    (root / "train" / "dog" / "8.png").write_bytes((root / "train" / "cat" / "1.png").read_bytes())
    output = init("--data", "images").output
    pair = "images/train/cat/1.png = images/train/dog/8.png"
    assert f"1 of them are in one part:\n  {pair}" in output
    assert f"1 of them are in more than one class:\n  {pair}" in output
    assert "in more than one part" not in output


def test_few_large_images_begin_with_published_weights(init: Init, tmp_path: Path) -> None:
    image_folder(tmp_path / "images", side=100)
    assert init("--data", "images").exit_code == 0
    protocol = load_protocol(declarations_dir(), "mine.toml")
    assert (protocol.network.backbone, protocol.network.pretrained) == ("torchvision:resnet18", True)
    assert protocol.data.resolution == 96

"""The data sets: embedded digits, torchvision's files, the split into train and validation, and the facts."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from helpers import FAKES, dump, fake_cifar, fake_fashion, image_folder, md5
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from senet_ablate.data.datasets import DATASETS, LoadedData, load_data, load_data_once, validation_indices
from senet_ablate.data.loaders import EpochSampler
from senet_ablate.errors import UserError
from senet_ablate.spec.protocol import CHANNELS_AND_CLASSES, DataConfig

DIGITS = DataConfig(dataset="digits", resolution=8)

# --- the embedded digits ---


@pytest.fixture(scope="module")
def digits() -> LoadedData:
    return load_data(DIGITS, None)


def test_digits_are_scikit_learns_pixels_scaled_from_16_to_255(digits: LoadedData) -> None:
    bunch = load_digits()
    kept, held = validation_indices(digits_labels()[:1029], 0.1)
    images = torch.empty(1797, 1, 8, 8, dtype=torch.uint8)
    images[kept], images[held], images[1029:] = digits.train.images, digits.validation.images, digits.test.images
    assert np.array_equal(np.round(images[:, 0].numpy() / 255 * 16), bunch.images)
    assert (images.min(), images.max()) == (0, 255)
    assert torch.equal(digits.test.labels, digits_labels()[1029:])
    assert torch.equal(digits.train.labels, digits_labels()[kept])


def digits_labels() -> torch.Tensor:
    return torch.from_numpy(load_digits().target.astype(np.int64))


def test_digits_facts(digits: LoadedData) -> None:
    facts = digits.facts
    assert (facts.n_train, facts.n_validation, facts.n_test) == (929, 100, 768)
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (929, 100, 768)
    assert facts.class_names == tuple("0123456789")
    assert (facts.skipped, facts.grey, digits.notices) == (0, 0, ())


def test_digits_splits_share_no_image_and_are_stratified(digits: LoadedData) -> None:
    kept, held = validation_indices(digits_labels()[:1029], 0.1)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(1029))
    for label, count in enumerate(torch.bincount(digits_labels()[:1029]).tolist()):
        assert (digits.validation.labels == label).sum() == round(count / 10)


def test_digits_are_the_same_each_time(digits: LoadedData) -> None:
    again = load_data(DIGITS, None)
    assert again.facts == digits.facts
    assert torch.equal(again.train.images, digits.train.images)
    assert load_data_once(DIGITS, None, False) is load_data_once(DIGITS, None, False)


def test_a_larger_validation_share_leaves_images_and_fingerprint(digits: LoadedData) -> None:
    other = load_data(DataConfig(dataset="digits", resolution=8, validation=0.2), None)
    assert other.facts.fingerprint == digits.facts.fingerprint
    assert other.facts.n_validation + other.facts.n_train == 1029
    assert abs(other.facts.n_validation - 0.2 * 1029) <= 5, "half an image of each class"


def test_digits_refuse_a_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="embedded and take no path"):
        load_data(DIGITS, tmp_path)


# --- torchvision's sets, as files of this test in torchvision's layout ---


SIDES = {"cifar10": 32, "cifar100": 32, "fashion-mnist": 28}


def config(name: Any, **changes: Any) -> DataConfig:
    return DataConfig(**({"dataset": name, "resolution": SIDES[name], "validation": 0.33} | changes))


@pytest.mark.parametrize("name", FAKES)
def test_torchvision_sets_arrive_pixel_for_pixel(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: list[str]
) -> None:
    truth = FAKES[name](tmp_path, monkeypatch)
    data = load_data(config(name), tmp_path)
    kept, held = validation_indices(torch.from_numpy(truth["train_labels"]), 0.33)
    for split, images, labels in (
        (data.train, truth["train"][kept], truth["train_labels"][kept]),
        (data.validation, truth["train"][held], truth["train_labels"][held]),
        (data.test, truth["test"], truth["test_labels"]),
    ):
        assert np.array_equal(split.images.numpy(), images)
        assert np.array_equal(split.labels.numpy(), labels)
    classes = len(truth["test_labels"])
    assert (data.facts.n_train, data.facts.n_validation, data.facts.n_test) == (2 * classes, classes, classes)
    assert offline == []


def test_each_channel_of_the_training_part_is_normalised_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = fake_cifar(tmp_path, monkeypatch, 10)
    truth["train"][:, 0] //= 4  # the first channel is darker than the others
    path = tmp_path / "cifar-10-batches-py"
    rows = {"data": truth["train"].reshape(30, -1), "labels": truth["train_labels"].tolist()}
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "train_list", [dump(path / "all", rows)])
    data = load_data(config("cifar10"), tmp_path)
    sampler = EpochSampler(len(data.train), seed=None, batch_size=8)
    batches = [images for images, _ in data.train.loader(sampler, None, torch.device("cpu"), 0)]
    pixels = torch.cat(batches).double()
    assert pixels.mean((0, 2, 3)).abs().max().item() < 1e-5
    assert pixels.std((0, 2, 3), correction=0).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    mean = data.train.images.double().mean((0, 2, 3)) / 255
    assert data.test.normalisation.mean == pytest.approx(mean.tolist()), "the test part too"


@pytest.mark.parametrize("name", FAKES)
def test_without_network_the_error_tells_the_way_by_hand(name: str, tmp_path: Path, offline: list[str]) -> None:
    said: list[str] = []
    with pytest.raises(UserError) as caught:
        load_data(config(name), tmp_path, announce=said.append)
    message = str(caught.value)
    assert offline, "the download was tried"
    assert any(name in text and str(tmp_path) in text for text in said)
    ending = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}.get(name, "-ubyte.gz")
    addresses = [word for word in message.split("By hand:")[1].split() if word.startswith("http")]
    assert len(addresses) == (4 if name == "fashion-mnist" else 1)
    assert all(address.endswith(ending) for address in addresses)
    place = tmp_path / "FashionMNIST" / "raw" if name == "fashion-mnist" else tmp_path
    assert f"put this into {place} " in message
    assert "--data" in message


def test_an_archive_put_there_by_hand_is_enough_for_cifar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: list[str]
) -> None:
    truth = fake_cifar(tmp_path / "made", monkeypatch, 10)
    root = tmp_path / "data"
    root.mkdir()
    archive = root / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "made" / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", md5(archive))
    assert np.array_equal(load_data(config("cifar10"), root).test.images.numpy(), truth["test"])
    assert offline == []


def test_archives_put_there_by_hand_are_enough_for_fashion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: list[str]
) -> None:
    truth = fake_fashion(tmp_path, monkeypatch)
    for path in list((tmp_path / "FashionMNIST" / "raw").iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    build = torchvision.datasets.FashionMNIST
    resources = [(name, md5(tmp_path / "FashionMNIST" / "raw" / name)) for name, _ in build.resources]
    monkeypatch.setattr(build, "resources", resources)
    assert np.array_equal(load_data(config("fashion-mnist"), tmp_path).test.images.numpy(), truth["test"])
    assert offline == []


@pytest.mark.parametrize(("name", "wrong"), [("digits", 16), ("cifar10", 40), ("fashion-mnist", 32)])
def test_a_larger_resolution_than_the_images_is_refused_with_the_largest(
    name: str, wrong: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in FAKES:
        FAKES[name](tmp_path, monkeypatch)
    right = SIDES.get(name, 8)
    for key in ("resolution", "resize"):
        asked = {"resolution": right} | {key: wrong}
        with pytest.raises(UserError, match=rf"{key} = {wrong}, but .*; set data\.{key} = {right}, or less to shrink"):
            load_data(DataConfig(dataset=name, **asked), tmp_path if name in FAKES else None)


@pytest.mark.parametrize("name", FAKES)
def test_a_smaller_resolution_shrinks_all_parts_and_keeps_the_identity_of_the_images(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FAKES[name](tmp_path, monkeypatch)
    whole, small = (load_data(config(name, resolution=side), tmp_path) for side in (SIDES[name], 12))
    assert small.facts == whole.facts
    for here, there in ((small.train, whole.train), (small.validation, whole.validation), (small.test, whole.test)):
        assert torch.equal(here.labels, there.labels)
        assert here.images.shape[2:] == (12, 12)
        for few, many in zip(here.images, there.images, strict=True):
            # Pillow's own resampling, as for image files; torchvision's differs by rounding.
            picture = Image.fromarray(many.permute(1, 2, 0).squeeze(-1).numpy())
            expected = np.asarray(picture.resize((12, 12), Image.Resampling.BILINEAR)).reshape(12, 12, -1)
            assert np.abs(expected.astype(int) - few.permute(1, 2, 0).numpy()).max() <= 1


def test_a_centre_crop_of_a_data_set_is_that_of_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = fake_cifar(tmp_path, monkeypatch, 10)
    data = load_data(config("cifar10", resolution=20, resize=32), tmp_path)
    assert np.array_equal(data.test.images.numpy(), truth["test"][:, :, 6:26, 6:26])


def test_images_without_contrast_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_fashion(tmp_path, monkeypatch)
    path = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:16] + bytes(30 * 28 * 28))
    with pytest.raises(UserError, match="these are not images"):
        load_data(config("fashion-mnist"), tmp_path)


def test_every_data_set_of_a_specification_can_be_loaded() -> None:
    assert DATASETS.keys() == CHANNELS_AND_CLASSES.keys()


@pytest.mark.parametrize("name", CHANNELS_AND_CLASSES)
@pytest.mark.usefixtures("decode_cache")
def test_declared_channels_and_classes_are_those_of_the_data(
    name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "folder":
        facts = load_data(DataConfig(dataset="folder", resolution=8), image_folder(tmp_path / "images")).facts
    elif name == "digits":
        facts = load_data(DIGITS, None).facts
    else:
        FAKES[name](tmp_path, monkeypatch)
        facts = load_data(config(name), tmp_path).facts
    channels, classes = CHANNELS_AND_CLASSES[name]
    assert facts.channels == channels
    assert facts.classes == (2 if name == "folder" else classes)


# --- the validation part ---

counts = st.lists(st.integers(2, 40), min_size=1, max_size=6)
shares = st.floats(0.001, 0.5)


def shuffled(sizes: list[int], seed: int = 0) -> torch.Tensor:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return torch.from_numpy(np.random.default_rng(seed).permutation(labels))


@given(sizes=counts, share=shares)
def test_validation_takes_its_share_of_each_class_and_leaves_the_rest(sizes: list[int], share: float) -> None:
    labels = shuffled(sizes)
    kept, held = validation_indices(labels, share)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(labels)))
    assert kept.tolist() == sorted(kept.tolist())
    assert held.tolist() == sorted(held.tolist())
    for label, size in enumerate(sizes):
        count = int((labels[held] == label).sum())
        assert 1 <= count < size
        assert count == 1 or abs(count - share * size) <= 0.5


@given(sizes=counts, share=shares, more=st.integers(2, 20))
def test_a_classs_validation_images_do_not_depend_on_other_classes(sizes: list[int], share: float, more: int) -> None:
    few, many = shuffled(sizes, 0), shuffled([*sizes, more], 1)
    for label in range(len(sizes)):
        chosen = []
        for labels in (few, many):
            members = (labels == label).nonzero().flatten()
            chosen.append(torch.isin(members, validation_indices(labels, share)[1]).tolist())
        assert chosen[0] == chosen[1]


@given(sizes=counts, at=st.integers(0, 5))
def test_a_class_of_a_single_image_cannot_be_divided(sizes: list[int], at: int) -> None:
    lonely = min(at, len(sizes))
    with pytest.raises(UserError, match=f"class number {lonely} has a single training image"):
        validation_indices(shuffled([*sizes[:lonely], 1, *sizes[lonely:]]), 0.1)


def test_validation_images_are_spread_over_the_class() -> None:
    _, held = validation_indices(torch.zeros(1000, dtype=torch.int64), 0.1)
    # The mean place of 100 random ones of 1,000 is 499.5 with a standard error of 27.4.
    assert abs(held.double().mean().item() - 499.5) < 5 * 27.4
    assert len(held.diff().unique()) > 10

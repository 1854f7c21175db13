"""The decoded copy of a user's folder and its fingerprint: made once, never stale."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import all_pixels, image_folder, random_image, spoil_header
from PIL import Image

import senet_ablate.data.reading
from senet_ablate.data.datasets import load_data
from senet_ablate.errors import UserError
from senet_ablate.spec.protocol import DataConfig

CONFIG = DataConfig(dataset="folder", resolution=8, validation=0.25)

pytestmark = pytest.mark.usefixtures("decode_cache")


def count_decodes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    read, decoded = senet_ablate.data.reading.read_marked, []

    def counting(path: Path, *, small: bool) -> tuple[Image.Image, frozenset[str]]:
        decoded.append(path)
        return read(path, small=small)

    monkeypatch.setattr(senet_ablate.data.reading, "read_marked", counting)
    return decoded


def test_a_folder_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = image_folder(tmp_path / "images")
    spoil_header(root / "train" / "dog" / "1.png")
    random_image(70, mode="L").save(root / "test" / "dog" / "1.png")
    decoded, said = count_decodes(monkeypatch), []
    first = load_data(CONFIG, root, announce=said.append)
    assert len(decoded) >= 11
    assert len(said) == 1
    assert "12 images" in said[0]
    decoded.clear()
    second = load_data(CONFIG, root, announce=said.append)
    assert decoded == []
    assert len(said) == 1
    assert second.facts == first.facts
    assert second.notices == first.notices
    assert torch.equal(second.train.images, first.train.images)
    assert torch.equal(second.test.labels, first.test.labels)


@pytest.mark.parametrize("changed", [{"resolution": 6}, {"resize": 10}], ids=["resolution", "resize"])
def test_another_view_of_the_images_is_decoded_anew(changed: dict[str, int], tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images", side=16)
    first = load_data(CONFIG, root)
    other = load_data(CONFIG.model_copy(update=changed), root)
    assert all_pixels(first) != all_pixels(other)
    assert other.facts.fingerprint != first.facts.fingerprint


def test_the_decoded_copy_is_not_fooled_by_a_changed_file(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images", suffix="bmp")  # every file has the same size
    path = root / "test" / "cat" / "0.bmp"
    before, size = load_data(CONFIG, root), path.stat().st_size
    random_image(80).save(path)
    os.utime(path, ns=(10**18, 10**18))  # a clock may be too coarse for two writes in a row
    assert path.stat().st_size == size
    after = load_data(CONFIG, root)
    assert np.array_equal(after.test.images[0].permute(1, 2, 0).numpy(), np.asarray(random_image(80)))
    assert after.facts.fingerprint != before.facts.fingerprint


def test_the_fingerprint_depends_on_pixels_and_labels_not_on_names_and_formats(tmp_path: Path) -> None:
    prints = {
        name: load_data(CONFIG, root).facts.fingerprint
        for name, root in {
            "usual": image_folder(tmp_path / "usual"),
            "elsewhere": image_folder(tmp_path / "elsewhere", suffix="bmp"),
            "lossy": image_folder(tmp_path / "lossy", suffix="jpg"),
        }.items()
    }
    relabelled = image_folder(tmp_path / "relabelled")  # the last cat becomes the first dog: the order stays
    (relabelled / "train" / "cat" / "3.png").rename(relabelled / "train" / "dog" / "!.png")
    assert prints["usual"] == prints["elsewhere"]
    assert len({prints["usual"], prints["lossy"], load_data(CONFIG, relabelled).facts.fingerprint}) == 3


def test_a_streamed_folders_fingerprint_depends_on_its_files(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images")

    def fingerprint() -> str:
        return load_data(CONFIG, root, stream=True).facts.fingerprint

    first = fingerprint()
    assert fingerprint() == first
    random_image(0, 9, 9).save(root / "test" / "cat" / "0.png")
    larger = fingerprint()
    (root / "test" / "cat" / "0.png").rename(root / "test" / "cat" / "00.png")
    assert len({first, larger, fingerprint()}) == 3


def test_images_of_equal_size_that_change_places_change_a_streamed_folders_fingerprint(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images", suffix="bmp")
    first = load_data(CONFIG, root, stream=True).facts
    cat, dog = root / "test" / "cat" / "0.bmp", root / "test" / "dog" / "0.bmp"
    assert cat.stat().st_size == dog.stat().st_size
    cat.rename(root / "aside")
    dog.rename(cat)
    (root / "aside").rename(dog)
    assert load_data(CONFIG, root, stream=True).facts.fingerprint != first.fingerprint


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_byte_at_either_end_or_in_the_middle_of_a_streamed_file_counts(tmp_path: Path, share: float) -> None:
    """As much as is said when the files are looked at."""
    root, said = image_folder(tmp_path / "images", side=64, suffix="bmp"), list[str]()
    first = load_data(CONFIG, root, stream=True, announce=said.append).facts
    assert "3,072 bytes of each" in said[0]
    path = root / "train" / "cat" / "0.bmp"
    content = bytearray(path.read_bytes())
    content[max(60, round(share * (len(content) - 1)))] ^= 1  # behind the header
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18))
    assert load_data(CONFIG, root, stream=True).facts.fingerprint != first.fingerprint


def test_a_failed_decode_leaves_nothing_and_the_next_one_succeeds(
    tmp_path: Path, decode_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = image_folder(tmp_path / "images")
    for path in (root / "train" / "dog").iterdir():
        spoil_header(path)
    with pytest.raises(UserError):
        load_data(CONFIG, root)
    assert list(decode_cache.iterdir()) == []

    def interrupted(path: Path, *, small: bool) -> Image.Image:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(senet_ablate.data.reading, "read_marked", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_data(CONFIG, root)
    assert list(decode_cache.iterdir()) == []
    for number, path in enumerate((root / "train" / "dog").iterdir()):
        random_image(number).save(path)
    assert load_data(CONFIG, root).facts.skipped == 0
    assert len(list(decode_cache.iterdir())) == 1

"""A user's image folders: layouts, mistakes, unreadable files, the decoded copy, streaming."""

from __future__ import annotations

import itertools
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import PROTOCOL, image_folder, random_image, spoil_header
from PIL import Image

import senet_ablate.data.datasets
import senet_ablate.data.reading
from senet_ablate.data.datasets import LoadedData, load_data
from senet_ablate.data.folders import list_folder
from senet_ablate.data.inspect import inspect_folder
from senet_ablate.data.loaders import EpochSampler, FileSplit, ResidentSplit
from senet_ablate.errors import UserError
from senet_ablate.execution.driver import prepare
from senet_ablate.results.store import Study
from senet_ablate.spec.protocol import DataConfig

CONFIG = DataConfig(dataset="folder", resolution=8, validation=0.25)

pytestmark = pytest.mark.usefixtures("decode_cache")


def read_all(data: LoadedData) -> int:
    """Read every image once; how many there are."""
    seen = 0
    for split in (data.train, data.validation, data.test):
        loader = split.loader(EpochSampler(len(split), seed=None, batch_size=2), None, torch.device("cpu"), 0)
        seen += sum(len(labels) for _, labels in loader)
    return seen


@pytest.fixture(params=["resident", "streamed"])
def load(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], LoadedData]:
    """Load a folder both ways; streamed since it exceeds what may be held in memory."""
    if request.param == "streamed":
        monkeypatch.setattr(senet_ablate.data.datasets, "RESIDENT_LIMIT", 8 * 8 * 3)

    def loaded(root: Path) -> LoadedData:
        data = load_data(CONFIG, root)
        assert isinstance(data.train, ResidentSplit if request.param == "resident" else FileSplit)
        return data

    return loaded


# --- layouts ---


@pytest.mark.parametrize("test", ["test", "val"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG"])
def test_train_with_test_or_val_is_found(
    test: str, suffix: str, tmp_path: Path, load: Callable[[Path], LoadedData]
) -> None:
    root = image_folder(tmp_path / "images", ("b", "a", "c"), test=test, suffix=suffix)
    data = load(root)
    assert data.facts.class_names == ("a", "b", "c")
    assert (data.facts.n_train, data.facts.n_validation, data.facts.n_test) == (9, 3, 6)
    assert (data.facts.channels, data.facts.skipped, data.facts.grey, data.notices) == (3, 0, 0, ())
    assert data.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.bincount(data.train.labels).tolist() == [3, 3, 3]
    assert read_all(data) == 18


def test_images_keep_their_class_and_their_pixels(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images", ("a", "b"))
    data = load_data(CONFIG, root)
    for number, (image, label) in enumerate(zip(data.test.images, data.test.labels, strict=True)):
        path = root / "test" / "ab"[int(label)] / f"{number % 2}.png"
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(Image.open(path)))


def test_images_in_folders_below_count_and_hidden_files_do_not(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images")
    (root / "train" / "cat" / "more").mkdir()
    random_image(99).save(root / "train" / "cat" / "more" / "deep.png")
    for hidden in (root / "train" / "cat" / ".DS_Store", root / ".hidden", root / "train" / ".cache"):
        hidden.mkdir() if hidden.suffix == ".cache" else hidden.write_bytes(b"x")
    facts = load_data(CONFIG, root).facts
    assert (facts.n_train + facts.n_validation, facts.skipped, facts.classes) == (9, 0, 2)


def test_the_order_of_files_is_that_of_their_names(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images", per_class=(12, 2))
    listing = list_folder(root).train
    assert [path.name for path in listing.paths[:12]] == sorted(f"{number}.png" for number in range(12))
    assert listing.labels == (0,) * 12 + (1,) * 12


# --- mistakes ---


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda root: shutil.rmtree(root), ["no such folder", "train/ and test/ (or val/)"]),
        (lambda root: shutil.rmtree(root / "train"), ["expected train/", "found test"]),
        (lambda root: shutil.rmtree(root / "test"), ["expected train/", "found train"]),
        (lambda root: [shutil.rmtree(path) for path in root.iterdir()], ["expected train/", "found nothing"]),
        (lambda root: shutil.rmtree(root / "train" / "cat"), ["train: 1 class folders", "at least two"]),
        (lambda root: shutil.rmtree(root / "test" / "cat"), ["test: 1 class folders", "at least two"]),
        (lambda root: [p.unlink() for p in (root / "train" / "dog").iterdir()], ["train/dog: empty class", "0 files"]),
    ],
    ids=["missing", "no-train", "no-test", "nothing", "one-class", "one-test-class", "empty-class"],
)
def test_a_folder_that_is_not_as_expected_is_explained(
    spoil: Callable[[Path], object], words: list[str], tmp_path: Path
) -> None:
    root = image_folder(tmp_path / "images")
    spoil(root)
    with pytest.raises(UserError) as caught:
        load_data(CONFIG, root)
    assert str(root) in str(caught.value)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_class_of_one_part_only_is_named_with_the_nearest_name(part: str, tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images", ("cat", "dog", "horse"))
    other = "test" if part == "train" else "train"
    (root / part / "horse").rename(root / part / "horses")
    with pytest.raises(UserError) as caught:
        load_data(CONFIG, root)
    message = str(caught.value)
    assert f"{root / other / 'horse'}: this class has no folder in {root / part}" in message
    assert "did you mean 'horses'?" in message


def test_a_folder_has_to_be_given() -> None:
    with pytest.raises(UserError, match="--data PATH"):
        load_data(CONFIG, None)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    random_image(0).save(tmp_path / "image.png")
    with pytest.raises(UserError, match="no such folder"):
        load_data(CONFIG, tmp_path / "image.png")


# --- files that are not as they should be ---


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def break_checksum(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 10] ^= 0xFF
    path.write_bytes(content)


BROKEN_PPM = b"P6\n8\xb7 8\n255\n" + bytes(192)
"""Its width is no number, for which Pillow has an error of another kind (ValueError)."""

BROKEN_PIXELS = b"P3\n32 32\n255\n1 2 three"
"""The header is whole, and the decoder has the same kind of error."""


@pytest.mark.parametrize(
    ("suffix", "spoil"),
    [
        ("png", spoil_header),
        ("jpg", spoil_header),
        ("jpg", truncate),
        ("png", truncate),
        ("png", break_checksum),
        ("png", lambda path: path.write_bytes(b"")),
        ("ppm", lambda path: path.write_bytes(BROKEN_PPM)),
        ("ppm", lambda path: path.write_bytes(BROKEN_PIXELS)),
    ],
    ids=["png-header", "jpg-header", "jpg-cut", "png-cut", "png-checksum", "png-empty", "ppm-header", "ppm-pixels"],
)
@pytest.mark.parametrize("part", ["train", "test"])
def test_an_unreadable_file_is_skipped_counted_and_named(
    suffix: str, spoil: Callable[[Path], object], part: str, tmp_path: Path, load: Callable[[Path], LoadedData]
) -> None:
    """Before the first run: what is found in the last epoch fails a study that took days."""
    root = image_folder(tmp_path / "images", suffix=suffix, side=32)
    spoil(root / part / "cat" / f"1.{suffix}")
    data = load(root)
    assert (data.facts.skipped, read_all(data)) == (1, 11)
    labels = {"train": torch.cat([data.train.labels, data.validation.labels]), "test": data.test.labels}
    assert torch.bincount(labels["train"]).tolist() == ([3, 4] if part == "train" else [4, 4])
    assert torch.bincount(labels["test"]).tolist() == ([1, 2] if part == "test" else [2, 2])
    assert "skipped 1 files" in data.notices[0]
    assert str(root / part / "cat" / f"1.{suffix}") in data.notices[0]


def test_an_unreadable_file_may_be_removed_while_a_study_goes_on(
    tmp_path: Path, load: Callable[[Path], LoadedData]
) -> None:
    root = image_folder(tmp_path / "images", side=32)
    truncate(root / "test" / "cat" / "1.png")
    study = Study(tmp_path / "results" / "first")
    begun = load(root)
    study.begin(PROTOCOL, begun.facts)
    study.run("a").checkpoint_file.parent.mkdir()
    study.run("a").checkpoint_file.touch()  # from now on the images are held
    (root / "test" / "cat" / "1.png").unlink()
    study.begin(PROTOCOL, load(root).facts)
    (root / "test" / "cat" / "0.png").unlink()
    with pytest.raises(UserError, match="other images"):
        study.begin(PROTOCOL, load_data(CONFIG, image_folder(tmp_path / "others"), stream=True).facts)


def test_the_whole_of_a_jpeg_is_looked_at(tmp_path: Path) -> None:
    """Though it is decoded at an eighth of its size: Pillow has to read on to the end of what a scan encodes."""
    root = image_folder(tmp_path / "images", side=256, suffix="jpg")
    path = root / "train" / "cat" / "1.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    assert load_data(CONFIG, root, stream=True).facts.skipped == 1


@pytest.mark.parametrize("stream", [True, False])
def test_what_is_data_does_not_depend_on_the_warning_filter(
    stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = image_folder(tmp_path / "images")
    palette = random_image(0).convert("P")
    palette.info["transparency"] = bytes(range(256))
    palette.save(root / "train" / "cat" / "1.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 63)  # of 64, of which Pillow warns; at twice as many it refuses
    found = []
    for action in ("ignore", "error"):
        with warnings.catch_warnings():
            warnings.simplefilter(action)
            monkeypatch.setenv("SENET_ABLATE_CACHE", str(tmp_path / action))
            data = load_data(CONFIG, root, stream=stream)
            found.append((data.facts, read_all(data)))
    assert found[0] == found[1]
    assert (found[0][0].skipped, found[0][1]) == (0, 12)


def test_what_pillow_warns_of_has_the_name_of_the_file(
    tmp_path: Path, load: Callable[[Path], LoadedData], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = image_folder(tmp_path / "images")
    large = [root / "train" / "cat" / "5.png", root / "test" / "dog" / "7.jpg"]
    for path in large:
        random_image(1, 16, 16).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    for _ in range(2):  # heard, and as it was kept
        (notice,) = (text for text in load(root).notices if "warnings" in text)
        first, *lines = notice.splitlines()
        assert first == "2 warnings of Pillow:"
        expected = [f"  {path}: Image size (256 pixels) exceeds limit of 200 pixels" for path in large]
        assert [line.partition(",")[0] for line in lines] == expected
    found = inspect_folder(root)
    assert [text.partition(": ")[0] for text in found.warned] == sorted(map(str, large))


def test_while_images_are_read_it_is_said_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=25.0)
    monkeypatch.setattr(senet_ablate.data.reading, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    root = image_folder(tmp_path / "images")
    for stream in (False, True):
        told: list[str] = []
        load_data(CONFIG, root, stream=stream, announce=told.append)
        # 8 images train and 4 test; 25 s between two looks at the clock, and one look more for each line
        assert told[1:] == ["3 of 8 images read", "6 of 8 images read", "3 of 4 images read"]


def test_a_file_of_another_kind_is_skipped_counted_and_named(
    tmp_path: Path, load: Callable[[Path], LoadedData]
) -> None:
    root = image_folder(tmp_path / "images")
    (root / "test" / "cat" / "notes.txt").write_text("about cats")
    data = load(root)
    assert (data.facts.skipped, data.facts.n_test) == (1, 4)
    assert f"{root / 'test' / 'cat' / 'notes.txt'}: not an image type" in data.notices[0]


def test_many_skipped_files_are_counted_and_five_named(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images")
    for number in range(8):
        (root / "train" / "cat" / f"{number}.txt").write_text("")
    notice = load_data(CONFIG, root).notices[0]
    assert "skipped 8 files" in notice
    assert notice.count(".txt") == 5
    assert "and 3 more" in notice


def test_broken_images_are_named_before_files_that_are_no_images(
    tmp_path: Path, load: Callable[[Path], LoadedData]
) -> None:
    root = image_folder(tmp_path / "images", side=32)
    for number in range(4):
        for part in ("train", "test"):
            (root / part / "cat" / f"Thumbs{number}.db").write_text("")
    truncate(root / "test" / "dog" / "1.png")
    truncate(root / "train" / "dog" / "1.png")
    data = load(root)
    assert data.notices[0].count("1.png") == 2
    assert [name.partition(": ")[0].rpartition("/")[2] for name in data.skipped[:2]] == ["1.png", "1.png"]
    assert len(data.skipped) == data.facts.skipped == 10


def test_all_skipped_files_are_named_in_a_file_beside_the_study(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images")
    for number in range(8):
        (root / "train" / "cat" / f"{number}.txt").write_text("")
    (root / "train" / "cat" / os.fsdecode(b"\xff.txt")).write_text("")
    protocol = PROTOCOL.model_copy(
        update={"data": CONFIG, "recipe": PROTOCOL.recipe.model_copy(update={"batch_size": 2})}
    )
    said: list[str] = []
    study = Study(tmp_path / "results" / "first")
    prepare(protocol, study, root, 1, said.append)
    named = (study.root / "skipped.txt").read_text(encoding="utf-8")
    assert named.count(".txt: not an image type") == 9
    assert "\\udcff.txt" in named
    assert said[-1] == f"all 9 are named in {study.root / 'skipped.txt'}"


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_class_without_a_readable_file_is_an_error(
    part: str, tmp_path: Path, load: Callable[[Path], LoadedData]
) -> None:
    root = image_folder(tmp_path / "images")
    for path in (root / part / "dog").iterdir():
        spoil_header(path)
    with pytest.raises(UserError, match=r"'dog'.*none of its files"):
        load(root)


@pytest.mark.parametrize(
    ("suffix", "spoil"),
    [("jpg", truncate), ("png", truncate), ("ppm", lambda path: path.write_bytes(BROKEN_PIXELS))],
    ids=["jpg-cut", "png-cut", "ppm-pixels"],
)
def test_a_streamed_file_that_breaks_later_is_an_error_that_names_it(
    suffix: str, spoil: Callable[[Path], object], tmp_path: Path
) -> None:
    root = image_folder(tmp_path / "images", side=32, suffix=suffix)
    data = load_data(CONFIG, root, stream=True)
    spoil(root / "test" / "dog" / f"1.{suffix}")
    with pytest.raises(UserError, match=f"^{root / 'test' / 'dog' / '1'}.{suffix}: cannot be decoded"):
        read_all(data)


@pytest.mark.slow
def test_the_error_of_a_worker_process_is_as_short_as_our_own(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images", side=32)
    split = load_data(CONFIG, root, stream=True).test
    truncate(root / "test" / "dog" / "1.png")
    with pytest.raises(UserError) as caught:
        list(split.loader(EpochSampler(len(split), seed=None, batch_size=2), None, torch.device("cpu"), 1))
    assert f"{root / 'test' / 'dog' / '1.png'}: cannot be decoded" in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("content", [b"no image at all", b"", BROKEN_PPM], ids=["text", "empty", "ppm"])
def test_a_streamed_file_without_an_images_header_is_skipped_and_named(content: bytes, tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images", suffix="ppm")
    (root / "train" / "dog" / "1.ppm").write_bytes(content)
    data = load_data(CONFIG, root, stream=True)
    assert data.facts.skipped == 1
    assert str(root / "train" / "dog" / "1.ppm") in data.notices[0]
    assert read_all(data) == 11


def test_files_are_checked_once_and_again_when_a_file_was_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = image_folder(tmp_path / "images")
    path = root / "train" / "dog" / "1.png"
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    first = load_data(CONFIG, root, stream=True)
    assert first.facts.skipped == 1
    with monkeypatch.context() as patch:
        patch.setattr(senet_ablate.data.reading, "read_marked", None)
        assert load_data(CONFIG, root, stream=True).facts == first.facts
    path.write_bytes(whole)
    os.utime(path, ns=(10**18, 10**18))
    data = load_data(CONFIG, root, stream=True)
    assert (data.facts.skipped, read_all(data)) == (0, 12)


def test_broken_files_are_remembered_however_the_folder_is_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = image_folder(tmp_path / "images")
    spoil_header(root / "train" / "dog" / "1.png")
    monkeypatch.chdir(tmp_path)
    for path in (Path("images"), root):
        data = load_data(CONFIG, path, stream=True)
        assert (data.facts.skipped, read_all(data)) == (1, 11)


# --- kinds of images ---


def test_grey_images_get_three_equal_channels_and_are_counted(
    tmp_path: Path, load: Callable[[Path], LoadedData]
) -> None:
    root = image_folder(tmp_path / "images")
    random_image(50, mode="L").save(root / "test" / "cat" / "0.png")
    random_image(51, mode="LA").save(root / "test" / "cat" / "1.png")
    random_image(52, mode="L").point(lambda v: 255 * (v > 99)).convert("1").save(root / "test" / "dog" / "0.png")
    data = load(root)
    assert data.facts.grey == 3
    assert "3 grey images" in data.notices[0]
    assert read_all(data) == 12
    if isinstance(data.test, ResidentSplit):
        images = data.test.images
        assert np.array_equal(images[0, 0].numpy(), np.asarray(random_image(50, mode="L")))
        assert torch.equal(images[:3], images[:3, :1].expand(-1, 3, -1, -1))


def test_palette_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images")
    palette = random_image(60).quantize(16)
    palette.save(root / "test" / "cat" / "0.png")
    transparent = random_image(61, mode="RGBA")
    transparent.save(root / "test" / "cat" / "1.png")
    data = load_data(CONFIG, root)
    images = data.test.images.permute(0, 2, 3, 1).numpy()
    table = np.array(palette.getpalette()).reshape(-1, 3)
    assert np.array_equal(images[0], table[np.asarray(palette)])
    colour, alpha = np.split(np.asarray(transparent).astype(float), [3], axis=2)
    on_white = (colour * alpha + 255 * (255 - alpha)) / 255
    assert np.abs(images[1] - on_white).max() <= 1
    assert (data.facts.grey, data.facts.transparent) == (0, 1)


def test_grey_images_of_16_bits_keep_their_levels(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images")
    levels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024
    Image.fromarray(levels).save(root / "test" / "cat" / "0.png")
    data = load_data(CONFIG, root)
    assert data.facts.grey == 1
    difference = data.test.images[0].numpy().astype(int) - levels // 256
    assert np.abs(difference).max() <= 1, "65,535 is white, not 255"


@pytest.mark.parametrize("size", [(8, 8), (20, 12), (12, 20), (5, 6)], ids=str)
def test_images_of_any_shape_are_brought_to_the_resolution(size: tuple[int, int], tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images", side=13)
    Image.new("RGB", size, (10, 200, 30)).save(root / "test" / "cat" / "0.png")
    image = load_data(CONFIG, root).test.images[0]
    assert image.shape == (3, 8, 8)
    assert (image == torch.tensor([10, 200, 30]).view(3, 1, 1)).all()

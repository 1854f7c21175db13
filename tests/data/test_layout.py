"""Parts, classes and lists of a user's folder, and what is done to images so that they are upright, opaque RGB."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from helpers import image_folder, random_image
from PIL import ExifTags, Image

from senet_ablate.data.datasets import load_data
from senet_ablate.data.layout import find_layout
from senet_ablate.data.reading import TURNS, read_marked
from senet_ablate.errors import UserError
from senet_ablate.spec.protocol import DataConfig

CONFIG = DataConfig(dataset="folder", resolution=8, validation=0.25)

pytestmark = pytest.mark.usefixtures("decode_cache")


# --- which parts, which classes ---


def test_an_unlabelled_test_part_leaves_val_which_is_said(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images", test="val")
    (root / "test").mkdir()
    random_image(99).save(root / "test" / "1.png")
    data = load_data(CONFIG, root)
    assert data.facts.parts == ("train", "val")
    assert (data.facts.n_test, data.facts.test_counts) == (4, (2, 2))
    assert "val/ is taken" in data.notices[0]


def test_of_two_labelled_parts_test_is_taken_which_is_said(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images")
    image_folder(tmp_path / "other", test="val", per_class=(1, 3))
    (tmp_path / "other" / "val").rename(root / "val")
    data = load_data(CONFIG, root)
    assert (data.facts.parts, data.facts.n_test) == (("train", "test"), 4)
    assert data.notices == ("test/ is taken as the test part; val/ is not used",)


@pytest.mark.parametrize(
    ("train", "test"), [("Train", "TEST"), ("training", "validation"), ("train", "valid"), ("Training", "Testing")]
)
def test_parts_are_known_by_their_other_spellings(train: str, test: str, tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images", test=test)
    (root / "train").rename(root / train)
    facts = load_data(CONFIG, root).facts
    assert (facts.parts, facts.train_counts, facts.test_counts) == ((train, test), (4, 4), (2, 2))


def test_of_two_spellings_of_a_part_the_usual_one_is_taken_which_is_said(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images")
    image_folder(root / "more", per_class=(1, 1))
    (root / "more" / "train").rename(root / "training")
    data = load_data(CONFIG, root)
    assert data.facts.train_counts == (4, 4)
    assert "train/ is taken; training/ is not used" in data.notices


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "made", ("bus", "train")) / "train"
    assert {name: len(each.images) for name, each in find_layout(root).files[""].items()} == {"bus": 4, "train": 4}
    (root / "test").mkdir()  # as for a competition: photos without labels
    random_image(1).save(root / "test" / "1.png")
    layout = find_layout(root)
    assert set(layout.files[""]) == {"bus", "train"}
    assert layout.notices == ("test/ has no class folders and is not used",)


def test_images_outside_of_class_folders_are_counted_and_named(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images")
    for name in ("b.jpg", "a.png", ".c.png", "notes.txt"):
        (root / "train" / name).write_bytes(b"x")
    data = load_data(CONFIG, root)
    assert data.notices == (f"images outside of class folders, not used: 2 ({root / 'train' / 'a.png'}, …)",)
    assert data.facts.skipped == 0


@pytest.mark.parametrize("folder", ["@eaDir", "__MACOSX", ".ipynb_checkpoints", "#recycle"])
@pytest.mark.parametrize("depth", ["part", "class"])
def test_what_programs_leave_is_no_class_and_no_image_and_is_named(folder: str, depth: str, tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images")
    place = root / "train" / folder if depth == "part" else root / "train" / "cat" / folder
    place.mkdir()
    random_image(99).save(place / "0.png")
    (root / "test" / "dog" / "Thumbs.db").write_bytes(b"x")
    data = load_data(CONFIG, root)
    assert (data.facts.class_names, data.facts.skipped) == (("cat", "dog"), 0)
    assert (data.facts.train_counts, data.facts.test_counts) == ((4, 4), (2, 2))
    assert repr(folder) in data.notices[0]
    assert "'Thumbs.db'" in data.notices[0]


def test_two_spellings_of_one_name_are_one_class(tmp_path: Path) -> None:
    composed, apart = unicodedata.normalize("NFC", "Käfer"), unicodedata.normalize("NFD", "Käfer")
    root = image_folder(tmp_path / "images", ("Ant", composed))
    (root / "test" / composed).rename(root / "test" / apart)
    (root / "train" / apart).mkdir()
    random_image(77).save(root / "train" / apart / "5.png")
    facts = load_data(CONFIG, root).facts
    assert (facts.class_names, facts.train_counts, facts.test_counts) == (("Ant", composed), (4, 5), (2, 2))


def test_a_class_with_a_single_image_is_named(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images")
    for number in (1, 2, 3):
        (root / "train" / "dog" / f"{number}.png").unlink()
    with pytest.raises(UserError, match="class 'dog' has a single training image"):
        load_data(CONFIG, root)


@pytest.mark.parametrize("stream", [False, True])
def test_test_images_that_are_in_train_are_counted(stream: bool, tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images")
    (root / "test" / "dog" / "0.png").write_bytes((root / "train" / "cat" / "2.png").read_bytes())
    Image.open(root / "train" / "dog" / "1.png").save(root / "test" / "dog" / "1.bmp")  # other bytes, same pixels
    for _ in range(2):  # found, and as it was kept
        assert load_data(CONFIG, root, stream=stream).facts.repeated == 2


def test_only_equal_jpegs_count_as_repeated_though_their_small_copies_are_compared_first(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images", side=64, suffix="jpg")
    known = (root / "train" / "cat" / "1.jpg").read_bytes()
    comment = b"\xff\xfe\x00\x07other"  # JPEG (T.81), B.2.4.5: the marker, the length and a text
    (root / "test" / "dog" / "5.jpg").write_bytes(known[:2] + comment + known[2:])
    # A checkerboard of single pixels has the means of plain grey, of which alone a small copy is made.
    squares = np.indices((64, 64)).sum(0) % 2 * 100 + 78
    for part, pixels in (("train", squares), ("test", np.full((64, 64), 128))):
        Image.fromarray(pixels.astype(np.uint8)).convert("RGB").save(root / part / "cat" / "9.jpg", quality=100)
    assert load_data(CONFIG, root, stream=True).facts.repeated == 1


# --- a list of files ---


def write_list(place: Path, rows: list[str], header: str = "path,part,class") -> DataConfig:
    place.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return CONFIG.model_copy(update={"splits": str(place)})


ROWS = [f"{name}/{number}.png,{'test' if number > 2 else 'train'},{name}" for name in ("a", "b") for number in range(4)]


def listed(tmp_path: Path) -> Path:
    """Class folders without parts."""
    root = image_folder(tmp_path / "made", ("a", "b"), per_class=(4, 1)) / "train"
    return root.rename(tmp_path / "images")


def test_a_list_says_which_file_is_in_which_part(tmp_path: Path) -> None:
    root = listed(tmp_path)
    config = write_list(tmp_path / "splits.csv", ROWS)
    data = load_data(config, root)
    assert (data.facts.train_counts, data.facts.test_counts) == ((3, 3), (1, 1))
    for image, name in zip(data.test.images, "ab", strict=True):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(Image.open(root / name / "3.png")))


def test_a_list_may_lie_in_the_folder_itself(tmp_path: Path) -> None:
    root = listed(tmp_path)
    write_list(root / "mine.csv", ROWS)
    assert load_data(CONFIG.model_copy(update={"splits": "mine.csv"}), root).facts.n_test == 2


def test_a_list_may_come_from_windows_or_a_mac(tmp_path: Path) -> None:
    root, name = listed(tmp_path), unicodedata.normalize("NFC", "ü.png")
    (root / "a" / "0.png").rename(root / "a" / unicodedata.normalize("NFD", name))
    rows = [row.replace("a/0.png", f"a/{name}").replace("/", "\\") for row in ROWS]
    (tmp_path / "splits.csv").write_bytes("\r\n".join(["path,part,class", *rows, ""]).encode("utf-16"))
    facts = load_data(CONFIG.model_copy(update={"splits": str(tmp_path / "splits.csv")}), root).facts
    assert (facts.train_counts, facts.test_counts) == ((3, 3), (1, 1))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a/0.png,train,a", ["a/0.png is in line 2 too"]),
        ("a\\0.png,train,a", ["is in line 2 too"]),
        ("..\\x.png,train,a", ["expected one within"]),
        ("a/9.png,train,a", ["there is no file", "a/9.png"]),
        ("../x.png,train,a", ["expected one within"]),
        ("/etc/x.png,train,a", ["expected one within"]),
        ("a/1.png,tset,a", ["'tset'", "did you mean 'test'?"]),
        ("a/1.png,train,", ["class ''"]),
        ("a/1.png", ["part ''"]),
    ],
    ids=["twice", "twice-by-windows", "above-by-windows", "missing", "above", "absolute", "part", "no-class", "short"],
)
def test_a_mistake_in_a_list_is_told_with_its_line(row: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_data(write_list(tmp_path / "splits.csv", [*ROWS, row]), listed(tmp_path))
    assert all(word in str(caught.value) for word in (f"splits.csv, line {len(ROWS) + 2}", *words))


def test_a_class_that_a_list_has_in_one_part_only_is_named(tmp_path: Path) -> None:
    root = listed(tmp_path)
    (root / "b" / "3.png").rename(root / "c.png")
    config = write_list(tmp_path / "splits.csv", [*ROWS[:-2], "b/2.png,test,b", "c.png,test,c"])
    with pytest.raises(UserError, match=r"test/c: this class has no folder in .*train"):
        load_data(config, root)


def test_a_list_without_a_column_or_that_is_not_there_is_refused(tmp_path: Path) -> None:
    root = listed(tmp_path)
    with pytest.raises(UserError, match="no column 'class'"):
        load_data(write_list(tmp_path / "splits.csv", ROWS, "path,part,label"), root)
    with pytest.raises(UserError, match=r"data.splits = 'other.csv': there is no such file"):
        load_data(CONFIG.model_copy(update={"splits": "other.csv"}), root)


def test_class_folders_without_parts_are_seen_but_need_a_list(tmp_path: Path) -> None:
    root = listed(tmp_path)
    assert {name: len(files.images) for name, files in find_layout(root).files[""].items()} == {"a": 4, "b": 4}
    with pytest.raises(UserError, match=r"init --data .* --split 0.2"):
        load_data(CONFIG, root)


# --- upright, opaque, of 8 bits ---


@pytest.mark.parametrize("orientation", TURNS)
def test_an_image_is_turned_as_exif_says(orientation: int, tmp_path: Path) -> None:
    # EXIF 2.32: where the stored 0th row and 0th column are in the upright image.
    upright = np.asarray(random_image(1, 6, 4))
    stored = {
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for suffix in ("png", "tif"):
        path = tmp_path / f"1.{suffix}"
        Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
        image, marks = read_marked(path)
        assert np.array_equal(np.asarray(image), upright), suffix
        assert marks == {"rotated"}


@pytest.mark.parametrize(("top", "white"), [(200, 255), (1000, 1023), (3000, 4095), (16000, 16383), (40000, 65535)])
def test_an_image_of_16_bits_is_scaled_by_the_depth_it_uses(top: int, white: int, tmp_path: Path) -> None:
    levels = np.linspace(0, top, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(levels).save(tmp_path / "1.png")
    image, marks = read_marked(tmp_path / "1.png")
    assert np.array_equal(np.asarray(image)[:, :, 0], np.rint(levels * 255.0 / white))
    assert marks == ({"grey"} if white == 65535 else {"grey", "rescaled"})


def test_an_opaque_image_with_an_alpha_channel_is_not_counted(tmp_path: Path) -> None:
    image = random_image(3).convert("RGBA")
    image.save(tmp_path / "1.png")
    found, marks = read_marked(tmp_path / "1.png")
    assert np.array_equal(np.asarray(found), np.asarray(image)[:, :, :3])
    assert not marks


def test_a_transparent_colour_of_a_palette_becomes_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    image.save(tmp_path / "1.png", transparency=0)
    found, marks = read_marked(tmp_path / "1.png")
    assert np.asarray(found).tolist() == [[[255, 255, 255], [40, 50, 60]]]
    assert marks == {"transparent"}


def test_what_was_changed_is_counted_and_said(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images")
    random_image(4, mode="RGBA").save(root / "train" / "cat" / "0.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    random_image(5).save(root / "test" / "dog" / "0.png", exif=exif)
    data = load_data(CONFIG, root)
    assert (data.facts.rotated, data.facts.transparent, data.facts.rescaled) == (1, 1, 0)
    assert any("1 images were turned upright" in notice for notice in data.notices)
    assert any("1 images with transparent pixels were put on white" in notice for notice in data.notices)

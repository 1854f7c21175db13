"""Where images are read: a user's folder, torchvision's files, and the decoded copy that is kept for the next call."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from garbled import changed_bytes, refusal
from helpers import fake_fashion, image_folder, random_image
from hypothesis import strategies as st
from places import Place, named, scratch

from senet_ablate.data.datasets import LoadedData, load_data
from senet_ablate.data.loaders import EpochSampler
from senet_ablate.spec.protocol import DataConfig

CONFIG = DataConfig(dataset="folder", resolution=8, validation=0.25)


def image_bytes(kind: str, width: int = 8, height: int = 8, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    random_image(0, width, height, mode).save(buffer, kind)
    return buffer.getvalue()


PNG_OF_ANY_SIZE = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR%s\x08\x02\x00\x00\x00\x00\x00\x00\x00"
KINDS = {"png": "PNG", "jpg": "JPEG", "bmp": "BMP", "ppm": "PPM", "tif": "TIFF", "webp": "WEBP"}


@st.composite
def odd_images(draw: st.DrawFn) -> tuple[str, bytes]:
    suffix = draw(st.sampled_from(sorted(KINDS)))
    honest = image_bytes(KINDS[suffix])
    sizes = st.integers(0, 2**31).map(lambda side: side.to_bytes(4, "big"))
    long = st.sampled_from([(1, 5000), (5000, 1), (1, 60_000)])
    content = draw(
        changed_bytes(honest)
        | st.binary(max_size=60)
        | st.tuples(sizes, sizes).map(lambda sides: PNG_OF_ANY_SIZE % b"".join(sides))
        | long.map(lambda sides: image_bytes("PNG", *sides))
        | st.builds(
            lambda width, height: b"P6\n%d %d\n255\n" % (width, height), st.integers(-1, 2**40), st.integers(-1, 9)
        )
    )
    return suffix, content


CHANGES = (
    "image",
    "image",
    "image",
    "image",
    "class",
    "empty class",
    "loop",
    "dangling",
    "folder",
    "missing",
    "fifo",
    "text",
)


def change_folder(root: Path, change: str, name: str, image: tuple[str, bytes]) -> None:
    cat, (suffix, content) = root / "train" / "cat", image
    match change:
        case "image":
            (cat / f"9.{suffix}").write_bytes(content)
        case "class":
            for part in ("train", "test"):
                shutil.copytree(root / part / "dog", root / part / name)
        case "empty class":
            for part in ("train", "test"):
                (root / part / name).mkdir()
        case "loop":
            (cat / "loop").symlink_to(cat, target_is_directory=True)
            (cat / "again").symlink_to(root, target_is_directory=True)
        case "dangling":
            (cat / f"link.{suffix}").symlink_to("nowhere")
        case "folder":
            (cat / "folder.png").mkdir()
        case "missing":
            shutil.rmtree(root / "test")
        case "fifo":
            os.mkfifo(cat / "pipe.png")
        case "text":
            (cat / name).write_bytes(content)


folder_names = st.text(st.characters(exclude_characters="\x00/", exclude_categories=("Cs",)), min_size=1, max_size=8)
class_names = (
    st.sampled_from(["bird", "\udcff", "a\nb", "\x1b[2J", " ", "x" * 255, "ÿ", "<script>", "a|b", "$x$"]) | folder_names
)


def read_all(data: LoadedData) -> None:
    for split in (data.train, data.validation, data.test):
        list(split.loader(EpochSampler(len(split), seed=None, batch_size=4), None, torch.device("cpu"), 0))


def answer_images(typed_in: tuple[str, str, tuple[str, bytes], bool]) -> str | None:
    change, name, image, stream = typed_in
    with scratch() as folder:
        root = image_folder(folder / "images")
        try:
            change_folder(root, change, name, image)
        except OSError:
            return None  # the file system refuses such a name
        notices: list[str] = []

        def read() -> None:
            data = load_data(CONFIG, root, stream=stream)
            notices.extend(data.notices)
            read_all(data)

        told = refusal(read, "") or "\n".join(notice for notice in notices if notice.startswith("skipped"))
        return named(told or None, str(root))


def answer_fashion(typed_in: tuple[int, bytes]) -> str | None:
    """Torchvision's unpacked files, of which it has no checksum."""
    number, content = typed_in
    with scratch() as folder:
        fake_fashion(folder / "data", pytest.MonkeyPatch())
        files = sorted((folder / "data" / "FashionMNIST" / "raw").iterdir())
        files[number].write_bytes(content)
        config = DataConfig(dataset="fashion-mnist", resolution=28)
        with patch("urllib.request.urlopen", side_effect=OSError("no network in this test")):
            told = refusal(lambda: load_data(config, folder / "data"), "")
        return named(told or None, str(folder / "data"), "fashion-mnist", "data.resolution")


def answer_cache(typed_in: tuple[int, bytes, bool]) -> str | None:
    """Decoded images, or the list of a large folder's files, as they were kept for the next call."""
    number, content, stream = typed_in
    with scratch() as folder, patch.dict(os.environ, {"SENET_ABLATE_CACHE": str(folder / "cache")}):
        load_data(CONFIG, Path("images"), stream=stream)
        files = sorted(path for path in (folder / "cache").rglob("*") if path.is_file())
        files[number % len(files)].write_bytes(content)
        return named(
            refusal(lambda: load_data(CONFIG, Path("images"), stream=stream), "") or None, str(folder / "cache")
        )


# --- a list of the folder's files ---

LISTED = [
    (f"{part}/{name}/{number}.png", part, name)
    for part, count in (("train", 4), ("test", 2))
    for name in ("cat", "dog")
    for number in range(count)
]
"""The rows of a list of `image_folder`: path, part, class."""

cells = (
    st.sampled_from(["", " ", "val", "Train", "train", "test", "cat", "dog", "Cat", "train/cat/0.png", "train/cat"])
    | st.sampled_from(
        ["../images/train/cat/0.png", "/etc/passwd", "./train/cat/0.png", "train//cat/0.png", "nowhere.png"]
    )
    | st.sampled_from(
        ["x" * 300, "y/" * 3000, "z" * 200_000, "\x00", "\udcff", "\x1b[2J", "=1+1", "<script>", "ä", "a,b"]
    )
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
)


@st.composite
def odd_lists(draw: st.DrawFn) -> bytes:
    """Such a list as a person's spreadsheet or editor may leave it."""
    names, rows = ["path", "part", "class"], [list(row) for row in LISTED]
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from(rows)) if rows else []
        match draw(st.sampled_from(["cell", "cell", "cell", "short", "long", "twice", "gone", "class", "header"])):
            case "cell" if row:
                row[draw(st.integers(0, len(row) - 1))] = draw(cells)
            case "short":
                del row[draw(st.integers(0, 2)) :]
            case "long":
                row.append(draw(cells))
            case "twice":
                rows.append(list(row))
            case "gone":
                rows = [other for other in rows if other is not row]
            case "class":
                rows = [other for other in rows if other[1:] != row[1:]]
            case "header":
                names[draw(st.integers(0, 2))] = draw(cells)
    mark = draw(st.sampled_from([",", ",", ",", ",", ";", "\t"]))
    quoted = draw(st.booleans())
    text = "\n".join(mark.join(f'"{cell}"' if quoted else cell for cell in line) for line in (names, *rows))
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    content = text.encode(encoding, errors="ignore")
    return draw(st.just(content) | changed_bytes(content))


def answer_list(typed_in: tuple[bytes, bool]) -> str | None:
    content, stream = typed_in
    with scratch() as folder:
        root = image_folder(folder / "images")
        (root / "splits.csv").write_bytes(content)
        config = CONFIG.model_copy(update={"splits": "splits.csv"})
        notices: list[str] = []

        def read() -> None:
            data = load_data(config, root, stream=stream)
            notices.extend(data.notices)
            read_all(data)

        told = refusal(read, "") or "\n".join(notice for notice in notices if notice.startswith("skipped"))
        return named(told or None, "splits.csv", str(root), "class '")


small = st.binary(max_size=200)

IMAGES = (
    Place(
        "image folders",
        10,
        st.tuples(st.sampled_from(CHANGES), class_names, odd_images(), st.booleans()),
        answer_images,
    ),
    Place("lists of an own folder's files", 4, st.tuples(odd_lists(), st.booleans()), answer_list),
    Place("torchvision's files", 1, st.tuples(st.integers(0, 3), small), answer_fashion),
    Place("decoded images kept", 1, st.tuples(st.integers(0, 4), small, st.booleans()), answer_cache),
)

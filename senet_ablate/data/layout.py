"""What the names in a folder of images say: its parts, its classes and their files. Nothing is opened.

Expected is `train/` and `test/` (or `val/`), each with one folder per class, or class folders and a list,
`splits.csv`, that says which file belongs to which part.
"""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from torchvision.datasets.folder import IMG_EXTENSIONS

from senet_ablate.errors import UserError, did_you_mean, is_plain
from senet_ablate.files import decode, read_file

LAYOUT = "expected train/ and test/ (or val/), each with one folder of images per class"
PARTS = {"train": ("train", "training"), "test": ("test", "testing"), "val": ("val", "valid", "validation")}
"""What folders of parts are called, in small or large letters; the first name counts before the others."""

COLUMNS = ("path", "part", "class")
"""Of `splits.csv`: the file's path within the folder, `train` or `test`, and the class."""

LIST_LIMIT = 2**30
"""Bytes of the largest list of files that is read: ten million of them."""

TOOLS = {
    *("@eadir", "__macosx", ".ipynb_checkpoints", "#recycle", "$recycle.bin", "system volume information"),
    *("lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini", ".ds_store", "icon\r", "__pycache__"),
}
"""Folders and files that programs leave among images, in small letters; they are no classes and no images."""

OTHER = "not an image type, or a link to nowhere"
"""Why a file is no matter, other than one that should be an image and is broken."""


@dataclass(frozen=True)
class Files:
    """The files of one class in one part, in the order of their names: images, and what is none."""

    images: tuple[Path, ...]
    others: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Layout:
    """Which files a folder has for train and for test, by class, what was left out, and what to say of it.

    `train` and `test` are names of parts, "" where class folders lie in the folder itself and `test` is missing.
    """

    root: Path
    train: str
    test: str | None
    files: Mapping[str, Mapping[str, Files]]
    tools: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def find_layout(root: Path, splits: Path | None = None) -> Layout:
    """Find parts and classes of `root`, or take them from the list `splits`.

    `val/` is the test part where `test/` has none of the classes of `train/`. A folder `train` that holds images
    itself, beside other such folders, is a class (of vehicles, say).

    Raises:
        UserError: there is no such folder, or the list has a mistake.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; {LAYOUT}")
    if splits is not None:
        return _listed(root, splits)
    tools: set[str] = set()
    places, notices = _parts(root)
    files = {place.name: _classes(place, tools) for place in places.values()}
    names = {part: place.name for part, place in places.items()}
    train = names.get("train", "train")
    if not any(files.values()):
        unlabelled = [names[part] for part in ("test", "val") if part in names]
        loose = {name: each for name, each in _classes(root, tools).items() if name not in unlabelled}
        if any(each.images for name, each in loose.items() if name != train):
            notices = [f"{name}/ has no class folders and is not used" for name in unlabelled] + _outside([root])
            return Layout(root, "", None, {"": loose}, tuple(sorted(tools)), tuple(notices))
    if "train" not in names:
        return Layout(root, "train", None, {}, tuple(sorted(tools)))
    tested = [part for part in ("test", "val") if part in names and files[names[part]].keys() & files[train].keys()]
    if "test" in names and tested == ["val"]:
        notices.append(
            f"{names['test']}/ has no folder of a class of {train}/: it is unlabelled, and {names['val']}/ is taken as "
            "the test part"
        )
    elif tested == ["test", "val"]:
        notices.append(f"{names['test']}/ is taken as the test part; {names['val']}/ is not used")
    part = tested[0] if tested else next((part for part in ("test", "val") if part in names), None)
    notices += _outside([places["train"], *([places[part]] if part and tested else [])])
    return Layout(root, train, names[part] if part else None, files, tuple(sorted(tools)), tuple(notices))


def _parts(root: Path) -> tuple[dict[str, Path], list[str]]:
    """The folders of the parts, by what they are, and notices of those that have a second one."""
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir())
    found, notices = {}, []
    for part, spellings in PARTS.items():
        named = [place for place in folders if place.name.lower() in spellings]
        named.sort(key=lambda place: (spellings.index(place.name.lower()), not place.name.islower()))
        if named:
            found[part] = named[0]
            notices += [f"{named[0].name}/ is taken; {place.name}/ is not used" for place in named[1:]]
    return found, notices


def _outside(places: list[Path]) -> list[str]:
    """Notices of images that lie beside class folders, not in them."""
    notices = []
    for place in places:
        names = sorted(entry.name for entry in place.iterdir() if entry.name[0] != "." and entry.is_file())
        images = [name for name in names if name.lower().endswith(IMG_EXTENSIONS)]
        if images:
            more = ", …" if len(images) > 1 else ""
            notices.append(f"images outside of class folders, not used: {len(images)} ({place / images[0]}{more})")
    return notices


def _classes(part: Path, tools: set[str]) -> dict[str, Files]:
    """The files of each class folder; names that differ in nothing but Unicode's composition are one class."""
    folders: dict[str, list[Path]] = {}
    for entry in sorted(part.iterdir()):
        if entry.name.lower() in TOOLS:
            tools.add(entry.name)
        elif entry.is_dir() and entry.name[0] != ".":
            name = class_name(entry.name)
            if not is_plain(name):  # records and reports could not tell it
                raise UserError(
                    f"{part}: class folder {entry.name!r}: expected a name in UTF-8, without control characters"
                )
            folders.setdefault(name, []).append(entry)
    return {name: _files(places, tools) for name, places in sorted(folders.items())}


def class_name(name: str) -> str:
    """A folder's name as a class: composed (NFC), whatever file system or archive it came from.

    Bytes that are no UTF-8 stay unprintable, whatever encoding the locale says that they have.
    """
    return unicodedata.normalize("NFC", os.fsencode(name).decode(errors="surrogateescape"))


def _files(places: list[Path], tools: set[str]) -> Files:
    images: list[str] = []
    others: list[str] = []
    for place in places:
        for file, is_file in _walk(place, frozenset(), tools):
            (images if is_file and file.lower().endswith(IMG_EXTENSIONS) else others).append(file)
    return Files(tuple(map(Path, sorted(images))), tuple(map(Path, sorted(others))))


def _walk(folder: Path | str, above: frozenset[tuple[int, int]], tools: set[str]) -> Iterator[tuple[str, bool]]:
    """Every entry below `folder` that is no folder, and whether it is a file (a dangling link is not).

    os.walk would pass over folders that cannot be read without a word; this raises OSError. `above` are the folders
    on the way here; what programs left behind is added to `tools`.
    """
    status = Path(folder).stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise UserError(f"{folder}: a link to a folder that it is in; remove it")
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.lower() in TOOLS:
                tools.add(entry.name)
            elif entry.name.startswith("."):
                continue
            elif entry.is_dir():
                yield from _walk(entry.path, above | {here}, tools)
            else:
                yield entry.path, entry.is_file()


def _listed(root: Path, splits: Path) -> Layout:
    """The files that a list names, by part and class."""
    try:
        text, _, _ = decode(read_file(splits, LIST_LIMIT))
        lines = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        rows = list(lines)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"data.splits = {str(splits)!r}: cannot be read as a table: {error}") from None
    if missing := [name for name in COLUMNS if name not in (lines.fieldnames or ())]:
        raise UserError(f"{splits}: no column {missing[0]!r}; the first line must be {','.join(COLUMNS)}")
    found: dict[str, dict[str, list[Path]]] = {"train": {}, "test": {}}
    seen: dict[str, int] = {}
    spellings: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        place, (path, part, name) = f"{splits}, line {number}", (row[key] or "" for key in COLUMNS)
        if part not in found:
            raise UserError(f"{place}: part {part!r}; {did_you_mean(part, found)}")
        pure = _place(root, path, spellings)
        if not path or not is_plain(path) or pure.is_absolute() or ".." in pure.parts:
            raise UserError(f"{place}: path {path!r}; expected one within {root}, such as cat/1.jpg")
        if not name.strip() or not is_plain(name):
            raise UserError(f"{place}: class {name!r}; expected a name, one line of UTF-8")
        if str(pure) in seen:
            raise UserError(f"{place}: {path} is in line {seen[str(pure)]} too; each file belongs to one part")
        seen[str(pure)] = number
        try:
            there = (root / pure).is_file()
        except OSError:  # no disk has such a name
            there = False
        if not there:
            raise UserError(f"{place}: there is no file {root / pure}; remove the line, or name the list's own folder")
        found[part].setdefault(class_name(name), []).append(root / pure)
    files = {
        part: {name: Files(tuple(sorted(paths))) for name, paths in sorted(of.items())} for part, of in found.items()
    }
    return Layout(root, "train", "test", files, notices=(f"parts and classes are those of {splits}",))


def _place(root: Path, path: str, spellings: dict[str, str]) -> PurePosixPath:
    """A list's path as the folder has it: with slashes where Windows wrote it, composed or not as its names are.

    `spellings` is filled when it is first needed: of each file, its composed name and its own.
    """
    pure = PurePosixPath(path)
    if pure.is_absolute() or (root / pure).is_file():
        return pure
    turned = PurePosixPath(path.replace("\\", "/"))
    if ".." in turned.parts or (root / turned).is_file():
        return turned
    if not spellings:
        for folder, _, names in os.walk(root):
            for name in names:
                own = (Path(folder) / name).relative_to(root).as_posix()
                spellings[class_name(own)] = own
    return PurePosixPath(spellings.get(class_name(str(turned)), path))

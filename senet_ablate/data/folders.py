"""Image folders of a user: list them, say what is wrong with them, decode them once.

Expected is `train/` and `test/` (or `val/`), each with one folder per class. Files that are not images or
are cut off are skipped, counted and named; anything that would change the task silently is an error.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from senet_ablate.data.layout import LAYOUT, LIST_LIMIT, OTHER, Files, find_layout
from senet_ablate.data.reading import Findings, pixel_digest, read_all, read_marked
from senet_ablate.data.transforms import evaluation_view
from senet_ablate.environment import unwarned
from senet_ablate.errors import UserError, did_you_mean, reason
from senet_ablate.files import read_file, write_atomic
from senet_ablate.spec.protocol import DataConfig

READING = "upright, opaque"
"""Enters the names of decoded copies: those made by an earlier way of reading are not taken."""


@dataclass(frozen=True)
class Listing:
    """The image files of one part, in the order of their names, with their class numbers."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    skipped: tuple[str, ...] = ()
    marks: Mapping[str, int] = field(default_factory=dict)
    warned: tuple[str, ...] = ()


@dataclass(frozen=True)
class Folder:
    """A user's image folder as its file names tell it; nothing is decoded yet.

    `repeated` counts test images with the pixels of a training image, once files were checked.
    """

    root: Path
    class_names: tuple[str, ...]
    train: Listing
    test: Listing
    parts: tuple[str, str] = ("train", "test")
    notices: tuple[str, ...] = ()
    repeated: int = 0

    @property
    def listings(self) -> dict[str, Listing]:
        """Its two parts by what they are for."""
        return {"train": self.train, "test": self.test}

    def state(self, *key: object) -> str:
        """Hash of the folder as it lies here, times of change included, and of `key`: its name in the cache."""
        changed = [path.stat().st_mtime_ns for part in (self.train, self.test) for path in part.paths]
        return self.fingerprint(str(self.root.resolve()), changed, *key)

    def fingerprint(self, *key: object) -> str:
        """Hash of names, labels and sizes of all files, and of `key`."""
        digest = hashlib.blake2b(repr(key).encode(), digest_size=16)
        for listing in (self.train, self.test):
            for path, label in zip(listing.paths, listing.labels, strict=True):
                name = os.path.relpath(path, self.root)
                digest.update(os.fsencode(f"{name}\0{label}\0{path.stat().st_size}\n"))
        return digest.hexdigest()


def list_folder(root: Path, splits: Path | None = None) -> Folder:
    """Find classes and files of `root`, whose parts its folders tell, or the list `splits`.

    Raises:
        UserError: no such folder, no train or test part, no or empty classes, or classes that differ between the parts.
    """
    layout = find_layout(root, splits)
    if layout.test is None or layout.train == "":
        present = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
        raise UserError(
            f"{root}: {LAYOUT}; found {present}. To divide it into parts: senet-ablate init --data {root} --split 0.2"
        )
    train, test = layout.files[layout.train], layout.files[layout.test]
    whence = splits or root
    for part, classes in ((layout.train, train), (layout.test, test)):
        if len(classes) < 2:
            raise UserError(f"{whence / part}: {len(classes)} class folders; at least two are needed to classify")
    for name in sorted(set(train) ^ set(test)):
        inside, outside, others = (
            (layout.train, layout.test, test) if name in train else (layout.test, layout.train, train)
        )
        raise UserError(
            f"{whence / inside / name}: this class has no folder in {whence / outside}; {did_you_mean(name, others)}"
        )
    tools = [f"left out, since programs made them: {', '.join(map(repr, layout.tools))}"] if layout.tools else []
    return Folder(
        root=root,
        class_names=tuple(train),
        train=_list_part(whence / layout.train, train),
        test=_list_part(whence / layout.test, test),
        parts=(layout.train, layout.test),
        notices=(*layout.notices, *tools),
    )


def _list_part(place: Path, classes: Mapping[str, Files]) -> Listing:
    for name, files in classes.items():
        if not files.images:
            raise UserError(f"{place / name}: empty class, no image among its {len(files.others)} files")
    return Listing(
        paths=tuple(path for files in classes.values() for path in files.images),
        labels=tuple(label for label, files in enumerate(classes.values()) for _ in files.images),
        skipped=tuple(f"{path}: {OTHER}" for files in classes.values() for path in files.others),
    )


@dataclass(frozen=True)
class Part:
    """Train or test decoded: uint8 images (N, C, H, W) and labels int64 (N,), and what was found in reading them."""

    images: Tensor
    labels: Tensor
    skipped: tuple[str, ...] = ()
    marks: Mapping[str, int] = field(default_factory=dict)
    warned: tuple[str, ...] = ()


def decode(folder: Folder, config: DataConfig, cache: Path, announce: Callable[[str], None]) -> tuple[Part, Part]:
    """Decode train and test at the resolution of `config`, once per machine: the arrays are kept under `cache`.

    Later calls map them from disk.

    Raises:
        UserError: every file of a class is unreadable.
    """
    place = cache / f"folder-{folder.state(READING, len(folder.train.paths), config.resolution, config.short_side)}"
    with _kept_in(cache):
        if not (place / "complete.json").is_file():
            total = len(folder.train.paths) + len(folder.test.paths)
            announce(f"decoding {total:,} images of {folder.root} (once; kept in {place})")
            cache.mkdir(parents=True, exist_ok=True)
            _decode_into(place, folder, config, announce)
    try:
        notes = json.loads(read_file(place / "complete.json", LIST_LIMIT))
        return _decoded(place / "train", notes["train"], config), _decoded(place / "test", notes["test"], config)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{place}: damaged copy of decoded images ({reason(error)}); remove it, they are decoded anew"
        ) from None


@contextmanager
def _kept_in(cache: Path) -> Iterator[None]:
    """Write into the cache in here; what it answers names the variable that would help."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{cache}: decoded images cannot be kept there ({error.strerror or error}); name another folder with "
            "SENET_ABLATE_CACHE=FOLDER"
        ) from None


def _decode_into(place: Path, folder: Folder, config: DataConfig, announce: Callable[[str], None]) -> None:
    """Make the copy beside its place and move it there as a whole, unless somebody else was faster."""
    scratch = Path(tempfile.mkdtemp(dir=place.parent, prefix=".decoding-"))
    try:
        made = scratch / "made"  # unlike a temporary folder it is for others to read, as far as the user's mask says
        made.mkdir()
        notes: dict[str, Any] = {
            name: _decode_part(listing, folder.class_names, config, made / name, announce)
            for name, listing in folder.listings.items()
        }
        notes["root"] = str(folder.root.resolve())
        (made / "complete.json").write_text(json.dumps(notes), encoding="utf-8")
        try:
            made.replace(place)
        except OSError:
            if not (place / "complete.json").is_file():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _decoded(stem: Path, notes: Mapping[str, Any], config: DataConfig) -> Part:
    # Copy-on-write pages: read as they are needed, and torch may take the array as its own.
    images, labels = np.load(f"{stem}-images.npy", mmap_mode="c"), np.load(f"{stem}-labels.npy")
    side = config.resolution
    if (images.dtype, images.shape) != (np.uint8, (len(images), 3, side, side)):
        raise ValueError(f"{images.dtype} of shape {images.shape} in {stem}-images.npy")
    if (labels.dtype, labels.shape) != (np.int64, (len(images),)):
        raise ValueError(f"{labels.dtype} of shape {labels.shape} in {stem}-labels.npy")
    warned = tuple(map(str, notes.get("warned", ())))  # copies of earlier versions have none
    skipped, marks = tuple(map(str, notes["skipped"])), _marks(notes["marks"])
    return Part(torch.from_numpy(images), torch.from_numpy(labels), skipped, marks, warned)


def _marks(notes: Mapping[str, Any]) -> dict[str, int]:
    return {str(mark): int(count) for mark, count in notes.items()}


def _decode_part(
    listing: Listing, class_names: tuple[str, ...], config: DataConfig, stem: Path, announce: Callable[[str], None]
) -> dict[str, object]:
    view = evaluation_view(config)
    images = np.empty((len(listing.paths), 3, config.resolution, config.resolution), np.uint8)
    labels: list[int] = []
    found = Findings()
    for number, pixels in read_all(listing.paths, lambda path, image: np.asarray(view(image)), announce, found):
        images[len(labels)] = pixels.transpose(2, 0, 1)
        labels.append(listing.labels[number])
    skipped = _skipped(listing, found.bad)
    _check_classes(labels, class_names, skipped)
    np.save(f"{stem}-images.npy", images[: len(labels)])
    np.save(f"{stem}-labels.npy", np.array(labels, np.int64))
    return {"skipped": skipped, "marks": found.marks, "warned": sorted(found.warned)}


def _skipped(listing: Listing, bad: Mapping[int, str]) -> tuple[str, ...]:
    """All files of a part that are not used, with the reason: first images that cannot be read."""
    return (*(f"{listing.paths[number]}: {why}" for number, why in bad.items()), *listing.skipped)


def check_files(folder: Folder, cache: Path, announce: Callable[[str], None]) -> tuple[Folder, str]:
    """Drop files that cannot be decoded, for a folder that is streamed: else a run would meet them after hours.

    Read once per machine; what was found is kept under `cache`, test images that are in train, too, among it.

    Returns:
        The folder as it is used, and its fingerprint: names, labels and sizes of these files, and samples of each.

    Raises:
        UserError: every file of a class is unreadable.
    """
    place = cache / f"checked-{folder.state('checked and compared', READING)}.json"
    with _kept_in(cache):
        if not place.exists():
            total = len(folder.train.paths) + len(folder.test.paths)
            announce(
                f"decoding {total:,} image files of {folder.root} once, to find those that are broken; "
                f"{3 * SAMPLE:,} bytes of each enter the fingerprint"
            )
            write_atomic(place, json.dumps(_check(folder, announce)))
    try:
        notes = json.loads(read_file(place, LIST_LIMIT))
        train, test = (_without(listing, notes[name]) for name, listing in folder.listings.items())
        samples = [str(notes[name]["samples"]) for name in folder.listings]
        repeated = int(notes["repeated"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{place}: damaged list of images ({error}); remove it, it is made anew") from None
    for part in (train, test):
        _check_classes(part.labels, folder.class_names, part.skipped)
    used = replace(folder, train=train, test=test, repeated=repeated)
    # Where no image was turned or put on white, the fingerprint is that of studies begun before any was.
    changed = any(count for part in (train, test) for mark, count in part.marks.items() if mark != "grey")
    return used, used.fingerprint("names, sizes and samples", *samples, *([READING] if changed else []))


def _without(listing: Listing, notes: Mapping[str, Any]) -> Listing:
    bad = {int(number): str(why) for number, why in notes["bad"].items()}
    good = [number for number in range(len(listing.paths)) if number not in bad]
    return Listing(
        paths=tuple(listing.paths[number] for number in good),
        labels=tuple(listing.labels[number] for number in good),
        skipped=_skipped(listing, bad),
        marks=_marks(notes["marks"]),
        warned=tuple(map(str, notes["warned"])),
    )


def _check_classes(labels: Iterable[int], class_names: tuple[str, ...], skipped: Sequence[str]) -> None:
    for label in set(range(len(class_names))) - set(labels):
        raise UserError(f"class {class_names[label]!r}: none of its files can be read, for example {skipped[0]}")


def _check(folder: Folder, announce: Callable[[str], None]) -> dict[str, Any]:
    """What `check_files` keeps: of each part what `_check_part` notes, and how many test images are in train, too."""
    # Small copies of JPEGs are equal where the images are, but only among JPEGs.
    small = all(path.suffix.lower() in (".jpg", ".jpeg") for part in folder.listings.values() for path in part.paths)
    train_notes, train = _check_part(folder.train, announce, small=small)
    test_notes, test = _check_part(folder.test, announce, small=small)
    repeated = sum(
        _count_equal(train[key], test[key]) if small else len(test[key]) for key in train.keys() & test.keys()
    )
    return {"train": train_notes, "test": test_notes, "repeated": repeated}


def _check_part(
    listing: Listing, announce: Callable[[str], None], *, small: bool
) -> tuple[dict[str, Any], dict[bytes, list[Path]]]:
    """Numbers of files that are not images, with the reason; of the others, how many are changed, and their samples.

    And the files of each image, by a digest of its pixels, of a small copy if `small`.
    """
    samples = hashlib.blake2b(digest_size=16)
    images: dict[bytes, list[Path]] = {}
    found = Findings()
    looked = read_all(
        listing.paths, lambda path, image: (_sample(path), pixel_digest(image)), announce, found, small=small
    )
    for number, (sample, pixels) in looked:
        samples.update(sample)
        images.setdefault(pixels, []).append(listing.paths[number])
    notes = {"bad": found.bad, "marks": found.marks, "samples": samples.hexdigest(), "warned": sorted(found.warned)}
    return notes, images


def _count_equal(train: Sequence[Path], test: Sequence[Path]) -> int:
    """How many test images have the pixels of a training image; they are decoded whole."""
    with unwarned():
        known = {pixel_digest(read_marked(path)[0]) for path in train}
        return sum(pixel_digest(read_marked(path)[0]) in known for path in test)


SAMPLE = 1024
"""Bytes at the beginning, in the middle and at the end of a streamed file that enter its folder's fingerprint."""


def _sample(path: Path) -> bytes:
    size, digest = path.stat().st_size, hashlib.blake2b(digest_size=8)
    with path.open("rb") as file:
        for place in (0, max(0, size - SAMPLE) // 2, max(0, size - SAMPLE)):
            file.seek(place)
            digest.update(file.read(SAMPLE))
    return digest.digest()


def describe_files(what: str, names: Sequence[str]) -> list[str]:
    """A notice, if there are such files, that counts them and names the first: `skipped {} files`."""
    if not names:
        return []
    more = f"\n  … and {len(names) - 5} more" if len(names) > 5 else ""
    return [f"{what.format(len(names))}:\n  " + "\n  ".join(names[:5]) + more]

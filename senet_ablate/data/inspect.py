"""Look at a user's folder of images before anything is declared: what is in it, what is wrong, and a test part."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from PIL import Image

from senet_ablate.data.layout import COLUMNS, Layout, find_layout
from senet_ablate.data.reading import Findings, pixel_digest, read_all
from senet_ablate.errors import UserError
from senet_ablate.seeding import stream_seed


@dataclass(frozen=True)
class Photo:
    """A file that could be read: where it belongs, its size in pixels when upright, and digests of bytes and pixels."""

    path: Path
    part: str
    label: str
    size: tuple[int, int]
    content: bytes
    pixels: bytes


@dataclass(frozen=True)
class Inspection:
    """What a folder has: readable images, files that cannot be read with the reason, and files that are not images.

    `marks` counts the images that were changed while they were read, by what was done; `warned` has what Pillow warned
    of, with the name of the file.
    """

    layout: Layout
    photos: tuple[Photo, ...]
    unreadable: tuple[str, ...]
    others: tuple[Path, ...]
    marks: Mapping[str, int]
    warned: tuple[str, ...]

    def count(self, part: str, label: str) -> int:
        """Readable images of a class in a part."""
        return sum((photo.part, photo.label) == (part, label) for photo in self.photos)

    def of(self, part: str | None) -> list[Photo]:
        """The readable images of a part."""
        return [photo for photo in self.photos if photo.part == part]

    @property
    def classes(self) -> list[str]:
        """The classes of all parts, by name."""
        return sorted({label for classes in self.layout.files.values() for label in classes})

    @property
    def sizes(self) -> list[tuple[tuple[int, int], int]]:
        """Sizes in pixels, the commonest first, with the number of images."""
        return Counter(photo.size for photo in self.photos).most_common()

    @property
    def side(self) -> int:
        """Median of the short sides in pixels."""
        return int(median(min(photo.size) for photo in self.photos))

    @property
    def twins(self) -> list[tuple[Photo, ...]]:
        """Groups of images with equal pixels, whatever their files are."""
        groups: dict[bytes, list[Photo]] = {}
        for photo in self.photos:
            groups.setdefault(photo.pixels, []).append(photo)
        return [tuple(group) for group in groups.values() if len(group) > 1]


def inspect_folder(
    root: Path, splits: Path | None = None, announce: Callable[[str], None] = lambda text: None
) -> Inspection:
    """Read every image of every part once; `announce` gets a line of progress from time to time.

    Raises:
        UserError: there is no such folder, no class folders in it, or no image that can be read.
    """
    layout = find_layout(root, splits)
    listed = [
        (path, part, label)
        for part, classes in layout.files.items()
        for label, files in classes.items()
        for path in files.images
    ]
    found = Findings()
    looked = read_all([path for path, *_ in listed], _look, announce, found)
    photos = tuple(Photo(*listed[number], *facts) for number, facts in looked)
    unreadable = tuple(f"{listed[number][0]}: {why}" for number, why in found.bad.items())
    others = tuple(path for classes in layout.files.values() for files in classes.values() for path in files.others)
    if not photos:
        present = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
        why = f"none of {len(unreadable)} images can be read, for example {unreadable[0]}" if unreadable else present
        raise UserError(
            f"{root}: no images in class folders: expected {root / 'CLASS' / 'image.jpg'}, or train/ and test/ with "
            f"such folders in each; found {why}"
        )
    return Inspection(layout, photos, unreadable, others, found.marks, tuple(sorted(found.warned)))


def _look(path: Path, image: Image.Image) -> tuple[tuple[int, int], bytes, bytes]:
    content = hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
    return image.size, content, pixel_digest(image)


def draw_test(photos: Iterable[Photo], share: float, root: Path) -> dict[Path, str]:
    """The part, `train` or `test`, of each image: `share` of each class, at least one, drawn by the names of the files.

    An image's place in the order is keyed by its own name, so that images added later move few others. Images with
    equal pixels stay together.

    Raises:
        UserError: a class has too few different images for both parts.
    """
    classes: dict[str, dict[bytes, list[Photo]]] = {}
    for photo in photos:
        classes.setdefault(photo.label, {}).setdefault(photo.pixels, []).append(photo)
    drawn: dict[bytes, str] = {}
    for label, twins in sorted(classes.items()):
        wanted = max(1, round(share * sum(map(len, twins.values()))))
        if len(twins) < 3:
            raise UserError(
                f"class {label!r} has {len(twins)} different images; train, validation and test need one each"
            )
        order = sorted(twins, key=lambda pixels: stream_seed(0, "test", *sorted(_names(twins[pixels], root))))
        taken = 0
        for number, pixels in enumerate(order):
            test = taken < wanted and number < len(order) - 2
            part = drawn.setdefault(pixels, "test" if test else "train")  # of two classes: a twin decides for both
            taken += len(twins[pixels]) * (part == "test")
    return {photo.path: drawn[pixels] for twins in classes.values() for pixels, some in twins.items() for photo in some}


def _names(photos: Sequence[Photo], root: Path) -> list[str]:
    return [photo.path.relative_to(root).as_posix() for photo in photos]


def list_text(photos: Sequence[Photo], parts: dict[Path, str], root: Path) -> str:
    """The list of files as `data.splits` names it: path, part, class."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for photo, name in sorted(zip(photos, _names(photos, root), strict=True), key=lambda pair: pair[1]):
        writer.writerow((name, parts[photo.path], photo.label))
    return out.getvalue()

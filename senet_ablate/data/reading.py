"""From an image file to upright, opaque RGB of 8 bits, one file or all of a folder."""

from __future__ import annotations

import hashlib
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from PIL import ExifTags, Image

Mark = Literal["grey", "rotated", "transparent", "rescaled"]
"""What is done to a file for it to become an upright opaque RGB image of 8 bits, and is counted."""

GREY_MODES = {"1", "L", "LA", "I", "I;16", "F"}
BACKGROUND = (255, 255, 255)
"""Colour behind transparent pixels: white."""

DEPTHS = (8, 10, 12, 14, 16)
"""Bits per pixel of cameras and scanners; a file of 16 bits has the first of them that holds its brightest pixel."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to make an image upright, by EXIF's orientation (EXIF 2.32, section 4.6.4)."""

LONGEST = 100
"""Times its short side that an image may be long: resized to 256, a line of 60,000 pixels would become 12 GB."""


def read_marked(path: Path, *, small: bool = False) -> tuple[Image.Image, frozenset[Mark]]:
    """Decode an image file as RGB with 8 bits, upright and opaque, and say what was changed for it.

    With `small` a JPEG is decoded at an eighth of its size, which reads all of it in a fraction of the time.

    Raises:
        OSError: the file is no image, is cut off, is too large or too long to be honest, or has floating-point levels,
            whose white is not known. Pillow's parsers raise whatever they meet (ValueError, SyntaxError, struct.error,
            …); here it is always this.
    """
    try:
        with Image.open(path) as image:
            return _decoded(image, small=small)
    except OSError:
        raise
    except Exception as error:
        raise OSError(str(error) or type(error).__name__) from error


def _decoded(image: Image.Image, *, small: bool) -> tuple[Image.Image, frozenset[Mark]]:
    short, long = sorted(image.size)
    if not 0 < long <= LONGEST * short:
        raise OSError(f"{image.width} x {image.height} pixels")
    if small:
        image.draft(None, (1, 1))
    marks: set[Mark] = {"grey"} if image.mode in GREY_MODES else set()
    if image.mode == "F":
        raise OSError("floating-point levels; save it with 8 or 16 bits")
    turned = image.format == "TIFF" and _turn(image) is not None  # loading turns a TIFF
    image.load()  # before EXIF is asked for, which would load a PNG and keep its errors to itself
    turn = _turn(image)
    found: Image.Image = image
    if image.mode.startswith("I"):  # 16 bits: Pillow would cut them off at 255
        levels = np.clip(np.asarray(image), 0, 65535).astype(np.float64)
        depth = next(bits for bits in DEPTHS if levels.max() < 2**bits)
        marks |= {"rescaled"} if depth < 16 else set()
        found = Image.fromarray(np.rint(levels * (255 / (2**depth - 1))).astype(np.uint8))
    elif image.has_transparency_data:
        colour = image.convert("RGBA")
        if np.asarray(colour)[:, :, 3].min() < 255:
            marks.add("transparent")
            found = Image.alpha_composite(Image.new("RGBA", colour.size, (*BACKGROUND, 255)), colour)
    if turn is not None:
        found = found.transpose(turn)
    if turned or turn is not None:
        marks.add("rotated")
    return found.convert("RGB"), frozenset(marks)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What EXIF's orientation asks for; a damaged entry asks for nothing."""
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # whatever Pillow's parser raises of an entry beside the pixels
        return None


def pixel_digest(image: Image.Image) -> bytes:
    """Equal for images of equal size and pixels, whatever their files are."""
    return hashlib.blake2b(repr(image.size).encode() + np.asarray(image).tobytes(), digest_size=16).digest()


T = TypeVar("T")

SILENCE_S = 60.0
"""Seconds of reading images after which it is said how far it is."""


@dataclass
class Findings:
    """What reading images showed: why files cannot be read, by number, how many were changed, what Pillow warned of."""

    bad: dict[int, str] = field(default_factory=dict)
    marks: Counter[str] = field(default_factory=Counter)
    warned: set[str] = field(default_factory=set)


def read_all(
    paths: Sequence[Path],
    use: Callable[[Path, Image.Image], T],
    announce: Callable[[str], None],
    found: Findings,
    *,
    small: bool = False,
) -> Iterator[tuple[int, T]]:
    """Read images by several threads: the number of each that can be read, and what `use` makes of it, in order.

    Everything else is collected in `found`; from time to time `announce` gets the number read so far.
    """
    here = threading.local()

    def read(path: Path) -> tuple[T, frozenset[Mark]] | str:
        here.path = path
        try:
            image, marks = read_marked(path, small=small)
            return use(path, image), marks
        except (OSError, MemoryError) as error:
            return str(error) or "too large for the memory"

    def hear(message: Warning | str, *about: object) -> None:
        if path := getattr(here, "path", None):
            found.warned.add(f"{path}: {message}")

    told = time.monotonic()
    with warnings.catch_warnings(), ThreadPoolExecutor() as threads:  # filters are the process's: before threads begin
        warnings.simplefilter("always")
        warnings.showwarning = hear  # type: ignore[assignment]  # as the module's own documentation has it
        for number, result in enumerate(threads.map(read, paths)):
            if time.monotonic() - told >= SILENCE_S:
                announce(f"{number + 1:,} of {len(paths):,} images read")
                told = time.monotonic()
            if isinstance(result, str):
                found.bad[number] = result
            else:
                found.marks.update(result[1])
                yield number, result[0]

"""From a stored image to what the network sees: decode, resize, crop, augment, normalise."""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image
from torch import Tensor
from torchvision.transforms import v2

from senet_ablate.spec.protocol import Augmentation, DataConfig, Mix, Policy

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


@dataclass(frozen=True)
class Normalisation:
    """Per-channel mean and standard deviation of pixels scaled to 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 (N, C, H, W) to float32 of mean 0 and deviation 1, channels last."""
        scale = torch.tensor([1 / (255 * std) for std in self.std], device=pixels.device).view(1, -1, 1, 1)
        shift = torch.tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)], device=pixels.device)
        x = pixels.to(torch.float32, memory_format=torch.channels_last)
        return torch.addcmul(shift.view(1, -1, 1, 1), x, scale)


IMAGENET_NORMALISATION = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def crop_and_flip(images: Tensor, offsets: Tensor, flips: Tensor, padding: int) -> Tensor:
    """Cut each image out of its zero-padded self and mirror some, a whole batch at once.

    Args:
        images: (N, C, H, W), any type.
        offsets: int64 (N, 2), row and column of each crop's corner in the padded image, 0 to 2 * padding.
        flips: bool (N,), which images to mirror left to right.
        padding: pixels of zeros on each side.

    Returns:
        (N, C, H, W) of the same type.
    """
    n, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4) if padding else images
    rows = offsets[:, :1] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(n, width)
    columns = offsets[:, 1:] + torch.where(flips[:, None], columns.flip(1), columns)
    batch = torch.arange(n, device=images.device)[:, None, None]
    # One gather over (N, H, W, C): channels stay together, as the network wants them.
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def evaluation_view(config: DataConfig) -> v2.Transform:
    """Short side to `config.short_side`, then the centre `resolution` x `resolution` (section 5.1)."""
    return v2.Compose([v2.Resize(config.short_side, antialias=True), v2.CenterCrop(config.resolution)])


def training_view(config: DataConfig, augmentation: Augmentation) -> v2.Transform:
    """The random view of one image: the ImageNet crop, or the evaluation view padded and cropped; then the flip."""
    steps: list[v2.Transform] = []
    if augmentation.resized_crop:
        steps += [v2.RandomResizedCrop(config.resolution, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), antialias=True)]
    else:
        steps += [evaluation_view(config)]
    if augmentation.crop_padding:
        steps += [v2.RandomCrop(config.resolution, padding=augmentation.crop_padding)]
    if augmentation.horizontal_flip:
        steps += [v2.RandomHorizontalFlip()]
    return v2.Compose(steps)


POLICIES: dict[Policy, Callable[[], v2.Transform]] = {
    "trivial-augment": v2.TrivialAugmentWide,
    "rand-augment": v2.RandAugment,
    "random-erasing": v2.RandomErasing,
}


def apply_policies(images: Tensor, policies: Sequence[Policy], seeds: Iterable[int]) -> Tensor:
    """Change each image as torchvision's policies do, its draws from a seed of its own.

    Args:
        images: uint8 (N, C, H, W).
        policies: their names, in order.
        seeds: one for each image.

    Returns:
        uint8 (N, C, H, W).
    """
    if not policies:
        return images
    steps = v2.Compose([POLICIES[name]() for name in policies])
    changed = []
    with torch.random.fork_rng(devices=[]):
        for image, seed in zip(images, seeds, strict=True):
            torch.default_generator.manual_seed(seed)  # of the processor alone: layers draw from the device's
            changed.append(steps(image))
    return torch.stack(changed)


MIXES: dict[Mix, Callable[..., v2.Transform]] = {"mixup": v2.MixUp, "cutmix": v2.CutMix}


def mix_batch(
    images: Tensor, labels: Tensor, augmentation: Augmentation, classes: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Mix each image of a batch with the one before it, as torchvision's MixUp or CutMix do, with draws from `seed`.

    Args:
        images: float32 (N, C, H, W).
        labels: int64 (N,).
        augmentation: which of the two, and its parameter; with both, `seed` decides.
        classes: their number.
        seed: of the share and, for CutMix, the box.

    Returns:
        Images of the same type and memory format, and the shares of the classes, float32 (N, classes).
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the processor alone: layers draw from the device's
        name = augmentation.mix[int(torch.randint(len(augmentation.mix), ()))]
        mixed, shares = MIXES[name](alpha=augmentation.mix_alpha, num_classes=classes)(images, labels)
    return mixed.contiguous(memory_format=torch.channels_last), shares


_reading = threading.local()


@contextmanager
def heard() -> Iterator[list[str]]:
    """Collect what Pillow warns of while images are read in here, by whatever thread: the file's name and the warning.

    Filters are the process's, so enter it before threads begin.
    """
    told: list[str] = []

    def hear(message: Warning | str, *about: object) -> None:
        if path := getattr(_reading, "path", None):
            told.append(f"{path}: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = hear  # type: ignore[assignment]  # as the module's own documentation has it
        yield told


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Open an image file with Pillow.

    Raises:
        OSError: the file is no image, is cut off, or is too large or too long to be honest. Pillow's parsers raise
            whatever they meet (ValueError, SyntaxError, struct.error, …); here it is always this.
    """
    _reading.path = path
    try:
        with Image.open(path) as image:
            short, long = sorted(image.size)
            if not 0 < long <= LONGEST * short:
                raise OSError(f"{image.width} x {image.height} pixels")
            yield image
    except OSError:
        raise
    except Exception as error:
        raise OSError(str(error) or type(error).__name__) from error
    finally:
        _reading.path = None


def read_image(path: Path) -> Image.Image:
    """Decode an image file as RGB with 8 bits, as `read_marked` does.

    Raises:
        OSError: as there.
    """
    return read_marked(path)[0]


def read_marked(path: Path, *, small: bool = False) -> tuple[Image.Image, frozenset[Mark]]:
    """Decode an image file as RGB with 8 bits, upright and opaque, and say what was changed for it.

    With `small` a JPEG is decoded at an eighth of its size, which reads all of it in a fraction of the time.

    Raises:
        OSError: the file is no image, is cut off, or has floating-point levels, whose white is not known.
    """
    with open_image(path) as image:
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


def pixel_digest(image: Image.Image) -> bytes:
    """Equal for images of equal size and pixels, whatever their files are."""
    return hashlib.blake2b(repr(image.size).encode() + np.asarray(image).tobytes(), digest_size=16).digest()


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What EXIF's orientation asks for; a damaged entry asks for nothing."""
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # whatever Pillow's parser raises of an entry beside the pixels
        return None

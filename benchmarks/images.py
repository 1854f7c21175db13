"""Image folders for the benchmarks: a part of the user's own, or synthetic images of the same kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def subset(data: Path, folder: Path, train: int, test: int) -> Path:
    """Link the first images of each class of `data` (train/ and test/), so many in all."""
    for part, count in (("train", train), ("test", test)):
        classes = sorted(path for path in (data / part).iterdir() if path.is_dir())
        for label in classes:
            target = folder / part / label.name
            target.mkdir(parents=True)
            for file in sorted(label.iterdir())[: count // len(classes)]:
                (target / file.name).symlink_to(file.resolve())
    return folder


def make(folder: Path, train: int, test: int, size: int = 32, classes: int = 10) -> Path:
    """Write JPEG files of coloured blobs, as large and as quick to decode as small photographs."""
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        for label in range(classes):
            target = folder / part / f"class{label}"
            target.mkdir(parents=True)
            for number in range(count // classes):
                blobs = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
                image = Image.fromarray(blobs).resize((size, size), Image.Resampling.BICUBIC)
                image.save(target / f"{number:05}.jpg", quality=75)
    return folder

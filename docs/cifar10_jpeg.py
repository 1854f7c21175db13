"""Make cifar10-jpeg, the images of the studies in docs/studies.md, from CIFAR-10.

    python docs/cifar10_jpeg.py images/        # downloads CIFAR-10 with torchvision, writes images/train, images/test

Each image is saved as a JPEG file of quality 75 (Pillow's usual), named by its number within its class:
`train/frog/0000.jpg` is the first frog of the training set. Then:

    senet-ablate run gain --protocol cifar10-mobilenet --set data.dataset=folder --data images
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

QUALITY = 75


def write_images(pixels: np.ndarray, labels: Sequence[int], classes: Sequence[str], folder: Path) -> None:
    """Write images, uint8 (N, H, W, 3), into one folder per class, numbered within their class."""
    count: Counter[int] = Counter()
    for image, label in zip(pixels, labels, strict=True):
        place = folder / classes[label] / f"{count[label]:04}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place, quality=QUALITY)
        count[label] += 1


def main(root: Path) -> None:
    """Write both parts of CIFAR-10."""
    from torchvision.datasets import CIFAR10

    for part in ("train", "test"):
        images = CIFAR10(str(root / "original"), train=part == "train", download=True)
        write_images(images.data, images.targets, images.classes, root / part)
        print(f"{len(images.targets):,} images in {root / part}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))

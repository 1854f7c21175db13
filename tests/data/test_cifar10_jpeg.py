"""The script that makes cifar10-jpeg from CIFAR-10."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "docs" / "cifar10_jpeg.py"

LUMINANCE_75 = [8, 6, 6, 7, 6, 5, 8, 7]
"""The first of libjpeg's table for quality 75 in zigzag order: half of Annex K's 16, 11, 12, 14, 12, 10, 16, 14."""


def test_images_are_numbered_within_their_class_and_saved_at_quality_75(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    pixels[:] = pixels.mean((1, 2), keepdims=True)  # JPEG keeps what is flat
    runpy.run_path(str(SCRIPT))["write_images"](pixels, [1, 0, 1, 1, 0], ["bird", "frog"], tmp_path)
    found = {str(path.relative_to(tmp_path)): np.asarray(Image.open(path)) for path in tmp_path.rglob("*.jpg")}
    expected = {"frog/0000.jpg": 0, "bird/0000.jpg": 1, "frog/0001.jpg": 2, "frog/0002.jpg": 3, "bird/0001.jpg": 4}
    assert found.keys() == expected.keys()
    for name, number in expected.items():
        assert np.abs(found[name].astype(int) - pixels[number]).max() <= 3
    with Image.open(tmp_path / "frog" / "0000.jpg") as image:
        table = image.quantization[0]
    zigzag = [0, 1, 8, 16, 9, 2, 3, 10]
    assert [table[place] for place in zigzag] == LUMINANCE_75

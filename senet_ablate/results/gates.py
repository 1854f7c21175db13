"""Statistics of a trained network's gates, by block and class (section 7.2, Figs. 6 and 7).

Let s_ic be the gate of channel c for image i, and k(i) the image's class. Per block, over all N images and C channels:

- between-class SD: the root of sum_ic (mean of c in class k(i) - mean of c)^2 / (N C);
- within-class SD: the root of sum_ic (s_ic - mean of c in class k(i))^2 / (N C);
- specificity: between^2 / (between^2 + within^2), the share of a gate's variation that the class explains. Classes
  drawn by lot would get (K - 1) / (N - 1) on average;
- a channel is saturated if its mean |s| over all images is above 99 % of the gate's upper limit, dead if below 0.01.

Without squeeze (Table 16) the gate is a map; its mean over the pixels stands for the image's gate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

UPPER_LIMIT: dict[str, float | None] = {
    "sigmoid": 1.0,
    "tanh": 1.0,  # and -1 on the other side: magnitudes are compared
    "relu": None,
    "double-sigmoid": 2.0,
    "constant": None,
    "random": 1.0,
    "none": None,
}
"""Where each gate of SE ends; without an end, or if it does not move, no channel is called saturated."""

SATURATED, DEAD = 0.99, 0.01

CHANNELS_SHOWN = 50

ALL = "all"
"""Name of the line over the images of all classes."""

NO_VARIATION = 1e-12
"""Share of the gates' sum of squares below which their variation is rounding (the constant gate, one image)."""


@dataclass(frozen=True)
class BlockExcitation:
    """What one SE block did: sums over the images of each class, never the images themselves.

    With K classes and C channels: `images` (K,), `sums` and `squares` of the gates (K, C), `magnitudes` (C,), the sums
    of |s| over all images.
    """

    name: str
    gate: str
    images: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    magnitudes: np.ndarray

    @property
    def stage(self) -> int:
        """The paper's stage number."""
        return int(self.name.split("_")[1])

    @property
    def mean(self) -> np.ndarray:
        """Mean gate of each channel over all images (C,)."""
        return self.over()[1]

    def over(self, number: int | None = None) -> tuple[int, np.ndarray, np.ndarray]:
        """Images of one class, or of all; mean and standard deviation of each channel's gate over them (C,).

        NaN where there are too few: the mean of none, the deviation of fewer than two.
        """
        chosen = slice(None) if number is None else [number]
        images, sums, squares = (each[chosen].sum(0) for each in (self.images, self.sums, self.squares))
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = np.maximum(squares - sums**2 / images, 0) / (images - 1)
            return images, sums / images, np.sqrt(variance if images > 1 else np.full_like(sums, np.nan))

    def variances(self) -> tuple[float, float]:
        """Variance of the gates (between, within) the classes, averaged over channels: squares of the two SDs."""
        seen = self.images > 0
        images, sums, squares = self.images[seen, None], self.sums[seen], self.squares[seen]
        means = sums / images
        size = self.images.sum() * sums.shape[1]
        between = (images * (means - self.mean) ** 2).sum() / size
        within = max((squares - images * means**2).sum() / size, 0.0)
        return float(between), float(within)

    def numbers(self) -> dict[str, float]:
        """The block's line in the table; NaN where a number has no meaning."""
        between, within = self.variances()
        varies = between + within > NO_VARIATION * self.squares.sum() / (self.images.sum() * self.sums.shape[1])
        magnitude = self.magnitudes / self.images.sum()
        limit = UPPER_LIMIT.get(self.gate)
        return {
            "mean": float(self.mean.mean()),
            "between_sd": math.sqrt(between) if varies else 0.0,
            "within_sd": math.sqrt(within) if varies else 0.0,
            "specificity": between / (between + within) if varies else math.nan,
            "saturated": math.nan if limit is None else float((magnitude > SATURATED * limit).mean()),
            "dead": float((magnitude < DEAD).mean()),
        }


def chance_specificity(blocks: Sequence[BlockExcitation]) -> float:
    """What specificity would be on average if classes were drawn by lot: (K - 1) / (N - 1)."""
    images = blocks[0].images
    return float(((images > 0).sum() - 1) / (images.sum() - 1))


def shown_channels(channels: int) -> np.ndarray:
    """At most fifty evenly spaced channels from the first, as in the paper's figures: each ceil(C / 50)-th (from 0)."""
    return np.arange(0, channels, math.ceil(channels / CHANNELS_SHOWN))


def block_table(blocks: Iterable[BlockExcitation]) -> pd.DataFrame:
    """One line per block: its name, stage and channels, and its `numbers`."""
    return pd.DataFrame(
        [
            {"block": block.name, "stage": block.stage, "channels": len(block.magnitudes), **block.numbers()}
            for block in blocks
        ]
    )


def stage_table(table: pd.DataFrame) -> pd.DataFrame:
    """The blocks' numbers averaged over each stage, and how many blocks it has."""
    numbers = table.drop(columns=["block", "channels"]).groupby("stage").mean()
    numbers.insert(0, "blocks", table.groupby("stage").size())
    return numbers.reset_index()


def line_table(blocks: Iterable[BlockExcitation], classes: Mapping[str, int], *, with_all: bool = True) -> pd.DataFrame:
    """What a figure is drawn from: mean and deviation of the gates of shown channels (from 1), by block and class.

    `classes` has the number of each class by the name that it is shown with.
    """
    frames = []
    shown: list[tuple[str, int | None]] = [*classes.items(), *([(ALL, None)] if with_all else [])]
    for block in blocks:
        channels = shown_channels(len(block.magnitudes))
        for name, number in shown:
            images, mean, deviation = block.over(number)
            columns = {"block": block.name, "class": name, "images": images, "channel": channels + 1}
            frames.append(pd.DataFrame(columns | {"mean": mean[channels], "sd": deviation[channels]}))
    return pd.concat(frames, ignore_index=True)


IDENTITY, MEAN_GATE = "identity", "mean gate"

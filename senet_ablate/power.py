"""What a number of seeds can decide: noise before any run, the smallest detectable effect, seeds needed, chances.

All formulas are for one-sided tests with pooled degrees of freedom. Errors are percentages.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from senet_ablate import student
from senet_ablate.spec.protocol import Dataset

POWER = 0.8
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Guess:
    """What a data set's test error in percent and number of test images may be, before any run or file was seen."""

    err: float
    images: int


GUESSES: dict[Dataset, Guess] = {
    "digits": Guess(3.0, 768),
    "cifar10": Guess(6.0, 10_000),
    "cifar100": Guess(26.0, 10_000),
    "fashion-mnist": Guess(6.0, 10_000),
    "folder": Guess(24.0, 10_000),
}


def kappa(classes: int) -> float:
    """How far per-image error rates lie from all equal: mean p (1 - p) is kappa / 2 of the error.

    From the published scatter of CIFAR-10 and ImageNet runs; the middle value is interpolated.
    """
    if classes < 50:
        return 0.75
    return 0.55 if classes < 500 else 0.44


def assumed_phi(epochs: int) -> float:
    """Over-dispersion before any run: 1.15 for 30 or more epochs that decay to zero, 2 from 10 on (a guess), else 6."""
    if epochs >= 30:
        return 1.15
    return 2.0 if epochs >= 10 else 6.0


def assumed_sd(err: float, images: int, classes: int, epochs: int) -> float:
    """Standard deviation in points of one run's error (percent) on `images` test images, before any run."""
    return 100 * math.sqrt(assumed_phi(epochs) * kappa(classes) * (err / 100) / (2 * images))


def noncentrality(level: float, df: float, power: float = POWER) -> float:
    """How many standard errors an effect must have to be found with `power` by a one-sided test at `level`."""
    return student.quantile(level, df) + student.quantile(1 - power, df)


def detectable(weights: np.ndarray, covariance: np.ndarray, level: float, df: float) -> float:
    """Smallest value of a contrast that is found with 80 % power, given the covariance of the arms' means."""
    return noncentrality(level, df) * math.sqrt(float(weights @ covariance @ weights))


def seeds_needed(
    weights: np.ndarray, effect: float, one_seed: np.ndarray, level: float, df: Callable[[int], float]
) -> int | None:
    """Equal seeds per arm that find a contrast of size `effect` with 80 % power; None beyond 1,000 or if it is not > 0.

    `one_seed` is the covariance of one seed's scores over arms, `df(n)` the pooled degrees of freedom at n seeds.
    """
    variance = float(weights @ one_seed @ weights)

    def found(n: int) -> bool:
        return noncentrality(level, df(n)) * math.sqrt(variance / n) <= effect

    if effect <= 0 or not found(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high

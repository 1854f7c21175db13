"""Runs whose mean scores and scatter are exactly as asked, and the noise model fitted to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from senet_ablate.analysis.noise import Noise, Sample, fit_noise
from senet_ablate.spec.claims import Rules

Runs = list[dict[int, np.ndarray]]
"""Per-image scores by arm and seed."""


def runs_of(
    means: Sequence[float], b: float, rng: np.random.Generator, images: int = 60, taste: float = 0.0
) -> list[np.ndarray]:
    """Per-image scores of runs with exactly these means and, if there are two, exactly this independent part."""
    y = np.array(means, float)
    luck = rng.standard_normal((len(y), images))
    luck -= luck.mean(axis=1, keepdims=True)
    if len(y) > 1:
        missing = images * b - y.var(ddof=1)
        assert missing > 0
        luck *= (missing / luck.var(axis=0, ddof=1).mean()) ** 0.5
    else:
        luck *= (images * b) ** 0.5
    return list(y[:, None] + luck + taste * rng.permutation(np.repeat([-1.0, 1.0], images // 2)))


def evenly(count: int, sd: float = 1.0) -> np.ndarray:
    """Numbers of mean 0 and of exactly this standard deviation."""
    numbers = np.linspace(-1, 1, count) if count > 1 else np.zeros(1)
    return sd * numbers / (numbers.std(ddof=1) if count > 1 else 1)


def arm_of(means: list[float], b: float, seed: int, images: int = 50) -> dict[int, np.ndarray]:
    """Runs of one arm with exactly these mean scores and exactly this independent part B."""
    return dict(enumerate(runs_of(means, b, np.random.default_rng(seed), images)))


def with_ratios(*ratios: float, seeds: int = 3, b: float = 1.0) -> Runs:
    """Arms of one B whose runs scatter by exactly these multiples of it."""
    return [arm_of(20 + place + evenly(seeds, (b * r) ** 0.5), b, place) for place, r in enumerate(ratios)]


def fitted(runs: Runs, **rules) -> Noise:
    noise = fit_noise(Sample.of(runs), Rules(**rules))
    assert noise is not None
    return noise

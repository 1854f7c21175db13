"""Student's t, and the largest |t| of several contrasts: one critical value for all contrasts of a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special


def tail(t: float, df: float) -> float:
    """Probability of a value above `t`."""
    return float(special.ndtr(-t) if math.isinf(df) else special.stdtr(df, -t))


def quantile(p: float, df: float) -> float:
    """The value that is exceeded with probability `p`."""
    return -float(special.ndtri(p) if math.isinf(df) else special.stdtrit(df, p))


DRAWS = 200_000
GRID = 2_000
"""Number of quantiles by which the drawn maxima are kept for the integral over the scale."""

TOLERANCE = 1e-6
"""Of a critical value; its Monte Carlo error is a thousand times as large."""


@lru_cache(maxsize=8)
def _standard_normals(draws: int, arms: int) -> np.ndarray:
    return np.random.default_rng(20170905).standard_normal((draws, arms), np.float32)


@dataclass(frozen=True)
class MaxT:
    """Distribution of max |t| for contrasts that share `df` degrees of freedom; `maxima` are quantiles of max |z|."""

    maxima: np.ndarray
    df: float

    def tail(self, value: float) -> float:
        """Probability that some |t| exceeds `value` though all contrasts are 0."""
        if value <= 0:
            return 1.0
        if np.isinf(self.df):
            return float(np.mean(self.maxima > value))
        # |t| = |z| / sqrt(u / df) with u chi-square; exceeds where u < df (z / value)^2.
        return float(np.mean(special.chdtr(self.df, self.df * (self.maxima / value) ** 2)))

    def critical(self, alpha: float) -> float:
        """The value that max |t| exceeds with probability `alpha`."""
        low, high = 0.0, 2.0
        while self.tail(high) > alpha:
            low, high = high, 2 * high
        while high - low > TOLERANCE:  # bisection: to import scipy.optimize takes as long as all the rest of `plan`
            middle = (low + high) / 2
            low, high = (middle, high) if self.tail(middle) > alpha else (low, middle)
        return (low + high) / 2

    def pointwise(self, alpha: float) -> float:
        """Two-sided p-value that a single contrast must reach, so that contrasts of other df can be judged alike."""
        return 2 * tail(self.critical(alpha), self.df)

    def adjusted(self, p: float) -> float:
        """The chance of any contrast reaching a two-sided p-value as small as `p`."""
        return self.tail(quantile(p / 2, self.df))


def max_t(contrasts: np.ndarray, covariance: np.ndarray, df: float, draws: int = DRAWS) -> MaxT:
    """Distribution of max |t| of `contrasts` (contrasts, arms) under the arms' `covariance` of means (arms, arms).

    A covariance put together pair by pair may have slightly negative eigenvalues; they count as 0.
    """
    values, vectors = np.linalg.eigh(covariance)
    root = contrasts @ (vectors * np.sqrt(np.maximum(values, 0)))
    norms = np.linalg.norm(root, axis=1)
    kept = norms > 1e-12 * max(1e-300, norms.max(initial=0))
    directions = (root[kept] / norms[kept][:, None]).astype(np.float32)
    maxima = np.zeros(draws, np.float32)
    normals = _standard_normals(draws, len(covariance))
    for direction in directions:
        np.maximum(maxima, np.abs(normals @ direction), out=maxima)
    return MaxT(np.quantile(maxima, (np.arange(GRID) + 0.5) / GRID), df)

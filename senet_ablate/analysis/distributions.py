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


POINTS = 1 << 16
"""Points on the sphere of the arms. SciPy's own many-comparison tests agree with the critical values to 0.001."""

GRID = 500
"""Number of quantiles by which the points are kept for the integral over radius and scale."""

DECIMALS = 4
"""To which a critical value is rounded, so that the last bits, in which processors differ, do not reach a report."""


@lru_cache(maxsize=8)
def _sphere(points: int, dims: int) -> np.ndarray:
    """Points spread evenly over the unit sphere, from Sobol's sequence: (points, dims), the same on every machine."""
    from scipy.stats import qmc  # half a second to import

    uniform = qmc.Sobol(dims, scramble=False).random(points) + 0.5 / points
    normal = special.ndtri(uniform)
    return np.asarray(normal / np.linalg.norm(normal, axis=1)[:, None])


@dataclass(frozen=True)
class MaxT:
    """Distribution of max |t| for contrasts that share `df` degrees of freedom.

    A normal vector of `dims` dimensions is a direction times a radius. `largest` are quantiles over directions of the
    largest |cosine| with any contrast; radius and scale are integrated exactly, by an F distribution.
    """

    largest: np.ndarray
    dims: int
    df: float

    def tail(self, value: float) -> float:
        """Probability that some |t| exceeds `value` though all contrasts are 0."""
        if value <= 0:
            return 1.0
        with np.errstate(divide="ignore"):
            least = (value / self.largest) ** 2  # the square of the radius, over the scale, from which one exceeds
        if np.isinf(self.df):
            return float(np.mean(special.chdtrc(self.dims, least)))
        return float(np.mean(special.fdtrc(self.dims, self.df, least / self.dims)))

    def critical(self, alpha: float) -> float:
        """The value that max |t| exceeds with probability `alpha`, to DECIMALS."""
        low, high = 0.0, 2.0
        while self.tail(high) > alpha:
            low, high = high, 2 * high
        while high - low > 1e-6:  # bisection: to import scipy.optimize takes as long as all the rest of `plan`
            middle = (low + high) / 2
            low, high = (middle, high) if self.tail(middle) > alpha else (low, middle)
        return round((low + high) / 2, DECIMALS)

    def pointwise(self, alpha: float) -> float:
        """Two-sided p-value that a single contrast must reach, so that contrasts of other df can be judged alike."""
        return 2 * tail(self.critical(alpha), self.df)

    def adjusted(self, p: float) -> float:
        """The chance of any contrast reaching a two-sided p-value as small as `p`."""
        return self.tail(quantile(p / 2, self.df))


def max_t(contrasts: np.ndarray, covariance: np.ndarray, df: float, points: int = POINTS) -> MaxT:
    """Distribution of max |t| of `contrasts` (contrasts, arms) under the arms' `covariance` of means (arms, arms).

    The covariance enters by its symmetric root, which, unlike its eigenvectors, is unique where arms have equal
    variance. One put together pair by pair may have slightly negative eigenvalues; they count as 0.
    """
    values, vectors = np.linalg.eigh(covariance)
    root = contrasts @ ((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)
    norms = np.linalg.norm(root, axis=1)
    kept = norms > 1e-7 * max(1e-150, norms.max(initial=0))  # the root of an eigenvalue 0 keeps half of the digits
    largest = np.zeros(points)
    for direction in root[kept] / norms[kept][:, None]:
        np.maximum(largest, np.abs(_sphere(points, len(covariance)) @ direction), out=largest)
    return MaxT(np.quantile(largest, (np.arange(GRID) + 0.5) / GRID), len(covariance), df)

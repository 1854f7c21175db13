"""Comparisons across seeds and across studies: single seed pairs, and partial conjunction over several settings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from senet_ablate.analysis.contrasts import Contrast
from senet_ablate.analysis.evidence import Evidence


def seed_values(evidence: Evidence, contrast: Contrast) -> dict[int, float]:
    """The value of a contrast in the runs of each seed that all of its variants have; empty where they share none."""
    sample, arms = evidence.sample, contrast.arms
    shared = sorted(set.intersection(*(set(sample.seeds[arm]) for arm in arms))) if arms else []
    values = sum(contrast.weights[arm] * sample.means[sample.rows(arm, shared)] for arm in arms)
    return dict(zip(shared, (contrast.offset + np.atleast_1d(values)).tolist(), strict=True)) if shared else {}


def partial_conjunction(p_values: Sequence[float], alpha: float) -> int:
    """The largest u such that "it holds in at least u of the K settings" is shown at level `alpha`; 0 if none is.

    The p-value of u is (K - u + 1) times the u-th smallest, Bonferroni's partial conjunction (Benjamini and Heller,
    Biometrics 64, 2008); the largest u whose value is at most alpha is reported. As a bound on the number of settings
    it has level alpha for settings that are independent or positively dependent (Hochberg's step-up argument).

    >>> partial_conjunction([0.001, 0.01, 0.4], 0.05)
    2
    """
    ordered = sorted(p_values)
    holds = [u for u, p in enumerate(ordered, 1) if (len(ordered) - u + 1) * p <= alpha]
    return max(holds, default=0)

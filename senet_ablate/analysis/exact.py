"""Exact tests on counts and ranks, for networks whose runs no variance describes: separation, and lost runs."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np

from senet_ablate.analysis.evidence import Evidence

LEAST_UNSTABLE, LEAST_OTHER = 5, 4
"""Runs of an unstable arm, and of the arm it is compared with, from which their complete separation counts."""

LOST_SHARE = 0.2
"""If more of an arm's runs than this share diverged, no mean decides."""


@dataclass(frozen=True)
class Separation:
    """Runs of two arms, of which one is unstable; `a_above` says that each run of a lies above each of b."""

    runs: tuple[int, int]
    a_above: bool
    b_above: bool

    @property
    def orders(self) -> int:
        """In how many ways the runs of both could be distributed, all as probable if the arms made no difference."""
        return comb(sum(self.runs), self.runs[0])

    def p(self, *, above: bool) -> float:
        """One-sided p-value of the runs of a lying above (else below) those of b: 1 over `orders`, or 1."""
        return 1 / self.orders if (self.a_above if above else self.b_above) else 1.0


def least_runs(evidence: Evidence, a: int, b: int) -> tuple[int, int] | None:
    """Runs that two arms need before their separation counts; None where neither is unstable."""
    if evidence.noise is None or not evidence.noise.unstable[[a, b]].any():
        return None
    need = [LEAST_UNSTABLE if evidence.noise.unstable[arm] else LEAST_OTHER for arm in (a, b)]
    return need[0], need[1]


def apart(evidence: Evidence, a: int, b: int) -> tuple[bool, bool]:
    """Whether each run of arm a lies above each of arm b, and the other way about."""
    one, other = (evidence.sample.means[evidence.sample.rows(arm)] for arm in (a, b))
    if not len(one) or not len(other):
        return False, False
    return bool(one.min() > other.max()), bool(other.min() > one.max())


def separation(evidence: Evidence, a: int, b: int) -> Separation | None:
    """The separation of two arms of which one is unstable; None where the rule does not apply.

    Student's t misses the clearest effects there: the worse an arm's runs collapse, the larger its variance. Under no
    difference all orders of the runs are as probable, so this needs no variance.
    """
    need = least_runs(evidence, a, b)
    counts = int(evidence.counts[a]), int(evidence.counts[b])
    if need is None or counts[0] < need[0] or counts[1] < need[1]:
        return None
    return Separation(counts, *apart(evidence, a, b))


@dataclass(frozen=True)
class Losses:
    """Runs that diverged or collapsed, and all runs, of each arm; counted by rules on training data alone."""

    lost: np.ndarray
    diverged: np.ndarray
    total: np.ndarray

    @classmethod
    def of(cls, evidence: Evidence) -> Losses:
        """Count them."""
        diverged = np.array([evidence.diverged.get(arm, 0) for arm in evidence.arms])
        collapsed = np.array([evidence.collapsed.get(arm, 0) for arm in evidence.arms])
        return cls(diverged + collapsed, diverged, diverged + evidence.counts)

    def diverging(self, arm: int) -> bool:
        """Whether more than a fifth of the arm's runs diverged, so that no mean decides."""
        return bool(self.diverged[arm] > LOST_SHARE * self.total[arm])

    def dead(self, arm: int) -> bool:
        """Whether all runs of the arm are lost."""
        return bool(self.total[arm] and self.lost[arm] == self.total[arm])

    def p(self, arm: int) -> float:
        """Fisher's exact test, one-sided: that the arm loses no more runs than all others of the study."""
        lost, runs = int(self.lost[arm]), int(self.total[arm])
        all_lost, all_runs = int(self.lost.sum()), int(self.total.sum())
        ways = sum(comb(runs, x) * comb(all_runs - runs, all_lost - x) for x in range(lost, min(runs, all_lost) + 1))
        return ways / comb(all_runs, all_lost)

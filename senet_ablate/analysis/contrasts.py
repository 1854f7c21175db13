"""What an atomic claim says as arithmetic: contrasts of mean errors, each written so that the claim wants it above 0.

A contrast is a vector of weights over arms. The SE gain g is the error of the network without SE less that of the
table's reference; "the same" and "immaterial" are contrasts with a share of it, so no gain need be known beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from senet_ablate.spec.ablation import Ablation, Arm
from senet_ablate.spec.claims import PLAIN, Equivalent, NoDifference, Retains, Rules, Superior


@dataclass(frozen=True, eq=False)
class Contrast:
    """`offset` plus the sum of weight times mean error over all arms of a study."""

    weights: np.ndarray
    offset: float = 0.0

    def __neg__(self) -> Contrast:
        return Contrast(-self.weights, -self.offset)

    def __add__(self, other: Contrast) -> Contrast:
        return Contrast(self.weights + other.weights, self.offset + other.offset)

    def __sub__(self, other: Contrast) -> Contrast:
        return self + -other

    def __rmul__(self, factor: float) -> Contrast:
        return Contrast(factor * self.weights, factor * self.offset)

    def at(self, means: np.ndarray) -> float:
        """The contrast's value where the arms' mean errors are `means`; arms without weight do not matter."""
        used = self.weights != 0
        return self.offset + float(self.weights[used] @ means[used])

    @property
    def arms(self) -> list[int]:
        """The arms that have a weight."""
        return np.flatnonzero(self.weights).tolist()

    @property
    def key(self) -> tuple[bytes, float]:
        """Equal for equal contrasts up to their sign."""
        first = self.weights[self.arms[0]]
        return ((self.weights * np.sign(first)).round(12) + 0.0).tobytes(), self.offset * float(np.sign(first))


@dataclass(frozen=True)
class TestedAtom:
    """An atom with its contrasts: `shown` is printed, `wanted` must be above 0, `margin` are rho g - D, rho g + D."""

    atom: Superior | Equivalent | Retains | NoDifference
    shown: Contrast
    wanted: tuple[Contrast, ...]
    margin: tuple[Contrast, ...]

    @property
    def family(self) -> tuple[Contrast, ...]:
        """All contrasts that a verdict on the atom may look at."""
        return (self.shown, *self.wanted, *self.margin)


class TableContrasts:
    """Contrasts of one table over the arms of a study, in their order."""

    def __init__(self, ablation: Ablation, arms: Sequence[Arm], rules: Rules) -> None:
        self.ablation, self.rules = ablation, rules
        self._place = {arm: place for place, arm in enumerate(arms)}
        self._arms = len(arms)

    def arm(self, name: str) -> int:
        """Place of a named arm among the study's."""
        return self._place[self.ablation.arm(name)]

    def mean(self, name: str) -> Contrast:
        """The mean error of one arm."""
        weights = np.zeros(self._arms)
        weights[self.arm(name)] = 1.0
        return Contrast(weights)

    @property
    def gain(self) -> Contrast:
        """The SE gain: the network without SE less the table's reference."""
        return self.mean(PLAIN) - self.mean(self.ablation.reference)

    def difference(self, worse: str, better: str) -> Contrast:
        """Mean error of one arm less that of another."""
        return self.mean(worse) - self.mean(better)

    def within(self, difference: Contrast, rho: float | None = None) -> tuple[Contrast, Contrast]:
        """Both above 0: the difference is smaller than the share `rho` of the gain (or the absolute margin)."""
        margin = (self.rules.margin_rho if rho is None else rho) * self.gain
        if rho is None and self.rules.margin_abs is not None:
            margin = Contrast(np.zeros(self._arms), self.rules.margin_abs)
        return margin - difference, margin + difference

    def printed(self) -> np.ndarray:
        """The paper's top-1 errors in percent at the places of this table's arms; NaN elsewhere."""
        means = np.full(self._arms, np.nan)
        for name in self.ablation.names:
            place, error = self._place.get(self.ablation.arm(name)), self.ablation.paper_top1(name)
            if place is not None and error is not None:
                means[place] = error
        return means

    def to_reference(self) -> dict[str, Contrast]:
        """Difference of each other row to the reference, by row."""
        reference = self.ablation.reference
        return {row.id: self.difference(row.id, reference) for row in self.ablation.rows if row.id != reference}

    def tested(self, atom: Superior | Equivalent | Retains | NoDifference) -> TestedAtom:
        """The contrasts of one simple atom."""
        match atom:
            case Superior(worse=worse, better=better):
                shown = self.difference(worse, better)
                return TestedAtom(atom, shown, (shown,), self.within(shown))
            case Equivalent(arms=pair):
                one, other = pair
                shown = self.difference(one, other)
                return TestedAtom(atom, shown, self.within(shown), self.within(shown))
            case Retains(arm=arm, share=share):
                kept = self.difference(PLAIN, arm) - share * self.gain
                return TestedAtom(atom, kept, (kept, self.gain), ())
            case NoDifference(arm=arm, than=than):
                return TestedAtom(atom, self.difference(arm, than), (), ())

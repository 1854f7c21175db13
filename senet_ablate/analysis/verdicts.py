"""Verdicts as data: reproduced, contradicted, or not resolved at this budget, with the numbers behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from senet_ablate.spec.ablation import Ablation
from senet_ablate.spec.claims import Atom, Claim, Fewer

Verdict = Literal["reproduced", "contradicted", "not resolved"]
Answer = Literal["yes", "no", "open"]

PAPER_SD = 0.17
"""Standard deviation in points of a difference of two single ResNet-50 runs on ImageNet (0.12 each)."""

WITHIN_NOISE_Z = 1.645
"""A published difference below this many standard deviations is itself within run noise."""


@dataclass(frozen=True)
class AtomVerdict:
    """Verdict on one atom. Estimate, interval and errors are in points of error; the interval is simultaneous.

    `confidence` is 1 - p, the flat-prior probability of the claim's direction. `rho_star` is the smallest share of the
    SE gain within which two arms were shown equal. `more_seeds` would decide it with 80 % power if the paper's share of
    the gain were true.
    """

    atom: Atom
    verdict: Verdict
    reason: str
    paper_value: float | None = None
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    se: float | None = None
    df: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    new_images: Answer = "open"
    rho_star: float | None = None
    more_seeds: int | None = None
    n: tuple[int, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def confidence(self) -> float | None:
        """The flat-prior probability that the claim's direction is right."""
        return None if self.p is None else 1 - self.p

    @property
    def paper_z(self) -> float | None:
        """The paper's difference in standard deviations of the difference of two single runs."""
        return None if self.paper_value is None else self.paper_value / PAPER_SD


@dataclass(frozen=True)
class FindingVerdict:
    """Verdict on one claim of a table, with that on each of its atoms.

    `level` is what each one-sided test had to reach, `coverage` the confidence of the simultaneous intervals.
    """

    ablation: Ablation
    claim: Claim
    verdict: Verdict
    reason: str
    atoms: tuple[AtomVerdict, ...]
    level: float
    coverage: float = 0.95

    @property
    def new_images(self) -> Answer:
        """Whether the verdict also holds for new images of the same kind."""
        answers = {atom.new_images for atom in self.atoms if not isinstance(atom.atom, Fewer)}
        if self.verdict == "contradicted":
            return "no" if "no" in answers else "open"
        return "yes" if answers == {"yes"} else "open"

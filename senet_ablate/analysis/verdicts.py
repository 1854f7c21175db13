"""Verdicts as data: reproduced, contradicted, or not resolved at this budget, with the numbers behind them."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

from senet_ablate.analysis.audit import Departure
from senet_ablate.spec.ablation import Ablation
from senet_ablate.spec.claims import Atom, Claim, Fewer

Verdict = Literal["reproduced", "contradicted", "not resolved"]
Answer = Literal["yes", "no", "open"]

PAPER_SD = 0.17
"""Standard deviation in points of a difference of two single ResNet-50 runs on ImageNet (0.12 each)."""

WITHIN_NOISE_Z = 1.645
"""A published difference below this many standard deviations is itself within run noise."""

STUDY_RATE = 0.12
"""Share of simulated studies without any effect that show some false finding; `calibrate` measures both rates."""

FEW_SEEDS_RATE = 0.10
"""Share of them with a false finding in the table of a network of three times the noise, with three seeds each."""


def either_way(p: float | None, level: float) -> Verdict:
    """The verdict of a one-sided p-value where both directions are tested at `level`; None leaves it open."""
    if p is None or min(p, 1 - p) > level:
        return "not resolved"
    return "reproduced" if p <= level else "contradicted"


class Reason(enum.Enum):
    """The kinds of reasons that stand behind a verdict."""

    REVERSED = enum.auto()
    IMMATERIAL = enum.auto()
    TOO_DIFFERENT = enum.auto()
    LOSES_GAIN = enum.auto()
    FALSE_ALARM = enum.auto()
    WITHIN_NOISE = enum.auto()
    WIDE_INTERVAL = enum.auto()
    NO_GAIN = enum.auto()
    NOT_RUN = enum.auto()
    ONE_SEED = enum.auto()
    SEEDS_WITHOUT_EFFECT = enum.auto()
    UNSTABLE = enum.auto()
    BY_INSTABILITY = enum.auto()
    CONDITIONAL_ON_CONVERGENCE = enum.auto()
    EXACT_COUNT = enum.auto()
    UNDECLARED_DIFFERENCE = enum.auto()
    REACHED_EARLIER = enum.auto()
    GIVEN_UP = enum.auto()
    SEPARATED = enum.auto()
    COLLAPSED = enum.auto()


@dataclass(frozen=True)
class Explanation:
    """A reason with what it is about; which fields are set depends on its kind.

    `arms` are slugs, `diverged` has (diverged runs, all runs) of each. A margin is in `points` or a `share` of the SE
    gain; `share` is also what an arm was claimed to keep of it. `fewer` of `quantity` is negative where they are more.
    `look` is the interim analysis at which a verdict was reached. `runs` are those of two arms that lie apart, the
    worse arm's first, though their networks differ in a `factor` alone.
    """

    kind: Reason
    arms: tuple[str, ...] = ()
    diverged: tuple[tuple[int, int], ...] = ()
    points: float | None = None
    share: float | None = None
    fewer: int = 0
    quantity: Literal["params", "macs"] = "params"
    undeclared: tuple[Departure, ...] = ()
    look: int = 0
    runs: tuple[int, int] = (0, 0)
    factor: str = ""


@dataclass(frozen=True)
class AtomVerdict:
    """Verdict on one atom. Estimate, interval and errors are in points of error; the interval is simultaneous.

    `confidence` is 1 - p, the flat-prior probability of the claim's direction. `rho_star` is the smallest share of the
    SE gain within which two arms were shown equal. `more_seeds` would decide it with 80 % power if the paper's share of
    the gain were true; with `if_apart`, if all their runs lie apart as they do so far. `bound` is what the tests' level
    leaves of the estimate: the one-sided bound that decided, with its confidence.
    """

    atom: Atom
    verdict: Verdict
    reason: Explanation | None = None
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
    if_apart: bool = False
    bound: float | None = None
    bound_confidence: float | None = None
    n: tuple[int, ...] = ()
    flags: tuple[Explanation, ...] = ()

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
    reasons: tuple[Explanation, ...]
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

"""What an open verdict leaves to know: within which share of the gain arms are equal, how many seeds are missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from senet_ablate.contrasts import Contrast
from senet_ablate.judge import TableJudge
from senet_ablate.power import seeds_needed
from senet_ablate.spec.claims import Equivalent, Fewer, NoDifference
from senet_ablate.verdicts import AtomVerdict, FindingVerdict

LARGEST_RHO = 4.0


def advise(judge: TableJudge, finding: FindingVerdict) -> FindingVerdict:
    """Add `rho_star` and `more_seeds` to the atoms of a finding."""
    return replace(finding, atoms=tuple(_advised(judge, atom) for atom in finding.atoms))


def _advised(judge: TableJudge, found: AtomVerdict) -> AtomVerdict:
    if isinstance(found.atom, (Fewer, NoDifference)) or found.p is None or found.se is None:
        return found
    tested = judge.contrasts.tested(found.atom)
    return replace(
        found,
        rho_star=equal_within(judge, tested.shown) if isinstance(found.atom, Equivalent) else None,
        more_seeds=more_seeds(judge, tested.wanted) if found.verdict == "not resolved" else None,
    )


def equal_within(judge: TableJudge, difference: Contrast) -> float | None:
    """Smallest share of the SE gain within which two arms pass as the same; None if there is none up to 4."""
    from scipy.optimize import brentq  # a quarter of a second to import

    def miss(rho: float) -> float:
        found = [judge.evidence.difference(contrast) for contrast in judge.contrasts.within(difference, rho)]
        return max(each.p_above() for each in found if each is not None) - judge.level

    if judge.evidence.difference(judge.contrasts.gain) is None or miss(LARGEST_RHO) > 0:
        return None
    return float(brentq(miss, 0.0, LARGEST_RHO, xtol=1e-4))


def more_seeds(judge: TableJudge, wanted: tuple[Contrast, ...]) -> int | None:
    """Further seeds of each arm that would decide an atom with 80 % power; None where no number up to 1,000 would.

    The planned effect is the paper's share of the gain, where this study resolved a gain, else the paper's effect in
    points; never the effect that was seen.
    """
    evidence, noise = judge.evidence, judge.evidence.noise
    planned = judge.paper_means
    arms = sorted({arm for contrast in wanted for arm in contrast.arms})
    if noise is None or np.isnan(planned[arms]).any():
        return None
    gain = judge.contrasts.gain
    found = evidence.difference(gain)
    if found is not None and judge.sure(gain) > 0:
        planned = planned * (found.estimate / gain.at(planned))
    one_seed = noise.one_seed_covariance()
    active = int((evidence.counts > 0).sum())
    needed = [
        seeds_needed(contrast.weights, contrast.at(planned), one_seed, judge.level, lambda n: max(1, active * (n - 1)))
        for contrast in wanted
    ]
    if any(count is None for count in needed):
        return None
    most = max(count for count in needed if count is not None)
    return max(1, most - int(evidence.counts[arms].min()))

"""What runs like these could decide: seeds still needed, the equivalence bound, the minimum detectable effect."""

from __future__ import annotations

import statistics
from dataclasses import replace
from math import comb

import numpy as np

from senet_ablate.analysis.contrasts import Contrast
from senet_ablate.analysis.exact import apart, least_runs
from senet_ablate.analysis.judge import TableJudge
from senet_ablate.analysis.power import most_seeds, noncentrality
from senet_ablate.analysis.verdicts import AtomVerdict, FindingVerdict
from senet_ablate.spec.claims import Equivalent, Fewer, NoDifference, Superior

LARGEST_RHO = 4.0


def advise(judge: TableJudge, finding: FindingVerdict) -> FindingVerdict:
    """Add `rho_star` and `more_seeds` to the atoms of a finding."""
    return replace(finding, atoms=tuple(_advised(judge, atom) for atom in finding.atoms))


def _advised(judge: TableJudge, found: AtomVerdict) -> AtomVerdict:
    if isinstance(found.atom, (Fewer, NoDifference)) or found.p is None or found.se is None:
        return found
    tested = judge.contrasts.tested(found.atom)
    rho_star = equal_within(judge, tested.shown) if isinstance(found.atom, Equivalent) else None
    if found.verdict != "not resolved":
        return replace(found, rho_star=rho_star)
    more, ranks = more_seeds(judge, tested.wanted), None
    if isinstance(found.atom, Superior):
        ranks = more_seeds_apart(judge, judge.contrasts.arm(found.atom.worse), judge.contrasts.arm(found.atom.better))
    if_apart = ranks is not None and (more is None or ranks < more)
    return replace(found, rho_star=rho_star, more_seeds=ranks if if_apart else more, if_apart=if_apart)


def more_seeds_apart(judge: TableJudge, worse: int, better: int) -> int | None:
    """Further seeds of both arms at which their separation decides, if it lasts; None where they are not apart now."""
    evidence = judge.evidence
    need = least_runs(evidence, worse, better)
    if need is None or not apart(evidence, worse, better)[0]:
        return None
    now = int(evidence.counts[worse]), int(evidence.counts[better])
    more = max(1, *(least - count for least, count in zip(need, now, strict=True)))
    while 2 / comb(sum(now) + 2 * more, now[0] + more) > judge.level:
        more += 1
    return more


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
    active = int((evidence.counts > 0).sum())
    effects = [(contrast.at(planned), contrast) for contrast in wanted]
    most = most_seeds(effects, noise.one_seed_covariance(), judge.level, active)
    return None if most is None else max(1, most - int(evidence.counts[arms].min()))


def smallest_effect(judge: TableJudge) -> float | None:
    """Smallest difference to the reference that the table's runs find with 80 % power; the median over its rows."""
    found = [judge.evidence.difference(contrast) for contrast in judge.contrasts.to_reference().values()]
    sizes = [noncentrality(judge.level, each.df) * each.se for each in found if each is not None]
    return statistics.median(sizes) if sizes else None

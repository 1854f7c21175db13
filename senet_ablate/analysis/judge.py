"""Which findings hold: reproduced, contradicted, or not resolved at this budget.

A finding is reproduced if each of its atoms passes its own one-sided test (intersection-union, so no correction inside
a finding), and contradicted if the simultaneous interval of any atom says the opposite. A difference without a verdict
is never "no difference".
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from math import comb

import numpy as np

from senet_ablate.analysis import distributions
from senet_ablate.analysis.contrasts import Contrast, TableContrasts, TestedAtom
from senet_ablate.analysis.distributions import MaxT, max_t
from senet_ablate.analysis.evidence import Evidence
from senet_ablate.analysis.noise import Difference
from senet_ablate.analysis.power import noncentrality, seeds_needed
from senet_ablate.analysis.verdicts import AtomVerdict, Explanation, FindingVerdict, Reason, Verdict
from senet_ablate.spec.ablation import Ablation
from senet_ablate.spec.claims import Atom, Claim, Equivalent, Fewer, NoDifference, Retains, Superior

DIVERGED_SHARE = 0.2


class TableJudge:
    """Judges the claims of one table on the evidence of a whole study.

    Args:
        ablation: the table with its claims.
        evidence: all arms of the study; the noise is pooled over all of them.
        findings: number of findings of the suite, over which `family = "suite"` divides alpha.
        simultaneous: distribution of the largest |t|, by default over this table's contrasts.
    """

    def __init__(
        self, ablation: Ablation, evidence: Evidence, findings: int = 1, simultaneous: MaxT | None = None
    ) -> None:
        self.ablation, self.evidence, self.rules = ablation, evidence, evidence.rules
        self.contrasts = TableContrasts(ablation, evidence.arms, self.rules)
        family = sum(not claim.secondary for claim in ablation.claims) or 1
        self.level = self.rules.alpha_per_look / (findings if self.rules.family == "suite" else family)
        self._given = simultaneous

    @cached_property
    def simultaneous(self) -> MaxT | None:
        """Distribution of the largest |t| over the table; None without a noise model or anything to compare."""
        return self._given or largest_t([self])

    @cached_property
    def pointwise(self) -> float:
        """Two-sided p-value that stands for the simultaneous level."""
        alpha = self.rules.alpha_per_look
        return self.simultaneous.pointwise(alpha) if self.simultaneous else alpha

    def family(self) -> list[Contrast]:
        """What may be looked at together: the gain, differences to the reference, contrasts of atoms in the family."""
        tested = [
            contrast
            for claim in self.ablation.claims
            if not claim.secondary
            for atom in claim.simple_atoms()
            if not isinstance(atom, Fewer)
            for contrast in self.contrasts.tested(atom).family
        ]
        gain = [self.contrasts.gain] if self.ablation.claims else []
        everything = [*gain, *self.contrasts.to_reference().values(), *tested]
        known = [c for c in everything if c.arms and (self.evidence.counts[c.arms] > 0).all()]
        return list({contrast.key: contrast for contrast in known}.values())

    def interval(self, difference: Difference) -> tuple[float, float]:
        """The simultaneous interval at the rules' alpha."""
        half = distributions.quantile(self.pointwise / 2, difference.df) * difference.se
        return difference.estimate - half, difference.estimate + half

    def judge(self) -> list[FindingVerdict]:
        """All claims of the table, the secondary ones as well."""
        return [self._finding(claim) for claim in self.ablation.claims]

    def _finding(self, claim: Claim) -> FindingVerdict:
        atoms = tuple(self._atom(atom) for atom in claim.simple_atoms())
        against = [atom for atom in atoms if atom.verdict == "contradicted"]
        open_atoms = [atom for atom in atoms if atom.verdict == "not resolved"]
        verdict: Verdict = "contradicted" if against else "not resolved" if open_atoms else "reproduced"
        reasons = dict.fromkeys(atom.reason for atom in (against or open_atoms or atoms) if atom.reason)
        coverage = 1 - self.rules.alpha_per_look
        return FindingVerdict(self.ablation, claim, verdict, tuple(reasons), atoms, self.level, coverage)

    def _atom(self, atom: Atom) -> AtomVerdict:
        if isinstance(atom, Fewer):
            return self._count(atom)
        evidence, tested = self.evidence, self.contrasts.tested(atom)
        # Without the margin: where plain has no runs a difference can still be seen, only not be called immaterial.
        arms = sorted({arm for contrast in (tested.shown, *tested.wanted) for arm in contrast.arms})
        shown = evidence.difference(tested.shown)
        blank = AtomVerdict(
            atom,
            "not resolved",
            paper_value=self._paper_value(tested),
            n=tuple(int(evidence.counts[arm]) for arm in arms),
            flags=self._flags(arms),
        )
        unstable = self._instability(blank, arms)
        if unstable is not None:
            return unstable
        if shown is None:
            return replace(blank, reason=self._unfit(arms))
        low, high = self.interval(shown)
        found = replace(blank, estimate=shown.estimate, low=low, high=high, se=shown.se, df=shown.df)
        unfit = self._unfit(arms)
        if unfit:
            return replace(found, reason=unfit)
        if isinstance(atom, NoDifference):
            p = 2 * distributions.tail(abs(shown.estimate) / shown.se, shown.df)
            if low <= 0 <= high:
                return replace(found, verdict="reproduced", p=p)
            return replace(found, verdict="contradicted", p=p, reason=Explanation(Reason.FALSE_ALARM))
        results = [evidence.difference(contrast) for contrast in tested.wanted]
        known = [result for result in results if result is not None]
        p = max(result.p_above() for result in known)
        found = replace(
            found,
            p=p,
            p_adjusted=self.simultaneous.adjusted(min(1.0, 2 * p)) if self.simultaneous else None,
        )
        if p <= self.level:
            new = max(result.p_above(new_images=True) for result in known) <= self.level
            return replace(found, verdict="reproduced", new_images="yes" if new else "open")
        reason = self._against(tested)
        if reason:
            new = bool(self._against(tested, new_images=True))
            return replace(found, verdict="contradicted", reason=reason, new_images="no" if new else "open")
        return replace(found, reason=self._why_open(atom))

    def _failing(self, arms: Sequence[int]) -> list[int]:
        """Arms of which more than a fifth of the runs diverged."""
        evidence = self.evidence
        lost = {arm: evidence.diverged.get(evidence.arms[arm], 0) for arm in arms}
        return [arm for arm in arms if lost[arm] > DIVERGED_SHARE * (lost[arm] + evidence.counts[arm])]

    def _unfit(self, arms: Sequence[int]) -> Explanation | None:
        """Why these arms' runs cannot give a verdict, or None: too many diverged, none, one, or all the same."""
        evidence, noise = self.evidence, self.evidence.noise

        def of(kind: Reason, which: Sequence[int]) -> Explanation | None:
            return Explanation(kind, tuple(evidence.arms[arm].slug for arm in which)) if which else None

        return (
            of(Reason.UNSTABLE, self._failing(arms))
            or of(Reason.NOT_RUN, [arm for arm in arms if evidence.counts[arm] == 0])
            or of(Reason.ONE_SEED, [arm for arm in arms if evidence.counts[arm] == 1])
            or of(Reason.SEEDS_WITHOUT_EFFECT, [arm for arm in arms if noise is None or noise.b[arm] == 0])
        )

    def sure(self, contrast: Contrast, *, new_images: bool = False) -> int:
        """Sign of a contrast whose simultaneous interval leaves out 0, else 0."""
        found = self.evidence.difference(contrast)
        if found is None or self._unfit(contrast.arms):
            return 0
        se = found.se_new_images if new_images else found.se
        half = distributions.quantile(self.pointwise / 2, found.df) * se
        return int(np.sign(found.estimate)) if abs(found.estimate) > half else 0

    def _against(self, tested: TestedAtom, *, new_images: bool = False) -> Explanation | None:
        """Why the simultaneous intervals contradict an atom, or None."""

        def sure(contrast: Contrast) -> int:
            return self.sure(contrast, new_images=new_images)

        gain = sure(self.contrasts.gain) > 0 or self.rules.margin_abs is not None
        match tested.atom:
            case Superior():
                if sure(tested.shown) < 0:
                    return Explanation(Reason.REVERSED)
                if sure(tested.shown) == 0 and gain and all(sure(contrast) > 0 for contrast in tested.margin):
                    return self._by_margin(Reason.IMMATERIAL)
            case Equivalent():
                if gain and any(sure(contrast) < 0 for contrast in tested.margin):
                    return self._by_margin(Reason.TOO_DIFFERENT)
            case Retains(share=share):
                if sure(self.contrasts.gain) > 0 and sure(tested.shown) < 0:
                    return Explanation(Reason.LOSES_GAIN, share=share)
        return None

    def _by_margin(self, kind: Reason) -> Explanation:
        if self.rules.margin_abs is not None:
            return Explanation(kind, points=self.rules.margin_abs)
        return Explanation(kind, share=self.rules.margin_rho)

    def _why_open(self, atom: Atom) -> Explanation:
        needs_gain = isinstance(atom, Retains) or (isinstance(atom, Equivalent) and self.rules.margin_abs is None)
        if needs_gain and self.sure(self.contrasts.gain) <= 0:
            return Explanation(Reason.NO_GAIN)
        if isinstance(atom, Equivalent):
            return self._by_margin(Reason.WIDE_INTERVAL)
        return Explanation(Reason.WITHIN_NOISE)

    def _count(self, atom: Fewer) -> AtomVerdict:
        one, other = (self.evidence.cost.get(self.ablation.arm(name)) for name in (atom.arm, atom.than))
        if one is None or other is None:
            return AtomVerdict(atom, "not resolved", Explanation(Reason.NOT_RUN))
        difference = getattr(other, atom.quantity) - getattr(one, atom.quantity)
        verdict: Verdict = "reproduced" if difference > 0 else "contradicted"
        reason = Explanation(Reason.EXACT_COUNT, fewer=difference, quantity=atom.quantity)
        return AtomVerdict(atom, verdict, reason, new_images="yes")

    def _instability(self, blank: AtomVerdict, arms: Sequence[int]) -> AtomVerdict | None:
        """Where more than a fifth of an arm's runs diverged no mean decides; that may itself be the finding."""
        failing = self._failing(arms)
        if not failing:
            return None
        lost = {arm: self.evidence.diverged.get(self.evidence.arms[arm], 0) for arm in arms}
        total = {arm: int(self.evidence.counts[arm]) + lost[arm] for arm in arms}
        slugs = tuple(self.evidence.arms[arm].slug for arm in failing)
        unstable = Explanation(Reason.UNSTABLE, slugs, tuple((lost[arm], total[arm]) for arm in failing))
        if isinstance(blank.atom, Superior):
            worse, better = self.contrasts.arm(blank.atom.worse), self.contrasts.arm(blank.atom.better)
            if failing == [worse] and not lost[better]:
                # Fisher's exact test, one-sided; with no loss on the other side it has this one term.
                p = comb(total[worse], lost[worse]) / comb(total[worse] + total[better], lost[worse])
                if p < self.level:
                    reason = replace(unstable, kind=Reason.BY_INSTABILITY)
                    return replace(blank, verdict="reproduced", reason=reason, p=p)
        return replace(blank, reason=unstable)

    def _flags(self, arms: Sequence[int]) -> tuple[Explanation, ...]:
        evidence = self.evidence
        lost = {arm: evidence.diverged.get(evidence.arms[arm], 0) for arm in arms}
        flags = [
            Explanation(
                Reason.CONDITIONAL_ON_CONVERGENCE,
                (evidence.arms[arm].slug,),
                ((count, count + int(evidence.counts[arm])),),
            )
            for arm, count in lost.items()
            if count
        ]
        if evidence.noise is not None:
            unstable = [evidence.arms[arm].slug for arm in arms if evidence.noise.unstable[arm]]
            flags += [Explanation(Reason.UNSTABLE, (slug,)) for slug in unstable]
        return tuple(flags)

    def _paper_value(self, tested: TestedAtom) -> float | None:
        """The atom's shown contrast on the paper's printed errors; None where it prints none."""
        value = tested.shown.at(self.paper_means)
        return None if np.isnan(value) else value

    @cached_property
    def paper_means(self) -> np.ndarray:
        """The paper's top-1 errors at the places of this table's arms; NaN elsewhere."""
        return self.contrasts.printed()


def largest_t(judges: Sequence[TableJudge]) -> MaxT | None:
    """Distribution of the largest |t| over the families of one table, or of all tables together."""
    contrasts = list({contrast.key: contrast for judge in judges for contrast in judge.family()}.values())
    if judges[0].evidence.noise is None or not contrasts:
        return None
    return largest_t_of(judges[0].evidence, contrasts)


def largest_t_of(evidence: Evidence, contrasts: Sequence[Contrast]) -> MaxT:
    """Distribution of the largest |t| over contrasts of arms that have runs; needs a noise model."""
    assert evidence.noise is not None
    found = [evidence.difference(contrast) for contrast in contrasts]
    # The largest df: on the scale of p-values that is the careful choice for contrasts of fewer.
    df = max(difference.df for difference in found if difference is not None)
    arms = sorted({arm for contrast in contrasts for arm in contrast.arms})
    weights = np.array([contrast.weights[arms] for contrast in contrasts])
    paired = evidence.rules.pairing != "none"
    return max_t(weights, evidence.noise.covariance_of_means(arms, paired=paired), df, evidence.draws)


def judges_of(ablations: Sequence[Ablation], evidence: Evidence) -> list[TableJudge]:
    """One judge for each table; `family = "suite"` gives them one critical value together."""
    findings = sum(not claim.secondary for ablation in ablations for claim in ablation.claims) or 1
    judges = [TableJudge(ablation, evidence, findings) for ablation in ablations]
    if evidence.rules.family == "suite" and judges:
        together = largest_t(judges)
        judges = [TableJudge(ablation, evidence, findings, together) for ablation in ablations]
    return judges


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


def may_be_best(judge: TableJudge) -> set[str]:
    """Rows that are not distinguishable from the best: all pairs of rows at a simultaneous 95 %; empty without noise.

    The truly best row is left out with a chance of at most 5 %.
    """
    evidence, contrasts = judge.evidence, judge.contrasts
    rows = [row.id for row in judge.ablation.rows if evidence.counts[contrasts.arm(row.id)] > 0]
    if evidence.noise is None or len(rows) < 2:
        return set()
    pairs = [contrasts.difference(one, other) for place, one in enumerate(rows) for other in rows[:place]]
    level = largest_t_of(evidence, pairs).pointwise(evidence.rules.alpha)
    means = {row: evidence.sample.arm_means[contrasts.arm(row)] for row in rows}
    lowest = min(rows, key=lambda row: means[row])
    near = {lowest}
    for row in set(rows) - near:
        found = evidence.difference(contrasts.difference(row, lowest))
        if found is not None and distributions.tail(found.estimate / found.se, found.df) > level / 2:
            near.add(row)
    return near


def smallest_effect(judge: TableJudge) -> float | None:
    """Smallest difference to the reference that the table's runs find with 80 % power; the median over its rows."""
    found = [judge.evidence.difference(contrast) for contrast in judge.contrasts.to_reference().values()]
    sizes = [noncentrality(judge.level, each.df) * each.se for each in found if each is not None]
    return statistics.median(sizes) if sizes else None

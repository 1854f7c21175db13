"""Which findings hold: reproduced, contradicted, or not resolved at this budget.

A finding is reproduced if each of its atoms passes its own one-sided test (intersection-union, so no correction inside
a finding), and contradicted if the simultaneous interval of any atom says the opposite. A difference without a verdict
is never "no difference". Where an arm is unstable, or its runs are lost, exact tests on ranks and counts stand beside
(`exact.py`); they share the level with Student's t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from senet_ablate.analysis import distributions
from senet_ablate.analysis.contrasts import Contrast, TableContrasts, TestedAtom
from senet_ablate.analysis.distributions import MaxT, max_t
from senet_ablate.analysis.evidence import Evidence
from senet_ablate.analysis.exact import Losses, Separation, separation
from senet_ablate.analysis.noise import Difference
from senet_ablate.analysis.verdicts import AtomVerdict, Explanation, FindingVerdict, Reason, Verdict
from senet_ablate.spec.ablation import Ablation
from senet_ablate.spec.claims import Atom, Claim, Equivalent, Fewer, NoDifference, Retains, Superior


class TableJudge:
    """Judges the claims of one table on the evidence of a whole study.

    Args:
        ablation: the table with its claims.
        evidence: all arms of the study; the noise is pooled over all of them.
        together: the tables whose findings share the level, by default this one; of `family = "study"` all.
        simultaneous: distribution of the largest |t|, by default over this table's contrasts.
    """

    def __init__(
        self,
        ablation: Ablation,
        evidence: Evidence,
        together: Sequence[Ablation] = (),
        simultaneous: MaxT | None = None,
    ) -> None:
        self.ablation, self.evidence, self.rules = ablation, evidence, evidence.rules
        self.contrasts = TableContrasts(ablation, evidence.arms, self.rules)
        self.losses = Losses.of(evidence)
        tables = together or [ablation]
        self.level = self.rules.alpha_per_look / max(1, sum(len(table.primary) for table in tables))
        self._superiors = max(1, sum(len(superior_atoms(table)) for table in tables))
        self._given = simultaneous

    @cached_property
    def simultaneous(self) -> MaxT | None:
        """Distribution of the largest |t| over the table; None without a noise model or anything to compare."""
        return self._given or largest_t([self])

    @cached_property
    def pointwise(self) -> float:
        """Two-sided p-value that stands for the simultaneous level."""
        alpha = 1 - self.coverage
        return self.simultaneous.pointwise(alpha) if self.simultaneous else alpha

    @cached_property
    def coverage(self) -> float:
        """Confidence of the table's simultaneous intervals; exact tests, where they apply, take half of the error."""
        alpha = self.rules.alpha_per_look
        pairs = [self._places(atom) for atom in superior_atoms(self.ablation)]
        exact = any(
            separation(self.evidence, *pair) or any(self.losses.diverging(a) or self.losses.dead(a) for a in pair)
            for pair in pairs
        )
        return 1 - (alpha / 2 if exact else alpha)

    @property
    def exact_level(self) -> float:
        """What an exact test must reach to reverse a comparison."""
        return self.rules.alpha_per_look / (2 * self._superiors)

    def _places(self, atom: Superior) -> tuple[int, int]:
        return self.contrasts.arm(atom.worse), self.contrasts.arm(atom.better)

    def family(self) -> list[Contrast]:
        """What may be looked at together: the gain, differences to the reference, contrasts of atoms in the family."""
        tested = [
            contrast
            for claim in self.ablation.primary
            for atom in claim.simple_atoms()
            if not isinstance(atom, Fewer)
            for contrast in self.contrasts.tested(atom).family
        ]
        gain = [self.contrasts.gain] if self.ablation.claims else []
        everything = [*gain, *self.contrasts.to_reference().values(), *tested]
        known = [c for c in everything if c.arms and (self.evidence.counts[c.arms] > 0).all()]
        return list({contrast.key: contrast for contrast in known}.values())

    def half_width(self, contrast: Contrast) -> float | None:
        """Half of a contrast's simultaneous interval; None where an arm has not two runs: one seed shows no noise."""
        found = self.evidence.difference(contrast)
        if found is None or self.evidence.noise is None or (self.evidence.counts[contrast.arms] < 2).any():
            return None
        return self.times_se(found) * found.se

    def times_se(self, difference: Difference) -> float:
        """By how many standard errors a simultaneous interval reaches to each side."""
        return distributions.quantile(self.pointwise / 2, difference.df)

    def judge(self) -> list[FindingVerdict]:
        """All claims of the table, the secondary ones as well."""
        return [self._finding(claim) for claim in self.ablation.claims]

    def _finding(self, claim: Claim) -> FindingVerdict:
        atoms = tuple(self._atom(atom) for atom in claim.simple_atoms())
        against = [atom for atom in atoms if atom.verdict == "contradicted"]
        open_atoms = [atom for atom in atoms if atom.verdict == "not resolved"]
        verdict: Verdict = "contradicted" if against else "not resolved" if open_atoms else "reproduced"
        reasons = dict.fromkeys(atom.reason for atom in (against or open_atoms or atoms) if atom.reason)
        return FindingVerdict(self.ablation, claim, verdict, tuple(reasons), atoms, self.level, self.coverage)

    def _atom(self, atom: Atom) -> AtomVerdict:
        if isinstance(atom, Fewer):
            return self._count(atom)
        evidence, tested = self.evidence, self.contrasts.tested(atom)
        # Without the margin: where plain has no runs a difference can still be seen, only not be called immaterial.
        arms = sorted({arm for contrast in (tested.shown, *tested.wanted) for arm in contrast.arms})
        shown = evidence.difference(tested.shown)
        printed = tested.shown.at(self.paper_means)
        blank = AtomVerdict(
            atom,
            "not resolved",
            paper_value=None if np.isnan(printed) else printed,
            n=tuple(int(evidence.counts[arm]) for arm in arms),
            flags=self._flags(arms),
        )
        lost = self._by_losses(blank)
        if lost is not None:
            return lost
        unfit = self._unfit(arms)
        if shown is None or unfit:
            lacks = shown is None or any(self.losses.diverging(arm) for arm in arms)
            return replace(blank, reason=unfit, estimate=None if lacks or shown is None else shown.estimate)
        half = self.times_se(shown) * shown.se
        low, high = shown.estimate - half, shown.estimate + half
        found = replace(blank, estimate=shown.estimate, low=low, high=high, se=shown.se, df=shown.df)
        if isinstance(atom, NoDifference):
            p = 2 * distributions.tail(abs(shown.estimate) / shown.se, shown.df)
            if low <= 0 <= high:
                return replace(found, verdict="reproduced", p=p)
            return replace(found, verdict="contradicted", p=p, reason=Explanation(Reason.FALSE_ALARM))
        results = [evidence.difference(contrast) for contrast in tested.wanted]
        known = [result for result in results if result is not None]
        p = max(result.p_above() for result in known)
        ranks = separation(evidence, *self._places(atom)) if isinstance(atom, Superior) else None
        by_ranks = ranks is not None and ranks.p(above=True) < p
        if ranks is not None:
            p = min(1.0, 2 * min(p, ranks.p(above=True)))
        found = replace(
            found,
            p=p,
            p_adjusted=self.simultaneous.adjusted(min(1.0, 2 * p)) if self.simultaneous else None,
        )
        if ranks is not None and p <= self.level and by_ranks:
            return replace(found, verdict="reproduced", reason=self._apart(ranks))
        level = self.level if ranks is None else self.level / 2
        if p <= self.level:
            new = max(result.p_above(new_images=True) for result in known) <= level
            found = replace(found, verdict="reproduced", new_images="yes" if new else "open")
            if isinstance(atom, Equivalent):
                return found
            bound = shown.estimate - distributions.quantile(level, shown.df) * shown.se
            return replace(found, bound=bound, bound_confidence=1 - level)
        if ranks is not None and ranks.p(above=False) <= self.exact_level:
            return replace(found, verdict="contradicted", reason=self._apart(ranks))
        reason = self._against(tested)
        if reason:
            new = bool(self._against(tested, new_images=True))
            return replace(found, verdict="contradicted", reason=reason, new_images="no" if new else "open")
        return replace(found, reason=self._why_open(atom))

    def _apart(self, ranks: Separation) -> Explanation:
        runs = ranks.runs if ranks.a_above else ranks.runs[::-1]
        kind = Reason.SEPARATED if ranks.a_above else Reason.REVERSED
        return Explanation(kind, runs=runs, factor=self.ablation.factor)

    def _unfit(self, arms: Sequence[int]) -> Explanation | None:
        """Why these arms' runs cannot give a verdict, or None: too many diverged, none, one, or all the same."""
        evidence, noise = self.evidence, self.evidence.noise

        which = {
            Reason.UNSTABLE: [arm for arm in arms if self.losses.diverging(arm)],
            Reason.NOT_RUN: [arm for arm in arms if evidence.counts[arm] == 0],
            Reason.ONE_SEED: [arm for arm in arms if evidence.counts[arm] == 1],
            Reason.SEEDS_WITHOUT_EFFECT: [arm for arm in arms if noise is None or noise.b[arm] == 0],
        }
        kind = next((kind for kind, some in which.items() if some), None)
        if kind is None:
            return None
        diverged = [(int(self.losses.diverged[arm]), int(self.losses.total[arm])) for arm in which[Reason.UNSTABLE]]
        return Explanation(kind, tuple(evidence.arms[arm].slug for arm in which[kind]), tuple(diverged))

    def sure(self, contrast: Contrast, *, new_images: bool = False) -> int:
        """Sign of a contrast whose simultaneous interval leaves out 0, else 0."""
        found = self.evidence.difference(contrast)
        if found is None or self._unfit(contrast.arms):
            return 0
        half = self.times_se(found) * (found.se_new_images if new_images else found.se)
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
                # Where the paper's own difference is within the margin a claim may be true though immaterial.
                within = all(contrast.at(self.paper_means) > 0 for contrast in tested.margin)
                same = gain and not within and all(sure(contrast) > 0 for contrast in tested.margin)
                if sure(tested.shown) == 0 and same:
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

    def _by_losses(self, blank: AtomVerdict) -> AtomVerdict | None:
        """A verdict by the number of lost runs, or none where too many diverged; None where means may decide.

        Lost are runs that diverged or collapsed. They decide where all runs of an arm are lost, or more than a fifth
        diverged, while the other arm lost none.
        """
        if not isinstance(blank.atom, Superior):
            return None
        losses, (worse, better) = self.losses, self._places(blank.atom)
        cases: list[tuple[int, int, Verdict]] = [(worse, better, "reproduced"), (better, worse, "contradicted")]
        for arm, other, verdict in cases:
            if not (losses.dead(arm) or losses.diverging(arm)) or losses.lost[other] or not losses.total[other]:
                continue
            p = losses.p(arm)
            if p <= (self.level if verdict == "reproduced" else self.exact_level):
                others = np.arange(len(losses.lost)) != arm
                counts = tuple((int(losses.lost[of].sum()), int(losses.total[of].sum())) for of in (~others, others))
                reason = Explanation(Reason.BY_INSTABILITY, (self.evidence.arms[arm].slug,), counts)
                return replace(blank, verdict=verdict, reason=reason, p=p if arm == worse else 1 - p)
        return None

    def _flags(self, arms: Sequence[int]) -> tuple[Explanation, ...]:
        losses, noise = self.losses, self.evidence.noise
        flags = []
        for arm in arms:
            slug, diverged = (self.evidence.arms[arm].slug,), int(losses.diverged[arm])
            if diverged:
                counts = (diverged, int(losses.total[arm]))
                flags.append(Explanation(Reason.CONDITIONAL_ON_CONVERGENCE, slug, (counts,)))
            if losses.lost[arm] > diverged:
                counts = (int(losses.lost[arm]) - diverged, int(losses.total[arm]))
                flags.append(Explanation(Reason.COLLAPSED, slug, (counts,)))
            if noise is not None and noise.unstable[arm]:
                flags.append(Explanation(Reason.UNSTABLE, slug))
        return tuple(flags)

    @cached_property
    def paper_means(self) -> np.ndarray:
        """The paper's top-1 errors at the places of this table's arms; NaN elsewhere."""
        return self.contrasts.printed()


def superior_atoms(ablation: Ablation) -> list[Superior]:
    """The "superior" comparisons in a table's family."""
    atoms = [atom for claim in ablation.primary for atom in claim.simple_atoms()]
    return [atom for atom in atoms if isinstance(atom, Superior)]


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
    return max_t(weights, evidence.noise.covariance_of_means(arms, paired=paired), df, evidence.points)


def judges_of(ablations: Sequence[Ablation], evidence: Evidence) -> list[TableJudge]:
    """One judge for each table; `family = "study"` gives them one critical value and one level together."""
    if evidence.rules.family == "table" or not ablations:
        return [TableJudge(ablation, evidence) for ablation in ablations]
    together = largest_t([TableJudge(ablation, evidence) for ablation in ablations])
    return [TableJudge(ablation, evidence, ablations, together) for ablation in ablations]


def may_be_best(judge: TableJudge) -> set[str]:
    """Rows not significantly different from the best: all pairs of rows at a simultaneous 95 %; empty without noise.

    The truly best row is left out with a chance of at most 5 %. A row that lost a run is never among them.
    """
    evidence, contrasts, lost = judge.evidence, judge.contrasts, judge.losses.lost
    places = {row.id: contrasts.arm(row.id) for row in judge.ablation.rows}
    rows = [row for row, arm in places.items() if evidence.counts[arm] > 0 and not lost[arm]]
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

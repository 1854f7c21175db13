"""A whole study judged: its runs as evidence, the verdict on every finding, and what a reader must know beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from senet_ablate.analysis import distributions
from senet_ablate.analysis.audit import Departure, audit_records
from senet_ablate.analysis.contrasts import Contrast
from senet_ablate.analysis.evidence import Evidence, gather
from senet_ablate.analysis.judge import TableJudge, judges_of
from senet_ablate.analysis.sample_size import advise
from senet_ablate.analysis.verdicts import Explanation, FindingVerdict, Reason, Verdict
from senet_ablate.results.arms import Outcomes, load_outcomes
from senet_ablate.results.plan import default_plan, deviations, read_plan, unplanned
from senet_ablate.results.records import StudyPin, StudyPlan
from senet_ablate.results.store import Study, studies
from senet_ablate.spec.ablation import Ablation
from senet_ablate.spec.claims import LOOK_SHARE, PLAIN, Fewer, Metric, Rules

SECONDARY: tuple[Metric, ...] = ("cross_entropy", "top5_err")
"""Metrics that are judged beside the primary one, never instead of it."""


@dataclass(frozen=True)
class Assessment:
    """All that reports need of a study. `judges` and `findings` go by the tables' slugs.

    `others` has the findings by each secondary metric that the study has. `deviations` are from the plan.
    `shared_with` counts the runs that other studies have, too.
    """

    outcomes: Outcomes
    plan: StudyPlan
    rules: Rules
    judges: Mapping[str, TableJudge]
    findings: Mapping[str, list[FindingVerdict]]
    others: Mapping[Metric, Mapping[str, list[FindingVerdict]]]
    secondary_evidence: Mapping[Metric, Evidence]
    deviations: tuple[str, ...]
    cautions: tuple[str, ...] = ()
    shared_with: Mapping[str, int] = field(default_factory=dict)

    @property
    def pin(self) -> StudyPin:
        """What the study's runs share."""
        return self.outcomes.pin

    @property
    def about(self) -> list[Ablation]:
        """Tables that the plan names or that have runs of their own; all, if there is none."""
        return self.chosen or [judge.ablation for judge in self.judges.values()]

    @property
    def chosen(self) -> list[Ablation]:
        """Tables that the plan names, and those with runs besides those of the reference and of no SE."""

        def has_runs(ablation: Ablation) -> bool:
            shared = {ablation.arm(ablation.reference), ablation.arm(PLAIN)}
            return any(row.arm in self.outcomes.runs for row in ablation.rows if row.arm not in shared)

        tables = [judge.ablation for judge in self.judges.values()]
        return [table for table in tables if table.slug in self.plan.tables or has_runs(table)]

    @property
    def first(self) -> TableJudge | None:
        """Of the first table that declares findings: its no SE and reference have the SE gain."""
        return next((judge for judge in self.judges.values() if judge.ablation.claims), None)

    @property
    def primary(self) -> list[FindingVerdict]:
        """The findings with a guaranteed error rate of the tables that the study is about."""
        found = [finding for ablation in self.about for finding in self.findings[ablation.slug]]
        return [finding for finding in found if not finding.claim.secondary]

    @property
    def all_findings(self) -> list[FindingVerdict]:
        """The findings of all tables, in their order."""
        return [finding for table in self.findings.values() for finding in table]

    def by_other_metrics(self, finding: FindingVerdict) -> dict[Metric, Verdict]:
        """The verdict on a finding by each secondary metric."""
        slug = finding.ablation.slug
        number = self.findings[slug].index(finding)
        return {metric: tables[slug][number].verdict for metric, tables in self.others.items()}


def assess(ablations: Sequence[Ablation], study: Study) -> Assessment:
    """Judge the findings of `ablations` on all runs of the study, finished or half-way.

    Raises:
        UserError: the study has not begun, a record is damaged, or runs cannot be compared.
    """
    pin = study.pinned()
    outcomes = load_outcomes(study, pin)
    plan = read_plan(study) or default_plan(ablations, pin.protocol)
    more = bool(unplanned(plan, outcomes))
    extended = more or len(plan.seeds) > plan.rules.looks
    rules = plan.rules.model_copy(update={"looks": max(LOOK_SHARE)}) if extended else plan.rules
    latest = judges_of(ablations, gather(outcomes, ablations, rules, plan))
    found = {judge.ablation.slug: [advise(judge, finding) for finding in judge.judge()] for judge in latest}
    earlier = list(plan.seeds if more else plan.seeds[:-1])
    for number, seeds in reversed(list(enumerate(earlier, 1))):
        # A verdict once reached stays; later runs only refine the numbers beside it.
        counts = {arm: seeds.get(arm.slug, 0) for arm in outcomes.runs}
        then = judges_of(ablations, gather(outcomes.at_look(counts), ablations, rules, plan))
        for judge in then:
            found[judge.ablation.slug] = [
                _kept(old, now, number) for old, now in zip(judge.judge(), found[judge.ablation.slug], strict=True)
            ]
    secondary = {
        metric: evidence
        for metric in SECONDARY
        if metric != rules.metric and (evidence := gather(outcomes, ablations, rules.by(metric), plan)).counts.any()
    }
    departures = audit_records(ablations, outcomes)

    def barred(found: Mapping[str, Iterable[FindingVerdict]]) -> dict[str, list[FindingVerdict]]:
        return {slug: [_barred(finding, departures) for finding in findings] for slug, findings in found.items()}

    others = {
        metric: barred({judge.ablation.slug: judge.judge() for judge in judges_of(ablations, evidence)})
        for metric, evidence in secondary.items()
    }
    return Assessment(
        outcomes,
        plan,
        rules,
        {judge.ablation.slug: judge for judge in latest},
        barred(found),
        others,
        secondary,
        tuple(deviations(plan, outcomes, ablations)),
        tuple(departure.in_words for departure in departures),
        _shared_with(study, outcomes),
    )


def _shared_with(study: Study, outcomes: Outcomes) -> dict[str, int]:
    """How many of the runs lie in each other study beside this one, too."""
    counts = {
        each.name: sum(each.run(run.run_id).path.is_dir() for run in outcomes.records)
        for each in studies(study.root.parent)
        if each.root != study.root
    }
    return {name: count for name, count in counts.items() if count}


def _barred(finding: FindingVerdict, departures: Sequence[Departure]) -> FindingVerdict:
    """No verdict where an arm of the finding differs from its reference in what its row does not declare."""
    serious = [
        departure
        for departure in departures
        if departure.serious
        and departure.table == finding.ablation.slug
        and (departure.row in finding.claim.arms or finding.ablation.arm(departure.row) == finding.ablation.arm(PLAIN))
    ]
    if not serious:
        return finding
    reason = Explanation(Reason.UNDECLARED_DIFFERENCE, undeclared=tuple(dict.fromkeys(serious)))
    atoms = tuple(
        atom if isinstance(atom.atom, Fewer) else replace(atom, verdict="not resolved", reason=reason, p=None)
        for atom in finding.atoms
    )
    return replace(finding, verdict="not resolved", reasons=(reason,), atoms=atoms)


def _kept(old: FindingVerdict, now: FindingVerdict, look: int) -> FindingVerdict:
    """A finding with the verdict of an earlier interim analysis, unless its own comparisons say the opposite by now."""
    if old.verdict == "not resolved":
        return now
    if _opposed(old, now):
        return replace(now, reasons=(*now.reasons, Explanation(Reason.GIVEN_UP, look=look)))
    return replace(now, verdict=old.verdict, reasons=(*old.reasons, Explanation(Reason.REACHED_EARLIER, look=look)))


def _opposed(old: FindingVerdict, now: FindingVerdict) -> bool:
    """Whether the comparisons that gave the old verdict lie on the other side, or the verdict is the opposite one."""
    if now.verdict not in (old.verdict, "not resolved"):
        return True
    said = [
        after
        for before, after in zip(old.atoms, now.atoms, strict=True)
        if before.verdict == old.verdict and not isinstance(before.atom, Fewer)
    ]
    if old.verdict == "reproduced":
        return any(atom.p is not None and atom.p > 0.5 for atom in said)
    immaterial = any(reason.kind is Reason.IMMATERIAL for reason in old.reasons)
    return not immaterial and bool(said) and all(atom.p is not None and atom.p < 0.5 for atom in said)


@dataclass(frozen=True)
class GainOverNoise:
    """The SE gain by one metric, beside the standard deviation of a difference of two runs and the over-dispersion."""

    metric: Metric
    gain: float
    sd_of_difference: float
    phi: float

    @property
    def ratio(self) -> float:
        """What decides how much a study can resolve."""
        return self.gain / self.sd_of_difference


def gains_over_noise(assessment: Assessment) -> list[GainOverNoise] | None:
    """By each metric for which the two networks have runs; None where no table declares a finding."""
    judge = assessment.first
    if judge is None:
        return None
    plain, se = judge.contrasts.arm(PLAIN), judge.contrasts.arm(judge.ablation.reference)
    found = []
    for metric, evidence in {assessment.rules.metric: judge.evidence, **assessment.secondary_evidence}.items():
        gain = evidence.difference(judge.contrasts.gain)
        if gain is None or evidence.noise is None:
            continue
        sd = float(evidence.noise.variance[plain] + evidence.noise.variance[se]) ** 0.5
        found.append(GainOverNoise(metric, gain.estimate, sd, evidence.noise.phi))
    return found


@dataclass(frozen=True)
class Share:
    """A difference as a share of the SE gain, with Fieller's 95 % interval, beside the paper's share."""

    share: float
    low: float
    high: float
    paper: float


def share_of_gain(judge: TableJudge, difference: Contrast) -> Share | None:
    """A difference as a share of the SE gain; None unless the gain is resolved."""
    evidence, gain = judge.evidence, judge.contrasts.gain
    if evidence.noise is None or judge.sure(gain) <= 0:
        return None
    d, g = evidence.difference(difference), evidence.difference(gain)
    both = evidence.difference(difference + gain)
    if d is None or g is None or both is None:
        return None
    printed = judge.paper_means
    df = min(d.df, g.df)
    low, high = fieller(d.estimate, g.estimate, d.se**2, g.se**2, (both.se**2 - d.se**2 - g.se**2) / 2, df)
    return Share(d.estimate / g.estimate, low, high, difference.at(printed) / gain.at(printed))


def fieller(
    over: float, under: float, var_over: float, var_under: float, covariance: float, df: float
) -> tuple[float, float]:
    """Fieller's 95 % interval of a ratio whose denominator is clear of 0 (else the interval is the whole line)."""
    t2 = distributions.quantile(0.025, df) ** 2
    a = under**2 - t2 * var_under
    b = over * under - t2 * covariance
    c = over**2 - t2 * var_over
    root = b**2 - a * c
    if a <= 0 or root < 0:
        return -np.inf, np.inf
    return (b - root**0.5) / a, (b + root**0.5) / a

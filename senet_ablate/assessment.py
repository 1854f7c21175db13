"""A whole study judged: its runs as evidence, the verdict on every finding, and what a reader must know beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from senet_ablate.advice import advise
from senet_ablate.analysis.audit import Departure, audit_records, departure_lines
from senet_ablate.errors import UserError
from senet_ablate.evidence import Evidence
from senet_ablate.judge import TableJudge, judges_of
from senet_ablate.noise import Sample
from senet_ablate.power import assumed_phi
from senet_ablate.results.arms import Outcomes, load_outcomes
from senet_ablate.results.plan import StudyPlan, default_plan, deviations, read_plan, unplanned
from senet_ablate.results.records import StudyPin
from senet_ablate.results.store import Study
from senet_ablate.spec.ablation import Ablation, Arm, arms
from senet_ablate.spec.claims import LOOK_SHARE, PLAIN, Fewer, Metric, Rules
from senet_ablate.spec.cost import total_cost
from senet_ablate.spec.protocol import Complexity
from senet_ablate.verdicts import FindingVerdict

SECONDARY: tuple[Metric, ...] = ("cross_entropy", "top5_err")
"""Metrics that are judged beside the primary one, never instead of it."""


@dataclass(frozen=True)
class Assessment:
    """All that reports need of a study. `judges` and `findings` go by the tables' slugs.

    `others` has the findings by each secondary metric that the study has. `deviations` are from the plan.
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

    @property
    def pin(self) -> StudyPin:
        """What the study's runs share."""
        return self.outcomes.pin

    @property
    def all_findings(self) -> list[FindingVerdict]:
        """The findings of all tables, in their order."""
        return [finding for table in self.findings.values() for finding in table]


def assess(ablations: Sequence[Ablation], study: Study) -> Assessment:
    """Judge the findings of `ablations` on all runs of the study, finished or half-way.

    Raises:
        UserError: the study has not begun, a record is damaged, or runs cannot be compared.
    """
    pin = study.pin()
    if pin is None:
        begun = sorted(path.parent.name for path in study.root.parent.glob("*/study.json"))
        there = f"studies there: {', '.join(begun)}" if begun else "no study there yet; begin one with `run`"
        raise UserError(f"no study {study.name!r} in {study.root.parent}; {there}")
    outcomes = load_outcomes(study, pin)
    plan = read_plan(study) or default_plan(ablations, pin.protocol)
    more = bool(unplanned(plan, outcomes))
    extended = more or len(plan.seeds) > plan.rules.looks
    rules = plan.rules.model_copy(update={"looks": max(LOOK_SHARE)}) if extended else plan.rules
    latest = judges_of(ablations, gather(outcomes, ablations, rules))
    found = {judge.ablation.slug: [advise(judge, finding) for finding in judge.judge()] for judge in latest}
    earlier = list(plan.seeds if more else plan.seeds[:-1])
    for number, seeds in reversed(list(enumerate(earlier, 1))):
        # A verdict once reached stays; later runs only refine the numbers beside it.
        counts = {arm: seeds.get(arm.slug, 0) for arm in outcomes.runs}
        then = judges_of(ablations, gather(outcomes.at_look(counts), ablations, rules))
        for judge in then:
            found[judge.ablation.slug] = [
                _kept(old, now, number) for old, now in zip(judge.judge(), found[judge.ablation.slug], strict=True)
            ]
    secondary = {
        metric: evidence
        for metric in SECONDARY
        if metric != rules.metric and (evidence := gather(outcomes, ablations, rules.by(metric))).counts.any()
    }
    departures = audit_records(ablations, outcomes)
    others = {
        metric: {
            judge.ablation.slug: [_barred(finding, departures) for finding in judge.judge()]
            for judge in judges_of(ablations, evidence)
        }
        for metric, evidence in secondary.items()
    }
    found = {slug: [_barred(finding, departures) for finding in findings] for slug, findings in found.items()}
    return Assessment(
        outcomes,
        plan,
        rules,
        {judge.ablation.slug: judge for judge in latest},
        found,
        others,
        secondary,
        tuple(deviations(plan, outcomes, ablations)),
        tuple(departure_lines(departures)),
    )


def _barred(finding: FindingVerdict, departures: Sequence[Departure]) -> FindingVerdict:
    """No verdict where an arm of the finding differs from its reference in what its row does not declare."""
    grave = [
        departure
        for departure in departures
        if departure.grave
        and departure.table == finding.ablation.slug
        and (departure.row in finding.claim.arms or finding.ablation.arm(departure.row) == finding.ablation.arm(PLAIN))
    ]
    if not grave:
        return finding
    why = ", ".join(dict.fromkeys(f"{each.row} in {each.field} ({each.here}, not {each.reference})" for each in grave))
    reason = f"arms differ in what is not declared: {why}"
    atoms = tuple(
        atom if isinstance(atom.atom, Fewer) else replace(atom, verdict="not resolved", reason=reason, p=None)
        for atom in finding.atoms
    )
    return replace(finding, verdict="not resolved", reason=reason, atoms=atoms)


def _kept(old: FindingVerdict, now: FindingVerdict, look: int) -> FindingVerdict:
    if old.verdict == "not resolved":
        return now
    return replace(now, verdict=old.verdict, reason="; ".join(filter(None, (old.reason, f"reached at look {look}"))))


def gather(outcomes: Outcomes, ablations: Sequence[Ablation], rules: Rules) -> Evidence:
    """All runs as evidence by the rules' metric: the declared arms, and any others of the study, for their noise."""
    everyone = list(dict.fromkeys([*arms(ablations), *outcomes.runs]))
    sample = outcomes.sample(everyone, rules.metric) or Sample.empty(len(everyone))
    pin = outcomes.pin
    return Evidence(
        tuple(everyone),
        sample,
        rules,
        phi=assumed_phi(pin.protocol.recipe.epochs),
        diverged={arm: outcomes.diverged(arm) for arm in outcomes.runs},
        cost={arm: cost(pin, arm) for arm in everyone},
    )


def cost(pin: StudyPin, arm: Arm) -> Complexity:
    """Parameters and multiply-adds of an arm under the study's protocol."""
    return total_cost(
        pin.protocol.network,
        arm.variant,
        in_channels=pin.data.channels,
        classes=pin.data.classes,
        resolution=pin.protocol.data.resolution,
    )

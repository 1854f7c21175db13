"""Plan a study before it runs: seeds of each arm for a budget, cost, and what they can decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from senet_ablate.analysis.evidence import Evidence, gather
from senet_ablate.analysis.power import (
    NO_TEST_SIZE,
    PAPER_GAIN,
    POWER,
    Assumptions,
    ClaimPower,
    PowerAnalysis,
    assume,
)
from senet_ablate.analysis.study import assess
from senet_ablate.environment import cores
from senet_ablate.errors import UserError
from senet_ablate.results.arms import load_outcomes
from senet_ablate.results.plan import Selection, claims_digest, planned_seeds, read_plan, write_plan
from senet_ablate.results.records import StudyPlan
from senet_ablate.results.store import studies
from senet_ablate.results.worklist import Estimate, Pace, Plan, duration, estimate, find_pace, make_plan, wall_time
from senet_ablate.spec.ablation import SEED_SERIES, Arm
from senet_ablate.spec.claims import LOOK_SHARE, Rules
from senet_ablate.spec.protocol import DataFacts, Protocol, weaknesses
from senet_ablate.spec.schema import key_value, validate

START, SHORT_START, UNSTABLE_START = 3, 2, 5
STEP = 0.15
"""Seeds are added in steps of this share of what an arm has, at least one."""


def may_be_unstable(arm: Arm) -> bool:
    """Whether an arm changes the gate or the squeeze, so that its runs may vary more than others'.

    Such an arm gets five seeds: with three of them false findings were too many in simulated studies.
    """
    se = arm.variant.se
    return se is not None and (se.gate in ("relu", "tanh") or se.squeeze != "avg")


def allocate(
    analysis: PowerAnalysis,
    cost: Mapping[Arm, float],
    budget: float,
    start: Mapping[Arm, int] | None = None,
    tell: Callable[[float], None] = lambda share: None,
    workers: int = 1,
) -> dict[Arm, int]:
    """Seeds for each arm that cost at most `budget`, in the unit of `cost` (of one run of each arm).

    With `start`, which is paid for already, the budget is for what is added to it. With several workers at once the
    budget is of time: none of them may be busy for longer.

    Raises:
        UserError: the budget does not reach for two seeds of each arm.
    """

    def spent(seeds: Mapping[Arm, int]) -> float:
        # As the work list has it: seed by seed, within a seed the longest first.
        runs = [(seed, -cost[arm]) for arm, n in seeds.items() for seed in range(start[arm] if start else 0, n)]
        return wall_time((-price for _, price in sorted(runs)), workers)

    seeds = dict(start) if start is not None else _first_seeds(analysis.arms, spent, budget)
    while True:  # take the step that promises most for its cost, until none fits or promises anything
        before = analysis.expected(seeds)
        best, best_rate = None, 0.0
        for step in _steps(analysis, seeds):
            after = {arm: n + step.get(arm, 0) for arm, n in seeds.items()}
            if spent(after) > budget or max(after.values()) > SEED_SERIES:  # the next seed is another arm's
                continue
            price = sum(cost[arm] * more for arm, more in step.items())
            rate = (analysis.expected(after) - before) / price
            if rate > best_rate:
                best, best_rate = after, rate
        if best is None:
            return seeds
        seeds = best
        tell(spent(seeds) / budget)


def _first_seeds(arms: Sequence[Arm], spent: Callable[[Mapping[Arm, int]], float], budget: float) -> dict[Arm, int]:
    """The most that a budget begins with."""
    starts = (
        {arm: UNSTABLE_START if may_be_unstable(arm) else START for arm in arms},
        dict.fromkeys(arms, START),
        dict.fromkeys(arms, SHORT_START),
    )
    for seeds in starts:
        if spent(seeds) <= budget:
            return seeds
    raise UserError(
        f"the budget reaches for {budget / spent(starts[-1]):.0%} of two seeds of each of {len(arms)} variants; give "
        "more, or name fewer tables"
    )


def _steps(analysis: PowerAnalysis, seeds: Mapping[Arm, int]) -> Iterator[dict[Arm, int]]:
    """More seeds of one arm, of all arms of a finding, or of those that only few findings share."""
    shared = {arm: sum(arm in needed for needed in analysis.finding_arms) for arm in analysis.arms}
    common = sorted(shared, key=lambda arm: -shared[arm])[:2]  # the references: SE and the network without

    def more(some: tuple[Arm, ...]) -> dict[Arm, int]:
        return {arm: max(1, round(STEP * seeds[arm])) for arm in some}

    for arm in analysis.arms:
        yield more((arm,))
    for needed in analysis.finding_arms:
        yield more(needed)
        rest = tuple(arm for arm in needed if arm not in common)
        if rest:
            yield more(rest)


OUT_OF_REACH = POWER
"""A finding with less power, though the paper's effects are true, is out of reach."""


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What a call of `plan` asks for; times in seconds, errors and gains in points."""

    seeds: int | None = None
    runs: int | None = None
    budget: float | None = None
    jobs: int | None = None
    device: str | None = None
    gain: float | None = None
    error: float | None = None
    changed: Sequence[str] = ()
    write: bool = False
    extend: bool = False

    @property
    def shares_out(self) -> bool:
        """Whether seeds are to be chosen for a budget."""
        return self.runs is not None or self.budget is not None


@dataclass(frozen=True)
class PlanPreview:
    """A plan with its cost and power, and what to say beside them."""

    plan: Plan
    estimate: Estimate | None
    claims: tuple[ClaimPower, ...]
    pace: Pace | None
    protocol: Protocol
    workers: int
    remarks: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def takes(self, claim: ClaimPower) -> str:
        """Seeds that would bring a finding within reach, and their wall time."""
        if claim.seeds is None:
            return "> 1,000 seeds"
        costs = {planned.arm: planned.complexity for planned in self.plan.arms}
        if self.pace is None:
            return f"{claim.seeds} seeds"
        once = sorted((self.pace.of(costs[arm], self.protocol) for arm in claim.arms), reverse=True)
        return f"{claim.seeds} seeds, {duration(wall_time(once * claim.seeds, self.workers))}"


def preview(
    chosen: Selection,
    request: PlanRequest,
    shape: tuple[int, int],
    tell: Callable[[float], None],
    facts: DataFacts | None = None,
) -> PlanPreview:
    """Choose seeds, count cost and power, and write the plan file if that is wished.

    `facts` are those of the images, where they are known; of a folder's power nothing is said without them.

    Raises:
        UserError: wishes exclude each other, the budget is too small, or the plan may not be written any more.
    """
    _check(request, chosen)
    study, protocol = chosen.study, chosen.protocol
    seeds, old = planned_seeds(chosen, request.seeds)
    rules = _rules(request.changed, old)
    looks = len(old.seeds) + request.extend if old else 1
    judged = rules if looks <= rules.looks else rules.model_copy(update={"looks": max(LOOK_SHARE)})
    pace = find_pace(protocol, study.root.parent, request.device, facts)
    workers = request.jobs or cores()
    records = _records(chosen, rules, facts)
    plan = make_plan(chosen.ablations, protocol, seeds, study, shape)
    if facts is None and records is None and protocol.data.dataset == "folder":
        if request.shares_out or request.write:
            raise UserError(NO_TEST_SIZE)
        time = estimate(plan, protocol, pace, workers)
        return PlanPreview(plan, time, (), pace, protocol, workers, (f"No power: {NO_TEST_SIZE}.",))
    assumptions = assume(protocol, shape[1], records, request.error, facts.n_test if facts else None)
    analysis = PowerAnalysis(chosen.ablations, judged, assumptions, request.gain)
    if request.shares_out:
        price, budget = _price(request, pace, plan, protocol)
        start, only = (seeds, _open(chosen)) if request.extend else (None, None)
        sought = PowerAnalysis(chosen.ablations, judged, assumptions, request.gain, only)
        seeds = allocate(sought, price, budget, start, tell, 1 if request.budget is None else workers)
        plan = make_plan(chosen.ablations, protocol, seeds, study, shape)
    found = tuple(analysis.claims(seeds))
    remarks = list(_remarks(analysis, assumptions, found, any(ablation.claims for ablation in chosen.ablations)))
    if request.write or request.extend:
        counts = {arm.slug: count for arm, count in seeds.items()}
        before = old if request.extend and old else None
        written = StudyPlan(
            written=before.written if before else datetime.now(UTC).isoformat(timespec="seconds"),
            claims=before.claims if before else claims_digest(chosen.declared),
            rules=rules,
            seeds=(*before.seeds, before.seeds[-1] | counts) if before else (counts,),
            basis=f"noise {assumptions.basis}; {_budget(request)}",
            tables=before.tables if before else tuple(ablation.slug for ablation in chosen.ablations),
        )
        write_plan(study, written)
        remarks.append(
            f"Wrote {study.root / 'plan.json'} ({written.digest}); `run` follows it, `report` lists deviations."
        )
    elif old is None:
        remarks.append("No plan file yet; --write makes this the plan.")
    time = estimate(plan, protocol, pace, workers)
    smallest, gain = analysis.detectable_gain(seeds), request.gain or PAPER_GAIN
    warnings = _warnings(protocol, facts, smallest, gain)
    return PlanPreview(plan, time, found, pace, protocol, workers, tuple(remarks), warnings)


def _warnings(protocol: Protocol, facts: DataFacts | None, smallest: float | None, gain: float) -> tuple[str, ...]:
    """Why runs on a folder of the user's may say little; the suite's own protocols and data sets have been tried."""
    if facts is None or protocol.data.dataset != "folder":
        return ()
    told = weaknesses(protocol.recipe, facts)
    if smallest is not None and smallest > gain:
        told.append(
            f"the minimum detectable SE gain is {smallest:.2f} points, more than the {gain:.2f} assumed (--gain): such "
            "a gain would most likely not be found; plan more seeds, or add test images"
        )
    return tuple(told)


def _check(request: PlanRequest, chosen: Selection) -> None:
    if request.runs is not None and request.budget is not None:
        raise UserError(f"--runs {request.runs} and --budget are two budgets; give one")
    if request.seeds is not None and request.shares_out:
        raise UserError(f"--seeds {request.seeds} gives each network the same; with --runs or --budget they are chosen")
    if request.extend and not request.shares_out:
        raise UserError("--extend needs to know how much more: --runs N or --budget TIME")
    if request.extend and read_plan(chosen.study) is None:
        raise UserError(f"--extend: study {chosen.study.name!r} has no plan file; the first plan is made with --write")


def _rules(changed: Sequence[str], old: StudyPlan | None) -> Rules:
    rules = old.rules if old else Rules()
    raw = rules.model_dump() | dict(key_value("--rule", change, "margin_rho=0.3") for change in changed)
    return validate(Rules, {key: value for key, value in raw.items() if value is not None}, "--rule")


def _records(chosen: Selection, rules: Rules, facts: DataFacts | None) -> Evidence | None:
    """Runs to learn the noise from: the study's own, else those of any study of the same protocol and images."""
    own = chosen.study.root
    for study in (chosen.study, *studies(own.parent)):
        pin = study.pin()
        same = ("network", "data", "recipe")
        if pin is None or any(getattr(pin.protocol, key) != getattr(chosen.protocol, key) for key in same):
            continue
        of_folder = chosen.protocol.data.dataset == "folder" and study.root != own
        if of_folder and (facts is None or pin.data.fingerprint != facts.fingerprint):
            continue
        try:
            outcomes = load_outcomes(study, pin)
        except UserError:
            if study.root == own:
                raise
            continue  # a damaged record of another study is that study's to tell
        evidence = gather(outcomes, chosen.declared, rules)
        if int((evidence.counts > 1).sum()) > 1:
            return evidence
    return None


def _open(chosen: Selection) -> set[str]:
    """Findings without a verdict so far."""
    assessment = assess(chosen.declared, chosen.study)
    return {finding.claim.id for finding in assessment.all_findings if finding.verdict == "not resolved"}


def _price(request: PlanRequest, pace: Pace | None, plan: Plan, protocol: Protocol) -> tuple[dict[Arm, float], float]:
    """Cost of a run of each arm, and what may be spent, in runs or in seconds of wall time."""
    if request.runs is not None:
        return {planned.arm: 1.0 for planned in plan.arms}, float(request.runs)
    assert request.budget is not None
    if pace is None:
        raise UserError(
            "--budget: no finished run in results/ tells how long one takes; finish one (`run ratio --rows r16 --seeds "
            "1`), or give --runs"
        )
    return {planned.arm: pace.of(planned.complexity, protocol) for planned in plan.arms}, request.budget


def _budget(request: PlanRequest) -> str:
    if request.runs is not None:
        return f"{request.runs} runs distributed over the variants"
    if request.budget is not None:
        return f"{duration(request.budget)} distributed over the variants"
    return "seeds as they were given"


def _remarks(
    analysis: PowerAnalysis, assumptions: Assumptions, found: Sequence[ClaimPower], with_findings: bool
) -> list[str]:
    if not with_findings:
        return ["No finding of the chosen rows can be judged: name whole tables."]
    sd = assumptions.sd
    noise = (
        f"Run-to-run standard deviation: {sd:.2f} points, {assumptions.basis}; correlation of a seed's runs "
        f"{assumptions.correlation:.2f}."
    )
    if not found:
        return [noise, "These findings will be judged; the paper prints no figures from which to tell their power."]
    gain = analysis.gain
    return [
        f"{noise} Assumed SE gain: {gain:.2f} points, {gain / sd:.1f} times the noise.",
        f"Differences for new images keep a standard error of about {analysis.floor:.2f} points, whatever the seeds.",
    ]

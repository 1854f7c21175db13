"""The plan file: how many seeds each arm gets and by which rules findings are judged, written before the first run.

It lies in `results/<study>/plan.json`. Without one, the protocol's number of seeds and the default rules are the plan.
`study.json` holds it, too, from the first run on: a file that is lost is written again as it was, and one that was
changed afterwards is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from senet_ablate.errors import UserError
from senet_ablate.results.records import StudyPlan
from senet_ablate.results.store import MEND, Study, load, save
from senet_ablate.spec.ablation import Ablation, Arm, Row, arms
from senet_ablate.spec.loading import ATTENTION, all_ablations, load_ablations, with_blocks
from senet_ablate.spec.protocol import Protocol

if TYPE_CHECKING:  # what comes before the first run needs no statistics
    from senet_ablate.results.arms import Outcomes


PLAN_FILE = "plan.json"


def claims_digest(ablations: Sequence[Ablation]) -> dict[str, str]:
    """Fingerprint of the findings that each table declares, by its slug."""

    def digest(ablation: Ablation) -> str:
        claims = sorted(json.dumps(claim.model_dump(mode="json"), sort_keys=True) for claim in ablation.claims)
        return hashlib.blake2b("\n".join(claims).encode(), digest_size=5).hexdigest()

    return {ablation.slug: digest(ablation) for ablation in ablations}


def default_plan(ablations: Sequence[Ablation], protocol: Protocol) -> StudyPlan:
    """The plan of a study that has no plan file: the protocol's seeds for each arm, and the default rules."""
    return StudyPlan(
        claims=claims_digest(ablations),
        seeds=({arm.slug: protocol.seeds for arm in arms(ablations)},),
        basis=f"no plan file: {protocol.seeds} seeds of each network, as the protocol says",
    )


def read_plan(study: Study) -> StudyPlan | None:
    """The study's plan: its plan file or, once a run was begun, what `study.json` holds of it; None if it has none.

    Raises:
        UserError: the file is damaged, or not the plan by which the study was begun, but for added looks.
    """
    filed, pin = _filed(study), study.pin()
    held = pin.plan if pin is not None and study.begun() else None
    if filed is None or held is None:
        return filed or held
    if held.extends(filed):
        return held
    if filed.extends(held):
        return filed
    raise UserError(
        f"{study.root / PLAN_FILE}: not the plan by which the study was begun ({held.digest}, in study.json); {MEND}"
    )


def _filed(study: Study) -> StudyPlan | None:
    return load(StudyPlan, study.root / PLAN_FILE, study.root)


def write_plan(study: Study, plan: StudyPlan) -> None:
    """Write the plan file of a study that has no runs yet, or add a look to the one it has.

    Raises:
        UserError: the study has runs, and the plan is not its old one with one more look.
    """
    old = read_plan(study)
    extends = old is not None and plan.extends(old) and len(plan.seeds) == len(old.seeds) + 1
    if study.begun() and not extends:
        raise UserError(
            f"{study.root / PLAN_FILE}: a plan is made before the first run, and study {study.name!r} has runs; "
            "add seeds with --extend, or give the new plan a study of its own with --study NAME"
        )
    study.hold(plan)
    save(study.root / PLAN_FILE, plan, study.root)


def settle_plan(chosen: Selection, seeds: int | None) -> str:
    """Have the plan in its file and in `study.json`, just before runs are begun.

    If there is neither a plan nor a run yet, `seeds` of each chosen arm are the plan.

    Returns:
        In words, what was restored; else nothing.
    """
    study, plan = chosen.study, read_plan(chosen.study)
    if plan is None and seeds is not None and not study.begun():
        plan = StudyPlan(
            written=datetime.now(UTC).date().isoformat(),  # the day: the same command again is the same plan
            claims=claims_digest(chosen.declared),
            seeds=({arm.slug: seeds for arm in arms(chosen.ablations)},),
            basis=f"{seeds} seeds of each network, as given before the first run",
            tables=tuple(ablation.slug for ablation in chosen.ablations),
        )
        write_plan(study, plan)
        return ""
    study.hold(plan)
    if plan is None or _filed(study) == plan:
        return ""
    path = study.root / PLAN_FILE
    save(path, plan, study.root)
    return f"restored {path} from study.json: plan {plan.digest}, by which the study was begun"


def unplanned(plan: StudyPlan, outcomes: Outcomes) -> list[Arm]:
    """Arms that have more seeds than the plan gives them; an arm that it does not name is another question."""
    return [arm for arm, runs in outcomes.runs.items() if 0 < plan.count(arm) < len(runs)]


def deviations(plan: StudyPlan, outcomes: Outcomes, ablations: Sequence[Ablation]) -> list[str]:
    """In words, where the runs are not what the plan says."""
    told = []
    if not plan.written:
        told.append(plan.basis)
    elif early := [record for record in outcomes.records if record.provenance.started < plan.written]:
        told.append(f"{len(early)} runs began before the plan was written ({plan.written}), by their clocks")
    now = claims_digest(ablations)
    changed = [slug for slug, digest in plan.claims.items() if now.get(slug, digest) != digest]
    if changed:
        told.append(f"the declared findings are not those of the plan: {', '.join(changed)}")
    for arm in arms(ablations):
        there, planned = len(outcomes.runs.get(arm, ())), plan.count(arm)
        if there < planned and (there or plan.written):  # without a file nobody planned the tables not run
            told.append(f"{arm.slug}: {there} of {planned} planned runs are there")
    others = [arm.slug for arm in arms(ablations) if arm in outcomes.runs and not plan.count(arm)]
    if others:
        told.append(f"not in the plan: {', '.join(others)}")
    if len(plan.seeds) > plan.rules.looks:
        told.append(
            f"interim analysis {len(plan.seeds)} of a plan for {plan.rules.looks}, judged at the levels of five"
        )
    extended = unplanned(plan, outcomes)
    if extended:
        names = ", ".join(f"{arm.slug} {len(outcomes.runs[arm])} for {plan.count(arm)}" for arm in extended)
        told.append(f"unplanned extension, judged at the levels of five analyses: {names}")
    return told


def planned_seeds(chosen: Selection, seeds: int | None) -> tuple[dict[Arm, int], StudyPlan | None]:
    """Seeds of each arm that a call is about: as it says, else as the plan file says, else as the protocol does."""
    plan = read_plan(chosen.study)
    each: Mapping[str, int] = plan.seeds[-1] if plan and seeds is None else {}
    usual = seeds or chosen.protocol.seeds
    return {arm: each.get(arm.slug, usual) for arm in arms(chosen.ablations)}, plan


@dataclass(frozen=True)
class Selection:
    """The tables, the protocol and the study that a call is about; `declared` are all tables the study may have.

    `undeclared_code` is a network of somebody's that the study's record names and no declaration of the call; it is
    never imported.
    """

    ablations: list[Ablation]
    declared: list[Ablation]
    protocol: Protocol
    study: Study
    undeclared_code: str = ""


def earlier_blocks(chosen: Selection) -> list[Row]:
    """Blocks of the user's of which the study has runs and that the call does not name: their code may have changed."""
    named = arms(chosen.ablations)
    return [row for table in chosen.declared for row in table.rows if ":" in (row.block or "") and row.arm not in named]


def declared_tables(directory: Path, named: Sequence[Ablation], study: Study) -> list[Ablation]:
    """The paper's tables, and those of ours that are named or begun in this study, with the blocks that were added."""
    begun = study.begun()
    printed = load_ablations(directory)
    others = [a for a in all_ablations(directory) if a.slug not in {p.slug for p in printed}]
    added = {row.variant: None for a in named if a.slug == ATTENTION for row in a.rows if row.block}
    known = {arm.variant.slug for arm in arms([*printed, *others])} | {variant.slug for variant in added}
    if {slug for slug, _ in begun} - known:  # a block of the user's from an earlier call, or its code as it was
        records = (record.spec.variant for record in study.records())
        added |= {variant: None for variant in records if ":" in (variant.block or "")}
    others = [with_blocks(a, added) if a.slug == ATTENTION else a for a in others]
    slugs = {ablation.slug for ablation in named}
    own = [arm for ablation in printed for arm in arms([ablation])]

    def runs(ablation: Ablation) -> set[Arm]:
        extra = [arm for arm in arms([ablation]) if arm not in own]
        return {arm for arm in extra if any(slug == arm.variant.slug and arm.owns(seed) for slug, seed in begun)}

    plan = read_plan(study)
    slugs |= set(plan.tables if plan else ())
    explained: list[set[Arm]] = [runs(ablation) for ablation in others if ablation.slug in slugs]
    for ablation in sorted(others, key=lambda each: -len(runs(each))):  # tables share rows: those with most runs first
        if runs(ablation) and not any(runs(ablation) <= known for known in explained):
            slugs.add(ablation.slug)
            explained.append(runs(ablation))
    return [*printed, *(ablation for ablation in others if ablation.slug in slugs)]

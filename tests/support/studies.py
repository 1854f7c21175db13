"""Made studies for what is judged on them: a small table with claims, given errors, and the paper's own figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers import ABLATION, FACTS, PLAIN, PROTOCOL, R4, R16, make_record, write_record

from senet_ablate.analysis.power import Assumptions
from senet_ablate.files import write_atomic
from senet_ablate.results.plan import PLAN_FILE, default_plan
from senet_ablate.results.records import StudyPlan
from senet_ablate.results.store import Study
from senet_ablate.spec.ablation import Ablation, arms
from senet_ablate.spec.claims import Atom, Claim, Equivalent, Rules, Superior
from senet_ablate.spec.loading import load_ablations
from senet_ablate.spec.network import Variant
from senet_ablate.spec.protocol import Protocol

ABLATIONS = Path(__file__).parents[2] / "ablations"


def claim(name: str, *atoms: Atom, secondary: bool = False) -> Claim:
    return Claim(id=name, statement=f"Sentence {name}", source="a section", secondary=secondary, atoms=atoms)


def better(one: str, other: str) -> Superior:
    return Superior(kind="superior", better=one, worse=other)


def same(*names: str) -> Equivalent:
    return Equivalent(kind="equivalent", arms=names)


def claimed(*claims: Claim, table: Ablation = ABLATION) -> Ablation:
    return table.model_copy(update={"claims": claims})


CLAIMED = claimed(
    claim("gain", better("r16", "plain")),
    claim("same", same("r4", "r16")),
    claim("beside", better("r4", "plain"), secondary=True),
)
"""Two findings and a secondary one about `ABLATION`."""

CLEAR = {R4: (10.0, 11.0, 9.0), R16: (9.5, 10.5, 10.0), PLAIN: (50.0, 51.0, 49.0)}
"""Errors by which every claim of `CLAIMED` holds beyond doubt, on 200 images."""

ALIKE = {R4: (30.0, 27.0, 33.0), R16: (31.0, 28.0, 29.0), PLAIN: (32.0, 27.5, 30.0)}
"""Errors by which none does, nor its reverse."""


def fill(study: Study, errors: Mapping[Variant, Sequence[float | None]], first_seed: int = 0, **made: Any) -> None:
    """Write one run for each error, with rising seeds; None is a run that diverged."""
    for variant, given in errors.items():
        for seed, error in enumerate(given, first_seed):
            write_record(study, make_record(variant, seed, error, **made))


def put_plan(study: Study, *seeds: Mapping[Variant, int] | int, **changes: Any) -> StudyPlan:
    """Lay a plan file into a study whatever runs it has; an int is for each arm of `CLAIMED`."""
    looks = tuple(
        {arm.slug: look if isinstance(look, int) else look[arm.variant] for arm in arms([CLAIMED])} for look in seeds
    )
    usual: dict[str, Any] = {"written": "2019-12-31T00:00:00+00:00", "rules": Rules(looks=len(looks)), "seeds": looks}
    plan = default_plan([CLAIMED], PROTOCOL).model_copy(update=usual | changes)
    write_atomic(study.root / PLAN_FILE, plan.model_dump_json())
    return plan


def paper_tables() -> list[Ablation]:
    return load_ablations(ABLATIONS)


def paper_table(slug: str) -> Ablation:
    return load_ablations(ABLATIONS, [slug])[0]


def assumed(sd: float, correlation: float = 0.0, images: int = 10_000) -> Assumptions:
    """The noise of one run, before anything runs."""
    return Assumptions(sd, correlation, images, "for a test")


def paper_errors(tables: Sequence[Ablation], seeds: int = 3, scale: float = 10.0) -> dict[Variant, list[float]]:
    """The paper's differences to SE times `scale` on top of 10 %, with a little scatter; for 2,000 images."""
    printed = {row.arm: row.paper.top1_err for table in tables for row in table.rows if row.paper}
    return {
        arm.variant: [round(10 + scale * (error - 22.28) + 0.1 * (seed % 3 - 1), 2) for seed in range(seeds)]
        for arm, error in printed.items()
    }


def paper_study(root: Path, seeds: int = 3, protocol: Protocol = PROTOCOL) -> Study:
    """A study of all the paper's networks in which its figures are the truth, ten times as large."""
    study = Study(root)
    study.begin(protocol, FACTS.model_copy(update={"n_test": 2000}))
    for variant, errors in paper_errors(paper_tables(), seeds).items():
        for seed, error in enumerate(errors):
            record = make_record(variant, seed, error, protocol=protocol)
            write_record(study, record.model_copy(update={"n_test": 2000}))
    return study

"""The printed tables as data: rows, the arms that they share, and what the paper concludes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from senet_ablate.errors import UserError, did_you_mean
from senet_ablate.spec.claims import PLAIN, Atom, Claim, NoDifference, Retains
from senet_ablate.spec.cost import has_closed_form
from senet_ablate.spec.geometry import gated_sites
from senet_ablate.spec.network import Network, Placement, SEConfig, Settings, Variant, differences
from senet_ablate.spec.schema import Slug, Spec, refuse_twice

Factor = Literal["se.squeeze", "se.gate", "se.reduction", "block", "placement.stages", "placement.position"]
"""What rows differ in; with `block` each has a block of its own at the place that it declares."""

SEED_SERIES = 1000
"""Seeds of one arm lie in a series of this length, so that a network under other seeds is an arm of its own."""


class Arm(Spec):
    """One network with one series of seeds: what is trained once per seed, whatever number of rows it serves."""

    variant: Variant
    first_seed: int = 0

    @property
    def slug(self) -> str:
        """Short readable name; a series of other seeds has its first seed in it."""
        return self.variant.slug + (f"@{self.first_seed}" if self.first_seed else "")

    def seeds(self, count: int) -> range:
        """The arm's first `count` seeds."""
        return range(self.first_seed, self.first_seed + count)

    def owns(self, seed: int) -> bool:
        """Whether a run of the network with this seed belongs to the arm."""
        return self.first_seed <= seed < self.first_seed + SEED_SERIES


class PaperFigures(Spec):
    """What the paper prints for a row: single-crop ImageNet errors in percent, parameters in millions, GFLOPs."""

    top1_err: float
    """Top-1 error in percent."""
    top5_err: float
    """Top-5 error in percent."""
    params_m: float | None = None
    """Parameters in millions."""
    gflops: float | None = None
    """Multiply-adds in billions (the paper's GFLOPs)."""


class Row(Spec):
    """One row of a table: its name, its variant, and the paper's figures."""

    id: Slug
    """Its name in claims and options."""
    label: str
    """Its name in reports."""
    se: SEConfig | None = None
    """The paper's block: `false` is no SE, `{}` the block with its defaults."""
    block: str | None = None
    """Another block instead: a name such as `cbam`, or your own as `package.module:Class`."""
    settings: Settings = ()
    """Settings of `block`. A value by stage is a table: `{ 2 = 4, 3 = 8, 4 = 16, 5 = 32 }`."""
    source: str = ""
    """Digest of your own block's code. Leave it out; it is computed when the block is loaded."""
    placement: Placement = Placement()
    """Where the block sits."""
    first_seed: Annotated[int, Field(ge=0, le=1_000_000, multiple_of=SEED_SERIES)] = 0
    """First of the row's seeds; 1000 trains a variant again under other seeds, for a null comparison."""
    paper: PaperFigures | None = None
    """What the paper prints for the row; none in a table of ours."""

    @field_validator("se", mode="before")
    @classmethod
    def _false_is_plain(cls, value: Any) -> Any:
        if value is False:
            return None  # TOML has no null
        if value is None or isinstance(value, (dict, SEConfig)):
            return value
        raise ValueError("se must be false (the plain network) or a table such as { reduction = 16 }")

    @model_validator(mode="after")
    def _is_a_network(self) -> Self:
        if not {"se", "block"} & self.model_fields_set:
            raise ValueError('se or block is missing: se = false is no SE, se = {} SE, block = "cbam" another block')
        variant = self.variant
        if self.id == PLAIN and (variant != Variant() or self.first_seed):
            raise ValueError(f"id = {PLAIN!r} is kept for the network without SE (se = false); use another id")
        return self

    @property
    def variant(self) -> Variant:
        """The network change that this row declares."""
        return Variant(
            se=self.se, placement=self.placement, block=self.block, settings=self.settings, source=self.source
        )

    @property
    def arm(self) -> Arm:
        """The network with the series of seeds that this row declares."""
        return Arm(variant=self.variant, first_seed=self.first_seed)


class Ablation(Spec):
    """One table: rows that differ in one factor under one protocol, and what the paper concludes from them."""

    table: Annotated[int, Field(ge=1)] | None = None
    """Its number in the paper; a table of ours has none."""
    slug: Slug
    """Its name in commands. The file is called `tableN_SLUG.toml`, or `SLUG.toml` without a number."""
    title: str
    """Its heading."""
    question: str
    """The question that it answers."""
    factor: Factor
    """The one setting in which its rows may differ."""
    reference: str
    """Row to which the others are compared."""
    source: str
    """Where its figures come from."""
    protocol: str = "digits"
    """The protocol of a command without `--protocol`."""
    plain: PaperFigures | None = None
    """The paper's figures for the network without SE, where the table does not print it and its claims need it."""
    rows: tuple[Row, ...]
    """Its variants, at least two."""
    claims: tuple[Claim, ...] = ()
    """The findings to test."""

    @model_validator(mode="after")
    def _rows_are_comparable(self) -> Self:
        ids = [row.id for row in self.rows]
        if len(ids) < 2:
            raise ValueError(f"rows: {len(ids)} given; a table compares at least two")
        refuse_twice(ids, "rows")
        if self.reference not in ids:
            raise ValueError(f"reference = {self.reference!r} is no row; {did_you_mean(self.reference, ids)}")
        seen: dict[Arm, str] = {}
        for row in self.rows:
            if row.arm in seen:
                raise ValueError(
                    f"rows {seen[row.arm]!r} and {row.id!r} declare the same network, {row.variant.slug}; "
                    f"let them differ in {self.factor}, or in first_seed for a null comparison"
                )
            seen[row.arm] = row.id
            others = sorted(differences(row.variant, self.row(self.reference).variant) - {self.factor})
            if self.factor != "block" and not row.variant.is_plain and others:
                raise ValueError(
                    f"row {row.id!r} differs from the reference row {self.reference!r} in {', '.join(others)}, but "
                    f"the table's factor is {self.factor}: arms may differ in the factor only"
                )
        if self.row(self.reference).first_seed:
            raise ValueError(
                f"reference = {self.reference!r} has first_seed; the reference has the usual seeds, from 0"
            )
        return self

    @model_validator(mode="after")
    def _claims_are_about_rows(self) -> Self:
        refuse_twice([claim.id for claim in self.claims], "claims")
        for claim in self.claims:
            for name in claim.arms:
                if name not in self.names:
                    raise ValueError(f"claim {claim.id!r} names {name!r}, no row; {did_you_mean(name, self.names)}")
            for atom in claim.simple_atoms():
                self._check_atom(claim.id, atom)
        return self

    def _check_atom(self, claim: str, atom: Atom) -> None:
        arms = [self.arm(name) for name in atom.arms]
        if len(set(arms)) < len(arms):
            raise ValueError(f"claim {claim!r}, {atom}: both are the network {arms[0].slug}; name two different ones")
        if isinstance(atom, NoDifference) and len({arm.variant for arm in arms}) > 1:
            raise ValueError(
                f"claim {claim!r}, {atom}: two networks; a null comparison is of one network under other seeds "
                "(first_seed)"
            )
        if isinstance(atom, Retains) and arms[0] in (self.arm(PLAIN), self.arm(self.reference)):
            raise ValueError(
                f"claim {claim!r}, {atom}: the gain is measured between plain and {self.reference}; name a third"
            )

    @property
    def names(self) -> list[str]:
        """What claims may name: its rows, and the network without SE."""
        return list(dict.fromkeys([*(row.id for row in self.rows), PLAIN]))

    @property
    def primary(self) -> list[Claim]:
        """The claims whose error rate is guaranteed."""
        return [claim for claim in self.claims if not claim.secondary]

    def row(self, row_id: str) -> Row:
        """The row with this id."""
        return next(row for row in self.rows if row.id == row_id)

    def arm(self, name: str) -> Arm:
        """The arm that a claim names: that of a row, or the network without SE."""
        return Arm(variant=Variant()) if name == PLAIN else self.row(name).arm

    def paper_top1(self, name: str) -> float | None:
        """The paper's top-1 error in percent for an arm that a claim names, or None if it prints none."""
        figures = [row.paper for row in self.rows if row.arm == self.arm(name)] or [self.plain]
        return figures[0].top1_err if figures[0] else None

    @property
    def name(self) -> str:
        """Stem of the table's file, here and in reports: `table10_ratio`."""
        return f"table{self.table}_{self.slug}" if self.table else self.slug

    @property
    def heading(self) -> str:
        """How the table is called in print: `Table 10: Reduction ratio`."""
        return f"Table {self.table}: {self.title}" if self.table else self.title


def check_arms(ablations: Iterable[Ablation], network: Network, resolution: int, place: str) -> None:
    """Make sure that every row can be built on `network` before anything is trained, as far as formulas tell.

    What has none is built by `execution.survey`, which refuses in the same words.

    Raises:
        UserError: one line per row that cannot, with file, row, key, value and what would be right.
    """
    mistakes = []
    for ablation in ablations:
        for row in ablation.rows:
            try:
                if has_closed_form(network, row.variant):
                    list(gated_sites(network, row.variant, resolution))
            except ValueError as error:
                mistakes.append(f"{ablation.name}.toml, row {row.id!r}, under {place}: {error}")
    if mistakes:
        raise UserError("\n".join(mistakes))


def arms(ablations: Iterable[Ablation]) -> dict[Arm, list[str]]:
    """The distinct arms of the tables, each with the rows it serves (`ratio:r16`, `squeeze:avg`, …).

    A table with claims needs the network without SE even where it does not print it (`squeeze:plain`).
    """
    served: dict[Arm, list[str]] = {}
    for ablation in ablations:
        for row in ablation.rows:
            served.setdefault(row.arm, []).append(f"{ablation.slug}:{row.id}")
        plain = ablation.arm(PLAIN)
        if ablation.claims and all(row.arm != plain for row in ablation.rows):
            served.setdefault(plain, []).append(f"{ablation.slug}:{PLAIN}")
    return served

"""A series: studies that are read together, the gain of chosen rows over no SE in each, and findings about them all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from senet_ablate.errors import UserError, did_you_mean
from senet_ablate.spec.printed import load_network_tables
from senet_ablate.spec.schema import Spec, read_toml, validate


class SeriesStudy(Spec):
    """One study of a series."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    """Its folder in results/."""
    label: str
    """Its name in print."""
    group: str = ""
    """Heading under which it stands."""
    printed: str = ""
    """The network of the paper beside it, `table3:mobilenet`, whose printed gain is shown; none has none."""


class SeriesClaim(Spec):
    """A finding about the gains of one row: their number above 0, or the difference of two means.

    With `at_least`: the row beats no SE in at least so many studies. Else: its mean gain in the studies `above` is
    larger than in those `below`, where an empty list stands for 0, or is smaller by less than `margin`.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    statement: str
    row: str
    at_least: Annotated[int, Field(ge=1)] | None = None
    above: tuple[str, ...] = ()
    below: tuple[str, ...] = ()
    margin: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.at_least is None) == (not self.above and not self.below):
            raise ValueError("say either at_least = 3, or above = […] and below = […]")
        if self.at_least is not None and self.margin:
            raise ValueError("margin belongs to above and below")
        if twice := sorted(set(self.above) & set(self.below)):
            raise ValueError(f"{', '.join(twice)}: both above and below")
        return self


class Series(Spec):
    """Studies, rows and findings, declared before the studies are run."""

    slug: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    """Its name in commands, and of its file."""
    title: str
    question: str
    tables: Annotated[tuple[str, ...], Field(min_length=1)]
    """Tables that have the rows."""
    rows: Annotated[tuple[str, ...], Field(min_length=1)]
    """Rows whose gain over no SE is shown."""
    studies: Annotated[tuple[SeriesStudy, ...], Field(min_length=2)]
    claims: tuple[SeriesClaim, ...] = ()

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        studies = [study.name for study in self.studies]
        for what, names in (("study", studies), ("claim", [claim.id for claim in self.claims])):
            if len(set(names)) < len(names):
                raise ValueError(f"a {what} is named twice among {', '.join(names)}")
        for claim in self.claims:
            for name in (*claim.above, *claim.below):
                if name not in studies:
                    raise ValueError(f"claim {claim.id!r} names {name!r}, no study; {did_you_mean(name, studies)}")
            if claim.row not in self.rows:
                raise ValueError(
                    f"claim {claim.id!r} names {claim.row!r}, no row; {did_you_mean(claim.row, self.rows)}"
                )
            if claim.at_least is not None and claim.at_least > len(studies):
                raise ValueError(f"claim {claim.id!r}: at_least = {claim.at_least} of {len(studies)} studies")
        return self


def load_series(directory: Path, name: str) -> Series:
    """Load `directory`/series/`name`.toml.

    Raises:
        UserError: there is no such series, or its file has a mistake.
    """
    known = {path.stem: path for path in sorted((directory / "series").glob("*.toml"))}
    if name not in known:
        raise UserError(f"no series {name!r}; {did_you_mean(name, known)}")
    series = validate(Series, read_toml(known[name]), str(known[name]))
    if series.slug != name:
        raise UserError(f"{known[name]}: slug = {series.slug!r} should be the file's own name, {name!r}")
    return series


def printed_gains(directory: Path, studies: Iterable[SeriesStudy]) -> dict[str, float]:
    """What the paper prints as the gain beside each study, in points of top-1 error, by the study's name.

    Raises:
        UserError: there is no such table or network.
    """
    gains = {}
    for study in studies:
        if not study.printed:
            continue
        slug, _, row_id = study.printed.partition(":")
        rows = {row.id: row for row in load_network_tables(directory, [slug])[0].rows}
        if row_id not in rows:
            raise UserError(f"study {study.name!r}: printed = {study.printed!r}: {did_you_mean(row_id, rows)}")
        gains[study.name] = rows[row_id].plain.top1_err - rows[row_id].se.top1_err
    return gains

"""A series: studies that are read together, the gain of chosen rows over no SE in each, and findings about them all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from senet_ablate.errors import UserError, did_you_mean, look_up
from senet_ablate.spec.printed import load_network_tables
from senet_ablate.spec.schema import FileName, Slug, Spec, read_toml, refuse_twice, validate


class SeriesStudy(Spec):
    """One study of a series."""

    name: FileName
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

    id: Slug
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
        if self.at_least is not None:
            self.refuse_unused(["margin"], "with at_least")
        if twice := sorted(set(self.above) & set(self.below)):
            raise ValueError(f"{', '.join(twice)}: both above and below")
        return self


class Series(Spec):
    """Studies, rows and findings, declared before the studies are run."""

    slug: Slug
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
        refuse_twice(studies, "studies")
        refuse_twice([claim.id for claim in self.claims], "claims")
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
    path = look_up(known, name, "no series")
    series = validate(Series, read_toml(path), str(path))
    if series.slug != name:
        raise UserError(f"{path}: slug = {series.slug!r} should be the file's own name, {name!r}")
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
        row = look_up(rows, row_id, f"study {study.name!r}, printed: no network")
        gains[study.name] = row.plain.top1_err - row.se.top1_err
    return gains

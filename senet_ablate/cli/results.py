"""The commands `report`, `merge` and `verify`: what lies in results, written, joined and checked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from senet_ablate.cli.console import say, show_table
from senet_ablate.cli.options import (
    ABLATIONS,
    PRECISION,
    PROTOCOL,
    REPORTS,
    RESULTS,
    SET,
    STUDY,
    TABLES,
    Place,
    Word,
    choose,
    options,
    plain_name,
)
from senet_ablate.errors import UserError, did_you_mean
from senet_ablate.results.plan import Selection
from senet_ablate.results.store import Study


@click.command()
@options(
    TABLES,
    PROTOCOL,
    SET,
    PRECISION,
    STUDY,
    click.option(
        "--fill",
        "filled",
        type=Place(dir_okay=False, exists=True),
        help="Put tables between <!-- generated: table10_ratio --> and <!-- /generated --> of this Markdown file; "
        "STUDY/table10_ratio is another study's.",
    ),
    RESULTS,
    REPORTS,
    ABLATIONS,
)
def report(reports: Path, filled: Path | None, **choice: Any) -> None:
    """Write tables (Markdown, CSV, LaTeX) and plots (SVG, PNG) from the records, finished or half-way."""
    from senet_ablate.files import read_file, write_atomic
    from senet_ablate.report.write import fill

    chosen = choose(**choice)
    _report(chosen, reports, choice["tables"])
    if filled:
        try:
            text = fill(read_file(filled).decode(), reports, chosen.study.name)
        except (UserError, UnicodeDecodeError) as error:
            raise UserError(f"--fill {filled}: {error}") from None
        write_atomic(filled.resolve(), text)


def _report(chosen: Selection, reports: Path, slugs: Sequence[str]) -> None:
    from senet_ablate.analysis.study import assess
    from senet_ablate.report.write import write_report

    # --rows says what is trained; a table is always whole, and tells what is missing.
    written = write_report(assess(chosen.declared, chosen.study), reports, slugs)
    for table in written.tables:
        show_table(table, chosen.study.name)
    say(f"wrote {len(written.files)} files to {reports / chosen.study.name}")


@click.command()
@options(
    click.argument(
        "sources",
        nargs=-1,
        required=True,
        metavar="SOURCE...",
        type=Place(exists=True, file_okay=False),
    ),
    click.option(
        "--into", required=True, type=Word(), metavar="STUDY", help="The study that gets the runs; a new one is begun."
    ),
    RESULTS,
)
def merge(sources: tuple[Path, ...], into: str, results: Path) -> None:
    """Join finished runs of other machines or people into a study: of study folders, or of results folders with it.

    Protocol and images must agree. A run that is there already stays; one that came out differently is kept in
    results/STUDY/conflicts and told. Nothing is overwritten or deleted, and the command may be repeated.

    Exit 1 if a run came out differently, or one was refused as damaged, foreign or impossible.
    """
    from senet_ablate.results.merge import merge as join

    merged = join(sources, Study(results / plain_name("--into", into)))
    for conflict in merged.conflicts:
        errors = " and ".join("diverged" if err is None else f"{err:.2f} %" for err in (conflict.here, conflict.there))
        images = "" if conflict.images is None else f"; {conflict.images} test images differ"
        say(f"the same seed twice with different results: {conflict.run_id}: {errors}{images}; kept {conflict.kept}")
    for line in merged.refused:
        say(f"refused: {line}")
    for line in merged.busy:
        say(f"under way: {line}")
    for line in merged.cautions:
        say(f"caution: {line}")
    largest = max((conflict.difference or 0.0 for conflict in merged.conflicts), default=0.0)
    apart = f" (by at most {largest:.2f} points of error)" if merged.conflicts else ""
    say(
        f"study {into}: {len(merged.added)} runs added, {merged.same} were there already, "
        f"{len(merged.conflicts)} differ{apart}; left out: {merged.unfinished} unfinished, "
        f"{len(merged.refused)} refused"
    )
    sys.exit(1 if merged.conflicts or merged.refused else 0)


@click.command()
@options(click.argument("names", nargs=-1, metavar="[STUDY]..."), RESULTS)
def verify(names: tuple[str, ...], results: Path) -> None:
    """Check every finished run: identity, checksums, protocol and images, and whether its figures are possible.

    No STUDY means all in results/. Nothing is changed or deleted. Exit 1 if anything is wrong.
    """
    from senet_ablate.results.verify import studies
    from senet_ablate.results.verify import verify as check

    known = {study.name: study for study in studies(results)}
    for name in names:
        if not (results / plain_name("STUDY", name)).is_dir():
            raise UserError(f"no study {name!r} in {results}; {did_you_mean(name, known)}")
    chosen = [Study(results / name) for name in names] or list(known.values())
    if not chosen:
        raise UserError(f"no study in {results}; begin one with `run`, or say where they are with --results")
    wrong = 0
    for study in chosen:
        found = check(study)
        wrong += len(found.problems)
        for line in found.problems:
            say(line)
        beside = f"; {found.conflicts} results that differ lie in conflicts/" if found.conflicts else ""
        say(
            f"study {study.name}: {found.sound} runs sound, {len(found.problems)} problems, "
            f"{found.unfinished} unfinished{beside}"
        )
    sys.exit(1 if wrong else 0)

"""The commands `report`, `merge` and `verify`, which work on finished runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from senet_ablate.cli import options as opt
from senet_ablate.cli.completion import complete_studies
from senet_ablate.cli.console import say, show_frame, show_table
from senet_ablate.errors import UserError, did_you_mean
from senet_ablate.files import decode, read_file, rewrite
from senet_ablate.results.plan import Selection, earlier_blocks
from senet_ablate.results.store import Study, studies
from senet_ablate.spec.ablation import Ablation


@click.command()
@opt.options(
    opt.TABLES,
    *opt.UNDER,
    opt.STUDY,
    opt.DATA,
    click.option(
        "--fill",
        "filled",
        type=opt.Place(dir_okay=False, exists=True),
        help="Fill the blocks <!-- generated: table10_ratio --> … <!-- /generated --> of this Markdown file. "
        "STUDY/table10_ratio is another study's table, ONE+OTHER a table with the lines of both.",
    ),
    click.option(
        "--columns",
        type=opt.text,
        metavar="NAME,NAME",
        help="Columns of the LaTeX tables: n, err, best, diff, top5, params, macs, latency, step, paper_err, "
        "paper_diff, paper_top5, paper_params, paper_gflops, note.  [default: all that are not empty]",
    ),
    *opt.FOLDERS,
)
def report(reports: Path, filled: Path | None, columns: str | None, data: Path | None, **choice: Any) -> None:
    """Write the page, tables (Markdown, CSV, LaTeX) and figures (SVG, PNG) of a study, finished or not.

    \b
    senet-ablate report --study digits-reference --columns err,diff,params
    """
    from senet_ablate.report.write import fill

    chosen = opt.choose(**choice)
    opt.find_facts(chosen, data)  # other images than the study's are an error
    _report(chosen, reports, choice["tables"], columns)
    if filled:
        old = read_file(filled)
        try:
            text = fill(decode(old)[0], reports, chosen.study.name)
        except (UserError, UnicodeDecodeError) as error:
            raise UserError(f"--fill {filled}: {error}") from None
        rewrite(filled, old, text)


def _declared_by_the_caller(chosen: Selection) -> list[Ablation]:
    """The tables without blocks that records alone name: code comes from declarations, never from a record."""
    recorded = {row.id for row in earlier_blocks(chosen)}
    return [
        table.model_copy(update={"rows": tuple(row for row in table.rows if row.id not in recorded), "claims": ()})
        for table in chosen.declared
    ]


def _report(chosen: Selection, reports: Path, slugs: Sequence[str], columns: str | None = None) -> None:
    from senet_ablate.analysis.study import assess
    from senet_ablate.report.tables import COLUMNS, check_columns
    from senet_ablate.report.write import write_report

    kept = check_columns([name.strip() for name in columns.split(",")]) if columns else COLUMNS
    pin = chosen.study.pin()
    if pin is not None:
        with suppress(UserError):  # a library or a file that is not here; what is unknown is left out
            opt.survey_networks(chosen, (pin.data.channels, pin.data.classes), _declared_by_the_caller(chosen))
    # --rows chooses what is trained; a table always has all its rows, and says which have no runs.
    written = write_report(assess(chosen.declared, chosen.study), reports, slugs, kept)
    for table in written.tables:
        show_table(table, chosen.study.name)
    page = reports / chosen.study.name / "index.html"
    say(f"wrote {len(written.files)} files; the page to open: {page}")


@click.command()
@opt.options(
    click.argument("names", nargs=-1, metavar="[STUDY]...", shell_complete=complete_studies),
    click.option("--series", type=opt.text, metavar="NAME", help="The studies of ablations/series/NAME.toml."),
    click.option(
        "--finding",
        type=opt.text,
        metavar="ID",
        help="A declared finding, such as 12b.  [default: the SE gain, error without SE less error with SE]",
    ),
    click.option(
        "--name", type=opt.text, help="Folder under reports/ to write to.  [default: the series' name, else summary]"
    ),
    *opt.FOLDERS,
)
def summary(
    names: tuple[str, ...],
    series: str | None,
    finding: str | None,
    name: str | None,
    results: Path,
    reports: Path,
    ablations: Path | None,
) -> None:
    """Compare several studies: the SE gain, or a finding, of each in one forest plot, page and CSV.

    Studies may differ in data, network, training length or block. If they differ in a single field of the protocol,
    the difference is plotted against it. A partial conjunction test says in how many studies at least it holds. A
    series is a file that declares studies, rows and findings about all of them before they are run.

    \b
    senet-ablate summary digits cifar10 cifar100
    senet-ablate summary epochs-6 epochs-30 epochs-90 --finding 12b
    senet-ablate summary --series networks
    """
    from senet_ablate.spec.loading import declarations_dir

    if bool(names) == bool(series):
        raise UserError("name the studies, or a series with --series NAME, one of the two")
    home = reports / opt.plain_name("--name", name or series or "summary")
    directory = ablations or declarations_dir()
    if series:
        if finding:
            raise UserError("--finding is for studies that are named; the findings of a series are in its file")
        _series(series, directory, results, home)
    else:
        _summary(names, finding, directory, results, home)


def _summary(names: tuple[str, ...], finding: str | None, directory: Path, results: Path, home: Path) -> None:
    from senet_ablate.analysis.study import assess
    from senet_ablate.analysis.summary import summarise
    from senet_ablate.report.summary import conclusion, printed_summary, remarks, write_summary
    from senet_ablate.results.plan import declared_tables

    if len(set(names)) < len(names):
        raise UserError(f"a study is named twice among {', '.join(names)}")
    studies = [Study(results / opt.plain_name("STUDY", each)) for each in names]
    found = summarise([assess(declared_tables(directory, [], study), study) for study in studies], finding)
    files = write_summary(found, home)
    text = printed_summary(found)
    show_frame(found.effects[0].statement, text.drop(columns=["data", "network", "epochs"]))
    for line in (conclusion(found), *remarks(found), f"wrote {len(files)} files to {home}"):
        say(line)


def _series(name: str, directory: Path, results: Path, home: Path) -> None:
    from senet_ablate.analysis.series import judge_series
    from senet_ablate.analysis.study import assess
    from senet_ablate.report.series import printed_findings, printed_gains, remarks, write_series
    from senet_ablate.spec import series as declared
    from senet_ablate.spec.loading import load_ablations

    chosen = declared.load_series(directory, name)
    studies = [Study(results / each.name) for each in chosen.studies]
    begun = {study.name: study for study in studies if study.pin() is not None}
    tables = load_ablations(directory, chosen.tables)
    assessments = {each: assess(tables, study) for each, study in begun.items()}
    found = judge_series(chosen, assessments, declared.printed_gains(directory, chosen.studies))
    files = write_series(found, home)
    show_frame(chosen.title, printed_gains(found).drop(columns=["data", "network", "epochs"]))
    if found.findings:
        show_frame("Findings about the series", printed_findings(found))
    for line in (*remarks(found), f"wrote {len(files)} files; the page to open: {home / 'index.html'}"):
        say(line)


@click.command()
@opt.options(
    click.argument(
        "sources", nargs=-1, required=True, metavar="SOURCE...", type=opt.Place(exists=True, file_okay=False)
    ),
    click.option(
        "--into",
        required=True,
        type=opt.text,
        shell_complete=complete_studies,
        metavar="STUDY",
        help="Study that gets the runs.",
    ),
    click.option("--new", is_flag=True, help="Create the study if it does not exist."),
    opt.RESULTS,
)
def merge(sources: tuple[Path, ...], into: str, new: bool, results: Path) -> None:
    """Copy finished runs from other machines or people into a study.

    A SOURCE is a study's folder, or a results folder that contains the study. Protocol and images must agree. Nothing
    is overwritten or deleted, and the command may be repeated. A run whose result differs from the one already there
    is kept in results/STUDY/conflicts and named.

    Exit 1 if a run differs, or was refused as damaged, foreign or impossible.

    \b
    senet-ablate merge ../colleague/results --into digits
    """
    from senet_ablate.results.merge import merge as join

    target = Study(results / opt.plain_name("--into", into))
    if not new and not target.root.is_dir():
        try:
            target.pinned()
        except UserError as error:
            raise UserError(f"--into {into}: {error}; to begin it here, add --new") from None
    merged = join(sources, target)
    for conflict in merged.conflicts:
        errors = " and ".join("diverged" if err is None else f"{err:.2f} %" for err in (conflict.here, conflict.there))
        images = "" if conflict.images is None else f"; {conflict.images} test images differ"
        say(f"same seed, different result: {conflict.run_id}: {errors}{images}; kept in {conflict.kept}")
    for word, lines in (("refused", merged.refused), ("in progress", merged.busy), ("warning", merged.cautions)):
        for line in lines:
            say(f"{word}: {line}")
    pairs = [(each.here, each.there) for each in merged.conflicts]
    points = [abs(here - there) for here, there in pairs if here is not None and there is not None]
    apart = f" (by at most {max(points, default=0):.2f} points of error)" if merged.conflicts else ""
    say(
        f"study {into}: {len(merged.added)} runs added, {merged.same} already there, "
        f"{len(merged.conflicts)} with a different result{apart}; left out: {merged.unfinished} unfinished, "
        f"{len(merged.refused)} refused"
    )
    sys.exit(1 if merged.conflicts or merged.refused else 0)


@click.command()
@opt.options(click.argument("names", nargs=-1, metavar="[STUDY]...", shell_complete=complete_studies), opt.RESULTS)
def verify(names: tuple[str, ...], results: Path) -> None:
    """Check every finished run: identity, checksums, protocol, images, and whether its numbers are possible.

    Without a STUDY all of results/ is checked. Nothing is changed or deleted. Exit 1 if anything is wrong.

    \b
    senet-ablate verify digits-reference
    """
    from senet_ablate.results.verify import verify as check

    known = {study.name: study for study in studies(results)}
    for name in names:
        if not (results / opt.plain_name("STUDY", name)).is_dir():
            raise UserError(f"no study {name!r} in {results}; {did_you_mean(name, known)}")
    chosen = [Study(results / name) for name in names] or list(known.values())
    if not chosen:
        raise UserError(f"no study in {results}; start one with `run`, or name another folder with --results")
    wrong = 0
    for study in chosen:
        found = check(study)
        wrong += len(found.problems)
        for line in found.problems:
            say(line)
        beside = f"; {found.conflicts} different results in conflicts/" if found.conflicts else ""
        say(
            f"study {study.name}: {found.sound} runs sound, {len(found.problems)} problems, "
            f"{found.unfinished} unfinished{beside}"
        )
    sys.exit(1 if wrong else 0)

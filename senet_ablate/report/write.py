"""Write what people look at into `reports/<study>/`, from records alone: page, tables, figures and their data."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from senet_ablate.analysis.study import Assessment
from senet_ablate.errors import UserError, look_up
from senet_ablate.files import read_file
from senet_ablate.report import findings
from senet_ablate.report.escape import csv_text, markdown
from senet_ablate.report.figures.curves import curves_frame, plot_curves
from senet_ablate.report.figures.forest import forest_frame, forest_in_words, plot_forest
from senet_ablate.report.figures.pareto import pareto_frame, plot_pareto
from senet_ablate.report.figures.table import plot_table, table_frame
from senet_ablate.report.folder import ReportFolder
from senet_ablate.report.leaderboard import leaderboard
from senet_ablate.report.overview import overview_markdown
from senet_ablate.report.page import content
from senet_ablate.report.render import render
from senet_ablate.report.tables import (
    COLUMNS,
    Table,
    build_table,
    cost_markdown,
    table_in_words,
    to_latex,
    to_markdown,
)
from senet_ablate.report.words import METRICS
from senet_ablate.spec.loading import ATTENTION


@dataclass(frozen=True)
class Report:
    """The filled tables and the files that were written."""

    tables: tuple[Table, ...]
    files: tuple[Path, ...]


def write_report(
    assessment: Assessment, reports: Path, slugs: Collection[str] = (), columns: Collection[str] = COLUMNS
) -> Report:
    """Fill the tables from a judged study, finished or half-way, and write tables, findings, figures and the page.

    Args:
        assessment: the study with its verdicts.
        reports: the folder of all reports.
        slugs: tables to write although nothing was run of them but reference and plain network, which tables share; the
            others are written in any case, all where no table has a run of its own. Findings are on the whole study.
        columns: of the LaTeX tables, by the names of `tables.COLUMNS`.
    """
    study = assessment.outcomes.study
    folder = ReportFolder(reports / study.name)
    write, picture = folder.write, folder.picture
    every = [judge.ablation for judge in assessment.judges.values()]
    ablations = [each for each in every if each.slug in slugs or each in assessment.chosen] or every
    tables = [build_table(ablation, assessment) for ablation in ablations]
    metric = assessment.rules.metric
    compared = forest_frame(assessment, ablations)
    picture("forest", compared, forest_in_words(compared), partial(plot_forest, compared, METRICS[metric].difference))
    for table in tables:
        name = table.ablation.name
        picture(name, table_frame(table), table_in_words(table), partial(plot_table, table))
        curves = curves_frame(table.ablation, assessment.outcomes)
        alt = f"Learning curves of {table.ablation.heading}."
        picture(f"{name}_curves", curves, alt, partial(plot_curves, curves))
        write(f"tables/{name}.md", to_markdown(table))
        write(f"tables/{name}.csv", csv_text(table.frame))
        write(f"tables/{name}.tex", to_latex(table, columns))
        if table.ablation.slug == ATTENTION:
            write("leaderboard.csv", csv_text(leaderboard(table, study.name)))
    networks = pareto_frame(tables)
    alt = "Error of every network against latency, parameters and multiply-adds, with the Pareto front."
    picture("pareto", networks, alt, partial(plot_pareto, networks, metric))
    write("tables/overview.md", overview_markdown(assessment))
    write("tables/cost.md", cost_markdown(ablations, assessment.outcomes))
    write("tables/findings.md", findings.to_markdown(assessment))
    write("tables/findings.csv", csv_text(findings.findings_frame(assessment)))
    page = content(assessment, tables, folder.pictures, folder.home, columns)
    for name in ("index.html", "REPORT.md"):  # the same records give the same bytes
        write(name, render(f"{name}.j2", page=page))
    return Report(tuple(table for table in tables if not slugs or table.ablation.slug in slugs), tuple(folder.files))


def fill(text: str, reports: Path, study: str) -> str:
    """Put generated tables into a Markdown text, between `<!-- generated: NAME -->` and `<!-- /generated -->`.

    NAME is a file of the study's `tables/` without its suffix, or `STUDY/NAME` one of another study's report; what is
    put in begins with its first table line and ends before the next heading, with the line ends of its block.
    `ONE+OTHER` is one table with the lines of both.

    Raises:
        UserError: a block names a table that was not written, does not end, or there is none.
    """
    written = {f"{file.parents[1].name}/{file.stem}": file for file in reports.glob("*/tables/*.md")}
    written |= {file.stem: file for file in (reports / study / "tables").glob("*.md")}

    def first_part(name: str) -> str:
        path = look_up(written, name, "a generated block names")
        content = markdown(read_file(path, inside=reports).decode())
        return content[content.index("|") :].partition("\n## ")[0].rstrip("\n")

    def block(match: re.Match[str]) -> str:
        first, *others = map(first_part, match[2].split("+"))
        rows = [first, *("\n".join(other.splitlines()[2:]) for other in others)]  # below heading and rule
        return "\n".join((match[1], *rows, match[4])).replace("\n", match[3])

    filled, blocks = re.subn(
        r"(<!-- generated: (\S[^\r\n]*?) -->)(\r?\n)(?:(?!<!-- generated:).)*?(<!-- /generated -->)",
        block,
        text,
        flags=re.DOTALL,
    )
    begun, ended = text.count("<!-- generated:"), text.count("<!-- /generated -->")
    if not blocks or {begun, ended} != {blocks}:
        raise UserError(
            f"{begun} lines <!-- generated: NAME --> and {ended} lines <!-- /generated --> make {blocks} blocks; each "
            "block begins with the one, on a line of its own, and ends with the other"
        )
    return filled

"""Write what people look at into `reports/<study>/`, from records alone: page, tables, figures and their data."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from senet_ablate.analysis.study import Assessment
from senet_ablate.errors import UserError, did_you_mean
from senet_ablate.files import read_file, write_atomic
from senet_ablate.report import findings, page
from senet_ablate.report.escape import csv_text, markdown
from senet_ablate.report.figures import (
    curves_frame,
    plot_column,
    plot_curves,
    plot_networks,
    plot_table,
    save,
    table_points,
)
from senet_ablate.report.overview import overview_markdown
from senet_ablate.report.page import Page, Picture
from senet_ablate.report.tables import Table, build_table, cost_markdown, table_in_words, to_csv, to_latex, to_markdown
from senet_ablate.spec.ablation import Ablation
from senet_ablate.spec.claims import PLAIN


@dataclass(frozen=True)
class Report:
    """The filled tables and the files that were written."""

    tables: tuple[Table, ...]
    files: tuple[Path, ...]


def write_report(assessment: Assessment, reports: Path, slugs: Collection[str] = ()) -> Report:
    """Fill the tables from a judged study, finished or half-way, and write tables, findings, figures and the page.

    Args:
        assessment: the study with its verdicts.
        reports: the folder of all reports.
        slugs: tables to write although nothing was run of them but reference and plain network, which tables share; the
            others are written in any case, all where no table has a run of its own. Findings are on the whole study.
    """
    study = assessment.outcomes.study
    home = reports / study.name
    files: list[Path] = []

    def write(name: str, content: str | bytes) -> None:
        if isinstance(content, str) and name.startswith("tables/") and name.endswith(".md"):
            content = markdown(content)
        write_atomic(home / name, content, inside=reports)
        files.append(home / name)

    def picture(name: str, figure: Figure, shown: pd.DataFrame, alt: str) -> Picture:
        svg = save(figure, "svg")
        write(f"figures/{name}.svg", svg)
        write(f"figures/{name}.png", save(figure, "png"))
        write(f"figures/{name}.csv", csv_text(shown, float_format="%.6g"))
        return Picture(name, svg.decode(), alt)

    every = [judge.ablation for judge in assessment.judges.values()]
    ablations = [each for each in every if each.slug in slugs or _has_runs_of_its_own(each, assessment)] or every
    tables = [build_table(ablation, assessment) for ablation in ablations]
    pictures = {}
    for table in tables:
        ablation = table.ablation
        name = ablation.name
        pictures[name] = picture(name, plot_table(table), table_points(table), table_in_words(table))
        curves = curves_frame(ablation, assessment.outcomes)
        if not curves.empty:
            drawn, alt = f"{name}_curves", f"Learning curves of {ablation.heading}."
            pictures[drawn] = picture(drawn, plot_curves(curves, ablation.heading), curves, alt)
        column = plot_column(table)
        write(f"figures/{name}_column.svg", save(column, "svg"))
        write(f"figures/{name}_column.png", save(column, "png"))
        write(f"tables/{name}.md", to_markdown(table))
        write(f"tables/{name}.csv", to_csv(table))
        write(f"tables/{name}.tex", to_latex(table))
    networks, shown = plot_networks(tables)
    pictures["networks"] = picture("networks", networks, shown, "Error of every network against what it costs.")
    write("tables/overview.md", overview_markdown(assessment))
    write("tables/cost.md", cost_markdown(ablations, assessment.outcomes))
    write("tables/findings.md", findings.to_markdown(assessment))
    write("tables/findings.csv", findings.to_csv(assessment))
    whole = Page(assessment, tables, pictures, home)
    write("index.html", page.to_html(whole))
    write("REPORT.md", page.to_markdown(whole))
    return Report(tuple(table for table in tables if not slugs or table.ablation.slug in slugs), tuple(files))


def _has_runs_of_its_own(ablation: Ablation, assessment: Assessment) -> bool:
    shared = {ablation.arm(ablation.reference), ablation.arm(PLAIN)}
    return any(row.arm in assessment.outcomes.runs for row in ablation.rows if row.arm not in shared)


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
        if name not in written:
            raise UserError(f"a block wants {name!r}; {did_you_mean(name, written)}")
        content = markdown(read_file(written[name], inside=reports).decode())
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

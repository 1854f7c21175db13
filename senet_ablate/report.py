"""Write what people look at: `reports/<study>/tables/` and `reports/<study>/figures/`, from records alone."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from senet_ablate import findings
from senet_ablate.assessment import Assessment
from senet_ablate.errors import UserError, did_you_mean
from senet_ablate.figures import plot_table, save
from senet_ablate.store import write_atomic
from senet_ablate.tables import Table, build_table, cost_markdown, to_csv, to_latex, to_markdown


@dataclass(frozen=True)
class Report:
    """The filled tables and the files that were written."""

    tables: tuple[Table, ...]
    files: tuple[Path, ...]


def write_report(assessment: Assessment, reports: Path, slugs: Collection[str] = ()) -> Report:
    """Fill the tables from a judged study, finished or half-way, and write tables, findings and figures.

    Args:
        assessment: the study with its verdicts.
        reports: the folder of all reports.
        slugs: the tables to write, by default all; the page of findings is always on the whole study.
    """
    study = assessment.outcomes.study
    ablations = [judge.ablation for judge in assessment.judges.values()]
    tables, files = [], []

    def write(folder: str, name: str, content: str | bytes) -> None:
        path = reports / study.name / folder / name
        write_atomic(path, content)
        files.append(path)

    for ablation in ablations:
        if slugs and ablation.slug not in slugs:
            continue
        table = build_table(ablation, assessment)
        tables.append(table)
        figure = plot_table(table)
        write("tables", f"{ablation.name}.md", to_markdown(table))
        write("tables", f"{ablation.name}.csv", to_csv(table))
        write("tables", f"{ablation.name}.tex", to_latex(table))
        write("figures", f"{ablation.name}.svg", save(figure, "svg"))
        write("figures", f"{ablation.name}.png", save(figure, "png"))
    write("tables", "cost.md", cost_markdown(ablations, assessment.outcomes))
    write("tables", "findings.md", findings.to_markdown(assessment))
    write("tables", "findings.csv", findings.to_csv(assessment))
    return Report(tuple(tables), tuple(files))


def fill(text: str, tables: Path) -> str:
    """Put generated tables into a Markdown text, between `<!-- generated: NAME -->` and `<!-- /generated -->`.

    NAME is a file of `tables` without its suffix; what is put in begins with its first table line
    and ends before the next heading.

    Raises:
        UserError: a block names a table that was not written.
    """

    def block(match: re.Match[str]) -> str:
        path = tables / f"{match[2]}.md"
        if not path.is_file():
            written = (file.stem for file in tables.glob("*.md"))
            raise UserError(f"a block wants {match[2]!r}; {did_you_mean(match[2], written)}")
        content = path.read_text(encoding="utf-8")
        first_part = content[content.index("|") :].partition("\n## ")[0].rstrip("\n")
        return f"{match[1]}\n{first_part}\n{match[3]}"

    return re.sub(r"(<!-- generated: (\S+) -->)\n.*?(<!-- /generated -->)", block, text, flags=re.DOTALL)

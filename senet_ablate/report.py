"""Write what people look at: `reports/<study>/tables/` and `reports/<study>/figures/`, from records alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from senet_ablate.errors import UserError, did_you_mean
from senet_ablate.figures import plot_table, save
from senet_ablate.store import Study, write_atomic
from senet_ablate.suite import Ablation
from senet_ablate.tables import Table, build_table, cost_markdown, to_csv, to_latex, to_markdown


@dataclass(frozen=True)
class Report:
    """The filled tables and the files that were written."""

    tables: tuple[Table, ...]
    files: tuple[Path, ...]


def write_report(
    ablations: Sequence[Ablation], study: Study, reports: Path, declared: Sequence[Ablation] = ()
) -> Report:
    """Fill the tables from the study's records, finished or half-way, and write tables and figures.

    Args:
        ablations: the tables to write.
        study: whose records.
        reports: the folder of all reports.
        declared: all tables there are, for the page of what each costs; by default the written ones.

    Raises:
        UserError: the study has not begun, or a record is damaged.
    """
    pin = study.pin()
    if pin is None:
        begun = sorted(path.parent.name for path in study.root.parent.glob("*/study.json"))
        there = f"studies there: {', '.join(begun)}" if begun else "no study there yet; begin one with `run`"
        raise UserError(f"no study {study.name!r} in {study.root.parent}; {there}")
    tables, files = [], []
    for ablation in ablations:
        table = build_table(ablation, study, pin)
        tables.append(table)
        figure = plot_table(table)
        for folder, suffix, content in (
            ("tables", "md", to_markdown(table)),
            ("tables", "csv", to_csv(table)),
            ("tables", "tex", to_latex(table)),
            ("figures", "svg", save(figure, "svg")),
            ("figures", "png", save(figure, "png")),
        ):
            path = reports / study.name / folder / f"{ablation.name}.{suffix}"
            write_atomic(path, content)
            files.append(path)
    path = reports / study.name / "tables" / "cost.md"
    write_atomic(path, cost_markdown(declared or ablations, study, pin))
    return Report(tuple(tables), (*files, path))


def fill(text: str, tables: Path) -> str:
    """Put generated tables into a Markdown text, between `<!-- generated: NAME -->` and `<!-- /generated -->`.

    NAME is a file of `tables` without its suffix; what is put in begins with its first table line.

    Raises:
        UserError: a block names a table that was not written.
    """

    def block(match: re.Match[str]) -> str:
        path = tables / f"{match[2]}.md"
        if not path.is_file():
            written = (file.stem for file in tables.glob("*.md"))
            raise UserError(f"a block wants {match[2]!r}; {did_you_mean(match[2], written)}")
        content = path.read_text(encoding="utf-8")
        return f"{match[1]}\n{content[content.index('|') :]}{match[3]}"

    return re.sub(r"(<!-- generated: (\S+) -->)\n.*?(<!-- /generated -->)", block, text, flags=re.DOTALL)

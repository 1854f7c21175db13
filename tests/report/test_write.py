"""What a report writes: files, bytes, the page of costs, generated blocks."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import ABLATION, FACTS, PROTOCOL, R4, make_record, markdown_cells, table, write_record

from senet_ablate.analysis.study import assess
from senet_ablate.errors import UserError
from senet_ablate.report.escape import csv_text
from senet_ablate.report.tables import cost_markdown, to_latex, to_markdown
from senet_ablate.report.write import fill, write_report
from senet_ablate.results.store import Study


def test_report_writes_tables_figures_and_page_the_same_bytes_each_time(full: Study, tmp_path: Path) -> None:
    write_record(full, make_record(R4, 3, None))
    runs = [write_report(assess([ABLATION], full), tmp_path / name) for name in ("one", "two")]
    expected = {f"tables/table10_ratio.{suffix}" for suffix in ("md", "csv", "tex")}
    for name in ("table10_ratio", "table10_ratio_curves", "pareto"):  # no forest: the table has no finding
        forms = (f"{name}{form}.{suffix}" for form in ("", "_column") for suffix in ("svg", "png"))
        expected |= {f"figures/{file}" for file in (f"{name}.csv", *forms)}
    expected |= {"index.html", "REPORT.md"}
    expected |= {f"tables/{name}" for name in ("cost.md", "findings.md", "findings.csv", "overview.md")}
    for name, report in zip(("one", "two"), runs, strict=True):
        written = {path.relative_to(tmp_path / name / "first").as_posix() for path in report.files}
        assert written == expected
        on_disk = {path for path in (tmp_path / name).rglob("*") if path.is_file()}
        assert on_disk == set(report.files)
    for one, two in zip(runs[0].files, runs[1].files, strict=True):
        assert one.read_bytes() == two.read_bytes()
    by_suffix = {
        path.suffix: path.read_bytes()
        for path in runs[0].files
        if path.stem == ABLATION.name and (path.parent.name == "tables" or path.suffix != ".csv")
    }
    assert by_suffix[".png"].startswith(b"\x89PNG\r\n")
    assert b"<svg" in by_suffix[".svg"]
    assert by_suffix[".md"].decode() == to_markdown(table(full))
    assert by_suffix[".csv"].decode() == csv_text(table(full).frame)
    assert by_suffix[".tex"].decode() == to_latex(table(full))


def test_the_cost_page_sums_the_runs_time_by_table(full: Study) -> None:
    write_record(full, make_record(R4, 3, None, wall_s=591.0))
    smaller = ABLATION.model_copy(update={"slug": "small", "rows": ABLATION.rows[1:]})
    header, _, *rows = markdown_cells(cost_markdown([ABLATION, smaller], assess([ABLATION], full).outcomes))
    assert header == ["ablation", "variants", "runs", "one worker, min"]
    # 9 runs of a second and one of 591 are 10 minutes; 6 seconds are 0.1; what tables share is trained once.
    assert rows == [["ratio", "3", "10", "10.0"], ["small", "2", "6", "0.1"], ["together", "3", "10", "10.0"]]


def test_generated_blocks_of_a_text_are_filled_and_the_rest_stays(full: Study, tmp_path: Path) -> None:
    write_report(assess([ABLATION], full), tmp_path)
    block = "<!-- generated: {} -->\nold | text\n<!-- /generated -->"
    text = f"before\n{block.format('table10_ratio')}\nbetween\n{block.format('cost')}\nafter\n"
    filled = fill(text, tmp_path, "first")
    page = to_markdown(table(full))
    page = page.partition("\n## Findings")[0]
    assert page[page.index("|") :] in filled
    assert "old | text" not in filled
    assert [part for part in ("before\n<!--", "-->\nbetween\n<!--", "-->\nafter\n") if part not in filled] == []
    assert fill(filled, tmp_path, "first") == filled
    with pytest.raises(UserError, match="'table10_ratios'; did you mean 'table10_ratio'"):
        fill(block.format("table10_ratios"), tmp_path, "first")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_blocks_are_filled_with_the_line_ends_they_have_and_nothing_else_is_touched(
    full: Study, tmp_path: Path, end: str
) -> None:
    """Also of a study whose name has a space, and in a text that mixes line ends."""
    study = Study(full.root.rename(full.root.with_name("my first")))
    write_report(assess([ABLATION], study), tmp_path)
    block = f"<!-- generated: my first/table10_ratio -->{end}old<!-- /generated -->"
    filled = fill(f"dos\r\nunix\n{block}dos\r\nunix\n", tmp_path, "another")
    inside = filled.removeprefix("dos\r\nunix\n").removesuffix("dos\r\nunix\n")
    assert len(inside) == len(filled) - 20
    page = (tmp_path / "my first" / "tables" / "table10_ratio.md").read_text().partition("\n## ")[0]
    lines = inside.split(end)
    assert lines[1:-1] == page[page.index("|") :].rstrip("\n").split("\n")
    assert fill(filled, tmp_path, "another") == filled


def test_a_study_that_has_not_begun_is_an_error_that_lists_those_there_are(full: Study, tmp_path: Path) -> None:
    Study(full.root.with_name("another")).begin(PROTOCOL, FACTS)
    with pytest.raises(UserError, match=r"no study 'frist' in .*results; studies there: another, first$"):
        assess([ABLATION], Study(full.root.with_name("frist")))
    with pytest.raises(UserError, match="no study there yet"):
        assess([ABLATION], Study(tmp_path / "nowhere" / "first"))

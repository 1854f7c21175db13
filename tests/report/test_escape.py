"""What a stranger's study says reaches pages and tables as text: no script, no formula, no unseen character."""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path

import pandas as pd
import pytest
from helpers import ABLATION, R4, R16, make_record, write_record

from senet_ablate.analysis.study import assess
from senet_ablate.errors import UserError
from senet_ablate.report.escape import csv_text, markdown, visible
from senet_ablate.report.excitation import MOST_BLOCKS, read_heat
from senet_ablate.report.write import fill, write_report
from senet_ablate.results.records import StudyPin
from senet_ablate.results.store import Study

HEAD = "block,class,channel,rank,mean\n"
FORMULA = '=HYPERLINK("http://example.org","x")'
CONTROLS = "\x1b[2J\x07\x9b\u202e"


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (FORMULA, f"'{FORMULA}"),
        ("+1+1", "'+1+1"),
        ("-2+3", "'-2+3"),
        ("@SUM(1)", "'@SUM(1)"),
        (" =1", "' =1"),
        ("\t=1", r"\t=1"),  # a tab is spelt, so that nothing begins with it
        ("+0.5", "+0.5"),
        ("-1e-3", "-1e-3"),
        ("r = 16", "r = 16"),
        ("\x00a\x1bb", r"\x00a\x1bb"),
        ("two\nlines", r"two\nlines"),
    ],
)
def test_a_cell_that_a_spreadsheet_would_compute_is_quoted_and_a_number_is_not(cell: str, shown: str) -> None:
    text = csv_text(pd.DataFrame({"name": [cell], "=x": [1.5]}))
    assert list(csv.reader(io.StringIO(text))) == [["name", "'=x"], [shown, "1.5"]]


def test_numbers_and_gaps_are_written_as_before() -> None:
    frame = pd.DataFrame({"a": [0.1, None], "b": [True, False], "c": [None, "x"], "d": [-1, 2]})
    assert csv_text(frame) == frame.to_csv(index=False, lineterminator="\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("<!-- x --> <?x?>", "&lt;!-- x --> &lt;?x?>"),
        ("<javascript:alert(1)>", "&lt;javascript:alert(1)>"),
        ("p < 0.05, a <b", "p < 0.05, a &lt;b"),
        ("[x](javascript:alert(1))", r"[x]\(javascript:alert(1))"),
        ("[x](&#106;avascript:alert(1))", r"[x]\(&#106;avascript:alert(1))"),
        ("![x](data:text/html,y)", r"![x]\(data:text/html,y)"),
        ("a\n[x]: javascript:alert(1)", "a\n\\[x]: javascript:alert(1)"),
        ("[`s`](../s/REPORT.md#a), [w](https://example.org/a_(b))", "[`s`](../s/REPORT.md#a), [w]\\(https://example.org/a_(b))"),
        ("\x1b[31m\u202e", r"\x1b[31m\u202e"),
    ],
)  # fmt: skip
def test_markdown_has_no_raw_html_and_no_link_that_runs(text: str, shown: str) -> None:
    assert markdown(text) == shown
    assert markdown(shown) == shown


def test_control_characters_are_spelt() -> None:
    assert visible(CONTROLS) == r"\x1b[2J\x07\x9b\u202e"
    assert visible("grün\tund\nweiß ± ✓") == "grün\tund\nweiß ± ✓"


@pytest.fixture
def hostile(study: Study) -> Study:
    """A study whose every text was written by somebody who wants more than to be read."""
    bait = f"<script>alert(1)</script>{CONTROLS}{FORMULA}"
    for variant in (R4, R16):
        for seed in range(2):
            write_record(study, make_record(variant, seed, 10.0 + seed, cpu=f"={bait}", version=bait, started=bait))
    pin = study.pin()
    assert pin is not None
    told = pin.protocol.model_copy(update={"description": bait, "images": bait[:60]})
    (study.root / "study.json").write_text(StudyPin(protocol=told, data=pin.data).model_dump_json())
    (study.root / "notes.md").write_text(f"{bait} [x](javascript:alert(1))\n", encoding="utf-8")
    return study


def test_no_file_of_a_report_carries_what_a_hostile_study_says_as_a_command(hostile: Study, tmp_path: Path) -> None:
    home = tmp_path / "first"
    gates = home / "excitation" / "x onload=alert(1) <img src=x onerror=alert(1)>"
    gates.mkdir(parents=True)
    (gates / "blocks.csv").write_text(f"block,mean\n<script>alert(1)</script>{CONTROLS},0.5\n", encoding="utf-8")
    (gates / "gates.svg").write_text("<svg><script>alert(2)</script></svg>")
    (gates / "gates.csv").write_text(f"{HEAD}SE_2_1,<script>{CONTROLS},1,1,0.5\n", encoding="utf-8")
    report = write_report(assess([ABLATION], hostile), tmp_path)
    assert len(report.files) > 10
    for path in report.files:
        if path.suffix == ".png":
            continue
        text = path.read_text(encoding="utf-8")
        assert path.suffix in (".csv", ".tex") or not re.search(r"<script>(alert|\\x1b)|<img src=x", text), path
        assert not set(text) & set(CONTROLS.replace("[2J", "")), path
        if path.suffix == ".csv":
            cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
            assert not [cell for cell in cells if cell[:1] in ("=", "@", "\t", "\r")], path
        if path.suffix == ".md":
            assert "](javascript:" not in text, path
    assert "alert(2)" not in (home / "index.html").read_text(encoding="utf-8")


def test_a_figure_on_the_page_is_drawn_from_its_csv(study: Study, tmp_path: Path) -> None:
    gates = tmp_path / "first" / "excitation" / "se-r16"
    gates.mkdir(parents=True)
    (gates / "blocks.csv").write_text("block,mean\nSE_2_1,0.5\n")
    (gates / "gates.svg").write_text('<svg><a id="theirs"/></svg>')
    write_report(assess([ABLATION], study), tmp_path)
    assert "theirs" not in (tmp_path / "first" / "index.html").read_text()
    (gates / "gates.csv").write_text(f"{HEAD}SE_2_1,cat,1,1,0.5\n")
    write_report(assess([ABLATION], study), tmp_path)
    assert 'id="gates-0-page-axes_1"' in (tmp_path / "first" / "index.html").read_text()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "block,mean\nSE_2_1,0.5\n",
        HEAD,
        f"{HEAD}SE_2_1,cat,1,1,much\n",
        f"{HEAD}SE_2_1,cat,1,1,inf\n",
        HEAD + "".join(f"SE_{number},cat,1,1,0.5\n" for number in range(MOST_BLOCKS + 1)),
    ],
    ids=["empty", "other columns", "no line", "no number", "infinite", "very many panels"],
)
def test_numbers_that_make_no_figure_are_refused_by_name(study: Study, tmp_path: Path, text: str) -> None:
    gates = tmp_path / "first" / "excitation" / "se-r16"
    gates.mkdir(parents=True)
    (gates / "blocks.csv").write_text("block,mean\nSE_2_1,0.5\n")
    (gates / "gates.csv").write_text(text)
    with pytest.raises(UserError, match="excitation/se-r16: damaged"):
        write_report(assess([ABLATION], study), tmp_path)


def test_texts_of_a_figure_are_cut_to_what_a_figure_shows(tmp_path: Path) -> None:
    (tmp_path / "lines.csv").write_text(f"{HEAD}SE_2_1,{'x' * 10_000},1,1,0.5\n")
    frame = read_heat(tmp_path / "lines.csv", tmp_path)
    assert frame["class"].str.len().tolist() == [60]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs links")
def test_a_report_neither_reads_nor_writes_through_links_below_its_folder(study: Study, tmp_path: Path) -> None:
    private, reports = tmp_path / "private", tmp_path / "reports"
    (private / "se-r16").mkdir(parents=True)
    (private / "se-r16" / "blocks.csv").write_text("block,secret\nSE_2_1,hidden\n")
    (reports / "first").mkdir(parents=True)
    (reports / "first" / "excitation").symlink_to(private, target_is_directory=True)
    with pytest.raises(UserError, match="a link"):
        write_report(assess([ABLATION], study), reports)
    (reports / "first" / "excitation").unlink()
    (reports / "second").symlink_to(private, target_is_directory=True)
    (private / "tables").mkdir()
    (private / "tables" / "a.md").write_text("| a |\n|---|\n| hidden |\n")
    with pytest.raises(OSError, match="a link"):
        fill("<!-- generated: second/a -->\n<!-- /generated -->\n", reports, "first")
    before = sorted(private.rglob("*"))
    (reports / "first" / "tables" / "cost.md").unlink(missing_ok=True)
    (reports / "first").rename(reports / "moved")
    (reports / "first").symlink_to(private, target_is_directory=True)
    with pytest.raises(OSError, match="a link"):
        write_report(assess([ABLATION], study), reports)
    assert sorted(private.rglob("*")) == before

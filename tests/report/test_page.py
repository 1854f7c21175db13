"""The report's page: what it says, that it is valid and whole, and the same content as Markdown."""

from __future__ import annotations

import base64
import re
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from helpers import ABLATION, PLAIN, R4, R16, make_record, write_record
from studies import ABLATIONS

from senet_ablate.analysis.study import assess
from senet_ablate.errors import UserError
from senet_ablate.report.folder import Picture
from senet_ablate.report.write import write_report
from senet_ablate.results.records import RunRecord
from senet_ablate.results.store import Study
from senet_ablate.spec.loading import load_ablations

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Reader(HTMLParser):
    """What a browser would see: elements with their attributes, text, and whether every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)


@pytest.fixture
def pages(full: Study, tmp_path: Path) -> tuple[Path, str, str]:
    """The report's folder, its page, its Markdown."""
    write_report(assess([ABLATION], full), tmp_path / "reports")
    home = tmp_path / "reports" / "first"
    return home, (home / "index.html").read_text(), (home / "REPORT.md").read_text()


def test_the_page_is_well_formed_and_its_ids_are_unique(pages: tuple[Path, str, str]) -> None:
    reader = Reader(pages[1])
    assert reader.open == []
    ids = Counter(found["id"] for _, found in reader.elements if "id" in found)
    assert ids
    assert set(ids.values()) == {1}


def test_every_link_of_the_page_leads_somewhere_and_none_asks_the_network(pages: tuple[Path, str, str]) -> None:
    reader = Reader(pages[1])
    ids = {found["id"] for _, found in reader.elements if "id" in found}
    links = [found["href"] or "" for tag, found in reader.elements if tag == "a"]
    assert len(links) > 20
    for link in links:
        if link.startswith("#"):
            assert link[1:] in ids, link
        else:
            assert link.startswith("data:"), "the page is whole wherever it goes"
    fetched = [found.get("src") or "" for _, found in reader.elements if "src" in found]
    fetched += [found["href"] or "" for tag, found in reader.elements if tag == "link"]
    assert all(address.startswith("data:") for address in fetched)
    assert not re.search(r"@import|url\((?!#)", pages[1])


@pytest.mark.parametrize("name", ["my study", "100% #1", "a?b=c&d", "it's (new)", "größe", "<b>"])
def test_links_of_a_study_with_any_name_work(full: Study, tmp_path: Path, name: str) -> None:
    write_report(assess([ABLATION], Study(full.root.rename(full.root.with_name(name)))), tmp_path / "reports")
    home = tmp_path / "reports" / name
    links = [found["href"] or "" for tag, found in Reader((home / "index.html").read_text()).elements if tag == "a"]
    links += re.findall(r"\]\(([^)\s]+)\)", (home / "REPORT.md").read_text())
    files = [link for link in links if not link.startswith(("#", "data:"))]
    assert sum(link.endswith("record.json") for link in files) == 9, "of REPORT.md; the page has the records inside"
    for link in files:
        assert urlsplit(link).path == link, link
        assert (home / unquote(link)).resolve().is_file(), link


def test_tables_have_headers_and_figures_say_what_they_show(pages: tuple[Path, str, str]) -> None:
    reader = Reader(pages[1])
    headers = [found.get("scope") for tag, found in reader.elements if tag == "th"]
    assert headers
    assert set(headers) == {"col", "row"}
    figures = [found for tag, found in reader.elements if tag == "svg"]
    assert [figure["class"] for figure in figures] == ["page", "column"] * 3  # the table, its curves, error and cost
    assert all(found["role"] == "img" and found["aria-label"] for found in figures)
    # 13 is the mean of r = 4's errors, 10, 12 and 17.
    assert "r_4, 25% 13.00" in (figures[0]["aria-label"] or "")


def test_page_and_markdown_say_the_same(pages: tuple[Path, str, str], full: Study) -> None:
    _, html, markdown = pages
    text = " ".join(" ".join(Reader(html).text).split())
    assessment = assess([ABLATION], full)
    for finding in assessment.all_findings:
        assert finding.claim.statement in text
        assert finding.claim.statement in markdown
    for record in assessment.outcomes.records:
        assert record.run_id in text
        assert f"[{record.run_id}](../../results/first/{record.run_id}/record.json)" in markdown
    assert "13.00" in text
    assert "| 13.00" in markdown


def test_markdown_tables_have_as_many_cells_in_each_line(pages: tuple[Path, str, str]) -> None:
    blocks = re.findall(r"(?:^\|.*\n)+", pages[2], re.MULTILINE)
    assert len(blocks) >= 4  # findings, the table, audit, provenance
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block


def test_notes_and_departures_are_on_the_page_in_both_forms(full: Study, tmp_path: Path) -> None:
    second = "A second <paragraph>, [here](../x.md) and [not](javascript:alert(1))."
    (full.root / "notes.md").write_text(f"The images were\nscanned **twice**.\n\n \n\n{second}\n")
    write_report(assess([ABLATION], full), tmp_path)
    html, markdown = ((tmp_path / "first" / name).read_text() for name in ("index.html", "REPORT.md"))
    assert "<p>The images were scanned <strong>twice</strong>.</p>\n<p>A second &lt;paragraph&gt;, " in html
    assert '<a href="../x.md">here</a> and [not](javascript:alert(1)).</p>' in html
    assert "\n\nThe images were scanned **twice**.\n\nA second &lt;paragraph>, [here](../x.md) and" in markdown
    assert "| network.backbone | resnet50 | resnet14 |" in markdown
    assert Reader(html).open == []
    assert "network.backbone" in Reader(html).text
    assert "The same: precision (fp32); recipe.lr (0.1);" in markdown


def test_notes_that_are_no_text_are_told_with_their_place(full: Study, tmp_path: Path) -> None:
    (full.root / "notes.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"notes\.md: cannot be read as text in UTF-8"):
        write_report(assess([ABLATION], full), tmp_path)


def test_what_the_gates_learnt_is_on_the_page_once_it_was_asked(full: Study, tmp_path: Path) -> None:
    home = tmp_path / "first"
    for name in ("se-r16", "se-r16-of-before"):
        place = home / "excitation" / name
        place.mkdir(parents=True)
        (place / "blocks.csv").write_text("block,channels,dead\nSE_2_1,64,0.25\nSE_3_1,128,\n")
        (place / "excitation.md").write_text("more")
    gates = "block,class,channel,rank,mean\nSE_2_1,cat,1,1,0.5\nSE_2_1,dog,1,1,0.25\n"
    (home / "excitation" / "se-r16" / "gates.csv").write_text(gates)
    (home / "excitation" / "se-r16" / "gates.svg").write_text("<svg><script>alert(1)</script></svg>")
    write_report(assess([ABLATION], full), tmp_path)
    html, markdown = (home / "index.html").read_text(), (home / "REPORT.md").read_text()
    assert html.count('<tr><th scope="row">SE_3_1</th><td>128</td><td>–</td></tr>') == 2
    assert '<g id="gates-0-page-axes_1">' in html
    assert '<g id="gates-0-column-axes_1">' in html
    assert "alert(1)" not in html, "figures are drawn from their CSV"
    assert "| SE_2_1 | 64 | 0.25 |" in markdown
    assert re.findall(r"\]\((excitation/.*png)\)", markdown) == ["excitation/se-r16/gates.png"]
    assert Reader(html).open == []


def test_what_a_user_names_cannot_break_the_page(study: Study, tmp_path: Path) -> None:
    hostile = ABLATION.rows[0].model_copy(update={"label": "<script>alert(1)</script> | x"})
    ablation = ABLATION.model_copy(update={"rows": (hostile, *ABLATION.rows[1:])})
    for variant in (R4, R16):
        for seed in range(2):
            write_record(study, make_record(variant, seed, 10.0 + seed))
    write_report(assess([ablation], study), tmp_path / "reports")
    html = (tmp_path / "reports" / "first" / "index.html").read_text()
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert Reader(html).open == []


def test_a_report_on_one_table_names_only_pictures_and_places_that_are_there(study: Study, tmp_path: Path) -> None:
    for variant in (*(row.variant for row in load_ablations(ABLATIONS, ["squeeze"])[0].rows), PLAIN):
        for seed in range(2):
            write_record(study, make_record(variant, seed, 10.0 + seed))
    write_report(assess(load_ablations(ABLATIONS), study), tmp_path, ["squeeze"])
    home = tmp_path / "first"
    named = re.findall(r"!\[[^]]*\]\(([^)]*)\)", (home / "REPORT.md").read_text())
    assert "figures/table11_squeeze.png" in named
    assert [name for name in named if not (home / name).is_file()] == []
    elements = Reader((home / "index.html").read_text()).elements
    places = {f"#{found['id']}" for _, found in elements if "id" in found}
    links = {found["href"] for tag, found in elements if tag == "a" and found.get("href", "").startswith("#")}
    assert "#finding-11a" in links
    assert links <= places


@pytest.mark.parametrize(("slug", "count"), [("squeeze", 1), ("controls", 0)])
def test_only_a_table_of_the_paper_is_said_to_be_drawn_beside_it(
    study: Study, tmp_path: Path, slug: str, count: int
) -> None:
    write_report(assess(load_ablations(ABLATIONS, [slug]), study), tmp_path)
    assert (tmp_path / "first" / "index.html").read_text().count("differences to it would lie") == count


def test_a_study_without_a_run_has_a_page(study: Study, tmp_path: Path) -> None:
    write_report(assess([ABLATION], study), tmp_path)
    html = (tmp_path / "first" / "index.html").read_text()
    assert "no finished run yet" in html
    assert Reader(html).open == []


def test_files_inside_the_page_are_those_beside_it(pages: tuple[Path, str, str], full: Study) -> None:
    home, html, _ = pages
    files = {found["download"]: found["href"] for tag, found in Reader(html).elements if "download" in found}
    beside = {path.name: path for part in ("tables", "figures") for path in (home / part).iterdir()}
    beside |= {f"{path.parent.name}-curve.csv": path for path in full.root.glob("*/curve.csv")}
    assert {"table10_ratio.md", "table10_ratio.csv", "table10_ratio.tex", "pareto.csv"} < set(files)
    inside = {name: base64.b64decode((link or "").partition(";base64,")[2]) for name, link in files.items()}
    # A table's figure and the table itself have data of one name; both are there.
    tables = {path.name: path.read_bytes() for path in (home / "tables").iterdir()}
    for name, content in inside.items():
        assert content in {beside[name or ""].read_bytes(), tables.get(name or "")}
    for record in full.records():
        assert record == RunRecord.model_validate_json(_text_of(html, f"run-{record.run_id}"))


def _text_of(html: str, place: str) -> str:
    """The preformatted text of the element with this id."""
    part = html[html.index(f'id="{place}"') :]
    return unescape(part[part.index("<pre") :].partition(">")[2].partition("</pre>")[0])


def test_figures_on_one_page_do_not_share_ids() -> None:
    svg = '<?xml version="1.0"?><svg viewBox="0 0 1 1"><g id="a"/><!-- x -->\n <use xlink:href="#a"/>'
    svg += '<g clip-path="url(#a)"/></svg>'
    for form in ("page", "column"):
        assert Picture("one", svg, svg, "", 'a "b"').inline(form) == (
            f'<svg class="{form}" role="img" aria-label="a &#34;b&#34;" viewBox="0 0 1 1"><g id="one-{form}-a"/> '
            f'<use xlink:href="#one-{form}-a"/><g clip-path="url(#one-{form}-a)"/></svg>'
        )

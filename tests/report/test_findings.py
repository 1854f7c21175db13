"""The page and the CSV of findings: verdicts at a glance, a line per atom, nothing invented where runs are missing."""

from __future__ import annotations

import csv
import io
import tomllib
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import pytest
from helpers import ABLATION, PLAIN, R4, R16, make_record, markdown_cells, write_record
from studies import ABLATIONS, ALIKE, CLAIMED, CLEAR, better, claim, claimed, fill, paper_study, paper_tables, put_plan

from senet_ablate.analysis.study import Assessment, assess
from senet_ablate.report.escape import csv_text
from senet_ablate.report.findings import findings_frame, to_markdown
from senet_ablate.report.write import write_report
from senet_ablate.results.store import Study
from senet_ablate.spec.claims import Fewer, Rules
from senet_ablate.spec.loading import load_ablations

MIXED = claimed(
    claim("gain", better("r16", "plain")),
    claim("reversed", better("plain", "r16")),
    claim("open", better("r4", "r16")),
    claim("beside", better("r4", "plain"), secondary=True),
)


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Assessment:
    """A study of all tables in which the paper's figures are the truth."""
    return assess(paper_tables(), paper_study(tmp_path_factory.mktemp("results") / "truth"))


def declared_claims() -> list[dict[str, Any]]:
    """The paper's claims as they lie in the files, with the number of atoms that each has in pairs."""
    found = []
    for path in sorted(ABLATIONS.glob("table*.toml")):
        for entry in tomllib.loads(path.read_text())["claims"]:
            atoms = sum(comb(len(each["arms"]), 2) if each["kind"] == "equivalent" else 1 for each in entry["atoms"])
            found.append(entry | {"count": atoms})
    return found


def parsed(assessment: Assessment) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_text(findings_frame(assessment)))))


def glance(page: str) -> dict[str, dict[str, str]]:
    """The first table of the page, by finding."""
    header, _, *rows = markdown_cells(page.partition("\n## ")[0])
    return {cells["finding"]: cells for cells in (dict(zip(header, row, strict=True)) for row in rows)}


def lines_of(page: str) -> dict[str, str]:
    """The sentence on each finding, by its id."""
    told = [line for line in page.splitlines() if line.startswith("- **")]
    return {line.split("**")[1]: line for line in told}


# --- the paper's own figures as the truth ---


def test_where_the_papers_figures_are_true_all_fifteen_findings_are_reproduced(papers: Assessment) -> None:
    # Section 12.1: published numbers plus tiny noise give every superiority, 10b, 14a, 15a.
    page = to_markdown(papers)
    primary = [entry["id"] for entry in declared_claims() if not entry.get("secondary")]
    assert len(primary) == 15
    assert "Of 15 findings of the paper 15 hold here, 0 fail here and 0 are open at this budget" in page
    found = glance(page)
    assert list(found) == primary
    assert {(cells[""], cells["verdict"]) for cells in found.values()} == {("✓", "holds here")}


def test_each_finding_has_one_sentence_under_its_table_the_secondary_ones_too(papers: Assessment) -> None:
    page = to_markdown(papers)
    told = lines_of(page)
    entries = declared_claims()
    assert list(told) == [entry["id"] for entry in entries]
    for entry in entries:
        assert entry["statement"] in told[entry["id"]]
        assert ("Outside the family" in told[entry["id"]]) is bool(entry.get("secondary"))
    for table in paper_tables():
        assert page.count(f"\n## {table.heading}\n") == 1


def test_the_csv_has_one_line_per_pair_of_arms(papers: Assessment) -> None:
    lines = parsed(papers)
    for entry in declared_claims():
        own = [line for line in lines if line["finding"] == entry["id"]]
        assert len(own) == entry["count"]
        assert {line["statement"] for line in own} == {entry["statement"]}
        assert {line["secondary"] for line in own} == {str(entry.get("secondary", False))}
    assert len(lines) == sum(entry["count"] for entry in declared_claims())
    ratios = [line["atom"] for line in lines if line["finding"] == "10b"]
    assert ratios == [f"{one} and {other} the same" for one, other in combinations(["r2", "r4", "r8", "r16"], 2)]
    assert {line["table"] for line in lines} == {str(number) for number in range(10, 17)}


def test_published_noise_is_told_of_exactly_the_findings_that_rest_on_it(papers: Assessment) -> None:
    # Section 5: 12b (0.17 points, z = 1.0) and 13a (0.27 and 0.26, z = 1.6 and 1.5); 11a with z = 1.7 is just outside.
    told = lines_of(to_markdown(papers))
    assert [name for name, line in told.items() if "within run noise" in line] == ["12b", "13a"]


def test_the_papers_values_are_its_differences_in_run_standard_deviations(papers: Assessment) -> None:
    lines = {line["atom"]: line for line in parsed(papers) if line["finding"] in ("10a", "12b", "15a")}
    assert float(lines["r2 better than original"]["paper_value"]) == pytest.approx(1.01)
    assert float(lines["plain better than relu"]["paper_z"]) == pytest.approx(0.17 / 0.17)
    # Plain less the inner block, less half of the gain.
    assert float(lines["inner-3x3 keeps 50% of the gain"]["paper_value"]) == pytest.approx(0.82 - 0.51)


def test_a_difference_is_told_as_a_share_of_the_gain_beside_the_papers(papers: Assessment) -> None:
    line = next(line for line in parsed(papers) if line["finding"] == "11a")
    # All effects are ten times the paper's, so the shares are the paper's.
    assert float(line["share_of_gain"]) == pytest.approx(float(line["paper_share"]), rel=1e-5)
    assert float(line["paper_share"]) == pytest.approx(0.29 / 1.02, rel=1e-5)
    assert float(line["share_low"]) < 0.29 / 1.02 < float(line["share_high"])
    same = next(line for line in parsed(papers) if line["kind"] == "equivalent")
    assert same["share_of_gain"] == ""


def test_an_exact_count_has_a_verdict_and_no_statistics(papers: Assessment) -> None:
    counted = [line for line in parsed(papers) if line["kind"] == "fewer"]
    assert [line["finding"] for line in counted] == ["15a", "16a"]
    for line in counted:
        assert line["verdict"] == "reproduced"
        assert line["reason"].startswith("exact count: ")
        for empty in ("estimate", "ci_low", "ci_high", "se", "df", "p_one_sided", "confidence", "paper_value"):
            assert line[empty] == ""
    assert "exact counts: 2." in to_markdown(papers)


def test_the_csvs_numbers_agree_with_each_other(papers: Assessment) -> None:
    measured = [line for line in parsed(papers) if line["p_one_sided"]]
    assert measured
    for line in measured:
        numbers = {name: float(line[name]) for name in ("estimate", "ci_low", "ci_high", "p_one_sided", "confidence")}
        assert numbers["ci_low"] < numbers["estimate"] < numbers["ci_high"]
        assert numbers["ci_low"] + numbers["ci_high"] == pytest.approx(2 * numbers["estimate"], rel=1e-5)
        assert numbers["confidence"] == pytest.approx(1 - numbers["p_one_sided"], rel=1e-5)
        assert numbers["p_one_sided"] <= float(line["level"]), "reproduced"
        assert line["n_per_arm"].split() == ["3"] * len(line["n_per_arm"].split())


# --- mixed and half-way studies ---


def test_verdicts_are_counted_and_marked(study: Study) -> None:
    fill(study, CLEAR | {R4: (2.0, 10.0, 18.0)})  # as good as r16, but too wild to say so
    page = to_markdown(assess([MIXED], study))
    assert "Of 3 findings of the paper 1 holds here, 1 fails here and 1 is open at this budget." in page
    found = glance(page)
    assert {name: (cells[""], cells["verdict"]) for name, cells in found.items()} == {
        "gain": ("✓", "holds here"),
        "reversed": ("✗", "fails here"),
        "open": ("?", "open"),
    }, "what is outside the family is told below, not counted"
    assert "beside" in lines_of(page)


def test_an_open_finding_is_nowhere_called_no_difference(study: Study) -> None:
    fill(study, ALIKE)
    page = to_markdown(assess([MIXED], study))
    for line in lines_of(page).values():
        assert "**open**" in line
        assert "no difference" not in line
    assert 'What is open is not "no difference".' in page
    assert page.count("no difference") == 1


def test_verdicts_by_other_metrics_stand_beside_those_by_the_primary(study: Study) -> None:
    for variant, errors in ALIKE.items():
        for seed, (top1, top5) in enumerate(zip(errors, CLEAR[variant], strict=True)):
            write_record(study, make_record(variant, seed, top1 + 40, top5_err=top5))
    assessment = assess([MIXED], study)
    found = glance(to_markdown(assessment))
    assert found["reversed"]["by top-5 error"] == "fails here"
    cells = found["gain"]
    assert cells["verdict"] == "open"
    assert cells["by top-5 error"] == "holds here"
    assert cells["by cross-entropy"] == "open"
    line = parsed(assessment)[0]
    assert (line["finding_verdict"], line["verdict_top5_err"]) == ("not resolved", "reproduced")
    assert "- By top-5 error the SE gain is +40, " in to_markdown(assessment)


def test_cells_of_what_is_missing_are_empty(study: Study) -> None:
    fill(study, {R16: CLEAR[R16], PLAIN: (50.0,)})
    lines = {line["finding"]: line for line in parsed(assess([MIXED], study))}
    assert len(lines) == 4
    numbers = ("estimate", "ci_low", "ci_high", "se", "df", "p_one_sided", "p_adjusted", "confidence", "rho_star")
    assert {name: lines["open"][name] for name in numbers} == dict.fromkeys(numbers, "")
    assert (lines["open"]["reason"], lines["open"]["n_per_arm"]) == ("not run: se-r4", "0 3")
    assert float(lines["gain"]["estimate"]) == pytest.approx(40.0), "one seed has an estimate"
    assert lines["gain"]["p_one_sided"] == lines["gain"]["confidence"] == "", "and no test"
    assert float(lines["open"]["paper_value"]) == pytest.approx(22.28 - 22.25)


def test_a_study_without_runs_has_a_page_and_a_csv_without_numbers(study: Study) -> None:
    assessment = assess([MIXED], study)
    page = to_markdown(assessment)
    assert "0 hold here, 0 fail here and 3 are open" in page
    assert "No two networks have runs to compare." in page
    assert {line["estimate"] for line in parsed(assessment)} == {""}


def test_csv_has_the_specified_columns_with_six_digits(study: Study) -> None:
    fill(study, CLEAR)
    assessment = assess([CLAIMED], study)
    frame, lines = findings_frame(assessment), parsed(assessment)
    # Section 4, "Output per claim".
    assert {
        "finding", "kind", "statement", "paper_value", "paper_z", "estimate", "ci_low", "ci_high", "se", "df",
        "p_one_sided", "p_adjusted", "confidence", "verdict", "reason", "holds_for_new_images", "rho_star", "n_per_arm",
        "flags",
    } <= set(lines[0])  # fmt: skip
    assert list(frame.columns) == list(lines[0])
    for number, line in enumerate(lines):
        for name in ("estimate", "ci_low", "ci_high", "se", "df", "p_one_sided", "p_adjusted"):
            assert float(line[name]) == pytest.approx(frame[name].iloc[number], rel=1e-5)


def test_the_plan_its_rules_and_deviations_stand_at_the_end(study: Study) -> None:
    plan = put_plan(study, 4, rules=Rules(margin_abs=0.5, pairing="none", estimand="population", alpha=0.1))
    fill(study, CLEAR)
    page = to_markdown(assess([CLAIMED], study))
    end = page.partition("\n## Plan\n")[2]
    for words in (
        plan.digest,
        plan.written,
        "1 analysis,",
        "alpha 0.1 by table",
        "0.5 points",
        "none credit",
        "new images of the same kind",
        "- se-r4: 3 of 4 planned runs are there",
    ):
        assert words in end
    assert "at most 10% of studies" in page


def test_a_study_as_planned_says_so_and_other_machines_are_told(study: Study) -> None:
    put_plan(study, 3)
    fill(study, {R16: CLEAR[R16], PLAIN: CLEAR[PLAIN]})
    fill(study, {R4: CLEAR[R4]}, cpu="Another processor")
    end = to_markdown(assess([CLAIMED], study)).partition("\n## Plan\n")[2]
    assert "- Deviations from the plan: none." in end
    assert "Another processor" in end


def test_the_same_records_give_the_same_bytes(study: Study) -> None:
    fill(study, ALIKE)
    one, two = (assess([CLAIMED], Study(study.root)) for _ in range(2))
    assert csv_text(findings_frame(one)) == csv_text(findings_frame(two))
    assert to_markdown(one) == to_markdown(two)


def test_counts_of_exact_claims_leave_out_what_is_measured(study: Study) -> None:
    counted = Fewer(kind="fewer", quantity="params", arm="r16", than="r4")
    page = to_markdown(assess([claimed(claim("cheaper", counted))], study))
    assert glance(page)["cheaper"]["verdict"] == "holds here", "an exact count needs no run"
    assert "exact counts: 1." in page


def test_a_report_on_some_tables_still_has_the_findings_of_the_whole_study(study: Study, tmp_path: Path) -> None:
    fill(study, {arm: CLEAR[arm] for arm in (R16, PLAIN)})  # which every table has: nothing of this one's own was run
    assessment = assess([CLAIMED, *load_ablations(ABLATIONS, ["squeeze"])], study)
    write_report(assessment, tmp_path / "reports", ["squeeze"])
    place = tmp_path / "reports" / "first" / "tables"
    assert (place / "findings.md").read_text(encoding="utf-8") == to_markdown(assessment)
    assert (place / "findings.csv").read_text(encoding="utf-8") == csv_text(findings_frame(assessment))
    assert (place / "table11_squeeze.md").exists()
    assert not (place / "table10_ratio.md").exists()


def test_tables_without_claims_and_without_plain_have_a_page(study: Study) -> None:
    fill(study, {R4: CLEAR[R4], R16: CLEAR[R16]})
    bare = ABLATION.model_copy(update={"rows": ABLATION.rows[:2]})
    assert "No table declares a finding." in to_markdown(assess([bare], study))


def test_controls_are_not_counted_as_findings_of_the_paper(study: Study) -> None:
    (controls,) = load_ablations(ABLATIONS, ["controls"])
    assert f"Of {len(MIXED.claims) - 1} findings of the paper" in to_markdown(assess([MIXED, controls], study))


def test_an_interval_is_named_by_its_own_level(study: Study) -> None:
    put_plan(study, 3, rules=Rules(looks=5))
    fill(study, CLEAR)
    page = to_markdown(assess([CLAIMED], study))
    assert "simultaneous 98.45 % interval" in page, "five looks share 5 % by 0.31 each"
    assert "simultaneous 95 % interval" not in page


def test_the_page_says_how_often_such_verdicts_are_wrong(study: Study) -> None:
    few = "Where networks have fewer than 5 seeds"
    fill(study, ALIKE)
    page = to_markdown(assess([MIXED], study))
    assert "In each table at most 5% of studies" in page
    assert "In simulated studies without any effect, about one in 8 shows some false finding." in page
    assert few not in page, "nothing is decided"
    assert "Verdicts by another metric" in page
    put_plan(study, 3, rules=Rules(family="study"))
    page = to_markdown(assess([MIXED], study))
    assert "At most 5% of studies like this one" in page
    assert "about one in" not in page


def test_decided_findings_of_few_seeds_stand_with_their_condition(study: Study) -> None:
    fill(study, CLEAR)
    assert "Where networks have fewer than 5 seeds, one of three times" in to_markdown(assess([MIXED], study))


def test_shared_runs_are_named(study: Study) -> None:
    fill(study, CLEAR)
    twin = Study(study.root.parent / "twin")
    pin = study.pin()
    assert pin is not None
    twin.begin(pin.protocol, pin.data)
    fill(twin, {R16: CLEAR[R16]})
    page = to_markdown(assess([MIXED], study))
    assert "Of 9 runs this study shares 3 with twin: their findings are not independent." in page
    assert "Tables share runs" not in page, "there is one table"
    other = MIXED.model_copy(update={"slug": "other"})
    page = to_markdown(assess([MIXED, other], study))
    assert "of 2 tables, the runs of plain (3) in 2, se-r16 (3) in 2, se-r4 (3) in 2." in page

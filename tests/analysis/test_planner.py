"""The `plan` command: how many seeds, what they can decide under which rules, wishes that cannot be met."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from helpers import PROTOCOL
from planned import Call, nothing_written, powers, said, the_plan, told
from studies import ABLATIONS

from senet_ablate.analysis.planner import PlanPreview, PlanRequest, preview
from senet_ablate.results.plan import Selection
from senet_ablate.results.store import Study
from senet_ablate.spec.claims import Rules
from senet_ablate.spec.loading import load_ablations

# --- seeds ---


def test_without_a_budget_each_network_gets_the_protocols_seeds_or_those_asked_for(call: Call) -> None:
    assert "3 variants, 9 runs, 0 finished, 9 to do." in said(call("plan", "squeeze"))
    assert "3 variants, 21 runs, 0 finished, 21 to do." in said(call("plan", "squeeze", "--seeds", "7"))
    assert nothing_written()


def test_runs_are_shared_out_and_all_of_them(call: Call) -> None:
    result = call("plan", "squeeze", "--runs", "20")
    assert result.exit_code == 0, result.output
    assert "3 variants, 20 runs, 0 finished, 20 to do." in said(result)
    assert "No plan file yet; --write makes this the plan." in said(result)
    assert nothing_written()


def test_a_plan_tells_what_it_can_decide_before_anything_runs(call: Call) -> None:
    result = call("plan", "squeeze", "--seeds", "5", "--error", "5")
    found = powers(result)
    assert set(found) == {"11a", "11b"}, "11c is outside the family"
    assert [float(cells["power"]) for cells in found.values()] == sorted(
        float(cells["power"]) for cells in found.values()
    )
    assert (found["11a"]["paper"], found["11b"]["paper"]) == ("0.29", "0.73")
    # Section 7: 100 sqrt(phi kappa err / 2N) with 30 epochs, 10 classes and the digits' 768 test images.
    sd = 100 * math.sqrt(1.15 * 0.75 * 0.05 / (2 * 768))
    text = said(result)
    assert (
        f"Run-to-run standard deviation: {sd:.2f} points, from formulas, for an error of 5 % on 768 test images" in text
    )
    assert f"Assumed SE gain: 1.02 points, {1.02 / sd:.1f} times the noise." in text
    assert f"standard error of about {7 / math.sqrt(768):.2f} points" in text
    expected = sum(float(cells["power"]) for cells in found.values())
    first = re.match(
        r"With these seeds expect (\S+) of 2 findings decided if the paper's effects are true, (\S+) if half", text
    )
    assert first is not None, "the first line says what to expect"
    assert float(first[1]) == pytest.approx(expected, abs=0.06)
    assert float(first[2]) == pytest.approx(sum(float(cells["half"]) for cells in found.values()), abs=0.06)
    lost = [name for name, cells in found.items() if float(cells["power"]) < 0.795]
    assert text.index("out of reach") < text.index(f"{lost[0]} ")
    reached = text.partition("within reach")[2]
    assert [name for name in found if f"{name} " in reached] == [name for name in found if name not in lost]
    assert "Average pooling beats max pooling" in text, "each claim has its sentence"
    assert max(map(len, result.stdout.partition("out of reach")[2].partition("MDE:")[0].splitlines())) <= 80


def test_an_assumed_gain_scales_what_the_paper_shows(call: Call) -> None:
    found = powers(call("plan", "squeeze", "--gain", "3.06"))
    assert (found["11a"]["paper"], found["11b"]["paper"]) == ("0.87", "2.19")


def test_rows_alone_have_no_findings_to_plan_for(call: Call) -> None:
    assert "No finding of the chosen rows can be judged: name whole tables." in said(
        call("plan", "ratio", "--rows", "r2")
    )


def test_findings_without_figures_of_the_paper_have_no_chances_but_are_judged(call: Call) -> None:
    text = said(call("plan", "controls", "--seeds", "3"))
    assert "These findings will be judged; the paper prints no figures" in text
    assert "name whole tables" not in text


# --- wishes that exclude each other ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "4", "--runs", "20"], ["--seeds 4", "--runs"]),
        (["--seeds", "4", "--budget", "2h"], ["--seeds 4", "--budget"]),
        (["--runs", "20", "--budget", "2h"], ["--runs 20", "--budget", "give one"]),
        (["--extend"], ["--extend", "--runs N or --budget TIME"]),
        (["--extend", "--runs", "9"], ["--extend", "'digits'", "no plan file", "--write"]),
        (["--runs", "5"], ["83%", "two seeds of each of 3 variants"]),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(arguments: list[str], words: list[str], call: Call) -> None:
    message = told(call("plan", "squeeze", *arguments))
    assert all(word in message for word in words), message
    assert nothing_written()


@pytest.mark.parametrize("options", [["--runs", "1"], ["--gain", "0"], ["--error", "100"], ["--jobs", "0"]])
def test_numbers_out_of_range_are_refused(options: list[str], call: Call) -> None:
    assert options[0] in told(call("plan", "squeeze", *options))


# --- rules ---


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("margin_roh=0.3", ["--rule", "margin_roh", "did you mean 'margin_rho'"]),
        ("margin_rho=2", ["--rule", "margin_rho = 2", "less than or equal to 1"]),
        ("alpha=much", ["--rule", "alpha", "much"]),
        ("pairing=quarter", ["--rule", "pairing", "half", "full", "none"]),
        ("metric=top1", ["--rule", "metric", "top1_err"]),
        ("looks=6", ["--rule", "looks = 6", "less than or equal to 5"]),
        ("margin_rho", ["--rule 'margin_rho'", "KEY=VALUE"]),
    ],
)
def test_a_mistake_in_a_rule_is_told_with_what_would_be_right(change: str, words: list[str], call: Call) -> None:
    message = told(call("plan", "squeeze", "--rule", change, "--write"))
    assert all(word in message for word in words), message
    assert nothing_written()


def test_changed_rules_are_written_and_change_what_can_be_decided(call: Call) -> None:
    usual = powers(call("plan", "squeeze", "--seeds", "8"))
    careful = call(
        "plan", "squeeze", "--seeds", "8", "--rule", "alpha=0.01", "--rule", "looks = 2", "--rule", "margin_abs=0.4",
        "--rule", "pairing=none", "--write",
    )  # fmt: skip
    assert careful.exit_code == 0, careful.output
    assert the_plan().rules == Rules(alpha=0.01, looks=2, margin_abs=0.4, pairing="none")
    for name, cells in powers(careful).items():
        assert float(cells["mde"]) > float(usual[name]["mde"])
        assert float(cells["power"]) < float(usual[name]["power"])
    again = call("plan", "squeeze", "--rule", "alpha=0.1", "--write")
    assert again.exit_code == 0
    assert the_plan().rules == Rules(alpha=0.1, looks=2, margin_abs=0.4, pairing="none"), "others stay as they were"


# --- the function behind the command ---


def laid_out(tmp_path: Path, wish: PlanRequest, results: Path | None = None) -> PlanPreview:
    tables = load_ablations(ABLATIONS, ["squeeze"])
    chosen = Selection(tables, tables, PROTOCOL, Study((results or tmp_path / "results") / "tiny"))
    return preview(chosen, wish, (1, 10), lambda share: None)


def test_a_plan_has_runs_cost_and_prospects_of_the_same_seeds(tmp_path: Path) -> None:
    found = laid_out(tmp_path, PlanRequest(runs=14, error=20.0, gain=2.0))
    assert found.plan.runs == 14
    assert found.estimate is None
    assert found.pace is None
    assert [prospect.claim.id for prospect in found.claims] == ["11a", "11b"]
    assert all(found.takes(prospect) == f"{prospect.seeds} seeds" for prospect in found.claims)
    assert not (tmp_path / "results").exists()


def test_a_hopeless_finding_takes_more_than_any_number_of_seeds(tmp_path: Path) -> None:
    found = laid_out(tmp_path, PlanRequest(seeds=3, gain=0.01))
    assert {found.takes(prospect) for prospect in found.claims} == {"> 1,000 seeds"}


def test_plans_of_equal_wishes_are_equal(tmp_path: Path) -> None:
    one, two = (laid_out(tmp_path, PlanRequest(runs=13)) for _ in range(2))
    assert one == two

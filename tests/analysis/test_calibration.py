"""Under test: the calibration counts what is right and wrong, with any number of processes; levels hold in short."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from senet_ablate.analysis import calibration
from senet_ablate.analysis.calibration import (
    Cell,
    GroundTruth,
    Tally,
    calibrate,
    edge,
    is_true,
    paper_errors,
    simulate,
    summarise,
    tally,
)
from senet_ablate.analysis.contrasts import TableContrasts
from senet_ablate.analysis.evidence import Evidence
from senet_ablate.analysis.noise import Sample
from senet_ablate.analysis.verdicts import STUDY_RATE, AtomVerdict, Explanation, Reason, Verdict
from senet_ablate.spec.claims import Atom, Claim, Equivalent, Fewer, Retains, Rules, Superior
from senet_ablate.spec.loading import load_ablations

TABLES = load_ablations(Path(__file__).parents[2] / "ablations")
SQUEEZE = TABLES[1]
SMALL = GroundTruth(paper_errors(TABLES, 0.0), images=2000, sd=0.25 * 5**0.5)  # what 0.25 is on 10,000 images

# --- truths and edges ------------------------------------------------------------------------------------------------


def test_the_papers_errors_are_printed_ones_shrunk_towards_its_se_network():
    plain, relu = SQUEEZE.arm("plain"), TABLES[2].arm("relu")
    assert len(paper_errors(TABLES, 1.0)) == 17
    for scale, expected in ((1.0, (23.30, 23.47)), (0.5, (22.79, 22.875)), (0.0, (22.28, 22.28))):
        errors = paper_errors(TABLES, scale)
        assert (errors[plain], errors[relu]) == pytest.approx(expected)
        assert errors[SQUEEZE.arm("avg")] == pytest.approx(22.28)


def test_at_the_edge_arms_that_are_claimed_to_be_the_same_lie_a_quarter_of_the_gain_away():
    paper = paper_errors(TABLES, 1.0)
    moved = edge(TABLES, paper)
    changed = {arm: error for arm, error in moved.items() if error != paper[arm]}
    same = [TABLES[0].arm(name) for name in ("r2", "r4", "r8")] + [TABLES[4].arm(name) for name in ("pre", "identity")]
    assert changed == pytest.approx(dict.fromkeys(same, 22.28 + 1.02 / 4))


# Of plain, avg and max: the gain is 1 and max keeps 0.6 of it.
TRUTH = {"plain": 23.0, "avg": 22.0, "max": 22.4}


def atom_verdict(atom: Atom, verdict: Verdict, reason: Reason | None = None) -> AtomVerdict:
    return AtomVerdict(atom, verdict, Explanation(reason) if reason else None)


BETTER = Superior(kind="superior", better="avg", worse="max")
WORSE = Superior(kind="superior", better="max", worse="avg")
SAME = Equivalent(kind="equivalent", arms=("avg", "max"))
HALF = Retains(kind="retains", arm="max", share=0.5)
MOST = Retains(kind="retains", arm="max", share=0.7)


@pytest.mark.parametrize(
    ("atom", "verdict", "reason", "changes", "true"),
    [
        (BETTER, "reproduced", None, {}, True),
        (WORSE, "reproduced", None, {}, False),
        (BETTER, "reproduced", None, {"max": 22.0}, False),  # equal is not better
        (BETTER, "contradicted", Reason.REVERSED, {}, False),
        (WORSE, "contradicted", Reason.REVERSED, {}, True),
        (WORSE, "contradicted", Reason.REVERSED, {"max": 22.0}, False),
        (BETTER, "contradicted", Reason.IMMATERIAL, {}, False),
        (BETTER, "contradicted", Reason.IMMATERIAL, {"max": 22.2}, True),
        (BETTER, "contradicted", Reason.IMMATERIAL, {"max": 22.25}, False),  # at the margin
        (BETTER, "contradicted", Reason.IMMATERIAL, {"max": 21.8}, True),
        (BETTER, "contradicted", Reason.IMMATERIAL, {"max": 22.0, "plain": 21.0}, False),  # no gain
        (SAME, "reproduced", None, {}, False),
        (SAME, "reproduced", None, {"max": 22.2}, True),
        (SAME, "reproduced", None, {"max": 22.25}, False),
        (SAME, "contradicted", Reason.TOO_DIFFERENT, {}, True),
        (SAME, "contradicted", Reason.TOO_DIFFERENT, {"max": 21.6}, True),
        (SAME, "contradicted", Reason.TOO_DIFFERENT, {"max": 22.25}, False),
        (HALF, "reproduced", None, {}, True),
        (MOST, "reproduced", None, {}, False),
        (HALF, "contradicted", Reason.LOSES_GAIN, {}, False),
        (MOST, "contradicted", Reason.LOSES_GAIN, {}, True),
        (HALF, "reproduced", None, {"plain": 21.0}, False),
        (Fewer(kind="fewer", quantity="params", arm="max", than="avg"), "reproduced", None, {}, True),
    ],
)
def test_a_verdict_is_true_if_it_says_what_is_the_case(atom, verdict, reason, changes, true):
    truth = {**TRUTH, **changes}
    arms = [SQUEEZE.arm(name) for name in truth]
    contrasts = TableContrasts(SQUEEZE, arms, Rules())
    assert is_true(contrasts, atom_verdict(atom, verdict, reason), np.array(list(truth.values()))) is true


# --- one study -------------------------------------------------------------------------------------------------------


def sure_study(errors: dict[str, float]) -> Evidence:
    """Three runs of plain, avg and max with these mean errors and next to no scatter, as a study of the squeeze."""
    rng = np.random.default_rng(1)
    scores = [
        dict(enumerate(error + 0.05 * (luck - luck.mean(axis=1, keepdims=True)) + 0.001 * rng.standard_normal((3, 1))))
        for error, luck in ((error, rng.standard_normal((3, 50))) for error in errors.values())
    ]
    placed = tuple(SQUEEZE.arm(name) for name in errors)
    return Evidence(placed, Sample.of(scores), Rules(), points=1 << 11)


def told(seen: dict[str, float], truth: dict[str, float]) -> Tally:
    errors = {SQUEEZE.arm(name): error for name, error in truth.items()}
    return tally([SQUEEZE], sure_study(seen), GroundTruth(errors))


def test_findings_that_say_what_is_the_case_count_as_right():
    # Average beats max, max beats plain; the third claim is secondary.
    found = told(TRUTH, TRUTH)
    assert (found.right, found.false) == (2, {"squeeze": 0})
    assert all(found.covered.values())
    assert found.simultaneous == {"squeeze": True}
    assert found.unstable == ()
    reverse = {"plain": 22.0, "avg": 22.6, "max": 22.3}
    assert told(reverse, reverse).right == 2  # contradicted, and rightly so


def test_planted_findings_that_are_not_so_count_as_false():
    found = told(TRUTH, {"plain": 23.0, "avg": 22.4, "max": 22.4})  # seen better, but the same
    assert (found.right, found.false) == (1, {"squeeze": 1})
    found = told(TRUTH, {"plain": 22.0, "avg": 22.4, "max": 22.1})  # both the other way round
    assert (found.right, found.false) == (0, {"squeeze": 2})
    assert found.simultaneous == {"squeeze": False}
    assert not all(found.covered.values())


def test_open_findings_count_neither_way():
    same = {"plain": 22.0, "avg": 22.0, "max": 22.0}
    found = told(same, same)
    assert (found.right, found.false) == (0, {"squeeze": 0})


def test_a_finding_is_false_if_any_of_its_atoms_is():
    both = Claim(
        id="both", statement="?", source="ours", atoms=(BETTER, Superior(kind="superior", better="max", worse="plain"))
    )
    ablation = SQUEEZE.model_copy(update={"claims": (both,)})
    for truth, right in ((TRUTH, 1), ({**TRUTH, "max": 22.0}, 0), ({**TRUTH, "max": 23.0}, 0)):
        errors = {SQUEEZE.arm(name): error for name, error in truth.items()}
        found = tally([ablation], sure_study(TRUTH), GroundTruth(errors))
        assert (found.right, found.false["squeeze"]) == (right, 1 - right)


# --- many studies ----------------------------------------------------------------------------------------------------


def made_up(
    covered: list[bool], false: int, right: int, unstable: tuple[str, ...] = (), planted: tuple[str, ...] = ()
) -> Tally:
    return Tally(
        {f"c{place}": each for place, each in enumerate(covered)}, {"one": all(covered), "two": True},
        {"one": 0, "two": false}, right, unstable, planted,
    )  # fmt: skip


def test_a_line_of_the_calibration_is_made_of_shares_of_studies():
    tanh = TABLES[2].arm("tanh")
    cell = Cell("some", GroundTruth({}), (3, 3))
    tallies = [made_up([True, True], 2, 4), made_up([True, False], 0, 6), made_up([True, True], 0, 5, (tanh.slug,))]
    line = summarise(cell, [*tallies, made_up([True, True], 1, 5)])
    assert line == {
        "truth": "some",
        "seeds": "3",
        "studies": 4,
        "coverage": 0.875,
        "least_coverage": 0.75,
        "simultaneous_coverage": 0.75,
        "false_worst_table": 0.5,
        "worst_table": "two",
        "false_any": 0.5,
        "right": 5.0,
        "flagged": None,
        "promised": True,
        "holds": False,
    }
    planted = [replace(each, planted=(tanh.slug,)) for each in tallies]
    shaky = summarise(replace(cell, seeds=(2, 9)), planted)
    assert (shaky["seeds"], shaky["flagged"], shaky["promised"]) == ("2 to 9", pytest.approx(1 / 3), False)
    assert summarise(replace(cell, seeds=(5, 9)), planted)["promised"]


def test_a_line_holds_if_intervals_cover_and_few_studies_have_a_false_finding():
    sound, false = made_up([True], 0, 1), made_up([True], 1, 0)
    missed = made_up([False], 0, 1)
    cell = Cell("some", GroundTruth({}), (3,))
    unstable, wrong = (replace(each, planted=("se-r16-tanh",)) for each in (sound, false))
    assert summarise(cell, [sound] * 94 + [false] * 6)["holds"]
    assert not summarise(cell, [sound] * 93 + [false] * 7)["holds"]
    assert summarise(cell, [unstable] * 92 + [wrong] * 8)["holds"]
    assert not summarise(cell, [unstable] * 91 + [wrong] * 9)["holds"]
    assert summarise(cell, [sound] * 94 + [missed] * 6)["holds"]
    assert not summarise(cell, [sound] * 93 + [missed] * 7)["holds"]


def test_the_number_of_processes_changes_no_number(monkeypatch):
    paper = {SQUEEZE.arm(name): SQUEEZE.paper_top1(name) for name in ("plain", "avg", "max")}
    truths = [
        GroundTruth(paper, images=400, sd=0.8),
        GroundTruth(dict.fromkeys(paper, 22.0), images=400, sd=0.8, unstable={SQUEEZE.arm("max"): 3.0}),
    ]
    some = [Cell(f"cell {place}", truth, (3, 3, 4)) for place, truth in enumerate(truths)]
    monkeypatch.setattr(calibration, "cells", lambda ablations, seeds: iter(some))
    heard: list[float] = []
    one, two = (calibrate([SQUEEZE], 30, [3], jobs, heard.append) for jobs in (1, 2))
    pd.testing.assert_frame_equal(one, two)
    assert one["studies"].tolist() == [30, 30]
    assert heard == [0.25, 0.5, 0.75, 1.0] * 2  # two cells of 25 and 5 studies
    here = [simulate([SQUEEZE], cell, index, range(30)) for index, cell in enumerate(some)]
    pd.testing.assert_frame_equal(one, pd.DataFrame([summarise(*pair) for pair in zip(some, here, strict=True)]))
    assert here[0][:7] != here[0][7:14], "studies differ"


def test_the_calibration_has_the_truths_of_the_design_at_every_number_of_seeds():
    found = list(calibration.cells(TABLES, (3, 5)))
    names = [cell.name for cell in found]
    assert len(names) == 2 * 12 + 4
    for cell in found:
        assert len(cell.seeds) == len(cell.truth.errors) == 17
    by_name = {cell.name: cell for cell in found}
    assert set(by_name["no effects"].truth.errors.values()) == {22.28}
    assert by_name["paper's effects"].truth.errors == paper_errors(TABLES, 1.0)
    assert {multiple for cell in found for multiple in (cell.truth.unstable or {}).values()} == {3.0, 3.4, 30.0}
    assert set(by_name["unequal seeds, no effects"].seeds) == set(range(2, 10))
    assert [cell.name for cell in found if cell.rules.estimand == "population"] == ["new images, paper's effects"] * 2


def test_an_unstable_network_in_turn_is_another_one_in_each_chunk():
    cell = next(cell for cell in calibration.cells(TABLES, (5,)) if cell.in_turn)
    starts = [range(25 * number, 25 * number + 25) for number in range(17)]
    planted = [cell.truth_of(chunk).unstable for chunk in starts]
    assert {arm for each in planted for arm in each} == set(cell.truth.errors)
    assert all(list(each.values()) == [3.0] for each in planted)


def test_the_rate_that_reports_print_is_that_of_the_calibration():
    frame = pd.read_csv(Path(__file__).parents[2] / "reports" / "calibration" / "calibration.csv")
    seen = frame[frame.iloc[:, 0] == "no effects"]
    assert abs(seen["false_any"].mean() - STUDY_RATE) < 3 * (0.12 * 0.88 / seen["studies"].sum()) ** 0.5


def coverage(cell: Cell, studies: int) -> tuple[float, float]:
    """Of 95 % intervals one by one, and of all of a table together, in the worst table."""
    line = summarise(cell, simulate(TABLES, cell, 0, range(studies)))
    return float(line["coverage"]), float(line["simultaneous_coverage"])


def test_intervals_cover_as_often_as_they_say_where_there_are_no_effects():
    each, together = coverage(Cell("no effects", SMALL, (3,) * 17), 60)
    assert 0.94 <= each < 0.99
    assert together >= stats.binom.ppf(0.001, 60, 0.95) / 60


@pytest.mark.slow
@pytest.mark.parametrize("errors", [0.0, 1.0], ids=["no-effects", "paper"])
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("noise", ["long", "short"])
def test_levels_hold_in_many_studies(noise, seeds, errors):
    truth = replace(SMALL, errors=paper_errors(TABLES, errors))
    if noise == "short":
        truth = replace(truth, sd=0.4 * 5**0.5, phi=4.0, correlation=0.4, shared=0.3)
    line = summarise(cell := Cell("", truth, (seeds,) * 17), simulate(TABLES, cell, 0, range(200)))
    assert line["coverage"] >= 0.94
    assert line["simultaneous_coverage"] >= 0.91
    assert line["false_worst_table"] < 0.08

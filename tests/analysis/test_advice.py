"""Under test: how many more seeds are advised, and from which margin on arms would be the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from judging import A_WORSE, FOUR, KEEPS, NULL, PRINTED, SAME, moved, p_of_the_same, study, table, verdict
from scipy import optimize, stats
from studies import better, same

from senet_ablate.analysis.judge import TableJudge
from senet_ablate.analysis.sample_size import advise
from senet_ablate.analysis.verdicts import AtomVerdict
from senet_ablate.report.findings import reason_in_words
from senet_ablate.spec.claims import Atom


def advised(atom: Atom, errors: Mapping[str, float], **settings: Any) -> AtomVerdict:
    ablation = table(atom)
    judge = TableJudge(ablation, study(ablation, errors, **settings))
    (finding,) = judge.judge()
    return advise(judge, finding).atoms[0]


# --- the margin at which arms pass as the same ---


@pytest.mark.parametrize("difference", [0.0, 0.3, -0.7])
@pytest.mark.parametrize("gain", [1.5, 4.0])
def test_rho_star_is_the_share_of_the_gain_at_which_two_arms_just_pass_as_the_same(difference, gain):
    found = advised(SAME, {**FOUR, "plain": 20 + gain, "a": 20 + difference})
    by_hand = optimize.brentq(lambda rho: p_of_the_same(difference, gain, rho) - 0.05, 0, 4)
    assert found.rho_star == pytest.approx(by_hand, abs=1e-3)
    assert found.rho_star > abs(difference) / gain
    for rho, passes in ((by_hand + 0.005, True), (by_hand - 0.005, False)):
        again = verdict(SAME, {**FOUR, "plain": 20 + gain, "a": 20 + difference}, margin_rho=rho)
        assert (again.verdict == "reproduced") is passes


def test_there_is_no_rho_star_without_a_gain_nor_for_other_claims():
    assert advised(SAME, {**FOUR, "plain": 20.0}).rho_star is None
    assert advised(A_WORSE, FOUR, sd=3.0).rho_star is None
    assert advised(KEEPS, FOUR, sd=3.0).rho_star is None


def test_rho_star_is_open_without_runs_of_the_network_without_se():
    assert advised(same("ref", "a"), {"ref": 20.0, "a": 20.05}, margin_abs=0.5).rho_star is None


# --- seeds ---


def seeds_by_hand(effect: float, squares: float, sd: float, arms_with_runs: int = 5) -> int:
    """Smallest number at which the planned effect is 80 % sure to be found, all arms having as many seeds."""

    def enough(n: int) -> bool:
        df = arms_with_runs * (n - 1)
        return bool((stats.t.isf(0.05, df) + stats.t.isf(0.2, df)) * sd * (squares / n) ** 0.5 <= effect)

    return next(n for n in range(2, 1001) if enough(n))


@pytest.mark.parametrize("seen", [0.02, -0.3, 0.1])
def test_more_seeds_are_what_the_papers_share_of_the_gain_needs_whatever_difference_was_seen(seen):
    # The paper's difference is 0.5 of its gain of 4; here the gain is 8, so 1 is planned.
    errors = {**FOUR, "plain": 28.0, "a": 20 + seen}
    found = advised(A_WORSE, errors, sd=2.0)
    assert found.verdict == "not resolved"
    assert found.more_seeds == seeds_by_hand(1.0, 2, 2.0) - 5


def test_more_seeds_take_the_papers_difference_in_points_where_no_gain_was_seen():
    found = advised(A_WORSE, {**FOUR, "plain": 20.0}, sd=2.0)
    assert found.more_seeds == seeds_by_hand(0.5, 2, 2.0) - 5


def test_more_seeds_for_the_same_and_for_a_share_are_those_of_the_hardest_contrast():
    # The paper's a and b differ by 0.5, a quarter of its gain is 1: 0.5 and 1.5 are left on either side.
    found = advised(SAME, {**FOUR, "plain": 20.0}, sd=2.0)
    assert found.more_seeds == seeds_by_hand(0.5, 2 + 2 / 16, 2.0) - 5
    # a gains 3.5 of 4 in the paper, half of it is 2; the gain itself is easier.
    found = advised(KEEPS, {**FOUR, "plain": 20.0}, sd=2.0)
    assert found.more_seeds == max(seeds_by_hand(1.5, 1.5, 2.0), seeds_by_hand(4.0, 2, 2.0)) - 5


def test_more_seeds_count_from_the_arm_that_has_fewest_and_are_at_least_one():
    few = advised(A_WORSE, {**FOUR, "plain": 20.0}, sd=2.0, seeds={"a": 3})
    assert few.more_seeds == seeds_by_hand(0.5, 2, 2.0) - 3
    # Paper's effects would have been found long ago, but here there are none.
    assert advised(A_WORSE, {**FOUR, "plain": 20.0}, sd=0.2).more_seeds == 1


def test_no_seeds_are_advised_where_the_paper_wants_the_contrary_or_says_nothing_or_a_verdict_is_there():
    assert advised(better("a", "ref"), {**FOUR, "plain": 20.0}, sd=2.0).more_seeds is None
    assert advised(better("ref", "again"), {**FOUR, "again": 20.0}, sd=2.0).more_seeds is None
    assert advised(A_WORSE, moved("a", 1.0)).more_seeds is None
    assert advised(A_WORSE, FOUR, sd=2.0, seeds={"a": 1}).more_seeds is None
    assert advised(NULL, {**FOUR, "again": 20.0}).more_seeds is None


def test_advice_leaves_the_verdict_as_it_is():
    ablation = table(A_WORSE, SAME, KEEPS)
    judge = TableJudge(ablation, study(ablation, PRINTED, sd=0.5))
    for finding in judge.judge():
        after = advise(judge, finding)
        assert (after.verdict, reason_in_words(after), after.level) == (
            finding.verdict,
            reason_in_words(finding),
            finding.level,
        )
        for atom, before in zip(after.atoms, finding.atoms, strict=True):
            assert replace(atom, rho_star=None, more_seeds=None) == before

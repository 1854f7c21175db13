"""Under test: verdicts on arms whose runs are few, unequal, all alike, far off or diverged."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from judging import (
    A_WORSE,
    B_WORSE,
    FOUR,
    KEEPS,
    PRINTED,
    RELU,
    SAME,
    TANH,
    evidence_of,
    judged,
    moved,
    se_by_hand,
    table,
    verdict,
)
from scatter import evenly, runs_of
from scipy import stats
from studies import better, same

from senet_ablate.analysis.judge import TableJudge
from senet_ablate.analysis.verdicts import AtomVerdict
from senet_ablate.report.findings import describe, reason_in_words

# --- few ---


def test_claims_that_touch_an_arm_of_one_seed_have_an_estimate_and_no_verdict():
    touched, untouched = judged(better("ref", "a"), better("ref", "b"), errors=PRINTED, seeds={"a": 1})
    assert untouched.verdict == "reproduced"
    (found,) = touched.atoms
    assert (found.verdict, reason_in_words(found)) == ("not resolved", f"one seed: {TANH}")
    assert found.estimate == pytest.approx(0.5)
    assert (found.low, found.high, found.se) == (None, None, None), "one seed shows no noise"
    assert found.p is None
    assert found.new_images == "open"


@pytest.mark.parametrize("atom", [SAME, KEEPS])
def test_one_seed_of_the_network_without_se_leaves_no_gain_to_measure_by(atom):
    assert reason_in_words(verdict(atom, seeds={"plain": 1})) == "one seed: plain"


@pytest.mark.parametrize("runs", [0, 1])
def test_without_two_runs_of_the_network_without_se_a_difference_is_seen_but_never_called_immaterial(runs):
    assert verdict(A_WORSE, moved("a", 0.5), seeds={"plain": runs}).verdict == "reproduced"
    assert reason_in_words(verdict(A_WORSE, moved("a", -0.5), seeds={"plain": runs})) == "reversed"
    assert verdict(B_WORSE, FOUR).verdict == "contradicted"
    assert reason_in_words(verdict(B_WORSE, FOUR, seeds={"plain": runs})) == "within the noise"


def test_an_arm_without_a_run_is_named():
    found = verdict(SAME, {name: error for name, error in FOUR.items() if name != "b"})
    assert (found.verdict, reason_in_words(found), found.estimate) == ("not resolved", f"not run: {RELU}", None)


def test_with_one_seed_everywhere_a_difference_has_neither_interval_nor_verdict():
    rng = np.random.default_rng(3)
    wrong = {name: rng.random(500) < rate for name, rate in {"plain": 0.9, "ref": 0.2, "a": 0.25, "b": 0.25}.items()}
    ablation = table(better("ref", "plain"))
    judge = TableJudge(ablation, evidence_of(ablation, {name: [100.0 * run] for name, run in wrong.items()}))
    (found,) = judge.judge()[0].atoms
    assert found.estimate == pytest.approx(100 * (wrong["plain"].mean() - wrong["ref"].mean()))
    assert found.verdict == "not resolved"  # though 70 points apart
    assert (found.low, found.high, found.se, found.p) == (None, None, None, None)
    assert judge.half_width(judge.contrasts.gain) is None
    assert reason_in_words(found).startswith("one seed: ")


def test_two_seeds_may_give_a_verdict():
    found = verdict(A_WORSE, seeds=2)
    assert found.df == 4
    assert found.verdict == "reproduced"
    assert found.p == pytest.approx(stats.t.sf(0.5 / se_by_hand(1, -1, n=2), 4), rel=1e-3)


def test_two_arms_alone_have_few_degrees_of_freedom_and_a_prior_gives_more():
    def found(**rules: Any) -> AtomVerdict:
        rng = np.random.default_rng(1)
        scores = {name: runs_of(mean + evenly(3, 0.1), 0.015, rng) for name, mean in (("plain", 20.3), ("ref", 20.0))}
        ablation = table(better("ref", "plain"))
        return TableJudge(ablation, evidence_of(ablation, scores, **rules)).judge()[0].atoms[0]

    # Each arm's scatter is under the floor of 0.015 that the other gives, with 2 degrees of freedom.
    assert found().df == 2
    assert found().p == pytest.approx(stats.t.sf(0.3 / (2 * 0.015 / 3) ** 0.5, 2), rel=1e-6)
    pool = (2 * (0.01 / 0.015) + 8 * 1.3) / 10
    assert found(phi_prior="converged").df == 10
    p = stats.t.sf(0.3 / (2 * 0.015 * pool / 3) ** 0.5, 10)
    assert found(phi_prior="converged").p == pytest.approx(p, rel=1e-6)


def test_unequal_seeds_weigh_as_many_runs_as_there_are():
    found = verdict(A_WORSE, moved("a", 0.1), seeds={"ref": 2, "a": 9, "b": 3, "plain": 4})
    assert found.se == pytest.approx(0.1 * (1 / 2 + 1 / 9) ** 0.5, rel=1e-3)
    assert found.n == (2, 9)
    # 1, 8, 2 and 3 degrees of freedom, 4 of the steady arm; the pool of `a` has all but its own.
    assert found.df == 18 - 8


# --- all alike, or one far off ---


def test_where_runs_do_not_scatter_at_all_the_independent_part_stands_in():
    ablation = table(A_WORSE)
    for by, expected in ((0.14, "reproduced"), (0.135, "not resolved")):
        rng = np.random.default_rng(1)
        scores = {name: runs_of([20 + mean] * 4, 0.01, rng) for name, mean in (("plain", 0.5), ("ref", 0.0), ("a", by))}
        (found,) = TableJudge(ablation, evidence_of(ablation, scores, pairing="none")).judge()[0].atoms
        assert found.se == pytest.approx((2 * 0.01 / 4) ** 0.5)
        assert found.p == pytest.approx(stats.t.sf(by / 0.005**0.5, 6), rel=1e-6)
        assert found.verdict == expected


def test_seeds_without_any_effect_give_no_verdict():
    ablation = table(A_WORSE)
    wrong = {name: 100.0 * (np.arange(100) < count) for name, count in (("plain", 60), ("ref", 20), ("a", 30))}
    evidence = evidence_of(ablation, {name: [run, run] for name, run in wrong.items()})
    (finding,) = TableJudge(ablation, evidence).judge()
    assert finding.verdict == "not resolved"
    assert reason_in_words(finding) == f"seeds have no effect: se-r16, {TANH}"


def test_seeds_without_effect_in_one_arm_stop_its_claims_alone():
    ablation = table(better("ref", "a"), better("ref", "b"))
    rng = np.random.default_rng(1)
    scores = {
        name: runs_of(mean + evenly(3, 0.1), 0.01, rng, images=100)
        for name, mean in (("plain", 24.0), ("ref", 20.0), ("b", 21.0))
    }
    alike = 100.0 * (np.arange(100) < 30)
    touched, untouched = TableJudge(ablation, evidence_of(ablation, {**scores, "a": [alike, alike]})).judge()
    assert (touched.verdict, reason_in_words(touched)) == ("not resolved", f"seeds have no effect: {TANH}")
    assert untouched.verdict == "reproduced"


def test_a_gain_of_arms_whose_seeds_have_no_effect_makes_nothing_immaterial():
    ablation = table(better("a", "b"))
    rng = np.random.default_rng(1)
    scores = {name: runs_of(10 + evenly(3, 0.1), 0.01, rng, images=100) for name in ("a", "b")}
    scores |= {name: [100.0 * (np.arange(100) < count)] * 2 for name, count in (("ref", 10), ("plain", 20))}
    (finding,) = TableJudge(ablation, evidence_of(ablation, scores)).judge()
    assert finding.verdict == "not resolved"


def test_an_outlier_that_did_not_diverge_is_kept_and_its_arm_is_called_unstable():
    ablation = table(better("ref", "a"), better("ref", "b"))
    rng = np.random.default_rng(1)
    means = {name: mean + evenly(5, 0.1) for name, mean in (("plain", 24), ("ref", 20), ("a", 21), ("b", 21))}
    means["a"][4] += 10
    scores = {name: runs_of(values, 0.5, rng) for name, values in means.items()}
    touched, untouched = TableJudge(ablation, evidence_of(ablation, scores, pairing="none")).judge()
    (found,) = touched.atoms
    assert found.estimate == pytest.approx(1 + 10 / 5)
    assert [describe(flag) for flag in found.flags] == [f"unstable: {TANH}"]
    # Its mean decides nothing, but each of its runs is worse than each of the reference's: 1 of 252 orders, twice.
    assert (found.verdict, found.p) == ("reproduced", pytest.approx(2 / 252))
    # Its own variance; that of the reference is B, for the others scatter less and the outlier says nothing of them.
    assert found.se == pytest.approx(((np.var(means["a"], ddof=1) + 0.5) / 5) ** 0.5)
    assert found.df < 8
    assert untouched.atoms[0].flags == ()


# --- diverged ---


def test_up_to_a_fifth_of_diverged_runs_is_a_condition_that_is_told():
    found = verdict(A_WORSE, seeds={"a": 4}, diverged={"a": 1})
    assert found.verdict == "reproduced"
    assert [describe(flag) for flag in found.flags] == [f"conditional on convergence: 1 runs of {TANH} diverged"]
    assert verdict(A_WORSE).flags == ()


@pytest.mark.parametrize(("converged", "lost", "others"), [(0, 6, 6), (2, 3, 5), (0, 3, 3), (1, 1, 3)])
def test_an_arm_that_loses_more_runs_than_all_others_is_worse_by_that_if_the_counts_are_sure(converged, lost, others):
    runs = converged + lost
    found = verdict(
        A_WORSE, moved("a", 5.0), seeds={"a": converged, "ref": others, "b": 0, "plain": 2}, diverged={"a": lost}
    )
    elsewhere = others + 2 + 5  # of the reference, the network without SE, and the steady arm
    p = stats.fisher_exact([[lost, converged], [0, elsewhere]], alternative="greater").pvalue
    if p <= 0.05:
        assert (found.verdict, found.p) == ("reproduced", pytest.approx(p))
        lost_here = f"{TANH} diverged or collapsed in {lost} of {runs} runs"
        assert reason_in_words(found) == f"{lost_here}, all other networks in 0 of {elsewhere}"
    else:
        assert (lost, runs) == (1, 2)
        assert (found.verdict, reason_in_words(found)) == ("not resolved", f"unstable: {TANH} diverged in 1 of 2 runs")
    assert found.new_images == "open"


def test_losses_elsewhere_count_against_the_counts():
    # Five of nine, while a third of the others' are lost, too.
    lost = {"seeds": {"a": 4, "b": 2, "plain": 2, "ref": 9}, "diverged": {"a": 5, "b": 6, "plain": 6}}
    assert verdict(A_WORSE, moved("a", 5.0), **lost).verdict == "not resolved"
    assert stats.fisher_exact([[5, 4], [12, 18]], alternative="greater").pvalue > 0.05


def test_the_level_of_the_counts_is_that_of_the_finding():
    lost = {"seeds": {"a": 1, "ref": 2, "b": 3, "plain": 3}, "diverged": {"a": 2}}
    assert stats.fisher_exact([[2, 1], [0, 13]], alternative="greater").pvalue == pytest.approx(3 / 120)
    alone, *_ = judged(A_WORSE, errors=FOUR, **lost)
    among, *_ = judged(A_WORSE, better("ref", "b"), better("b", "a"), errors=FOUR, **lost)
    assert (alone.verdict, among.verdict) == ("reproduced", "not resolved")


def test_an_arm_that_was_claimed_to_be_better_and_loses_its_runs_reverses_the_claim():
    found = verdict(better("a", "ref"), moved("a", -5.0), seeds={"a": 2, "ref": 9, "b": 9}, diverged={"a": 7})
    assert found.verdict == "contradicted"
    assert found.p > 0.99
    assert reason_in_words(found).startswith(f"{TANH} diverged or collapsed in 7 of 9 runs")


def test_runs_that_collapsed_are_told_and_all_of_them_decide_even_if_they_are_all_alike():
    ablation = table(A_WORSE)
    rng = np.random.default_rng(1)
    sound = ("plain", "ref", "b")
    scores = {name: runs_of(20 + evenly(4, 0.1), 0.01, rng, images=100) for name in sound}
    scores["a"] = [100.0 * (np.arange(100) < 90)] * 3  # always the first class
    evidence = replace(evidence_of(ablation, scores), collapsed={ablation.arm("a"): 3})
    (found,) = TableJudge(ablation, evidence).judge()[0].atoms
    assert (found.verdict, found.p) == ("reproduced", pytest.approx(1 / math.comb(15, 3)))
    one = replace(evidence_of(ablation, scores), collapsed={ablation.arm("a"): 1})
    (found,) = TableJudge(ablation, one).judge()[0].atoms
    assert found.verdict == "not resolved"
    assert [describe(flag) for flag in found.flags] == [f"1 of 3 runs of {TANH} collapsed"]


@pytest.mark.parametrize("atom", [same("a", "ref"), KEEPS], ids=["same", "keeps"])
def test_more_diverged_runs_leave_every_other_claim_on_the_arm_open(atom):
    found = verdict(atom, moved("a", -5.0), seeds={"a": 2, "ref": 9, "b": 9}, diverged={"a": 7})
    assert (found.verdict, reason_in_words(found)) == ("not resolved", f"unstable: {TANH} diverged in 7 of 9 runs")
    assert found.estimate is None


def test_where_the_reference_fails_as_well_nothing_is_decided():
    for lost in (1, 4):  # a tenth, four in ten
        found = verdict(A_WORSE, seeds={"a": 0, "ref": 10 - lost}, diverged={"a": 9, "ref": lost})
        assert found.verdict == "not resolved"
        assert reason_in_words(found).startswith(
            f"unstable: {'' if lost == 1 else 'se-r16 diverged in 4 of 10 runs, '}{TANH}"
        )


def test_a_gain_over_a_network_that_mostly_diverged_makes_nothing_immaterial():
    found = verdict(A_WORSE, FOUR, seeds={"plain": 2}, diverged={"plain": 7})
    assert found.verdict == "not resolved"

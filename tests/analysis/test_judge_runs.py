"""Under test: verdicts on arms whose runs are few, unequal, all alike, far off or diverged."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from judging import (
    A_WORSE,
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
from statsmodels.stats.contingency_tables import mcnemar
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
    # B is that of the other arms, and so is the factor.
    assert found.se == pytest.approx(0.1 * (1 / 1 + 1 / 5) ** 0.5, rel=1e-3)
    assert found.low < 0.5 < found.high
    assert found.p is None
    assert found.new_images == "open"


@pytest.mark.parametrize("atom", [SAME, KEEPS])
def test_one_seed_of_the_network_without_se_leaves_no_gain_to_measure_by(atom):
    assert reason_in_words(verdict(atom, seeds={"plain": 1})) == "one seed: plain"


@pytest.mark.parametrize("runs", [0, 1])
def test_without_two_runs_of_the_network_without_se_a_difference_is_seen_but_never_called_immaterial(runs):
    assert verdict(A_WORSE, moved("a", 0.5), seeds={"plain": runs}).verdict == "reproduced"
    assert reason_in_words(verdict(A_WORSE, moved("a", -0.5), seeds={"plain": runs})) == "reversed"
    assert verdict(A_WORSE, FOUR).verdict == "contradicted"
    assert reason_in_words(verdict(A_WORSE, FOUR, seeds={"plain": runs})) == "within the noise"


def test_an_arm_without_a_run_is_named():
    found = verdict(SAME, {name: error for name, error in FOUR.items() if name != "b"})
    assert (found.verdict, reason_in_words(found), found.estimate) == ("not resolved", f"not run: {RELU}", None)


@pytest.mark.parametrize("phi", [1.0, 6.0])
@pytest.mark.parametrize(("worse", "good"), [("a", "ref"), ("plain", "b")])
def test_with_one_seed_everywhere_the_provisional_standard_error_is_mcnemars_inflated(worse, good, phi):
    rng = np.random.default_rng(3)
    rates = {"plain": 0.9, "ref": 0.2, "a": 0.25, "b": 0.25}
    wrong = {name: rng.random(500) < rate for name, rate in rates.items()}
    ablation = table(better(good, worse))
    evidence = evidence_of(ablation, {name: [100.0 * run] for name, run in wrong.items()}, phi)
    (found,) = TableJudge(ablation, evidence).judge()[0].atoms
    one, other = wrong[worse], wrong[good]
    counts = [[np.sum((one == i) & (other == j)) for j in (True, False)] for i in (True, False)]
    statistic = mcnemar(counts, exact=False, correction=False).statistic  # (b - c)^2 / (b + c)
    assert found.estimate == pytest.approx(100 * (one.mean() - other.mean()))
    assert (found.estimate / found.se) ** 2 == pytest.approx(statistic / phi)
    half = stats.norm.isf(0.025) * found.se
    assert (found.low, found.high) == pytest.approx((found.estimate - half, found.estimate + half))
    assert found.verdict == "not resolved"  # though 70 points apart
    assert reason_in_words(found).startswith("one seed: ")
    assert found.p is None


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


def test_seeds_without_effect_are_seen_with_five_seeds_too():
    ablation = table(better("ref", "a"))
    rng = np.random.default_rng(1)
    scores = {"ref": [100.0 * (np.arange(768) < 13)] * 5, "a": [100.0 * (np.arange(768) < 16)] * 5}
    scores["plain"] = [100.0 * (rng.random(768) < 0.05) for _ in range(5)]
    (finding,) = TableJudge(ablation, evidence_of(ablation, scores)).judge()
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
    assert found.verdict == "not resolved"
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


@pytest.mark.parametrize(("converged", "lost", "others"), [(0, 6, 6), (1, 5, 6), (3, 2, 3), (2, 3, 5), (0, 3, 3)])
def test_an_arm_that_fails_more_often_than_its_sound_reference_is_worse_by_that_if_the_counts_are_sure(
    converged, lost, others
):
    found = verdict(A_WORSE, moved("a", 5.0), seeds={"a": converged, "ref": others}, diverged={"a": lost})
    # All lost runs in one arm: hypergeometric, by counting; fewer cannot be more extreme.
    p = math.comb(converged + lost, lost) / math.comb(converged + lost + others, lost)
    if p < 0.05:
        assert found.verdict == "reproduced"
        assert found.p == pytest.approx(p)
        assert reason_in_words(found) == f"by instability: {TANH} diverged in {lost} of {converged + lost} runs"
    else:
        assert found.verdict == "not resolved"
        assert reason_in_words(found) == f"unstable: {TANH} diverged in {lost} of {converged + lost} runs"
    assert found.new_images == "open"


def test_the_level_of_the_counts_is_that_of_the_finding():
    lost = {"seeds": {"a": 0, "ref": 4}, "diverged": {"a": 3}}  # p = 1 / 35
    alone, *_ = judged(A_WORSE, errors=FOUR, **lost)
    among, *_ = judged(A_WORSE, better("ref", "b"), errors=FOUR, **lost)
    assert (alone.verdict, among.verdict) == ("reproduced", "not resolved")


@pytest.mark.parametrize(
    "atom",
    [better("a", "ref"), same("a", "ref"), KEEPS, better("a", "b")],
    ids=["better", "same", "keeps", "b"],
)
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

"""Under test: when each kind of claim is reproduced and when contradicted, against t tests by hand and statsmodels."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from judging import (
    A_WORSE,
    B_WORSE,
    DF,
    FAINT,
    FOUR,
    KEEPS,
    NULL,
    SAME,
    SUPERIOR_FAMILY,
    critical_by_hand,
    judged,
    moved,
    p_of_the_same,
    retains,
    se_by_hand,
    study,
    table,
    verdict,
)
from scatter import evenly
from scipy import optimize, stats
from statsmodels.stats.weightstats import ttost_ind
from studies import same

from senet_ablate.analysis.distributions import MaxT
from senet_ablate.analysis.evidence import Evidence
from senet_ablate.analysis.judge import TableJudge
from senet_ablate.analysis.noise import Sample
from senet_ablate.report.findings import reason_in_words
from senet_ablate.spec.claims import Fewer, Rules
from senet_ablate.spec.protocol import Complexity

# --- the same, and a share of the gain ---


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("gain", "rho"), [(4.0, 0.25), (1.0, 0.25), (1.0, 0.4)])
def test_two_arms_are_the_same_if_both_sides_lie_within_the_share_of_the_gain(sign, gain, rho):
    errors = {**FOUR, "plain": 20 + gain}
    edge = optimize.brentq(lambda d: p_of_the_same(d, gain, rho) - 0.05, 0, rho * gain)
    inside = verdict(SAME, moved("a", 0.998 * sign * edge, errors), margin_rho=rho)
    assert inside.verdict == "reproduced"
    assert inside.p == pytest.approx(p_of_the_same(0.998 * edge, gain, rho), rel=1e-3)
    outside = verdict(SAME, moved("a", 1.002 * sign * edge, errors), margin_rho=rho)
    assert outside.verdict == "not resolved"
    assert reason_in_words(outside) == f"the interval is wider than {rho:.0%} of the SE gain"


@pytest.mark.parametrize(("margin", "difference"), [(0.2, 0.05), (0.2, -0.15), (0.5, 0.38)])
def test_within_an_absolute_margin_two_arms_are_the_same_as_two_one_sided_tests_of_statsmodels_say(margin, difference):
    # Three arms of 5 runs, all of one scatter: the pool of the two arms is the other and the third, so its variance is
    # that of the two pooled and its degrees of freedom are 4 + 4, those of a two-sample test.
    ablation = table(same("ref", "a"))
    errors = {"ref": 20.0, "a": 20.0 + difference}
    found = TableJudge(ablation, study(ablation, errors, margin_abs=margin)).judge()[0].atoms[0]
    ours = evenly(5, 0.1)
    p, _, (_, _, df) = ttost_ind(20 + ours, 20 + difference + ours, -margin, margin, usevar="pooled")
    assert df == found.df == 8
    assert found.p == pytest.approx(p, rel=1e-3)
    assert found.verdict == ("reproduced" if p <= 0.05 else "not resolved")


def test_absolute_margins_need_no_gain():
    equal = {**FOUR, "plain": 20.0}
    assert verdict(SAME, equal, margin_abs=0.5).verdict == "reproduced"
    found = verdict(A_WORSE, equal, margin_abs=0.5)
    assert (found.verdict, reason_in_words(found)) == (
        "contradicted",
        "immaterial: the difference is less than 0.5 points",
    )
    found = verdict(SAME, moved("a", 3.0, equal), margin_abs=0.5)
    assert (found.verdict, reason_in_words(found)) == ("contradicted", "too different: by more than 0.5 points")


def test_an_arm_keeps_half_of_the_gain_if_the_difference_to_half_is_sure():
    # plain - a - 0.5 (plain - ref) weighs plain, ref and a by 0.5, 0.5 and -1.
    bar = stats.t.isf(0.05, DF) * se_by_hand(0.5, 0.5, -1)
    for by, expected in ((-1.01 * bar, "reproduced"), (-0.99 * bar, "not resolved"), (0.0, "not resolved")):
        found = verdict(KEEPS, {**FOUR, "a": 22.0 + by})
        assert found.estimate == pytest.approx(-by)
        assert found.verdict == expected
        assert reason_in_words(found) == ("" if expected == "reproduced" else "within the noise")


# --- contradicted ---


def test_a_difference_of_the_other_sign_contradicts_beyond_its_simultaneous_interval():
    se, critical = se_by_hand(1, -1), critical_by_hand(*SUPERIOR_FAMILY)
    assert 1.2 * stats.t.isf(0.025, DF) < 0.98 * critical  # a test of its own would have said so much sooner
    for by, expected in ((1.2 * stats.t.isf(0.025, DF), ""), (0.98 * critical, ""), (1.02 * critical, "reversed")):
        found = verdict(A_WORSE, moved("a", -by * se, FAINT))
        assert reason_in_words(found).startswith(expected or "within the noise")
        assert found.verdict == ("contradicted" if expected else "not resolved")
        assert (found.high < 0) == bool(expected)


def test_a_difference_that_is_surely_less_than_a_share_of_the_gain_is_immaterial():
    # The paper's difference of b, 1.0 of a gain of 4, is not within a quarter of it; that of a, 0.5, is.
    assert verdict(B_WORSE).verdict == "reproduced"
    found = verdict(B_WORSE, moved("b", 0.02))
    assert found.low < 0 < found.high
    assert (found.verdict, reason_in_words(found)) == (
        "contradicted",
        "immaterial: the difference is less than 25% of the SE gain",
    )
    # rho g - D weighs plain, ref and b by 0.25, 0.75 and -1, rho g + D by 0.25, -1.25 and 1.
    edge = critical_by_hand(*SUPERIOR_FAMILY) * se_by_hand(0.25, -1.25, 1)
    for scale, expected in ((1.03, "contradicted"), (0.97, "not resolved")):
        assert verdict(B_WORSE, {**FOUR, "plain": 20 + 4 * scale * edge}).verdict == expected


def test_nothing_is_immaterial_where_the_papers_own_difference_is_within_the_margin():
    found = verdict(A_WORSE, moved("a", 0.02))
    assert (found.verdict, reason_in_words(found)) == ("not resolved", "within the noise")


def test_a_sure_difference_of_the_claimed_sign_is_reproduced_even_if_it_is_small():
    found = verdict(A_WORSE, moved("a", 0.2))
    assert (found.verdict, reason_in_words(found)) == ("reproduced", "")


@pytest.mark.parametrize("sign", [1, -1])
def test_arms_further_apart_than_the_margin_are_too_different(sign):
    found = verdict(SAME, moved("a", 2.0 * sign))
    assert (found.verdict, reason_in_words(found)) == ("contradicted", "too different: by more than 25% of the SE gain")
    family = [(1, -1, 0, 0), (0, -1, 1, 0), (0, -1, 0, 1), (0, 0, 1, -1), (0.25, -0.25, -1, 1), (0.25, -0.25, 1, -1)]
    beyond = critical_by_hand(*family) * se_by_hand(0.25, -0.25, 1, -1)
    for scale, expected in ((1.03, "contradicted"), (0.97, "not resolved")):
        assert verdict(SAME, moved("b", sign * (1 + scale * beyond))).verdict == expected


def test_an_arm_that_surely_keeps_less_than_its_share_contradicts():
    found = verdict(KEEPS, {**FOUR, "a": 23.0})
    assert found.estimate == pytest.approx(-1)
    assert (found.verdict, reason_in_words(found)) == ("contradicted", "keeps less than 50% of the gain")
    assert verdict(retains("a", 0.2), {**FOUR, "a": 23.0}).verdict == "reproduced"


def test_no_difference_is_never_said_of_what_is_open():
    for atom in (A_WORSE, SAME, KEEPS):
        for errors in (FOUR, {**FOUR, "plain": 20.1}, {**FOUR, "plain": 20.0}):
            found = verdict(atom, errors, sd=3.0)
            assert found.verdict == "not resolved"
            assert reason_in_words(found)
            assert "no difference" not in reason_in_words(found)


# --- no gain ---


@pytest.mark.parametrize("gain", [0.0, 0.1, -2.0])
def test_without_a_sure_gain_nothing_is_the_same_kept_or_immaterial(gain):
    errors = {**FOUR, "plain": 20.0 + gain}
    for atom in (SAME, KEEPS, same("ref", "a")):
        found = verdict(atom, errors)
        assert (found.verdict, reason_in_words(found)) == ("not resolved", "no SE gain to measure against")
    found = verdict(A_WORSE, errors)
    assert (found.verdict, reason_in_words(found)) == ("not resolved", "within the noise")


def test_a_loss_instead_of_a_gain_does_not_make_arms_too_different():
    found = verdict(SAME, {**FOUR, "plain": 15.0})
    assert (found.verdict, reason_in_words(found)) == ("not resolved", "no SE gain to measure against")


def test_in_a_thousand_studies_without_effects_nothing_is_ever_called_the_same():
    ablation = table(SAME, same("ref", "a"), KEEPS)
    placed = tuple(ablation.arm(name) for name in ("plain", "ref", "a", "b"))
    critical = MaxT(np.array([0.5]), 4, math.inf)  # for the intervals, which are not looked at
    rng = np.random.default_rng(11)
    met: Counter[str] = Counter()
    for _ in range(1000):
        scores = rng.standard_normal((4, 3, 20)) + 0.1 * rng.standard_normal((4, 3, 1))
        evidence = Evidence(placed, Sample.of([dict(enumerate(arm)) for arm in scores]), Rules())
        for finding in TableJudge(ablation, evidence, simultaneous=critical).judge():
            met[finding.claim.id, finding.verdict] += 1
            if finding.claim.id != "claim-2":
                assert finding.verdict != "reproduced"
    assert met["claim-2", "reproduced"] < 10  # half of the gain kept: one study in a thousand in the design


# --- new images ---


def test_a_verdict_holds_for_new_images_if_it_stands_with_their_scatter_too():
    for atom, errors, sure in (
        (A_WORSE, moved("a", 2.0), "yes"),
        (SAME, FOUR, "yes"),
        (KEEPS, FOUR, "yes"),
        (A_WORSE, moved("a", -2.0), "no"),
        (B_WORSE, FOUR, "no"),
        (SAME, moved("a", 3.0), "no"),
    ):
        assert verdict(atom, errors).new_images == sure
        (finding,) = judged(atom, errors=errors)
        assert finding.new_images == sure
        # Arms that find different images hard by 100 points and more: 60 images say nothing about others.
        doubtful = verdict(atom, errors, taste=100.0)
        assert doubtful.verdict == verdict(atom, errors).verdict
        assert doubtful.new_images == "open"
        assert verdict(atom, errors, taste=100.0, estimand="population").verdict == "not resolved"
    assert verdict(A_WORSE, FOUR, sd=3.0).new_images == "open"


# --- controls and counts ---


def test_other_seeds_that_differ_are_a_false_alarm_and_others_are_not():
    everything = {**FOUR, "again": 20.0}
    found = verdict(NULL, {**everything, "again": 20.05})
    assert (found.verdict, reason_in_words(found)) == ("reproduced", "")
    df = 5 * 4
    assert found.p == pytest.approx(2 * stats.t.sf(0.05 / se_by_hand(1, -1), df), rel=1e-3)
    for again in (21.0, 19.0):
        found = verdict(NULL, {**everything, "again": again})
        assert found.verdict == "contradicted"
        assert reason_in_words(found).startswith("a false alarm")
    # Among four contrasts a single test's level is not enough.
    barely = 1.1 * stats.t.isf(0.025, df) * se_by_hand(1, -1)
    assert verdict(NULL, {**everything, "again": 20 + barely}).verdict == "reproduced"


@pytest.mark.parametrize("quantity", ["params", "macs"])
def test_exact_counts_are_verdicts_without_any_run(quantity):
    few = Complexity(params=10, params_with_bn_stats=99, macs=2000)
    many = Complexity(params=1010, params_with_bn_stats=9, macs=2003)
    fewer = Fewer(kind="fewer", quantity=quantity, arm="a", than="b")
    names = {"params": "1,000 {} parameters", "macs": "3 {} multiply-adds"}[quantity]
    found = verdict(fewer, {}, cost={"a": few, "b": many})
    assert (found.verdict, reason_in_words(found)) == ("reproduced", "exact count: " + names.format("fewer"))
    found = verdict(fewer, {}, cost={"a": many, "b": few})
    assert (found.verdict, reason_in_words(found)) == ("contradicted", "exact count: " + names.format("more"))
    assert verdict(fewer, {}, cost={"a": few, "b": few}).verdict == "contradicted"

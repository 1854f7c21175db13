"""Under test: a difference as a share of the SE gain, beside the paper's, against roots."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, stats

from senet_ablate.analysis.evidence import Evidence
from senet_ablate.analysis.judge import TableJudge
from senet_ablate.analysis.noise import Sample
from senet_ablate.analysis.study import fieller, share_of_gain
from senet_ablate.spec.claims import Rules
from senet_ablate.spec.loading import load_ablations

TABLES = {ablation.slug: ablation for ablation in load_ablations(Path(__file__).parents[2] / "ablations")}

# --- the ratio of two differences --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("over", "under", "var_over", "var_under", "covariance", "df"),
    [
        (0.5, 1.0, 0.01, 0.02, 0.0, 12),
        (0.5, 1.0, 0.01, 0.02, 0.009, 12),
        (-0.8, 1.5, 0.2, 0.1, -0.05, 5),
        (0.0, 0.4, 0.003, 0.005, 0.001, 30.5),
        (3.0, 0.7, 0.01, 0.01, 0.005, math.inf),
    ],
)
def test_fiellers_interval_has_the_ratios_that_a_t_test_does_not_reject(
    over, under, var_over, var_under, covariance, df
):
    bar = stats.t.isf(0.025, df)

    def excess(ratio: float) -> float:
        """|t| of over - ratio * under, beyond what is allowed."""
        se = (var_over - 2 * ratio * covariance + ratio**2 * var_under) ** 0.5
        return abs(over - ratio * under) / se - bar

    low, high = fieller(over, under, var_over, var_under, covariance, df)
    middle = over / under
    assert low == pytest.approx(optimize.brentq(excess, middle - 100, middle, xtol=1e-12), rel=1e-6)
    assert high == pytest.approx(optimize.brentq(excess, middle, middle + 100, xtol=1e-12), rel=1e-6)
    grid = np.linspace(low - 1, high + 1, 401)
    inside = np.array([excess(ratio) <= 0 for ratio in grid])
    assert (inside == ((low <= grid) & (grid <= high))).all()


def test_where_the_denominator_may_be_zero_any_ratio_is_possible():
    assert fieller(1.0, 0.1, 0.01, 0.01, 0.0, 20) == (-math.inf, math.inf)


def test_a_known_denominator_leaves_the_interval_of_the_numerator():
    low, high = fieller(0.6, 2.0, 0.04, 0.0, 0.0, 9)
    half = stats.t.isf(0.025, 9) * 0.2
    assert (low, high) == pytest.approx(((0.6 - half) / 2, (0.6 + half) / 2))


# --- studies -----------------------------------------------------------------------------------------------------


def study(slug: str, errors: dict[str, float], seeds: int, sd: float, steady: int = 300) -> TableJudge:
    """The table's arms with exactly these mean errors; an arm of many runs makes their scatter well known."""
    ablation = TABLES[slug]
    names = list(errors)
    rng = np.random.default_rng(3)
    images = 20
    scores = []
    for place, (error, count) in enumerate(zip([*errors.values(), 22.0], [seeds] * len(names) + [steady], strict=True)):
        luck = rng.standard_normal((count, images))
        luck -= luck.mean(axis=1, keepdims=True)
        luck *= (images * sd**2 / luck.var(axis=0, ddof=1).mean()) ** 0.5  # B = sd^2, and the runs do not differ
        scores.append({1000 * place + number: run for number, run in enumerate(error + luck)})
    other = next(a.arm(a.rows[0].id) for a in TABLES.values() if a.arm(a.rows[0].id) not in map(ablation.arm, names))
    evidence = Evidence((*map(ablation.arm, names), other), Sample.of(scores), Rules(pairing="none"), points=1 << 13)
    return TableJudge(ablation, evidence)


def test_a_share_of_the_gain_stands_beside_the_papers_with_fiellers_interval():
    judge = study("gate", {"relu": 24.0, "tanh": 23.0, "sigmoid": 21.0, "plain": 25.0}, 5, 0.3)
    found = share_of_gain(judge, judge.contrasts.difference("relu", "tanh"))
    assert found is not None
    assert found.share == pytest.approx(1 / 4)
    assert found.paper == pytest.approx((23.47 - 23.00) / (23.30 - 22.28))
    variance = 0.3**2 * 2 / 5
    df = judge.evidence.difference(judge.contrasts.gain).df
    assert (found.low, found.high) == pytest.approx(fieller(1.0, 4.0, variance, variance, 0.0, df), rel=1e-3)


def test_a_share_shares_the_arms_that_difference_and_gain_have_in_common():
    judge = study("gate", {"relu": 24.0, "tanh": 23.0, "sigmoid": 21.0, "plain": 25.0}, 5, 0.3)
    found = share_of_gain(judge, judge.contrasts.difference("plain", "tanh"))
    assert found is not None
    df = judge.evidence.difference(judge.contrasts.gain).df
    # plain enters both: Cov = Var(mean of plain)
    expected = fieller(2.0, 4.0, 0.3**2 * 2 / 5, 0.3**2 * 2 / 5, 0.3**2 / 5, df)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("plain", [21.0, 21.2, 18.0])
def test_there_is_no_share_of_a_gain_that_is_not_sure(plain):
    judge = study("gate", {"relu": 24.0, "tanh": 23.0, "sigmoid": 21.0, "plain": plain}, 5, 0.3)
    assert share_of_gain(judge, judge.contrasts.difference("relu", "tanh")) is None

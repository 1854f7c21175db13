"""Under test: agreement with the paper in size and order, against roots, SciPy's tau and chances by counting."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, stats

from senet_ablate.analysis.evidence import Evidence
from senet_ablate.analysis.judge import TableJudge
from senet_ablate.analysis.noise import Sample
from senet_ablate.analysis.study import RankAgreement, fieller, rank_agreement, share_of_gain
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


def printed(slug: str) -> dict[str, float]:
    return {row.id: TABLES[slug].paper_top1(row.id) for row in TABLES[slug].rows}


def ranks(slug: str, errors: dict[str, float], seeds: int = 3, sd: float = 0.25, **more) -> RankAgreement:
    judge = study(slug, errors, seeds, sd, **more)
    found = rank_agreement(judge.evidence, judge.paper_means)
    assert found is not None
    return found


# --- order -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", ["ratio", "stage", "nosqueeze", "integration"])
def test_tau_is_scipys_tau_b_of_mean_errors_and_the_papers_ties_included(slug):
    paper = printed(slug)
    placed = tuple(map(TABLES[slug].arm, paper))
    rng = np.random.default_rng(2)
    met = []
    for _ in range(5):
        wrong = rng.choice(4, len(paper)) + 1  # of 10 images, in either run: arms tie
        wrong[0] = 6
        scores = [{s: 100.0 * rng.permutation(np.arange(10) < count) for s in range(2)} for count in wrong]
        evidence = Evidence(placed, Sample.of(scores), Rules(pairing="none"))
        found = rank_agreement(evidence, np.array(list(paper.values())))
        assert found is not None
        assert found.arms == len(paper)
        assert found.tau == pytest.approx(stats.kendalltau(wrong, list(paper.values())).statistic)
        met.append(len(set(wrong)) < len(wrong))
    assert any(met)


def test_the_right_order_is_1_and_the_reverse_is_minus_1():
    paper = printed("stage")
    found = ranks("stage", paper, sd=1e-4)
    assert (found.tau, found.low, found.high) == pytest.approx((1, 1, 1))
    found = ranks("stage", {name: 46 - error for name, error in paper.items()}, sd=1e-4)
    assert (found.tau, found.low, found.high) == pytest.approx((-1, -1, -1))
    assert found.ceiling == 1


@pytest.mark.parametrize("slug", ["ratio", "squeeze", "gate", "stage", "integration", "nosqueeze"])
def test_the_ceiling_is_1_where_noise_tends_to_0(slug):
    assert ranks(slug, printed(slug), sd=1e-5).ceiling == 1


@pytest.mark.parametrize(
    ("slug", "ceilings"),
    [
        ("ratio", (0.63, 0.67)),
        ("squeeze", (0.84, 0.99)),
        ("gate", (0.99, 1.00)),
        ("stage", (0.84, 0.90)),
        ("integration", (0.59, 0.68)),
        ("nosqueeze", (0.98, 1.00)),
    ],
)
def test_the_ceilings_at_a_scatter_of_a_quarter_point_are_the_designs(slug, ceilings):
    for seeds, ceiling in zip((3, 10), ceilings, strict=True):
        assert ranks(slug, printed(slug), seeds).ceiling == pytest.approx(ceiling, abs=0.015)


@pytest.mark.parametrize("seeds", [2, 5, 12])
def test_the_ceiling_of_two_arms_is_the_chance_of_their_order(seeds):
    z = 0.29 / (0.25 * (2 / seeds) ** 0.5)
    assert ranks("squeeze", printed("squeeze"), seeds).ceiling == pytest.approx(2 * stats.norm.cdf(z) - 1, abs=0.02)


def test_few_degrees_of_freedom_lower_the_ceiling():
    # Two arms and a third of 2 runs each: 3 degrees of freedom, so Student's t stands for the normal.
    found = ranks("squeeze", printed("squeeze"), 2, sd=0.25, steady=2)
    chance = stats.t.cdf(0.29 / 0.25, 3)
    assert found.ceiling == pytest.approx(2 * chance - 1, abs=0.02)
    assert found.ceiling < 2 * stats.norm.cdf(0.29 / 0.25) - 1 - 0.03


@pytest.mark.parametrize(("slug", "count"), [("squeeze", 2), ("gate", 3), ("nosqueeze", 3)])
def test_without_effects_the_right_order_comes_by_chance_as_often_as_one_order_among_all(slug, count):
    rng = np.random.default_rng(0)
    paper = np.array(list(printed(slug).values()))
    chance = 1 / math.factorial(count)  # of all orders one is right
    hits = 0
    for _ in range(300):
        scores = [
            {1000 * place + s: run for s, run in enumerate(22 + rng.standard_normal((2, 5)))} for place in range(count)
        ]
        placed = tuple(map(TABLES[slug].arm, printed(slug)))
        found = rank_agreement(Evidence(placed, Sample.of(scores), Rules(pairing="none")), paper)
        assert found is not None
        hits += found.tau == pytest.approx(1)
    assert hits / 300 == pytest.approx(chance, abs=3.3 * (chance * (1 - chance) / 300) ** 0.5)


def test_the_interval_of_tau_is_wider_with_more_noise_and_holds_the_middle_nine_tenths():
    paper = printed("stage")
    sure, unsure = ranks("stage", paper, sd=0.02), ranks("stage", paper, sd=0.5)
    assert sure.high - sure.low < unsure.high - unsure.low
    # Two arms can only agree or disagree, and the weaker share shows from 5 % on.
    for difference, low in ((0.5, 1), (0.2, -1)):
        found = ranks("squeeze", {"max": 22 + difference, "avg": 22.0}, sd=0.25 * 1.5**0.5)  # z = 2 and 0.8
        assert (found.low, found.high) == (low, 1)


def test_there_is_nothing_to_rank_without_two_printed_arms_or_without_two_seeds():
    judge = study("squeeze", printed("squeeze"), 3, 0.1)
    unknown = judge.paper_means.copy()
    unknown[0] = np.nan
    assert rank_agreement(judge.evidence, unknown) is None
    once = Sample.of([{0: run} for run in np.random.default_rng(0).standard_normal((3, 20))])
    assert rank_agreement(Evidence(judge.evidence.arms, once, Rules()), judge.paper_means) is None


# --- shares of the gain ----------------------------------------------------------------------------------------------


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

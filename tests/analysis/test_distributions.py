"""Under test: one critical value for many contrasts, and Student's t, against SciPy's own many-comparison tests."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, stats

from senet_ablate.analysis import distributions
from senet_ablate.analysis.distributions import max_t

CLOSE = 5e-4
"""Relative error of a critical value; none of them is above 8, so most of them are within 0.001."""


def all_pairs(arms: int) -> np.ndarray:
    return np.array([np.eye(arms)[a] - np.eye(arms)[b] for a in range(arms) for b in range(a)])


def samples(sizes: tuple[int, ...], seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0.6 * place, 1.0, size) for place, size in enumerate(sizes)]


def pooled(groups: list[np.ndarray]) -> tuple[float, int]:
    """Pooled variance and its degrees of freedom."""
    df = sum(len(group) - 1 for group in groups)
    return sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / df, df


def independent(count: int, value: float, df: float) -> float:
    """Probability that the largest of independent |z| over one common root of chi-square exceeds `value`."""
    if math.isinf(df):
        return 1 - (2 * stats.norm.cdf(value) - 1) ** count

    def inside(root: float) -> float:
        density = 2 * root * df * stats.chi2.pdf(df * root**2, df)
        return density * (1 - (2 * stats.norm.cdf(value * root) - 1) ** count)

    return integrate.quad(inside, 0, 6, limit=200)[0]


@pytest.mark.parametrize("sizes", [(3, 3, 3), (5, 2, 4, 6, 3)])
def test_many_to_one_is_dunnetts_test(sizes):
    control, *others = groups = samples(sizes)
    oracle = stats.dunnett(*others, control=control, rng=np.random.default_rng(0))
    s2, df = pooled(groups)
    contrasts = np.eye(len(sizes))[1:] - np.eye(len(sizes))[0]
    ours = max_t(contrasts, np.diag([s2 / n for n in sizes]), df)
    se = np.array([(s2 / len(group) + s2 / len(control)) ** 0.5 for group in others])
    half = (oracle.confidence_interval(0.95).high - oracle.confidence_interval(0.95).low) / 2
    assert ours.critical(0.05) == pytest.approx(half / se, rel=1e-3)  # the oracle is an integral with errors, too
    t = np.abs([group.mean() - control.mean() for group in others]) / se
    assert [ours.tail(value) for value in t] == pytest.approx(oracle.pvalue, abs=0.001)


@pytest.mark.parametrize(("arms", "df"), [(3, 4), (5, 20), (4, 7.5), (3, 1000.0)])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_all_pairs_of_equal_arms_are_the_studentized_range(arms, df, alpha):
    ours = max_t(all_pairs(arms), np.eye(arms), df)
    assert ours.critical(alpha) == pytest.approx(stats.studentized_range.isf(alpha, arms, df) / 2**0.5, rel=CLOSE)


def test_adjusted_p_values_of_all_pairs_are_tukeys():
    groups = samples((4, 4, 4, 4))
    oracle = stats.tukey_hsd(*groups)
    s2, df = pooled(groups)
    ours = max_t(all_pairs(4), np.eye(4) * s2 / 4, df)
    met = []
    for a in range(4):
        for b in range(a):
            t = abs(groups[a].mean() - groups[b].mean()) / (2 * s2 / 4) ** 0.5
            met.append(oracle.pvalue[a, b])
            assert ours.tail(t) == pytest.approx(oracle.pvalue[a, b], abs=0.001)
            assert ours.adjusted(2 * stats.t.sf(t, df)) == pytest.approx(oracle.pvalue[a, b], abs=0.001)
    assert min(met) < 0.05 < 0.5 < max(met)


@pytest.mark.parametrize("df", [2.0, 6.5, 40.0, math.inf])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_uncorrelated_contrasts_are_an_integral_over_their_common_scale(count, df):
    ours = max_t(np.eye(count), np.eye(count), df)
    for value in (1.0, 2.2, 4.0):
        assert ours.tail(value) == pytest.approx(independent(count, value, df), abs=0.001)


@pytest.mark.parametrize("df", [1.0, 2.5, 30.0, math.inf])
def test_one_contrast_however_often_it_is_said_has_the_critical_value_of_a_single_t(df):
    covariance = np.array([[2.0, 0.5], [0.5, 1.0]])
    once = np.array([[1.0, -1.0]])
    repeated = np.vstack([once, -once, 3 * once, once])
    for contrasts in (once, repeated):
        ours = max_t(contrasts, covariance, df)
        assert ours.critical(0.05) == pytest.approx(stats.t.isf(0.025, df), rel=CLOSE)
        assert ours.pointwise(0.05) == pytest.approx(0.05, abs=0.0002)
        assert ours.adjusted(0.2) == pytest.approx(0.2, abs=0.001)


def test_neither_order_nor_sign_nor_scale_of_contrasts_matters():
    rng = np.random.default_rng(4)
    root = rng.standard_normal((4, 4))
    contrasts, covariance = rng.standard_normal((6, 4)), root @ root.T
    plain = max_t(contrasts, covariance, 12, points=1 << 12)
    changed = max_t(-contrasts[::-1] * [[1], [2], [0.1], [30], [1], [7]], covariance * 5, 12, points=1 << 12)
    assert changed.largest == pytest.approx(plain.largest)


def test_more_contrasts_and_fewer_degrees_of_freedom_need_a_larger_value():
    few = max_t(all_pairs(5)[:3], np.eye(5), 8)
    many = max_t(all_pairs(5), np.eye(5), 8)
    assert many.critical(0.05) > few.critical(0.05) > stats.t.isf(0.025, 8)
    assert replace(many, df=4).critical(0.05) > many.critical(0.05) > replace(many, df=math.inf).critical(0.05)
    assert many.critical(0.01) > many.critical(0.05)


def test_a_singular_covariance_leaves_the_contrasts_that_vary():
    # The first two arms move as one: their difference is 0 for sure, and both differences to the third are the same.
    covariance = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert max_t(all_pairs(3), covariance, 9).critical(0.05) == pytest.approx(stats.t.isf(0.025, 9), rel=CLOSE)


def test_a_covariance_with_a_negative_eigenvalue_counts_it_as_none():
    # Eigenvalues 1.9, 0.9 and, of (1, -1, 0), -0.1.
    covariance = np.array([[0.9, 1.0, 0.0], [1.0, 0.9, 0.0], [0.0, 0.0, 0.9]])
    contrasts = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, -1, 0]])
    # The first two are the same then, so two independent ones are left.
    expected = stats.norm.isf((1 - 0.95**0.5) / 2)
    assert max_t(contrasts, covariance, math.inf).critical(0.05) == pytest.approx(expected, rel=CLOSE)


def test_tail_critical_value_and_p_values_belong_together():
    ours = max_t(all_pairs(4), np.diag([1.0, 0.5, 2.0, 1.0]), 11)
    for alpha in (0.2, 0.05, 0.001):
        assert ours.tail(ours.critical(alpha)) == pytest.approx(alpha, rel=1e-3)
        assert ours.adjusted(ours.pointwise(alpha)) == pytest.approx(alpha, rel=1e-3)
        assert ours.pointwise(alpha) == pytest.approx(2 * stats.t.sf(ours.critical(alpha), 11))
    assert ours.tail(0.0) == ours.tail(-1.0) == ours.adjusted(1.0) == 1.0
    assert ours.adjusted(1e-12) < 1e-10


def test_a_basis_of_equal_variances_does_not_matter(monkeypatch: pytest.MonkeyPatch):
    # Arms of equal variance leave the eigenvectors free: any rotation of them is as right.
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((5, 5)))[0]
    before = max_t(all_pairs(5), 0.3 * np.eye(5), 20)
    monkeypatch.setattr(np.linalg, "eigh", lambda s: (np.full(5, 0.3), rotation))
    after = max_t(all_pairs(5), 0.3 * np.eye(5), 20)
    assert after.largest == pytest.approx(before.largest, rel=1e-12)
    assert after.critical(0.05) == before.critical(0.05)


DEGREES = [1.0, 1.7, 2.0, 3.25, 17.5, 340.0, 1e5, 1e9, math.inf]


@pytest.mark.parametrize("df", DEGREES)
def test_the_tail_of_students_t_is_scipys(df):
    for t in (-3.0, -0.5, 0.0, 0.3, 1.0, 2.5, 6.0):
        assert distributions.tail(t, df) == pytest.approx(stats.t.sf(t, df), rel=1e-7, abs=1e-12)
    assert distributions.tail(math.inf, df) == 0


@pytest.mark.parametrize("df", DEGREES)
def test_a_quantile_of_students_t_is_scipys_and_is_exceeded_with_its_probability(df):
    for p in (1e-6, 0.0125, 0.025, 0.05, 0.3, 0.5, 0.8, 0.99):
        assert distributions.quantile(p, df) == pytest.approx(stats.t.isf(p, df), rel=1e-7, abs=1e-9)
        assert distributions.tail(distributions.quantile(p, df), df) == pytest.approx(p, rel=1e-6)

"""Under test: an arm that scatters out of all proportion is told and tells nothing of the noise of the others."""

from __future__ import annotations

import numpy as np
import pytest
from scatter import arm_of, fitted, with_ratios
from scipy import stats

from senet_ablate.analysis.noise import UNSTABLE_P, _outliers

USUAL = (1.0, 1.5, 0.5, 1.2, 0.8, 2.0, 1.1, 0.9)


@pytest.mark.parametrize("wild", [(45.0,), (48.0, 45.0), (48.0, 47.0, 46.0)])
def test_the_others_noise_is_as_if_a_collapsed_arm_were_not_there(wild: tuple[float, ...]) -> None:
    # Of the many-outlier test at most one arm in four: twelve arms for three.
    usual = USUAL + (USUAL if len(wild) > 2 else ())
    calm, all_arms = fitted(with_ratios(*usual)), fitted(with_ratios(*usual, *wild))
    count = len(usual)
    assert all_arms.factor[:count] == pytest.approx(calm.factor)
    assert all_arms.df[:count] == pytest.approx(calm.df)
    assert (all_arms.phi, all_arms.pooled_df) == (pytest.approx(calm.phi), calm.pooled_df)
    assert (all_arms.phi_residual, all_arms.residual_df) == (pytest.approx(calm.phi_residual), calm.residual_df)
    assert all_arms.unstable.tolist() == [False] * count + [True] * len(wild)
    assert all_arms.factor[count:] == pytest.approx(wild)


def test_an_arm_that_is_merely_restless_still_widens_the_pool() -> None:
    # F = 7 on 2 and 16 degrees of freedom: p = (1 + 7 / 8)^-8 = 0.0065, unstable, but not below 0.01 / 9.
    noise = fitted(with_ratios(*[1.0] * 8, 7.0))
    assert noise.unstable.tolist() == [False] * 8 + [True]
    assert noise.factor[:8] == pytest.approx([(7 + 7) / 8] * 8)


def test_one_arm_beside_another_lends_it_all_it_has() -> None:
    noise = fitted([arm_of([10.0, 10.1, 10.2], 1.0, 1), arm_of([10.0, 11.0, 19.0], 25.0, 2)])
    assert noise.pooled_df == 4


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_arms_of_one_noise_are_hardly_ever_kept_out(seeds: int) -> None:
    # Ratios are chi-squared by their degrees of freedom; the test is held to UNSTABLE_P over all arms of a study, and
    # the count of studies out of 4,000 is binomial. Above 1, where the floor of the pool does not help.
    rng = np.random.default_rng(0)
    d = np.full(17, seeds - 1)
    ratios = 3 * rng.chisquare(seeds - 1, (4000, 17)) / (seeds - 1)
    studies = sum(bool(_outliers(each, d).any()) for each in ratios)
    assert studies <= stats.binom.ppf(0.999, 4000, UNSTABLE_P)


def wild_arm(seeds: int, studies: int) -> tuple[float, float]:
    """How often an arm of three times the others' scatter is flagged, and how often its contrasts are covered."""
    rng = np.random.default_rng(6)
    flagged, covered = [], []
    scatter = np.full((17, 1, 1), 0.3)
    scatter[0] = 9 * 1.3 - 1
    for _ in range(studies):
        scores = rng.standard_normal((17, seeds, 30)) + (scatter / 30) ** 0.5 * rng.standard_normal((17, seeds, 1))
        noise = fitted([dict(enumerate(arm)) for arm in scores])
        flagged.append(noise.unstable[0])
        for other in (1, 2, 3):
            found = noise.contrast({0: 1.0, other: -1.0})
            covered.append(abs(found.estimate) <= stats.t.isf(0.025, found.df) * found.se)
    return float(np.mean(flagged)), float(np.mean(covered))


def test_an_arm_of_three_times_the_scatter_is_flagged_at_10_seeds_and_covered_at_5():
    assert wild_arm(10, 60)[0] > 0.9
    assert wild_arm(5, 200)[1] >= 0.89


@pytest.mark.slow
def test_an_arm_of_three_times_the_scatter_is_flagged_at_10_seeds_and_covered_at_5_in_many_studies():
    assert wild_arm(10, 500)[0] > 0.9
    assert wild_arm(5, 1000)[1] >= 0.89

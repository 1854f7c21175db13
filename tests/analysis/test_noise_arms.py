"""Under test: the noise of one arm and what it leans on, against loops by hand and exact scatter."""

from __future__ import annotations

import numpy as np
import pytest
from noise_by_hand import CASES, by_hand, invented
from scatter import arm_of, fitted, with_ratios
from scipy import stats

from senet_ablate.analysis.noise import Sample, fit_noise
from senet_ablate.spec.claims import Rules


@pytest.mark.parametrize(("layout", "seed"), CASES)
def test_every_arm_is_fitted_as_loops_over_runs_and_images_say(layout, seed):
    runs = invented(layout, seed)
    noise, hand = fitted(runs), by_hand(layout, seed)
    assert noise.sample.arm_means == pytest.approx(hand.means)
    assert noise.b == pytest.approx(hand.b)
    assert noise.ratio == pytest.approx(hand.ratio)
    assert noise.factor == pytest.approx(hand.factor)
    assert noise.df == pytest.approx(hand.df)
    assert noise.variance == pytest.approx(hand.sigma2)
    assert noise.unstable.tolist() == hand.unstable
    assert noise.pooled.tolist() == hand.leaning
    assert noise.phi == pytest.approx(hand.phi)
    assert noise.pooled_df == sum(len(arm) - 1 for arm in runs)
    assert noise.sample.counts.tolist() == [len(arm) for arm in runs]


def test_b_of_two_runs_is_half_the_share_of_images_on_which_they_differ_by_the_number_of_images():
    wrong = np.array([[1, 0, 0, 1, 1, 0, 0, 0], [1, 1, 0, 0, 1, 0, 0, 1]], float)  # differ on 3 of 8
    noise = fitted([{0: wrong[0], 1: wrong[1]}, {0: wrong[0], 1: wrong[0][::-1]}])  # and on 2 of 8
    assert noise.b == pytest.approx([3 / 8 / 16, 2 / 8 / 16])


def test_the_runs_scores_are_kept_apart_by_seed_whatever_their_order():
    one, other, third = np.eye(3)
    sample = Sample.of([{5: one, 2: other}, {}, {0: third}])
    assert sample.seeds == ((2, 5), (), (0,))
    assert sample.rows(0, [5]).tolist() == [1]
    assert sample.rows(2).tolist() == [2]
    assert sample.products.diagonal() == pytest.approx([1 / 3] * 3)
    assert np.isnan(sample.arm_means).tolist() == [False, True, False]


def test_the_pool_of_an_arm_leaves_it_out_and_an_arm_above_its_pool_is_moderated():
    # d = 2 each. The first two lie below the mean of the others, (2 + 3.5) / 2 and (1.5 + 3.5) / 2. The third lies
    # above (1.5 + 2) / 2 with F = 2 on (2, 4), p = (1 + 2 / 2)^-2 = 0.25: the pool counts as 4 * 0.25 / 0.3 runs.
    noise = fitted(with_ratios(1.5, 2.0, 3.5))
    assert noise.ratio == pytest.approx([1.5, 2, 3.5])
    assert noise.factor == pytest.approx([2.75, 2.5, (10 / 3 * 1.75 + 2 * 3.5) / (10 / 3 + 2)])
    assert noise.df == pytest.approx([4, 4, 10 / 3 + 2])
    assert noise.pooled.tolist() == [True, True, False]
    assert noise.phi == pytest.approx(7 / 3)
    assert not noise.unstable.any()


def test_degrees_of_freedom_of_a_moderated_arm_do_not_exceed_those_that_there_are():
    noise = fitted(with_ratios(1.0, 1.5))
    assert noise.df.tolist() == [2, 4]  # 4 + 2 would be 6, there are 4
    assert noise.factor == pytest.approx([1.5, (4 * 1 + 2 * 1.5) / 6])


def test_no_arm_scatters_less_than_its_independent_part():
    noise = fitted(with_ratios(0.2, 0.3, 0.25, b=2.0))
    assert noise.phi == pytest.approx(0.25)
    assert noise.factor.tolist() == [1, 1, 1]
    assert noise.variance == pytest.approx([2, 2, 2])


@pytest.mark.parametrize(
    ("wild", "lean", "unstable"),
    [
        # Pool 1 with 6 df: p = (1 + wild / 3)^-3 is 0.32, 1/8, 0.0102 and 0.0098.
        (1.4, 4, False),
        (3.0, 4 * 0.125 / 0.3, False),
        (10.83, 4 * (1 + 10.83 / 3) ** -3 / 0.3, False),
        (11.02, 0, True),
    ],
)
def test_the_less_an_arm_looks_like_the_pool_the_less_it_leans_on_it_until_it_is_unstable(wild, lean, unstable):
    noise = fitted(with_ratios(1.0, 1.0, 1.0, wild))
    assert noise.factor[3] == pytest.approx((lean + 2 * wild) / (lean + 2))
    assert noise.df[3] == pytest.approx(lean + 2)
    assert noise.unstable.tolist() == [False, False, False, unstable]
    assert noise.factor[:3] == pytest.approx([(2 + wild) / 3] * 3)
    assert noise.df[:3].tolist() == [6, 6, 6]


def test_arms_of_one_run_take_the_median_independent_part_and_the_factor_of_the_pool():
    runs = [arm_of([10.0, 11.0, 12.0], b, 1) for b in (4.0, 1.0, 9.0)]  # ratios 1/4, 1 and 1/9
    runs += [{3: np.linspace(0, 30, 50)}, {}]
    noise = fitted(runs)
    assert noise.b[:4] == pytest.approx([4, 1, 9, 4])
    assert noise.variance[3] == pytest.approx(4)
    assert noise.df[3] == 6
    assert np.isnan(noise.b[4])
    assert np.isnan(noise.variance[4])


def test_the_only_arm_with_two_runs_goes_by_its_own_scatter_but_not_under_the_floor():
    lone = {0: np.linspace(0, 30, 50)}
    for ratio, factor in ((0.5, 1.0), (7.0, 7.0)):
        noise = fitted([*with_ratios(ratio), lone])
        assert noise.factor == pytest.approx([factor, factor])
        assert noise.df.tolist() == [2, 2]
        assert not noise.unstable.any()


def test_without_any_arm_of_two_runs_there_is_no_noise_model():
    assert fit_noise(Sample.of([{0: np.arange(4.0)}, {0: np.ones(4)}]), Rules()) is None
    assert fit_noise(Sample.of([{}, {}, {}]), Rules()) is None


def test_runs_without_any_scatter_fall_to_the_floor():
    runs = [arm_of([12.0] * 3, 2.0, 1), arm_of([15.0] * 3, 3.0, 2)]
    noise = fitted(runs, pairing="none")
    assert noise.phi == pytest.approx(0, abs=1e-9)
    assert noise.variance == pytest.approx([2, 3])
    found = noise.contrast({0: -1.0, 1: 1.0})
    assert (found.estimate, found.se) == pytest.approx((3.0, (5 / 3) ** 0.5))


def test_runs_that_differ_on_no_image_inform_no_pool():
    same = 100.0 * (np.arange(50) < 8)
    noise = fitted([*with_ratios(2.0, 3.0, 2.5), {0: same, 1: same}])
    assert noise.b[3] == 0
    assert noise.phi == pytest.approx(2.5)
    assert noise.pooled_df == 6
    assert noise.df[[0, 2]].tolist() == [4, 4]
    assert noise.factor[0] == pytest.approx(2.75)


@pytest.mark.parametrize(("runs", "wrong"), [(5, 13), (5, 16), (6, 1), (7, 3), (10, 7)])
def test_runs_that_differ_on_no_image_have_no_independent_part_however_many(runs, wrong):
    same = 100.0 * (np.arange(768) < wrong)
    noise = fitted([arm_of([10.0, 11.0, 12.0], 2.0, 1, images=768), dict.fromkeys(range(runs), same)])
    assert noise.b[1] == 0


def test_the_prior_of_converged_training_adds_8_degrees_of_freedom_at_1_3():
    for prior, factors, df in (("none", [1.0, 1.0], [2, 2]), ("converged", [1.2, 1.14], [10, 10])):
        noise = fitted(with_ratios(0.5, 0.8), phi_prior=prior)
        assert noise.factor == pytest.approx(factors)  # (2 * 0.8 + 8 * 1.3) / 10, (2 * 0.5 + 8 * 1.3) / 10
        assert noise.df.tolist() == df


def test_the_prior_is_dropped_where_the_runs_contradict_it():
    # The 10 % point of F on (4, 8) is 2.806, so phi may be up to 3.648.
    edge = 1.3 * stats.f.isf(0.1, 4, 8)
    assert edge == pytest.approx(3.648, abs=1e-3)
    kept = fitted(with_ratios(3.6, 3.61), phi_prior="converged")
    pool = (2 * 3.61 + 8 * 1.3) / 10
    lean = 4 * (1 + 2 * 3.6 / pool / 10) ** -5 / 0.3  # F on (2, 10)
    assert kept.factor[0] == pytest.approx((lean * pool + 2 * 3.6) / (lean + 2))
    assert kept.df[0] == pytest.approx(lean + 2)
    dropped = fitted(with_ratios(3.7, 3.71), phi_prior="converged")
    assert dropped.factor[0] == pytest.approx(3.71)
    assert dropped.df[0] == 2


def test_the_independent_part_of_two_simulated_runs_is_within_15_percent_of_the_truth():
    rng = np.random.default_rng(3)
    images = 10_000
    rate = 1 / (1 + np.exp(4 + 3 * rng.standard_normal((20, images))))  # 20 arms of some 12 % error
    truth = 100**2 * (rate * (1 - rate)).mean(axis=1) / images
    noise = fitted([{s: 100.0 * (rng.random(images) < p) for s in range(2)} for p in rate])
    assert noise.b == pytest.approx(truth, rel=0.15)
    assert noise.b.mean() == pytest.approx(truth.mean(), rel=0.03)  # without bias: 4 % each, 1 % of their mean

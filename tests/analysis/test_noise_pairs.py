"""Under test: what runs of one seed have in common, against loops by hand, and what pairing them is worth."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from noise_by_hand import CASES, PAIRINGS, ByHand, by_hand, invented
from scatter import fitted, runs_of, with_ratios
from scipy import stats

from senet_ablate.analysis.noise import Sample, fit_noise
from senet_ablate.spec.claims import Rules


@pytest.mark.parametrize(("layout", "seed"), CASES)
def test_what_is_left_after_arm_and_seed_effects_is_as_least_squares_on_dummies_says(layout, seed):
    runs = invented(layout, seed)
    noise, hand = fitted(runs), by_hand(layout, seed)
    assert noise.phi_residual == pytest.approx(hand.phi_residual)
    assert noise.residual_df == hand.df_residual


def test_arms_in_two_groups_without_a_seed_in_common_have_one_degree_of_freedom_less_to_spend():
    runs = with_ratios(2.0, 3.0, 1.0, 2.0)
    runs = [{seed + 10 * (place > 1): run for seed, run in arm.items()} for place, arm in enumerate(runs)]
    noise = fitted(runs)
    groups = [fitted(runs[:2]), fitted(runs[2:])]
    assert noise.residual_df == 12 - 4 - 6 + 2 == sum(group.residual_df for group in groups)
    assert 4 * noise.phi_residual == pytest.approx(sum(2 * group.phi_residual for group in groups))


def test_seeds_of_one_arm_alone_leave_nothing_to_pair():
    runs = with_ratios(2.0, 2.0, 2.0)
    apart = [{seed + 10 * place: run for seed, run in arm.items()} for place, arm in enumerate(runs)]
    noise = fitted(apart, pairing="full")
    assert noise.residual_df == 0
    assert noise.common_seeds(0, 1) == []
    assert noise.pair(0, 1) == (0.0, 0.0, np.inf)


def test_a_wild_arm_has_nothing_in_common_with_others_when_no_seed_moves_them_alike():
    # In a Latin square each seed is as good for one arm as it is bad for another, so nothing is in common.
    rng = np.random.default_rng(3)
    square = [(-2.0, 0.0, 2.0), (0.0, 2.0, -2.0), (2.0, -2.0, 0.0)]
    usual = [dict(enumerate(runs_of(np.array(row) + 20, 1.0, rng))) for row in 2 * square]
    wild = dict(enumerate(runs_of(np.array([-30.0, 60.0, 30.0]) + 100, 60.0, rng)))
    noise = fitted([*usual, wild], pairing="half")
    assert noise.unstable.tolist() == 6 * [False] + [True]
    assert noise.correlation <= 0
    assert all(noise.pair(a, b)[0] == 0 for a, b in combinations(range(7), 2))


@pytest.mark.parametrize("pairing", ["half", "full"])
def test_no_pair_is_credited_with_more_than_the_correlation_that_is_seen(pairing):
    # Twelve arms whose runs rise and fall together, but for their own scatter, and one that scatters a lot more.
    rng = np.random.default_rng(4)
    common = 2 * rng.standard_normal(5)
    usual = [dict(enumerate(runs_of(20 + common + rng.standard_normal(5), 1.0, rng))) for _ in range(12)]
    wild = dict(enumerate(runs_of(40 + common + 20 * rng.standard_normal(5), 60.0, rng)))
    noise = fitted([*usual, wild], pairing=pairing)
    share = noise.correlation * (0.5 if pairing == "half" else 1.0)
    assert 0.5 < noise.correlation < 1
    for a, b in combinations(range(13), 2):
        assert noise.pair(a, b)[0] <= share * (noise.variance[a] * noise.variance[b]) ** 0.5 * (1 + 1e-9)
    assert noise.pair(0, 1)[0] > 0


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize(("layout", "seed"), CASES)
def test_the_covariance_of_a_pair_is_what_loops_say(layout, seed, pairing):
    runs = invented(layout, seed)
    noise, hand = fitted(runs, pairing=pairing), by_hand(layout, seed, pairing)
    for a, b in combinations(range(len(runs)), 2):
        v, df, why = hand.pair(a, b)
        covariance, most, own_df = noise.pair(a, b)
        assert (covariance, most) == noise.pair(b, a)[:2]
        apart = hand.sigma2[a] + hand.sigma2[b]
        assert covariance == pytest.approx((apart - v) / 2, abs=1e-9)
        assert noise.one_seed_covariance()[a, b] == covariance
        if why in ("moderated", "target"):
            assert own_df == df
        if len(hand.common(a, b)) > 1:
            assert most == pytest.approx((hand.b[a] + hand.b[b] - hand.w(a, b)) / 2, abs=1e-9)
        else:
            assert most == 0


def test_the_invented_pairs_meet_every_case_of_the_rule():
    met = {pairing: set() for pairing in PAIRINGS}
    for case in CASES:
        for pairing in PAIRINGS:
            hand = by_hand(*case, pairing)
            met[pairing] |= {hand.pair(a, b)[2] for a, b in combinations(range(len(hand.runs)), 2)}
    assert met["none"] == {"unpaired"}
    assert met["half"] >= {"capped", "moderated", "target"}
    assert met["full"] >= {"capped", "moderated", "target"}


def test_half_credit_lies_half_way_between_none_and_what_two_way_residuals_leave():
    # Arms of equal B whose whole runs rise and fall together, at 4 times B: arm and seed explain all of it, and what
    # is left of a difference is its independent part.
    runs = with_ratios(4.0, 4.0, 4.0)
    w = ByHand(runs).w(0, 1)
    none, half, full = (fitted(runs, pairing=pairing) for pairing in PAIRINGS)
    apart = float(none.variance[0] + none.variance[1])
    assert apart == pytest.approx(8)
    assert full.phi_residual == pytest.approx(0, abs=1e-9)
    for noise, target in ((full, w), (half, (w + apart) / 2)):
        assert noise.pair(0, 1)[0] == pytest.approx((apart - target) / 2)
    assert none.pair(0, 1)[0] == 0


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_means_covary_by_the_runs_that_they_share(pairing):
    runs, hand = invented(1, 2), by_hand(1, 2, pairing)
    noise = fitted(runs, pairing=pairing)

    def of_two_runs(v: int, s: int, u: int, t: int) -> float:
        if v == u:
            return hand.sigma2[v] if s == t else 0.0
        return (hand.sigma2[v] + hand.sigma2[u] - hand.pair(v, u)[0]) / 2 if s == t else 0.0

    # Covariance of all single runs: that of a pair of arms between runs of one seed, else none.
    placed = [(v, s) for v, arm in enumerate(runs) for s in arm]
    of_runs = np.array([[of_two_runs(*one, *other) for other in placed] for one in placed])
    average = np.array([[float(v == arm) / len(runs[arm]) for v, _ in placed] for arm in range(len(runs))])
    assert noise.covariance_of_means(range(4), paired=True) == pytest.approx(average @ of_runs @ average.T)
    apart = average @ np.diag(of_runs.diagonal()) @ average.T
    assert noise.covariance_of_means(range(4), paired=False) == pytest.approx(apart)
    assert noise.covariance_of_means([3, 1], paired=True) == pytest.approx(
        (average @ of_runs @ average.T)[np.ix_([3, 1], [3, 1])]
    )


# --- what pairing is worth ---


def half_widths(correlation: float, studies: int, arms: int = 6, seeds: int = 5) -> np.ndarray:
    """Half-widths of 95 % intervals, (pairs of all studies, none and half); over-dispersion 4, seeds correlated."""
    rng = np.random.default_rng(8)
    images, found = 40, []
    for _ in range(studies):
        luck = rng.standard_normal((arms, seeds, images))  # B = 1 / images
        common, own = rng.standard_normal((1, seeds)), rng.standard_normal((arms, seeds))
        part = correlation * 4 / 3  # of the shift, which has 3 of the 4 parts of variance
        shift = (3 / images) ** 0.5 * (part**0.5 * common + (1 - part) ** 0.5 * own)
        sample = Sample.of([dict(enumerate(arm)) for arm in luck + shift[..., None]])
        models = [fit_noise(sample, Rules(pairing=pairing)) for pairing in ("none", "half")]
        for a, b in combinations(range(arms), 2):
            both = [model.contrast({a: 1.0, b: -1.0}) for model in models]
            found.append([stats.t.ppf(0.975, each.df) * each.se for each in both])
    return np.array(found)


def test_half_credit_never_makes_an_interval_longer():
    for correlation in (0.0, 0.6):
        none, half = np.moveaxis(half_widths(correlation, 25), -1, 0)
        assert (half <= none * (1 + 1e-12)).all()
        assert (half < none * (1 - 1e-6)).any()


def test_without_correlation_half_credit_changes_mean_lengths_by_at_most_3_percent():
    none, half = half_widths(0.0, 100).mean(axis=0)
    assert 0.97 * none < half <= none


def test_with_a_correlation_of_0_6_half_credit_shortens_intervals_of_5_seeds_by_at_least_12_percent():
    none, half = half_widths(0.6, 100).mean(axis=0)
    assert half < 0.88 * none

"""Under test: simulated studies have the errors, the noise and the correlations that were asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from senet_ablate.analysis.calibration import GroundTruth, Simulator
from senet_ablate.analysis.noise import Sample
from senet_ablate.spec.ablation import Arm
from senet_ablate.spec.network import SEConfig, Variant

PLAIN, SE, TANH = (Arm(variant=Variant(se=se)) for se in (None, SEConfig(), SEConfig(gate="tanh")))
ERRORS = {PLAIN: 24.0, SE: 22.0, TANH: 22.5}
TRUTH = GroundTruth(ERRORS, images=2000, sd=0.6, phi=1.3)
RUNS = 1000


def simulated(truth: GroundTruth, runs: int = RUNS, seed: int = 1) -> Sample:
    return Simulator(truth, np.random.default_rng(0)).draw((runs,) * len(truth.errors), np.random.default_rng(seed))


def run_scores(sample: Sample) -> np.ndarray:
    """(arms, seeds)"""
    return np.array([sample.means[sample.rows(arm)] for arm in range(len(sample.seeds))])


def independent_part(sample: Sample, arm: int) -> float:
    """B, from per-image error rates p over many runs: mean p (1 - p) by the number of images."""
    rows = sample.rows(arm)
    # 100 p - mean of products of different runs is p (1 - p) in squared points.
    products = sample.products[np.ix_(rows, rows)]
    n = len(rows)
    squares = (products.sum() - np.trace(products)) / (n * (n - 1))
    return float((100 * sample.means[rows].mean() - squares) / sample.images)


def within(share: float) -> float:
    """Relative tolerance of a standard deviation from all runs, and what the linear picture of a logit leaves."""
    return 3.5 / (2 * RUNS) ** 0.5 + share


def test_runs_have_the_asked_mean_error_on_these_images():
    for truth in (TRUTH, replace(TRUTH, phi=6.0, correlation=0.5, shared=0.5, taste=0.5, unstable={TANH: 3.0})):
        scores = run_scores(simulated(truth))
        spread = scores.std(axis=1, ddof=1) / RUNS**0.5
        assert (np.abs(scores.mean(axis=1) - list(ERRORS.values())) < 3.5 * spread).all()


def test_errors_are_exact_on_average_over_the_shifts_of_runs_however_large():
    truth = replace(TRUTH, images=400, sd=1.6, phi=6.0, unstable={TANH: 2.0})
    simulator = Simulator(truth, np.random.default_rng(0))
    shifts = stats.norm.ppf((np.arange(400) + 0.5) / 400)
    for arm, error in enumerate(ERRORS.values()):
        logits = simulator.logits[arm].astype(float)[:, None] + simulator.shift_sd[arm] * shifts
        # Leaving the shifts out of account would miss by more than 0.01 points.
        assert 100 * (1 / (1 + np.exp(-logits))).mean() == pytest.approx(error, abs=0.003)


@pytest.mark.parametrize(("sd", "phi"), [(0.6, 1.0), (0.6, 1.3), (0.4, 2.0), (1.0, 6.0)])
def test_runs_scatter_as_much_as_asked_and_by_the_asked_multiple_of_their_independent_part(sd, phi):
    sample = simulated(replace(TRUTH, sd=sd, phi=phi))
    scores = run_scores(sample)
    for arm in range(3):
        assert scores[arm].std(ddof=1) == pytest.approx(sd, rel=within(0.03))
        b = independent_part(sample, arm)
        assert b == pytest.approx(sd**2 / phi, rel=0.08)
        assert scores[arm].var(ddof=1) / b == pytest.approx(phi, rel=2 * within(0.03))


def test_more_images_of_one_kind_scatter_less():
    # The same scatter on twice the images means twice the mean p (1 - p), so rates nearer to each other.
    few, many = (Simulator(replace(TRUTH, images=n), np.random.default_rng(0)) for n in (2000, 4000))
    assert many.logits[0].std() < few.logits[0].std()
    for simulator, images in ((few, 2000), (many, 4000)):
        p = 1 / (1 + np.exp(-simulator.logits.astype(float)))
        assert (p * (1 - p)).mean() == pytest.approx(0.006**2 * images / 1.3, rel=0.05)


def test_an_unstable_arm_varies_by_its_multiple_and_the_others_as_before():
    sample = simulated(replace(TRUTH, unstable={TANH: 3.0}))
    scores = run_scores(sample)
    assert scores[2].std(ddof=1) == pytest.approx(3 * 0.6, rel=within(0.05))
    assert scores[:2].std(axis=1, ddof=1) == pytest.approx([0.6] * 2, rel=within(0.03))
    assert independent_part(sample, 2) == pytest.approx(0.6**2 / 1.3, rel=0.1)  # it is not the luck that grows


@pytest.mark.parametrize(("phi", "correlation"), [(1.3, 0.0), (6.0, 0.0), (6.0, 0.4), (6.0, 1.0)])
def test_runs_of_one_seed_share_the_asked_part_of_their_shifts(phi, correlation):
    scores = run_scores(simulated(replace(TRUTH, phi=phi, correlation=correlation)))
    # The shift has (phi - 1) / phi of the variance.
    expected = correlation * (phi - 1) / phi
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.corrcoef(scores[a], scores[b])[0, 1] == pytest.approx(expected, abs=3.5 / RUNS**0.5 + 0.01)


def test_runs_of_one_seed_share_the_luck_of_the_asked_part_of_the_images():
    truth = GroundTruth({SE: 22.0, TANH: 22.0}, images=2000, sd=0.6, phi=1.0)
    found = []
    for shared in (0.0, 0.5, 1.0):
        sample = simulated(replace(truth, shared=shared), runs=400)
        one, other = sample.rows(0), sample.rows(1)
        same_seed = sample.products[one, other].mean()
        other_seeds = (sample.products[np.ix_(one, other)].sum() - same_seed * 400) / (400 * 399)
        # Covariance per image between arms of one seed, as a share of the variance p (1 - p) of an image's outcome.
        found.append((same_seed - other_seeds) / (independent_part(sample, 0) * 2000))
    assert found == pytest.approx([0, 0.5, 1], abs=0.05)


def test_taste_makes_arms_find_different_images_hard_at_the_same_error():
    alike, different = (
        Simulator(replace(TRUTH, taste=taste), np.random.default_rng(0)).logits.astype(float) for taste in (0.0, 0.8)
    )
    assert np.ptp(alike[0] - alike[1]) < 1e-3  # up to a level
    assert (different[0] - different[1]).std() == pytest.approx(0.8 * 2**0.5, rel=0.08)


def test_with_a_pool_each_study_sees_its_own_images_and_errors_hold_on_all_of_them():
    simulator = Simulator(replace(TRUTH, taste=0.8, pool=5), np.random.default_rng(0))
    studies = [simulator.draw((2, 2, 2), np.random.default_rng(seed)) for seed in range(150)]
    assert {sample.images for sample in studies} == {2000}
    means = np.array([sample.arm_means for sample in studies])
    spread = means.std(axis=0, ddof=1)
    assert (np.abs(means.mean(axis=0) - list(ERRORS.values())) < 3.5 * spread / 150**0.5).all()
    # A sample of 2,000 images of this error alone scatters by some (0.22 * 0.78 / 2000)^0.5 = 0.93 points.
    assert (spread > 0.6).all()
    same = Simulator(replace(TRUTH, taste=0.8), np.random.default_rng(0))
    fixed = np.array([same.draw((2, 2, 2), np.random.default_rng(seed)).arm_means for seed in range(150)])
    assert (fixed.std(axis=0, ddof=1) < 0.6).all()


def test_arms_have_as_many_seeds_as_asked_from_0_on_and_scores_are_0_or_100():
    sample = Simulator(TRUTH, np.random.default_rng(0)).draw((3, 0, 2), np.random.default_rng(1))
    assert sample.seeds == ((0, 1, 2), (), (0, 1))
    assert sample.images == 2000
    # of scores 0 and 100 the mean square is 100 times the mean
    assert sample.products.diagonal() == pytest.approx(100 * sample.means)
    wrong = sample.means * 20
    assert wrong == pytest.approx(wrong.round())


def test_equal_generators_give_equal_studies_and_others_other_ones():
    simulators = [Simulator(TRUTH, np.random.default_rng(5)) for _ in range(2)]
    one, again, other = (
        simulator.draw((2, 2, 2), np.random.default_rng(seed))
        for simulator, seed in ((simulators[0], 1), (simulators[1], 1), (simulators[0], 2))
    )
    assert (one.products == again.products).all()
    assert (one.means == again.means).all()
    assert (one.means != other.means).any()
    assert (Simulator(TRUTH, np.random.default_rng(6)).logits != simulators[0].logits).any()


@pytest.mark.parametrize("sd", [0.0, 1.1])
def test_a_scatter_that_no_error_rates_could_have_is_refused(sd):
    # At 22.8 % the mean p (1 - p) is at most 0.176, so without over-dispersion an sd is at most 0.94 points.
    with pytest.raises(ValueError, match=rf"sd = {sd} on 2000 images does not fit an error of 22.8 %"):
        Simulator(replace(TRUTH, phi=1.0, sd=sd), np.random.default_rng(0))
    Simulator(replace(TRUTH, phi=1.0, sd=0.9), np.random.default_rng(0))


def test_an_arm_cannot_scatter_less_than_its_images_do():
    truth = GroundTruth(ERRORS, images=2000, sd=0.6, phi=1.3, unstable={PLAIN: 0.1})
    with pytest.raises(ValueError, match=r"unstable: 0\.1 of plain"):
        Simulator(truth, np.random.default_rng(0))

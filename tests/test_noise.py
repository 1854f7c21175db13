"""Under test: the noise model, against loops over runs and images that follow the specification word by word."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from statistics import fmean, median

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from senet_ablate.noise import Noise, Sample, fit_noise
from senet_ablate.rules import Rules

Runs = list[dict[int, np.ndarray]]
"""Per-image scores by arm and seed."""


# --- invented runs ---------------------------------------------------------------------------------------------------


def arm_of(means: list[float], b: float, seed: int, images: int = 50) -> dict[int, np.ndarray]:
    """Runs of one arm with exactly these mean scores and exactly this independent part B."""
    y = np.array(means)
    luck = np.random.default_rng(seed).standard_normal((len(y), images))
    luck -= luck.mean(axis=1, keepdims=True)
    # B counts all variance over seeds at an image, the runs' own scatter included; the rest has to come from luck.
    missing = images * b - y.var(ddof=1)
    assert missing > 0
    luck *= (missing / luck.var(axis=0, ddof=1).mean()) ** 0.5
    return dict(enumerate(y[:, None] + luck))


def with_ratios(*ratios: float, seeds: int = 3, b: float = 1.0) -> Runs:
    """Arms of one B whose runs scatter by exactly these multiples of it."""
    shape = np.linspace(-1, 1, seeds)
    shape /= shape.std(ddof=1)
    return [arm_of(list(20 + place + (b * r) ** 0.5 * shape), b, place) for place, r in enumerate(ratios)]


LAYOUTS = [
    ((0, 1, 2), (0, 1, 2), (0, 1, 2), (0, 1, 2)),
    ((0, 1, 2, 3, 4), (1, 3, 7), (0, 1), (0, 2, 3, 4, 7, 9)),
    ((0, 1, 2, 3), (0, 1, 2, 3), (2,), (0, 1), (1, 2, 3)),
]


@cache
def invented(layout: int, seed: int, images: int = 24) -> Runs:
    """Right and wrong answers of arms whose runs share a seed's luck more or less, one arm wilder than the others."""
    rng = np.random.default_rng(seed)
    difficulty = 2 * rng.standard_normal(images) - 1
    shift = {s: rng.standard_normal() for s in range(10)}
    luck = {s: rng.random(images) for s in range(10)}
    runs = []
    for place, seeds in enumerate(LAYOUTS[layout]):
        own, shared = 0.3 * (1 + 3 * (place == seed % 3)), rng.random(images) < rng.choice([0.1, 0.8])
        runs.append(
            {
                s: 100.0
                * (
                    np.where(shared, luck[s], rng.random(images))
                    < 1 / (1 + np.exp(-difficulty - 0.4 * shift[s] - own * rng.standard_normal()))
                )
                for s in seeds
            }
        )
    return runs


CASES = [(layout, seed) for layout in range(len(LAYOUTS)) for seed in range(4)]
PAIRINGS = ["none", "half", "full"]


def fitted(runs: Runs, **rules) -> Noise:
    noise = fit_noise(Sample.of(runs), Rules(**rules))
    assert noise is not None
    return noise


# --- the specification by hand -----------------------------------------------------------------------------------


def variance(values: Iterable[float]) -> float:
    listed = [float(value) for value in values]
    middle = fmean(listed)
    return sum((value - middle) ** 2 for value in listed) / (len(listed) - 1)


def b_by_hand(runs: list[np.ndarray]) -> float:
    """Mean over images of the variance over runs, by the number of images."""
    images = len(runs[0])
    return fmean(variance(run[i] for run in runs) for i in range(images)) / images


@dataclass
class ByHand:
    """Steps 1 to 11 of the noise model, computed from the runs' raw scores."""

    runs: Runs
    pairing: str = "none"

    def __post_init__(self):
        self.images = len(next(iter(self.runs[0].values())))
        two = [arm for arm in self.runs if len(arm) > 1]
        middle = median(b_by_hand(list(arm.values())) for arm in two)
        self.b = [b_by_hand(list(arm.values())) if len(arm) > 1 else middle for arm in self.runs]
        self.means = [fmean(fmean(run) for run in arm.values()) for arm in self.runs]
        d = [len(arm) - 1 for arm in self.runs]
        r = [
            variance([fmean(run) for run in arm.values()]) / b if len(arm) > 1 else 0.0
            for arm, b in zip(self.runs, self.b, strict=True)
        ]
        self.ratio, self.phi = r, sum(x * y for x, y in zip(d, r, strict=True)) / sum(d)
        self.factor, self.df, self.leaning, self.unstable = [], [], [], []
        for v in range(len(d)):
            others = [u for u in range(len(d)) if u != v]
            weight = sum(d[u] for u in others)
            o = max(1.0, sum(d[u] * r[u] for u in others) / weight)
            p = stats.f.sf(r[v] / o, d[v], weight) if d[v] else 1.0
            self.leaning.append(r[v] <= o)
            self.unstable.append(p < 0.01)
            # Four runs' worth of pool, less the less the arm looks like it, none for an unstable one.
            lean = 0.0 if p < 0.01 else 4 * min(1.0, p / 0.3)
            if r[v] <= o:
                factor, df = o, weight
            else:
                factor, df = (lean * o + d[v] * r[v]) / (lean + d[v]), min(lean + d[v], sum(d))
            self.factor.append(factor)
            self.df.append(df)
        self.sigma2 = [f * b for f, b in zip(self.factor, self.b, strict=True)]
        self.phi_residual, self.df_residual = self.two_way()

    def two_way(self) -> tuple[float, int]:
        """Variant and seed effects by statsmodels, on dummies."""
        placed = [(v, s) for v, arm in enumerate(self.runs) for s in arm]
        kept = [(v, s) for v, s in placed if sum(s == other for _, other in placed) > 1]
        y = [fmean(self.runs[v][s]) / self.b[v] ** 0.5 for v, s in kept]
        columns = [[float(v == arm) for v, _ in kept] for arm in sorted({v for v, _ in kept})]
        # Without the first seed, whose effect is the arms': so the columns are independent.
        columns += [[float(s == seed) for _, s in kept] for seed in sorted({s for _, s in kept})[1:]]
        fit = sm.OLS(np.array(y), np.array(columns).T).fit()
        return fit.ssr / fit.df_resid, round(fit.df_resid)

    def common(self, a: int, b: int) -> list[int]:
        return [s for s in self.runs[a] if s in self.runs[b]]

    def w(self, a: int, b: int) -> float:
        return b_by_hand([self.runs[a][s] - self.runs[b][s] for s in self.common(a, b)])

    def pair(self, a: int, b: int) -> tuple[float, float, str]:
        """Variance of a one-seed difference, its df, and what decided it."""
        common, apart = self.common(a, b), self.sigma2[a] + self.sigma2[b]
        m = len(common)
        if self.pairing == "none" or m < 2:
            return apart, np.inf, "unpaired"
        w = self.w(a, b)
        t = max(w, (self.b[a] + self.b[b]) * self.phi_residual)
        v0 = (t + apart) / 2 if self.pairing == "half" else t
        q = variance([fmean(self.runs[a][s] - self.runs[b][s]) for s in common])
        moderated = (4 * v0 + (m - 1) * q) / (4 + m - 1)
        v = max(w, v0, moderated)
        df, why = (3 + m, "moderated") if moderated == v else (self.df_residual, "target")
        return (apart, df, "capped") if v > apart else (v, df, why)

    def of_means(self, paired: bool, floor: bool = False) -> np.ndarray:
        """Covariance of the arms' means."""
        arms = range(len(self.runs))
        n = [len(arm) for arm in self.runs]
        one_run = self.b if floor else self.sigma2
        s = np.zeros((len(n), len(n)))
        for a in arms:
            for b in arms:
                m = len(self.common(a, b))
                if a == b:
                    s[a, a] = one_run[a] / n[a]
                elif floor and m > 1:
                    s[a, b] = m * (one_run[a] + one_run[b] - self.w(a, b)) / (2 * n[a] * n[b])
                elif paired and not floor:
                    s[a, b] = m * (one_run[a] + one_run[b] - self.pair(a, b)[0]) / (2 * n[a] * n[b])
        return s

    def contrast(self, c: list[float]) -> tuple[float, float, float, float, bool]:
        """Estimate, standard error, df, standard error for new images, and whether the paired form was taken."""
        arms = [v for v, weight in enumerate(c) if weight]
        estimate = sum(c[v] * self.means[v] for v in arms)
        floor = sum(c[a] * c[b] * self.of_means(True, floor=True)[a, b] for a in arms for b in arms)
        parts = {v: c[v] ** 2 * self.sigma2[v] / len(self.runs[v]) for v in arms}
        # Arms that take the pool's factor err together, so they are one part.
        pool = [v for v in arms if self.leaning[v]]
        below = sum(parts[v] ** 2 / self.df[v] for v in arms if v not in pool)
        if pool:
            below += sum(parts[v] for v in pool) ** 2 / min(self.df[v] for v in pool)
        df = sum(parts.values()) ** 2 / below
        forms = []
        for paired in (False, True):
            s = self.of_means(paired)
            se2 = max(floor, sum(c[a] * c[b] * s[a, b] for a in arms for b in arms))
            own_df = df
            if paired:
                for a, b in combinations(arms, 2):
                    if self.pair(a, b)[2] in ("moderated", "target"):
                        own_df = min(own_df, self.pair(a, b)[1])
            forms.append((stats.t.ppf(0.975, own_df) * se2**0.5, se2, own_df, paired))
        _, se2, df, paired = min(forms)
        images = [
            sum(c[v] * fmean(float(run[i]) for run in self.runs[v].values()) for v in arms) for i in range(self.images)
        ]
        new = se2 + max(0.0, variance(images) / self.images - floor)
        return estimate, se2**0.5, df, new**0.5, paired


@cache
def by_hand(layout: int, seed: int, pairing: str = "none") -> ByHand:
    return ByHand(invented(layout, seed), pairing)


# --- one arm ---------------------------------------------------------------------------------------------------------


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
    assert noise.counts.tolist() == [len(arm) for arm in runs]


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
    assert fit_noise(Sample.empty(3), Rules()) is None


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


# --- pairs -----------------------------------------------------------------------------------------------------------


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
    runs = invented(1, 2)
    noise = fitted(runs, pairing=pairing)
    # Covariance of all single runs: that of a pair of arms between runs of one seed, else none.
    placed = [(v, s) for v, arm in enumerate(runs) for s in arm]
    of_runs = np.array(
        [
            [
                noise.variance[v] if (v, s) == (u, t) else noise.pair(v, u)[0] if s == t and v != u else 0.0
                for u, t in placed
            ]
            for v, s in placed
        ]
    )
    average = np.array([[float(v == arm) / len(runs[arm]) for v, _ in placed] for arm in range(len(runs))])
    assert noise.covariance_of_means(range(4), paired=True) == pytest.approx(average @ of_runs @ average.T)
    apart = average @ np.diag(of_runs.diagonal()) @ average.T
    assert noise.covariance_of_means(range(4), paired=False) == pytest.approx(apart)
    assert noise.covariance_of_means([3, 1], paired=True) == pytest.approx(
        (average @ of_runs @ average.T)[np.ix_([3, 1], [3, 1])]
    )


# --- contrasts -------------------------------------------------------------------------------------------------------

CONTRASTS = [[1, -1, 0, 0], [0, 0, 1, -1], [0.25, -1, 0, 0.75], [1, -0.5, -0.5, 0], [-1, -1, 1, 1]]


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize(("layout", "seed"), CASES)
def test_a_contrast_is_what_loops_say(layout, seed, pairing):
    runs = invented(layout, seed)
    hand = by_hand(layout, seed, pairing)
    noise, for_new = (fitted(runs, pairing=pairing, estimand=of) for of in ("benchmark", "population"))
    for c in CONTRASTS:
        c = c + [0] * (len(runs) - 4)
        estimate, se, df, se_new, _ = hand.contrast(c)
        for offset in (0.0, 2.5):
            found = noise.contrast(dict(enumerate(c)), offset)
            assert found.estimate == pytest.approx(offset + estimate)
            assert (found.se, found.df, found.se_new_images) == pytest.approx((se, df, se_new))
            assert found.p_above() == pytest.approx(stats.t.sf((offset + estimate) / se, df))
            assert found.p_above(new_images=True) == pytest.approx(stats.t.sf((offset + estimate) / se_new, df))
            assert for_new.contrast(dict(enumerate(c)), offset).se == pytest.approx(se_new)


def test_the_paired_form_is_taken_where_it_is_shorter_and_only_there():
    taken = {
        by_hand(*case, "half").contrast(c + [0] * (len(LAYOUTS[case[0]]) - 4))[4] for case in CASES for c in CONTRASTS
    }
    assert taken == {True, False}  # the comparison above meets both


def test_a_contrast_is_never_surer_than_its_independent_part_allows():
    # Two arms that fail on the same images at the same seeds: without credit their means count as independent, but what
    # their sum has in common cannot be got rid of. B = 2 and 3 runs each, the third arm has other seeds.
    base = arm_of([12.0] * 3, 2.0, 1)
    runs = [
        base,
        {s: run + 1 for s, run in base.items()},
        {s + 5: run for s, run in arm_of([15.0] * 3, 2.0, 2).items()},
    ]
    noise = fitted(runs, pairing="none")
    sum_of_two = noise.contrast({0: 1.0, 1: 1.0, 2: -2.0})
    assert sum_of_two.se**2 == pytest.approx((2 + 2 + 2 * 2 + 4 * 2) / 3)  # not (2 + 2 + 4 * 2) / 3
    assert noise.contrast({0: 1.0, 2: -1.0}).se ** 2 == pytest.approx((2 + 2) / 3)


def test_new_images_add_the_scatter_of_the_difference_over_images_less_what_the_runs_explain():
    runs = with_ratios(1.0, 1.0, seeds=4)
    taste = np.random.default_rng(5).permutation(np.repeat([-40.0, 40.0], 25))
    runs[1] = {s: run + taste for s, run in runs[1].items()}
    found = fitted(runs, pairing="none").contrast({0: -1.0, 1: 1.0})
    # 40^2 / 50 images and nothing else but sampling of the image scatter: the independent part is 2 / 4.
    assert found.se_new_images**2 - found.se**2 == pytest.approx(40**2 / 49, rel=0.15)
    alike = fitted([runs[0], {s: run + 1 for s, run in with_ratios(1.0, seeds=4)[0].items()}], pairing="none")
    assert alike.contrast({0: -1.0, 1: 1.0}).se_new_images == pytest.approx(alike.contrast({0: -1.0, 1: 1.0}).se)


# --- what pairing is worth -------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("runs", "wrong"), [(5, 13), (5, 16), (6, 1), (7, 3), (10, 7)])
def test_runs_that_differ_on_no_image_have_no_independent_part_however_many(runs, wrong):
    same = 100.0 * (np.arange(768) < wrong)
    noise = fitted([arm_of([10.0, 11.0, 12.0], 2.0, 1, images=768), dict.fromkeys(range(runs), same)])
    assert noise.b[1] == 0

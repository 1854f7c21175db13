"""How much the runs of an arm scatter, and what that means for a difference between arms.

Run noise is an independent part per image, B, which two runs reveal almost exactly, times one over-dispersion
factor phi that all arms share, with a guard for an arm that is less stable than the others. Everything is computed
from the runs' means and the mean products of their per-image scores, so a study of any number of images costs one
matrix product. Errors are percentages, so variances are in squared points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.special import fdtrc

from senet_ablate.analysis import distributions
from senet_ablate.spec.claims import Rules

SHORT_TRAINING_PHI = 2.0
"""Over-dispersion above which runs differ in real quality."""

PRIOR_DF = 4
PAIR_DF = 4
"""Prior degrees of freedom with which an arm's own scatter, or a pair's, is moderated towards the pool."""

TRUST_P = 0.3
"""Below this p-value of its F test against the pool an arm's prior fades in proportion. With a full prior down to 0.01
a gate of three times the noise gave a false finding in 11 % of simulated tables at 3 seeds; so it is 7 to 8 %, for
about half a finding of fifteen less."""

UNSTABLE_P = 0.01
"""An arm whose F test falls below this is called unstable and stands alone."""

MOST_OUTLIERS = 4
"""At most one arm in so many is kept out of the pool."""

ROUNDING = 1e-12

CONVERGED_DF, CONVERGED_PHI, CONVERGED_P = 8, 1.3, 0.1


@dataclass(frozen=True)
class Sample:
    """The scores of all runs of several arms on the same images in the same order.

    `seeds` has the seeds of each arm, `means` the run scores arm after arm, `products` the mean over images of the
    product of two runs' scores, (runs, runs).
    """

    seeds: tuple[tuple[int, ...], ...]
    means: np.ndarray
    products: np.ndarray
    images: int

    @classmethod
    def of(cls, scores: Sequence[Mapping[int, np.ndarray]]) -> Sample:
        """Take per-image scores by seed, one mapping for each arm (an arm may have no run)."""
        ordered = [dict(sorted(arm.items())) for arm in scores]
        runs = [run for arm in ordered for run in arm.values()]
        x = np.stack(runs).astype(np.float64) if runs else np.zeros((0, 1))
        return cls(tuple(tuple(arm) for arm in ordered), x.mean(axis=1), x @ x.T / x.shape[1], x.shape[1])

    @cached_property
    def counts(self) -> np.ndarray:
        """Number of runs of each arm."""
        return np.array([len(seeds) for seeds in self.seeds])

    @cached_property
    def starts(self) -> np.ndarray:
        """Where each arm's runs begin among all runs."""
        return np.cumsum([0, *map(len, self.seeds)])

    def rows(self, arm: int, seeds: Sequence[int] | None = None) -> np.ndarray:
        """Places of an arm's runs, all or those with the given seeds."""
        places = np.arange(self.starts[arm], self.starts[arm + 1])
        return places if seeds is None else places[np.searchsorted(self.seeds[arm], seeds)]

    @cached_property
    def arm_means(self) -> np.ndarray:
        """Mean score of each arm; NaN without a run."""
        return np.array(
            [self.means[self.rows(arm)].mean() if seeds else np.nan for arm, seeds in enumerate(self.seeds)]
        )


def covariance_over_seeds(products: np.ndarray) -> float:
    """Mean over images of the unbiased covariance over seeds, from mean products: n runs of one arm by n of another."""
    n = len(products)
    return float((np.trace(products) - products.sum() / n) / (n - 1))


@dataclass(frozen=True)
class Difference:
    """A contrast of arm means: estimate, its standard error for these test images and for new ones, and df."""

    estimate: float
    se: float
    df: float
    se_new_images: float

    def p_above(self, *, new_images: bool = False) -> float:
        """One-sided p-value of the contrast being at most 0."""
        return distributions.tail(self.estimate / (self.se_new_images if new_images else self.se), self.df)

    @property
    def half_width(self) -> float:
        """Half the width of its own 95 % interval, for it alone."""
        return distributions.quantile(0.025, self.df) * self.se


@dataclass(frozen=True)
class Noise:
    """The noise model of a sample: per arm B, ratio r, factor f, variance of one run and its degrees of freedom.

    Build it with `fit_noise`. `phi` is the pooled over-dispersion, `pooled` and `unstable` are masks over the
    arms.
    """

    sample: Sample
    rules: Rules
    b: np.ndarray
    ratio: np.ndarray
    factor: np.ndarray
    df: np.ndarray
    pooled: np.ndarray
    unstable: np.ndarray
    phi: float
    pooled_df: int
    phi_residual: float
    residual_df: int
    _pairs: dict[tuple[int, int], tuple[float, float, float]] = field(default_factory=dict, repr=False)

    @property
    def variance(self) -> np.ndarray:
        """Variance of one run's score, per arm."""
        return self.factor * self.b

    @property
    def typical_sd(self) -> float:
        """Run-to-run standard deviation: the median over arms."""
        return float(np.nanmedian(self.variance**0.5))

    @property
    def short_training(self) -> bool:
        """Whether runs differ in real quality, not only in which images they happen to miss."""
        return self.phi > SHORT_TRAINING_PHI

    @property
    def correlation(self) -> float:
        """Correlation of the scores of two arms' runs of one seed, as the two-way residual of the pool shows it."""
        return float(np.clip(1 - self.phi_residual / max(1.0, self.phi), -1, 1)) if self.residual_df else 0.0

    def common_seeds(self, a: int, b: int) -> list[int]:
        """Seeds that two arms share."""
        return sorted(set(self.sample.seeds[a]) & set(self.sample.seeds[b]))

    def pair(self, a: int, b: int) -> tuple[float, float, float]:
        """Covariance of one run's score between two arms of one seed: (estimate, largest possible, its df).

        The largest possible leaves the pair's difference with the independent per-image noise alone. Without two common
        seeds both are 0.
        """
        key = (min(a, b), max(a, b))
        if key not in self._pairs:
            self._pairs[key] = self._fit_pair(*key)
        return self._pairs[key]

    def _fit_pair(self, a: int, b: int) -> tuple[float, float, float]:
        common = self.common_seeds(a, b)
        m = len(common)
        if m < 2:
            return 0.0, 0.0, np.inf
        sample = self.sample
        rows_a, rows_b = sample.rows(a, common), sample.rows(b, common)
        own = [covariance_over_seeds(sample.products[np.ix_(rows, rows)]) for rows in (rows_a, rows_b)]
        shared = covariance_over_seeds(sample.products[np.ix_(rows_a, rows_b)])
        independent = (own[0] + own[1] - 2 * shared) / sample.images  # W
        most = (self.b[a] + self.b[b] - independent) / 2
        if self.rules.pairing == "none" or self.residual_df < 1:
            return 0.0, most, np.inf
        unpaired = self.variance[a] + self.variance[b]
        in_common = max(0.0, self.correlation) * float(self.variance[a] * self.variance[b]) ** 0.5
        target = max(independent, unpaired - 2 * in_common)
        if self.rules.pairing == "half":
            target = (target + unpaired) / 2
        seen = float(np.var(sample.means[rows_a] - sample.means[rows_b], ddof=1))
        moderated = (PAIR_DF * target + (m - 1) * seen) / (PAIR_DF + m - 1)
        chosen = max(independent, target, moderated)
        df = PAIR_DF + m - 1 if moderated >= chosen else self.residual_df
        return (unpaired - min(chosen, unpaired)) / 2, most, df

    def covariance_of_means(self, arms: Sequence[int], *, paired: bool, floor: bool = False) -> np.ndarray:
        """S over the given arms: variances and covariances of their mean scores.

        `floor` takes the independent per-image noise alone, below which no variance can lie.
        """
        one_run = self.b if floor else self.variance
        s = np.diag([one_run[arm] / self.sample.counts[arm] for arm in arms])
        if paired:
            for i, a in enumerate(arms):
                for j, b in enumerate(arms[:i]):
                    covariance = self.pair(a, b)[1 if floor else 0]
                    share = len(self.common_seeds(a, b)) / (self.sample.counts[a] * self.sample.counts[b])
                    s[i, j] = s[j, i] = share * covariance
        return s

    def one_seed_covariance(self) -> np.ndarray:
        """Covariance of one seed's scores over all arms; arms without a run count as 0."""
        arms = range(len(self.b))
        covariance = np.diag(np.nan_to_num(self.variance))
        for a in arms:
            for b in arms[:a]:
                covariance[a, b] = covariance[b, a] = self.pair(a, b)[0]
        return covariance

    def contrast(self, weights: Mapping[int, float], offset: float = 0.0) -> Difference:
        """Estimate `offset` + sum of weight times arm mean, in the shorter of the paired and the unpaired form."""
        arms = [arm for arm, weight in weights.items() if weight]
        c = np.array([weights[arm] for arm in arms])
        estimate = offset + float(c @ self.sample.arm_means[arms])
        floor = float(c @ self.covariance_of_means(arms, paired=True, floor=True) @ c)
        lacks_images = max(0.0, self._image_variance(arms, c) - floor)
        forms = []
        for paired in (False, True):
            variance = max(float(c @ self.covariance_of_means(arms, paired=paired) @ c), floor)
            df = self._satterthwaite(arms, c)
            if paired:
                used = [self.pair(a, b) for i, a in enumerate(arms) for b in arms[:i]]
                df = min([df, *(pair_df for covariance, _, pair_df in used if covariance > 0)])
            forms.append((distributions.quantile(0.025, df) * variance**0.5, variance, df))
        _, variance, df = min(forms)
        chosen = variance + lacks_images if self.rules.estimand == "population" else variance
        return Difference(estimate, chosen**0.5, df, (variance + lacks_images) ** 0.5)

    def _satterthwaite(self, arms: Sequence[int], c: np.ndarray) -> float:
        """Degrees of freedom of the unpaired variance; arms that lean on the pool are one part, not several."""
        parts = c**2 * self.variance[arms] / self.sample.counts[arms]
        if not parts.any():
            return float("inf")
        leaning = self.pooled[arms]
        own = float(np.sum(parts[~leaning] ** 2 / self.df[arms][~leaning]))
        shared = float(parts[leaning].sum() ** 2 / self.df[arms][leaning].min()) if leaning.any() else 0.0
        return float(parts.sum() ** 2 / (own + shared))

    def _image_variance(self, arms: Sequence[int], c: np.ndarray) -> float:
        """Variance over images of the contrast of per-image means, by the number of images."""
        weights = np.zeros(len(self.sample.means))
        for arm, weight in zip(arms, c, strict=True):
            weights[self.sample.rows(arm)] = weight / self.sample.counts[arm]
        n = self.sample.images
        second = weights @ self.sample.products @ weights - (weights @ self.sample.means) ** 2
        return float(max(0.0, second) / (n - 1))


def fit_noise(sample: Sample, rules: Rules, lenders: np.ndarray | None = None) -> Noise | None:
    """Fit the noise model; None where no arm has two runs.

    Arms of one run lend the median B of the others; an arm without a run has NaN. Only the arms that are `lenders`, a
    mask, inform the pool; by default all.
    """
    d = np.maximum(0, sample.counts - 1)
    if not d.any():
        return None
    b = np.full(len(d), np.nan)
    scatter = np.zeros(len(d))
    for arm in np.flatnonzero(d).tolist():
        rows = sample.rows(arm)
        products = sample.products[np.ix_(rows, rows)]
        spread = covariance_over_seeds(products)
        # Equal runs leave the rounding of the products, which is not noise.
        b[arm] = spread / sample.images if spread > ROUNDING * np.trace(products) else 0.0
        scatter[arm] = np.var(sample.means[rows], ddof=1)
    # Runs that differ on no image have no independent part to measure by: they inform nothing but themselves.
    d = np.where(b > 0, d, 0)
    ratio = np.divide(scatter, b, out=np.zeros_like(scatter), where=b > 0)
    b = np.where(sample.counts == 1, np.nanmedian(b), b)
    if not d.any():
        return None
    lends = np.where(_outliers(ratio, d), 0, d)
    if lenders is not None and (lends * lenders).any():
        lends = lends * lenders
    total, weighted = int(lends.sum()), float(lends @ ratio)
    phi = weighted / total
    prior = (0.0, 0.0)
    believable = fdtrc(total, CONVERGED_DF, phi / CONVERGED_PHI) >= CONVERGED_P
    if rules.phi_prior == "converged" and believable:
        prior = (CONVERGED_DF, CONVERGED_DF * CONVERGED_PHI)
    others = total - lends + prior[0]
    pool = np.maximum(
        1.0, np.divide(weighted - lends * ratio + prior[1], others, out=np.ones_like(b), where=others > 0)
    )
    above = (ratio > pool) & (d > 0)
    p = np.where(others > 0, fdtrc(np.maximum(d, 1), np.maximum(others, 1), ratio / pool), 1.0)
    unstable = above & (p < UNSTABLE_P)
    # The pool counts as so many runs of the arm's own; the less the arm looks like the pool, the fewer.
    lean = np.where(unstable, 0.0, PRIOR_DF * np.minimum(1.0, p / TRUST_P))
    moderated = (lean * pool + d * ratio) / np.maximum(lean + d, 1)
    factor = np.where(above, moderated, pool)
    df = np.where(above, np.minimum(lean + d, total + prior[0]), others)
    alone = others == 0  # the only arm with two runs: its own scatter, but not under the floor
    factor, df = np.where(alone, np.maximum(1.0, ratio), factor), np.where(alone, d, df)
    phi_residual, residual_df = _two_way(sample, np.where(lends > 0, b, 0.0))
    return Noise(sample, rules, b, ratio, factor, df, ~above & ~alone, unstable, phi, total, phi_residual, residual_df)


def _outliers(ratio: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Arms that scatter so much more than all others that they say nothing of them: one run that collapsed is enough.

    Rosner's many-outlier procedure (1983) on the ratios, with an error of UNSTABLE_P over all arms: the most arms of
    which even the least stands out from the rest, so that several cannot hide behind each other.
    """
    found = np.zeros(len(d), dtype=bool)
    order = [arm for arm in np.argsort(-ratio, kind="stable") if d[arm]]
    for count in range(len(order) // MOST_OUTLIERS, 0, -1):
        least, rest = order[count - 1], order[count:]
        usual = max(1.0, float(d[rest] @ ratio[rest]) / float(d[rest].sum()))
        if fdtrc(d[least], d[rest].sum(), ratio[least] / usual) < UNSTABLE_P / len(order):
            found[order[:count]] = True
            break
    return found


def _two_way(sample: Sample, b: np.ndarray) -> tuple[float, int]:
    """Over-dispersion left after arm and seed effects, over seeds that two arms share, and its degrees of freedom."""
    runs = [
        (arm, seed, mean / b[arm] ** 0.5)
        for arm, seeds in enumerate(sample.seeds)
        for seed, mean in zip(seeds, sample.means[sample.rows(arm)], strict=True)
        if b[arm] > 0
    ]
    seen = [seed for _, seed, _ in runs]
    runs = [run for run in runs if seen.count(run[1]) > 1]
    if not runs:
        return 1.0, 0
    arms, seeds = sorted({run[0] for run in runs}), sorted({run[1] for run in runs})
    design = np.zeros((len(runs), len(arms) + len(seeds)))
    for line, (arm, seed, _) in enumerate(runs):
        design[line, arms.index(arm)] = design[line, len(arms) + seeds.index(seed)] = 1
    y = np.array([score for _, _, score in runs])
    solution, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    df = len(runs) - int(rank)
    return (float(np.sum((y - design @ solution) ** 2) / df) if df else 1.0), df


def kappa(classes: int) -> float:
    """How far per-image error rates lie from all equal: mean p (1 - p) is kappa / 2 of the error.

    From the published scatter of CIFAR-10 and ImageNet runs; the middle value is interpolated.
    """
    if classes < 50:
        return 0.75
    return 0.55 if classes < 500 else 0.44


def assumed_phi(epochs: int) -> float:
    """Over-dispersion before any run: 1.15 for 30 or more epochs that decay to zero, 2 from 10 on (a guess), else 6."""
    if epochs >= 30:
        return 1.15
    return 2.0 if epochs >= 10 else 6.0

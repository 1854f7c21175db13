"""The noise model as its specification says it word by word: loops over invented runs and their images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from statistics import fmean, median

import numpy as np
import statsmodels.api as sm
from scatter import Runs
from scipy import stats

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
        # What arm and seed leave unexplained of the pool is what is not in common; with equal variances sigma2 that
        # leaves (B_a + B_b) phi_res of a difference.
        rho = max(0.0, 1 - self.phi_residual / max(1.0, self.phi))
        t = max(w, apart - 2 * rho * (self.sigma2[a] * self.sigma2[b]) ** 0.5)
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

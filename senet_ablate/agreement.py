"""How far a study agrees with the paper in size and in order; neither is a verdict by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from senet_ablate import student
from senet_ablate.contrasts import Contrast
from senet_ablate.evidence import Evidence
from senet_ablate.judge import TableJudge

DRAWS = 10_000


@dataclass(frozen=True)
class RankAgreement:
    """Kendall's tau-b with the paper's column, its 90 % interval, and the noise ceiling.

    The ceiling is the tau expected of runs as noisy as these if the paper's figures were the exact truth.
    """

    tau: float
    low: float
    high: float
    ceiling: float
    arms: int


@dataclass(frozen=True)
class Share:
    """A difference as a share of the SE gain, with Fieller's 95 % interval, beside the paper's share."""

    share: float
    low: float
    high: float
    paper: float


def _tau(draws: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Tau-b of each row of `draws` with `fixed`."""
    left, right = np.triu_indices(len(fixed), 1)
    theirs = np.sign(fixed[left] - fixed[right])
    ours = np.sign(draws[:, left] - draws[:, right])
    ties = np.sqrt(np.count_nonzero(theirs) * np.count_nonzero(ours, axis=1))
    return np.divide(ours @ theirs, ties, out=np.zeros(len(draws)), where=ties > 0)


def rank_agreement(evidence: Evidence, printed: np.ndarray) -> RankAgreement | None:
    """Compare the order of mean errors with the paper's; `printed` has NaN for arms that it does not print.

    None where fewer than two printed arms have runs, or no arm has two seeds.
    """
    from scipy import stats  # half a second to import

    noise = evidence.noise
    arms = np.flatnonzero((evidence.counts > 0) & ~np.isnan(printed)).tolist()
    if noise is None or len(arms) < 2:
        return None
    rng = np.random.default_rng(20170905)
    spread = np.linalg.cholesky(noise.covariance_of_means(arms, paired=False) + 1e-12 * np.eye(len(arms)))
    noise_draws = rng.standard_normal((DRAWS, len(arms))) @ spread.T
    noise_draws /= np.sqrt(rng.chisquare(noise.pooled_df, (DRAWS, 1)) / noise.pooled_df)
    means, paper = evidence.sample.arm_means[arms], printed[arms]
    ours = _tau(means + noise_draws, paper)
    return RankAgreement(
        tau=float(stats.kendalltau(means, paper).statistic),
        low=float(np.quantile(ours, 0.05)),
        high=float(np.quantile(ours, 0.95)),
        ceiling=float(_tau(paper + noise_draws, paper).mean()),
        arms=len(arms),
    )


def share_of_gain(judge: TableJudge, difference: Contrast) -> Share | None:
    """A difference as a share of the SE gain; None unless the gain is resolved."""
    evidence, gain = judge.evidence, judge.contrasts.gain
    if evidence.noise is None or judge.sure(gain) <= 0:
        return None
    d, g = evidence.difference(difference), evidence.difference(gain)
    both = evidence.difference(difference + gain)
    if d is None or g is None or both is None:
        return None
    printed = judge.paper_means
    df = min(d.df, g.df)
    low, high = fieller(d.estimate, g.estimate, d.se**2, g.se**2, (both.se**2 - d.se**2 - g.se**2) / 2, df)
    return Share(d.estimate / g.estimate, low, high, difference.at(printed) / gain.at(printed))


def fieller(
    over: float, under: float, var_over: float, var_under: float, covariance: float, df: float
) -> tuple[float, float]:
    """Fieller's 95 % interval of a ratio whose denominator is clear of 0 (else the interval is the whole line)."""
    t2 = student.quantile(0.025, df) ** 2
    a = under**2 - t2 * var_under
    b = over * under - t2 * covariance
    c = over**2 - t2 * var_over
    root = b**2 - a * c
    if a <= 0 or root < 0:
        return -np.inf, np.inf
    return (b - root**0.5) / a, (b + root**0.5) / a

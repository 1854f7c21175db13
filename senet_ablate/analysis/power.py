"""What a number of seeds can decide: noise before any run, minimum detectable effects, seeds needed, power."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from senet_ablate.analysis import distributions
from senet_ablate.analysis.contrasts import Contrast, TableContrasts
from senet_ablate.analysis.evidence import Evidence
from senet_ablate.analysis.noise import assumed_phi, kappa
from senet_ablate.errors import UserError
from senet_ablate.spec.ablation import Ablation, Arm, arms
from senet_ablate.spec.claims import PLAIN, Claim, Fewer, NoDifference, Rules
from senet_ablate.spec.protocol import Dataset, Protocol

POWER = 0.8
MOST_SEEDS = 1000


GUESSES: dict[Dataset, tuple[float, int]] = {
    "digits": (3.0, 768),
    "cifar10": (6.0, 10_000),
    "cifar100": (26.0, 10_000),
    "fashion-mnist": (6.0, 10_000),
}
"""Test error in percent and test images of the data sets that are the same everywhere, before any run.

Of a folder nothing is guessed: its images and runs must tell."""


def assumed_sd(err: float, images: int, classes: int, epochs: int) -> float:
    """Standard deviation in points of one run's error (percent) on `images` test images, before any run."""
    return 100 * math.sqrt(assumed_phi(epochs) * kappa(classes) * (err / 100) / (2 * images))


def noncentrality(level: float, df: float, power: float = POWER) -> float:
    """How many standard errors an effect must have to be found with `power` by a one-sided test at `level`."""
    return distributions.quantile(level, df) + distributions.quantile(1 - power, df)


def detectable(weights: np.ndarray, covariance: np.ndarray, level: float, df: float) -> float:
    """Smallest value of a contrast that is found with 80 % power, given the covariance of the arms' means."""
    return noncentrality(level, df) * math.sqrt(float(weights @ covariance @ weights))


def seeds_needed(
    weights: np.ndarray, effect: float, one_seed: np.ndarray, level: float, df: Callable[[int], float]
) -> int | None:
    """Equal seeds per arm that find a contrast of size `effect` with 80 % power; None beyond 1,000 or if it is not > 0.

    `one_seed` is the covariance of one seed's scores over arms, `df(n)` the pooled degrees of freedom at n seeds.
    """
    variance = float(weights @ one_seed @ weights)

    def found(n: int) -> bool:
        return noncentrality(level, df(n)) * math.sqrt(variance / n) <= effect

    if effect <= 0 or not found(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high


def most_seeds(effects: Iterable[tuple[float, Contrast]], one_seed: np.ndarray, level: float, arms: int) -> int | None:
    """Equal seeds of so many arms that find each of some contrasts with its effect; None where one is not found."""
    counts = [
        seeds_needed(contrast.weights, effect, one_seed, level, lambda n: max(1, arms * (n - 1)))
        for effect, contrast in effects
    ]
    known = [count for count in counts if count is not None]
    return max(known) if len(known) == len(counts) else None


NO_TEST_SIZE = (
    "what these runs can decide depends on the number of test images, which only the folder tells: name it with --data "
    "FOLDER (make: DATA=FOLDER)"
)

PAPER_GAIN = 1.02
"""Points of top-1 error that SE gains for ResNet-50 on ImageNet: 23.30 - 22.28 (Table 10)."""

DRAWS = 2_000
LEAST_PHI_DF = 10
"""Pooled degrees of freedom from which the measured over-dispersion replaces the assumed one."""

IMAGE_SD = 7.0
"""Spread in points over images of the difference of two arms' error probabilities (5 to 9 were measured)."""


@dataclass(frozen=True)
class Assumptions:
    """What a plan takes for granted: the scatter of one run in points, the correlation of a seed's runs, why."""

    sd: float
    correlation: float
    images: int
    basis: str


def assume(
    protocol: Protocol, classes: int, records: Evidence | None, err: float | None, images: int | None
) -> Assumptions:
    """Noise from the records as soon as two arms have two seeds, else from formulas.

    `err` is the expected error in percent and `images` the number of test images, where they are known.

    Raises:
        UserError: neither runs nor images tell how many test images a folder has.
    """
    noise = records.noise if records else None
    if records is not None and noise is not None and int((records.counts > 1).sum()) > 1:
        known = noise.b[noise.b > 0]
        enough = noise.pooled_df >= LEAST_PHI_DF
        phi = max(1.0, noise.phi) if enough else assumed_phi(protocol.recipe.epochs)
        covariance = noise.one_seed_covariance()
        places = np.flatnonzero(records.counts > 1)
        off = [covariance[a, b] / noise.variance[[a, b]].prod() ** 0.5 for a in places for b in places[places < a]]
        whence = f"over-dispersion {phi:.1f} {'measured' if enough else 'assumed'}"
        return Assumptions(
            float(np.median(known) * phi) ** 0.5,
            max(0.0, float(np.mean(off))),
            records.sample.images,
            f"from {len(records.sample.means)} finished runs ({whence})",
        )
    guess = GUESSES.get(protocol.data.dataset)
    guessed, usual = guess or (100 * (1 - 1 / classes), None)
    count, error = images or usual, err or guessed
    if count is None:
        raise UserError(NO_TEST_SIZE)
    said = f"from formulas, for an error of {error:g} % on {count:,} test images"
    if not err:
        said += f" ({'a guess' if guess else 'the error of guessing'}; set another with --error)"
    return Assumptions(assumed_sd(error, count, classes, protocol.recipe.epochs), 0.0, count, said)


@dataclass(frozen=True)
class ClaimPower:
    """One finding before the runs: minimum detectable effect, power (the chance of "reproduced"), n for 80 %.

    `smallest` and `paper` are of its hardest difference, in points; `seeds` are equal seeds of each arm, None if no
    number up to 1,000 would do. The powers are for the paper's effects and for half of them.
    """

    ablation: Ablation
    claim: Claim
    smallest: float
    paper: float
    power: float
    power_at_half: float
    seeds: int | None
    arms: tuple[Arm, ...]


class TestedClaim(NamedTuple):
    """A finding as arithmetic: contrasts that must be above 0, the level of each test, assumed mean errors."""

    ablation: Ablation
    claim: Claim
    wanted: tuple[Contrast, ...]
    level: float
    means: np.ndarray

    @property
    def arms(self) -> list[int]:
        """Places of the arms that it needs."""
        return sorted({arm for contrast in self.wanted for arm in contrast.arms})


class PowerAnalysis:
    """Power for all findings of some tables as a function of the seeds of each arm.

    Args:
        ablations: the tables with their claims.
        rules: by which they will be judged.
        assumptions: the noise.
        gain: the SE gain in points that is assumed; by default the paper's.
        only: ids of the findings to look at; by default all.
    """

    def __init__(
        self,
        ablations: Sequence[Ablation],
        rules: Rules,
        assumptions: Assumptions,
        gain: float | None = None,
        only: Collection[str] | None = None,
    ) -> None:
        self.assumptions, self.rules = assumptions, rules
        self.arms = tuple(arms(ablations))
        self._ablations = tuple(ablations)
        self._tests: list[TestedClaim] = []
        family = [(ablation, claim) for ablation in ablations for claim in ablation.primary]
        for ablation, claim in family:
            if only is not None and claim.id not in only:
                continue
            contrasts = TableContrasts(ablation, self.arms, rules)
            measured = [atom for atom in claim.simple_atoms() if not isinstance(atom, (Fewer, NoDifference))]
            wanted = tuple(contrast for atom in measured for contrast in contrasts.tested(atom).wanted)
            level = rules.alpha_per_look / len(ablation.primary if rules.family == "table" else family)
            test = TestedClaim(ablation, claim, wanted, level, self._printed(ablation, contrasts, gain))
            if wanted and not np.isnan(test.means[test.arms]).any():
                self._tests.append(test)
        # All contrasts laid out for one product.
        laid_out = [(contrast, test) for test in self._tests for contrast in test.wanted]
        self._weights = np.array([contrast.weights for contrast, _ in laid_out])
        self._offsets = np.array([contrast.offset for contrast, _ in laid_out])
        self._effects = np.array([contrast.at(test.means) for contrast, test in laid_out])
        self._levels = np.array([test.level for _, test in laid_out])
        self._starts = np.cumsum([0, *(len(test.wanted) for test in self._tests[:-1])])
        rng = np.random.default_rng(20170905)
        self._normals = rng.standard_normal((DRAWS, len(self.arms)))
        self._scale = rng.standard_normal((DRAWS, 1))

    def _printed(self, ablation: Ablation, contrasts: TableContrasts, gain: float | None) -> np.ndarray:
        means = contrasts.printed()
        reference = means[contrasts.arm(ablation.reference)]
        scale = 1.0 if gain is None else gain / contrasts.gain.at(means)
        return (means - reference) * scale

    def covariance(self, seeds: Mapping[Arm, int]) -> np.ndarray:
        """Covariance of the arms' means: seeds in common share the assumed correlation."""
        n = np.array([seeds[arm] for arm in self.arms], float)
        s = self.assumptions.correlation * np.minimum.outer(n, n) / np.outer(n, n)
        np.fill_diagonal(s, 1 / n)
        return self.assumptions.sd**2 * s

    def df(self, seeds: Mapping[Arm, int]) -> float:
        """Pooled degrees of freedom."""
        return max(1.0, float(sum(n - 1 for n in seeds.values())))

    def powers(self, seeds: Mapping[Arm, int], scales: Sequence[float] = (1.0, 0.5)) -> list[np.ndarray]:
        """Power for each finding if `scale` times the assumed effects are true, for each scale."""
        if not self._tests:
            return [np.zeros(0) for _ in scales]
        s, df = self.covariance(seeds), self.df(seeds)
        # The root of a chi-square over its df, by Wilson and Hilferty: the same draws serve every df.
        u = np.maximum(1e-3, 1 - 2 / (9 * df) + self._scale * (2 / (9 * df)) ** 0.5) ** 1.5
        noise = self._normals @ (self._weights @ np.linalg.cholesky(s)).T
        quantiles = np.array([distributions.quantile(level, df) for level in self._levels])
        bar = u * (quantiles * np.sqrt(np.einsum("ij,jk,ik->i", self._weights, s, self._weights))) - noise
        found = []
        for scale in scales:
            effects = scale * self._effects + (1 - scale) * self._offsets
            found.append(np.logical_and.reduceat(effects > bar, self._starts, axis=1).mean(axis=0))
        return found

    def expected(self, seeds: Mapping[Arm, int]) -> float:
        """Expected number of findings reproduced, averaged over the assumed effects and half of them."""
        return float(np.mean([powers.sum() for powers in self.powers(seeds)]))

    @property
    def finding_arms(self) -> list[tuple[Arm, ...]]:
        """The arms that each finding needs."""
        return [tuple(self.arms[place] for place in test.arms) for test in self._tests]

    def claims(self, seeds: Mapping[Arm, int]) -> list[ClaimPower]:
        """All findings with the given seeds."""
        s, df = self.covariance(seeds), self.df(seeds)
        full, half = self.powers(seeds)
        one_seed = self.assumptions.sd**2 * (
            (1 - self.assumptions.correlation) * np.eye(len(self.arms)) + self.assumptions.correlation
        )
        found = []
        for test, arms_needed, power, power_at_half in zip(self._tests, self.finding_arms, full, half, strict=True):
            effects = [(contrast.at(test.means), contrast) for contrast in test.wanted]
            sizes = [(detectable(each.weights, s, test.level, df), effect) for effect, each in effects]
            smallest, paper = min(sizes, key=lambda pair: pair[1] / pair[0])
            needed = most_seeds(effects, one_seed, test.level, len(self.arms))
            powers = float(power), float(power_at_half)
            found.append(ClaimPower(test.ablation, test.claim, smallest, paper, *powers, needed, arms_needed))
        return found

    def detectable_gain(self, seeds: Mapping[Arm, int]) -> float | None:
        """Smallest SE gain in points that is found with 80 % power; None without a finding and the two arms of it."""
        table = next((table for table in self._ablations if table.primary), None)
        if table is None or not {table.arm(PLAIN), table.arm(table.reference)} <= set(self.arms):
            return None
        gain = TableContrasts(table, self.arms, self.rules).gain
        level = self.rules.alpha_per_look / len(table.primary)
        return detectable(gain.weights, self.covariance(seeds), level, self.df(seeds))

    @property
    def gain(self) -> float:
        """The assumed SE gain in points."""
        first = self._tests[0]
        return TableContrasts(first.ablation, self.arms, self.rules).gain.at(first.means)

    @property
    def floor(self) -> float:
        """Standard error in points below which no number of seeds brings a difference for new images."""
        return IMAGE_SD / self.assumptions.images**0.5

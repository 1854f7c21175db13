"""Invented studies whose truth is known: every test image has an error rate, every run draws its errors from them.

They go through the same code as real records, so they show whether the printed confidence is deserved. An arm's error
is reached exactly, on these images and on average over runs; runs scatter by independent errors per image and by a
shift of the whole run, which arms of one seed may share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from senet_ablate.noise import Sample
from senet_ablate.spec.ablation import Arm

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


@dataclass(frozen=True)
class World:
    """A truth and its noise: expected errors in percent by arm, and how runs scatter around them.

    `sd` is the standard deviation in points of one run, `phi` its over-dispersion (1: independent errors alone),
    `correlation` that of the run shifts of one seed, `shared` the share of images whose luck arms of one seed share.
    `wild` multiplies the standard deviation of single arms. `taste` is the spread (in logits) with which arms find
    different images hard. With `pool` > 1 each study sees its own images, drawn from so many times as many, on all of
    which the errors hold.
    """

    errors: Mapping[Arm, float]
    images: int = 10_000
    sd: float = 0.25
    phi: float = 1.3
    correlation: float = 0.0
    shared: float = 0.0
    wild: Mapping[Arm, float] | None = None
    taste: float = 0.0
    pool: int = 1


class Simulator:
    """Draws samples of runs from a world on one set of test images.

    Args:
        world: the truth.
        rng: decides the images; runs are drawn with a generator of their own.
    """

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.world = world
        arms = list(world.errors)
        spread = (world.sd / 100) ** 2 * world.images / world.phi  # mean p (1 - p)
        average = float(np.mean(list(world.errors.values()))) / 100
        if not 0 < spread < average * (1 - average):
            raise ValueError(f"sd = {world.sd} on {world.images} images does not fit an error of {100 * average:.3g} %")
        total = world.pool * world.images
        z = rng.standard_normal(total)  # standard difficulty of each image
        width = brentq(lambda w: _spread(z, w, average) - spread, 1e-3, 200.0)
        difficulty = width * z
        scale = (world.phi - 1) / (world.images * spread)
        self.shift_sd = np.empty(len(arms))
        self.logits = np.empty((len(arms), total), np.float32)
        for place, arm in enumerate(arms):
            wild = (world.wild or {}).get(arm, 1.0)
            # The whole variance grows by wild^2, but the independent part of it cannot.
            extra = scale + (wild**2 - 1) * world.phi / (world.images * spread)
            if extra < 0:
                raise ValueError(
                    f"wild = {wild} of {arm.slug}: the errors of images alone scatter more; use at least 1"
                )
            self.shift_sd[place] = extra**0.5
            logits = difficulty + world.taste * rng.standard_normal(total)
            logits += _level(logits, self.shift_sd[place], world.errors[arm] / 100)
            self.logits[place] = logits

    def draw(self, seeds: Sequence[int], rng: np.random.Generator) -> Sample:
        """Draw the runs of all arms, the first `seeds[arm]` seeds of each."""
        world, scores = self.world, []
        most = max(seeds)
        common_shift = rng.standard_normal(most)
        common_luck = rng.random((most, world.images), np.float32) if world.shared else None
        luck_is_common = rng.random(world.images) < world.shared
        total = world.pool * world.images
        seen = np.arange(total) if world.pool == 1 else rng.choice(total, world.images, replace=False)
        for place, count in enumerate(seeds):
            own = rng.standard_normal(count)
            mixed = world.correlation**0.5 * common_shift[:count] + (1 - world.correlation) ** 0.5 * own
            chance = expit(self.logits[place, seen] + (self.shift_sd[place] * mixed[:, None]).astype(np.float32))
            luck = rng.random(chance.shape, np.float32)
            if common_luck is not None:
                luck = np.where(luck_is_common, common_luck[:count], luck)
            scores.append({seed: 100.0 * (luck[seed] < chance[seed]) for seed in range(count)})
        return Sample.of(scores)


def _level(logits: np.ndarray, shift_sd: float, error: float) -> float:
    """The constant that brings the mean error over images and run shifts to `error`."""

    def miss(level: float) -> float:
        means = [expit(logits + level + shift_sd * node).mean() for node in NODES]
        return float(WEIGHTS @ means) - error

    return float(brentq(miss, -500.0, 500.0, xtol=1e-9))


def _spread(z: np.ndarray, width: float, error: float) -> float:
    """Mean p (1 - p) where the difficulty has the given width and the mean error is right."""
    p = expit(width * z + _level(width * z, 0.0, error))
    return float(np.mean(p * (1 - p)))

"""The noise that a plan assumes: from formulas before anything runs, then from records as far as they go."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from helpers import PLAIN, PROTOCOL, R4, R16

from senet_ablate.analysis.evidence import Evidence
from senet_ablate.analysis.noise import Sample
from senet_ablate.analysis.power import assume
from senet_ablate.spec.ablation import Arm
from senet_ablate.spec.claims import Rules

# --- formulas ---


@pytest.mark.parametrize(
    ("dataset", "classes", "epochs", "err", "images", "expected"),
    [
        # Section 7: SD = 100 sqrt(phi kappa err / (2 N)); kappa 0.75, 0.55, 0.44 and phi 1.15, 2, 6.
        ("cifar10", 10, 30, 5.5, 10_000, 0.15),
        ("cifar100", 100, 60, 22.0, 10_000, 0.26),
        ("folder", 1000, 270, 23.0, 50_000, 0.11),
        ("folder", 200, 100, 38.0, 10_000, 0.35),
        ("cifar10", 10, 10, 5.5, 10_000, 0.15 * (2 / 1.15) ** 0.5),
        ("cifar10", 10, 9, 5.5, 10_000, 0.15 * (6 / 1.15) ** 0.5),
    ],
)
def test_before_any_run_noise_follows_from_the_expected_error(
    dataset: str, classes: int, epochs: int, err: float, images: int, expected: float
) -> None:
    protocol = PROTOCOL.model_copy(
        update={
            "data": PROTOCOL.data.model_copy(update={"dataset": dataset}),
            "recipe": PROTOCOL.recipe.model_copy(update={"epochs": epochs}),
        }
    )
    found = assume(protocol, classes, None, err, images)
    assert found.sd == pytest.approx(expected, rel=0.04)  # printed to two places
    assert (found.correlation, found.images) == (0.0, images)
    assert "from formulas" in found.basis
    assert "guess" not in found.basis


def test_an_error_that_nobody_said_is_called_a_guess() -> None:
    found = assume(PROTOCOL, 10, None, None, None)
    # The digits: 3 % on the 768 test images; two epochs are short training.
    assert found.sd == pytest.approx(100 * math.sqrt(6 * 0.75 * 0.03 / (2 * 768)))
    assert "3 % on 768 test images (a guess; set another with --error)" in found.basis


# --- records ---


ARMS = (Arm(variant=R4), Arm(variant=R16), Arm(variant=PLAIN))
IMAGES = 400


def wrong(rng: np.random.Generator, share: float) -> np.ndarray:
    return 100.0 * (rng.random(IMAGES) < share)


def evidence(scores: Sequence[dict[int, np.ndarray]], rules: Rules | None = None) -> Evidence:
    return Evidence(ARMS[: len(scores)], Sample.of(scores), rules or Rules())


def independent_part(runs: Sequence[np.ndarray]) -> float:
    """B: the mean over images of the unbiased variance over runs, by the number of images."""
    return float(np.var(np.stack(runs), axis=0, ddof=1).mean() / IMAGES)


def test_two_arms_of_two_seeds_give_the_independent_part_and_the_assumed_overdispersion() -> None:
    rng = np.random.default_rng(1)
    runs = [[wrong(rng, share) for _ in range(2)] for share in (0.1, 0.3)]
    found = assume(PROTOCOL, 10, evidence([dict(enumerate(each)) for each in runs]), 5.0, None)
    # 0/1 scores of two runs: the share of images on which they differ, by 2 N.
    b = [1e4 * np.mean(one != other) / (2 * IMAGES) for one, other in runs]
    assert b == pytest.approx([independent_part(each) for each in runs])
    assert found.sd == pytest.approx(math.sqrt(6 * np.median(b)))
    assert found.images == IMAGES
    assert "from 4 finished runs (over-dispersion 6.0 assumed)" in found.basis


@pytest.mark.parametrize("counts", [(9, 1, 1), (2, 1, 1), (1, 1, 1)])
def test_records_without_two_arms_of_two_seeds_leave_the_formulas(counts: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    records = evidence([{seed: wrong(rng, 0.2) for seed in range(count)} for count in counts])
    assert assume(PROTOCOL, 10, records, 5.0, None) == assume(PROTOCOL, 10, None, 5.0, None)


@pytest.mark.parametrize(("counts", "measured"), [((6, 6), True), ((6, 5), False), ((11, 2), True), ((9, 2), False)])
def test_overdispersion_is_measured_from_ten_pooled_degrees_of_freedom_on(
    counts: tuple[int, ...], measured: bool
) -> None:
    rng = np.random.default_rng(3)
    runs = [[wrong(rng, 0.2 + 0.1 * rng.random()) for _ in range(count)] for count in counts]
    found = assume(PROTOCOL, 10, evidence([dict(enumerate(each)) for each in runs]), None, None)
    b = [independent_part(each) for each in runs]
    scatter = [np.var([run.mean() for run in each], ddof=1) for each in runs]
    weights = [count - 1 for count in counts]
    phi = np.average(np.divide(scatter, b), weights=weights)
    assert phi > 1
    assert found.sd == pytest.approx(math.sqrt(np.median(b) * (phi if measured else 6.0)))
    assert ("measured" in found.basis) is measured


def test_a_measured_overdispersion_below_one_counts_as_one() -> None:
    rng = np.random.default_rng(4)
    runs = [[rng.permutation(100.0 * (np.arange(IMAGES) < 80)) for _ in range(6)] for _ in range(2)]
    found = assume(PROTOCOL, 10, evidence([dict(enumerate(each)) for each in runs]), None, None)
    assert found.sd == pytest.approx(math.sqrt(np.median([independent_part(each) for each in runs])))


def test_runs_of_one_seed_that_go_together_are_taken_as_correlated_as_the_rules_allow() -> None:
    rng = np.random.default_rng(5)
    shift = rng.uniform(-0.15, 0.15, 8)
    scores = [{seed: wrong(rng, 0.3 + shift[seed]) for seed in range(8)} for _ in range(2)]
    found = {
        pairing: assume(PROTOCOL, 10, evidence(scores, Rules(pairing=pairing)), None, None).correlation
        for pairing in ("none", "half", "full")
    }
    assert found["none"] == 0.0
    assert 0.2 < found["half"] < found["full"] < 1.0

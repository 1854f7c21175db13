"""Under test: what a number of seeds can decide, against statsmodels, the noncentral t and the design's own figures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower
from studies import assumed

from senet_ablate.analysis.noise import assumed_phi, kappa
from senet_ablate.analysis.power import PowerAnalysis, assumed_sd, detectable, noncentrality, seeds_needed
from senet_ablate.spec.claims import Rules
from senet_ablate.spec.loading import load_ablations

TABLES = load_ablations(Path(__file__).parents[2] / "ablations")
PAIR = np.array([1.0, -1.0])
ARMS = 17


def two_groups(n: int) -> float:
    return 2 * (n - 1)


# --- before any run ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("err", "images", "classes", "sd"),
    [
        (5.5, 10_000, 10, 0.15),  # CIFAR-10
        (22, 10_000, 100, 0.26),  # CIFAR-100
        (38, 10_000, 200, 0.35),  # Tiny-ImageNet
        (10, 3_925, 10, 0.33),  # Imagenette
        (23, 50_000, 1000, 0.11),  # ImageNet, ResNet-50
    ],
)
def test_the_assumed_scatter_of_a_long_training_is_what_the_design_gives_for_known_data_sets(err, images, classes, sd):
    assert round(assumed_sd(err, images, classes, epochs=90), 2) == sd
    assert round(assumed_sd(err, images, classes, epochs=30), 2) == sd


def test_scatter_goes_with_the_root_of_error_over_images_and_of_over_dispersion():
    one = assumed_sd(8.0, 5000, 10, 100)
    assert assumed_sd(32.0, 5000, 10, 100) == pytest.approx(2 * one)
    assert assumed_sd(8.0, 20_000, 10, 100) == pytest.approx(one / 2)
    assert assumed_sd(8.0, 5000, 10, 5) == pytest.approx(one * (6 / 1.15) ** 0.5)


def test_short_training_scatters_more_from_these_numbers_of_epochs():
    assert [assumed_phi(epochs) for epochs in (1, 9, 10, 29, 30, 300)] == [6.0, 6.0, 2.0, 2.0, 1.15, 1.15]


def test_more_classes_leave_less_scatter_from_these_numbers_of_classes():
    assert [kappa(classes) for classes in (2, 10, 49, 50, 100, 200, 499, 500, 1000)] == [0.75] * 3 + [0.55] * 4 + [
        0.44,
        0.44,
    ]


# --- the smallest effect and the seeds for one ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seeds", "multiples"),
    [(3, (2.1, 2.4, 2.5)), (5, (1.6, 1.8, 1.9)), (10, (1.1, 1.3, 1.3)), (20, (0.8, 0.9, 0.9))],
)
def test_the_smallest_detectable_effect_is_the_designs_in_standard_deviations_for_1_2_and_3_findings(seeds, multiples):
    for findings, multiple in enumerate(multiples, 1):
        found = detectable(PAIR, np.eye(2) / seeds, 0.05 / findings, ARMS * (seeds - 1))
        # the design prints one digit; half a unit of it, and 0.01 for the simulation it came from
        assert found == pytest.approx(multiple, abs=0.06)


@pytest.mark.parametrize("level", [0.05, 0.0125])
@pytest.mark.parametrize("df", [8, 34, 200])
def test_the_smallest_detectable_effect_is_found_in_four_of_five_cases_by_the_noncentral_t(df, level):
    covariance = np.array([[0.04, 0.01, 0.0], [0.01, 0.09, 0.0], [0.0, 0.0, 0.25]])
    weights = np.array([1.0, -1.0, 0.5])
    effect = detectable(weights, covariance, level, df)
    se = (0.04 + 0.09 - 2 * 0.01 + 0.25 * 0.25) ** 0.5
    assert effect / se == pytest.approx(noncentrality(level, df))
    power = stats.nct.sf(stats.t.isf(level, df), df, effect / se)
    assert power == pytest.approx(0.8, abs=0.02)


def test_the_noncentrality_of_a_normal_test_is_the_sum_of_two_quantiles():
    assert noncentrality(0.05, math.inf) == pytest.approx(1.6449 + 0.8416, abs=1e-4)
    assert noncentrality(0.025, math.inf, power=0.9) == pytest.approx(1.96 + 1.2816, abs=1e-4)


@pytest.mark.parametrize("effect", [0.25, 0.5, 0.9, 1.4, 2.2])
@pytest.mark.parametrize("level", [0.05, 0.05 / 3])
def test_seeds_of_two_arms_on_their_own_are_statsmodels_within_one(effect, level):
    exact = TTestIndPower().solve_power(effect_size=effect, alpha=level, power=0.8, ratio=1.0, alternative="larger")
    sd = 0.3
    ours = seeds_needed(PAIR, effect * sd, sd**2 * np.eye(2), level, two_groups)
    assert ours is not None
    assert abs(ours - math.ceil(exact)) <= 1


@pytest.mark.parametrize("effect", [0.12, 0.3, 0.7, 2.0])
def test_the_seeds_needed_suffice_and_one_less_does_not(effect):
    one_seed = np.array([[0.09, 0.03], [0.03, 0.16]])
    needed = seeds_needed(PAIR, effect, one_seed, 0.025, lambda n: ARMS * (n - 1))
    assert needed is not None

    def smallest(n: int) -> float:
        df = ARMS * (n - 1)
        return (stats.t.isf(0.025, df) + stats.t.isf(0.2, df)) * ((0.09 + 0.16 - 0.06) / n) ** 0.5

    assert smallest(needed) <= effect
    assert needed == 2 or smallest(needed - 1) > effect


def test_one_seed_never_suffices():
    assert seeds_needed(PAIR, 1e6, np.eye(2), 0.05, lambda n: max(1, n - 1)) == 2


def test_no_number_of_seeds_is_given_where_none_up_to_a_thousand_would_do():
    def needed(effect: float) -> int | None:
        return seeds_needed(PAIR, effect, np.eye(2), 0.05, two_groups)

    at_most = (stats.t.isf(0.05, 1998) + stats.t.isf(0.2, 1998)) * (2 / 1000) ** 0.5
    assert needed(at_most * 1.0001) == 1000
    assert needed(at_most * 0.9999) is None
    assert needed(0.0) is None
    assert needed(-5.0) is None


# --- the plan --------------------------------------------------------------------------------------------------------


def prospects(sd: float, correlation: float = 0.0, **rules) -> dict[str, int | None]:
    plan = PowerAnalysis(TABLES, Rules(**rules), assumed(sd, correlation))
    assert len(plan.arms) == ARMS
    return {found.claim.id: found.seeds for found in plan.claims(dict.fromkeys(plan.arms, 3))}


@pytest.mark.parametrize(
    ("sd", "seeds"),
    [
        (0.12, {"10c": 2, "11a": 3, "11b": 2, "12b": 8, "15b": 2, "16b": 2}),
        (0.25, {"10c": 6, "11a": 12, "11b": 3, "12b": 35, "15b": 2, "16b": 8}),
    ],
)
def test_a_plan_needs_the_designs_seeds_for_findings_of_one_difference(sd, seeds):
    needed = prospects(sd)
    assert {name: needed[name] for name in seeds} == seeds


def test_a_finding_of_several_differences_needs_the_seeds_of_its_hardest():
    # 13a: differences 0.27, 0.26 and 0.62, two findings in the table.
    hardest = next(
        n
        for n in range(2, 1000)
        if (stats.t.isf(0.025, ARMS * (n - 1)) + stats.t.isf(0.2, ARMS * (n - 1))) * 0.25 * (2 / n) ** 0.5 <= 0.26
    )
    assert prospects(0.25)["13a"] == hardest


def test_the_correlation_of_a_seeds_runs_saves_seeds_as_less_scatter_does():
    # Var(a - b) = 2 sd^2 (1 - 0.75) is that of uncorrelated runs of half the sd.
    some = ("10c", "11a", "12b", "16b")
    one, other = prospects(0.25, 0.75), prospects(0.125)
    assert [one[name] for name in some] == [other[name] for name in some]


def test_stricter_levels_need_more_seeds():
    usual, suite, looks = prospects(0.25), prospects(0.25, family="suite"), prospects(0.25, looks=5)
    for name in ("10c", "11a", "12b"):
        assert usual[name] < looks[name]
        assert usual[name] < suite[name]

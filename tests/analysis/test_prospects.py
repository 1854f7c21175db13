"""What a plan is for: which findings there are, the smallest effect that each shows, the seeds that each needs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import ABLATION, PLAIN, R4, R16
from scipy import stats
from studies import CLAIMED, assumed, better, claim, claimed, paper_table

from senet_ablate.analysis.power import PowerAnalysis
from senet_ablate.spec.ablation import Arm, arms
from senet_ablate.spec.claims import Fewer, NoDifference, Rules

# --- which findings ---


def test_what_needs_no_runs_or_has_no_figures_is_left_out() -> None:
    counted = Fewer(kind="fewer", quantity="params", arm="r16", than="r4")
    bare = ABLATION.model_copy(
        update={
            "rows": tuple(row.model_copy(update={"paper": None}) if row.id == "r4" else row for row in ABLATION.rows)
        }
    )
    measured = claimed(
        claim("gain", better("r16", "plain"), counted),
        claim("count", counted),
        claim("unknown", better("r4", "plain")),
        claim("beside", better("r16", "plain"), secondary=True),
        table=bare,
    )
    prospects = PowerAnalysis([measured], Rules(), assumed(0.2))
    seeds = dict.fromkeys(prospects.arms, 4)
    (found,) = prospects.claims(seeds)
    assert found.claim.id == "gain"
    assert {arm.slug for arm in found.arms} == {"se-r16", "plain"}


def test_tables_without_figures_have_no_prospects() -> None:
    controls = claimed(claim("null", NoDifference(kind="no-difference", arm="r4", than="r16")))
    prospects = PowerAnalysis([controls], Rules(), assumed(0.2))
    seeds = dict.fromkeys(prospects.arms, 4)
    assert prospects.claims(seeds) == []
    assert prospects.expected(seeds) == 0.0
    assert prospects.finding_arms == []


def test_arms_are_those_of_the_tables_with_the_network_without_se() -> None:
    squeeze = paper_table("squeeze")
    prospects = PowerAnalysis([squeeze], Rules(), assumed(0.2))
    assert prospects.arms == tuple(arms([squeeze]))
    assert [arm.slug for arm in prospects.arms] == ["se-r16-max", "se-r16", "plain"]
    by_finding = [[arm.slug for arm in each] for each in prospects.finding_arms]
    assert by_finding == [["se-r16-max", "se-r16"], ["se-r16-max", "plain"]]


def test_some_findings_alone_have_the_chances_that_they_have_among_all() -> None:
    tables = [paper_table("gate"), paper_table("stage")]
    prospects = PowerAnalysis(tables, Rules(), assumed(0.25))
    seeds = dict.fromkeys(prospects.arms, 4)
    everything = {found.claim.id: found for found in prospects.claims(seeds)}
    assert list(everything) == ["12a", "12b", "13a", "13b"]
    part = PowerAnalysis(tables, Rules(), assumed(0.25), only=["13a", "12b"])
    assert {found.claim.id: found for found in part.claims(seeds)} == {
        name: everything[name] for name in ("12b", "13a")
    }
    assert part.expected(seeds) == pytest.approx(
        sum(everything[name].power + everything[name].power_at_half for name in ("12b", "13a")) / 2
    )
    assert part.arms == prospects.arms, "all are still trained, and inform the noise"
    assert PowerAnalysis(tables, Rules(), assumed(0.25), only=[]).expected(seeds) == 0.0


def test_an_expected_number_is_the_mean_over_the_papers_effects_and_half_of_them() -> None:
    prospects = PowerAnalysis([paper_table("gate")], Rules(), assumed(0.25))
    seeds = dict.fromkeys(prospects.arms, 4)
    full, half = prospects.powers(seeds)
    assert prospects.expected(seeds) == pytest.approx((full.sum() + half.sum()) / 2)


# --- covariance, levels, smallest effects ---


def test_means_of_unequal_seeds_share_what_their_common_seeds_share() -> None:
    prospects = PowerAnalysis([CLAIMED], Rules(), assumed(0.3, 0.5))
    n = {Arm(variant=R4): 2, Arm(variant=R16): 5, Arm(variant=PLAIN): 3}
    found = prospects.covariance(n)
    assert [arm.slug for arm in prospects.arms] == ["se-r4", "se-r16", "plain"]
    # Seeds 0 and 1 are common to means of 2 and of 5 runs: 2 covariances of 0.5 x 0.09, by 2 x 5.
    by_hand = 0.09 * np.array(
        [[1 / 2, 0.5 * 2 / 10, 0.5 * 2 / 6], [0.5 * 2 / 10, 1 / 5, 0.5 * 3 / 15], [0.5 * 2 / 6, 0.5 * 3 / 15, 1 / 3]]
    )
    np.testing.assert_allclose(found, by_hand)
    rng = np.random.default_rng(6)
    runs = rng.multivariate_normal(np.zeros(3), 0.09 * (0.5 * np.eye(3) + 0.5), (50_000, 5))
    means = np.stack([runs[:, :count, place].mean(axis=1) for place, count in enumerate((2, 5, 3))], axis=1)
    np.testing.assert_allclose(np.cov(means.T), found, atol=0.002)
    assert prospects.df(n) == (2 - 1) + (5 - 1) + (3 - 1)


@pytest.mark.parametrize(
    ("rules", "level"),
    [
        (Rules(), 0.05 / 2),
        (Rules(alpha=0.1), 0.1 / 2),
        (Rules(looks=2), 0.6 * 0.05 / 2),
        (Rules(looks=5), 0.31 * 0.05 / 2),
        (Rules(family="suite"), 0.05 / 4),
    ],
)
def test_the_smallest_effect_found_is_that_of_a_t_test_with_80_percent_power(rules: Rules, level: float) -> None:
    prospects = PowerAnalysis([paper_table("squeeze"), paper_table("nosqueeze")], rules, assumed(0.25))
    seeds = {arm: 3 if arm.variant.se is None else 7 for arm in prospects.arms}
    found = {each.claim.id: each for each in prospects.claims(seeds)}
    df = sum(count - 1 for count in seeds.values())
    multiple = stats.t.ppf(1 - level, df) + stats.t.ppf(0.8, df)
    assert found["11a"].smallest == pytest.approx(multiple * 0.25 * math.sqrt(1 / 7 + 1 / 7))
    assert found["11b"].smallest == pytest.approx(multiple * 0.25 * math.sqrt(1 / 7 + 1 / 3))
    assert found["11a"].paper == pytest.approx(0.29)
    assert found["16a"].paper == pytest.approx(0.65)


def test_a_finding_is_told_by_its_hardest_difference() -> None:
    prospects = PowerAnalysis([paper_table("stage")], Rules(), assumed(0.25))
    found = {each.claim.id: each for each in prospects.claims(dict.fromkeys(prospects.arms, 5))}
    assert found["13a"].paper == pytest.approx(23.30 - 23.04), "stage 3 has the smallest gain"
    assert found["13b"].paper == pytest.approx(22.68 - 22.28), "stage 4 is nearest to all"


def test_the_seeds_that_a_finding_needs_are_the_fewest_that_find_all_its_differences() -> None:
    prospects = PowerAnalysis([paper_table("squeeze")], Rules(), assumed(0.25))
    (found, _) = prospects.claims(dict.fromkeys(prospects.arms, 3))
    assert found.claim.id == "11a"

    def smallest(n: int) -> float:
        df = 3 * (n - 1)
        return (stats.t.ppf(0.975, df) + stats.t.ppf(0.8, df)) * 0.25 * math.sqrt(2 / n)

    assert found.seeds is not None
    assert smallest(found.seeds) <= 0.29 < smallest(found.seeds - 1)
    both = PowerAnalysis([paper_table("gate")], Rules(), assumed(0.25))
    by_finding = {each.claim.id: each for each in both.claims(dict.fromkeys(both.arms, 3))}
    needed = by_finding["12a"].seeds  # sigmoid under tanh by 0.72, tanh under ReLU by 0.47
    assert needed is not None
    for n, enough in ((needed, True), (needed - 1, False)):
        multiple = stats.t.ppf(0.975, 4 * (n - 1)) + stats.t.ppf(0.8, 4 * (n - 1))
        assert bool(multiple * 0.25 * math.sqrt(2 / n) <= 0.47) is enough
    hopeless = PowerAnalysis([paper_table("squeeze")], Rules(), assumed(25.0))
    assert [each.seeds for each in hopeless.claims(dict.fromkeys(hopeless.arms, 3))] == [None, None]


@pytest.mark.parametrize("images", [768, 10_000, 50_000])
def test_differences_for_new_images_have_a_floor_that_seeds_do_not_lower(images: int) -> None:
    assert PowerAnalysis([CLAIMED], Rules(), assumed(0.2, images=images)).floor == pytest.approx(7 / math.sqrt(images))

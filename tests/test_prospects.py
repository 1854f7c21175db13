"""What a plan can decide before anything runs: the noise it assumes, chances against brute force, smallest effects."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from helpers import ABLATION, PLAIN, PROTOCOL, R4, R16
from scipy import stats
from studies import CLAIMED, better, claim, claimed, paper_tables, same

from senet_ablate.claims import Equivalent, Fewer, NoDifference, Retains, Superior
from senet_ablate.evidence import Evidence
from senet_ablate.noise import Sample
from senet_ablate.prospects import Assumptions, Prospects, assume
from senet_ablate.rules import Rules
from senet_ablate.suite import Ablation, Arm, arms

ARMS = (Arm(variant=R4), Arm(variant=R16), Arm(variant=PLAIN))
IMAGES = 400


def noise(sd: float, correlation: float = 0.0, images: int = 10_000) -> Assumptions:
    return Assumptions(sd, correlation, images, "for a test")


def table(slug: str) -> Ablation:
    return next(each for each in paper_tables() if each.slug == slug)


def chance(prospects: Prospects, seeds: int, finding: str, scale: float = 1.0) -> float:
    """Chance of one finding at equal seeds."""
    (found,) = prospects.only({finding}).chances(dict.fromkeys(prospects.arms, seeds), (scale,))
    return float(found[0])


# --- noise: formulas, then records ---


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
    assert "3 % on 768 test images (a guess: say --error)" in found.basis


def wrong(rng: np.random.Generator, share: float) -> np.ndarray:
    return 100.0 * (rng.random(IMAGES) < share)


def evidence(scores: Sequence[dict[int, np.ndarray]], rules: Rules | None = None) -> Evidence:
    return Evidence(ARMS[: len(scores)], Sample.of(scores), rules or Rules(), phi=6.0)


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


# --- chances ---


def brute_force(
    ablation: Ablation, sd: float, correlation: float, seeds: dict[Arm, int], scale: float, draws: int = 100_000
) -> dict[str, float]:
    """Chances by drawing studies: means of all arms, a pooled variance, and each claim's one-sided t tests by hand."""
    rng = np.random.default_rng(99)
    names = [*(row.id for row in ablation.rows)]
    if "original" not in names and "plain" not in names:
        names.append("plain")
    n = np.array([seeds[ablation.arm(name)] for name in names])
    printed = {name: scale * (ablation.paper_top1(name) or 0.0) for name in names}
    covariance = np.array(
        [
            [sd**2 / a if i == j else correlation * sd**2 * min(a, b) / (a * b) for j, b in enumerate(n)]
            for i, a in enumerate(n)
        ]
    )
    means = rng.multivariate_normal([printed[name] for name in names], covariance, draws)
    df = int(np.sum([count - 1 for count in seeds.values()]))
    inflation = rng.chisquare(df, draws) / df
    plain = "original" if "original" in names else "plain"
    k = sum(not each.secondary for each in ablation.claims)

    def passes(weights: dict[str, float]) -> np.ndarray:
        c = np.zeros(len(names))
        for name, weight in weights.items():
            c[names.index(plain if name == "plain" else name)] += weight
        t = means @ c / np.sqrt(c @ covariance @ c * inflation)
        return t > stats.t.ppf(1 - 0.05 / k, df)

    def gain(share: float, one: str, other: str, sign: int) -> dict[str, float]:
        weights = dict.fromkeys(names, 0.0)
        for name, weight in ((plain, share), (ablation.reference, -share), (one, -sign), (other, sign)):
            weights[name] += weight
        return weights

    chances = {}
    for each in ablation.claims:
        if each.secondary:
            continue
        held = np.ones(draws, bool)
        for atom in each.simple_atoms():
            match atom:
                case Superior():
                    held &= passes({atom.worse: 1.0, atom.better: -1.0})
                case Equivalent(arms=(one, other)):
                    held &= passes(gain(0.25, one, other, 1)) & passes(gain(0.25, one, other, -1))
                case Retains():
                    weights = dict.fromkeys(names, 0.0)
                    for name, weight in (
                        (plain, 1 - atom.share),
                        (ablation.reference, atom.share),
                        (atom.arm, -1.0),
                    ):
                        weights[name] += weight
                    held &= passes(weights) & passes({plain: 1.0, ablation.reference: -1.0})
        chances[each.id] = float(held.mean())
    return chances


@pytest.mark.parametrize("correlation", [0.0, 0.4])
@pytest.mark.parametrize(("slug", "sd"), [("ratio", 0.15), ("gate", 0.25), ("inner", 0.3), ("integration", 0.1)])
def test_chances_are_those_of_simulated_studies(slug: str, sd: float, correlation: float) -> None:
    ablation = table(slug)
    prospects = Prospects([ablation], Rules(), noise(sd, correlation))
    seeds = {arm: 3 + 2 * (place % 3) for place, arm in enumerate(prospects.arms)}
    findings = [each.id for each in ablation.claims if not each.secondary]
    for scale, found in zip((1.0, 0.5), prospects.chances(seeds), strict=True):
        expected = brute_force(ablation, sd, correlation, seeds, scale)
        # 2,000 draws have a standard error of at most 0.011.
        assert dict(zip(findings, found.tolist(), strict=True)) == pytest.approx(expected, abs=0.045)


@pytest.mark.parametrize(
    ("sd", "needed"),
    [
        # Section 7, "Seeds per variant for 80 % power": simulated with all 17 networks.
        (0.12, {"10a": 2, "10c": 2, "11a": 3, "12b": 8, "13a": 5, "16b": 2}),
        (0.25, {"10a": 4, "10c": 6, "11a": 12, "12b": 35, "13a": 18, "16b": 8}),
    ],
)
def test_chances_agree_with_the_specifications_table_of_power(sd: float, needed: dict[str, int]) -> None:
    prospects = Prospects(paper_tables(), Rules(), noise(sd))
    for finding, count in needed.items():
        assert chance(prospects, count, finding) > 0.77
        if count > 2:
            assert chance(prospects, count - 1, finding) < 0.83


@pytest.mark.parametrize(
    ("finding", "sd", "gain", "expected"),
    [
        # Section 6g, margin a quarter of the gain: power at 3, 5, 10 and 20 seeds where the published effects hold.
        ("10b", 0.12, None, (0.05, 0.30, 0.86, 1.0)),
        ("10b", 0.25, None, (0.0, 0.0, 0.01, 0.26)),
        ("10b", 0.25, 3.0, (0.48, 0.90, 1.0, 1.0)),
        ("14a", 0.12, None, (0.14, 0.39, 0.77, 0.98)),
        ("14a", 0.25, None, (0.0, 0.0, 0.06, 0.35)),
    ],
)
def test_networks_that_the_paper_prints_alike_are_shown_the_same_with_enough_seeds(
    finding: str, sd: float, gain: float | None, expected: tuple[float, ...]
) -> None:
    prospects = Prospects(paper_tables(), Rules(), noise(sd), gain)
    found = [chance(prospects, seeds, finding) for seeds in (3, 5, 10, 20)]
    assert found == pytest.approx(expected, abs=0.09)  # there with the noise estimated arm by arm


def test_chances_rise_with_seeds_and_fall_with_noise() -> None:
    prospects = [Prospects([table("stage")], Rules(), noise(sd)) for sd in (0.1, 0.2, 0.4, 0.8)]
    by_seeds = [prospects[1].chances(dict.fromkeys(prospects[1].arms, seeds)) for seeds in (2, 4, 8, 16, 32)]
    by_noise = [each.chances(dict.fromkeys(each.arms, 5)) for each in prospects]
    for rising in (np.array(by_seeds), -np.array(by_noise)):
        assert (np.diff(rising, axis=0) >= -0.01).all()
        assert (rising[-1] - rising[0] > 0.2).any()
    assert prospects[1].expected(dict.fromkeys(prospects[1].arms, 200)) > 1.9, "of two findings"


def test_without_an_effect_a_finding_is_reproduced_as_rarely_as_its_level_allows() -> None:
    prospects = Prospects([table("squeeze")], Rules(), noise(0.25))
    (found,) = prospects.chances(dict.fromkeys(prospects.arms, 5), (0.0,))
    assert found == pytest.approx([0.05 / 2] * 2, abs=4 * (0.025 / 2000) ** 0.5)


def test_half_of_a_doubled_gain_is_the_whole_one() -> None:
    gate = table("gate")
    usual, doubled = (Prospects([gate], Rules(), noise(0.3), gain) for gain in (None, 2 * 1.02))
    seeds = dict.fromkeys(usual.arms, 5)
    assert usual.gain == pytest.approx(23.30 - 22.28)
    assert doubled.gain == pytest.approx(2 * 1.02)
    np.testing.assert_allclose(doubled.chances(seeds)[1], usual.chances(seeds)[0])
    for one, two in zip(usual.prospects(seeds), doubled.prospects(seeds), strict=True):
        assert two.paper == pytest.approx(2 * one.paper)
        assert two.smallest == pytest.approx(one.smallest)


def test_an_absolute_margin_does_not_shrink_with_the_effects() -> None:
    rules = Rules(margin_abs=1.0)
    ratio = claimed(claim("same", same("r4", "r16")))
    prospects = Prospects([ratio], rules, noise(0.25))
    full, half = prospects.chances(dict.fromkeys(prospects.arms, 5))
    assert full[0] > 0.99
    assert half[0] > 0.99
    alike = Prospects([ratio], rules, noise(0.25), gain=0.001)
    assert alike.chances(dict.fromkeys(alike.arms, 5))[0][0] > 0.99


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
    prospects = Prospects([measured], Rules(), noise(0.2))
    seeds = dict.fromkeys(prospects.arms, 4)
    (found,) = prospects.prospects(seeds)
    assert found.claim.id == "gain"
    assert {arm.slug for arm in found.arms} == {"se-r16", "plain"}


def test_tables_without_figures_have_no_prospects() -> None:
    controls = claimed(claim("null", NoDifference(kind="no-difference", arm="r4", than="r16")))
    prospects = Prospects([controls], Rules(), noise(0.2))
    seeds = dict.fromkeys(prospects.arms, 4)
    assert prospects.prospects(seeds) == []
    assert prospects.expected(seeds) == 0.0
    assert prospects.finding_arms == []


def test_some_findings_alone_have_the_chances_that_they_have_among_all() -> None:
    tables = [table("gate"), table("stage")]
    prospects = Prospects(tables, Rules(), noise(0.25))
    seeds = dict.fromkeys(prospects.arms, 4)
    everything = {found.claim.id: found for found in prospects.prospects(seeds)}
    assert list(everything) == ["12a", "12b", "13a", "13b"]
    part = prospects.only(["13a", "12b"])
    assert {found.claim.id: found for found in part.prospects(seeds)} == {
        name: everything[name] for name in ("12b", "13a")
    }
    assert part.expected(seeds) == pytest.approx(
        sum(everything[name].chance + everything[name].chance_half for name in ("12b", "13a")) / 2
    )
    assert part.arms == prospects.arms, "all are still trained, and inform the noise"
    assert len(prospects.prospects(seeds)) == 4, "the whole is as it was"
    assert prospects.only([]).expected(seeds) == 0.0


def test_an_expected_number_is_the_mean_over_the_papers_effects_and_half_of_them() -> None:
    prospects = Prospects([table("gate")], Rules(), noise(0.25))
    seeds = dict.fromkeys(prospects.arms, 4)
    full, half = prospects.chances(seeds)
    assert prospects.expected(seeds) == pytest.approx((full.sum() + half.sum()) / 2)


# --- covariance, levels, smallest effects ---


def test_means_of_unequal_seeds_share_what_their_common_seeds_share() -> None:
    prospects = Prospects([CLAIMED], Rules(), noise(0.3, 0.5))
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
    prospects = Prospects([table("squeeze"), table("nosqueeze")], rules, noise(0.25))
    seeds = {arm: 3 if arm.variant.se is None else 7 for arm in prospects.arms}
    found = {each.claim.id: each for each in prospects.prospects(seeds)}
    df = sum(count - 1 for count in seeds.values())
    multiple = stats.t.ppf(1 - level, df) + stats.t.ppf(0.8, df)
    assert found["11a"].smallest == pytest.approx(multiple * 0.25 * math.sqrt(1 / 7 + 1 / 7))
    assert found["11b"].smallest == pytest.approx(multiple * 0.25 * math.sqrt(1 / 7 + 1 / 3))
    assert found["11a"].paper == pytest.approx(0.29)
    assert found["16a"].paper == pytest.approx(0.65)


def test_a_finding_is_told_by_its_hardest_difference() -> None:
    prospects = Prospects([table("stage")], Rules(), noise(0.25))
    found = {each.claim.id: each for each in prospects.prospects(dict.fromkeys(prospects.arms, 5))}
    assert found["13a"].paper == pytest.approx(23.30 - 23.04), "stage 3 has the smallest gain"
    assert found["13b"].paper == pytest.approx(22.68 - 22.28), "stage 4 is nearest to all"


def test_the_seeds_that_a_finding_needs_are_the_fewest_that_find_all_its_differences() -> None:
    prospects = Prospects([table("squeeze")], Rules(), noise(0.25))
    (found, _) = prospects.prospects(dict.fromkeys(prospects.arms, 3))
    assert found.claim.id == "11a"

    def smallest(n: int) -> float:
        df = 3 * (n - 1)
        return (stats.t.ppf(0.975, df) + stats.t.ppf(0.8, df)) * 0.25 * math.sqrt(2 / n)

    assert found.seeds is not None
    assert smallest(found.seeds) <= 0.29 < smallest(found.seeds - 1)
    both = Prospects([table("gate")], Rules(), noise(0.25))
    by_finding = {each.claim.id: each for each in both.prospects(dict.fromkeys(both.arms, 3))}
    needed = by_finding["12a"].seeds  # sigmoid under tanh by 0.72, tanh under ReLU by 0.47
    assert needed is not None
    for n, enough in ((needed, True), (needed - 1, False)):
        multiple = stats.t.ppf(0.975, 4 * (n - 1)) + stats.t.ppf(0.8, 4 * (n - 1))
        assert bool(multiple * 0.25 * math.sqrt(2 / n) <= 0.47) is enough
    hopeless = Prospects([table("squeeze")], Rules(), noise(25.0))
    assert [each.seeds for each in hopeless.prospects(dict.fromkeys(hopeless.arms, 3))] == [None, None]


@pytest.mark.parametrize("images", [768, 10_000, 50_000])
def test_differences_for_new_images_have_a_floor_that_seeds_do_not_lower(images: int) -> None:
    assert Prospects([CLAIMED], Rules(), noise(0.2, images=images)).floor == pytest.approx(7 / math.sqrt(images))


def test_arms_are_those_of_the_tables_with_the_network_without_se() -> None:
    squeeze = table("squeeze")
    prospects = Prospects([squeeze], Rules(), noise(0.2))
    assert prospects.arms == tuple(arms([squeeze]))
    assert [arm.slug for arm in prospects.arms] == ["se-r16-max", "se-r16", "plain"]
    by_finding = [[arm.slug for arm in each] for each in prospects.finding_arms]
    assert by_finding == [["se-r16-max", "se-r16"], ["se-r16-max", "plain"]]

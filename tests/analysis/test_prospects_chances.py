"""How likely a plan decides a finding, against simulated studies and the specification's tables of power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from studies import assumed, claim, claimed, paper_table, paper_tables, same

from senet_ablate.analysis.power import PowerAnalysis
from senet_ablate.spec.ablation import Ablation, Arm
from senet_ablate.spec.claims import Equivalent, Retains, Rules, Superior


def chance(prospects: PowerAnalysis, seeds: int, finding: str, scale: float = 1.0) -> float:
    """Chance of one finding at equal seeds."""
    counts = dict.fromkeys(prospects.arms, seeds)
    place = [found.claim.id for found in prospects.claims(counts)].index(finding)
    return float(prospects.powers(counts, (scale,))[0][place])


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
    ablation = paper_table(slug)
    prospects = PowerAnalysis([ablation], Rules(), assumed(sd, correlation))
    seeds = {arm: 3 + 2 * (place % 3) for place, arm in enumerate(prospects.arms)}
    findings = [each.id for each in ablation.claims if not each.secondary]
    for scale, found in zip((1.0, 0.5), prospects.powers(seeds), strict=True):
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
    prospects = PowerAnalysis(paper_tables(), Rules(), assumed(sd))
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
    prospects = PowerAnalysis(paper_tables(), Rules(), assumed(sd), gain)
    found = [chance(prospects, seeds, finding) for seeds in (3, 5, 10, 20)]
    assert found == pytest.approx(expected, abs=0.09)  # there with the noise estimated arm by arm


def test_chances_rise_with_seeds_and_fall_with_noise() -> None:
    prospects = [PowerAnalysis([paper_table("stage")], Rules(), assumed(sd)) for sd in (0.1, 0.2, 0.4, 0.8)]
    by_seeds = [prospects[1].powers(dict.fromkeys(prospects[1].arms, seeds)) for seeds in (2, 4, 8, 16, 32)]
    by_noise = [each.powers(dict.fromkeys(each.arms, 5)) for each in prospects]
    for rising in (np.array(by_seeds), -np.array(by_noise)):
        assert (np.diff(rising, axis=0) >= -0.01).all()
        assert (rising[-1] - rising[0] > 0.2).any()
    assert prospects[1].expected(dict.fromkeys(prospects[1].arms, 200)) > 1.9, "of two findings"


def test_without_an_effect_a_finding_is_reproduced_as_rarely_as_its_level_allows() -> None:
    prospects = PowerAnalysis([paper_table("squeeze")], Rules(), assumed(0.25))
    (found,) = prospects.powers(dict.fromkeys(prospects.arms, 5), (0.0,))
    assert found == pytest.approx([0.05 / 2] * 2, abs=4 * (0.025 / 2000) ** 0.5)


def test_half_of_a_doubled_gain_is_the_whole_one() -> None:
    gate = paper_table("gate")
    usual, doubled = (PowerAnalysis([gate], Rules(), assumed(0.3), gain) for gain in (None, 2 * 1.02))
    seeds = dict.fromkeys(usual.arms, 5)
    assert usual.gain == pytest.approx(23.30 - 22.28)
    assert doubled.gain == pytest.approx(2 * 1.02)
    np.testing.assert_allclose(doubled.powers(seeds)[1], usual.powers(seeds)[0])
    for one, two in zip(usual.claims(seeds), doubled.claims(seeds), strict=True):
        assert two.paper == pytest.approx(2 * one.paper)
        assert two.smallest == pytest.approx(one.smallest)


def test_an_absolute_margin_does_not_shrink_with_the_effects() -> None:
    rules = Rules(margin_abs=1.0)
    ratio = claimed(claim("same", same("r4", "r16")))
    prospects = PowerAnalysis([ratio], rules, assumed(0.25))
    full, half = prospects.powers(dict.fromkeys(prospects.arms, 5))
    assert full[0] > 0.99
    assert half[0] > 0.99
    alike = PowerAnalysis([ratio], rules, assumed(0.25), gain=0.001)
    assert alike.powers(dict.fromkeys(alike.arms, 5))[0][0] > 0.99

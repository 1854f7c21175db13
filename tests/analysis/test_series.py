"""Findings about several studies together, against Welch's test, weighted least squares and hand arithmetic."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from helpers import PLAIN, R4, R16
from scipy import stats
from studies import CLAIMED, put_plan
from test_summary import made

from senet_ablate.analysis.noise import Difference
from senet_ablate.analysis.series import SeriesResult, combine, crossing, judge_claim, judge_series
from senet_ablate.analysis.study import assess
from senet_ablate.analysis.summary import row_effect
from senet_ablate.errors import UserError
from senet_ablate.spec.series import Series, SeriesClaim, SeriesStudy


def claim(**keys: object) -> SeriesClaim:
    return SeriesClaim(
        **{"id": "one", "statement": "It does", "row": "r16"}
        | {k: tuple(v) if isinstance(v, list) else v for k, v in keys.items()}
    )


def mean_of(values: np.ndarray) -> Difference:
    return Difference(values.mean(), values.std(ddof=1) / len(values) ** 0.5, len(values) - 1, math.nan)


def test_two_independent_means_compare_as_by_welchs_test() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(1.5, 1, 5), rng.normal(0, 3, 4)
    found = combine({"one": mean_of(one), "other": mean_of(other)}, {"one": 1.0, "other": -1.0})
    welch = stats.ttest_ind(one, other, equal_var=False, alternative="greater")
    assert found.df == pytest.approx(welch.df)
    assert found.p_above() == pytest.approx(welch.pvalue)


def test_the_weights_of_groups_are_one_over_their_size() -> None:
    gains = {
        name: Difference(value, 0.5, math.inf, math.nan) for name, value in zip("abcde", (3, 5, 1, 1, 4), strict=True)
    }
    found = combine(gains, {"a": 0.5, "b": 0.5} | dict.fromkeys("cde", -1 / 3))
    assert found.estimate == pytest.approx(4 - 2)
    assert found.se == pytest.approx((0.25 * (1 / 2 + 1 / 3)) ** 0.5)
    assert math.isinf(found.df)


@pytest.fixture
def three(tmp_path: Path) -> dict[str, object]:
    gains = {"small": 1.0, "middle": 12.0, "large": 15.0}
    return {
        name: assess([CLAIMED], made(tmp_path, name, gain, epochs))
        for epochs, (name, gain) in zip((6, 12, 24), gains.items(), strict=True)
    }


def series(*claims: SeriesClaim, names: tuple[str, ...] = ("small", "middle", "large")) -> Series:
    studies = tuple(SeriesStudy(name=name, label=name.title()) for name in names)
    return Series(
        slug="made", title="Made", question="Does it?", tables=("ratio",), rows=("r16",), studies=studies, claims=claims
    )


def test_a_row_has_its_gain_over_no_se_in_each_study(three) -> None:
    found = judge_series(series(), three, {"small": 1.51})
    assert [each.estimate for each in found.effects["r16"].values()] == pytest.approx([0.5, 11.5, 14.5])
    assert [each.paper for each in found.effects["r16"].values()] == [1.51, None, None]
    assert row_effect(three["small"], "r999") is None


def test_a_difference_of_gains_is_that_of_its_studies_and_is_judged_in_both_directions(three) -> None:
    larger, smaller = claim(above=["large"], below=["small"]), claim(above=["small"], below=["large"])
    effects = judge_series(series(), three).effects["r16"]
    found = judge_claim(larger, effects, 3, 0.05)
    small, large = effects["small"].difference, effects["large"].difference
    assert found.estimate == pytest.approx(14.0)
    se = math.hypot(small.se, large.se)
    df = se**4 / (small.se**4 / small.df + large.se**4 / large.df)
    assert found.p == pytest.approx(stats.t.sf(14.0 / se, df))
    assert found.low == pytest.approx(14.0 - stats.t.isf(0.05, df) * se)
    assert found.verdict == "reproduced"
    assert judge_claim(smaller, effects, 3, 0.05).verdict == "contradicted"
    assert judge_claim(larger, effects, 3, found.p / 2).verdict == "not resolved"


def test_a_margin_moves_the_bound_that_decides(three) -> None:
    effects = judge_series(series(), three).effects["r16"]
    behind = judge_claim(claim(below=["large"]), effects, 3, 0.05)
    assert (behind.estimate, behind.verdict) == (pytest.approx(-14.5), "contradicted")
    se, df = effects["large"].difference.se, effects["large"].difference.df
    within = judge_claim(claim(below=["large"], margin=30.0), effects, 3, 0.05)
    assert within.p == pytest.approx(stats.t.sf((30 - 14.5) / se, df))
    assert within.verdict == "reproduced"


def test_a_number_of_studies_is_shown_by_partial_conjunction_and_refuted_by_that_of_the_opposite(three) -> None:
    effects = judge_series(series(), three).effects["r16"]
    p = sorted(each.p for each in effects.values())
    shown = max((u for u in (1, 2, 3) if (4 - u) * p[u - 1] <= 0.05), default=0)
    assert shown == 2, "the smallest gain is within the noise"
    assert judge_claim(claim(at_least=2), effects, 3, 0.05).verdict == "reproduced"
    assert judge_claim(claim(at_least=3), effects, 3, 0.05).verdict == "not resolved"
    one_missing = {name: each for name, each in effects.items() if name != "large"}
    assert judge_claim(claim(at_least=2), one_missing, 3, 0.05).verdict == "not resolved", (
        "what is unknown does not count"
    )


def test_losses_in_all_studies_refute_a_number_of_gains(tmp_path: Path) -> None:
    studies = {
        name: assess([CLAIMED], made(tmp_path, name, -9.0, epochs)) for epochs, name in ((6, "small"), (12, "large"))
    }
    found = judge_series(series(claim(at_least=1), names=("small", "large")), studies)
    assert [each.verdict for each in found.findings] == ["contradicted"]


def test_a_study_that_has_not_begun_leaves_its_findings_open(three) -> None:
    found = judge_series(series(claim(above=["large"], below=["small"])), {"small": three["small"]})
    assert found.begun == ["small"]
    assert [(each.verdict, each.p) for each in found.findings] == [("not resolved", None)]


def test_no_finding_rests_on_a_study_whose_plan_is_not_done(tmp_path: Path) -> None:
    larger = claim(above=["large"], below=["small"])
    studies = {
        name: made(tmp_path, name, gain, epochs) for epochs, name, gain in ((6, "small", 1.0), (12, "large", 15.0))
    }

    def judged() -> SeriesResult:
        assessments = {name: assess([CLAIMED], study) for name, study in studies.items()}
        return judge_series(series(larger, names=("small", "large")), assessments)

    put_plan(studies["large"], {R4: 0, R16: 4, PLAIN: 4})
    assert (judged().incomplete, judged().findings[0].verdict) == ({}, "reproduced")
    put_plan(studies["large"], {R4: 0, R16: 4, PLAIN: 5})
    assert judged().incomplete == {"large": (8, 9)}
    assert judged().findings[0].verdict == "not resolved"
    assert judged().effects["r16"].keys() == {"small", "large"}, "what there is is shown"


def test_the_level_is_shared_by_the_findings(three) -> None:
    claims = [claim(id=name, above=["large"], below=["small"]) for name in ("one", "two")]
    found = judge_series(series(*claims), three)
    assert found.level == pytest.approx(0.025)
    alone = judge_claim(claims[0], found.effects["r16"], 3, 0.025)
    assert found.findings[0].low == alone.low


def test_one_run_in_two_studies_is_refused(tmp_path: Path) -> None:
    twice = {name: assess([CLAIMED], made(tmp_path, name, 5.0)) for name in ("small", "large")}
    with pytest.raises(UserError, match=r"small and large have 8 runs in common"):
        judge_series(series(names=("small", "large")), twice)


def test_the_crossing_is_that_of_weighted_least_squares_and_its_interval_fiellers() -> None:
    values, estimates, errors = [6, 24, 48], [-1.2, -0.3, 0.4], [0.15, 0.1, 0.2]
    gains = [Difference(gain, se, df, math.nan) for gain, se, df in zip(estimates, errors, (8, 12, 5), strict=True)]
    found = crossing(values, gains)
    assert found is not None
    design = sm.add_constant(np.log2(values))
    fit = sm.WLS(estimates, design, weights=np.array(errors) ** -2.0).fit()
    intercept, slope = fit.params
    assert math.log2(found.value) == pytest.approx(-intercept / slope)
    covariance = fit.normalized_cov_params  # of known variances
    for end in (found.low, found.high):
        point = np.array([1.0, math.log2(end)])
        t = point @ fit.params / (point @ covariance @ point) ** 0.5
        assert abs(t) == pytest.approx(stats.t.isf(0.025, 5))
    assert found.low < found.value < found.high


def test_without_a_slope_there_is_no_crossing() -> None:
    flat = [Difference(0.1 * sign, 0.2, 8, math.nan) for sign in (1, -1, 1)]
    assert crossing([6, 24, 48], flat) is None
    assert crossing([6, 6, 6], flat) is None
    assert crossing([6, 24], [Difference(1.0, math.nan, 8, math.nan)] * 2) is None


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "either at_least"),
        ({"at_least": 1, "above": ["small"]}, "either at_least"),
        ({"at_least": 1, "margin": 0.5}, "margin has no meaning with at_least"),
        ({"above": ["small"], "below": ["small"]}, "both above and below"),
    ],
)
def test_a_claim_is_of_one_kind(keys: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        claim(**keys)


@pytest.mark.parametrize(
    ("made_of", "words"),
    [
        ({"above": ["smal"]}, "no study; did you mean 'small'"),
        ({"at_least": 4}, "at_least = 4 of 3 studies"),
        ({"at_least": 1, "row": "r17"}, "no row; did you mean 'r16'"),
    ],
)
def test_a_claim_is_about_what_the_series_has(made_of: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        series(claim(**made_of))

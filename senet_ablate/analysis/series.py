"""Findings about several studies together: gains compared between studies, and the value at which a gain crosses 0."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from senet_ablate.analysis import distributions
from senet_ablate.analysis.noise import Difference
from senet_ablate.analysis.study import Assessment, fieller
from senet_ablate.analysis.summary import ALPHA, StudyEffect, Summary, partial_conjunction, row_effect
from senet_ablate.analysis.verdicts import Verdict, either_way
from senet_ablate.errors import UserError
from senet_ablate.spec.series import Series, SeriesClaim


@dataclass(frozen=True)
class SeriesFinding:
    """A finding of a series: estimate and interval of the difference, or how many studies are shown; p, verdict.

    The interval is two-sided at twice the level of one finding, so that its lower end is the bound that decides.
    """

    claim: SeriesClaim
    verdict: Verdict
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    shown: int | None = None


@dataclass(frozen=True)
class Crossing:
    """Where a gain crosses 0, if it is linear in the logarithm of a field: estimate and Fieller's 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SeriesResult:
    """The gain of each row in each study that has begun, by row and study, and the findings.

    `summary` has one gain of each study. `incomplete` has the studies whose plan is not done, with their runs and those
    planned; no finding rests on them.
    """

    series: Series
    effects: Mapping[str, Mapping[str, StudyEffect]]
    summary: Summary
    findings: tuple[SeriesFinding, ...]
    level: float
    incomplete: Mapping[str, tuple[int, int]]

    @property
    def begun(self) -> list[str]:
        """Studies with runs to compare, in the order of the series."""
        return [each.study for each in self.summary.effects]


def judge_series(
    series: Series, assessments: Mapping[str, Assessment], printed: Mapping[str, float] | None = None
) -> SeriesResult:
    """Judge the findings of a series; studies that have not begun, or lack a row, have no effect.

    `printed` are the paper's gains of the first row, by study. Each finding is tested at `ALPHA` over the number of
    findings, in either direction, and once: as long as a study's plan is not done, what rests on it stays open. Studies
    are independent.

    Raises:
        UserError: the studies are judged by different metrics, or two have runs in common.
    """
    effects: dict[str, dict[str, StudyEffect]] = {row: {} for row in series.rows}
    for row in series.rows:
        for study in series.studies:
            assessment = assessments.get(study.name)
            paper = (printed or {}).get(study.name) if row == series.rows[0] else None
            found = row_effect(assessment, row, paper) if assessment else None
            if found is not None:
                effects[row][study.name] = found
    of_study = {name: each for row in reversed(effects.values()) for name, each in row.items()}
    summary = Summary.of([of_study[study.name] for study in series.studies if study.name in of_study])
    for (one, other), count in summary.shared.items():
        raise UserError(f"{one} and {other} have {count} runs in common")
    level = ALPHA / max(1, len(series.claims))
    incomplete = {name: counts for name, assessment in assessments.items() if (counts := _unfinished(assessment))}
    done = {
        row: {name: each for name, each in found.items() if name not in incomplete} for row, found in effects.items()
    }
    findings = tuple(judge_claim(claim, done[claim.row], len(series.studies), level) for claim in series.claims)
    return SeriesResult(series, effects, summary, findings, level, incomplete)


def _unfinished(assessment: Assessment) -> tuple[int, int] | None:
    """Runs that a study has and that its plan wants, if these are more for any variant; None also without a plan."""
    planned = assessment.plan.seeds[-1] if assessment.plan.written else {}
    there = {arm.slug: len(runs) for arm, runs in assessment.outcomes.runs.items()}
    counts = {slug: (min(there.get(slug, 0), count), count) for slug, count in planned.items()}
    if all(has == wants for has, wants in counts.values()):
        return None
    return sum(has for has, _ in counts.values()), sum(wants for _, wants in counts.values())


def judge_claim(claim: SeriesClaim, effects: Mapping[str, StudyEffect], studies: int, level: float) -> SeriesFinding:
    """One finding, from the gains of its row by study."""
    if claim.at_least is not None:
        p_values = [each.p for each in effects.values() if each.p is not None]
        unknown = [1.0] * (studies - len(p_values))
        holds = partial_conjunction([*p_values, *unknown], level)
        fails = partial_conjunction([*(1 - p for p in p_values), *unknown], level)
        verdict: Verdict = "not resolved"
        if holds >= claim.at_least:
            verdict = "reproduced"
        elif fails > studies - claim.at_least:
            verdict = "contradicted"
        return SeriesFinding(claim, verdict, shown=holds)
    weights = {name: 1 / len(claim.above) for name in claim.above} | {
        name: -1 / len(claim.below) for name in claim.below
    }
    if any(name not in effects for name in weights):
        return SeriesFinding(claim, "not resolved")
    found = combine({name: effects[name].difference for name in weights}, weights)
    if math.isnan(found.se):
        return SeriesFinding(claim, "not resolved", found.estimate)
    half = distributions.quantile(level, found.df) * found.se
    t = (found.estimate + claim.margin) / found.se
    p = distributions.tail(t, found.df)
    return SeriesFinding(claim, either_way(p, level), found.estimate, found.estimate - half, found.estimate + half, p)


def combine(gains: Mapping[str, Difference], weights: Mapping[str, float]) -> Difference:
    """The weighted sum of independent estimates; df by Satterthwaite."""
    parts = [(weights[name] * gain.estimate, (weights[name] * gain.se) ** 2, gain.df) for name, gain in gains.items()]
    variance = sum(part for _, part, _ in parts)
    spread = sum(part**2 / df for _, part, df in parts)
    df = variance**2 / spread if spread else math.inf
    return Difference(sum(estimate for estimate, _, _ in parts), math.sqrt(variance), df, math.nan)


def crossing(values: Sequence[float], gains: Sequence[Difference]) -> Crossing | None:
    """Where the gain crosses 0 against log2 of a field, by weighted least squares and Fieller's theorem.

    None where there are too few studies, or the slope is not significantly different from 0 (then the interval is not
    bounded). The t quantile has the fewest degrees of freedom of any study.
    """
    if len(set(values)) < 2 or any(math.isnan(gain.se) for gain in gains):
        return None
    z = np.log2(np.asarray(values, dtype=float))
    weight = np.array([gain.se**-2 for gain in gains])
    design = np.stack([np.ones_like(z), z], 1)
    covariance = np.linalg.inv(design.T @ (weight[:, None] * design))
    intercept, slope = covariance @ design.T @ (weight * np.array([gain.estimate for gain in gains]))
    (var_intercept, covariance_both), (_, var_slope) = covariance
    df = min(gain.df for gain in gains)
    low, high = fieller(-intercept, slope, var_intercept, var_slope, -covariance_both, df)
    return None if math.isinf(low) else Crossing(2 ** float(-intercept / slope), 2**low, 2**high)

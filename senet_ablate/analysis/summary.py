"""Several studies side by side: one comparison in each, what differs between them, in how many of them it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from senet_ablate.analysis import distributions
from senet_ablate.analysis.contrasts import Contrast
from senet_ablate.analysis.evidence import Evidence
from senet_ablate.analysis.judge import TableJudge
from senet_ablate.analysis.noise import Difference
from senet_ablate.analysis.study import Assessment
from senet_ablate.analysis.verdicts import Verdict
from senet_ablate.errors import UserError, did_you_mean
from senet_ablate.spec.claims import PLAIN, Fewer, Metric
from senet_ablate.spec.schema import flat

ALPHA = 0.05
"""One-sided level; an interval is the two-sided one at twice of it, so that its lower end is the bound that decides."""


def seed_values(evidence: Evidence, contrast: Contrast) -> dict[int, float]:
    """The value of a contrast in the runs of each seed that all of its variants have; empty where they share none."""
    sample, arms = evidence.sample, contrast.arms
    shared = sorted(set.intersection(*(set(sample.seeds[arm]) for arm in arms))) if arms else []
    values = sum(contrast.weights[arm] * sample.means[sample.rows(arm, shared)] for arm in arms)
    return dict(zip(shared, (contrast.offset + np.atleast_1d(values)).tolist(), strict=True)) if shared else {}


def partial_conjunction(p_values: Sequence[float], alpha: float = ALPHA) -> int:
    """The largest u such that "it holds in at least u of the K settings" is shown at level `alpha`; 0 if none is.

    The p-value of u is (K - u + 1) times the u-th smallest, Bonferroni's partial conjunction (Benjamini and Heller,
    Biometrics 64, 2008); the largest u whose value is at most alpha is reported. As a bound on the number of settings
    it has level alpha for settings that are independent or positively dependent (Hochberg's step-up argument).

    >>> partial_conjunction([0.001, 0.01, 0.4])
    2
    """
    ordered = sorted(p_values)
    holds = [u for u, p in enumerate(ordered, 1) if (len(ordered) - u + 1) * p <= alpha]
    return max(holds, default=0)


@dataclass(frozen=True)
class StudyEffect:
    """One comparison in one study: estimate, two-sided interval at `ALPHA`, one-sided p, single seeds, verdict.

    Interval and p are None where the runs give none; `statement` says what was asked, `paper` what the paper prints.
    Units are those of `metric`.
    """

    assessment: Assessment
    judge: TableJudge
    contrast: Contrast
    statement: str
    estimate: float
    low: float | None
    high: float | None
    p: float | None
    verdict: Verdict
    paper: float | None

    @property
    def study(self) -> str:
        """Its name."""
        return self.assessment.outcomes.study.name

    @property
    def metric(self) -> Metric:
        """What is compared."""
        return self.judge.rules.metric

    @property
    def difference(self) -> Difference:
        """The estimate with its standard error and degrees of freedom; NaN where the runs give none."""
        found = self.judge.evidence.difference(self.contrast)
        assert found is not None
        return found if self.low is not None else replace(found, se=np.nan)

    @property
    def seeds(self) -> dict[int, float]:
        """The value by seed."""
        return seed_values(self.judge.evidence, self.contrast)

    @property
    def n(self) -> list[int]:
        """Runs of each variant."""
        return [int(self.judge.evidence.counts[arm]) for arm in self.contrast.arms]


def effect(assessment: Assessment, finding: str | None = None) -> StudyEffect:
    """The SE gain of a study (no SE less SE), or the comparison of a finding that is hardest to show.

    The SE gain is judged alone, at `ALPHA`; a finding has the verdict of its study.

    Raises:
        UserError: the study declares no such finding, or has no runs to compare.
    """
    study = assessment.outcomes.study.name
    if finding is None:
        judges = [judge for judge in assessment.judges.values() if judge.ablation.claims]
        found = [judge for judge in judges if judge.evidence.difference(judge.contrasts.gain) is not None]
        if not found:
            raise UserError(f"study {study!r} has no runs of SE and of no SE to compare")
        return _gain(assessment, found[0])
    known = {each.claim.id: each for each in assessment.all_findings}
    if finding not in known:
        raise UserError(f"study {study!r} declares no finding {finding!r}; {did_you_mean(finding, known)}")
    told = known[finding]
    judge = assessment.judges[told.ablation.slug]
    atoms = [atom for atom in told.atoms if not isinstance(atom.atom, Fewer) and atom.estimate is not None]
    if not atoms:
        raise UserError(f"study {study!r} has no runs to compare for finding {finding!r}")
    hardest = max(atoms, key=lambda atom: 1.0 if atom.p is None else atom.p)
    tested = judge.contrasts.tested(hardest.atom)  # type: ignore[arg-type] # no exact count is among them
    # A finding holds if each of its atoms does, so its p-value is their largest; an exact count is right or wrong.
    answered = [
        atom.verdict == "reproduced" if isinstance(atom.atom, Fewer) else atom.p is not None for atom in told.atoms
    ]
    p = hardest.p if all(answered) else None
    shown = (tested.shown, told.claim.statement, *_interval(judge, tested.shown))
    return StudyEffect(assessment, judge, *shown, p, told.verdict, hardest.paper_value)


def row_effect(assessment: Assessment, row: str, paper: float | None = None) -> StudyEffect | None:
    """The gain of a row over no SE in a study, judged alone at `ALPHA`; None where it has no runs of both."""
    for judge in assessment.judges.values():
        labels = {each.id: each.label for each in judge.ablation.rows}
        if row in labels:
            gain = judge.contrasts.difference(PLAIN, row)
            if judge.evidence.difference(gain) is not None:
                return _alone(assessment, judge, gain, f"error without SE less error of {labels[row]}", paper)
    return None


def _gain(assessment: Assessment, judge: TableJudge) -> StudyEffect:
    paper = judge.contrasts.gain.at(judge.paper_means)
    statement = "The SE gain: error without SE less error with SE"
    return _alone(assessment, judge, judge.contrasts.gain, statement, None if np.isnan(paper) else paper)


def _alone(
    assessment: Assessment, judge: TableJudge, contrast: Contrast, statement: str, paper: float | None
) -> StudyEffect:
    """A difference that no finding of its study is about, with the verdict of its own test."""
    estimate, low, high = _interval(judge, contrast)
    found = judge.evidence.difference(contrast)
    p = None if low is None or found is None else found.p_above()
    verdict: Verdict = "not resolved"
    if p is not None and min(p, 1 - p) <= ALPHA:
        verdict = "reproduced" if p <= ALPHA else "contradicted"
    return StudyEffect(assessment, judge, contrast, statement, estimate, low, high, p, verdict, paper)


def _interval(judge: TableJudge, contrast: Contrast) -> tuple[float, float | None, float | None]:
    """Estimate and its own interval; no interval from one seed of a variant."""
    found = judge.evidence.difference(contrast)
    assert found is not None
    if judge.evidence.noise is None or (judge.evidence.counts[contrast.arms] < 2).any():
        return found.estimate, None, None
    half = distributions.quantile(ALPHA, found.df) * found.se
    return found.estimate, found.estimate - half, found.estimate + half


@dataclass(frozen=True)
class Summary:
    """One comparison in several studies.

    `varied` has the protocol fields in which they differ, each with its value per study; `shared` the pairs of studies
    that have runs in common, which are no independent settings, and how many.
    """

    effects: tuple[StudyEffect, ...]
    varied: Mapping[str, tuple[object, ...]]
    shared: Mapping[tuple[str, str], int]

    @classmethod
    def of(cls, effects: Sequence[StudyEffect]) -> Summary:
        """Of these effects, with what differs between their studies.

        Raises:
            UserError: the studies are judged by different metrics.
        """
        metrics = {each.metric for each in effects}
        if len(metrics) > 1:
            raise UserError(f"the studies are judged by different metrics: {', '.join(sorted(metrics))}")
        runs = {each.study: {record.run_id for record in each.assessment.outcomes.records} for each in effects}
        common = {(one, two): len(runs[one] & runs[two]) for one, two in combinations(runs, 2)}
        varied = _varied([each.assessment for each in effects])
        return cls(tuple(effects), varied, {pair: count for pair, count in common.items() if count})

    @property
    def holds_in(self) -> int:
        """In how many studies at least the comparison is shown to hold; one without a p-value counts against it."""
        return partial_conjunction([1.0 if each.p is None else each.p for each in self.effects])


def summarise(assessments: Sequence[Assessment], finding: str | None = None) -> Summary:
    """The SE gain, or a declared finding, in several judged studies.

    Raises:
        UserError: a study cannot say, two have the same name, or they are judged by different metrics.
    """
    return Summary.of([effect(assessment, finding) for assessment in assessments])


def _varied(assessments: Sequence[Assessment]) -> dict[str, tuple[object, ...]]:
    """Protocol fields whose values differ; where no field of the data does, their images may."""
    protocols = [
        flat(each.pin.protocol.model_dump(include={"network", "data", "recipe", "precision"})) for each in assessments
    ]
    varied = {
        field: tuple(protocol[field] for protocol in protocols)
        for field in protocols[0]
        if len({str(protocol[field]) for protocol in protocols}) > 1
    }
    prints = tuple(each.pin.data.fingerprint for each in assessments)
    if len(set(prints)) > 1 and not any(field.startswith("data.") for field in varied):
        varied["data.images"] = prints
    return varied

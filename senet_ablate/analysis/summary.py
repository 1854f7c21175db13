"""Several studies side by side: one comparison in each, what differs between them, in how many of them it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations

import numpy as np

from senet_ablate.analysis import distributions
from senet_ablate.analysis.contrasts import Contrast
from senet_ablate.analysis.evidence import Evidence
from senet_ablate.analysis.judge import TableJudge
from senet_ablate.analysis.noise import Difference
from senet_ablate.analysis.study import Assessment
from senet_ablate.analysis.verdicts import Verdict, either_way
from senet_ablate.errors import UserError, look_up
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
    """One comparison in one study with its one-sided p-value, None where the runs give none, and verdict.

    `statement` says what was asked, `paper` what the paper prints. Units are those of `metric`.
    """

    assessment: Assessment
    judge: TableJudge
    contrast: Contrast
    statement: str
    paper: float | None
    p: float | None
    verdict: Verdict

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
        """The estimate with its standard error, NaN where a variant has one seed, and degrees of freedom."""
        return _difference(self.judge, self.contrast)

    @property
    def estimate(self) -> float:
        """The difference."""
        return self.difference.estimate

    @property
    def low(self) -> float | None:
        """Lower end of the two-sided interval at twice `ALPHA`; None where a variant has one seed."""
        return self._end(-1)

    @property
    def high(self) -> float | None:
        """Its upper end."""
        return self._end(1)

    def _end(self, side: int) -> float | None:
        found = self.difference
        half = distributions.quantile(ALPHA, found.df) * found.se
        return None if np.isnan(half) else found.estimate + side * half

    @property
    def seeds(self) -> dict[int, float]:
        """The value by seed."""
        return seed_values(self.judge.evidence, self.contrast)

    @property
    def n(self) -> list[int]:
        """Runs of each variant."""
        return [int(self.judge.evidence.counts[arm]) for arm in self.contrast.arms]


def _difference(judge: TableJudge, contrast: Contrast) -> Difference:
    evidence = judge.evidence
    found = evidence.difference(contrast)
    assert found is not None
    known = evidence.noise is not None and (evidence.counts[contrast.arms] > 1).all()
    return found if known else replace(found, se=np.nan)


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
        gain, paper = found[0].contrasts.gain, found[0].contrasts.gain.at(found[0].paper_means)
        statement = "The SE gain: error without SE less error with SE"
        return _alone(assessment, found[0], gain, statement, None if np.isnan(paper) else paper)
    known = {each.claim.id: each for each in assessment.all_findings}
    told = look_up(known, finding, f"study {study!r} declares no finding")
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
    return StudyEffect(assessment, judge, tested.shown, told.claim.statement, hardest.paper_value, p, told.verdict)


def row_effect(assessment: Assessment, row: str, paper: float | None = None) -> StudyEffect | None:
    """The gain of a row over no SE in a study, judged alone at `ALPHA`; None where it has no runs of both."""
    for judge in assessment.judges.values():
        labels = {each.id: each.label for each in judge.ablation.rows}
        if row in labels:
            gain = judge.contrasts.difference(PLAIN, row)
            if judge.evidence.difference(gain) is not None:
                return _alone(assessment, judge, gain, f"error without SE less error of {labels[row]}", paper)
    return None


def _alone(
    assessment: Assessment, judge: TableJudge, contrast: Contrast, statement: str, paper: float | None
) -> StudyEffect:
    """A difference that no finding of its study is about, with the verdict of its own test."""
    found = _difference(judge, contrast)
    p = None if np.isnan(found.se) else found.p_above()
    return StudyEffect(assessment, judge, contrast, statement, paper, p, either_way(p, ALPHA))


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
    def field(self) -> str | None:
        """The protocol field in which the studies differ, if it is one alone."""
        return next(iter(self.varied)) if len(self.varied) == 1 else None

    @property
    def numbers(self) -> dict[str, float]:
        """The value of that field by study; empty unless all are numbers."""
        values = self.varied[self.field] if self.field else ()
        named = zip((each.study for each in self.effects), values, strict=False)
        found = {study: x for study, x in named if isinstance(x, (int, float)) and not isinstance(x, bool)}
        return found if len(found) == len(self.effects) else {}

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
        field: tuple(protocol.get(field) for protocol in protocols)
        for field in dict.fromkeys(chain(*protocols))
        if len({str(protocol.get(field)) for protocol in protocols}) > 1
    }
    prints = tuple(each.pin.data.fingerprint for each in assessments)
    if len(set(prints)) > 1 and not any(field.startswith("data.") for field in varied):
        varied["data.images"] = prints
    return varied

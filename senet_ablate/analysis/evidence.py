"""What the runs of a study say, whatever the question: scores, noise, runs that diverged, exact counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from senet_ablate.analysis.contrasts import Contrast
from senet_ablate.analysis.distributions import POINTS
from senet_ablate.analysis.noise import Difference, Noise, Sample, fit_noise
from senet_ablate.errors import UserError
from senet_ablate.results.arms import Outcomes
from senet_ablate.results.networks import Networks, Survey
from senet_ablate.results.records import Predictions, StudyPlan
from senet_ablate.spec.ablation import Ablation, Arm, arms
from senet_ablate.spec.claims import Metric, Rules
from senet_ablate.spec.protocol import Complexity


@dataclass(frozen=True)
class Evidence:
    """The runs of all arms of a study that may be compared.

    `arms` are in the order of the sample. `collapsed` counts the runs that learnt next to nothing; unlike those that
    `diverged` they are in the sample. `lenders` are the arms that inform the noise pool; by default all.
    """

    arms: tuple[Arm, ...]
    sample: Sample
    rules: Rules
    diverged: Mapping[Arm, int] = field(default_factory=dict)
    collapsed: Mapping[Arm, int] = field(default_factory=dict)
    cost: Mapping[Arm, Complexity] = field(default_factory=dict)
    points: int = POINTS
    lenders: np.ndarray | None = None
    _known: dict[tuple[bytes, float], Difference | None] = field(default_factory=dict, repr=False)

    @cached_property
    def noise(self) -> Noise | None:
        """The noise model; None where no arm has two seeds."""
        return fit_noise(self.sample, self.rules, self.lenders)

    @property
    def counts(self) -> np.ndarray:
        """Number of runs of each arm that did not diverge."""
        return self.sample.counts

    @property
    def pooled(self) -> int:
        """Number of arms that inform the noise pool."""
        return int(((self.counts > 1) & (True if self.lenders is None else self.lenders)).sum())

    @property
    def unstable(self) -> list[str]:
        """Slugs of the arms whose runs vary more than those of the others."""
        return [] if self.noise is None else [self.arms[arm].slug for arm in np.flatnonzero(self.noise.unstable)]

    def difference(self, contrast: Contrast) -> Difference | None:
        """Estimate of a contrast; None where an arm has no run. With one seed everywhere its error is unknown, NaN."""
        key = (contrast.weights.tobytes(), contrast.offset)
        if key not in self._known:
            self._known[key] = self._difference(contrast)
        return self._known[key]

    def _difference(self, contrast: Contrast) -> Difference | None:
        arms = contrast.arms
        if (self.counts[arms] == 0).any():
            return None
        if self.noise is not None:
            return self.noise.contrast({arm: contrast.weights[arm] for arm in arms}, contrast.offset)
        return Difference(contrast.at(self.sample.arm_means), np.nan, np.inf, np.nan)


def gather(outcomes: Outcomes, ablations: Sequence[Ablation], rules: Rules, plan: StudyPlan | None = None) -> Evidence:
    """All runs as evidence by the rules' metric: the declared arms, and any others of the study.

    The noise pool holds the arms that the plan names, and not what else lies in the folder; without a plan, all.
    """
    everyone = list(dict.fromkeys([*arms(ablations), *outcomes.runs]))
    return Evidence(
        tuple(everyone),
        sample_of(outcomes, everyone, rules.metric),
        rules,
        diverged={arm: outcomes.diverged(arm) for arm in outcomes.runs},
        collapsed={arm: outcomes.collapsed(arm) for arm in outcomes.runs},
        cost={arm: found.total for arm in everyone if (found := survey(outcomes, arm))},
        lenders=None if plan is None else np.array([plan.count(arm) > 0 for arm in everyone]),
    )


def survey(outcomes: Outcomes, arm: Arm) -> Survey | None:
    """Size and cost of an arm under the study's protocol, if they are known."""
    pin = outcomes.pin
    shape = (pin.data.channels, pin.data.classes, pin.protocol.data.resolution)
    return Networks(outcomes.study.root.parent).find(pin.protocol.network, arm.variant, shape)


def scores_of(predictions: Predictions, metric: Metric) -> np.ndarray | None:
    """One score per test image: 100 where it is wrong (among five), or its cross-entropy."""
    match metric:
        case "top1_err":
            return 100.0 * predictions.wrong
        case "top5_err":
            return None if predictions.wrong_top5 is None else 100.0 * predictions.wrong_top5
        case "cross_entropy":
            return predictions.cross_entropy.astype(np.float64)


def sample_of(outcomes: Outcomes, arms: Sequence[Arm], metric: Metric) -> Sample:
    """Per-image scores of all runs of `arms`, in percent (cross-entropy in nats).

    Raises:
        UserError: a run is of other test images than its study.
    """
    scores: list[dict[int, np.ndarray]] = []
    expected = outcomes.pin.data.n_test
    for arm in arms:
        found = {}
        for record in outcomes.good(arm):
            predictions = outcomes.predictions[record.run_id]
            if len(predictions.wrong) != expected:
                raise UserError(
                    f"{record.run_id}: {len(predictions.wrong)} test images, but the study has {expected}; remove the "
                    "folder to run it again"
                )
            score = scores_of(predictions, metric)
            if score is not None:
                found[record.spec.seed] = score
        scores.append(found)
    return Sample.of(scores)

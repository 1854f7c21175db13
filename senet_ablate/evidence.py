"""What the runs of a study say, whatever the question: scores, noise, runs that diverged, exact counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from senet_ablate.contrasts import Contrast
from senet_ablate.noise import Difference, Noise, Sample, fit_noise
from senet_ablate.simultaneous import DRAWS
from senet_ablate.spec.ablation import Arm
from senet_ablate.spec.claims import Rules
from senet_ablate.spec.protocol import Complexity


@dataclass(frozen=True)
class Evidence:
    """The runs of all arms of a study that may be compared.

    `arms` are in the order of the sample. `phi` is the over-dispersion that is assumed where no arm has two seeds.
    """

    arms: tuple[Arm, ...]
    sample: Sample
    rules: Rules
    phi: float
    diverged: Mapping[Arm, int] = field(default_factory=dict)
    cost: Mapping[Arm, Complexity] = field(default_factory=dict)
    draws: int = DRAWS
    _known: dict[tuple[bytes, float], Difference | None] = field(default_factory=dict, repr=False)

    @cached_property
    def noise(self) -> Noise | None:
        """The noise model; None where no arm has two seeds."""
        return fit_noise(self.sample, self.rules)

    @cached_property
    def counts(self) -> np.ndarray:
        """Number of runs of each arm that did not diverge."""
        return np.array([len(seeds) for seeds in self.sample.seeds])

    def difference(self, contrast: Contrast) -> Difference | None:
        """Estimate of a contrast; provisional where arms have one seed, None where one has none.

        With one seed everywhere the standard error is McNemar's, inflated by the assumed over-dispersion.
        """
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
        weights = np.zeros(len(self.sample.means))
        for arm in arms:
            weights[self.sample.rows(arm)] = contrast.weights[arm] / self.counts[arm]
        second = float(weights @ self.sample.products @ weights) / self.sample.images
        se = (self.phi * second) ** 0.5
        return Difference(contrast.at(self.sample.arm_means), se, np.inf, se)

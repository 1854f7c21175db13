"""The rules by which records become verdicts, chosen before the first run and written into the plan file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from senet_ablate.specs import Spec

Metric = Literal["top1_err", "top5_err", "cross_entropy"]

LOOK_SHARE = {1: 1.0, 2: 0.6, 3: 0.44, 4: 0.36, 5: 0.31}
"""Share of alpha that each of K looks may spend (Pocock-type; simulated for ladders such as 3-5-8-12-20 seeds)."""


class Rules(Spec):
    """How findings are judged. The defaults are the protocol of this suite; a plan may choose others, a report not.

    `alpha`: chance of a false "reproduced" (and of a false "contradicted") in each table, or in the `suite`.
    `margin_rho`: two arms are the same within this share of the SE gain; `margin_abs` is in the metric's unit
    (percent points of error) and replaces it.
    `pairing`: credit for the correlation that arms of one seed show. `estimand`: over training randomness on these test
    images (`benchmark`), or for new images, too (`population`). `looks`: how often verdicts may be read while seeds
    are added. `phi_prior`: `converged` adds 8 prior degrees of freedom at over-dispersion 1.3, for two or three arms.
    """

    alpha: Annotated[float, Field(gt=0, le=0.2)] = 0.05
    family: Literal["table", "suite"] = "table"
    margin_rho: Annotated[float, Field(gt=0, le=1)] = 0.25
    margin_abs: Annotated[float, Field(gt=0)] | None = None
    pairing: Literal["none", "half", "full"] = "half"
    estimand: Literal["benchmark", "population"] = "benchmark"
    metric: Metric = "top1_err"
    looks: Annotated[int, Field(ge=1, le=5)] = 1
    phi_prior: Literal["none", "converged"] = "none"

    @property
    def alpha_per_look(self) -> float:
        """What one look may spend."""
        return self.alpha * LOOK_SHARE[self.looks]

    def by(self, metric: Metric) -> Rules:
        """These rules for another metric; an absolute margin, in the first's unit, is none of the other's."""
        return self if metric == self.metric else self.model_copy(update={"metric": metric, "margin_abs": None})

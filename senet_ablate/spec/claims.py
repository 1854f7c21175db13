"""The paper's findings as data, and the rules by which they are tested.

A finding is a sentence made of atomic claims about the arms of a table. An atom names arms by the ids of its table's
rows, or `plain` for the network without SE.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from senet_ablate.spec.schema import Digested

Metric = Literal["top1_err", "top5_err", "cross_entropy"]

LOOK_SHARE = {1: 1.0, 2: 0.6, 3: 0.44, 4: 0.36, 5: 0.31}
"""Share of alpha that each of K looks may spend (Pocock-type; simulated for ladders such as 3-5-8-12-20 seeds)."""


class Rules(Digested):
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


PLAIN = "plain"
"""Name that every table's claims have for the network without SE, whether the table prints it or not."""


class Superior(Digested):
    """`better` has the lower expected error (the paper's sentence "a beats b")."""

    kind: Literal["superior"]
    better: str
    worse: str

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms it is about."""
        return (self.worse, self.better)

    def pairs(self) -> Iterator[Superior]:
        """Itself."""
        yield self

    def __str__(self) -> str:
        return f"{self.better} better than {self.worse}"


class Equivalent(Digested):
    """All `arms` have the same expected error, within a share of the SE gain."""

    kind: Literal["equivalent"]
    arms: Annotated[tuple[str, ...], Field(min_length=2)]

    def pairs(self) -> Iterator[Equivalent]:
        """One claim for each pair of the arms."""
        for pair in combinations(self.arms, 2):
            yield Equivalent(kind="equivalent", arms=pair)

    def __str__(self) -> str:
        return f"{' and '.join(self.arms)} the same"


class Retains(Digested):
    """`arm` keeps at least `share` of the SE gain, the error of `plain` less that of the table's reference."""

    kind: Literal["retains"]
    arm: str
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms it is about, but for those that make up the gain."""
        return (self.arm,)

    def pairs(self) -> Iterator[Retains]:
        """Itself."""
        yield self

    def __str__(self) -> str:
        return f"{self.arm} keeps {self.share:.0%} of the gain"


class Fewer(Digested):
    """`arm` has fewer parameters, or multiply-adds, than `than`: an exact count decides."""

    kind: Literal["fewer"]
    quantity: Literal["params", "macs"]
    arm: str
    than: str

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms it is about."""
        return (self.arm, self.than)

    def pairs(self) -> Iterator[Fewer]:
        """Itself."""
        yield self

    def __str__(self) -> str:
        what = {"params": "parameters", "macs": "multiply-adds"}[self.quantity]
        return f"{self.arm} has fewer {what} than {self.than}"


class NoDifference(Digested):
    """A control: `arm` and `than` are the same network under other seeds, so a difference is a false alarm."""

    kind: Literal["no-difference"]
    arm: str
    than: str

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms it is about."""
        return (self.arm, self.than)

    def pairs(self) -> Iterator[NoDifference]:
        """Itself."""
        yield self

    def __str__(self) -> str:
        return f"{self.arm} no different from {self.than}"


Atom = Superior | Equivalent | Retains | Fewer | NoDifference


class Claim(Digested):
    """One published finding: it holds if all its atoms hold.

    A `secondary` claim is shown with its table but stands outside the family whose error rate is guaranteed.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    statement: str
    source: str
    secondary: bool = False
    atoms: Annotated[tuple[Annotated[Atom, Field(discriminator="kind")], ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _arms_differ(self) -> Self:
        for atom in self.atoms:
            if len(set(atom.arms)) < len(atom.arms):
                raise ValueError(f"an arm is compared with itself in {atom}; name two different rows")
        return self

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms that the claim names, in order of appearance."""
        return tuple(dict.fromkeys(arm for atom in self.atoms for arm in atom.arms))

    def simple_atoms(self) -> tuple[Atom, ...]:
        """The atoms with each list of equal arms written out as its pairs."""
        return tuple(pair for atom in self.atoms for pair in atom.pairs())

"""The paper's findings as data, and the rules by which they are tested.

A finding is a set of comparisons between rows of a table, which are named by their ids; `plain` is the network
without SE.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from senet_ablate.spec.schema import Digested, Slug

Metric = Literal["top1_err", "top5_err", "cross_entropy"]

LOOK_SHARE = {1: 1.0, 2: 0.6, 3: 0.44, 4: 0.36, 5: 0.31}
"""Share of alpha that each of K looks may spend (Pocock-type; simulated for ladders such as 3-5-8-12-20 seeds)."""


class Rules(Digested):
    """How findings are judged. A plan may choose other rules than these defaults; a report may not."""

    alpha: Annotated[float, Field(gt=0, le=0.2)] = 0.05
    """Largest share of studies with a false "holds", and with a false "fails"."""
    family: Literal["table", "study", "suite"] = "table"
    """Whether `alpha` holds for each table or for the whole study (`suite` is an older word for `study`)."""
    margin_rho: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Two variants are the same within this share of the SE gain."""
    margin_abs: Annotated[float, Field(gt=0)] | None = None
    """Equivalence margin in the metric's unit (points of error), in place of `margin_rho`."""
    pairing: Literal["none", "half", "full"] = "half"
    """How much of the correlation between runs of one seed is used to shorten intervals."""
    estimand: Literal["benchmark", "population"] = "benchmark"
    """`benchmark`: expected error on these test images; `population`: on new images of the same kind, too."""
    metric: Metric = "top1_err"
    """The metric that decides; the others are shown beside it."""
    looks: Annotated[int, Field(ge=1, le=5)] = 1
    """Planned number of interim analyses, the last one included."""
    phi_prior: Literal["none", "converged"] = "none"
    """`converged` adds 8 prior degrees of freedom at over-dispersion 1.3, for studies of two or three variants."""

    @property
    def alpha_per_look(self) -> float:
        """What one look may spend."""
        return self.alpha * LOOK_SHARE[self.looks]

    def by(self, metric: Metric) -> Rules:
        """These rules for another metric; an absolute margin, in the first's unit, is none of the other's."""
        return self if metric == self.metric else self.model_copy(update={"metric": metric, "margin_abs": None})


PLAIN = "plain"
"""Name that every table's claims have for the network without SE, whether the table prints it or not."""


class _Comparison(Digested):
    """A comparison that names each of its rows by a key of its own, those in `ROLES`."""

    ROLES: ClassVar[tuple[str, ...]] = ("arm", "than")

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms it is about."""
        return tuple(getattr(self, role) for role in self.ROLES)

    def pairs(self) -> Iterator[Self]:
        """Itself; of a list of equal arms, each pair."""
        yield self


class Superior(_Comparison):
    """`better` has the lower expected error (the paper's sentence "a beats b")."""

    ROLES = ("worse", "better")

    kind: Literal["superior"]
    better: str
    """Row with the lower expected error."""
    worse: str
    """Row with the higher one."""

    def __str__(self) -> str:
        return f"{self.better} better than {self.worse}"


class Equivalent(Digested):
    """All `arms` have the same expected error, within the margin of the rules."""

    kind: Literal["equivalent"]
    arms: Annotated[tuple[str, ...], Field(min_length=2)]
    """Rows, each compared with each."""

    def pairs(self) -> Iterator[Equivalent]:
        """One claim for each pair of the arms."""
        for pair in combinations(self.arms, 2):
            yield Equivalent(kind="equivalent", arms=pair)

    def __str__(self) -> str:
        return f"{' and '.join(self.arms)} the same"


class Retains(_Comparison):
    """`arm` keeps at least `share` of the SE gain (error without SE less error of the table's reference)."""

    ROLES = ("arm",)  # beside those that make up the gain

    kind: Literal["retains"]
    arm: str
    """Its row."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The share."""

    def __str__(self) -> str:
        return f"{self.arm} keeps {self.share:.0%} of the gain"


class Fewer(_Comparison):
    """`arm` has fewer parameters, or multiply-adds, than `than`: an exact count."""

    kind: Literal["fewer"]
    quantity: Literal["params", "macs"]
    """What is counted."""
    arm: str
    """Row with fewer."""
    than: str
    """Row with more."""

    def __str__(self) -> str:
        what = {"params": "parameters", "macs": "multiply-adds"}[self.quantity]
        return f"{self.arm} has fewer {what} than {self.than}"


class NoDifference(_Comparison):
    """A null comparison: `arm` is `than` under other seeds, so a difference is a false alarm."""

    kind: Literal["no-difference"]
    arm: str
    """Row with `first_seed`."""
    than: str
    """Row without."""

    def __str__(self) -> str:
        return f"{self.arm} no different from {self.than}"


Atom = Superior | Equivalent | Retains | Fewer | NoDifference


class Claim(Digested):
    """One published finding: it holds if all its comparisons hold."""

    id: Slug
    """Its name in reports."""
    statement: str
    """The finding as a sentence."""
    source: str
    """Where it is published."""
    secondary: bool = False
    """Show it with its table, but leave it out of the findings whose error rate is guaranteed."""
    atoms: Annotated[tuple[Annotated[Atom, Field(discriminator="kind")], ...], Field(min_length=1)]
    """Its comparisons. Rows are named by id; `plain` is the network without SE, even if the table has no such row."""

    @model_validator(mode="after")
    def _arms_differ(self) -> Self:
        for atom in self.atoms:
            if len(set(atom.arms)) < len(atom.arms):
                raise ValueError(f"a row is compared with itself in {atom}; name two different rows")
        return self

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms that the claim names, in order of appearance."""
        return tuple(dict.fromkeys(arm for atom in self.atoms for arm in atom.arms))

    def simple_atoms(self) -> tuple[Atom, ...]:
        """The atoms with each list of equal arms written out as its pairs."""
        return tuple(pair for atom in self.atoms for pair in atom.pairs())

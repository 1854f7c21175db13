"""What differs between each arm and its table's reference, and whether the row declares it.

Compared are the runs that a protocol would give the two arms and the runs that they left behind; each arm's network is
compared with the one without SE (`models/diff.py`). Nothing here prints or refuses: that is for the caller.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from senet_ablate.results.arms import ABSENT, Outcomes, facts
from senet_ablate.results.networks import Difference, NetworkDiff
from senet_ablate.results.records import RunRecord
from senet_ablate.spec.ablation import SEED_SERIES, Ablation, Arm
from senet_ablate.spec.claims import PLAIN
from senet_ablate.spec.network import Variant
from senet_ablate.spec.protocol import Protocol, RunSpec
from senet_ablate.spec.schema import flat

CAUTIONS = frozenset({"versions", "code", "hardware", "execution"})
"""Aspects in which arms may differ without having been taught different things; all others forbid a verdict."""

NO_SE = "no SE"

WIDTH = 80


@dataclass(frozen=True)
class Departure:
    """One thing in which an arm (`table`:`row`) differs from its reference (the row `against`).

    `here` and `reference` are the two values of `what`, in words.
    """

    table: str
    row: str
    against: str
    aspect: str
    what: str
    here: str
    reference: str
    declared: bool

    @property
    def serious(self) -> bool:
        """Whether it changes what is learnt without being declared, so that no verdict may rest on the two arms."""
        return not self.declared and self.aspect not in CAUTIONS

    @property
    def status(self) -> str:
        """What it means for the comparison, in a word."""
        return "declared" if self.declared else "undeclared" if self.serious else "caution"

    @property
    def field(self) -> str:
        """The aspect and what differs in it, in words."""
        return " ".join(dict.fromkeys((self.aspect, self.what)))  # not "seed seed"

    @property
    def in_words(self) -> str:
        """Arm, status, field and values; what is too long for a terminal's line goes on in indented lines."""
        heading = f"{self.table}:{self.row} against {self.against}, {self.status}: {self.field}:"
        here, reference = self.here, f"reference {self.reference}"
        line = f"{heading} {here}; {reference}"
        if len(line) <= WIDTH:
            return line
        wrapped = partial(textwrap.fill, width=WIDTH, subsequent_indent="    ", break_on_hyphens=False)
        return "\n".join((wrapped(heading), *(wrapped(text, initial_indent="  ") for text in (here, reference))))


@dataclass(frozen=True)
class Comparison:
    """An arm of a table, by the name that claims use, with the table's reference."""

    ablation: Ablation
    name: str
    arm: Arm
    reference: Arm

    def departures(
        self, here: Mapping[str, object], reference: Mapping[str, object], declared: Collection[str] = ()
    ) -> Iterator[Departure]:
        """Yield a departure for each dotted name, of an aspect and what in it, whose values differ."""
        for name in dict.fromkeys((*here, *reference)):
            one, other = here.get(name, ABSENT), reference.get(name, ABSENT)
            if one != other:
                place = (self.ablation.slug, self.name, self.ablation.reference)
                aspect, _, what = name.partition(".")
                yield Departure(*place, aspect, what or aspect, _words(one), _words(other), declared=name in declared)


def comparisons(ablations: Iterable[Ablation]) -> Iterator[Comparison]:
    """Yield each arm of each table but the reference, with the network without SE where no row is that."""
    for ablation in ablations:
        names = [row.id for row in ablation.rows if row.id != ablation.reference]
        if all(row.arm != ablation.arm(PLAIN) for row in ablation.rows):
            names.append(PLAIN)
        reference = ablation.arm(ablation.reference)
        yield from (Comparison(ablation, name, ablation.arm(name), reference) for name in names)


def audit_declarations(ablations: Iterable[Ablation], protocol: Protocol) -> list[Departure]:
    """Compare field by field the runs that `protocol` gives each arm and its reference.

    A row declares its table's factor, the network without SE that it has no block, a series of seeds its seeds.
    """
    found: list[Departure] = []
    for pair in comparisons(ablations):
        arms = (pair.arm, pair.reference)
        # `se = false` declares the network without SE as a whole.
        whole = pair.ablation.factor == "block" or any(arm.variant.is_plain for arm in arms)
        declared = {"variant.block"} if whole else {f"variant.{pair.ablation.factor}"}
        if pair.arm.first_seed != pair.reference.first_seed:
            declared.add("seed")
        here, reference = (_fields(protocol.run_spec(arm.variant, arm.first_seed), variant_whole=whole) for arm in arms)
        found += pair.departures(here, reference, declared)
    return found


def audit_records(ablations: Iterable[Ablation], outcomes: Outcomes) -> list[Departure]:
    """Compare how the runs of each arm and of its reference came to be, diverged ones included; all is undeclared.

    Compared are sets of values, so that a study may be spread over machines if each arm is. Where the arms have seeds
    in common, counted from the start of their series, only those runs are compared: a further seed on another
    machine is no fault.
    """
    found: list[Departure] = []
    for pair in comparisons(ablations):
        runs = [outcomes.runs.get(arm, ()) for arm in (pair.arm, pair.reference)]
        here, reference = (_values(some) for some in _matched(*runs))
        if here and reference:
            found += pair.departures(here, reference)
    return found


def _matched(here: Sequence[RunRecord], reference: Sequence[RunRecord]) -> tuple[list[RunRecord], ...]:
    """The runs of two arms at the places in their series that both have; all runs if they have none in common."""
    one, other = ({run.spec.seed % SEED_SERIES for run in runs} for runs in (here, reference))
    kept = one & other or one | other
    return tuple([run for run in runs if run.spec.seed % SEED_SERIES in kept] for runs in (here, reference))


def _values(runs: Sequence[RunRecord]) -> dict[str, frozenset[object]]:
    """For each fact the set of its values over the runs."""
    told = [facts(run) for run in runs]
    return {
        name: frozenset(each.get(name, ABSENT) for each in told) for name in dict.fromkeys(n for f in told for n in f)
    }


def _fields(spec: RunSpec, *, variant_whole: bool) -> dict[str, object]:
    """All fields of a run; its block as one where the two have different blocks, or one of them none."""
    fields = spec.model_dump()
    if variant_whole:
        fields["variant"] = {"block": spec.variant.slug}
    elif spec.variant.se is not None:
        # One value, though it may be a table of stages.
        fields["variant"]["se"]["reduction"] = spec.variant.se.reduction
    return flat(fields)


def _words(value: object) -> str:
    if isinstance(value, tuple) and value and all(isinstance(each, tuple) for each in value):
        return ", ".join(f"{stage} = {each}" for stage, each in value)
    if isinstance(value, frozenset):
        return " and ".join(sorted(map(_words, value)))
    return str(getattr(value, "__name__", value))


def audit_networks(ablations: Iterable[Ablation], diffs: Mapping[Variant, NetworkDiff]) -> list[Departure]:
    """Compare the network of each row with the one without SE, so that any two rows differ in their blocks alone.

    What a row declares, its blocks beside those of the reference, is summed up in one departure. All else is
    undeclared: one departure for each aspect.
    """
    tables = list(ablations)
    found: list[Departure] = []
    for pair in comparisons(tables):
        here, reference = ({"modules.blocks": diffs[arm.variant].summary} for arm in (pair.arm, pair.reference))
        found += pair.departures(here, reference, here)
    for ablation in tables:
        names: dict[Variant, str] = {}
        for name in ablation.names:
            names.setdefault(ablation.arm(name).variant, name)
        for variant, name in names.items():
            by_aspect: dict[str, list[Difference]] = {}
            for each in diffs[variant].undeclared if variant in diffs else ():
                by_aspect.setdefault(each.aspect, []).append(each)
            for aspect, several in by_aspect.items():
                first, more = several[0], f" and {len(several) - 1} more" if len(several) > 1 else ""
                values = _words(first.here), _words(first.plain)
                found.append(Departure(ablation.slug, name, NO_SE, aspect, first.what + more, *values, declared=False))
    return found

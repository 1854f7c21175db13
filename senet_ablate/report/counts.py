"""Set counts beside the paper's printed figures: which match, and which convention would explain the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from senet_ablate.results.networks import Survey
from senet_ablate.spec.ablation import Ablation
from senet_ablate.spec.cost import PAPER_NETWORK, PAPER_RESOLUTION
from senet_ablate.spec.geometry import gated_sites
from senet_ablate.spec.network import Variant, at_stage
from senet_ablate.spec.printed import NetworkRow, NetworkTable
from senet_ablate.spec.protocol import Complexity


def rounds_to(count: float, printed: float, decimals: int) -> bool:
    """Whether `count`, in the printed unit, rounds to the printed figure (to nearest)."""
    return f"{count:.{decimals}f}" == f"{printed:.{decimals}f}"


@dataclass(frozen=True)
class Convention:
    """One way to count and round parameters."""

    with_bn_stats: bool
    biases: str
    rounded_up: bool

    def explains(self, complexity: Complexity, variant: Variant, printed: float) -> bool:
        """Whether counting this way gives the printed millions."""
        params = complexity.params_with_bn_stats if self.with_bn_stats else complexity.params
        millions = (params + se_biases(variant, self.biases)) / 1e6
        if self.rounded_up:
            millions = math.ceil(millions * 10) / 10
        return rounds_to(millions, printed, 1)

    def __str__(self) -> str:
        return (
            ("with" if self.with_bn_stats else "without")
            + " BN statistics"
            + {"none": "", "both": ", both SE biases", "expanding": ", expanding SE bias"}[self.biases]
            + (", rounded up" if self.rounded_up else "")
        )


CONVENTIONS = [
    Convention(with_bn_stats, biases, rounded_up)
    for rounded_up in (False, True)
    for biases in ("none", "expanding", "both")
    for with_bn_stats in (False, True)
]
OURS = CONVENTIONS[:2]
"""The two counts of the table itself: no biases, ordinary rounding, without and with BN statistics."""


def se_biases(variant: Variant, which: str) -> int:
    """How many biases the SE layers of the paper's network would have: none, of both layers or of the expanding one."""
    if variant.se is None or which == "none":
        return 0
    sites = list(gated_sites(PAPER_NETWORK, variant, PAPER_RESOLUTION))
    expanding = sum(channels for _, channels, _ in sites)
    ratio = variant.se.reduction
    reducing = sum(channels // at_stage(ratio, shape.stage, "se.reduction") for shape, channels, _ in sites)
    return expanding + (reducing if which == "both" else 0)


def count_table(
    ablations: Sequence[Ablation], counted: Mapping[Variant, Complexity], paper_scale: bool
) -> pd.DataFrame:
    """One line per row of every table: exact counts, and at the paper's scale its figures with the verdict on each.

    Columns: table, slug, row, label, params, params_with_bn_stats, macs, paper_params_m, paper_gflops, params_met
    (which of the two counts round to the printed figure), params_explained (where none does: the conventions that
    would), gflops_met.
    """
    lines = []
    for ablation in ablations:
        for row in ablation.rows:
            complexity = counted[row.variant]
            line = _line(ablation.table, ablation.slug, row.id, row.label, complexity)
            if paper_scale:
                params_m, gflops = (row.paper.params_m, row.paper.gflops) if row.paper else (None, None)
                line |= _paper_columns(complexity, row.variant, params_m, gflops)
            lines.append(line)
    return pd.DataFrame(lines)


def _line(table: int | None, slug: str, row: str, label: str, complexity: Complexity) -> dict[str, object]:
    return {"table": table, "slug": slug, "row": row, "label": label, **complexity.model_dump()}


def _paper_columns(
    complexity: Complexity,
    variant: Variant,
    params_m: float | None,
    gflops: float | None,
    conventions: Sequence[Convention] = CONVENTIONS,
    places: int = 2,
) -> dict[str, object]:
    """The printed figures, and which of the conventions give them; multiply-adds are rounded to so many places."""
    ways = [] if params_m is None else [way for way in conventions if way.explains(complexity, variant, params_m)]
    met = [str(way) for way in ways if way in OURS]
    return {
        "paper_params_m": params_m,
        "paper_gflops": gflops,
        "params_met": "; ".join(met),
        "params_explained": "" if met else "; ".join(map(str, ways)),
        "gflops_met": None if gflops is None else rounds_to(complexity.macs / 1e9, gflops, places),
    }


def network_lines(table: NetworkTable, row: NetworkRow, plain: Survey, se: Survey) -> list[dict[str, object]]:
    """Two lines, without SE and with it: exact counts, the printed figures, and whether a count rounds to each.

    Millions of parameters are printed to one place; billions of multiply-adds to two, millions of them to none.
    """
    lines = []
    for name, found, printed in ((row.id, plain, row.plain), (f"SE-{row.id}", se, row.se)):
        places = 3 if printed.gmacs and printed.gmacs < 1 else 2
        added = {"sites": len(found.sites), "added_params": found.added.params, "added_macs": found.added.macs}
        paper = _paper_columns(found.total, Variant(), printed.params_m, printed.gmacs, OURS, places)
        line = _line(table.table, table.slug, name, row.label, found.total)
        lines.append(line | added | paper | {"note": row.note})
    return lines

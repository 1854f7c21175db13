"""Words and forms of numbers that all pages share."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import NamedTuple

from senet_ablate.spec.claims import Metric

MISSING = "–"
MARK = {"reproduced": "✓", "contradicted": "✗", "not resolved": "?"}
WORDS: dict[str, str] = {"reproduced": "holds here", "contradicted": "fails here", "not resolved": "open"}
"""A verdict in words: of the setting at hand, not of the paper."""


class MetricWords(NamedTuple):
    """What a metric is called in a sentence, its unit, and what it is called above a column."""

    name: str
    unit: str
    heading: str

    @property
    def axis(self) -> str:
        """What an axis says."""
        return f"{self.name}, {self.unit}"

    @property
    def points(self) -> str:
        """Unit of a difference."""
        return "points" if self.unit == "%" else self.unit

    @property
    def difference(self) -> str:
        """What the axis of a difference says."""
        return f"difference of {self.name}, {self.points}"

    @property
    def most(self) -> float:
        """The largest value that it can have."""
        return 100.0 if self.unit == "%" else math.inf


METRICS: dict[Metric, MetricWords] = {
    "top1_err": MetricWords("top-1 error", "%", "top-1 err. %"),
    "top5_err": MetricWords("top-5 error", "%", "top-5 err. %"),
    "cross_entropy": MetricWords("cross-entropy", "nats", "cross-entropy"),
}


def percent(share: float) -> str:
    """A share as it is printed: `95 %`, `98.45 %`."""
    return f"{100 * share:.4g} %"


def counted(count: int, one: str, several: str) -> str:
    """A number with its word, in the singular or plural."""
    return f"{count} {one if count == 1 else several}"


def span(counts: Collection[int], to: str = " to ") -> str:
    """The least and the largest of some numbers: `3 to 5`; `3` where they are one."""
    least, most = min(counts), max(counts)
    return f"{least}" if least == most else f"{least}{to}{most}"


def seeds_text(values: Iterable[float]) -> str:
    """Values of single seeds in the cell of a file, as figures draw them."""
    return " ".join(f"{value:.6g}" for value in values)

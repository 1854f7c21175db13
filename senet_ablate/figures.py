"""Plots of error against parameter overhead and against multiply-add overhead, ours above the paper's.

Arms are told apart by marker and direct label, not by colour, so that they can be read in grey print.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from senet_ablate.counting import PAPER_NETWORK, PAPER_RESOLUTION
from senet_ablate.overhead import added_cost
from senet_ablate.tables import Table

MARKERS = "osD^vPX*"
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "svg.fonttype": "path",
    "svg.hashsalt": "senet-ablate",  # else the same records give other bytes each time
}
MARKER_STYLE: dict[str, Any] = {
    "markersize": 5,
    "color": "black",
    "markerfacecolor": "white",
    "markeredgewidth": 1.1,
}
SIDE_STEP = 0.04
"""Distance between arms of equal cost, whose bars would cover each other, in widths of the axes."""

LABEL_HEIGHT = 0.075
"""Least distance of two labels, in heights of the axes."""


@dataclass(frozen=True)
class Point:
    """One arm in a panel: overhead, error in percent, half of its interval (None: not known) and its name."""

    x: float
    y: float
    spread: float | None
    label: str
    marker: str


def plot_table(table: Table) -> Figure:
    """Draw a filled table: error against added parameters (left) and added multiply-adds (right).

    Arms of equal cost stand side by side. The upper panels are this study (mean and its 95 % interval), the lower ones
    the paper's single runs at its own scale. Arms without a run are left out above and named in the title.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 5.4), layout="constrained")
        in_paper = any(row.paper for row in table.ablation.rows)
        figure.set_size_inches(7.2, 5.4 if in_paper else 2.9)
        axes = figure.subplots(2 if in_paper else 1, 2, sharey="row", squeeze=False)
        network, resolution = table.pin.protocol.network, table.pin.protocol.data.resolution
        frame = table.frame
        lines = frame.to_dict("records")
        for column, (field, quantity) in enumerate((("params", "parameters"), ("macs", "multiply-adds"))):
            ours, paper = [], []
            for number, line in enumerate(lines):
                variant = table.ablation.row(line["row"]).variant
                marker = MARKERS[number % len(MARKERS)]
                x = getattr(added_cost(network, variant, resolution), field)
                if line["n"]:
                    half = line["top1_err_half"]
                    spread = None if half is None or np.isnan(half) else half
                    ours.append(Point(x, line["top1_err_mean"], spread, line["label"], marker))
                x = getattr(added_cost(PAPER_NETWORK, variant, PAPER_RESOLUTION), field)
                if table.ablation.row(line["row"]).paper:
                    paper.append(Point(x, line["paper_top1_err"], None, line["label"], marker))
            for panel, points in zip(axes[:, column], (ours, paper), strict=False):  # a table of ours has no second
                _panel(panel, points, quantity)
        missing = [line["label"] for line in lines if not line["n"]]
        seeds = sorted({line["n"] for line in lines if line["n"]})
        counts = " to ".join(str(n) for n in sorted({seeds[0], seeds[-1]})) if seeds else "0"
        absent = f"; not run: {', '.join(missing)}" if missing else ""
        axes[0, 0].set_title(
            f"This study: {table.pin.protocol.name}, n = {counts} seeds, mean and 95 % interval{absent}"
        )
        if in_paper:
            axes[1, 0].set_title("The paper: ResNet-50 on ImageNet, one run each")
        for row in axes:
            row[0].set_ylabel("top-1 error, %")
        title = table.ablation.heading
        if frame["added_params"].duplicated().any():
            title += " (arms of equal cost stand side by side)"
        figure.suptitle(title, x=0.01, ha="left", fontsize=9)
        return figure


def _panel(axes: Axes, points: Sequence[Point], quantity: str) -> None:
    largest = max((abs(point.x) for point in points), default=0.0)
    units = ((1e9, ", billion"), (1e6, ", million"), (1e3, ", thousand"), (0, ""))
    least, unit = next(pair for pair in units if largest >= pair[0])
    scale = least or 1.0
    axes.set_xlabel(f"added {quantity}{unit}")
    if not points:
        axes.text(0.5, 0.5, "no finished run yet", transform=axes.transAxes, ha="center", color="0.4")
        axes.set(xticks=[], yticks=[])
        return
    width = 1.2 * (largest / scale or 1.0)
    low = min(point.y - (point.spread or 0) for point in points)
    high = max(point.y + (point.spread or 0) for point in points)
    margin = 0.12 * (high - low) or 0.5
    axes.set(xlim=(-0.08 * width, 0.92 * width), ylim=(low - margin, high + margin))
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    for point, aside in zip(points, side_by_side([point.x for point in points]), strict=True):
        axes.errorbar(
            point.x / scale + SIDE_STEP * width * aside,
            point.y,
            yerr=point.spread,
            fmt=point.marker,
            **MARKER_STYLE,
            elinewidth=0.8,
            capsize=2.5,
        )
    _labels(axes, points)


def side_by_side(positions: Sequence[float]) -> list[float]:
    """Steps to the side for points of equal position, centred on it: 0 for one alone, -0.5 and 0.5 for two."""
    seen: Counter[float] = Counter()
    totals = Counter(positions)
    steps = []
    for position in positions:
        steps.append(seen[position] - (totals[position] - 1) / 2)
        seen[position] += 1
    return steps


def _labels(axes: Axes, points: Sequence[Point]) -> None:
    """Name each point, with its marker, in a column at the right, as near to the point's height as others allow."""
    low, high = axes.get_ylim()
    order = sorted(points, key=lambda point: point.y)
    wished = np.array([(point.y - low) / (high - low) for point in order])
    for point, place in zip(order, spread_out(wished, LABEL_HEIGHT), strict=True):
        axes.plot(1.05, place, point.marker, transform=axes.transAxes, clip_on=False, **MARKER_STYLE)
        axes.text(1.09, place, point.label, transform=axes.transAxes, va="center", fontsize=7)


def spread_out(wished: np.ndarray, distance: float) -> np.ndarray:
    """Move rising positions as little as needed (least squares) so that neighbours are at least `distance` apart.

    Isotonic regression of the positions less their minimal offsets.
    """
    offsets = distance * np.arange(len(wished))
    return isotonic_regression(wished - offsets).x + offsets


def save(figure: Figure, kind: str) -> bytes:
    """The figure as `svg` or `png`; the same records give the same bytes."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=200, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return buffer.getvalue()

"""The Pareto figure: error of every network against latency, parameters and multiply-adds, with the front."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from operator import itemgetter

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from senet_ablate.report.figures.style import COLOURS, PAGE, axis_range, narrow, style
from senet_ablate.report.figures.table import UNITS
from senet_ablate.report.findings import METRIC_NAMES
from senet_ablate.report.tables import UNITS_OF, Table
from senet_ablate.spec.claims import Metric

COSTS = {"one_image_ms": "latency of one image, ms", "params": "parameters", "macs": "multiply-adds of one image"}
"""What an error is drawn against; the first only where it was measured."""


def pareto_frame(tables: Sequence[Table]) -> pd.DataFrame:
    """Every network of the tables once: its name, error with interval, latency with its range, parameters, MACs."""
    parts = []
    for table in tables:
        frame = table.frame[table.frame["n"] > 0]
        reference = table.ablation.row(table.ablation.reference).arm.slug
        slugs = [table.ablation.row(row).arm.slug for row in frame["row"]]
        half = frame["top1_err_half"].astype(float)
        parts.append(
            pd.DataFrame(
                {
                    "network": slugs,
                    "label": [_short(slug, reference) for slug in slugs],
                    "n": frame["n"],
                    "error": frame["top1_err_mean"].astype(float),
                    "low": frame["top1_err_mean"] - half,
                    "high": frame["top1_err_mean"] + half,
                    **{name: frame[name] for name in ("one_image_ms", "one_image_ms_low", "one_image_ms_high")},
                    **{name: frame[name] for name in ("params", "macs")},
                }
            )
        )
    return pd.concat(parts, ignore_index=True).drop_duplicates("network", ignore_index=True)


def _short(slug: str, reference: str) -> str:
    """A network's name without what it shares with the reference: `tanh` of `se-r16-tanh`."""
    return "no SE" if slug == "plain" else slug.removeprefix(f"{reference}-")


def front(costs: Sequence[float], errors: Sequence[float]) -> list[int]:
    """The places that nothing beats in both cost and error, by rising cost.

    >>> front([1, 2, 3], [5, 6, 4])
    [0, 2]
    """
    best, kept = np.inf, []
    for place in sorted(range(len(costs)), key=lambda at: (costs[at], errors[at])):
        if errors[place] < best:
            best = errors[place]
            kept.append(place)
    return kept


def plot_pareto(frame: pd.DataFrame, metric: Metric = "top1_err", width: float = PAGE) -> Figure:
    """Draw a panel for each cost that is known, one above the other; no point is moved.

    The line joins the networks that no other beats in both mean error and cost. Labels move away from each other.
    """
    costs = [cost for cost in COSTS if frame[cost].notna().any()] or ["params"]
    with style():
        height = 2.6 if narrow(width) else 3.0
        figure = Figure(figsize=(width, height * len(costs)), layout="constrained")
        for axes, cost in zip(figure.subplots(len(costs), 1, squeeze=False)[:, 0], costs, strict=True):
            _draw(axes, frame[frame[cost].notna()].reset_index(drop=True), cost, metric)
        figure.canvas.draw()  # sizes of labels are known once the layout is
        for axes in figure.axes:
            _label(axes, frame[frame[str(axes.get_gid())].notna()].reset_index(drop=True), str(axes.get_gid()))
        return figure


def _scaled(frame: pd.DataFrame, cost: str) -> tuple[float, str]:
    if cost == "one_image_ms":
        return 1.0, ""
    return next(pair for pair in UNITS if frame[cost].max() >= pair[0] or pair[0] == 1)


def _draw(axes: Axes, frame: pd.DataFrame, cost: str, metric: Metric) -> None:
    scale, unit = _scaled(frame, cost)
    x, y = frame[cost].astype(float) / scale, frame["error"]
    axes.set_gid(cost)
    axes.set(xlabel=f"{COSTS[cost]}{', ' * bool(unit)}{unit}", ylabel=f"{METRIC_NAMES[metric]}, {UNITS_OF[metric]}")
    axes.grid(visible=True)
    if frame.empty:
        axes.text(0.5, 0.5, "no finished run yet", transform=axes.transAxes, ha="center", color="0.4")
        axes.set(xticks=[], yticks=[])
        return
    low, high = frame["low"].fillna(y), frame["high"].fillna(y)
    top = 100.0 if UNITS_OF[metric] == "%" else np.inf
    axes.set_ylim(axis_range(low.tolist(), high.tolist(), floor=0.0, top=top))
    if cost == "one_image_ms":
        left, right = frame["one_image_ms_low"].astype(float), frame["one_image_ms_high"].astype(float)
        axes.hlines(y, left, right, color="0.7", linewidth=0.7, zorder=1)
        axes.set_xlim(axis_range(left.tolist(), right.tolist(), floor=0.0))
    else:
        axes.set_xlim(axis_range(x.tolist(), x.tolist(), floor=0.0))
    axes.vlines(x, low, high, color="0.7", linewidth=0.7, zorder=1)
    best = front(x.tolist(), y.tolist())
    axes.plot(x[best], y[best], color=COLOURS[1], linewidth=1.2, zorder=2, drawstyle="steps-post")
    axes.plot(x, y, "o", color="black", markersize=3.5, zorder=3)
    axes.plot(x[best], y[best], "o", color=COLOURS[1], markersize=5, zorder=4)


DIRECTIONS = tuple((np.cos(angle), np.sin(angle)) for angle in np.arange(0, 2 * np.pi, np.pi / 8))
DISTANCES = (5.0, 10.0, 16.0, 24.0, 34.0, 46.0, 60.0)
"""Points from a network's mark to its label that are tried, nearest first."""


def _label(axes: Axes, frame: pd.DataFrame, cost: str) -> None:
    """Name each point beside it, where the name covers least of the other points and names.

    A point off the scale is named at the edge with its value.
    """
    scale, _ = _scaled(frame, cost)
    pixel = axes.figure.dpi / 72
    box = axes.get_window_extent()
    low, high = axes.get_ylim()
    inside = np.clip(frame["error"], low, high)
    points = axes.transData.transform(np.column_stack([frame[cost].astype(float) / scale, inside]))
    taken: list[tuple[float, float, float, float]] = [
        (x - 3 * pixel, y - 3 * pixel, x + 3 * pixel, y + 3 * pixel) for x, y in points
    ]
    best = front(frame[cost].tolist(), frame["error"].tolist())
    for one, two in pairwise(best):  # the steps of the front, each a thin box
        (x0, y0), (x1, y1) = points[one], points[two]
        taken += [(x0, y0 - 2 * pixel, x1, y0 + 2 * pixel), (x1 - 2 * pixel, y1, x1 + 2 * pixel, y0)]
    names, errors = frame["label"].tolist(), frame["error"].tolist()
    for at in sorted(range(len(frame)), key=lambda at: -points[at, 1]):
        name, error = names[at], errors[at]
        beyond = not low <= error <= high
        text = str(name) if not beyond else f"{name} {error:.1f} {'↑' if error > high else '↓'}"
        wide, tall = (3.9 * len(text) + 2) * pixel, 7.5 * pixel
        area = _free_place(points[at], (wide, tall), (box.x0, box.y0, box.x1, box.y1), taken, pixel)
        taken.append(area)
        middle = ((area[0] + area[2]) / 2, (area[1] + area[3]) / 2)
        point, spot = axes.transData.inverted().transform([points[at], middle]).tolist()
        line = None if beyond else {"arrowstyle": "-", "color": "0.5", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
        axes.annotate(text, point, xytext=spot, textcoords="data",
                      ha="center", va="center", fontsize=6.5, arrowprops=line, zorder=5)  # fmt: skip


Box = tuple[float, float, float, float]
"""Left, bottom, right, top, in pixels."""


def _free_place(point: np.ndarray, size: tuple[float, float], within: Box, taken: Sequence[Box], pixel: float) -> Box:
    """Where a label of this size covers least of what is taken, near its point and inside the panel."""
    places = []
    for distance in DISTANCES:
        for across, up in DIRECTIONS:
            x = point[0] + across * distance * pixel + (across - 1) * size[0] / 2
            y = point[1] + up * distance * pixel - size[1] / 2
            place = (x, y, x + size[0], y + size[1])
            outside = x < within[0] or y < within[1] or place[2] > within[2] or place[3] > within[3]
            covered = sum(_overlap(place, other) for other in taken)
            places.append((1e6 * outside + 4 * covered + distance * pixel, place))
    return min(places, key=itemgetter(0))[1]


def _overlap(one: Box, other: Box) -> float:
    """Area that two boxes have in common."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    up = min(one[3], other[3]) - max(one[1], other[1])
    return across * up if across > 0 and up > 0 else 0.0

"""The Pareto figure: error of every network against latency, parameters and multiply-adds, with the front."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from senet_ablate.report.figures.style import COLOURS, PAGE, axis_range, narrow, scaled, settled, style
from senet_ablate.report.tables import Table
from senet_ablate.report.words import METRICS
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
        mean, half = frame["top1_err_mean"].astype(float), frame["top1_err_half"].astype(float)
        parts.append(
            pd.DataFrame(
                {
                    "network": slugs,
                    "label": [_short(slug, reference) for slug in slugs],
                    "n": frame["n"],
                    "error": mean,
                    "low": (mean - half).clip(lower=0.0),
                    "high": (mean + half).clip(upper=METRICS[table.metric].most),
                    **{name: frame[name] for name in ("one_image_ms", "one_image_ms_low", "one_image_ms_high")},
                    **{name: frame[name] for name in ("params", "macs")},
                }
            )
        )
    return settled(pd.concat(parts, ignore_index=True).drop_duplicates("network", ignore_index=True))


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
    return (1.0, COSTS[cost]) if cost == "one_image_ms" else scaled(COSTS[cost], frame[cost].max())


def _draw(axes: Axes, frame: pd.DataFrame, cost: str, metric: Metric) -> None:
    scale, label = _scaled(frame, cost)
    x, y = frame[cost].astype(float) / scale, frame["error"]
    axes.set_gid(cost)
    axes.set(xlabel=label, ylabel=METRICS[metric].axis)
    axes.grid(visible=True)
    if frame.empty:
        axes.text(0.5, 0.5, "no finished run yet", transform=axes.transAxes, ha="center", color="0.4")
        axes.set(xticks=[], yticks=[])
        return
    low, high = frame["low"].fillna(y), frame["high"].fillna(y)
    axes.set_ylim(axis_range(low.tolist(), high.tolist(), floor=0.0, top=METRICS[metric].most))
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


ANGLES = np.arange(0, 2 * np.pi, np.pi / 8)
DISTANCES = (5.0, 10.0, 16.0, 24.0, 34.0, 46.0, 60.0)
"""Points from a network's mark to its label that are tried, nearest first."""

PASSES = 4
"""How often every label is placed anew, knowing the others."""


def _label(axes: Axes, frame: pd.DataFrame, cost: str) -> None:
    """Name each point beside it, where name and line to the point cover and cross least.

    A point off the scale is named at the edge with its value.
    """
    scale, _ = _scaled(frame, cost)
    pixel = axes.figure.dpi / 72
    panel = np.array(axes.get_window_extent().extents)
    low, high = axes.get_ylim()
    names, errors = frame["label"].tolist(), frame["error"].tolist()
    inside = np.clip(frame["error"], low, high)
    points = axes.transData.transform(np.column_stack([frame[cost].astype(float) / scale, inside]))
    fixed = [np.concatenate([points - 3 * pixel, points + 3 * pixel], axis=1)]
    for one, two in pairwise(front(frame[cost].tolist(), errors)):  # the steps of the front, each a thin box
        (x0, y0), (x1, y1) = points[one], points[two]
        steps = [(x0, y0 - 2 * pixel, x1, y0 + 2 * pixel), (x1 - 2 * pixel, y1, x1 + 2 * pixel, y0)]
        fixed.append(np.array(steps))
    texts = [
        name if low <= error <= high else f"{name} {error:.1f} {'↑' if error > high else '↓'}"
        for name, error in zip(names, errors, strict=True)
    ]
    choices = [_choices(point, (3.9 * len(text) + 2, 7.5), pixel) for point, text in zip(points, texts, strict=True)]
    distances = np.repeat(DISTANCES, len(ANGLES)) * pixel
    chosen = {at: boxes[0] for at, boxes in enumerate(choices)}
    for _ in range(PASSES):
        for at, boxes in enumerate(choices):
            others = [box for other, box in chosen.items() if other != at]
            lines = [np.concatenate([points[other], _middle(box)]) for other, box in chosen.items() if other != at]
            outside = (boxes[:, :2] < panel[:2]).any(axis=1) | (boxes[:, 2:] > panel[2:]).any(axis=1)
            covered = _overlap(boxes, np.concatenate([*fixed, np.array(others).reshape(-1, 4)]))
            crossed = _crossings(points[at], _middle(boxes), np.array(lines).reshape(-1, 4))
            chosen[at] = boxes[np.argmin(1e6 * outside + 4 * covered + 40 * pixel * crossed + distances)]
    for at, text in enumerate(texts):
        point, spot = axes.transData.inverted().transform([points[at], _middle(chosen[at])]).tolist()
        line = {"arrowstyle": "-", "color": "0.5", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
        axes.annotate(text, point, xytext=spot, textcoords="data", ha="center", va="center", fontsize=6.5,
                      arrowprops=line, zorder=5)  # fmt: skip


def _choices(point: np.ndarray, size: tuple[float, float], pixel: float) -> np.ndarray:
    """Boxes (left, bottom, right, top, in pixels) in which a label of this size may stand, nearest first."""
    wide, tall = size[0] * pixel, size[1] * pixel
    boxes = []
    for distance in DISTANCES:
        x = point[0] + np.cos(ANGLES) * distance * pixel + (np.cos(ANGLES) - 1) * wide / 2
        y = point[1] + np.sin(ANGLES) * distance * pixel - tall / 2
        boxes.append(np.column_stack([x, y, x + wide, y + tall]))
    return np.concatenate(boxes)


def _middle(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Area that each box has in common with the others."""
    least = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    most = np.maximum(boxes[:, None, :2], others[None, :, :2])
    return np.clip(least - most, 0, None).prod(axis=2).sum(axis=1)


def _crossings(start: np.ndarray, ends: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """How many of the lines (x0, y0, x1, y1) each line from `start` to one of `ends` crosses."""

    def side(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        return np.sign(
            (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
        )

    one, two, ends = lines[None, :, :2], lines[None, :, 2:], ends[:, None]
    apart = side(start, ends, one) * side(start, ends, two) < 0
    return (apart & (side(one, two, start) * side(one, two, ends) < 0)).sum(axis=1)

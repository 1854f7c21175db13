"""Plots of error against added parameters, added multiply-adds and measured time, ours above the paper's.

Arms are told apart by marker and direct label, not by colour, so that they can be read in grey print.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from senet_ablate.errors import UserError
from senet_ablate.report.tables import Table
from senet_ablate.results.arms import Outcomes
from senet_ablate.results.records import CURVE_FILE, CurvePoint, read_curve
from senet_ablate.spec.ablation import Ablation
from senet_ablate.spec.cost import PAPER_NETWORK, PAPER_RESOLUTION, added_cost

MARKERS = "osD^vPX*<"
OWN = ("backend", "interactive")
"""What a session decides for itself."""

STYLE: dict[Any, Any] = {name: value for name, value in mpl.rcParamsDefault.items() if name not in OWN} | {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "svg.fonttype": "path",
    "text.parse_math": False,  # a $ in a label is one
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

WILD = 10
"""Times the usual interval from which on an arm's interval does not stretch the axis."""

LABEL_HEIGHT = 0.075
"""Least distance of two labels, in heights of the axes."""


THIS_STUDY, PAPER = "this study", "the paper"

WIDTH = 7.2
"""Inches of a figure of two columns."""

COLUMN_WIDTH = 3.5
"""Inches of one column of a two-column page (89 mm)."""

COSTS = {"params": "added parameters", "macs": "added multiply-adds", "one_image_ms": "ms of one image"}
"""What an error is drawn against; the last only where it was measured, and never the paper's."""


@dataclass(frozen=True)
class Point:
    """One arm in a panel: cost, error in percent, half of its interval (None: not known) and its name."""

    x: float
    y: float
    spread: float | None
    label: str
    marker: str
    filled: bool = False


def table_points(table: Table) -> pd.DataFrame:
    """What `plot_table` draws: source, cost and row with x, error and half of its interval, for arms that have runs."""
    lines = []
    for line in table.frame.to_dict("records"):
        variant = table.ablation.row(line["row"]).variant
        named = {"row": line["row"], "label": line["label"]}
        printed = not pd.isna(line["paper_top1_err"])
        paper = added_cost(PAPER_NETWORK, variant, PAPER_RESOLUTION) if printed else None
        for cost in COSTS:
            x = line.get(cost if cost == "one_image_ms" else f"added_{cost}")
            if line["n"] and x is not None and not pd.isna(x):
                error = {"error": line["top1_err_mean"], "half": line["top1_err_half"]}
                lines.append({"source": THIS_STUDY, "cost": cost, **named, "x": x, **error})
            if cost != "one_image_ms" and paper is not None:
                error = {"error": line["paper_top1_err"], "half": None}
                lines.append({"source": PAPER, "cost": cost, **named, "x": getattr(paper, cost), **error})
    return pd.DataFrame(lines, columns=["source", "cost", "row", "label", "x", "error", "half"])


def plot_table(table: Table) -> Figure:
    """Draw a filled table: error against each cost, this study above, the paper's single runs at its own scale below.

    Costs are added parameters, added multiply-adds and, where it was measured, the time of one image. Arms of equal
    cost stand side by side. Arms without a run are left out above and named in the title.
    """
    points, lines = table_points(table), table.frame.to_dict("records")
    seeds = sorted({line["n"] for line in lines if line["n"]})
    counts = " to ".join(str(n) for n in sorted({seeds[0], seeds[-1]})) if seeds else "0"
    missing = [line["label"] for line in lines if not line["n"]]
    absent = f"; not run: {', '.join(missing)}" if missing else ""
    title = table.ablation.heading
    if table.frame["added_params"].duplicated().any():
        title += " (arms of equal cost stand side by side)"
    rows = {THIS_STUDY: f"This study: {table.pin.protocol.name}, n = {counts} seeds, mean and 95 % interval{absent}"}
    if any(row.paper for row in table.ablation.rows):
        rows[PAPER] = "The paper: ResNet-50 on ImageNet, one run each"
    return plot_points(points, title, rows, [line["row"] for line in lines])


def plot_column(table: Table) -> Figure:
    """Draw errors against added parameters alone, one column wide and without a title, for a page with a caption."""
    rows = {THIS_STUDY: f"This study: {table.pin.protocol.name}"}
    if any(row.paper for row in table.ablation.rows):
        rows[PAPER] = "The paper: ImageNet, one run each"
    points = table_points(table)
    names = [row.id for row in table.ablation.rows]
    return plot_points(points[points["cost"] == "params"], "", rows, names, COLUMN_WIDTH)


def plot_networks(tables: Sequence[Table]) -> tuple[Figure, pd.DataFrame]:
    """Draw every network of several tables once, by its own name, this study alone; the figure and what it shows."""
    parts = []
    for table in tables:
        slugs = {row.id: row.arm.slug for row in table.ablation.rows}
        points = table_points(table)
        own = points[points["source"] == THIS_STUDY]
        parts.append(own.assign(row=own["row"].map(slugs)))
    points = pd.concat(parts, ignore_index=True).drop_duplicates(["cost", "row"])
    points["label"] = points["row"]
    order = list(dict.fromkeys(row.arm.slug for table in tables for row in table.ablation.rows))
    name = tables[0].pin.protocol.name
    title = "Every network of the tables"
    return plot_points(points, title, {THIS_STUDY: f"This study: {name}, mean and 95 % interval"}, order), points


def plot_points(
    points: pd.DataFrame, title: str, rows: Mapping[str, str], order: Sequence[str], width: float = WIDTH
) -> Figure:
    """Draw errors against costs: a row of panels for each source, with its title, and a panel for each cost there is.

    `order` are the arms' names; each keeps its marker in all panels.
    """
    markers = {name: (MARKERS[n % len(MARKERS)], n >= len(MARKERS)) for n, name in enumerate(order)}
    costs = [cost for cost in COSTS if (points["cost"] == cost).any()] or ["params"]
    with mpl.rc_context(STYLE):
        height = max(2.5, 0.17 * len(order))
        figure = Figure(figsize=(width, 0.4 * bool(title) + height * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), len(costs), sharey="row", squeeze=False)
        for line, (source, heading) in zip(axes, rows.items(), strict=True):
            own = points[points["source"] == source]
            shown = [cost for cost in costs if source != PAPER or cost != "one_image_ms"]
            for panel, cost in zip(line, costs, strict=True):
                panel.set_visible(cost in shown)
                if cost in shown:  # an empty panel would take the ticks from those that share its axis
                    _panel(panel, _points(own[own["cost"] == cost], markers), COSTS[cost])
            if not own.empty:
                everyone = _points(own[own["cost"] == costs[0]], markers)
                _fit_height(line[0], everyone)
                _labels(line[len(shown) - 1], everyone, beside=len(shown) < len(costs))
            line[0].set_title(heading)
            line[0].set_ylabel("top-1 error, %")
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=9)
        return figure


def _points(frame: pd.DataFrame, markers: Mapping[str, tuple[str, bool]]) -> list[Point]:
    return [
        Point(
            line["x"],
            line["error"],
            None if pd.isna(line["half"]) else line["half"],
            line["label"],
            *markers[line["row"]],
        )
        for line in frame.to_dict("records")
    ]


def _fit_height(axes: Axes, points: Sequence[Point]) -> None:
    usual = np.median([point.spread or 0 for point in points])
    # An arm whose runs collapse would press all others flat; where it lies is said in its label.
    shown = [point for point in points if (point.spread or 0) <= WILD * usual]
    low = min(point.y - (point.spread or 0) for point in shown)
    high = max(point.y + (point.spread or 0) for point in shown)
    margin = 0.12 * (high - low) or 0.5
    axes.set_ylim(low - margin, high + margin)


def _panel(axes: Axes, points: Sequence[Point], quantity: str) -> None:
    largest = max((abs(point.x) for point in points), default=0.0)
    units = ((1e9, ", billion"), (1e6, ", million"), (1e3, ", thousand"), (0, ""))
    least, unit = next(pair for pair in units if largest >= pair[0])
    scale = least or 1.0
    axes.set_xlabel(f"{quantity}{unit}")
    if not points:
        axes.text(0.5, 0.5, "no finished run yet", transform=axes.transAxes, ha="center", color="0.4")
        axes.set(xticks=[], yticks=[])
        return
    places = [point.x / scale for point in points]
    # Overheads start at nothing added; a time has no such zero.
    start = 0.0 if quantity.startswith("added") else min(places)
    width = 1.2 * ((max(places) - start) or 1.0)
    drawn = [place + SIDE_STEP * width * aside for place, aside in zip(places, side_by_side(places), strict=True)]
    axes.set_xlim(start - 0.08 * width, max(start + 0.92 * width, max(drawn) + 0.04 * width))
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    for point, place in zip(points, drawn, strict=True):
        axes.errorbar(
            place,
            point.y,
            yerr=point.spread,
            fmt=point.marker,
            **_marker_style(point),
            elinewidth=0.8,
            capsize=2.5,
        )


def _marker_style(point: Point) -> dict[str, Any]:
    return MARKER_STYLE | ({"markerfacecolor": "black"} if point.filled else {})


def side_by_side(positions: Sequence[float]) -> list[float]:
    """Steps to the side for points of equal position, centred on it: 0 for one alone, -0.5 and 0.5 for two."""
    seen: Counter[float] = Counter()
    totals = Counter(positions)
    steps = []
    for position in positions:
        steps.append(seen[position] - (totals[position] - 1) / 2)
        seen[position] += 1
    return steps


def _labels(axes: Axes, points: Sequence[Point], *, beside: bool) -> None:
    """Name each point, with its marker, in a column at the right, as near to the point's height as others allow.

    `beside`: where a panel is left out, which has room enough, so that none is made.
    """
    low, high = axes.get_ylim()
    order = sorted(points, key=lambda point: point.y)
    wished = np.clip([(point.y - low) / (high - low) for point in order], 0, 1)
    for point, place in zip(order, spread_out(wished, LABEL_HEIGHT), strict=True):
        (marker,) = axes.plot(
            1.05, place, point.marker, transform=axes.transAxes, clip_on=False, **_marker_style(point)
        )
        beyond = "" if low <= point.y <= high else f" ({point.y:.0f} %)"
        name = axes.text(1.09, place, point.label + beyond, transform=axes.transAxes, va="center", fontsize=7)
        for part in (marker, name):
            part.set_in_layout(not beside)


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


COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F")
"""Okabe and Ito's colours, which the colour-blind tell apart; yellow, too faint for a line, gave way to grey."""

MEASURES = {"train_loss": "training loss, nats", "val_top1_err": "validation error, %"}
LABEL_DISTANCE = 0.07

EARLY = 0.2
"""Share of the epochs at the start that may leave the panel, so that what is decided later can be seen."""


def curves_frame(ablation: Ablation, outcomes: Outcomes) -> pd.DataFrame:
    """All epochs of all finished runs of a table: row, label, seed and the columns of `curve.csv`.

    Raises:
        UserError: a curve is damaged.
    """
    parts = []
    for row in ablation.rows:
        for record in outcomes.runs.get(row.arm, ()):
            path = outcomes.study.run(record.run_id).path / CURVE_FILE
            points = read_curve(path)
            if not points or [point.epoch for point in points] != list(range(1, len(points) + 1)):
                raise UserError(f"{path}: damaged curve: epochs are not 1, 2, …; remove the folder to run it again")
            curve = pd.DataFrame([point.model_dump() for point in points], columns=list(CurvePoint.model_fields))
            curve.insert(0, "seed", record.spec.seed)
            curve.insert(0, "label", row.label)
            curve.insert(0, "row", row.id)
            parts.append(curve)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def plot_curves(frame: pd.DataFrame, heading: str) -> Figure:
    """Draw training loss and validation error over the epochs; a band from the least to the largest of the seeds."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.7), layout="constrained")
        for axes, (measure, name) in zip(figure.subplots(1, 2), MEASURES.items(), strict=True):
            ends = []
            for colour, (label, runs) in zip(COLOURS, frame.groupby("label", sort=False), strict=False):
                by_epoch = runs.groupby("epoch")[measure]
                middle, low, high = by_epoch.median(), by_epoch.min(), by_epoch.max()
                axes.fill_between(middle.index, low, high, color=colour, alpha=0.12, linewidth=0)
                axes.plot(middle.index, middle, color=colour, linewidth=1.1)
                if np.isfinite(middle.iloc[-1]):  # else it ends nowhere
                    ends.append((float(middle.iloc[-1]), str(label), colour))
            axes.set(xlabel="epoch", ylabel=name, xlim=(1, max(2, frame["epoch"].max())))
            later = frame.loc[frame["epoch"] > EARLY * frame["epoch"].max(), measure].replace([np.inf, -np.inf], np.nan)
            if later.notna().any():
                low, high = later.min(), later.max()
                axes.set_ylim(low - 0.08 * (high - low) - 1e-9, high + 0.08 * (high - low) + 1e-9)
            axes.grid(axis="y", color="0.9", linewidth=0.6)
            low_end, high_end = axes.get_ylim()
            if not ends:
                continue
            ends.sort()
            wished = np.array([(end - low_end) / (high_end - low_end) for end, _, _ in ends])
            places = spread_out(wished, LABEL_DISTANCE)
            places += max(0.0, -places.min())  # none beside the ticks of the axis
            for (_, label, colour), place in zip(ends, places, strict=True):
                axes.text(1.02, place, label, color=colour, transform=axes.transAxes, va="center", fontsize=7)
        figure.suptitle(f"{heading}: median of the seeds, and their range", x=0.01, ha="left", fontsize=9)
        return figure

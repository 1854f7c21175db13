"""Learning curves: every seed as a thin line, the median as a thick one, the last third of the epochs enlarged."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from senet_ablate.errors import UserError
from senet_ablate.report.figures.style import COLOURS, DASHES, PAGE, narrow, spread_out, style
from senet_ablate.results.arms import Outcomes
from senet_ablate.results.records import CURVE_FILE, CurvePoint, read_curve
from senet_ablate.spec.ablation import Ablation

MEASURES = {"train_loss": "training loss, nats", "val_top1_err": "validation error, %"}
HEIGHT = 2.1
"""Inches of one panel."""

LABEL_HEIGHT = 8.0
"""Points between two labels at the ends of lines."""

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


def plot_curves(frame: pd.DataFrame, width: float = PAGE) -> Figure:
    """Draw training loss and validation error: all epochs on the left, the last third on the right with the names.

    At one column the validation error alone, one panel above the other.
    """
    last = int(frame["epoch"].max())
    spans = ((1, max(2, last)), (max(1, last - max(1, last // 3)), max(2, last)))
    small = narrow(width)
    measures = {"val_top1_err": MEASURES["val_top1_err"]} if small else MEASURES
    with style(frame["label"]) as unseen:
        frame = frame.assign(label=frame["label"].where(~frame["label"].isin(unseen), frame["row"]))
        figure = Figure(figsize=(width, 2 * HEIGHT), layout="constrained")
        panels = figure.subplots(2, 1 if small else 2, squeeze=False)
        for number, (measure, name) in enumerate(measures.items()):
            for place, (first, end) in enumerate(spans):
                axes = panels[place, 0] if small else panels[number, place]
                axes.set(xlim=(first, end), xlabel="epoch" if small or number else "")
                axes.set_ylabel("" if place and not small else name)
                axes.grid(axis="y")
                axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
                _draw(axes, frame, measure, first if place else max(1, round(EARLY * last)))
                if place or small:
                    _name_ends(axes, frame, measure)
        return figure


def _looks(frame: pd.DataFrame) -> dict[str, tuple[str, object]]:
    """Colour and dashes of each row's lines."""
    rows = frame["label"].unique()
    return dict(zip(rows, zip(itertools.cycle(COLOURS), itertools.cycle(DASHES), strict=False), strict=False))


def _draw(axes: Axes, frame: pd.DataFrame, measure: str, shown_from: int) -> None:
    finite = frame.replace([np.inf, -np.inf], np.nan)
    for label, (colour, dashes) in _looks(frame).items():
        runs = finite[finite["label"] == label]
        for _, run in runs.groupby("seed"):
            axes.plot(run["epoch"], run[measure], color=colour, linewidth=0.4, alpha=0.6)
        middle = runs.groupby("epoch")[measure].median()
        axes.plot(middle.index, middle, color=colour, linestyle=dashes, linewidth=1.4, label=label)
    later = finite.loc[finite["epoch"] >= shown_from, measure].dropna()
    if len(later):
        margin = 0.06 * (later.max() - later.min()) + 1e-9
        axes.set_ylim(max(0.0, later.min() - margin), later.max() + margin)


def _name_ends(axes: Axes, frame: pd.DataFrame, measure: str) -> None:
    """Each row's name at the end of its line, apart from each other."""
    looks = _looks(frame)
    ended = frame["epoch"] == frame.groupby("label")["epoch"].transform("max")
    last = frame[ended].groupby("label", sort=False)[measure].median()
    ends = sorted((float(value), str(label)) for label, value in last.items() if np.isfinite(value))
    if not ends:
        return
    low, high = axes.get_ylim()
    tall = HEIGHT * 72 * 0.75
    places = spread_out(np.array([np.clip((end - low) / (high - low), 0, 1) for end, _ in ends]), LABEL_HEIGHT / tall)
    places += max(0.0, -places.min())  # none beside the ticks of the axis
    for (_, label), place in zip(ends, places, strict=True):
        axes.text(1.02, place, label, color=looks[label][0], transform=axes.transAxes, va="center", fontsize=7)

"""Learning curves of a table's rows: the median of the seeds and their range, epoch by epoch."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from senet_ablate.errors import UserError
from senet_ablate.figures import STYLE, spread_out
from senet_ablate.results.arms import Outcomes
from senet_ablate.results.records import CURVE_FILE, CurvePoint, read_curve
from senet_ablate.spec.ablation import Ablation

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

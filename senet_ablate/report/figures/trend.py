"""One comparison of several studies against the protocol field in which they differ."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from senet_ablate.report.figures.forest import MARKS
from senet_ablate.report.figures.style import PAGE, SEEDS, narrow, style

WIDE = 8
"""Ratio of the largest to the least value from which on the axis is logarithmic."""


def plot_trend(frame: pd.DataFrame, xlabel: str, ylabel: str, width: float = PAGE) -> Figure:
    """Draw estimate, interval and single seeds of each study at the value of its field (column `value`, a number)."""
    with style():
        figure = Figure(figsize=(width, 2.6 if narrow(width) else 3.0), layout="constrained")
        axes = figure.subplots()
        axes.axhline(0, color="0.3", linewidth=0.8)
        axes.grid(axis="y")
        for line in frame.to_dict("records"):
            x, mark = line["value"], MARKS[line["verdict"]]
            if not pd.isna(line["low"]):
                axes.plot([x, x], [line["low"], line["high"]], color="black", linewidth=1)
            seeds = [float(value) for value in line["seeds"].split()]
            axes.scatter([x] * len(seeds), seeds, **SEEDS)
            face = "black" if mark.filled else "white"
            axes.plot(x, line["estimate"], mark.marker, color="black", markerfacecolor=face, markersize=5)
            axes.annotate(line["name"], (x, line["estimate"]), xytext=(6, 4), textcoords="offset points", fontsize=6.5)
        least, most = frame["value"].min(), frame["value"].max()
        if least > 0 and most / least >= WIDE:
            axes.set_xscale("log")
        axes.margins(x=0.15)
        axes.xaxis.set_major_locator(FixedLocator(sorted(set(frame["value"]))))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set(xlabel=xlabel, ylabel=ylabel)
        return figure

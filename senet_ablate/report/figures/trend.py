"""Comparisons of several studies against the protocol field in which they differ."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from senet_ablate.report.figures.forest import MARKS
from senet_ablate.report.figures.style import COLOURS, DASHES, PAGE, SEEDS, narrow, style

WIDE = 8
"""Ratio of the largest to the least value from which on the axis is logarithmic."""

APART = 0.012
"""Of the axis, between the marks of two lines at one value."""


def plot_trend(frame: pd.DataFrame, xlabel: str, ylabel: str, width: float = PAGE) -> Figure:
    """Draw estimate, interval and single seeds of each study at the value of its field (column `value`, a number).

    A column `line` names the comparison: those of one are joined, and the lines stand a little apart.
    """
    lines = list(dict.fromkeys(frame["line"])) if "line" in frame else [""]
    least, most = frame["value"].min(), frame["value"].max()
    log = least > 0 and most / least >= WIDE
    with style():
        figure = Figure(figsize=(width, 2.6 if narrow(width) else 3.0), layout="constrained")
        axes = figure.subplots()
        axes.axhline(0, color="0.3", linewidth=0.8)
        axes.grid(axis="y")
        for number, name in enumerate(lines):
            shown = frame[frame["line"] == name] if name else frame
            step = (number - (len(lines) - 1) / 2) * APART
            places = [x * (most / least) ** step if log else x + step * (most - least) for x in shown["value"]]
            colour = COLOURS[number % len(COLOURS)]
            if name:
                dashes = DASHES[number % len(DASHES)]
                axes.plot(places, shown["estimate"], color=colour, linestyle=dashes, linewidth=1, label=name)
            for x, line in zip(places, shown.to_dict("records"), strict=True):
                mark = MARKS[line["verdict"]]
                if not pd.isna(line["low"]):
                    axes.plot([x, x], [line["low"], line["high"]], color=colour, linewidth=1)
                seeds = [float(value) for value in line["seeds"].split()]
                axes.scatter([x] * len(seeds), seeds, **SEEDS)
                face = colour if mark.filled else "white"
                axes.plot(x, line["estimate"], mark.marker, color=colour, markerfacecolor=face, markersize=5)
                place = (x, line["estimate"])
                axes.annotate(line["name"], place, xytext=(6, 4), textcoords="offset points", fontsize=6.5)
        if log:
            axes.set_xscale("log")
        axes.margins(x=0.15)
        axes.xaxis.set_major_locator(FixedLocator(sorted(set(frame["value"]))))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if lines != [""]:
            figure.legend(loc="outside upper left", ncols=len(lines), frameon=False, fontsize=7)
        return figure

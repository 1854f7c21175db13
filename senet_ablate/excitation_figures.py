"""The paper's Figures 6 and 7: the gates of each SE block, channel by channel, as a line for each class.

Classes are told apart by colour and by dashes, so that the lines can be read in grey print and by the colour-blind.
"""

from __future__ import annotations

import itertools
import math

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from senet_ablate.figures import STYLE
from senet_ablate.results.gates import ALL

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, without black (kept for all classes) and yellow (too light for a line)."""

DASHES: tuple[object, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))

COLUMNS = 3
WIDTH, ROW_HEIGHT, HEAD = 7.2, 1.45, 0.75
"""Inches: two columns of a page, one row of panels, and what stands above and below them."""


def plot_lines(frame: pd.DataFrame, title: str, *, limits: tuple[float, float] | None, band: bool) -> Figure:
    """One panel per SE block: mean gate of the shown channels, a line for each class, black for all classes.

    Args:
        frame: what `excitation.line_table` gives.
        title: of the figure.
        limits: of the gate, the same axis for every study; by default the range of what is drawn.
        band: shade one standard deviation of the images to each side (Fig. 7).
    """
    names = list(dict.fromkeys(frame["block"]))
    classes = list(dict.fromkeys(frame["class"]))
    columns = COLUMNS if len(names) > 4 else min(2, len(names))
    rows = math.ceil(len(names) / columns)
    looks = itertools.cycle(zip(itertools.cycle(COLOURS), itertools.cycle(DASHES), strict=False))
    style = {name: ("black", "-") if name == ALL else next(looks) for name in classes}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, ROW_HEIGHT * rows + HEAD), layout="constrained")
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for panel, block in itertools.zip_longest(axes.flat, names):
            if block is None:
                panel.remove()
                continue
            for name, line in frame[frame["block"] == block].groupby("class", sort=False):
                colour, dashes = style[str(name)]
                x, mean, deviation = (line[key].to_numpy() for key in ("channel", "mean", "sd"))
                panel.plot(x, mean, color=colour, linestyle=dashes, linewidth=0.9, label=name)
                if band:
                    spread = np.nan_to_num(deviation)
                    panel.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
            panel.set_title(block)
            panel.margins(x=0.01)
            panel.grid(axis="y", color="0.9", linewidth=0.6)
            panel.set_axisbelow(True)
            if limits:
                panel.set_ylim(limits[0] - 0.02, limits[1] + 0.02)
        for row in axes:
            row[0].set_ylabel("gate")
        for panel in (axes.flat[number] for number in range(max(0, len(names) - columns), len(names))):
            panel.set_xlabel("channel")
        figure.suptitle(title, x=0.01, ha="left", fontsize=9)
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), frameon=False)
        return figure

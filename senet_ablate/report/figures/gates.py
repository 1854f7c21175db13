"""The gates of a trained network: heat maps of class by channel, and the lines of the paper's Figures 6 and 7."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from senet_ablate.report.figures.style import COLOURS, DASHES, PAGE, narrow, style
from senet_ablate.results.gates import ALL, BlockExcitation

ROW_HEIGHT, HEAD = 1.45, 0.75
"""Inches: one row of panels, and what stands above and below them."""

CLASS_LABELS = 20
"""Most classes that a heat map has a line for."""


def heat_frame(blocks: Sequence[BlockExcitation], classes: Mapping[str, int]) -> pd.DataFrame:
    """Mean gate of each class and channel, a line each: block, class, channel (from 1), its rank and the mean.

    Channels have rank 1, 2, … by falling mean over all images. `classes` has the numbers of the classes by name.
    """
    parts = []
    for block in blocks:
        order = np.argsort(-block.mean, kind="stable")
        for name, number in classes.items():
            means = block.over(number)[1][order]
            ranks = np.arange(1, len(order) + 1)
            line = {"block": block.name, "class": name, "channel": order + 1, "rank": ranks, "mean": means}
            parts.append(pd.DataFrame(line))
    return pd.concat(parts, ignore_index=True)


def plot_heat(frame: pd.DataFrame, *, limits: tuple[float, float] | None, width: float = PAGE) -> Figure:
    """Draw a panel for each block: a line for each class, channels by falling mean gate, light where the gate is open.

    Args:
        frame: what `heat_frame` gives.
        limits: of the gate; by default the range of what is drawn.
        width: in inches.
    """
    names, classes = list(frame["block"].unique()), list(frame["class"].unique())
    low, high = limits or (float(frame["mean"].min()), float(frame["mean"].max()))
    with style(classes):
        tall = max(0.75, 0.1 * len(classes)) + 0.45
        figure, panels, columns = _panels(len(names), width, tall, 0.6)
        for place, (panel, block) in enumerate(zip(panels, names, strict=True)):
            cells = frame.loc[frame["block"] == block, "mean"].to_numpy().reshape(len(classes), -1)
            extent = (0.5, cells.shape[1] + 0.5, len(classes) - 0.5, -0.5)
            image = panel.imshow(cells, cmap="cividis", vmin=low, vmax=high, interpolation="nearest", extent=extent)
            panel.set_aspect("auto")
            panel.set_title(block)
            panel.set_yticks(range(len(classes)), classes if place % columns == 0 else [], fontsize=5.5)
            panel.tick_params(length=0, labelsize=6)
            if place % columns == 0:
                panel.set_ylabel("class", fontsize=7)
            if place >= len(names) - columns:
                panel.set_xlabel("channels, by mean gate", fontsize=7)
        figure.colorbar(image, ax=figure.axes, label="mean gate", location="bottom", aspect=50, shrink=0.6)
        return figure


def _panels(count: int, width: float, tall: float, head: float, **shared: Any) -> tuple[Figure, list[Axes], int]:
    """A figure with so many panels of a height, and how many stand side by side."""
    columns = min(2 if narrow(width) else 3 if count > 4 else 2, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width, tall * rows + head), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, **shared).flat)
    for panel in panels[count:]:
        panel.remove()
    return figure, panels[:count], columns


def plot_lines(frame: pd.DataFrame, *, limits: tuple[float, float] | None, band: bool, width: float = PAGE) -> Figure:
    """Draw the paper's Figures 6 and 7: mean gate of the shown channels, a line for each class, black for all classes.

    Args:
        frame: what `line_table` gives.
        limits: of the gate, the same axis for every study; by default the range of what is drawn.
        band: shade one standard deviation of the images to each side (Fig. 7).
        width: in inches.
    """
    names, classes = list(frame["block"].unique()), list(frame["class"].unique())
    looks = itertools.cycle(zip(itertools.cycle(COLOURS[1:]), itertools.cycle(DASHES), strict=False))
    look = {name: ("black", "-") if name == ALL else next(looks) for name in classes}
    with style(classes):
        figure, panels, columns = _panels(len(names), width, ROW_HEIGHT, HEAD, sharey=True)
        for panel, block in zip(panels, names, strict=True):
            for name, line in frame[frame["block"] == block].groupby("class", sort=False):
                colour, dashes = look[str(name)]
                x, mean, deviation = (line[key].to_numpy() for key in ("channel", "mean", "sd"))
                panel.plot(x, mean, color=colour, linestyle=dashes, linewidth=0.9, label=name)
                if band:
                    spread = np.nan_to_num(deviation)
                    panel.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
            panel.set_title(block)
            panel.margins(x=0.01)
            panel.grid(axis="y")
            if limits:
                panel.set_ylim(limits[0] - 0.02, limits[1] + 0.02)
        for panel in panels[::columns]:
            panel.set_ylabel("gate")
        for panel in panels[-columns:]:
            panel.set_xlabel("channel")
        handles, labels = panels[0].get_legend_handles_labels()
        most = 3 if narrow(width) else 6
        figure.legend(handles, labels, loc="outside lower center", ncols=min(most, len(labels)), frameon=False)
        return figure

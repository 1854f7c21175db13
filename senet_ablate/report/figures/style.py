"""The style of all figures: colours that the colour-blind tell apart, marks that can be read in grey, two widths.

Nothing of a user's `matplotlibrc` enters, so the same records give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.optimize import isotonic_regression

from senet_ablate.report.figures.fonts import fonts_for

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "svg.fonttype": "path",
    "text.parse_math": False,  # a $ in a label is one
    "svg.hashsalt": "senet-ablate",  # else the same records give other bytes each time
}

PAGE, COLUMN = 7.2, 3.5
"""Inches: the width of a page (or of two columns), and of one column of a two-column page (89 mm)."""

COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F")
"""Okabe and Ito's colours; yellow, too faint for a line, gave way to grey."""

DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))
"""What tells lines apart in grey."""

SEEDS: dict[str, Any] = {"marker": "o", "s": 9, "color": "0.45", "alpha": 0.55, "linewidths": 0}
"""Single runs: faint dots behind the mean."""

PAPER: dict[str, Any] = {"marker": "D", "s": 16, "facecolors": "white", "edgecolors": COLOURS[2], "linewidths": 1}
"""What the paper printed: a hollow diamond."""

BAND: dict[str, Any] = {"color": COLOURS[1], "alpha": 0.12, "linewidth": 0}
"""The equivalence band."""

WILD = 10
"""Times the median half-width from which on an interval does not stretch the axis."""


@contextmanager
def style(texts: Iterable[str] = ()) -> Iterator[set[str]]:
    """Draw, and save, with matplotlib's defaults and `STYLE`, whatever the user has set.

    Fonts are added that have the letters of `texts`, names of the user's; yields those that no font can show.
    """
    families, unseen = fonts_for(texts)
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        mpl.rcParams["font.family"] = families
        yield unseen


def save(figure: Figure, kind: str) -> bytes:
    """The figure as `svg` or `png`; the same records give the same bytes."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format=kind, dpi=200, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return buffer.getvalue()


def settled(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its numbers as its CSV has them, so that the last bits, in which processors differ, are not drawn.

    >>> settled(pd.DataFrame({"error": [31.04123456, float("nan")], "n": [3, 5]}))["error"].tolist()
    [31.0412, nan]
    """
    floats = frame.select_dtypes("float").columns
    return frame.assign(**{name: [float(f"{value:.6g}") for value in frame[name]] for name in floats})


def narrow(width: float) -> bool:
    """Whether a figure has one column only, and leaves out what does not fit there."""
    return width < (PAGE + COLUMN) / 2


def seed_key() -> Line2D:
    """What the legend says of faint dots."""
    return Line2D([], [], marker="o", linestyle="", color="0.45", markersize=3, label="one seed")


def paper_key(label: str) -> Line2D:
    """What the legend says of diamonds."""
    look = {"markerfacecolor": "white", "markeredgecolor": PAPER["edgecolors"], "markersize": 4}
    return Line2D([], [], marker="D", linestyle="", label=label, **look)


def axis_range(
    low: Sequence[float], high: Sequence[float], *others: float, floor: float = -np.inf, top: float = np.inf
) -> tuple[float, float]:
    """Ends of an axis that shows the intervals [low, high] and `others`, with a margin, within `floor` and `top`.

    An interval of `WILD` times the median width, such as that of a network that collapsed, would press all others
    flat; it does not count, and is marked at the edge with its value.
    """
    lows, highs = np.asarray(low, float), np.asarray(high, float)
    widths = highs - lows
    usual = widths <= WILD * np.median(widths) if len(widths) else np.zeros(0, bool)
    ends = np.array([*lows[usual], *highs[usual], *others])
    if not len(ends):
        return max(floor, 0.0), min(top, 1.0)
    least, most = float(ends.min()), float(ends.max())
    margin = 0.06 * (most - least) or 0.5
    return max(floor, least - margin), min(top, most + margin)


def draw_interval(axes: Axes, y: float, line: Mapping[Any, Any], below: float, cap: str = "projecting") -> None:
    """Draw the interval of a line at height y, its single seeds so far `below` it, and the paper's value if it has one.

    An interval ends at the edge of the scale; an arrow at the edge stands for seeds beyond it.
    """
    low, high = axes.get_xlim()
    if not pd.isna(line["low"]):
        ends = [max(low, line["low"]), min(high, line["high"])]
        axes.plot(ends, [y, y], color="black", linewidth=1, solid_capstyle=cap)
    seeds = [float(value) for value in line["seeds"].split()]
    inside = [value for value in seeds if low <= value <= high]
    axes.scatter(inside, [y + below] * len(inside), **SEEDS)
    for edge, sign, beyond in ((low, "<", min(seeds, default=low) < low), (high, ">", max(seeds, default=high) > high)):
        if beyond:
            axes.scatter([edge], [y + below], clip_on=False, **SEEDS | {"marker": sign})
    if not pd.isna(line["paper"]):
        axes.scatter([line["paper"]], [y], **PAPER, zorder=3)


UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def scaled(name: str, largest: float) -> tuple[float, str]:
    """The unit in which costs up to `largest` are drawn, and what their axis says."""
    scale, unit = next(pair for pair in UNITS if largest >= pair[0] or pair[0] == 1)
    return scale, f"{name}, {unit}" if unit else name


def mark_beyond(axes: Axes, x: float, y: float, form: str = "{:.1f}", lift: float = 0) -> bool:
    """Where x lies off the scale, put an arrow and its value at the edge of row y; whether it did.

    The value stands `lift` points above the row.
    """
    low, high = axes.get_xlim()
    if low <= x <= high:
        return False
    edge, side, sign = (high, "right", ">") if x > high else (low, "left", "<")
    axes.plot(edge, y, sign, color="black", markersize=4, clip_on=False)
    axes.annotate(
        form.format(x).replace("-", "−"),
        (edge, y),
        xytext=(-5 if side == "right" else 5, lift),
        textcoords="offset points",
        ha=side,
        va="center",
        fontsize=7,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
    )
    return True


def spread_out(wished: np.ndarray, distance: float) -> np.ndarray:
    """Move rising positions as little as needed (least squares) so that neighbours are at least `distance` apart.

    Isotonic regression of the positions less their minimal offsets. It is for labels: a point is never moved.
    """
    offsets = distance * np.arange(len(wished))
    return isotonic_regression(wished - offsets).x + offsets

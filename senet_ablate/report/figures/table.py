"""One table as a figure: its rows as lines, with every seed, mean and interval; cost beside it where rows differ."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from senet_ablate.report.figures.style import (
    PAGE,
    axis_range,
    draw_interval,
    mark_beyond,
    narrow,
    paper_key,
    scaled,
    seed_key,
    settled,
    style,
)
from senet_ablate.report.tables import Table
from senet_ablate.report.words import METRICS, seeds_text

COSTS = {"added_params": "params", "added_macs": "MACs"}


def table_frame(table: Table) -> pd.DataFrame:
    """What `plot_table` draws, a line per row: its error with interval and seeds, and what it adds in cost.

    `paper` is the reference's error here plus the paper's difference to it: where the paper's result would lie.
    """
    rows = table.frame
    error, half = rows["top1_err_mean"].astype(float), rows["top1_err_half"].astype(float)
    reference = error[rows["row"] == table.ablation.reference].iloc[0]
    return settled(
        pd.DataFrame(
            {
                "row": rows["row"],
                "label": rows["label"],
                "n": rows["n"],
                "error": error,
                "low": (error - half).clip(lower=0.0),
                "high": (error + half).clip(upper=METRICS[table.metric].most),
                "seeds": [seeds_text(table.seeds[row]) for row in rows["row"]],
                "paper": reference + rows["paper_diff_to_reference"].astype(float),
                **{cost: rows[cost] for cost in COSTS},
            }
        )
    )


def plot_table(table: Table, width: float = PAGE) -> Figure:
    """Draw a filled table: error of each row, in the table's order, and what it adds where the rows differ in cost.

    A row off the scale is marked at the edge with its value; the scale never leaves the range of the metric.
    """
    frame = table_frame(table)
    cost = max(COSTS, key=lambda name: frame[name].nunique())  # parameters where both differ alike
    panels = 1 + (len(set(frame[cost].dropna())) > 1)
    with style(frame["label"]) as unseen:
        frame["label"] = frame["label"].where(~frame["label"].isin(unseen), frame["row"])
        figure = Figure(figsize=(width, 0.27 * len(frame) + 0.95), layout="constrained")
        errors, *costs = figure.subplots(1, panels, sharey=True, squeeze=False, width_ratios=[3, 1][:panels])[0]
        _draw_errors(errors, table, frame)
        for panel in costs:
            _draw_cost(panel, frame[cost].astype(float), COSTS[cost])
        (to,) = frame.loc[frame["row"] == table.ablation.reference, "label"]
        reference = "" if narrow(width) else f" to {to}"
        handles = [
            Line2D([], [], color="black", linewidth=1, marker="o", markersize=4.5, label="mean and 95 % interval"),
            seed_key(),
        ]
        if frame["paper"].notna().any():
            handles.append(paper_key(f"the paper's difference{reference}"))
        columns = 2 if narrow(width) else len(handles)
        figure.legend(handles=handles, loc="outside upper left", ncols=columns, frameon=False, fontsize=7)
        return figure


def _draw_errors(axes: Axes, table: Table, frame: pd.DataFrame) -> None:
    known = frame[frame["error"].notna()]
    spread = known.assign(low=known["low"].fillna(known["error"]), high=known["high"].fillna(known["error"]))
    others = known["paper"].dropna().tolist()
    axes.set_xlim(
        axis_range(spread["low"].tolist(), spread["high"].tolist(), *others, floor=0.0, top=METRICS[table.metric].most)
    )
    axes.set(ylim=(len(frame) - 0.4, -0.6), xlabel=METRICS[table.metric].axis)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_yticks(range(len(frame)), frame["label"].tolist())
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    low, high = axes.get_xlim()
    at = frame.loc[frame["row"] == table.ablation.reference, "error"].iloc[0]
    if low <= at <= high:
        axes.axvline(at, color="0.3", linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
    for place, line in enumerate(frame.to_dict("records")):
        if pd.isna(line["error"]):
            axes.text(0.5, place, "no finished run yet", transform=axes.get_yaxis_transform(), ha="center",
                      va="center", color="0.4", fontsize=7)  # fmt: skip
            continue
        paper = None if line["row"] == table.ablation.reference else line["paper"]
        draw_interval(axes, place, line | {"paper": paper}, 0.2, "butt")
        if not mark_beyond(axes, line["error"], place, lift=6):
            axes.plot(line["error"], place, "o", color="black", markersize=4.5, zorder=4)


def _draw_cost(axes: Axes, costs: pd.Series[float], quantity: str) -> None:
    known = costs.dropna()  # the cost of a network that cannot be built here is unknown
    scale, label = scaled(f"added\n{quantity}", known.abs().max())
    axes.hlines(known.index, 0, known / scale, color="0.6", linewidth=1)
    axes.plot(known / scale, known.index, "s", color="black", markersize=3.5, clip_on=False)
    axes.set(xlabel=label, xlim=(0, 1.08 * known.max() / scale))
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")

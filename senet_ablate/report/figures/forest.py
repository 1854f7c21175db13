"""The forest plot: each comparison with its simultaneous interval, seed pairs, the paper's value and its verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from senet_ablate.analysis.judge import TableJudge
from senet_ablate.analysis.study import Assessment
from senet_ablate.analysis.summary import seed_values
from senet_ablate.report.figures.style import (
    BAND,
    PAGE,
    axis_range,
    draw_interval,
    mark_beyond,
    narrow,
    paper_key,
    seed_key,
    settled,
    style,
)
from senet_ablate.report.words import WORDS, seeds_text, span
from senet_ablate.spec.ablation import Ablation
from senet_ablate.spec.claims import PLAIN, Atom, Equivalent, Fewer, Retains, Superior

COLUMNS = (
    "group", "name", "comparison", "estimate", "low", "high", "seeds", "margin", "paper", "verdict", "n",
)  # fmt: skip
NUMBERS = ("estimate", "low", "high", "margin", "paper")
"""Of a frame to draw: `seeds` are the values of single seed pairs, separated by spaces; `margin` is half the band."""


class Mark(NamedTuple):
    """How a verdict is drawn: the marker of the estimate, and whether it is filled."""

    marker: str
    filled: bool


MARKS: Mapping[str, Mark] = {
    "reproduced": Mark("o", filled=True),
    "contradicted": Mark("X", filled=True),
    "not resolved": Mark("o", filled=False),
}

ROW_HEIGHT = 0.155
FIGURE_SPACE = "\u2007"
"""As wide as a digit, so that what follows stands in a column."""


def forest_frame(assessment: Assessment, ablations: list[Ablation]) -> pd.DataFrame:
    """A line per comparison of each finding that runs can tell about, table after table, in `COLUMNS`."""
    lines = []
    for ablation in ablations:
        judge = assessment.judges[ablation.slug]
        margin = equivalence_margin(judge)
        for finding in assessment.findings[ablation.slug]:
            for atom in finding.atoms:
                if isinstance(atom.atom, Fewer) or atom.estimate is None:
                    continue
                pairs = seed_values(judge.evidence, judge.contrasts.tested(atom.atom).shown)
                banded = isinstance(atom.atom, (Equivalent, Superior))
                lines.append(
                    {
                        "group": ablation.heading,
                        "name": finding.claim.id,
                        "comparison": comparison(ablation, atom.atom),
                        "estimate": atom.estimate,
                        "low": atom.low,
                        "high": atom.high,
                        "seeds": seeds_text(pairs.values()),
                        "margin": margin if banded else None,
                        "paper": atom.paper_value,
                        "verdict": atom.verdict,
                        "n": span(atom.n, "–"),
                    }
                )
    return forest_of(lines)


def forest_of(lines: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """Lines in `COLUMNS` as a frame to draw."""
    return settled(pd.DataFrame(lines, columns=list(COLUMNS)).astype(dict.fromkeys(NUMBERS, float)))


def equivalence_margin(judge: TableJudge) -> float | None:
    """Half the width of the band within which two variants count as the same; None where no SE gain was shown."""
    if judge.rules.margin_abs is not None:
        return judge.rules.margin_abs
    gain = judge.evidence.difference(judge.contrasts.gain)
    return judge.rules.margin_rho * gain.estimate if gain is not None and judge.sure(judge.contrasts.gain) > 0 else None


def comparison(ablation: Ablation, atom: Atom) -> str:
    """What is subtracted from what, by the rows' labels: `no SE − r = 2`."""
    labels = {row.id: row.label for row in ablation.rows}
    names = [labels.get(name, "no SE" if name == PLAIN else name) for name in atom.arms]
    return f"{names[0]}: {atom.share:.0%} of gain" if isinstance(atom, Retains) else " − ".join(names)


def forest_in_words(frame: pd.DataFrame) -> str:
    """What a forest plot shows, for those who do not see it; its CSV and the findings' table have the numbers."""
    counts = frame["verdict"].value_counts()
    told = ", ".join(f"{WORDS[verdict]}: {counts[verdict]}" for verdict in MARKS if counts.get(verdict, 0))
    return f"Differences of {len(frame)} comparisons with their simultaneous intervals: {told}"


def plot_forest(frame: pd.DataFrame, xlabel: str, width: float = PAGE) -> Figure:
    """Draw a forest plot of lines in `COLUMNS`, a heading above each group; at one column without the numbers.

    The scale is that of the usual intervals; what lies off it is marked at the edge with its value.
    """
    again = frame.duplicated(["group", "name"]) & (frame["comparison"] != "")
    named = frame.assign(name=frame["name"].where(~again, ""))
    places: list[tuple[float, dict[Any, Any]]] = []
    headings: list[tuple[float, str]] = []
    y = 0.0
    for heading, comparisons in named.groupby("group", sort=False):
        if heading:
            headings.append((y, str(heading)))
            y += 1
        for line in comparisons.to_dict("records"):
            places.append((y, line))
            y += 1
        y += 0.4
    with style(map(str, [*frame["comparison"], *(heading for _, heading in headings)])) as unseen:
        for _, line in places:  # its name tells it, too
            line["comparison"] = "" if line["comparison"] in unseen else line["comparison"]
        headings = [(place, heading) for place, heading in headings if heading not in unseen]
        figure = Figure(figsize=(width, ROW_HEIGHT * max(y, 3) + 0.85), layout="constrained")
        axes = figure.subplots()
        papers = frame["paper"].dropna().tolist()
        known = frame.fillna({"low": frame["estimate"], "high": frame["estimate"]})
        low, high = axis_range(known["low"].tolist(), known["high"].tolist(), 0.0, *papers)
        axes.set(xlim=(low, high), ylim=(y - 0.4, -0.8), xlabel=xlabel)
        axes.axvline(0, color="0.3", linewidth=0.8)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        for place, line in places:
            _draw(axes, place, line)
        axes.set_yticks([place for place, _ in places], [_name(line, width) for _, line in places], fontsize=7)
        axes.tick_params(axis="y", length=0)
        numbers = [_numbers(line) for _, line in places]
        longest = max(map(len, numbers), default=0)
        for place, heading in headings:
            axes.annotate(
                heading, (0, place), xycoords=("figure fraction", "data"), xytext=(4, 0), textcoords="offset points",
                va="center", fontsize=7.5, fontweight="bold", annotation_clip=False,
            ).set_in_layout(False)  # fmt: skip
        right = axes.secondary_yaxis("right")
        texts = [
            WORDS[line["verdict"]] if narrow(width) else f"{text:{FIGURE_SPACE}<{longest}}  {WORDS[line['verdict']]}"
            for text, (_, line) in zip(numbers, places, strict=True)
        ]
        right.set_yticks([place for place, _ in places], texts, fontsize=7)
        right.tick_params(axis="y", length=0)
        right.spines["right"].set_visible(False)
        _legend(figure, frame, width)
        return figure


def _draw(axes: Axes, place: float, line: Mapping[Any, Any]) -> None:
    if not pd.isna(line["margin"]):
        axes.fill_betweenx([place - 0.5, place + 0.5], -line["margin"], line["margin"], **BAND, zorder=0)
    draw_interval(axes, place, line, 0.27)  # the seeds beside the interval, which would hide them
    mark = MARKS[line["verdict"]]
    face = "black" if mark.filled else "white"
    if not mark_beyond(axes, line["estimate"], place, "{:+.1f}"):
        axes.plot(line["estimate"], place, mark.marker, color="black", markerfacecolor=face, markersize=4.5, zorder=4)


LONGEST = {True: 24, False: 52}
"""Characters of a row's name in a narrow and in a wide figure."""


def _name(line: Mapping[Any, Any], width: float) -> str:
    """Finding and comparison; where both are too long for the figure the comparison alone, cut in its middle."""
    name, comparison, most = str(line["name"]), str(line["comparison"] or ""), LONGEST[narrow(width)]
    told = f"{name}   {comparison}" if comparison else name
    if len(told) <= most:
        return told
    told = comparison or name
    return told if len(told) <= most else f"{told[: most // 2 - 1]}…{told[-most // 2 :]}"


def _numbers(line: Mapping[Any, Any]) -> str:
    interval = "" if pd.isna(line["low"]) else f" [{line['low']:+.2f}, {line['high']:+.2f}]"
    return f"{line['estimate']:+.2f}{interval}".replace("-", "−")


def _legend(figure: Figure, frame: pd.DataFrame, width: float) -> None:
    shown = [mark for mark in MARKS if (frame["verdict"] == mark).any()]
    handles: list[Any] = [
        Line2D([], [], color="black", linewidth=1, marker=MARKS[verdict].marker, markersize=4.5, label=WORDS[verdict],
               markerfacecolor="black" if MARKS[verdict].filled else "white")
        for verdict in shown
    ]  # fmt: skip
    handles.append(seed_key())
    if frame["paper"].notna().any():
        handles.append(paper_key("the paper"))
    if frame["margin"].notna().any():
        handles.append(Patch(**BAND, label="counts as the same"))
    figure.legend(handles=handles, loc="outside upper left", ncols=3 if narrow(width) else len(handles),
                  frameon=False, fontsize=7, columnspacing=1.2, handletextpad=0.5)  # fmt: skip

"""What was seen in a trained network's gates (section 7.2): pages, Figures 6 and 7, and the CSV of each."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from senet_ablate.errors import UserError
from senet_ablate.files import read_file, write_atomic
from senet_ablate.report.escape import csv_text, markdown, visible
from senet_ablate.report.figures import STYLE, save
from senet_ablate.results.gates import (
    ALL,
    CHANNELS_SHOWN,
    DEAD,
    IDENTITY,
    MEAN_GATE,
    SATURATED,
    UPPER_LIMIT,
    BlockExcitation,
    block_table,
    chance_specificity,
    line_table,
    stage_table,
)
from senet_ablate.spec.protocol import DataFacts

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


HEADINGS = {
    "block": "block",
    "stage": "stage",
    "blocks": "blocks",
    "channels": "channels",
    "mean": "mean gate",
    "between_sd": "between SD",
    "within_sd": "within SD",
    "specificity": "specificity",
    "saturated": "saturated %",
    "dead": "dead %",
}
SHARES = ("saturated", "dead")
PRUNE_HEADINGS = {
    "off": "switched off",
    "way": "in its place",
    "blocks": "blocks",
    "params": "params off",
    "top1_err": "top-1 err. %",
    "change": "change",
    "broken": "turned wrong",
    "mended": "turned right",
}
MISSING = "–"


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """The numbers of blocks or stages as text, shares in percent."""
    return pd.DataFrame(
        {
            heading: [_cell(name, value) for value in table[name]]
            for name, heading in HEADINGS.items()
            if name in table.columns
        }
    )


def _cell(name: str, value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    if value != value:
        return MISSING
    return f"{100 * value:.1f}" if name in SHARES else f"{value:.3f}"


def write_excitation(
    folder: Path,
    subject: Sequence[str],
    blocks: Sequence[BlockExcitation],
    classes: Mapping[str, int],
    pair: Sequence[str],
) -> list[Path]:
    """Write page, figures and their CSV into `folder`.

    Args:
        folder: of the network.
        subject: what was looked at: a heading, then sentences.
        blocks: what its SE blocks did.
        classes: numbers of the classes to draw, by the names to show.
        pair: the classes of the second figure, of whose images the spread is drawn.
    """
    numbers = block_table(blocks)
    lines = line_table(blocks, classes)
    spread = line_table(blocks, {name: classes[name] for name in pair}, with_all=False)
    limits = (0.0, 1.0) if blocks[0].gate in ("sigmoid", "random", "constant") else None
    figures = {
        "class_means": (lines, plot_lines(lines, f"Mean gate by class: {subject[0]}", limits=limits, band=False)),
        "instance_spread": (
            spread,
            plot_lines(spread, f"Mean gate ± standard deviation of images: {subject[0]}", limits=limits, band=True),
        ),
    }
    files: dict[str, str | bytes] = {
        "excitation.md": to_markdown(subject, blocks, numbers, list(classes), pair),
        "blocks.csv": csv_text(numbers),
    }
    for name, (frame, figure) in figures.items():
        files[f"{name}.csv"] = csv_text(frame)
        for kind in ("svg", "png"):
            files[f"{name}.{kind}"] = save(figure, kind)
    return _write(folder, files)


def write_pruning(folder: Path, subject: Sequence[str], table: pd.DataFrame) -> list[Path]:
    """Write the page of a pruned network and its CSV into `folder`."""
    page = f"""# SE blocks switched off: {subject[0]}

{_sentences(subject)}

{_markdown(printed_pruning(table), 2)}

- *{IDENTITY}*: the map passes as it is. The next layers were trained on gated maps, so this changes their scale, too.
- *{MEAN_GATE}*: each channel keeps its mean gate over the same images; what is lost is that the gate depends on the
  image.
- *change* is in points of top-1 error, against nothing switched off.
- Nothing was trained again. What a network trained without the blocks of stage 5 reaches is another question, that of
  the table `pruning`. There the paper loses less than 0.1 points (section 4: of top-1 error in the CVPR text, of top-5
  in the last one).
"""
    return _write(folder, {"pruning.md": page, "pruning.csv": csv_text(table)})


def printed_pruning(table: pd.DataFrame) -> pd.DataFrame:
    """The lines of a pruned network as text."""
    text = table.assign(
        way=[way or MISSING for way in table["way"]],
        params=[f"{count:,}" for count in table["params"]],
        top1_err=[f"{err:.2f}" for err in table["top1_err"]],
        change=[
            f"{change:+.2f}" if off != "nothing" else ""
            for off, change in zip(table["off"], table["change"], strict=True)
        ],
    )
    return text[list(PRUNE_HEADINGS)].rename(columns=PRUNE_HEADINGS).astype(str)


def to_markdown(
    subject: Sequence[str],
    blocks: Sequence[BlockExcitation],
    numbers: pd.DataFrame,
    classes: Sequence[str],
    pair: Sequence[str],
) -> str:
    """The page: what was looked at, the numbers by stage and by block, what they mean, the figures."""
    gate = blocks[0].gate
    limit = UPPER_LIMIT[gate]
    saturation = (
        f"above {SATURATED:.0%} of the {gate} gate's upper limit, {limit:g}"
        if limit
        else f"near an upper limit; a {gate} gate has none to reach, so no share is given"
    )
    return f"""# Excitation: {subject[0]}

{_sentences(subject)}

## By stage

{_markdown(printed(stage_table(numbers)), 1)}

## By block

{_markdown(printed(numbers), 1)}

{last_stage(numbers)}

- *Between SD*: of the class means around the mean of all images; *within SD*: of the images around the mean of their
  class. Both are over all channels, in units of the gate.
- *Specificity* = between² / (between² + within²): the share of a gate's variation that the class explains. Classes
  drawn by lot would get {chance_specificity(blocks):.3f} on average, with this many images and classes.
- *Saturated* are channels whose mean magnitude |s| over all images is {saturation}; *dead* are those below {DEAD:g}.
- A stage has the mean of its blocks.

## Mean gate by class

![Mean gate in each SE block, channel by channel: {", ".join(classes)} and {ALL} classes](class_means.svg)

As the paper's Figure 6 ([numbers](class_means.csv)): at most {CHANNELS_SHOWN} evenly spaced channels, each
ceil(C / {CHANNELS_SHOWN})-th of C from the first.

## Spread of images

![Mean gate and a standard deviation of the images, channel by channel: {" and ".join(pair)}](instance_spread.svg)

As the paper's Figure 7 ([numbers](instance_spread.csv)).
"""


def last_stage(numbers: pd.DataFrame) -> str:
    """The paper's observation on SE_5_2, in this network's numbers."""
    paper = "The paper sees nearly every channel of SE_5_2 at 1 (saturated, close to identity)"
    is_it = numbers["block"] == "SE_5_2"
    if not is_it.any():
        return f"{paper}; this network has no SE_5_2."
    here = printed(numbers[is_it]).to_dict("records")[0]
    words = f"{paper}. Here its mean gate is {here['mean gate']} and its SD between classes {here['between SD']}"
    others = numbers[~is_it]
    if len(others):
        spans = (f"{others[name].min():.3f} to {others[name].max():.3f}" for name in ("mean", "between_sd"))
        words += " (other blocks: " + " and ".join(spans) + ")"
    return f"{words}." if here["saturated %"] == MISSING else f"{words}; saturated: {here['saturated %']} %."


def _sentences(subject: Sequence[str]) -> str:
    return " ".join(subject[1:])


def _markdown(text: pd.DataFrame, left: int) -> str:
    sides = ["left"] * left + ["right"] * (len(text.columns) - left)
    return text.to_markdown(index=False, disable_numparse=True, colalign=sides)


def _write(folder: Path, files: Mapping[str, str | bytes]) -> list[Path]:
    for name, content in files.items():
        text = markdown(content) if isinstance(content, str) and name.endswith(".md") else content
        write_atomic(folder / name, text, inside=folder.parents[2])
    return [folder / name for name in files]


MOST_LINES, MOST_BLOCKS, MOST_CLASSES, MOST_GATE = 200_000, 200, 50, 1e6
"""Of a figure that is drawn from a CSV file."""


def read_lines(path: Path, inside: Path) -> pd.DataFrame:
    """What a figure was drawn from, out of the CSV beside it; texts are made harmless.

    Raises:
        ValueError, LookupError: it is not what `write_excitation` writes, or is too much for a figure.
        OSError: it cannot be read, or is a link below `inside`.
    """
    frame = pd.read_csv(
        io.BytesIO(read_file(path, inside=inside)), dtype={"block": str, "class": str}, nrows=MOST_LINES
    )
    frame = frame[["block", "class", "channel", "mean", "sd"]]
    for name, most in (("block", MOST_BLOCKS), ("class", MOST_CLASSES)):
        frame[name] = [visible(str(text))[:60] for text in frame[name]]
        if not 0 < frame[name].nunique() <= most:
            raise ValueError(f"{frame[name].nunique()} different values of {name}, expected 1 to {most}")
    for name in ("channel", "mean", "sd"):
        frame[name] = frame[name].astype(float)
        if (frame[name].abs() > MOST_GATE).any():  # infinity, too
            raise ValueError(f"{name}: a number that no figure can show")
    return frame


PAPER_CLASSES = {"goldfish": "n01443537", "pug": "n02110958", "plane": "n03954731", "cliff": "n09246464"}
"""The classes of Figure 6 and the names of their ImageNet folders. The plane is the carpenter's, no aircraft."""

PAPER_PAIR = ("goldfish", "plane")
"""The classes of Figure 7."""

CLASSES_SHOWN = 5


def choose_classes(facts: DataFacts, wanted: Sequence[str] = ()) -> dict[str, int]:
    """Numbers of the classes to draw, by the name to show: those wanted, else the paper's four, else the first five.

    A class is called by its folder's name; the paper's four also as in the paper.

    Raises:
        UserError: there is no such class.
    """
    known = {name: number for number, name in enumerate(facts.class_names)}
    for name, folder in PAPER_CLASSES.items():
        if folder in known:
            known.setdefault(name, known[folder])
    if not wanted:
        four = all(name in known for name in PAPER_CLASSES)
        wanted = tuple(PAPER_CLASSES) if four else facts.class_names[:CLASSES_SHOWN]
    for name in wanted:
        if name not in known:
            some = ", ".join(facts.class_names[:10]) + (", …" if facts.classes > 10 else "")
            raise UserError(f"--classes: no class {name!r} among {some}")
    return {name: known[name] for name in wanted}


def choose_pair(classes: Iterable[str]) -> list[str]:
    """The classes of the second figure: the paper's two if they are there, else the first two."""
    names = list(classes)
    return list(PAPER_PAIR) if set(PAPER_PAIR) <= set(names) else names[:2]

"""Write what was seen in a trained network's SE blocks: pages, figures, and the CSV that each was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from senet_ablate.excitation_figures import plot_lines
from senet_ablate.figures import save
from senet_ablate.files import write_atomic
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
        "blocks.csv": numbers.to_csv(index=False, lineterminator="\n"),
    }
    for name, (frame, figure) in figures.items():
        files[f"{name}.csv"] = frame.to_csv(index=False, lineterminator="\n")
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
    return _write(folder, {"pruning.md": page, "pruning.csv": table.to_csv(index=False, lineterminator="\n")})


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
        write_atomic(folder / name, content)
    return [folder / name for name in files]

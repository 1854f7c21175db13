"""What was seen in a trained network's gates (section 7.2): pages, Figures 6 and 7, and the CSV of each."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from senet_ablate.errors import UserError
from senet_ablate.files import ARRAY_LIMIT, read_file
from senet_ablate.report.escape import csv_text, visible
from senet_ablate.report.figures.fonts import key_in_words, numbered
from senet_ablate.report.figures.gates import CLASS_LABELS, heat_frame, plot_heat, plot_lines
from senet_ablate.report.folder import ReportFolder
from senet_ablate.report.render import render
from senet_ablate.report.words import MISSING
from senet_ablate.results import gates
from senet_ablate.spec.protocol import DataFacts

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
    blocks: Sequence[gates.BlockExcitation],
    classes: Mapping[str, int],
    pair: Sequence[str],
    every: Mapping[str, int],
) -> list[Path]:
    """Write page, figures and their CSV into `folder`.

    Args:
        folder: of the network.
        subject: what was looked at: a heading, then sentences.
        blocks: what its SE blocks did.
        classes: numbers of the classes to draw, by the names to show.
        pair: the classes of the second figure, of whose images the spread is drawn.
        every: numbers of all classes; the heat map shows them where they are few, else the classes to draw.
    """
    numbers = gates.block_table(blocks)
    lines = gates.line_table(blocks, classes)
    spread = gates.line_table(blocks, {name: classes[name] for name in pair}, with_all=False)
    heat = heat_frame(blocks, every if len(every) <= CLASS_LABELS else classes)
    names = numbered([*every, *classes, gates.ALL])
    key = key_in_words({name: names[name] for name in heat["class"].unique()})
    limits = (0.0, 1.0) if blocks[0].gate in ("sigmoid", "random", "constant") else None
    written = ReportFolder(folder, folder.parents[2])
    written.write("excitation.md", to_markdown(subject, blocks, numbers, list(classes), pair, key))
    written.write("blocks.csv", csv_text(numbers))
    for name, frame, draw in (
        ("gates", heat, plot_heat),
        ("class_means", lines, partial(plot_lines, band=False)),
        ("instance_spread", spread, partial(plot_lines, band=True)),
    ):
        shown = frame.assign(**{"class": frame["class"].map(names)})
        written.picture(name, frame, name, partial(draw, shown, limits=limits), into="", float_format="%.10g")
    return written.files


def write_pruning(folder: Path, subject: Sequence[str], table: pd.DataFrame) -> list[Path]:
    """Write the page of a pruned network and its CSV into `folder`."""
    ways = {"identity": gates.IDENTITY, "mean_gate": gates.MEAN_GATE}
    written = ReportFolder(folder, folder.parents[2])
    written.write("pruning.md", render("pruning.md.j2", subject=subject, text=printed_pruning(table), **ways))
    written.write("pruning.csv", csv_text(table))
    return written.files


def printed_pruning(table: pd.DataFrame) -> pd.DataFrame:
    """The lines of a pruned network as text."""
    text = table.assign(
        way=[way or MISSING for way in table["way"]],
        params=table["params"].map("{:,}".format),
        top1_err=table["top1_err"].map("{:.2f}".format),
        change=table["change"].map("{:+.2f}".format).where(table["off"] != "nothing", ""),
    )
    return text[list(PRUNE_HEADINGS)].rename(columns=PRUNE_HEADINGS).astype(str)


def to_markdown(
    subject: Sequence[str],
    blocks: Sequence[gates.BlockExcitation],
    numbers: pd.DataFrame,
    classes: Sequence[str],
    pair: Sequence[str],
    key: str = "",
) -> str:
    """The page: what was looked at, the numbers by stage and by block, what they mean, the figures and their `key`."""
    gate = blocks[0].gate
    limit = gates.UPPER_LIMIT.get(gate)
    saturation = (
        f"above {gates.SATURATED:.0%} of the {gate} gate's upper limit, {limit:g}"
        if limit
        else f"near an upper limit; a {gate} gate has none to reach, so no share is given"
    )
    return render(
        "excitation.md.j2",
        subject=subject,
        by_stage=printed(gates.stage_table(numbers)),
        by_block=printed(numbers),
        last_stage=last_stage(numbers),
        chance=gates.chance_specificity(blocks),
        saturation=saturation,
        dead=f"{gates.DEAD:g}",
        classes=classes,
        all=gates.ALL,
        shown=gates.CHANNELS_SHOWN,
        pair=pair,
        key=key,
    )


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


MOST_LINES, MOST_BLOCKS, MOST_CLASSES, MOST_GATE = 200_000, 200, 50, 1e6
"""Of a figure that is drawn from a CSV file."""


def read_heat(path: Path, inside: Path) -> pd.DataFrame:
    """What a heat map was drawn from, out of the CSV beside it; texts are made harmless.

    Raises:
        ValueError, LookupError: it is not what `write_excitation` writes, or is too much for a figure.
        OSError: it cannot be read, or is a link below `inside`.
    """
    content = io.BytesIO(read_file(path, ARRAY_LIMIT, inside=inside))
    frame = pd.read_csv(content, dtype={"block": str, "class": str}, nrows=MOST_LINES)
    frame = frame[["block", "class", "channel", "rank", "mean"]]
    for name, most in (("block", MOST_BLOCKS), ("class", MOST_CLASSES)):
        frame[name] = [visible(str(text))[:60] for text in frame[name]]
        if not 0 < frame[name].nunique() <= most:
            raise ValueError(f"{frame[name].nunique()} different values of {name}, expected 1 to {most}")
    frame["mean"] = frame["mean"].astype(float)
    if not (frame["mean"].abs() <= MOST_GATE).all():  # infinity and NaN, too
        raise ValueError("mean: a number that no figure can show")
    lines = pd.crosstab(frame["block"], frame["class"])
    if (lines.max(axis=1) > lines.min(axis=1)).any():
        raise ValueError("a block has other channels for one class than for another")
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

"""One page and one CSV for several studies: the same comparison in each, and in how many of them it holds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pandas as pd

from senet_ablate.analysis.summary import ALPHA, StudyEffect, Summary
from senet_ablate.errors import UserError
from senet_ablate.report.escape import csv_text
from senet_ablate.report.figures.forest import COLUMNS, forest_in_words, forest_of, plot_forest
from senet_ablate.report.figures.trend import plot_trend
from senet_ablate.report.folder import ReportFolder
from senet_ablate.report.render import render
from senet_ablate.report.words import METRICS, MISSING, WORDS, percent, seeds_text, span


def study_line(each: StudyEffect) -> dict[str, object]:
    """What a study was about, for a file."""
    protocol = each.assessment.pin.protocol
    return {
        "dataset": protocol.images_name,
        "resolution": protocol.data.resolution,
        "backbone": protocol.network.backbone,
        "width": protocol.network.width,
        "epochs": protocol.recipe.epochs,
    }


def effect_line(each: StudyEffect) -> dict[str, object]:
    """What came out in a study, for a file."""
    return {
        "n_per_variant": " ".join(map(str, each.n)),
        "estimate": each.estimate,
        "low": each.low,
        "high": each.high,
        "p_one_sided": each.p,
        "verdict": each.verdict,
        "paper": each.paper,
        "seeds": seeds_text(each.seeds.values()),
    }


def summary_frame(summary: Summary) -> pd.DataFrame:
    """A line per study: what it is, the fields in which the studies differ, estimate, interval, p, verdict, seeds."""
    lines = [
        {"study": each.study}
        | study_line(each)
        | {f"varied.{field}": values[place] for field, values in summary.varied.items()}
        | effect_line(each)
        for place, each in enumerate(summary.effects)
    ]
    return pd.DataFrame(lines).astype(dict.fromkeys(("estimate", "low", "high", "p_one_sided", "paper"), float))


def printed_line(each: StudyEffect) -> dict[str, str]:
    """A study as text, for people."""
    protocol = each.assessment.pin.protocol
    return {
        "data": f"{protocol.images_name}, {protocol.data.resolution} px",
        "network": protocol.network.in_words(),
        "epochs": str(protocol.recipe.epochs),
        "n": span(each.n),
        "difference": f"{each.estimate:+.2f}",
        f"{percent(1 - 2 * ALPHA)} interval": MISSING if each.low is None else f"{each.low:+.2f} to {each.high:+.2f}",
        "p": MISSING if each.p is None else f"{each.p:.3f}" if each.p >= 0.001 else "< 0.001",
        "verdict": WORDS[each.verdict],
    }


def printed_summary(summary: Summary) -> pd.DataFrame:
    """The same as text, for people: a line per study."""
    field = summary.field
    lines = [{"study": each.study} | printed_line(each) for each in summary.effects]
    if field and field not in ("recipe.epochs", "data.resolution", "network.width"):
        lines = [line | {field: str(value)} for line, value in zip(lines, summary.varied[field], strict=True)]
    return pd.DataFrame(lines)


def conclusion(summary: Summary) -> str:
    """In how many studies it holds, as a sentence."""
    studies, holds = len(summary.effects), summary.holds_in
    where = f"at least {holds}" if holds else "none"
    return f"It is shown to hold in {where} of {studies} studies (partial conjunction, level {percent(ALPHA)})."


def remarks(summary: Summary) -> list[str]:
    """What a reader must know beside the table."""
    lines = [
        "Difference: error of the first variant less that of the second, as the statement has it; mean over n seeds.",
        f"The lower end of the {percent(1 - 2 * ALPHA)} interval is the one-sided {percent(1 - ALPHA)} bound. A "
        "verdict is that of its study alone; the sentence on all of them is corrected for their number, and a study "
        "without a p-value counts as one in which it does not hold.",
    ]
    if summary.varied:
        lines.append(f"The studies differ in {', '.join(summary.varied)}.")
    for (one, two), count in summary.shared.items():
        lines.append(f"{one} and {two} have {count} runs in common, so they are no independent settings.")
    return lines


def forest_line(each: StudyEffect, name: str, comparison: str = "", group: str = "") -> dict[str, object]:
    """One study in `COLUMNS` of the forest plot."""
    said = {key: text for key, text in effect_line(each).items() if key in COLUMNS}
    return said | {"group": group, "name": name, "comparison": comparison, "margin": None, "n": span(each.n)}


def write_summary(summary: Summary, home: Path) -> list[Path]:
    """Write page, CSV, Markdown table and figures into a folder of their own.

    Raises:
        UserError: the folder is a study's report.
    """
    field = summary.field
    values = summary.varied[field] if field and field != "data.images" else ()
    beside = [f"({str(field).rpartition('.')[2]} {value})" for value in values] or [""] * len(summary.effects)
    lines = [forest_line(each, each.study, text) for each, text in zip(summary.effects, beside, strict=True)]
    content = {
        "statement": summary.effects[0].statement,
        "conclusion": conclusion(summary),
        "text": printed_summary(summary),
        "remarks": remarks(summary),
        "field": field,
    }
    files = {"summary.md": render("summary.md.j2", **content), "summary.csv": csv_text(summary_frame(summary))}
    forest = forest_of(lines)
    trend = forest.assign(value=list(summary.numbers.values())) if summary.numbers else pd.DataFrame()
    alt = f"The comparison of each study against {field}."
    axes = (str(field), METRICS[summary.effects[0].metric].difference)
    return write_page(home, "summary.html.j2", content, files, forest, trend, alt, axes)


def write_page(
    home: Path,
    template: str,
    content: Mapping[str, object],
    files: Mapping[str, str],
    forest: pd.DataFrame,
    trend: pd.DataFrame,
    alt: str,
    axes: tuple[str, str],
) -> list[Path]:
    """Write the page of several studies, the files that it carries and its figures into a folder of their own.

    Args:
        home: the folder.
        template: of the page.
        content: of the page, besides files and figures.
        files: by name.
        forest: what the forest plot draws.
        trend: what is drawn against the field in which the studies differ; without lines, nothing is.
        alt: that figure in words.
        axes: names of the field and of the difference.

    Raises:
        UserError: the folder is a study's report.
    """
    if (home / "REPORT.md").exists():
        raise UserError(f"{home} is the report of a study; choose another --name")
    folder = ReportFolder(home)
    folder.picture("forest", forest, forest_in_words(forest), partial(plot_forest, forest, axes[1]))
    folder.picture("trend", trend, alt, partial(plot_trend, trend, *axes))
    for name, text in files.items():
        folder.write(f"tables/{name}", text)
    folder.write("index.html", render(template, **content, pictures=folder.pictures, files=files))
    return folder.files

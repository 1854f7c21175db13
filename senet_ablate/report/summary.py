"""One page and one CSV for several studies: the same comparison in each, and in how many of them it holds."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd

from senet_ablate.analysis.summary import ALPHA, StudyEffect, Summary
from senet_ablate.errors import UserError
from senet_ablate.report.escape import csv_text
from senet_ablate.report.figures.forest import difference_of, forest_in_words, forest_of, plot_forest
from senet_ablate.report.figures.trend import plot_trend
from senet_ablate.report.findings import WORDS, percent
from senet_ablate.report.folder import ReportFolder
from senet_ablate.report.render import render
from senet_ablate.report.tables import MISSING


def protocol_fields(each: StudyEffect) -> dict[str, object]:
    """What a study was about, for a file."""
    protocol = each.assessment.pin.protocol
    network, data = protocol.network, protocol.data
    return {
        "dataset": protocol.images_name,
        "resolution": data.resolution,
        "backbone": network.backbone,
        "width": network.width,
        "epochs": protocol.recipe.epochs,
    }


def measured(each: StudyEffect) -> dict[str, object]:
    """What came out in a study, for a file."""
    return {
        "n_per_variant": " ".join(map(str, each.n)),
        "estimate": each.estimate,
        "low": each.low,
        "high": each.high,
        "p_one_sided": each.p,
        "verdict": each.verdict,
        "paper": each.paper,
        "seeds": _seeds(each),
    }


def summary_frame(summary: Summary) -> pd.DataFrame:
    """A line per study: what it is, the fields in which the studies differ, estimate, interval, p, verdict, seeds."""
    lines = [
        {"study": each.study}
        | protocol_fields(each)
        | {f"varied.{field}": values[place] for field, values in summary.varied.items()}
        | measured(each)
        for place, each in enumerate(summary.effects)
    ]
    return pd.DataFrame(lines).astype(dict.fromkeys(("estimate", "low", "high", "p_one_sided", "paper"), float))


def printed_line(each: StudyEffect) -> dict[str, str]:
    """A study as text, for people."""
    protocol = each.assessment.pin.protocol
    return {
        "study": each.study,
        "data": f"{protocol.images_name}, {protocol.data.resolution} px",
        "network": protocol.network.in_words(),
        "epochs": str(protocol.recipe.epochs),
        "n": _range(each),
        "difference": f"{each.estimate:+.2f}",
        f"{percent(1 - 2 * ALPHA)} interval": MISSING if each.low is None else f"{each.low:+.2f} to {each.high:+.2f}",
        "p": MISSING if each.p is None else f"{each.p:.3f}" if each.p >= 0.001 else "< 0.001",
        "verdict": WORDS[each.verdict],
    }


def printed_summary(summary: Summary) -> pd.DataFrame:
    """The same as text, for people: a line per study."""
    field = only_field(summary)
    lines = [printed_line(each) for each in summary.effects]
    if field and field not in ("recipe.epochs", "data.resolution", "network.width"):
        lines = [line | {field: str(value)} for line, value in zip(lines, summary.varied[field], strict=True)]
    return pd.DataFrame(lines)


def _range(each: StudyEffect) -> str:
    least, most = min(each.n), max(each.n)
    return str(least) if least == most else f"{least} to {most}"


def only_field(summary: Summary) -> str | None:
    """The protocol field in which the studies differ, if it is one alone."""
    return next(iter(summary.varied)) if len(summary.varied) == 1 else None


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
    return {
        "group": group,
        "name": name,
        "comparison": comparison,
        "estimate": each.estimate,
        "low": each.low,
        "high": each.high,
        "seeds": _seeds(each),
        "margin": None,
        "paper": each.paper,
        "verdict": each.verdict,
        "n": _range(each),
    }


def _seeds(each: StudyEffect) -> str:
    return " ".join(f"{value:.6g}" for value in each.seeds.values())


def forest_of_studies(summary: Summary) -> pd.DataFrame:
    """A row per study for the forest plot, by the value of the field in which they differ if it is one alone."""
    field = only_field(summary)
    values = summary.varied[field] if field else ("",) * len(summary.effects)
    lines = [
        forest_line(
            each, each.study, f"({field.rpartition('.')[2]} {value})" if field and field != "data.images" else ""
        )
        for each, value in zip(summary.effects, values, strict=True)
    ]
    return forest_of(lines)


def write_summary(summary: Summary, home: Path) -> list[Path]:
    """Write page, CSV, Markdown table and figures into a folder of their own.

    Raises:
        UserError: the folder is a study's report.
    """
    if (home / "REPORT.md").exists():
        raise UserError(f"{home} is the report of a study; say another --name")
    folder = ReportFolder(home)
    axis = difference_of(summary.effects[0].metric)
    forest = forest_of_studies(summary)
    folder.picture("forest", forest, forest_in_words(forest), partial(plot_forest, forest, axis))
    field = only_field(summary)
    values = [value for value in summary.varied.get(field or "", ()) if isinstance(value, (int, float))]
    if len(values) == len(summary.effects) and not any(isinstance(value, bool) for value in values):
        trend = forest.assign(value=values)
        alt = f"The comparison of each study against {field}."
        folder.picture("trend", trend, alt, partial(plot_trend, trend, str(field), axis))
    content = {
        "statement": summary.effects[0].statement,
        "conclusion": conclusion(summary),
        "text": printed_summary(summary),
        "remarks": remarks(summary),
        "pictures": folder.pictures,
        "field": field,
    }
    data = csv_text(summary_frame(summary))
    folder.write("tables/summary.csv", data)
    markdown = render("summary.md.j2", **content)
    folder.write("tables/summary.md", markdown)
    folder.write(
        "index.html", render("summary.html.j2", **content, files={"summary.md": markdown, "summary.csv": data})
    )
    return folder.files

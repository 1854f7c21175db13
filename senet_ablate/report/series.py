"""One page for a series of studies: each gain with its interval, the findings about them all, the crossing."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd

from senet_ablate.analysis.series import SeriesFinding, SeriesResult, crossing
from senet_ablate.analysis.summary import ALPHA, StudyEffect, Summary
from senet_ablate.errors import UserError
from senet_ablate.report.escape import csv_text
from senet_ablate.report.figures.forest import forest_in_words, forest_of, plot_forest
from senet_ablate.report.figures.trend import plot_trend
from senet_ablate.report.findings import METRIC_NAMES, WORDS, percent
from senet_ablate.report.folder import ReportFolder
from senet_ablate.report.render import render
from senet_ablate.report.summary import forest_line, measured, only_field, printed_line, protocol_fields
from senet_ablate.report.tables import UNITS_OF
from senet_ablate.spec.claims import PLAIN


def labels(result: SeriesResult) -> dict[str, str]:
    """What the rows are called."""
    return {
        row: next(label.label for label in each.judge.ablation.rows if label.id == row)
        for row, effects in result.effects.items()
        for each in list(effects.values())[:1]
    }


def gains_frame(result: SeriesResult) -> pd.DataFrame:
    """A line per row and study: what was trained, the gain over no SE, interval, p, verdict, single seeds."""
    names = labels(result)
    return pd.DataFrame(
        [
            {"row": names[row], "study": study.name, "label": study.label, "group": study.group}
            | protocol_fields(each)
            | {"error_no_se": each.judge.evidence.sample.arm_means[each.judge.contrasts.arm(PLAIN)]}
            | measured(each)
            for row, effects in result.effects.items()
            for study in result.series.studies
            if (each := effects.get(study.name)) is not None
        ]
    ).rename(columns={"estimate": "gain"})


def printed_gains(result: SeriesResult) -> pd.DataFrame:
    """The same as text, for people."""
    names = labels(result)
    lines = [
        {"study": study.label, "variant": names[row]}
        | {name: text for name, text in printed_line(each).items() if name != "study"}
        for row, effects in result.effects.items()
        for study in result.series.studies
        if (each := effects.get(study.name)) is not None
    ]
    return pd.DataFrame(lines).rename(columns={"difference": "gain", "verdict": "beats no SE"})


def findings_frame(result: SeriesResult) -> pd.DataFrame:
    """A line per finding about the series."""
    return pd.DataFrame(
        [
            {
                "finding": finding.claim.id,
                "statement": finding.claim.statement,
                "estimate": finding.estimate,
                "low": finding.low,
                "high": finding.high,
                "p_one_sided": finding.p,
                "studies_shown": finding.shown,
                "verdict": finding.verdict,
            }
            for finding in result.findings
        ]
    )


def printed_finding(result: SeriesResult, finding: SeriesFinding) -> dict[str, str]:
    """One finding as text: what was declared, what was seen, the verdict."""
    if finding.claim.at_least is not None:
        shown = f"at least {finding.shown}" if finding.shown else "none"
        seen = f"shown in {shown} of {len(result.series.studies)} studies"
    elif finding.estimate is None:
        seen = "a study of it is not complete"
    elif finding.low is None:
        seen = f"{finding.estimate:+.2f} points; no interval from one seed"
    else:
        seen = f"{finding.estimate:+.2f} points ({finding.low:+.2f} to {finding.high:+.2f})"
        seen += f", margin {finding.claim.margin:g}" if finding.claim.margin else ""
    return {"finding": finding.claim.statement, "seen": seen, "verdict": WORDS[finding.verdict]}


def printed_findings(result: SeriesResult) -> pd.DataFrame:
    """All findings as text."""
    return pd.DataFrame([printed_finding(result, finding) for finding in result.findings])


def field_of(result: SeriesResult) -> str | None:
    """The one protocol field in which the studies differ, if it is a number; else None."""
    effects = _of_studies(result)
    summary = Summary.of(effects)
    field = only_field(summary)
    values = summary.varied.get(field or "", ())
    return field if values and all(type(value) in (int, float) for value in values) else None


def _of_studies(result: SeriesResult) -> list[StudyEffect]:
    """One effect of each study that has begun."""
    return [next(row[name] for row in result.effects.values() if name in row) for name in result.begun]


def remarks(result: SeriesResult) -> list[str]:
    """What a reader must know beside the figures."""
    level = percent(result.level)
    lines = [
        "Gain: error of no SE less error of the row, in points of test error; mean over n seeds. A positive gain is a "
        "lower error.",
        f"Intervals of gains are two-sided at {percent(1 - 2 * ALPHA)}, each for itself. A finding about the series is "
        f"tested at {level} in either direction ({percent(ALPHA)} over {len(result.findings)} findings), and the lower "
        "end of its interval is the bound that decides.",
    ]
    missing = [study.label for study in result.series.studies if study.name not in result.begun]
    if missing:
        lines.append(f"Not run yet: {', '.join(missing)}.")
    partly = [
        f"{study.label} ({' of '.join(map(str, result.incomplete[study.name]))} runs)"
        for study in result.series.studies
        if study.name in result.incomplete
    ]
    if partly:
        told = ", ".join(partly)
        lines.append(f"Not yet complete by their plans, so no finding about the series rests on them: {told}.")
    field = field_of(result)
    if field:
        names = labels(result)
        for row, effects in result.effects.items():
            values = [_value(each, field) for each in effects.values()]
            found = crossing(values, [each.difference for each in effects.values()]) if effects else None
            if found:
                lines.append(
                    f"{names[row]}: the gain crosses 0 at {found.value:.3g} {field.rpartition('.')[2]} (95 % interval "
                    f"{found.low:.3g} to {found.high:.3g}), if it is linear in their logarithm."
                )
    return lines


def _value(effect: StudyEffect, field: str) -> float:
    node: object = effect.assessment.pin.protocol
    for part in field.split("."):
        node = getattr(node, part)
    return float(node)  # type: ignore[arg-type]  # a number, as `field_of` saw


def forest_of_series(result: SeriesResult) -> pd.DataFrame:
    """A line per row and study for the forest plot, under the heading of row and group."""
    names = labels(result)
    lines = [
        forest_line(
            each,
            study.label,
            group=names[row] + (f": {study.group[0].lower()}{study.group[1:]}" if study.group else ""),
        )
        for row, effects in result.effects.items()
        for study in result.series.studies
        if (each := effects.get(study.name)) is not None
    ]
    return forest_of(lines)


def write_series(result: SeriesResult, home: Path) -> list[Path]:
    """Write page, tables and figures into a folder of their own.

    Raises:
        UserError: no study has begun, or the folder is a study's report.
    """
    if not result.begun:
        wanted = ", ".join(study.name for study in result.series.studies)
        raise UserError(f"series {result.series.slug!r}: none of its studies has runs to compare: {wanted}")
    if (home / "REPORT.md").exists():
        raise UserError(f"{home} is the report of a study; say another --name")
    folder = ReportFolder(home)
    metric = _of_studies(result)[0].metric
    axis = f"gain over no SE, {'points' if UNITS_OF[metric] == '%' else UNITS_OF[metric]} of {METRIC_NAMES[metric]}"
    forest = forest_of_series(result)
    folder.picture("forest", forest, forest_in_words(forest), partial(plot_forest, forest, axis))
    field = field_of(result)
    if field:
        called = labels(result)
        values = [
            (called[row], _value(effects[study.name], field))
            for row, effects in result.effects.items()
            for study in result.series.studies
            if study.name in effects
        ]
        trend = forest.assign(line=[line for line, _ in values], value=[value for _, value in values], name="")
        alt = f"The gain of each row over no SE against {field}."
        folder.picture("trend", trend, alt, partial(plot_trend, trend, field.rpartition(".")[2], axis))
    content = {
        "title": result.series.title,
        "question": result.series.question,
        "gains": printed_gains(result),
        "findings": printed_findings(result),
        "remarks": remarks(result),
        "pictures": folder.pictures,
        "field": field,
    }
    files = {"gains.csv": csv_text(gains_frame(result)), "findings.csv": csv_text(findings_frame(result))}
    files["series.md"] = render("series.md.j2", **content)
    for name, written in files.items():
        folder.write(f"tables/{name}", written)
    folder.write("index.html", render("series.html.j2", **content, files=files))
    return folder.files

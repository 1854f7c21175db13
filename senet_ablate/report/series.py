"""One page for a series of studies: each gain with its interval, the findings about them all, the crossing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from senet_ablate.analysis.series import SeriesFinding, SeriesResult, crossing
from senet_ablate.analysis.summary import ALPHA, StudyEffect
from senet_ablate.errors import UserError
from senet_ablate.report.escape import csv_text
from senet_ablate.report.figures.forest import forest_of
from senet_ablate.report.render import render
from senet_ablate.report.summary import effect_line, forest_line, printed_line, study_line, write_page
from senet_ablate.report.words import METRICS, WORDS, percent
from senet_ablate.spec.claims import PLAIN
from senet_ablate.spec.series import SeriesStudy


def gain_lines(result: SeriesResult) -> Iterator[tuple[str, SeriesStudy, StudyEffect]]:
    """Yield each gain with the name of its row and its study, row by row."""
    studies = {study.name: study for study in result.series.studies}
    for row, effects in result.effects.items():
        for name, each in effects.items():
            yield each.judge.ablation.row(row).label, studies[name], each


def gains_frame(result: SeriesResult) -> pd.DataFrame:
    """A line per row and study: what was trained, the gain over no SE, interval, p, verdict, single seeds."""
    lines = [
        {"row": row, "study": study.name, "label": study.label, "group": study.group}
        | study_line(each)
        | {"error_no_se": each.judge.evidence.sample.arm_means[each.judge.contrasts.arm(PLAIN)]}
        | effect_line(each)
        for row, study, each in gain_lines(result)
    ]
    return pd.DataFrame(lines).rename(columns={"estimate": "gain"})


def printed_gains(result: SeriesResult) -> pd.DataFrame:
    """The same as text, for people."""
    lines = [{"study": study.label, "variant": row} | printed_line(each) for row, study, each in gain_lines(result)]
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
    """One finding as text: what was declared, the result, the verdict."""
    if finding.claim.at_least is not None:
        shown = f"at least {finding.shown}" if finding.shown else "none"
        found = f"shown in {shown} of {len(result.series.studies)} studies"
    elif finding.estimate is None:
        found = "a study of it is not complete"
    elif finding.low is None:
        found = f"{finding.estimate:+.2f} points; no interval from one seed"
    else:
        found = f"{finding.estimate:+.2f} points ({finding.low:+.2f} to {finding.high:+.2f})"
        found += f", margin {finding.claim.margin:g}" if finding.claim.margin else ""
    return {"finding": finding.claim.statement, "result": found, "verdict": WORDS[finding.verdict]}


def printed_findings(result: SeriesResult) -> pd.DataFrame:
    """All findings as text."""
    return pd.DataFrame([printed_finding(result, finding) for finding in result.findings])


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
    values, field = result.summary.numbers, str(result.summary.field).rpartition(".")[2]
    for row, effects in result.effects.items() if values else ():
        found = crossing([values[name] for name in effects], [each.difference for each in effects.values()])
        if found:
            name = next(iter(effects.values())).judge.ablation.row(row).label
            lines.append(
                f"{name}: the gain crosses 0 at {found.value:.3g} {field} (95 % interval {found.low:.3g} to "
                f"{found.high:.3g}), if it is linear in their logarithm."
            )
    return lines


def write_series(result: SeriesResult, home: Path) -> list[Path]:
    """Write page, tables and figures into a folder of their own.

    Raises:
        UserError: no study has begun, or the folder is a study's report.
    """
    series, summary = result.series, result.summary
    if not result.begun:
        wanted = ", ".join(study.name for study in series.studies)
        raise UserError(f"series {series.slug!r}: none of its studies has runs to compare: {wanted}")
    lines = list(gain_lines(result))
    groups = [f": {study.group[0].lower()}{study.group[1:]}" if study.group else "" for _, study, _ in lines]
    forest = forest_of(
        [
            forest_line(each, study.label, group=row + group)
            for (row, study, each), group in zip(lines, groups, strict=True)
        ]
    )
    trend = pd.DataFrame()
    if summary.numbers:
        values = [summary.numbers[study.name] for _, study, _ in lines]
        trend = forest.assign(line=[row for row, _, _ in lines], value=values, name="")
    content = {
        "title": series.title,
        "question": series.question,
        "gains": printed_gains(result),
        "findings": printed_findings(result),
        "remarks": remarks(result),
        "field": summary.field,
    }
    files = {"gains.csv": csv_text(gains_frame(result)), "findings.csv": csv_text(findings_frame(result))}
    files["series.md"] = render("series.md.j2", **content)
    metric = METRICS[summary.effects[0].metric]
    axes = (str(summary.field).rpartition(".")[2], f"gain over no SE, {metric.points} of {metric.name}")
    alt = f"The gain of each row over no SE against {summary.field}."
    return write_page(home, "series.html.j2", content, files, forest, trend, alt, axes)

"""One page that tells a reviewer what was run, what holds and what it costs: `index.html`; REPORT.md for code hosts.

Both are filled from the same content; the HTML page is a single file that asks the network for nothing.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from senet_ablate.analysis.audit import Departure, audit_declarations, audit_records
from senet_ablate.analysis.evidence import survey
from senet_ablate.analysis.study import Assessment
from senet_ablate.analysis.verdicts import FindingVerdict
from senet_ablate.errors import UserError
from senet_ablate.files import read_file
from senet_ablate.report import findings
from senet_ablate.report.departures import compare_setting
from senet_ablate.report.escape import csv_text, visible
from senet_ablate.report.excitation import MOST_BLOCKS, read_heat
from senet_ablate.report.figures.fonts import key_in_words, numbered
from senet_ablate.report.figures.forest import equivalence_margin
from senet_ablate.report.figures.gates import plot_heat
from senet_ablate.report.figures.style import COLUMN, PAGE, save
from senet_ablate.report.findings import in_words, to_decide
from senet_ablate.report.folder import Picture
from senet_ablate.report.tables import Table, optimisations_in_words, printed, to_latex, to_markdown
from senet_ablate.report.words import MARK, METRICS, MISSING, WORDS
from senet_ablate.results.arms import Outcomes
from senet_ablate.results.records import CURVE_FILE, RunRecord, curve_csv, read_curve
from senet_ablate.results.store import read_latency
from senet_ablate.spec.ablation import Arm, arms

RUN_COLUMNS = (
    "run", "curve", "status", "top-1 err. %", "cross-entropy", "epochs", "seconds", "started", "trained on",
    "precision", "optimisations", "version", "commit",
)  # fmt: skip


def content(
    assessment: Assessment,
    filled: Sequence[Table],
    pictures: Mapping[str, Picture],
    here: Path,
    columns: Collection[str],
) -> dict[str, Any]:
    """The content of a report, by the names under which both templates show it.

    Args:
        assessment: the judged study.
        filled: its tables.
        pictures: figures by name: `forest`, a table's, its curves (`<name>_curves`), `pareto`.
        here: the folder that the page will lie in, from which its links lead to the runs.
        columns: those of the LaTeX tables.
    """
    outcomes, ablations = assessment.outcomes, [table.ablation for table in filled]
    family, served = findings.family(assessment), arms(ablations)
    counted: Counter[str] = Counter(finding.verdict for finding in family)
    audit = audit_declarations(ablations, assessment.pin.protocol) + audit_records(ablations, outcomes)
    tell = partial(_finding, assessment, {ablation.slug for ablation in ablations})
    latency = read_latency(outcomes.study)
    return {
        "title": f"Squeeze-and-Excitation ablations: {outcomes.study.name}",
        "subtitle": _subtitle(outcomes),
        "counts": {word: counted[verdict] for verdict, word in WORDS.items()},
        "family_name": findings.family_name(assessment),
        "promise": findings.promise(assessment),
        "pictures": pictures,
        "forest_note": _forest_note(assessment, filled),
        "notes": outcomes.study.notes(),
        "other_metrics": [METRICS[metric].name for metric in assessment.others],
        "glance": [tell(finding) for finding in family],
        "tables": [_table(table, pictures, columns, tell) for table in filled],
        "latency_note": f"Times: {latency.setting}; in brackets the fastest and the slowest round."
        if latency
        else "Times are not measured yet; `senet-ablate latency` measures them, on your own device.",
        "gates": _gates(here),
        "power": findings.power_lines(assessment),
        "setting": compare_setting(outcomes),
        "audit": audit,
        "audit_note": _audit_note(audit),
        "plan": [findings.plan_sentence(assessment), *assessment.deviations],
        "run_columns": RUN_COLUMNS,
        "provenance_note": "Each variant with its runs and their records (specification, versions, hardware). A run's "
        "folder also holds the outcome of each test image.",
        "arms": [_arm(outcomes, arm, served[arm], here) for arm in outcomes.runs if arm in served],
    }


def _subtitle(outcomes: Outcomes) -> str:
    records, protocol = outcomes.records, outcomes.pin.protocol
    hardware = sorted({record.provenance.hardware for record in records})
    hours = sum(record.provenance.wall_s for record in records) / 3600
    return (
        f"{len(records)} runs of {len(outcomes.runs)} variants of {protocol.in_words}: {hours:.1f} hours of one worker "
        f"on {', '.join(hardware) or 'no machine yet'}."
    )


def _forest_note(assessment: Assessment, filled: Sequence[Table]) -> str:
    banded = any(equivalence_margin(assessment.judges[table.ablation.slug]) is not None for table in filled)
    same = "the band is where two variants count as the same" if banded else "no band: no SE gain to take a share of"
    return (
        "Each comparison with its simultaneous interval. Right of 0 the first variant has the higher error; the "
        f"diamond is the paper's difference; dots are seeds that both variants have; {same}."
    )


def _finding(assessment: Assessment, on_page: Collection[str], finding: FindingVerdict) -> dict[str, Any]:
    return {
        "anchor": f"finding-{finding.claim.id}",
        "on_page": finding.ablation.slug in on_page,
        "id": finding.claim.id,
        "statement": finding.claim.statement,
        "mark": MARK[finding.verdict],
        "verdict": WORDS[finding.verdict],
        "others": [WORDS[verdict] for verdict in assessment.by_other_metrics(finding).values()],
        "words": in_words(finding),
        "to_decide": to_decide(finding),
    }


def _table(
    table: Table,
    pictures: Mapping[str, Picture],
    columns: Collection[str],
    tell: Callable[[FindingVerdict], dict[str, Any]],
) -> dict[str, Any]:
    """A filled table with its cells as text, its pictures, findings and remarks."""
    ablation, text = table.ablation, printed(table)
    best = table.frame["may_be_best"].tolist()
    files = {"md": to_markdown(table), "csv": csv_text(table.frame), "tex": to_latex(table, columns)}
    return {
        "ablation": ablation,
        "columns": list(text.columns),
        "rows": [
            {"cells": cells, "best": good, "anchor": f"arm-{row.arm.slug}"}
            for cells, good, row in zip(text.to_numpy().tolist(), best, ablation.rows, strict=True)
        ],
        "plot": pictures[ablation.name],
        "curves": pictures.get(f"{ablation.name}_curves"),
        "reference": ablation.row(ablation.reference).label,
        "of_paper": any(row.paper for row in ablation.rows),
        "files": {f"{ablation.name}.{suffix}": text for suffix, text in files.items()},
        "findings": [tell(finding) for finding in table.findings],
        "remarks": table.remarks,
    }


def _gates(here: Path) -> list[dict[str, Any]]:
    """What the gates of some networks learnt, as far as `excitation` was asked: numbers by block, and a figure."""
    found, inside = [], here.parent
    for number, numbers in enumerate(sorted((here / "excitation").glob("*/blocks.csv"))):
        home = numbers.parent
        heat, alt = home / "gates.csv", f"Mean gate of each class and channel, block by block: {home.name}"
        try:
            frame = pd.read_csv(io.BytesIO(read_file(numbers, inside=inside)), nrows=MOST_BLOCKS)
            frame = frame.map(lambda cell: f"{cell:.3g}" if isinstance(cell, float) else str(cell))
            text = home / "excitation.md"
            more = read_file(text, inside=inside).decode() if text.exists() else ""
            picture = _heat_map(number, heat, inside, alt) if heat.exists() else None  # of earlier versions
        except (OSError, ValueError, LookupError) as error:  # pandas' errors of parsing are ValueErrors, too
            raise UserError(f"{home}: damaged ({error}); remove it, or give `excitation` again") from None
        found.append(
            {
                "name": home.name,
                "folder": quote(home.relative_to(here).as_posix()),
                "columns": [name.replace("_", " ") for name in frame.columns],
                "rows": frame.replace("nan", MISSING).to_numpy().tolist(),
                "picture": picture,
                "more": more,
            }
        )
    return found


def _heat_map(number: int, heat: Path, inside: Path, alt: str) -> Picture:
    """Drawn anew from its CSV: a stranger's SVG may hold a script."""
    frame = read_heat(heat, inside)
    limits = (0.0, 1.0) if frame["mean"].between(0, 1).all() else None
    names = numbered(frame["class"])
    drawn, key = frame.assign(**{"class": frame["class"].map(names)}), key_in_words(names)
    page, column = (save(plot_heat(drawn, limits=limits, width=width), "svg").decode() for width in (PAGE, COLUMN))
    return Picture(f"gates-{number}", page, column, csv_text(frame), visible(alt), key)


def _audit_note(audit: Sequence[Departure]) -> str:
    declared, serious = (sum(getattr(each, what) for each in audit) for what in ("declared", "serious"))
    if declared == len(audit):
        return f"{declared} differences between a variant and its reference, each declared by its row; no other."
    others = len(audit) - declared
    return f"{declared} differences are declared by their rows, {others} are not; {serious} of these bar a verdict."


def _arm(outcomes: Outcomes, arm: Arm, rows: Sequence[str], here: Path) -> dict[str, Any]:
    size = survey(outcomes, arm)
    return {
        "anchor": f"arm-{arm.slug}",
        "slug": arm.slug,
        "rows": rows,
        "cost": f"{size.total.params:,} parameters, {size.total.macs:,} multiply-adds of one image." if size else "",
        "spec": json.dumps(arm.variant.model_dump(mode="json"), indent=1),
        "runs": [_run(record, outcomes.study.run(record.run_id).path, here) for record in outcomes.runs[arm]],
    }


def _run(record: RunRecord, folder: Path, here: Path) -> dict[str, Any]:
    made, metrics = record.provenance, record.metrics
    return {
        "record": record,
        "curve": curve_csv(read_curve(folder / CURVE_FILE)),
        "link": quote(Path(os.path.relpath(folder.resolve(), here.resolve())).as_posix()),
        "cells": [
            record.status,
            f"{metrics.top1_err:.2f}" if metrics else MISSING,
            f"{metrics.cross_entropy:.4f}" if metrics else MISSING,
            str(record.spec.recipe.epochs),
            f"{made.wall_s:.0f}",
            made.started,
            made.hardware,
            made.precision,
            optimisations_in_words(record),
            made.version,
            f"{made.commit[:10]}{' with changes' if made.dirty else ''}" if made.commit else MISSING,
        ],
    }

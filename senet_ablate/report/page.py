"""One page that tells a reviewer what was run, what holds and what it costs: `index.html`; REPORT.md for code hosts.

Both are filled from the same content; the HTML page is a single file that asks the network for nothing.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
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
from senet_ablate.report.departures import SettingLine, same_in_words, setting_lines
from senet_ablate.report.escape import csv_text, visible
from senet_ablate.report.excitation import MOST_BLOCKS, read_heat
from senet_ablate.report.figures.forest import equivalence_margin
from senet_ablate.report.figures.gates import plot_heat
from senet_ablate.report.figures.style import COLUMN, PAGE, save
from senet_ablate.report.findings import MARK, WORDS, in_words, to_decide
from senet_ablate.report.folder import Picture
from senet_ablate.report.render import render
from senet_ablate.report.tables import Table, optimisations_in_words, printed, to_csv, to_latex
from senet_ablate.report.tables import to_markdown as table_markdown
from senet_ablate.results.records import CURVE_FILE, RunRecord, curve_csv, read_curve
from senet_ablate.results.store import read_latency
from senet_ablate.spec.ablation import Arm, arms

RUN_COLUMNS = (
    "run", "curve", "status", "top-1 err. %", "cross-entropy", "epochs", "seconds", "started", "trained on",
    "precision", "optimisations", "version", "commit",
)  # fmt: skip


@dataclass(frozen=True)
class Page:
    """The content of a report; `pictures` go by name: `forest`, a table's, its curves (`<name>_curves`), `pareto`.

    `here` is the folder that the page will lie in, from which its links lead to the runs; `columns` are those of the
    LaTeX tables.
    """

    assessment: Assessment
    filled: Sequence[Table]
    pictures: Mapping[str, Picture]
    here: Path
    columns: Collection[str]

    @property
    def title(self) -> str:
        """What was studied."""
        return f"Squeeze-and-Excitation ablations: {self.assessment.outcomes.study.name}"

    @property
    def subtitle(self) -> str:
        """What was run, in a sentence."""
        records, protocol = self.assessment.outcomes.records, self.assessment.pin.protocol
        hardware = sorted({record.provenance.hardware for record in records})
        hours = sum(record.provenance.wall_s for record in records) / 3600
        network, data = protocol.network, protocol.description.partition(";")[0]
        return (
            f"{len(records)} runs of {len(self.assessment.outcomes.runs)} variants of {network.backbone} (width "
            f"{network.width}) on {data}: {hours:.1f} hours of one worker on {', '.join(hardware) or 'no machine yet'}."
        )

    @property
    def promise(self) -> str:
        """What a verdict may be trusted for."""
        return findings.promise(self.assessment)

    @property
    def forest_note(self) -> str:
        """How to read the forest plot."""
        banded = any(
            equivalence_margin(self.assessment.judges[table.ablation.slug]) is not None for table in self.filled
        )
        same = (
            "the band is where two variants count as the same" if banded else "no band: no SE gain to take a share of"
        )
        return (
            "Each comparison with its simultaneous interval. Right of 0 the first variant has the higher error; the "
            f"diamond is the paper's difference; dots are seeds that both variants have; {same}."
        )

    @property
    def notes(self) -> list[str]:
        """What whoever ran the study wants read beside it, paragraph by paragraph."""
        return self.assessment.outcomes.study.notes()

    @cached_property
    def setting(self) -> list[SettingLine]:
        """The study's setting beside the paper's."""
        return setting_lines(self.assessment.outcomes)

    @property
    def departures(self) -> list[SettingLine]:
        """Where the setting is not the paper's."""
        return [line for line in self.setting if not line.same]

    @property
    def as_in_the_paper(self) -> str:
        """Where it is."""
        return same_in_words(self.setting)

    @property
    def family(self) -> list[FindingVerdict]:
        """The findings that are counted."""
        return findings.family(self.assessment)

    @property
    def family_name(self) -> str:
        """What they are."""
        return findings.family_name(self.assessment)

    @property
    def counts(self) -> dict[str, int]:
        """How many findings have each verdict."""
        counted: Counter[str] = Counter(finding.verdict for finding in self.family)
        return {word: counted[verdict] for verdict, word in WORDS.items()}

    @property
    def other_metrics(self) -> list[str]:
        """Names of the metrics that are judged beside the primary one."""
        return [findings.METRIC_NAMES[metric] for metric in self.assessment.others]

    @property
    def glance(self) -> list[dict[str, Any]]:
        """One line for each of the paper's findings."""
        return [self._finding(finding) for finding in self.family]

    def _finding(self, finding: FindingVerdict) -> dict[str, Any]:
        slug = finding.ablation.slug
        number = self.assessment.findings[slug].index(finding)
        return {
            "anchor": f"finding-{finding.claim.id}",
            "on_page": any(table.ablation.slug == slug for table in self.filled),
            "id": finding.claim.id,
            "statement": finding.claim.statement,
            "mark": MARK[finding.verdict],
            "verdict": WORDS[finding.verdict],
            "others": [WORDS[tables[slug][number].verdict] for tables in self.assessment.others.values()],
            "words": in_words(finding),
            "to_decide": to_decide(finding),
        }

    @cached_property
    def tables(self) -> list[dict[str, Any]]:
        """Each filled table with its cells as text, its pictures, findings and remarks."""
        return [self._table(table) for table in self.filled]

    def _table(self, table: Table) -> dict[str, Any]:
        ablation, text = table.ablation, printed(table)
        best = table.frame["may_be_best"].tolist()
        rows = [
            {"cells": cells, "best": good, "anchor": _anchor(row.arm)}
            for cells, good, row in zip(text.to_numpy().tolist(), best, ablation.rows, strict=True)
        ]
        return {
            "anchor": ablation.slug,
            "name": ablation.name,
            "heading": ablation.heading,
            "question": ablation.question,
            "source": ablation.source,
            "columns": list(text.columns),
            "rows": rows,
            "plot": self.pictures[ablation.name],
            "curves": self.pictures.get(f"{ablation.name}_curves"),
            "reference": ablation.row(ablation.reference).label,
            "of_paper": any(row.paper for row in ablation.rows),
            "files": {
                f"{ablation.name}.{suffix}": write(table)
                for suffix, write in (
                    ("md", table_markdown),
                    ("csv", to_csv),
                    ("tex", partial(to_latex, columns=self.columns)),
                )
            },
            "findings": [self._finding(finding) for finding in table.findings],
            "remarks": table.remarks,
        }

    @property
    def latency_note(self) -> str:
        """How times were measured, or how to have them."""
        latency = read_latency(self.assessment.outcomes.study)
        if latency is None:
            return "Times are not measured yet: `senet-ablate latency` does it, on your own device."
        return f"Times: {latency.setting}; in brackets the least and the largest round."

    @property
    def gates(self) -> list[dict[str, Any]]:
        """What the gates of some networks learnt, as far as `excitation` was asked: numbers by block, and a figure."""
        found = []
        for number, numbers in enumerate(sorted((self.here / "excitation").glob("*/blocks.csv"))):
            home, inside = numbers.parent, self.here.parent
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
                    "folder": quote(home.relative_to(self.here).as_posix()),
                    "columns": [name.replace("_", " ") for name in frame.columns],
                    "rows": frame.replace("nan", "–").to_numpy().tolist(),
                    "picture": picture,
                    "more": more,
                }
            )
        return found

    @property
    def power(self) -> list[str]:
        """Gain over noise by each metric."""
        return findings.power_lines(self.assessment)

    @cached_property
    def audit(self) -> list[Departure]:
        """What differs between arms and their references: as declared, and in the records."""
        declared = [table.ablation for table in self.filled]
        found = audit_declarations(declared, self.assessment.pin.protocol)
        return found + audit_records(declared, self.assessment.outcomes)

    @property
    def audit_note(self) -> str:
        """How many differences there are, and what they mean."""
        others = [departure for departure in self.audit if not departure.declared]
        if not others:
            number = len(self.audit)
            return f"{number} differences between a variant and its reference, each declared by its row; no other."
        grave = sum(departure.grave for departure in others)
        declared = len(self.audit) - len(others)
        return (
            f"{declared} differences are declared by their rows, {len(others)} are not; {grave} of these bar a verdict."
        )

    @property
    def plan(self) -> list[str]:
        """The plan, and what departs from it."""
        return [findings.plan_sentence(self.assessment), *self.assessment.deviations]

    run_columns = RUN_COLUMNS
    provenance_note = (
        "Each variant with its runs and their records (specification, versions, hardware). A run's folder also holds "
        "the outcome of each test image."
    )

    @cached_property
    def arms(self) -> list[dict[str, Any]]:
        """Each network with its cost, specification and runs."""
        served = arms([table.ablation for table in self.filled])
        outcomes = self.assessment.outcomes
        return [self._arm(arm, served.get(arm, []), runs) for arm, runs in outcomes.runs.items() if arm in served]

    def _arm(self, arm: Arm, rows: Sequence[str], runs: Sequence[RunRecord]) -> dict[str, Any]:
        size = survey(self.assessment.outcomes, arm)
        return {
            "anchor": _anchor(arm),
            "slug": arm.slug,
            "rows": list(rows),
            "cost": f"{size.total.params:,} parameters, {size.total.macs:,} multiply-adds of one image."
            if size
            else "",
            "spec": json.dumps(arm.variant.model_dump(mode="json"), indent=1),
            "runs": [self._run(record) for record in runs],
        }

    def _run(self, record: RunRecord) -> dict[str, Any]:
        made, metrics = record.provenance, record.metrics
        folder = self.assessment.outcomes.study.run(record.run_id).path
        commit = f"{made.commit[:10]}{' with changes' if made.dirty else ''}" if made.commit else "–"
        return {
            "seed": record.spec.seed,
            "run_id": record.run_id,
            "record": record.model_dump_json(indent=1),
            "curve": curve_csv(read_curve(folder / CURVE_FILE)),
            "link": quote(Path(os.path.relpath(folder.resolve(), self.here.resolve())).as_posix()),
            "cells": [
                record.status,
                f"{metrics.top1_err:.2f}" if metrics else "–",
                f"{metrics.cross_entropy:.4f}" if metrics else "–",
                str(record.spec.recipe.epochs),
                f"{made.wall_s:.0f}",
                made.started,
                made.hardware,
                made.precision,
                optimisations_in_words(record),
                made.version,
                commit,
            ],
        }


def _heat_map(number: int, heat: Path, inside: Path, alt: str) -> Picture:
    """Drawn anew from its CSV: a stranger's SVG may hold a script."""
    frame = read_heat(heat, inside)
    limits = (0.0, 1.0) if frame["mean"].between(0, 1).all() else None
    page, column = (save(plot_heat(frame, limits=limits, width=width), "svg").decode() for width in (PAGE, COLUMN))
    return Picture(f"gates-{number}", page, column, csv_text(frame), visible(alt))


def _anchor(arm: Arm) -> str:
    return f"arm-{arm.slug}"


def to_html(page: Page) -> str:
    """The page as one HTML file; the same records give the same bytes."""
    return render("index.html.j2", page=page)


def to_markdown(page: Page) -> str:
    """The same content as Markdown."""
    return render("REPORT.md.j2", page=page)

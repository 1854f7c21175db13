"""One page that tells a reviewer what was run, what holds and what it costs: `index.html`; REPORT.md for code hosts.

Both are filled from the same content; the HTML page is a single file that asks the network for nothing.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from senet_ablate.analysis.audit import Departure, audit_declarations, audit_records
from senet_ablate.analysis.evidence import survey
from senet_ablate.analysis.study import Assessment
from senet_ablate.analysis.verdicts import FindingVerdict
from senet_ablate.errors import UserError
from senet_ablate.files import read_file
from senet_ablate.report import findings
from senet_ablate.report.departures import SettingLine, same_in_words, setting_lines
from senet_ablate.report.escape import finalize, finalize_markdown, visible
from senet_ablate.report.excitation import MOST_BLOCKS, plot_lines, read_lines
from senet_ablate.report.figures import save
from senet_ablate.report.findings import MARK, in_words, to_decide
from senet_ablate.report.tables import Table, levers_in_words, printed
from senet_ablate.results.records import RunRecord
from senet_ablate.results.store import read_latency
from senet_ablate.spec.ablation import Arm, arms

RUN_COLUMNS = (
    "run", "curve", "status", "top-1 err. %", "cross-entropy", "epochs", "seconds", "started", "trained on",
    "precision", "levers", "version", "commit",
)  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A figure in its forms: the name of its files under `figures/`, its SVG, and what it shows in words."""

    name: str
    svg: str
    alt: str


@dataclass(frozen=True)
class Page:
    """The content of a report; `pictures` go by name: a table's, its curves (`<name>_curves`) and `networks`.

    `here` is the folder that the page will lie in, from which its links lead to the runs.
    """

    assessment: Assessment
    filled: Sequence[Table]
    pictures: Mapping[str, Picture]
    here: Path

    @property
    def title(self) -> str:
        """What was studied."""
        return f"Squeeze-and-Excitation ablations: {self.assessment.outcomes.study.name}"

    @property
    def subtitle(self) -> str:
        """Protocol, runs and hardware in a sentence."""
        records, protocol = self.assessment.outcomes.records, self.assessment.pin.protocol
        hardware = sorted({record.provenance.hardware for record in records})
        hours = sum(record.provenance.wall_s for record in records) / 3600
        many = len(self.assessment.outcomes.runs)
        return (
            f"{protocol.description}. {protocol.network.backbone}, width {protocol.network.width}; {len(records)} runs "
            f"of {many} networks, {hours:.1f} hours of one worker on {', '.join(hardware) or 'no machine yet'}."
        )

    @property
    def promise(self) -> str:
        """What a verdict may be trusted for."""
        return (
            f"In each table at most {self.assessment.rules.alpha:.0%} of studies like this one would show a false "
            '"reproduced", and at most as many a false "contradicted". What is not resolved is not "no difference".'
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
        """The paper's findings."""
        return [each for each in self.assessment.all_findings if each.ablation.table and not each.claim.secondary]

    @property
    def counts(self) -> dict[str, int]:
        """How many findings have each verdict."""
        counted: Counter[str] = Counter(finding.verdict for finding in self.family)
        return {verdict: counted[verdict] for verdict in MARK}

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
            "verdict": finding.verdict,
            "others": [tables[slug][number].verdict for tables in self.assessment.others.values()],
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
        curves = self.pictures.get(f"{ablation.name}_curves")
        return {
            "anchor": ablation.slug,
            "name": ablation.name,
            "heading": ablation.heading,
            "question": ablation.question,
            "source": ablation.source,
            "columns": list(text.columns),
            "rows": rows,
            "plot": inline(self.pictures[ablation.name]),
            "plot_alt": self.pictures[ablation.name].alt,
            "plot_data": f"figures/{ablation.name}.csv",
            "plot_of_paper": any(row.paper for row in ablation.rows),
            "curves": inline(curves) if curves else "",
            "curves_alt": curves.alt if curves else "",
            "curves_data": f"figures/{ablation.name}_curves.csv",
            "findings": [self._finding(finding) for finding in table.findings],
            "remarks": table.remarks,
        }

    @property
    def networks(self) -> Markup:
        """The figure of all networks."""
        return inline(self.pictures["networks"])

    @property
    def networks_alt(self) -> str:
        """What it shows."""
        return self.pictures["networks"].alt

    networks_data = "figures/networks.csv"

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
            lines, alt = home / "class_means.csv", f"Mean gate of each class, block by block: {home.name}"
            try:
                frame = pd.read_csv(io.BytesIO(read_file(numbers, inside=inside)), nrows=MOST_BLOCKS)
                frame = frame.map(lambda cell: f"{cell:.3g}" if isinstance(cell, float) else str(cell))
                picture = inline(_gate_figure(number, lines, inside, alt)) if lines.exists() else ""
            except (OSError, ValueError, LookupError) as error:  # pandas' errors of parsing are ValueErrors, too
                raise UserError(f"{home}: damaged ({error}); remove it, or give `excitation` again") from None
            found.append(
                {
                    "name": home.name,
                    "folder": quote(home.relative_to(self.here).as_posix()),
                    "columns": [name.replace("_", " ") for name in frame.columns],
                    "rows": frame.replace("nan", "–").to_numpy().tolist(),
                    "picture": picture,
                    "alt": alt,
                }
            )
        return found

    @property
    def power(self) -> list[str]:
        """Gain over noise by each metric."""
        return findings.power_lines(self.assessment)

    @property
    def ranks(self) -> list[dict[str, str]]:
        """Agreement with the paper's order."""
        return findings.rank_cells(self.assessment)

    ranks_note = findings.RANKS_NOTE

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
            return (
                f"{len(self.audit)} differences between an arm and its reference, each declared by its row; no other."
            )
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
        "Each network with its runs. A run's folder holds its record (specification, versions, hardware), its curve "
        "and the outcome of each test image."
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
                levers_in_words(record),
                made.version,
                commit,
            ],
        }


def _gate_figure(number: int, lines: Path, inside: Path, alt: str) -> Picture:
    """Drawn anew from its CSV: a stranger's SVG may hold a script."""
    frame = read_lines(lines, inside)
    limits = (0.0, 1.0) if frame["mean"].between(0, 1).all() else None
    figure = plot_lines(frame, f"Mean gate by class: {visible(lines.parent.name)}", limits=limits, band=False)
    return Picture(f"gates-{number}", save(figure, "svg").decode(), alt)


def _anchor(arm: Arm) -> str:
    return f"arm-{arm.slug}"


def inline(picture: Picture) -> Markup:
    """A figure as part of a page: named for those who cannot see it, its ids its own among many figures."""
    svg = picture.svg[picture.svg.index("<svg") :]
    svg = re.sub(r'\b(id="|url\(#|href="#)', rf"\1{picture.name}-", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(visible(picture.alt))}"', 1).strip())


def _inline_markdown(text: str) -> Markup:
    """Bold, code and links; a link leads to a file beside the page or to the web, never runs anything."""
    bold = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(visible(text))))
    linked = re.sub(r"\[([^]]+)\]\(((?:https?://)?[\w./#-]+)\)", r'<a href="\2">\1</a>', bold)
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", linked))


def _environment(*, html: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("senet_ablate.report"),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=finalize if html else finalize_markdown,
    )
    environment.filters["inline"] = _inline_markdown
    environment.filters["slug"] = lambda text: text.replace(" ", "-")
    environment.filters["cell"] = lambda text: str(text).replace("|", r"\|").replace("\n", " ")
    return environment


def to_html(page: Page) -> str:
    """The page as one HTML file; the same records give the same bytes."""
    environment = _environment(html=True)
    assert environment.loader is not None
    style = Markup(environment.loader.get_source(environment, "style.css")[0])
    return environment.get_template("index.html.j2").render(page=page, style=style)


def to_markdown(page: Page) -> str:
    """The same content as Markdown."""
    return _environment(html=False).get_template("REPORT.md.j2").render(page=page)

"""The equivalents of Tables 10 to 16 from records alone, at any moment: Markdown, CSV and LaTeX.

Errors are percentages. `params` and `macs` are raw integers here and become millions only when they are printed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from senet_ablate.analysis.evidence import summarise_errors, survey
from senet_ablate.analysis.judge import TableJudge, may_be_best, smallest_effect
from senet_ablate.analysis.study import Assessment
from senet_ablate.analysis.verdicts import FindingVerdict
from senet_ablate.report.escape import csv_text, visible
from senet_ablate.report.findings import in_words, percent
from senet_ablate.results.arms import Outcomes
from senet_ablate.results.records import Latency, RunRecord, StudyPin
from senet_ablate.results.store import read_latency
from senet_ablate.results.worklist import row_states
from senet_ablate.spec.ablation import Ablation, Row, arms
from senet_ablate.spec.claims import PLAIN
from senet_ablate.spec.protocol import Complexity

MISSING = "–"


@dataclass(frozen=True)
class Table:
    """One filled table: its declaration, what was held fixed, a line per row, its findings, and remarks under it."""

    ablation: Ablation
    pin: StudyPin
    frame: pd.DataFrame
    findings: tuple[FindingVerdict, ...]
    remarks: tuple[str, ...]


def build_table(ablation: Ablation, assessment: Assessment) -> Table:
    """Fill one table from a judged study.

    The frame has, per row: table, row, label, n, n_diverged, top1_err_mean, top1_err_half (half the width of the mean's
    95 % interval), top1_err_sd (over its own seeds), top5_err_mean, diff_to_reference, diff_half (of its simultaneous
    95 % interval), may_be_best, params, params_with_bn_stats, added_params, macs, added_macs, measured milliseconds
    with their range, the paper's columns with its own difference, and note (why runs are missing). Means, intervals
    and differences are in the rules' metric.
    """
    judge, outcomes, pin = assessment.judges[ablation.slug], assessment.outcomes, assessment.pin
    evidence = judge.evidence
    best = may_be_best(judge)
    latency = read_latency(outcomes.study)
    to_reference = judge.contrasts.to_reference()
    reference = ablation.row(ablation.reference).paper
    seeds = {record.spec.seed for row in ablation.rows for record in outcomes.runs.get(row.arm, ())}
    lines = []
    for row in ablation.rows:
        good = outcomes.good(row.arm)
        mean = evidence.difference(judge.contrasts.mean(row.id))
        difference = evidence.difference(to_reference[row.id]) if row.id in to_reference else None
        low, high = judge.interval(difference) if difference else (0.0, 0.0)
        errors = summarise_errors(good)
        size = survey(outcomes, row.arm)
        paper = row.paper
        lines.append(
            {
                "table": ablation.table,
                "row": row.id,
                "label": row.label,
                "n": len(good),
                "n_diverged": outcomes.diverged(row.arm),
                "top1_err_mean": mean.estimate if mean else None,
                "top1_err_half": mean.half_width if mean and evidence.noise else None,
                "top1_err_sd": errors.top1_sd,
                "top5_err_mean": errors.top5_mean,
                "diff_to_reference": difference.estimate if difference else None,
                "diff_half": (high - low) / 2 if difference else None,
                "may_be_best": row.id in best,
                **{key: getattr(size.total, key) if size else None for key in Complexity.model_fields},
                "added_params": size.added.params if size else None,
                "added_macs": size.added.macs if size else None,
                **_times(latency, row),
                "paper_top1_err": paper.top1_err if paper else None,
                "paper_top5_err": paper.top5_err if paper else None,
                "paper_diff_to_reference": paper.top1_err - reference.top1_err if paper and reference else None,
                "paper_params_m": paper.params_m if paper else None,
                "paper_gflops": paper.gflops if paper else None,
                "note": _note(row, assessment, seeds),
            }
        )
    findings = tuple(assessment.findings[ablation.slug])
    return Table(ablation, pin, pd.DataFrame(lines), findings, tuple(_remarks(ablation, assessment)))


def _times(latency: Latency | None, row: Row) -> dict[str, float | None]:
    """Milliseconds of one image and of a training step with their ranges, where they were measured."""
    times = latency.networks.get(row.arm.variant.slug, {}) if latency else {}
    cells: dict[str, float | None] = {}
    for kind in ("one_image", "training_step"):
        timing = times.get(kind)
        cells[f"{kind}_ms"] = timing.median if timing else None
        cells[f"{kind}_ms_low"] = timing.low if timing else None
        cells[f"{kind}_ms_high"] = timing.high if timing else None
    return cells


def _note(row: Row, assessment: Assessment, seeds: set[int]) -> str:
    """Say what is missing of the row: runs that failed, diverged or are unfinished, and seeds that other rows have.

    Of the latter no more than a plan file gives to the row's network.
    """
    study, protocol = assessment.outcomes.study, assessment.pin.protocol
    begun = {seed for slug, seed in study.begun() if slug == row.variant.slug and row.arm.owns(seed)}
    begun = {seed for seed in begun if study.run(protocol.run_spec(row.variant, seed).run_id).path.is_dir()}
    if not begun:
        return "not run"
    plan = assessment.plan
    planned = plan.seeds[-1].get(row.arm.slug, 0) if plan.written else len(seeds)
    others = set(sorted(seed for seed in seeds if row.arm.owns(seed))[:planned])
    states = row_states([protocol.run_spec(row.variant, seed) for seed in sorted(begun | others)], study)
    told = [f"{state}: {', '.join(names)}" for state, names in states.items() if state != "finished" and names]
    return "; ".join(told)


def _remarks(ablation: Ablation, assessment: Assessment) -> list[str]:
    pin, outcomes = assessment.pin, assessment.outcomes
    network, data, recipe, facts = pin.protocol.network, pin.protocol.data, pin.protocol.recipe, pin.data
    skipped = f", {facts.skipped} files skipped" if facts.skipped else ""
    records = [record for row in ablation.rows for record in outcomes.runs.get(row.arm, ())]
    remarks = [
        f"{network.backbone}, width {network.width}, {network.stem} stem, stride in the {network.stride_in}; "
        f"{data.dataset} at {data.resolution}x{data.resolution}, {facts.n_train:,} training, {facts.n_validation:,} "
        f"validation and {facts.n_test:,} test images in {facts.classes} classes{skipped}; {recipe.epochs} epochs, "
        f"batch {recipe.batch_size}.",
        "Error of the last epoch on the test set, read once: mean over n seeds and half-width of its 95 % interval. "
        f"The difference is to {ablation.row(ablation.reference).label}, with the half-width of its simultaneous "
        f"{percent(1 - assessment.rules.alpha_per_look)} interval. ✓ marks the rows that cannot be told from the best.",
        *noise_remarks(assessment, assessment.judges[ablation.slug]),
    ]
    for what, values in (
        ("precision", {record.provenance.precision for record in records}),
        ("hardware", {_hardware(record) for record in records}),
        ("devices per run", {str(record.provenance.devices) for record in records}),
        ("levers of speed", {levers_in_words(record) for record in records}),
        ("torch", {record.provenance.libraries.get("torch", "?") for record in records}),
    ):
        if len(values) > 1:
            remarks.append(f"Caution: the runs differ in {what}: {', '.join(sorted(values))}.")
        elif what == "hardware" and values:
            remarks.append(f"Trained on {values.pop()}.")
    latency = read_latency(outcomes.study)
    return [*remarks, f"Times: {latency.setting}."] if latency else remarks


def noise_remarks(assessment: Assessment, judge: TableJudge) -> list[str]:
    """What a reader must know before believing a table: noise, what this n resolves, looks, the plan."""
    evidence, noise = judge.evidence, judge.evidence.noise
    plan = assessment.plan
    looks = f"look {len(plan.seeds)}"
    look = f"Plan {plan.digest}" if plan.written else "No plan file"
    told = f"{look}, {looks} of {assessment.rules.looks}"
    deviating = "; ".join(assessment.deviations) or "none"
    if noise is None:
        return [
            "No arm has two seeds, so nothing can be decided; intervals are provisional.",
            f"{told}. Deviations from the plan: {deviating}.",
        ]
    kind = " (runs differ in real quality: short-training noise)" if noise.short_training else ""
    unstable = ", ".join(evidence.unstable) or "none"
    sd = noise.typical_sd
    remarks = [
        f"Noise, pooled over {int((evidence.counts > 1).sum())} networks of the study ({noise.pooled_df} degrees of "
        f"freedom): one run scatters by {sd:.2f} points; over-dispersion {noise.phi:.1f}{kind}; correlation of runs of "
        f"one seed {noise.correlation:+.2f}; unstable: {unstable}."
    ]
    smallest = smallest_effect(judge)
    if smallest is not None:
        printed = judge.ablation.paper_top1(PLAIN), judge.ablation.paper_top1(judge.ablation.reference)
        gain = f" (the paper's SE gain is {printed[0] - printed[1]:.2f})" if printed[0] and printed[1] else ""
        remarks.append(f"Smallest difference that these runs find with 80 % power: {smallest:.2f} points{gain}.")
    return [*remarks, f"{told}. Deviations from the plan: {deviating}."]


def levers_in_words(record: RunRecord) -> str:
    """The levers of speed that a run had in use."""
    levers = record.provenance.levers
    return "not noted" if levers is None else " and ".join(levers) or "none"


def _hardware(record: RunRecord) -> str:
    made = record.provenance
    if made.device == "cpu":
        return f"{made.cpu}, {made.threads} {'thread' if made.threads == 1 else 'threads'} per run, {made.precision}"
    return f"{made.hardware}, {made.precision}"


def _spread(mean: float | None, half: float | None, form: str = ".2f") -> str:
    if mean is None or pd.isna(mean):
        return MISSING
    text = _number(mean, form)
    return text if half is None or pd.isna(half) else f"{text} ± {half:.2f}"


def _range(line: Mapping[str, Any], name: str) -> str:
    if line[name] is None or pd.isna(line[name]):
        return MISSING
    return f"{line[name]:.3g} ({line[f'{name}_low']:.3g}–{line[f'{name}_high']:.3g})"


def _number(value: float | None, form: str) -> str:
    return MISSING if value is None or pd.isna(value) else format(value, form).replace("-0.00", "+0.00")


def printed(table: Table, *, compact: bool = False) -> pd.DataFrame:
    """The table as a person reads it, all cells text; columns that would be empty are left out.

    `compact` keeps what fits into 80 columns.
    """
    frame, lines = table.frame, []
    large = bool((frame["macs"] > 1e9).any())
    for line in cast("list[dict[str, Any]]", frame.to_dict("records")):
        is_reference = line["row"] == table.ablation.reference
        cells = {
            "network": line["label"],
            "n": str(line["n"]),
            "top-1 err. %": _spread(line["top1_err_mean"], line["top1_err_half"]),
            "best?": "✓" if line["may_be_best"] else "",
            "diff.": MISSING if is_reference else _spread(line["diff_to_reference"], line["diff_half"], "+.2f"),
            "top-5 err. %": _number(line["top5_err_mean"], ".2f"),
            "params M": f"{line['params'] / 1e6:.3f}",
        }
        cells |= {"MACs G": f"{line['macs'] / 1e9:.3f}"} if large else {"MACs M": f"{line['macs'] / 1e6:.3f}"}
        cells |= {"ms, 1 image": _range(line, "one_image_ms"), "ms, step": _range(line, "training_step_ms")}
        cells |= {
            "paper top-1": _number(line["paper_top1_err"], ".2f"),
            "paper diff.": MISSING if is_reference else _number(line["paper_diff_to_reference"], "+.2f"),
            "paper top-5": _number(line["paper_top5_err"], ".2f"),
            "paper params M": _number(line["paper_params_m"], ".1f"),
            "paper GFLOPs": _number(line["paper_gflops"], ".2f"),
            "note": line["note"],
        }
        lines.append(cells)
    text = pd.DataFrame(lines)
    paper = [name for name in text.columns if name.startswith("paper")]
    empty = [name for name in (*paper, "top-5 err. %", "ms, 1 image", "ms, step") if (text[name] == MISSING).all()]
    empty += [name for name in ("note", "best?") if not text[name].any()]
    if compact:
        kept = ["network", "n", "top-1 err. %", "best?", "diff.", "params M", "paper diff."]
        return text[[name for name in kept if name not in empty]]
    return text.drop(columns=empty)


def table_in_words(table: Table) -> str:
    """The errors of a table in a sentence, for those who do not see its figure."""
    errors = [
        f"{line['label']} {_spread(line['top1_err_mean'], line['top1_err_half'])}"
        for line in table.frame.to_dict("records")
        if line["n"]
    ]
    return f"{table.ablation.heading}, top-1 error in percent: {', '.join(errors) or 'no finished run yet'}."


def to_markdown(table: Table) -> str:
    """The whole table as a Markdown page: title, question, cells, remarks, findings."""
    text = printed(table).map(lambda cell: cell.replace("|", r"\|"))
    sides = ["left" if name in ("network", "note") else "right" for name in text.columns]
    rows = text.to_markdown(index=False, disable_numparse=True, colalign=sides)
    remarks = "\n".join(f"- {remark}" for remark in table.remarks)
    ablation = table.ablation
    findings = "\n".join(f"- {in_words(finding)}" for finding in table.findings)
    return (
        f"# {ablation.heading} ({table.pin.protocol.name})\n\n{ablation.question}\n\n{rows}\n\n"
        f"{remarks}\n- {ablation.source}.\n" + (f"\n## Findings\n\n{findings}\n" if findings else "")
    )


def cost_markdown(ablations: Sequence[Ablation], outcomes: Outcomes) -> str:
    """What each table costs when trained alone: distinct networks, finished runs, and their time on one worker."""
    lines = []
    for name, some in (*((ablation.slug, [ablation]) for ablation in ablations), ("together", ablations)):
        records = [record for arm in arms(some) for record in outcomes.runs.get(arm, ())]
        lines.append(
            {
                "ablation": name,
                "networks": str(len(arms(some))),
                "runs": str(len(records)),
                "one worker, min": f"{sum(record.provenance.wall_s for record in records) / 60:.1f}",
            }
        )
    sides = ("left", "right", "right", "right")
    rows = pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True, colalign=sides)
    hardware = sorted({_hardware(record) for arm in arms(ablations) for record in outcomes.runs.get(arm, ())})
    study = outcomes.study.name
    note = f"- Sum of the runs' own wall time, study {study}, on {'; '.join(hardware) or 'no machine yet'}."
    return f"# What each table costs ({outcomes.pin.protocol.name})\n\n{rows}\n\n{note}\n"


LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"±": r"$\pm$", "✓": r"$\checkmark$", MISSING: "--"}
)


def latex(text: str) -> str:
    """Escape what LaTeX would take for commands."""
    return visible(text).translate(LATEX)


def to_latex(table: Table) -> str:
    """The table for a paper that loads booktabs; remarks become the caption."""
    text = printed(table).map(latex)
    text.columns = [latex(name) for name in text.columns]
    ablation = table.ablation
    after = f", after Table {ablation.table} of the paper" if ablation.table else ""
    caption = f"{ablation.title}{after}. " + " ".join(table.remarks)
    return text.to_latex(
        index=False,
        escape=False,
        caption=latex(caption),
        label=f"tab:{ablation.slug}",
        column_format="".join("l" if name in ("network", "note") else "r" for name in text.columns),
        position="t",
    )


def to_csv(table: Table) -> str:
    """The frame with full precision, missing numbers empty."""
    return csv_text(table.frame)

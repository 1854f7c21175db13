"""The equivalents of Tables 10 to 16 from records alone, at any moment: Markdown, CSV and LaTeX.

Errors are percentages. `params` and `macs` are raw integers here and become millions only when they are printed.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from senet_ablate.overhead import added_cost, total_cost
from senet_ablate.planning import row_states
from senet_ablate.records import RunRecord, StudyPin
from senet_ablate.specs import Variant
from senet_ablate.store import Study
from senet_ablate.suite import Ablation, Row, arms

MISSING = "–"


@dataclass(frozen=True)
class Table:
    """One filled table: its declaration, what was held fixed, a line per row, and remarks under it."""

    ablation: Ablation
    pin: StudyPin
    frame: pd.DataFrame
    remarks: tuple[str, ...]


def build_table(ablation: Ablation, study: Study, pin: StudyPin) -> Table:
    """Fill one table from the study's records.

    The frame has, per row: table, row, label, n, n_diverged, top1_err_mean, top1_err_sd, top5_err_mean, top5_err_sd,
    diff_to_reference, params, params_with_bn_stats, added_params, macs, added_macs, the paper's columns with its own
    difference, and note (why runs are missing).
    """
    found = {row.id: _records(row.variant, study, pin) for row in ablation.rows}
    seeds = {record.spec.seed for records in found.values() for record in records}
    reference = ablation.row(ablation.reference)
    reference_mean = _mean([_top1(record) for record in found[reference.id] if record.metrics])
    lines = []
    for row in ablation.rows:
        good = [record for record in found[row.id] if record.metrics]
        top1 = [_top1(record) for record in good]
        top5 = [record.metrics.top5_err for record in good if record.metrics and record.metrics.top5_err is not None]
        mean = _mean(top1)
        protocol = pin.protocol
        total = total_cost(
            protocol.network,
            row.variant,
            in_channels=pin.data.channels,
            classes=pin.data.classes,
            resolution=protocol.data.resolution,
        )
        added = added_cost(protocol.network, row.variant, protocol.data.resolution)
        lines.append(
            {
                "table": ablation.table,
                "row": row.id,
                "label": row.label,
                "n": len(good),
                "n_diverged": len(found[row.id]) - len(good),
                "top1_err_mean": mean,
                "top1_err_sd": _sd(top1),
                "top5_err_mean": _mean(top5),
                "top5_err_sd": _sd(top5),
                "diff_to_reference": _difference(mean, reference_mean),
                **total.model_dump(),
                "added_params": added.params,
                "added_macs": added.macs,
                "paper_top1_err": row.paper.top1_err,
                "paper_top5_err": row.paper.top5_err,
                "paper_diff_to_reference": row.paper.top1_err - reference.paper.top1_err,
                "paper_params_m": row.paper.params_m,
                "paper_gflops": row.paper.gflops,
                "note": _note(row, study, pin, seeds),
            }
        )
    records = [record for some in found.values() for record in some]
    return Table(ablation, pin, pd.DataFrame(lines), tuple(_remarks(ablation, pin, records)))


def _records(variant: Variant, study: Study, pin: StudyPin) -> list[RunRecord]:
    """All finished runs of a network, by seed; a record of other conditions or images is never taken."""
    records = []
    for seed in sorted(study.seeds(variant)):
        record = study.record(pin.protocol.run_spec(variant, seed))
        if record is not None:
            records.append(record)
    return records


def _note(row: Row, study: Study, pin: StudyPin, seeds: set[int]) -> str:
    """Say what is missing of the row: runs that failed, diverged or are unfinished, and seeds that other rows have."""
    specs = (pin.protocol.run_spec(row.variant, seed) for seed in study.seeds(row.variant))
    begun = {spec.seed for spec in specs if study.run(spec.run_id).path.is_dir()}
    if not begun:
        return "not run"
    states = row_states([pin.protocol.run_spec(row.variant, seed) for seed in sorted(begun | seeds)], study)
    told = [f"{state}: {', '.join(names)}" for state, names in states.items() if state != "finished" and names]
    return "; ".join(told)


def _top1(record: RunRecord) -> float:
    assert record.metrics is not None
    return record.metrics.top1_err


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _sd(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _difference(mean: float | None, reference: float | None) -> float | None:
    return None if mean is None or reference is None else mean - reference


def _remarks(ablation: Ablation, pin: StudyPin, records: Sequence[RunRecord]) -> list[str]:
    network, data, recipe = pin.protocol.network, pin.protocol.data, pin.protocol.recipe
    facts = pin.data
    skipped = f", {facts.skipped} files skipped" if facts.skipped else ""
    remarks = [
        f"{network.backbone}, width {network.width}, {network.stem} stem, stride in the {network.stride_in}; "
        f"{data.dataset} at {data.resolution}x{data.resolution}, {facts.n_train:,} training, {facts.n_validation:,} "
        f"validation and {facts.n_test:,} test images in {facts.classes} classes{skipped}; {recipe.epochs} epochs, "
        f"batch {recipe.batch_size}.",
        "Error of the last epoch on the test set, read once: mean ± standard deviation over n seeds. The "
        f"difference is to {ablation.row(ablation.reference).label}; it is no verdict, the runs' noise is the ±.",
    ]
    for what, values in (
        ("precision", {record.provenance.precision for record in records}),
        ("hardware", {_hardware(record) for record in records}),
        ("devices per run", {str(record.provenance.devices) for record in records}),
        ("torch", {record.provenance.libraries.get("torch", "?") for record in records}),
    ):
        if len(values) > 1:
            remarks.append(f"Caution: the runs differ in {what}: {', '.join(sorted(values))}.")
        elif what == "hardware" and values:
            remarks.append(f"Trained on {values.pop()}.")
    return remarks


def _hardware(record: RunRecord) -> str:
    made = record.provenance
    if made.device == "cpu":
        return f"{made.cpu}, {made.threads} {'thread' if made.threads == 1 else 'threads'} per run, {made.precision}"
    return f"{made.hardware}, {made.precision}"


def _spread(mean: float | None, sd: float | None) -> str:
    if mean is None or pd.isna(mean):
        return MISSING
    return f"{mean:.2f}" if sd is None or pd.isna(sd) else f"{mean:.2f} ± {sd:.2f}"


def _number(value: float | None, form: str) -> str:
    return MISSING if value is None or pd.isna(value) else format(value, form).replace("-0.00", "+0.00")


def printed(table: Table, *, compact: bool = False) -> pd.DataFrame:
    """The table as a person reads it, all cells text; columns that would be empty are left out.

    `compact` keeps what fits into 80 columns.
    """
    frame, lines = table.frame, []
    large = bool((frame["macs"] > 1e9).any())
    for line in frame.to_dict("records"):
        diff = MISSING if line["row"] == table.ablation.reference else _number(line["diff_to_reference"], "+.2f")
        paper_diff = MISSING if line["row"] == table.ablation.reference else f"{line['paper_diff_to_reference']:+.2f}"
        cells = {
            "network": line["label"],
            "n": str(line["n"]),
            "top-1 err. %": _spread(line["top1_err_mean"], line["top1_err_sd"]),
            "diff.": diff,
            "top-5 err. %": _spread(line["top5_err_mean"], line["top5_err_sd"]),
            "params M": f"{line['params'] / 1e6:.3f}",
        }
        cells |= {"MACs G": f"{line['macs'] / 1e9:.3f}"} if large else {"MACs M": f"{line['macs'] / 1e6:.3f}"}
        cells |= {
            "paper top-1": f"{line['paper_top1_err']:.2f}",
            "paper diff.": paper_diff,
            "paper top-5": f"{line['paper_top5_err']:.2f}",
            "paper params M": _number(line["paper_params_m"], ".1f"),
            "paper GFLOPs": _number(line["paper_gflops"], ".2f"),
            "note": line["note"],
        }
        lines.append(cells)
    text = pd.DataFrame(lines)
    if compact:
        return text[["network", "n", "top-1 err. %", "diff.", "params M", "paper top-1", "paper diff."]]
    empty = [name for name in ("top-5 err. %", "paper params M", "paper GFLOPs") if (text[name] == MISSING).all()]
    if not text["note"].any():
        empty.append("note")
    return text.drop(columns=empty)


def to_markdown(table: Table) -> str:
    """The whole table as a Markdown page: title, question, cells, remarks."""
    text = printed(table).map(lambda cell: cell.replace("|", r"\|"))
    right = [name for name in text.columns if name not in ("network", "note")]
    sides = ["right" if name in right else "left" for name in text.columns]
    rows = text.to_markdown(index=False, disable_numparse=True, colalign=sides)
    remarks = "\n".join(f"- {remark}" for remark in table.remarks)
    ablation = table.ablation
    return (
        f"# Table {ablation.table}: {ablation.title} ({table.pin.protocol.name})\n\n{ablation.question}\n\n{rows}\n\n"
        f"{remarks}\n- Paper: {ablation.source}.\n"
    )


def cost_markdown(ablations: Sequence[Ablation], study: Study, pin: StudyPin) -> str:
    """What each table cost when trained alone: distinct networks, finished runs, and their time on one worker."""
    found = {variant: _records(variant, study, pin) for variant in arms(ablations)}
    lines = []
    for name, some in (*((ablation.slug, [ablation]) for ablation in ablations), ("together", ablations)):
        records = [record for variant in arms(some) for record in found[variant]]
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
    hardware = sorted({_hardware(record) for records in found.values() for record in records})
    note = f"- Sum of the runs' own wall time, study {study.name}, on {'; '.join(hardware) or 'no machine yet'}."
    return f"# What each table costs ({pin.protocol.name})\n\n{rows}\n\n{note}\n"


LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"±": r"$\pm$", MISSING: "--"}
)


def latex(text: str) -> str:
    """Escape what LaTeX would take for commands."""
    return text.translate(LATEX)


def to_latex(table: Table) -> str:
    """The table for a paper that loads booktabs; remarks become the caption."""
    text = printed(table).map(latex)
    text.columns = [latex(name) for name in text.columns]
    ablation = table.ablation
    caption = f"{ablation.title}, after Table {ablation.table} of the paper. " + " ".join(table.remarks)
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
    return table.frame.to_csv(index=False, lineterminator="\n")

"""The equivalents of Tables 10 to 16 from records alone, at any moment: Markdown, CSV and LaTeX.

Errors are percentages. `params` and `macs` are raw integers here and become millions only when they are printed.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from senet_ablate.analysis.evidence import survey
from senet_ablate.analysis.judge import TableJudge, may_be_best
from senet_ablate.analysis.sample_size import smallest_effect
from senet_ablate.analysis.study import Assessment
from senet_ablate.analysis.summary import seed_values
from senet_ablate.analysis.verdicts import FindingVerdict
from senet_ablate.errors import look_up
from senet_ablate.report.escape import visible
from senet_ablate.report.findings import in_words
from senet_ablate.report.render import render
from senet_ablate.report.words import METRICS, MISSING, counted, percent
from senet_ablate.results.arms import Outcomes
from senet_ablate.results.records import Latency, RunRecord, StudyPin
from senet_ablate.results.store import read_latency
from senet_ablate.results.worklist import row_states
from senet_ablate.spec.ablation import Ablation, Row, arms
from senet_ablate.spec.claims import PLAIN, Metric
from senet_ablate.spec.protocol import Complexity


@dataclass(frozen=True)
class Table:
    """One filled table: its declaration, what was held fixed, a line per row, its findings, and remarks under it.

    `seeds` has the score of each run by row, in the metric of the means.
    """

    ablation: Ablation
    pin: StudyPin
    metric: Metric
    frame: pd.DataFrame
    seeds: Mapping[str, tuple[float, ...]]
    findings: tuple[FindingVerdict, ...]
    remarks: tuple[str, ...]


def build_table(ablation: Ablation, assessment: Assessment) -> Table:
    """Fill one table from a judged study.

    The frame has, per row: table, row, label, n, n_diverged, n_collapsed, top1_err_mean, top1_err_half (half the width
    of the mean's 95 % interval), top1_err_sd (over its own seeds), top5_err_mean, diff_to_reference, diff_half (of its
    simultaneous interval), may_be_best, params, params_with_bn_stats, added_params, macs, added_macs, measured
    milliseconds with their range, the paper's columns with its own difference, and note (why runs are missing). Means,
    intervals and differences are in the rules' metric.
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
        metrics = [record.metrics for record in good if record.metrics]
        top1 = [each.top1_err for each in metrics]
        top5 = [each.top5_err for each in metrics if each.top5_err is not None]
        size, paper = survey(outcomes, row.arm), row.paper
        lines.append(
            {
                "table": ablation.table,
                "row": row.id,
                "label": row.label,
                "n": len(good),
                "n_diverged": outcomes.diverged(row.arm),
                "n_collapsed": outcomes.collapsed(row.arm),
                "top1_err_mean": mean.estimate if mean else None,
                "top1_err_half": mean.half_width if mean and evidence.noise and len(good) > 1 else None,
                "top1_err_sd": statistics.stdev(top1) if len(top1) > 1 else None,
                "top5_err_mean": statistics.fmean(top5) if top5 else None,
                "diff_to_reference": difference.estimate if difference else None,
                "diff_half": judge.half_width(to_reference[row.id]) if difference else None,
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
    scores = {row.id: tuple(seed_values(evidence, judge.contrasts.mean(row.id)).values()) for row in ablation.rows}
    remarks = tuple(_remarks(ablation, assessment))
    return Table(ablation, pin, assessment.rules.metric, pd.DataFrame(lines), scores, findings, remarks)


def _times(latency: Latency | None, row: Row) -> dict[str, float | None]:
    """Milliseconds of one image and of a training step with their ranges, where they were measured."""
    times = latency.networks.get(row.arm.variant.slug, {}) if latency else {}
    return {
        f"{kind}_ms{end}": getattr(times[kind], name) if kind in times else None
        for kind in ("one_image", "training_step")
        for end, name in (("", "median"), ("_low", "low"), ("_high", "high"))
    }


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
    collapsed = assessment.outcomes.collapsed(row.arm)
    told = [f"{collapsed} of {len(assessment.outcomes.runs.get(row.arm, ()))} runs collapsed"] if collapsed else []
    told += [f"{state}: {', '.join(names)}" for state, names in states.items() if state != "finished" and names]
    return "; ".join(told)


def _remarks(ablation: Ablation, assessment: Assessment) -> list[str]:
    pin, outcomes = assessment.pin, assessment.outcomes
    network, data, recipe, facts = pin.protocol.network, pin.protocol.data, pin.protocol.recipe, pin.data
    skipped = f", {facts.skipped} files skipped" if facts.skipped else ""
    records = [record for row in ablation.rows for record in outcomes.runs.get(row.arm, ())]
    remarks = [
        f"{network.in_words(whole=True)}; "
        f"{pin.protocol.images_name} at {data.resolution}x{data.resolution}, {facts.n_train:,} training, "
        f"{facts.n_validation:,} validation and {facts.n_test:,} test images in {facts.classes} classes{skipped}; "
        f"{recipe.epochs} epochs, batch {recipe.batch_size}.",
        "Error of the last epoch on the test set, evaluated once: mean over n seeds and half-width of its 95 % "
        f"interval. The difference is to {ablation.row(ablation.reference).label}, with the half-width of its "
        f"simultaneous {percent(assessment.judges[ablation.slug].coverage)} interval. ✓ marks the rows that are not "
        "significantly different from the best.",
        *_noise_remarks(assessment, assessment.judges[ablation.slug]),
    ]
    for what, values in (
        ("precision", {record.provenance.precision for record in records}),
        ("hardware", {_hardware(record) for record in records}),
        ("devices per run", {str(record.provenance.devices) for record in records}),
        ("optimisations", {optimisations_in_words(record) for record in records}),
        ("torch", {record.provenance.libraries.get("torch", "?") for record in records}),
    ):
        if len(values) > 1:
            remarks.append(f"Caution: the runs differ in {what}: {', '.join(sorted(values))}.")
        elif what == "hardware" and values:
            remarks.append(f"Trained on {values.pop()}.")
    latency = read_latency(outcomes.study)
    return [*remarks, f"Times: {latency.setting}."] if latency else remarks


def _noise_remarks(assessment: Assessment, judge: TableJudge) -> list[str]:
    """What a reader must know before believing a table: noise, what this n resolves, interim analyses, the plan."""
    evidence, noise = judge.evidence, judge.evidence.noise
    plan = assessment.plan
    which = f"Plan {plan.digest}" if plan.written else "No plan file"
    deviating = "; ".join(assessment.deviations) or "none"
    planned = (
        f"{which}, interim analysis {len(plan.seeds)} of {assessment.rules.looks}. Deviations from the plan: "
        f"{deviating}."
    )
    if noise is None:
        return ["No variant has two seeds, so nothing can be decided and no interval is given.", planned]
    kind = " (runs differ in real quality: short-training noise)" if noise.short_training else ""
    unstable = ", ".join(evidence.unstable) or "none"
    sd = noise.typical_sd
    remarks = [
        f"Noise, pooled over {evidence.pooled} variants of the study ({noise.pooled_df} degrees of "
        f"freedom): run-to-run standard deviation {sd:.2f} points; over-dispersion {noise.phi:.1f}{kind}; correlation "
        f"of runs of one seed {noise.correlation:+.2f}; unstable: {unstable}."
    ]
    smallest = smallest_effect(judge)
    if smallest is not None:
        printed = judge.ablation.paper_top1(PLAIN), judge.ablation.paper_top1(judge.ablation.reference)
        gain = f" (the paper's SE gain is {printed[0] - printed[1]:.2f})" if printed[0] and printed[1] else ""
        remarks.append(f"Minimum detectable effect (80 % power): {smallest:.2f} points{gain}.")
    return [*remarks, planned]


def optimisations_in_words(record: RunRecord) -> str:
    """The optimisations that a run had in use."""
    used = record.provenance.levers
    return "not recorded" if used is None else " and ".join(used) or "none"


def _hardware(record: RunRecord) -> str:
    made = record.provenance
    if made.device == "cpu":
        return f"{made.cpu}, {counted(made.threads, 'thread', 'threads')} per run, {made.precision}"
    return f"{made.hardware}, {made.precision}"


def _number(value: float | None, half: float | None = None, form: str = ".2f") -> str:
    """A number, with the half-width of its interval where it is known."""
    if value is None or pd.isna(value):
        return MISSING
    text = format(value, form).replace("-0.00", "+0.00")
    return text if half is None or pd.isna(half) else f"{text} ± {half:.2f}"


def _error(mean: float | None, half: float | None, metric: Metric) -> str:
    """A mean with half of its interval; with both ends, cut off, where it would leave the range of the metric."""
    if mean is None or half is None or pd.isna(half):
        return _number(mean)
    low, high, top = mean - half, mean + half, METRICS[metric].most
    within = round(low, 2) >= 0 and round(high, 2) <= top
    return _number(mean, half) if within else f"{mean:.2f} ({max(0.0, low):.2f}–{min(top, high):.2f})"


HEADINGS = {
    "variant": "variant",
    "n": "n",
    "err": "",  # as the metric has it
    "best": "best?",
    "diff": "diff.",
    "top5": "top-5 err. %",
    "params": "params M",
    "macs": "MACs M",
    "latency": "ms, 1 image",
    "step": "ms, step",
    "paper_err": "paper top-1",
    "paper_diff": "paper diff.",
    "paper_top5": "paper top-5",
    "paper_params": "paper params M",
    "paper_gflops": "paper GFLOPs",
    "note": "note",
}
COLUMNS = tuple(HEADINGS)
"""Of a printed table, by the names that `--columns` takes."""

COMPACT = ("variant", "n", "err", "best", "diff", "params", "paper_diff")
"""What fits into 80 columns."""

WORDS = ("variant", "note")
"""Columns that are no numbers."""


def printed(table: Table, columns: Collection[str] = COLUMNS) -> pd.DataFrame:
    """The table as a person reads it, all cells text; of `columns` those that would be empty are left out."""
    frame = table.frame
    large = bool((frame["macs"] > 1e9).any())

    def numbers(name: str, form: str = ".2f", *, half: str | None = None, unit: float = 1.0) -> list[str]:
        halves = frame[half] if half else [None] * len(frame)
        values = [None if pd.isna(value) else value / unit for value in frame[name]]
        return [_number(value, width, form) for value, width in zip(values, halves, strict=True)]

    def times(name: str) -> list[str]:
        rounds = frame[[name, f"{name}_low", f"{name}_high"]].itertuples(index=False)
        return [MISSING if pd.isna(at) else f"{at:.3g} ({low:.3g}–{high:.3g})" for at, low, high in rounds]

    text = pd.DataFrame(
        {
            "variant": frame["label"],
            "n": frame["n"].astype(str),
            "err": [
                _error(*pair, table.metric) for pair in zip(frame["top1_err_mean"], frame["top1_err_half"], strict=True)
            ],
            "best": ["✓" if best else "" for best in frame["may_be_best"]],
            "diff": numbers("diff_to_reference", "+.2f", half="diff_half"),
            "top5": numbers("top5_err_mean"),
            "params": numbers("params", ".3f", unit=1e6),
            "macs": numbers("macs", ".3f", unit=1e9 if large else 1e6),
            "latency": times("one_image_ms"),
            "step": times("training_step_ms"),
            "paper_err": numbers("paper_top1_err"),
            "paper_diff": numbers("paper_diff_to_reference", "+.2f"),
            "paper_top5": numbers("paper_top5_err"),
            "paper_params": numbers("paper_params_m", ".1f"),
            "paper_gflops": numbers("paper_gflops"),
            "note": frame["note"],
        }
    )
    text.loc[frame["row"] == table.ablation.reference, "paper_diff"] = MISSING
    always = ("variant", "n", "err", "diff")
    shown = [
        name for name in COLUMNS if name in columns and (name in always or not text[name].isin(["", MISSING]).all())
    ]
    headings = HEADINGS | {"err": METRICS[table.metric].heading} | ({"macs": "MACs G"} if large else {})
    return text[shown].rename(columns=headings)


def check_columns(names: Sequence[str]) -> tuple[str, ...]:
    """The columns that a call names, the variant's name before them.

    Raises:
        UserError: there is no such column.
    """
    for name in names:
        look_up(HEADINGS, name, "--columns: no column")
    return ("variant", *names)


def table_in_words(table: Table) -> str:
    """The errors of a table in a sentence, for those who do not see its figure."""
    errors = [
        f"{line['label']} {_error(line['top1_err_mean'], line['top1_err_half'], table.metric)}"
        for line in table.frame.to_dict("records")
        if line["n"]
    ]
    return f"{table.ablation.heading}, top-1 error in percent: {', '.join(errors) or 'no finished run yet'}."


def to_markdown(table: Table) -> str:
    """The whole table as a Markdown page: title, question, cells, remarks, findings."""
    return render("table.md.j2", table=table, text=printed(table), findings=list(map(in_words, table.findings)))


def cost_markdown(ablations: Sequence[Ablation], outcomes: Outcomes) -> str:
    """What each table costs when trained alone: distinct variants, finished runs, and their time on one worker."""
    lines = []
    for name, some in (*((ablation.slug, [ablation]) for ablation in ablations), ("together", ablations)):
        records = [record for arm in arms(some) for record in outcomes.runs.get(arm, ())]
        lines.append(
            {
                "ablation": name,
                "variants": str(len(arms(some))),
                "runs": str(len(records)),
                "one worker, min": f"{sum(record.provenance.wall_s for record in records) / 60:.1f}",
            }
        )
    hardware = sorted({_hardware(record) for arm in arms(ablations) for record in outcomes.runs.get(arm, ())})
    return render(
        "cost.md.j2",
        protocol=outcomes.pin.protocol.name,
        text=pd.DataFrame(lines),
        study=outcomes.study.name,
        hardware="; ".join(hardware) or "no machine yet",
    )


LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"±": r"$\pm$", "✓": r"$\checkmark$", MISSING: "--"}
)


def latex(text: str) -> str:
    """Escape what LaTeX would take for commands."""
    return visible(text).translate(LATEX)


def to_latex(table: Table, columns: Collection[str] = COLUMNS) -> str:
    """The table for a paper that loads booktabs, of `columns` those that are not empty; remarks are comments above."""
    text = printed(table, columns).map(latex)
    text.columns = [latex(name) for name in text.columns]
    ablation = table.ablation
    after = f", after Table {ablation.table} of the paper" if ablation.table else ""
    reference = ablation.row(ablation.reference).label
    meaning = f"{METRICS[table.metric].name} (mean over n seeds and half-width of its 95 % interval)"
    caption = f"{ablation.title}{after}: {meaning}; differences to {reference}, on {table.pin.protocol.name}."
    body = text.to_latex(
        index=False,
        escape=False,
        caption=(latex(caption), latex(ablation.title)),
        label=f"tab:{ablation.slug}",
        column_format="".join("l" if name in WORDS else "r" for name in text.columns),
        position="t",
    )
    return "".join(f"% {visible(' '.join(remark.split()))}\n" for remark in table.remarks) + body

"""What the commands print: tables that fit a narrow terminal and a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from senet_ablate.results.worklist import Estimate, Plan, duration
from senet_ablate.spec.ablation import Ablation, arms
from senet_ablate.spec.protocol import Protocol

if TYPE_CHECKING:
    from pandas import DataFrame

    from senet_ablate.analysis.planner import PlanPreview
    from senet_ablate.blocks.contract import ContractReport
    from senet_ablate.report.tables import Table
    from senet_ablate.results.records import Latency


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

NAME: Mapping[str, Any] = {"no_wrap": True}
TEXT: Mapping[str, Any] = {"overflow": "fold"}
NUMBER: Mapping[str, Any] = {"justify": "right", "no_wrap": True}
RIGHT: Mapping[str, Any] = {"justify": "right", "overflow": "fold"}
"""Kinds of a grid's columns."""


class Screen(Console):
    """Standard output or error."""

    def on_broken_pipe(self) -> None:
        """End as a program does whose reader has seen enough (`| head -1`), and not as one whose runs failed.

        Raises:
            SystemExit: with 141, which a shell gives for SIGPIPE.
        """
        with suppress(SystemExit):
            super().on_broken_pipe()
        raise SystemExit(128 + 13)


def printable(text: str) -> str:
    """A text that cannot command the terminal, whatever a stranger's file brings into it."""
    return CONTROL.sub("\ufffd", text)


def tell(text: str) -> None:
    """Print a message to standard error, so that standard output has results alone."""
    say(text, error=True)


def say(text: str, *, error: bool = False) -> None:
    """Print a sentence as it is, to standard output or error; a terminal may wrap it."""
    Screen(stderr=error).print(printable(text), highlight=False, markup=False, soft_wrap=True)


def show_grid(
    title: str, columns: Mapping[str, Mapping[str, Any]], rows: Iterable[Sequence[str]], *, headed: bool = True
) -> None:
    """Print a grid without vertical lines to standard output; `columns` has the kind of each by its heading."""
    grid = Grid(
        title=printable(title) or None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_header=headed,
    )
    for heading, kind in columns.items():
        grid.add_column(printable(heading), **kind)
    for cells in rows:
        grid.add_row(*map(printable, cells))
    Screen(markup=False).print(grid)  # a user's text may hold brackets


def show_frame(title: str, frame: DataFrame, first: Mapping[str, Any] = TEXT) -> None:
    """Print a table that is text already, its first column to the left."""
    name, *others = map(str, frame.columns)
    kinds = {name: first} | dict.fromkeys(others, RIGHT)
    show_grid(title, kinds, frame.itertuples(index=False))


def show_declarations(tables: Sequence[Ablation], protocols: Sequence[Protocol]) -> None:
    """The tables with their rows, and the protocols."""
    printed = [table for table in tables if table.table]
    show_grid(
        f"the paper's {sum(len(t.rows) for t in printed)} rows are {len(arms(printed))} distinct variants; "
        f"{sum(not claim.secondary for table in printed for claim in table.claims)} findings",
        dict.fromkeys(("table", "name", "factor", "rows"), TEXT),
        ((str(t.table or "–"), t.slug, t.factor, ", ".join(row.id for row in t.rows)) for t in tables),
    )
    show_grid("protocols", {"name": NAME, "description": TEXT}, ((each.name, each.description) for each in protocols))


def show_plan(plan: Plan, title: str, found: Estimate | None) -> None:
    """The variants of a plan, the rows that they fill, their cost, and the time left."""
    rows = []
    for planned in plan.arms:
        done = sum(run.run_id in plan.done for run in planned.runs)
        counts = (planned.complexity.params, planned.complexity.macs, len(planned.runs), done)
        rows.append((planned.arm.slug, ", ".join(planned.rows), *(f"{count:,}" for count in counts)))
    kinds = {"variant": NAME, "rows": TEXT} | dict.fromkeys(("params", "MACs", "runs", "done"), RIGHT)
    show_grid(title, kinds, rows)
    say(f"{len(plan.arms)} variants, {plan.runs} runs, {len(plan.done)} finished, {len(plan.todo)} to do.")
    if plan.todo and found is None:
        say("Time: unknown until a run is finished; train one and plan again.")
    elif plan.todo and found is not None:
        at_once = f"{found.workers} at once" if found.workers > 1 else "one after the other"
        say(
            f"Wall time: about {duration(found.wall_s)}, {at_once}, {duration(found.worker_s)} of work ({found.basis})."
        )


def headline(preview: PlanPreview, budgeted: bool) -> str:
    """How many claims a plan decides, in a sentence."""
    full, half = (sum(getattr(each, name) for each in preview.claims) for name in ("power", "power_at_half"))
    what = "this budget" if budgeted else "these seeds"
    return (
        f"With {what} expect {full:.1f} of {len(preview.claims)} findings decided if the paper's effects are true, "
        f"{half:.1f} if half of them are."
    )


def show_power(preview: PlanPreview) -> None:
    """What a plan can decide of each claim, those out of reach first: minimum detectable effect, power, seeds, time."""
    from senet_ablate.analysis.planner import OUT_OF_REACH

    claims = sorted(preview.claims, key=lambda claim: claim.power)
    kinds = {"finding": TEXT} | dict.fromkeys(("MDE", "paper", "power", "at half", "n for 80 %"), NUMBER)
    far = [claim for claim in claims if claim.power < OUT_OF_REACH]
    for name, sign, group in (("out of", "under", far), ("within", "at least", claims[len(far) :])):
        rows = []
        for each in group:
            figures = (f"{figure:.2f}" for figure in (each.smallest, each.paper, each.power, each.power_at_half))
            rows.append((f"{each.claim.id} {each.claim.statement}", *figures, preview.takes(each)))
        if rows:
            show_grid(f"{name} reach (power {sign} {OUT_OF_REACH:.0%} for the paper's effect)", kinds, rows)
    if claims:
        say("MDE: minimum detectable effect, in points, at 80 % power; power for the paper's effect and half of it.")
    for line in preview.remarks:
        say(line)


def show_status(title: str, states: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """The state of each variant's runs; `states` has, per variant, the run ids by state (`worklist.row_states`)."""
    rows, total, planned = [], 0, 0
    for name, found in states.items():
        finished, wanted = len(found["finished"]) + len(found["diverged"]), sum(map(len, found.values()))
        others = [f"{state}: {', '.join(runs)}" for state, runs in found.items() if runs and state != "finished"]
        rows.append((name, f"{finished} of {wanted}", "; ".join(others)))
        total, planned = total + finished, planned + wanted
    show_grid(title, {"variant": NAME, "finished": RIGHT, "not finished": TEXT}, rows)
    say(f"{total} of {planned} runs finished")


def show_table(table: Table, study: str) -> None:
    """A filled table, as much of it as fits into 80 columns, and the verdict on each of its findings."""
    from senet_ablate.analysis.verdicts import Reason  # pandas
    from senet_ablate.report.findings import reason_in_words
    from senet_ablate.report.tables import COMPACT, printed
    from senet_ablate.report.words import WORDS

    show_frame(f"{table.ablation.heading}, study {study}", printed(table, COMPACT), NAME)
    findings = [each for each in table.findings if {reason.kind for reason in each.reasons} != {Reason.NOT_RUN}]
    for finding in findings:
        reason = reason_in_words(finding)
        say(f"{finding.claim.id} {finding.claim.statement}: {WORDS[finding.verdict]}{f' ({reason})' if reason else ''}")
    if len(findings) < len(table.findings):
        say(f"{len(table.findings) - len(findings)} more findings are about variants that were not run.")
    say("")


def show_calibration(frame: DataFrame) -> None:
    """Coverage, false findings and correct findings of each simulated scenario."""
    kinds = {"scenario": TEXT} | dict.fromkeys(("seeds", "coverage", "false", "correct", "holds"), NUMBER)
    rows = []
    for line in frame.to_dict("records"):
        shares = (f"{line['coverage']:.3f}", f"{line['false_worst_table']:.3f}", f"{line['right']:.1f}")
        holds = ("yes" if line["holds"] else "NO") if line["promised"] else "–"
        rows.append((line["truth"], line["seeds"], *shares, holds))
    show_grid(f"{frame['studies'].iloc[0]} simulated studies per line", kinds, rows)


def show_latency(latency: Latency) -> None:
    """Milliseconds of each variant and kind of work, with the range of the rounds."""
    kinds = {"variant": NAME} | dict.fromkeys(("1 image, ms", f"batch of {latency.batch}", "training step"), NUMBER)
    rows = (
        (slug, *(f"{each.median:.3g} ({each.low:.3g}–{each.high:.3g})" for each in times.values()))
        for slug, times in latency.networks.items()
    )
    show_grid(latency.setting, kinds, rows)


SIZES = {"params": "params", "params_with_bn_stats": "+ BN stats", "macs": "MACs"}
"""Headings of a network's counts."""


def show_counts(frame: DataFrame, convention: str) -> None:
    """Counts of every variant; at the paper's scale beside its figures, with a tick where they agree as rounded."""
    from pandas import isna

    at_paper_scale = "paper_params_m" in frame.columns
    sizes = dict(SIZES)
    if "sites" in frame.columns:  # networks with longer names
        del sizes["params_with_bn_stats"]
    paper = {"paper_params_m": "paper M", "paper_gflops": "paper G"} if at_paper_scale else {}
    rows = []
    for line in frame.to_dict("records"):
        cells = [f"{line[name]:,}" for name in sizes]
        if at_paper_scale:
            met = line["params_met"].split("; ")
            marks = {
                "params": "without BN statistics" in met,
                "params_with_bn_stats": "with BN statistics" in met,
                "macs": line["gflops_met"] is True,
            }
            cells = [f"{cell} {'✓' if marks[size] else ' '}" for cell, size in zip(cells, sizes, strict=True)]
        cells += ["" if isna(line[name]) else f"{line[name]:g}" for name in paper]
        rows.append(("–" if isna(line["table"]) else f"{line['table']:.0f}", line["row"], *cells))
    show_grid("", {"tab": NUMBER, "row": NAME} | dict.fromkeys((*sizes.values(), *paper.values()), NUMBER), rows)
    if at_paper_scale:
        say("✓ rounds to the printed figure (millions to one place, GFLOPs to two).")
        for line in frame[frame["params_explained"] != ""].to_dict("records"):
            printed = f"{line['slug']}:{line['row']}, printed {line['paper_params_m']}M"
            say(f"{printed}, would need another count: {line['params_explained']}.")
    say(f"Convention: {convention}.")


NOT_MET = {
    "is built": "construction fails",
    "takes every map size": "refuses a size; place it where maps are larger",
    "initial weights by seed": "draw them from torch's generator alone, or no run can be repeated",
    "keeps shape and dtype": "give back (N, C, H, W) as it came",
    "leaves its input alone": "writes into its input; use x * gate, not x *= gate",
    "finite output": "NaN or infinite; refuse the size with a ValueError (ask for `size`), or define the limit",
    "gradients arrive": "is not trained; use it, drop it, or set requires_grad to False",
    "finite gradients": "NaN or infinite; add an epsilon under roots and divisions",
    "no gradient is zero": "does not learn at first",
    "same output in evaluation": "draws random numbers in evaluation too",
    "same output in training": "draws from elsewhere than torch's generator",
    "images apart in evaluation": "an image's output depends on its batch",
    "images apart in training": "an image's output depends on its batch, as with batch normalisation",
    "trains on a batch of one": "needs two images or more",
    "bfloat16 autocast": "fails at `--precision bf16`; cast where the formula needs it",
    "maps that are not square": "takes square maps only",
    "channels-last memory": "depends on how memory is laid out; use flatten or reshape, not view",
    "deepcopy": "a copy is not the same block",
    "pickle": "cannot be sent to another process; define it in a module, hold no lambda",
    "state dict": "its state is more than its state dict; register what it holds as a buffer",
    "excitation is the gate": "x * excitation(x) is not what it gives; pictures of its gates would mislead",
}
"""What it means that a check of `blocks/contract.py` is not met, and what would help."""


def show_contract(name: str, report: ContractReport, channels: int) -> None:
    """What a block fails and what is worth knowing, its size and cost by width, and whether it passes."""
    rows = []
    for finding in report.findings:
        met = finding.verdict.value == "pass"
        about = "" if met else f"{NOT_MET[finding.check]}: {'; '.join(finding.where) or finding.error}"
        rows.append((finding.check, finding.verdict.value, about))
    show_grid(f"{name}, {channels} channels", {"check": NAME, "result": NAME, "what and where": TEXT}, rows)
    if report.costs:
        costs = []
        for cost in report.costs:
            counts = ("", "", "") if cost.error else (f"{cost.params:,}", f"{cost.macs:,}", f"{cost.reads:,}")
            costs.append((f"{cost.channels:,}", *counts, cost.error))
        kinds = dict.fromkeys(("channels", "params", "MACs", "reads"), NUMBER) | {"": TEXT}
        show_grid("one map of 14x14", kinds, costs)
        say("MACs: weight uses of convolutions, linear layers, matrix products; reads: elements that reductions read.")
    if report.factor is not None:
        say(f"Factor at the first step: {report.factor:.2f} (its output on N(0, 1) images, as a multiple of them).")
    verdicts = [finding.verdict.value for finding in report.findings]
    counted = ", ".join(
        f"{verdicts.count(each)} {word}" for each, word in (("pass", "met"), ("note", "noted"), ("FAIL", "failed"))
    )
    say(f"{name} {'passes' if report.passed else 'FAILS'}: {len(verdicts)} checks, {counted}.")

"""What the commands print: grids that read well in a narrow terminal and in a file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from senet_ablate.results.worklist import Estimate, Plan, duration
from senet_ablate.spec.ablation import Ablation, arms
from senet_ablate.spec.protocol import Protocol

if TYPE_CHECKING:
    from pandas import DataFrame

    from senet_ablate.analysis.planner import PlanPreview
    from senet_ablate.report.tables import Table
    from senet_ablate.results.records import Latency


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class SafeGrid(Grid):
    """A grid whose texts cannot command the terminal."""

    def add_row(self, *cells: str) -> None:  # type: ignore[override]
        """Add a row of texts."""
        super().add_row(*(CONTROL.sub("\ufffd", cell) for cell in cells))


def make_grid(title: str = "") -> SafeGrid:
    """An empty grid without vertical lines."""
    return SafeGrid(
        title=CONTROL.sub("\ufffd", title) or None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


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


def _console() -> Console:
    return Screen(markup=False)  # a user's text may hold brackets


def tell(text: str) -> None:
    """Say on standard error what happens, so that standard output holds results alone."""
    say(text, error=True)


def say(text: str, *, error: bool = False) -> None:
    """Print a sentence as it is, to standard output or error; a terminal may wrap it.

    What a stranger's file brings into it cannot command the terminal.
    """
    Screen(stderr=error).print(CONTROL.sub("\ufffd", text), highlight=False, markup=False, soft_wrap=True)


def show_declarations(tables: Sequence[Ablation], protocols: Sequence[Protocol]) -> None:
    """The tables with their rows, and the protocols."""
    printed = [table for table in tables if table.table]
    grid = make_grid(
        f"the paper's {sum(len(t.rows) for t in printed)} rows are {len(arms(printed))} distinct networks; "
        f"{sum(not claim.secondary for table in printed for claim in table.claims)} findings"
    )
    for heading in ("table", "name", "factor", "rows"):
        grid.add_column(heading, overflow="fold")
    for table in tables:
        grid.add_row(str(table.table or "–"), table.slug, table.factor, ", ".join(row.id for row in table.rows))
    _console().print(grid)
    grid = make_grid("protocols")
    grid.add_column("name", no_wrap=True)
    grid.add_column("held fixed")
    for protocol in protocols:
        grid.add_row(protocol.name, protocol.description)
    _console().print(grid)


def show_plan(plan: Plan, title: str, found: Estimate | None) -> None:
    """The networks of a plan, what they serve and cost, and the time left."""
    grid = make_grid(title)
    grid.add_column("network", no_wrap=True)
    grid.add_column("serves", overflow="fold")
    for heading in ("params", "MACs", "runs", "done"):
        grid.add_column(heading, justify="right")
    for planned in plan.arms:
        done = sum(run.run_id in plan.done for run in planned.runs)
        counts = (f"{planned.complexity.params:,}", f"{planned.complexity.macs:,}", str(len(planned.runs)), str(done))
        grid.add_row(planned.arm.slug, ", ".join(planned.rows), *counts)
    _console().print(grid)
    say(f"{len(plan.arms)} networks, {plan.runs} runs, {len(plan.done)} finished, {len(plan.todo)} to do.")
    if plan.todo and found is None:
        say("Time: unknown, no finished run in results/ to learn from; finish one and plan again.")
    elif plan.todo and found is not None:
        say(f"Time: about {duration(found.worker_s)} of one worker, shared by as many as run at once ({found.basis}).")


def show_power(preview: PlanPreview) -> None:
    """Which findings a plan can decide: smallest effect found, the paper's, chances, and what 80 % would take."""
    if preview.claims:
        grid = make_grid("chance of being reproduced if the paper's effects, or half of them, are true")
        for heading in ("finding", "finds", "paper", "chance", "at half", "80 % takes"):
            grid.add_column(heading, justify="left" if heading == "finding" else "right", no_wrap=True)
        for claim in preview.claims:
            grid.add_row(
                f"{claim.ablation.slug}:{claim.claim.id}",
                f"{claim.smallest:.2f}",
                f"{claim.paper:.2f}",
                f"{claim.power:.2f}",
                f"{claim.power_at_half:.2f}",
                preview.takes(claim),
            )
        _console().print(grid)
    for line in preview.remarks:
        say(line)


def show_status(title: str, states: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """What became of each network's runs: `states` has, per network, what `planning.row_states` tells."""
    grid = make_grid(title)
    grid.add_column("network", no_wrap=True)
    grid.add_column("finished", justify="right")
    grid.add_column("others", overflow="fold")
    total = planned = 0
    for name, found in states.items():
        finished = len(found["finished"]) + len(found["diverged"])
        total += finished
        others = [f"{state}: {', '.join(runs)}" for state, runs in found.items() if runs and state != "finished"]
        wanted = sum(map(len, found.values()))
        planned += wanted
        grid.add_row(name, f"{finished} of {wanted}", "; ".join(others))
    _console().print(grid)
    say(f"{total} of {planned} runs finished")


def show_table(table: Table, study: str) -> None:
    """A filled table, as much of it as fits into 80 columns, and the verdict on each of its findings."""
    from senet_ablate.report.findings import reason_in_words  # pandas
    from senet_ablate.report.tables import printed

    grid = make_grid(f"{table.ablation.heading}, study {study}")
    text = printed(table, compact=True)
    for name in text.columns:
        grid.add_column(name, justify="left" if name == "network" else "right", no_wrap=name == "network")
    for line in text.itertuples(index=False):
        grid.add_row(*line)
    _console().print(grid)
    for finding in table.findings:
        reason = reason_in_words(finding)
        say(f"{finding.claim.id} {finding.claim.statement}: {finding.verdict}{f' ({reason})' if reason else ''}")
    say("")


def show_calibration(frame: DataFrame) -> None:
    """Coverage, false findings and findings right of each simulated world."""
    grid = make_grid(f"{frame['studies'].iloc[0]} simulated studies a line")
    grid.add_column("world", overflow="fold")
    for heading in ("seeds", "coverage", "false", "right", "holds"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for line in frame.to_dict("records"):
        grid.add_row(
            line["world"],
            line["seeds"],
            f"{line['coverage']:.3f}",
            f"{line['false_worst_table']:.3f}",
            f"{line['right']:.1f}",
            "yes" if line["holds"] else "NO",
        )
    _console().print(grid)


def show_latency(latency: Latency) -> None:
    """Milliseconds of each network and kind of work, with the range of the rounds."""
    grid = make_grid(latency.setting)
    grid.add_column("network", no_wrap=True)
    for heading in ("1 image, ms", f"batch of {latency.batch}", "training step"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for slug, times in latency.networks.items():
        grid.add_row(slug, *(f"{each.median:.3g} ({each.low:.3g}–{each.high:.3g})" for each in times.values()))
    _console().print(grid)


def show_counts(frame: DataFrame, convention: str) -> None:
    """Counts of every arm; at the paper's scale beside its figures, with a tick on each that rounds to print."""
    from pandas import isna

    at_paper_scale = "paper_params_m" in frame.columns
    grid = make_grid()
    headings = ["tab", "row", "params", "+ BN stats", "MACs"]
    for heading in headings + (["paper M", "paper G"] if at_paper_scale else []):
        grid.add_column(heading, justify="left" if heading == "row" else "right", no_wrap=True)
    for line in frame.to_dict("records"):
        cells = [f"{line[name]:,}" for name in ("params", "params_with_bn_stats", "macs")]
        if at_paper_scale:
            met = line["params_met"].split("; ")
            marks = ("without BN statistics" in met, "with BN statistics" in met, line["gflops_met"] is True)
            cells = [f"{cell} {'✓' if mark else ' '}" for cell, mark in zip(cells, marks, strict=True)]
            cells += ["" if isna(line[name]) else str(line[name]) for name in ("paper_params_m", "paper_gflops")]
        grid.add_row("–" if isna(line["table"]) else f"{line['table']:.0f}", line["row"], *cells)
    _console().print(grid)
    if at_paper_scale:
        say("✓ rounds to the printed figure (millions to one place, GFLOPs to two).")
        for line in frame[frame["params_explained"] != ""].to_dict("records"):
            printed = f"{line['slug']}:{line['row']}, printed {line['paper_params_m']}M"
            say(f"{printed}, would need another count: {line['params_explained']}.")
    say(f"Convention: {convention}.")


def show_text(title: str, frame: DataFrame) -> None:
    """A table that is text already, its first column to the left."""
    grid = make_grid(title)
    for number, name in enumerate(frame.columns):
        grid.add_column(str(name), justify="right" if number else "left", overflow="fold")
    for line in frame.itertuples(index=False):
        grid.add_row(*line)
    _console().print(grid)

"""The shell's commands that train nothing and check: parameters and multiply-adds, honest arms, deserved confidence."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from senet_ablate.cli.console import say, show_calibration, show_counts, show_latency, tell
from senet_ablate.cli.options import (
    ABLATIONS,
    CLASSES,
    MANY,
    MOST_CLASSES,
    PRECISION,
    PROTOCOL,
    REPORTS,
    RESULTS,
    SET,
    STUDY,
    TABLES,
    Place,
    Word,
    choose,
    options,
)
from senet_ablate.environment import cores
from senet_ablate.errors import UserError
from senet_ablate.execution import machine
from senet_ablate.results.worklist import channels_and_classes
from senet_ablate.spec.ablation import SEED_SERIES, arms, check_arms
from senet_ablate.spec.loading import declarations_dir, load_ablations, load_protocol
from senet_ablate.spec.network import Variant
from senet_ablate.spec.protocol import Complexity

BUSY = 0.3
"""Load per core from which a measurement of time is called doubtful."""


@click.command()
@options(TABLES, PROTOCOL, SET, PRECISION, STUDY, CLASSES, RESULTS, ABLATIONS)
def audit(classes: int | None, **choice: Any) -> None:
    """Show what differs between each arm and its table's reference: run, modules, shapes, first weights, and records.

    Exit 1 if anything differs that the row does not declare.
    """
    from senet_ablate.analysis.audit import (
        audit_declarations,
        audit_networks,
        audit_records,
        comparisons,
        departure_lines,
    )
    from senet_ablate.models.diff import take_snapshots
    from senet_ablate.results.arms import load_outcomes

    chosen = choose(**choice)
    shape = channels_and_classes(chosen.protocol.data, chosen.study, classes)
    found = audit_declarations(chosen.ablations, chosen.protocol)
    variants = [arm.variant for pair in comparisons(chosen.ablations) for arm in (pair.arm, pair.reference)]
    found += audit_networks(chosen.ablations, take_snapshots(chosen.protocol.network, variants, *shape, seed=0))
    pin = chosen.study.pin()
    outcomes = load_outcomes(chosen.study, pin) if pin else None
    found += audit_records(chosen.ablations, outcomes) if outcomes else []
    for line in departure_lines(found):
        say(line)
    others = sum(not departure.declared for departure in found)
    runs = f"{len(outcomes.records)} runs of study {chosen.study.name}" if outcomes else "no run yet"
    say(
        f"{sum(len(table.rows) for table in chosen.ablations)} rows under {chosen.protocol.name}, {runs}: "
        f"{len(found) - others} declared differences, {others} others."
    )
    sys.exit(1 if others else 0)


@click.command()
@options(
    TABLES,
    PROTOCOL,
    SET,
    PRECISION,
    STUDY,
    CLASSES,
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True),
    click.option("--threads", type=MANY, default=1, show_default=True, help="Processor threads."),
    RESULTS,
    ABLATIONS,
)
def latency(classes: int | None, device: str, threads: int, **choice: Any) -> None:
    """Measure how long each network takes: one image, a batch, a training step (minutes). Reports then show it.

    Networks are measured in turn, for several rounds, and only while no study trains on this machine.
    """
    from senet_ablate.execution.machine import find_machine, optimisations_on
    from senet_ablate.models.latency import ROUNDS, measure_latency
    from senet_ablate.results.store import write_latency
    from senet_ablate.training.evaluation import resolve_precision

    chosen = choose(**choice)
    shape = channels_and_classes(chosen.protocol.data, chosen.study, classes)
    variants = list(dict.fromkeys(arm.variant for arm in arms(chosen.ablations)))
    kind = find_machine(device).device
    console = Console(stderr=True)
    with machine.alone(), Progress(console=console, disable=not console.is_terminal) as display:
        busy = machine.load_of_others()
        if busy is not None and busy > BUSY:
            tell(f"caution: other processes keep this machine busy (load {busy:.1f} per core); times will be longer")
        task = display.add_task(f"{len(variants)} networks in turn", total=ROUNDS)
        found = measure_latency(
            chosen.protocol,
            variants,
            shape,
            device=kind,
            precision=resolve_precision(chosen.protocol.precision, kind),
            threads=threads,
            optimisations=optimisations_on(kind),
            tell=lambda done: display.update(task, completed=done),
        )
    show_latency(write_latency(chosen.study, found))


@click.command()
@options(
    click.option(
        "--studies", type=click.IntRange(1, 1_000_000), default=400, show_default=True, help="Simulated studies a line."
    ),
    click.option("--seeds", default="3,5,10", show_default=True, metavar="N,N", help="Seeds of each network."),
    click.option("--jobs", type=MANY, help="Processes.  [default: one per core]"),
    REPORTS,
    ABLATIONS,
)
def calibrate(studies: int, seeds: str, jobs: int | None, reports: Path, ablations: Path | None) -> None:
    """Simulate studies whose truth is known, judge them as real ones, and count what is wrong (minutes).

    Exit 1 if intervals cover less, or findings are false more often, than the tables promise.
    """
    from senet_ablate.analysis.calibration import calibrate as simulate
    from senet_ablate.files import write_atomic
    from senet_ablate.report.calibration import to_markdown
    from senet_ablate.report.escape import csv_text

    try:
        counts = [int(count) for count in seeds.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 2 or max(counts) > SEED_SERIES:
        raise UserError(f"--seeds {seeds!r}: expected numbers of seeds, 2 to {SEED_SERIES} each, such as 3,5,10")
    tables = load_ablations(ablations or declarations_dir())
    with Progress(console=Console(stderr=True), transient=True) as display:
        bar = display.add_task("simulating")
        frame = simulate(
            tables, studies, counts, jobs or cores(), lambda share: display.update(bar, completed=100 * share)
        )
    page = to_markdown(frame)
    write_atomic(reports / "calibration" / "calibration.md", page)
    write_atomic(reports / "calibration" / "calibration.csv", csv_text(frame))
    show_calibration(frame)
    say(f"wrote 2 files to {reports / 'calibration'}")
    sys.exit(0 if frame["holds"].all() else 1)


@click.command()
@options(
    TABLES,
    click.option(
        "--protocol", type=Word(), default="imagenet-resnet50", show_default=True, help="Whose network to count."
    ),
    SET,
    click.option(
        "--classes", type=click.IntRange(2, MOST_CLASSES), default=1000, show_default=True, help="Classes of a folder."
    ),
    click.option("--csv", "csv_file", type=Place(dir_okay=False), help="Write the counts here."),
    ABLATIONS,
)
def count(
    tables: Sequence[str],
    protocol: str,
    overrides: Sequence[str],
    classes: int,
    csv_file: Path | None,
    ablations: Path | None,
) -> None:
    """Count parameters and multiply-adds of every arm, traced by fvcore, beside the paper's figures; trains nothing.

    A tick marks each count that rounds to the printed figure; where none does, the conventions that would are named.
    """
    from senet_ablate.files import write_atomic
    from senet_ablate.models import survey
    from senet_ablate.models.build import build_network
    from senet_ablate.report import counts
    from senet_ablate.report.escape import csv_text
    from senet_ablate.spec import cost
    from senet_ablate.spec.protocol import CHANNELS_AND_CLASSES

    directory = ablations or declarations_dir()
    loaded = load_protocol(directory, protocol, overrides)
    named = load_ablations(directory, tables)
    resolution = loaded.data.resolution
    check_arms(named, loaded.network, resolution, loaded.name)
    channels, known = CHANNELS_AND_CLASSES[loaded.data.dataset]
    counted: dict[Variant, Complexity] = {}
    with Console(stderr=True).status("tracing") as spinner:
        for variant in (networks := {arm.variant: None for arm in arms(named)}):
            spinner.update(f"tracing {variant.slug} ({len(counted) + 1} of {len(networks)})")
            model = build_network(loaded.network, variant, in_channels=channels, classes=known or classes)
            counted[variant] = survey.count_complexity(model, in_channels=channels, resolution=resolution)
    scale = (loaded.network, resolution, known or classes)
    at_paper_scale = scale == (cost.PAPER_NETWORK, cost.PAPER_RESOLUTION, cost.PAPER_CLASSES)
    frame = counts.count_table(named, counted, at_paper_scale)
    show_counts(frame, survey.CONVENTION)
    if csv_file:
        write_atomic(csv_file, csv_text(frame))
        say(f"wrote {len(frame)} rows to {csv_file}")

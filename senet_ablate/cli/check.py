"""The commands `audit`, `latency`, `calibrate` and `count`, which check and measure but train nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import Progress

from senet_ablate.cli import options as opt
from senet_ablate.cli.completion import complete_protocols
from senet_ablate.cli.console import say, show_calibration, show_contract, show_counts, show_latency, tell
from senet_ablate.environment import cores
from senet_ablate.errors import UserError
from senet_ablate.execution import machine
from senet_ablate.results.worklist import channels_and_classes
from senet_ablate.spec.ablation import SEED_SERIES, Ablation, arms, check_arms
from senet_ablate.spec.loading import declarations_dir, load_ablations, load_protocol
from senet_ablate.spec.network import Network, Variant
from senet_ablate.spec.protocol import Protocol
from senet_ablate.spec.schema import key_value

if TYPE_CHECKING:
    import pandas as pd

    from senet_ablate.results.networks import Survey
    from senet_ablate.spec.printed import NetworkTable

BUSY = 0.3
"""Load per core from which a measurement of time is called doubtful."""


@click.command()
@opt.options(opt.TABLES, *opt.UNDER, opt.BLOCKS, opt.STUDY, opt.DATA, opt.CLASSES, opt.RESULTS, opt.ABLATIONS)
def audit(classes: int | None, data: Path | None, **choice: Any) -> None:
    """Check that each variant differs from its table's reference only as declared.

    Modules, shapes, initial weights, recipe, data, precision, versions and hardware are compared. Exit 1 if anything
    differs that the row does not declare.

    \b
    senet-ablate audit
    senet-ablate audit gate --study digits-reference
    """
    from senet_ablate.analysis import audit as auditing
    from senet_ablate.models.diff import compare_to_plain
    from senet_ablate.results.arms import load_outcomes

    chosen = opt.choose(**choice)
    shape = channels_and_classes(chosen.protocol.data, opt.find_facts(chosen, data), classes)
    found = auditing.audit_declarations(chosen.ablations, chosen.protocol)
    variants = [arm.variant for pair in auditing.comparisons(chosen.ablations) for arm in (pair.arm, pair.reference)]
    opt.refuse_undeclared_code(chosen)
    task = {"in_channels": shape[0], "classes": shape[1], "resolution": chosen.protocol.data.resolution}
    found += auditing.audit_networks(chosen.ablations, compare_to_plain(chosen.protocol.network, variants, **task))
    pin = chosen.study.pin()
    outcomes = load_outcomes(chosen.study, pin) if pin else None
    found += auditing.audit_records(chosen.ablations, outcomes) if outcomes else []
    for departure in found:
        say(departure.in_words)
    others = sum(not departure.declared for departure in found)
    runs = f"{len(outcomes.records)} runs of study {chosen.study.name}" if outcomes else "no run yet"
    say(
        f"{sum(len(table.rows) for table in chosen.ablations)} rows under {chosen.protocol.name}, {runs}: "
        f"{len(found) - others} declared differences, {others} undeclared."
    )
    sys.exit(1 if others else 0)


@click.command()
@opt.options(
    opt.TABLES,
    *opt.UNDER,
    opt.STUDY,
    opt.CLASSES,
    opt.DEVICE,
    click.option("--threads", type=opt.MANY, default=1, show_default=True, help="Processor threads."),
    opt.RESULTS,
    opt.ABLATIONS,
)
def latency(classes: int | None, device: str, threads: int, **choice: Any) -> None:
    """Measure the time of one image, a batch and a training step of each variant (minutes).

    Variants are measured in turn, for several rounds, and only while no study trains on this machine. Reports of the
    study then show the times.

    \b
    senet-ablate latency ratio --study digits-reference
    """
    from senet_ablate.execution.machine import find_machine, optimisations_on
    from senet_ablate.models.latency import ROUNDS, measure_latency
    from senet_ablate.results.store import write_latency
    from senet_ablate.training.evaluation import resolve_precision

    chosen = opt.choose(**choice)
    opt.refuse_undeclared_code(chosen)
    shape = channels_and_classes(chosen.protocol.data, opt.find_facts(chosen), classes)
    variants = list(dict.fromkeys(arm.variant for arm in arms(chosen.ablations)))
    kind = find_machine(device).device
    console = Console(stderr=True)
    with machine.alone(), Progress(console=console, disable=not console.is_terminal) as display:
        busy = machine.load_of_others()
        if busy is not None and busy > BUSY:
            tell(f"warning: other processes use this machine (load {busy:.1f} per core); measured times will be longer")
        task = display.add_task(f"{len(variants)} variants in turn", total=ROUNDS)
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
@opt.options(
    click.option(
        "--studies",
        type=click.IntRange(1, 1_000_000),
        default=400,
        show_default=True,
        help="Simulated studies per scenario and number of seeds.",
    ),
    click.option("--seeds", default="3,5,10", show_default=True, metavar="N,N", help="Numbers of seeds to simulate."),
    click.option("--jobs", type=opt.MANY, help="Parallel processes.  [default: one per core]"),
    opt.REPORTS,
    opt.ABLATIONS,
)
def calibrate(studies: int, seeds: str, jobs: int | None, reports: Path, ablations: Path | None) -> None:
    """Judge simulated studies with known true effects, and count wrong intervals and verdicts (minutes).

    Exit 1 if intervals cover the truth less often, or verdicts are false more often, than reports promise.

    \b
    senet-ablate calibrate --studies 100 --seeds 3,5
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
    sys.exit(0 if (frame["holds"] | ~frame["promised"]).all() else 1)


@click.command()
@opt.options(
    opt.TABLES,
    click.option(
        "--protocol",
        type=opt.text,
        shell_complete=complete_protocols,
        default="imagenet-resnet50",
        show_default=True,
        help="Count this protocol's network.",
    ),
    opt.SET,
    click.option(
        "--classes",
        type=click.IntRange(2, opt.MOST_CLASSES),
        default=1000,
        show_default=True,
        help="Number of classes.",
    ),
    click.option("--fvcore", is_flag=True, help="Trace each network with fvcore, too, and compare (seconds each)."),
    click.option("--csv", "csv_file", type=opt.Place(dir_okay=False), help="Also write the counts to this file."),
    opt.ABLATIONS,
)
def count(
    tables: Sequence[str],
    protocol: str,
    overrides: Sequence[str],
    classes: int,
    fvcore: bool,
    csv_file: Path | None,
    ablations: Path | None,
) -> None:
    """Count parameters and multiply-adds of every variant, beside the paper's figures.

    A tick marks each count that rounds to the printed figure; where none does, the command names the way of counting
    that would. The tables `table2` to `table5` have networks of their own, whatever the protocol.

    \b
    senet-ablate count
    senet-ablate count ratio --protocol cifar10 --csv counts.csv
    senet-ablate count table2 table3 table4 table5 --csv networks.csv
    """
    import pandas as pd

    from senet_ablate.files import write_atomic
    from senet_ablate.models.survey import CONVENTION
    from senet_ablate.report.escape import csv_text
    from senet_ablate.spec.printed import load_network_tables, network_tables

    directory = ablations or declarations_dir()
    of_networks = [slug for slug in tables if slug in network_tables(directory)]
    others = [slug for slug in tables if slug not in of_networks]
    frames = []
    with Console(stderr=True).status("counting") as spinner:
        if of_networks:
            frames.append(_count_networks(load_network_tables(directory, of_networks), spinner.update, fvcore))
        if others or not of_networks:
            loaded = load_protocol(directory, protocol, overrides)
            frames.append(_count_tables(load_ablations(directory, others), loaded, classes, spinner.update, fvcore))
    for frame in frames:
        show_counts(frame, CONVENTION)
    if csv_file:
        frame = pd.concat(frames, ignore_index=True)
        write_atomic(csv_file, csv_text(frame))
        say(f"wrote {len(frame)} rows to {csv_file}")


def _count(network: Network, variant: Variant, shape: tuple[int, int, int], fvcore: bool) -> Survey:
    """Survey a network; with `fvcore` refuse to go on if its trace comes to another count."""
    from senet_ablate.models.build import build_network
    from senet_ablate.models.survey import fvcore_macs, survey

    channels, classes, resolution = shape
    task = {"in_channels": channels, "resolution": resolution}
    found = survey(network, variant, classes=classes, **task)
    if fvcore:
        traced = fvcore_macs(build_network(network, variant, classes=classes, **task), **task)
        if traced != found.total.macs:
            raise UserError(f"{variant.slug} on {network.backbone}: {found.total.macs:,}, but fvcore counts {traced:,}")
    return found


def _count_networks(tables: Sequence[NetworkTable], tell: Callable[[str], None], fvcore: bool) -> pd.DataFrame:
    import pandas as pd

    from senet_ablate.report.counts import network_lines
    from senet_ablate.spec.network import SEConfig, Variant

    lines = []
    for table in tables:
        for row in table.rows:
            tell(f"counting {row.label}")
            shape = (3, row.classes, row.resolution)
            pair = [_count(row.network, variant, shape, fvcore) for variant in (Variant(), Variant(se=SEConfig()))]
            lines += network_lines(table, row, *pair)
    return pd.DataFrame(lines)


def _count_tables(
    named: Sequence[Ablation], loaded: Protocol, classes: int, tell: Callable[[str], None], fvcore: bool
) -> pd.DataFrame:
    from senet_ablate.report import counts
    from senet_ablate.spec import cost
    from senet_ablate.spec.protocol import CHANNELS_AND_CLASSES

    resolution = loaded.data.resolution
    check_arms(named, loaded.network, resolution, loaded.name)
    channels, known = CHANNELS_AND_CLASSES[loaded.data.dataset]
    shape = (channels, known or classes, resolution)
    counted = {}
    for arm, rows in arms(named).items():
        tell(f"counting {rows[0]}")
        try:
            counted[arm.variant] = _count(loaded.network, arm.variant, shape, fvcore).total
        except ValueError as error:
            raise UserError(f"{', '.join(rows)}, under {loaded.name}: {error}") from None
    paper = (cost.PAPER_NETWORK, cost.PAPER_CLASSES, cost.PAPER_RESOLUTION)
    return counts.count_table(named, counted, (loaded.network, *shape[1:]) == paper)


@click.command("try")
@opt.options(
    click.argument("block", type=opt.text),
    click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the block: reduction=8. Repeatable."
    ),
    click.option(
        "--channels", type=click.IntRange(1, 4096), default=64, show_default=True, help="Width at which to check."
    ),
)
def try_command(block: str, settings: Sequence[str], channels: int) -> None:
    """Check that a block, ours or your own, can be judged, and count its cost (a second).

    BLOCK is a name from senet_ablate/blocks, or package.module:Class of yours, looked for in the working directory.
    A failed check would break a study; a note would not. Exit 1 if any check fails.

    \b
    senet-ablate try cbam
    senet-ablate try ge --set extra=theta-plus --channels 256
    senet-ablate try my_blocks:MyBlock
    """
    from senet_ablate.blocks.build import build_block
    from senet_ablate.blocks.contract import SIDE, check_block

    values = dict(key_value("--set", text, "reduction=8") for text in settings)

    def make(width: int, side: int) -> Any:
        return build_block(block, width, size=side, stage=2, index=0, settings=values)

    try:
        make(channels, SIDE)
    except UserError:  # there is no such module
        raise
    except ValueError as error:  # a name, a setting or a width that the block does not have
        raise UserError(f"{' '.join(['try', block, *(f'--set {text}' for text in settings)])}: {error}") from None
    except Exception:  # whatever else a stranger's constructor raises is a finding
        pass
    report = check_block(make, channels)
    show_contract(block, report, channels)
    sys.exit(0 if report.passed else 1)

"""The shell: verbs over studies. Commands that neither train nor count never import torch."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from senet_ablate.errors import UserError
from senet_ablate.planning import channels_and_classes, estimate, make_plan, row_states
from senet_ablate.specs import Complexity, Protocol, Variant
from senet_ablate.store import Study
from senet_ablate.suite import Ablation, arms, check_arms, declarations_dir, load_ablations, load_protocol
from senet_ablate.terminal import duration, say, show_counts, show_declarations, show_plan, show_status, show_table

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it; 1 is a run that failed, 2 a mistake in the call or its files."""

EPILOG = """
Exit codes: 0 done; 1 at least one run failed; 2 a mistake in the call, a file or the data; 130 stopped by Ctrl-C
(nothing finished is lost: the same command goes on).
"""


class Shell(click.Group):
    """Prints a mistake, or what the file system refuses, as one message without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; exit 2 on a mistake of the user."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal without ± still gets its table
        try:
            return super().invoke(ctx)
        except (UserError, OSError) as error:
            tell(f"error: {error}")
            sys.exit(2)
        except KeyboardInterrupt:
            tell("stopped")
            sys.exit(INTERRUPTED)


def options(*chosen: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Put several shared options on a command, in this order."""

    def wrap(command: Any) -> Any:
        for option in reversed(chosen):
            command = option(command)
        return command

    return wrap


TABLES = click.argument("tables", nargs=-1, metavar="[TABLE]...")
ABLATIONS = click.option(
    "--ablations",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Folder of the declarations.  [default: ./ablations, else the ones that ship with the package]",
)
PROTOCOL = click.option(
    "--protocol", help="What is held fixed: a name from `list`, or a .toml file.  [default: the study's, else digits]"
)
SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one key of the protocol: recipe.epochs=60."
)
ROWS = click.option("--rows", default="", metavar="ID,ID", help="Only these rows (and each table's reference).")
SEEDS = click.option(
    "--seeds", type=click.IntRange(1), help="Runs per network, seeds 0, 1, …  [default: the protocol's]"
)
STUDY = click.option(
    "--study",
    help="Folder under results/ and reports/.  [default: the protocol's name, and a hash if --set changes it]",
)
RESULTS = click.option(
    "--results", type=click.Path(file_okay=False, path_type=Path), default=Path("results"), show_default=True
)
REPORTS = click.option(
    "--reports", type=click.Path(file_okay=False, path_type=Path), default=Path("reports"), show_default=True
)
PRECISION = click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), help="Short for --set precision=…")
CLASSES = click.option(
    "--classes", type=click.IntRange(2), help="Number of classes of a folder that no run has read yet."
)


def tell(text: str) -> None:
    """Say on standard error what happens, so that standard output holds results alone."""
    say(text, error=True)


@dataclass(frozen=True)
class Chosen:
    """The tables, the protocol and the study that a call is about."""

    ablations: list[Ablation]
    declared: list[Ablation]
    protocol: Protocol
    study: Study


def choose(
    tables: Sequence[str],
    ablations: Path | None,
    protocol: str | None,
    overrides: Sequence[str],
    precision: str | None,
    study: str | None,
    results: Path,
    rows: str = "",
) -> Chosen:
    """Load and check everything a call names before anything is done."""
    directory = ablations or declarations_dir()
    changes = [*overrides, *([f"precision={precision}"] if precision else [])]
    pin = Study(results / study).pin() if study and not protocol and not changes else None
    loaded = pin.protocol if pin else load_protocol(directory, protocol or "digits", changes)
    wanted = [row.strip() for row in rows.split(",")] if rows else []
    named = load_ablations(directory, tables, wanted)
    check_arms(named, loaded.network, loaded.data.resolution, loaded.name)
    name = study or loaded.name
    if changes and not study:
        name += "-" + hashlib.blake2b(" ".join(sorted(changes)).encode(), digest_size=3).hexdigest()
    if Path(name).name != name or name.startswith("."):
        raise UserError(f"--study {name!r}: expected a plain folder name, such as digits-2")
    chosen = Chosen(named, load_ablations(directory), loaded, Study(results / name))
    chosen.study.check_protocol(loaded)
    return chosen


@click.group(
    cls=Shell, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=EPILOG
)
@click.version_option(package_name="senet-ablate")
def main() -> None:
    r"""Rerun the ablation study of "Squeeze-and-Excitation Networks" (arXiv 1709.01507, Tables 10 to 16).

    A table's rows differ in one factor while a protocol (network, data, recipe) is held fixed. Each distinct
    network is trained once per seed, whatever number of tables it serves. Tables are called ratio, squeeze,
    gate, stage, integration, inner and nosqueeze; no table means all.

    \b
    senet-ablate list                      what there is
    senet-ablate plan ratio                what would be trained, and for how long
    senet-ablate run ratio --report        train (or go on) and write table and plot
    senet-ablate count                     parameters and multiply-adds beside the paper's
    """


@main.command("list")
@options(ABLATIONS)
def list_command(ablations: Path | None) -> None:
    """List tables with their rows, and protocols."""
    directory = ablations or declarations_dir()
    names = sorted(path.stem for path in (directory / "protocols").glob("*.toml"))
    show_declarations(load_ablations(directory), [load_protocol(directory, name) for name in names])


@main.command()
@options(TABLES, PROTOCOL, SET, PRECISION, ROWS, SEEDS, STUDY, CLASSES, RESULTS, ABLATIONS)
def plan(seeds: int | None, classes: int | None, **choice: Any) -> None:
    """Show the networks that the tables need, what they share, what is finished and how long the rest may take."""
    chosen = choose(**choice)
    shape = channels_and_classes(chosen.protocol.data, chosen.study, classes)
    planned = make_plan(chosen.ablations, chosen.protocol, seeds or chosen.protocol.seeds, chosen.study, shape)
    title = f"study {chosen.study.name}: {chosen.protocol.description}"
    show_plan(planned, title, estimate(planned, chosen.protocol, chosen.study.root.parent))


@main.command()
@options(
    TABLES,
    PROTOCOL,
    SET,
    PRECISION,
    ROWS,
    SEEDS,
    STUDY,
    click.option("--data", type=click.Path(path_type=Path), help="The image folder, or where torchvision's sets lie."),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True),
    click.option("--jobs", type=click.IntRange(1), help="Runs at once.  [default: one per core, or per GPU]"),
    click.option(
        "--devices-per-run", type=click.IntRange(1), default=1, show_default=True, help="Share a run's batch (DDP)."
    ),
    click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Processor threads per run."),
    click.option("--report", is_flag=True, help="Write tables and plots at the end, even half-way."),
    RESULTS,
    REPORTS,
    ABLATIONS,
)
def run(
    seeds: int | None,
    data: Path | None,
    device: str,
    jobs: int | None,
    devices_per_run: int,
    threads: int,
    report: bool,
    reports: Path,
    **choice: Any,
) -> None:
    """Train what the tables need and is not finished; continue what was interrupted.

    Each finished run is a folder in results/<study>/. The same command may be given again at any time.
    """
    from senet_ablate import runner

    chosen = choose(**choice)
    resources = runner.share_out(runner.find_machine(device), jobs, devices_per_run, threads)
    with chosen.study.driver_lock():
        code = _train(chosen, seeds, data, resources)
    if report:
        _report(chosen, reports)
    sys.exit(code)


def _train(chosen: Chosen, seeds: int | None, data: Path | None, resources: Any) -> int:
    from senet_ablate import runner

    fingerprint = runner.prepare(chosen.protocol, chosen.study, data, resources.devices, tell)
    shape = channels_and_classes(chosen.protocol.data, chosen.study, None)
    planned = make_plan(chosen.ablations, chosen.protocol, seeds or chosen.protocol.seeds, chosen.study, shape)
    todo = runner.requests(planned, chosen.study, data, fingerprint, resources)
    done = f"{len(planned.done)} of {planned.runs} runs were finished"
    if not todo:
        tell(f"{done}; nothing to train")
        return 0
    workers = min(len(resources.environments), len(todo))
    tell(f"{done}; training {len(todo)} on {resources.device}, {workers} at once")
    try:
        summary = runner.execute(runner.local_executor(resources), todo, planned, Console(stderr=True))
    except KeyboardInterrupt:
        tell("stopped; finished runs are kept, the same command continues the others")
        return INTERRUPTED
    failed = f", {len(summary.failed)} failed" if summary.failed else ""
    tell(f"trained {summary.trained} runs in {duration(summary.wall_s)}{failed}; results in {chosen.study.root}")
    return 1 if summary.failed else 0


@main.command()
@options(TABLES, PROTOCOL, SET, PRECISION, ROWS, SEEDS, STUDY, RESULTS, ABLATIONS)
def status(seeds: int | None, **choice: Any) -> None:
    """Show for each network which runs are finished, unfinished, failed (with the cause) or not begun."""
    chosen = choose(**choice)
    count = seeds or chosen.protocol.seeds
    states = {
        variant.slug: row_states([chosen.protocol.run_spec(variant, seed) for seed in range(count)], chosen.study)
        for variant in arms(chosen.ablations)
    }
    show_status(f"study {chosen.study.name}", states, count)


@main.command()
@options(
    TABLES,
    PROTOCOL,
    SET,
    PRECISION,
    STUDY,
    click.option(
        "--fill",
        "filled",
        type=click.Path(dir_okay=False, exists=True, path_type=Path),
        help="Put tables between <!-- generated: table10_ratio --> and <!-- /generated --> of this Markdown file.",
    ),
    RESULTS,
    REPORTS,
    ABLATIONS,
)
def report(reports: Path, filled: Path | None, **choice: Any) -> None:
    """Write tables (Markdown, CSV, LaTeX) and plots (SVG, PNG) from the records, finished or half-way."""
    from senet_ablate.report import fill
    from senet_ablate.store import write_atomic

    chosen = choose(**choice)
    _report(chosen, reports)
    if filled:
        write_atomic(filled, fill(filled.read_text(encoding="utf-8"), reports / chosen.study.name / "tables"))


def _report(chosen: Chosen, reports: Path) -> None:
    from senet_ablate.report import write_report

    study = chosen.study
    slugs = {ablation.slug for ablation in chosen.ablations}
    # --rows says what is trained; a table is always whole, and tells what is missing.
    tables = [ablation for ablation in chosen.declared if ablation.slug in slugs]
    written = write_report(tables, study, reports, chosen.declared)
    for table in written.tables:
        show_table(table, study.name)
    say(f"wrote {len(written.files)} files to {reports / study.name}")


@main.command()
@options(
    TABLES,
    click.option("--protocol", default="imagenet-resnet50", show_default=True, help="Whose network to count."),
    SET,
    click.option("--classes", type=click.IntRange(2), default=1000, show_default=True, help="Classes of a folder."),
    click.option("--csv", "csv_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the counts here."),
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
    from senet_ablate import complexity, counting
    from senet_ablate.resnet import ResNet
    from senet_ablate.specs import CHANNELS_AND_CLASSES
    from senet_ablate.store import write_atomic

    directory = ablations or declarations_dir()
    loaded = load_protocol(directory, protocol, overrides)
    named = load_ablations(directory, tables)
    resolution = loaded.data.resolution
    check_arms(named, loaded.network, resolution, loaded.name)
    channels, known = CHANNELS_AND_CLASSES[loaded.data.dataset]
    counted: dict[Variant, Complexity] = {}
    with Console(stderr=True).status("tracing") as spinner:
        for variant in (networks := arms(named)):
            spinner.update(f"tracing {variant.slug} ({len(counted) + 1} of {len(networks)})")
            model = ResNet(loaded.network, variant, in_channels=channels, classes=known or classes)
            counted[variant] = complexity.count_complexity(model, in_channels=channels, resolution=resolution)
    scale = (loaded.network, resolution, known or classes)
    at_paper_scale = scale == (counting.PAPER_NETWORK, counting.PAPER_RESOLUTION, counting.PAPER_CLASSES)
    frame = counting.count_table(named, counted, at_paper_scale)
    show_counts(frame, complexity.CONVENTION)
    if csv_file:
        write_atomic(csv_file, frame.to_csv(index=False, lineterminator="\n"))
        say(f"wrote {len(frame)} rows to {csv_file}")

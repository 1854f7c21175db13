"""The commands `list`, `plan`, `run` and `status`. Only `run` imports torch."""

from __future__ import annotations

import math
import shlex
import signal
import sys
import time
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from rich.console import Console

from senet_ablate.cli import options as opt
from senet_ablate.cli.console import headline, say, show_declarations, show_plan, show_power, show_status, tell
from senet_ablate.cli.results import _report
from senet_ablate.errors import UserError
from senet_ablate.execution import machine
from senet_ablate.execution.executor import ExecutorKind
from senet_ablate.execution.machine import OPTIMISATIONS
from senet_ablate.results.plan import Selection, earlier_blocks, planned_seeds, settle_plan
from senet_ablate.results.store import Study
from senet_ablate.results.worklist import Plan, channels_and_classes, duration, make_plan, row_states
from senet_ablate.spec.loading import all_ablations, declarations_dir, load_protocol
from senet_ablate.training.request import TrackerKind

if TYPE_CHECKING:
    from senet_ablate.execution.driver import Engine


@click.command("list")
@opt.options(opt.ABLATIONS)
def list_command(ablations: Path | None) -> None:
    """List tables with their rows, and protocols.

    \b
    senet-ablate list
    """
    directory = ablations or declarations_dir()
    names = sorted(path.stem for path in (directory / "protocols").glob("*.toml"))
    show_declarations(all_ablations(directory), [load_protocol(directory, name) for name in names])


@click.command()
@opt.options(
    *opt.WANTED,
    opt.CLASSES,
    click.option(
        "--runs",
        type=click.IntRange(2, 1_000_000),
        help="Distribute this many runs over the variants.",
    ),
    click.option("--budget", type=opt.seconds, metavar="TIME", help="The same for this wall time: 2h, 90min."),
    click.option("--jobs", type=opt.MANY, help="Parallel runs.  [default: one per core]"),
    click.option(
        "--device",
        type=opt.text,
        metavar="NAME",
        help="Estimate times from runs on this device: cuda, EPYC, H200.  [default: all finished runs]",
    ),
    click.option(
        "--gain",
        type=opt.Finite(0, 100, min_open=True),
        help="SE gain to assume, in points.  [default: the paper's 1.02]",
    ),
    click.option(
        "--error",
        type=opt.Finite(0, 100, min_open=True, max_open=True),
        help="Error to assume before any run, in percent.",
    ),
    click.option(
        "--rule",
        "changed",
        multiple=True,
        metavar="KEY=VALUE",
        help="Change a rule of the verdicts: margin_rho=0.3, looks=2.",
    ),
    click.option(
        "--write", is_flag=True, help="Write the plan, which `run` follows and `report` compares the runs with."
    ),
    click.option(
        "--extend",
        is_flag=True,
        help="Plan another interim analysis: more seeds, by --runs or --budget, for findings that are open.",
    ),
    opt.RESULTS,
    opt.ABLATIONS,
)
def plan(seeds: int | None, classes: int | None, data: Path | None, **call: Any) -> None:
    """Show how many findings a plan can decide, what would be trained, and how long it takes.

    Without --runs or --budget each variant gets --seeds runs. With one of them, seeds are distributed so that as many
    findings as possible are expected to hold if the paper's effects, or half of them, are true. Nothing is trained.
    For your own images, name the folder with --data: classes and numbers of images are read from it.

    \b
    senet-ablate plan --protocol cifar10-lite --budget 3h
    senet-ablate plan gate --runs 30 --rule looks=2 --write
    """
    from senet_ablate.analysis.planner import PlanRequest, preview

    names = ("runs", "budget", "jobs", "device", "gain", "error", "changed", "write", "extend")
    wish = PlanRequest(seeds=seeds, **{name: call.pop(name) for name in names})
    chosen = opt.choose(**call)
    facts = opt.find_facts(chosen, data)
    shape = channels_and_classes(chosen.protocol.data, facts, classes)
    opt.survey_networks(chosen, shape)
    with Console(stderr=True).status("choosing seeds") as spinner:
        found = preview(
            chosen, wish, shape, lambda share: spinner.update(f"choosing seeds: {share:.0%} of the budget"), facts
        )
    if found.claims:
        say(headline(found, wish.shares_out))
    show_plan(found.plan, f"study {chosen.study.name}: {chosen.protocol.in_words}", found.estimate)
    show_power(found)
    opt.warn(found.warnings)


@click.command()
@opt.options(
    *opt.WANTED,
    opt.DEVICE,
    click.option(
        "--executor",
        type=click.Choice(get_args(ExecutorKind)),
        default="local",
        show_default=True,
        envvar="SENET_ABLATE_EXECUTOR",
        help="Where runs are done: worker processes on this machine, Slurm jobs, or Ray tasks.  "
        "[env: SENET_ABLATE_EXECUTOR]",
    ),
    click.option(
        "--executor-option",
        "executor_options",
        multiple=True,
        envvar="SENET_ABLATE_EXECUTOR_OPTIONS",
        metavar="KEY=VALUE",
        help="For each run: gpus, cpus, memory_gb. For Slurm: partition, account, qos, constraint, minutes (240), "
        "sbatch.NAME for any other option of sbatch. For Ray: address.  [env: SENET_ABLATE_EXECUTOR_OPTIONS]",
    ),
    click.option(
        "--jobs", type=opt.MANY, help="Parallel runs.  [default: one per core or GPU; as many as the cluster takes]"
    ),
    click.option(
        "--devices-per-run", type=opt.MANY, default=1, show_default=True, help="Devices that share each batch (DDP)."
    ),
    click.option("--threads", type=opt.MANY, default=1, show_default=True, help="Processor threads per run."),
    click.option(
        "--without",
        multiple=True,
        type=click.Choice([*OPTIMISATIONS, "all"]),
        metavar="OPTIMISATION",
        help=f"Train without an optimisation: {', '.join(OPTIMISATIONS)} or all.",
    ),
    click.option("--keep-weights", is_flag=True, help="Keep the trained weights in each run's folder (weights.pt)."),
    click.option(
        "--track",
        "trackers",
        type=click.Choice(get_args(TrackerKind)),
        multiple=True,
        envvar="SENET_ABLATE_TRACK",
        help="Log each epoch to TensorBoard, W&B or MLflow, too; may be repeated. Needs the extra of that name.  "
        "[env: SENET_ABLATE_TRACK]",
    ),
    click.option(
        "--for",
        "time_s",
        type=opt.seconds,
        metavar="TIME",
        help="Stop after this time (25min, 2h), and start no run that would not finish in it.",
    ),
    click.option("--report", is_flag=True, help="Write the report at the end, also of an unfinished study."),
    *opt.FOLDERS,
)
def run(
    seeds: int | None,
    data: Path | None,
    executor: ExecutorKind,
    executor_options: tuple[str, ...],
    device: str,
    jobs: int | None,
    devices_per_run: int,
    threads: int,
    without: tuple[str, ...],
    keep_weights: bool,
    trackers: tuple[TrackerKind, ...],
    time_s: float | None,
    report: bool,
    reports: Path,
    **choice: Any,
) -> None:
    """Train the runs that the tables need and that are not finished; continue interrupted ones.

    Each finished run is a folder in results/<study>/. The same command may be given again at any time, also while it
    is running, on this machine or on one that shares the folder: they divide the runs between them.

    With --executor slurm or ray, runs are done on other machines. These need this package, and results and images on
    a shared file system. --device auto is cuda there for runs with gpus, else cpu. A run whose job or node is lost
    continues from its checkpoint elsewhere.

    All variants are trained with one seed before the next, so a study that is stopped early is a complete one with
    fewer seeds. `merge` adds results from other machines.

    \b
    senet-ablate run ratio --report
    senet-ablate run --protocol cifar10-lite --seeds 5 --for 2h
    senet-ablate run gate --protocol cifar10 --executor slurm --executor-option partition=gpu
    """
    began = time.monotonic()
    if time_s is not None and executor != "local":
        raise UserError(
            f"--for limits runs on this machine; with --executor {executor} each job has its own time limit"
        )
    ends_at = began + (time_s or math.inf)
    chosen = opt.choose(**choice)
    tell(f"study {chosen.study.name}, protocol {chosen.protocol.name}, results in {chosen.study.root}; loading")
    from senet_ablate.execution import driver, local  # a second
    from senet_ablate.training.trackers import check_trackers

    check_trackers(trackers)
    left_out = list(OPTIMISATIONS) if "all" in without else without
    if executor == "local" and (chosen.study.pin() is None or _plan(chosen, seeds).todo):
        local.warm_up()
    engine = driver.set_up(executor, executor_options, device, jobs, devices_per_run, threads, left_out, tell)
    with machine.shared(tell) if executor == "local" else nullcontext():
        if executor == "local":  # jobs elsewhere go on without their driver
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        code = _train(chosen, seeds, data, engine, ends_at, keep_weights=keep_weights, trackers=trackers)
    if report:
        _report(chosen, reports, choice["tables"])
    elif code != opt.INTERRUPTED:
        tell(f"for the page with tables and figures: {report_command(chosen.study)}")
    sys.exit(code)


def report_command(study: Study) -> str:
    """What to type for a study's report."""
    words = ["senet-ablate", "report", "--study", study.name]
    if study.root.parent != Path("results"):
        words += ["--results", str(study.root.parent)]
    return shlex.join(words)


def _plan(chosen: Selection, seeds: int | None) -> Plan:
    shape = channels_and_classes(chosen.protocol.data, opt.find_facts(chosen))
    opt.survey_networks(chosen, shape)
    return make_plan(chosen.ablations, chosen.protocol, planned_seeds(chosen, seeds)[0], chosen.study, shape)


def _train(chosen: Selection, seeds: int | None, data: Path | None, engine: Engine, ends_at: float, **wish: Any) -> int:
    from senet_ablate.execution import driver
    from senet_ablate.execution.survey import keep_sources, try_variants

    resources = engine.resources
    fingerprint = driver.prepare(chosen.protocol, chosen.study, data, resources.devices, tell)
    planned = _plan(chosen, seeds)
    facts = chosen.study.pinned().data
    shape = (facts.channels, facts.classes, chosen.protocol.data.resolution)
    if planned.todo:
        try_variants(chosen.ablations, chosen.protocol.network, shape, min(8, chosen.protocol.recipe.batch_size))
    keep_sources(chosen.ablations, chosen.protocol.network, chosen.study.root)
    remaining = driver.requests(planned.todo, chosen.study, data, fingerprint, resources, **wish)
    for run_id in planned.done:
        with suppress(OSError):  # another user's results
            chosen.study.run(run_id).tidy()
    done = f"{len(planned.done)} of {planned.runs} runs were finished"
    if not remaining:
        tell(f"{done}; nothing to train")
        return 0
    if restored := settle_plan(chosen, seeds):
        tell(restored)
    tell(opt.describe(facts))
    if chosen.protocol.data.dataset == "folder":
        from senet_ablate.analysis.planner import PlanRequest, preview

        opt.warn(preview(chosen, PlanRequest(seeds=seeds), shape[:2], lambda share: None, facts).warnings)
    tell(f"{done}; training {len(remaining)} on {resources.device}, {engine.where(len(remaining))}")
    pin = chosen.study.pin()
    try:
        keep = partial(chosen.study.keep, pin)
        summary = driver.execute(engine.executor, remaining, planned.work, Console(stderr=True), ends_at, keep)
    except KeyboardInterrupt:
        tell("stopped; finished runs are kept, the same command continues the others")
        return opt.INTERRUPTED
    found = f", {summary.found} were done by another process" if summary.found else ""
    failed = f", {len(summary.failed)} failed" if summary.failed else ""
    left = f", {summary.left} left for lack of time (the same command continues)" if summary.left else ""
    told = f"trained {summary.trained} runs in {duration(summary.wall_s)}{found}{failed}{left}"
    tell(f"{told}; results in {chosen.study.root}")
    return 1 if summary.failed else 0


@click.command()
@opt.options(*opt.WANTED, opt.RESULTS, opt.ABLATIONS)
def status(seeds: int | None, data: Path | None, **choice: Any) -> None:
    """Show which runs of each variant are finished, unfinished, failed (with the cause) or not started.

    \b
    senet-ablate status --study digits-reference
    """
    chosen = opt.choose(**choice)
    if choice["study"] and not chosen.study.root.is_dir():  # a typo; one that is planned has no run yet
        chosen.study.pinned()
    opt.find_facts(chosen, data)  # other images than the study's are an error
    states = {
        arm.slug: row_states([chosen.protocol.run_spec(arm.variant, seed) for seed in arm.seeds(count)], chosen.study)
        for arm, count in planned_seeds(chosen, seeds)[0].items()
    }
    show_status(f"study {chosen.study.name}", states)
    for row in earlier_blocks(chosen):
        runs = sum(slug == row.variant.slug for slug, _ in chosen.study.begun())
        code = f"{row.block} with other code ({row.source})"
        say(f"{row.variant.slug}: {runs} runs begun of {code}; kept, and in the report")

"""The command `show`: one run, as its folder tells it."""

from __future__ import annotations

from pathlib import Path

import click

from senet_ablate.cli import options as opt
from senet_ablate.cli.completion import complete_runs, complete_studies
from senet_ablate.cli.console import NAME, TEXT, say, show_grid
from senet_ablate.errors import UserError, did_you_mean
from senet_ablate.results.records import RunRecord
from senet_ablate.results.store import RUN_NAME, RunFolder, Study, studies
from senet_ablate.results.worklist import duration


@click.command()
@opt.options(
    click.argument("name", metavar="RUN", type=opt.text, shell_complete=complete_runs),
    click.option(
        "--study", type=opt.text, shell_complete=complete_studies, help="Look in this study only.  [default: in all]"
    ),
    opt.RESULTS,
)
def show(name: str, study: str | None, results: Path) -> None:
    """Show one run: its settings and result, or how far it is, or why it failed.

    RUN is the name of its folder, or the beginning of that name such as se-r16-s0, in any study of results/ or in
    --study.
    """
    known = [Study(results / opt.plain_name("--study", study))] if study else studies(results)
    folder = find_run(name, known, results)
    record, failure, progress = folder.record(), folder.failure(), folder.progress()
    lines = {"run": folder.path.name, "folder": str(folder.path)}
    if record is not None:
        lines |= finished(record)
    elif failure is not None:
        lines["failed"] = failure.cause
    elif progress is not None:
        lines["unfinished"] = f"at epoch {progress.epoch} of {progress.epochs}"
    else:
        lines["unfinished"] = "not one epoch yet"
    lines["files"] = ", ".join(sorted(path.name for path in folder.path.iterdir() if path.name[0] != "."))
    show_grid("", {"what": NAME, "value": TEXT}, lines.items(), headed=False)
    if record is None and failure is not None and failure.traceback:
        say(failure.traceback)


def find_run(name: str, known: list[Study], results: Path) -> RunFolder:
    """The one run that is called so, or whose name begins so.

    Raises:
        UserError: there is none, or there are several; the message has those that could be meant.
    """
    runs = [folder for study in known for folder in study.folders()]
    if not runs:
        place = known[0].root if len(known) == 1 else results
        raise UserError(f"no run in {place}; begin one with `run`, or name the folder with --results")
    exact = [folder for folder in runs if folder.path.name == name]
    found = exact or [folder for folder in runs if folder.path.name.startswith(name)]
    if not found:
        alike = {match[1] + "-s" + match[2] for run in runs if (match := RUN_NAME.fullmatch(run.path.name))}
        raise UserError(f"no run {name!r} in {results}; {did_you_mean(name, sorted(alike))}")
    if len(found) > 1:
        several = ", ".join(f"{folder.path.parent.name}/{folder.path.name}" for folder in found[:10])
        more = f" and {len(found) - 10} more" if len(found) > 10 else ""
        raise UserError(f"{name!r} could be {several}{more}; give more of its name, or --study")
    return found[0]


def finished(record: RunRecord) -> dict[str, str]:
    """What a record says, for people."""
    spec, made, metrics = record.spec, record.provenance, record.metrics
    variant = {key: value for key, value in spec.variant.model_dump(exclude_defaults=True).items() if value is not None}
    top5 = f", top-5 {metrics.top5_err:.2f} %" if metrics and metrics.top5_err is not None else ""
    versions = ", ".join(f"{name} {version}" for name, version in made.libraries.items())
    commit = f", commit {made.commit[:10]}{' with changes' if made.dirty else ''}" if made.commit else ""
    resumed = "" if made.resumed_at_epoch is None else f", resumed at epoch {made.resumed_at_epoch}"
    return {
        "error": f"{metrics.top1_err:.2f} %{top5} of {record.n_test:,} test images" if metrics else "diverged",
        "cross-entropy": f"{metrics.cross_entropy:.4f}" if metrics else "–",
        "network": f"{spec.network.in_words()}, variant {variant or 'no SE'}",
        "seed": str(spec.seed),
        "cost": f"{record.complexity.params:,} parameters, {record.complexity.macs:,} multiply-adds of one image",
        "images": f"{spec.data.dataset} at {spec.data.resolution} pixels, fingerprint {record.data_fingerprint}",
        "recipe": f"{spec.recipe.epochs} epochs, batch {spec.recipe.batch_size}, learning rate {spec.recipe.lr:g}",
        "time": f"{duration(made.wall_s)}, begun {made.started}{resumed}",
        "machine": f"{made.hardware}, {made.devices} devices, {made.threads} threads, {made.precision}",
        "code": f"senet-ablate {made.version}{commit}; Python {made.python}, {versions}",
    }

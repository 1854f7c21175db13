"""The commands `excitation` and `prune`: what the SE blocks of trained networks do, and the error without them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import track

from senet_ablate.cli import options as opt
from senet_ablate.cli.completion import complete_networks
from senet_ablate.cli.console import say, show_frame, tell
from senet_ablate.errors import UserError, did_you_mean
from senet_ablate.spec.ablation import Ablation, Arm, arms
from senet_ablate.spec.loading import all_ablations, declarations_dir

if TYPE_CHECKING:
    from senet_ablate.execution.rerun import Images
    from senet_ablate.models.weights import Subject
    from senet_ablate.results.gates import BlockExcitation


USUAL = ("se-r16",)
"""The paper's block, where no variant is named."""

ARMS = click.argument("names", nargs=-1, metavar="[ROW_OR_VARIANT]...", shell_complete=complete_networks)
SEED = click.option("--seed", type=click.IntRange(0), help="Seed of the run to use.  [default: the variant's first]")
WEIGHTS = click.option(
    "--weights",
    type=opt.Place(dir_okay=False, exists=True),
    help="Weights from a file instead of a run: timm's legacy_seresnet50, or a weights.pt of the one variant named.",
)
PART = click.option(
    "--images",
    "part",
    type=click.Choice(["validation", "test"]),
    help="Which images to use.  [default: validation; test for released weights, which were trained on all of train]",
)


@dataclass(frozen=True)
class Looked:
    """A trained network, its images, what its page is about, what its blocks did, and the folder of its pages."""

    subject: Subject
    images: Images
    words: tuple[str, ...]
    blocks: list[BlockExcitation]
    folder: Path


@click.command()
@opt.options(
    ARMS,
    SEED,
    WEIGHTS,
    click.option("--classes", type=opt.text, metavar="NAME,NAME", help="Classes to plot."),
    PART,
    *opt.UNDER,
    opt.STUDY,
    opt.DATA,
    opt.DEVICE,
    *opt.FOLDERS,
)
def excitation(classes: str | None, **call: Any) -> None:
    """Plot the gates of trained networks as in the paper's Figures 6 and 7, and sum them up in numbers.

    Name a row (gate:tanh) or a variant (se-r16-tanh); the default is se-r16. Weights are those that `run
    --keep-weights` kept; a run without them is trained again. Pages, figures and their data go to
    reports/<study>/excitation/<variant>/.

    \b
    senet-ablate excitation gate:sigmoid gate:tanh --study digits-reference
    senet-ablate excitation --weights seresnet50.pth --protocol imagenet-resnet50 --data imagenet
    """
    from senet_ablate.report.excitation import choose_classes, choose_pair, printed, write_excitation
    from senet_ablate.results.gates import block_table

    wanted = [name.strip() for name in classes.split(",")] if classes else []
    for looked in _look(**call):
        shown = choose_classes(looked.images.facts, wanted)
        every = {name: number for number, name in enumerate(looked.images.facts.class_names)}
        files = write_excitation(looked.folder, looked.words, looked.blocks, shown, choose_pair(shown), every)
        show_frame(looked.words[0], printed(block_table(looked.blocks)).drop(columns="stage"))
        say(f"wrote {len(files)} files to {looked.folder}")


@click.command()
@opt.options(ARMS, SEED, WEIGHTS, PART, *opt.UNDER, opt.STUDY, opt.DATA, opt.DEVICE, *opt.FOLDERS)
def prune(**call: Any) -> None:
    """Show the error of trained networks with the SE blocks of each stage switched off (section 4).

    A block that is off passes its map on unchanged, or scaled by the mean of its gates. Weights stay as they are and
    nothing is trained. Variants are named, and pages are written, as for `excitation`.

    \b
    senet-ablate prune ratio:r16 --study digits-reference
    """
    from senet_ablate.report.excitation import printed_pruning, write_pruning
    from senet_ablate.training.evaluation import prune_table

    for looked in _look(errors=True, **call):
        with Console(stderr=True).status("evaluating with each stage switched off"):
            table = prune_table(looked.subject.model, looked.images.loader, looked.blocks)
        files = write_pruning(looked.folder, looked.words, table)
        show_frame(looked.words[0], printed_pruning(table))
        say(f"wrote {len(files)} files to {looked.folder}")


def find_arms(names: Sequence[str], tables: Sequence[Ablation]) -> dict[Arm, str]:
    """The variants that are named, by row or by slug, each with a table that declares it.

    Raises:
        UserError: there is no such row or variant, or it has no SE block.
    """
    known: dict[str, tuple[Arm, str]] = {}
    for arm, rows in arms(tables).items():
        for row in rows:
            known[row] = (arm, row.partition(":")[0])
            known.setdefault(arm.slug, known[row])
    for name in names:
        if name not in known:
            alike = [other for other in known if (":" in other) == (":" in name)]
            raise UserError(f"no row (table:row) or variant {name!r}; {did_you_mean(name, alike)}")
        if known[name][0].variant.is_plain:
            raise UserError(f"{name}: the variant without SE has no block; name another")
    return dict(known[name] for name in names)


def _look(
    names: Sequence[str],
    seed: int | None,
    weights: Path | None,
    part: str | None,
    data: Path | None,
    device: str,
    reports: Path,
    ablations: Path | None,
    errors: bool = False,
    **choice: Any,
) -> Iterator[Looked]:
    """Find each network's weights and images and sum up its gates, one network after the other.

    With `errors` its classes must be those of the images.
    """
    found = find_arms(names or USUAL, all_ablations(ablations or declarations_dir()))
    chosen = opt.choose(tables=list(dict.fromkeys(found.values())), ablations=ablations, **choice)
    opt.refuse_undeclared_code(chosen)
    if weights and len(found) > 1:
        raise UserError(f"--weights {weights}: one file has the weights of one variant, and {len(found)} are named")
    from senet_ablate.execution import rerun
    from senet_ablate.execution.machine import find_machine
    from senet_ablate.models.hooks import collect
    from senet_ablate.models.weights import check_channels, check_classes, of_file

    machine = find_machine(device)
    pin = None if weights else chosen.study.pin()
    images: dict[str, Images] = {}
    for arm in found:
        if weights:
            subject = of_file(weights, arm, chosen.protocol)
            if subject.released and names:
                raise UserError(
                    f"{weights}: released weights belong to the paper's own network; name no variant with them"
                )
        else:
            which = arm.first_seed if seed is None else seed
            if not arm.owns(which):
                raise UserError(f"--seed {which}: the seeds of {arm.slug} start at {arm.first_seed}")
            subject = rerun.of_run(arm, which, chosen.study, chosen.protocol, data, machine, tell)
        wanted = part or ("test" if subject.released else "validation")
        if wanted not in images:
            fingerprint = pin.data.fingerprint if pin else None
            images[wanted] = rerun.find_images(chosen.protocol, wanted, data, fingerprint, machine, tell)
        here = images[wanted]
        check_channels(subject.model, here.facts)
        if errors:
            check_classes(subject, here.facts)
        subject.model.to(machine.device)
        console = Console(stderr=True)
        batches = track(
            here.loader,
            f"reading {wanted} images",
            total=len(here.loader),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        blocks = collect(subject.model, batches, here.facts.classes)
        folder = reports / chosen.study.name / "excitation" / subject.name
        yield Looked(subject, here, (*subject.words, here.words), blocks, folder)

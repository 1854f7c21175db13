"""The shell's commands that look into trained networks: what their SE blocks do, and what becomes of them without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import track

from senet_ablate.cli.console import say, show_text
from senet_ablate.cli.options import (
    ABLATIONS,
    DATA,
    DEVICE,
    PRECISION,
    PROTOCOL,
    REPORTS,
    RESULTS,
    SET,
    STUDY,
    Place,
    Word,
    choose,
    options,
)
from senet_ablate.errors import UserError, did_you_mean
from senet_ablate.spec.ablation import Ablation, Arm, arms
from senet_ablate.spec.loading import all_ablations, declarations_dir

if TYPE_CHECKING:
    from senet_ablate.execution.rerun import Images
    from senet_ablate.models.weights import Subject
    from senet_ablate.results.gates import BlockExcitation


USUAL = ("se-r16",)
"""The paper's block, where no network is named."""

ARMS = click.argument("names", nargs=-1, metavar="[ARM_OR_ROW]...")
SEED = click.option("--seed", type=click.IntRange(0), help="Which run of each network.  [default: its first]")
WEIGHTS = click.option(
    "--weights",
    type=Place(dir_okay=False, exists=True),
    help="Weights from a file instead of a run: timm's legacy_seresnet50, or a weights.pt of the one network named.",
)
PART = click.option(
    "--images",
    "part",
    type=click.Choice(["validation", "test"]),
    help="Which part of the data.  [default: validation; test for released weights, which have seen all of train]",
)


@dataclass(frozen=True)
class Looked:
    """A network, its images and where its pages go."""

    subject: Subject
    images: Images
    blocks: list[BlockExcitation]
    folder: Path

    @property
    def words(self) -> tuple[str, ...]:
        """What was looked at, for the page."""
        return (*self.subject.words, self.images.words)


@click.command()
@options(
    ARMS,
    SEED,
    WEIGHTS,
    click.option("--classes", type=Word(), metavar="NAME,NAME", help="Classes to draw; the second figure has two."),
    PART,
    PROTOCOL,
    SET,
    PRECISION,
    STUDY,
    DATA,
    DEVICE,
    RESULTS,
    REPORTS,
    ABLATIONS,
)
def excitation(classes: str | None, **call: Any) -> None:
    """Show what the SE blocks of trained networks do, as the paper's Figures 6 and 7, and in numbers.

    A network is a row (gate:tanh) or an arm (se-r16-tanh), by default se-r16. Its weights are those that `run
    --keep-weights` left; a run without them is trained again. Pages, figures and their CSV go to
    reports/<study>/excitation/<arm>/.

    \b
    senet-ablate excitation gate:sigmoid gate:tanh --study digits-reference
    senet-ablate excitation --weights seresnet50.pth --protocol imagenet-resnet50 --data imagenet
    """  # noqa: D301 - click wants the character itself
    from senet_ablate.report.excitation import choose_classes, choose_pair, printed, write_excitation
    from senet_ablate.results.gates import block_table

    wanted = [name.strip() for name in classes.split(",")] if classes else []
    for looked in _look(**call):
        shown = choose_classes(looked.images.facts, wanted)
        every = {name: number for number, name in enumerate(looked.images.facts.class_names)}
        files = write_excitation(looked.folder, looked.words, looked.blocks, shown, choose_pair(shown), every)
        show_text(looked.words[0], printed(block_table(looked.blocks)).drop(columns="stage"))
        say(f"wrote {len(files)} files to {looked.folder}")


@click.command()
@options(ARMS, SEED, WEIGHTS, PART, PROTOCOL, SET, PRECISION, STUDY, DATA, DEVICE, RESULTS, REPORTS, ABLATIONS)
def prune(**call: Any) -> None:
    """Show the error of trained networks with the SE blocks of each stage switched off (section 4).

    A block that is off lets its map pass as it is, or under the mean of its gates; weights are not touched and nothing
    is trained. Networks are named as for `excitation`; page and CSV go to the same folder.
    """
    from senet_ablate.report.excitation import printed_pruning, write_pruning
    from senet_ablate.training.evaluation import prune_table

    for looked in _look(errors=True, **call):
        with Console(stderr=True).status("reading the images anew for each stage that is off"):
            table = prune_table(looked.subject.model, looked.images.loader, looked.blocks)
        files = write_pruning(looked.folder, looked.words, table)
        show_text(looked.words[0], printed_pruning(table))
        say(f"wrote {len(files)} files to {looked.folder}")


def find_arms(names: Sequence[str], tables: Sequence[Ablation]) -> dict[Arm, str]:
    """The networks that are named, by row or by slug, each with a table that declares it.

    Raises:
        UserError: there is no such row or arm, or the network has no SE block.
    """
    known: dict[str, tuple[Arm, str]] = {}
    for arm, rows in arms(tables).items():
        for row in rows:
            known[row] = (arm, row.partition(":")[0])
            known.setdefault(arm.slug, known[row])
    for name in names:
        if name not in known:
            alike = [other for other in known if (":" in other) == (":" in name)]
            raise UserError(f"no row (table:row) or arm {name!r}; {did_you_mean(name, alike)}")
        if known[name][0].variant.se is None:
            raise UserError(f"{name}: a network without SE has no block to look into")
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
    chosen = choose(tables=list(dict.fromkeys(found.values())), ablations=ablations, **choice)
    if weights and len(found) > 1:
        raise UserError(f"--weights {weights}: the file is of one network, and {len(found)} are named")
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
                raise UserError(f"{weights}: released weights are of the paper's own network; name none beside them")
        else:
            which = arm.first_seed if seed is None else seed
            if not arm.owns(which):
                raise UserError(f"--seed {which}: the seeds of {arm.slug} begin at {arm.first_seed}")
            subject = rerun.of_run(arm, which, chosen.study, chosen.protocol, data, machine, _tell)
        wanted = part or ("test" if subject.released else "validation")
        if wanted not in images:
            fingerprint = pin.data.fingerprint if pin else None
            images[wanted] = rerun.find_images(chosen.protocol, wanted, data, fingerprint, machine, _tell)
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
        yield Looked(subject, here, blocks, reports / chosen.study.name / "excitation" / subject.name)


def _tell(text: str) -> None:
    say(text, error=True)

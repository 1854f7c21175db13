"""The command `init`: from a folder of images to a protocol for it."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from senet_ablate.cli.console import RIGHT, TEXT, say, show_grid, tell
from senet_ablate.cli.options import Finite, Place, options
from senet_ablate.errors import UserError
from senet_ablate.files import write_atomic

if TYPE_CHECKING:
    from senet_ablate.data.inspect import Inspection, Photo

PRETRAINED = "torchvision:resnet18"
"""The pretrained network that is proposed."""

PRETRAINED_SIDE, PRETRAINED_IMAGES = 64, 5_000
"""From this median short side and below this number of training images a pretrained network is proposed."""

VALIDATION = 0.1

STEPS = 1_000
"""Optimiser steps that a proposed protocol takes at least, where 100 epochs do."""


@click.command()
@options(
    click.option("--data", type=Place(), required=True, help="Folder of images."),
    click.option(
        "--split",
        type=Finite(0, 0.5, min_open=True),
        metavar="SHARE",
        help="Draw this share of each class as the test part, if there is none. No file is moved: a list, splits.csv, "
        "is written beside the protocol.",
    ),
    click.option(
        "--splits",
        "listed",
        type=Place(exists=True, dir_okay=False),
        metavar="FILE",
        help="Take parts and classes from this list (CSV: path, part, class) instead of from folders.",
    ),
    click.option(
        "--weights",
        type=Place(exists=True, dir_okay=False),
        help="Start from these weights of torchvision's ResNet-18 (a state dict) instead of downloaded or random ones.",
    ),
    click.option(
        "--out",
        type=Place(dir_okay=False),
        default=Path("mine.toml"),
        show_default=True,
        help="File to write the protocol to.",
    ),
)
def init(data: Path, split: float | None, listed: Path | None, weights: Path | None, out: Path) -> None:
    """Examine a folder of images and write a protocol for it.

    Prints parts, classes, sizes, files that cannot be read, and duplicate images. The protocol has a comment at every
    key; the next commands are printed last. Nothing is trained, and no image is moved or changed.

    \b
    senet-ablate init --data photos
    senet-ablate init --data photos --split 0.2 --out birds.toml
    """
    if out.suffix != ".toml" or not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", out.stem):
        raise UserError(f"--out {out}: expected a file such as mine.toml, in small letters, digits and -")
    splits = out.with_name("splits.csv" if out.name == "mine.toml" else f"{out.stem}-splits.csv")
    for path in (out, *([splits] if split else [])):
        if path.exists():
            raise UserError(f"{path} exists; remove it, or write another with --out other.toml")
    tell(f"reading all images of {data}")
    from senet_ablate.data.inspect import draw_test, inspect_folder, list_text

    found = inspect_folder(data, listed, tell)
    if weights is not None:
        _check_weights(weights, len(found.classes))
    _show(found)
    test = found.layout.test
    photos = {"train": found.of(found.layout.train), "test": found.of(test)}
    if test is not None and split is not None:
        raise UserError(f"--split {split:g}: {listed or data} has a test part already, {test}/; leave --split out")
    for part in ("train", "test") if test is not None else ("train",):
        if not photos[part]:
            raise UserError(f"{listed or data}: no image of the {part} part can be read; both parts need some")
    if test is None:
        if split is None:
            raise UserError(f"{data} has no test part: add --split 0.2, which draws one and moves no file")
        parts = draw_test(photos["train"], split, data)
        everything = photos["train"]
        photos = {part: [photo for photo in everything if parts[photo.path] == part] for part in ("train", "test")}
    _check_counts(photos["train"])
    if test is None:
        write_atomic(splits, list_text(everything, parts, data))
        say(f"Wrote {splits}: {len(photos['train'])} images for train, {len(photos['test'])} for test, drawn by class.")
    text = _protocol(out.stem, data, found, photos, (splits if split else listed), weights)
    write_atomic(out, text)
    say(f"Wrote {out}, a protocol with a comment at every key. Read it, change it, then:")
    rest = shlex.join(["gain", "--protocol", str(out), "--data", str(data)])
    say(f"  senet-ablate plan {rest}")
    say(f"  senet-ablate run {rest} --report")
    say(f"  open {Path('reports') / out.stem / 'index.html'}")


def _show(found: Inspection) -> None:
    """What was found: a table of classes and parts, then a line for whatever is worth knowing."""
    layout = found.layout
    say(f"{len(found.photos)} images in {len(found.classes)} classes")
    rows = [(label, *(str(found.count(part, label)) for part in layout.files)) for label in found.classes]
    rows.append(("all", *(str(len(found.of(part))) for part in layout.files)))
    titles = [part or "images" for part in layout.files]
    show_grid("", {"class": TEXT} | dict.fromkeys(titles, RIGHT), rows)
    for notice in layout.notices:
        say(notice)
    if layout.tools:
        say(f"Left out, since programs made them: {', '.join(map(repr, layout.tools))}.")
    sizes = ", ".join(f"{width}x{height} ({count})" for (width, height), count in found.sizes[:5])
    more = f", and {len(found.sizes) - 5} more" if len(found.sizes) > 5 else ""
    say(f"Sizes in pixels: {sizes}{more}; median short side {found.side}.")
    _list("files cannot be read", found.unreadable)
    _list("files are not images", [str(path) for path in found.others])
    _list("warnings of Pillow", found.warned)
    words = {"grey": "are grey", "rotated": "are turned upright (EXIF)", "transparent": "are put on white"}
    words["rescaled"] = "of 16 bits use fewer"
    for mark, count in sorted(found.marks.items()):
        say(f"{count} images {words[mark]}.")
    _show_twins(found)
    for label in found.classes:
        for part in (layout.train, layout.test):
            if part is not None and found.count(part, label) == 1:
                say(f"caution: class {label!r} has a single image in {part or layout.root.name}.")


def _check_counts(train: Sequence[Photo]) -> None:
    for label, count in Counter(photo.label for photo in train).items():
        if count == 1:
            raise UserError(
                f"class {label!r} has a single training image; train and validation need one each: add images of it, "
                "or remove the class"
            )


def _show_twins(found: Inspection) -> None:
    twins = found.twins
    if not twins:
        return
    whole = sum(len({photo.content for photo in group}) == 1 for group in twins)
    within = [group for group in twins if len({photo.part for photo in group}) == 1]
    say(
        f"{len(twins)} images are there more than once: {whole} as equal files, {len(twins) - whole} as equal pixels "
        "in other files."
    )
    across = [group for group in twins if len({photo.part for photo in group}) > 1]
    apart = [group for group in twins if len({photo.label for photo in group}) > 1]
    for what, groups in (("more than one part", across), ("one part", within), ("more than one class", apart)):
        _list(f"of them are in {what}", [" = ".join(str(photo.path) for photo in group) for group in groups])


def _list(what: str, names: tuple[str, ...] | list[str], most: int = 3) -> None:
    if names:
        more = [f"… and {len(names) - most} more"] if len(names) > most else []
        say("\n  ".join([f"{len(names)} {what}:", *names[:most], *more]))


def _protocol(
    name: str, data: Path, found: Inspection, photos: dict[str, list[Photo]], splits: Path | None, weights: Path | None
) -> str:
    """The text of a protocol whose network, resolution and training fit the images."""
    from jinja2 import StrictUndefined, Template

    train, side = len(photos["train"]), found.side
    pretrained = weights is not None or (side >= PRETRAINED_SIDE and train < PRETRAINED_IMAGES)
    sides = (64, 96, 128, 160, 224) if pretrained else (8, 16, 24, 32, 48, 64, 96, 128)
    counts = Counter(photo.label for photo in photos["train"]).values()
    kept = sum(count - max(1, round(VALIDATION * count)) for count in counts)
    batch = next((size for size in (64, 32, 16, 8, 4) if kept >= 16 * size), 2)
    template = Path(__file__).with_name("protocol.toml.j2").read_text(encoding="utf-8")
    return Template(template, trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined).render(
        name=name,
        title=re.sub(r"[\x00-\x1f\x7f\"\\]", " ", data.resolve().name) or "images",
        classes=len(found.classes),
        train=train,
        test=len(photos["test"]),
        pretrained=pretrained,
        backbone=PRETRAINED,
        weights=weights and _quoted(Path(os.path.relpath(weights))),
        resolution=max((each for each in sides if each <= side), default=sides[0]),
        side=side,
        validation=VALIDATION,
        splits=splits and _quoted(splits),
        kept=kept,
        batch=batch,
        epochs=min(100, max(10, 5 * -(-STEPS // (kept // batch) // 5))),
    )


def _quoted(path: Path) -> str:
    """A path as TOML has it, which is as JSON has it."""
    return json.dumps(path.as_posix(), ensure_ascii=False)


def _check_weights(weights: Path, classes: int) -> None:
    """Refuse a file of weights that the protocol could not begin from.

    Raises:
        UserError: it is no state dict, or that of another network.
    """
    from senet_ablate.models.build import build_network
    from senet_ablate.spec.network import Network, Variant
    from senet_ablate.spec.sources import with_source

    network = with_source(Network(backbone=PRETRAINED, pretrained=str(weights)))
    build_network(network, Variant(), in_channels=3, classes=classes, resolution=64)

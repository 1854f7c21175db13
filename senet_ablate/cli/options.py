"""What commands have in common: their options, and what a call is about once tables, protocol and study are loaded."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from senet_ablate.cli import console
from senet_ablate.cli.completion import complete_protocols, complete_rows, complete_studies, complete_tables
from senet_ablate.errors import UserError, is_plain
from senet_ablate.execution.survey import survey_variants
from senet_ablate.results.plan import Selection, declared_tables
from senet_ablate.results.store import Study
from senet_ablate.spec.ablation import SEED_SERIES, Ablation, check_arms
from senet_ablate.spec.loading import add_blocks, block_row, declarations_dir, keep_rows, load_ablations, load_protocol
from senet_ablate.spec.network import Variant
from senet_ablate.spec.protocol import DataFacts
from senet_ablate.spec.sources import is_users, with_source

INTERRUPTED = 130
"""Exit code after Ctrl-C (as shells have it) or SIGTERM; 1 is a failed run, 2 a mistake in the call or its files."""

MOST_CLASSES = 100_000
"""More than any data set of images has, and a classifier that still fits into memory."""


def options(*chosen: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Put several shared options on a command, in this order."""

    def wrap(command: Any) -> Any:
        for option in reversed(chosen):
            command = option(command)
        return command

    return wrap


def text(value: str) -> str:
    """A text that is one: an empty option is a variable of a script that was not set, and stands for no default."""
    if not value.strip() or not is_plain(value):
        raise click.BadParameter(f"{value!r}: expected a text, one line of UTF-8")
    return value


def seconds(value: str) -> float:
    """A time such as `2h`, `90min` or `1h30m`, in seconds."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)\s*h)?\s*(?:(\d+(?:\.\d+)?)\s*m(?:in)?)?\s*(?:(\d+)\s*s)?", value.strip())
    parts = match.groups(default="0") if match else ()
    found = sum(float(part) * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if not 0 < found < 1e9:  # thirty years
        raise click.BadParameter(f"{value!r}: expected a time such as 2h, 90min or 1h30m")
    return found


class Place(click.Path[Path]):
    """A path, which an empty text is not, though Python takes it for the working directory."""

    def __init__(self, **kind: bool) -> None:
        super().__init__(path_type=Path, **kind)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, checked as `kind` says."""
        if value == "":
            self.fail("'': expected a path", param, ctx)
        return super().convert(value, param, ctx)


class Finite(click.FloatRange):
    """A number within its range; NaN is in every range of click's."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


TABLES = click.argument("tables", nargs=-1, metavar="[TABLE]...", shell_complete=complete_tables)
ABLATIONS = click.option(
    "--ablations",
    type=Place(file_okay=False, exists=True),
    help="Folder of tables and protocols.  [default: ./ablations, else the package's own]",
)
PROTOCOL = click.option(
    "--protocol",
    type=text,
    shell_complete=complete_protocols,
    help="Network, data and recipe: a name from `list`, or a .toml file.  [default: the study's, else digits]",
)
SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one key of the protocol: recipe.epochs=60."
)
ROWS = click.option(
    "--rows",
    type=text,
    shell_complete=complete_rows,
    metavar="ID,ID",
    help="Only these rows, and each table's reference.",
)
SEEDS = click.option(
    "--seeds",
    type=click.IntRange(1, SEED_SERIES),
    help="Runs per variant, with seeds 0, 1, …  [default: the protocol's]",
)
STUDY = click.option(
    "--study",
    type=text,
    shell_complete=complete_studies,
    help="Name of the folder in results/ and reports/.  [default: the protocol's, with a hash if --set changes it]",
)
RESULTS = click.option(
    "--results", type=Place(file_okay=False), default=Path("results"), show_default=True, help="Folder of all studies."
)
REPORTS = click.option(
    "--reports", type=Place(file_okay=False), default=Path("reports"), show_default=True, help="Folder of all reports."
)
BLOCKS = click.option(
    "--block",
    "blocks",
    multiple=True,
    metavar="NAME",
    help="Add your own block, package.module:Class, to the table `attention`. Repeatable.",
)
PRECISION = click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), help="Short for --set precision=…")
CLASSES = click.option(
    "--classes",
    type=click.IntRange(2, MOST_CLASSES),
    help="Number of classes of an image folder that no run has read yet.",
)
DATA = click.option("--data", type=Place(), help="Image folder, or the folder of torchvision's data sets.")
DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Device to compute on.",
)
UNDER = (PROTOCOL, SET, PRECISION)
WANTED = (TABLES, *UNDER, ROWS, BLOCKS, SEEDS, STUDY, DATA)
FOLDERS = (RESULTS, REPORTS, ABLATIONS)
"""Options that stand together: the protocol, the runs of a study, and where things lie."""

MANY = click.IntRange(1, 1024)
"""Workers, threads or devices."""


def choose(
    tables: Sequence[str],
    ablations: Path | None,
    protocol: str | None,
    overrides: Sequence[str],
    precision: str | None,
    study: str | None,
    results: Path,
    rows: str | None = None,
    blocks: Sequence[str] = (),
) -> Selection:
    """Load and check everything a call names before anything is done."""
    directory = ablations or declarations_dir()
    changes = [*overrides, *([f"precision={precision}"] if precision else [])]
    if study:
        plain_name("--study", study)
    pin = Study(results / study).pin() if study and not protocol and not changes else None
    wanted = [row.strip() for row in rows.split(",")] if rows else []
    named = add_blocks(load_ablations(directory, tables), blocks)
    own = [block_row(with_source(Variant(block=name))).id for name in blocks]
    named = keep_rows(named, [*wanted, *own] if wanted else [])
    usual = {ablation.protocol for ablation in named}
    default = usual.pop() if len(usual) == 1 else "digits"
    loaded = pin.protocol if pin else load_protocol(directory, protocol or default, changes)
    check_arms(named, loaded.network, loaded.data.resolution, loaded.name)
    name = study or loaded.name
    if changes and not study:
        name += "-" + hashlib.blake2b(" ".join(sorted(changes)).encode(), digest_size=3).hexdigest()
    recorded = loaded.network.backbone if pin and is_users(loaded.network.backbone) else ""
    here = Study(results / name)
    chosen = Selection(named, declared_tables(directory, named, here), loaded, here, recorded)
    chosen.study.check(loaded)
    return chosen


def plain_name(option: str, name: str) -> str:
    """The name of a study, if it can be one.

    Raises:
        UserError: it would lead elsewhere than into the results folder.
    """
    if not name.strip() or not is_plain(name) or Path(name).name != name or name.startswith("."):
        raise UserError(f"{option} {name!r}: expected a plain folder name, such as digits-2")
    return name


def refuse_undeclared_code(chosen: Selection) -> None:
    """Refuse to run code that a study names and the caller does not, for the study may be a stranger's.

    Raises:
        UserError: the network is code of somebody's, and the call names no protocol.
    """
    if chosen.undeclared_code:
        raise UserError(
            f"study {chosen.study.name}: its network is the code {chosen.undeclared_code!r}, which only its record "
            "names; name your protocol's file with --protocol if that code may run"
        )


def survey_networks(chosen: Selection, shape: tuple[int, int], tables: Sequence[Ablation] | None = None) -> None:
    """Count the networks of a call that no formula knows, once for all later calls; `shape` is (channels, classes).

    Raises:
        UserError: a network cannot be built; the message names its rows.
    """
    refuse_undeclared_code(chosen)
    survey_variants(tables or chosen.ablations, chosen.protocol, shape, chosen.study.root.parent, console.tell)


def find_facts(chosen: Selection, data: Path | None = None) -> DataFacts | None:
    """What is known of the images: from the folder that the call names, else from the study; None before its first run.

    Raises:
        UserError: they cannot be read, or the study was begun with others.
    """
    pin = chosen.study.pin()
    if data is None:
        return pin.data if pin else None
    from senet_ablate.data.datasets import load_data  # imports torch

    stream = chosen.protocol.recipe.augmentation.resized_crop
    found = load_data(chosen.protocol.data, data, stream=stream, announce=console.tell)
    chosen.study.check(data=found.facts)
    console.tell(describe(found.facts))
    return found.facts


def describe(facts: DataFacts) -> str:
    """Which parts, classes and numbers of images were taken, in a sentence or two."""
    train, test = facts.parts or ("train", "test")
    names = ", ".join(facts.class_names[:10]) + (", …" if facts.classes > 10 else "")
    text = (
        f"images: {facts.n_train + facts.n_validation:,} of {train}/ ({facts.n_train:,} to train, "
        f"{facts.n_validation:,} for validation), {facts.n_test:,} of {test}/ to test; {facts.classes} classes: {names}"
    )
    if facts.train_counts:
        spans = [
            f"{min(counts):,}{f' to {max(counts):,}' if max(counts) > min(counts) else ''} in {part}/"
            for part, counts in ((train, facts.train_counts), (test, facts.test_counts))
        ]
        text += f"; images of a class: {', '.join(spans)}"
    return text


def warn(warnings: Sequence[str]) -> None:
    """Tell what makes runs say little so that nobody misses it."""
    for line in warnings:
        console.tell(f"WARNING: {line}")

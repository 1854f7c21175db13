"""Find and read the declarations: the tables in `ablations/` and the protocols in `ablations/protocols/`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from senet_ablate.errors import UserError, did_you_mean, look_up
from senet_ablate.spec.ablation import Ablation, Row
from senet_ablate.spec.claims import PLAIN, Claim, Superior
from senet_ablate.spec.network import Variant
from senet_ablate.spec.protocol import Protocol
from senet_ablate.spec.schema import key_value, read_toml, validate
from senet_ablate.spec.sources import with_source

MOST_PARTS = 16
"""Tables above a value that `--set` may name."""


def declarations_dir() -> Path:
    """The `ablations/` folder: of the working directory, else of the checkout, else inside the installed package."""
    here = Path("ablations")
    return here if (here / "protocols").is_dir() else packaged_declarations()


def packaged_declarations() -> Path:
    """The `ablations/` folder of the checkout, else inside the installed package: the paper's own declarations."""
    package = Path(__file__).parents[1]
    places = (package.parent / "ablations", package / "ablations")
    found = next((place for place in places if (place / "protocols").is_dir()), None)
    if found is None:
        raise UserError(f"no ablations/ folder with protocols/ found; looked in {', '.join(map(str, places))}")
    return found


def all_ablations(directory: Path) -> list[Ablation]:
    """Every table of `directory`: the paper's in the order of their numbers, then those of ours.

    Raises:
        UserError: a file has a mistake, or two tables collide.
    """
    ablations: dict[str, Ablation] = {}
    for path in sorted(directory.glob("*.toml")):
        ablation = _with_sources(validate(Ablation, read_toml(path), str(path)), str(path))
        if path.stem != ablation.name:
            number = f"table = {ablation.table} and " if ablation.table else ""
            raise UserError(f"{path}: {number}slug = {ablation.slug!r} belong in {ablation.name}.toml")
        if ablation.slug in ablations:
            raise UserError(f"{path}: slug = {ablation.slug!r} is also that of {ablations[ablation.slug].name}.toml")
        ablations[ablation.slug] = ablation
    if not ablations:
        raise UserError(f"{directory}: no table (*.toml) in this folder")
    return sorted(ablations.values(), key=lambda a: (a.table is None, a.table or 0, a.slug))


def _with_sources(ablation: Ablation, place: str) -> Ablation:
    """The table with the digest of each block of the user's that its rows name."""
    try:
        rows = tuple(row.model_copy(update={"source": with_source(row.variant).source}) for row in ablation.rows)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    return ablation.model_copy(update={"rows": rows})


ATTENTION = "attention"
"""The table to which blocks from the command line are added."""


def block_row(variant: Variant) -> Row:
    """A row for a block of the user's, called by its class and told from other code of that name by its digest."""
    assert variant.block is not None
    label = f"{variant.block.rpartition(':')[2]} ({variant.source or 'installed'})"
    return Row(
        id=re.sub(r"[^a-z0-9-]+", "-", variant.slug),
        label=label,
        block=variant.block,
        settings=variant.settings,
        source=variant.source,
        placement=variant.placement,
    )


def with_blocks(ablation: Ablation, variants: Iterable[Variant]) -> Ablation:
    """The attention table with a row for each block, and what is asked of it: does it beat SE, and no SE?"""
    rows, claims = list(ablation.rows), list(ablation.claims)
    for variant in variants:
        row = block_row(variant)
        if any(row.arm == each.arm for each in rows):
            continue
        rows.append(row)
        name = row.label.partition(" ")[0]
        for other, against, words in (("se", ablation.reference, "SE"), ("gain", PLAIN, "no SE")):
            atom = Superior(kind="superior", better=row.id, worse=against)
            source = "asked of every block of this table"
            claims.append(
                Claim(id=f"{row.id}-{other}", statement=f"{name} beats {words}", source=source, atoms=(atom,))
            )
    return ablation.model_copy(update={"rows": tuple(rows), "claims": tuple(claims)})


def add_blocks(ablations: Sequence[Ablation], names: Sequence[str]) -> list[Ablation]:
    """Add blocks of the user's that were named on the command line, `package.module:Class`, to the attention table.

    Raises:
        UserError: that table is not among those chosen, or there is no such code.
    """
    if names and all(ablation.slug != ATTENTION for ablation in ablations):
        raise UserError(
            f"--block adds a row to the table {ATTENTION!r}: name it, as in `run {ATTENTION} --block {names[0]}`"
        )
    for name in names:
        if ":" not in name:
            raise UserError(
                f"--block {name}: your own block is package.module:Class; a block of this package is a row of the "
                f"table {ATTENTION!r} already (--rows chooses rows)"
            )
    variants = [with_source(Variant(block=name)) for name in names]
    return [with_blocks(each, variants) if each.slug == ATTENTION else each for each in ablations]


def load_ablations(directory: Path, slugs: Sequence[str] = ()) -> list[Ablation]:
    """Load the tables of `directory` in the order of their numbers: the paper's, or those named by `slugs`.

    A table without a number, one of ours, is loaded when it is named.

    Raises:
        UserError: a file has a mistake, two tables collide, or a slug is unknown.
    """
    ablations = {ablation.slug: ablation for ablation in all_ablations(directory)}
    wanted = (
        {look_up(ablations, slug, "no table").slug for slug in slugs}
        or {slug for slug, ablation in ablations.items() if ablation.table}
        or set(ablations)
    )
    return [ablation for slug, ablation in ablations.items() if slug in wanted]


def keep_rows(chosen: list[Ablation], rows: Sequence[str]) -> list[Ablation]:
    """The tables with these rows alone (a table's reference always stays) and no claims; all of them if none is named.

    Raises:
        UserError: a row id is unknown.
    """
    known = [row.id for ablation in chosen for row in ablation.rows]
    for row_id in rows:
        if row_id not in known:
            raise UserError(f"no row {row_id!r} in {', '.join(a.slug for a in chosen)}; {did_you_mean(row_id, known)}")
    if not rows:
        return chosen
    kept = [tuple(row for row in a.rows if row.id in (*rows, a.reference)) for a in chosen]
    # model_copy skips validation: a table reduced to its reference is still worth training.
    return [a.model_copy(update={"rows": some, "claims": ()}) for a, some in zip(chosen, kept, strict=True)]


def load_protocol(directory: Path, name: str, overrides: Sequence[str] = ()) -> Protocol:
    """Load a protocol by name from `directory`/protocols, or from the path of a TOML file.

    `overrides` are `key=value` texts with dotted keys, e.g. `recipe.epochs=60`, validated like the file itself.

    Raises:
        UserError: there is no such protocol, or file or override has a mistake.
    """
    path = Path(name)
    if path.suffix != ".toml":
        path = directory / "protocols" / f"{name}.toml"
        if not path.is_file():
            names = sorted(file.stem for file in (directory / "protocols").glob("*.toml"))
            if not names:
                raise UserError(f"{directory}: no protocols/*.toml in this folder; name another with --ablations")
            raise UserError(f"no protocol {name!r}; {did_you_mean(name, names)}; or the path of a .toml file")
    raw = read_toml(path)
    place = str(path)
    for override in overrides:
        key, value = key_value("--set", override, "recipe.epochs=60")
        *tables, last = key.split(".")
        if len(tables) > MOST_PARTS:
            raise UserError(f"--set {override[:20]!r}…: a key of {len(tables) + 1:,} parts, nested too deeply")
        target = raw
        for part in tables:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                raise UserError(f"--set {override!r}: {part!r} is a value, not a table")
        target[last] = value
        place = f"{path} with --set {' '.join(overrides)}"
    protocol = validate(Protocol, raw, place)
    try:
        protocol = protocol.model_copy(update={"network": with_source(protocol.network)})
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    if protocol.name != path.stem:
        raise UserError(f"{path}: name = {protocol.name!r} should be the file's own name, {path.stem!r}")
    return protocol

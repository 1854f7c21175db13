"""Find and read the declarations: the tables in `ablations/` and the protocols in `ablations/protocols/`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from senet_ablate.errors import UserError, did_you_mean
from senet_ablate.spec.ablation import Ablation
from senet_ablate.spec.protocol import Protocol
from senet_ablate.spec.schema import parse_value, read_toml, validate

MOST_PARTS = 16
"""Tables above a value that `--set` may name."""


def declarations_dir() -> Path:
    """The `ablations/` folder: of the working directory, else of the checkout, else inside the installed package."""
    package = Path(__file__).parents[1]
    places = (Path("ablations"), package.parent / "ablations", package / "ablations")
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
        ablation = validate(Ablation, read_toml(path), str(path))
        if path.stem != ablation.name:
            number = f"table = {ablation.table} and " if ablation.table else ""
            raise UserError(f"{path}: {number}slug = {ablation.slug!r} belong in {ablation.name}.toml")
        if ablation.slug in ablations:
            raise UserError(f"{path}: slug = {ablation.slug!r} is also that of {ablations[ablation.slug].name}.toml")
        ablations[ablation.slug] = ablation
    if not ablations:
        raise UserError(f"{directory}: no ablation (*.toml) in this folder")
    return sorted(ablations.values(), key=lambda a: (a.table is None, a.table or 0, a.slug))


def load_ablations(directory: Path, slugs: Sequence[str] = (), rows: Sequence[str] = ()) -> list[Ablation]:
    """Load the tables of `directory` in the order of their numbers: the paper's, or those named by `slugs`.

    A table without a number, one of ours, is loaded when it is named. With `rows`, keep only the rows with these ids
    (a table's reference always stays) and no claims.

    Raises:
        UserError: a file has a mistake, two tables collide, or a slug or row id is unknown.
    """
    ablations = {ablation.slug: ablation for ablation in all_ablations(directory)}
    for slug in slugs:
        if slug not in ablations:
            raise UserError(f"no ablation {slug!r}; {did_you_mean(slug, ablations)}")
    wanted = set(slugs) or {slug for slug, ablation in ablations.items() if ablation.table} or set(ablations)
    chosen = [ablation for slug, ablation in ablations.items() if slug in wanted]
    known = [row.id for ablation in chosen for row in ablation.rows]
    for row_id in rows:
        if row_id not in known:
            raise UserError(f"no row {row_id!r} in {', '.join(a.slug for a in chosen)}; {did_you_mean(row_id, known)}")
    if rows:
        kept = [[row for row in a.rows if row.id in (*rows, a.reference)] for a in chosen]
        # model_copy skips validation: a table reduced to its reference is still worth training.
        chosen = [
            a.model_copy(update={"rows": tuple(some), "claims": ()}) for a, some in zip(chosen, kept, strict=True)
        ]
    return chosen


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
        key, equals, value = override.partition("=")
        *tables, last = key.strip().split(".")
        if len(tables) > MOST_PARTS:
            raise UserError(f"--set {override[:20]!r}…: a key of {len(tables) + 1:,} parts, nested too deeply")
        if not equals or not all((*tables, last)):
            raise UserError(f"--set {override!r}: expected KEY=VALUE, for example recipe.epochs=60")
        target = raw
        for part in tables:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                raise UserError(f"--set {override!r}: {part!r} is a value, not a table")
        target[last] = parse_value(value.strip())
        place = f"{path} with --set {' '.join(overrides)}"
    protocol = validate(Protocol, raw, place)
    if protocol.name != path.stem:
        raise UserError(f"{path}: name = {protocol.name!r} should be the file's own name, {path.stem!r}")
    return protocol

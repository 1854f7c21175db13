"""The printed tables as data: load ablations and protocols, check them, and find the networks that they share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from senet_ablate.declarations import parse_value, read_toml, validate
from senet_ablate.errors import UserError, did_you_mean
from senet_ablate.geometry import gated_sites
from senet_ablate.specs import Network, Placement, Protocol, SEConfig, Spec, Variant

Factor = Literal["se.squeeze", "se.gate", "se.reduction", "placement.stages", "placement.position"]


class PaperFigures(Spec):
    """What the paper prints for a row: single-crop ImageNet errors in percent, parameters in millions, GFLOPs."""

    top1_err: float
    top5_err: float
    params_m: float | None = None
    gflops: float | None = None


class Row(Spec):
    """One row of a printed table: its name, the network it stands for and the paper's figures.

    In TOML `se = false` is the plain network and `se = {}` the paper's block with all its defaults.
    """

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    label: str
    se: SEConfig | None
    placement: Placement = Placement()
    paper: PaperFigures

    @field_validator("se", mode="before")
    @classmethod
    def _false_is_plain(cls, value: Any) -> Any:
        if value is False:
            return None  # TOML has no null
        if value is None or isinstance(value, (dict, SEConfig)):
            return value
        raise ValueError("se must be false (the plain network) or a table such as { reduction = 16 }")

    @model_validator(mode="after")
    def _is_a_network(self) -> Self:
        _ = self.variant
        return self

    @property
    def variant(self) -> Variant:
        """The network change that this row declares."""
        return Variant(se=self.se, placement=self.placement)


class Ablation(Spec):
    """One printed table: rows that differ in `factor` while a protocol is held fixed."""

    table: int = Field(ge=1)
    slug: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    question: str
    factor: Factor
    reference: str
    source: str
    rows: tuple[Row, ...]

    @model_validator(mode="after")
    def _rows_are_comparable(self) -> Self:
        ids = [row.id for row in self.rows]
        if len(ids) < 2:
            raise ValueError(f"rows: {len(ids)} given; a table compares at least two")
        if len(set(ids)) < len(ids):
            raise ValueError(f"two rows have the same id among {', '.join(ids)}")
        if self.reference not in ids:
            raise ValueError(f"reference = {self.reference!r} is no row; {did_you_mean(self.reference, ids)}")
        seen: dict[Variant, str] = {}
        for row in self.rows:
            if row.variant in seen:
                raise ValueError(
                    f"rows {seen[row.variant]!r} and {row.id!r} declare the same network, {row.variant.slug}; "
                    f"let them differ in {self.factor}"
                )
            seen[row.variant] = row.id
            others = sorted(differences(row.variant, self.row(self.reference).variant) - {self.factor})
            if row.variant.se is not None and others:
                raise ValueError(
                    f"row {row.id!r} differs from the reference row {self.reference!r} in {', '.join(others)}, but "
                    f"the table's factor is {self.factor}: arms may differ in the factor only"
                )
        return self

    def row(self, row_id: str) -> Row:
        """The row with this id."""
        return next(row for row in self.rows if row.id == row_id)

    @property
    def name(self) -> str:
        """Stem of the table's file, here and in reports: `table10_ratio`."""
        return f"table{self.table}_{self.slug}"


def differences(one: Variant, other: Variant) -> set[str]:
    """Names of the fields in which two networks differ, e.g. `{"se.gate"}`; a plain network has no `se` fields."""

    def fields(variant: Variant) -> dict[str, Any]:
        se = variant.se.model_dump() if variant.se else {}
        return {f"se.{key}": value for key, value in se.items()} | {
            f"placement.{key}": value for key, value in variant.placement.model_dump().items()
        }

    left, right = fields(one), fields(other)
    return {key for key in left.keys() | right.keys() if left.get(key) != right.get(key)}


def declarations_dir() -> Path:
    """The `ablations/` folder: of the working directory, else of the checkout, else inside the installed package."""
    package = Path(__file__).parent
    places = (Path("ablations"), package.parent / "ablations", package / "ablations")
    found = next((place for place in places if (place / "protocols").is_dir()), None)
    if found is None:
        raise UserError(f"no ablations/ folder with protocols/ found; looked in {', '.join(map(str, places))}")
    return found


def load_ablations(directory: Path, slugs: Sequence[str] = (), rows: Sequence[str] = ()) -> list[Ablation]:
    """Load the tables of `directory` in the order of their numbers, all or those named by `slugs`.

    With `rows`, keep only the rows with these ids (a table's reference always stays).

    Raises:
        UserError: a file has a mistake, two tables collide, or a slug or row id is unknown.
    """
    ablations: dict[str, Ablation] = {}
    for path in sorted(directory.glob("*.toml")):
        ablation = validate(Ablation, read_toml(path), str(path))
        if path.stem != ablation.name:
            raise UserError(
                f"{path}: table = {ablation.table} and slug = {ablation.slug!r} belong in {ablation.name}.toml"
            )
        if ablation.slug in ablations:
            raise UserError(f"{path}: slug = {ablation.slug!r} is also that of {ablations[ablation.slug].name}.toml")
        ablations[ablation.slug] = ablation
    if not ablations:
        raise UserError(f"{directory}: no ablation (*.toml) in this folder")
    for slug in slugs:
        if slug not in ablations:
            raise UserError(f"no ablation {slug!r}; {did_you_mean(slug, ablations)}")
    chosen = sorted((ablations[slug] for slug in set(slugs) or ablations), key=lambda ablation: ablation.table)
    known = [row.id for ablation in chosen for row in ablation.rows]
    for row_id in rows:
        if row_id not in known:
            raise UserError(f"no row {row_id!r} in {', '.join(a.slug for a in chosen)}; {did_you_mean(row_id, known)}")
    if rows:
        kept = [[row for row in a.rows if row.id in (*rows, a.reference)] for a in chosen]
        # model_copy skips validation: a table reduced to its reference is still worth training.
        chosen = [a.model_copy(update={"rows": tuple(some)}) for a, some in zip(chosen, kept, strict=True)]
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
            raise UserError(f"no protocol {name!r}; {did_you_mean(name, names)}; or the path of a .toml file")
    raw = read_toml(path)
    place = str(path)
    for override in overrides:
        key, equals, value = override.partition("=")
        *tables, last = key.strip().split(".")
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


def check_arms(ablations: Iterable[Ablation], network: Network, resolution: int, place: str) -> None:
    """Make sure that every row can be built on `network` before anything is trained.

    Raises:
        UserError: one line per row that cannot, with file, row, key, value and what would be right.
    """
    mistakes = []
    for ablation in ablations:
        for row in ablation.rows:
            try:
                list(gated_sites(network, row.variant, resolution))
            except ValueError as error:
                mistakes.append(f"{ablation.name}.toml, row {row.id!r}, under {place}: {error}")
    if mistakes:
        raise UserError("\n".join(mistakes))


def arms(ablations: Iterable[Ablation]) -> dict[Variant, list[str]]:
    """The distinct networks of the tables, each with the rows it serves (`ratio:r16`, `squeeze:avg`, …)."""
    served: dict[Variant, list[str]] = {}
    for ablation in ablations:
        for row in ablation.rows:
            served.setdefault(row.variant, []).append(f"{ablation.slug}:{row.id}")
    return served

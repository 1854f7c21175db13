"""The paper's Tables 2 to 5 as data: networks with and without SE, and what is printed of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from senet_ablate.errors import look_up
from senet_ablate.spec.network import Network
from senet_ablate.spec.schema import Slug, Spec, read_toml, validate
from senet_ablate.spec.sources import with_source


class Printed(Spec):
    """What the paper prints of one network: errors in percent, parameters in millions, multiply-adds in billions."""

    top1_err: float
    top5_err: float | None = None
    params_m: float | None = None
    gmacs: float | None = None


class NetworkRow(Spec):
    """One network of a printed table, at the side of its images, without SE (`plain`) and with it (`se`)."""

    id: Slug
    label: str
    network: Network
    resolution: Annotated[int, Field(ge=4, le=4096)] = 224
    classes: Annotated[int, Field(ge=2)] = 1000
    note: str = ""
    plain: Printed
    se: Printed


class NetworkTable(Spec):
    """A printed table of networks. Each is trained by the table `gain` under a protocol of its own."""

    table: int
    title: str
    source: str
    rows: tuple[NetworkRow, ...]

    @property
    def slug(self) -> str:
        """How it is called on the command line: `table2`."""
        return f"table{self.table}"


def load_network_tables(directory: Path, slugs: Sequence[str]) -> list[NetworkTable]:
    """Load the tables of networks with these names from `directory`/networks.

    Raises:
        UserError: there is no such table, or its file has a mistake.
    """
    tables = []
    for path in [look_up(network_tables(directory), slug, "no table") for slug in slugs]:
        table = validate(NetworkTable, read_toml(path), str(path))
        rows = [row.model_copy(update={"network": with_source(row.network)}) for row in table.rows]
        tables.append(table.model_copy(update={"rows": tuple(rows)}))
    return tables


def network_tables(directory: Path) -> dict[str, Path]:
    """The files of the tables of networks by slug."""
    return {path.stem: path for path in sorted((directory / "networks").glob("*.toml"))}

"""What the shell completes: tables, rows, protocols, studies and runs, as the folders at hand have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import click

from senet_ablate.errors import UserError
from senet_ablate.results.store import Study
from senet_ablate.spec.ablation import Ablation, arms
from senet_ablate.spec.loading import all_ablations, declarations_dir

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def completing(names: Callable[[click.Context, str], Iterable[str]]) -> Complete:
    """What of `names` begins as typed; nothing where a file has a mistake, which the command itself will tell."""

    def complete(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
        try:
            return [name for name in dict.fromkeys(names(context, typed)) if name.startswith(typed)]
        except (UserError, OSError):
            return []

    return complete


def _declarations(context: click.Context) -> Path:
    return context.params.get("ablations") or declarations_dir()


def _tables(context: click.Context) -> list[Ablation]:
    named = context.params.get("tables") or context.args  # these, while the last option still lacks its value
    return [table for table in all_ablations(_declarations(context)) if not named or table.slug in named]


def _studies(context: click.Context) -> list[str]:
    found = Path(context.params.get("results") or "results").glob("*/")
    return sorted(path.name for path in found if any((path / name).is_file() for name in ("study.json", "plan.json")))


def _rows(context: click.Context, typed: str) -> Iterable[str]:
    before, comma, _ = typed.rpartition(",")
    return (before + comma + row.id for table in _tables(context) for row in table.rows)


def _runs(context: click.Context, typed: str) -> Iterable[str]:
    results = Path(context.params.get("results") or "results")
    chosen = [context.params["study"]] if context.params.get("study") else _studies(context)
    return (folder.path.name for name in chosen for folder in Study(results / name).folders())


def _networks(context: click.Context, typed: str) -> Iterable[str]:
    named = arms(all_ablations(_declarations(context)))
    return [row for rows in named.values() for row in rows] + [arm.slug for arm in named]


complete_tables = completing(lambda context, typed: (table.slug for table in all_ablations(_declarations(context))))
complete_rows = completing(_rows)
complete_studies = completing(lambda context, typed: _studies(context))
complete_runs = completing(_runs)
complete_networks = completing(_networks)
complete_protocols = completing(
    lambda context, typed: sorted(path.stem for path in (_declarations(context) / "protocols").glob("*.toml"))
)

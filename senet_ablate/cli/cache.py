"""The command `cache`: what is kept of decoded images."""

from __future__ import annotations

from datetime import datetime

import click

from senet_ablate.cli.completion import completing
from senet_ablate.cli.console import RIGHT, TEXT, say, show_grid
from senet_ablate.data.copies import drop, kept_copies
from senet_ablate.environment import cache_dir
from senet_ablate.errors import UserError, did_you_mean

complete_copies = completing(lambda context, typed: (copy.path.name for copy in kept_copies(cache_dir())))


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_copies)
@click.option("--drop", "away", is_flag=True, help="Remove the copies; they are made again when needed.")
def cache(names: tuple[str, ...], away: bool) -> None:
    """List the stored copies of decoded image folders, those named or all, or remove them.

    They are in the folder SENET_ABLATE_CACHE, by default in the user's cache folder.
    """
    place = cache_dir()
    kept = {copy.path.name: copy for copy in kept_copies(place)}
    for name in names:
        if name not in kept:
            raise UserError(f"no copy {name!r} in {place}; {did_you_mean(name, kept)}")
    chosen = [kept[name] for name in names] or list(kept.values())
    if away:
        for copy in chosen:
            drop(copy)
    elif chosen:
        rows = [
            (copy.path.name, copy.images or "–", megabytes(copy.size), f"{datetime.fromtimestamp(copy.made):%Y-%m-%d}")
            for copy in chosen
        ]
        kinds = {"name": TEXT, "images of": TEXT, "size": RIGHT, "since": TEXT}
        show_grid(f"kept in {place}", kinds, rows)
    total = megabytes(sum(copy.size for copy in chosen))
    hint = "; remove them with --drop" if chosen and not away else ""
    say(f"{len(chosen)} copies{' removed' if away else ''}, {total}, in {place}{hint}")


def megabytes(size: int) -> str:
    """Bytes as a person reads them."""
    return f"{size / 1e6:,.1f} MB" if size >= 5e4 else f"{size / 1e3:,.1f} kB"

"""The kept copies of decoded folders: what there is, of which images, how large; and away with them."""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from senet_ablate.files import read_file

KINDS = re.compile(r"(folder-[0-9a-f]{32})|((?:headers|checked)-[0-9a-f]{32}\.json)|(\.decoding-\w+)")
"""Names of what this program keeps: decoded images, lists of files that are none, and what a killed process left."""

UNDER_WAY_S = 86_400.0
"""Seconds for which images may still be decoded into a folder."""


@dataclass(frozen=True)
class Copy:
    """Something that is kept, and can be made again.

    `images` says whose it is (empty: it was made before that was noted), `size` its bytes, `made` seconds since 1970.
    """

    path: Path
    images: str
    size: int
    made: float


def kept_copies(cache: Path) -> list[Copy]:
    """All that is kept, the largest first; what may be under way still is left out."""
    try:
        found = [path for path in cache.iterdir() if KINDS.fullmatch(path.name) and not path.is_symlink()]
    except FileNotFoundError:
        return []
    over = time.time() - UNDER_WAY_S
    copies = [_copy(path) for path in found if not (path.name[0] == "." and path.stat().st_mtime >= over)]
    return sorted(copies, key=lambda copy: (-copy.size, copy.path.name))


def _copy(path: Path) -> Copy:
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    if path.name.startswith("."):
        images = "unfinished"
    elif path.suffix == ".json":
        images = "list of damaged files"
    else:
        try:
            images = str(json.loads(read_file(path / "complete.json", 2**30))["root"])
        except (OSError, ValueError, LookupError, TypeError):
            images = ""
    return Copy(path, images, sum(file.stat().st_size for file in files), path.stat().st_mtime)


def drop(copy: Copy) -> None:
    """Remove one; who reads from it at the moment keeps what he has opened.

    Raises:
        OSError: it is somebody else's.
    """
    if copy.path.is_dir():
        shutil.rmtree(copy.path)
    else:
        copy.path.unlink()

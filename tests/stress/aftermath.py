"""What is looked at when a disturbed study is over: what it came to, how often runs finished, what was said."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

STUDY = "chaos"

TIMED = {"tables/cost.md", "index.html", "REPORT.md"}
"""Files of a report that tell how long runs took."""

KEPT = {"record.json", "curve.csv", "predictions.npz"}

TOLD = re.compile(
    r"(?:^|: )(/[^\n:]+)/(?:record\.json|curve\.csv|predictions\.npz): [^\n]*; (?:re)?move (?:the folder|it to)", re.M
)
"""A run of which the user is told to remove the folder, or to move it away."""

PIN_TOLD = re.compile(r"/study\.json: (?:damaged: .*; take it from a copy, or move it away|missing)")
PLAN_TOLD = re.compile(r"/plan\.json: (?:damaged: |not the plan by which )[^\n]*; take it from a copy")
STRANGE = re.compile(
    r"(?:a link, and inside a study none is followed|not a regular file(?:, and so not replaced)?"
    r"|[\d,]+ bytes, expected at most [\d,]+): '([^'\n]+)'"
)
"""What is no file of the suite's, and is named so that its user can remove it."""

FAILED = re.compile(r"^failed (\S+): (.*)$", re.M)


def outcome(results: Path, reports: Path) -> dict[str, bytes]:
    """All that must not depend on what happened on the way, by name: the report's files, each run's files."""
    report = {path.relative_to(reports / STUDY).as_posix(): path for path in (reports / STUDY).rglob("*.*")}
    runs = {f"{path.parent.name}/{path.name}": path for path in (results / STUDY).glob("*/*") if path.name in KEPT}
    chosen = {name: path for name, path in {**report, **runs}.items() if name not in TIMED}
    return {name: _lasting(path) for name, path in chosen.items() if path.is_file()}


def _lasting(path: Path) -> bytes:
    """A file's content; of a record what is no provenance, and of its cross-entropy what `verify` can vouch for."""
    if path.name != "record.json":
        return path.read_bytes()
    record = json.loads(path.read_bytes())
    del record["provenance"], record["metrics"]["cross_entropy"]
    return json.dumps(record, sort_keys=True).encode()


def differences(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """The names of which two outcomes tell different things."""
    return [
        f"{name}: {'missing' if name not in other else 'not there undisturbed' if name not in one else 'differs'}"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]


def repeated(completions: Sequence[str], removed: Counter[str]) -> list[str]:
    """Runs that were finished more often than once, and once more for each time that their result was removed."""
    return [
        f"{run}: finished {count} times; its result was removed {removed[run]} times"
        for run, count in sorted(Counter(completions).items())
        if count > 1 + removed[run]
    ]


def leftovers(study: Path) -> list[str]:
    """Files in the folders of finished runs that are none of a result."""
    folders = [path.parent for path in study.glob("*/record.json")]
    return sorted(
        f"{path.parent.name}/{path.name}: left over"
        for folder in folders
        for path in folder.iterdir()
        if path.name not in KEPT
    )


def last_line(text: str) -> str:
    """Where a program usually says what was wrong."""
    return next(iter(reversed(text.strip().splitlines())), "nothing was said")


def generalised(cause: str) -> str:
    """A cause without names and numbers that differ from time to time, and without what the line says of progress."""
    cause = re.sub(r"; \d+ of \d+ runs done\b.*", "", cause)
    cause = re.sub(r"/\S*/([^/\s:;]+)", r"…/\1", cause)
    return re.sub(r"\b(?:[\w.]*-)?s\d+-[0-9a-f]{10}\b|0x[0-9a-f]+|\b\d{3,}\b", "…", cause)[:120]

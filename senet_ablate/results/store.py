"""Where results lie: one folder per run, `results/<study>/<run_id>/`, written so that a file is whole or absent.

`record.json` is written last and means finished. `curve.csv` has a line per epoch, `predictions.npz` the
outcome of every test image, `weights.pt` (if asked for) the trained weights. `last.ckpt`, the one before it,
`progress.json` and `progress.csv` exist while a run is under way, `lease-N.json` while a process does it,
`failure.json` after one that failed. What else lies there is left alone.
`study.json` pins what all runs of the study share. `conflicts/` has
results that `merge` found to differ from those that are there; no reader of runs looks into it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from senet_ablate.errors import UserError
from senet_ablate.files import ARRAY_LIMIT, TEMPORARY, TEXT_LIMIT, decode, read_file, refuse_links, remove, write_atomic
from senet_ablate.results.lease import LEASE, seems_held
from senet_ablate.results.records import Failure, Latency, Progress, RunRecord, StudyPin, StudyPlan
from senet_ablate.spec.protocol import DataFacts, Protocol, RunSpec
from senet_ablate.spec.schema import Spec

NOTES = "notes.md"
"""File in a study with what whoever ran it wants read beside it."""

SKIPPED = "skipped.txt"
"""File in a study that names the files of its image folder that are left out, and why."""

CONFLICTS = "conflicts"
"""Folder in a study for results of runs that have another one (see `results.merge.py`)."""

MEND = "take it from a copy, or move it away and give `run` again"
RERUN = "remove the folder to run it again"
"""What to do about a file of the study itself, and about one of a run."""

RUN_NAME = re.compile(r"(.+)-s(\d+)-[0-9a-f]{10}")

KEPT = ("record.json", "curve.csv", "predictions.npz", "weights.pt")
UNFINISHED = ("last.ckpt", "previous.ckpt", "failure.json", "progress.json", "progress.csv")
"""Names of the files in a run's folder: those of a result, and those that are removed when there is one."""

HALF_WRITTEN = re.compile(TEMPORARY.format("|".join(map(re.escape, KEPT + UNFINISHED))))

SpecT = TypeVar("SpecT", bound=Spec)


def load(model: type[SpecT], path: Path, inside: Path, advice: str = MEND) -> SpecT | None:
    """What `save` wrote to a file, or None if there is none; below the folder `inside` no link is followed.

    Raises:
        UserError: it cannot be read, or is damaged; then the message ends with `advice`.
    """
    try:
        return model.model_validate_json(read_file(path, inside=inside))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except ValidationError as error:
        first, *others = error.errors(include_url=False, include_context=False, include_input=False)
        where = f"{'.'.join(map(str, first['loc']))}: ".removeprefix(": ")
        why = first["msg"].removeprefix("Value error, ") + (f" (and {len(others)} more)" if others else "")
        raise UserError(f"{path}: damaged: {where}{why}; {advice}") from None


def load_note(model: type[SpecT], path: Path, inside: Path) -> SpecT | None:
    """The same of a file that may be lost: None also where it cannot be read."""
    try:
        return load(model, path, inside)
    except UserError:
        return None


def save(path: Path, content: Spec, inside: Path) -> None:
    """Write it as JSON; below the folder `inside` no link is followed.

    Raises:
        OSError: see `files.write_atomic`.
    """
    write_atomic(path, content.model_dump_json(indent=1) + "\n", inside=inside)


class _File:
    """One file of a run's folder: its path."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: RunFolder, kind: object = None) -> Path:
        return folder.path / self.name


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    A link in its place, or in that of one of its files, is refused and not followed.
    """

    path: Path

    record_file = _File("record.json")
    """Present exactly when the run is finished."""
    checkpoint_file = _File("last.ckpt")
    """The last whole epoch of a run under way."""
    previous_file = _File("previous.ckpt")
    """The checkpoint before the last, for when the last was cut off."""
    weights_file = _File("weights.pt")
    """The trained weights, if they were kept.

    The record knows nothing of them: they stay on the machine that trained, and a folder is valid without.
    """
    failure_file = _File("failure.json")
    """Why the last try failed."""
    progress_file = _File("progress.json")
    """How far the run is."""
    live_curve_file = _File("progress.csv")
    """The curve so far of a run under way.

    Not the record's own: an owner that was stopped for long may still write it when another has finished the run.
    """

    def read(self, name: str, limit: int = TEXT_LIMIT) -> bytes:
        """The content of one of its files.

        Raises:
            FileNotFoundError, OSError: see `files.open_file`.
        """
        return read_file(self.path / name, limit, inside=self.path.parent)

    def finish(self, record: RunRecord, files: Mapping[str, bytes]) -> None:
        """Write the result, the record last, then remove what only an unfinished run needs."""
        for name, content in files.items():
            write_atomic(self.path / name, content, inside=self.path.parent)
        if self.weights_file.name not in files:
            remove(self.weights_file, self.path.parent)  # of an earlier run of this name, whose record was removed
        save(self.record_file, record, self.path.parent)
        self.tidy()

    def tidy(self) -> None:
        """Remove from a finished run what only an unfinished one needs; its owner may have been killed before it could.

        Raises:
            OSError: a file cannot be removed, or the folder is a link.
        """
        refuse_links(self.path, self.path.parent)
        with os.scandir(self.path) as entries:
            files = sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
        leases = [name for name in files if LEASE.fullmatch(name)]  # last: while they are there nobody else looks at it
        for name in (*(name for name in files if name in UNFINISHED or HALF_WRITTEN.fullmatch(name)), *leases):
            remove(self.path / name, self.path.parent)

    def fail(self, failure: Failure) -> None:
        """Note why a run ended without a result; a checkpoint stays for the next try."""
        save(self.failure_file, failure, self.path.parent)
        remove(self.progress_file, self.path.parent)

    def record(self) -> RunRecord | None:
        """The finished run, or None.

        Raises:
            UserError: there is a record but it cannot be read or is not of this folder.
        """
        record = load(RunRecord, self.record_file, self.path.parent, RERUN)
        if record is None:
            return None
        if record.run_id != self.path.name:
            raise UserError(
                f"{self.record_file}: the record of {record.run_id} in another run's folder; move the folder away"
            )
        for name in record.files:
            if changed := self._what_changed(name, record.sha256.get(name, "")):
                raise UserError(f"{self.path / name}: {changed}")
        return record

    def failure(self) -> Failure | None:
        """Why the last try failed, or None."""
        return load_note(Failure, self.failure_file, self.path.parent)

    def progress(self) -> Progress | None:
        """How far the run is, or None."""
        return load_note(Progress, self.progress_file, self.path.parent)

    def _what_changed(self, name: str, digest: str) -> str:
        """What became of a file since its record was written, and what to do; empty if it is as it was."""
        with suppress(OSError):
            content = self.read(name, ARRAY_LIMIT)
            if hashlib.sha256(content).hexdigest() == digest:
                return ""
            if hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest() == digest:
                return LINE_ENDS
        return f"not what its record says; {RERUN}"


LINE_ENDS = (
    "sound but for its line ends, which git turns under core.autocrlf; turn them back (dos2unix), or say "
    "`git config core.autocrlf false` and check the files out again"
)


@dataclass(frozen=True)
class Study:
    """A folder of runs that may stand in one table."""

    root: Path

    @property
    def name(self) -> str:
        """The study's name, its folder's."""
        return self.root.name

    def run(self, run_id: str) -> RunFolder:
        """The folder of the run with this identity, whether it exists or not."""
        return RunFolder(self.root / run_id)

    def folders(self) -> list[RunFolder]:
        """The folders of all runs, finished or not, and of whatever else has a record, by name."""
        return [
            RunFolder(path)
            for path in sorted(self.root.glob("*/"))
            if RUN_NAME.fullmatch(path.name) or (path / "record.json").exists()
        ]

    def notes(self) -> list[str]:
        """The paragraphs of the study's `notes.md`, each in one line; none without the file.

        Raises:
            UserError: it cannot be read as text.
        """
        path = self.root / NOTES
        try:
            text, _, _ = decode(read_file(path, inside=self.root))
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read as text in UTF-8: {error}") from None
        return [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip()]

    def begun(self) -> set[tuple[str, int]]:
        """The slug of the network and the seed of each run that was ever begun, whatever became of it."""
        found = (RUN_NAME.fullmatch(path.name) for path in self.root.glob("*/"))
        return {(match[1], int(match[2])) for match in found if match}

    def record(self, spec: RunSpec) -> RunRecord | None:
        """The finished run of exactly this spec, on the images that the study is pinned to; else None.

        Raises:
            UserError: there is a record but it is damaged.
        """
        record, pin = self.run(spec.run_id).record(), self.pin()
        return record if record and pin and record.spec == spec and pin.holds(record) else None

    def records(self) -> list[RunRecord]:
        """All finished runs under the study's protocol, on the images that it is pinned to, by name.

        Raises:
            UserError: a record is damaged.
        """
        pin = self.pin()
        found = (folder.record() for folder in self.folders())
        return [record for record in found if record and pin and pin.holds(record)]

    def readable(self) -> Iterator[RunRecord]:
        """The records of all finished runs but those that are damaged, which `verify` tells."""
        for folder in self.folders():
            with suppress(UserError):
                if record := folder.record():
                    yield record

    def pin(self) -> StudyPin | None:
        """What the study's runs share, or None if it has not begun.

        Raises:
            UserError: study.json is damaged.
        """
        return load(StudyPin, self.root / "study.json", self.root)

    def pinned(self) -> StudyPin:
        """What the runs of a study share that has begun.

        Raises:
            UserError: there is no such study; the message has those there are. Or study.json is damaged.
        """
        pin = self.pin()
        if pin is None:
            begun = [study.name for study in studies(self.root.parent)]
            there = f"studies there: {', '.join(begun)}" if begun else "no study there yet; begin one with `run`"
            raise UserError(f"no study {self.name!r} in {self.root.parent}; {there}")
        return pin

    def begin(self, protocol: Protocol, data: DataFacts) -> None:
        """Pin protocol and images before the first run, and hold every later one to them.

        As long as no run was begun, a mistake can still be mended and pinned anew.

        Raises:
            UserError: this study was begun with something else; the message names what differs.
        """
        old = self.pin()
        if old is None or not self._has_runs():
            pin = StudyPin(protocol=protocol, data=data, plan=old.plan if old else None)
            if pin != old:
                self._write(pin)
            return
        self.check(protocol, data)

    def check(self, protocol: Protocol | None = None, data: DataFacts | None = None) -> None:
        """Refuse a protocol or images that are not those of this study's runs (nothing to check before the first).

        Raises:
            UserError: the message names each field that differs.
        """
        pin = self.pin()
        if pin is None or not self._has_runs():
            return
        protocols = changes(_held_fixed(pin.protocol), _held_fixed(protocol)) if protocol else []
        images = changes(_images(pin.data), _images(data), "data") if data else []
        if changed := protocols or images:
            what = "another protocol" if protocols else "other images"
            told = "\n  ".join([f"study {self.name!r} in {self.root} was begun with {what}:", *changed])
            raise UserError(f"{told}\ngive the new runs a name of their own with --study NAME (make: STUDY=NAME)")

    def keep(self, pin: StudyPin | None) -> None:
        """Write study.json again if it was removed under way: without it no run belongs to anything."""
        if pin is not None and not (self.root / "study.json").exists():
            self._write(pin)

    def hold(self, plan: StudyPlan | None) -> None:
        """Note the plan in study.json, if the study has one: its file alone may get lost, or be changed later."""
        pin = self.pin()
        if pin is not None and pin.plan != plan:
            self._write(pin.model_copy(update={"plan": plan}))

    def _write(self, pin: StudyPin) -> None:
        save(self.root / "study.json", pin, self.root)

    def _has_runs(self) -> bool:
        begun = any(any(self.root.glob(f"*/{name}")) for name in ("record.json", "last.ckpt", "previous.ckpt"))
        return begun or any(seems_held(folder.path) for folder in self.folders())


def studies(results: Path) -> list[Study]:
    """The studies in a results folder, by name."""
    return [Study(path.parent) for path in sorted(results.glob("*/study.json"))]


def pin_changes(one: StudyPin, other: StudyPin, words: tuple[str, str]) -> list[str]:
    """What keeps the runs of two studies apart: a line for each fact of protocol or images that differs.

    `words` say which is which in each line, as in `recipe.lr: here 0.1, there 0.2`.
    """
    protocols = changes(_held_fixed(one.protocol), _held_fixed(other.protocol), "", words)
    return protocols + changes(_images(one.data), _images(other.data), "data", words)


def changes(
    old: Mapping[str, object], new: Mapping[str, object], prefix: str = "", words: tuple[str, str] = ("then", "now")
) -> list[str]:
    """A line for each leaf in which two trees of the same keys differ."""
    lines = []
    for key, before in old.items():
        name, after = f"{prefix}.{key}".strip("."), new[key]
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += changes(before, after, name, words)
        elif before != after:
            lines.append(f"{name}: {words[0]} {before}, {words[1]} {after}")
    return lines


def _held_fixed(protocol: Protocol) -> dict[str, object]:
    held = protocol.model_copy(update={"network": protocol.network.identity})
    return held.model_dump(exclude={"name", "description", "images", "seeds"})


def _images(data: DataFacts) -> dict[str, object]:
    # What older studies did not note, and files beside the images, which may come and go, tell no images apart.
    return data.model_dump(include={"fingerprint", "channels", "class_names", "n_train", "n_validation", "n_test"})


LATENCY_FILE = "latency.json"


def write_latency(study: Study, latency: Latency) -> Latency:
    """Keep a measurement with the study, and what is known: networks measured before in the same way stay."""
    with suppress(UserError):
        before = read_latency(study)
        if before is not None and before.setting == latency.setting:
            latency = latency.model_copy(update={"networks": before.networks | latency.networks})
    save(study.root / LATENCY_FILE, latency, study.root)
    return latency


def read_latency(study: Study) -> Latency | None:
    """The study's measurement, if there is one.

    Raises:
        UserError: the file is damaged.
    """
    return load(Latency, study.root / LATENCY_FILE, study.root, "measure again with `latency`, or remove it")

"""Where results lie: one folder per run, `results/<study>/<run_id>/`, written so that a file is whole or absent.

`record.json` is written last and means finished. `curve.csv` has a line per epoch, `predictions.npz` the
outcome of every test image, `weights.pt` (if asked for) the trained weights. `last.ckpt` and `progress.json` exist
while a run is under way, `failure.json` after one that failed. `study.json` pins what all runs of the study share.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from senet_ablate.errors import UserError
from senet_ablate.records import Failure, Progress, RunRecord, StudyPin
from senet_ablate.specs import DataFacts, Protocol, RunSpec, Spec

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SpecT = TypeVar("SpecT", bound=Spec)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file that is whole or absent, whatever kills the process: temp, fsync, rename, fsync of the folder."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    scratch = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.chmod(0o644)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the platform can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @property
    def record_file(self) -> Path:
        """Present exactly when the run is finished."""
        return self.path / "record.json"

    @property
    def checkpoint_file(self) -> Path:
        """The last whole epoch of a run under way."""
        return self.path / "last.ckpt"

    @property
    def weights_file(self) -> Path:
        """The trained weights, if they were kept.

        The record knows nothing of them: they stay on the machine that trained, and a folder is valid without.
        """
        return self.path / "weights.pt"

    @property
    def failure_file(self) -> Path:
        """Why the last try failed."""
        return self.path / "failure.json"

    @property
    def progress_file(self) -> Path:
        """How far the run is."""
        return self.path / "progress.json"

    def finish(self, record: RunRecord, files: Mapping[str, bytes]) -> None:
        """Write the result, the record last, then remove what only an unfinished run needs."""
        for name, content in files.items():
            write_atomic(self.path / name, content)
        if self.weights_file.name not in files:
            self.weights_file.unlink(missing_ok=True)  # of an earlier run of this name, whose record was removed
        write_atomic(self.record_file, record.model_dump_json(indent=1) + "\n")
        hidden = self.path.glob(".*")  # half written by a process that was killed
        for leftover in (self.checkpoint_file, self.failure_file, self.progress_file, *hidden):
            leftover.unlink(missing_ok=True)

    def fail(self, failure: Failure) -> None:
        """Note why a run ended without a result; a checkpoint stays for the next try."""
        write_atomic(self.failure_file, failure.model_dump_json(indent=1) + "\n")
        self.progress_file.unlink(missing_ok=True)

    def record(self) -> RunRecord | None:
        """The finished run, or None.

        Raises:
            UserError: there is a record but it cannot be read or is not of this folder.
        """
        try:
            record = RunRecord.model_validate_json(self.record_file.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{self.record_file}: cannot be read: {error}") from None
        except ValidationError as error:
            raise UserError(f"{self.record_file}: damaged record: {error}; remove the folder to run it again") from None
        if record.run_id != self.path.name:
            raise UserError(f"{self.record_file}: the record of {record.run_id} in another run's folder")
        for name, digest in record.sha256.items():
            if _digest_of(self.path / name) != digest:
                raise UserError(f"{self.path / name}: not what its record says; remove the folder to run it again")
        return record

    def failure(self) -> Failure | None:
        """Why the last try failed, or None."""
        return _read(Failure, self.failure_file)

    def progress(self) -> Progress | None:
        """How far the run is, or None."""
        return _read(Progress, self.progress_file)


def _digest_of(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _read(model: type[SpecT], path: Path) -> SpecT | None:
    try:
        return model.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


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

    def begun(self) -> set[tuple[str, int]]:
        """The slug of the network and the seed of each run that was ever begun, whatever became of it."""
        name = re.compile(r"(.+)-s(\d+)-[0-9a-f]{10}")
        found = (name.fullmatch(path.name) for path in self.root.glob("*/"))
        return {(match[1], int(match[2])) for match in found if match}

    def record(self, spec: RunSpec) -> RunRecord | None:
        """The finished run of exactly this spec, on the images that the study is pinned to; else None.

        Raises:
            UserError: there is a record but it is damaged.
        """
        record, pin = self.run(spec.run_id).record(), self.pin()
        if record is None or pin is None or record.spec != spec:
            return None
        return record if record.data_fingerprint == pin.data.fingerprint else None

    def records(self) -> list[RunRecord]:
        """All finished runs under the study's protocol, on the images that it is pinned to, by name.

        Raises:
            UserError: a record is damaged.
        """
        pin = self.pin()
        found = (RunFolder(file.parent).record() for file in sorted(self.root.glob("*/record.json")))
        return [
            record
            for record in found
            if pin is not None
            and record is not None
            and record.spec == pin.protocol.run_spec(record.spec.variant, record.spec.seed)
            and record.data_fingerprint == pin.data.fingerprint
        ]

    def pin(self) -> StudyPin | None:
        """What the study's runs share, or None if it has not begun.

        Raises:
            UserError: study.json is damaged.
        """
        path = self.root / "study.json"
        try:
            return StudyPin.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error}") from None
        except ValidationError as error:
            raise UserError(f"{path}: damaged: {error}") from None

    @contextmanager
    def driver_lock(self) -> Iterator[None]:
        """Keep a second `run` on this machine out of the study while one is at work.

        Raises:
            UserError: one is at work; the message has its process id.
        """
        if fcntl is None:  # not on this platform
            yield
            return
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                holder = file.read().strip() or "?"
                raise UserError(f"another `run` (process {holder}) is at work in {self.root}; wait for it") from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def begin(self, protocol: Protocol, data: DataFacts) -> None:
        """Pin protocol and images before the first run, and hold every later one to them.

        As long as no run was begun, a mistake can still be mended and pinned anew.

        Raises:
            UserError: this study was begun with something else; the message names what differs.
        """
        pin = StudyPin(protocol=protocol, data=data)
        old = self.pin()
        if old is None or not self._has_runs():
            write_atomic(self.root / "study.json", pin.model_dump_json(indent=1) + "\n")
            return
        self.check_protocol(protocol)
        found = {"skipped", "grey"}  # files beside the images may come and go
        changed = _changes(old.data.model_dump(exclude=found), data.model_dump(exclude=found), "data")
        if changed:
            raise UserError(self._other_study("other images", changed))

    def check_protocol(self, protocol: Protocol) -> None:
        """Refuse a protocol under which this study's runs were not made (nothing to check before the first).

        Raises:
            UserError: the message names each field that differs.
        """
        pin = self.pin()
        if pin is not None and self._has_runs():
            changed = _changes(_held_fixed(pin.protocol), _held_fixed(protocol), "")
            if changed:
                raise UserError(self._other_study("another protocol", changed))

    def _has_runs(self) -> bool:
        return any(self.root.glob("*/record.json")) or any(self.root.glob("*/last.ckpt"))

    def _other_study(self, what: str, changed: list[str]) -> str:
        return (
            f"study {self.name!r} in {self.root} was begun with {what}:\n  "
            + "\n  ".join(changed)
            + "\ngive the new runs a name of their own with --study NAME (make: STUDY=NAME)"
        )


def _held_fixed(protocol: Protocol) -> dict[str, object]:
    return protocol.model_dump(exclude={"name", "description", "seeds"})


def _changes(old: Mapping[str, object], new: Mapping[str, object], prefix: str) -> list[str]:
    lines = []
    for key in old:
        name = f"{prefix}.{key}".strip(".")
        before, after = old[key], new[key]
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += _changes(before, after, name)
        elif before != after:
            lines.append(f"{name}: then {before}, now {after}")
    return lines

"""What runs leave behind: one folder per run, `results/<study>/<run_id>/`, written so that it is whole or absent.

`record.json` is written last and means finished. `curve.csv` has a line per epoch, `predictions.npz` the
outcome of every test image. `last.ckpt` and `progress.json` exist while a run is under way, `failure.json`
after one that failed. `study.json` pins what all runs of the study share.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeVar

import numpy as np
from pydantic import ConfigDict, ValidationError, model_validator

from senet_ablate.errors import UserError
from senet_ablate.specs import Complexity, DataFacts, Protocol, RunSpec, Spec, Variant

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SpecT = TypeVar("SpecT", bound=Spec)


class CurvePoint(Spec):
    """One epoch: last learning rate, training loss (with smoothing), validation cross-entropy and error in percent."""

    model_config = ConfigDict(allow_inf_nan=True)  # a diverged run's curve ends so

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    val_top1_err: float


class Metrics(Spec):
    """The test set, read once after the last epoch: errors in percent and mean cross-entropy in nats."""

    model_config = ConfigDict(allow_inf_nan=True)  # the loss of a test image may overflow

    top1_err: float
    top5_err: float | None
    cross_entropy: float


class Provenance(Spec):
    """How a result came to be; nothing in here is part of a run's identity."""

    version: str
    commit: str | None
    dirty: bool | None
    python: str
    libraries: dict[str, str]
    device: str
    cpu: str
    devices: int
    threads: int
    precision: Literal["fp32", "bf16"]
    pipeline: Literal["resident", "streamed"]
    started: str
    wall_s: float
    resumed_at_epoch: int | None

    @property
    def hardware(self) -> str:
        """The processor or card that trained."""
        return self.cpu if self.device == "cpu" else self.device


class RunRecord(Spec):
    """One finished training. Reading it recomputes the identity, so a changed default cannot pass in silence."""

    schema_version: Literal[1] = 1
    run_id: str
    spec: RunSpec
    status: Literal["ok", "diverged"]
    metrics: Metrics | None
    complexity: Complexity
    data_fingerprint: str
    n_test: int
    provenance: Provenance
    sha256: dict[str, str]

    @model_validator(mode="after")
    def _identity_holds(self) -> Self:
        if self.run_id != self.spec.run_id:
            raise ValueError(f"run_id {self.run_id} is not that of its spec, {self.spec.run_id}")
        if (self.status == "ok") != (self.metrics is not None):
            raise ValueError("a run has metrics exactly if it did not diverge")
        return self


class Failure(Spec):
    """Why a run ended without a result: one line for the table, and the traceback."""

    cause: str
    traceback: str


class Progress(Spec):
    """How far a run is, for displays; rewritten each epoch."""

    epoch: int
    epochs: int


class StudyPin(Spec):
    """What all runs of a study share: the protocol (but for its number of seeds) and the images."""

    schema_version: Literal[1] = 1
    protocol: Protocol
    data: DataFacts


@dataclass(frozen=True)
class Predictions:
    """The outcome of each test image in the data set's order: wrong or not, cross-entropy, wrong among five."""

    wrong: np.ndarray
    cross_entropy: np.ndarray
    wrong_top5: np.ndarray | None

    def to_bytes(self) -> bytes:
        """Pack to bits and float16; a CIFAR run takes about 20 kB."""
        arrays = {
            "n": np.array(len(self.wrong), np.int64),
            "wrong": np.packbits(self.wrong),
            "ce": np.minimum(self.cross_entropy, np.finfo(np.float16).max).astype(np.float16),
        }
        if self.wrong_top5 is not None:
            arrays["wrong_top5"] = np.packbits(self.wrong_top5)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_file(cls, path: Path) -> Predictions:
        """Read what `to_bytes` wrote; never executes what it reads."""
        with np.load(path, allow_pickle=False) as arrays:
            n = int(arrays["n"])

            def bits(name: str) -> np.ndarray:
                return np.unpackbits(arrays[name], count=n).astype(bool)

            return cls(
                wrong=bits("wrong"),
                cross_entropy=arrays["ce"],
                wrong_top5=bits("wrong_top5") if "wrong_top5" in arrays else None,
            )


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


def curve_csv(curve: Iterable[CurvePoint]) -> str:
    """The learning curve as CSV, full precision."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(CurvePoint.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(point.model_dump() for point in curve)
    return buffer.getvalue()


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


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of each file, by name."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


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

    def seeds(self, variant: Variant) -> set[int]:
        """Seeds of the network's runs that were ever begun, whatever became of them."""
        name = re.compile(rf"{re.escape(variant.slug)}-s(\d+)-[0-9a-f]{{10}}")
        found = (name.fullmatch(path.name) for path in self.root.glob(f"{variant.slug}-s*"))
        return {int(match[1]) for match in found if match}

    def record(self, spec: RunSpec) -> RunRecord | None:
        """The finished run of exactly this spec, on the images that the study is pinned to; else None.

        Raises:
            UserError: there is a record but it is damaged.
        """
        record, pin = self.run(spec.run_id).record(), self.pin()
        if record is None or pin is None or record.spec != spec:
            return None
        return record if record.data_fingerprint == pin.data.fingerprint else None

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

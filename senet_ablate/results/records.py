"""What a run leaves behind, as data: its record, its curve, the outcome of every test image.

How it lies on disk is the business of `results.store.py`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import statistics
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from senet_ablate.environment import unwarned
from senet_ablate.errors import UserError, reason
from senet_ablate.files import ARRAY_LIMIT, read_file
from senet_ablate.spec.ablation import SEED_SERIES, Arm
from senet_ablate.spec.claims import Rules
from senet_ablate.spec.protocol import MOST_EPOCHS, Complexity, DataFacts, Protocol, RunSpec
from senet_ablate.spec.schema import Digested, Spec

CURVE_FILE, PREDICTIONS_FILE = FILES = ("curve.csv", "predictions.npz")


Epoch = Annotated[int, Field(ge=0, le=MOST_EPOCHS)]


class CurvePoint(Spec):
    """One epoch: last learning rate, training loss (with smoothing), validation cross-entropy and error in percent."""

    model_config = ConfigDict(allow_inf_nan=True)  # a diverged run's curve ends so

    epoch: Epoch
    lr: float
    train_loss: float
    val_loss: float
    val_top1_err: float


Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Metrics(Spec):
    """The test set, read once after the last epoch: errors in percent and mean cross-entropy in nats."""

    model_config = ConfigDict(allow_inf_nan=True)  # the loss of a test image may overflow

    top1_err: Percent
    top5_err: Percent | None
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
    devices: Count
    threads: Count
    precision: Literal["fp32", "bf16"]
    levers: tuple[str, ...] | None = None  # of speed; not recorded before they could be left out
    pipeline: Literal["resident", "streamed"]
    started: str
    wall_s: Annotated[float, Field(ge=0, le=1e10)]  # three centuries
    resumed_at_epoch: Annotated[int, Field(ge=0)] | None

    @property
    def hardware(self) -> str:
        """The processor or card that trained."""
        return self.cpu if self.device == "cpu" else self.device


class RunRecord(Spec):
    """One finished training. Reading it recomputes the identity, so a changed default cannot pass in silence.

    `sha256` has the checksums of the files beside it, whose names are given: a record of somebody else's cannot name
    files elsewhere.
    """

    schema_version: Literal[1] = 1
    run_id: str
    spec: RunSpec
    status: Literal["ok", "diverged"]
    metrics: Metrics | None
    complexity: Complexity
    data_fingerprint: str
    n_test: Count
    provenance: Provenance
    sha256: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]

    @model_validator(mode="after")
    def _identity_holds(self) -> Self:
        if self.run_id != self.spec.run_id:
            raise ValueError(f"run_id {self.run_id} is not that of its spec, {self.spec.run_id}")
        if (self.status == "ok") != (self.metrics is not None):
            raise ValueError("a run has metrics exactly if it did not diverge")
        if min(self.complexity.params, self.complexity.params_with_bn_stats, self.complexity.macs) < 1:
            raise ValueError("complexity: a network has parameters and multiply-adds")
        if others := sorted(self.sha256.keys() - set(FILES)):
            raise ValueError(f"sha256: {others[0]!r} is no file of a run; allowed: {', '.join(FILES)}")
        return self

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that belong to the record; a run that diverged need not have predictions."""
        return tuple(name for name in FILES if self.status == "ok" or name in self.sha256 or name == CURVE_FILE)


class Failure(Spec):
    """Why a run ended without a result: one line for the table, and the traceback."""

    cause: str
    traceback: str


class Progress(Spec):
    """How far a run is, for displays; rewritten each epoch."""

    epoch: Epoch
    epochs: Annotated[Epoch, Field(ge=1)]


Seeds = Annotated[int, Field(ge=0, le=SEED_SERIES)]


class StudyPlan(Digested):
    """What was decided before the runs: the rules, and the seeds of each arm at each look.

    `seeds` has one mapping for each look, from an arm's slug to how many seeds it has by then. `claims` has the
    fingerprint of each table's declared findings, `written` when the plan was made (empty: it is the protocol's
    default), `basis` says in words from which noise, effects and budget the numbers follow. `tables` are those that the
    study is about.
    """

    LATER = frozenset({"tables"})

    schema_version: Literal[1] = 1
    written: str = ""
    claims: dict[str, str]
    rules: Rules = Rules()
    seeds: Annotated[tuple[dict[str, Seeds], ...], Field(min_length=1, max_length=100)]
    basis: str = ""
    tables: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """The plan's own fingerprint, shown in reports."""
        return hashlib.blake2b(self.model_dump_json().encode(), digest_size=5).hexdigest()

    def count(self, arm: Arm) -> int:
        """Seeds of an arm at the last planned look; 0 if it is not planned."""
        return self.seeds[-1].get(arm.slug, 0)

    def extends(self, other: StudyPlan) -> bool:
        """Whether it is the other plan, or that with looks added."""
        looks = len(other.seeds)
        before = self.model_copy(update={"seeds": self.seeds[:looks], "basis": other.basis})
        return self == other or (len(self.seeds) > looks and before == other)


class StudyPin(Digested):
    """What all runs of a study share: the protocol (but for its number of seeds), the images, and the plan, if any."""

    LATER = frozenset({"plan"})

    schema_version: Literal[1] = 1
    protocol: Protocol
    data: DataFacts
    plan: StudyPlan | None = None

    def holds(self, record: RunRecord) -> bool:
        """Whether a run is of this study: under its protocol, on its images."""
        ours = self.protocol.run_spec(record.spec.variant, record.spec.seed)
        return record.spec == ours and record.data_fingerprint == self.data.fingerprint


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
        """Read what `to_bytes` wrote; never executes what it reads.

        Raises:
            UserError: the file is damaged, or is none of ours.
        """
        try:
            return cls._read(read_file(path, ARRAY_LIMIT, inside=path.parents[1]))
        except Exception as error:  # whatever a garbled file makes zipfile and NumPy raise
            raise UserError(
                f"{path}: damaged predictions: {reason(error)}; remove the folder to run it again"
            ) from None

    @classmethod
    def _read(cls, content: bytes) -> Predictions:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("compressed")  # by us never; by others perhaps to fill the memory
        with unwarned(), np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            losses, n = arrays["ce"], int(arrays["n"])
            if losses.dtype != np.float16 or losses.shape != (n,):
                raise ValueError(f"losses of {n} images expected, {losses.dtype} of shape {losses.shape} found")

            def bits(name: str) -> np.ndarray:
                packed = arrays[name]
                if packed.dtype != np.uint8 or packed.shape != ((n + 7) // 8,):
                    raise ValueError(f"{name}: outcomes of {n} images expected")
                return np.unpackbits(packed, count=n).astype(bool)

            return cls(bits("wrong"), losses, bits("wrong_top5") if "wrong_top5" in arrays else None)


def curve_csv(curve: Iterable[CurvePoint]) -> str:
    """The learning curve as CSV, full precision."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(CurvePoint.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(point.model_dump() for point in curve)
    return buffer.getvalue()


def read_curve(path: Path) -> list[CurvePoint]:
    """Read what `curve_csv` wrote.

    Raises:
        UserError: the file is damaged.
    """
    try:
        text = read_file(path, inside=path.parents[1]).decode()
        rows = list(csv.DictReader(io.StringIO(text, newline=None), strict=True))
        return [CurvePoint.model_validate_strings(row) for row in rows]
    except Exception as error:  # whatever a garbled file makes csv and pydantic raise
        why = next(iter(str(error).splitlines()), "")
        raise UserError(f"{path}: damaged curve: {why}; remove the folder to run it again") from None


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of each file, by name."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


class Timing(Spec):
    """Milliseconds of one kind of work: median of the rounds, and the least and the largest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Self:
        """Sum up the rounds."""
        return cls(median=statistics.median(rounds), low=min(rounds), high=max(rounds))


class Latency(Spec):
    """Measured times by network and kind of work (`one_image`, `batch`, `training_step`), and where and how."""

    schema_version: Literal[1] = 1
    device: str
    cpu: str
    threads: int
    precision: str
    torch: str
    batch: int
    rounds: int
    networks: dict[str, dict[str, Timing]]

    @property
    def setting(self) -> str:
        """Where and how it was measured, in words."""
        where = f"{self.cpu}, {self.threads} {'thread' if self.threads == 1 else 'threads'}"
        return (
            f"{where if self.device in ('cpu', 'mps') else self.device}, {self.precision}, eager, torch {self.torch}; "
            f"median of {self.rounds} rounds in turn, training step at batch {self.batch}"
        )

"""What a run leaves behind, as data: its record, its curve, the outcome of every test image.

How it lies on disk is the business of `store.py`.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import ConfigDict, model_validator

from senet_ablate.specs import Complexity, DataFacts, Protocol, RunSpec, Spec


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
    levers: tuple[str, ...] | None = None  # of speed; not noted before they could be left out
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


def curve_csv(curve: Iterable[CurvePoint]) -> str:
    """The learning curve as CSV, full precision."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(CurvePoint.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(point.model_dump() for point in curve)
    return buffer.getvalue()


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of each file, by name."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}

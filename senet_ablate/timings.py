"""How long a study's networks take on a device, as data: `results/<study>/latency.json`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal, Self

from pydantic import ValidationError

from senet_ablate.errors import UserError
from senet_ablate.files import write_atomic
from senet_ablate.spec.schema import Spec
from senet_ablate.store import Study, first_mistake

FILE = "latency.json"


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


def write_latency(study: Study, latency: Latency) -> Latency:
    """Keep a measurement with the study, and what is known: networks measured before in the same way stay."""
    with suppress(UserError):
        before = read_latency(study)
        if before is not None and before.setting == latency.setting:
            latency = latency.model_copy(update={"networks": before.networks | latency.networks})
    study.root.mkdir(parents=True, exist_ok=True)
    write_atomic(study.root / FILE, latency.model_dump_json(indent=1) + "\n")
    return latency


def read_latency(study: Study) -> Latency | None:
    """The study's measurement, if there is one.

    Raises:
        UserError: the file is damaged.
    """
    path = study.root / FILE
    try:
        return Latency.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        why = first_mistake(error) if isinstance(error, ValidationError) else error
        raise UserError(f"{path}: damaged; measure again with `latency`, or remove it ({why})") from None

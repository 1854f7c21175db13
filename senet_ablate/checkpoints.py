"""The files that carry a run under way over an interruption, and what they tell of its earlier tries."""

from __future__ import annotations

import io
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from senet_ablate.files import write_atomic
from senet_ablate.results.store import RunFolder


@dataclass
class History:
    """What a run's earlier tries have spent; it travels in the checkpoint."""

    started: str
    precision: str
    devices: int
    levers: tuple[str, ...]
    spent_s: float = 0.0
    clock: float = field(default_factory=time.monotonic)

    @property
    def wall_s(self) -> float:
        """Seconds of all tries up to now."""
        return self.spent_s + time.monotonic() - self.clock

    def dump(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"started": self.started, "wall_s": self.wall_s, **self.manner}

    @property
    def manner(self) -> dict[str, Any]:
        """How the run is done: what changes its last bits, and must not change half-way."""
        return {"precision": self.precision, "devices": self.devices, "levers": self.levers}


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Keep the checkpoint that is there as the previous one and write a new one: at each moment there is a whole one.

    Raises:
        OSError: it cannot be written; the previous one stays.
    """
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    if path.is_file():
        path.replace(RunFolder(path.parent).previous_file)
    write_atomic(path, buffer.getvalue())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; never executes what it reads.

    Raises:
        OSError, MemoryError: it cannot be read, which says nothing against it.
        Exception: whatever a file that was cut off or overwritten makes torch raise.
    """
    content = io.BytesIO(path.read_bytes())  # read before it is understood, which would raise OSError, too
    with zipfile.ZipFile(content) as archive:  # torch writes checksums but does not compare them
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} is not what was written")
    content.seek(0)
    return torch.load(content, map_location="cpu", weights_only=True)


def weights_bytes(model: nn.Module) -> bytes:
    """The state dict of a network as `torch.save` writes it, on the processor, loadable with `weights_only=True`."""
    buffer = io.BytesIO()
    torch.save({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}, buffer)
    return buffer.getvalue()

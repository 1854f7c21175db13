"""The files that carry a run under way over an interruption, and what they tell of its earlier tries."""

from __future__ import annotations

import io
import math
import time
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins import TorchCheckpointIO
from torch import nn

from senet_ablate.environment import unwarned
from senet_ablate.files import WEIGHTS_LIMIT, move, read_file, write_atomic
from senet_ablate.results.lease import Lease, Taken
from senet_ablate.results.records import CurvePoint, Progress, curve_csv
from senet_ablate.results.store import RunFolder
from senet_ablate.seeding import stream_seed
from senet_ablate.training.module import AblationModule
from senet_ablate.training.trackers import Trackers


@dataclass
class History:
    """What a run's earlier tries have spent; it travels in the checkpoint."""

    started: str
    precision: str
    devices: int
    optimisations: tuple[str, ...]
    spent_s: float = 0.0
    clock: float = field(default_factory=time.monotonic)

    @property
    def wall_s(self) -> float:
        """Seconds of all tries up to now."""
        return self.spent_s + time.monotonic() - self.clock

    def dump(self) -> dict[str, Any]:
        """For the checkpoint, in which the optimisations have their older key, as in a run's record."""
        spent = {"started": self.started, "wall_s": self.wall_s}
        return spent | {"precision": self.precision, "devices": self.devices, "levers": self.optimisations}

    @property
    def manner(self) -> dict[str, Any]:
        """How the run is done: what changes its last bits, and must not change half-way."""
        return {"precision": self.precision, "devices": self.devices, "optimisations": self.optimisations}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; never executes what it reads.

    Raises:
        OSError, MemoryError: it cannot be read, which says nothing against it.
        Exception: whatever a file that was cut off or overwritten makes torch raise.
    """
    # Read before it is understood, which would raise OSError, too.
    content = io.BytesIO(read_file(path, WEIGHTS_LIMIT, inside=path.parents[1]))
    with zipfile.ZipFile(content) as archive:  # torch writes checksums but does not compare them
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} is not what was written")
    content.seek(0)
    with unwarned():  # else a warning could make it a damaged file
        return torch.load(content, map_location="cpu", weights_only=True)


def load_checkpoint(path: Path, module: AblationModule, run_id: str) -> History:
    """Put a checkpoint's weights and curve into the module; never executes what it reads.

    Returns:
        What the run's tries up to then have spent.

    Raises:
        OSError, MemoryError: the file cannot be read.
        Exception: the file is damaged or another run's.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint["run_id"] != run_id:
        raise ValueError(f"a checkpoint of {checkpoint['run_id']}")
    module.load_state_dict(checkpoint["state_dict"])
    module.on_load_checkpoint(checkpoint)
    old = checkpoint["history"]
    return History(old["started"], old["precision"], old["devices"], tuple(old["levers"]), spent_s=old["wall_s"])


def weights_bytes(model: nn.Module) -> bytes:
    """The state dict of a network as `torch.save` writes it, on the processor, loadable with `weights_only=True`."""
    buffer = io.BytesIO()
    torch.save({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}, buffer)
    return buffer.getvalue()


CHECKPOINT_SHARE = 0.005
"""Share of a run's time that may go into writing checkpoints; at least the first and last epoch are written."""


LIVE_S = 0.5
"""Seconds, at least, between two writings of the curve and progress of a run under way: an epoch may be shorter."""


class EpochFiles(Checkpoint):
    """Writes curve and progress after an epoch, a checkpoint as often as its cost allows, while the run is ours.

    Being a `Checkpoint`, it is called after the module's own `on_train_epoch_end`.
    """

    def __init__(self, folder: RunFolder, history: History, lease: Lease | None, trackers: Trackers) -> None:
        self.folder, self.history, self.lease, self.trackers = folder, history, lease, trackers
        self.cost_s = 0.0
        self.saved_at = self.shown_at = -math.inf

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Called in each process of the run: keep Lightning's advice and deprecations out of the user's terminal."""
        warnings.filterwarnings("ignore", module="pytorch_lightning|torch")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Key what layers draw (dropout, Shake-Shake) by seed and epoch, so that a resumed run draws the same."""
        torch.manual_seed(stream_seed(pl_module.hparams["seed"], "layers", trainer.current_epoch, trainer.global_rank))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save at the first and last epoch, and whenever saving takes no more than its share of the time.

        Raises:
            Taken: the lease on the run was lost.
        """
        held = self.lease is None or self.lease.held()
        if not trainer.strategy.broadcast(held):  # all processes of the run end, or none
            raise Taken
        done, epochs = trainer.current_epoch + 1, trainer.max_epochs
        assert epochs is not None
        curve = cast(AblationModule, pl_module).curve
        if not math.isfinite(curve[-1].train_loss):
            trainer.should_stop = True
        last = done == epochs or trainer.should_stop
        if trainer.is_global_zero:
            if last or time.monotonic() - self.shown_at >= LIVE_S:
                self._show(Progress(epoch=done, epochs=epochs), curve)
            self.trackers.epoch(curve[-1])
        due = time.monotonic() - self.saved_at >= self.cost_s / CHECKPOINT_SHARE
        if trainer.strategy.broadcast(due or last):  # the clocks of several devices need not agree
            start = time.monotonic()
            trainer.save_checkpoint(self.folder.checkpoint_file)
            self.saved_at = time.monotonic()
            self.cost_s = self.saved_at - start

    def _show(self, progress: Progress, curve: list[CurvePoint]) -> None:
        texts = {self.folder.live_curve_file: curve_csv(curve), self.folder.progress_file: progress.model_dump_json()}
        for path, text in texts.items():
            write_atomic(path, text, durable=False, inside=self.folder.path.parent)
        self.shown_at = time.monotonic()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say whose checkpoint it is, and what the run's tries have spent."""
        checkpoint["run_id"] = self.folder.path.name
        checkpoint["history"] = self.history.dump()


class WholeFiles(TorchCheckpointIO):
    """How Lightning writes a checkpoint here.

    Its own way goes through the system's temporary folder, which may be another disk (then the file can be cut off) and
    keeps what a killed process left.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Keep the file that is there as the previous one and write a new one: at each moment there is a whole one.

        The processes of a run hand their last state over in one, too.

        Raises:
            OSError: it cannot be written; the previous one stays.
        """
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        file = Path(path)
        move(file, RunFolder(file.parent).previous_file, inside=file.parents[1])
        write_atomic(file, buffer.getvalue(), inside=file.parents[1])

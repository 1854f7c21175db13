"""Runs shown, epoch by epoch, in the trackers people already use: TensorBoard, Weights & Biases, MLflow.

What counts is in the run's folder. A tracker is only told, once an epoch and through Lightning's own loggers, and one
that fails is left alone for the rest of the run.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from senet_ablate.errors import UserError, not_installed
from senet_ablate.files import refuse_links
from senet_ablate.results.records import CurvePoint, RunRecord
from senet_ablate.training.request import RunRequest, TrackerKind

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger


PROJECT = "senet-ablate"
FOLDER = "tracking"
"""What TensorBoard, MLflow's own store and W&B without a network write, beside the runs of a study."""


def _tensorboard(run: RunRequest, folder: Path, done: int) -> Logger:
    from pytorch_lightning.loggers import TensorBoardLogger

    # What an interrupted try told after the checkpoint from which the run goes on is purged.
    purge = done + 1 if done else None
    return TensorBoardLogger(folder, "tensorboard", run.spec.run_id, default_hp_metric=False, purge_step=purge)


def _wandb(run: RunRequest, folder: Path, done: int) -> Logger:
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    study, name = run.folder.path.parent.name, run.spec.run_id
    return WandbLogger(
        name,
        folder,
        # So that a run taken up again goes on in its own line. Their ids may not hold all that a study's name may.
        id=re.sub(r"[/\\#?%:']", "_", f"{study}-{name}"),
        resume="allow",
        project=os.environ.get("WANDB_PROJECT") or PROJECT,
        group=study,
        settings=wandb.Settings(silent=True, console="off"),
    )


def _mlflow(run: RunRequest, folder: Path, done: int) -> Logger:
    from mlflow.tracking import MlflowClient
    from pytorch_lightning.loggers import MLFlowLogger

    experiment, name = f"{PROJECT}/{run.folder.path.parent.name}", run.spec.run_id
    store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(store)
    known = client.get_experiment_by_name(experiment)
    begun = client.search_runs([known.experiment_id], f"tags.mlflow.runName = '{name}'") if known else []
    return MLFlowLogger(experiment, name, store, run_id=begun[0].info.run_id if begun else None)


MAKERS: Mapping[TrackerKind, Callable[[RunRequest, Path, int], Logger]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}


def check_trackers(kinds: Sequence[TrackerKind]) -> None:
    """Refuse a tracker whose package is not installed, before anything is trained.

    Raises:
        UserError: with the command that installs it.
    """
    for kind in kinds:
        if importlib.util.find_spec(kind) is None:
            raise UserError(f"--track {kind}: " + not_installed(kind))


class Trackers:
    """The trackers that a run is asked to tell; each is opened when it is first told something.

    Args:
        run: the run; the trackers' files lie beside those of its study.
        done: epochs that an earlier try has told.
    """

    def __init__(self, run: RunRequest, done: int) -> None:
        self.run, self.done = run, done
        self.kinds = list(run.trackers)
        self.open: dict[TrackerKind, Logger] = {}

    def epoch(self, point: CurvePoint) -> None:
        """Tell one epoch of the curve."""
        values = point.model_dump(exclude={"epoch"})
        self._tell(lambda logger: logger.log_metrics(values, point.epoch))
        self.done = point.epoch

    def end(self, record: RunRecord) -> None:
        """Tell what the run came to and what it costs, and close."""
        self.done = epochs = record.spec.recipe.epochs
        costs = {"params": record.complexity.params, "multiply_adds": record.complexity.macs}
        errors = record.metrics.model_dump(exclude_none=True) if record.metrics else {}
        values = costs | {f"test_{name}": value for name, value in errors.items()}
        self._tell(lambda logger: logger.log_metrics(values, epochs))
        self.close("success" if record.metrics else "failed")

    def close(self, status: str = "aborted") -> None:
        """Close what is open; a run that did not come to its end is aborted."""

        def finish(logger: Logger) -> None:
            logger.finalize(status)
            # Lightning leaves a run of W&B open, and the next one in this process would be taken for the same.
            if end := getattr(getattr(logger, "experiment", None), "finish", None):
                end(exit_code=int(status != "success"))

        self.kinds = [kind for kind in self.kinds if kind in self.open]
        self._tell(finish)
        self.kinds = []

    def _tell(self, say: Callable[[Logger], None]) -> None:
        for kind in tuple(self.kinds):
            try:
                if kind not in self.open:
                    folder = self.run.folder.path.parent / FOLDER
                    refuse_links(folder, folder.parent)
                    folder.mkdir(exist_ok=True)
                    self.open[kind] = MAKERS[kind](self.run, folder, self.done)
                    self.open[kind].log_hyperparams(self.run.spec.model_dump(mode="json"))
                say(self.open[kind])
            except Exception as error:  # a training is not lost to a server that does not answer
                self.kinds.remove(kind)
                cause = f"{type(error).__name__}: {error}"
                with suppress(OSError):
                    print(f"{self.run.spec.run_id}: no longer told to {kind}: {cause}", file=sys.stderr)

"""One training: a Lightning module that takes a run's spec and knows nothing of tables.

Lightning stays in this room. All randomness is keyed (see `seeding.py`), the learning rate is a function of the
progress, and the checkpoint holds weights, optimiser and curve, so a resumed run equals the uninterrupted one.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]
from pytorch_lightning.strategies import DDPStrategy

from senet_ablate.data.datasets import LoadedData, load_data_once
from senet_ablate.data.loaders import EpochSampler, Loader
from senet_ablate.errors import UserError
from senet_ablate.models.build import build_network
from senet_ablate.results.records import CurvePoint
from senet_ablate.training.checkpoint import History, WholeFiles
from senet_ablate.training.request import RunRequest
from senet_ablate.training.schedule import learning_rate

# Lightning announces devices, ranks and itself; its processes import this file before they do so.
for _name in ("pytorch_lightning", "lightning_fabric"):
    logging.getLogger(_name).setLevel(logging.ERROR)


def request_data(request: RunRequest) -> LoadedData:
    """The run's images, loaded once per process and held to those that the study was begun with.

    Raises:
        UserError: the images are others than those of the study.
    """
    # The ImageNet crop needs images of their own size, hence streaming.
    stream = request.spec.recipe.augmentation.resized_crop
    data = load_data_once(request.spec.data, request.data_path, stream)
    if request.data_fingerprint not in (None, data.facts.fingerprint):
        raise UserError(f"the images of {request.data_path or request.spec.data.dataset} changed while the study ran")
    return data


@dataclass(frozen=True)
class Whole:
    """All batches of an epoch as one item for Lightning: what it does for each item, it does once an epoch."""

    batches: Loader

    def __iter__(self) -> Iterator[Loader]:
        yield self.batches

    def __len__(self) -> int:
        return 1


class TrainingModule(pl.LightningModule):
    """The network of one run, its optimiser, schedule and batches."""

    def __init__(self, request: RunRequest, history: History) -> None:
        super().__init__()
        self.automatic_optimization = False  # what Lightning takes for a step is an epoch of them
        self.request, self.spec, self.history = request, request.spec, history
        facts = self.data.facts
        self.model = build_network(
            self.spec.network, self.spec.variant, in_channels=facts.channels, classes=facts.classes, seed=self.spec.seed
        )
        self.model.to(memory_format=torch.channels_last)
        self.curve: list[CurvePoint] = []
        self._loss = torch.zeros(())
        self._validation = torch.zeros(3)

    def setup(self, stage: str) -> None:
        """Called in each process of the run: keep Lightning's advice and deprecations out of the user's terminal."""
        warnings.filterwarnings("ignore", module="pytorch_lightning|torch")

    def autocast(self) -> torch.autocast:
        """Forward in the run's precision; opened anew for each batch, for it remembers the weights that it has cast."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.history.precision == "bf16")

    @property
    def data(self) -> LoadedData:
        """Found anew in each process, so that it never travels with the module."""
        return request_data(self.request)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with momentum; as in the paper's Caffe, weight decay acts on every parameter."""
        recipe = self.spec.recipe
        return torch.optim.SGD(
            self.model.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=True,  # one pass over each parameter, to the same bits
        )

    def _sampler(self, size: int, seed: int | None) -> EpochSampler:
        trainer = self.trainer
        return EpochSampler(
            size,
            seed=seed,
            batch_size=self.spec.recipe.batch_size,
            rank=trainer.global_rank,
            world=trainer.world_size,
        )

    def train_dataloader(self) -> Whole:
        """Shuffled and augmented batches, keyed by the run's seed and the epoch."""
        split = self.data.train
        self._order = self._sampler(len(split), self.spec.seed)
        augmentation, workers = self.spec.recipe.augmentation, self.request.loader_workers
        return Whole(split.loader(self._order, augmentation, self.device, workers))

    def val_dataloader(self) -> Whole:
        """The validation part in its own order."""
        split = self.data.validation
        return Whole(split.loader(self._sampler(len(split), None), None, self.device, self.request.loader_workers))

    def on_train_epoch_start(self) -> None:
        """Announce the epoch to the images' order."""
        self._order.set_epoch(self.current_epoch)

    def training_step(self, batches: Loader, batch_idx: int) -> None:
        """One epoch of SGD on the cross-entropy with label smoothing; its mean is read when the epoch ends."""
        recipe, optimizer = self.spec.recipe, self.trainer.optimizers[0]
        val_losses = [point.val_loss for point in self.curve]
        total = torch.zeros((), device=self.device)
        for step, (images, labels) in enumerate(batches):
            with self.autocast():
                loss = F.cross_entropy(self.model(images), labels, label_smoothing=recipe.label_smoothing)
            rate = learning_rate(recipe, self.current_epoch + step / len(batches), val_losses)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            total += loss.detach()
        self._loss = total / len(batches)

    def validation_step(self, batches: Loader, batch_idx: int) -> None:
        """Cross-entropy, errors and images of the validation part, each summed."""
        self._validation = torch.zeros(3, device=self.device)
        for images, labels in batches:
            with self.autocast():
                logits = self.model(images).float()
            wrong = (logits.argmax(1) != labels).sum()
            loss = F.cross_entropy(logits, labels, reduction="sum")
            self._validation += torch.stack([loss, wrong.to(loss.dtype), torch.full_like(loss, len(labels))])

    def on_train_epoch_end(self) -> None:
        """Add the epoch to the curve (all devices together); stop if the loss is no longer a number."""
        reduce = self.trainer.strategy.reduce
        train_loss = reduce(self._loss, reduce_op="mean").item()
        val_loss, wrong, images = reduce(self._validation, reduce_op="sum").tolist()
        self.curve.append(
            CurvePoint(
                epoch=self.current_epoch + 1,
                lr=self.trainer.optimizers[0].param_groups[0]["lr"],
                train_loss=train_loss,
                val_loss=val_loss / images,
                val_top1_err=100 * wrong / images,
            )
        )
        if not math.isfinite(train_loss):
            self.trainer.should_stop = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The curve travels with the weights, for the plateau rule reads it, and so does what was spent on what."""
        checkpoint["run_id"] = self.spec.run_id
        checkpoint["curve"] = [point.model_dump() for point in self.curve]
        checkpoint["history"] = self.history.dump()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the curve up where it was.

        Raises:
            ValueError: it is another run's.
        """
        if checkpoint["run_id"] != self.spec.run_id:
            raise ValueError(f"a checkpoint of {checkpoint['run_id']}")
        self.curve = [CurvePoint(**point) for point in checkpoint["curve"]]
        old = checkpoint["history"]
        manner = (old["precision"], old["devices"], tuple(old["levers"]))
        self.history = History(old["started"], *manner, spent_s=old["wall_s"])


def make_trainer(request: RunRequest, callbacks: Sequence[pl.Callback]) -> pl.Trainer:
    """A silent Lightning trainer: no logger, no progress bar, no checkpoint but ours."""
    several = request.devices > 1
    backend = "nccl" if request.device == "cuda" else "gloo"
    return pl.Trainer(
        accelerator="gpu" if request.device == "cuda" else request.device,
        devices=request.devices,
        strategy=DDPStrategy(start_method="spawn", process_group_backend=backend) if several else "auto",
        # Without the first, a Slurm job would take its tasks for the processes of the run.
        plugins=[LightningEnvironment(), WholeFiles()],
        max_epochs=request.spec.recipe.epochs,
        deterministic="warn",  # CUDA's backward of max pooling has no deterministic form; all else has
        benchmark=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=True,
        callbacks=list(callbacks),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )

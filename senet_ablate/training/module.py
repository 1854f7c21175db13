"""The Lightning module of an ablation, for the suite's runs and for anybody's Trainer.

All randomness is keyed (see `seeding.py`), the learning rate is a function of the progress, and the checkpoint holds
weights, optimiser and curve, so a resumed training equals the uninterrupted one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection, SumMetric
from torchmetrics.classification import MulticlassAccuracy

from senet_ablate.data.loaders import Batch
from senet_ablate.models.build import build_model
from senet_ablate.models.pretrained import ends
from senet_ablate.models.sites import inserts
from senet_ablate.results.records import CurvePoint
from senet_ablate.spec.network import Gate, Position, Squeeze
from senet_ablate.spec.protocol import Recipe, RunSpec, Schedule
from senet_ablate.training.evaluation import TOP5_FROM_CLASSES
from senet_ablate.training.schedule import ProgressLR

# Lightning announces devices, ranks and itself, torch whom it ends; their processes import this file before they do so.
for _name in ("pytorch_lightning", "lightning_fabric", "torch.multiprocessing.spawn"):
    logging.getLogger(_name).setLevel(logging.ERROR)


class AblationModule(pl.LightningModule):
    """A network with attention blocks whose factors are those of Tables 10 to 16, and its training (section 6).

    Args:
        backbone: one of ours, `resnet14` to `resnet152` among them, or `timm:mobilenetv1_100`, `my_pkg.nets:make`.
        se: False leaves the block out.
        squeeze: `avg`, `max` or `none` (Tables 11 and 16).
        gate: `sigmoid`, `tanh` or `relu` (Table 12), or one of the controls `constant`, `random`, `none`.
        reduction: the ratio r of the hidden layer (Table 10), or a table of ratios by stage.
        stages: `"all"`, or stage numbers, from 2 to 5 in Table 1's networks (Table 13).
        position: `standard`, `pre`, `post`, `identity` or `inner-3x3` (Tables 14 and 15).
        num_classes: number of classes.
        in_channels: 3 for colour, 1 for grey images.
        bias: whether the two layers of the block have biases.
        residual: x + SE(x) instead of SE(x).
        block: another block instead of SE, `cbam` or `my_pkg.blocks:MyBlock`, with its `settings`.
        block_source: digest of the code of a block of your own, if it must be the one that was planned.
        resolution: side of the images in pixels, from which a block knows the side of its map.
        optimizer: `sgd` or `adamw`.
        lr: peak learning rate.
        backbone_lr: that of all layers but blocks and classifier, for a pretrained network; 0 is `lr`.
        momentum, nesterov: of SGD.
        weight_decay: on every parameter, as in the paper's Caffe.
        label_smoothing: of the training loss.
        schedule: `cosine`, `step` or `plateau`, after `warmup_epochs` of linear rise.
        milestones, factor, patience, drops: of the schedule, see `spec.protocol.Schedule`.
        epochs: epochs over which the rate falls, after which it stays; by default those of the Trainer.
        seed: seed of the initial weights.
        network: any other key of a protocol's `[network]`: `width`, `stem`, `stride_in`, `groups`, `unstrided`, ….

    Raises:
        ValueError: a factor has no such level, or the backbone cannot carry the block; in training, the Trainer has
            no end.

    Example:
        >>> module = AblationModule("resnet14", squeeze="max", reduction=8, num_classes=10, in_channels=1,
        ...                         width=16, stem="small")
        >>> module(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        backbone: str = "resnet14",
        *,
        se: bool = True,
        squeeze: Squeeze = "avg",
        gate: Gate = "sigmoid",
        reduction: int | Mapping[int, int] = 16,
        stages: Literal["all"] | Sequence[int] = "all",
        position: Position = "standard",
        num_classes: int = 10,
        in_channels: int = 3,
        bias: bool = False,
        residual: bool = False,
        block: str | None = None,
        settings: Mapping[str, Any] | None = None,
        block_source: str = "",
        resolution: int = 32,
        optimizer: Literal["sgd", "adamw"] = "sgd",
        lr: float = 0.1,
        backbone_lr: float = 0.0,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 1e-4,
        label_smoothing: float = 0.0,
        schedule: Literal["cosine", "step", "plateau"] = "cosine",
        warmup_epochs: int = 0,
        milestones: Sequence[int] = (),
        factor: float = 0.1,
        patience: int = 10,
        drops: int = 3,
        epochs: int | None = None,
        seed: int = 0,
        **network: Any,
    ) -> None:
        super().__init__()
        if optimizer not in ("sgd", "adamw"):
            raise ValueError(f"optimizer = {optimizer!r}: expected sgd or adamw")
        self.save_hyperparameters()
        self.model = build_model(
            backbone,
            se={"squeeze": squeeze, "gate": gate, "reduction": reduction, "bias": bias, "residual": residual}
            if se and block is None
            else None,
            block=block,
            settings=settings or {},
            block_source=block_source,
            stages=stages,
            position=position,
            num_classes=num_classes,
            in_channels=in_channels,
            resolution=resolution,
            seed=seed,
            **network,
        ).to(memory_format=torch.channels_last)
        self._plan = Schedule(
            kind=schedule,
            warmup_epochs=warmup_epochs,
            milestones=tuple(milestones),
            factor=factor,
            patience=patience,
            drops=drops,
        )
        self.curve: list[CurvePoint] = []
        self.val_losses: list[float] = []
        self._lr = math.nan
        self._validated = (math.nan, math.nan)
        # NaN is a result here: a diverged training has one.
        self.train_loss = MeanMetric(nan_strategy="disable")
        self.val_loss, self.val_wrong, self.val_images = (SumMetric(nan_strategy="disable") for _ in range(3))
        self.test_loss = MeanMetric(nan_strategy="disable")
        ranks = [1, 5] if num_classes >= TOP5_FROM_CLASSES else [1]
        self.test_accuracy = MetricCollection(
            {f"top{rank}": MulticlassAccuracy(num_classes, top_k=rank, average="micro") for rank in ranks},
            compute_groups=False,
        )

    @classmethod
    def of_run(cls, spec: RunSpec, *, in_channels: int, num_classes: int) -> Self:
        """The module of one run of the suite.

        Raises:
            ValueError: the network cannot carry the variant.
        """
        variant, schedule = spec.variant, spec.recipe.schedule
        return cls(
            **spec.network.model_dump(exclude_defaults=True),
            se=variant.se is not None,
            **(variant.se.model_dump() if variant.se else {}),
            block=variant.block,
            settings=variant.model_dump()["settings"],
            block_source=variant.source,
            **variant.placement.model_dump(),
            resolution=spec.data.resolution,
            num_classes=num_classes,
            in_channels=in_channels,
            **spec.recipe.model_dump(exclude={"batch_size", "schedule", "augmentation"}),
            schedule=schedule.kind,
            **schedule.model_dump(exclude={"kind"}),
            seed=spec.seed,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, in_channels, H, W)."""
        logits: Tensor = self.model(images)
        return logits

    def configure_optimizers(self) -> Any:
        """SGD with momentum, or AdamW, and the schedule, which acts at every optimiser step."""
        hparams = self.hparams
        optimizer: torch.optim.Optimizer
        if hparams["optimizer"] == "adamw":
            optimizer = torch.optim.AdamW(self._groups(), lr=hparams["lr"], weight_decay=hparams["weight_decay"])
        else:
            optimizer = torch.optim.SGD(
                self._groups(),
                lr=hparams["lr"],
                momentum=hparams["momentum"],
                nesterov=hparams["nesterov"],
                weight_decay=hparams["weight_decay"],
                # One pass over each parameter, to the same bits; Lightning cannot clip what is fused.
                fused=self.trainer.gradient_clip_val is None,
            )
        total = self.trainer.estimated_stepping_batches
        if not math.isfinite(total):
            raise ValueError("the Trainer has no end, so no learning rate can fall to it: set its max_epochs")
        steps = max(1, math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches))
        epochs = self.hparams["epochs"] or math.ceil(total / steps)
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            epochs = max(epochs, self._plan.warmup_epochs + 1, *(epoch + 1 for epoch in self._plan.milestones))
        recipe = Recipe(epochs=epochs, batch_size=2, lr=hparams["lr"], schedule=self._plan)
        scheduler = ProgressLR(optimizer, recipe, steps, self.val_losses)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _groups(self) -> list[dict[str, Any]]:
        """Parameters that share a learning rate: all of them, or what begins anew and then the pretrained layers."""
        lr, backbone_lr = self.hparams["lr"], self.hparams["backbone_lr"]
        if not backbone_lr:
            return [{"params": list(self.model.parameters())}]
        new = [each.block for each in inserts(self.model).values()]
        new.append(self.model.get_submodule(ends(self.model)[1]))
        anew = list(dict.fromkeys(weight for module in new for weight in module.parameters()))
        known = set(anew)
        learned = [weight for weight in self.model.parameters() if weight not in known]
        return [{"params": anew}, {"params": learned, "share": backbone_lr / lr}]

    def on_train_epoch_start(self) -> None:
        """Let the schedule see the last epoch's validation loss.

        The sums begin anew here and not where they were read: the processes of a run are started with copies of the
        module whose weights are their own, but the sums of its metrics lie in memory that all of them share.
        """
        self.train_loss.reset()
        self._validated = (math.nan, math.nan)  # where nothing is validated
        scheduler = self.lr_schedulers()
        assert isinstance(scheduler, ProgressLR)
        scheduler.refresh()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy with label smoothing of one batch: images (N, C, H, W), labels (N,) or shares (N, classes)."""
        images, labels = batch
        loss = F.cross_entropy(self(images), labels, label_smoothing=self.hparams["label_smoothing"])
        self.train_loss.update(loss.detach())
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Remember the rate of the step, for the curve."""
        self._lr = optimizer.param_groups[0]["lr"]

    def on_validation_start(self) -> None:
        """Give every process the running statistics of the first, which are the ones that a checkpoint holds."""
        for metric in (self.val_loss, self.val_wrong, self.val_images):
            metric.reset()  # of Lightning's sanity check, which is no epoch
        if self.trainer.world_size > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Cross-entropy, errors and images of the validation part, each summed."""
        images, labels = batch
        logits = self(images).float()
        self.val_loss.update(F.cross_entropy(logits, labels, reduction="sum"))
        self.val_wrong.update((logits.argmax(1) != labels).sum().float())
        self.val_images.update(float(len(labels)))

    def on_validation_epoch_end(self) -> None:
        """Log `val_loss` in nats and `val_top1_err` in percent, all devices together, for callbacks to monitor."""
        loss, wrong, images = (metric.compute().item() for metric in (self.val_loss, self.val_wrong, self.val_images))
        self._validated = (loss / images, 100 * wrong / images)
        self.log_dict(dict(zip(("val_loss", "val_top1_err"), self._validated, strict=True)))

    def on_train_epoch_end(self) -> None:
        """Add the epoch to the curve, all devices together, and log `train_loss` in nats."""
        val_loss, val_top1_err = self._validated
        point = CurvePoint(
            epoch=self.current_epoch + 1,
            lr=self._lr,
            train_loss=self.train_loss.compute().item(),
            val_loss=val_loss,
            val_top1_err=val_top1_err,
        )
        self.curve.append(point)
        self.val_losses.append(point.val_loss)
        self.log("train_loss", point.train_loss)

    def on_test_start(self) -> None:
        """Begin the sums anew, see `on_train_epoch_start`."""
        self.test_loss.reset()
        self.test_accuracy.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Cross-entropy and accuracy of test images."""
        images, labels = batch
        logits = self(images).float()
        self.test_loss.update(F.cross_entropy(logits, labels), weight=len(labels))
        self.test_accuracy.update(logits, labels)

    def on_test_epoch_end(self) -> None:
        """Log `test_cross_entropy` in nats, and `test_top1_err` (from 20 classes on `test_top5_err`) in percent."""
        errors = {f"test_{rank}_err": 100 * (1 - share) for rank, share in self.test_accuracy.compute().items()}
        self.log_dict({"test_cross_entropy": self.test_loss.compute(), **errors})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The curve travels with the weights, for the plateau rule reads it."""
        checkpoint["curve"] = [point.model_dump() for point in self.curve]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the curve up where it was."""
        self.curve = [CurvePoint(**point) for point in checkpoint["curve"]]
        self.val_losses[:] = [point.val_loss for point in self.curve]

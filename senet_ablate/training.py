"""One training: a Lightning module that takes a run's spec and knows nothing of tables.

Lightning stays in this room. All randomness is keyed (see `streams.py`), the learning rate is a function of the
progress, and the checkpoint holds weights, optimiser and curve, so a resumed run equals the uninterrupted one.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins import TorchCheckpointIO
from pytorch_lightning.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor

from senet_ablate import provenance
from senet_ablate.checkpoints import History, read_checkpoint, weights_bytes, write_checkpoint
from senet_ablate.complexity import count_complexity
from senet_ablate.data import LoadedData, load_data_once
from senet_ablate.errors import UserError
from senet_ablate.evaluation import diverged, evaluate
from senet_ablate.executor import DeviceKind, RunRequest
from senet_ablate.lease import Lease, Taken
from senet_ablate.loaders import EpochSampler, FileSplit, Loader
from senet_ablate.planning import check_fit
from senet_ablate.records import CurvePoint, Progress, Provenance, RunRecord, curve_csv, digests
from senet_ablate.resnet import ResNet
from senet_ablate.schedules import learning_rate
from senet_ablate.specs import Precision
from senet_ablate.speedup import speed_up
from senet_ablate.store import RunFolder
from senet_ablate.streams import initialise

# Lightning announces devices, ranks and itself; its processes import this file before they do so.
for _name in ("pytorch_lightning", "lightning_fabric"):
    logging.getLogger(_name).setLevel(logging.ERROR)

CHECKPOINT_SHARE = 0.02
"""Share of a run's time that may go into writing checkpoints; at least the first and last epoch are written."""


def resolve_precision(precision: Precision, device: DeviceKind) -> Literal["fp32", "bf16"]:
    """`auto` is bf16 autocast on devices that compute in it, else float32: the same for every arm of a machine."""
    if precision != "auto":
        return precision
    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities() if device == "cpu" else {}
        native = bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return "bf16" if native else "fp32"


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


class TrainingModule(pl.LightningModule):
    """The network of one run, its optimiser, schedule and batches."""

    def __init__(self, request: RunRequest, history: History) -> None:
        super().__init__()
        self.automatic_optimization = False  # Lightning's own way asks many more hooks at each step
        self.request, self.spec, self.history = request, request.spec, history
        facts = self.data.facts
        self.model = ResNet(self.spec.network, self.spec.variant, in_channels=facts.channels, classes=facts.classes)
        initialise(self.model, self.spec.seed)
        self.model.to(memory_format=torch.channels_last)
        self.curve: list[CurvePoint] = []
        self._loss = torch.zeros(())
        self._validation = torch.zeros(3)

    def setup(self, stage: str) -> None:
        """Called in each process of the run: keep Lightning's advice and deprecations out of the user's terminal."""
        warnings.filterwarnings("ignore", module="pytorch_lightning|torch")

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

    def train_dataloader(self) -> Loader:
        """Shuffled and augmented batches, keyed by the run's seed and the epoch."""
        split = self.data.train
        self._order = self._sampler(len(split), self.spec.seed)
        return split.loader(self._order, self.spec.recipe.augmentation, self.device, self.request.loader_workers)

    def val_dataloader(self) -> Loader:
        """The validation part in its own order."""
        split = self.data.validation
        return split.loader(self._sampler(len(split), None), None, self.device, self.request.loader_workers)

    def on_train_epoch_start(self) -> None:
        """Announce the epoch to the images' order and start its sums on the device, not to be read until its end."""
        self._order.set_epoch(self.current_epoch)
        self._loss = torch.zeros((), device=self.device)
        self._val_losses = [point.val_loss for point in self.curve]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """One step of SGD on the cross-entropy with label smoothing of one batch."""
        images, labels = batch
        loss = F.cross_entropy(self.model(images), labels, label_smoothing=self.spec.recipe.label_smoothing)
        optimizer = self.trainer.optimizers[0]
        steps = self.trainer.num_training_batches
        rate = learning_rate(self.spec.recipe, self.current_epoch + batch_idx / steps, self._val_losses)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        with torch.autocast(self.device.type, enabled=False):  # Lightning's autocast is meant for the forward alone
            self.manual_backward(loss)
            optimizer.step()
        self._loss += loss.detach()

    def on_validation_epoch_start(self) -> None:
        """Start the sums of the validation part."""
        self._validation = torch.zeros(3, device=self.device)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Sum cross-entropy, errors and images."""
        images, labels = batch
        logits = self.model(images).float()
        wrong = (logits.argmax(1) != labels).sum()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        self._validation += torch.stack([loss, wrong.to(loss.dtype), torch.full_like(loss, len(labels))])

    def on_train_epoch_end(self) -> None:
        """Add the epoch to the curve (all devices together); stop if the loss is no longer a number."""
        reduce = self.trainer.strategy.reduce
        train_loss = reduce(self._loss / self.trainer.num_training_batches, reduce_op="mean").item()
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


class EpochFiles(Checkpoint):
    """Writes progress after each epoch and a checkpoint as often as its cost allows, while the run is still ours.

    Being a `Checkpoint`, it is called after the module's own `on_train_epoch_end`.
    """

    def __init__(self, folder: RunFolder, lease: Lease | None = None) -> None:
        self.folder, self.lease = folder, lease
        self.cost_s = 0.0
        self.saved_at = -math.inf

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save at the first and last epoch, and whenever saving takes no more than its share of the time.

        Raises:
            Taken: the lease on the run was lost.
        """
        if not trainer.strategy.broadcast(_is_ours(self.lease)):  # all processes of the run end, or none
            raise Taken
        done, epochs = trainer.current_epoch + 1, trainer.max_epochs
        assert epochs is not None
        if trainer.is_global_zero:
            progress = Progress(epoch=done, epochs=epochs)
            scratch = self.folder.progress_file.with_name(".progress.json")
            scratch.write_text(progress.model_dump_json())
            scratch.replace(self.folder.progress_file)
        due = time.monotonic() - self.saved_at >= self.cost_s / CHECKPOINT_SHARE
        last = done == epochs or trainer.should_stop
        if trainer.strategy.broadcast(due or last):  # the clocks of several devices need not agree
            start = time.monotonic()
            save_checkpoint(trainer, self.folder.checkpoint_file)
            self.saved_at = time.monotonic()
            self.cost_s = self.saved_at - start


def _is_ours(lease: Lease | None) -> bool:
    return lease is None or lease.held()


def save_checkpoint(trainer: pl.Trainer, path: Path) -> None:
    """Write the trainer's state as a file that is whole or absent; the one before it is kept beside it."""
    trainer.save_checkpoint(path)


class WholeFiles(TorchCheckpointIO):
    """How Lightning writes a checkpoint here.

    Its own way goes through the system's temporary folder, which may be another disk (then the file can be cut off) and
    keeps what a killed process left.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the file and keep the one before it."""
        write_checkpoint(checkpoint, RunFolder(Path(path).parent))


def make_trainer(request: RunRequest, precision: str, callbacks: Sequence[pl.Callback]) -> pl.Trainer:
    """A silent Lightning trainer: no logger, no progress bar, no checkpoint but ours."""
    several = request.devices > 1
    backend = "nccl" if request.device == "cuda" else "gloo"
    return pl.Trainer(
        accelerator="gpu" if request.device == "cuda" else request.device,
        devices=request.devices,
        strategy=DDPStrategy(start_method="spawn", process_group_backend=backend) if several else "auto",
        # Without the first, a Slurm job would take its tasks for the processes of the run.
        plugins=[LightningEnvironment(), WholeFiles()],
        precision="bf16-mixed" if precision == "bf16" else "32-true",
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


def train_run(request: RunRequest, lease: Lease | None = None) -> RunRecord:
    """Train, test once after the last epoch, and write the run's folder; continue from its checkpoint if there is one.

    Raises:
        UserError: data or request do not fit the spec, or the run was begun in another way.
        Taken: the lease on the run was lost; another process does it, or its folder was deleted.
    """
    spec, folder = request.spec, request.folder
    commit, dirty = provenance.code_state()  # as it is now, when this code was imported
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.failure_file.unlink(missing_ok=True)
    torch.set_num_threads(request.threads)
    # fp32 means fp32, not TF32. By the older name: a newer one set here would make whoever reads the older fail.
    torch.backends.cudnn.allow_tf32 = False
    # Deterministic mode would write NaN over each new tensor before it is written, a pass over memory for nothing.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    precision = resolve_precision(spec.precision, request.device)
    data = request_data(request)
    check_fit(spec.recipe, spec.data, data.facts, request.devices)
    module, resumed_from = begin_or_resume(request, precision)
    resumed_at = len(module.curve) if resumed_from else None
    complexity = count_complexity(module.model, in_channels=data.facts.channels, resolution=spec.data.resolution)
    speed_up(module.model, module.history.levers)  # after it was counted: products leave out what meets the padding
    if not _ended(module.curve, spec.recipe.epochs):
        trainer = make_trainer(request, precision, [EpochFiles(folder, lease)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning's advice on DataLoader workers and the like
            trainer.fit(module, ckpt_path=resumed_from, weights_only=True)
        # One way for one and for several processes: what was trained is what the checkpoint holds.
        load_checkpoint(folder.checkpoint_file, module)
        if not _ended(module.curve, spec.recipe.epochs):  # by one who was stopped for long, and woke up while writing
            raise Taken

    files = {"curve.csv": curve_csv(module.curve).encode()}
    kept = {folder.weights_file.name: weights_bytes(module.model)} if request.keep_weights else {}
    metrics = None
    if not diverged(module.model, module.curve, spec.recipe, data):
        device = torch.device(request.device)
        sampler = EpochSampler(len(data.test), seed=None, batch_size=spec.recipe.batch_size)
        loader = data.test.loader(sampler, None, device, request.loader_workers)
        predictions, metrics = evaluate(module.model.to(device), loader, precision)
        files["predictions.npz"] = predictions.to_bytes()
    record = RunRecord(
        run_id=spec.run_id,
        spec=spec,
        status="ok" if metrics else "diverged",
        metrics=metrics,
        complexity=complexity,
        data_fingerprint=data.facts.fingerprint,
        n_test=data.facts.n_test,
        provenance=Provenance(
            version=provenance.package_version(),
            commit=commit,
            dirty=dirty,
            python=provenance.python_version(),
            libraries=provenance.library_versions(),
            device=torch.cuda.get_device_name() if request.device == "cuda" else request.device,
            cpu=provenance.cpu_model(),
            devices=request.devices,
            threads=request.threads,
            precision=precision,
            levers=module.history.levers,
            pipeline="streamed" if isinstance(data.train, FileSplit) else "resident",
            started=module.history.started,
            wall_s=round(module.history.wall_s, 3),
            resumed_at_epoch=resumed_at,
        ),
        sha256=digests(files),
    )
    if not _is_ours(lease):
        raise Taken
    folder.finish(record, files | kept)  # no digest of the weights: a record is whole without them
    return record


def _ended(curve: Sequence[CurvePoint], epochs: int) -> bool:
    return len(curve) == epochs or bool(curve and not math.isfinite(curve[-1].train_loss))


def begin_or_resume(request: RunRequest, precision: Literal["fp32", "bf16"]) -> tuple[TrainingModule, Path | None]:
    """The run as it begins, or as its last readable checkpoint left it, with that checkpoint.

    Raises:
        UserError: the run was begun with another precision or number of devices, which it would mix.
        OSError, MemoryError: a checkpoint cannot be read.
    """
    now = History(datetime.now(UTC).isoformat(timespec="seconds"), precision, request.devices, request.levers)
    for path in (request.folder.checkpoint_file, request.folder.previous_file):
        if not path.is_file():
            continue
        module = TrainingModule(request, now)
        try:
            load_checkpoint(path, module)
        except (OSError, MemoryError):  # cannot be read now; perhaps by the next try
            raise
        except Exception:  # whatever a file that was cut off or overwritten makes torch raise
            path.unlink()
            continue
        for what, before in module.history.manner.items():
            if before != now.manner[what]:
                raise UserError(
                    f"the run was begun with {what} = {before} and would go on with {now.manner[what]}; go on as it "
                    f"was begun, or remove {request.folder.path}"
                )
        return module, path
    return TrainingModule(request, now), None


def load_checkpoint(path: Path, module: TrainingModule) -> None:
    """Put a checkpoint's weights, curve and history into the module; never executes what it reads.

    Raises:
        OSError, MemoryError: the file cannot be read.
        Exception: the file is damaged or another run's.
    """
    checkpoint = read_checkpoint(path)
    module.load_state_dict(checkpoint["state_dict"])
    module.on_load_checkpoint(checkpoint)

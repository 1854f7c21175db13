"""One run, from its spec to its record: begin it or take it up again, train, test once, write.

Nothing here knows of tables; how a network is trained is in `training/module.py`.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NoReturn

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]
from pytorch_lightning.strategies import DDPStrategy
from torch import nn

from senet_ablate import environment
from senet_ablate.data.loaders import EpochSampler, FileSplit
from senet_ablate.data.module import ImageDataModule
from senet_ablate.errors import UserError
from senet_ablate.files import remove
from senet_ablate.models.fastconv import speed_up
from senet_ablate.results.lease import Lease, Taken
from senet_ablate.results.records import (
    CURVE_FILE,
    PREDICTIONS_FILE,
    CurvePoint,
    Provenance,
    RunRecord,
    curve_csv,
    digests,
)
from senet_ablate.spec.backbones import library
from senet_ablate.spec.cost import has_closed_form, total_cost
from senet_ablate.spec.protocol import Complexity, DataFacts, check_fit
from senet_ablate.training.checkpoint import EpochFiles, History, WholeFiles, load_checkpoint, weights_bytes
from senet_ablate.training.evaluation import diverged, evaluate, resolve_precision
from senet_ablate.training.module import AblationModule
from senet_ablate.training.request import RunRequest
from senet_ablate.training.trackers import Trackers


def train_run(request: RunRequest, lease: Lease | None = None) -> RunRecord:
    """Train, test once after the last epoch, and write the run's folder; continue from its checkpoint if there is one.

    Raises:
        UserError: data or request do not fit the spec, or the run was begun in another way.
        Taken: the lease on the run was lost; another process does it, or its folder was deleted.
    """
    spec, folder = request.spec, request.folder
    commit, dirty = environment.code_state()  # as it is now, when this code was imported
    folder.path.mkdir(parents=True, exist_ok=True)
    remove(folder.failure_file, folder.path.parent)
    torch.set_num_threads(request.threads)
    # fp32 means fp32, not TF32. By the older name: a newer one set here would make whoever reads the older fail.
    torch.backends.cudnn.allow_tf32 = False
    # Deterministic mode would write NaN over each new tensor before it is written, a pass over memory for nothing.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    precision = resolve_precision(spec.precision, request.device)
    images = run_images(request)
    data = images.images
    check_fit(spec.recipe, spec.data, data.facts, request.devices)
    now = History(datetime.now(UTC).isoformat(timespec="seconds"), precision, request.devices, request.optimisations)
    module, history, resumed_from = begin_or_resume(request, data.facts, now)
    resumed_at = len(module.curve) if resumed_from else None
    complexity = _complexity(request, module.model, data.facts)
    speed_up(module.model, history.optimisations)  # after it was counted: products leave out what meets the padding
    with closing(Trackers(request, len(module.curve))) as trackers:
        if not _ended(module.curve, spec.recipe.epochs):
            several = [EndsQuietly()] if request.devices > 1 else []
            trainer = make_trainer(request, precision, [EpochFiles(folder, history, lease, trackers), *several])
            with warnings.catch_warnings(), uninterrupted(request.devices > 1):
                warnings.simplefilter("ignore")  # Lightning's advice on DataLoader workers and the like
                trainer.fit(module, datamodule=images, ckpt_path=resumed_from, weights_only=True)
            # One way for one and for several processes: what was trained is what the checkpoint holds.
            history = load_checkpoint(folder.checkpoint_file, module, spec.run_id)
            if not _ended(module.curve, spec.recipe.epochs):  # by one stopped for long, who woke up while writing
                raise Taken

        files = {CURVE_FILE: curve_csv(module.curve).encode()}
        kept = {folder.weights_file.name: weights_bytes(module.model)} if request.keep_weights else {}
        metrics = None
        if not diverged(module.model, module.curve, spec.recipe, data):
            device = torch.device(request.device)
            sampler = EpochSampler(len(data.test), seed=None, batch_size=spec.recipe.batch_size)
            loader = data.test.loader(sampler, None, device, request.loader_workers)
            predictions, metrics = evaluate(module.model.to(device), loader, precision)
            files[PREDICTIONS_FILE] = predictions.to_bytes()
        record = RunRecord(
            run_id=spec.run_id,
            spec=spec,
            status="ok" if metrics else "diverged",
            metrics=metrics,
            complexity=complexity,
            data_fingerprint=data.facts.fingerprint,
            n_test=data.facts.n_test,
            provenance=Provenance(
                version=environment.package_version(),
                commit=commit,
                dirty=dirty,
                python=environment.python_version(),
                libraries=environment.library_versions(library(spec.network.backbone)),
                device=torch.cuda.get_device_name() if request.device == "cuda" else request.device,
                cpu=environment.cpu_model(),
                devices=request.devices,
                threads=request.threads,
                precision=precision,
                levers=history.optimisations,
                pipeline="streamed" if isinstance(data.train, FileSplit) else "resident",
                started=history.started,
                wall_s=round(history.wall_s, 3),
                resumed_at_epoch=resumed_at,
            ),
            sha256=digests(files),
        )
        if lease is not None and not lease.held():
            raise Taken
        folder.finish(record, files | kept)  # no digest of the weights: a record is whole without them
        trackers.end(record)
    return record


class EndsQuietly(pl.Callback):
    """Lets one of several processes of a run end at once and without a word when it is told to.

    By Ctrl-C, by its parent's death, or by the end of another one, which its parent tells. Files are whole or absent,
    so nothing is to be tidied up; Python's own answer is a traceback, Lightning's a message to the others.
    """

    def __reduce__(self) -> tuple[Callable[[int], EndsQuietly], tuple[int]]:
        return _where_it_arrives, (os.getpid(),)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning has put its own handlers there meanwhile."""
        if multiprocessing.parent_process() is not None and trainer.world_size > 1:
            _end_by_signals()


def _where_it_arrives(parent: int) -> EndsQuietly:
    """Called in each process of a run as soon as it has imported what it needs."""
    if parent != os.getpid():
        _end_by_signals()
        # torch asks for a signal at its parent's death, but later, and not whether the parent is there still.
        environment.die_with_parent(parent)
    return EndsQuietly()


def _end_by_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: os._exit(128 + number))
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def uninterrupted(several: bool) -> Iterator[None]:
    """Start processes in here that keep Ctrl-C until they can answer it: importing, it would be a traceback."""
    if not several or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    main = threading.current_thread() is threading.main_thread()
    default = signal.signal(signal.SIGTERM, lambda number, frame: _end_with_processes()) if main else None
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if main:
            signal.signal(signal.SIGTERM, default)


def _end_with_processes() -> NoReturn:
    """End this worker and the processes that it has started, also those that are still waiting for what they shall do.

    Without their parent these would tell of a pipe that ended.
    """
    for place in Path("/proc/self/task").glob("*/children"):
        for pid in place.read_text(encoding="ascii").split():
            with suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(int(pid), signal.SIGKILL)
    os._exit(128 + signal.SIGTERM)


def _ended(curve: Sequence[CurvePoint], epochs: int) -> bool:
    return len(curve) == epochs or bool(curve and not math.isfinite(curve[-1].train_loss))


def run_images(request: RunRequest) -> ImageDataModule:
    """The run's images in batches, held to those that the study was begun with."""
    recipe = request.spec.recipe
    return ImageDataModule(
        request.spec.data,
        path=request.data_path,
        batch_size=recipe.batch_size,
        augmentation=recipe.augmentation,
        seed=request.spec.seed,
        workers=request.loader_workers,
        fingerprint=request.data_fingerprint,
    )


def _complexity(request: RunRequest, model: nn.Module, facts: DataFacts) -> Complexity:
    """Size and cost of the network, by formula where there is one, else as it is counted on the model itself."""
    spec = request.spec
    if has_closed_form(spec.network, spec.variant):
        task = {"in_channels": facts.channels, "classes": facts.classes, "resolution": spec.data.resolution}
        return total_cost(spec.network, spec.variant, **task)
    from senet_ablate.models.survey import count_complexity  # seconds of imports

    return count_complexity(model, in_channels=facts.channels, resolution=spec.data.resolution)


def begin_or_resume(request: RunRequest, facts: DataFacts, now: History) -> tuple[AblationModule, History, Path | None]:
    """The run as it begins, or as its last readable checkpoint left it, with that checkpoint.

    Raises:
        UserError: the run was begun with another precision or number of devices, which it would mix.
        OSError, MemoryError: a checkpoint cannot be read.
    """

    def new() -> AblationModule:
        return AblationModule.of_run(request.spec, in_channels=facts.channels, num_classes=facts.classes)

    for path in (request.folder.checkpoint_file, request.folder.previous_file):
        if not path.exists():
            continue
        module = new()
        try:
            history = load_checkpoint(path, module, request.spec.run_id)
        except (OSError, MemoryError):  # cannot be read now; perhaps by the next try
            raise
        except Exception:  # whatever a file that was cut off or overwritten makes torch raise
            remove(path, request.folder.path.parent)
            continue
        for what, before in history.manner.items():
            if before != now.manner[what]:
                raise UserError(
                    f"the run was begun with {what} = {before} and would go on with {now.manner[what]}; go on as it "
                    f"was begun, or remove {request.folder.path}"
                )
        return module, history, path
    return new(), now, None


def make_trainer(
    request: RunRequest, precision: Literal["fp32", "bf16"], callbacks: Sequence[pl.Callback]
) -> pl.Trainer:
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

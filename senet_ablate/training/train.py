"""One run, from its spec to its record: begin it or take it up again, train, test once, write.

Nothing here knows of tables; how a network is trained is in `training/module.py`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import torch

from senet_ablate import environment
from senet_ablate.data.loaders import EpochSampler, FileSplit
from senet_ablate.errors import UserError
from senet_ablate.models.fastconv import speed_up
from senet_ablate.models.survey import count_complexity
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
from senet_ablate.spec.protocol import check_fit
from senet_ablate.training.checkpoint import EpochFiles, History, read_checkpoint, weights_bytes
from senet_ablate.training.evaluation import diverged, evaluate, resolve_precision
from senet_ablate.training.module import TrainingModule, make_trainer, request_data
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
    with Trackers(request, len(module.curve)) as trackers:
        if not _ended(module.curve, spec.recipe.epochs):
            trainer = make_trainer(request, [EpochFiles(folder, lease, trackers)])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Lightning's advice on DataLoader workers and the like
                trainer.fit(module, ckpt_path=resumed_from, weights_only=True)
            # One way for one and for several processes: what was trained is what the checkpoint holds.
            load_checkpoint(folder.checkpoint_file, module)
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
                libraries=environment.library_versions(),
                device=torch.cuda.get_device_name() if request.device == "cuda" else request.device,
                cpu=environment.cpu_model(),
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
        if lease is not None and not lease.held():
            raise Taken
        folder.finish(record, files | kept)  # no digest of the weights: a record is whole without them
        trackers.end(record)
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

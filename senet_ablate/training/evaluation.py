"""What a finished training is worth: whether it diverged, and how it does on the test images, read once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from senet_ablate.data.datasets import LoadedData
from senet_ablate.data.loaders import Loader
from senet_ablate.models.hooks import switched_off
from senet_ablate.models.sites import inserts
from senet_ablate.results.gates import IDENTITY, MEAN_GATE, BlockExcitation
from senet_ablate.results.records import CurvePoint, Metrics, Predictions
from senet_ablate.spec.protocol import DeviceKind, Precision, Recipe

TOP5_FROM_CLASSES = 20
"""With fewer classes top-5 error says little and is not recorded."""


def evaluate(model: nn.Module, loader: Loader, precision: str) -> tuple[Predictions, Metrics]:
    """Read the test set once: outcome of each image in fixed order, errors in percent, cross-entropy in nats."""
    wrong, wrong5, losses = [], [], []
    model.eval()
    with torch.inference_mode():
        for images, labels in loader:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
                logits = model(images)
            logits = logits.float()
            losses.append(F.cross_entropy(logits, labels, reduction="none").cpu())
            wrong.append((logits.argmax(1) != labels).cpu())
            if logits.shape[1] >= TOP5_FROM_CLASSES:
                wrong5.append((logits.topk(5).indices != labels[:, None]).all(1).cpu())
    predictions = Predictions(
        wrong=torch.cat(wrong).numpy(),
        cross_entropy=torch.cat(losses).numpy(),
        wrong_top5=torch.cat(wrong5).numpy() if wrong5 else None,
    )
    metrics = Metrics(
        top1_err=100 * float(predictions.wrong.mean()),
        top5_err=100 * float(predictions.wrong_top5.mean()) if predictions.wrong_top5 is not None else None,
        cross_entropy=float(predictions.cross_entropy.astype(np.float64).mean()),
    )
    return predictions, metrics


def diverged(model: nn.Module, curve: Sequence[CurvePoint], recipe: Recipe, data: LoadedData) -> bool:
    """Whether training failed, judged by training data alone: no finite loss or weights, or no better than chance.

    Chance is the loss of always predicting the frequencies of the classes. It is the same where images are mixed: the
    loss is linear in the labels, and mixing leaves their mean as it is.
    """
    classes = data.facts.classes
    share = torch.bincount(data.train.labels, minlength=classes).double() / len(data.train)
    smoothed = (1 - recipe.label_smoothing) * share + recipe.label_smoothing / classes
    chance = -(smoothed * share.log()).sum().item()
    finite = all(bool(value.isfinite().all()) for value in model.state_dict().values())
    return not (finite and curve[-1].train_loss <= chance)


def prune_table(model: nn.Module, loader: Loader, blocks: Collection[BlockExcitation]) -> pd.DataFrame:
    """Error with all SE blocks and with those of each stage, and of all, switched off in both ways.

    Args:
        model: the trained network.
        loader: labelled images, read once for each line.
        blocks: what its SE blocks did on images, for the mean gate.

    Returns:
        Columns: off (`nothing`, `stage 2`, …, `all`), way, blocks and params (that are off), images, top1_err in
        percent, change in points, broken (images that turned wrong) and mended (that turned right).
    """
    stages = sorted({block.stage for block in blocks})
    groups = {f"stage {stage}": [block.name for block in blocks if block.stage == stage] for stage in stages}
    if len(groups) > 1:
        groups["all"] = [block.name for block in blocks]
    gates = {block.name: block.mean for block in blocks}
    params = {
        name: sum(parameter.numel() for parameter in found.block.parameters()) for name, found in inserts(model).items()
    }
    before = evaluate(model, loader, "fp32")[0].wrong

    def line(off: str, way: str, names: Collection[str], wrong: np.ndarray) -> dict[str, object]:
        return {
            "off": off,
            "way": way,
            "blocks": len(names),
            "params": sum(params[name] for name in names),
            "images": len(wrong),
            "top1_err": 100 * float(wrong.mean()),
            "change": 100 * float(wrong.mean() - before.mean()),
            "broken": int((wrong & ~before).sum()),
            "mended": int((before & ~wrong).sum()),
        }

    lines = [line("nothing", "", [], before)]
    for off, names in groups.items():
        for way, fixed in ((IDENTITY, None), (MEAN_GATE, gates)):
            with switched_off(model, names, fixed):
                wrong = evaluate(model, loader, "fp32")[0].wrong
            lines.append(line(off, way, names, wrong))
    return pd.DataFrame(lines)


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

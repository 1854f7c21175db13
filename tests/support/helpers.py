"""What the tests need: a small protocol, invented records, image files, torchvision's sets filled with noise."""

from __future__ import annotations

import hashlib
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from senet_ablate.analysis.study import assess
from senet_ablate.data.datasets import LoadedData
from senet_ablate.report.tables import Table, build_table
from senet_ablate.results.records import CurvePoint, Metrics, Predictions, Provenance, RunRecord, curve_csv, digests
from senet_ablate.results.store import RunFolder, Study
from senet_ablate.spec.ablation import Ablation, PaperFigures, Row
from senet_ablate.spec.network import Network, SEConfig, Variant
from senet_ablate.spec.protocol import Complexity, DataConfig, DataFacts, Protocol, Recipe
from senet_ablate.training.request import RunRequest

NETWORK = Network(backbone="resnet14", width=16, stem="small")
PROTOCOL = Protocol(
    name="tiny",
    description="for tests",
    seeds=3,
    network=NETWORK,
    data=DataConfig(dataset="digits", resolution=8),
    recipe=Recipe(epochs=2, batch_size=4, lr=0.1),
)
FACTS = DataFacts(
    fingerprint="f00d", channels=1, class_names=tuple("0123456789"), n_train=900, n_validation=100, n_test=200
)
SE = Variant(se=SEConfig())
PLAIN = Variant()

PREDICTIONS = Predictions(
    wrong=np.array([True, False, False, True]),
    cross_entropy=np.array([2.0, 0.25, 0.5, 3.0]),
    wrong_top5=None,
)
CURVE = [
    CurvePoint(epoch=1, lr=0.1, train_loss=1 / 3, val_loss=2.5, val_top1_err=50.0),
    CurvePoint(epoch=2, lr=0.05, train_loss=0.1, val_loss=2e-17, val_top1_err=100 / 3),
]


def make_provenance(**changes: Any) -> Provenance:
    """How an invented run came to be."""
    usual: dict[str, Any] = {
        "version": "0",
        "commit": None,
        "dirty": None,
        "python": "3.11",
        "libraries": {"torch": "2.6"},
        "device": "cpu",
        "cpu": "A processor",
        "devices": 1,
        "threads": 1,
        "precision": "fp32",
        "pipeline": "resident",
        "started": "2020-01-01T00:00:00+00:00",
        "wall_s": 1.0,
        "resumed_at_epoch": None,
    }
    return Provenance(**(usual | changes))


def make_record(
    variant: Variant = SE,
    seed: int = 0,
    top1_err: float | None = 10.0,
    *,
    top5_err: float | None = None,
    protocol: Protocol = PROTOCOL,
    fingerprint: str = FACTS.fingerprint,
    sha256: dict[str, str] | None = None,
    **provenance: Any,
) -> RunRecord:
    """An invented outcome; `top1_err=None` is a run that diverged."""
    spec = protocol.run_spec(variant, seed)
    return RunRecord(
        run_id=spec.run_id,
        spec=spec,
        status="diverged" if top1_err is None else "ok",
        metrics=None if top1_err is None else Metrics(top1_err=top1_err, top5_err=top5_err, cross_entropy=0.5),
        complexity=Complexity(params=1, params_with_bn_stats=2, macs=3),
        data_fingerprint=fingerprint,
        n_test=FACTS.n_test,
        provenance=make_provenance(**provenance),
        sha256=sha256 or {},
    )


def make_predictions(record: RunRecord) -> Predictions:
    """Outcomes of 200 images that have exactly the record's errors; other runs miss other images."""
    rng = np.random.default_rng([sum(map(ord, record.spec.variant.slug)), record.spec.seed])
    if record.metrics is None:
        return PREDICTIONS

    def wrong(err: float) -> np.ndarray:
        bits = np.arange(record.n_test) < round(err / 100 * record.n_test)
        assert 100 * bits.mean() == pytest.approx(err), f"{err} % of {record.n_test} images is no whole number"
        return rng.permutation(bits)

    top5 = record.metrics.top5_err
    return Predictions(wrong(record.metrics.top1_err), rng.random(record.n_test), None if top5 is None else wrong(top5))


def request(root: Path, seed: int) -> RunRequest:
    """A run of the network without SE, whose folder is there."""
    spec = PROTOCOL.run_spec(PLAIN, seed)
    folder = RunFolder(root / spec.run_id)
    folder.path.mkdir(exist_ok=True)
    return RunRequest(spec=spec, folder=folder)


def write_record(study: Study, record: RunRecord) -> Path:
    """Put a record where its run belongs, with its files; returns the run's folder."""
    files = {"curve.csv": curve_csv(CURVE).encode(), "predictions.npz": make_predictions(record).to_bytes()}
    folder = study.run(record.run_id)
    folder.finish(record.model_copy(update={"sha256": digests(files)}), files)
    return folder.path


def random_image(seed: int, width: int = 8, height: int = 8, mode: str = "RGB") -> Image.Image:
    """Noise; equal for equal seeds."""
    channels = len(mode)
    shape = (height, width) if channels == 1 else (height, width, channels)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def image_folder(
    root: Path,
    classes: tuple[str, ...] = ("cat", "dog"),
    *,
    test: str = "test",
    per_class: tuple[int, int] = (4, 2),
    side: int = 8,
    suffix: str = "png",
) -> Path:
    """Write `root`/train/<class>/0.png, … and the same for the test part; returns `root`."""
    seed = 0
    for part, count in (("train", per_class[0]), (test, per_class[1])):
        for name in classes:
            place = root / part / name
            place.mkdir(parents=True)
            for number in range(count):
                random_image(seed, side, side).save(place / f"{number}.{suffix}")
                seed += 1
    return root


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def dump(path: Path, content: dict[str, Any]) -> list[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, 2))
    return [path.name, md5(path)]


def fake_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, classes: int) -> dict[str, np.ndarray]:
    """CIFAR's files with noise: 3 training and 1 test image per class; as (N, 3, 32, 32) and labels."""
    build = torchvision.datasets.CIFAR10 if classes == 10 else torchvision.datasets.CIFAR100
    place = root / build.base_folder
    labels = np.tile(np.arange(classes), 3)
    train, test = noise(1, 3 * classes, 3, 32, 32), noise(2, classes, 3, 32, 32)
    key = "labels" if classes == 10 else "fine_labels"
    names = [f"data_batch_{number}" for number in range(1, 6)] if classes == 10 else ["train"]
    listed = []
    for name, rows in zip(names, np.array_split(np.arange(3 * classes), len(names)), strict=True):
        content = {"data": train[rows].reshape(len(rows), -1), key: labels[rows].tolist()}
        listed.append(dump(place / name, content))
    test_name, meta_name, meta_key = (
        ("test_batch", "batches.meta", "label_names") if classes == 10 else ("test", "meta", "fine_label_names")
    )
    tested = dump(place / test_name, {"data": test.reshape(classes, -1), key: list(range(classes))})
    meta = dump(place / meta_name, {meta_key: [f"class {number}" for number in range(classes)]})
    monkeypatch.setattr(build, "train_list", listed)
    monkeypatch.setattr(build, "test_list", [tested])
    monkeypatch.setattr(build, "meta", {"filename": meta[0], "key": meta_key, "md5": meta[1]})
    return {"train": train, "train_labels": labels, "test": test, "test_labels": np.arange(classes)}


def fake_fashion(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Fashion-MNIST's unpacked files with noise, likewise; as (N, 1, 28, 28) and labels."""
    place = root / "FashionMNIST" / "raw"
    place.mkdir(parents=True)
    labels = np.tile(np.arange(10), 3)
    train, test = noise(3, 30, 1, 28, 28), noise(4, 10, 1, 28, 28)
    for part, images, numbers in (("train", train, labels), ("t10k", test, np.arange(10))):
        header = b"".join(size.to_bytes(4, "big") for size in (0x803, len(images), 28, 28))
        (place / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = b"".join(size.to_bytes(4, "big") for size in (0x801, len(numbers)))
        (place / f"{part}-labels-idx1-ubyte").write_bytes(header + numbers.astype(np.uint8).tobytes())
    return {"train": train, "train_labels": labels, "test": test, "test_labels": np.arange(10)}


FAKES: dict[str, Callable[[Path, pytest.MonkeyPatch], dict[str, np.ndarray]]] = {
    "cifar10": lambda root, monkeypatch: fake_cifar(root, monkeypatch, 10),
    "cifar100": lambda root, monkeypatch: fake_cifar(root, monkeypatch, 100),
    "fashion-mnist": fake_fashion,
}


R4, R16 = Variant(se=SEConfig(reduction=4)), SE
PAPER = {
    "r4": PaperFigures(top1_err=22.25, top5_err=6.09, params_m=35.7),
    "r16": PaperFigures(top1_err=22.28, top5_err=6.03, params_m=28.1, gflops=3.87),
    "plain": PaperFigures(top1_err=23.30, top5_err=6.55),
}
ABLATION = Ablation(
    table=10,
    slug="ratio",
    title="Reduction ratio",
    question="Which ratio?",
    factor="se.reduction",
    reference="r16",
    source="a paper",
    rows=tuple(
        Row(id=name, label=label, se=variant.se or False, paper=PAPER[name])
        for name, label, variant in (("r4", "r_4, 25%", R4), ("r16", "r = 16", R16), ("plain", "no SE", PLAIN))
    ),
)


def table(study: Study) -> Table:
    return build_table(ABLATION, assess([ABLATION], study))


def line(study: Study, row: str) -> dict[str, Any]:
    """One row of the frame, missing numbers as None."""
    cells = table(study).frame.set_index("row").loc[row].to_dict()
    return {name: None if isinstance(cell, float) and math.isnan(cell) else cell for name, cell in cells.items()}


def all_pixels(data: LoadedData) -> list[bytes]:
    images = torch.cat([data.train.images, data.validation.images, data.test.images])
    return sorted(image.numpy().tobytes() for image in images)


def spoil_header(path: Path) -> None:
    path.write_bytes(b"no image at all")


def markdown_cells(text: str) -> list[list[str]]:
    lines = [text_line for text_line in text.splitlines() if text_line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", text_line)[1:-1]] for text_line in lines]


@torch.no_grad()
def scrambled(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give biases, normalisations and their statistics values at which nothing is hidden by a 0 or a 1."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias, module.running_mean):
                tensor.normal_(0, 0.3, generator=generator)
        elif isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            module.bias.normal_(0, 0.5, generator=generator)
    return model


def layout(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}

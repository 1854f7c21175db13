"""The data sets: scikit-learn's digits (embedded), torchvision's, and any folder of images.

A data set becomes three splits and the facts about them. The validation part is drawn from train per class with a
fixed seed, the same for every run, so that verdicts hold for one split; the test part is the data set's own.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor

from senet_ablate.data.folders import Listing, Part, check_files, decode, describe_files, list_folder
from senet_ablate.data.layout import OTHER
from senet_ablate.data.loaders import FileSplit, ResidentSplit, Split
from senet_ablate.data.reading import Mark
from senet_ablate.data.transforms import Normalisation, evaluation_view
from senet_ablate.environment import cache_dir
from senet_ablate.errors import UserError
from senet_ablate.seeding import generator
from senet_ablate.spec.protocol import DataConfig, DataFacts

RESIDENT_LIMIT = 4 * 2**30
"""Bytes of decoded images up to which a folder is held in memory; beyond, it is streamed."""

DIGITS_TRAIN = 1029
"""The first 1,029 digits train, the last 768 test: the file runs writer by writer, and a writer begins at 1,029."""

DOWNLOADS = Path("data")
"""Where torchvision's sets are, and are downloaded to, unless a call says otherwise."""


@dataclass(frozen=True)
class LoadedData:
    """Three splits, what is known of them, notices for the user, and all skipped files with the reason."""

    facts: DataFacts
    train: Split
    validation: Split
    test: Split
    notices: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


Announce = Callable[[str], None]
Load = Callable[[DataConfig, Path | None, bool, Announce], LoadedData]


def load_data(
    config: DataConfig,
    path: Path | None,
    *,
    stream: bool = False,
    announce: Announce = lambda text: None,
) -> LoadedData:
    """Load the data set that `config` names.

    Args:
        config: data set, resolution, share of validation.
        path: for `folder`, the folder; for torchvision's sets, where they are or shall be downloaded (`data/` by
            default); the embedded digits need none.
        stream: read a folder's images from their files even if they would fit into memory.
        announce: told what takes long, such as decoding.

    Raises:
        UserError: the data is not there, cannot be read or does not fit the protocol.
    """
    return DATASETS[config.dataset](config, path, stream, announce)


@functools.lru_cache(maxsize=2)
def load_data_once(config: DataConfig, path: Path | None, stream: bool) -> LoadedData:
    """`load_data`, kept for the next run of the same process."""
    return load_data(config, path, stream=stream)


def validation_indices(labels: Tensor, share: float, names: Sequence[str] = ()) -> tuple[Tensor, Tensor]:
    """Divide the training images into (train, validation) indices, `share` of each class, at least one image.

    Raises:
        UserError: a class has a single image, which cannot be in both.
    """
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        if len(members) < 2:
            name = f"{names[label]!r}" if names else f"number {label}"
            raise UserError(
                f"class {name} has a single training image; train and validation need one each: add images of it, or "
                "remove the class"
            )
        count = max(1, round(share * len(members)))
        chosen = torch.randperm(len(members), generator=generator(0, "split", label))[:count]
        held[members[chosen]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def _divided(
    whole: Split, test: Split, kept: Tensor, held: Tensor, channels: int, names: tuple[str, ...], fingerprint: str
) -> LoadedData:
    """The images that train, those `held` for validation, and the test images, with the facts."""
    facts = DataFacts(
        fingerprint=fingerprint,
        channels=channels,
        class_names=names,
        n_train=len(kept),
        n_validation=len(held),
        n_test=len(test.labels),
    )
    return LoadedData(facts, whole.take(kept), whole.take(held), test)


def _resident(
    config: DataConfig, train: Part, test: Part, class_names: tuple[str, ...], fingerprint: str
) -> LoadedData:
    """Split decoded images; mean and deviation come from the part that trains."""
    kept, held = validation_indices(train.labels, config.validation, class_names)
    # Exact and in one pass, without a copy of all images: mean and deviation of uint8 follow from the histogram.
    channels = train.images.shape[1]
    counts = torch.zeros(channels, 256, dtype=torch.int64)
    for rows in kept.split(1024):
        for count, channel in zip(counts, train.images[rows].transpose(0, 1), strict=True):
            count += torch.bincount(channel.flatten(), minlength=256)
    level = torch.arange(256, dtype=torch.float64) / 255
    share = counts.double() / counts.sum(1, keepdim=True)
    mean = share @ level
    std = (share @ level.square() - mean.square()).sqrt()
    if not bool((std > 0).all()):
        raise UserError(f"{config.dataset}: all training pixels of a channel are equal; these are not images")
    normalisation = Normalisation(tuple(mean.tolist()), tuple(std.tolist()))
    whole, tested = (ResidentSplit.whole(part.images, part.labels, normalisation) for part in (train, test))
    return _divided(whole, tested, kept, held, channels, class_names, fingerprint)


def _at_resolution(part: Part, config: DataConfig) -> Part:
    """Images of one size as the protocol wants them: shrunk if it asks for fewer pixels."""
    side = min(part.images.shape[2:])
    if config.short_side > side:
        what = "resize" if config.resize else "resolution"
        raise UserError(
            f"data.{what} = {config.short_side}, but {config.dataset} has images of {side}x{side} pixels; set "
            f"data.{what} = {side}, or less to shrink them"
        )
    if config.short_side == config.resolution == side:
        return part
    view = evaluation_view(config)
    return Part(torch.cat([view(some) for some in part.images.split(1024)]), part.labels)


def _pixel_fingerprint(*parts: Part) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(repr(tuple(part.images.shape)).encode())
        digest.update(part.images.contiguous().numpy().data)
        digest.update(part.labels.numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def _digits(config: DataConfig, path: Path | None, stream: bool, announce: Announce) -> LoadedData:
    """Handwritten digits, 8x8 pixels of 17 grey levels, from inside scikit-learn."""
    from sklearn.datasets import load_digits  # a second to import, needed by this data set alone

    if path is not None:
        raise UserError(f"--data {path}: the digits are embedded and take no path; choose another --protocol")
    bunch = load_digits()
    images = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    parts = Part(images[:DIGITS_TRAIN], labels[:DIGITS_TRAIN]), Part(images[DIGITS_TRAIN:], labels[DIGITS_TRAIN:])
    train, test = (_at_resolution(part, config) for part in parts)
    return _resident(config, train, test, tuple(map(str, bunch.target_names)), _pixel_fingerprint(*parts))


def _torchvision(build: type[torchvision.datasets.VisionDataset], sources: tuple[str, ...]) -> Load:
    """A loader of a torchvision data set that fits into memory, downloaded on first use."""

    def load(config: DataConfig, path: Path | None, stream: bool, announce: Announce) -> LoadedData:
        root = path or DOWNLOADS
        parts = []
        for train_part in (True, False):
            try:
                dataset = build(root=root, train=train_part)
            except Exception:  # RuntimeError is torchvision's word for "not there, or not whole"; else it is garbled
                announce(f"downloading {config.dataset} to {root}")
                try:
                    dataset = build(root=root, train=train_part, download=True)
                except Exception as error:  # whatever urllib, the archive or the disk raise: the way out is the same
                    raise _no_download(root, config, sources, error) from None
            pixels = torch.as_tensor(dataset.data)  # (N, H, W) or (N, H, W, C)
            images = pixels.unsqueeze(1) if pixels.dim() == 3 else pixels.permute(0, 3, 1, 2).contiguous()
            labels = torch.as_tensor(dataset.targets, dtype=torch.int64)
            if len(labels) != len(images) or not set(labels.unique().tolist()) <= set(range(len(dataset.classes))):
                raise UserError(f"{config.dataset} in {root}: labels that do not fit the images; fetch the files anew")
            parts.append(Part(images, labels))
        train, test = (_at_resolution(part, config) for part in parts)
        return _resident(config, train, test, tuple(dataset.classes), _pixel_fingerprint(*parts))

    return load


def _no_download(root: Path, config: DataConfig, sources: tuple[str, ...], error: Exception) -> UserError:
    files = "\n  ".join(sources)
    place = root / "FashionMNIST" / "raw" if config.dataset == "fashion-mnist" else root
    return UserError(
        f"{config.dataset} is not in {root} and cannot be downloaded ({error}).\nBy hand: fetch on a machine with "
        f"internet access\n  {files}\nput this into {place} and run the same command again (another place: --data PATH)"
    )


def _folder(config: DataConfig, path: Path | None, stream: bool, announce: Announce) -> LoadedData:
    """Any images in class folders: decoded once if they fit into memory, else streamed."""
    if path is None:
        raise UserError('data.dataset = "folder": say which folder with --data PATH (make: DATA=PATH)')
    folder = list_folder(path, _splits(config, path))
    names = folder.class_names
    decoded_size = (len(folder.train.paths) + len(folder.test.paths)) * 3 * config.resolution**2
    parts: tuple[Listing | Part, ...]
    if stream or decoded_size > RESIDENT_LIMIT:
        used, fingerprint = check_files(folder, cache_dir(), announce)
        parts = (used.train, used.test)
        whole, tested = (FileSplit(part.paths, torch.tensor(part.labels), config) for part in (used.train, used.test))
        kept, held = validation_indices(whole.labels, config.validation, names)
        loaded = _divided(whole, tested, kept, held, 3, names, fingerprint)
        repeated = used.repeated
    else:
        train, test = parts = decode(folder, config, cache_dir(), announce)
        loaded = _resident(config, train, test, names, _pixel_fingerprint(train, test))
        repeated = _repeated(train.images, test.images)
    skipped = tuple(sorted((text for part in parts for text in part.skipped), key=lambda text: text.endswith(OTHER)))
    marks: dict[str, int] = {mark: sum(part.marks.get(mark, 0) for part in parts) for mark in MARKED}
    counts = [tuple(np.bincount(np.asarray(part.labels), minlength=len(names)).tolist()) for part in parts]
    found = {"skipped": len(skipped), "parts": folder.parts, "repeated": repeated, **marks}
    facts = loaded.facts.model_copy(update={**found, "train_counts": counts[0], "test_counts": counts[1]})
    notices = [
        *folder.notices,
        *describe_files("skipped {} files", skipped),
        *describe_files("{} warnings of Pillow", [text for part in parts for text in part.warned]),
        *(f"{marks[mark]} {words}" for mark, words in MARKED.items() if marks[mark]),
    ]
    return replace(loaded, facts=facts, notices=tuple(notices), skipped=skipped)


MARKED: dict[Mark, str] = {
    "grey": "grey images were given three equal channels",
    "rotated": "images were turned upright, as EXIF says",
    "transparent": "images with transparent pixels were put on white",
    "rescaled": "images of 16 bits use fewer, and were scaled by their own range",
}
"""What is said of images that were changed while they were read."""


def _splits(config: DataConfig, root: Path) -> Path | None:
    """The list of files that the protocol names, seen from the working directory or from the folder."""
    if not config.splits:
        return None
    places = (Path(config.splits), root / config.splits)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UserError(
            f"data.splits = {config.splits!r}: there is no such file in {Path.cwd()} or {root}; call from its folder, "
            "or write it anew with `senet-ablate init --data FOLDER --split 0.2`"
        )
    return found


def _repeated(train: Tensor, test: Tensor) -> int:
    """How many test images are equal to a training image, pixel by pixel; both uint8 (N, C, H, W)."""

    def digest(image: np.ndarray) -> bytes:
        return hashlib.blake2b(image.tobytes(), digest_size=16).digest()

    seen = set(map(digest, train.numpy()))
    return sum(digest(image) in seen for image in test.numpy())


def image_root(config: DataConfig, path: Path | None) -> Path | None:
    """Where the images are, for a process that may have another working directory; None for the embedded digits."""
    if path is None and config.dataset not in ("digits", "folder"):
        path = DOWNLOADS
    return path.resolve() if path else None


_FASHION = torchvision.datasets.FashionMNIST

DATASETS: dict[str, Load] = {
    "digits": _digits,
    "cifar10": _torchvision(torchvision.datasets.CIFAR10, (torchvision.datasets.CIFAR10.url,)),
    "cifar100": _torchvision(torchvision.datasets.CIFAR100, (torchvision.datasets.CIFAR100.url,)),
    "fashion-mnist": _torchvision(_FASHION, tuple(_FASHION.mirrors[0] + name for name, _ in _FASHION.resources)),
    "folder": _folder,
}

"""Batches for the training device: small data sets live there decoded, large folders stream from their files.

A split knows how to make its own loader; both kinds of loader yield `(images, labels)` on the device, images
normalised float32 (N, C, H, W) in channels-last memory, labels int64 (N,). Every random draw is keyed by seed, purpose
and epoch, and an image's view by its own index, so it does not depend on batch, process or what ran before.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol as Interface

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from senet_ablate.errors import UserError
from senet_ablate.seeding import generator, stream_seed
from senet_ablate.spec.protocol import Augmentation, DataConfig

Batch = tuple[Tensor, Tensor]

GATHERED_BYTES = 1 << 22
"""Bytes of pixels, in whole batches, that are gathered and augmented at once: few calls, and little to hold."""

EVALUATION_BATCHES = 2
"""Batches of training that make one of evaluation: fewer calls, and still less memory than a training step takes."""

LONGEST = 100
"""Times its short side that an image may be long: resized to 256, a line of 60,000 pixels would become 12 GB."""


class EpochSampler(Sampler[tuple[int, int]]):
    """The order of one epoch's images, the same for every arm of a seed and on every number of devices.

    Args:
        size: number of images.
        seed: seed of the order; `None` keeps the images in their own order and all of them (evaluation).
        batch_size: total over all devices; training drops the rest that fills no batch.
        rank, world: this process and how many share each batch.

    Yields:
        (epoch, index) pairs. Training calls `set_epoch` before each epoch.
    """

    def __init__(self, size: int, *, seed: int | None, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.size, self.seed, self.batch_size, self.rank, self.world = size, seed, batch_size, rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of this epoch from now on."""
        self.epoch = epoch

    @property
    def share(self) -> int:
        """Images of each batch that fall to this process; evaluation, which keeps nothing for gradients, takes more."""
        share = self.batch_size // self.world
        return share if self.seed is not None else EVALUATION_BATCHES * share

    def indices(self) -> Tensor:
        """Indices of this process's images in this epoch, int64."""
        if self.seed is None:
            return torch.arange(self.size)[self.rank :: self.world]
        order = torch.randperm(self.size, generator=generator(self.seed, "order", self.epoch))
        whole = self.size - self.size % self.batch_size
        return order[:whole][self.rank :: self.world]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in self.indices().tolist())

    def __len__(self) -> int:
        images = self.size if self.seed is None else self.size - self.size % self.batch_size
        return len(range(self.rank, images, self.world))


class Loader(Interface):
    """What training needs of a loader. Both draw their order when the first batch is asked for, not before."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __len__(self) -> int: ...


class Split(Interface):
    """Images of train, validation or test, wherever they live."""

    @property
    def labels(self) -> Tensor:
        """Class numbers, int64 (N,)."""

    def __len__(self) -> int: ...

    def take(self, indices: Tensor) -> Split:
        """The images with these indices, in this order."""

    def loader(
        self, sampler: EpochSampler, augmentation: Augmentation | None, device: torch.device, workers: int
    ) -> Loader:
        """Batches of `sampler`'s images on `device`; `augmentation` only in training."""


@dataclass(frozen=True)
class Normalisation:
    """Per-channel mean and standard deviation of pixels scaled to 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 (N, C, H, W) to float32 of mean 0 and deviation 1, channels last."""
        scale = torch.tensor([1 / (255 * std) for std in self.std], device=pixels.device).view(1, -1, 1, 1)
        shift = torch.tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)], device=pixels.device)
        x = pixels.to(torch.float32, memory_format=torch.channels_last)
        return torch.addcmul(shift.view(1, -1, 1, 1), x, scale)


IMAGENET_NORMALISATION = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def crop_and_flip(images: Tensor, offsets: Tensor, flips: Tensor, padding: int) -> Tensor:
    """Cut each image out of its zero-padded self and mirror some, a whole batch at once.

    Args:
        images: (N, C, H, W), any type.
        offsets: int64 (N, 2), row and column of each crop's corner in the padded image, 0 to 2 * padding.
        flips: bool (N,), which images to mirror left to right.
        padding: pixels of zeros on each side.

    Returns:
        (N, C, H, W) of the same type.
    """
    n, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4) if padding else images
    rows = offsets[:, :1] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(n, width)
    columns = offsets[:, 1:] + torch.where(flips[:, None], columns.flip(1), columns)
    batch = torch.arange(n, device=images.device)[:, None, None]
    # One gather over (N, H, W, C): channels stay together, as the network wants them.
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=2)
def on_device(pixels: Tensor, device: torch.device) -> Tensor:
    """The pixels of a data set on `device`, sent there once for all its parts and all runs of a process."""
    return pixels.to(device)


@dataclass(frozen=True)
class ResidentSplit:
    """Decoded images, uint8 (M, C, H, W), of which `rows` are this split; they go to the training device as a whole.

    Parts of one data set share its pixels, which several processes may have mapped from one file.
    """

    pixels: Tensor
    labels: Tensor
    normalisation: Normalisation
    rows: Tensor

    @classmethod
    def whole(cls, pixels: Tensor, labels: Tensor, normalisation: Normalisation) -> ResidentSplit:
        """All images (N, C, H, W) with their labels (N,)."""
        return cls(pixels, labels, normalisation, torch.arange(len(pixels)))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def images(self) -> Tensor:
        """A copy of the split's own images, uint8 (N, C, H, W)."""
        return self.pixels[self.rows]

    def take(self, indices: Tensor) -> ResidentSplit:
        """The images with these indices, in this order."""
        return ResidentSplit(self.pixels, self.labels[indices], self.normalisation, self.rows[indices])

    def loader(
        self, sampler: EpochSampler, augmentation: Augmentation | None, device: torch.device, workers: int
    ) -> ResidentLoader:
        """Batches gathered and augmented on `device`; `workers` are not needed."""
        return ResidentLoader(self, sampler, augmentation, device)


class ResidentLoader:
    """Gathers and augments whole batches where the images live; nothing is decoded or sent to the device per step."""

    def __init__(
        self, split: ResidentSplit, sampler: EpochSampler, augmentation: Augmentation | None, device: torch.device
    ) -> None:
        self.pixels, self.labels = on_device(split.pixels, device), split.labels.to(device)
        self.rows = split.rows.to(device)
        # Not called `sampler`: Lightning would take the loader for a DataLoader and rebuild it.
        self.normalisation, self.augmentation, self.order = split.normalisation, augmentation, sampler

    def __len__(self) -> int:
        return -(-len(self.order) // self.order.share)

    def __iter__(self) -> Iterator[Batch]:
        order = self.order.indices().to(self.rows.device)
        view = self._views()
        share = self.order.share
        several = share * max(1, GATHERED_BYTES // (share * self.pixels[0].nbytes))
        # An empty tensor would split into one empty batch.
        for index in order.split(several) if len(order) else ():
            images, labels = view(self.pixels[self.rows[index]], index), self.labels[index]
            for batch, classes in zip(images.split(share), labels.split(share), strict=True):
                yield self.normalisation(batch), classes

    def _views(self) -> partial[Tensor]:
        """Draw the epoch's crops and flips for every image, by its index."""
        if self.augmentation is None or self.order.seed is None:
            return partial(_as_it_is)
        padding = self.augmentation.crop_padding
        stream = generator(self.order.seed, "augment", self.order.epoch)
        count, device = len(self.rows), self.rows.device
        offsets = torch.randint(0, 2 * padding + 1, (count, 2), generator=stream).to(device)
        chance = 0.5 if self.augmentation.horizontal_flip else 0.0
        flips = (torch.rand(count, generator=stream) < chance).to(device)
        return partial(_augmented, offsets=offsets, flips=flips, padding=padding)


def _as_it_is(images: Tensor, index: Tensor) -> Tensor:
    return images


def _augmented(images: Tensor, index: Tensor, *, offsets: Tensor, flips: Tensor, padding: int) -> Tensor:
    return crop_and_flip(images, offsets[index], flips[index], padding)


def evaluation_view(config: DataConfig) -> v2.Transform:
    """Short side to `config.short_side`, then the centre `resolution` x `resolution` (section 5.1)."""
    return v2.Compose([v2.Resize(config.short_side, antialias=True), v2.CenterCrop(config.resolution)])


def training_view(config: DataConfig, augmentation: Augmentation) -> v2.Transform:
    """The random view of one image: the ImageNet crop, or the evaluation view padded and cropped; then the flip."""
    steps: list[v2.Transform] = []
    if augmentation.resized_crop:
        steps += [v2.RandomResizedCrop(config.resolution, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), antialias=True)]
    else:
        steps += [evaluation_view(config)]
    if augmentation.crop_padding:
        steps += [v2.RandomCrop(config.resolution, padding=augmentation.crop_padding)]
    if augmentation.horizontal_flip:
        steps += [v2.RandomHorizontalFlip()]
    return v2.Compose(steps)


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Open an image file with Pillow.

    Raises:
        OSError: the file is no image, is cut off, or is too large or too long to be honest. Pillow's parsers raise
            whatever they meet (ValueError, SyntaxError, struct.error, …); here it is always this.
    """
    try:
        with Image.open(path) as image:
            short, long = sorted(image.size)
            if not 0 < long <= LONGEST * short:
                raise OSError(f"{image.width} x {image.height} pixels")
            yield image
    except OSError:
        raise
    except Exception as error:
        raise OSError(str(error) or type(error).__name__) from error


def read_image(path: Path) -> Image.Image:
    """Decode an image file as RGB with 8 bits; a grey one gets three equal channels.

    Raises:
        OSError: the file is no image, is cut off, or has floating-point levels, whose white is not known.
    """
    with open_image(path) as image:
        if image.mode == "F":
            raise OSError("floating-point levels; save it with 8 or 16 bits")
        if image.mode.startswith("I"):  # 16 bits: Pillow would cut them off at 255
            levels = np.clip(np.asarray(image), 0, 65535).astype(np.float64)
            image = Image.fromarray(np.rint(levels / 257).astype(np.uint8))
        return image.convert("RGB")


@dataclass(frozen=True)
class FileSplit:
    """Image files too many to hold decoded; they are read, decoded and cropped as they are needed."""

    paths: tuple[Path, ...]
    labels: Tensor
    config: DataConfig

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> FileSplit:
        """The files with these indices, in this order."""
        return FileSplit(tuple(self.paths[i] for i in indices.tolist()), self.labels[indices], self.config)

    def loader(
        self, sampler: EpochSampler, augmentation: Augmentation | None, device: torch.device, workers: int
    ) -> FileLoader:
        """Batches decoded by `workers` processes (0: in this one) and normalised on `device`."""
        return FileLoader(self, sampler, augmentation, device, workers)


class _Files(Dataset[tuple[Tensor, Tensor]]):
    """One image by (epoch, index), its random view drawn from the stream of just these two."""

    def __init__(self, split: FileSplit, augmentation: Augmentation | None, seed: int | None) -> None:
        self.split, self.seed = split, seed
        self.view = training_view(split.config, augmentation) if augmentation else evaluation_view(split.config)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        path = self.split.paths[index]
        try:
            image = read_image(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be decoded ({error}); replace or remove the file") from None
        with torch.random.fork_rng(devices=[]):
            if self.seed is not None:
                torch.manual_seed(stream_seed(self.seed, "augment", epoch, index))
            pixels: Tensor = v2.functional.pil_to_tensor(self.view(image))
        return pixels, self.split.labels[index]


class FileLoader:
    """A DataLoader over image files, whose batches are normalised on the device."""

    def __init__(
        self,
        split: FileSplit,
        sampler: EpochSampler,
        augmentation: Augmentation | None,
        device: torch.device,
        workers: int,
    ) -> None:
        self.device = device
        self.loader = DataLoader(
            _Files(split, augmentation, sampler.seed),
            batch_size=sampler.share,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            # Not forkserver: its server would keep loading processes alive after their run was killed.
            multiprocessing_context="spawn" if workers else None,
            pin_memory=device.type == "cuda",
        )

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        try:
            for pixels, labels in self.loader:
                moved = pixels.to(self.device, non_blocking=True)
                yield IMAGENET_NORMALISATION(moved), labels.to(self.device, non_blocking=True)
        except UserError as error:
            # From a worker process torch wraps the message in the worker's traceback; the last line is ours.
            raise UserError(
                str(error).strip().splitlines()[-1].removeprefix(f"{UserError.__module__}.UserError: ")
            ) from None

"""Batches for the training device: small data sets live there decoded, large folders stream from their files.

A split knows how to make its own loader; both kinds of loader yield `(images, labels)` on the device, images
normalised float32 (N, C, H, W) in channels-last memory, labels int64 (N,), or shares of the classes, float32
(N, classes), where a protocol mixes images. Every random draw is keyed by seed, purpose
and epoch, and an image's view by its own index, so it does not depend on batch, process or what ran before.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from senet_ablate.data.reading import read_marked
from senet_ablate.data.transforms import (
    IMAGENET_NORMALISATION,
    Normalisation,
    apply_policies,
    crop_and_flip,
    evaluation_view,
    mix_batch,
    training_view,
)
from senet_ablate.environment import unwarned
from senet_ablate.errors import UserError
from senet_ablate.seeding import generator, stream_seed
from senet_ablate.spec.protocol import Augmentation, DataConfig

Batch = tuple[Tensor, Tensor]

GATHERED_BYTES = 1 << 22
"""Bytes of pixels, in whole batches, that are gathered and augmented at once: few calls, and little to hold."""

EVALUATION_BATCHES = 2
"""Batches of training that make one of evaluation: fewer calls, and still less memory than a training step takes."""


class EpochSampler(Sampler[tuple[int, int]]):
    """The order of one epoch's images, the same for every arm of a seed and on every number of devices.

    Args:
        size: number of images.
        seed: seed of the order; `None` keeps the images in their own order and all of them (evaluation).
        batch_size: total over all devices; training drops the rest that fills no batch.
        rank, world: this process and how many share each batch.

    Yields:
        (epoch, index) pairs. Lightning calls `set_epoch` before each epoch.
    """

    def __init__(self, size: int, *, seed: int | None, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.size, self.seed, self.batch_size, self.rank, self.world = size, seed, batch_size, rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of this epoch from now on."""
        self.epoch = epoch

    @property
    def sampler(self) -> EpochSampler:
        """Itself: Lightning announces each epoch to `loader.batch_sampler.sampler`."""
        return self

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


class MixingLoader:
    """A loader of training batches whose images are mixed in pairs, with draws keyed by seed, epoch and batch.

    The processes of a run make the same draws, each for its share of the batch.
    """

    def __init__(self, loader: ResidentLoader | FileLoader, augmentation: Augmentation, classes: int) -> None:
        self.loader, self.batch_sampler = loader, loader.batch_sampler
        self.augmentation, self.classes = augmentation, classes

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        seed, epoch = self.batch_sampler.seed, self.batch_sampler.epoch
        assert seed is not None
        for number, (images, labels) in enumerate(self.loader):
            key = stream_seed(seed, "mix", epoch, number)
            yield mix_batch(images, labels, self.augmentation, self.classes, key)


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
        self.normalisation, self.augmentation, self.batch_sampler = split.normalisation, augmentation, sampler

    def __len__(self) -> int:
        return -(-len(self.batch_sampler) // self.batch_sampler.share)

    def __iter__(self) -> Iterator[Batch]:
        sampler, augmentation = self.batch_sampler, self.augmentation
        order = sampler.indices().to(self.rows.device)
        if augmentation is not None and sampler.seed is not None:  # the epoch's draws for every image, by its index
            stream = generator(sampler.seed, "augment", sampler.epoch)
            size = 2 * augmentation.crop_padding + 1
            offsets = torch.randint(0, size, (len(self.rows), 2), generator=stream).to(order.device)
            chance = 0.5 if augmentation.horizontal_flip else 0.0
            flips = (torch.rand(len(self.rows), generator=stream) < chance).to(order.device)
        several = sampler.share * max(1, GATHERED_BYTES // (sampler.share * self.pixels[0].nbytes))
        # An empty tensor would split into one empty batch.
        for index in order.split(several) if len(order) else ():
            images, labels = self.pixels[self.rows[index]], self.labels[index]
            if augmentation is not None and sampler.seed is not None:
                images = crop_and_flip(images, offsets[index], flips[index], augmentation.crop_padding)
                seeds = (stream_seed(sampler.seed, "policies", sampler.epoch, each) for each in index.tolist())
                images = apply_policies(images, augmentation.policies, seeds)
            for batch, classes in zip(images.split(sampler.share), labels.split(sampler.share), strict=True):
                yield self.normalisation(batch), classes


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
        self.policies = augmentation.policies if augmentation else ()
        self.view = training_view(split.config, augmentation) if augmentation else evaluation_view(split.config)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        path = self.split.paths[index]
        try:
            with unwarned():
                image, _ = read_marked(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be decoded ({error}); replace or remove the file") from None
        with torch.random.fork_rng(devices=[]):
            if self.seed is not None:
                torch.default_generator.manual_seed(stream_seed(self.seed, "augment", epoch, index))
            pixels: Tensor = v2.functional.pil_to_tensor(self.view(image))
        if self.policies and self.seed is not None:
            (pixels,) = apply_policies(pixels[None], self.policies, [stream_seed(self.seed, "policies", epoch, index)])
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
        self.device, self.batch_sampler = device, sampler
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


Split = ResidentSplit | FileSplit
"""Images of train, validation or test, wherever they live."""

Loader = ResidentLoader | FileLoader | MixingLoader
"""Batches of a split. All draw their order when the first batch is asked for, not before."""

"""The data sets as a LightningDataModule, for the suite's runs and for anybody's Trainer."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl

from senet_ablate.data.datasets import LoadedData, load_data_once
from senet_ablate.data.loaders import EpochSampler, Loader, MixingLoader, Split
from senet_ablate.errors import UserError
from senet_ablate.spec.protocol import Augmentation, DataConfig, Dataset

SIDES: dict[Dataset, int] = {"digits": 8, "cifar10": 32, "cifar100": 32, "fashion-mnist": 28}
"""Side in pixels of each data set's images, the resolution where none is given."""


class ImageDataModule(pl.LightningDataModule):
    """Images of a data set in batches: float32 (N, C, H, W), normalised, on the training device, with labels (N,).

    Where the augmentation mixes images, training batches have the shares of the classes (N, classes) for labels. The
    order of the images and their augmentation are keyed by seed and epoch, so a resumed training sees what the
    uninterrupted one would have seen, and two networks of one seed see the same.

    Args:
        data: name of a data set (`digits`, `cifar10`, `cifar100`, `fashion-mnist`, `folder`), or its whole
            configuration.
        path: folder of the images for `folder`; where torchvision's sets lie or are downloaded to.
        resolution: side of the square fed to the network in pixels; by default that of the data set's images.
        batch_size: images of a batch over all devices.
        augmentation: random views of the training images; by default none.
        seed: seed of order and augmentation.
        workers: processes that decode a folder's images; sets that fit into memory need none.
        stream: read a folder's images from their files even if they would fit into memory.
        fingerprint: refuse images other than those with this fingerprint.

    Raises:
        UserError: there is no such data set, it cannot be read, or it has another fingerprint.

    Example:
        >>> data = ImageDataModule("digits", batch_size=64)
        >>> data.num_classes, data.in_channels
        (10, 1)
    """

    def __init__(
        self,
        data: Dataset | DataConfig = "digits",
        *,
        path: str | Path | None = None,
        resolution: int | None = None,
        batch_size: int = 128,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        workers: int = 0,
        stream: bool = False,
        fingerprint: str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(data, DataConfig):
            side = resolution or SIDES.get(data)
            if side is None:
                raise UserError(f"ImageDataModule({data!r}): say resolution=…, the side of the images in pixels")
            data = DataConfig(dataset=data, resolution=side)
        self.config = data
        self.path = Path(path) if path is not None else None
        self.batch_size, self.augmentation, self.seed = batch_size, augmentation or Augmentation(), seed
        self.workers, self.fingerprint = workers, fingerprint
        self.stream = stream or self.augmentation.resized_crop  # that crop needs images of their own size

    @property
    def images(self) -> LoadedData:
        """The images, loaded once per process, so that they never travel to another one with this module."""
        data = load_data_once(self.config, self.path, self.stream)
        if self.fingerprint not in (None, data.facts.fingerprint):
            raise UserError(f"the images of {self.path or self.config.dataset} changed while the study ran")
        return data

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.images.facts.classes

    @property
    def in_channels(self) -> int:
        """Channels of the images: 3 for colour, 1 for grey."""
        return self.images.facts.channels

    def setup(self, stage: str) -> None:
        """Load the images in each process of a training."""
        _ = self.images

    def train_dataloader(self) -> Loader:
        """Shuffled and augmented batches, keyed by seed and epoch; the rest that fills no batch is left out."""
        return self._loader(self.images.train, self.seed)

    def val_dataloader(self) -> Loader:
        """The validation part, a keyed draw from train, in its own order."""
        return self._loader(self.images.validation, None)

    def test_dataloader(self) -> Loader:
        """The test images in their own order."""
        return self._loader(self.images.test, None)

    def _loader(self, split: Split, seed: int | None) -> Loader:
        trainer = self.trainer
        if trainer is None:
            raise UserError("ImageDataModule: give it to a Trainer, which says where the batches are needed")
        sampler = EpochSampler(
            len(split), seed=seed, batch_size=self.batch_size, rank=trainer.global_rank, world=trainer.world_size
        )
        augmentation = self.augmentation if seed is not None else None
        loader = split.loader(sampler, augmentation, trainer.strategy.root_device, self.workers)
        mixing = augmentation is not None and augmentation.mix
        return MixingLoader(loader, self.augmentation, self.num_classes) if mixing else loader

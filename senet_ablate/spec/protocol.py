"""The protocol (network, data, recipe, precision) and one run under it, with the run's id."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from senet_ablate.errors import UserError
from senet_ablate.spec.network import Network, Variant
from senet_ablate.spec.schema import FileName, Spec

Precision = Literal["auto", "fp32", "bf16"]

Dataset = Literal["digits", "cifar10", "cifar100", "fashion-mnist", "folder"]

CHANNELS_AND_CLASSES: dict[Dataset, tuple[int, int | None]] = {
    "digits": (1, 10),
    "cifar10": (3, 10),
    "cifar100": (3, 100),
    "fashion-mnist": (1, 10),
    "folder": (3, None),
}
"""Shape of each data set's images and how many classes it has, for costs without data; a folder tells its own."""

Policy = Literal["trivial-augment", "rand-augment", "random-erasing"]
Mix = Literal["mixup", "cutmix"]

MOST_EPOCHS = 1_000_000

Amount = Annotated[int, Field(ge=0, le=2**40)]
"""Of images or files. Limits here are far beyond use; they keep arithmetic with a mistyped or a stranger's number."""


class DataConfig(Spec):
    """Which images, at which size, and how many of the training images are kept for validation."""

    dataset: Dataset
    """The data set: bundled digits, one that torchvision downloads, or a folder of images."""
    resolution: Annotated[int, Field(ge=4, le=4096)]
    """Side in pixels of the square image that the network gets."""
    resize: Annotated[int, Field(ge=0, le=8192)] = 0
    """Short side in pixels to which an evaluated image is resized before the centre crop; 0 means `resolution`."""
    validation: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Share of the training images kept for validation, drawn per class with a fixed seed. The learning curves and the
    plateau schedule use them; the test set is used to choose nothing."""
    splits: str = ""
    """A list of a folder's files, which `init --split` writes: a CSV file with the columns `path` (within the folder),
    `part` (`train` or `test`) and `class`. Its path is relative to the working directory, else to the folder. Without
    it the folder has `train/` and `test/` or `val/`."""

    @field_validator("resize")
    @classmethod
    def _crop_fits(cls, value: int, info: ValidationInfo) -> int:
        resolution = info.data.get("resolution", 0)
        if 0 < value < resolution:
            raise ValueError(f"smaller than resolution = {resolution}, the crop; use at least that or leave it out")
        return 0 if value == resolution else value  # one spelling

    @model_validator(mode="after")
    def _list_has_a_folder(self) -> Self:
        if self.dataset != "folder":
            self.refuse_unused(["splits"], f"with dataset = {self.dataset!r}")
        return self

    @property
    def short_side(self) -> int:
        """Short side in pixels of an evaluated image before the centre crop."""
        return self.resize or self.resolution


class Augmentation(Spec):
    """Random changes of a training image: padded crop and flip for small images, resized crop for ImageNet."""

    crop_padding: Annotated[int, Field(ge=0, le=4096)] = 0
    """Pixels of zeros around the image before a random crop of its size."""
    horizontal_flip: bool = False
    """Mirror an image with probability 1/2."""
    resized_crop: bool = False
    """Crop 8 to 100 % of the area at an aspect ratio of 3/4 to 4/3 (section 5.1); needs a folder of images."""
    policies: tuple[Policy, ...] = ()
    """Further changes, in this order, by torchvision's transforms v2 with its defaults: `trivial-augment`,
    `rand-augment`, `random-erasing`."""
    mix: tuple[Mix, ...] = ()
    """Mix the images of a batch in pairs, and their labels, by torchvision's `mixup` or `cutmix`; of both, one is drawn
    for each batch."""
    mix_alpha: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Both parameters of the beta distribution from which the share of an image is drawn. With 1, torchvision's
    default, all shares are equally likely; 0.2 leaves most images nearly as they are."""

    @model_validator(mode="after")
    def _keys_fit_each_other(self) -> Self:
        for key in ("policies", "mix"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise ValueError(f"{key} = {list(getattr(self, key))}: name each once")
        if not self.mix:
            self.refuse_unused(["mix_alpha"], "without mix")
        if self.resized_crop and self.crop_padding:
            raise ValueError("resized_crop and crop_padding are two ways to crop; choose one")
        return self


class Schedule(Spec):
    """How the learning rate falls."""

    kind: Literal["cosine", "step", "plateau"] = "cosine"
    """`cosine`: to zero at the last step; `step`: at given epochs; `plateau`: when the validation loss stagnates."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs in which the rate first rises linearly to `lr`."""
    milestones: tuple[int, ...] = ()
    """`step`: epochs at whose start the rate is multiplied by `factor` (in the paper 125, 200, 250 of 270)."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """`step` and `plateau`: what the rate is multiplied by."""
    patience: Annotated[int, Field(ge=1)] = 10
    """`plateau`: epochs without a lower validation loss after which the rate is multiplied by `factor`."""
    drops: Annotated[int, Field(ge=1)] = 3
    """`plateau`: how often the rate may fall (section 6: three times)."""

    @model_validator(mode="after")
    def _keys_belong_to_the_kind(self) -> Self:
        others = {
            "cosine": ["milestones", "factor", "patience", "drops"],
            "step": ["patience", "drops"],
            "plateau": ["milestones"],
        }
        self.refuse_unused(others[self.kind], f"with kind = {self.kind!r}")
        if self.kind == "step" and not self.milestones:
            raise ValueError("milestones are missing: kind = 'step' needs the epochs at which the rate falls")
        if list(self.milestones) != sorted(set(self.milestones)) or any(epoch < 1 for epoch in self.milestones):
            raise ValueError("milestones must be rising epoch numbers, 1 or more")
        return self


class Recipe(Spec):
    """How the network is trained: SGD (or AdamW) on cross-entropy, with a schedule and an augmentation."""

    epochs: Annotated[int, Field(ge=1, le=MOST_EPOCHS)]
    """Passes over the training images."""
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)]
    """Images per step, the total over all devices of a run."""
    lr: Annotated[float, Field(gt=0)]
    """Highest learning rate, for the whole batch."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """`sgd` with momentum (the paper), or `adamw`, whose usual rates are near 0.001."""
    backbone_lr: Annotated[float, Field(ge=0)] = 0.0
    """Highest learning rate of a pretrained network's own layers; blocks and classifier, whose weights are random at
    first, have `lr`. 0 means `lr` for all."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    nesterov: bool = False
    """Use Nesterov's momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """L2 penalty (for `adamw` decoupled), on every parameter, as in Caffe, which the authors used."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Label smoothing of the training loss."""
    schedule: Schedule = Schedule()
    """How the learning rate falls."""
    augmentation: Augmentation = Augmentation()
    """Random changes of a training image."""

    @model_validator(mode="after")
    def _keys_fit_each_other(self) -> Self:
        if self.optimizer == "adamw":
            self.refuse_unused(["momentum", "nesterov"], "with optimizer = 'adamw'")
        schedule = self.schedule
        last = {"warmup_epochs": schedule.warmup_epochs, "milestones": max(schedule.milestones, default=0)}
        for key, epoch in last.items():
            if epoch >= self.epochs:
                value = getattr(schedule, key)
                raise ValueError(f"schedule.{key} = {value} does not end before epochs = {self.epochs}")
        return self


class RunSpec(Spec):
    """One training, complete: the same spec means the same run, and its `run_id` is its identity."""

    network: Network
    data: DataConfig
    recipe: Recipe
    precision: Precision
    variant: Variant
    seed: Annotated[int, Field(ge=0, le=2**31)]

    @property
    def run_id(self) -> str:
        """Readable slug and a hash of the fields that differ from their defaults.

        A field added later with a default leaves all old ids as they are.
        """
        what = self.model_copy(update={"network": self.network.identity})
        canonical = json.dumps(what.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
        digest = hashlib.blake2b(canonical.encode(), digest_size=5).hexdigest()
        return f"{self.variant.slug}-s{self.seed}-{digest}"


class Protocol(Spec):
    """What all variants of a table share: network, data, recipe and precision."""

    name: FileName
    """The file's own name without `.toml`."""
    description: str
    """A sentence, shown by `senet-ablate list`."""
    images: Annotated[str, Field(max_length=60)] = ""
    """Name of a folder's images in reports; no part of a run's identity."""
    seeds: Annotated[int, Field(ge=1, le=1000)] = 3  # from 1,000 on a null comparison's seeds begin
    """Runs of each variant, where neither a plan nor `--seeds` says otherwise."""
    precision: Precision = "fp32"
    """`auto` is bf16 where the processor or GPU computes in it, else float32."""
    network: Network
    """The network that carries the block."""
    data: DataConfig
    """The images."""
    recipe: Recipe
    """How the network is trained."""

    @model_validator(mode="after")
    def _backbone_has_learned(self) -> Self:
        if self.recipe.backbone_lr and not self.network.pretrained:
            raise ValueError("recipe.backbone_lr is for a pretrained network: set network.pretrained, or leave it out")
        return self

    @property
    def images_name(self) -> str:
        """What the images are called in print."""
        return self.images or self.data.dataset

    @property
    def in_words(self) -> str:
        """Network, images and length of training as they are, whatever `--set` changed of the file described."""
        network, _, more = self.network.in_words().partition(", ")
        images = f"{self.images_name} at {self.data.resolution}x{self.data.resolution} pixels"
        return f"{network}{f' ({more})' if more else ''} on {images}, {self.recipe.epochs} epochs"

    def run_spec(self, variant: Variant, seed: int) -> RunSpec:
        """The training of `variant` under this protocol with one seed."""
        return RunSpec(
            network=self.network,
            data=self.data,
            recipe=self.recipe,
            precision=self.precision,
            variant=variant,
            seed=seed,
        )


class DataFacts(Spec):
    """What the images turned out to be, found when they were read.

    `fingerprint` covers pixels and labels of train and test in order (for folders too large for memory: names, sizes
    and samples of the files). `skipped` counts files that could not be read, `grey` those that were turned into RGB,
    `rotated` those turned upright (EXIF), `transparent` those put on white, `rescaled` those of 16 bits that used
    fewer. Of a folder, `parts` are the names of its parts, `train_counts` and `test_counts` have the images of each
    class, validation included, and `repeated` counts test images that are in train, too: at the network's resolution,
    or, where files are streamed, at their own.
    """

    fingerprint: str
    channels: Annotated[int, Field(ge=1, le=1024)]
    class_names: tuple[str, ...]
    n_train: Amount
    n_validation: Amount
    n_test: Amount
    skipped: Amount = 0
    grey: Amount = 0
    rotated: Amount = 0
    transparent: Amount = 0
    rescaled: Amount = 0
    parts: tuple[str, ...] = ()
    train_counts: tuple[Amount, ...] = ()
    test_counts: tuple[Amount, ...] = ()
    repeated: Amount = 0

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


class Complexity(Spec):
    """Size and cost of one network as raw integers; the convention is stated in `models/survey.py`.

    `params` are the weights (also those that a control gate leaves as drawn), `params_with_bn_stats` add the running
    means and variances, `macs` are multiply-adds of one image.
    """

    params: Annotated[int, Field(lt=2**63)]
    params_with_bn_stats: Annotated[int, Field(lt=2**63)]
    macs: Annotated[int, Field(lt=2**63)]


DeviceKind = Literal["cpu", "cuda", "mps"]


def check_fit(recipe: Recipe, data: DataConfig, facts: DataFacts, devices: int) -> None:
    """Refuse what would fail in every run, before any is begun.

    Raises:
        UserError: the batch does not fit the images or the devices, or the augmentation does not fit the data set.
    """
    batch, images = recipe.batch_size, facts.n_train
    if batch > images:
        raise UserError(
            f"recipe.batch_size = {batch} is more than the {images} training images; use at most {images}, for "
            f"example --set recipe.batch_size={max(2, images // 4)}"
        )
    if batch % devices:
        raise UserError(f"recipe.batch_size = {batch} cannot be shared equally by {devices} devices")
    if recipe.augmentation.mix and batch < 2 * devices:
        raise UserError(
            f"recipe.augmentation.mix = {list(recipe.augmentation.mix)} mixes images in pairs, and recipe.batch_size = "
            f"{batch} leaves each of {devices} devices a single one; set recipe.batch_size={2 * devices} or more"
        )
    if recipe.augmentation.crop_padding >= data.resolution:
        raise UserError(
            f"recipe.augmentation.crop_padding = {recipe.augmentation.crop_padding} leaves crops without a pixel of "
            f"the image, whose side is {data.resolution}"
        )
    if recipe.augmentation.resized_crop and data.dataset != "folder":
        raise UserError(
            f"recipe.augmentation.resized_crop needs images of their own size, and those of {data.dataset} have one; "
            'use crop_padding, or data.dataset = "folder"'
        )


FEW_STEPS, FEW_TEST_IMAGES, FEW_OF_A_CLASS = 1_000, 500, 20


def weaknesses(recipe: Recipe, facts: DataFacts) -> list[str]:
    """Why runs on these images may say little, each with what would help; for a user's own folder."""
    told = []
    steps = recipe.epochs * (facts.n_train // recipe.batch_size)
    if steps < FEW_STEPS:
        told.append(
            f"{steps:,} optimiser steps ({recipe.epochs} epochs of {facts.n_train:,} images in batches of "
            f"{recipe.batch_size}): fewer than {FEW_STEPS:,} hardly train a network; raise recipe.epochs or lower "
            "recipe.batch_size"
        )
    if facts.n_test < FEW_TEST_IMAGES:
        told.append(
            f"{facts.n_test:,} test images: with fewer than {FEW_TEST_IMAGES:,} one image is "
            f"{100 / max(1, facts.n_test):.2g} points of error; add test images, or more seeds"
        )
    for part, counts in (("train", facts.train_counts), ("test", facts.test_counts)):
        few = [
            f"{name} ({count})"
            for name, count in zip(facts.class_names, counts, strict=False)
            if count < FEW_OF_A_CLASS
        ]
        if few:
            more = f" and {len(few) - 5} more" if len(few) > 5 else ""
            told.append(f"fewer than {FEW_OF_A_CLASS} images of a class in {part}: {', '.join(few[:5])}{more}")
    if facts.repeated:
        told.append(
            f"{facts.repeated:,} test images are also in train, so the error is too low; remove them from one part "
            "(`init --data FOLDER` names them)"
        )
    return told

"""What one training is: the block, its place, the network, the data, the recipe, and the identity of all that.

Every type is frozen, strict and keyword-only, and refuses keys it does not know. Nothing here imports
torch: a specification can be read, hashed and planned on a machine that never trains.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from senet_ablate.backbones import BACKBONES
from senet_ablate.errors import did_you_mean

Squeeze = Literal["avg", "max", "none"]
Gate = Literal["sigmoid", "tanh", "relu", "constant", "random", "none"]
Excitation = Literal["fc", "eca"]
Position = Literal["standard", "pre", "post", "identity", "inner-3x3"]
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

MOST_EPOCHS = 1_000_000

Amount = Annotated[int, Field(ge=0, le=2**40)]
"""Of images or files. Limits here are far beyond use; they keep arithmetic with a mistyped or a stranger's number."""

ALL_STAGES = (2, 3, 4, 5)
"""The paper names stages after the convolutions conv2_x to conv5_x (Table 1)."""


class Spec(BaseModel):
    """Base of every specification: immutable, strict about types, and closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants"
    )


UNREAD: dict[Excitation, tuple[str, ...]] = {"fc": (), "eca": ("reduction", "bias")}
"""The fields of a block's config that have no meaning for a kind of block."""


class SEConfig(Spec):
    """What the block computes: squeeze (Eq. 2), then excitation, s = gate(W2 relu(W1 z)) in the paper (Eq. 3).

    `squeeze="none"` keeps the map and turns both layers into 1x1 convolutions (Table 16). `reduction` is
    r; the hidden width is C // r exactly, never rounded up, and a width of 0 is an error. `bias` is off
    as in section 6 of the paper (the released models have biases).

    Three gates are controls of ours, each with all parameters of the block: `constant` is 1/2 whatever the image
    (sigmoid at 0), `random` leaves both layers as they were drawn, `none` adds the excitation instead of
    multiplying by it.

    `excitation` is what is learnt between squeeze and gate: the paper's two fully connected layers (`fc`), or ECA's
    convolution over neighbouring channels (`eca`, arXiv 1910.03151), for which reduction and bias have no meaning.
    """

    squeeze: Squeeze = "avg"
    gate: Gate = "sigmoid"
    reduction: Annotated[int, Field(ge=1)] = 16
    bias: bool = False
    excitation: Excitation = "fc"

    @model_validator(mode="after")
    def _keys_belong_to_the_excitation(self) -> Self:
        for key in UNREAD[self.excitation]:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} has no meaning with excitation = {self.excitation!r}; leave it out")
        return self


class Placement(Spec):
    """Where the block sits: in which stages (Table 13) and at which site of the residual unit (Tables 14, 15)."""

    stages: Literal["all"] | tuple[int, ...] = "all"
    position: Position = "standard"

    @field_validator("stages", mode="before")
    @classmethod
    def _one_spelling(cls, value: Any) -> Any:
        """All four stages are spelt "all", and a list of stages rises, so that each network has one spelling."""
        if value == "all":
            return value
        listed = value if isinstance(value, (list, tuple)) else ()
        if not listed or any(type(stage) is not int or stage not in ALL_STAGES for stage in listed):
            raise ValueError('stages must be "all" or a list of stage numbers from 2, 3, 4, 5')
        stages = tuple(sorted(set(listed)))
        return "all" if stages == ALL_STAGES else stages

    def covers(self, stage: int) -> bool:
        """Whether the paper's stage number `stage` carries the block."""
        return self.stages == "all" or stage in self.stages


class Variant(Spec):
    """One change of the network: an SE block and its place, or neither (the plain ResNet)."""

    se: SEConfig | None = None
    placement: Placement = Placement()

    @model_validator(mode="after")
    def _plain_has_no_place(self) -> Self:
        if self.se is None and self.placement != Placement():
            raise ValueError("a network without SE has no placement; remove the placement or set se")
        return self

    @property
    def unread(self) -> frozenset[str]:
        """Dotted names of the fields that have no meaning here, so that they tell no network from another."""
        return frozenset(f"se.{key}" for key in UNREAD[self.se.excitation]) if self.se else frozenset()

    @property
    def slug(self) -> str:
        """Short readable name, one per network: what differs from the paper's SE block, e.g. `se-r16-max`."""
        if self.se is None:
            return "plain"
        parts = ["se" if self.se.excitation == "fc" else str(self.se.excitation)]
        if "se.reduction" not in self.unread:
            parts.append(f"r{self.se.reduction}")
        if self.se.squeeze != "avg":
            parts.append("nosqueeze" if self.se.squeeze == "none" else self.se.squeeze)
        if self.se.gate != "sigmoid":
            parts.append("ungated" if self.se.gate == "none" else self.se.gate)
        if self.se.bias:
            parts.append("bias")
        if self.placement.stages != "all":
            parts.append("stage" + "".join(map(str, self.placement.stages)))
        if self.placement.position != "standard":
            parts.append(self.placement.position)
        return "-".join(parts)


class Network(Spec):
    """The residual network that carries the variant (Table 1).

    `width` is the width of the stem and of the first 3x3 convolutions (64 in the paper). `stem` is 7x7/2
    with 3x3/2 max pooling, or 3x3/1 for small images. `stride_in` says which convolution of a bottleneck
    halves the map: the first 1x1 (the paper; its GFLOPs confirm it) or the 3x3 (torchvision, timm). `stem_pool` says
    how the pooling of the stem meets the map's edge: padded all around (torchvision), or as Caffe and the released
    models have it, without padding and with a last window that may hang over the edge.
    """

    backbone: str
    width: Annotated[int, Field(ge=1, le=1024)] = 64
    stem: Literal["imagenet", "small"] = "imagenet"
    stride_in: Literal["1x1", "3x3"] = "1x1"
    stem_pool: Literal["padded", "ceil"] = "padded"

    @field_validator("backbone")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in BACKBONES:
            raise ValueError(f"no backbone {value!r}; {did_you_mean(value, BACKBONES)}")
        return value

    @model_validator(mode="after")
    def _stride_has_a_place(self) -> Self:
        if BACKBONES[self.backbone].block == "basic" and self.stride_in != "3x3":
            raise ValueError(f'{self.backbone} has basic blocks, without a 1x1 convolution: set stride_in = "3x3"')
        return self

    @model_validator(mode="after")
    def _pooling_has_a_stem(self) -> Self:
        if self.stem == "small" and self.stem_pool != "padded":
            raise ValueError(f'stem = "small" has no pooling; leave stem_pool = "{self.stem_pool}" out')
        return self


class DataConfig(Spec):
    """Which images, at which size, and how much of train is kept for validation.

    `resolution` is the side of the square fed to the network in pixels; `resize` the short side before the
    centre crop of an evaluated image (0: the resolution itself). `validation` is the share of the training images,
    drawn per class with a fixed seed, on which curves and the plateau rule look; the test set decides nothing.
    """

    dataset: Dataset
    resolution: Annotated[int, Field(ge=4, le=4096)]
    resize: Annotated[int, Field(ge=0, le=8192)] = 0
    validation: Annotated[float, Field(gt=0, le=0.5)] = 0.1

    @field_validator("resize")
    @classmethod
    def _crop_fits(cls, value: int, info: ValidationInfo) -> int:
        resolution = info.data.get("resolution", 0)
        if 0 < value < resolution:
            raise ValueError(f"smaller than resolution = {resolution}, the crop; use at least that or leave it out")
        return 0 if value == resolution else value  # one spelling

    @property
    def short_side(self) -> int:
        """Short side in pixels of an evaluated image before the centre crop."""
        return self.resize or self.resolution


class Augmentation(Spec):
    """Random views of a training image.

    `crop_padding` pixels of zeros around the image before a random crop, and `horizontal_flip`, are the CIFAR
    recipe; `resized_crop` is the ImageNet one (8 to 100 % of the area, aspect 3/4 to 4/3, section 5.1).
    """

    crop_padding: Annotated[int, Field(ge=0, le=4096)] = 0
    horizontal_flip: bool = False
    resized_crop: bool = False

    @model_validator(mode="after")
    def _one_crop(self) -> Self:
        if self.resized_crop and self.crop_padding:
            raise ValueError("resized_crop and crop_padding are two ways to crop; choose one")
        return self


class Schedule(Spec):
    """How the learning rate falls, after `warmup_epochs` of linear rise.

    `cosine` falls to zero at the last step. `step` is multiplied by `factor` at the start of each epoch in
    `milestones` (the footnote of section 6: 125, 200, 250 of 270). `plateau` is multiplied by `factor`, at most `drops`
    times, whenever the validation loss has not improved for `patience` epochs (section 6: three times).
    """

    kind: Literal["cosine", "step", "plateau"] = "cosine"
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    milestones: tuple[int, ...] = ()
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    patience: Annotated[int, Field(ge=1)] = 10
    drops: Annotated[int, Field(ge=1)] = 3

    @model_validator(mode="after")
    def _keys_belong_to_the_kind(self) -> Self:
        used = {"cosine": (), "step": ("milestones", "factor"), "plateau": ("factor", "patience", "drops")}[self.kind]
        for key in ("milestones", "factor", "patience", "drops"):
            if key not in used and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} has no meaning with kind = {self.kind!r}; leave it out")
        if self.kind == "step" and not self.milestones:
            raise ValueError("milestones are missing: kind = 'step' needs the epochs at which the rate falls")
        if list(self.milestones) != sorted(set(self.milestones)) or any(epoch < 1 for epoch in self.milestones):
            raise ValueError("milestones must be rising epoch numbers, 1 or more")
        return self


class Recipe(Spec):
    """How the network is optimised: SGD with momentum, label smoothing, a schedule, an augmentation.

    `batch_size` is the total over all devices of a run; `lr` belongs to it.
    """

    epochs: Annotated[int, Field(ge=1, le=MOST_EPOCHS)]
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)]
    lr: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    schedule: Schedule = Schedule()
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        schedule = self.schedule
        for key, last in (
            ("warmup_epochs", schedule.warmup_epochs),
            ("milestones", max(schedule.milestones, default=0)),
        ):
            if last >= self.epochs:
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
        canonical = json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
        digest = hashlib.blake2b(canonical.encode(), digest_size=5).hexdigest()
        return f"{self.variant.slug}-s{self.seed}-{digest}"


class Protocol(Spec):
    """All that is held fixed while a table's rows differ; `seeds` is how many runs each arm gets by default."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    description: str
    seeds: Annotated[int, Field(ge=1, le=1000)] = 3  # from 1,000 on a null arm's seeds begin
    precision: Precision = "fp32"
    network: Network
    data: DataConfig
    recipe: Recipe

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

    `fingerprint` covers pixels and labels of train and test in order (for folders too large for memory: names
    and sizes of the files). `skipped` counts files that could not be read, `grey` those that were turned into RGB.
    """

    fingerprint: str
    channels: Annotated[int, Field(ge=1, le=1024)]
    class_names: tuple[str, ...]
    n_train: Amount
    n_validation: Amount
    n_test: Amount
    skipped: Amount = 0
    grey: Amount = 0

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


class Complexity(Spec):
    """Size and cost of one network as raw integers; the convention is stated in `complexity.py`.

    `params` are the weights (also those that a control gate leaves as drawn), `params_with_bn_stats` add the running
    means and variances, `macs` are multiply-adds of one image.
    """

    params: Annotated[int, Field(lt=2**63)]
    params_with_bn_stats: Annotated[int, Field(lt=2**63)]
    macs: Annotated[int, Field(lt=2**63)]

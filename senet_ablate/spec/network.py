"""The network and its variant: which residual network (Table 1), which block, and where it sits.

Every type is frozen, strict and keyword-only, and refuses keys it does not know. Nothing here imports torch: a
specification can be read, hashed and planned on a machine that never trains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from senet_ablate.errors import did_you_mean
from senet_ablate.spec.schema import Spec

BlockKind = Literal["basic", "bottleneck"]
EXPANSION: dict[BlockKind, int] = {"basic": 1, "bottleneck": 4}
"""Output channels of a block per channel of its 3x3 convolutions."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A residual network's kind of block and the number of blocks in stages 2, 3, 4, 5."""

    block: BlockKind
    depths: tuple[int, int, int, int]


BACKBONES: dict[str, Backbone] = {
    "resnet14": Backbone(block="bottleneck", depths=(1, 1, 1, 1)),
    "resnet18": Backbone(block="basic", depths=(2, 2, 2, 2)),
    "resnet26": Backbone(block="bottleneck", depths=(2, 2, 2, 2)),
    "resnet34": Backbone(block="basic", depths=(3, 4, 6, 3)),
    "resnet50": Backbone(block="bottleneck", depths=(3, 4, 6, 3)),
    "resnet101": Backbone(block="bottleneck", depths=(3, 4, 23, 3)),
    "resnet152": Backbone(block="bottleneck", depths=(3, 8, 36, 3)),
}


Squeeze = Literal["avg", "max", "none"]
Gate = Literal["sigmoid", "tanh", "relu", "constant", "random", "none"]
Excitation = Literal["fc", "eca"]
Position = Literal["standard", "pre", "post", "identity", "inner-3x3"]

ALL_STAGES = (2, 3, 4, 5)
"""The paper names stages after the convolutions conv2_x to conv5_x (Table 1)."""


UNREAD: dict[Excitation, tuple[str, ...]] = {"fc": (), "eca": ("reduction", "bias")}
"""The fields of a block's config that have no meaning for a kind of block."""


class SEConfig(Spec):
    """What the block computes: squeeze (Eq. 2), then excitation, s = gate(W2 relu(W1 z)) in the paper (Eq. 3)."""

    squeeze: Squeeze = "avg"
    """Global pooling by average or maximum; `none` keeps the map and uses 1x1 convolutions (Table 16)."""
    gate: Gate = "sigmoid"
    """The last non-linearity. Three values are controls with all parameters of the block: `constant` is 1/2 whatever
    the image, `random` leaves both layers as they were drawn, `none` adds the excitation instead of multiplying by it.
    """
    reduction: Annotated[int, Field(ge=1)] = 16
    """Reduction ratio r. The hidden width is C // r exactly; a width of 0 is an error."""
    bias: bool = False
    """Biases in the two layers: off as in section 6 of the paper (the released models have them)."""
    excitation: Excitation = "fc"
    """What is learnt between squeeze and gate: the paper's two fully connected layers (`fc`), or ECA's convolution over
    neighbouring channels (`eca`, arXiv 1910.03151), for which `reduction` and `bias` have no meaning."""

    @model_validator(mode="after")
    def _keys_belong_to_the_excitation(self) -> Self:
        for key in UNREAD[self.excitation]:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} has no meaning with excitation = {self.excitation!r}; leave it out")
        return self


class Placement(Spec):
    """Where the block sits."""

    stages: Literal["all"] | tuple[int, ...] = "all"
    """Stages with a block, named after the convolutions conv2_x to conv5_x (Table 13): a list from 2, 3, 4, 5."""
    position: Position = "standard"
    """Where in the residual unit (Tables 14 and 15)."""

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
    """The residual network that carries the variant (Table 1)."""

    backbone: str
    """`resnet14`, `resnet18`, `resnet26`, `resnet34`, `resnet50`, `resnet101` or `resnet152`."""
    width: Annotated[int, Field(ge=1, le=1024)] = 64
    """Channels of the stem and of the first 3x3 convolutions (64 in the paper)."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """`imagenet`: a 7x7 convolution with stride 2, then max pooling; `small`: a 3x3 convolution, for small images."""
    stride_in: Literal["1x1", "3x3"] = "1x1"
    """Which convolution of a bottleneck halves the map: the first 1x1 (the paper) or the 3x3 (torchvision, timm)."""
    stem_pool: Literal["padded", "ceil"] = "padded"
    """How the stem's pooling meets the edge: `padded` all around (torchvision), or `ceil`, without padding and with a
    last window that may hang over the edge (Caffe, the released models)."""

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


def differences(one: Variant, other: Variant) -> set[str]:
    """Names of the fields in which two networks differ, e.g. `{"se.gate"}`; a plain network has no `se` fields."""

    def fields(variant: Variant) -> dict[str, Any]:
        se = variant.se.model_dump() if variant.se else {}
        return {f"se.{key}": value for key, value in se.items()} | {
            f"placement.{key}": value for key, value in variant.placement.model_dump().items()
        }

    left, right = fields(one), fields(other)
    keys = (left.keys() | right.keys()) - one.unread - other.unread
    return {key for key in keys if left.get(key) != right.get(key)}

"""The network and its variant: which residual network (Table 1), which block, and where it sits.

Every type is frozen, strict and keyword-only, and refuses keys it does not know. Nothing here imports torch: a
specification can be read, hashed and planned on a machine that never trains.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, field_validator, model_validator
from pydantic_core import PydanticKnownError

from senet_ablate.errors import did_you_mean
from senet_ablate.spec.backbones import BACKBONES, LIBRARIES, Family, family, is_ours, library
from senet_ablate.spec.schema import Spec

Squeeze = Literal["avg", "max", "none"]
Gate = Literal["sigmoid", "tanh", "relu", "double-sigmoid", "constant", "random", "none"]
Position = Literal["standard", "pre", "post", "identity", "inner-3x3", "replace-3x3", "stage-end"]

ALL_STAGES = (2, 3, 4, 5)
"""The paper names stages after the convolutions conv2_x to conv5_x (Table 1)."""

Scalar = bool | int | float | str
Stages = tuple[tuple[int, Scalar], ...]


def _freeze(value: Any) -> Any:
    """A table becomes pairs in the order of its keys, so that it can be hashed and has one spelling."""
    if not isinstance(value, Mapping):
        return value
    if all(str(key).isdecimal() for key in value):
        return tuple(sorted((int(key), _freeze(each)) for key, each in value.items()))
    return tuple(sorted((key, _freeze(each)) for key, each in value.items()))


def _thaw(value: Any) -> Any:
    """The table of such pairs, as it is written."""
    return {str(key): _thaw(each) for key, each in value} if isinstance(value, tuple) else value


Frozen = (BeforeValidator(_freeze), PlainSerializer(_thaw, return_type=Any))
Settings = Annotated[tuple[tuple[str, Scalar | Stages], ...], *Frozen]
"""Settings by name, in TOML a table; a value that is a table of stages, `{ 2 = 4, 3 = 8 }`, is chosen by stage."""

Places = Annotated[tuple[tuple[Position, Annotated[str, Field(pattern=r"^(before|after)( [\w.]+)?$")]], ...], *Frozen]


def _ratios(value: Any) -> Any:
    """A ratio or a table of ratios by stage; a mistake is told of the key, not of either type that it might have."""
    value = _freeze(value)
    table = isinstance(value, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value)
    if table and not all(type(stage) is int for stage, _ in value):
        raise ValueError("a table of ratios has stage numbers for keys, as { 2 = 4, 3 = 8, 4 = 16, 5 = 32 }")
    for ratio in [each for _, each in value] if table else [value]:
        if type(ratio) is not int:
            raise PydanticKnownError("int_type")
        if ratio < 1:
            raise PydanticKnownError("greater_than_equal", {"ge": 1})
    return value


Reduction = Annotated[
    int | tuple[tuple[int, int], ...], PlainValidator(_ratios), PlainSerializer(_thaw, return_type=Any)
]


def at_stage(value: Any, stage: int, what: str) -> Any:
    """A setting's value at a stage: the value itself, or that of the stage in a table of stages.

    Raises:
        ValueError: the table does not name the stage.
    """
    if not isinstance(value, tuple):
        return value
    table = dict(value)
    if stage not in table:
        raise ValueError(
            f"{what} = {_thaw(value)} has no value for stage {stage}, which carries the block; add `{stage} = …`, or "
            "leave the stage out of placement.stages"
        )
    return table[stage]


class SEConfig(Spec):
    """What the block computes: squeeze (Eq. 2), then excitation, s = gate(W2 relu(W1 z)) in the paper (Eq. 3)."""

    squeeze: Squeeze = "avg"
    """Global pooling by average or maximum; `none` keeps the map and uses 1x1 convolutions (Table 16)."""
    gate: Gate = "sigmoid"
    """The last non-linearity. `double-sigmoid` (ours) is twice the sigmoid and starts at 1 instead of 1/2. Three values
    are controls with all parameters of the block: `constant` is 1/2 whatever the image, `random` leaves both layers as
    they were initialised, `none` adds the excitation instead of multiplying by it."""
    reduction: Reduction = 16
    """Reduction ratio r, or a table of ratios by stage, `{ 2 = 4, 3 = 8, 4 = 16, 5 = 32 }` (section 6.1). The hidden
    width is C // r exactly; a width of 0 is an error."""
    bias: bool = False
    """Biases in the two layers: off as in section 6 of the paper (the released models have them)."""
    residual: bool = False
    """x + SE(x) instead of SE(x) (ours): the factor starts at 3/2."""


class Placement(Spec):
    """Where the block sits."""

    stages: Literal["all"] | tuple[int, ...] = "all"
    """Stages with a block, named after the convolutions conv2_x to conv5_x (Table 13): a list from 2, 3, 4, 5.
    `[2, 3, 4, 5]` is another spelling of all, in any network."""
    position: Position = "standard"
    """Where in the residual unit (Tables 14 and 15)."""

    @field_validator("stages", mode="before")
    @classmethod
    def _one_spelling(cls, value: Any) -> Any:
        """The four stages of Table 1 are spelt "all", and a list of stages rises: each network has one spelling."""
        if value == "all":
            return value
        listed = value if isinstance(value, (list, tuple)) else ()
        if not listed or any(type(stage) is not int or not 0 <= stage <= 9 for stage in listed):
            raise ValueError('stages must be "all" or a list of stage numbers; those of Table 1 are 2, 3, 4, 5')
        stages = tuple(sorted(set(listed)))
        return "all" if stages == ALL_STAGES else stages

    def covers(self, stage: int) -> bool:
        """Whether the paper's stage number `stage` carries the block."""
        return self.stages == "all" or stage in self.stages

    def check_stages(self, known: Iterable[int]) -> None:
        """Refuse a stage that is none of the network's, `known`.

        Raises:
            ValueError: the message says which it has.
        """
        here = sorted(set(known))
        for stage in () if self.stages == "all" else self.stages:
            if stage not in here:
                has = ", ".join(map(str, here))
                raise ValueError(f"placement.stages: there is no stage {stage}; this network has stages {has}")


class Variant(Spec):
    """One change of the network: a block and its place, or neither (no SE).

    `se` is the paper's block. `block` is another: the name of a file in `senet_ablate/blocks/`, or
    `package.module:Class` of the user's own, with its `settings`. `source` is the digest of the user's code, which
    makes other code another network.
    """

    se: SEConfig | None = None
    placement: Placement = Placement()
    block: str | None = None
    settings: Settings = ()
    source: str = ""

    @model_validator(mode="after")
    def _one_block_in_one_place(self) -> Self:
        if self.se is not None and self.block is not None:
            raise ValueError("se and block are two blocks; choose one")
        if self.block is None:
            self.refuse_unused(["settings"], "without block")
        if self.is_plain and self.placement != Placement():
            raise ValueError("a network without SE has no placement; remove the placement or set se")
        return self

    @property
    def is_plain(self) -> bool:
        """Whether it is the network without a block."""
        return self.se is None and self.block is None

    @property
    def slug(self) -> str:
        """Short readable name, one per network: what differs from the paper's SE block, e.g. `se-r16-max`."""
        if self.is_plain:
            return "plain"
        parts = self._se_parts(self.se) if self.se else self._block_parts()
        if self.placement.stages != "all":
            parts.append("stage" + "".join(map(str, self.placement.stages)))
        if self.placement.position != "standard":
            parts.append(self.placement.position)
        return "-".join(parts)

    @staticmethod
    def _se_parts(se: SEConfig) -> list[str]:
        ratio = se.reduction
        parts = ["se", f"r{ratio}" if isinstance(ratio, int) else "r" + "_".join(f"{s}x{r}" for s, r in ratio)]
        if se.squeeze != "avg":
            parts.append("nosqueeze" if se.squeeze == "none" else se.squeeze)
        if se.gate != "sigmoid":
            parts.append("ungated" if se.gate == "none" else se.gate)
        return parts + ["bias"] * se.bias + ["residual"] * se.residual

    def _block_parts(self) -> list[str]:
        """The block's name and settings; a digest stands for what cannot be spelt: tables by stage, the user's code."""
        assert self.block is not None
        name = _word(self.block.rpartition(":")[2])
        spelt = [_word(f"{key}{value}") for key, value in self.settings if not isinstance(value, tuple)]
        if self.block == name and len(spelt) == len(self.settings):
            return [name, *spelt]
        what = json.dumps(self.model_dump(mode="json", exclude_defaults=True, exclude={"placement"}), sort_keys=True)
        return [name, *spelt, hashlib.blake2b(what.encode(), digest_size=3).hexdigest()]


def _word(text: str) -> str:
    return re.sub(r"[^a-z0-9._]+", "_", text.lower()).strip("_") or "block"


class Network(Spec):
    """The network that carries the variant: one of ours (Table 1 and others), of a library, or your own."""

    backbone: str
    """One of ours (`resnet14`, `resnet18`, `resnet26`, `resnet34`, `resnet50`, `resnet101`, `resnet152` of Table 1's
    kind; `preresnet11`, `preresnet20`, `preresnet110`, `preresnet164`, `wrn10-2`, `wrn16-8`, `vgg11`,
    `vgg16`, `smallinception`, `smallnet`);
    `torchvision:`, `timm:` or `pytorchcv:` and a name there; or your own `package.module:function`, called with
    `num_classes` and `in_channels`."""
    width: Annotated[int, Field(ge=1, le=1024)] = 64
    """Channels of the stem and of the first 3x3 convolutions; 64 is the full width, as in the paper."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """`imagenet`: a 7x7 convolution with stride 2, then max pooling; `small`: a 3x3 convolution, for small images."""
    stride_in: Literal["1x1", "3x3"] = "1x1"
    """Which convolution of a bottleneck halves the map: the first 1x1 (the paper) or the 3x3 (torchvision, timm)."""
    stem_pool: Literal["padded", "ceil"] = "padded"
    """How the stem's pooling meets the edge: `padded` all around (torchvision), or `ceil`, without padding and with a
    last window that may hang over the edge (Caffe, the released models)."""
    groups: Annotated[int, Field(ge=1, le=1024)] = 1
    """Groups of a bottleneck's 3x3 convolution: 32 in the paper's ResNeXt."""
    base_width: Annotated[int, Field(ge=1, le=1024)] = 64
    """Width of each group at the full width of 64: 4 in the paper's ResNeXt (32x4d)."""
    arguments: Settings = ()
    """Arguments for the function that builds a library's network or your own."""
    unstrided: Annotated[int, Field(ge=0, le=8)] = 0
    """How many halvings of the feature map are removed, from the first, so that a network made for large images works
    on small ones: strided layers get stride 1, and poolings of windows that do not overlap are left out."""
    units: str = ""
    """For a network of no known family: regular expression for the names of the modules that get a block each."""
    places: Places = ()
    """With `units`: where each position is, `before` or `after` a module of the unit: `{ standard = "after bn2" }`."""
    unit_stages: tuple[Annotated[int, Field(ge=0, le=100)], ...] = ()
    """The stage of each unit, if neither its name nor the side of its map tells."""
    pretrained: bool | str = False
    """Start from the weights that torchvision or timm publish (`true`), or from those in a file, a state dict. A file
    is identified by its digest, wherever it is stored; published weights by the version of the library."""
    source: str = ""
    """Digest of your own code and of the file of weights. It is found when the protocol is read; leave it out."""

    @field_validator("backbone")
    @classmethod
    def _known(cls, value: str) -> str:
        if is_ours(value):
            if value not in BACKBONES:
                raise ValueError(
                    f"no backbone {value!r}; {did_you_mean(value, BACKBONES)}; or one of a library, as timm:resnet18"
                )
        elif not re.fullmatch(r"[A-Za-z_][\w.]*:[\w.]+", value):
            raise ValueError(
                f"no backbone {value!r}; a library's is written {', '.join(f'{name}:NAME' for name in LIBRARIES)}, "
                "your own package.module:function"
            )
        return value

    @model_validator(mode="after")
    def _keys_fit_the_backbone(self) -> Self:
        known = BACKBONES.get(self.backbone)
        unused = {"width"} if known is None else {"arguments", "places", "pretrained", "unit_stages", "units"}
        if known is None or len(known.depths) != 4:  # not of Table 1
            unused |= {"base_width", "groups", "stem", "stem_pool", "stride_in"}
        elif known.kind == "basic":
            unused |= {"base_width", "groups"}
            if self.stride_in != "3x3":
                raise ValueError(f'{self.backbone} has basic blocks, without a 1x1 convolution: set stride_in = "3x3"')
        self.refuse_unused(sorted(unused), f"with backbone = {self.backbone!r}")
        if self.stem == "small":
            self.refuse_unused(["stem_pool"], "with stem = 'small'")
        if bool(self.units) != bool(self.places):
            raise ValueError(
                "units and places belong together: which modules are units, and where in them a block goes"
            )
        if self.pretrained is True and library(self.backbone) not in ("torchvision", "timm"):
            raise ValueError("pretrained = true is for networks of torchvision and timm; name a file of weights")
        return self

    def in_words(self, *, whole: bool = False) -> str:
        """What can be said of this network, `resnet14, width 16`; `whole` adds stem and stride of Table 1's kind."""
        known = BACKBONES.get(self.backbone)
        words = [self.backbone, *([f"width {self.width}"] if known else [])]
        if whole and known and len(known.depths) == 4:
            words += [f"{self.stem} stem", f"stride in the {self.stride_in}"]
        return ", ".join(words + (["pretrained"] if self.pretrained else []))

    @property
    def identity(self) -> Network:
        """The network without the place of its file of weights, whose digest `source` has."""
        is_file = isinstance(self.pretrained, str) and self.source
        return self.model_copy(update={"pretrained": "file"}) if is_file else self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and self.identity.__dict__ == other.identity.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.identity.__dict__.values()))

    @field_validator("units")
    @classmethod
    def _is_a_pattern(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"units = {value!r} is no regular expression: {error}") from None
        return value

    @property
    def family(self) -> Family:
        """Where blocks can be put in this network.

        Raises:
            ValueError: nothing is known of it and nothing declared.
        """
        if self.units:
            edges = {position: tuple(reversed(place.partition(" ")[::2])) for position, place in self.places}
            return Family(units=self.units, places=edges)  # type: ignore[arg-type]  # a place is checked below
        known = family(self.backbone)
        if known is None:
            raise ValueError(
                f"network.backbone = {self.backbone!r}: where do blocks go? Say it in two lines of [network], such as "
                "units = 'layer\\d\\.\\d+' and places = { standard = \"after bn2\" }"
            )
        return known


def differences(one: Variant, other: Variant) -> set[str]:
    """Names of the fields in which two networks differ, e.g. `{"se.gate"}`; a network without SE has no `se` fields.

    Where the two have different blocks, `block` stands for all that a block is given.
    """

    def fields(variant: Variant) -> dict[str, Any]:
        placement = {f"placement.{key}": value for key, value in variant.placement.model_dump().items()}
        se = variant.se.model_dump() if variant.se else {}
        kind = variant.block or ("se" if variant.se else None)
        what = (kind, variant.settings, variant.source)
        return {f"se.{key}": value for key, value in se.items()} | placement | {"block": what}

    left, right = fields(one), fields(other)
    differ = {key for key in left.keys() | right.keys() if left.get(key) != right.get(key)}
    if "block" in differ and not (one.is_plain or other.is_plain):
        differ = {key for key in differ if not key.startswith("se.")}
    return differ - ({"block"} if one.is_plain or other.is_plain else set())

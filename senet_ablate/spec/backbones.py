"""The plain networks and the places in them where a block can be put: sites as data (section 3.3, Fig. 5).

A unit is a module to which a block belongs; a place is an edge beside a module of the unit. `standard` is where the
paper puts SE in a family. Nothing here knows of any block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["basic", "bottleneck", "preact", "preact-bottleneck", "vgg", "inception", "small"]
EXPANSION: dict[Kind, int] = {"basic": 1, "bottleneck": 4, "preact": 1, "preact-bottleneck": 4}
"""Output channels of a unit per channel of its 3x3 convolutions."""

Side = Literal["before", "after", "replace"]
Place = tuple[str, Side]
"""A pattern of module names within the unit (empty: the unit itself), and the side of that module.

Where the side is `replace`, the block stands in the place of the first that matches, and the others become identities.
"""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """One of our networks: its kind of unit, the number of units in each stage, the width if the name gives it."""

    kind: Kind
    depths: tuple[int, ...]
    widen: int = 1


BACKBONES: dict[str, Backbone] = {
    "resnet14": Backbone(kind="bottleneck", depths=(1, 1, 1, 1)),
    "resnet18": Backbone(kind="basic", depths=(2, 2, 2, 2)),
    "resnet26": Backbone(kind="bottleneck", depths=(2, 2, 2, 2)),
    "resnet34": Backbone(kind="basic", depths=(3, 4, 6, 3)),
    "resnet50": Backbone(kind="bottleneck", depths=(3, 4, 6, 3)),
    "resnet101": Backbone(kind="bottleneck", depths=(3, 4, 23, 3)),
    "resnet152": Backbone(kind="bottleneck", depths=(3, 8, 36, 3)),
    "preresnet11": Backbone(kind="preact-bottleneck", depths=(1, 1, 1)),
    "preresnet20": Backbone(kind="preact", depths=(3, 3, 3)),
    "preresnet110": Backbone(kind="preact", depths=(18, 18, 18)),
    "preresnet164": Backbone(kind="preact-bottleneck", depths=(18, 18, 18)),
    "wrn10-2": Backbone(kind="preact", depths=(1, 1, 1), widen=2),
    "wrn16-8": Backbone(kind="preact", depths=(2, 2, 2), widen=8),
    "vgg11": Backbone(kind="vgg", depths=(1, 1, 2, 2, 2)),
    "vgg16": Backbone(kind="vgg", depths=(2, 2, 3, 3, 3)),
    "smallinception": Backbone(kind="inception", depths=(2, 4, 2)),
    "smallnet": Backbone(kind="small", depths=()),
}
"""Networks of our own, by name. Four stages: the residual networks of Table 1; three: those of Tables 4 and 5 for 32 px
(`widen` multiplies their widths) and a small Inception; five: VGG; none: a convolution, a ReLU, a 1x1 convolution and a
classifier."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Where blocks go in a kind of network.

    `units` is a pattern of module names that each match as a whole; `of_class` keeps those of one class. A group named
    `stage` in the pattern is a number from which the stage follows by adding `offset`; without it the stage is
    log2(side of the image / side of the unit's output), rounded. A block is its unit's child of the name `child`.
    """

    units: str
    of_class: str | None = None
    places: Mapping[str, Place]
    offset: int = 0
    child: str = "inserted"


_RESIDUAL = r"layer(?P<stage>\d)\.\d+"
_BASIC: dict[str, Place] = {
    "standard": ("bn2", "after"),
    "pre": ("conv1", "before"),
    "post": ("", "after"),
    "identity": ("downsample", "after"),
}
_BOTTLENECK = _BASIC | {
    "standard": ("bn3", "after"),
    "inner-3x3": ("conv3", "before"),
    "replace-3x3": ("conv2|bn2", "replace"),
}
_PREACT: dict[str, Place] = {"pre": ("bn1", "before"), "post": ("", "after"), "identity": ("downsample", "after")}
_NUMBERED = r"features\.stage(?P<stage>\d)\.unit\d+"

OURS: dict[Kind, Family] = {
    "basic": Family(units=_RESIDUAL, places=_BASIC, offset=1, child="se"),
    "bottleneck": Family(units=_RESIDUAL, places=_BOTTLENECK, offset=1, child="se"),
    "preact": Family(
        units=_RESIDUAL,
        of_class="PreActBlock",
        places={"standard": ("conv2", "after"), **_PREACT},
        offset=1,
    ),
    "preact-bottleneck": Family(
        units=_RESIDUAL,
        of_class="PreActBottleneck",
        places={"standard": ("conv3", "after"), **_PREACT, "inner-3x3": ("bn3", "before")},
        offset=1,
    ),
    "vgg": Family(units=r"features\.\d+", of_class="ReLU", places={"standard": ("", "after")}),
    "inception": Family(units=r"features\.unit\d_\d", places={"standard": ("", "after")}),
    "small": Family(units="features", places={"standard": ("relu", "after")}),
}

# Without an identity of that name where the shortcut is none: `identity` cannot be hooked there, so it is not offered.
_LIBRARY_BASIC = {name: place for name, place in _BASIC.items() if name != "identity"}
_LIBRARY_BOTTLENECK = {name: place for name, place in _BOTTLENECK.items() if name != "identity"}

FAMILIES: dict[str, Family] = {
    r"(torchvision|timm):.*resnet(18|34)": Family(units=_RESIDUAL, places=_LIBRARY_BASIC, offset=1),
    r"(torchvision|timm):.*resne(t|xt)\d+.*": Family(units=_RESIDUAL, places=_LIBRARY_BOTTLENECK, offset=1),
    r"(torchvision|timm):vgg\d+(_bn)?": Family(
        units=r"features\.\d+", of_class="ReLU", places={"standard": ("", "after")}
    ),
    r"timm:mobilenetv1_.*": Family(
        units=r"blocks\.\d+\.\d+",
        of_class="DepthwiseSeparableConv",
        places={"standard": ("", "after"), "inner-3x3": ("conv_pw", "before")},
    ),
    r"timm:inception_resnet_v2": Family(
        units=r"repeat(_\d)?\.\d+|block8", places={"standard": ("conv2d", "after"), "post": ("", "after")}
    ),
    r"pytorchcv:bninception": Family(units=_NUMBERED, places={"standard": ("", "after")}),
    r"pytorchcv:mobilenet_.*": Family(
        units=_NUMBERED, places={"standard": ("", "after"), "inner-3x3": ("pw_conv", "before")}
    ),
    r"pytorchcv:shufflenet_.*": Family(units=_NUMBERED, places={"standard": ("expand_bn3", "after")}),
    r"pytorchcv:resnext.*": Family(
        units=_NUMBERED, places={"standard": (r"body\.conv3", "after"), "post": ("", "after")}
    ),
    r"pytorchcv(\.models\.\w+)?:.*shakeshake.*": Family(units=_NUMBERED, places={"standard": (r"branch[12]", "after")}),
}
"""Families in the libraries by a pattern of the backbone's name; the first that matches is taken."""

LIBRARIES = ("torchvision", "timm", "pytorchcv")
"""Where a network is looked up by name; any other text before a colon is a module of the user's."""


def is_ours(backbone: str) -> bool:
    """Whether the network is built by this package."""
    return ":" not in backbone


def library(backbone: str) -> str | None:
    """The library that builds the network, if one does."""
    name = backbone.partition(":")[0]
    return name if ":" in backbone and name in LIBRARIES else None


def family(backbone: str) -> Family | None:
    """The known places of a network, or None for one that must declare its own."""
    if is_ours(backbone):
        return OURS[BACKBONES[backbone].kind]
    return next((each for pattern, each in FAMILIES.items() if re.fullmatch(pattern, backbone)), None)

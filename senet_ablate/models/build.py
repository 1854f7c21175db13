"""The one factory: network and variant in, module out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from senet_ablate.models.resnet import ResNet
from senet_ablate.seeding import initialise
from senet_ablate.spec.network import BACKBONES, Network, Placement, SEConfig, Variant


def build_network(
    network: Network, variant: Variant, *, in_channels: int, classes: int, seed: int | None = None
) -> ResNet:
    """Build `network` with the blocks of `variant`: images (N, in_channels, H, W) to logits (N, classes).

    With `seed` the weights are drawn from keyed streams, so that layers which two variants share start equal.

    Raises:
        ValueError: the network cannot carry the variant; the message says what would be right.
    """
    model = ResNet(network, variant, in_channels=in_channels, classes=classes)
    if seed is not None:
        initialise(model, seed)
    return model


def build_model(
    backbone: str,
    *,
    se: Mapping[str, Any] | None = MappingProxyType({}),
    stages: Literal["all"] | Sequence[int] = "all",
    position: str = "standard",
    num_classes: int = 1000,
    in_channels: int = 3,
    width: int = 64,
    stem: str = "imagenet",
    stride_in: str | None = None,
    stem_pool: str = "padded",
    seed: int = 0,
) -> ResNet:
    """Build a residual network with SE blocks from plain settings: images (N, in_channels, H, W) to logits.

    Args:
        backbone: a name such as `resnet50`.
        se: settings of the block (`squeeze`, `gate`, `reduction`, `bias`, `excitation`); `{}` is the paper's block,
            None no SE.
        stages: `"all"`, or stage numbers from 2 to 5 (Table 13).
        position: `standard`, `pre`, `post`, `identity` or `inner-3x3` (Tables 14 and 15).
        num_classes: number of classes.
        in_channels: 3 for colour, 1 for grey images.
        width: width of the stem and of the first 3x3 convolutions; 64 in the paper.
        stem: `imagenet`, or `small` for small images.
        stride_in: which convolution of a bottleneck halves the map; by default the paper's, `1x1`.
        stem_pool: how the stem's pooling meets the edge, `padded` or `ceil`.
        seed: of the first weights, which are drawn from keyed streams.

    Raises:
        ValueError: a setting has no such value, or the backbone cannot carry the block.

    Example:
        >>> model = build_model("resnet50", se={"gate": "tanh"}, stages=(3, 4), position="pre", num_classes=10)
    """
    known = BACKBONES.get(backbone)
    stride = stride_in or ("3x3" if known and known.block == "basic" else "1x1")
    network = Network.model_validate(
        {"backbone": backbone, "width": width, "stem": stem, "stride_in": stride, "stem_pool": stem_pool}
    )
    chosen = "all" if stages == "all" else tuple(stages)
    variant = Variant(
        se=SEConfig.model_validate(dict(se)) if se is not None else None,
        placement=Placement.model_validate({"stages": chosen, "position": position}),
    )
    return build_network(network, variant, in_channels=in_channels, classes=num_classes, seed=seed)

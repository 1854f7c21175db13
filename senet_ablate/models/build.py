"""The one factory: network and variant in, module out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from torch import nn

from senet_ablate.blocks.build import build_block
from senet_ablate.blocks.se import SqueezeExcitation
from senet_ablate.models.backbones import build_backbone
from senet_ablate.models.pretrained import load_pretrained
from senet_ablate.models.sites import Site, find_sites, fitting_family, insert
from senet_ablate.spec.backbones import BACKBONES, is_ours
from senet_ablate.spec.network import Network, Variant, at_stage
from senet_ablate.spec.sources import check_source, is_users, with_source


def build_network(
    network: Network, variant: Variant, *, in_channels: int, classes: int, resolution: int, seed: int | None = None
) -> nn.Module:
    """Build `network` with the blocks of `variant`: images (N, in_channels, H, W) to logits (N, classes).

    `resolution` is the side of the images, from which a block knows the side of its map. With `seed` the weights are
    drawn from keyed streams, so that layers which two variants share start equal; `network.pretrained` weights are
    loaded before any block is put in.

    Raises:
        ValueError: the network cannot carry the variant; the message says what would be right.
        UserError: a library, a file or code of the user's is missing, or changed since the run was planned.
    """
    task = {"in_channels": in_channels, "resolution": resolution}
    model = build_backbone(network, classes=classes, seed=seed, **task)
    load_pretrained(model, network)
    if not variant.is_plain:
        if variant.block is not None and is_users(variant.block):
            check_source(variant.block, variant.source)
        sites = find_sites(model, network.family, variant.placement, stages=network.unit_stages, **task)
        insert(model, sites, lambda site: _block(variant, site, model), seed)
    return model


def _block(variant: Variant, site: Site, model: nn.Module) -> nn.Module:
    if variant.se is not None:
        try:
            return SqueezeExcitation(site.channels, variant.se, stage=site.stage)
        except ValueError as error:
            raise ValueError(
                f"{error} (unit {site.unit}, {site.channels} channels {site.side} {site.module})"
            ) from None
    assert variant.block is not None
    settings = {key: at_stage(value, site.stage, f"settings.{key}") for key, value in variant.settings}
    replaced = model.get_submodule(site.module) if site.side == "replace" else None
    if replaced is not None and not isinstance(replaced, nn.Conv2d):
        raise ValueError(f"placement.position: {site.module} is no convolution that a block could replace")
    return build_block(
        variant.block,
        site.channels,
        size=site.size,
        stage=site.stage,
        index=site.index,
        replaced=replaced,
        settings=settings,
    )


def build_model(
    backbone: str,
    *,
    se: Mapping[str, Any] | None = MappingProxyType({}),
    block: str | None = None,
    settings: Mapping[str, Any] = MappingProxyType({}),
    block_source: str = "",
    stages: Literal["all"] | Sequence[int] = "all",
    position: str = "standard",
    num_classes: int = 1000,
    in_channels: int = 3,
    resolution: int = 224,
    seed: int = 0,
    **network: Any,
) -> nn.Module:
    """Build a network with attention blocks from plain settings: images (N, in_channels, H, W) to logits.

    Args:
        backbone: a name such as `resnet50`, `torchvision:vgg16_bn`, `timm:mobilenetv1_100`, `my_pkg.nets:make`.
        se: settings of the paper's block (`squeeze`, `gate`, `reduction`, `bias`, `residual`); `{}` is the
            paper's, None no SE.
        block: another block instead, `cbam` or `my_pkg.blocks:MyBlock`.
        settings: of that block.
        block_source: digest of the code of a block of your own, if it must be the one that was planned.
        stages: `"all"`, or stage numbers, from 2 to 5 in Table 1's networks (Table 13).
        position: `standard`, `pre`, `post`, `identity` or `inner-3x3` (Tables 14 and 15).
        num_classes: number of classes.
        in_channels: 3 for colour, 1 for grey images.
        resolution: side of the images in pixels.
        seed: of the initial weights, which are drawn from keyed streams.
        network: any other key of a protocol's `[network]`: `width`, `stem`, `stride_in`, `groups`, `unstrided`, ….

    Raises:
        ValueError: a setting has no such value, or the backbone cannot carry the block.

    Example:
        >>> model = build_model("resnet50", se={"gate": "tanh"}, stages=(3, 4), position="pre", num_classes=10)
    """
    if is_ours(backbone) and backbone in BACKBONES and BACKBONES[backbone].kind == "basic":
        network.setdefault("stride_in", "3x3")
    chosen = Network.model_validate({"backbone": backbone} | network)
    variant = _variant(se if block is None else None, block, settings, stages, position, block_source)
    task = {"in_channels": in_channels, "classes": num_classes, "resolution": resolution}
    return build_network(with_source(chosen), variant, **task, seed=seed)


def _variant(
    se: Mapping[str, Any] | None,
    block: str | None,
    settings: Mapping[str, Any],
    stages: Literal["all"] | Sequence[int],
    position: str,
    source: str = "",
) -> Variant:
    placement = {"stages": "all" if stages == "all" else tuple(stages), "position": position}
    given = {"se": dict(se) if se is not None else None, "block": block, "settings": dict(settings)}
    return with_source(Variant.model_validate(given | {"placement": placement, "source": source}))


def attach(
    model: nn.Module,
    block: str = "se",
    *,
    settings: Mapping[str, Any] = MappingProxyType({}),
    stages: Literal["all"] | Sequence[int] = "all",
    position: str = "standard",
    in_channels: int = 3,
    resolution: int = 224,
    seed: int = 0,
) -> nn.Module:
    """Put a block into a network that is there already, at its family's place, and return the network.

    Args:
        model: a network of torchvision, timm, pytorchcv or of the same structure; it is changed in place.
        block: `se`, another block of this package, or `package.module:Class`.
        settings: of the block.
        stages: `"all"`, or stage numbers.
        position: where in the unit; `standard` is where the paper puts SE in this family.
        in_channels: of the images.
        resolution: side of the images in pixels, from which a block knows the side of its map.
        seed: of the blocks' initial weights.

    Raises:
        ValueError: the network has no known structure or no such place.

    Example:
        >>> model = attach(torchvision.models.vgg11_bn(num_classes=10), "cbam", resolution=32)
    """
    if block == "se":
        variant = _variant(settings, None, {}, stages, position)
    else:
        variant = _variant(None, block, settings, stages, position)
    sites = find_sites(model, fitting_family(model), variant.placement, in_channels=in_channels, resolution=resolution)
    insert(model, sites, lambda site: _block(variant, site, model), seed)
    return model

"""Where every residual block stands: its widths, its maps, and what an SE block sees at each of the five sites."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from senet_ablate.spec.backbones import BACKBONES, EXPANSION, Kind
from senet_ablate.spec.network import Network, Variant, at_stage


@dataclass(frozen=True, kw_only=True)
class BlockShape:
    """One residual block: SE_`stage`_`index` in the paper's names, its widths, and the side of its maps in pixels."""

    kind: Kind
    stage: int
    index: int
    in_channels: int
    mid_channels: int
    out_channels: int
    stride: int
    in_side: int
    out_side: int

    @property
    def projects(self) -> bool:
        """Whether the shortcut is a 1x1 convolution, since map or width change."""
        return self.stride != 1 or self.in_channels != self.out_channels


def halved(side: int) -> int:
    """Side of a map after a stride-2 convolution or pooling with the usual padding."""
    return (side + 1) // 2


def stem_side(network: Network, resolution: int) -> int:
    """Side in pixels of the map that the stem gives to stage 2."""
    if network.stem == "small":
        return resolution
    side = halved(resolution)
    return side // 2 if network.stem_pool == "ceil" else halved(side)


def block_shapes(network: Network, resolution: int) -> Iterator[BlockShape]:
    """Yield every residual block of `network` for square images of side `resolution`, first to last."""
    backbone = BACKBONES[network.backbone]
    side = stem_side(network, resolution)
    channels = network.width
    for number, depth in enumerate(backbone.depths):
        mid = network.width * 2**number
        out = mid * EXPANSION[backbone.kind]
        for index in range(1, depth + 1):
            stride = 2 if number > 0 and index == 1 else 1
            out_side = halved(side) if stride == 2 else side
            yield BlockShape(
                kind=backbone.kind,
                stage=number + 2,
                index=index,
                in_channels=channels,
                mid_channels=mid,
                out_channels=out,
                stride=stride,
                in_side=side,
                out_side=out_side,
            )
            channels, side = out, out_side


def gated_sites(network: Network, variant: Variant, resolution: int) -> Iterator[tuple[BlockShape, int, int]]:
    """Yield (block, C, side) for each SE block that `variant` puts into `network`.

    Raises:
        ValueError: the variant cannot be built on this network: a position that its blocks do not have, or a
            reduction that leaves no hidden channel. The message names the field, its value and what would be right.
    """
    if variant.se is None:
        return
    position = variant.placement.position
    shapes = list(block_shapes(network, resolution))
    variant.placement.check_stages(shape.stage for shape in shapes)
    for shape in shapes:
        if not variant.placement.covers(shape.stage):
            continue
        if position == "inner-3x3" and shape.kind == "basic":
            raise ValueError(
                f'placement.position = "inner-3x3": a basic block of {network.backbone} has two 3x3 convolutions, so '
                "the place has no meaning; use a bottleneck network (resnet14, resnet26, resnet50, …)"
            )
        channels = {"pre": shape.in_channels, "inner-3x3": shape.mid_channels}.get(position, shape.out_channels)
        reduction = at_stage(variant.se.reduction, shape.stage, "se.reduction")
        if channels < reduction:
            raise ValueError(
                f"se.reduction = {reduction} leaves no hidden channel in block {shape.stage}_{shape.index}, where the "
                f"{position} place of {network.backbone} at width {network.width} has {channels} channels; use a "
                f"reduction of at most {channels} or a wider network"
            )
        yield shape, channels, shape.in_side if position == "pre" else shape.out_side

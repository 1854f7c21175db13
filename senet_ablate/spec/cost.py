"""Closed-form size and cost of the networks, without building them.

The paper's Eq. 5 counts the parameters that SE adds, (2/r) sum N_s C_s^2, for the standard place and without
biases. Here it is extended to all five sites, to biases and to no-squeeze, and set beside the same
arithmetic for the plain ResNet. Tests hold both equal to the traced modules for every arm at every scale.
The counting convention is the one of `models/survey.py`.
"""

from __future__ import annotations

from senet_ablate.spec.backbones import BACKBONES, EXPANSION, is_ours
from senet_ablate.spec.geometry import block_shapes, gated_sites, halved
from senet_ablate.spec.network import Network, Variant, at_stage
from senet_ablate.spec.protocol import Complexity


def has_closed_form(network: Network, variant: Variant) -> bool:
    """Whether size and cost follow from the formulas here; all other networks are built and surveyed."""
    table_1 = is_ours(network.backbone) and len(BACKBONES[network.backbone].depths) == 4
    usual = (network.groups, network.base_width, network.unstrided) == (1, 64, 0)
    known = ("standard", "pre", "post", "identity", "inner-3x3")
    return table_1 and usual and variant.block is None and variant.placement.position in known


def added_cost(network: Network, variant: Variant, resolution: int) -> Complexity:
    """Count what the SE blocks add to the plain network (Eq. 5, extended): 2 C (C // r) weights per block.

    Multiply-adds: the layers once per image and one per element that the squeeze reads; without squeeze the
    layers at every pixel. SE has no batch normalisation, so both parameter counts are equal.

    Raises:
        ValueError: the variant cannot be built on this network (see `geometry.gated_sites`).
    """
    params = macs = 0
    if variant.se is not None:
        for shape, channels, side in gated_sites(network, variant, resolution):
            hidden = channels // at_stage(variant.se.reduction, shape.stage, "se.reduction")
            once, pixels = 2 * channels * hidden, side * side
            params += once + (hidden + channels if variant.se.bias else 0)
            macs += once * pixels if variant.se.squeeze == "none" else once + channels * pixels
    return Complexity(params=params, params_with_bn_stats=params, macs=macs)


def plain_cost(network: Network, *, in_channels: int, classes: int, resolution: int) -> Complexity:
    """Count the plain ResNet: convolutions, batch normalisations (2 parameters, 2 statistics a channel), classifier."""
    params = norm_channels = macs = 0

    def conv(channels: int, out: int, kernel: int, side: int) -> None:
        nonlocal params, norm_channels, macs
        weights = channels * out * kernel * kernel
        params += weights
        macs += weights * side * side
        norm_channels += out  # every convolution is followed by a batch normalisation

    large = network.stem == "imagenet"
    conv(in_channels, network.width, 7 if large else 3, halved(resolution) if large else resolution)
    for shape in block_shapes(network, resolution):
        if shape.kind == "basic":
            conv(shape.in_channels, shape.mid_channels, 3, shape.out_side)
            conv(shape.mid_channels, shape.out_channels, 3, shape.out_side)
        else:
            first_side = shape.out_side if network.stride_in == "1x1" else shape.in_side
            conv(shape.in_channels, shape.mid_channels, 1, first_side)
            conv(shape.mid_channels, shape.mid_channels, 3, shape.out_side)
            conv(shape.mid_channels, shape.out_channels, 1, shape.out_side)
        if shape.projects:
            conv(shape.in_channels, shape.out_channels, 1, shape.out_side)
    features = network.width * 8 * EXPANSION[BACKBONES[network.backbone].kind]
    params += 2 * norm_channels + features * classes + classes
    macs += features * classes
    return Complexity(params=params, params_with_bn_stats=params + 2 * norm_channels, macs=macs)


def total_cost(network: Network, variant: Variant, *, in_channels: int, classes: int, resolution: int) -> Complexity:
    """Count the whole network: the plain ResNet and what the variant adds to it."""
    plain = plain_cost(network, in_channels=in_channels, classes=classes, resolution=resolution)
    added = added_cost(network, variant, resolution)
    return Complexity(
        params=plain.params + added.params,
        params_with_bn_stats=plain.params_with_bn_stats + added.params_with_bn_stats,
        macs=plain.macs + added.macs,
    )


PAPER_NETWORK = Network(backbone="resnet50")
PAPER_RESOLUTION = 224
PAPER_CLASSES = 1000

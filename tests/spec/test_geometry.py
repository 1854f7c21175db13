"""Under test: `geometry`, which says where each block stands and what an SE block sees at each of the five sites."""

import pytest
import torch
from torch import nn

from senet_ablate.blocks.se import SqueezeExcitation
from senet_ablate.models.build import build_network
from senet_ablate.spec.backbones import BACKBONES
from senet_ablate.spec.geometry import block_shapes, gated_sites, stem_side
from senet_ablate.spec.network import Network, Placement, SEConfig, Variant

POSITIONS = ("standard", "pre", "post", "identity", "inner-3x3")


def gated(position: str, reduction: int = 1, **placement) -> Variant:
    return Variant(se=SEConfig(reduction=reduction), placement=Placement(position=position, **placement))


def test_resnet50_blocks_are_those_of_table_1():
    by_hand = []  # stage, index, in, mid, out, stride, side before, side after
    channels = 64
    for stage, count, mid, out, before, after in [
        (2, 3, 64, 256, 56, 56),
        (3, 4, 128, 512, 56, 28),
        (4, 6, 256, 1024, 28, 14),
        (5, 3, 512, 2048, 14, 7),
    ]:
        by_hand.append((stage, 1, channels, mid, out, before // after, before, after))
        by_hand += [(stage, index, out, mid, out, 1, after, after) for index in range(2, count + 1)]
        channels = out
    shapes = list(block_shapes(Network(backbone="resnet50"), 224))
    assert [
        (s.stage, s.index, s.in_channels, s.mid_channels, s.out_channels, s.stride, s.in_side, s.out_side)
        for s in shapes
    ] == by_hand
    assert [(s.stage, s.index) for s in shapes if s.projects] == [(2, 1), (3, 1), (4, 1), (5, 1)]


def test_resnet34_blocks_are_as_wide_outside_as_inside_and_do_not_project_in_stage_2():
    shapes = list(block_shapes(Network(backbone="resnet34", stride_in="3x3"), 224))
    assert [s.out_channels for s in shapes] == [64] * 3 + [128] * 4 + [256] * 6 + [512] * 3
    assert [s.mid_channels for s in shapes] == [s.out_channels for s in shapes]
    assert [(s.stage, s.index) for s in shapes if s.projects] == [(3, 1), (4, 1), (5, 1)]


@pytest.mark.parametrize(
    ("backbone", "layers"),
    [(name, int(name.removeprefix("resnet"))) for name, each in BACKBONES.items() if len(each.depths) == 4],
)
def test_a_backbone_is_named_after_its_number_of_weighted_layers(backbone, layers):
    blocks = list(block_shapes(Network(backbone=backbone, stride_in="3x3"), 224))
    per_block = {"basic": 2, "bottleneck": 3}
    assert 1 + sum(per_block[block.kind] for block in blocks) + 1 == layers


@pytest.mark.parametrize("pool", ["padded", "ceil"])
@pytest.mark.parametrize("resolution", [4, 5, 7, 32, 33, 34, 35, 45, 223, 224, 225, 226])
def test_the_stem_gives_the_side_that_torchs_pooling_gives(pool, resolution):
    network = Network(backbone="resnet14", width=2, stem_pool=pool)
    model = build_network(network, Variant(), in_channels=1, classes=2, resolution=resolution)
    side = model.maxpool(model.conv1(torch.zeros(1, 1, resolution, resolution))).shape[-1]
    assert stem_side(network, resolution) == side == next(block_shapes(network, resolution)).in_side


def test_each_site_of_a_bottleneck_sees_its_own_map():
    def at(position) -> tuple[int, int]:  # of 3_1: 256 channels of 56x56 to 512 of 28x28
        variant = Variant(se=SEConfig(), placement=Placement(position=position))
        return list(gated_sites(Network(backbone="resnet50"), variant, 224))[3][1:]

    assert {position: at(position) for position in POSITIONS} == {
        "standard": (512, 28),
        "pre": (256, 56),
        "post": (512, 28),
        "identity": (512, 28),
        "inner-3x3": (128, 28),
    }


@pytest.mark.parametrize("stages", ["all", (2,), (3, 5)])
def test_gated_sites_are_the_blocks_of_the_chosen_stages(stages):
    sites = gated_sites(Network(backbone="resnet50"), gated("standard", stages=stages), 224)
    counts = {2: 3, 3: 4, 4: 6, 5: 3}
    chosen = counts if stages == "all" else stages
    by_hand = [(stage, index) for stage in chosen for index in range(1, counts[stage] + 1)]
    assert [(shape.stage, shape.index) for shape, _, _ in sites] == by_hand


def test_plain_network_has_no_sites():
    assert list(gated_sites(Network(backbone="resnet50"), Variant(), 224)) == []


@pytest.mark.parametrize(
    ("network", "resolution", "position"),
    [
        (network, resolution, position)
        for network, resolution in [
            (Network(backbone="resnet26", width=4), 45),
            (Network(backbone="resnet26", width=4, stride_in="3x3"), 64),
            (Network(backbone="resnet14", width=4, stem="small"), 9),
            (Network(backbone="resnet18", width=4, stem="small", stride_in="3x3"), 9),
        ]
        for position in POSITIONS
        if (network.backbone, position) != ("resnet18", "inner-3x3")  # refused
    ],
)
def test_sites_are_what_the_modules_see(network, resolution, position):
    variant = gated(position)
    seen = []
    model = build_network(network, variant, in_channels=3, classes=2, resolution=resolution).eval()
    for module in model.modules():
        if isinstance(module, SqueezeExcitation):
            module.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    with torch.no_grad():
        model(torch.zeros(1, 3, resolution, resolution))
    assert seen == [(1, channels, side, side) for _, channels, side in gated_sites(network, variant, resolution)]


@pytest.mark.parametrize("resolution", [45, 64])
def test_block_shapes_are_what_the_blocks_take_and_give(resolution):
    network = Network(backbone="resnet26", width=4)
    model = build_network(network, Variant(), in_channels=3, classes=2, resolution=resolution).eval()
    seen = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        for block in stage:
            block.register_forward_hook(
                lambda block, args, out: seen.append(
                    (*args[0].shape[1:3], *out.shape[1:3], isinstance(block.downsample, nn.Sequential))
                )
            )
    with torch.no_grad():
        model(torch.zeros(1, 3, resolution, resolution))
    shapes = block_shapes(network, resolution)
    assert seen == [(s.in_channels, s.in_side, s.out_channels, s.out_side, s.projects) for s in shapes]


@pytest.mark.parametrize(
    ("position", "channels"), [("standard", 32), ("pre", 8), ("post", 32), ("identity", 32), ("inner-3x3", 8)]
)
def test_reduction_may_be_as_large_as_the_narrowest_site_and_no_larger(position, channels):
    network = Network(backbone="resnet14", width=8)
    assert len(list(gated_sites(network, gated(position, channels), 32))) == 4
    with pytest.raises(ValueError, match="leaves no hidden channel in block 2_1") as caught:
        list(gated_sites(network, gated(position, channels + 1), 32))
    assert str(caught.value).startswith(f"se.reduction = {channels + 1} leaves no hidden channel in block 2_1, where ")
    assert str(caught.value).endswith(f"use a reduction of at most {channels} or a wider network")


def test_a_stage_that_is_not_gated_does_not_limit_the_reduction():
    network = Network(backbone="resnet14", width=8)
    assert [channels for _, channels, _ in gated_sites(network, gated("pre", 100, stages=(5,)), 32)] == [128]

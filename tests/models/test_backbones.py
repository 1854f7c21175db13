"""The networks of the paper's Tables 2 to 5 by their sizes and costs, counted by hand or from the papers' own files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

from senet_ablate.errors import UserError
from senet_ablate.models.backbones import build_backbone, remove_strides
from senet_ablate.models.build import build_network
from senet_ablate.models.survey import count_complexity, fvcore_macs, survey
from senet_ablate.spec.network import Network, SEConfig, Variant
from senet_ablate.spec.sources import with_source

PLAIN, SE = Variant(), Variant(se=SEConfig())


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a network: parameters (with running statistics), multiply-adds, and what SE adds to it.

    `sites` are stage, channels, side of the map and number of sites, from the first to the last; pytorchcv numbers its
    stages itself.
    """

    network: dict[str, Any]
    params: int
    stats: int | None = None
    macs: int | None = None
    se_params: int
    se_macs: int
    sites: tuple[tuple[int, int, int, int], ...]
    resolution: int = 224
    classes: int = 1000
    in_channels: int = 3
    se: dict[str, Any] = field(default_factory=dict)


def bottlenecks(*depths: int) -> tuple[tuple[int, int, int, int], ...]:
    """The sites of a residual network of bottlenecks at 224 pixels."""
    return tuple(
        (stage, 64 * 2**stage, 224 // 2**stage, depth) for stage, depth in zip((2, 3, 4, 5), depths, strict=True)
    )


def three_stages(channels: int, depth: int) -> tuple[tuple[int, int, int, int], ...]:
    """The sites of a network of three stages at 32 pixels, `channels` wide in the first."""
    return tuple((stage, channels * 2**number, 32 // 2**number, depth) for number, stage in enumerate((2, 3, 4)))


RESNEXT = {"groups": 32, "base_width": 4, "stride_in": "3x3"}
SHAKE = {
    "backbone": "pytorchcv.models.shakeshakeresnet_cifar:get_shakeshakeresnet_cifar",
    "arguments": {"blocks": 26, "bottleneck": False, "first_stage_channels": 96},
    "units": r"features\.stage\d\.unit\d+",
}
KNOWN = {
    "ResNet-50": Known(
        network={"backbone": "resnet50"}, params=25_557_032, stats=25_610_152, macs=3_857_973_248,
        se_params=2_514_944, se_macs=8_034_304, sites=bottlenecks(3, 4, 6, 3),
    ),
    "ResNet-101": Known(
        network={"backbone": "resnet101"}, params=44_549_160, stats=44_654_504, macs=7_570_194_432,
        se_params=4_743_168, se_macs=13_674_496, sites=bottlenecks(3, 4, 23, 3),
    ),
    "ResNet-152": Known(
        network={"backbone": "resnet152"}, params=60_192_808, stats=60_344_232, macs=11_282_415_616,
        se_params=6_578_176, se_macs=19_724_288, sites=bottlenecks(3, 8, 36, 3),
    ),
    "ResNet-50 as torchvision has it": Known(
        network={"backbone": "torchvision:resnet50"}, params=25_557_032, stats=25_610_152, macs=4_089_184_256,
        se_params=2_514_944, se_macs=8_034_304, sites=bottlenecks(3, 4, 6, 3),
    ),
    "ResNeXt-50": Known(
        network={"backbone": "resnet50"} | RESNEXT, params=25_028_904, stats=25_097_128, macs=4_230_479_872,
        se_params=2_514_944, se_macs=8_034_304, sites=bottlenecks(3, 4, 6, 3),
    ),
    "ResNeXt-101": Known(
        network={"backbone": "resnet101"} | RESNEXT, params=44_177_704, stats=44_315_560, macs=7_969_996_800,
        se_params=4_743_168, se_macs=13_674_496, sites=bottlenecks(3, 4, 23, 3),
    ),
    "VGG-16": Known(
        network={"backbone": "torchvision:vgg16_bn"}, params=138_365_992, stats=138_374_440, macs=15_470_264_320,
        se_params=226_304, se_macs=13_773_824,
        sites=((0, 64, 224, 2), (1, 128, 112, 2), (2, 256, 56, 3), (3, 512, 28, 3), (4, 512, 14, 3)),
    ),
    "BN-Inception": Known(
        network={"backbone": "pytorchcv:bninception"}, params=11_295_240, stats=11_315_272, macs=2_032_600_064,
        se_params=639_360, se_macs=1_820_064,
        sites=(
            (1, 256, 28, 1), (1, 320, 28, 1), (2, 576, 14, 3), (2, 608, 14, 2), (3, 1056, 7, 1), (3, 1024, 7, 2),
        ),
    ),
    "Inception-ResNet-v2": Known(
        network={"backbone": "timm:inception_resnet_v2"}, resolution=299,
        params=55_843_464, stats=55_904_008, macs=13_155_794_016, se_params=8_495_360, se_macs=20_035_200,
        sites=((3, 320, 35, 10), (4, 1088, 17, 20), (5, 2080, 8, 10)),
    ),
    "MobileNet, timm": Known(
        network={"backbone": "timm:mobilenetv1_100"}, params=4_231_976, stats=4_253_864, macs=568_740_352,
        se_params=479_744, se_macs=3_189_248,
        sites=((1, 64, 112, 1), (2, 128, 56, 2), (3, 256, 28, 2), (4, 512, 14, 6), (5, 1024, 7, 2)),
    ),
    "MobileNet, pytorchcv": Known(
        network={"backbone": "pytorchcv:mobilenet_w1"}, params=4_231_976, stats=4_253_864, macs=568_740_352,
        se_params=479_744, se_macs=3_189_248,
        sites=((1, 64, 112, 1), (2, 128, 56, 2), (3, 256, 28, 2), (4, 512, 14, 6), (5, 1024, 7, 2)),
    ),
    "ShuffleNet": Known(
        network={"backbone": "pytorchcv:shufflenet_g3_w1"}, params=1_865_728, stats=1_890_208, macs=137_460_672,
        se_params=610_416, se_macs=2_214_480,
        sites=(
            (1, 216, 28, 1), (1, 240, 28, 3), (2, 240, 14, 1), (2, 480, 14, 7), (3, 480, 7, 1), (3, 960, 7, 3),
        ),
    ),
    "pre-activation ResNet-110": Known(
        network={"backbone": "preresnet110"}, resolution=32, classes=10,
        params=1_730_522, macs=253_149_824, se_params=12_096, se_macs=528_192, sites=three_stages(16, 18),
    ),
    "pre-activation ResNet-164": Known(
        network={"backbone": "preresnet164"}, resolution=32, classes=10,
        params=1_703_258, macs=247_646_720, se_params=193_536, se_macs=2_257_920, sites=three_stages(64, 18),
    ),
    "WRN-16-8": Known(
        network={"backbone": "wrn16-8"}, resolution=32, classes=10,
        params=10_961_370, macs=1_548_145_664, se_params=86_016, se_macs=544_768, sites=three_stages(128, 2),
    ),
    "pre-activation ResNet-110, 100 classes": Known(
        network={"backbone": "preresnet110"}, resolution=32, classes=100,
        params=1_736_372, se_params=12_096, se_macs=528_192, sites=three_stages(16, 18),
    ),
    "pre-activation ResNet-164, 100 classes": Known(
        network={"backbone": "preresnet164"}, resolution=32, classes=100,
        params=1_726_388, se_params=193_536, se_macs=2_257_920, sites=three_stages(64, 18),
    ),
    "WRN-16-8, 100 classes": Known(
        network={"backbone": "wrn16-8"}, resolution=32, classes=100,
        params=11_007_540, se_params=86_016, se_macs=544_768, sites=three_stages(128, 2),
    ),
    "Shake-Shake 26 2x96d, SE in one branch": Known(
        network=SHAKE | {"places": {"standard": "after branch1"}}, resolution=32, classes=10,
        params=26_192_922, macs=3_776_892_672, se_params=96_768, se_macs=784_896,
        sites=((0, 96, 32, 4), (1, 192, 16, 4), (2, 384, 8, 4)),
    ),
    "Shake-Shake 26 2x96d, SE in both branches": Known(
        network=SHAKE | {"places": {"standard": "after branch."}}, resolution=32, classes=10,
        params=26_192_922, macs=3_776_892_672, se_params=193_536, se_macs=1_569_792,
        sites=((0, 96, 32, 8), (1, 192, 16, 8), (2, 384, 8, 8)),
    ),
    "small grey network": Known(
        network={"backbone": "smallnet"}, resolution=28, classes=10, in_channels=1, se={"reduction": 2},
        params=8_203, stats=8_203, macs=258_720, se_params=1_024, se_macs=26_112, sites=((0, 32, 28, 1),),
    ),
}  # fmt: skip
"""Of the architectures at the paper's sizes: built once from other code and counted by hand where that is short."""


@pytest.mark.parametrize("name", KNOWN)
def test_size_cost_and_sites_are_the_known_ones_to_the_last_integer(name):
    known = KNOWN[name]
    where, colon, _ = known.network["backbone"].partition(":")
    if colon:
        pytest.importorskip(where.partition(".")[0])
    network = with_source(Network.model_validate(known.network))
    task = {"in_channels": known.in_channels, "classes": known.classes, "resolution": known.resolution}
    with_se = survey(network, Variant(se=SEConfig(**known.se)), **task)
    plain = survey(network, PLAIN, **task)
    assert plain.sites == ()
    assert plain.total.params == known.params
    assert known.stats in (None, plain.total.params_with_bn_stats)
    assert known.macs in (None, plain.total.macs)
    assert (with_se.added.params, with_se.added.macs) == (known.se_params, known.se_macs)
    assert with_se.total.params == known.params + known.se_params
    assert with_se.total.macs == plain.total.macs + known.se_macs
    shapes = [(stage, channels, side) for stage, channels, side, number in known.sites for _ in range(number)]
    assert [(site.stage, site.channels, site.size) for site in with_se.sites] == shapes
    assert len({site.name for site in with_se.sites}) == len(shapes)


# 2 C (C // r) weights in each of 3, 4, 6, 3 blocks of 256, 512, 1024, 2048 channels, by hand.
@pytest.mark.parametrize(
    ("ratios", "added"),
    [
        ((16, 16, 16, 16), 2_514_944),
        ((4, 8, 16, 32), 1_933_312),
        ((2, 4, 8, 16), 3_866_624),
        ((32, 16, 8, 4), 8_007_680),
        ((16, 16, 16, 32), 1_728_512),
    ],
)
def test_ratios_per_stage_cost_a_resnet_50_what_hand_arithmetic_says(ratios, added):
    variant = Variant(se=SEConfig(reduction=dict(zip((2, 3, 4, 5), ratios, strict=True))))
    found = survey(Network(backbone="resnet50"), variant, in_channels=3, classes=1000, resolution=224)
    assert found.added.params == added
    assert found.added.macs == added + 5_519_360  # what the squeezes read does not depend on r
    hidden = [256 // ratios[0], 512 // ratios[1], 1024 // ratios[2], 2048 // ratios[3]]
    per_stage = [2 * 256 * hidden[0] * 3, 2 * 512 * hidden[1] * 4, 2 * 1024 * hidden[2] * 6, 2 * 2048 * hidden[3] * 3]
    assert sum(per_stage) == added


def test_a_ratio_that_is_missing_for_a_stage_is_told():
    variant = Variant(se=SEConfig(reduction={2: 4, 3: 8}))
    with pytest.raises(ValueError, match=r"se.reduction = \{'2': 4, '3': 8\} has no value for stage 4.*add `4 = …`"):
        build_network(Network(backbone="resnet14"), variant, in_channels=3, classes=10, resolution=64)


def test_selective_kernels_in_the_place_of_the_3x3_make_a_resnext_50_an_sknet_50():
    variant = Variant.model_validate({"block": "sk", "placement": {"position": "replace-3x3"}})
    network = Network.model_validate({"backbone": "resnet50"} | RESNEXT)
    found = survey(network, variant, in_channels=3, classes=1000, resolution=224)
    assert found.total.params == 27_479_784  # pytorchcv's sknet50, the authors' 27.5 M
    assert len(found.sites) == 16


@pytest.mark.parametrize(
    ("network", "variant"),
    [
        (Network(backbone="wrn10-2", width=32), SE),
        (Network.model_validate({"backbone": "resnet14", "width": 16, "stem": "small"} | RESNEXT), SE),
        (Network(backbone="resnet14", width=16, stem="small"), Variant(se=SEConfig(squeeze="max"))),
    ],
    ids=["wide", "grouped", "max"],
)
def test_fvcore_counts_the_same(network, variant):
    model = build_network(network, variant, in_channels=3, classes=10, resolution=16)
    assert (
        fvcore_macs(model, in_channels=3, resolution=16) == count_complexity(model, in_channels=3, resolution=16).macs
    )


def test_the_small_inception_has_the_printed_number_of_weights():
    """1,649,402 in Table 1 of arXiv 1611.03530, whose batch normalisation has a shift and no scale."""
    with torch.device("meta"):
        model = build_backbone(Network(backbone="smallinception"), in_channels=3, classes=10, resolution=28)
    scales = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    assert sum(weight.numel() for weight in model.parameters()) - scales == 1_649_402


def test_se_stands_after_each_module_of_the_small_inception():
    found = survey(Network(backbone="smallinception"), SE, in_channels=3, classes=10, resolution=32)
    widths = {32: (64, 80), 16: (160, 160, 160, 144), 8: (336, 336)}  # sums of both branches, by side of the map
    assert [(site.size, site.channels) for site in found.sites] == [(s, c) for s in widths for c in widths[s]]


TASK = {"in_channels": 1, "classes": 7, "resolution": 32}
SMALL = {
    "torchvision:resnext50_32x4d": {"unstrided": 2},
    "timm:mobilenetv1_100": {"unstrided": 1},
    "timm:resnet18": {},
    "pytorchcv:shufflenet_g3_wd4": {"unstrided": 2},
    "pytorchcv:mobilenet_wd4": {},
    "wrn10-2": {"width": 16},
    "smallinception": {"width": 16},
    "smallnet": {},
}


@pytest.mark.parametrize("backbone", SMALL)
def test_networks_take_images_of_any_channels_and_any_number_of_classes(backbone):
    if ":" in backbone:
        pytest.importorskip(backbone.partition(":")[0])
    network = Network.model_validate({"backbone": backbone} | SMALL[backbone])
    model = build_network(network, Variant(se=SEConfig(reduction=4)), **TASK, seed=0)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    "backbone", ["timm:mobilenetv1_100", "pytorchcv:mobilenet_wd4", "torchvision:resnet18", "wrn10-2"]
)
def test_first_weights_follow_the_seed_alone_and_the_shared_generator_stays(backbone):
    if ":" in backbone:
        pytest.importorskip(backbone.partition(":")[0])

    def weights(state, seed):
        torch.manual_seed(state)
        return build_backbone(Network(backbone=backbone), **TASK, seed=seed).state_dict()

    one, again, other = weights(1, 5), weights(2, 5), weights(1, 6)
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    drawn = [name for name, value in one.items() if value.dim() > 1]
    assert not any(torch.equal(one[name], other[name]) for name in drawn)
    if ":" in backbone:
        before = torch.random.get_rng_state()
        build_backbone(Network(backbone=backbone), **TASK, seed=0)
        assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("count", "sides"), [(0, [8, 4, 2, 1]), (1, [16, 8, 4, 2]), (2, [32, 16, 8, 4]), (3, [32, 32, 16, 8])]
)
def test_removing_strides_keeps_the_first_maps_large(count, sides):
    model = build_backbone(Network(backbone="torchvision:resnet18"), in_channels=3, classes=10, resolution=32)
    remove_strides(model, count, in_channels=3, resolution=32)
    found = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        stage.register_forward_hook(lambda module, inputs, output: found.append(output.shape[-1]))
    model.eval()(torch.zeros(1, 3, 32, 32))
    assert found == sides


def test_more_strides_than_a_network_has_cannot_be_removed():
    with pytest.raises(ValueError, match=r"network.unstrided = 6, but the network halves its maps 5 times"):
        build_backbone(Network(backbone="torchvision:resnet18", unstrided=6), in_channels=3, classes=10, resolution=32)


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ("torchvision:resnet19", "did you mean 'resnet18'"),
        ("timm:mobilenetv1_10", "did you mean 'mobilenetv1_100'"),
        ("torchvision:vgg16_nb", "did you mean 'vgg16_bn'"),
    ],
)
def test_a_name_that_a_library_does_not_have_is_refused_with_the_nearest(backbone, words):
    pytest.importorskip(backbone.partition(":")[0])
    with pytest.raises(ValueError, match=words):
        build_backbone(Network(backbone=backbone), **TASK)


def test_a_library_that_is_not_installed_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pytorchcv.model_provider", None)
    with pytest.raises(
        UserError, match=r"pytorchcv is not installed; in the clone of senet-ablate: pip install '.\[nets\]'"
    ):
        build_backbone(Network(backbone="pytorchcv:bninception"), **TASK)


def test_a_network_whose_places_are_not_known_says_what_to_declare():
    network = Network(backbone="torchvision:alexnet")
    with pytest.raises(ValueError, match=r"where do blocks go\? Say it in two lines of \[network\]"):
        build_network(network, SE, in_channels=3, classes=10, resolution=64)


@pytest.mark.parametrize(
    ("backbone", "key", "value"),
    [
        ("timm:resnet18", "width", 32),
        ("timm:resnet18", "groups", 32),
        ("wrn16-8", "stem", "small"),
        ("smallnet", "groups", 2),
        ("resnet50", "units", "layer"),
        ("resnet50", "pretrained", True),
    ],
)
def test_a_key_without_a_meaning_for_the_backbone_is_refused(backbone, key, value):
    with pytest.raises(ValueError, match=f"{key} has no meaning with backbone = '{backbone}'; leave it out"):
        Network.model_validate({"backbone": backbone, key: value})

"""Under test: `cost`, the closed-form cost of the networks, against traced modules, Eq. 5 and hand counts."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from senet_ablate.models.build import build_network
from senet_ablate.models.survey import count_complexity
from senet_ablate.spec.ablation import arms
from senet_ablate.spec.cost import added_cost, has_closed_form, plain_cost, total_cost
from senet_ablate.spec.loading import load_ablations, load_protocol
from senet_ablate.spec.network import Network, Placement, SEConfig, Variant
from senet_ablate.spec.protocol import CHANNELS_AND_CLASSES, Complexity

ABLATIONS = Path(__file__).parents[2] / "ablations"
TABLES = load_ablations(ABLATIONS) + load_ablations(ABLATIONS, ["controls", "pruning", "attention"])
NETWORKS = [variant for variant in dict.fromkeys(arm.variant for arm in arms(TABLES)) if variant.block is None]
PROTOCOLS = [load_protocol(ABLATIONS, path.stem) for path in sorted((ABLATIONS / "protocols").glob("*.toml"))]
RESNET50 = Network(backbone="resnet50")
PLAIN, SE = Variant(), Variant(se=SEConfig())


def traced(network: Network, variant: Variant, *, in_channels: int, classes: int, resolution: int) -> Complexity:
    """Count the built modules; their weights are left empty, which costs no time and changes no count."""
    with torch.device("meta"):
        model = build_network(network, variant, in_channels=in_channels, classes=classes, resolution=resolution)
    return count_complexity(model.to_empty(device="cpu"), in_channels=in_channels, resolution=resolution)


def assert_closed_form_is_traced(network: Network, variant: Variant, **task: int) -> None:
    assert total_cost(network, variant, **task) == traced(network, variant, **task)


def at(position: str) -> Variant:
    return Variant(se=SEConfig(), placement=Placement(position=position))


def stage(*stages: int) -> Variant:
    return Variant(se=SEConfig(), placement=Placement(stages=stages))


@pytest.mark.parametrize("variant", NETWORKS, ids=lambda variant: variant.slug)
def test_every_arm_costs_what_its_trace_counts_at_the_papers_scale(variant):
    assert_closed_form_is_traced(RESNET50, variant, in_channels=3, classes=1000, resolution=224)


SMALL = {
    (protocol.network, *CHANNELS_AND_CLASSES[protocol.data.dataset], protocol.data.resolution): protocol.name
    for protocol in PROTOCOLS
    if protocol.network != RESNET50 and has_closed_form(protocol.network, PLAIN)
}


@pytest.mark.parametrize("variant", NETWORKS, ids=lambda variant: variant.slug)
@pytest.mark.parametrize("task", SMALL, ids=SMALL.get)
def test_every_arm_of_every_protocol_costs_what_its_trace_counts(task, variant):
    network, channels, classes, side = task
    assert_closed_form_is_traced(network, variant, in_channels=channels, classes=classes or 7, resolution=side)


def test_imagenet_protocols_have_the_papers_network():
    large = [protocol for protocol in PROTOCOLS if protocol.network == RESNET50]
    assert len(large) == 2
    assert all(protocol.data.resolution == 224 for protocol in large)


@settings(max_examples=25)
@given(st.data())
def test_any_network_costs_what_its_trace_counts(data):
    backbone = data.draw(st.sampled_from(["resnet14", "resnet18", "resnet26", "resnet34"]))
    basic = backbone in ("resnet18", "resnet34")
    stem, stem_pool = data.draw(st.sampled_from([("imagenet", "padded"), ("imagenet", "ceil"), ("small", "padded")]))
    network = Network(
        backbone=backbone,
        width=data.draw(st.integers(2, 9)),
        stem=stem,
        stem_pool=stem_pool,
        stride_in="3x3" if basic else data.draw(st.sampled_from(["1x1", "3x3"])),
    )
    positions = ["standard", "pre", "post", "identity", "inner-3x3"][: 4 if basic else 5]
    config = SEConfig(
        squeeze=data.draw(st.sampled_from(["avg", "max", "none"])),
        gate=data.draw(st.sampled_from(["sigmoid", "tanh", "relu"])),
        reduction=data.draw(st.integers(1, network.width)),  # widths that r does not divide, too
        bias=data.draw(st.booleans()),
    )
    placement = Placement(
        stages=data.draw(st.lists(st.sampled_from([2, 3, 4, 5]), min_size=1)),
        position=data.draw(st.sampled_from(positions)),
    )
    assert_closed_form_is_traced(
        network,
        data.draw(st.sampled_from([PLAIN, Variant(se=config, placement=placement)])),
        in_channels=data.draw(st.integers(1, 4)),
        classes=data.draw(st.integers(2, 12)),
        resolution=data.draw(st.integers(4, 37)),
    )


def test_eq_5_counts_the_added_weights_of_the_standard_place():
    # (2 / r) sum over stages of N_s C_s^2, in whole numbers, with the blocks and widths of Table 1
    squares = 3 * 256**2 + 4 * 512**2 + 6 * 1024**2 + 3 * 2048**2
    assert added_cost(RESNET50, SE, 224).params == 2 * squares // 16 == 2_514_944
    for r in (2, 4, 8, 32):
        assert added_cost(RESNET50, Variant(se=SEConfig(reduction=r)), 224).params == 2 * squares // r


def test_hidden_width_is_floored_where_r_does_not_divide_it():
    network = Network(backbone="resnet14", width=10, stem="small")
    variant = Variant(se=SEConfig(reduction=16), placement=Placement(stages=(2,)))
    # 40 channels, 40 // 16 = 2 hidden ones; timm would take 8
    assert added_cost(network, variant, 8) == Complexity(params=160, params_with_bn_stats=160, macs=160 + 40 * 64)


# Counted without the package: conv weights 23,454,912, normalisations 53,120 + 53,120, classifier 2,049,000; Eq. 5.
@pytest.mark.parametrize(
    ("variant", "params", "with_stats"),
    [
        (PLAIN, 25_557_032, 25_610_152),
        (Variant(se=SEConfig(reduction=2)), 45_676_584, 45_729_704),
        (Variant(se=SEConfig(reduction=4)), 35_616_808, 35_669_928),
        (Variant(se=SEConfig(reduction=8)), 30_586_920, 30_640_040),
        (SE, 28_071_976, 28_125_096),
        (Variant(se=SEConfig(squeeze="none")), 28_071_976, 28_125_096),
        (Variant(se=SEConfig(squeeze="max")), 28_071_976, 28_125_096),
        (Variant(se=SEConfig(reduction=32)), 26_814_504, 26_867_624),
        (stage(2), 25_581_608, 25_634_728),
        (stage(3), 25_688_104, 25_741_224),
        (stage(4), 26_343_464, 26_396_584),
        (stage(5), 27_129_896, 27_183_016),
        (stage(2, 3, 4), 26_499_112, 26_552_232),
        (at("inner-3x3"), 25_714_216, 25_767_336),
        (at("pre"), 27_548_200, 27_601_320),
        (at("post"), 28_071_976, 28_125_096),
        (at("identity"), 28_071_976, 28_125_096),
        (Variant(se=SEConfig(bias=True)), 28_088_024, 28_141_144),
    ],
    ids=lambda value: getattr(value, "slug", None),
)
def test_parameters_of_the_papers_networks_are_these_integers(variant, params, with_stats):
    cost = total_cost(RESNET50, variant, in_channels=3, classes=1000, resolution=224)
    assert (cost.params, cost.params_with_bn_stats) == (params, with_stats)


@pytest.mark.parametrize(
    ("network", "variant", "gmacs"),
    [
        (RESNET50, PLAIN, "3.85797"),
        (Network(backbone="resnet50", stride_in="3x3"), PLAIN, "4.08918"),
        (RESNET50, SE, "3.86601"),
        (RESNET50, Variant(se=SEConfig(squeeze="max")), "3.86601"),
        (RESNET50, Variant(se=SEConfig(squeeze="none")), "4.26902"),
        (RESNET50, stage(2), "3.86041"),
        (RESNET50, stage(3), "3.85971"),
        (RESNET50, stage(4), "3.85996"),
        (RESNET50, at("inner-3x3"), "3.85951"),
    ],
)
def test_multiply_adds_of_the_papers_networks(network, variant, gmacs):
    cost = total_cost(network, variant, in_channels=3, classes=1000, resolution=224)
    assert f"{cost.macs / 1e9:.5f}" == gmacs


@pytest.mark.parametrize(("backbone", "gmacs"), [("resnet101", "7.570"), ("resnet152", "11.282")])
def test_multiply_adds_of_the_deep_networks_of_table_2(backbone, gmacs):
    cost = plain_cost(Network(backbone=backbone), in_channels=3, classes=1000, resolution=224)
    assert f"{cost.macs / 1e9:.3f}" == gmacs


def test_se_adds_to_resnet152_the_step_printed_in_table_2():
    added = added_cost(Network(backbone="resnet152"), SE, 224)
    assert f"{added.macs / 1e9:.4f}" == "0.0197"  # printed: 11.30 to 11.32


def test_squeeze_reads_each_element_once_and_no_squeeze_pays_at_every_pixel():
    # by hand for stage 5: three maps of 2048 x 7 x 7, two layers of 2048 x 128
    layers, elements = 2 * 2048 * 128, 2048 * 49
    last = Placement(stages=(5,))
    assert added_cost(RESNET50, Variant(se=SEConfig(), placement=last), 224).macs == 3 * (layers + elements)
    assert added_cost(RESNET50, Variant(se=SEConfig(squeeze="none"), placement=last), 224).macs == 3 * layers * 49

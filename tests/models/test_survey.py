"""Under test: `complexity`, which counts built networks under one convention, by hand and against torch's counter."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from senet_ablate.blocks.se import GATES, SqueezeExcitation
from senet_ablate.models.build import build_network
from senet_ablate.models.sites import inserts
from senet_ablate.models.survey import count, count_complexity
from senet_ablate.spec.ablation import arms
from senet_ablate.spec.loading import load_ablations
from senet_ablate.spec.network import Network, SEConfig, Variant
from senet_ablate.spec.protocol import Complexity

DECLARED = Path(__file__).parents[2] / "ablations"
TABLES = load_ablations(DECLARED) + load_ablations(DECLARED, ["controls", "pruning", "attention"])
# Of other blocks torch's counter does not tell what they read: their closed forms are in test_attention_blocks.
NETWORKS = [each for each in dict.fromkeys(arm.variant for arm in arms(TABLES)) if each.block in (None, "eca")]


def test_convolution_normalisation_and_classifier_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False),  # 108 weights, used at each of 4x4 places
        nn.BatchNorm2d(4),  # 8 parameters, 8 statistics, nothing counted
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),  # 20 weights, 5 biases; a bias is no multiply-add
    )
    by_hand = Complexity(params=108 + 8 + 25, params_with_bn_stats=141 + 8, macs=108 * 16 + 20)
    assert count_complexity(model, in_channels=3, resolution=8) == by_hand


def test_normalisation_without_statistics_has_none_to_count():
    model = nn.BatchNorm2d(4, track_running_stats=False)
    assert count_complexity(model, in_channels=4, resolution=8) == Complexity(params=8, params_with_bn_stats=8, macs=0)


def test_grouped_convolution_uses_each_weight_once_per_place():
    model = nn.Conv2d(4, 8, 1, groups=2)  # 8 * 2 weights and 8 biases
    by_hand = Complexity(params=24, params_with_bn_stats=24, macs=16 * 25)
    assert count_complexity(model, in_channels=4, resolution=5) == by_hand


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(
    ("squeeze", "macs"),
    [
        ("avg", 2 * 8 * 2 + 8 * 25),  # two layers of 8 x 2 once, one per element of 8 maps of 5x5
        ("max", 2 * 8 * 2 + 8 * 25),
        ("none", 2 * 8 * 2 * 25),  # the two layers at each of 25 pixels, nothing for a squeeze
    ],
)
def test_se_block_by_hand(squeeze, macs, gate, bias):
    block = SqueezeExcitation(8, SEConfig(squeeze=squeeze, gate=gate, reduction=4, bias=bias))
    params = 2 * 8 * 2 + (2 + 8 if bias else 0)
    by_hand = Complexity(params=params, params_with_bn_stats=params, macs=macs)
    assert count(block, [block], in_channels=8, resolution=5) == (by_hand, by_hand)


def test_resnet14_by_hand():
    # width 2, 4x4 images: stages of 8, 16, 32, 64 channels on 4, 2, 1, 1 pixels a side
    stem = 3 * 2 * 9
    blocks = [(2, 2, 8), (8, 4, 16), (16, 8, 32), (32, 16, 64)]  # in, mid, out; each projects
    weights = [c * m + 9 * m * m + m * o + c * o for c, m, o in blocks]
    channels = 2 + sum(2 * m + 2 * o for _, m, o in blocks)
    params = stem + sum(weights) + 2 * channels + 64 * 10 + 10
    macs = stem * 16 + weights[0] * 16 + weights[1] * 4 + weights[2] + weights[3] + 64 * 10
    network = Network(backbone="resnet14", width=2, stem="small")
    counted = count_complexity(
        build_network(network, Variant(), in_channels=3, classes=10, resolution=4), in_channels=3, resolution=4
    )
    assert counted == Complexity(params=params, params_with_bn_stats=params + 2 * channels, macs=macs)


def assert_macs_are_torchs(network: Network, variant: Variant, resolution: int) -> None:
    """Ours, less one per element that a global squeeze reads, are half of torch's operations (it counts two each)."""
    with torch.device("meta"):
        model = build_network(network, variant, in_channels=3, classes=10, resolution=resolution)
    model.to_empty(device="cpu").eval()
    read = []
    squeezes = not variant.is_plain and not (variant.se and variant.se.squeeze == "none")
    for each in inserts(model).values() if squeezes else ():
        each.block.register_forward_pre_hook(lambda _, args: read.append(args[0].numel()))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, resolution, resolution))
    squeezed = sum(read)
    assert (squeezed > 0) == squeezes
    counted = count_complexity(model, in_channels=3, resolution=resolution)
    assert 2 * (counted.macs - squeezed) == counter.get_total_flops() > 0


@pytest.mark.parametrize("variant", NETWORKS, ids=lambda variant: variant.slug)
def test_multiply_adds_of_every_arm_are_torchs(variant):
    assert_macs_are_torchs(Network(backbone="resnet14", width=16, stem="small"), variant, 9)


@pytest.mark.parametrize("variant", [Variant(), Variant(se=SEConfig())], ids=lambda variant: variant.slug)
def test_multiply_adds_at_imagenet_scale_are_torchs(variant):
    assert_macs_are_torchs(Network(backbone="resnet50"), variant, 224)


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_the_network_as_it_was(training):
    network = Network(backbone="resnet14", width=16, stem="small")
    model = build_network(network, Variant(se=SEConfig()), in_channels=1, classes=10, resolution=8).train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    counted = count_complexity(model, in_channels=1, resolution=8)
    assert {module.training for module in model.modules()} == {training}
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert count_complexity(model, in_channels=1, resolution=8) == counted


def test_counts_do_not_depend_on_the_weights_or_the_mode():
    network = Network(backbone="resnet14", width=16, stem="small")
    model = build_network(network, Variant(se=SEConfig(gate="relu")), in_channels=1, classes=10, resolution=8).train()
    training = count_complexity(model, in_channels=1, resolution=8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert count_complexity(model.eval(), in_channels=1, resolution=8) == training

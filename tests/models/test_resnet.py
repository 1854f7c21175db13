"""Under test: `resnet`, against torchvision's plain ResNets, timm's SE networks and the formula of each site."""

import itertools
from collections.abc import Callable
from functools import partial

import pytest
import timm
import torch
import torchvision
from helpers import layout, scrambled
from timm.layers import SEModule
from torch import Tensor, nn

from senet_ablate.blocks.se import SqueezeExcitation
from senet_ablate.models.resnet import ResNet
from senet_ablate.spec.network import BACKBONES, Network, Placement, SEConfig, Variant

POSITIONS = ("standard", "pre", "post", "identity", "inner-3x3")
PLAIN = Variant()


def build(backbone: str, variant: Variant = PLAIN, *, classes: int = 10, in_channels: int = 3, **network) -> ResNet:
    return ResNet(Network(backbone=backbone, **network), variant, in_channels=in_channels, classes=classes)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50"])
def test_plain_network_is_torchvisions(backbone):
    torch.manual_seed(0)
    theirs = scrambled(torchvision.models.get_model(backbone, num_classes=10))
    ours = build(backbone, stride_in="3x3")
    assert layout(ours) == layout(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(2, 3, 65, 65)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))
        torch.testing.assert_close(ours.train()(images), theirs.train()(images))
    torch.testing.assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()))


@pytest.mark.parametrize("backbone", ["resnet101", "resnet152"])
def test_deep_plain_network_has_torchvisions_layout(backbone):
    with torch.device("meta"):
        assert layout(build(backbone, stride_in="3x3")) == layout(
            torchvision.models.get_model(backbone, num_classes=10)
        )


def timm_se(**config) -> dict[str, dict[str, object]]:
    """Arguments for a timm SE network whose blocks are not the default ones (r = 16 rounded up to 8s, with biases)."""
    return {"block_args": {"attn_layer": partial(SEModule, rd_divisor=1, **config)}}


@pytest.mark.parametrize(
    ("backbone", "timm_args", "config"),
    [
        ("resnet50", {}, SEConfig(bias=True)),
        ("resnet18", timm_se(rd_ratio=1 / 8, bias=False), SEConfig(reduction=8)),
        ("resnet18", timm_se(rd_ratio=1 / 4, gate_layer="tanh"), SEConfig(reduction=4, gate="tanh", bias=True)),
    ],
)
def test_se_network_is_timms(backbone, timm_args, config):
    torch.manual_seed(1)
    # timm's last normalisation of a branch starts at 0, which would hide the whole branch
    theirs = scrambled(timm.create_model(f"se{backbone}", num_classes=10, zero_init_last=False, **timm_args)).eval()
    weights = {
        key.replace(".se.fc1.", ".se.reduce.").replace(".se.fc2.", ".se.expand."): value
        for key, value in theirs.state_dict().items()
    }
    ours = build(backbone, Variant(se=config), stride_in="3x3").eval()
    ours.load_state_dict(weights, strict=True)
    plain = build(backbone, stride_in="3x3").eval()
    plain.load_state_dict({key: value for key, value in weights.items() if ".se." not in key}, strict=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)
        assert (ours(images) - plain(images)).abs().max() > 0.01, "without effect of SE the comparison says nothing"


def stand_in(x: Tensor) -> Tensor:
    """In place of an SE block: it commutes neither with ReLU nor with normalisation, so its place shows."""
    return 2 * x - 0.5


class StandIn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return stand_in(x)


def branch(block: nn.Module, x: Tensor, inner: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
    """F(x) of a residual unit, with `inner` after the 3x3 of a bottleneck, its normalisation and its ReLU."""
    x = torch.relu(block.bn1(block.conv1(x)))
    if hasattr(block, "conv3"):
        x = inner(torch.relu(block.bn2(block.conv2(x))))
        return block.bn3(block.conv3(x))
    return block.bn2(block.conv2(x))


FORMULAS = {
    "standard": lambda block, x, shortcut: torch.relu(stand_in(branch(block, x)) + shortcut),
    "pre": lambda block, x, shortcut: torch.relu(branch(block, stand_in(x)) + shortcut),
    "post": lambda block, x, shortcut: stand_in(torch.relu(branch(block, x) + shortcut)),
    "identity": lambda block, x, shortcut: torch.relu(branch(block, x) + stand_in(shortcut)),
    "inner-3x3": lambda block, x, shortcut: torch.relu(branch(block, x, inner=stand_in) + shortcut),
}


@torch.no_grad()
@pytest.mark.parametrize("projects", [False, True])
@pytest.mark.parametrize(("backbone", "stride_in"), [("resnet26", "1x1"), ("resnet26", "3x3"), ("resnet18", "3x3")])
def test_se_block_acts_where_its_position_says(backbone, stride_in, projects):
    torch.manual_seed(2)
    positions = [name for name in POSITIONS if backbone != "resnet18" or name != "inner-3x3"]
    for position in positions:
        variant = Variant(se=SEConfig(reduction=1), placement=Placement(position=position))
        block = scrambled(build(backbone, variant, width=4, stride_in=stride_in)).eval().layer2[0 if projects else 1]
        block.se = StandIn()
        assert isinstance(block.downsample, nn.Sequential) == projects
        x = torch.rand(2, block.conv1.in_channels, 7, 7)
        before = x.clone()
        shortcut = block.downsample[1](block.downsample[0](x)) if projects else x
        expected = FORMULAS[position](block, x, shortcut)
        torch.testing.assert_close(block(x), expected)
        assert torch.equal(x, before), "the block's input is left as it was"
        others = [FORMULAS[other](block, x, shortcut) for other in positions if other != position]
        assert all((other - expected).abs().max() > 0.01 for other in others), "the formulas must be told apart"


@pytest.mark.parametrize(
    ("backbone", "position"),
    [
        (backbone, position)
        for backbone, kind in BACKBONES.items()
        for position in POSITIONS
        if (kind.block, position) != ("basic", "inner-3x3")
    ],
)
def test_every_position_on_every_backbone_trains(backbone, position):
    torch.manual_seed(3)
    variant = Variant(se=SEConfig(reduction=2), placement=Placement(position=position))
    stride_in = "3x3" if BACKBONES[backbone].block == "basic" else "1x1"
    model = build(backbone, variant, width=4, stem="small", stride_in=stride_in)
    blocks = [module for module in model.modules() if isinstance(module, SqueezeExcitation)]
    assert len(blocks) == sum(BACKBONES[backbone].depths)
    logits = model(torch.randn(4, 3, 8, 8))
    assert logits.shape == (4, 10)
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert sum(bool(parameter.grad.any()) for block in blocks for parameter in block.parameters()) > len(blocks)


STAGES = [chosen for size in (1, 2, 3, 4) for chosen in itertools.combinations((2, 3, 4, 5), size)]


@pytest.mark.parametrize("stages", STAGES, ids=str)
def test_se_blocks_stand_in_the_chosen_stages_only(stages):
    variant = Variant(se=SEConfig(), placement=Placement(stages=stages))
    with torch.device("meta"):
        model = build("resnet50", variant)
    blocks = {name: m.reduce.in_channels for name, m in model.named_modules() if isinstance(m, SqueezeExcitation)}
    depth, width = {2: 3, 3: 4, 4: 6, 5: 3}, {2: 256, 3: 512, 4: 1024, 5: 2048}
    assert blocks == {f"layer{s - 1}.{index}.se": width[s] for s in stages for index in range(depth[s])}


def test_small_stem_keeps_the_side_and_the_imagenet_stem_quarters_it():
    small, large = build("resnet14", width=4, stem="small"), build("resnet14", width=4)
    images = torch.zeros(1, 3, 32, 32)
    assert small.maxpool(small.conv1(images)).shape == (1, 4, 32, 32)
    assert small.conv1.kernel_size == (3, 3)
    assert large.maxpool(large.conv1(images)).shape == (1, 4, 8, 8)
    assert large.conv1.kernel_size == (7, 7)
    assert isinstance(large.maxpool, nn.MaxPool2d)


@pytest.mark.parametrize(("stride_in", "strided"), [("1x1", "conv1"), ("3x3", "conv2")])
def test_stride_sits_in_the_named_convolution_of_the_first_block_of_stages_3_to_5(stride_in, strided):
    model = build("resnet26", width=4, stride_in=stride_in)
    found = {name for name, module in model.named_modules() if getattr(module, "stride", None) == (2, 2)}
    by_hand = {"conv1"} | {f"layer{n}.0.{conv}" for n in (2, 3, 4) for conv in (strided, "downsample.0")}
    assert found == by_hand


def test_images_of_any_channels_and_any_number_of_classes():
    assert build("resnet14", width=4, stem="small", in_channels=1, classes=7)(torch.zeros(2, 1, 8, 8)).shape == (2, 7)


def test_network_that_cannot_carry_the_variant_is_refused():
    with pytest.raises(ValueError, match="leaves no hidden channel"):
        build("resnet14", Variant(se=SEConfig()), width=2)

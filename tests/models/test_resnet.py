"""Our networks against torchvision's, timm's and pytorchcv's, and each of their places against its formula."""

import itertools
import re
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
from senet_ablate.models.build import build_network
from senet_ablate.models.sites import inserts
from senet_ablate.spec.backbones import BACKBONES, OURS, Backbone
from senet_ablate.spec.network import Network, Placement, SEConfig, Variant

PLAIN = Variant()


def build(
    backbone: str,
    variant: Variant = PLAIN,
    *,
    classes: int = 10,
    in_channels: int = 3,
    resolution: int = 32,
    **network,
) -> nn.Module:
    if BACKBONES[backbone].kind == "basic":
        network.setdefault("stride_in", "3x3")
    task = {"in_channels": in_channels, "classes": classes, "resolution": resolution}
    return build_network(Network(backbone=backbone, **network), variant, **task)


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


def assert_acts_as_its_formula(
    backbone: str, index: int, formulas: dict[str, Callable[..., Tensor]], **network
) -> None:
    """Try each place in unit `index` of stage 3; a formula is of the plain unit and its input."""
    for position in formulas:
        variant = Variant(se=SEConfig(reduction=1), placement=Placement(position=position))
        model, plain = scrambled(build(backbone, variant, **network)), build(backbone, **network)
        plain.load_state_dict({name: value for name, value in model.state_dict().items() if name in plain.state_dict()})
        for each in inserts(model).values():
            each.block = StandIn()
        unit, bare = (found.eval().layer2[index] for found in (model, plain))
        x = torch.rand(2, next(m.in_channels for m in bare.modules() if isinstance(m, nn.Conv2d)), 7, 7)
        before = x.clone()
        expected = formulas[position](bare, x)
        torch.testing.assert_close(unit(x), expected)
        assert torch.equal(x, before), "the unit's input is left as it was"
        others = [formulas[other](bare, x) for other in formulas if other != position]
        assert all((other - expected).abs().max() > 0.01 for other in others), "the formulas must be told apart"


@torch.no_grad()
@pytest.mark.parametrize("projects", [False, True])
@pytest.mark.parametrize(("backbone", "stride_in"), [("resnet26", "1x1"), ("resnet26", "3x3"), ("resnet18", "3x3")])
def test_se_block_acts_where_its_position_says(backbone, stride_in, projects):
    torch.manual_seed(2)

    def on_input(formula):
        def compute(block, x):
            assert isinstance(block.downsample, nn.Sequential) == projects
            return formula(block, x, block.downsample[1](block.downsample[0](x)) if projects else x)

        return compute

    formulas = {
        name: on_input(each) for name, each in FORMULAS.items() if (backbone, name) != ("resnet18", "inner-3x3")
    }
    assert_acts_as_its_formula(backbone, 0 if projects else 1, formulas, width=4, stride_in=stride_in)


def preactivated(position: str) -> Callable[[nn.Module, Tensor], Tensor]:
    """A pre-activation unit (He et al. 2016, Fig. 1b): its shortcut, where it projects, leaves after the first ReLU."""

    def at(place: str, x: Tensor) -> Tensor:
        return stand_in(x) if place == position else x

    def compute(unit: nn.Module, x: Tensor) -> Tensor:
        y = torch.relu(unit.bn1(at("pre", x)))
        shortcut = at("identity", unit.downsample[0](y) if isinstance(unit.downsample, nn.Sequential) else x)
        y = unit.conv2(torch.relu(unit.bn2(unit.conv1(y))))
        if hasattr(unit, "conv3"):
            y = unit.conv3(torch.relu(unit.bn3(at("inner-3x3", y))))
        return at("post", at("standard", y) + shortcut)

    return compute


@torch.no_grad()
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(("kind", "more"), [("preact", set()), ("preact-bottleneck", {"inner-3x3"})])
def test_se_block_acts_where_its_position_says_in_pre_activation_units(monkeypatch, kind, more, index):
    monkeypatch.setitem(BACKBONES, "shallow", Backbone(kind=kind, depths=(2, 2, 2)))
    torch.manual_seed(2)
    places = OURS[kind].places
    assert set(places) == {"standard", "pre", "post", "identity"} | more
    assert_acts_as_its_formula("shallow", index, {position: preactivated(position) for position in places}, width=16)


@pytest.mark.parametrize(
    ("backbone", "position"),
    [
        (backbone, position)
        for backbone, kind in BACKBONES.items()
        for position in OURS[kind.kind].places
        if position != "replace-3x3"
    ],
)
def test_every_position_on_every_backbone_trains(backbone, position):
    torch.manual_seed(3)
    variant = Variant(se=SEConfig(reduction=2), placement=Placement(position=position))
    small = {"stem": "small"} if len(BACKBONES[backbone].depths) == 4 else {}
    side = 32 if backbone.startswith("vgg") else 8  # five poolings
    model = build(backbone, variant, width=16, resolution=side, **small)
    blocks = [module for module in model.modules() if isinstance(module, SqueezeExcitation)]
    assert len(blocks) == (sum(BACKBONES[backbone].depths) or 1)
    logits = model(torch.randn(4, 3, side, side))
    assert logits.shape == (4, 10)
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    # Of the two layers of a block one at least: with few hidden channels a ReLU may be closed for all four images.
    assert sum(bool(parameter.grad.any()) for block in blocks for parameter in block.parameters()) > len(blocks)


def theirs_as_ours(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of pytorchcv's pre-activation networks as ours."""

    def named(name: str) -> str:
        found = re.fullmatch(
            r"features\.stage(\d)\.unit(\d+)\.(?:body\.conv(\d)\.(bn|conv)|(identity_conv))\.(\w+)", name
        )
        if found is None:
            ends = {"features.init_block": "conv1", "features.post_activ.bn": "bn", "output": "fc"}
            module, _, tensor = name.rpartition(".")
            return f"{ends[module]}.{tensor}"
        stage, unit, number, layer, _, tensor = found.groups()
        return f"layer{stage}.{int(unit) - 1}.{f'{layer}{number}' if number else 'downsample.0'}.{tensor}"

    return {named(name): value for name, value in state.items()}


@pytest.mark.parametrize(
    ("backbone", "make", "arguments"),
    [
        ("preresnet20", "preresnet_cifar:get_preresnet_cifar", {"blocks": 20, "bottleneck": False}),
        ("preresnet164", "preresnet_cifar:get_preresnet_cifar", {"blocks": 164, "bottleneck": True}),
        ("wrn10-2", "wrn_cifar:get_wrn_cifar", {"blocks": 10, "width_factor": 2}),
    ],
)
def test_networks_for_32_pixels_are_pytorchcvs(backbone, make, arguments):
    module, _, function = make.partition(":")
    library = pytest.importorskip(f"pytorchcv.models.{module}")
    torch.manual_seed(0)
    theirs = scrambled(getattr(library, function)(10, **arguments)).double().eval()
    ours = build(backbone).double().eval()
    ours.load_state_dict(theirs_as_ours(theirs.state_dict()), strict=True)
    images = torch.randn(1, 3, 32, 32, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize(
    "backbone", ["preresnet11", "preresnet20", "preresnet110", "preresnet164", "wrn10-2", "wrn16-8"]
)
def test_networks_for_32_pixels_are_named_after_their_layers(backbone):
    """Pre-activation networks count all weighted layers but projections, wide ones all convolutions (6 n + 4)."""
    with torch.device("meta"):
        model = build(backbone)
    convolutions = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    projections = [name for name in convolutions if "downsample" in name]
    wide = backbone.startswith("wrn")
    layers = len(convolutions) if wide else len(convolutions) - len(projections) + 1
    assert layers == int(re.search(r"\d+", backbone)[0])


STAGES = [chosen for size in (1, 2, 3, 4) for chosen in itertools.combinations((2, 3, 4, 5), size)]


@pytest.mark.parametrize("stages", STAGES, ids=str)
def test_se_blocks_stand_in_the_chosen_stages_only(stages):
    variant = Variant(se=SEConfig(), placement=Placement(stages=stages))
    with torch.device("meta"):
        model = build("resnet50", variant, resolution=64)
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
        build("resnet14", Variant(se=SEConfig()), width=2, stem="small")

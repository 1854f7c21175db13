"""Optimisations change how fast a network is computed, not what it computes."""

import pytest
import torch
from torch import nn

from senet_ablate.execution.machine import optimisations_on
from senet_ablate.models.build import build_network
from senet_ablate.models.fastconv import Float32DepthwiseConv2d, SmallMapConv2d, speed_up
from senet_ablate.spec.ablation import arms
from senet_ablate.spec.loading import all_ablations, declarations_dir
from senet_ablate.spec.network import Network, Placement, SEConfig, Variant

ARMS = list(dict.fromkeys(arm.variant for arm in arms(all_ablations(declarations_dir()))))
NETWORK = Network(backbone="resnet14", width=16, stem="small")


def at(position):
    return Variant(se=SEConfig(), placement=Placement(position=position))


def built(variant, optimisations, side=8):
    model = build_network(NETWORK, variant, in_channels=3, classes=10, resolution=side, seed=0).double()
    speed_up(model, optimisations)
    return model


def gradients(model, images, labels):
    logits = model(images)
    nn.functional.cross_entropy(logits, labels).backward()
    return logits.detach(), {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("variant", ARMS, ids=lambda variant: variant.slug)
def test_each_arm_computes_the_same_with_and_without_optimisations(variant):
    torch.manual_seed(0)
    side = 16 if variant.block in ("srm", "simam") else 8  # those two have no meaning on maps of one pixel
    images, labels = torch.randn(4, 3, side, side, dtype=torch.double), torch.tensor([0, 3, 3, 9])
    fast, slow = built(variant, optimisations_on("cpu"), side), built(variant, (), side)
    assert list(fast.state_dict()) == list(slow.state_dict())
    (logits, with_optimisations), (expected, without) = gradients(fast, images, labels), gradients(slow, images, labels)
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    assert with_optimisations.keys() == without.keys()
    for name, gradient in with_optimisations.items():
        torch.testing.assert_close(gradient, without[name], rtol=1e-7, atol=1e-9, msg=name)


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (3, 2), (4, 4), (5, 7), (8, 8)])
def test_a_product_is_the_convolution_at_every_size(size, stride, kernel):
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 5, kernel, stride=stride, padding=kernel // 2).double()
    quick = SmallMapConv2d(6, 5, kernel, stride=stride, padding=kernel // 2).double()
    quick.load_state_dict(plain.state_dict())
    x = torch.randn(3, 6, *size, dtype=torch.double).to(memory_format=torch.channels_last)
    ways = []
    for layer in (quick, plain):
        own = x.clone().requires_grad_()
        out = layer(own)
        out.square().sum().backward()
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert own.grad.is_contiguous(memory_format=torch.channels_last)
        ways.append([out.detach(), own.grad, layer.weight.grad, layer.bias.grad])
    for fast, slow in zip(*ways, strict=True):
        torch.testing.assert_close(fast, slow)


def convolutions(layer, x):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        layer(x)
    return sum(event.count for event in profile.key_averages() if event.key == "aten::conv2d")


def test_small_maps_are_multiplied_and_large_ones_convolved():
    layer = SmallMapConv2d(4, 4, 1)
    assert convolutions(layer, torch.zeros(1, 4, 4, 4)) == 0
    assert convolutions(layer, torch.zeros(1, 4, 8, 8)) == 1
    around = SmallMapConv2d(4, 4, 3, padding=1)
    assert convolutions(around, torch.zeros(1, 4, 1, 1)) == 0
    assert convolutions(around, torch.zeros(1, 4, 2, 2)) == 0
    assert convolutions(around, torch.zeros(1, 4, 3, 3)) == 1


def test_only_convolutions_that_a_product_can_stand_for_are_multiplied():
    unusual = [
        nn.Conv2d(4, 4, (3, 1), padding=(1, 0)),
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=1, dilation=2),
    ]
    usual = [nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1, stride=2)]
    model = nn.Sequential(*unusual, *usual)
    speed_up(model, ["matrix-product"])
    assert [type(layer) for layer in model] == [nn.Conv2d] * 4 + [SmallMapConv2d] * 2


@pytest.mark.parametrize("stride", [1, 2])
def test_a_depthwise_convolution_of_a_bf16_map_is_rounded_once(stride):
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 16, 3, stride=stride, padding=1, groups=8, bias=False)
    x = torch.randn(2, 8, 6, 6).bfloat16().requires_grad_()
    # Each output pixel is a sum of nine products, here by unfolding, in float64.
    patches = nn.functional.unfold(x.detach().double(), 3, padding=1, stride=stride).view(2, 8, 9, -1)
    products = torch.einsum("ncpl,cmp->ncml", patches, layer.weight.detach().double().view(8, 2, 9))
    speed_up(model := nn.Sequential(layer), ["float32-depthwise"])
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x)
    expected = products.reshape(out.shape)
    assert out.dtype == torch.bfloat16
    # Half a unit in the last of bf16's eight digits, and float32's own error.
    assert ((out.double() - expected).abs() <= expected.abs() * 2**-8 + 1e-5).all()
    out.sum().backward()
    assert x.grad.dtype == torch.bfloat16
    assert layer.weight.grad.dtype == torch.float32
    in_float32 = nn.functional.conv2d(x.detach().float(), layer.weight, stride=stride, padding=1, groups=8)
    torch.testing.assert_close(model(x.detach().float()), in_float32, rtol=0, atol=0)


def test_depthwise_convolutions_alone_are_computed_in_float32():
    layers = [
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 8, 3, groups=4),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(1, 4, 3),
    ]
    speed_up(model := nn.Sequential(*layers), ["float32-depthwise"])
    assert [type(layer) is Float32DepthwiseConv2d for layer in model] == [True, True, False, False]


def test_optimisations_are_on_where_they_pay_and_each_can_be_left_out():
    assert optimisations_on("cpu") == ("matrix-product", "float32-depthwise")
    assert optimisations_on("cpu", ["matrix-product"]) == ("float32-depthwise",)
    assert optimisations_on("cuda") == ()
    kinds = [type(built(ARMS[0], optimisations).layer1[0].conv1) for optimisations in ((), ("matrix-product",))]
    assert kinds == [nn.Conv2d, SmallMapConv2d]

"""Under test: blocks of other papers, against timm's and torchvision's modules, formulas in NumPy, closed forms."""

import doctest
import math
from importlib import import_module
from itertools import product

import numpy as np
import pytest
import timm.layers as theirs
import torch
import torchvision
from timm.layers import make_divisible
from timm.layers.cbam import CbamModule
from timm.layers.coord_attn import CoordAttn
from torch import nn

from senet_ablate.blocks.bam import BAM
from senet_ablate.blocks.cbam import CBAM
from senet_ablate.blocks.constant import Constant
from senet_ablate.blocks.contract import SIDE, Subject, first_factor
from senet_ablate.blocks.coordinate import CoordinateAttention
from senet_ablate.blocks.counter import CostCounter
from senet_ablate.blocks.eca import EfficientChannelAttention
from senet_ablate.blocks.ese import EffectiveSE
from senet_ablate.blocks.fca import FrequencyAttention
from senet_ablate.blocks.gc import GlobalContext
from senet_ablate.blocks.ge import GatherExcite
from senet_ablate.blocks.mobilenet_se import MobileNetSE, round8
from senet_ablate.blocks.se_var import SEVariant
from senet_ablate.blocks.simam import SimAM
from senet_ablate.blocks.sk import SelectiveKernel
from senet_ablate.blocks.srm import StyleRecalibration

FILES = (
    *("bam", "cbam", "constant", "coordinate", "counter", "eca", "ese", "fca", "gc", "ge", "mobilenet_se", "se_var"),
    *("simam", "sk", "srm", "contract"),
)


def built(block, **settings):
    """In double precision, with weights and normalisations that are none of 0 and 1."""
    torch.manual_seed(0)
    module = block(**settings).double()
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return module


def images(channels, height=6, width=5, count=3):
    return torch.randn(count, channels, height, width, dtype=torch.double)


def weights_of(module):
    return [weight.detach().double().numpy() for weight in module.parameters()]


def count(module):
    return sum(weight.numel() for weight in module.parameters())


def sigmoid(u):
    return 1 / (1 + np.exp(-u))


def normalised(z, weight, bias):
    """Batch normalisation in training of (N, C, ...) by its definition."""
    axes = (0, *range(2, z.ndim))
    shape = (1, -1, *[1] * (z.ndim - 2))
    centred = z - z.mean(axes, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axes, keepdims=True) + 1e-5)
    return scaled * weight.reshape(shape) + bias.reshape(shape)


def correlated(x, kernel, stride=1, padding=0, dilation=1, depthwise=False):
    """A convolution as torch has it, pixel by pixel."""
    side = kernel.shape[-1]
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    reach = dilation * (side - 1)
    rows, columns = ((size - reach - 1) // stride + 1 for size in x.shape[2:])
    out = np.zeros((x.shape[0], kernel.shape[0], rows, columns))
    for i, j in product(range(rows), range(columns)):
        top, left = i * stride, j * stride
        patch = x[:, :, top : top + reach + 1 : dilation, left : left + reach + 1 : dilation]
        out[:, :, i, j] = np.einsum(
            "nchw,chw->nc" if depthwise else "nchw,ochw->no", patch, np.squeeze(kernel, 1) if depthwise else kernel
        )
    return out


# --- against modules of timm and torchvision ---


def copied(ours, other, pairs):
    """Give `other` the weights of `ours`; `pairs` are the names of each module there and here."""
    other = other.double()
    for mine, its in pairs.items():
        for name, weight in ours.get_submodule(mine).named_parameters():
            other.get_submodule(its).get_parameter(name).data = (
                weight.detach().clone().reshape(other.get_submodule(its).get_parameter(name).shape)
            )
    return other


def cbam_pair(channels):
    ours = built(CBAM, channels=channels)
    other = copied(
        ours,
        CbamModule(channels, mlp_bias=True),
        {"reduce": "channel.fc1", "expand": "channel.fc2", "conv": "spatial.conv.conv", "bn": "spatial.conv.bn"},
    )
    flipped = other.spatial.conv.conv.weight.data.flip(1)  # timm has the mean first, the authors the maximum
    other.spatial.conv.conv.weight.data = flipped
    return ours, other


def gc_pair(channels):
    ours = built(GlobalContext, channels=channels)
    other = theirs.GlobalContext(channels, fuse_add=True, fuse_scale=False, rd_ratio=1 / 16)
    other.mlp_add.norm.eps = 1e-5  # torch's own, as the authors have it; timm's is 1e-6
    pairs = {
        "attend": "conv_attn",
        "transform.0": "mlp_add.fc1",
        "transform.1": "mlp_add.norm",
        "transform.3": "mlp_add.fc2",
    }
    return ours, copied(ours, other, pairs)


def eca_pair(channels):
    ours = built(EfficientChannelAttention, channels=channels)
    return ours, copied(ours, theirs.EcaModule(channels), {"conv": "conv"})


def ese_pair(channels):
    ours = built(EffectiveSE, channels=channels)
    return ours, copied(ours, theirs.EffectiveSEModule(channels), {"fc": "fc"})


def mobilenet_pair(channels):
    ours = built(MobileNetSE, channels=channels)
    hidden = make_divisible(channels / 4, 8)
    other = torchvision.ops.SqueezeExcitation(channels, hidden, scale_activation=nn.Hardsigmoid)
    return ours, copied(ours, other, {"reduce": "fc1", "expand": "fc2"})


def coordinate_pair(channels):
    ours = built(CoordinateAttention, channels=channels)
    other = CoordAttn(channels, rd_channels=max(8, channels // 32), bias=True)
    return ours, copied(ours, other, {"reduce": "conv1", "bn": "bn1", "rows": "conv_h", "columns": "conv_w"})


def sk_pair(channels):
    ours = built(SelectiveKernel, channels=channels, out_channels=2 * channels, stride=2)
    other = theirs.SelectiveKernel(
        channels, 2 * channels, stride=2, groups=32, rd_channels=max(32, 2 * channels // 16), split_input=False
    )
    pairs = {"reduce.0": "attn.fc_reduce", "reduce.1": "attn.bn", "select": "attn.fc_select"}
    for i in range(2):
        pairs |= {f"branches.{i}.0": f"paths.{i}.conv", f"branches.{i}.1": f"paths.{i}.bn"}
    return ours, copied(ours, other, pairs)


PAIRS = {
    "cbam": cbam_pair,
    "gc": gc_pair,
    "eca": eca_pair,
    "ese": ese_pair,
    "mobilenet_se": mobilenet_pair,
    "coordinate": coordinate_pair,
    "sk": sk_pair,
    **{
        f"ge-{extent}": lambda channels, extent=extent: (
            GatherExcite(channels, extent=extent or "global"),
            theirs.GatherExcite(channels, extent=extent, use_mlp=False),
        )
        for extent in (0, 2, 4)
    },
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels", [64, 96])
@pytest.mark.parametrize("pair", PAIRS)
def test_outputs_and_gradients_are_those_of_the_library(pair, channels, training):
    both = PAIRS[pair](channels)
    x = images(channels)
    found = []
    for block in both:
        own = x.clone().requires_grad_()
        out = block.train(training)(own)
        out.square().sum().backward()
        gradients = sorted(float(weight.grad.square().sum()) for weight in block.parameters())
        found.append((out.detach(), own.grad, torch.tensor(gradients)))
    assert count(both[0]) == count(both[1])
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("width", [1.0, 4.0, 11.9, 12.0, 18.0, 20.0, 28.0, 30.0, 92.0, 240.0])
def test_a_width_is_rounded_as_in_mobilenet(width):
    assert round8(width) == make_divisible(width, 8)


# --- against formulas ---


def test_bam_multiplies_what_channels_and_places_say():
    channels, hidden = 32, 2
    block, x = built(BAM, channels=channels), images(channels, 9, 7)
    w = dict(zip([name for name, _ in block.named_parameters()], weights_of(block), strict=True))

    def layer(z, name, **how):
        return correlated(z, w[f"{name}.weight"], **how) + w[f"{name}.bias"].reshape(1, -1, 1, 1)

    def active(z, name):
        return np.maximum(normalised(z, w[f"{name}.weight"], w[f"{name}.bias"]), 0)

    pixels = x.numpy()
    channel = layer(active(layer(pixels.mean((2, 3), keepdims=True), "channel.0"), "channel.1"), "channel.3")
    place = active(layer(pixels, "spatial.0"), "spatial.1")
    assert place.shape[1] == hidden
    for conv, norm in ((3, 4), (6, 7)):
        place = active(layer(place, f"spatial.{conv}", padding=4, dilation=4), f"spatial.{norm}")
    place = layer(place, "spatial.9")
    np.testing.assert_allclose(block(x).detach(), pixels * (1 + sigmoid(channel * place)), rtol=1e-9)


def test_srm_integrates_mean_and_sample_deviation():
    block, x = built(StyleRecalibration, channels=5), images(5)
    weight, scale, shift = weights_of(block)
    pixels = x.numpy()
    mean, deviation = pixels.mean((2, 3)), np.sqrt(pixels.var((2, 3), ddof=1) + 1e-5)
    gate = sigmoid(normalised(weight[:, 0] * mean + weight[:, 1] * deviation, scale, shift))
    np.testing.assert_allclose(block(x).detach(), pixels * gate[:, :, None, None], rtol=1e-9)


def test_simam_keeps_what_stands_out():
    x = images(2, 3, 3, count=1)
    expected = np.zeros((1, 2, 3, 3))
    for channel in range(2):
        pixels = x.numpy()[0, channel]
        variance = ((pixels - pixels.mean()) ** 2).sum() / 8
        for i, j in product(range(3), range(3)):
            energy = (
                4 * (variance + 1e-4) / ((pixels[i, j] - pixels.mean()) ** 2 + 2 * variance + 2e-4)
            )  # e* of the paper
            expected[0, channel, i, j] = pixels[i, j] * sigmoid(1 / energy)
    np.testing.assert_allclose(SimAM(2)(x), expected, rtol=1e-9)


# (u, v) of the 7x7 basis as the authors' repository lists its sixteen best
U, V = (0, 0, 6, 0, 0, 1, 1, 4, 5, 1, 3, 0, 0, 0, 3, 2), (0, 1, 0, 5, 2, 0, 2, 0, 0, 6, 0, 4, 6, 3, 5, 2)


@pytest.mark.parametrize(("side", "frequencies"), [(7, 16), (14, 16), (7, 4), (9, 1)])
def test_fca_squeezes_each_part_by_its_frequency(side, frequencies):
    block = built(FrequencyAttention, channels=32, size=side, frequencies=frequencies)
    x = images(32, side, side, count=2)
    squeezed = np.zeros((2, 32))
    for c in range(32):
        part = c // (32 // frequencies)
        u, v = U[part] * (side // 7), V[part] * (side // 7)
        norm = (math.sqrt(2) if u else 1) * (math.sqrt(2) if v else 1) / side
        for h, w in product(range(side), range(side)):
            wave = math.cos(math.pi * u * (h + 0.5) / side) * math.cos(math.pi * v * (w + 0.5) / side)
            squeezed[:, c] += x[:, c, h, w].numpy() * wave * norm
    reduce, expand = (weight[:, :, 0, 0] for weight in weights_of(block))
    gate = sigmoid(np.maximum(squeezed @ reduce.T, 0) @ expand.T)
    np.testing.assert_allclose(block(x).detach(), x.numpy() * gate[:, :, None, None], rtol=1e-5)


def test_fca_sees_only_the_mean_below_7_pixels_and_pools_other_maps():
    block, x = FrequencyAttention(32, size=4).double(), images(32, 4, 4)
    torch.testing.assert_close(block.squeeze(x), 4 * x.mean((2, 3), keepdim=True))  # times sqrt(HW)
    twice = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(block.excitation(twice), block.excitation(x))
    assert not block.state_dict().keys() & {"filters"}, "weights do not depend on the size"


@pytest.mark.parametrize("extra", ["theta", "theta-plus"])
@pytest.mark.parametrize("extent", ["global", 4])
def test_ge_gathers_by_depthwise_convolutions(extra, extent):
    block, x = built(GatherExcite, channels=16, extra=extra, extent=extent, size=5), images(16, 5, 5)
    w = iter(weights_of(block))
    if extent == "global":
        z = normalised(correlated(x.numpy(), next(w), depthwise=True), next(w), next(w))
    else:
        z = normalised(correlated(x.numpy(), next(w), stride=2, padding=1, depthwise=True), next(w), next(w))
        z = normalised(correlated(np.maximum(z, 0), next(w), stride=2, padding=1, depthwise=True), next(w), next(w))
        assert z.shape[2:] == (2, 2)
    if extra == "theta-plus":
        for _ in range(2):
            z = correlated(np.maximum(z, 0), next(w)) + next(w).reshape(1, -1, 1, 1)
    assert next(w, None) is None
    # nearest neighbours: pixel i of 5 takes floor(2 i / 5)
    up = [0, 0, 0, 1, 1] if extent == 4 else [0] * 5
    gate = sigmoid(z[:, :, up][:, :, :, up])
    np.testing.assert_allclose(block(x).detach(), x.numpy() * gate, rtol=1e-9)


def test_the_variants_of_se_by_hand():
    x = torch.tensor([[[[1.0, 3.0]], [[0.0, -2.0]]]])  # means 2 and -1
    by_form = {1: [2.0, -1.0], 2: [0.5 * 2, -3.0], 3: [1 * 2 + 2 * -1, 3 * 2 + 4 * -1]}
    for form, logits in by_form.items():
        block = SEVariant(2, form=form)
        if form == 2:
            block.fc.weight.data = torch.tensor([0.5, 3.0]).view(2, 1, 1, 1)
        elif form == 3:
            block.fc.weight.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(2, 2, 1, 1)
        torch.testing.assert_close(block(x), x * torch.sigmoid(torch.tensor(logits)).view(1, 2, 1, 1))
    assert torch.equal(Constant(2, factor=-1.5)(x), -1.5 * x)


# --- closed forms, where they start, what they refuse ---

# Parameters, multiply-adds by weights, elements read: c channels, h = c / 16, p pixels of a map.
CLOSED_FORMS = {
    "cbam": (CBAM, {}, lambda c, h, p: (2 * c * h + h + c + 98 + 2, 4 * c * h + 98 * p, 4 * c * p)),
    "bam": (
        BAM,
        {},
        lambda c, h, p: (
            3 * c * h + 18 * h**2 + 13 * h + c + 1,
            2 * c * h + (c * h + 18 * h**2 + h) * p,
            c * p,
        ),
    ),
    "theta-minus": (GatherExcite, {}, lambda c, h, p: (0, 0, c * p)),
    "theta": (GatherExcite, {"extra": "theta", "size": SIDE}, lambda c, h, p: (c * p + 2 * c, c * p, 0)),
    "theta, extent 8": (
        GatherExcite,
        {"extra": "theta", "extent": 8},
        lambda c, h, p: (11 * c * 3, 9 * c * (7**2 + 4**2 + 2**2), 0),  # maps of 14, 7, 4 and 2
    ),
    "theta-plus": (
        GatherExcite,
        {"extra": "theta-plus", "size": SIDE},
        lambda c, h, p: (c * p + 2 * c + 2 * c * h + h + c, c * p + 2 * c * h, 0),
    ),
    "gc": (GlobalContext, {}, lambda c, h, p: (2 * c * h + 2 * c + 3 * h + 1, 2 * c * h + 2 * c * p, 0)),
    "srm": (StyleRecalibration, {}, lambda c, h, p: (4 * c, 0, 2 * c * p + 2 * c)),
    "fca": (FrequencyAttention, {"size": SIDE}, lambda c, h, p: (2 * c * h, 2 * c * h, c * p)),
    "coordinate": (
        CoordinateAttention,
        {},
        lambda c, h, p: (3 * c * (h // 2) + 3 * (h // 2) + 2 * c, 2 * c * (h // 2) * 2 * SIDE, 2 * c * p),
    ),
    "simam": (SimAM, {}, lambda c, h, p: (0, 0, 2 * c * p)),
    # Eq. 12's kernel has 5 weights for 128 to 1,024 channels and 7 for 2,048.
    "eca": (EfficientChannelAttention, {}, lambda c, h, p: (7 if c == 2048 else 5, (7 if c == 2048 else 5) * c, c * p)),
    "ese": (EffectiveSE, {}, lambda c, h, p: (c**2 + c, c**2, c * p)),
    "mobilenet_se": (MobileNetSE, {}, lambda c, h, p: (8 * c * h + 4 * h + c, 8 * c * h, c * p)),
    "se_var 1": (SEVariant, {"form": 1}, lambda c, h, p: (0, 0, c * p)),
    "se_var 2": (SEVariant, {"form": 2}, lambda c, h, p: (c, c, c * p)),
    "se_var 3": (SEVariant, {"form": 3}, lambda c, h, p: (c**2, c**2, c * p)),
    "constant": (Constant, {}, lambda c, h, p: (0, 0, 0)),
    "sk": (
        SelectiveKernel,
        {},
        lambda c, h, p: (
            2 * (9 * c**2 // 32 + 2 * c) + c * max(h, 32) + 2 * max(h, 32) + max(h, 32) * 2 * c,
            2 * (9 * c**2 // 32) * p + 3 * c * max(h, 32),
            c * p,
        ),
    ),
}


@pytest.mark.parametrize("channels", [256, 512, 1024, 2048])
@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_size_and_cost_are_the_closed_form(name, channels):
    block, settings, form = CLOSED_FORMS[name]
    with torch.device("meta"):  # counts need no numbers
        module, x = block(channels, **settings).eval(), torch.zeros(1, channels, SIDE, SIDE)
        with CostCounter() as counted:
            module(x)
    assert (count(module), counted.macs, counted.reads) == form(channels, channels // 16, SIDE**2)


# C, side and number of the ends of branches of a ResNet-50 at 224 px, by stage; its parameters without a block.
BRANCH_ENDS = ((256, 56, 3), (512, 28, 4), (1024, 14, 6), (2048, 7, 3))
PLAIN = 25_557_032

# Parameters of the whole as counted on the authors' or timm's modules, each at its paper's place (papers print 28.09M
# for CBAM, 25.92M for BAM, 28.08M for GC, 25.62M for SRM, 28.07M for FcaNet).
RESNET_50 = {
    CBAM: ({}, 28_089_624),
    GlobalContext: ({}, 28_105_032),
    StyleRecalibration: ({}, 25_617_448),
    FrequencyAttention: ({}, 28_071_976),
    CoordinateAttention: ({}, 27_474_864),
    EffectiveSE: ({}, 45_691_688),
    GatherExcite: ({"extra": "theta"}, 31_106_600),
    BAM: ({}, 25_915_099),
}


@pytest.mark.parametrize(("block", "settings", "whole"), [(block, *rest) for block, rest in RESNET_50.items()])
def test_a_resnet_50_with_it_has_the_parameters_of_its_paper(block, settings, whole):
    # BAM: one each after stages 2, 3 and 4.
    sites = [(c, side, 1) for c, side, _ in BRANCH_ENDS[:3]] if block is BAM else BRANCH_ENDS
    added = 0
    for channels, side, number in sites:
        sized = {"size": side} if block in (FrequencyAttention, GatherExcite) else {}
        with torch.device("meta"):
            module = block(channels, **settings, **sized)
        added += number * count(module)
    assert PLAIN + added == whole


def test_theta_plus_and_sknet_50_have_the_parameters_of_their_papers():
    with torch.device("meta"):
        plus = [number * count(GatherExcite(c, extra="theta-plus", size=side)) for c, side, number in BRANCH_ENDS]
        # In place of the 3x3 convolution (32 groups) and its BN in ResNeXt-50, at half of each stage's width.
        more = [
            number * (count(SelectiveKernel(c // 2)) - 9 * (c // 2) ** 2 // 32 - 2 * (c // 2))
            for c, _, number in BRANCH_ENDS
        ]
    assert PLAIN + sum(plus) == 33_637_592
    assert 25_028_904 + sum(more) == 27_479_784


# The mean of sigmoid(t^2 / 4 + 1/2) under t^2 N(0, 1), by which a least-squares factor weighs: SimAM's, by quadrature.
GRID = np.linspace(-12, 12, 24_001)
DENSITY = GRID**2 * np.exp(-(GRID**2) / 2)
SIMAM = float((sigmoid(GRID**2 / 4 + 0.5) * DENSITY).sum() / DENSITY.sum())

FIRST_FACTORS = {
    "cbam": 0.25,
    "coordinate": 0.25,
    "srm": 0.5,
    "fca": 0.5,
    "theta-minus": 0.5,
    "theta": 0.5,
    "theta-plus": 0.5,
    "ese": 0.5,
    "mobilenet_se": 0.5,
    "se_var 1": 0.5,
    "constant": 0.5,
    "simam": SIMAM,
    "gc": 1.0,
    "bam": 1.5,
}


@pytest.mark.parametrize(("name", "factor"), FIRST_FACTORS.items())
def test_the_factor_at_the_first_step(name, factor):
    block, settings, *_ = CLOSED_FORMS[name]
    found = first_factor(Subject(lambda channels, side: block(channels, **settings), 256))
    assert found == pytest.approx(factor, abs=0.01)


def test_gc_starts_as_the_identity_and_cbam_with_half_a_spatial_gate():
    x = images(64).float()
    assert torch.equal(GlobalContext(64)(x), x)
    assert torch.equal(CBAM(64).spatial_gate(x), torch.full((3, 1, 6, 5), 0.5))


def test_sk_is_not_negative_so_the_relu_that_follows_changes_nothing():
    out = built(SelectiveKernel, channels=32, branches=3)(images(32))
    assert out.shape == (3, 32, 6, 5)
    assert (out >= 0).all()
    assert (out > 0).any()


@pytest.mark.parametrize(
    ("block", "settings", "message"),
    [
        (CBAM, {"channels": 8}, "reduction = 16 leaves no hidden channel of 8: expected 1 to 8"),
        (BAM, {"channels": 8, "reduction": 0}, "reduction = 0: expected an integer of 1 or more"),
        (CBAM, {"channels": 64, "kernel_size": 4}, "kernel_size = 4: expected an odd number"),
        (BAM, {"channels": 64, "dilation": 0}, "dilation = 0: expected an integer of 1 or more; the paper has 4"),
        (
            GatherExcite,
            {"channels": 64, "extra": "theta+"},
            "extra = 'theta.': expected one of theta-minus, theta, theta-plus",
        ),
        (GatherExcite, {"channels": 64, "extent": 6}, "extent = 6: expected 2, 4, 8"),
        (GatherExcite, {"channels": 64, "extra": "theta"}, "needs size"),
        (
            FrequencyAttention,
            {"channels": 24, "size": 7},
            "cannot share 24 channels: expected one of 1, 2, 3, 4, 6, 8, 12",
        ),
        (FrequencyAttention, {"channels": 64, "size": 7, "frequencies": 32}, "frequencies = 32"),
        (CoordinateAttention, {"channels": 64, "reduction": 2.5}, "reduction = 2.5: expected an integer"),
        (MobileNetSE, {"channels": 64, "reduction": "4"}, "reduction = '4': expected an integer"),
        (EfficientChannelAttention, {"channels": 8, "kernel": 4}, "kernel = 4 has no middle"),
        (SimAM, {"channels": 64, "e_lambda": 0}, "e_lambda = 0: expected a number above 0"),
        (SimAM, {"channels": 64, "size": 1}, "simam on maps of 1x1"),
        (StyleRecalibration, {"channels": 64, "size": 1}, "srm on maps of 1x1"),
        (SEVariant, {"channels": 64, "form": 4}, "form = 4: expected 1"),
        (Constant, {"channels": 64, "factor": math.nan}, "factor = nan: expected a finite number"),
        (Constant, {"channels": 64, "factor": "half"}, "factor = 'half': expected a finite number"),
        (SelectiveKernel, {"channels": 48}, "groups = 32 does not divide 48 and 48 channels"),
        (SelectiveKernel, {"channels": 64, "branches": 1}, "branches = 1: expected 2 or more"),
        (SelectiveKernel, {"channels": 64, "reduction": True}, "reduction = True: expected an integer"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(block, settings, message):
    with pytest.raises(ValueError, match=message):
        block(**settings)


def test_a_map_of_another_size_is_refused_where_the_kernel_is_as_large_as_the_map():
    with pytest.raises(ValueError, match=r"built for maps of 8x8, given 8x16"):
        GatherExcite(16, extra="theta", size=8)(torch.zeros(2, 16, 8, 16))


@pytest.mark.filterwarnings("ignore:.*degrees of freedom.*:UserWarning")
@pytest.mark.parametrize("block", [SimAM, StyleRecalibration])
def test_one_pixel_has_no_variance(block):
    assert block(64).eval()(torch.ones(2, 64, 1, 1)).isnan().all()


@pytest.mark.parametrize("name", FILES)
def test_docstring_examples_hold(name):
    module = import_module(f"senet_ablate.blocks.{name}")
    examples = [
        case
        for case in doctest.DocTestFinder().find(module, globs={**vars(module), "torch": torch, "nn": nn})
        if case.examples
    ]
    assert examples
    for case in examples:
        assert doctest.DocTestRunner().run(case).failed == 0

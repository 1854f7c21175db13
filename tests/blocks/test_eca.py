"""Under test: the ECA block, a block of another kind, by hand, against timm's, and in all that blocks share."""

from typing import get_args

import pytest
import torch
from timm.layers import EcaModule

from senet_ablate.blocks.eca import EfficientChannelAttention
from senet_ablate.blocks.se import GATES, SQUEEZES
from senet_ablate.models.resnet import ATTENTION, ResNet
from senet_ablate.models.survey import count_complexity
from senet_ablate.seeding import initialise
from senet_ablate.spec.cost import LAYERS, added_cost, total_cost
from senet_ablate.spec.geometry import eca_kernel
from senet_ablate.spec.network import UNREAD, Excitation, Network, Placement, Position, SEConfig, Variant

ECA = SEConfig(excitation="eca")
WIDTH_8 = Network(backbone="resnet14", width=8, stem="small")
EVERY_BLOCK = pytest.mark.parametrize(("squeeze", "gate"), [(s, g) for s in SQUEEZES for g in GATES])


def block_of(channels, **config):
    torch.manual_seed(0)
    return EfficientChannelAttention(channels, SEConfig(excitation="eca", **config)).double()


# log2(C) / 2 + 1 / 2 by hand, cut to an integer, and up to the next odd number
@pytest.mark.parametrize(
    ("channels", "length"),
    [(1, 1), (2, 1), (4, 1), (7, 1), (8, 3), (16, 3), (64, 3), (127, 3), (128, 5), (1024, 5), (2048, 7)],
)
def test_the_kernel_grows_with_the_logarithm_of_the_width(channels, length):
    assert eca_kernel(channels) == length
    assert [tuple(weight.shape) for weight in block_of(channels).parameters()] == [(1, 1, length, 1)]


@pytest.mark.parametrize(("squeeze", "z"), [("avg", 2.0), ("max", 4.0)])
def test_what_a_channel_is_given_is_a_weighted_sum_of_its_neighbours(squeeze, z):
    block = block_of(8, squeeze=squeeze, gate="none")
    with torch.no_grad():
        block.conv.weight.copy_(torch.tensor([0.5, 1.0, -2.0]).view(1, 1, 3, 1))
    x = torch.zeros(1, 8, 2, 2, dtype=torch.double)
    x[0, 3] = torch.tensor([[1.0, 3.0], [0.0, 4.0]])  # mean 2, largest 4
    added = (block(x) - x)[0, :, 0, 0]
    # Channel 2 sees it after itself, channel 4 before; the sum is a correlation, as torch and the authors write it.
    assert added.tolist() == [0, 0, -2.0 * z, z, 0.5 * z, 0, 0, 0]


@pytest.mark.parametrize("channels", [8, 24, 64, 256, 2048])
def test_outputs_and_gradients_are_those_of_timm(channels):
    ours, theirs = block_of(channels), EcaModule(channels).double()
    theirs.conv.weight.data = ours.conv.weight.detach().squeeze(3).clone()
    x = torch.randn(3, channels, 5, 4, dtype=torch.double)
    found = []
    for block in (ours, theirs):
        own = x.clone().requires_grad_()
        out = block(own)
        out.square().sum().backward()
        found.append((out.detach(), own.grad, block.conv.weight.grad.flatten()))
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other)


@EVERY_BLOCK
def test_without_squeeze_each_pixel_is_a_map_of_its_own(squeeze, gate):
    block = block_of(8, squeeze=squeeze, gate=gate)
    x = torch.randn(2, 8, 3, 4, dtype=torch.double).to(memory_format=torch.channels_last)
    out = block(x)
    assert out.shape == x.shape
    if squeeze == "none":
        pixels = x.permute(0, 2, 3, 1).reshape(24, 8, 1, 1)
        torch.testing.assert_close(out.permute(0, 2, 3, 1).reshape(24, 8, 1, 1), block(pixels))
    assert all(weight.requires_grad == GATES[gate].learnt for weight in block.parameters())


def test_backward_agrees_with_finite_differences():
    block = block_of(4, gate="tanh")
    x = torch.randn(2, 4, 2, 2, dtype=torch.double, requires_grad=True)
    weight = block.conv.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, w: torch.func.functional_call(block, {"conv.weight": w}, (x,)), (x, weight)
    )


def test_first_weights_are_keyed_by_seed_and_name():
    def weights(seed):
        torch.manual_seed(7 + seed)  # what the shared generator would have given does not matter
        model = ResNet(WIDTH_8, Variant(se=ECA), in_channels=1, classes=10)
        torch.rand(seed)
        initialise(model, 3)
        return model.state_dict()

    one, other = weights(0), weights(1)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    plain = ResNet(WIDTH_8, Variant(), in_channels=1, classes=10)
    initialise(plain, 3)
    assert all(torch.equal(value, one[name]) for name, value in plain.state_dict().items())


@pytest.mark.parametrize("squeeze", SQUEEZES)
def test_it_costs_its_kernel(squeeze):
    variant = Variant(se=SEConfig(excitation="eca", squeeze=squeeze))
    added = added_cost(WIDTH_8, variant, 8)
    # Blocks see 32, 64, 128 and 256 channels, on maps of 8, 4, 2 and 1 pixels a side.
    sites = [(32, 3, 64), (64, 3, 16), (128, 5, 4), (256, 5, 1)]
    assert added.params == sum(kernel for _, kernel, _ in sites)
    once = [kernel * channels for channels, kernel, _ in sites]
    read = [channels * pixels for channels, _, pixels in sites]
    at_each_pixel = [macs * pixels for macs, (_, _, pixels) in zip(once, sites, strict=True)]
    assert added.macs == (sum(at_each_pixel) if squeeze == "none" else sum(once) + sum(read))
    with_block, without = (
        count_complexity(ResNet(WIDTH_8, one, in_channels=1, classes=10), in_channels=1, resolution=8)
        for one in (variant, Variant())
    )
    assert (with_block.params - without.params, with_block.macs - without.macs) == (added.params, added.macs)


@pytest.mark.parametrize("position", get_args(Position))
def test_it_fits_every_place_and_costs_there_what_its_trace_counts(position):
    variant = Variant(se=ECA, placement=Placement(position=position))
    task = {"in_channels": 3, "resolution": 8}
    model = ResNet(WIDTH_8, variant, classes=10, in_channels=3)
    assert count_complexity(model, **task) == total_cost(WIDTH_8, variant, classes=10, **task)
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 10)


def test_a_resnet_50_has_86_of_its_weights():
    # 3 blocks of 256 channels, 4 of 512 and 6 of 1,024 have k = 5, 3 of 2,048 have k = 7.
    assert added_cost(Network(backbone="resnet50"), Variant(se=ECA), 224).params == 13 * 5 + 3 * 7


@pytest.mark.parametrize(("key", "value"), [("reduction", 8), ("bias", True)])
def test_a_key_that_it_does_not_read_is_refused(key, value):
    with pytest.raises(ValueError, match=f"{key} has no meaning with excitation = 'eca'; leave it out"):
        SEConfig(excitation="eca", **{key: value})


def test_it_is_named_by_what_it_is():
    assert Variant(se=SEConfig(excitation="eca", squeeze="max", gate="tanh")).slug == "eca-max-tanh"


def test_every_declared_excitation_has_a_block_and_a_cost_and_no_other():
    assert set(ATTENTION) == set(LAYERS) == set(UNREAD) == set(get_args(Excitation))

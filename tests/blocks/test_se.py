"""Under test: the SE block and its controls, by hand on a 2x2 map, against timm's, and its gradients."""

import math
from typing import get_args

import pytest
import torch
from timm.layers import SEModule

from senet_ablate.blocks.se import GATES, SQUEEZES, SqueezeExcitation, squeeze_avg
from senet_ablate.models.build import build_network
from senet_ablate.models.survey import count_complexity
from senet_ablate.spec.cost import added_cost
from senet_ablate.spec.network import Gate, Network, SEConfig, Squeeze, Variant

# Two channels of a 2x2 map. W1 = (0.5, -0.25), one hidden channel; W2 = (0.8, -0.4).
MAP = [[[1.0, 2.0], [3.0, 6.0]], [[4.0, -2.0], [0.0, 2.0]]]
W1, W2 = (0.5, -0.25), (0.8, -0.4)
# W2 relu(W1 z) by hand, at each pixel of each channel:
#   avg:  z = (3, 1), hidden 1.25, so (1, -0.5);  max: z = (6, 4), hidden 2, so (1.6, -0.8);
#   none: hidden -0.5 (cut to 0), 1.5 and 1.5, 2.5 at the four pixels.
BEFORE_THE_GATE = {
    "avg": [[[1.0, 1.0], [1.0, 1.0]], [[-0.5, -0.5], [-0.5, -0.5]]],
    "max": [[[1.6, 1.6], [1.6, 1.6]], [[-0.8, -0.8], [-0.8, -0.8]]],
    "none": [[[0.0, 1.2], [1.2, 2.0]], [[0.0, -0.6], [-0.6, -1.0]]],
}
OUTPUT_BY_HAND = {  # of a pixel x whose value before the gate is u
    "sigmoid": lambda x, u: x / (1 + math.exp(-u)),
    "tanh": lambda x, u: x * (math.exp(2 * u) - 1) / (math.exp(2 * u) + 1),
    "relu": lambda x, u: x * max(u, 0.0),
    "double-sigmoid": lambda x, u: 2 * x / (1 + math.exp(-u)),
    "constant": lambda x, u: x / 2,
    "random": lambda x, u: x / (1 + math.exp(-u)),
    "none": lambda x, u: x + u,
}
NOT_LEARNT = ("constant", "random")
CONTROLS = (*NOT_LEARNT, "none")
EVERY_BLOCK = pytest.mark.parametrize(("squeeze", "gate"), [(s, g) for s in SQUEEZES for g in GATES])


def small_block(**config) -> SqueezeExcitation:
    """The block of two channels with the weights above."""
    block = SqueezeExcitation(2, SEConfig(reduction=2, **config)).double()
    with torch.no_grad():
        block.reduce.weight.copy_(torch.tensor(W1).view(1, 2, 1, 1))
        block.expand.weight.copy_(torch.tensor(W2).view(2, 1, 1, 1))
    return block


def random_block(channels: int, seed: int, **config) -> SqueezeExcitation:
    torch.manual_seed(seed)
    return SqueezeExcitation(channels, SEConfig(**config)).double()


def open_block(channels: int, seed: int, **config) -> SqueezeExcitation:
    """A random block with biases that keep most of its ReLUs open, so that images and weights tell."""
    block = random_block(channels, seed, bias=True, **config)
    with torch.no_grad():
        block.reduce.bias.fill_(1.0)
        block.expand.bias.fill_(1.0)
    return block


@EVERY_BLOCK
def test_output_on_a_2x2_map_is_that_of_hand_arithmetic(squeeze, gate):
    x = torch.tensor([MAP], dtype=torch.float64)
    expected = [
        [
            [OUTPUT_BY_HAND[gate](x_ij, before) for x_ij, before in zip(x_row, row, strict=True)]
            for x_row, row in zip(channel, rows, strict=True)
        ]
        for channel, rows in zip(MAP, BEFORE_THE_GATE[squeeze], strict=True)
    ]
    out = small_block(squeeze=squeeze, gate=gate)(x)
    torch.testing.assert_close(out, torch.tensor([expected], dtype=torch.float64), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("gate", "closed"),
    [
        ("sigmoid", 0.5),
        ("tanh", 0.0),
        ("relu", 0.0),
        ("double-sigmoid", 1.0),
        ("constant", 0.5),
        ("random", 0.5),
        ("none", 1.0),
    ],
)
def test_negative_hidden_channel_is_cut_to_zero_before_the_second_layer(gate, closed):
    x = -torch.tensor([MAP], dtype=torch.float64)  # the average squeeze gives a hidden value of -1.25
    torch.testing.assert_close(small_block(gate=gate)(x), closed * x)


@EVERY_BLOCK
def test_the_residual_form_adds_the_map_to_what_the_block_gives(squeeze, gate):
    x = torch.tensor([MAP], dtype=torch.float64)
    residual, usual = (small_block(squeeze=squeeze, gate=gate, residual=which) for which in (True, False))
    torch.testing.assert_close(residual(x), x + usual(x), rtol=0, atol=0)
    torch.testing.assert_close(residual.excitation(x), usual.excitation(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("config", "factor"), [({}, 0.5), ({"gate": "double-sigmoid"}, 1.0), ({"residual": True}, 1.5)]
)
def test_a_block_without_excitation_multiplies_by_the_factor_of_its_form(config, factor):
    block = random_block(8, 0, reduction=2, **config)
    with torch.no_grad():
        block.expand.weight.zero_()
    x = torch.randn(2, 8, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(block(x), factor * x)


def test_biases_are_added_to_both_layers():
    block = small_block(gate="relu", bias=True)
    with torch.no_grad():
        block.reduce.bias.fill_(0.75)  # hidden 1.25 + 0.75 = 2, so (1.6, -0.8) before the second bias
        block.expand.bias.copy_(torch.tensor([0.4, 1.0]))  # (2.0, 0.2)
    x = torch.tensor([MAP], dtype=torch.float64)
    gates = torch.tensor([2.0, 0.2], dtype=torch.float64).view(1, 2, 1, 1)
    torch.testing.assert_close(block(x), x * gates, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("squeeze", SQUEEZES)
def test_images_of_a_batch_do_not_see_each_other(squeeze):
    block = random_block(8, 1, squeeze=squeeze, reduction=2)
    x = torch.randn(3, 8, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(block(x), torch.cat([block(image[None]) for image in x]))


def test_excitation_has_one_value_per_channel_or_without_squeeze_one_per_pixel():
    x = torch.randn(3, 8, 5, 7, dtype=torch.float64)
    assert random_block(8, 1, reduction=2).excitation(x).shape == (3, 8, 1, 1)
    assert random_block(8, 1, reduction=2, squeeze="max").excitation(x).shape == (3, 8, 1, 1)
    assert random_block(8, 1, reduction=2, squeeze="none").excitation(x).shape == (3, 8, 5, 7)


@pytest.mark.parametrize("squeeze", ["max", "none"])
def test_on_a_single_pixel_every_squeeze_is_the_average(squeeze):
    x = torch.randn(2, 8, 1, 1, dtype=torch.float64)
    other, average = (random_block(8, 3, reduction=2, squeeze=name) for name in (squeeze, "avg"))
    torch.testing.assert_close(other(x), average(x), rtol=0, atol=0)


def test_equal_maxima_share_the_gradient():
    x = torch.ones(1, 1, 2, 2, requires_grad=True)
    SQUEEZES["max"](x).sum().backward()
    torch.testing.assert_close(x.grad, torch.full((1, 1, 2, 2), 0.25))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("gate", "timms"), [("sigmoid", "sigmoid"), ("tanh", "tanh"), ("relu", "relu"), ("random", "sigmoid")]
)
@pytest.mark.parametrize(("channels", "reduction"), [(64, 16), (64, 8), (24, 5)])
def test_average_squeeze_equals_timm(channels, reduction, gate, timms, bias):
    ours = random_block(channels, 5, gate=gate, reduction=reduction, bias=bias)
    theirs = SEModule(channels, rd_channels=channels // reduction, gate_layer=timms, bias=bias).double()
    renamed = {"fc1": "reduce", "fc2": "expand"}
    weights = {
        f"{timm_name}.{key}": value
        for timm_name, name in renamed.items()
        for key, value in getattr(ours, name).state_dict().items()
    }
    theirs.load_state_dict(weights, strict=True)
    x = 3 * torch.randn(2, channels, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))


@EVERY_BLOCK
def test_gradients_equal_finite_differences(squeeze, gate):
    block = open_block(4, 6, squeeze=squeeze, gate=gate, reduction=2)  # a closed ReLU has a gradient of 0 to compare
    x = torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,))
    parameters = {name: value for name, value in block.named_parameters() if value.requires_grad}
    assert len(parameters) == (0 if gate in NOT_LEARNT else 4)
    assert all(grad.any() for grad in torch.autograd.grad(block(x).sum(), [x, *parameters.values()]))

    def with_weights(*values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(block, dict(zip(parameters, values, strict=True)), (x.detach(),))

    if parameters:
        assert torch.autograd.gradcheck(with_weights, tuple(parameters.values()))


@pytest.mark.parametrize("squeeze", SQUEEZES)
def test_constant_gate_halves_exactly_whatever_the_image_and_the_weights(squeeze):
    block = open_block(8, 7, gate="constant", reduction=2, squeeze=squeeze)
    for scale in (1e-300, 1.0, 1e300):  # the sigmoid would be anything from 0 to 1
        x = scale * torch.randn(3, 8, 4, 5, dtype=torch.float64)
        torch.testing.assert_close(block(x), x / 2, rtol=0, atol=0)


@pytest.mark.parametrize("gate", GATES)
def test_a_step_with_weight_decay_moves_both_layers_unless_the_gate_is_not_learnt(gate):
    block = open_block(8, 9, gate=gate, reduction=2)
    before = {name: value.clone() for name, value in block.named_parameters()}
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    x = torch.randn(3, 8, 4, 5, dtype=torch.float64, requires_grad=True)
    block(x).square().sum().backward()
    optimizer.step()
    assert x.grad.any()
    without = {name for name, value in block.named_parameters() if value.grad is None}
    kept = {name for name, value in block.named_parameters() if torch.equal(value, before[name])}
    assert without == kept == (set(before) if gate in NOT_LEARNT else set())


@pytest.mark.parametrize("squeeze", SQUEEZES)
@pytest.mark.parametrize("gate", CONTROLS)
def test_controls_cost_a_network_what_sigmoid_gates_cost_it(gate, squeeze):
    network = Network(backbone="resnet14", width=16, stem="small")
    config = SEConfig(squeeze=squeeze, bias=True)
    control, sigmoid, plain = (Variant(se=se) for se in (config.model_copy(update={"gate": gate}), config, None))
    costs = [
        count_complexity(
            build_network(network, variant, in_channels=1, classes=10, resolution=8), in_channels=1, resolution=8
        )
        for variant in (control, sigmoid, plain)
    ]
    assert costs[0] == costs[1]
    added = added_cost(network, control, 8)
    assert added == added_cost(network, sigmoid, 8)
    assert (added.params, added.macs) == (costs[0].params - costs[2].params, costs[0].macs - costs[2].macs)


@pytest.mark.parametrize(("channels", "reduction"), [(8, 16), (15, 16), (1, 2)])
def test_empty_bottleneck_is_refused(channels, reduction):
    with pytest.raises(ValueError, match=f"reduction = {reduction} leaves no hidden channel of {channels}"):
        SqueezeExcitation(channels, SEConfig(reduction=reduction))


@pytest.mark.parametrize(("channels", "reduction", "hidden"), [(16, 16, 1), (31, 16, 1), (64, 16, 4), (64, 32, 2)])
def test_hidden_width_is_the_floor_of_c_over_r(channels, reduction, hidden):
    block = SqueezeExcitation(channels, SEConfig(reduction=reduction))
    assert [tuple(p.shape) for p in block.parameters()] == [(hidden, channels, 1, 1), (channels, hidden, 1, 1)]


def test_every_declared_squeeze_and_gate_exists_and_no_other():
    assert set(SQUEEZES) == set(get_args(Squeeze))
    assert set(GATES) == set(get_args(Gate))


def test_printed_block_shows_squeeze_gate_and_reduction():
    block = SqueezeExcitation(8, SEConfig(squeeze="max", gate="tanh", reduction=2))
    assert "squeeze=max, gate=tanh, reduction=2)" in str(block).replace("\n", ")")
    assert "reduction=2, residual=True" in str(SqueezeExcitation(8, reduction=2, residual=True))


def test_the_average_is_the_mean_and_its_backward_never_fills_a_map():
    torch.manual_seed(0)
    x = torch.randn(3, 16, 5, 4, dtype=torch.double, requires_grad=True)
    torch.testing.assert_close(squeeze_avg(x), x.mean(dim=(2, 3), keepdim=True))
    upstream = torch.randn(3, 16, 1, 1, dtype=torch.double)
    (gradient,) = torch.autograd.grad(squeeze_avg(x), x, upstream)
    torch.testing.assert_close(gradient, (upstream / 20).expand_as(x))
    assert gradient.stride()[2:] == (0, 0)  # spread over the map without a copy

"""Random streams: every draw is keyed by seed and purpose, so that the layers two arms share start equal."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import OrderedDict

import pytest
import torch
from helpers import NETWORK
from torch import Tensor, nn

from senet_ablate.models.build import build_network
from senet_ablate.seeding import generator, initialise, stream_seed
from senet_ablate.spec.network import Placement, SEConfig, Variant

PLAIN, SE = Variant(), Variant(se=SEConfig())


def started(variant: Variant, seed: int = 0) -> dict[str, Tensor]:
    model = build_network(NETWORK, variant, in_channels=1, classes=10, resolution=8)
    initialise(model, seed)
    return model.state_dict()


@pytest.mark.parametrize(
    "other",
    [
        (1, "order", 3, 7),
        (0, "augment", 3, 7),
        (0, "order", 4, 7),
        (0, "order", 3, 8),
        (0, "order", 3),
        (0, "order", 7, 3),
        (0, "order", 37),
        (0, "order", 3, 7, 0),
    ],
)
def test_stream_seed_depends_on_every_part_of_the_key(other: tuple) -> None:
    assert stream_seed(*other) != stream_seed(0, "order", 3, 7)


def test_stream_seeds_are_distinct_and_fit_into_63_bits() -> None:
    seeds = {stream_seed(seed, "order", epoch) for seed in range(30) for epoch in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62, "the upper bits are used"


def test_stream_seed_is_the_same_in_another_process() -> None:
    code = "from senet_ablate.seeding import stream_seed; print(stream_seed(5, 'weights', 'layer1.0.conv1'))"
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) == stream_seed(5, "weights", "layer1.0.conv1")


def test_generator_starts_anew_each_time_it_is_named() -> None:
    first, again = (torch.rand(5, generator=generator(3, "order", 1)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, torch.rand(5, generator=generator(3, "order", 2)))


SHARED_COMPLETELY = [Variant(se=SEConfig(gate=gate)) for gate in ("tanh", "relu", "constant", "random", "none")] + [
    Variant(se=SEConfig(squeeze=squeeze)) for squeeze in ("max", "none")
]
SE_APART = [
    PLAIN,
    Variant(se=SEConfig(reduction=4)),
    Variant(se=SEConfig(bias=True)),
    Variant(se=SEConfig(), placement=Placement(stages=(3,))),
    *(
        Variant(se=SEConfig(), placement=Placement(position=position))
        for position in ("pre", "post", "identity", "inner-3x3")
    ),
]


@pytest.mark.parametrize("variant", [*SHARED_COMPLETELY, *SE_APART], ids=lambda variant: variant.slug)
def test_layers_that_two_arms_share_start_bitwise_equal(variant: Variant) -> None:
    ours, theirs = started(variant), started(SE)
    shared = {name for name in ours.keys() & theirs.keys() if ours[name].shape == theirs[name].shape}
    assert shared >= started(PLAIN).keys(), "all that is not SE is shared"
    assert all(torch.equal(ours[name], theirs[name]) for name in shared)


@pytest.mark.parametrize("variant", SHARED_COMPLETELY, ids=lambda variant: variant.slug)
def test_gate_and_squeeze_change_no_initial_weight_at_all(variant: Variant) -> None:
    ours, theirs = started(variant), started(SE)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_seeds_draw_other_weights_in_every_layer() -> None:
    one, other = started(SE, 0), started(SE, 1)
    drawn = [name for name in one if one[name].dim() > 1]
    assert len(drawn) == 1 + 4 * 3 + 4 + 4 * 2 + 1  # stem, bottlenecks, projections, SE, classifier
    assert not any(torch.equal(one[name], other[name]) for name in drawn)


def test_layers_of_one_shape_draw_different_weights() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    initialise(model, 0)
    assert not torch.equal(model[0].weight, model[1].weight)


def test_a_layer_in_between_moves_no_other_layers_draws() -> None:
    few = nn.Sequential(OrderedDict(a=nn.Conv2d(3, 5, 3), c=nn.Linear(5, 2)))
    more = nn.Sequential(OrderedDict(a=nn.Conv2d(3, 5, 3), b=nn.Conv2d(5, 5, 1), c=nn.Linear(5, 2)))
    initialise(few, 9)
    initialise(more, 9)
    assert torch.equal(few.a.weight, more.a.weight)
    assert torch.equal(few.c.weight, more.c.weight)


def test_convolutions_have_the_he_fan_out_deviation() -> None:
    layer = nn.Conv2d(96, 256, 3)
    initialise(layer, 0)
    count = layer.weight.numel()
    expected = math.sqrt(2 / (256 * 3 * 3))
    # Five standard errors of the mean and of the deviation of a normal sample.
    assert abs(layer.weight.mean().item()) < 5 * expected / math.sqrt(count)
    assert abs(layer.weight.std().item() / expected - 1) < 5 / math.sqrt(2 * count)
    beyond = (layer.weight.abs() > 2 * expected).float().mean().item()
    assert abs(beyond - 0.0455) < 5 * math.sqrt(0.0455 * 0.9545 / count), "the tails are a normal distribution's"


def test_linear_layers_are_uniform_within_the_root_of_fan_in() -> None:
    layer = nn.Linear(400, 500)
    initialise(layer, 0)
    assert 0.999 / 20 < layer.weight.abs().max().item() <= 1 / 20
    # The deviation of a uniform sample of kurtosis 1.8 has the relative standard error sqrt(0.8 / 4n).
    error = math.sqrt(0.8 / (4 * layer.weight.numel()))
    assert abs(layer.weight.std().item() * 20 * math.sqrt(3) - 1) < 5 * error


def test_biases_start_at_zero_and_normalisations_at_one_and_zero() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        for tensor in (*model.parameters(), model[1].running_mean, model[1].running_var):
            tensor.fill_(7.0)
        model[1].num_batches_tracked.fill_(7)
    initialise(model, 0)
    norm = model[1]
    assert not any(tensor.any() for tensor in (model[0].bias, model[3].bias, norm.bias, norm.running_mean))
    assert all((tensor == 1).all() for tensor in (norm.weight, norm.running_var))
    assert norm.num_batches_tracked == 0


def test_initial_weights_ignore_the_global_random_state_and_leave_it_alone() -> None:
    torch.manual_seed(1)
    first = started(SE)
    torch.manual_seed(2)
    model = build_network(NETWORK, SE, in_channels=1, classes=10, resolution=8)
    before = torch.get_rng_state()
    initialise(model, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], tensor) for name, tensor in model.state_dict().items())

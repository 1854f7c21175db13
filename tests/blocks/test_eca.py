"""Under test: the ECA block by hand, and in networks of every place; test_attention_blocks has it against timm's."""

from typing import get_args

import pytest
import torch

from senet_ablate.blocks.eca import EfficientChannelAttention, kernel_length
from senet_ablate.models.build import build_network
from senet_ablate.models.survey import count_complexity, survey
from senet_ablate.spec.network import Network, Placement, Position, Variant

ECA = Variant(block="eca")
WIDTH_8 = Network(backbone="resnet14", width=8, stem="small")
TASK = {"in_channels": 1, "classes": 10, "resolution": 8}


def block_of(channels, **settings):
    torch.manual_seed(0)
    return EfficientChannelAttention(channels, **settings).double()


# log2(C) / 2 + 1 / 2 by hand, cut to an integer, and up to the next odd number
@pytest.mark.parametrize(
    ("channels", "length"),
    [(1, 1), (2, 1), (4, 1), (7, 1), (8, 3), (16, 3), (64, 3), (127, 3), (128, 5), (1024, 5), (2048, 7)],
)
def test_the_kernel_grows_with_the_logarithm_of_the_width(channels, length):
    assert kernel_length(channels) == length
    assert [tuple(weight.shape) for weight in block_of(channels).parameters()] == [(1, 1, length)]


def test_what_a_channel_is_given_is_a_weighted_sum_of_its_neighbours():
    block = block_of(8)
    with torch.no_grad():
        block.conv.weight.copy_(torch.tensor([[[0.5, 1.0, -2.0]]]))
    x = torch.zeros(1, 8, 2, 2, dtype=torch.double)
    x[0, 3] = torch.tensor([[1.0, 3.0], [0.0, 4.0]])  # mean 2
    before_the_gate = torch.logit(block.excitation(x))[0, :, 0, 0]
    # Channel 2 sees it after itself, channel 4 before; the sum is a correlation, as torch and the authors write it.
    by_hand = torch.tensor([0, 0, -4.0, 2.0, 1.0, 0, 0, 0], dtype=torch.double)
    torch.testing.assert_close(before_the_gate, by_hand)
    torch.testing.assert_close(block(x), x * torch.sigmoid(by_hand)[:, None, None])


def test_first_weights_are_keyed_by_seed_and_name():
    def weights(state, variant=ECA, seed=3):
        torch.manual_seed(state)  # what the shared generator would have given does not matter
        return build_network(WIDTH_8, variant, **TASK, seed=seed).state_dict()

    one, other, apart = weights(7), weights(8), weights(7, seed=4)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    kernels = [name for name in one if name.endswith("se.conv.weight")]
    assert len(kernels) == 4
    assert not any(torch.equal(one[name], apart[name]) for name in kernels)
    assert not torch.equal(one[kernels[0]], one[kernels[1]]), "one key for each place"
    assert all(torch.equal(value, one[name]) for name, value in weights(9, Variant()).items())


@pytest.mark.parametrize("position", [name for name in get_args(Position) if name != "replace-3x3"])
def test_it_fits_every_place_and_costs_there_what_it_adds_to_the_plain_network(position):
    variant = ECA.model_copy(update={"placement": Placement(position=position)})
    found, plain = survey(WIDTH_8, variant, **TASK), survey(WIDTH_8, Variant(), **TASK)
    assert found.total.params - plain.total.params == found.added.params > 0
    assert found.total.macs - plain.total.macs == found.added.macs > 0
    model = build_network(WIDTH_8, variant, **TASK)
    assert count_complexity(model, in_channels=1, resolution=8) == found.total
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        # 3 blocks of 256 channels, 4 of 512 and 6 of 1,024 have k = 5, 3 of 2,048 have k = 7.
        ({}, 13 * 5 + 3 * 7),
        # Those of the released model, k = 3, 5, 5, 7 by stage: the abstract's 80.
        ({"kernel": {2: 3, 3: 5, 4: 5, 5: 7}}, 80),
    ],
)
def test_a_resnet_50_has_the_weights_of_equation_12_or_of_the_abstract(settings, weights):
    variant = Variant(block="eca", settings=settings)
    added = survey(Network(backbone="resnet50"), variant, in_channels=3, classes=1000, resolution=224).added
    assert added.params == weights


@pytest.mark.parametrize(("key", "value"), [("reduction", 8), ("bias", True)])
def test_a_setting_that_it_does_not_have_is_refused(key, value):
    with pytest.raises(ValueError, match=f"block 'eca' has no setting '{key}'; .*kernel"):
        build_network(WIDTH_8, Variant(block="eca", settings={key: value}), **TASK)


def test_it_is_named_by_what_it_is():
    assert ECA.slug == "eca"
    assert ECA.model_copy(update={"placement": Placement(stages=(3, 4), position="pre")}).slug == "eca-stage34-pre"

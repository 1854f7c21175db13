"""Under test: `legacy`, against timm's own networks of that layout with random weights."""

import pytest
import timm
import torch
from helpers import layout, scrambled
from torch import nn

from senet_ablate.errors import UserError
from senet_ablate.models.build import build_network
from senet_ablate.models.weights import LEGACY_VARIANT, from_legacy, is_legacy, legacy_network, to_legacy
from senet_ablate.spec.network import Network, Variant


def ours(network: Network, weights, classes: int = 1000) -> nn.Module:
    model = build_network(network, LEGACY_VARIANT, in_channels=3, classes=classes, resolution=224)
    model.load_state_dict(weights, strict=True)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("side", [224, 97])
def test_converted_weights_give_timms_outputs(side):
    torch.manual_seed(0)
    theirs = scrambled(timm.create_model("legacy_seresnet50")).eval()
    network = legacy_network("resnet50")
    weights = from_legacy(theirs.state_dict())
    model = ours(network, weights)
    images = torch.randn(2, 3, side, side)
    expected = theirs(images)
    torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)
    plain = build_network(network, Variant(), in_channels=3, classes=1000, resolution=224).eval()
    plain.load_state_dict({name: value for name, value in weights.items() if ".se." not in name})
    padded = ours(network.model_copy(update={"stem_pool": "padded"}), weights)
    for other in (plain, padded):
        assert (other(images) - expected).abs().max() > 0.01, "SE and the pooling's edge must show"


@pytest.mark.parametrize("backbone", ["resnet50", "resnet101", "resnet152"])
def test_every_depth_converts_and_back_exactly(backbone):
    with torch.device("meta"):
        theirs = timm.create_model(f"legacy_se{backbone}")
        model = build_network(legacy_network(backbone), LEGACY_VARIANT, in_channels=3, classes=1000, resolution=224)
    state = theirs.state_dict()
    assert {name: tuple(value.shape) for name, value in from_legacy(state).items()} == layout(model)
    back = to_legacy(from_legacy(state))
    assert list(back) == list(state)
    assert all(back[name] is value for name, value in state.items()), "the very tensors"
    assert {name: tuple(value.shape) for name, value in to_legacy(model.state_dict()).items()} == layout(theirs)


def test_files_older_than_batch_counters_convert():
    with torch.device("meta"):
        state = timm.create_model("legacy_seresnet50").state_dict()
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    assert from_legacy(old).keys() == from_legacy(state).keys()


def test_the_layout_is_told_apart_from_ours_and_timms_present_one():
    with torch.device("meta"):
        legacy, present = timm.create_model("legacy_seresnet50"), timm.create_model("seresnet50")
    assert is_legacy(legacy.state_dict())
    assert not is_legacy(present.state_dict())
    assert not is_legacy(from_legacy(legacy.state_dict()))


def test_networks_of_basic_blocks_are_refused():
    with pytest.raises(UserError, match="resnet18: released SE-ResNets are resnet50"):
        legacy_network("resnet18")

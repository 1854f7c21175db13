"""Under test: `legacy`, against timm's own networks of that layout with random weights."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from helpers import layout, scrambled
from torch import nn

from senet_ablate.errors import UserError, reason
from senet_ablate.models.build import build_network
from senet_ablate.models.pretrained import read_weights
from senet_ablate.models.weights import LEGACY_VARIANT, from_legacy, is_legacy, legacy_network
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
def test_every_depth_converts_to_our_layout(backbone):
    with torch.device("meta"):
        theirs = timm.create_model(f"legacy_se{backbone}")
        model = build_network(legacy_network(backbone), LEGACY_VARIANT, in_channels=3, classes=1000, resolution=224)
    state = theirs.state_dict()
    here = from_legacy(state)
    assert {name: tuple(value.shape) for name, value in here.items()} == layout(model)
    assert all(ours is value for ours, value in zip(here.values(), state.values(), strict=True)), "the very tensors"


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


class Hostile:
    """Executed where it is loaded without protection."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save({"conv1.weight": Hostile()}, path),
        lambda path: torch.save({"conv1.weight": Hostile()}, path, _use_new_zipfile_serialization=False),
        lambda path: path.write_bytes(pickle.dumps({"conv1.weight": Hostile()})),
        lambda path: path.write_bytes(pickle.dumps(Hostile(), protocol=0)),
    ],
    ids=["archive", "legacy", "pickle", "old pickle"],
)
def test_malicious_weights_are_refused_without_advice_to_load_them_all_the_same(
    write: Callable[[Path], object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "theirs.pt")
    with pytest.raises(UserError) as refused:
        read_weights(tmp_path / "theirs.pt")
    assert capsys.readouterr().out == ""
    told = str(refused.value)
    assert told.startswith(f"{tmp_path / 'theirs.pt'}: cannot be read as weights: it holds Python objects")
    assert "nothing of it was executed" in told
    for advice in ("weights_only", "allowlist", "trust", "safe_globals", "pickle"):
        assert advice not in told


def test_no_message_of_a_library_about_protection_reaches_the_user() -> None:
    for error in (
        ValueError("Object arrays cannot be loaded when allow_pickle=False"),
        pickle.UnpicklingError("anything"),
        RuntimeError("set `weights_only=False`"),
    ):
        assert "never" not in reason(error)
        assert reason(error).startswith("it holds Python objects")
    assert reason(ValueError("first\nsecond")) == "first"
    assert reason(EOFError()) == "EOFError"

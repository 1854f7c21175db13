"""Pretrained weights of the backbone: loaded before any block is put in, known by their digest, refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from helpers import scrambled
from torch import Tensor

from senet_ablate.errors import UserError
from senet_ablate.models.build import build_network
from senet_ablate.models.sites import inserts
from senet_ablate.spec.network import Network, SEConfig, Variant
from senet_ablate.spec.sources import with_source

TASK = {"in_channels": 3, "classes": 10, "resolution": 32, "seed": 0}
SE = Variant(se=SEConfig())


@pytest.fixture(scope="module")
def trained() -> dict[str, Tensor]:
    """Weights of torchvision's network of 5 classes that no constructor would give."""
    torch.manual_seed(0)
    return scrambled(torchvision.models.resnet18(num_classes=5)).state_dict()


@pytest.fixture
def file(tmp_path: Path, trained: dict[str, Tensor]) -> Path:
    torch.save(trained, tmp_path / "backbone.pt")
    return tmp_path / "backbone.pt"


def declared(file: Path, **network: object) -> Network:
    fields = {"backbone": "torchvision:resnet18", "pretrained": str(file)} | network
    return with_source(Network.model_validate(fields))


def test_the_backbone_starts_from_the_file_and_blocks_and_classifier_as_without(file: Path, trained) -> None:
    model, fresh = (
        build_network(network, SE, **TASK) for network in (declared(file), Network(backbone="torchvision:resnet18"))
    )
    state, usual = model.state_dict(), fresh.state_dict()
    head, inside = ("fc.weight", "fc.bias"), tuple(f"{each.site.path}." for each in inserts(model).values())
    assert len(inside) == 8
    for name, value in state.items():
        from_file = name not in head and not name.startswith(inside)
        assert torch.equal(value, trained[name] if from_file else usual[name]), name
    assert state["fc.weight"].shape == (10, 512)


def test_a_classifier_of_as_many_classes_is_loaded_too(file: Path, trained) -> None:
    model = build_network(declared(file), SE, **TASK | {"classes": 5})
    assert torch.equal(model.fc.weight, trained["fc.weight"])


def test_variants_start_from_the_same_weights(file: Path) -> None:
    plain, one, other = (
        build_network(declared(file), variant, **TASK).state_dict() for variant in (Variant(), SE, Variant(block="eca"))
    )
    assert all(torch.equal(value, one[name]) and torch.equal(value, other[name]) for name, value in plain.items())


def test_another_file_is_another_network_and_a_change_since_the_plan_is_refused(file: Path, trained) -> None:
    planned = declared(file)
    assert planned.source
    torch.save(trained | {"fc.bias": torch.ones(5)}, file)
    assert declared(file).source != planned.source
    with pytest.raises(UserError, match="the file changed since the run was planned") as caught:
        build_network(planned, SE, **TASK)
    assert str(file) in str(caught.value)


def test_the_digest_is_that_of_the_bytes_and_not_of_the_name(file: Path) -> None:
    other = file.with_name("elsewhere.pt")
    other.write_bytes(file.read_bytes())
    assert declared(other).source == declared(file).source
    assert declared(other) == declared(file)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: {name: value for name, value in state.items() if "layer2" not in name}, "layer2.* is missing"),
        (
            lambda state: state | {"conv1.weight": torch.zeros(64, 1, 7, 7)},
            r"conv1.weight, \(64, 3, 7, 7\), is \(64, 1, 7, 7\)",
        ),
        (lambda state: {"model": state}, "expected a state dict"),
        (lambda state: [1, 2], "expected a state dict"),
    ],
    ids=["a stage is missing", "grey", "nested", "no dict"],
)
def test_weights_of_another_network_are_refused_by_file_and_name(file: Path, trained, change, words: str) -> None:
    torch.save(change(trained), file)
    with pytest.raises(UserError, match=words) as caught:
        build_network(declared(file), SE, **TASK)
    assert str(file) in str(caught.value)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("executed",)


def test_a_file_is_never_executed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    torch.save({"conv1.weight": Hostile()}, file)
    with pytest.raises(UserError, match="cannot be read as weights"):
        build_network(declared(file), SE, **TASK)
    assert not Path("executed").exists()


def test_a_file_that_is_not_there_is_told_when_it_is_declared(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"network.pretrained = '.*nowhere\.pt': cannot be read: No such file"):
        declared(tmp_path / "nowhere.pt")


def test_published_weights_are_the_librarys(monkeypatch: pytest.MonkeyPatch, trained) -> None:
    class Published:
        @staticmethod
        def get_state_dict(progress: bool) -> dict[str, Tensor]:
            return trained

    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: {"DEFAULT": Published})
    network = Network(backbone="torchvision:resnet18", pretrained=True)
    assert torch.equal(build_network(network, SE, **TASK).conv1.weight, trained["conv1.weight"])


@pytest.mark.parametrize("backbone", ["torchvision:resnet18", "timm:resnet18"])
def test_weights_that_cannot_be_fetched_are_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, backbone: str
) -> None:
    def offline(*arguments: object, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.models, "get_model_weights", offline)
    make = timm.create_model

    def without(name: str, *, pretrained: bool, **options: object) -> object:
        return offline() if pretrained else make(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", without)
    with pytest.raises(UserError, match="cannot be downloaded: no route to host; fetch them on a machine with a connection"):
        build_network(Network(backbone=backbone, pretrained=True), SE, **TASK)

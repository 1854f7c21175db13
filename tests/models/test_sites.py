"""Blocks at edges of the module tree: what runs where, what is refused, and what a network with blocks still can do."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import timm
import torch
import torchvision
from helpers import scrambled
from torch import Tensor, nn

from senet_ablate.blocks.se import SqueezeExcitation
from senet_ablate.models.build import attach, build_network
from senet_ablate.models.sites import find_sites, insert, inserts, run_once
from senet_ablate.spec.backbones import Family
from senet_ablate.spec.network import Network, Placement, SEConfig, Variant

TASK = {"in_channels": 3, "classes": 10, "resolution": 16}
RESNET = Network(backbone="resnet14", width=16, stem="small")


class Unit(nn.Module):
    """x -> second(first(x)): the map of images grows by 1, then doubles, so that the order of a block shows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Plus(1), Times(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class Plus(nn.Module):
    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        return x + self.number


class Times(Plus):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.number


class Squared(nn.Module):
    """Stands for a block; it commutes neither with a sum nor with a product."""

    def forward(self, x: Tensor) -> Tensor:
        return x**2


class Halves(nn.Module):
    """Three units, the second and the third on maps of half the side."""

    def __init__(self, unit: type[nn.Module] | None = None) -> None:
        super().__init__()
        make = unit or Unit
        self.a, self.pool, self.b, self.c = make(), nn.AvgPool2d(2), make(), make()

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.pool(self.a(x))))


def family(**places: tuple[str, str]) -> Family:
    return Family(units="a|b|c", places=places)


def sites_of(model: nn.Module, place: tuple[str, str], **placement):
    placed = Placement(**placement)
    known = family(**{"standard" if placed.position == "stage-end" else placed.position: place})
    return find_sites(model, known, placed, in_channels=1, resolution=8)


@pytest.mark.parametrize(
    ("place", "result"),
    [
        (("first", "before"), lambda x: 2 * (x**2 + 1)),
        (("first", "after"), lambda x: 2 * (x + 1) ** 2),
        (("second", "before"), lambda x: 2 * (x + 1) ** 2),
        (("second", "after"), lambda x: (2 * (x + 1)) ** 2),
        (("", "before"), lambda x: 2 * (x**2 + 1)),
        (("", "after"), lambda x: (2 * (x + 1)) ** 2),
        (("first", "replace"), lambda x: 2 * x**2),
        (("first|second", "replace"), lambda x: x**2),
    ],
)
def test_a_block_runs_on_its_edge(place, result):
    model, x = Halves(), torch.randn(2, 1, 8, 8)
    sites = sites_of(model, place)
    insert(model, sites, lambda site: Squared())
    assert [site.unit for site in sites] == ["a", "b", "c"]
    torch.testing.assert_close(model.a(x), result(x))
    found = inserts(model)
    # log2(8 / 8) and log2(8 / 4): the number of halvings.
    assert list(found) == ["SE_0_1", "SE_1_1", "SE_1_2"]
    assert [(each.site.channels, each.site.size) for each in found.values()] == [(1, 8), (1, 4), (1, 4)]
    assert [model.get_submodule(each.site.path) for each in found.values()] == [each.block for each in found.values()]


def test_the_end_of_a_stage_is_after_its_last_unit_alone():
    model = Halves()
    insert(model, sites_of(model, ("first", "after"), position="stage-end"), lambda site: Squared())
    assert {name: each.site.module for name, each in inserts(model).items()} == {"SE_0_1": "a", "SE_1_2": "c"}


def test_blocks_stand_in_the_named_stages_alone():
    assert [site.unit for site in sites_of(Halves(), ("first", "after"), stages=(1,))] == ["b", "c"]


def chain() -> nn.Sequential:
    return nn.Sequential(Plus(1), nn.Sequential(Times(2), Plus(3)))


@pytest.mark.parametrize(
    ("place", "result"),
    [
        (("", "before"), lambda x: 2 * (x**2 + 1) + 3),
        (("", "after"), lambda x: (2 * (x + 1) + 3) ** 2),
        (("0", "after"), lambda x: 2 * (x + 1) ** 2 + 3),
        (("1", "before"), lambda x: 2 * (x + 1) ** 2 + 3),
        (("1", "after"), lambda x: (2 * (x + 1) + 3) ** 2),
    ],
)
def test_a_sequence_runs_a_block_once_and_keeps_its_layers(place, result):
    model, x = Halves(chain), torch.randn(2, 1, 8, 8)
    insert(model, sites_of(model, place), lambda site: Squared())
    torch.testing.assert_close(model.a(x), result(x))
    assert len(model.a) == 2
    assert len(model.a[1]) == 2


class Shared(nn.Module):
    """Runs its only unit twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a = Unit()

    def forward(self, x: Tensor) -> Tensor:
        return self.a(self.a(x))


class Never(Unit):
    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("model", "place", "placement", "words"),
    [
        (
            Shared(),
            ("first", "after"),
            {},
            "a.first is called 2 times for one image; a block needs a module called once",
        ),
        (Halves(Never), ("first", "after"), {}, "a.first is called 0 times"),
        (Halves(), ("third", "after"), {}, "unit a has no module 'third'"),
        (Halves(), ("first", "after"), {"stages": (1, 2)}, "there is no stage 2; this network has stages 0, 1"),
        (nn.Conv2d(1, 1, 1), ("first", "after"), {}, r"network.units = 'a\|b\|c' matches no module of Conv2d"),
    ],
    ids=["twice", "never", "no module", "no stage", "no unit"],
)
def test_a_site_that_is_none_is_refused_by_name(model, place, placement, words):
    with pytest.raises(ValueError, match=words):
        sites_of(model, place, **placement)


def test_a_place_that_a_family_does_not_have_is_refused_with_those_that_it_has():
    known, placement = family(standard=("first", "after")), Placement(position="identity")
    with pytest.raises(ValueError, match=r"placement\.position = 'identity': this network has standard"):
        find_sites(Halves(), known, placement, in_channels=1, resolution=8)


def test_declared_stages_are_those_of_the_units():
    known, task = family(standard=("first", "after")), {"in_channels": 1, "resolution": 8}
    sites = find_sites(Halves(), known, Placement(), stages=(2, 2, 7), **task)
    assert [site.name for site in sites] == ["SE_2_1", "SE_2_2", "SE_7_1"]
    with pytest.raises(ValueError, match=r"network\.unit_stages has 2 numbers for 3 units, a, b, c"):
        find_sites(Halves(), known, Placement(), stages=(2, 2), **task)


def test_a_name_that_the_unit_has_already_is_refused():
    model = Halves()
    model.b.inserted = nn.Identity()
    with pytest.raises(ValueError, match="b has an attribute 'inserted' of its own"):
        insert(model, sites_of(model, ("first", "after")), lambda site: Squared())


def test_a_side_that_a_network_does_not_take_is_told_with_what_helps():
    with pytest.raises(
        ValueError, match=r"does not take images of 1x1 .*use data.resolution = 8, .* or keep its maps larger"
    ):
        run_once(Halves(), in_channels=1, resolution=1)


# --- a network with blocks ---


def grown() -> nn.Module:
    return build_network(RESNET, Variant(se=SEConfig()), **TASK, seed=0)


@pytest.mark.parametrize(
    "variant",
    [
        Variant(se=SEConfig()),
        Variant(se=SEConfig(), placement=Placement(position="identity")),
        Variant(se=SEConfig(), placement=Placement(position="pre", stages=(3, 4))),
        Variant(block="cbam", placement=Placement(position="stage-end")),
        Variant(block="sk", placement=Placement(position="replace-3x3")),
    ],
    ids=lambda variant: variant.slug,
)
@pytest.mark.parametrize("backbone", ["ours", "torchvision:resnet50"])
def test_what_is_not_in_a_block_starts_as_in_the_network_without(variant, backbone):
    if backbone != "ours" and variant.placement.position == "identity":
        variant = Variant(se=SEConfig(), placement=Placement(position="post"))  # a shortcut that is none has no module
    network = RESNET if backbone == "ours" else Network(backbone=backbone, unstrided=3)
    if backbone != "ours":
        variant = variant.model_copy(update={"placement": variant.placement.model_copy(update={"stages": (3,)})})
    torch.manual_seed(1)
    plain = build_network(network, Variant(), **TASK, seed=0).state_dict()
    torch.manual_seed(2)
    model = build_network(network, variant, **TASK, seed=0)
    inside = tuple(f"{each.site.path}." for each in inserts(model).values())
    inside += tuple(f"{name}." for each in inserts(model).values() for name in each.site.dropped)
    outside = {name for name in model.state_dict() if not name.startswith(inside)}
    assert outside == {name for name in plain if not name.startswith(inside)}
    assert len(outside) > len(plain) / 2
    assert all(torch.equal(model.state_dict()[name], plain[name]) for name in outside)


def test_a_copy_has_blocks_of_its_own():
    model, images = grown().eval(), torch.randn(2, 3, 16, 16)
    other = copy.deepcopy(model)
    assert torch.equal(other(images), model(images))
    assert list(inserts(other)) == list(inserts(model))
    before = model(images)
    for name, each in inserts(other).items():
        assert each.block is not inserts(model)[name].block
        assert each.block is other.get_submodule(each.site.path)
        each.block.expand.weight.data.normal_(0, 5)
    assert torch.equal(model(images), before)
    assert not torch.equal(other(images), before)


def test_pickles_and_state_dicts_bring_a_network_back_with_its_blocks():
    model, images = grown().eval(), torch.randn(2, 3, 16, 16)
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(images), model(images))
    assert [each.site for each in inserts(again).values()] == [each.site for each in inserts(model).values()]
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = build_network(RESNET, Variant(se=SEConfig()), **TASK, seed=1).eval()
    assert not torch.equal(fresh(images), model(images))
    fresh.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert torch.equal(fresh(images), model(images))


def test_a_block_may_be_exchanged_and_comes_back():
    model, images = grown().eval(), torch.randn(2, 3, 16, 16)
    plain = build_network(RESNET, Variant(), **TASK, seed=0).eval()
    assert not torch.equal(model(images), plain(images))
    for each in inserts(model).values():
        each.block = nn.Identity()
    assert torch.equal(model(images), plain(images))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_network_with_blocks_is_compiled_whole():
    model, images = grown().eval(), torch.randn(2, 3, 16, 16)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    try:
        torch.testing.assert_close(compiled(images), model(images))
    finally:
        torch.compiler.reset()


# --- attach ---

STRIDE = {"resnet18": {"stride_in": "3x3"}}


def test_blocks_are_attached_to_torchvisions_resnet_as_to_ours():
    torch.manual_seed(0)
    model = scrambled(torchvision.models.resnet18(num_classes=10))  # or a normalisation in evaluation does nothing
    state = copy.deepcopy(model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    before = model.eval()(images)
    assert attach(model, settings={"reduction": 8}, resolution=32) is model
    found = inserts(model)
    assert list(found) == [f"SE_{stage}_{index}" for stage in (2, 3, 4, 5) for index in (1, 2)]
    assert all(type(each.block) is SqueezeExcitation for each in found.values())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    ours = build_network(
        Network(backbone="resnet18", stride_in="3x3"), Variant(se=SEConfig(reduction=8)), in_channels=3, classes=10,
        resolution=32,
    )  # fmt: skip
    ours.load_state_dict({name.replace("inserted", "se"): value for name, value in model.state_dict().items()})
    torch.testing.assert_close(model(images), ours.eval()(images))
    assert (model(images) - before).abs().max() > 0.01


def test_blocks_are_attached_to_torchvisions_vgg():
    with torch.device("meta"):
        model = attach(torchvision.models.vgg11_bn(num_classes=10), "eca", resolution=32)
    convolutions, depth = (64, 128, 256, 256, 512, 512, 512, 512), 0
    found = list(inserts(model).values())
    assert [each.site.channels for each in found] == list(convolutions)
    assert [each.site.size for each in found] == [32, 16, 8, 8, 4, 4, 2, 2]
    assert [each.site.stage for each in found] == [0, 1, 2, 2, 3, 3, 4, 4]
    for each in found:
        kind = type(model.get_submodule(each.site.module))
        assert (kind, each.site.side) == (nn.ReLU, "after")
        depth += 1
    assert depth == 8
    assert model(torch.zeros(1, 3, 32, 32, device="meta")).shape == (1, 10)


@pytest.mark.parametrize(
    ("backbone", "last"),
    [
        ("resnet14", "bn3"),
        ("resnet18", "bn2"),
        ("preresnet20", "conv2"),
        ("preresnet164", "conv3"),
        ("smallnet", "relu"),
    ],
)
def test_blocks_are_attached_to_ours_where_the_factory_puts_them(backbone, last):
    network = Network.model_validate({"backbone": backbone, "width": 32} | STRIDE.get(backbone, {}))
    attached = attach(build_network(network, Variant(), **TASK), settings={"reduction": 2}, resolution=16)
    built = build_network(network, Variant(se=SEConfig(reduction=2)), **TASK)
    sites = [each.site for each in inserts(attached).values()]
    assert sites == [each.site for each in inserts(built).values()]
    assert {site.module.rpartition(".")[2] for site in sites} == {last}


@pytest.mark.parametrize(
    ("name", "count", "position"),
    [
        ("resnet26", 8, "standard"),
        ("mobilenetv1_100", 13, "standard"),
        ("mobilenetv1_100", 13, "inner-3x3"),
        ("resnet26", 8, "replace-3x3"),
    ],
)
def test_blocks_are_attached_to_timms_networks(name, count, position):
    model = timm.create_model(name, num_classes=10)
    attach(model, "sk" if position == "replace-3x3" else "se", position=position, resolution=64)
    found = inserts(model)
    assert len(found) == count
    logits = model(torch.randn(2, 3, 64, 64))
    logits.sum().backward()
    assert logits.shape == (2, 10)
    assert all(p.grad is not None for each in found.values() for p in each.block.parameters())


def test_a_network_of_no_known_structure_is_refused_with_what_to_do():
    with pytest.raises(
        ValueError, match=r"structure of no known family; build it with build_model from package\.module:f"
    ):
        attach(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()))

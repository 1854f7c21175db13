"""Under test: `pruning`, against networks that never had the blocks."""

import pytest
import torch
from torch import nn

from senet_ablate.blocks.se import SqueezeExcitation
from senet_ablate.models.build import build_network
from senet_ablate.models.hooks import collect, switched_off
from senet_ablate.models.sites import inserts
from senet_ablate.spec.cost import added_cost
from senet_ablate.spec.network import Network, Placement, SEConfig, Variant
from senet_ablate.training.evaluation import prune_table

NETWORK = Network(backbone="resnet26", width=16, stem="small")
SE = Variant(se=SEConfig())


def build(variant: Variant, like: nn.Module | None = None) -> nn.Module:
    model = build_network(NETWORK, variant, in_channels=1, classes=4, resolution=8).eval()
    if like is not None:
        weights = like.state_dict()
        model.load_state_dict({name: weights[name] for name in model.state_dict()})
    return model


@pytest.fixture
def trained():
    """Drawn weights whose gates and normalisations all matter."""
    torch.manual_seed(0)
    model = build(SE)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.weight.uniform_(0.5, 1.5)
    return model


@pytest.fixture
def images():
    torch.manual_seed(1)
    return torch.randn(24, 1, 8, 8), torch.arange(24) % 4


def named(model, *stages):
    return [name for name in inserts(model) if int(name[3]) in stages]


@torch.no_grad()
@pytest.mark.parametrize("off", [(5,), (2, 4), (2, 3, 4, 5)])
def test_a_network_with_stages_off_is_the_network_without_their_blocks(trained, images, off):
    left = tuple(stage for stage in (2, 3, 4, 5) if stage not in off)
    variant = Variant(se=SEConfig(), placement=Placement(stages=left)) if left else Variant()
    with switched_off(trained, named(trained, *off)):
        pruned = trained(images[0])
    assert torch.equal(pruned, build(variant, trained)(images[0]))
    assert (pruned - trained(images[0])).abs().max() > 0.01, "without effect of SE the comparison says nothing"


@torch.no_grad()
def test_a_mean_gate_replaces_the_gate_alone(trained, images):
    gates = {block.name: block.mean for block in collect(trained, [images], 4)}
    seen = {}
    with switched_off(trained, ["SE_3_2"], gates):
        inserts(trained)["SE_3_2"].block.register_forward_hook(lambda se, args, out: seen.update(x=args[0], out=out))
        trained(images[0])
    expected = torch.from_numpy(gates["SE_3_2"]).float().view(1, -1, 1, 1)
    torch.testing.assert_close(seen["out"], seen["x"] * expected)


@torch.no_grad()
def test_the_mean_of_a_constant_gate_changes_nothing(images):
    torch.manual_seed(2)
    model = build(Variant(se=SEConfig(gate="constant")))
    gates = {block.name: block.mean for block in collect(model, [images], 4)}
    before = model(images[0])
    with switched_off(model, list(gates), gates):
        assert torch.equal(model(images[0]), before)


def test_blocks_come_back_whatever_happens(trained):
    blocks = {name: each.block for name, each in inserts(trained).items()}
    weights = {name: value.clone() for name, value in trained.state_dict().items()}

    def fail():
        with switched_off(trained, named(trained, 2, 3)):
            left.extend(n for n, each in inserts(trained).items() if isinstance(each.block, SqueezeExcitation))
            raise KeyError

    left = []
    with pytest.raises(KeyError):
        fail()
    assert left == named(trained, 4, 5)
    assert {name: each.block for name, each in inserts(trained).items()} == blocks
    assert trained.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in trained.state_dict().items())


@torch.no_grad()
def test_the_table_has_each_stage_and_all_in_both_ways(trained, images):
    pixels, labels = images
    trained.fc.bias -= trained(pixels).mean(0)  # else all images fall into one class
    batches = [(pixels[:10], labels[:10]), (pixels[10:], labels[10:])]
    table = prune_table(trained, batches, collect(trained, batches, 4))
    groups = ["stage 2", "stage 3", "stage 4", "stage 5", "all"]
    assert table["off"].tolist() == ["nothing", *(group for group in groups for _ in range(2))]
    assert table["way"].tolist() == ["", *["identity", "mean gate"] * 5]
    right = trained(pixels).argmax(1) == labels
    line = table[(table["off"] == "stage 5") & (table["way"] == "identity")].iloc[0]
    left = Variant(se=SEConfig(), placement=Placement(stages=(2, 3, 4)))
    without = build(left, trained)(pixels).argmax(1) == labels
    assert line["top1_err"] == pytest.approx(100 * (1 - without.double().mean().item()))
    assert line["broken"] == (right & ~without).sum()
    assert line["mended"] == (without & ~right).sum()
    assert line["change"] == pytest.approx(100 * (line["broken"] - line["mended"]) / 24)
    assert (table["broken"] + table["mended"]).sum() > 0, "else the comparison says nothing"
    last = Variant(se=SEConfig(), placement=Placement(stages=(5,)))
    assert line["params"] == added_cost(NETWORK, last, 8).params
    assert table[table["off"] == "all"]["params"].unique().tolist() == [added_cost(NETWORK, SE, 8).params]


def test_a_network_with_blocks_in_one_stage_has_no_line_for_all(images):
    model = build(Variant(se=SEConfig(), placement=Placement(stages=(4,))))
    table = prune_table(model, [images], collect(model, [images], 4))
    assert table["off"].tolist() == ["nothing", "stage 4", "stage 4"]

"""Under test: `excitation`, against hand arithmetic on a made network, what goes in and out of blocks, and lots."""

import itertools
import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from senet_ablate.blocks.se import GATES, SqueezeExcitation
from senet_ablate.models.build import build_network
from senet_ablate.models.hooks import collect, recorded
from senet_ablate.models.sites import Site, insert, inserts
from senet_ablate.results.gates import (
    UPPER_LIMIT,
    BlockExcitation,
    block_table,
    chance_specificity,
    line_table,
    shown_channels,
    stage_table,
)
from senet_ablate.spec.network import Network, Placement, SEConfig, Variant


class Made(nn.Module):
    """A network of SE blocks alone, whose first layers pass a non-negative squeezed map on as it is.

    So with a ReLU gate and `expand` the identity, the gates are the images' own (mean) pixels.
    """

    def __init__(self, *blocks: tuple[SEConfig, list[list[float]]]) -> None:
        super().__init__()
        self.units = nn.ModuleList(nn.Identity() for _ in blocks)
        place = {"side": "after", "index": 1, "size": 1, "child": "se"}
        for number, (config, expand) in enumerate(blocks):
            unit = f"units.{number}"
            site = Site(unit=unit, module=unit, stage=number + 2, channels=len(expand), **place)
            insert(self, [site], partial(self.block, config, expand))

    @staticmethod
    @torch.no_grad()
    def block(config, expand, site):
        se = SqueezeExcitation(site.channels, config)
        se.reduce.weight.copy_(torch.eye(site.channels)[:, :, None, None])
        se.expand.weight.copy_(torch.tensor(expand)[:, :, None, None])
        return se

    def forward(self, x):
        for unit in self.units:
            unit(x)
        return x


EYE = [[1.0, 0.0], [0.0, 1.0]]


def config(gate="sigmoid", squeeze="avg"):
    return SEConfig(gate=gate, squeeze=squeeze, reduction=1)


def pixels(*images):
    """Maps of one pixel, (N, C, 1, 1)."""
    return torch.tensor(images)[:, :, None, None]


def numbers(gate, expand, *images, squeeze="avg"):
    batch = (torch.stack([torch.as_tensor(image) for image in images]), torch.zeros(len(images), dtype=torch.int64))
    (block,) = collect(Made((config(gate, squeeze), expand)), [batch], 1)
    return block.numbers()


def test_means_spread_and_specificity_are_those_of_hand_arithmetic():
    made = Made((config("relu"), EYE))
    # Classes 0, 1, 0, and none of class 2; in two batches.
    batches = [(pixels([1.0, 0.0], [5.0, 4.0]), torch.tensor([0, 1])), (pixels([3.0, 0.0]), torch.tensor([0]))]
    (block,) = collect(made, batches, 3)
    assert block.images.tolist() == [2, 1, 0]
    assert block.over(0)[1] == pytest.approx([2, 0])
    assert block.over(1)[1] == pytest.approx([5, 4])
    assert np.isnan(block.over(2)[1]).all()
    assert block.mean == pytest.approx([3, 4 / 3])
    assert block.over(0)[2] == pytest.approx([math.sqrt(2), 0])
    assert np.isnan(block.over(1)[2]).all(), "one image has no spread"
    assert block.over()[2][0] == pytest.approx(2)  # of 1, 3, 5
    # Channel 0: 2 (2 - 3)^2 + (5 - 3)^2 = 6 between, (1 - 2)^2 + (3 - 2)^2 = 2 within. Channel 1: 2 (0 - 4/3)^2 +
    # (4 - 4/3)^2 = 32/3 between, 0 within. Over 3 images and 2 channels.
    found = block.numbers()
    assert found["between_sd"] == pytest.approx(math.sqrt((6 + 32 / 3) / 6))
    assert found["within_sd"] == pytest.approx(math.sqrt(2 / 6))
    assert found["specificity"] == pytest.approx(25 / 28)
    assert found["mean"] == pytest.approx((3 + 4 / 3) / 2)
    assert found["dead"] == 0
    assert math.isnan(found["saturated"]), "a ReLU gate has no upper limit"
    assert chance_specificity([block]) == 1 / 2  # two classes seen, three images


@pytest.mark.parametrize("constant", [0.0, 0.7])
def test_gates_that_do_not_vary_have_no_specificity(constant):
    found = numbers("sigmoid", EYE, *pixels([constant, constant], [constant, constant]))
    assert math.isnan(found["specificity"])
    assert found["between_sd"] == found["within_sd"] == 0


def test_specificity_of_classes_drawn_by_lot_is_on_average_what_is_called_chance():
    gates = np.array([[0.1, 0.9], [0.4, 0.2], [0.8, 0.3], [0.5, 0.5], [0.2, 0.7]])
    found = []
    for labels in itertools.permutations([0, 0, 1, 1, 2]):
        member = np.eye(3)[list(labels)]
        block = BlockExcitation(
            "SE_2_1", "sigmoid", member.sum(0).astype(int), member.T @ gates, member.T @ gates**2, gates.sum(0)
        )
        found.append(block.numbers()["specificity"])
    assert np.mean(found) == pytest.approx(chance_specificity([block]))
    assert chance_specificity([block]) == 2 / 4


def test_every_gate_has_its_limit_declared():
    assert UPPER_LIMIT.keys() == GATES.keys()


@pytest.mark.parametrize(
    ("gate", "expand", "saturated", "dead"),
    [
        ("sigmoid", [[1.0, 0.0], [0.0, 0.0]], 0.5, 0.0),  # near 1, and 1/2
        ("sigmoid", [[1.0, 0.0], [0.0, -1.0]], 0.5, 0.5),  # near 1, near 0
        ("tanh", [[-1.0, 0.0], [0.0, 1.0]], 1.0, 0.0),  # near -1, near 1
        ("tanh", [[0.0, 0.0], [0.0, 0.1]], 0.0, 0.5),  # 0, and tanh(1)
        ("random", [[1.0, 0.0], [0.0, -1.0]], 0.5, 0.5),
        ("relu", [[1.0, 0.0], [0.0, -1.0]], None, 0.5),  # 10, and 0
        ("constant", [[1.0, 0.0], [0.0, -1.0]], None, 0.0),
        ("none", [[1.0, 0.0], [0.0, 0.0]], None, 0.5),
    ],
)
def test_saturated_and_dead_channels(gate, expand, saturated, dead):
    found = numbers(gate, expand, *pixels([10.0, 10.0], [10.0, 10.0]))
    assert found["dead"] == dead
    assert math.isnan(found["saturated"]) if saturated is None else found["saturated"] == saturated


@pytest.mark.parametrize(("value", "saturated"), [(0.9899, 0.0), (0.9901, 1.0)])
def test_saturated_means_above_99_percent_of_the_limit(value, saturated):
    logit = math.log(value / (1 - value))
    assert numbers("sigmoid", [[1.0]], *pixels([logit]))["saturated"] == saturated


def test_without_squeeze_the_gate_is_averaged_over_pixels_and_magnitudes_do_not_cancel():
    image = torch.tensor([[[10.0, 0.0]], [[0.0, 10.0]]])  # two channels, two pixels: (10, 0) and (0, 10)
    found = numbers("tanh", [[1.0, -1.0], [0.0, 0.1]], image, squeeze="none")
    # Channel 0 is 1 and -1: mean 0 and magnitude 1. Channel 1 is 0 and tanh(1).
    assert found["mean"] == pytest.approx((0 + math.tanh(1) / 2) / 2, abs=1e-6)
    assert found["saturated"] == 0.5
    assert found["dead"] == 0


NETWORK = Network(backbone="resnet26", width=16, stem="small")
VARIANTS = [
    *(Variant(se=SEConfig(squeeze=squeeze)) for squeeze in ("avg", "max", "none")),
    *(Variant(se=SEConfig(gate=gate)) for gate in ("tanh", "relu", "none")),
    *(
        Variant(se=SEConfig(), placement=Placement(position=place))
        for place in ("pre", "post", "identity", "inner-3x3")
    ),
]


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.slug)
def test_recording_leaves_outputs_alone_and_hears_what_meets_the_map(variant):
    torch.manual_seed(0)
    model = build_network(NETWORK, variant, in_channels=1, classes=3, resolution=8).eval()
    images = torch.randn(2, 1, 8, 8)
    before = model(images)
    met = {}
    for name, each in inserts(model).items():
        each.block.register_forward_hook(
            lambda se, args, out, name=name: met.update({name: (args[0].clone(), out.clone())})
        )
    with recorded(model) as gates:
        assert torch.equal(model(images), before)
    assert list(gates) == [f"SE_{stage}_{index}" for stage in (2, 3, 4, 5) for index in (1, 2)]
    for name, (x, out) in met.items():
        torch.testing.assert_close(x + gates[name] if variant.se.gate == "none" else x * gates[name], out)
        assert gates[name].shape[2:] == (x.shape[2:] if variant.se.squeeze == "none" else (1, 1))
    heard = {name: gate.clone() for name, gate in gates.items()}
    model(images + 1)
    assert all(torch.equal(gates[name], heard[name]) for name in heard), "nothing listens any more"


def test_blocks_have_the_papers_names():
    def names(**placement):
        with torch.device("meta"):
            variant = Variant(se=SEConfig(), placement=Placement(**placement))
            model = build_network(Network(backbone="resnet50"), variant, in_channels=3, classes=10, resolution=64)
            return list(inserts(model))

    depths = {2: 3, 3: 4, 4: 6, 5: 3}
    by_hand = [f"SE_{stage}_{index}" for stage, depth in depths.items() for index in range(1, depth + 1)]
    assert names() == by_hand
    assert {"SE_2_3", "SE_3_4", "SE_4_6", "SE_5_1", "SE_5_2", "SE_5_3"} < set(by_hand), "the panels of Figure 6"
    assert names(stages=(4,)) == [name for name in by_hand if name.startswith("SE_4")]


@pytest.mark.parametrize(
    ("channels", "step", "points"),
    [(256, 6, 43), (512, 11, 47), (1024, 21, 49), (2048, 41, 50), (64, 2, 32), (50, 1, 50)],
)
def test_shown_channels_are_evenly_spaced_and_at_most_fifty(channels, step, points):
    # steps and points of the first four: measured in the paper's figure
    assert shown_channels(channels).tolist() == list(range(0, channels, step))
    assert len(shown_channels(channels)) == points


def test_tables_have_a_line_for_each_block_stage_and_drawn_channel():
    made = Made((config("relu"), EYE), (config("sigmoid"), EYE))
    batch = (pixels([1.0, 0.0], [3.0, 2.0], [5.0, 4.0]), torch.tensor([0, 0, 1]))
    blocks = collect(made, [batch], 2)
    table = block_table(blocks)
    assert table[["block", "stage", "channels"]].to_numpy().tolist() == [["SE_2_1", 2, 2], ["SE_3_1", 3, 2]]
    lines = line_table(blocks, {"cat": 0, "dog": 1})
    assert len(lines) == 2 * 3 * 2
    first = lines[lines["block"] == "SE_2_1"].set_index(["class", "channel"])
    assert first.loc[("cat", 1)][["images", "mean", "sd"]].tolist() == pytest.approx([2, 2, math.sqrt(2)])
    assert first.loc[("dog", 2)][["images", "mean"]].tolist() == pytest.approx([1, 4])
    assert first.loc[("all", 1)][["images", "mean", "sd"]].tolist() == pytest.approx([3, 3, 2])
    assert set(line_table(blocks, {"dog": 1}, with_all=False)["class"]) == {"dog"}


def test_a_stage_has_the_mean_of_its_blocks():
    table = block_table(
        collect(Made((config("relu"), EYE)), [(pixels([1.0, 2.0], [3.0, 4.0]), torch.tensor([0, 1]))], 2)
    )
    other = table.assign(block="SE_2_2", mean=0.5, specificity=0.5)
    both = stage_table(pd.concat([table, other]))
    assert both["stage"].tolist() == [2]
    assert both["blocks"].tolist() == [2]
    assert both["mean"].item() == pytest.approx((2.5 + 0.5) / 2)
    assert both["specificity"].item() == pytest.approx((1 + 0.5) / 2)

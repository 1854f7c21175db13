"""No arm differs from its reference in what its row does not declare, and one that would is found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ABLATION, FACTS, PLAIN, PROTOCOL, R4, R16, make_record
from torch import nn

from senet_ablate.analysis.audit import (
    Departure,
    audit_declarations,
    audit_networks,
    audit_records,
    comparisons,
)
from senet_ablate.models import backbones, build, diff
from senet_ablate.models.resnet import ResNet
from senet_ablate.models.sites import inserts
from senet_ablate.results.arms import Outcomes, arm_of, load_outcomes
from senet_ablate.results.records import RunRecord, StudyPin
from senet_ablate.results.store import Study
from senet_ablate.spec.ablation import Ablation, Row
from senet_ablate.spec.loading import load_ablations, load_protocol
from senet_ablate.spec.network import Network, Placement, SEConfig, Variant
from senet_ablate.spec.protocol import Protocol

ROOT = Path(__file__).parents[2]
ABLATIONS = ROOT / "ablations"
PROTOCOLS = sorted(path.stem for path in (ABLATIONS / "protocols").glob("*.toml"))
OURS = sorted(path.stem for path in ABLATIONS.glob("*.toml") if not path.stem.startswith("table"))


def all_tables() -> list[Ablation]:
    return load_ablations(ABLATIONS) + [table for name in OURS for table in load_ablations(ABLATIONS, [name])]


def audited(tables: Iterable[Ablation], protocol: Protocol = PROTOCOL) -> list[Departure]:
    """What `senet-ablate audit` finds in the networks of these tables on grey images of ten classes."""
    tables = list(tables)
    variants = [arm.variant for pair in comparisons(tables) for arm in (pair.arm, pair.reference)]
    task = {"in_channels": 1, "classes": 10, "resolution": protocol.data.resolution}
    return audit_networks(tables, diff.compare_to_plain(protocol.network, variants, **task))


def found(departures: Iterable[Departure]) -> set[tuple[str, ...]]:
    """Row, aspect, field and both values of whatever is not declared."""
    return {(d.row, d.aspect, d.what, d.here, d.reference) for d in departures if not d.declared}


def a_row(name: str, variant: Variant, **more: Any) -> Row:
    block = {"se": variant.se or False} if variant.block is None else {"block": variant.block}
    return Row(id=name, label=name, placement=variant.placement, **block, **more)


def a_table(*rows: Row, factor: str = "se.reduction") -> Ablation:
    """The reference `r16` and these rows; not validated, since validation refuses some of what the audit looks for."""
    return ABLATION.model_copy(update={"rows": (a_row("r16", R16), *rows), "factor": factor})


def pairs_of(tables: Iterable[Ablation]) -> list[tuple[tuple[str, str], bool]]:
    """Table and row of each arm, and whether its network is another than the reference's."""
    return [((p.ablation.slug, p.name), p.arm.variant != p.reference.variant) for p in comparisons(tables)]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_no_arm_differs_in_what_its_row_does_not_declare(name: str) -> None:
    tables = all_tables()
    declared = audit_declarations(tables, load_protocol(ABLATIONS, name))
    assert found(declared) == set()
    assert {(d.table, d.row) for d in declared} == {pair for pair, _ in pairs_of(tables)}, "every arm was looked at"


@pytest.mark.parametrize("name", ["digits", "digits-2x2"])
def test_no_network_differs_from_the_one_without_se_but_in_its_blocks(name: str) -> None:
    tables = [table for table in all_tables() if table.protocol == name]
    before = torch.random.get_rng_state()
    built = audited(tables, load_protocol(ABLATIONS, name))
    assert found(built) == set()
    assert [(d.table, d.row) for d in built] == [pair for pair, other_network in pairs_of(tables) if other_network]
    assert torch.equal(torch.random.get_rng_state(), before), "the audit draws nothing for those who come after it"


def test_nothing_forbids_a_verdict_on_the_committed_study() -> None:
    study = Study(ROOT / "results" / "digits-reference")
    departures = audit_records(all_tables(), load_outcomes(study, study.pin()))
    assert [d.in_words for d in departures if d.serious] == []


def test_each_arm_is_held_against_the_reference_and_so_is_the_network_without_se() -> None:
    assert [pair.name for pair in comparisons([ABLATION])] == ["r4", "plain"]
    assert [pair.name for pair in comparisons([a_table(a_row("r4", R4))])] == ["r4", "plain"], "though no row prints it"
    assert [pair.name for pair in comparisons([a_table(a_row("original", PLAIN))])] == ["original"]


def test_what_a_row_declares_is_listed_as_declared() -> None:
    by_stage = Variant(se=SEConfig(reduction={2: 4, 3: 8, 4: 16, 5: 32}))
    rows = [
        a_row("r4", R4),
        a_row("again", R16, first_seed=1000),
        a_row("original", PLAIN),
        a_row("by-stage", by_stage),
    ]
    table = a_table(*rows)
    departures = audit_declarations([table], PROTOCOL)
    assert [(d.row, d.aspect, d.what, d.here, d.reference) for d in departures] == [
        ("r4", "variant", "se.reduction", "4", "16"),
        ("again", "seed", "seed", "1000", "0"),
        ("original", "variant", "block", "plain", "se-r16"),
        ("by-stage", "variant", "se.reduction", "2 = 4, 3 = 8, 4 = 16, 5 = 32", "16"),
    ]
    assert all(d.declared and not d.serious and (d.table, d.against) == ("ratio", "r16") for d in departures)


@pytest.mark.parametrize(
    ("config", "placement", "what", "here", "reference"),
    [
        ({"bias": True}, {}, "se.bias", "True", "False"),
        ({"gate": "tanh"}, {}, "se.gate", "tanh", "sigmoid"),
        ({}, {"position": "post"}, "placement.position", "post", "standard"),
        ({}, {"stages": (3,)}, "placement.stages", "(3,)", "all"),
    ],
)
def test_a_row_that_differs_in_more_than_the_factor_is_found(
    config: dict[str, Any], placement: dict[str, Any], what: str, here: str, reference: str
) -> None:
    variant = Variant(se=SEConfig(reduction=4, **config), placement=Placement(**placement))
    departures = audit_declarations([a_table(a_row("r4", variant))], PROTOCOL)
    assert found(departures) == {("r4", "variant", what, here, reference)}
    assert {d.what for d in departures if d.row == "r4" and d.declared} == {"se.reduction"}


@pytest.mark.parametrize("arm", ["r4", "plain"])
@pytest.mark.parametrize(
    ("part", "change", "expected"),
    [
        ("recipe", {"lr": 0.2}, ("recipe", "lr", "0.2", "0.1")),
        ("data", {"resolution": 16}, ("data", "resolution", "16", "8")),
        ("network", {"stride_in": "3x3"}, ("network", "stride_in", "3x3", "1x1")),
        (None, {"precision": "bf16"}, ("precision", "precision", "bf16", "fp32")),
        (None, {"seed": 7}, ("seed", "seed", "7", "0")),
    ],
)
def test_a_protocol_that_serves_one_arm_otherwise_is_found(
    monkeypatch: pytest.MonkeyPatch, arm: str, part: str | None, change: dict[str, Any], expected: tuple[str, ...]
) -> None:
    fair = Protocol.run_spec

    def unfair(self: Protocol, variant: Variant, seed: int) -> Any:
        spec = fair(self, variant, seed)
        changed = {part: getattr(spec, part).model_copy(update=change)} if part else change
        return spec.model_copy(update=changed) if variant == ABLATION.row(arm).variant else spec

    monkeypatch.setattr(Protocol, "run_spec", unfair)
    departures = audit_declarations([ABLATION], PROTOCOL)
    assert found(departures) == {(arm, *expected)}
    assert all(d.serious for d in departures if not d.declared)


def put(module: str, attribute: str, value: Any) -> Callable[[nn.Module], None]:
    return lambda model: setattr(model.get_submodule(module), attribute, value)


def weights(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def audited_with(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[nn.Module], Any]) -> list[Departure]:
    """The audit of a table whose row r4 comes out of the factory with a fault."""

    def altered(network: Network, variant: Variant, **how: Any) -> nn.Module:
        model = build.build_network(network, variant, **how)
        if variant == R4:
            spoil(model)
        return model

    monkeypatch.setattr(diff, "build_network", altered)
    return audited([ABLATION])


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (put("bn1", "eps", 1e-3), {("bn1.eps", "0.001", "1e-05")}),
        (put("layer2.0.conv2", "padding_mode", "circular"), {("layer2.0.conv2.padding_mode", "circular", "zeros")}),
        (put("layer1", "1", nn.Dropout2d()), {("layer1.1", "Dropout2d", "absent")}),
        (put("layer4.0.downsample", "1", nn.Identity()), {("layer4.0.downsample.1", "Identity", "BatchNorm2d")}),
        (put("conv1", "bias", weights(16)), {("conv1.bias.shape", "(16,)", "absent")}),
        (put("fc", "weight", weights(10, 512).requires_grad_(False)), {("fc.weight.requires_grad", "False", "True")}),
        (put("bn1", "num_batches_tracked", None), {("bn1.num_batches_tracked.shape", "absent", "()")}),
        (put("layer1.0", "relu", type("Other", (nn.ReLU,), {})(True)), {("layer1.0.relu", "Other", "ReLU")}),
        (put("", "avgpool", nn.AdaptiveMaxPool2d(1)), {("avgpool", "AdaptiveMaxPool2d", "AdaptiveAvgPool2d")}),
        (put("", "__class__", type("Other", (ResNet,), {})), {("network", "Other", "ResNet")}),
        (
            lambda model: model.layer3[0].conv2.register_forward_hook(lambda *call: None),
            {("layer3.0.conv2._forward_hooks", "1", "absent")},
        ),
        (
            lambda model: model.layer3[0].conv2.register_full_backward_hook(lambda *call: None),
            {("layer3.0.conv2._backward_hooks", "1", "absent")},
        ),
    ],
    ids=lambda value: next(iter(value))[0] if isinstance(value, set) else "",
)
def test_a_network_that_differs_beside_its_blocks_is_found(
    monkeypatch: pytest.MonkeyPatch, spoil: Callable[[nn.Module], Any], expected: set[tuple[str, ...]]
) -> None:
    departures = audited_with(monkeypatch, spoil)
    lines = [d for d in departures if not d.declared]
    ((what, here, plain),) = expected
    assert {d.row for d in lines} == {"r4"}
    (line,) = [d for d in lines if d.aspect == "modules"]
    assert line.what.split(" and ")[0] == what
    assert (line.here, line.reference, line.against) == (here, plain, "no SE")
    assert [d.row for d in departures if d.declared] == ["r4", "plain"]


def undeclared(departures: Iterable[Departure]) -> dict[str, str]:
    """The first field of each aspect in which row r4, and no other, differs from the network without SE."""
    lines = [d for d in departures if not d.declared]
    assert {d.row for d in lines} <= {"r4"}
    assert all(d.serious for d in lines)
    return {d.aspect: d.what.split(" and ")[0] for d in lines}


@torch.no_grad()
def draw_anew(model: nn.Module) -> None:
    """Draw all weights from the generator that everybody shares, the blocks' among them."""
    for parameter in model.parameters():
        nn.init.normal_(parameter)


@torch.no_grad()
def shrink_the_neighbour(model: nn.Module) -> None:
    model.layer1[0].conv1.weight.mul_(0.5)


def test_other_first_weights_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"outputs": "logits without the blocks", "gradients": "conv1.weight without the blocks"}
    kept |= {"buffers": "bn1.running_mean without the blocks"}
    assert undeclared(audited_with(monkeypatch, draw_anew)) == {"weights": "conv1.weight.values", **kept}
    found = undeclared(audited_with(monkeypatch, shrink_the_neighbour))
    assert found["weights"] == "layer1.0.conv1.weight.values"
    assert "outputs" in found


def test_weights_from_the_generator_that_all_share_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "initialise", lambda model, seed: None)
    departures = [d for d in audited([ABLATION]) if not d.declared]
    assert {(d.row, d.what.split(" and ")[0]) for d in departures if d.aspect == "weights"} == {
        (row, "conv1.weight.values") for row in ("r4", "r16", "plain")
    }


def with_meddler(model: nn.Module, meddle: Callable[[], Any]) -> None:
    """Let the first block do something whenever it runs."""
    block = inserts(model)["SE_2_1"].block
    usual = type(block).forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        meddle()
        return usual(block, x)

    block.forward = forward  # an attribute of the block alone


@pytest.mark.parametrize(
    ("meddle", "aspect", "what"),
    [
        (lambda unit: unit.conv1.weight.data.mul_(0.5), "outputs", "logits without the blocks"),
        (lambda unit: unit.bn1.running_mean.data.add_(1), "buffers", "layer1.0.bn1.running_mean without the blocks"),
        (lambda unit: torch.rand(1), "random draws", "state of the generator after a step"),
    ],
    ids=["weights", "statistics", "random draws"],
)
def test_a_block_that_changes_its_neighbour_as_it_runs_is_found(
    monkeypatch: pytest.MonkeyPatch, meddle: Callable[[nn.Module], Any], aspect: str, what: str
) -> None:
    found = undeclared(audited_with(monkeypatch, lambda model: with_meddler(model, lambda: meddle(model.layer1[0]))))
    assert found[aspect].startswith(what)


def test_a_hook_that_changes_what_passes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(model: nn.Module) -> None:
        model.layer2[0].bn1.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
        model.layer4[0].bn3.register_forward_hook(lambda module, inputs, output: 2 * output)

    found = undeclared(audited_with(monkeypatch, leave))
    assert found["modules"] == "layer2.0.bn1._forward_pre_hooks"
    assert found["outputs"] == "logits without the blocks"


class Twice(nn.Sequential):
    """A unit that runs its last normalisation two times."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        unit = self[0]
        y = torch.relu(unit.bn2(unit.conv2(torch.relu(unit.bn1(unit.conv1(x))))))
        return torch.relu(unit.bn3(unit.bn3(unit.conv3(y))) + unit.downsample(x))


def test_a_block_that_runs_twice_for_an_image_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(model: nn.Module) -> None:
        model.layer1.__class__ = Twice

    departures = audited_with(monkeypatch, twice)
    assert ("r4", "blocks", "calls of layer1.0.se", "2", "1") in found(departures)
    assert undeclared(departures)["modules"] == "layer1"


@pytest.mark.parametrize(
    ("instead", "expected"),
    [
        (Variant(), ("site layer1.0.se and 3 more", "False", "True")),
        (R16, ("settings of layer1.0.se and 3 more", R16.se, R4.se)),
        (Variant(block="eca"), ("layer1.0.se and 3 more", "EfficientChannelAttention", "SqueezeExcitation")),
        (
            R4.model_copy(update={"placement": Placement(stages=(2, 3, 4))}),
            ("site layer4.0.se", "False", "True"),
        ),
        (
            R4.model_copy(update={"placement": Placement(position="pre")}),
            ("site layer1.0.se and 3 more", "True", "True"),
        ),
    ],
    ids=["none", "settings", "class", "stages", "place"],
)
def test_blocks_that_are_not_the_declared_ones_are_found(
    monkeypatch: pytest.MonkeyPatch, instead: Variant, expected: tuple[Any, ...]
) -> None:
    def other(network: Network, variant: Variant, **how: Any) -> nn.Module:
        return build.build_network(network, instead if variant == R4 else variant, **how)

    monkeypatch.setattr(diff, "build_network", other)
    assert found(audited([ABLATION])) == {("r4", "blocks", *map(str, expected))}


def test_what_is_declared_of_a_network_is_one_line_with_its_blocks_and_what_is_learnt() -> None:
    random = Variant(se=SEConfig(gate="random"))
    stages = Variant(se=SEConfig(), placement=Placement(stages=(2, 4), position="pre"))
    eca = Variant(block="eca")
    table = a_table(a_row("r4", R4), a_row("random", random), a_row("s24", stages), a_row("eca", eca), factor="block")
    lines = {d.row: d.here for d in audited([table]) if d.what == "blocks"}
    with torch.device("meta"):
        plain_model = build.build_network(PROTOCOL.network, PLAIN, in_channels=1, classes=10, resolution=8)
    plain = sum(parameter.numel() for parameter in plain_model.parameters())
    # One unit in each stage, of 64, 128, 256 and 512 channels; two layers of C * C / r weights. Before the first
    # convolution a unit of stage 2 sees 16 channels and one of stage 4 128.
    r4 = plain + 2 * (64**2 + 128**2 + 256**2 + 512**2) // 4
    pre = plain + 2 * (16**2 + 128**2) // 16
    block = "SqueezeExcitation(squeeze=avg, gate={}, reduction={})"
    assert lines == {
        "r4": f"4 blocks, {block.format('sigmoid', 4)} after bn3; {r4:,} learnt",
        "random": f"4 blocks, {block.format('random', 16)} after bn3; {plain:,} learnt",
        "s24": f"2 blocks, {block.format('sigmoid', 16)} before conv1; {pre:,} learnt",
        "eca": f"4 blocks, EfficientChannelAttention() after bn3; {plain + 3 + 5 + 5 + 5:,} learnt",
        "plain": f"0 blocks; {plain:,} learnt",
    }


def ran(*records: RunRecord) -> Outcomes:
    runs: dict[Any, tuple[RunRecord, ...]] = {}
    for record in records:
        runs[arm_of(record)] = (*runs.get(arm_of(record), ()), record)
    return Outcomes(Study(Path("nowhere")), StudyPin(protocol=PROTOCOL, data=FACTS), runs)


@pytest.mark.parametrize(
    ("change", "expected", "serious"),
    [
        ({"protocol": PROTOCOL.model_copy(update={"precision": "auto"})}, ("precision", "asked", "auto", "fp32"), True),
        ({"fingerprint": "beef"}, ("data", "fingerprint", "beef", "f00d"), True),
        ({"precision": "bf16"}, ("precision", "used", "bf16", "fp32"), True),
        ({"libraries": {"torch": "2.9"}}, ("versions", "torch", "2.9", "2.6"), False),
        ({"libraries": {"torch": "2.6", "numpy": "2"}}, ("versions", "numpy", "2", "absent"), False),
        ({"python": "3.12"}, ("versions", "python", "3.12", "3.11"), False),
        ({"version": "1"}, ("code", "version", "1", "0"), False),
        ({"commit": "c" * 40, "dirty": False}, ("code", "commit", "c" * 10, "unknown"), False),
        ({"commit": "c" * 40, "dirty": True}, ("code", "commit", "c" * 10 + " with changes", "unknown"), False),
        ({"cpu": "Another"}, ("hardware", "name", "Another", "A processor"), False),
        ({"device": "H200", "cpu": "Any"}, ("hardware", "kind", "cuda", "cpu"), False),
        ({"threads": 2}, ("execution", "threads", "2", "1"), False),
        ({"devices": 2}, ("recipe", "devices", "2", "1"), True),
        ({"pipeline": "streamed"}, ("execution", "pipeline", "streamed", "resident"), False),
    ],
)
@pytest.mark.parametrize("top1_err", [10.0, None], ids=["ok", "diverged"])
def test_runs_that_came_to_be_otherwise_are_found(
    change: dict[str, Any], expected: tuple[str, ...], serious: bool, top1_err: float | None
) -> None:
    departures = audit_records([ABLATION], ran(make_record(R16), make_record(R4, 0, top1_err, **change)))
    also = {("r4", "hardware", "name", change["device"], "A processor")} if "device" in change else set()
    assert found(departures) == {("r4", *expected), *also}
    assert {(d.declared, d.serious) for d in departures} == {(False, serious)}


def test_arms_may_be_spread_over_machines_if_each_is() -> None:
    spread = [make_record(v, seed, cpu=cpu) for v in (R4, R16) for seed, cpu in enumerate("AB")]
    assert audit_records([ABLATION], ran(*spread)) == []
    (departure,) = audit_records([ABLATION], ran(make_record(R4, 0, cpu="A"), make_record(R4, 1, cpu="A"), *spread[2:]))
    assert (departure.here, departure.reference) == ("A", "A and B")


def test_only_common_seeds_are_compared_where_there_are_any() -> None:
    reference = [make_record(R16, seed) for seed in (0, 1)]
    more = make_record(R4, 2, threads=8)
    assert audit_records([ABLATION], ran(*reference, make_record(R4, 1), more)) == []
    (departure,) = audit_records([ABLATION], ran(*reference, more))
    assert (departure.what, departure.here) == ("threads", "8")
    assert audit_records([ABLATION], ran(more)) == [], "no reference, nothing to compare"
    # Another series of seeds is counted from its start.
    null = a_table(a_row("again", R16, first_seed=1000))
    reference, more = make_record(R16, 0), make_record(R16, 1001, threads=8)
    assert audit_records([null], ran(reference, make_record(R16, 1000), more)) == []
    (departure,) = audit_records([null], ran(reference, make_record(R16, 1000, threads=8)))
    assert (departure.row, departure.what) == ("again", "threads")


def test_lines_tell_arm_status_field_and_both_values_within_a_terminal() -> None:
    card = "A card with a long name, as makers of cards like to give them, and more of it"
    records = ran(make_record(R16), make_record(R4, precision="bf16", cpu=card).model_copy(update={"n_test": 3}))
    departures = audit_declarations([ABLATION], PROTOCOL)[:1] + audit_records([ABLATION], records)
    assert [departure.in_words for departure in departures] == [
        "ratio:r4 against r16, declared: variant se.reduction: 4; reference 16",
        "ratio:r4 against r16, undeclared: data n_test: 3; reference 200",
        "ratio:r4 against r16, undeclared: precision used: bf16; reference fp32",
        f"ratio:r4 against r16, caution: hardware name:\n  {card}\n  reference A processor",
    ]

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
    MAY_DIFFER,
    Departure,
    audit_declarations,
    audit_networks,
    audit_records,
    comparisons,
    departure_lines,
)
from senet_ablate.models import build, diff
from senet_ablate.models.build import build_network
from senet_ablate.results.arms import Outcomes, arm_of, load_outcomes
from senet_ablate.results.records import RunRecord, StudyPin
from senet_ablate.results.store import Study
from senet_ablate.seeding import initialise
from senet_ablate.spec.ablation import Ablation, Row
from senet_ablate.spec.loading import load_ablations, load_protocol
from senet_ablate.spec.network import Placement, SEConfig, Variant, differences
from senet_ablate.spec.protocol import CHANNELS_AND_CLASSES, Protocol

ROOT = Path(__file__).parents[2]
ABLATIONS = ROOT / "ablations"
PROTOCOLS = sorted(path.stem for path in (ABLATIONS / "protocols").glob("*.toml"))
OURS = sorted(path.stem for path in ABLATIONS.glob("*.toml") if not path.stem.startswith("table"))


def all_tables() -> list[Ablation]:
    return load_ablations(ABLATIONS) + [table for name in OURS for table in load_ablations(ABLATIONS, [name])]


def audited(tables: Iterable[Ablation], protocol: Protocol, channels: int, classes: int, **how: Any) -> list[Departure]:
    """What `senet-ablate audit` finds in the networks of these tables."""
    tables = list(tables)
    variants = [arm.variant for pair in comparisons(tables) for arm in (pair.arm, pair.reference)]
    return audit_networks(tables, diff.take_snapshots(protocol.network, variants, channels, classes, **how))


def found(departures: Iterable[Departure]) -> set[tuple[str, ...]]:
    """Row, aspect, field and both values of whatever is not declared."""
    return {(d.row, d.aspect, d.what, d.here, d.reference) for d in departures if not d.declared}


def a_row(name: str, variant: Variant, **more: Any) -> Row:
    return Row(id=name, label=name, se=variant.se or False, placement=variant.placement, **more)


def a_table(*rows: Row, factor: str = "se.reduction") -> Ablation:
    """The reference `r16` and these rows; not validated, since validation refuses some of what the audit looks for."""
    return ABLATION.model_copy(update={"rows": (a_row("r16", R16), *rows), "factor": factor})


@pytest.mark.parametrize("name", PROTOCOLS)
def test_no_arm_differs_in_what_its_row_does_not_declare(name: str) -> None:
    protocol, tables = load_protocol(ABLATIONS, name), all_tables()
    channels, classes = CHANNELS_AND_CLASSES[protocol.data.dataset]
    declared = audit_declarations(tables, protocol)
    built = audited(tables, protocol, channels, classes or 1000)
    assert found([*declared, *built]) == set()
    pairs = [((p.ablation.slug, p.name), p.arm.variant != p.reference.variant) for p in comparisons(tables)]
    assert {(d.table, d.row) for d in declared} == {pair for pair, _ in pairs}, "every arm was looked at"
    assert [(d.table, d.row) for d in built] == [pair for pair, other_network in pairs if other_network]


def test_arms_start_equal_wherever_they_have_the_same_layer() -> None:
    before = torch.random.get_rng_state()
    assert found(audited(all_tables(), load_protocol(ABLATIONS, "digits"), 1, 10, seed=0)) == set()
    assert torch.equal(torch.random.get_rng_state(), before), "the audit draws nothing for those who come after it"


def test_nothing_forbids_a_verdict_on_the_committed_study() -> None:
    study = Study(ROOT / "results" / "digits-reference")
    departures = audit_records(all_tables(), load_outcomes(study, study.pin()))
    assert departure_lines(d for d in departures if d.grave) == []


def test_each_arm_is_held_against_the_reference_and_so_is_the_network_without_se() -> None:
    assert [pair.name for pair in comparisons([ABLATION])] == ["r4", "plain"]
    assert [pair.name for pair in comparisons([a_table(a_row("r4", R4))])] == ["r4", "plain"], "though no row prints it"
    assert [pair.name for pair in comparisons([a_table(a_row("original", PLAIN))])] == ["original"]


def test_what_a_row_declares_is_listed_as_declared() -> None:
    table = a_table(a_row("r4", R4), a_row("again", R16, first_seed=1000), a_row("original", PLAIN))
    departures = audit_declarations([table], PROTOCOL)
    assert [(d.row, d.aspect, d.what, d.here, d.reference) for d in departures] == [
        ("r4", "variant", "se.reduction", "4", "16"),
        ("again", "seed", "seed", "1000", "0"),
        ("original", "variant", "se", "plain", "se-r16"),
    ]
    assert all(d.declared and not d.grave and (d.table, d.against) == ("ratio", "r16") for d in departures)


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
    assert all(d.grave for d in departures if not d.declared)


def meta(*shape: int, **kind: Any) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape, device="meta", **kind))


@pytest.mark.parametrize(
    ("module", "attribute", "value", "expected"),
    [
        ("layer2.0.conv2", "stride", (2, 2), {("layer2.0.conv2.stride", "(2, 2)", "(1, 1)")}),
        ("bn1", "eps", 1e-3, {("bn1.eps", "0.001", "1e-05")}),
        ("layer1", "1", nn.Dropout2d(), {("layer1.1", "Dropout2d", "absent")}),
        ("layer4.0.downsample", "1", None, {("layer4.0.downsample.1", "absent", "BatchNorm2d")}),
        ("conv1", "bias", meta(16), {("conv1.bias", "Parameter", "absent")}),
        ("fc", "weight", meta(5, 512), {("fc.weight.shape", "(5, 512)", "(10, 512)")}),
        ("fc", "bias", meta(10).requires_grad_(False), {("fc.bias.requires_grad", "False", "True")}),
        ("fc", "bias", meta(10, dtype=torch.float16), {("fc.bias.dtype", "torch.float16", "torch.float32")}),
        ("bn1", "running_var", None, {("bn1.running_var", "absent", "Tensor")}),
        ("layer1.0", "relu", type("Other", (nn.ReLU,), {})(True), {("layer1.0.relu", "Other", "ReLU")}),
        ("", "avgpool", nn.AdaptiveAvgPool2d(2), {("avgpool.output_size", "2", "1")}),
        ("", "__class__", type("Other", (ResNet,), {}), {("network", "Other", "ResNet")}),
        ("layer1.0", "site", "post", {("layer1.0.site", "post", "standard")}),
        ("layer1.0.se", "squeeze", torch.relu, {("layer1.0.se.squeeze", "relu", "squeeze_avg")}),
        ("layer3.0", "se", None, {("layer3.0.se", "absent", "SqueezeExcitation")}),
        ("layer3.0.se", "dropout", nn.Dropout(), {("layer3.0.se.dropout", "Dropout", "absent")}),
    ],
)
def test_a_network_that_differs_in_anything_else_is_found(
    monkeypatch: pytest.MonkeyPatch, module: str, attribute: str, value: Any, expected: set[tuple[str, ...]]
) -> None:
    def altered(network: Any, variant: Variant, **how: Any) -> ResNet:
        model = build.build_network(network, variant, **how)
        if variant == R4:
            setattr(model.get_submodule(module), attribute, value)
        return model

    monkeypatch.setattr(diff, "build_network", altered)
    departures = audited([ABLATION], PROTOCOL, 1, 10)
    assert found(departures) == {("r4", "modules", *line) for line in expected}
    assert [d.row for d in departures if d.declared] == ["r4", "plain"]


CHANGES = {
    "se.squeeze": Variant(se=SEConfig(squeeze="max")),
    "se.gate": Variant(se=SEConfig(gate="random")),
    "se.reduction": R4,
    "se.excitation": Variant(se=SEConfig(excitation="eca")),
    "placement.stages": Variant(se=SEConfig(), placement=Placement(stages=(2, 4))),
    "placement.position": Variant(se=SEConfig(), placement=Placement(position="pre")),
}


@pytest.mark.parametrize("factor", MAY_DIFFER)
def test_a_factor_excuses_no_change_of_the_network_but_its_own(factor: str) -> None:
    rows = {name.replace(".", "-"): variant for name, variant in CHANGES.items()}
    table = a_table(*(a_row(name, variant) for name, variant in rows.items()), factor=factor)
    departures = audited([table], PROTOCOL, 1, 10, seed=0)
    assert {line[0] for line in found(departures)} == rows.keys() - {factor.replace(".", "-")}


@pytest.mark.parametrize(
    ("factor", "reference", "others"),
    [
        ("placement.position", SEConfig(excitation="eca"), [(SEConfig(excitation="eca"), p) for p in ("pre", "post")]),
        ("se.excitation", SEConfig(reduction=4, bias=True), [(SEConfig(excitation="eca"), "standard")]),
    ],
)
def test_a_block_of_another_kind_may_sit_anywhere_and_beside_any_of_the_papers(
    factor: str, reference: SEConfig, others: list[tuple[SEConfig, Any]]
) -> None:
    rows = [a_row("reference", Variant(se=reference))]
    rows += [a_row(position, Variant(se=se, placement=Placement(position=position))) for se, position in others]
    change = {"rows": tuple(rows), "factor": factor, "reference": "reference", "claims": ()}
    tables = [ABLATION.model_copy(update=change)]
    departures = [*audit_declarations(tables, PROTOCOL), *audited(tables, PROTOCOL, 1, 10, seed=0)]
    assert found(departures) == set()
    assert {d.row for d in departures} == {position for _, position in others} | {"plain"}
    assert differences(rows[0].variant, rows[1].variant) == {factor}  # or no such table could be declared


def test_what_is_declared_of_a_network_is_one_line_with_widths_and_learnt_parameters() -> None:
    table = a_table(a_row("r4", R4), a_row("random", CHANGES["se.gate"]), a_row("s3", CHANGES["placement.stages"]))
    lines = {d.row: d.here for d in audited([table], PROTOCOL, 1, 10) if d.what == "SE blocks"}
    plain = sum(
        p.numel() for p in build_network(PROTOCOL.network, PLAIN, in_channels=1, classes=10, resolution=8).parameters()
    )
    # One unit in each stage, of 64, 128, 256 and 512 channels; two layers of C * C / r weights.
    r4 = plain + 2 * (64**2 + 128**2 + 256**2 + 512**2) // 4
    assert lines == {
        "r4": f"4, hidden 16-128, avg, sigmoid, standard; {r4:,} learnt",
        "plain": f"0; {plain:,} learnt",
    }


def draw_globally(model: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter)


def draw_one_by_size(model: nn.Module, seed: int) -> None:
    initialise(model, seed)
    size = sum(parameter.numel() for parameter in model.parameters())
    nn.init.normal_(model.get_parameter("fc.weight"), generator=torch.Generator().manual_seed(size))


@pytest.mark.parametrize(
    ("draw", "what"),
    [
        (draw_globally, "layer1.0.conv1.weight.values and "),  # the first behind an SE block
        (lambda model, seed: None, "conv1.weight.values and "),
        (draw_one_by_size, "fc.weight.values"),
    ],
)
def test_weights_that_depend_on_what_else_an_arm_has_are_found(
    monkeypatch: pytest.MonkeyPatch, draw: Callable[[nn.Module, int], None], what: str
) -> None:
    monkeypatch.setattr(build, "initialise", draw)
    departures = [d for d in audited([ABLATION], PROTOCOL, 1, 10, seed=0) if not d.declared]
    assert [(d.row, d.aspect, d.grave) for d in departures] == [(row, "weights", True) for row in ("r4", "plain")]
    assert all(d.what.startswith(what) and d.here != d.reference for d in departures)


def ran(*records: RunRecord) -> Outcomes:
    runs: dict[Any, tuple[RunRecord, ...]] = {}
    for record in records:
        runs[arm_of(record)] = (*runs.get(arm_of(record), ()), record)
    return Outcomes(Study(Path("nowhere")), StudyPin(protocol=PROTOCOL, data=FACTS), runs)


@pytest.mark.parametrize(
    ("change", "expected", "grave"),
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
    change: dict[str, Any], expected: tuple[str, ...], grave: bool, top1_err: float | None
) -> None:
    departures = audit_records([ABLATION], ran(make_record(R16), make_record(R4, 0, top1_err, **change)))
    also = {("r4", "hardware", "name", change["device"], "A processor")} if "device" in change else set()
    assert found(departures) == {("r4", *expected), *also}
    assert {(d.declared, d.grave) for d in departures} == {(False, grave)}


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


def test_lines_tell_arm_standing_field_and_both_values_within_a_terminal() -> None:
    card = "A card with a long name, as makers of cards like to give them, and more of it"
    records = ran(make_record(R16), make_record(R4, precision="bf16", cpu=card).model_copy(update={"n_test": 3}))
    lines = departure_lines(audit_declarations([ABLATION], PROTOCOL)[:1] + audit_records([ABLATION], records))
    assert lines == [
        "ratio:r4 against r16, declared: variant se.reduction: 4; reference 16",
        "ratio:r4 against r16, undeclared: data n_test: 3; reference 200",
        "ratio:r4 against r16, undeclared: precision used: bf16; reference fp32",
        f"ratio:r4 against r16, caution: hardware name:\n  {card}\n  reference A processor",
    ]

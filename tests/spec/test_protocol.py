"""Under test: `specs`, which refuses what it does not know, spells each network once and identifies each run."""

import hashlib
import itertools
import json
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from senet_ablate.spec.ablation import arms
from senet_ablate.spec.loading import declarations_dir, load_ablations, load_protocol
from senet_ablate.spec.network import Gate, Network, Placement, Position, SEConfig, Squeeze, Variant
from senet_ablate.spec.protocol import (
    Augmentation,
    Complexity,
    DataConfig,
    DataFacts,
    Protocol,
    Recipe,
    RunSpec,
    Schedule,
)

ABLATIONS = Path(__file__).parents[2] / "ablations"

NETWORK = {"backbone": "resnet14"}
DATA = {"dataset": "digits", "resolution": 8}
RECIPE = {"epochs": 3, "batch_size": 4, "lr": 0.5}
RUN = {"network": NETWORK, "data": DATA, "recipe": RECIPE, "precision": "fp32", "variant": {}, "seed": 0}
FACTS = {"fingerprint": "f", "channels": 1, "class_names": ["a"], "n_train": 1, "n_validation": 1, "n_test": 1}
SMALLEST = {
    SEConfig: {},
    Placement: {},
    Variant: {},
    Network: NETWORK,
    DataConfig: DATA,
    Augmentation: {},
    Schedule: {},
    Recipe: RECIPE,
    RunSpec: RUN,
    Protocol: {"name": "p", "description": "d", "network": NETWORK, "data": DATA, "recipe": RECIPE},
    DataFacts: FACTS,
    Complexity: {"params": 1, "params_with_bn_stats": 1, "macs": 1},
}
"""The least that each specification takes: all that it may leave out has a default."""


def build(model, **fields):
    """Build from JSON, as declarations and records are."""
    return model.model_validate_json(json.dumps(SMALLEST[model] | fields))


def changed(spec: dict, path: str, value: object) -> dict:
    """A copy of the nested `spec` in which the dotted `path` has `value`."""
    key, _, rest = path.partition(".")
    return spec | {key: changed(spec.get(key) or {}, rest, value) if rest else value}


@pytest.mark.parametrize("model", SMALLEST)
def test_unknown_key_is_refused(model):
    build(model)
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        build(model, colour="red")


@pytest.mark.parametrize("model", SMALLEST)
def test_instance_is_frozen_and_takes_keywords_only(model):
    spec = build(model)
    field = next(iter(model.model_fields))
    with pytest.raises(ValidationError, match="Instance is frozen"):
        setattr(spec, field, getattr(spec, field))
    with pytest.raises(TypeError, match="positional"):
        model(getattr(spec, field))


@pytest.mark.parametrize(
    ("model", "missing"),
    [(model, field) for model, fields in SMALLEST.items() for field in fields],
)
def test_field_without_default_is_required(model, missing):
    fields = {key: value for key, value in SMALLEST[model].items() if key != missing}
    with pytest.raises(ValidationError, match=rf"{missing}\s+Field required"):
        model.model_validate_json(json.dumps(fields))


INFINITE, NAN = float("inf"), float("nan")
WRONG = {
    (SEConfig, "reduction"): ["16", 16.0, True, 0, None, [16], {"2": 0}, {"2": 8.0}, {"2": "8"}, {"two": 8}],
    (SEConfig, "bias"): [1, "false"],
    (SEConfig, "squeeze"): ["AVG", None],
    (SEConfig, "gate"): ["swish"],
    (Placement, "position"): ["inner"],
    (Network, "width"): [0, 64.0],
    (Network, "stem"): ["cifar"],
    (Network, "stride_in"): ["first"],
    (Network, "stem_pool"): ["same"],
    (Network, "groups"): [0, True],
    (Network, "units"): ["layer(", None],
    (DataConfig, "dataset"): ["mnist"],
    (DataConfig, "resolution"): [3, 8.0],
    (DataConfig, "validation"): [0.0, 0.6],
    (Augmentation, "crop_padding"): [-1],
    (Augmentation, "horizontal_flip"): ["yes"],
    (Schedule, "kind"): ["linear"],
    (Schedule, "factor"): [0.0, 1.0],
    (Recipe, "epochs"): [0],
    (Recipe, "batch_size"): [1],
    (Recipe, "lr"): [0.0, "0.1", True, NAN, INFINITE],
    (Recipe, "weight_decay"): [-1e-4, INFINITE],
    (Recipe, "momentum"): [1.0],
    (Recipe, "label_smoothing"): [1.0],
    (RunSpec, "seed"): [-1],
    (RunSpec, "precision"): ["fp16"],
    (Protocol, "seeds"): [0],
    (Protocol, "name"): ["Digits 2"],
    (Complexity, "macs"): [1.5],
}


@pytest.mark.parametrize(
    ("model", "field", "value"), [(*place, value) for place, values in WRONG.items() for value in values]
)
def test_value_of_a_wrong_type_or_range_is_refused(model, field, value):
    with pytest.raises(ValidationError) as caught:
        build(model, **{field: value})
    assert [error["loc"] for error in caught.value.errors()] == [(field,)]


@pytest.mark.parametrize("stages", ["all", [2, 3, 4, 5], [5, 4, 3, 2], [2, 2, 3, 4, 5, 5], (2, 3, 4, 5)])
def test_all_four_stages_are_one_network_however_spelt(stages):
    assert Placement(stages=stages) == Placement()
    assert Placement(stages=stages).stages == "all"


@pytest.mark.parametrize("stages", [[3, 5], [5, 3], [3, 5, 3]])
def test_order_and_repetition_of_stages_do_not_matter(stages):
    assert build(Placement, stages=stages).stages == (3, 5)


@pytest.mark.parametrize("stages", [[-1], [10], [], "some", 2, [2.0], ["2"], [True], None])
def test_anything_but_stage_numbers_is_refused(stages):
    with pytest.raises(
        ValidationError, match='stages must be "all" or a list of stage numbers; those of Table 1 are 2'
    ):
        build(Placement, stages=stages)


def test_placement_covers_exactly_its_stages():
    assert [stage for stage in range(1, 7) if Placement(stages=(4, 2)).covers(stage)] == [2, 4]
    assert all(Placement().covers(stage) for stage in (2, 3, 4, 5))


@pytest.mark.parametrize("placement", [{"position": "pre"}, {"stages": [2]}])
def test_plain_network_has_no_placement(placement):
    with pytest.raises(ValidationError, match="a network without SE has no placement; remove the placement or set se"):
        build(Variant, placement=placement)


@pytest.mark.parametrize(
    ("model", "fields", "text"),
    [
        (Network, {"backbone": "resnet5"}, "no backbone 'resnet5'; did you mean 'resnet50'? allowed: resnet14, resn"),
        (Network, {"backbone": "resnet18"}, 'has basic blocks, without a 1x1 convolution: set stride_in = "3x3"'),
        (
            Network,
            {"stem": "small", "stem_pool": "ceil"},
            "stem_pool has no meaning with stem = 'small'; leave it out",
        ),
        (DataConfig, {"resize": 7}, "smaller than resolution = 8, the crop; use at least that or leave it out"),
        (Augmentation, {"resized_crop": True, "crop_padding": 1}, "resized_crop and crop_padding are two ways to crop"),
        (Schedule, {"kind": "step"}, "milestones are missing: kind = 'step' needs the epochs"),
        (Schedule, {"milestones": [3]}, "milestones has no meaning with kind = 'cosine'; leave it out"),
        (Schedule, {"patience": 3}, "patience has no meaning with kind = 'cosine'; leave it out"),
        (Schedule, {"kind": "plateau", "milestones": [3]}, "milestones has no meaning with kind = 'plateau'"),
        (Schedule, {"kind": "step", "milestones": [3], "drops": 1}, "drops has no meaning with kind = 'step'"),
        (Schedule, {"kind": "step", "milestones": [3, 2]}, "milestones must be rising epoch numbers, 1 or more"),
        (Schedule, {"kind": "step", "milestones": [2, 2]}, "milestones must be rising epoch numbers, 1 or more"),
        (Schedule, {"kind": "step", "milestones": [0, 2]}, "milestones must be rising epoch numbers, 1 or more"),
        (Recipe, {"schedule": {"warmup_epochs": 3}}, "schedule.warmup_epochs = 3 does not end before epochs = 3"),
        (
            Recipe,
            {"schedule": {"kind": "step", "milestones": [1, 7]}},
            "schedule.milestones = (1, 7) does not end before epochs = 3",
        ),
    ],
)
def test_fields_that_contradict_each_other_are_refused_with_the_reason(model, fields, text):
    with pytest.raises(ValidationError) as caught:
        build(model, **fields)
    assert text in str(caught.value)


def test_a_resize_to_the_resolution_is_no_resize():
    assert build(DataConfig, resize=8) == build(DataConfig)


def test_evaluated_short_side_is_the_resolution_unless_resized():
    assert build(DataConfig).short_side == 8
    assert build(DataConfig, resize=10).short_side == 10


def test_protocol_gives_its_fields_to_the_run():
    spec = build(Protocol, precision="bf16", seeds=7).run_spec(Variant(), 5)
    assert spec == build(RunSpec, precision="bf16", seed=5)


BEGIN = '{"data": {"dataset": "digits", "resolution": 8}, "network": {"backbone": "resnet14"}, "precision": '
RECIPE_TEXT = '"recipe": {"batch_size": 4, "epochs": 3, "lr": 0.5}'
OTHER = {
    "data": {"dataset": "cifar10", "resolution": 32, "resize": 40},
    "network": {"backbone": "resnet26", "width": 32, "stem": "small", "stride_in": "3x3"},
    "recipe": RECIPE | {"schedule": {"kind": "step", "milestones": [1, 2]}, "augmentation": {"crop_padding": 4}},
    "precision": "auto",
    "seed": 12,
    "variant": {"se": {"squeeze": "max", "reduction": 4}, "placement": {"stages": [3, 2], "position": "pre"}},
}
OTHER_TEXT = (
    '{"data": {"dataset": "cifar10", "resize": 40, "resolution": 32}, "network": {"backbone": "resnet26", "stem": '
    '"small", "stride_in": "3x3", "width": 32}, "precision": "auto", "recipe": {"augmentation": {"crop_padding": 4}, '
    '"batch_size": 4, "epochs": 3, "lr": 0.5, "schedule": {"kind": "step", "milestones": [1, 2]}}, "seed": 12, '
    '"variant": {"placement": {"position": "pre", "stages": [2, 3]}, "se": {"reduction": 4, "squeeze": "max"}}}'
)


# The ids name folders of results that people keep. A change that breaks this test orphans them: their runs would be
# trained again. Add a field with a default, and the ids stay.
@pytest.mark.parametrize(
    ("fields", "golden", "canonical"),
    [
        (RUN, "plain-s0-7b42563671", f'{BEGIN}"fp32", {RECIPE_TEXT}, "seed": 0, "variant": {{}}}}'),
        (
            RUN | {"variant": {"se": {}}, "seed": 1},
            "se-r16-s1-c4a5e910d3",
            f'{BEGIN}"fp32", {RECIPE_TEXT}, "seed": 1, "variant": {{"se": {{}}}}}}',
        ),
        (OTHER, "se-r4-max-stage23-pre-s12-63e07f6460", OTHER_TEXT),
    ],
)
def test_run_id_is_golden_and_hashes_the_fields_that_differ_from_their_defaults(fields, golden, canonical):
    assert build(RunSpec, **fields).run_id == golden
    assert golden.endswith(hashlib.blake2b(canonical.encode(), digest_size=5).hexdigest())


DEFAULT_AND_OTHER = {
    "network.width": (64, 32),
    "network.stem": ("imagenet", "small"),
    "network.stride_in": ("1x1", "3x3"),
    "network.stem_pool": ("padded", "ceil"),
    "network.groups": (1, 32),
    "network.base_width": (64, 4),
    "network.unstrided": (0, 1),
    "data.resize": (0, 9),
    "data.validation": (0.1, 0.2),
    "recipe.momentum": (0.9, 0.8),
    "recipe.nesterov": (False, True),
    "recipe.weight_decay": (1e-4, 0.0),
    "recipe.label_smoothing": (0.0, 0.1),
    "recipe.schedule.kind": ("cosine", "plateau"),
    "recipe.schedule.warmup_epochs": (0, 1),
    "recipe.schedule": ({"milestones": [], "patience": 10, "drops": 3}, {"kind": "step", "milestones": [2]}),
    "recipe.schedule.factor": (0.1, {"kind": "plateau", "factor": 0.2}),
    "recipe.schedule.patience": (10, {"kind": "plateau", "patience": 9}),
    "recipe.schedule.drops": (3, {"kind": "plateau", "drops": 2}),
    "recipe.augmentation.crop_padding": (0, 1),
    "recipe.augmentation.horizontal_flip": (False, True),
    "recipe.augmentation.resized_crop": (False, True),
    "variant.se.squeeze": ("avg", "max"),
    "variant.se.gate": ("sigmoid", "tanh"),
    "variant.se.reduction": (16, 8),
    "variant.se.bias": (False, True),
    "variant.se.residual": (False, True),
    "variant.placement.stages": ("all", [2]),
    "variant.placement.position": ("standard", "pre"),
    "recipe.lr": (0.5, 0.25),  # from here on: no default
    "recipe.epochs": (3, 4),
    "recipe.batch_size": (4, 5),
    "network.backbone": ("resnet14", "resnet26"),
    "data.dataset": ("digits", "cifar10"),
    "data.resolution": (8, 16),
    "precision": ("fp32", "bf16"),
    "seed": (0, 1),
    "variant": ({"se": {}, "placement": {}, "block": None, "settings": {}, "source": ""}, {}),
}
SE_RUN = RUN | {"variant": {"se": {}}}


@pytest.mark.parametrize("path", DEFAULT_AND_OTHER)
def test_run_id_stays_when_a_default_is_spelt_out(path):
    default, _ = DEFAULT_AND_OTHER[path]
    assert build(RunSpec, **changed(SE_RUN, path, default)).run_id == build(RunSpec, **SE_RUN).run_id


def test_run_id_stays_with_another_spelling_of_the_same_number():
    whole, real = (build(RunSpec, **changed(RUN, "recipe.lr", lr)) for lr in (1, 1.0))
    assert whole.run_id == real.run_id


def test_run_id_changes_with_what_is_trained():
    # A schedule's keys belong to its kind: where the other value is a table, it stands for all of the schedule.
    runs = [SE_RUN]
    for path, (default, other) in DEFAULT_AND_OTHER.items():
        whole = isinstance(other, dict) and not isinstance(default, dict)
        runs.append(changed(SE_RUN, path.rpartition(".")[0] if whole else path, other))
    assert len({build(RunSpec, **run).run_id for run in runs}) == len(DEFAULT_AND_OTHER) + 1


def test_the_17_networks_of_the_tables_have_these_slugs():
    slugs = [arm.slug for arm in arms(load_ablations(ABLATIONS))]
    gates_and_squeezes = ("max", "nosqueeze", "relu", "tanh")
    places = ("stage2", "stage3", "stage4", "pre", "post", "identity", "inner-3x3")
    by_hand = {"plain"} | {f"se-r{r}" for r in (2, 4, 8, 16, 32)}
    by_hand |= {f"se-r16-{change}" for change in gates_and_squeezes + places}
    assert len(slugs) == 17
    assert set(slugs) == by_hand


def test_the_controls_have_these_slugs_and_other_seeds_are_in_theirs():
    slugs = [arm.slug for arm in arms(load_ablations(ABLATIONS, ["controls"]))]
    changes = ("", "@1000", "-constant", "-random", "-ungated")
    assert slugs == [*(f"se-r16{change}" for change in changes), "plain"]


def test_no_two_networks_share_a_slug():
    stages = [chosen for size in (1, 2, 3, 4) for chosen in itertools.combinations((2, 3, 4, 5), size)]
    sites = [Placement(stages=some, position=position) for some in stages for position in get_args(Position)]
    variants = [
        Variant(
            se=SEConfig(squeeze=squeeze, gate=gate, reduction=reduction, bias=bias, residual=residual), placement=site
        )
        for squeeze in get_args(Squeeze)
        for gate in get_args(Gate)
        for reduction in (1, 16, {2: 4, 3: 8, 4: 16, 5: 32}, {2: 4, 3: 8})
        for bias in (False, True)
        for residual in (False, True)
        for site in sites
    ]
    variants += [
        Variant(block=block, settings=settings, source=source, placement=site)
        for block, settings, source in (
            ("eca", {}, ""),
            ("eca", {"kernel": 3}, ""),
            ("eca", {"kernel": {2: 3, 3: 5, 4: 5, 5: 7}}, ""),
            ("mine:ECA", {}, ""),
            ("mine:ECA", {}, "0a1b2c"),
            ("mine:ECA", {}, "d3e4f5"),
            ("yours:ECA", {}, "0a1b2c"),
            ("eca.mine:Block", {}, "0a1b2c"),
        )
        for site in sites
    ]
    assert len(set(variants)) == len(variants) == (3 * 7 * 4 * 2 * 2 + 8) * 15 * 7
    assert len({variant.slug for variant in variants}) == len(variants)


def test_settings_of_one_optimiser_are_no_settings_of_the_other():
    assert Recipe(**RECIPE, optimizer="adamw").momentum == 0.9
    for change in ({"momentum": 0.8}, {"nesterov": True}):
        with pytest.raises(ValidationError, match="no meaning with optimizer = 'adamw'"):
            Recipe(**RECIPE, optimizer="adamw", **change)


def test_a_rate_of_the_backbone_is_for_pretrained_networks():
    about = {"name": "a", "description": "b", "data": DataConfig(**DATA), "recipe": Recipe(**RECIPE, backbone_lr=0.01)}
    with pytest.raises(ValidationError, match=r"set network\.pretrained"):
        Protocol(**about, network=Network(**NETWORK))
    Protocol(**about, network=Network(backbone="torchvision:resnet18", pretrained=True))


def test_ways_to_mix_are_named_once_and_their_share_belongs_to_them():
    with pytest.raises(ValidationError, match="name each once"):
        Augmentation(mix=("mixup", "mixup"))
    with pytest.raises(ValidationError, match="no meaning without mix"):
        Augmentation(mix_alpha=0.2)
    assert Augmentation(mix=("cutmix",)).mix_alpha == 1  # torchvision's default


def test_a_file_of_weights_is_known_by_its_digest_wherever_it_lies():
    about = {"data": DataConfig(**DATA), "recipe": Recipe(**RECIPE), "precision": "fp32", "variant": Variant()}

    def run(**network):
        return RunSpec(**about, seed=0, network=Network(backbone="torchvision:resnet18", **network))

    here, there = (run(pretrained=place, source="0a1b") for place in ("a.pt", "/mnt/b.pt"))
    assert here == there
    assert len({here, there}) == 1
    assert here.run_id == there.run_id
    others = [run(), run(pretrained=True), run(pretrained="a.pt", source="0a1c")]
    assert len({here.run_id, *(other.run_id for other in others)}) == 4
    assert all(here != other for other in others)


@pytest.mark.parametrize("backbone", ["pytorchcv:resnet18", "mine:net"])
def test_weights_are_published_for_networks_of_two_libraries(backbone):
    with pytest.raises(ValidationError, match="pretrained = true is for networks of torchvision and timm"):
        Network(backbone=backbone, pretrained=True)


def test_a_network_is_told_by_what_it_has():
    told = [
        Network(backbone="resnet14", width=16, stem="small").in_words(whole=True),
        Network(backbone="wrn10-2", width=32).in_words(whole=True),
        Network(backbone="torchvision:resnet18", pretrained=True).in_words(whole=True),
        Network(backbone="timm:resnet18").in_words(),
    ]
    assert told == [
        "resnet14, width 16, small stem, stride in the 1x1",
        "wrn10-2, width 32",
        "torchvision:resnet18, pretrained",
        "timm:resnet18",
    ]


def test_a_list_of_files_is_of_a_folder():
    with pytest.raises(ValidationError, match="splits has no meaning with dataset = 'digits'"):
        DataConfig(**DATA, splits="splits.csv")


def test_what_a_protocol_is_in_words_follows_its_keys_and_not_its_description() -> None:
    protocol = load_protocol(declarations_dir(), "cifar10-lite", ["recipe.epochs=24", "images=cats"])
    assert protocol.in_words == "resnet14 (width 32) on cats at 16x16 pixels, 24 epochs"
    assert "6 epochs" in protocol.description

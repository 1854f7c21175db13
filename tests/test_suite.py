"""Under test: the declarations in `ablations/` and how `suite` and `declarations` read, check and refuse them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from senet_ablate.claims import Fewer, Retains
from senet_ablate.errors import UserError
from senet_ablate.specs import Network, Placement, SEConfig, Variant
from senet_ablate.suite import (
    SEED_SERIES,
    Ablation,
    Arm,
    Row,
    arms,
    check_arms,
    declarations_dir,
    differences,
    load_ablations,
    load_protocol,
)

ABLATIONS = Path(__file__).parents[1] / "ablations"
PROTOCOLS = sorted(path.stem for path in (ABLATIONS / "protocols").glob("*.toml"))


def se(placement: Placement = Placement(), **config) -> Variant:  # noqa: B008 (frozen)
    return Variant(se=SEConfig(**config), placement=placement)


def stage(number: int) -> Variant:
    return se(Placement(stages=(number,)))


def at(position: str) -> Variant:
    return se(Placement(position=position))


PLAIN, SE = Variant(), se()

# Tables 10 to 16 of arXiv 1709.01507: top-1 and top-5 error in percent, parameters in millions, GFLOPs.
PRINTED = {
    (10, "ratio", "se.reduction", "r16"): {
        "r2": (se(reduction=2), 22.29, 6.00, 45.7, None),
        "r4": (se(reduction=4), 22.25, 6.09, 35.7, None),
        "r8": (se(reduction=8), 22.26, 5.99, 30.7, None),
        "r16": (SE, 22.28, 6.03, 28.1, None),
        "r32": (se(reduction=32), 22.72, 6.20, 26.9, None),
        "original": (PLAIN, 23.30, 6.55, 25.6, None),
    },
    (11, "squeeze", "se.squeeze", "avg"): {
        "max": (se(squeeze="max"), 22.57, 6.09, None, None),
        "avg": (SE, 22.28, 6.03, None, None),
    },
    (12, "gate", "se.gate", "sigmoid"): {
        "relu": (se(gate="relu"), 23.47, 6.98, None, None),
        "tanh": (se(gate="tanh"), 23.00, 6.38, None, None),
        "sigmoid": (SE, 22.28, 6.03, None, None),
    },
    (13, "stage", "placement.stages", "all"): {
        "original": (PLAIN, 23.30, 6.55, 25.6, 3.86),
        "stage2": (stage(2), 23.03, 6.48, 25.6, 3.86),
        "stage3": (stage(3), 23.04, 6.32, 25.7, 3.86),
        "stage4": (stage(4), 22.68, 6.22, 26.4, 3.86),
        "all": (SE, 22.28, 6.03, 28.1, 3.87),
    },
    (14, "integration", "placement.position", "standard"): {
        "standard": (SE, 22.28, 6.03, None, None),
        "pre": (at("pre"), 22.23, 6.00, None, None),
        "post": (at("post"), 22.78, 6.35, None, None),
        "identity": (at("identity"), 22.20, 6.15, None, None),
    },
    (15, "inner", "placement.position", "standard"): {
        "standard": (SE, 22.28, 6.03, 28.1, 3.87),
        "inner-3x3": (at("inner-3x3"), 22.48, 6.02, 25.8, 3.86),
    },
    (16, "nosqueeze", "se.squeeze", "se"): {
        "original": (PLAIN, 23.30, 6.55, 25.6, 3.86),
        "nosqueeze": (se(squeeze="none"), 22.93, 6.39, 28.1, 4.27),
        "se": (SE, 22.28, 6.03, 28.1, 3.87),
    },
}


def test_every_declaration_loads_and_holds_the_printed_figures():
    loaded = {
        (ablation.table, ablation.slug, ablation.factor, ablation.reference): {
            row.id: (row.variant, *row.paper.model_dump().values()) for row in ablation.rows
        }
        for ablation in load_ablations(ABLATIONS)
    }
    assert loaded == PRINTED
    assert list(loaded) == list(PRINTED)  # in the order of the tables
    files = ["controls", "pruning", *(f"table{n}_{slug}" for n, slug, _, _ in PRINTED)]
    assert sorted(path.stem for path in ABLATIONS.glob("*.toml")) == files


def test_25_rows_share_17_networks():
    tables = load_ablations(ABLATIONS)
    served = arms(tables)
    assert len(served) == 17
    assert sum(len(table.rows) for table in tables) == 25
    assert sum(map(len, served.values())) == 25 + 4  # and the network without SE of the four that do not print it
    assert served[Arm(variant=SE)] == [
        "ratio:r16",
        "squeeze:avg",
        "gate:sigmoid",
        "stage:all",
        "integration:standard",
        "inner:standard",
        "nosqueeze:se",
    ]
    assert served[Arm(variant=PLAIN)] == [
        "ratio:original",
        "squeeze:plain",
        "gate:plain",
        "stage:original",
        "integration:plain",
        "inner:plain",
        "nosqueeze:original",
    ]


def test_a_table_with_claims_needs_the_network_without_se_that_it_does_not_print():
    needed = arms(load_ablations(ABLATIONS, ["squeeze"]))
    by_hand = {se(squeeze="max"): ["squeeze:max"], SE: ["squeeze:avg"], PLAIN: ["squeeze:plain"]}
    assert needed == {Arm(variant=variant): rows for variant, rows in by_hand.items()}


@pytest.mark.parametrize("rows", [["max"], ["max", "avg"]])
def test_with_chosen_rows_there_are_no_claims_and_no_network_that_only_claims_need(rows):
    (squeeze,) = load_ablations(ABLATIONS, ["squeeze"], rows)
    assert squeeze.claims == ()
    assert arms([squeeze]) == {Arm(variant=se(squeeze="max")): ["squeeze:max"], Arm(variant=SE): ["squeeze:avg"]}


def test_the_controls_are_loaded_when_named_and_hold_these_rows():
    assert "controls" not in [table.slug for table in load_ablations(ABLATIONS)]
    ratio, controls = load_ablations(ABLATIONS, ["controls", "ratio"])  # the paper's tables come first
    assert (ratio.table, controls.table) == (10, None)
    assert (controls.name, controls.heading) == ("controls", "Controls")
    assert {row.id: (row.variant, row.first_seed) for row in controls.rows} == {
        "se": (SE, 0),
        "other-seeds": (SE, 1000),
        "constant": (se(gate="constant"), 0),
        "random": (se(gate="random"), 0),
        "ungated": (se(gate="none"), 0),
        "original": (PLAIN, 0),
    }
    assert [row.paper for row in controls.rows] == [None] * 6


def test_the_pruning_table_has_se_in_all_stages_in_all_but_the_last_and_in_none():
    (pruning,) = load_ablations(ABLATIONS, ["pruning"])
    without_last = Variant(se=SEConfig(), placement=Placement(stages=(2, 3, 4)))
    assert (pruning.table, pruning.reference) == (None, "se")
    assert {row.id: row.variant for row in pruning.rows} == {"se": SE, "no-stage5": without_last, "original": PLAIN}
    assert [(claim.id, claim.simple_atoms()) for claim in pruning.claims] == [
        (
            "pruning-last-stage",
            (  # 0.1 points are a tenth of the paper's gain, 23.30 - 22.28
                Retains(kind="retains", arm="no-stage5", share=0.9),
                Fewer(kind="fewer", quantity="params", arm="no-stage5", than="se"),
            ),
        )
    ]


def test_the_papers_tables_are_called_by_their_number():
    assert load_ablations(ABLATIONS, ["ratio"])[0].heading == "Table 10: Reduction ratio"


def test_an_arm_has_the_seeds_from_its_first_and_owns_a_series_of_them():
    arm, other = Arm(variant=SE), Arm(variant=SE, first_seed=1000)
    assert SEED_SERIES == 1000
    assert (arm.slug, other.slug) == ("se-r16", "se-r16@1000")
    assert [*arm.seeds(3)] == [0, 1, 2]
    assert [*other.seeds(3)] == [1000, 1001, 1002]
    seeds = (0, 999, 1000, 1999, 2000)
    assert [arm.owns(seed) for seed in seeds] == [True, True, False, False, False]
    assert [other.owns(seed) for seed in seeds] == [False, False, True, True, False]


def test_a_network_under_other_seeds_is_an_arm_of_its_own_with_runs_of_its_own():
    (controls,) = load_ablations(ABLATIONS, ["controls"])
    served, protocol = arms([controls]), load_protocol(ABLATIONS, "digits")
    assert served[Arm(variant=SE)] == ["controls:se"]
    assert served[Arm(variant=SE, first_seed=1000)] == ["controls:other-seeds"]
    runs = {
        name: [protocol.run_spec(controls.arm(name).variant, seed) for seed in controls.arm(name).seeds(3)]
        for name in ("se", "other-seeds")
    }
    assert [run.seed for run in runs["other-seeds"]] == [1000, 1001, 1002]
    assert runs["other-seeds"] == [run.model_copy(update={"seed": run.seed + 1000}) for run in runs["se"]]
    assert len({run.run_id for some in runs.values() for run in some}) == 6


def two_rows(*first_seeds: int) -> Ablation:
    """A table that holds the paper's block once under each first seed."""
    rows = tuple(
        Row(id=f"row-{number}", label="SE", se=SEConfig(), first_seed=first) for number, first in enumerate(first_seeds)
    )
    what = {"title": "T", "question": "?", "source": "ours", "factor": "se.gate"}
    return Ablation(slug="some", reference="row-0", rows=rows, **what)


def test_a_table_holds_a_network_twice_only_under_other_seeds():
    assert [arm.first_seed for arm in arms([two_rows(0, 1000, 2000)])] == [0, 1000, 2000]
    for twice in ((0, 0), (1000, 1000)):
        with pytest.raises(ValueError, match="rows 'row-0' and 'row-1' declare the same network"):
            two_rows(*twice)


def test_tables_can_be_chosen_by_slug_and_keep_the_order_of_their_numbers():
    assert [ablation.table for ablation in load_ablations(ABLATIONS, ["inner", "ratio", "inner"])] == [10, 15]


def test_rows_can_be_chosen_and_each_reference_stays():
    chosen = load_ablations(ABLATIONS, ["ratio", "gate"], ["r2"])
    assert [[row.id for row in ablation.rows] for ablation in chosen] == [["r2", "r16"], ["sigmoid"]]


def test_differences_are_named_by_field():
    other = se(Placement(stages=(2,), position="pre"), gate="tanh", bias=True)
    assert differences(SE, other) == {"placement.stages", "placement.position", "se.gate", "se.bias"}
    assert differences(SE, SE) == set()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocol_carries_every_row(name):
    protocol = load_protocol(ABLATIONS, name)
    assert protocol == load_protocol(ABLATIONS, str(ABLATIONS / "protocols" / f"{name}.toml"))
    tables = load_ablations(ABLATIONS) + load_ablations(ABLATIONS, ["controls"])
    check_arms(tables, protocol.network, protocol.data.resolution, name)


def test_override_changes_one_key_of_the_protocol():
    plain = load_protocol(ABLATIONS, "digits")
    changed = load_protocol(ABLATIONS, "digits", ["recipe.schedule.warmup_epochs=0", "precision=auto", "seeds = 1"])
    assert (changed.recipe.schedule.warmup_epochs, changed.precision, changed.seeds) == (0, "auto", 1)
    schedule = plain.recipe.schedule.model_copy(update={"warmup_epochs": 0})
    recipe = plain.recipe.model_copy(update={"schedule": schedule})
    assert changed == plain.model_copy(update={"recipe": recipe, "precision": "auto", "seeds": 1})


def test_declarations_are_found_in_the_working_directory_first_then_in_the_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert declarations_dir().samefile(ABLATIONS)
    (tmp_path / "ablations" / "protocols").mkdir(parents=True)
    assert declarations_dir().samefile(tmp_path / "ablations")


@pytest.fixture
def folder(tmp_path):
    """A copy of the declarations to spoil."""
    return Path(shutil.copytree(ABLATIONS, tmp_path / "ablations"))


def refusal(call, *args) -> str:
    with pytest.raises(UserError) as caught:
        call(*args)
    return str(caught.value)


def spoil(folder: Path, file: str, old: str, new: str) -> Path:
    path = folder / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


T10, T11, T12, T13, T14, T15, _ = (f"table{number}_{slug}.toml" for number, slug, _, _ in PRINTED)
R2 = "se = { reduction = 2 }"
LISTED = 'placement.stages = {}: stages must be "all" or a list of stage numbers from 2, 3, 4, 5'
NEAR = "unknown key; did you mean"
BAD_TABLES = {  # what is spoilt, and what the one line says after the file's name
    "key": (T10, "slug =", "colour = 3\nslug =", ": colour = 3: unknown key; allowed: table, slug, title, quest"),
    "near key": (T10, R2, "se = { redution = 2 }", f", row 'r2': se.redution = 2: {NEAR} 'reduction'? allowed: sq"),
    "near key of a place": (T13, "stages =", "stage =", f", row 'stage2': placement.stage = [2]: {NEAR} 'stages'? a"),
    "near value": (T14, '"post" }', '"pots" }', """, row 'post': placement.position = "pots": did you mean 'post'"""),
    "value": (T12, '"relu" }', '"swish" }', """, row 'relu': se.gate = "swish": allowed: sigmoid, tanh, relu"""),
    "value in 1 row of 2": (T11, '"max" }', '"std" }', """, row 'max': se.squeeze = "std": allowed: avg, max, none"""),
    "factor": (T10, '"se.reduction"', '"se.ratio"', """: factor = "se.ratio": did you mean 'se.reduction'? allow"""),
    "text": (T10, R2, 'se = { reduction = "2" }', """, row 'r2': se.reduction = "2": it should be a valid integer"""),
    "range": (T10, R2, "se = { reduction = 0 }", ", row 'r2': se.reduction = 0: it should be greater than or eq"),
    "se is true": (T10, R2, "se = true", ", row 'r2': se = true: se must be false (the plain network) or a ta"),
    "no such stage": (T13, "[2]", "[6]", ", row 'stage2': " + LISTED.format("[6]")),
    "stage is no list": (T13, "[2]", "2", ", row 'stage2': " + LISTED.format("2")),
    "figure is text": (T10, "45.7", '"45"', """, row 'r2': paper.params_m = "45": it should be a valid number"""),
    "figure is nan": (T10, "45.7", "nan", ", row 'r2': paper.params_m = NaN: it should be a finite number"),
    "no se": (T10, R2, "", ", row 'r2': se: missing"),
    "no figure": (T10, "top1_err = 22.29, ", "", ", row 'r2': paper.top1_err: missing"),
    "no id": (T10, 'id = "r2"', "", ", row 'number 1': id: missing"),
    "no title": (T10, 'title = "Reduction ratio"', "", ": title: missing"),
    "id is no name": (T10, 'id = "r2"', 'id = "R 2"', """, row 'R 2': id = "R 2": string should match pattern"""),
    "reference": (T10, '= "r16"', '= "r17"', ": reference = 'r17' is no row; did you mean 'r16'? allowed: r2, r4"),
    "same id": (T10, 'id = "r2"', 'id = "r4"', ": two rows have the same id among r4, r4, r8, r16, r32, original"),
    "same network": (T10, R2, "se = { reduction = 16 }", ": rows 'r2' and 'r16' declare the same network"),
    "not the factor": (T10, R2, "se = { bias = true }", ": row 'r2' differs from the reference row 'r16' in se.bias"),
    "plain": (T10, "= false", "= false\nplacement = { stages = [2] }", ", row 'original': a network without SE has"),
    "file name": (T10, "table = 10", "table = 9", ": table = 9 and slug = 'ratio' belong in table9_ratio.toml"),
    "half a series": ("controls.toml", "= 1000", "= 500", ", row 'other-seeds': first_seed = 500: it should be a mul"),
    "same seeds": ("controls.toml", "first_seed = 1000", "", ": rows 'se' and 'other-seeds' declare the same network"),
    "no number": ("controls.toml", '"controls"', '"control"', ": slug = 'control' belong in control.toml"),
    "invalid TOML": (T10, 'id = "r2"', "id = r2", ": not valid TOML: Invalid value (at line 10, column 6)"),
}


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_bad_table_is_refused_with_file_row_key_value_and_what_would_be_right(folder, kind):
    file, old, new, text = BAD_TABLES[kind]
    path = spoil(folder, file, old, new)
    message = refusal(load_ablations, folder)
    assert message.startswith(f"{path}{text}")
    assert message.count("\n") == 0, "one mistake, one line"


def test_a_misspelt_required_key_is_named_beside_the_gap_it_leaves(folder):
    path = spoil(folder, T10, 'label = "r = 2"', 'lable = "r = 2"')
    missing, unknown = refusal(load_ablations, folder).splitlines()
    assert missing == f"{path}, row 'r2': label: missing, and it has no default"
    assert unknown.startswith(
        f"{path}, row 'r2': lable = \"r = 2\": unknown key; did you mean 'label'? allowed: id, label,"
    )


def test_two_files_with_one_slug_are_refused(folder):
    shutil.copy(folder / T10, folder / "table17_ratio.toml")
    path = spoil(folder, "table17_ratio.toml", "table = 10", "table = 17")
    assert refusal(load_ablations, folder) == f"{path}: slug = 'ratio' is also that of {T10}"


@pytest.mark.parametrize(
    ("slugs", "rows", "text"),
    [
        (
            ["ration"],
            [],
            "no ablation 'ration'; did you mean 'ratio'? allowed: ratio, squeeze, gate, stage, ",
        ),
        (["gate"], ["r2"], "no row 'r2' in gate; allowed: relu, tanh, sigmoid"),
        (["ratio"], ["r23"], "no row 'r23' in ratio; did you mean 'r2'? allowed: r2, r4, r8, r16, r32, original"),
    ],
)
def test_unknown_table_or_row_is_refused_with_the_known_ones(slugs, rows, text):
    assert refusal(load_ablations, ABLATIONS, slugs, rows).startswith(text)


def test_folder_without_tables_is_refused(tmp_path):
    assert refusal(load_ablations, tmp_path) == f"{tmp_path}: no ablation (*.toml) in this folder"


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("lr = 0.05", "", "recipe.lr: missing"),
        ("lr = 0.05", "lr = 0.05\nmomentm = 0.8", "recipe.momentm = 0.8: unknown key; did you mean 'momentum'?"),
        ("warmup_epochs", "warmup", "recipe.schedule.warmup = 2: unknown key; did you mean 'warmup_epochs'?"),
        ("epochs = 30", 'epochs = "30"', 'recipe.epochs = "30": it should be a valid integer'),
        ('"fp32"', '"fp16"', "precision = \"fp16\": did you mean 'bf16'? allowed: auto, fp32, bf16"),
        ("resnet14", "resnet51", "no backbone 'resnet51'; did you mean 'resnet50'? allowed: resnet14"),
        ("resnet14", "resnet18", 'resnet18 has basic blocks, without a 1x1 convolution: set stride_in = "3x3"'),
        ("epochs = 30", "epochs = 2", "schedule.warmup_epochs = 2 does not end before epochs = 2"),
        ('name = "digits"', 'name = "digit"', "name = 'digit' should be the file's own name, 'digits'"),
    ],
)
def test_bad_protocol_is_refused_with_file_key_value_and_what_would_be_right(folder, old, new, text):
    path = spoil(folder, "protocols/digits.toml", old, new)
    message = refusal(load_protocol, folder, "digits")
    assert message.startswith(f"{path}: ")
    assert text in message


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("recipe.epochs", "--set 'recipe.epochs': expected KEY=VALUE, for example "),
        ("=3", "--set '=3': expected KEY=VALUE"),
        ("recipe.epochs.x=3", "--set 'recipe.epochs.x=3': 'epochs' is a value, not a table"),
        ("recipe.epoch=3", "with --set recipe.epoch=3: recipe.epoch = 3: unknown key; did you mean 'epochs'?"),
        ("rcipe.epochs=3", "with --set rcipe.epochs=3: rcipe = {\"epochs\": 3}: unknown key; did you mean 'recipe'?"),
        ("recipe.epochs=two", 'with --set recipe.epochs=two: recipe.epochs = "two": it should be a valid integer'),
        ("recipe.lr=-1", "with --set recipe.lr=-1: recipe.lr = -1: it should be greater than 0"),
        ("recipe.lr=inf", "with --set recipe.lr=inf: recipe.lr = Infinity: it should be a finite number"),
    ],
)
def test_bad_override_is_refused_with_key_value_and_what_would_be_right(override, text):
    assert text in refusal(load_protocol, ABLATIONS, "digits", [override])


def test_the_example_of_an_override_works_on_the_default_protocol():
    example = refusal(load_protocol, ABLATIONS, "digits", ["recipe.epochs"]).rpartition("for example ")[2]
    key, _, value = example.partition("=")
    assert key == "recipe.epochs"
    assert load_protocol(ABLATIONS, "digits", [example]).recipe.epochs == int(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("digit", f"no protocol 'digit'; did you mean 'digits'? allowed: {', '.join(PROTOCOLS)}"),
        ("protocols/digits", f"allowed: {', '.join(PROTOCOLS)}"),
        ("nowhere.toml", "nowhere.toml: cannot be read: "),
    ],
)
def test_unknown_protocol_is_refused_with_the_known_ones(name, text):
    assert text in refusal(load_protocol, ABLATIONS, name)


def test_reduction_that_leaves_no_hidden_channel_is_refused_for_each_row_that_has_it():
    network = Network(backbone="resnet14", width=8, stem="small")
    message = refusal(check_arms, load_ablations(ABLATIONS), network, 8, "narrow")
    assert [line.split(", under ")[0] for line in message.splitlines()] == [
        "table14_integration.toml, row 'pre'",
        "table15_inner.toml, row 'inner-3x3'",
    ]
    assert "under narrow: se.reduction = 16 leaves no hidden channel in block 2_1, where the pre place" in message
    assert "has 8 channels; use a reduction of at most 8 or a wider network" in message


def test_inner_place_is_refused_on_basic_blocks():
    network = Network(backbone="resnet18", stride_in="3x3")
    message = refusal(check_arms, load_ablations(ABLATIONS), network, 32, "basic")
    assert message.startswith("table15_inner.toml, row 'inner-3x3', under basic: placement.position = \"inner-3x3\": ")
    assert "use a bottleneck network (resnet14, " in message
    assert message.count("\n") == 0


DESCRIBING = (
    "specs, backbones, geometry, declarations, claims, suite, rules, contrasts, overhead, counting, records, store, "
    "planning, provenance, tables, figures, page, report, executor, lease, sharing, merging, verification, pool, "
    "runner, levers, machine, timings, terminal, inspection, exchange, cli"
)


def test_describing_modules_never_import_torch():
    code = f"import sys; from senet_ablate import {DESCRIBING}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {f"senet_ablate.{name}" for name in DESCRIBING.split(", ")} <= imported
    assert not {"torch", "torchvision", "pytorch_lightning", "fvcore"} & imported


@pytest.mark.parametrize(
    ("library", "rooms"), [("pytorch_lightning", {"training.py", "trackers.py"}), ("fvcore", {"complexity.py"})]
)
def test_lightning_and_its_loggers_and_fvcore_stay_in_their_rooms(library, rooms):
    package = Path(__file__).parents[1] / "senet_ablate"
    users = {
        path.name for path in package.glob("*.py") if re.search(rf"^ *(from|import) {library}", path.read_text(), re.M)
    }
    assert users == rooms

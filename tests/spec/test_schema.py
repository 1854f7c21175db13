"""Under test: how declarations are found, overridden and, where they are wrong, refused with what would be right."""

import shutil
from pathlib import Path

import pytest
from studies import ABLATIONS

from senet_ablate.errors import UserError
from senet_ablate.spec.ablation import check_arms
from senet_ablate.spec.claims import Rules
from senet_ablate.spec.loading import declarations_dir, keep_rows, load_ablations, load_protocol
from senet_ablate.spec.network import Network
from senet_ablate.spec.schema import read_toml

PROTOCOLS = sorted(path.stem for path in (ABLATIONS / "protocols").glob("*.toml"))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocol_carries_every_row(name):
    protocol = load_protocol(ABLATIONS, name)
    assert protocol == load_protocol(ABLATIONS, str(ABLATIONS / "protocols" / f"{name}.toml"))
    tables = load_ablations(ABLATIONS) + load_ablations(ABLATIONS, ["controls", "pruning", "attention"])
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


# --- tables ---


T10, T11, T12 = "table10_ratio.toml", "table11_squeeze.toml", "table12_gate.toml"
T13, T14 = "table13_stage.toml", "table14_integration.toml"
R2 = "se = { reduction = 2 }"
LISTED = 'placement.stages = {}: stages must be "all" or a list of stage numbers; those of Table 1 are 2, 3, 4, 5'
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
    "ratio of a stage": (
        T10,
        R2,
        "se = { reduction = { 2 = 0 } }",
        ", row 'r2': se.reduction = {\"2\": 0}: it should be g",
    ),
    "stage is no number": (T13, "[2]", "[-6]", ", row 'stage2': " + LISTED.format("[-6]")),
    "stage is no list": (T13, "[2]", "2", ", row 'stage2': " + LISTED.format("2")),
    "figure is text": (T10, "45.7", '"45"', """, row 'r2': paper.params_m = "45": it should be a valid number"""),
    "figure is nan": (T10, "45.7", "nan", ", row 'r2': paper.params_m = NaN: it should be a finite number"),
    "no se": (T10, R2, "", ", row 'r2': se or block is missing: se = false is no SE, se = {} SE, block = "),
    "two blocks": (T10, R2, f'{R2}\nblock = "eca"', ", row 'r2': se and block are two blocks; choose one"),
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
            "no table 'ration'; did you mean 'ratio'? allowed: ratio, squeeze, gate, stage, ",
        ),
        (["gate"], ["r2"], "no row 'r2' in gate; allowed: relu, tanh, sigmoid"),
        (["ratio"], ["r23"], "no row 'r23' in ratio; did you mean 'r2'? allowed: r2, r4, r8, r16, r32, original"),
    ],
)
def test_unknown_table_or_row_is_refused_with_the_known_ones(slugs, rows, text):
    assert refusal(lambda: keep_rows(load_ablations(ABLATIONS, slugs), rows)).startswith(text)


def test_folder_without_tables_is_refused(tmp_path):
    assert refusal(load_ablations, tmp_path) == f"{tmp_path}: no table (*.toml) in this folder"


# --- protocols ---


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


# --- tables under a protocol ---


def test_reduction_that_leaves_no_hidden_channel_is_refused_for_each_row_that_has_it():
    network = Network(backbone="resnet14", width=8, stem="small")
    message = refusal(check_arms, load_ablations(ABLATIONS), network, 8, "narrow")
    assert [line.split(", under ")[0] for line in message.splitlines()] == [
        "table14_integration.toml, row 'pre'",
        "table15_inner.toml, row 'inner-3x3'",
    ]
    assert "under narrow: se.reduction = 16 leaves no hidden channel in block 2_1, where the pre place" in message
    assert "has 8 channels; use a reduction of at most 8 or a wider network" in message


def test_a_stage_that_the_network_does_not_have_is_refused(folder):
    spoil(folder, T13, "[2]", "[6]")
    message = refusal(check_arms, load_ablations(folder), Network(backbone="resnet14"), 32, "small")
    assert message == (
        "table13_stage.toml, row 'stage2', under small: placement.stages: there is no stage 6; this network has stages "
        "2, 3, 4, 5"
    )


def test_inner_place_is_refused_on_basic_blocks():
    network = Network(backbone="resnet18", stride_in="3x3")
    message = refusal(check_arms, load_ablations(ABLATIONS), network, 32, "basic")
    assert message.startswith("table15_inner.toml, row 'inner-3x3', under basic: placement.position = \"inner-3x3\": ")
    assert "use a bottleneck network (resnet14, " in message
    assert message.count("\n") == 0


def test_a_field_added_later_changes_no_digest_of_old_plans_and_claims() -> None:
    class Later(Rules):
        LATER = frozenset({"studied_by"})
        studied_by: str = "nobody"

    assert Later().model_dump_json() == Rules().model_dump_json()
    assert Later(studied_by="us").model_dump()["studied_by"] == "us"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_toml_is_read_as_windows_writes_it(tmp_path: Path, encoding: str, end: str) -> None:
    """Notepad sets a byte order mark, PowerShell's `>` makes UTF-16."""
    path = tmp_path / "file.toml"
    path.write_bytes(f'# µ{end}word = """a{end}b"""{end}'.encode(encoding))
    assert read_toml(path) == {"word": "a\nb"}


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"word = '\xe4'", "word = 1".encode("utf-16-le")])
def test_toml_that_is_no_text_is_a_mistake_in_its_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.toml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"file\.toml: (cannot be read|not valid TOML)"):
        read_toml(path)

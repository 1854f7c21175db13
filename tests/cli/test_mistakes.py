"""Mistakes that used to end in a traceback, in silence or in a wait without end, each found by generated bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from garbled import CONTENTS, HONEST, RECORD, refusal
from helpers import PLAIN, PROTOCOL, SE, fake_fashion, image_folder, random_image
from sound import write_sound
from studies import ABLATIONS, CLAIMED

from senet_ablate.analysis.planner import allocate
from senet_ablate.analysis.power import Assumptions, PowerAnalysis
from senet_ablate.analysis.study import assess
from senet_ablate.cli.console import show_status
from senet_ablate.cli.main import main
from senet_ablate.data.datasets import load_data
from senet_ablate.errors import UserError
from senet_ablate.files import write_atomic
from senet_ablate.models.build import build_network
from senet_ablate.models.weights import of_file
from senet_ablate.report.figures.curves import curves_frame, plot_curves
from senet_ablate.report.figures.style import save
from senet_ablate.report.figures.table import plot_table
from senet_ablate.report.tables import build_table
from senet_ablate.report.write import fill, write_report
from senet_ablate.results.arms import load_outcomes
from senet_ablate.results.plan import read_plan
from senet_ablate.results.records import CURVE_FILE, CurvePoint, curve_csv, digests
from senet_ablate.results.store import Study
from senet_ablate.results.verify import examine
from senet_ablate.results.worklist import find_pace
from senet_ablate.spec.ablation import Arm
from senet_ablate.spec.claims import Rules
from senet_ablate.spec.loading import load_protocol
from senet_ablate.spec.protocol import Augmentation, DataConfig, check_fit


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("senet_ablate.execution.local.warm_up", lambda: None)
    return lambda *arguments: CliRunner().invoke(main, arguments)


def told(result: Result) -> str:
    assert isinstance(result.exception, SystemExit), "no traceback"
    assert result.exit_code == 2
    return " ".join(result.stderr.split())


# --- what is typed ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["status", "--study", ""], ["--study", "expected a text"]),
        (["status", "--protocol", " "], ["--protocol", "expected a text"]),
        (["run", "--rows", ""], ["--rows", "expected a text"]),
        (["status", "--study", "a\nb"], ["--study", "one line"]),
        (["status", "--study", "\udcff"], ["--study", "UTF-8"]),
        (["status", "--results", ""], ["--results", "expected a path"]),
        (["status", "--ablations", ".."], ["..: no table (*.toml) in this folder"]),
        (["run", "--data", ""], ["--data", "expected a path"]),
        (["merge", ".", "--into", ""], ["--into", "expected a text"]),
        (["verify", ""], ["STUDY ''", "plain folder name"]),
        (["plan", "--gain", "nan"], ["--gain", "nan"]),
        (["plan", "--error", "nan"], ["--error", "nan"]),
        (["plan", "--budget", "9" * 400 + "h"], ["--budget", "such as 2h"]),
        (["plan", "--runs", "9" * 400], ["--runs", "1000000"]),
        (["count", "--classes", "10" * 6], ["--classes", "100000"]),
        (["run", "--jobs", "1000000000"], ["--jobs", "1024"]),
        (["run", "--threads", "1000000000"], ["--threads", "1024"]),
        (["calibrate", "--seeds", "3,1000000"], ["--seeds '3,1000000'", "1000"]),
        (["plan", "--set", "recipe.epochs=" + "9" * 5000], ["--set", "recipe.epochs"]),
        (["plan", "--set", "recipe.epochs=" + "[" * 5000], ["--set", "recipe.epochs"]),
        (["plan", "--set", "a." * 5000 + "b=1"], ["--set", "nested"]),
        (["plan", "--set", "recipe.epochs=3\nlr = 1"], ["--set", "valid integer"]),
        (["plan", "--set", "network.width=" + "9" * 30], ["network.width", "1024"]),
        (["run", "--executor", "slurm", "--executor-option", "memory_gb=1e308"], ["memory_gb", "1000000"]),
        (["run", "--executor", "slurm", "--executor-option", "sbatch.a b=1"], ["sbatch", "match pattern"]),
        (["run", "--executor", "slurm", "--executor-option", "account=a\nrm -r ."], ["--executor-option", "KEY=VALUE"]),
    ],
)
def test_what_is_typed_by_mistake_is_told(
    invoke: Callable[..., Result], arguments: list[str], words: list[str]
) -> None:
    found = told(invoke(*arguments))
    assert all(word in found for word in words), found


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory\nat")])
def test_what_does_not_fit_into_memory_is_told(
    invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("senet_ablate.models.survey.survey", fail)
    assert "not enough memory" in told(invoke("count", "gate", "--protocol", "digits"))


def test_no_arm_is_given_the_seeds_of_another() -> None:
    prospects = PowerAnalysis([CLAIMED], Rules(), Assumptions(sd=50.0, correlation=0.0, images=200, basis="made"), 0.5)
    cost = dict.fromkeys(prospects.arms, 1.0)
    assert max(allocate(prospects, cost, 1e9).values()) <= 1000


def test_a_declaration_with_a_number_without_end_or_nested_without_end_is_told(tmp_path: Path) -> None:
    for value in ("9" * 5000, "0x" + "f" * 5000, "[" * 5000, "{a = " * 5000, "nan"):
        path = tmp_path / "own.toml"
        path.write_text(f"seeds = {value}\n")
        assert str(path) in refusal(lambda: load_protocol(tmp_path, str(path)))  # noqa: B023


# --- a study's files ---


@pytest.mark.parametrize("seeds", ["[]", '[{"plain": -1}]', '[{"plain": 1001}]', "[" + ", ".join(["{}"] * 101) + "]"])
def test_a_plan_file_without_a_look_or_with_seeds_that_no_arm_has_is_damaged(study: Study, seeds: str) -> None:
    (study.root / "plan.json").write_text(f'{{"claims": {{}}, "seeds": {seeds}}}')
    with pytest.raises(UserError, match=r"plan\.json.*seeds"):
        read_plan(study)


def test_numbers_with_which_nobody_can_count_make_a_record_damaged(study: Study) -> None:
    folder = write_sound(study, SE, 0)
    for place, number in (("complexity", {"macs": 10**400}), ("provenance", {"wall_s": 1e308})):
        folder.record_file.write_text(json.dumps(HONEST | {place: HONEST[place] | number}))
        assert "damaged: " in examine(folder, study.pin())[0]
        find_pace(PROTOCOL, study.root.parent)


@pytest.mark.parametrize("note", ['{"epoch": 1, "epochs": 0}', '{"epoch": 1, "epochs": 1' + "0" * 400 + "}"])
def test_progress_that_is_no_share_is_none(study: Study, note: str) -> None:
    folder = study.run(RECORD.run_id)
    write_atomic(folder.progress_file, note)
    assert folder.progress() is None


def vouch(study: Study, curve: str) -> None:
    """Put a curve beside a record that has its checksum."""
    folder = write_sound(study, SE, 0)
    files = CONTENTS | {CURVE_FILE: curve.encode()}
    write_atomic(folder.path / CURVE_FILE, curve)
    write_atomic(folder.record_file, json.dumps(HONEST | {"sha256": digests(files)}))


@pytest.mark.parametrize(
    "curve", ["", "epoch\n1\n", "no,columns\n1,2\n", '"', "epoch,lr,train_loss,val_loss,val_top1_err\n2,1,1,1,1\n"]
)
def test_a_report_names_the_curve_that_is_none(study: Study, tmp_path: Path, curve: str) -> None:
    vouch(study, curve)
    with pytest.raises(UserError, match=r"curve\.csv: damaged curve"):
        write_report(assess([CLAIMED], study), tmp_path)


def test_a_curve_that_ends_in_no_number_leaves_the_others_their_names(study: Study) -> None:
    lost = [CurvePoint(epoch=1, lr=0.1, train_loss=float("nan"), val_loss=1.0, val_top1_err=50.0)]
    vouch(study, curve_csv(lost))
    write_sound(study, PLAIN, 0)
    pin = study.pin()
    assert pin is not None
    _, losses, _, errors = plot_curves(curves_frame(CLAIMED, load_outcomes(study, pin))).axes
    named = [
        {text.get_text(): np.isfinite(text.get_position()).all() for text in axes.texts} for axes in (losses, errors)
    ]
    assert named == [{"no SE": True}, {"no SE": True, "r = 16": True}]


def test_a_dollar_in_a_label_is_one(full: Study) -> None:
    rows = tuple(row.model_copy(update={"label": rf"$\frac{{{row.id}$"}) for row in CLAIMED.rows)
    table = CLAIMED.model_copy(update={"rows": rows, "title": "$x^$"})
    save(plot_table(build_table(table, assess([table], full))), "svg")


def test_a_strangers_note_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    none: dict[str, list[str]] = {
        name: [] for name in ("finished", "diverged", "unfinished", "other images", "not run")
    }
    show_status("study \x1b[2J", {"plain": none | {"failed": ["seed 0: \x1b]0;owned\x07"]}})
    assert "\x1b" not in capsys.readouterr().out


# --- texts to fill ---

BEGIN, END = "<!-- generated: table -->\n", "<!-- /generated -->\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nothing to fill", "0 lines <!-- generated: NAME -->"),
        (f"{BEGIN}never ends", "1 lines <!-- generated: NAME --> and 0 lines"),
        (f"{BEGIN}mine\n{BEGIN}{END}", "2 lines <!-- generated: NAME --> and 1 lines"),
        (f"{BEGIN}{END}{END}", "and 2 lines <!-- /generated -->"),
        (f"<!-- generated: table --> {END}", "on a line of its own"),
        (f"<!-- generated: ../secret -->\n{END}", "a generated block names '../secret'; allowed: first/table, table"),
    ],
)
def test_a_block_that_is_none_is_told_and_nothing_is_lost(tmp_path: Path, text: str, words: str) -> None:
    tables = tmp_path / "first" / "tables"
    tables.mkdir(parents=True)
    (tables / "table.md").write_text("| a |\n")
    (tables.parent / "secret.md").write_text("| secret |\n")
    assert words in refusal(lambda: fill(text, tmp_path, "first"))
    assert fill(f"before\n{BEGIN}old\n{END}after", tmp_path, "first") == f"before\n{BEGIN}| a |\n{END}after"


def test_a_file_to_fill_that_is_no_text_is_named(full: Study, invoke: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"\xff\xfe")
    place = ("--study", "first", "--ablations", str(ABLATIONS), "--fill", "README.md")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("senet_ablate.cli.results._report", lambda *arguments: None)
        assert "--fill README.md" in told(invoke("report", *place))


# --- weights ---


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conv1.weight": torch.zeros(())}, "conv1 or fc is missing"),
        ({"fc.weight": torch.zeros(0, 512)}, "conv1 or fc is missing"),
        ({"fc.weight": torch.zeros(1).expand(10**9, 512)}, "expected a state dict"),
        ({1: torch.zeros(1)}, "expected a state dict"),
        ({"conv1.weight": torch.zeros(16, 1, 3, 3, dtype=torch.bool)}, "conv1.weight is torch.bool"),
    ],
    ids=["scalar", "no class", "stretched", "number for a name", "truths"],
)
def test_tensors_that_are_no_weights_are_told(tmp_path: Path, changes: dict[Any, torch.Tensor], words: str) -> None:
    protocol, path = load_protocol(ABLATIONS, "digits"), tmp_path / "weights.pt"
    state = build_network(protocol.network, SE, in_channels=1, classes=10, resolution=8).state_dict()
    torch.save(dict(state) | changes, path)
    found = refusal(lambda: of_file(path, Arm(variant=SE), protocol))
    assert str(path) in found
    assert words in found


# --- images ---

CONFIG = DataConfig(dataset="folder", resolution=8, validation=0.25)


@pytest.mark.parametrize("name", ["\udcff", "a\nb", "\x1b[2J"])
def test_a_class_whose_name_cannot_be_told_is_refused(tmp_path: Path, decode_cache: Path, name: str) -> None:
    root = image_folder(tmp_path / "images", ("cat", name))
    assert f"class folder {name!r}" in refusal(lambda: load_data(CONFIG, root))


@pytest.mark.parametrize("links", [["loop"], ["loop", "again", "more"]], ids=["one", "three: each way is another"])
def test_a_link_to_a_folder_above_is_told(tmp_path: Path, decode_cache: Path, links: list[str]) -> None:
    root = image_folder(tmp_path / "images")
    for link in links:
        (root / "train" / "cat" / link).symlink_to(root / "train", target_is_directory=True)
    assert "a link to a folder that it is in" in refusal(lambda: load_data(CONFIG, root))


@pytest.mark.parametrize("stream", [False, True])
def test_a_line_of_pixels_is_skipped_and_named(tmp_path: Path, decode_cache: Path, stream: bool) -> None:
    root = image_folder(tmp_path / "images")
    random_image(0, 60_000, 1).save(root / "train" / "cat" / "line.png")
    (notice,) = load_data(CONFIG, root, stream=stream).notices
    assert "line.png: 60000 x 1 pixels" in notice


@pytest.mark.parametrize("stream", [False, True])
def test_a_damaged_copy_of_the_images_is_named(tmp_path: Path, decode_cache: Path, stream: bool) -> None:
    root = image_folder(tmp_path / "images")
    load_data(CONFIG, root, stream=stream)
    for path in [path for path in decode_cache.rglob("*") if path.is_file()]:
        whole = path.read_bytes()
        for content in (b"", b"{}", b"[1, 2]", whole[: len(whole) // 2]):
            path.write_bytes(content)
            assert str(decode_cache) in refusal(lambda: load_data(CONFIG, root, stream=stream))
        path.write_bytes(whole)
    load_data(CONFIG, root, stream=stream)


def test_a_copy_of_other_images_is_damaged(tmp_path: Path, decode_cache: Path) -> None:
    root = image_folder(tmp_path / "images")
    load_data(CONFIG, root)
    (labels,) = decode_cache.rglob("train-labels.npy")
    np.save(labels, np.zeros(3, np.int64))
    assert "damaged copy" in refusal(lambda: load_data(CONFIG, root))


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"\0\0\x08\x01\0\0\0\x01\x09"], ids=["empty", "garbage", "one label"]
)
def test_garbled_files_of_torchvisions_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: list[str], file: str, content: bytes
) -> None:
    fake_fashion(tmp_path, monkeypatch)
    (tmp_path / "FashionMNIST" / "raw" / file).write_bytes(content)
    config = DataConfig(dataset="fashion-mnist", resolution=28)
    assert str(tmp_path) in refusal(lambda: load_data(config, tmp_path))


def test_crops_without_a_pixel_of_the_image_are_refused() -> None:
    padded = PROTOCOL.recipe.model_copy(update={"augmentation": Augmentation(crop_padding=8)})
    facts = load_data(PROTOCOL.data, None).facts
    with pytest.raises(UserError, match="crop_padding = 8"):
        check_fit(padded, PROTOCOL.data, facts, devices=1)


def test_the_status_of_a_study_that_does_not_exist_is_a_mistake_and_of_a_planned_one_is_not(call, study):
    result = call("status", "--study", "frist")
    assert result.exit_code == 2
    assert result.stderr == "error: no study 'frist' in results; studies there: first\n"
    assert call("status").exit_code == 0
    (study.root.parent / "planned").mkdir()
    assert "0 of 51 runs finished" in call("status", "--study", "planned", "--protocol", "digits").stdout

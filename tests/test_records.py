"""What runs leave behind: files that are whole or absent, identities that hold, studies that stay comparable."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import FACTS, PLAIN, PREDICTIONS, PROTOCOL, SE, make_record, write_record
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from senet_ablate.errors import UserError
from senet_ablate.records import CurvePoint, Failure, Predictions, Progress, RunRecord, curve_csv, digests
from senet_ablate.specs import DataConfig, Placement, Protocol, Recipe, Schedule, SEConfig, Variant
from senet_ablate.store import RunFolder, Study, write_atomic

# --- files that are whole or absent ---


@pytest.mark.parametrize(("content", "read"), [("grün – 1\n", "grün – 1\n".encode()), (b"\x00\xff", b"\x00\xff")])
def test_a_file_is_written_with_its_folders(content: str | bytes, read: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, content)
    assert path.read_bytes() == read
    write_atomic(path, b"second")
    assert path.read_bytes() == b"second"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["fsync", "fdopen"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_a_failure_in_the_middle_leaves_the_old_file_and_nothing_else(
    name: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.raises(type(error)):
            write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_content_is_on_disk_before_it_takes_the_files_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen, sync = tmp_path / "file", [], os.fsync
    write_atomic(path, "old")

    def note(handle: int) -> None:
        seen.append((os.fstat(handle).st_size, path.read_text()))
        sync(handle)

    monkeypatch.setattr(os, "fsync", note)
    write_atomic(path, "newer")
    assert seen[0] == (len("newer"), "old")


# --- predictions and curves ---

outcomes = st.lists(st.tuples(st.booleans(), st.floats(0, 6e4, width=16), st.booleans()), min_size=1, max_size=70)


@given(rows=outcomes, top5=st.booleans())
def test_predictions_come_back_bit_for_bit(
    rows: list[tuple[bool, float, bool]], top5: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    wrong, losses, wrong5 = (np.array(column) for column in zip(*rows, strict=True))
    path = tmp_path_factory.getbasetemp() / "predictions.npz"
    path.write_bytes(Predictions(wrong, losses, wrong5 if top5 else None).to_bytes())
    back = Predictions.from_file(path)
    assert back.wrong.dtype == bool
    assert np.array_equal(back.wrong, wrong)
    assert back.cross_entropy.dtype == np.float16
    assert np.array_equal(back.cross_entropy, losses)
    assert (back.wrong_top5 is not None) == top5
    if back.wrong_top5 is not None:
        assert np.array_equal(back.wrong_top5, wrong5)


def test_a_huge_cross_entropy_is_stored_without_warning_and_stays_finite(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    path.write_bytes(Predictions(np.array([True]), np.array([1e6]), None).to_bytes())
    assert np.isfinite(Predictions.from_file(path).cross_entropy).all()


def test_ten_thousand_predictions_take_about_20_kb() -> None:
    many = Predictions(np.zeros(10_000, bool), np.zeros(10_000), None)
    assert 20_000 + 1_250 < len(many.to_bytes()) < 23_000


def test_equal_predictions_are_equal_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    first = PREDICTIONS.to_bytes()
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *args: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    assert PREDICTIONS.to_bytes() == first


def test_predictions_refuse_pickled_objects(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable, tuple]:
            return Path.touch, (tmp_path / "sprung",)

    path = tmp_path / "predictions.npz"
    np.savez(path, n=np.array(1), wrong=np.array([Trap()], dtype=object), ce=np.zeros(1, np.float16))
    with pytest.raises(UserError, match=r"predictions\.npz: damaged predictions: .*pickle"):
        Predictions.from_file(path)
    assert not (tmp_path / "sprung").exists()


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(rows=st.lists(st.tuples(finite, finite, finite, finite), min_size=1, max_size=5))
def test_curves_come_back_in_full_precision(rows: list[tuple[float, float, float, float]]) -> None:
    curve = [
        CurvePoint(epoch=number, lr=lr, train_loss=train, val_loss=val, val_top1_err=err)
        for number, (lr, train, val, err) in enumerate(rows, 1)
    ]
    read = list(csv.DictReader(io.StringIO(curve_csv(curve))))
    epochs = [int(row.pop("epoch")) for row in read]
    numbers = [{name: float(text) for name, text in row.items()} for row in read]
    assert [CurvePoint(epoch=epoch, **row) for epoch, row in zip(epochs, numbers, strict=True)] == curve


def test_a_curve_that_diverged_can_be_written() -> None:
    point = CurvePoint(epoch=1, lr=0.1, train_loss=math.nan, val_loss=math.inf, val_top1_err=90.0)
    (row,) = csv.DictReader(io.StringIO(curve_csv([point])))
    assert math.isnan(float(row["train_loss"]))
    assert math.isinf(float(row["val_loss"]))


# --- records ---


def tampered(record: RunRecord, change: Callable[[dict[str, Any]], None]) -> str:
    content = json.loads(record.model_dump_json())
    change(content)
    return json.dumps(content)


def test_a_record_reads_back_as_it_was() -> None:
    record = make_record(SE, 2, 12.5, top5_err=3.25)
    assert RunRecord.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize("value", [math.inf, math.nan], ids=str)
def test_a_loss_that_is_no_finite_number_does_not_damage_the_record(value: float, tmp_path: Path) -> None:
    record, study = make_record(), Study(tmp_path)
    metrics = record.metrics.model_copy(update={"cross_entropy": value})  # training went well, the test set did not
    write_record(study, record.model_copy(update={"metrics": metrics}))
    back = study.run(record.run_id).record()
    assert back.metrics.top1_err == record.metrics.top1_err
    assert back.metrics.cross_entropy == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["spec"].update(seed=1),
        lambda content: content["spec"]["recipe"].update(lr=0.2),
        lambda content: content["spec"]["variant"]["se"].update(reduction=8),
        lambda content: content["spec"]["data"].update(validation=0.2),
        lambda content: content.update(run_id="plain-s0-0000000000"),
        lambda content: content.update(status="diverged"),
        lambda content: content.update(metrics=None),
        lambda content: content.update(extra=1),
        lambda content: content.update(schema_version=2),
    ],
    ids=["seed", "lr", "reduction", "validation", "run_id", "diverged", "no-metrics", "unknown", "schema"],
)
def test_a_tampered_record_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    text = tampered(make_record(), change)
    with pytest.raises(ValidationError):
        RunRecord.model_validate_json(text)


def test_digests_are_sha256() -> None:
    assert digests({"a": b"one", "b": b""}) == {
        "a": hashlib.sha256(b"one").hexdigest(),
        "b": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",  # of nothing, as FIPS 180 has it
    }


# --- the folder of a run ---


def test_a_finished_run_leaves_exactly_three_files(tmp_path: Path) -> None:
    study, record = Study(tmp_path / "study"), make_record()
    folder = study.run(record.run_id)
    folder.fail(Failure(cause="first try", traceback=""))
    for leftover in (folder.checkpoint_file, folder.progress_file, folder.live_curve_file):
        leftover.write_bytes(b"x")
    write_record(study, record)
    assert sorted(entry.name for entry in folder.path.iterdir()) == ["curve.csv", "predictions.npz", "record.json"]
    read = folder.record()
    assert read is not None
    assert read.spec == record.spec
    for name, digest in read.sha256.items():
        assert hashlib.sha256((folder.path / name).read_bytes()).hexdigest() == digest
    assert read.sha256.keys() == {"curve.csv", "predictions.npz"}


def test_the_record_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, order = RunFolder(tmp_path / make_record().run_id), []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: (order.append(Path(to).name), replace(self, to))[1])
    folder.path.mkdir()
    folder.checkpoint_file.write_bytes(b"x")
    folder.finish(make_record(), {"curve.csv": b"c", "predictions.npz": b"p"})
    assert order[-1] == "record.json"
    assert sorted(order) == ["curve.csv", "predictions.npz", "record.json"]


def test_a_failed_run_keeps_its_checkpoint_and_says_why(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    write_atomic(folder.progress_file, Progress(epoch=1, epochs=2).model_dump_json())
    folder.checkpoint_file.write_bytes(b"weights")
    assert folder.progress() == Progress(epoch=1, epochs=2)
    folder.progress_file.write_text('{"epoch": 1, "epochs": 0}')
    assert folder.progress() is None, "one bit turned: displays divide by it"
    failure = Failure(cause="out of memory", traceback="line 1\nline 2")
    folder.fail(failure)
    assert folder.failure() == failure
    assert (folder.progress(), folder.record()) == (None, None)
    assert folder.checkpoint_file.read_bytes() == b"weights"


def test_a_run_that_never_was_has_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "never")
    assert (folder.record(), folder.failure(), folder.progress()) == (None, None, None)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "\x00" * len(text),
        lambda text: "[]",
        lambda text: text.replace('"seed": 0', '"seed": 1'),
    ],
    ids=["empty", "half", "zeros", "other-json", "tampered"],
)
def test_a_damaged_record_is_named(spoil: Callable[[str], str], tmp_path: Path) -> None:
    study, record = Study(tmp_path), make_record()
    path = write_record(study, record) / "record.json"
    before = path.read_text()
    path.write_text(spoil(before))
    assert path.read_text() != before
    with pytest.raises(UserError) as caught:
        study.run(record.run_id).record()
    assert f"{path}: damaged record" in str(caught.value)
    assert "remove the folder" in str(caught.value)


def test_a_record_in_another_runs_folder_is_refused(tmp_path: Path) -> None:
    study = Study(tmp_path)
    path = write_record(study, make_record(SE))
    other = study.run(make_record(PLAIN).run_id)
    path.rename(other.path)
    with pytest.raises(UserError, match="in another run's folder; move the folder away"):
        other.record()


# --- studies ---


def protocol(**changes: Any) -> Protocol:
    return Protocol(**(dict(PROTOCOL) | changes))


def test_a_study_pins_protocol_and_images_at_its_first_run(tmp_path: Path) -> None:
    study = Study(tmp_path / "first")
    assert study.pin() is None
    study.check_protocol(PROTOCOL)
    recipe = Recipe(epochs=9, batch_size=4, lr=0.1, schedule=Schedule(kind="step", milestones=(3, 6)))
    stepwise = protocol(recipe=recipe)
    study.begin(stepwise, FACTS)
    content = (tmp_path / "first" / "study.json").read_bytes()
    study.begin(stepwise, FACTS)
    assert (tmp_path / "first" / "study.json").read_bytes() == content
    pin = study.pin()
    assert pin is not None
    assert (pin.protocol, pin.data) == (stepwise, FACTS)


def begun(root: Path) -> Study:
    """A study with one run on its way."""
    study = Study(root)
    study.begin(PROTOCOL, FACTS)
    write_atomic(study.run("some-run").checkpoint_file, b"")
    return study


def test_a_study_without_a_run_can_still_be_mended(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.begin(PROTOCOL, FACTS)
    study.check_protocol(protocol(precision="bf16"))
    study.begin(protocol(precision="bf16"), FACTS)
    assert study.pin().protocol.precision == "bf16"


@pytest.mark.parametrize("name", ["curve.csv", "predictions.npz"])
def test_a_file_that_is_not_what_its_record_says_is_named(tmp_path: Path, name: str) -> None:
    record = make_record(PLAIN, 0, 10.0)
    files = {"curve.csv": b"a", "predictions.npz": b"b"}
    folder = RunFolder(tmp_path / record.run_id)
    folder.finish(record.model_copy(update={"sha256": digests(files)}), files)
    assert folder.record() is not None
    (folder.path / name).write_bytes(b"c")
    with pytest.raises(UserError, match=f"{name}: not what its record says"):
        folder.record()


def test_seeds_name_and_description_may_differ_from_the_first_run(tmp_path: Path) -> None:
    study = begun(tmp_path)
    study.begin(protocol(seeds=7, name="other", description="other"), FACTS)
    assert study.pin().protocol == PROTOCOL


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"precision": "bf16"}, ["precision: then fp32, now bf16"]),
        (
            {"recipe": Recipe(epochs=3, batch_size=4, lr=0.2)},
            ["recipe.epochs: then 2, now 3", "recipe.lr: then 0.1, now 0.2"],
        ),
        (
            {"recipe": Recipe(epochs=2, batch_size=4, lr=0.1, schedule=Schedule(warmup_epochs=1))},
            ["recipe.schedule.warmup_epochs: then 0, now 1"],
        ),
        ({"data": DataConfig(dataset="digits", resolution=8, validation=0.2)}, ["data.validation: then 0.1, now 0.2"]),
        (
            {"network": PROTOCOL.network.model_copy(update={"width": 32, "stem": "imagenet"})},
            ["network.width: then 16, now 32", "network.stem: then small, now imagenet"],
        ),
    ],
    ids=["precision", "recipe", "schedule", "data", "network"],
)
def test_another_protocol_is_refused_and_each_field_that_differs_is_named(
    changes: dict[str, Any], lines: list[str], tmp_path: Path
) -> None:
    study = begun(tmp_path / "first")
    for attempt in (lambda: study.begin(protocol(**changes), FACTS), lambda: study.check_protocol(protocol(**changes))):
        with pytest.raises(UserError) as caught:
            attempt()
        message = str(caught.value)
        assert "'first'" in message
        assert "another protocol" in message
        assert "--study NAME" in message
        assert [line.strip() for line in message.splitlines() if ": then " in line] == lines


def test_other_images_are_refused_and_each_fact_that_differs_is_named(tmp_path: Path) -> None:
    study = begun(tmp_path / "first")
    with pytest.raises(UserError) as caught:
        study.begin(PROTOCOL, FACTS.model_copy(update={"fingerprint": "beef", "n_train": 899, "skipped": 1}))
    message = str(caught.value)
    assert "'first'" in message
    assert "images:" in message
    assert [line.strip() for line in message.splitlines() if ": then " in line] == [
        "data.fingerprint: then f00d, now beef",
        "data.n_train: then 900, now 899",
    ]
    assert study.pin().data == FACTS


def test_runs_that_were_ever_begun_are_known_by_network_and_seed_whatever_became_of_them(tmp_path: Path) -> None:
    study = Study(tmp_path)
    assert study.begun() == set()
    assert Study(tmp_path / "nowhere").begun() == set()
    study.begin(PROTOCOL, FACTS)
    write_record(study, make_record(SE, 0))
    write_record(study, make_record(SE, 1000))
    write_record(study, make_record(SE, 1, None))  # diverged
    runs = {
        name: study.run(PROTOCOL.run_spec(Variant(se=config, placement=placement), seed).run_id)
        for name, seed, config, placement in (
            ("failed", 12, SEConfig(reduction=4), Placement()),
            ("unfinished", 3, SEConfig(), Placement(position="inner-3x3")),
            ("damaged", 2, SEConfig(gate="none"), Placement(stages=(2, 3))),
        )
    }
    runs["failed"].fail(Failure(cause="out of memory", traceback=""))
    write_atomic(runs["unfinished"].checkpoint_file, b"weights")
    write_atomic(runs["damaged"].record_file, b"{")
    for name in ("some-run", "plain-s0-0123", "plain-s0-0123456789-old", "plain-sx-0123456789"):
        (tmp_path / name).mkdir()
    (tmp_path / "plain-s7-0123456789").write_bytes(b"no folder")
    assert study.begun() == {
        ("se-r16", 0),
        ("se-r16", 1000),
        ("se-r16", 1),
        ("se-r4", 12),
        ("se-r16-inner-3x3", 3),
        ("se-r16-ungated-stage23", 2),
    }


def test_the_records_of_a_study_are_those_of_its_protocol_and_images_by_name(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.begin(PROTOCOL, FACTS)
    ours = [make_record(PLAIN, 2), make_record(SE, 0), make_record(SE, 1, None), make_record(SE, 1000)]
    for record in ours:
        write_record(study, record)
    write_record(study, make_record(SE, 3, fingerprint="beef"))
    write_record(study, make_record(SE, 4, protocol=protocol(precision="bf16")))
    study.run(PROTOCOL.run_spec(SE, 5).run_id).fail(Failure(cause="out of memory", traceback=""))
    found = study.records()
    assert [record.run_id for record in found] == sorted(record.run_id for record in ours)
    assert {(record.spec.variant, record.spec.seed, record.status) for record in found} == {
        (PLAIN, 2, "ok"),
        (SE, 0, "ok"),
        (SE, 1, "diverged"),
        (SE, 1000, "ok"),
    }


def test_a_study_renamed_or_with_more_seeds_keeps_its_records(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.begin(protocol(name="before", description="before", seeds=1), FACTS)
    write_record(study, make_record(SE, 4))
    assert [record.spec.seed for record in study.records()] == [4]


def test_without_a_pin_there_is_nothing_to_hold_records_to_and_so_none(tmp_path: Path) -> None:
    study = Study(tmp_path)
    write_record(study, make_record())
    assert study.records() == []


def test_a_damaged_record_among_a_studys_is_named(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.begin(PROTOCOL, FACTS)
    write_record(study, make_record(SE, 0))
    path = write_record(study, make_record(SE, 1)) / "record.json"
    path.write_text("{")
    with pytest.raises(UserError) as caught:
        study.records()
    assert str(caught.value).startswith(f"{path}: damaged record")


def test_a_damaged_study_is_named(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text('{"schema_version": 1')
    with pytest.raises(
        UserError, match=r"study\.json: damaged: .*; take it from a copy, or move it away and give `run` again"
    ):
        Study(tmp_path).pin()

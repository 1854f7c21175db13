"""What is stored: files that are whole or absent, and the folder of a run from its first epoch to its record."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import PLAIN, SE, make_record, write_record

from senet_ablate.errors import UserError
from senet_ablate.files import write_atomic
from senet_ablate.results.records import Failure, Progress, digests
from senet_ablate.results.store import RunFolder, Study

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
    replace = os.replace

    def noted(one: str, to: str, **folders: int) -> None:
        order.append(Path(to).name)
        replace(one, to, **folders)

    monkeypatch.setattr(os, "replace", noted)
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
    assert f"{path}: damaged: " in str(caught.value)
    assert "remove the folder" in str(caught.value)


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


def test_a_record_in_another_runs_folder_is_refused(tmp_path: Path) -> None:
    study = Study(tmp_path)
    path = write_record(study, make_record(SE))
    other = study.run(make_record(PLAIN).run_id)
    path.rename(other.path)
    with pytest.raises(UserError, match="in another run's folder; move the folder away"):
        other.record()


def test_line_ends_that_were_turned_are_told_from_damage(study: Study) -> None:
    folder = RunFolder(write_record(study, make_record(SE, 0)))
    curve = folder.path / "curve.csv"
    whole = curve.read_bytes()
    curve.write_bytes(whole.replace(b"\n", b"\r\n"))
    with pytest.raises(UserError, match=r"curve\.csv: sound but for its line ends, .*core\.autocrlf") as error:
        folder.record()
    assert "remove" not in str(error.value)
    curve.write_bytes(whole.replace(b"\n", b"\r\n").replace(b"1,", b"2,"))
    with pytest.raises(UserError, match=r"curve\.csv: not what its record says"):
        folder.record()

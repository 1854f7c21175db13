"""What a stranger may put into a study: links, pipes, devices and files without end; nothing of it is followed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from helpers import ABLATION, SE
from sound import begun, sound_run, write_sound

from senet_ablate.analysis.study import assess
from senet_ablate.errors import UserError
from senet_ablate.files import write_atomic
from senet_ablate.results.lease import leased, seems_held
from senet_ablate.results.merge import merge
from senet_ablate.results.plan import read_plan
from senet_ablate.results.records import Failure
from senet_ablate.results.store import Study, read_latency
from senet_ablate.results.verify import verify
from senet_ablate.spec.loading import load_protocol
from senet_ablate.spec.schema import parse_value, read_toml

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes and links")

PRIVATE = {
    ".profile": "hidden",
    "weights.pt": "theirs",
    "last.ckpt": "theirs",
    "previous.ckpt": "theirs",
    "curve.csv": "theirs",
    "failure.json": "theirs",
    "progress.json": "theirs",
    "lease-1.json": "{}",
}


@contextmanager
def untouched(place: Path) -> Iterator[None]:
    """The same files with the same content and times before and after."""

    def look() -> dict[str, tuple[bytes, int]]:
        files = (path for path in sorted(place.rglob("*")) if path.is_file())
        return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    before, time_of_folder = look(), place.stat().st_mtime_ns
    yield
    assert (look(), place.stat().st_mtime_ns) == (before, time_of_folder)


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A folder beside the results that is nobody's business."""
    place = tmp_path / "private"
    place.mkdir()
    for name, text in PRIVATE.items():
        (place / name).write_text(text)
    return place


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return begun(Study(tmp_path / "results" / "first"))


# --- a run's folder that is a link ---


def test_a_link_in_the_place_of_a_run_is_refused_by_all_that_write_there(study: Study, private: Path) -> None:
    record, files = sound_run()
    folder = study.run(record.run_id)
    folder.path.symlink_to(private, target_is_directory=True)
    writers: list[Callable[[], object]] = [
        lambda: folder.finish(record, files),
        folder.tidy,
        lambda: folder.fail(Failure(cause="x", traceback="y")),
        lambda: leased(folder.path).__enter__(),
    ]
    with untouched(private):
        for write in writers:
            with pytest.raises(OSError, match=f"a link, .*{folder.path.name}"):
                write()


def test_a_link_in_the_place_of_a_run_is_refused_and_named_by_readers(study: Study, tmp_path: Path) -> None:
    elsewhere = begun(Study(tmp_path / "elsewhere"))
    whole = write_sound(elsewhere, SE, 0)
    link = study.root / whole.path.name
    link.symlink_to(whole.path, target_is_directory=True)
    with untouched(elsewhere.root):
        for read in (study.records, lambda: assess([ABLATION], study), lambda: study.run(link.name).record()):
            with pytest.raises(UserError, match=f"a link, .*{link.name}"):
                read()
        (told,) = verify(study).problems
        assert "a link" in told
        assert str(link) in told


def test_merge_writes_into_no_link_and_takes_nothing_through_one(study: Study, private: Path, tmp_path: Path) -> None:
    theirs = begun(Study(tmp_path / "theirs" / "first"))
    run = write_sound(theirs, SE, 0)
    (study.root / run.path.name).symlink_to(private, target_is_directory=True)
    with untouched(private):
        merged = merge([theirs.root], study)
    assert merged.added == []
    assert len(merged.refused) == 1
    assert "a link" in merged.refused[0]

    (study.root / run.path.name).unlink()
    shutil.move(run.path, tmp_path / "moved")
    run.path.symlink_to(tmp_path / "moved", target_is_directory=True)
    merged = merge([theirs.root], study)
    assert merged.added == []
    assert "a link" in merged.refused[0]


def test_conflicts_are_not_kept_behind_a_link(study: Study, private: Path, tmp_path: Path) -> None:
    theirs = begun(Study(tmp_path / "theirs" / "first"))
    write_sound(theirs, SE, 0, draw=1)
    write_sound(study, SE, 0)
    (study.root / "conflicts").symlink_to(private, target_is_directory=True)
    with untouched(private), pytest.raises(OSError, match="a link"):
        merge([theirs.root], study)
    assert any("conflicts: a link" in problem for problem in verify(study).problems)


@pytest.mark.parametrize("name", ["curve.csv", "predictions.npz", "record.json"])
def test_a_link_in_the_place_of_a_runs_file_makes_it_damaged(study: Study, tmp_path: Path, name: str) -> None:
    folder = write_sound(study, SE, 0)
    shutil.move(folder.path / name, tmp_path / "the same content")
    (folder.path / name).symlink_to(tmp_path / "the same content")
    with pytest.raises(UserError, match=name):
        folder.record()


@pytest.mark.parametrize("name", ["notes.md", "plan.json", "latency.json"])
def test_a_link_in_the_place_of_a_studys_file_is_refused(study: Study, private: Path, name: str) -> None:
    read = {"notes.md": study.notes, "plan.json": lambda: read_plan(study), "latency.json": lambda: read_latency(study)}
    (study.root / name).symlink_to(private / "weights.pt")
    with pytest.raises(UserError, match="a link"):
        read[name]()


def test_a_studys_own_folder_may_be_a_link(tmp_path: Path) -> None:
    """Results on another disk are the user's own choice."""
    (tmp_path / "large disk").mkdir()
    (tmp_path / "first").symlink_to(tmp_path / "large disk", target_is_directory=True)
    study = begun(Study(tmp_path / "first"))
    write_sound(study, SE, 0)
    assert len(study.records()) == 1
    assert verify(study).problems == []


# --- nothing is deleted that the suite did not write ---


def test_of_a_finished_run_nothing_is_removed_but_what_the_suite_left(study: Study, private: Path) -> None:
    folder = write_sound(study, SE, 0)
    kept = {".profile", ".curve.csv", ".nfs0001", "lease-x.json", "notes.txt", "last.ckpt.bak"}
    gone = {"last.ckpt", "previous.ckpt", "failure.json", "lease-12.json", ".record.json.ab_9x3kz"}
    for name in kept | gone:
        (folder.path / name).write_text("x")
    (folder.path / ".ipynb_checkpoints").mkdir()
    (folder.path / "progress.csv").symlink_to(private / "curve.csv")
    (folder.path / "progress.json").mkdir()
    with untouched(private):
        folder.tidy()
    there = {path.name for path in folder.path.iterdir()}
    assert there & gone == set()
    assert there >= kept | {".ipynb_checkpoints", "progress.csv", "progress.json"}
    assert folder.record() is not None


def test_a_hidden_folder_in_a_runs_folder_fails_nothing(study: Study) -> None:
    record, files = sound_run()
    folder = study.run(record.run_id)
    (folder.path / ".ipynb_checkpoints").mkdir(parents=True)
    (folder.path / ".ipynb_checkpoints" / "curve-checkpoint.csv").touch()
    folder.finish(record, files)
    assert folder.record() == record
    assert [path.name for path in (folder.path / ".ipynb_checkpoints").iterdir()] == ["curve-checkpoint.csv"]


def test_a_file_is_written_in_the_place_of_a_file_alone(tmp_path: Path, private: Path) -> None:
    (tmp_path / "link").symlink_to(private / "weights.pt")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with untouched(private):
        for name in ("link", "pipe", "folder"):
            with pytest.raises(OSError, match=f"not a regular file.*{name}"):
                write_atomic(tmp_path / name, "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link", "pipe", "private"]


# --- pipes, devices, and files without end ---


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """End by a failure what would hang for ever."""

    def late(number: int, frame: object) -> None:
        raise AssertionError(f"not answered in {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 * 2**30)  # of no blocks


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


ODD = pytest.mark.parametrize("make", [pipe, huge, endless, folder])


@ODD
@pytest.mark.parametrize(
    "name", ["study.json", "plan.json", "notes.md", "latency.json", "record.json", "curve.csv", "predictions.npz"]
)
def test_what_is_no_file_of_a_study_is_refused_by_name(
    study: Study, name: str, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_bytes", None)  # of which all would be read
    run = write_sound(study, SE, 0)
    path = run.path / name if (run.path / name).exists() else study.root / name
    path.unlink(missing_ok=True)
    make(path)
    readers: dict[str, Callable[[], object]] = {
        "study.json": study.pin,
        "plan.json": lambda: read_plan(study),
        "notes.md": study.notes,
        "latency.json": lambda: read_latency(study),
    }
    with within(10), pytest.raises(UserError, match=re.escape(str(path))):
        readers.get(name, run.record)()


@ODD
def test_what_is_no_lease_is_no_reason_to_wait_for_ever(study: Study, make: Callable[[Path], None]) -> None:
    run = study.run(sound_run()[0].run_id)
    run.path.mkdir()
    make(run.path / "lease-1.json")
    with within(10):
        assert seems_held(run.path)
        with pytest.raises(OSError, match=r"lease-1\.json"), leased(run.path):
            pass


@ODD
@pytest.mark.parametrize("name", ["failure.json", "progress.json"])
def test_a_note_that_is_no_file_is_as_good_as_none(study: Study, name: str, make: Callable[[Path], None]) -> None:
    run = study.run(sound_run()[0].run_id)
    run.path.mkdir()
    make(run.path / name)
    with within(10):
        assert (run.failure(), run.progress()) == (None, None)


@ODD
def test_a_source_of_a_merge_whose_pin_is_no_file_is_refused_by_name(
    study: Study, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    (tmp_path / "theirs").mkdir()
    make(tmp_path / "theirs" / "study.json")
    with within(10), pytest.raises(UserError, match=r"theirs/study\.json"):
        merge([tmp_path / "theirs"], study)


@pytest.mark.parametrize("make", [pipe, huge, endless])
def test_a_declaration_that_is_no_file_is_refused_by_name(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "mine.toml")
    with within(10), pytest.raises(UserError, match=r"mine\.toml"):
        load_protocol(tmp_path, str(tmp_path / "mine.toml"))


def test_what_a_user_names_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.toml").write_text("a = 1")
    (tmp_path / "link.toml").symlink_to("real.toml")
    assert read_toml(tmp_path / "link.toml") == {"a": 1}


# --- keys without end ---


@pytest.mark.parametrize(
    "text",
    [
        "{} = 1",
        "[{}]",
        "[[{}]]",
        "x = {{ {} = 1 }}",
        '"a" . {} = 1',
    ],
)
def test_a_key_of_very_many_parts_is_refused_at_once(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("# a comment\n" + text.format(".".join(["a"] * 50_000)))
    tracemalloc.start()
    with within(10), pytest.raises(UserError, match=r"mine\.toml.*16 parts.*line 2"):
        read_toml(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20


def test_such_a_key_is_refused_where_it_is_typed(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("a = 1")
    with within(10), pytest.raises(UserError, match="50,000 parts") as refused:
        load_protocol(tmp_path, str(path), [".".join(["a"] * 50_000) + "=1"])
    assert len(str(refused.value)) < 200
    with within(10):
        deep = "{" + ".".join(["a"] * 50_000) + "=1}"
        assert parse_value(deep) == deep  # no value: a text, which no field takes


@pytest.mark.parametrize("filler", ["a", "a.", "-", '"', "'", "a ", "[", "\t.", '"a".', "a'"])
def test_looking_for_such_keys_takes_no_time_of_its_own(tmp_path: Path, filler: str) -> None:
    """A pattern that goes back and forth would take minutes for a megabyte."""
    path = tmp_path / "mine.toml"
    path.write_text("# " + filler * (500_000 // len(filler)))
    with within(10), suppress(UserError):
        read_toml(path)


def test_honest_keys_and_texts_with_dots_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('a.b."c.d".e = [0.1, 0.2, 0.3]\ntext = "1.5, 2.5 and … so on. And so on. End."\n')
    assert read_toml(path)["a"]["b"]["c.d"]["e"] == [0.1, 0.2, 0.3]

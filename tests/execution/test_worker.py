"""One try of one run: left to another, found finished, lost half-way, refused, or out of space."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import FACTS, PROTOCOL, SE
from pytorch_lightning import Trainer
from test_local import request

from senet_ablate import files
from senet_ablate.execution import worker
from senet_ablate.execution.worker import attempt
from senet_ablate.results import store
from senet_ablate.results.lease import leased
from senet_ablate.results.store import Study
from senet_ablate.spec.protocol import Protocol
from senet_ablate.training import checkpoint, module, train
from senet_ablate.training.request import Event, RunRequest


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


FINISHED = ["curve.csv", "predictions.npz", "record.json"]


def test_a_run_is_done_once_and_found_afterwards(tmp_path: Path) -> None:
    one = request(tmp_path, 0)
    assert attempt(one) == Event("finished", one)
    before = one.folder.record_file.stat().st_mtime_ns
    assert attempt(one) == Event("found", one)
    assert one.folder.record_file.stat().st_mtime_ns == before
    assert names(one.folder.path) == FINISHED


def test_each_run_has_a_port_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a caller's nor the one that Lightning left from the run before, where another's processes may meet."""
    seen: list[str | None] = []

    def train_run(*_: object) -> None:
        seen.append(os.environ.get("MASTER_PORT"))
        monkeypatch.setenv("MASTER_PORT", "12345")

    monkeypatch.setattr(worker, "train_run", train_run)
    for seed in range(2):
        assert attempt(request(tmp_path, seed)).kind == "finished"
    assert seen == [None, None]


def test_a_run_that_another_process_does_is_left_alone(tmp_path: Path) -> None:
    one = request(tmp_path, 0)
    with leased(one.folder.path):
        event = attempt(one)
    assert event.kind == "busy"
    assert f"process {os.getpid()} on" in event.cause
    assert names(one.folder.path) == []


@pytest.fixture
def after_epoch(monkeypatch: pytest.MonkeyPatch):
    """Arrange what happens at the end of the first epoch."""

    def arrange(what):
        end = module.AblationModule.on_train_epoch_end

        def then(module: module.AblationModule) -> None:
            end(module)
            what()

        monkeypatch.setattr(module.AblationModule, "on_train_epoch_end", then)

    return arrange


def test_a_run_that_was_taken_over_is_given_up_without_a_trace(tmp_path: Path, after_epoch) -> None:
    one = request(tmp_path, 0, epochs=3)
    theirs = b'{"another": "lease"}'
    after_epoch(lambda: (one.folder.path / "lease-2.json").write_bytes(theirs))
    event = attempt(one)
    assert event.kind == "busy"
    assert names(one.folder.path) == ["lease-2.json"], "no progress, no checkpoint, no failure"
    assert (one.folder.path / "lease-2.json").read_bytes() == theirs


def test_a_run_whose_folder_is_deleted_is_given_up(tmp_path: Path, after_epoch) -> None:
    one = request(tmp_path, 0, epochs=3)
    after_epoch(lambda: shutil.rmtree(one.folder.path))
    assert attempt(one).kind == "busy"
    assert not one.folder.path.exists()


def test_a_lease_lost_at_the_very_end_keeps_a_late_doer_from_writing(tmp_path: Path, monkeypatch) -> None:
    one = request(tmp_path, 0)
    evaluate = train.evaluate

    def lose(*args):
        (one.folder.path / "lease-1.json").unlink()
        return evaluate(*args)

    monkeypatch.setattr(train, "evaluate", lose)
    assert attempt(one).kind == "busy"
    assert not one.folder.record_file.exists()


def test_a_study_that_another_driver_began_with_something_else_takes_no_run(tmp_path: Path) -> None:
    one = request(tmp_path, 0)
    ours = Protocol(**(one.spec.model_dump(exclude={"variant", "seed"}) | {"name": "ours", "description": ""}))
    for protocol, fingerprint, words in ((PROTOCOL, None, "another protocol"), (ours, "beef", "other images")):
        files.write_atomic(
            tmp_path / "study.json", store.StudyPin(protocol=protocol, data=FACTS).model_dump_json(indent=1)
        )
        event = attempt(RunRequest(spec=one.spec, folder=one.folder, data_fingerprint=fingerprint))
        assert event.kind == "failed"
        assert words in event.cause
        assert "--study NAME" in event.cause


def test_a_lease_makes_a_study_begun(tmp_path: Path) -> None:
    """So a second driver cannot pin it to something else before the first run's first epoch is over."""
    study = Study(tmp_path)
    study.begin(PROTOCOL, FACTS)
    other = PROTOCOL.model_copy(update={"precision": "bf16"})
    with (
        leased(study.run(PROTOCOL.run_spec(SE, 0).run_id).path),
        pytest.raises(store.UserError, match="precision: then fp32"),
    ):
        study.begin(other, FACTS)
    study.begin(other, FACTS)


# --- no space left ---


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("place", ["lease-1.json", "last.ckpt", "record.json"])
def test_no_space_left_is_the_cause_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    one, whole = request(tmp_path / "one", 0, epochs=2), request(tmp_path / "whole", 0, epochs=2)
    attempt(whole)
    sync = os.fsync

    def sync_unless_full(handle: int) -> None:
        if place in Path(f"/proc/self/fd/{handle}").readlink().name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", sync_unless_full)
        event = attempt(one)
    assert event.kind == "failed"
    assert event.cause.startswith(f"no space left in {one.folder.path}")
    assert event.cause.endswith("; free some and give the same command again")
    assert one.folder.failure().cause == event.cause
    assert not any(name == place or name.startswith(".") for name in names(one.folder.path)), "no part of a file"
    assert attempt(one).kind == "finished"
    assert names(one.folder.path) == FINISHED
    for name in FINISHED[:2]:
        assert (one.folder.path / name).read_bytes() == (whole.folder.path / name).read_bytes()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_too_small_is_told_and_when_there_is_space_the_run_ends_as_ever(
    small_disk: Path, tmp_path: Path
) -> None:
    whole, one = request(tmp_path / "whole", 0, epochs=2), request(small_disk / "one", 0, epochs=2)
    attempt(whole)
    event = attempt(one)  # its checkpoint is larger than the disk
    assert event.kind == "failed"
    assert "no space left" in event.cause
    assert not one.folder.checkpoint_file.exists()
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert attempt(one).kind == "finished"
    assert names(one.folder.path) == FINISHED
    for name in FINISHED[:2]:
        assert (one.folder.path / name).read_bytes() == (whole.folder.path / name).read_bytes()


def test_no_space_in_another_process_of_the_run_is_told_likewise(tmp_path: Path, monkeypatch) -> None:
    """What comes from there is text."""

    def fail(*args: object) -> None:
        raise RuntimeError("-- Process 1 terminated\nTraceback\nOSError: [Errno 28] No space left on device")

    monkeypatch.setattr(worker, "train_run", fail)
    assert attempt(request(tmp_path, 0)).cause.startswith("no space left in ")


# --- files that were cut off or overwritten ---


class CutOffError(Exception):
    """Ends a run in the middle."""


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> RunRequest:
    """A run of five epochs that ended after the third, and was noted as failed; with a checkpoint of each epoch."""
    one = request(tmp_path_factory.mktemp("cut"), 0, epochs=5)
    save = Trainer.save_checkpoint

    def save_then_end(trainer, path):
        save(trainer, path)
        if trainer.current_epoch + 1 == 3:
            raise CutOffError("in the middle")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "save_checkpoint", save_then_end)
        patch.setattr(checkpoint, "CHECKPOINT_SHARE", float("inf"))
        assert attempt(one).cause == "CutOffError: in the middle"
    assert names(one.folder.path) == ["failure.json", "last.ckpt", "previous.ckpt", "progress.csv"]
    return one


@pytest.fixture
def interrupted(cut_off: RunRequest, tmp_path: Path) -> RunRequest:
    """A copy of it."""
    one = request(tmp_path, 0, epochs=5)
    shutil.copytree(cut_off.folder.path, one.folder.path)
    return one


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunRequest:
    whole = request(tmp_path_factory.mktemp("whole"), 0, epochs=5)
    attempt(whole)
    return whole


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def garbled(content: bytes) -> bytes:
    """One byte in the middle of a network's weights, where torch itself notices nothing."""
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


SPOILT = {
    "empty": lambda content: b"",
    "cut": cut,
    "one-bit": garbled,
    "noise": lambda content: b"\x93\x00PK" * (len(content) // 4),
    "another-run": None,
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_checkpoint_falls_back_to_the_one_before(
    interrupted: RunRequest, undisturbed: RunRequest, how: str
) -> None:
    path = interrupted.folder.checkpoint_file
    if how == "another-run":
        content = torch.load(path, weights_only=True)
        torch.save(content | {"run_id": "plain-s1-0123456789"}, path)
    else:
        path.write_bytes(SPOILT[how](path.read_bytes()))
    assert attempt(interrupted).kind == "finished"
    assert interrupted.folder.record().provenance.resumed_at_epoch == 2
    assert names(interrupted.folder.path) == FINISHED
    for name in FINISHED[:2]:
        assert (interrupted.folder.path / name).read_bytes() == (undisturbed.folder.path / name).read_bytes()


def test_without_the_last_checkpoint_the_previous_one_serves(interrupted: RunRequest) -> None:
    """A process killed between keeping the old one and writing the new one leaves this."""
    interrupted.folder.checkpoint_file.unlink()
    assert attempt(interrupted).kind == "finished"
    assert interrupted.folder.record().provenance.resumed_at_epoch == 2


def test_a_checkpoint_that_cannot_be_read_now_is_kept_for_the_next_try(
    interrupted: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of file handles, or of a server's patience: that is no damage, and days of training may be in it."""
    read = os.open

    def refuse(path: str | Path, *flags: int, **more: int) -> int:
        if str(path).endswith(".ckpt"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return read(path, *flags, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        event = attempt(interrupted)
    assert event.kind == "failed"
    assert "last.ckpt" in event.cause
    assert attempt(interrupted).kind == "finished"
    assert interrupted.folder.record().provenance.resumed_at_epoch == 3


def test_a_checkpoint_of_another_doer_is_not_taken_for_the_end_of_this_one(
    interrupted: RunRequest, undisturbed: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was stopped while writing a checkpoint, for longer than a lease lasts, puts it there when he goes on."""
    late = interrupted.folder.checkpoint_file.read_bytes()
    save = Trainer.save_checkpoint

    def save_and_be_overwritten(trainer, path: Path) -> None:
        save(trainer, path)
        path.write_bytes(late)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save_checkpoint", save_and_be_overwritten)
        assert attempt(interrupted).kind == "busy"
    assert not interrupted.folder.record_file.exists()
    assert attempt(interrupted).kind == "finished"
    for name in FINISHED[:2]:
        assert (interrupted.folder.path / name).read_bytes() == (undisturbed.folder.path / name).read_bytes()


class Trap:
    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self):
        return Path.touch, (self.sprung,)


def test_nothing_in_a_folder_is_executed_or_believed(
    interrupted: RunRequest, undisturbed: RunRequest, tmp_path: Path
) -> None:
    folder = interrupted.folder
    for path in (folder.checkpoint_file, folder.previous_file):
        torch.save(torch.load(path, weights_only=True) | {"history": Trap(tmp_path / "sprung")}, path)
    for path in (folder.progress_file, folder.failure_file, folder.path / "curve.csv", folder.path / "predictions.npz"):
        path.write_bytes(b"\x80\x04garbage")
    assert attempt(interrupted).kind == "finished"
    assert folder.record().provenance.resumed_at_epoch is None
    assert not (tmp_path / "sprung").exists()
    for name in FINISHED[:2]:
        assert (folder.path / name).read_bytes() == (undisturbed.folder.path / name).read_bytes()

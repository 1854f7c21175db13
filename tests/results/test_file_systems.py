"""Studies on disks and machines that lack what a good disk has: links, fsync of folders, permissions, two cases."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import FACTS, PLAIN, PROTOCOL, R4, SE
from hypothesis import given
from hypothesis import strategies as st
from sound import begun, sound_run, write_sound
from studies import CLAIMED

from senet_ablate.analysis.study import assess
from senet_ablate.errors import UserError
from senet_ablate.report.write import write_report
from senet_ablate.results.lease import Taken, leased
from senet_ablate.results.merge import merge
from senet_ablate.results.plan import Selection, read_plan, settle_plan
from senet_ablate.results.records import Failure
from senet_ablate.results.store import Study
from senet_ablate.results.verify import verify
from senet_ablate.spec.network import Variant


def refuse_what_good_disks_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """As vfat, CIFS, sshfs and shared folders of virtual machines answer, taken together."""

    def refusing(number: int):
        def refuse(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        return refuse

    opened = os.open

    def no_folders(path: str | Path, flags: int, *mode: int, **options: int) -> int:
        if flags & os.O_DIRECTORY == os.O_DIRECTORY:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        return opened(path, flags, *mode, **options)

    for name, number in (("link", errno.EPERM), ("symlink", errno.EPERM), ("chmod", errno.EPERM)):
        monkeypatch.setattr(os, name, refusing(number))
    monkeypatch.setattr(os, "fsync", refusing(errno.EINVAL))
    monkeypatch.setattr(os, "open", no_folders)


@pytest.fixture
def exfat(tmp_path: Path) -> Iterator[Path]:
    """A real one: without links and permissions, and where `A` and `a` are one name."""
    image, place = tmp_path / "image", tmp_path / "mounted"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(64 * 2**20)
    able = all(map(shutil.which, ("mkfs.exfat", "mount.exfat-fuse", "mount", "umount")))
    for command in (["mkfs.exfat", image], ["mount", "-t", "exfat-fuse", "-o", "loop", image, place]):
        if not able or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("needs exfat-fuse and exfatprogs, and the right to mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture(params=["refusing", "exfat"])
def poor(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on such a disk."""
    if request.param == "exfat":
        return request.getfixturevalue("exfat")
    refuse_what_good_disks_have(monkeypatch)
    return tmp_path


def test_a_study_lives_on_a_disk_that_has_nothing_but_files(poor: Path) -> None:
    study = begun(Study(poor / "results" / "first"))
    chosen = Selection([CLAIMED], [CLAIMED], PROTOCOL, study)
    settle_plan(chosen, 2)
    record, files = sound_run(SE, 0)
    run = study.run(record.run_id)
    with leased(run.path) as mine:
        assert mine.held()
        with pytest.raises(Taken), leased(run.path):
            pass
        run.fail(Failure(cause="none", traceback=""))
        run.finish(record, files)
    assert sorted(path.name for path in run.path.iterdir()) == ["curve.csv", "predictions.npz", "record.json"]
    for variant, seed in ((SE, 1), (R4, 0), (R4, 1), (PLAIN, 0), (PLAIN, 1)):
        write_sound(study, variant, seed)
    plan = read_plan(study)
    (study.root / "plan.json").unlink()
    assert settle_plan(chosen, 2)
    assert read_plan(study) == plan
    assert verify(study).problems == []
    new = Study(poor / "new" / "joined")
    assert len(merge([study.root], new).added) == 6
    write_report(assess([CLAIMED], study), poor / "reports")
    assert (poor / "reports" / "first" / "index.html").is_file()


def test_where_large_and_small_letters_are_one_another_spelling_is_the_same_study(exfat: Path) -> None:
    study, again = begun(Study(exfat / "first")), Study(exfat / "First")
    write_sound(study, SE, 0)
    assert [record.run_id for record in again.records()] == [record.run_id for record in study.records()]
    with pytest.raises(UserError, match="was begun with another protocol"):
        again.begin(PROTOCOL.model_copy(update={"recipe": PROTOCOL.recipe.model_copy(update={"lr": 0.2})}), FACTS)
    before = {path: path.read_bytes() for path in study.root.rglob("*.*")}
    merged = merge([again.root], study)  # a driver of this file system gives each spelling a number of its own
    assert (merged.same, merged.added, merged.conflicts) == (1, [], [])
    assert {path: path.read_bytes() for path in study.root.rglob("*.*")} == before
    run = study.run(sound_run(R4, 0)[0].run_id).path
    with leased(run), pytest.raises(Taken), leased(run.with_name(run.name.upper())):
        pass


def test_a_study_reached_by_another_path_is_not_merged_with_itself(study: Study, tmp_path: Path) -> None:
    write_sound(study, SE, 0)
    (tmp_path / "link").symlink_to(study.root, target_is_directory=True)
    with pytest.raises(UserError, match="that is study 'first' itself"):
        merge([tmp_path / "link"], study)


names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)


@given(st.lists(st.tuples(names, names), min_size=2, max_size=6, unique=True))
def test_no_two_runs_have_names_that_differ_in_their_letters_size_alone(blocks: list[tuple[str, str]]) -> None:
    """Of a user's blocks `Gate` and `gate` are two classes, and so two folders on any disk."""
    variants = [Variant(block=f"{module}:{name}", source="0" * 16) for module, name in blocks]
    ids = [PROTOCOL.run_spec(variant, 0).run_id for variant in variants]
    assert len({name.casefold() for name in ids}) == len(ids)

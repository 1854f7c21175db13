"""Whole files on file systems that do not have what a good disk has."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from senet_ablate.files import decode, move, remove, rewrite, sync, write_atomic


def refusing(number: int):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("call", ["fsync", "chmod"])
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_is_written_where_durability_and_permissions_do_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    monkeypatch.setattr(os, call, refusing(number))
    write_atomic(tmp_path / "folder" / "file", "text")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["file"]
    assert (tmp_path / "folder" / "file").read_text() == "text"


def test_a_folder_that_may_be_written_but_not_read_takes_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def unless_folder(path: Path, flags: int, *mode: int, **options: int) -> int:
        if flags & os.O_DIRECTORY == os.O_DIRECTORY:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, flags, *mode, **options)

    monkeypatch.setattr(os, "open", unless_folder)
    write_atomic(tmp_path / "file", b"bytes")
    assert (tmp_path / "file").read_bytes() == b"bytes"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_does_not_take_a_file_is_an_error_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", refusing(number))
    with pytest.raises(OSError, match="file") as error:
        write_atomic(path, "new")
    assert error.value.errno == number
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    with pytest.raises(OSError, match=os.strerror(number)):
        sync(0)


def test_a_long_name_leaves_room_for_the_scratch_file(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250)
    write_atomic(path, "text")
    assert path.read_text() == "text"


MARKED = [
    ("utf-8", b"", "utf-8"),
    ("utf-8-sig", b"\xef\xbb\xbf", "utf-8"),
    ("utf-16-le", b"\xff\xfe", "utf-16-le"),
    ("utf-16-be", b"\xfe\xff", "utf-16-be"),
]


@pytest.mark.parametrize(("codec", "mark", "encoding"), MARKED)
def test_text_is_read_as_its_byte_order_mark_says(codec: str, mark: bytes, encoding: str) -> None:
    content = "naïve\r\n±\n".encode(codec)
    content = content if codec == "utf-8-sig" else mark + content
    assert decode(content) == ("naïve\r\n±\n", encoding, mark)


@pytest.mark.parametrize(("codec", "mark", "encoding"), MARKED)
def test_a_users_file_keeps_encoding_mark_mode_and_link(tmp_path: Path, codec: str, mark: bytes, encoding: str) -> None:
    place, link = tmp_path / "elsewhere" / "real.md", tmp_path / "link.md"
    place.parent.mkdir()
    old = mark + "old\r\n".encode(encoding)
    place.write_bytes(old)
    place.chmod(0o640)
    link.symlink_to("elsewhere/real.md")
    rewrite(link, old, "néw\r\n")
    assert link.is_symlink()
    assert place.read_bytes() == mark + "néw\r\n".encode(encoding)
    assert place.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.open not in os.supports_dir_fd, reason="needs handles on folders")
@pytest.mark.parametrize("doing", ["write", "remove", "move"])
def test_a_link_that_is_put_in_a_folders_place_at_any_moment_leads_nothing_astray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doing: str
) -> None:
    """At each call to the system in turn the folder is exchanged for a link to another's, with the same names."""
    calls = ("open", "mkdir", "stat", "replace", "unlink", "chmod", "fsync")
    moments = 0
    while True:
        place = tmp_path / str(moments)
        study, outside = place / "study", place / "outside"
        for folder in (study / "run", outside):
            folder.mkdir(parents=True)
            for name in ("a", "b"):
                (folder / name).write_text(f"{folder.name} {name}")
        left = [moments]

        def exchanging(call, left=left, study=study, outside=outside, rename=os.rename, symlink=os.symlink):
            def instead(*args, **options):
                left[0] -= 1
                if left[0] == -1:
                    rename(study / "run", study / "aside")
                    symlink(outside, study / "run")
                return call(*args, **options)

            return instead

        with monkeypatch.context() as patch:
            for name in calls:
                patch.setattr(os, name, exchanging(getattr(os, name)))
            with suppress(OSError):
                path = study / "run" / "a"
                {
                    "write": lambda path=path, study=study: write_atomic(path, "new", inside=study),
                    "remove": lambda path=path, study=study: remove(path, study),
                    "move": lambda path=path, study=study: move(path, path.with_name("b"), study),
                }[doing]()
        assert {path.name: path.read_text() for path in outside.iterdir()} == {"a": "outside a", "b": "outside b"}
        if left[0] >= 0:  # it was done before the moment came
            break
        moments += 1
    assert moments >= 4
    found = {path.name: path.read_text() for path in (study / "run").iterdir()}
    assert (
        found
        == {
            "write": {"a": "new", "b": "run b"},
            "remove": {"b": "run b"},
            "move": {"b": "run a"},
        }[doing]
    )

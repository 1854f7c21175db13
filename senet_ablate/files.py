"""Files that are whole or absent, text as people's editors write it, and what a stranger may have put there."""

from __future__ import annotations

import codecs
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

TEXT_LIMIT = 16 * 2**20
"""Bytes of the largest text that is read: the record of 20,000 classes has half a megabyte."""

ARRAY_LIMIT = 256 * 2**20
"""Bytes of the largest file of outcomes: those of 100 million test images."""

WEIGHTS_LIMIT = 8 * 2**30
"""Bytes of the largest weights or checkpoint: two billion numbers."""

UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.ENOTTY}
"""What network drives and shared folders answer to what they do not have; a full or a broken disk says other things."""

TEMPORARY = r"\.(?:{})\.[a-z0-9_]{{8}}"
"""How `write_atomic` calls a file of these names until it is whole; a killed process may leave one."""


@contextmanager
def open_file(path: Path, limit: int = TEXT_LIMIT, *, inside: Path | None = None) -> Iterator[BufferedReader]:
    """Open a regular file of at most `limit` bytes for reading; below the folder `inside` no link is followed.

    What a user names may be a link. What lies in a study may be a stranger's.

    Raises:
        FileNotFoundError: there is none.
        OSError: it is a link, a pipe, a device or a folder, is too large, or cannot be read; the error names it.
    """
    if inside is not None:
        refuse_links(path, inside)
    _check(path, path.stat(), limit)  # before it is opened, which a pipe answers late and a device in its own way
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        _check(path, os.fstat(handle), limit)
        yield file


def read_file(path: Path, limit: int = TEXT_LIMIT, *, inside: Path | None = None) -> bytes:
    """The content of a file that `open_file` opens.

    Raises:
        FileNotFoundError, OSError: as there.
    """
    with open_file(path, limit, inside=inside) as file:
        return file.read(limit)


def refuse_links(path: Path, inside: Path) -> None:
    """Follow no link between the folder `inside`, which may be one itself, and `path`.

    Raises:
        OSError: a part of the path is a link; the error names it.
    """
    for place in (path, *path.parents):
        if place == inside:
            return
        if place.is_symlink():
            raise OSError(errno.ELOOP, "a link, and inside a study none is followed", str(place))


def _check(path: Path, status: os.stat_result, limit: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if status.st_size > limit:
        raise OSError(errno.EFBIG, f"{status.st_size:,} bytes, expected at most {limit:,}", str(path))


def check_place(path: Path) -> None:
    """Refuse to replace or remove what is there if it is no regular file.

    Raises:
        OSError: it is a link, a pipe, a device or a folder; the error names it.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise OSError(errno.EEXIST, "not a regular file, and so not replaced", str(path))


def write_atomic(
    path: Path, content: bytes | str, mode: int = 0o644, *, durable: bool = True, inside: Path | None = None
) -> None:
    """Write a file that is whole or absent, whatever kills the process: temp, fsync, rename, fsync of the folder.

    What a file system does not have (CIFS, sshfs, VirtualBox: fsync of a folder, permissions) is done without. One that
    is not `durable` may be empty after a power cut. Below the folder `inside` no link is followed.

    Raises:
        OSError: it cannot be written, for want of space for one, or what is there is no file; the error names it, and
            the old one is there.
    """
    data = content.encode() if isinstance(content, str) else content
    if inside is not None:
        refuse_links(path, inside)
    path.parent.mkdir(parents=True, exist_ok=True)
    check_place(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    scratch = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                sync(file.fileno())
        with suppress(OSError):
            scratch.chmod(mode)
        scratch.replace(path)
    except BaseException as error:
        scratch.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = str(path)  # a write that fails knows no name
        raise
    if durable:
        sync_folder(path.parent)


def sync(handle: int) -> None:
    """Have what was written survive a power cut, where the file system can.

    Raises:
        OSError: it does not take what was written: it is full, or broken.
    """
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where platform, file system and permissions let it."""
    if hasattr(os, "O_DIRECTORY"):
        with suppress(OSError):  # the file itself is there and whole
            handle = os.open(folder, os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def decode(content: bytes) -> tuple[str, str, bytes]:
    """Text as editors write it: UTF-8, or what its byte order mark says (Windows' Notepad and PowerShell set one).

    Returns:
        The text with the line ends it has, its encoding and its mark.

    Raises:
        UnicodeDecodeError: it is no such text.
    """
    mark, encoding = next(((mark, name) for mark, name in BOMS if content.startswith(mark)), (b"", "utf-8"))
    return content[len(mark) :].decode(encoding), encoding, mark


def rewrite(path: Path, old: bytes, text: str) -> None:
    """Write new text into a user's file, with the encoding and mark of its `old` content; link and mode stay.

    Raises:
        OSError: it cannot be written.
    """
    _, encoding, mark = decode(old)
    place = path.resolve()
    write_atomic(place, mark + text.encode(encoding), stat.S_IMODE(place.stat().st_mode))

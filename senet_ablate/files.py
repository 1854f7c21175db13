"""Files that are whole or absent, text as people's editors write it, and what a stranger may have put there."""

from __future__ import annotations

import codecs
import errno
import os
import secrets
import stat
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
    no_link = 0 if inside is None else getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(path, os.O_RDONLY | no_link | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
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


FOLDER = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_PATH", 0)


@contextmanager
def hold_folder(path: Path, inside: Path | None, *, make: bool = True) -> Iterator[int | None]:
    """A handle on the folder of `path`, reached without a link below `inside`, whatever is put in its place meanwhile.

    None without `inside`, or where folders cannot be opened: names are then looked at before they are used.

    Raises:
        FileNotFoundError: there is no such folder, and it is not to be made.
        OSError: a part of the path is a link; the error names it.
    """
    if inside is not None:
        refuse_links(path, inside)
    if make:
        (inside or path.parent).mkdir(parents=True, exist_ok=True)
    handle = None
    if inside is not None:
        with suppress(PermissionError, IsADirectoryError):
            handle = os.open(inside, FOLDER)
    if inside is None or handle is None:
        if make:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield None
        return
    try:
        place = inside
        for part in path.parent.relative_to(inside).parts:
            place = place / part
            try:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=handle)
                below = os.open(part, FOLDER | os.O_NOFOLLOW, dir_fd=handle)
            except OSError as error:
                refuse_links(place, inside)
                error.filename = str(place)
                raise
            os.close(handle)
            handle = below
        yield handle
    finally:
        os.close(handle)


def _from(folder: int | None, path: Path) -> str | Path:
    """How a file is called from its folder's handle, or without one."""
    return path if folder is None else path.name


def check_place(path: Path, folder: int | None = None) -> None:
    """Refuse to replace or remove what is there if it is no regular file.

    Raises:
        OSError: it is a link, a pipe, a device or a folder; the error names it.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(_from(folder, path), dir_fd=folder, follow_symlinks=False).st_mode):
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
    with hold_folder(path, inside) as folder:
        check_place(path, folder)
        scratch, target = (
            _from(folder, each) for each in (path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}"), path)
        )
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            with os.fdopen(os.open(scratch, flags, 0o600, dir_fd=folder), "wb") as file:
                file.write(data)
                file.flush()
                if durable:
                    sync(file.fileno())
            with suppress(OSError):
                os.chmod(scratch, mode, dir_fd=folder)
            os.replace(scratch, target, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException as error:
            with suppress(FileNotFoundError):
                os.unlink(scratch, dir_fd=folder)
            if isinstance(error, OSError) and error.errno is not None:
                error.filename = str(path)  # a write that fails knows no name
            raise
    if durable:
        sync_folder(path.parent)


def remove(path: Path, inside: Path) -> None:
    """Remove a file, if there is one; below the folder `inside` no link is followed.

    Raises:
        OSError: what is there is no regular file, or cannot be removed.
    """
    with suppress(FileNotFoundError), hold_folder(path, inside, make=False) as folder:
        check_place(path, folder)
        os.unlink(_from(folder, path), dir_fd=folder)


def move(path: Path, new: Path, inside: Path) -> None:
    """Give a file, if there is one, another name in its folder; below the folder `inside` no link is followed.

    Raises:
        OSError: what is there, or was in the other's place, is no regular file.
    """
    with suppress(FileNotFoundError), hold_folder(path, inside, make=False) as folder:
        check_place(new, folder)
        check_place(path, folder)
        os.replace(_from(folder, path), _from(folder, new), src_dir_fd=folder, dst_dir_fd=folder)


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
    with suppress(OSError):  # the file itself is there and whole
        handle = os.open(folder, getattr(os, "O_DIRECTORY", 0))
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

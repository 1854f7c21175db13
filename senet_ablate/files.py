"""Files that are whole or absent, and text as people's editors write it."""

from __future__ import annotations

import codecs
import errno
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.ENOTTY}
"""What network drives and shared folders answer to what they do not have; a full or a broken disk says other things."""


def write_atomic(path: Path, content: bytes | str, mode: int = 0o644) -> None:
    """Write a file that is whole or absent, whatever kills the process: temp, fsync, rename, fsync of the folder.

    What a file system does not have (CIFS, sshfs, VirtualBox: fsync of a folder, permissions) is done without.

    Raises:
        OSError: it cannot be written, for want of space for one; the error names the file, and the old one is there.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    scratch = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            sync(file.fileno())
        with suppress(OSError):
            scratch.chmod(mode)
        scratch.replace(path)
    except BaseException as error:
        scratch.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = str(path)  # a write that fails knows no name
        raise
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

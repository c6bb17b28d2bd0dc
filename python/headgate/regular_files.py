"""Opening files that somebody else named: regular files only, so that no path makes the gateway wait.

A pipe without a writer keeps its reader waiting for good, and a device may have no end. Not here: where a path may lead
(``documents.files``).
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotRegularError(OSError):
    """What lies at the path is no regular file."""


def open_regular(path: Path, flags: int = 0) -> BinaryIO:
    """The file at ``path``, opened to be read, links followed; :class:`OSError` for what is no regular file, or cannot be opened."""
    # Looked at before, because opening a pipe or a device may do something, and after, because it may be another one by then.
    _check(path, path.stat(follow_symlinks=not flags & os.O_NOFOLLOW))
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    try:
        _check(path, os.fstat(handle))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: Path, most: int) -> bytes:
    """The bytes of the regular file at ``path``; :class:`OSError` as :func:`open_regular`, and for more than ``most`` bytes."""
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
    return data


def check_regular(path: Path) -> None:
    """:class:`OSError` unless there is a regular file at ``path``."""
    _check(path, path.stat())


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise NotRegularError(errno.EINVAL, f"it is {kind}, and a regular file is expected", str(path))

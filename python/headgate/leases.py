"""Leases on files and folders: whoever uses one holds it, and nobody removes it meanwhile, in this process or another.

A lease is a shared lock of the kernel (``flock``) on the file or folder itself. The kernel frees it when the process ends, however
it ends. Not here: what is removed and when (``registry.collecting``). Next: that one.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self


class Lease:
    """Paths that are in use; thread-safe. Leaving its ``with`` block frees them all."""

    def __init__(self) -> None:
        """Holds nothing yet."""
        self._lock = threading.Lock()
        self._handles: list[int] | None = []

    def __enter__(self) -> Self:
        """The lease."""
        return self

    def __exit__(self, *_: object) -> None:
        """Frees everything. What a thread that was left behind holds later is free at once."""
        with self._lock:
            handles, self._handles = self._handles or [], None
        for handle in handles:
            os.close(handle)

    def hold(self, path: Path) -> bool:
        """Holds what lies at ``path``, also if it is renamed; False: nothing lies there. Waits while somebody removes it."""
        while True:
            try:
                handle = _open(path)
            except FileNotFoundError:
                return False
            fcntl.flock(handle, fcntl.LOCK_SH)
            if _is_at(handle, path):
                self._keep(handle)
                return True
            os.close(handle)

    def _keep(self, handle: int) -> None:
        with self._lock:
            if self._handles is None:
                os.close(handle)
            else:
                self._handles.append(handle)


@contextmanager
def exclusive(path: Path) -> Iterator[bool]:
    """Whether nobody holds what lies at ``path``. If so, whoever wants to hold it waits until the block ends."""
    handle = _locked(path)
    if handle is None:
        yield False
        return
    try:
        yield True
    finally:
        os.close(handle)


def _locked(path: Path) -> int | None:
    """A handle with the exclusive lock; None: there is nothing, or somebody holds it."""
    try:
        handle = _open(path)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    if _is_at(handle, path):
        return handle
    os.close(handle)
    return None


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _is_at(handle: int, path: Path) -> bool:
    """Whether the file that is open lies at ``path`` still."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False

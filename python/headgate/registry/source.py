"""A model's files where somebody put them: which belong to the artifact, opened safely, read once.

Everything is opened by its real path, must lie below the model's folder and must be a regular file that does
not change while it is read. Not here: where the bytes go (``store``). Next: ``store``.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from headgate.errors import Conflict, ModelLoadFailed, StorageFailed, is_out_of_descriptors
from headgate.registry.manifest import EXTRAS, MODEL, Entry
from headgate.regular_files import NotRegularError, open_regular

_CHUNK = 1 << 20


class Unsettled(Conflict):
    """A file changed while it was read; it is likely still being written, and worth another try."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model to be taken in: its real folder, the model's file name in it, and the extras present."""

    folder: Path
    model: str
    extras: tuple[str, ...]

    def path_of(self, name: str) -> Path:
        """Where the artifact's file ``name`` lies in the folder."""
        return self.folder / (self.model if name == MODEL else name)


def find(path: Path) -> Source:
    """The source at ``path``: a folder that holds ``model.onnx``, or an ``.onnx`` file (then without extras).

    Raises ``ModelLoadFailed`` when there is neither.
    """
    try:
        if path.is_dir():
            folder = path.resolve()
            if not (folder / MODEL).is_file():
                raise ModelLoadFailed(f"{path} holds no {MODEL}")
            extras = tuple(name for name in EXTRAS if os.path.lexists(folder / name))
            return Source(folder, MODEL, extras)
        if path.is_file():
            if path.suffix != ".onnx":
                raise ModelLoadFailed(f"{path} is not an .onnx file, nor a folder that holds {MODEL}")
            return Source(path.parent.resolve(), path.name, ())
    except (OSError, RuntimeError) as error:
        raise ModelLoadFailed(f"{path} cannot be read: {error}") from None
    raise ModelLoadFailed(f"{path} does not exist: it must be an .onnx file or a folder that holds {MODEL}")


def model_file(path: Path) -> Path:
    """The model's own file of the source at ``path``; errors as :func:`find`."""
    return find(path).path_of(MODEL)


def size_of(source: Source, name: str) -> int:
    """The bytes of the file ``name`` of the artifact, unread; 0 for one that :func:`read` refuses anyway."""
    found = identity(source.path_of(name))
    return 0 if found is None else found[_SIZE]


def read(source: Source, name: str, write: Callable[[bytes], object], *, least: int = 0) -> Entry:
    """Streams the file ``name`` of the artifact through ``write`` and returns its hash and size.

    Raises ``ModelLoadFailed`` when it is missing, leads outside the folder, is no regular file or is smaller
    than ``least`` bytes; ``Unsettled`` when it changed meanwhile; ``StorageFailed`` while the process has no descriptor left.
    """
    with _opened(source, name) as file:
        before = os.fstat(file.fileno())
        _check_size(name, before, least)
        hashed = hashlib.sha256()
        size = 0
        # Never past the size it had: a file that grows as fast as it is read would have no end.
        while size <= before.st_size and (chunk := file.read(_CHUNK)):
            hashed.update(chunk)
            write(chunk)
            size += len(chunk)
        after = os.fstat(file.fileno())
    if size != before.st_size or _identity(before) != _identity(after):
        raise Unsettled(f"{name} in {source.folder} changed while it was read; try again when it is whole")
    return Entry(hashed.hexdigest(), size)


def check(source: Source, name: str, *, least: int = 0) -> None:
    """Raises what :func:`read` would raise for a file that nobody writes meanwhile; reads nothing of it."""
    with _opened(source, name) as file:
        _check_size(name, os.fstat(file.fileno()), least)


def _opened(source: Source, name: str) -> BinaryIO:
    path = source.path_of(name)
    try:
        # Its folder is real; so is the file, unless it is a link or lies further below.
        real = path if _is_plain(path, source.folder) else path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise ModelLoadFailed(f"{name} is missing from {source.folder}") from None
    if source.folder not in real.parents:
        raise ModelLoadFailed(
            f"{name} in {source.folder} is a link that leaves the folder; put the file itself there"
        )
    try:
        file = open_regular(real, os.O_NOFOLLOW)
    except NotRegularError:
        raise ModelLoadFailed(f"{name} in {source.folder} is not a regular file") from None
    except OSError as error:
        message = f"{name} in {source.folder} cannot be opened: {error.strerror}"
        # Without descriptors every model fails, and not for ever: this one is tried again.
        raise (StorageFailed if is_out_of_descriptors(error) else ModelLoadFailed)(message) from None
    # Where the file that is open lies: a folder above it may have become a link since it was looked at.
    if source.folder not in Path(f"/proc/self/fd/{file.fileno()}").readlink().parents:
        file.close()
        raise ModelLoadFailed(f"{name} was moved out of {source.folder} while it was opened")
    return file


def _is_plain(path: Path, folder: Path) -> bool:
    """Whether a regular file lies in a folder itself."""
    return path.parent == folder and stat.S_ISREG(path.lstat().st_mode)


def _check_size(name: str, status: os.stat_result, least: int) -> None:
    if status.st_size < least:
        raise ModelLoadFailed(
            f"{name} has {status.st_size} bytes; the model wants at least {least}: is it whole?"
        )


def identity(path: Path) -> tuple[int, ...] | None:
    """What changes when a file's bytes do (inode, size, mtime, ctime), links followed; None when it is
    missing."""
    try:
        return _identity(path.stat())
    except OSError:
        return None


_SIZE = 2


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

"""Files and folders that only their owner may open (0600 and 0700 whatever the umask), and where in a folder the state lies.

It imports nothing that takes time: commands that only call the admin API use it. Not here: what is in the files (``store``,
``registry``, ``drift``).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headgate.errors import PermissionDenied, StorageFailed

FILE_MODE, FOLDER_MODE = 0o600, 0o700
READ_ONLY = 0o400
"""Of files that are named by their digest and never change."""
SUBFOLDER = "headgate"
"""Where the state lies in a folder that others can write."""
DATABASE = "headgate.db"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def state_place(folder: Path) -> Path:
    """Where the state of a gateway lies that was given ``folder``: there, or in a subfolder of our own if others can write there.

    Who can write a folder can replace every file in it. A Kubernetes ``emptyDir`` is such a folder: root's, with 0777. A state
    that lies there from before stays where it is: a start beside it would serve nothing.
    """
    try:
        mode = folder.stat().st_mode
    except OSError:
        return folder  # It will be made, and nobody else will be able to write there.
    if not stat.S_ISDIR(mode) or not mode & _OTHERS_WRITE or _is_own_file(folder / DATABASE):
        return folder
    return folder / SUBFOLDER


def check_owner(folder: Path) -> None:
    """:class:`PermissionDenied` if another user owns a state folder: they could replace what is in it.

    Root can do that anyway. A folder of root's that we can write is one in which others can write too.
    """
    try:
        # Who owns a link decides where it leads. Under systemd's DynamicUser it is root's, and what it leads to is ours.
        owners = [folder.lstat().st_uid, folder.stat().st_uid]
    except OSError as error:
        raise StorageFailed(f"the state folder {folder} cannot be used: {error.strerror}") from error
    own = {os.geteuid(), 0} if os.access(folder, os.W_OK) else {os.geteuid()}
    other = next((owner for owner in owners if owner not in own), None)
    if other is not None:
        raise PermissionDenied(
            f"the state folder {folder} belongs to user {other}, and this is user {os.geteuid()}: run this as that user "
            f"(sudo -u '#{other}'), or name another folder with --state"
        )


def make_folder(folder: Path) -> None:
    """Makes a folder, and those above it that are missing; one that is there stays as it is."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(
        FileExistsError
    ):  # made by another thread meanwhile, or a file: then what follows says so
        folder.mkdir(FOLDER_MODE)
        folder.chmod(FOLDER_MODE)


@contextmanager
def temporary_folder(where: Path | None = None, prefix: str | None = None) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=where))
    try:
        folder.chmod(FOLDER_MODE)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def create_file(path: Path, flags: int = os.O_EXCL) -> int:
    """A descriptor of a file that is made, or with other ``flags`` may be there already."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | flags, FILE_MODE)
    os.fchmod(handle, FILE_MODE)
    return handle


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replaces a file in one step, for one writer at a time; durable: it is on disk when this returns."""
    partial = path.with_name(f".{path.name}.new")
    with os.fdopen(create_file(partial, os.O_TRUNC), "wb") as file:
        file.write(data)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    partial.replace(path)


def close_to_others(folder: Path) -> None:
    """Takes from a folder and all below it what others may do there; what another user owns is left alone."""
    for path, entry in [(folder, folder.stat()), *_below(folder)]:
        # What is read-only stays so.
        wanted = FOLDER_MODE if stat.S_ISDIR(entry.st_mode) else (entry.st_mode & FILE_MODE) or FILE_MODE
        is_plain = stat.S_ISDIR(entry.st_mode) or stat.S_ISREG(entry.st_mode)
        if is_plain and stat.S_IMODE(entry.st_mode) != wanted and entry.st_uid == os.geteuid():
            path.chmod(wanted)


def _below(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # SQLite's own files come and go
                yield Path(entry.path), entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    yield from _below(Path(entry.path))


def _is_own_file(path: Path) -> bool:
    """Whether this user made it: somebody else's could be put there to be served."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()

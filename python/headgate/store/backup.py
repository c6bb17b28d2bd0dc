"""Copies of a whole state folder in one file, made beside a running gateway, and brought back into an empty folder.

Not here: the commands (``cli.state``), whether a folder is whole (``store.check``). Next: ``store``.

The database is copied first and in one step. Model files and baselines are named by their digest and never change, so what the copy
of the database names is there when they are read afterwards. The file of the first admin token stays out of a backup.

Files of receipts change while a gateway runs, each as a whole (by a rename). They are copied after the database: a gateway writes which
receipts were used before the store gets what they counted, so that the copy knows every receipt that counts in the copied database.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

from headgate.errors import Conflict, InvalidArgument, StorageFailed
from headgate.private_files import FILE_MODE, create_file, make_folder, temporary_folder
from headgate.regular_files import open_regular

_DATABASE = "headgate.db"
_FOLDERS = ("blobs", "artifacts", "baselines")
FEEDBACK = "feedback"
"""The folder of the keys of receipts and of those that were used, one file for each endpoint."""
_RECEIPTS = ".receipts"
_NAME = re.compile(
    rf"{re.escape(_DATABASE)}|{FEEDBACK}(?:/[A-Za-z0-9_][A-Za-z0-9._-]*{re.escape(_RECEIPTS)})?"
    rf"|(?:{'|'.join(_FOLDERS)})(?:/(?!\.{{1,2}}(?:/|$))[A-Za-z0-9._-]+)*"
)


def write_backup(state: Path, target: Path) -> None:
    """Writes ``target``, which must not be there yet; it is whole and on disk when this returns, and not there if it failed."""
    if not (state / _DATABASE).is_file():
        raise StorageFailed(f"{state} is not the state folder of a gateway: there is no {_DATABASE}")
    with _storage(f"the backup {target} could not be written"):
        if target.exists():
            raise Conflict(f"{target} is there already; give a backup a name of its own")
        # Beside the target, so that it can be renamed.
        with temporary_folder(target.absolute().parent, ".backup") as folder:
            copy, archive = folder / _DATABASE, folder / "backup.tar"
            _copy_database(state / _DATABASE, copy)
            with _created(archive) as file:
                with tarfile.open(fileobj=file, mode="w") as tar:
                    tar.add(copy, _DATABASE)
                    for path in _files_of(state):
                        tar.add(path, str(path.relative_to(state)), recursive=False)
                    for path in receipt_files(state):
                        _add_receipts(tar, path)
                file.flush()
                os.fsync(file.fileno())
            os.link(archive, target)  # As a rename, but never over another file.
        _sync_folder(target.absolute().parent)


def restore_backup(backup: Path, state: Path) -> None:
    """Brings a backup back into ``state``, which must be empty or not there yet; the database comes last."""
    with _storage(f"{backup} could not be restored into {state}"):
        if state.exists() and any(state.iterdir()):
            raise Conflict(
                f"{state} is not empty: restore into a folder of its own, or move what is there aside"
            )
        try:
            with open_regular(backup) as file, tarfile.open(fileobj=file) as tar:
                members = [_checked(member, backup) for member in tar]
                if not any(member.name == _DATABASE for member in members):
                    raise InvalidArgument(
                        f"{backup} is not a backup of a state folder: there is no {_DATABASE} in it"
                    )
                make_folder(state)
                for member in sorted(members, key=lambda one: (one.name == _DATABASE, one.islnk())):
                    _extract(tar, member, state)
        except tarfile.TarError as error:
            raise InvalidArgument(
                f"{backup} is not a backup of a state folder, or not whole: {error}"
            ) from error
        _sync_folder(state)


def _copy_database(source: Path, target: Path) -> None:
    os.close(create_file(target))
    with closing(sqlite3.connect(source)) as database, closing(sqlite3.connect(target)) as copy:
        database.backup(copy)
        # One file: the journal of the copy would have to come along.
        copy.execute("PRAGMA journal_mode=DELETE")


def _files_of(state: Path) -> Iterator[Path]:
    for name in _FOLDERS:
        folder = state / name
        yield from [path for path in (folder, *sorted(folder.rglob("*"))) if path.is_dir() or path.is_file()]


def receipt_files(state: Path) -> list[Path]:
    """The files of receipts below a state folder."""
    return sorted(path for path in (state / FEEDBACK).glob(f"*{_RECEIPTS}") if path.is_file())


def _add_receipts(tar: tarfile.TarFile, path: Path) -> None:
    """One file as it is when it is opened: another may stand in its place a moment later. None, if it is gone by then."""
    try:
        file = open_regular(path)
    except FileNotFoundError:
        return
    with file:
        tar.addfile(tar.gettarinfo(arcname=f"{FEEDBACK}/{path.name}", fileobj=file), file)


def _checked(member: tarfile.TarInfo, backup: Path) -> tarfile.TarInfo:
    """A member that a backup may have: its place is below the state folder, and so is what it links to."""
    names = [member.name, member.linkname] if member.islnk() else [member.name]
    if not (member.isreg() or member.isdir() or member.islnk()) or not all(map(_NAME.fullmatch, names)):
        raise InvalidArgument(f"{backup} is not a backup of a state folder: it holds {member.name!r}")
    return member


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, state: Path) -> None:
    place = state / member.name
    if member.isdir():
        make_folder(place)
        return
    make_folder(place.parent)
    if member.islnk():
        os.link(state / member.linkname, place)
        return
    content = tar.extractfile(member)
    if content is None:
        raise tarfile.ExtractError(f"{member.name} has no content")
    with content, _created(place) as file:
        shutil.copyfileobj(content, file)
        file.flush()
        os.fsync(file.fileno())
    if member.name != _DATABASE:
        place.chmod(member.mode & FILE_MODE)  # A model file is read-only.


def _created(path: Path) -> BinaryIO:
    """A new file that only its owner may open."""
    return os.fdopen(create_file(path), "wb")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _storage(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise StorageFailed(f"{what}: {error}") from error

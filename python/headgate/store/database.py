"""Opens the state folder and its database: lock, folders, pragmas.

Not here: the schema (``schema``), what is read and written (``store``). Next: ``schema``, then ``transactions``.

One code path serves SQLite and PostgreSQL. They differ in the pragmas of a connection.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from headgate import private_files
from headgate.errors import Conflict, HeadgateError, StorageFailed
from headgate.store import schema

FILE = private_files.DATABASE
"""The database in the state folder."""
_FOLDERS = ("baselines", "artifacts", "blobs")
REMEDY = "`headgate state check` says what is damaged, `headgate state restore FILE` brings a backup back into an empty folder"
_FOUND = 10
BUSY_MS = 5000
"""How long a statement waits for another process's transaction on SQLite."""


class FolderLock:
    """An exclusive lock on a state folder, held by an open file and freed by the kernel when the process ends."""

    def __init__(self, state: Path) -> None:
        """Creates the folder (0700) and takes the lock; :class:`Conflict` when another process holds it, and
        :class:`PermissionDenied` if another user owns the folder.
        """
        try:
            private_files.make_folder(state)
            private_files.check_owner(state)
            self._fd: int | None = private_files.create_file(state / "lock", flags=0)
        except OSError as error:
            raise StorageFailed(f"the state folder {state} cannot be used: {error}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            self._fd = None
            raise Conflict(
                f"another gateway (process {holder}) runs on the state folder {state}: stop it, or give this one "
                "a folder of its own with --state"
            ) from None
        # Who holds it is said for people; a full disk takes nothing from the lock.
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Frees the folder; idempotent. The file stays: removing it would let two processes lock two files."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def make_folders(state: Path) -> None:
    """The folders below the state folder; everything in it is its owner's only, what is there from before as well."""
    try:
        for name in _FOLDERS:
            private_files.make_folder(state / name)
        private_files.close_to_others(state)
    except OSError as error:
        raise StorageFailed(f"the state folder {state} cannot be used: {error}") from error


def open_engine(state: Path, url: str | None) -> Engine:
    """An engine on ``url``, or on ``headgate.db`` in the state folder, migrated to the newest schema."""
    if url is None:
        _make_database(state)
    engine = _engine(url if url is not None else _file_url(state))
    try:
        with storage_errors("the database schema could not be brought up to date"):
            schema.bring_up_to_date(engine, BUSY_MS)
    except BaseException:
        engine.dispose()
        raise
    return engine


def open_migrated(state: Path) -> Engine:
    """An engine on ``headgate.db``, which must be there with the newest schema: a gateway may be using it."""
    if not (state / FILE).is_file():
        raise StorageFailed(f"{state} is not the state folder of a gateway: there is no headgate.db")
    engine = _engine(_file_url(state))
    try:
        with storage_errors("the state could not be read"):
            found = schema.version(engine)
        if found != schema.NEWEST:
            raise StorageFailed(
                f"{state} was written by another version of Headgate (schema {found}); use that one's command line, or "
                "start this one's gateway on it first"
            )
    except BaseException:
        engine.dispose()
        raise
    return engine


def _make_database(state: Path) -> None:
    """SQLite takes the umask for the database, and for its other files the database's mode."""
    try:
        os.close(private_files.create_file(state / FILE, flags=0))
    except OSError as error:
        raise StorageFailed(f"the database {state / FILE} cannot be used: {error}") from error


def _file_url(state: Path) -> str:
    return f"sqlite:///{state / FILE}"


def _engine(url: str) -> Engine:
    target = make_url(url)
    if target.drivername == "postgresql":
        target = target.set(drivername="postgresql+psycopg")
    engine = create_engine(target)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _on_begin)
    return engine


def quick_check(connection: Connection) -> list[str]:
    """What SQLite finds wrong with its pages, at most a few lines; PostgreSQL checks each page as it reads it."""
    if connection.dialect.name != "sqlite":
        return []
    found = [str(row[0]) for row in connection.exec_driver_sql(f"PRAGMA quick_check({_FOUND})")]
    return [line for text in found if text != "ok" for line in text.splitlines()]


def _on_connect(connection: Any, _record: Any) -> None:
    # Python's driver would begin transactions for some statements only, and leave a migration half done after a crash.
    connection.isolation_level = None
    # A flipped byte must not take the rows around it out of reach: what is no UTF-8 is found by the chain's check.
    connection.text_factory = _decode
    # FULL: an acknowledged write survives a power cut; WAL alone would only survive a crash of the process.
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _decode(data: bytes) -> str:
    return data.decode(errors="replace")


def _on_begin(connection: Connection) -> None:
    how = connection.get_execution_options().get("sqlite_begin", "BEGIN")
    connection.exec_driver_sql(how)


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turns what the database raises into :class:`StorageFailed`, with ``what`` as the beginning of its sentence."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        if getattr(cause, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            what, cause = f"the database is damaged: {what}", f"{cause}; {REMEDY}"
        if isinstance(cause, HeadgateError):
            # A column refused a value; the library wraps what it does not know.
            raise cause from None
        raise StorageFailed(f"{what}: {cause}") from error

"""The schema of the database: made at once in an empty one, brought up to date in an older one.

Not here: the tables (``models``), each step from one schema to the next (``migrations/versions``). Next: ``transactions``.

The migration library is loaded only if there is something to migrate: it would be a tenth of the time that a start takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, func, insert, inspect, select

from headgate.store.models import Base, Generation

NEWEST = "0006"
"""The id of the newest migration."""

_MIGRATION_BUSY_MS = 600_000
"""How long an opening waits for another one that migrates; a large history takes minutes."""
_MIGRATION_LOCK = 0x6865616467617465  # "headgate": any number that no other use of the database takes

_VERSION = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


def bring_up_to_date(engine: Engine, busy_ms: int) -> None:
    """Brings the schema to the newest migration; :class:`StorageFailed` for one that a newer Headgate wrote.

    Under a lock of the database: of two processes that open it at once, one migrates, and the other finds it done. ``busy_ms`` is
    what a statement on SQLite waits afterwards.
    """
    with engine.connect() as connection, _migration_lock(connection, busy_ms):
        tables = inspect(connection).get_table_names()
        if not tables:
            _make(connection)
        elif _version(connection, tables) != NEWEST:
            from headgate.store.migrating import upgrade

            upgrade(connection)


def version(engine: Engine) -> str | None:
    """The schema that a database has; nothing is changed."""
    with engine.connect() as connection:
        return _version(connection, inspect(connection).get_table_names())


def _make(connection: Connection) -> None:
    Base.metadata.create_all(connection)
    _VERSION.create(connection)
    connection.execute(insert(_VERSION).values(version_num=NEWEST))
    connection.execute(insert(Generation).values(id=1, value=0))


def _version(connection: Connection, tables: list[str]) -> str | None:
    return connection.scalar(select(_VERSION.c.version_num)) if _VERSION.name in tables else None


@contextmanager
def _migration_lock(connection: Connection, busy_ms: int) -> Iterator[None]:
    """A transaction that no other migration of this database runs beside."""
    if connection.dialect.name != "sqlite":
        with connection.begin():
            connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            yield
        return
    driver: Any = connection.connection.driver_connection
    driver.execute(f"PRAGMA busy_timeout={_MIGRATION_BUSY_MS}")
    try:
        with connection.execution_options(sqlite_begin="BEGIN IMMEDIATE").begin():
            yield
    finally:
        driver.execute(f"PRAGMA busy_timeout={busy_ms}")

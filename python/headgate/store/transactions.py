"""Transactions: reads that see one state, and writes that are numbered in the order of their commits.

Not here: what is read and written (``store`` and its parts), opening (``database``). Next: ``revisions``.

A write takes its number with its first statement, from the one row of ``generation``. That row stays locked until the commit, on
SQLite and PostgreSQL alike. So one write runs at a time, whichever gateway makes it, and what a write reads stays true until it
has committed; a write that is rolled back gives its number back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import datetime
from typing import TypeAlias, TypeVar

from sqlalchemy import DateTime, Engine, Function, Update, func, insert, select, update
from sqlalchemy.orm import Session, sessionmaker

from headgate.store.clock import Clock, DatabaseClock, stamp, utc_now
from headgate.store.database import storage_errors
from headgate.store.models import AuditRecord, Base, EventRecord, Generation

Numbered = TypeVar("Numbered", EventRecord, AuditRecord)


AfterEvent: TypeAlias = "Callable[[Write, EventRecord], None]"


class Write:
    """One write transaction: its session, its generation, its time."""

    def __init__(
        self, session: Session, generation: int, now: str, after_event: AfterEvent | None = None
    ) -> None:
        """Use :meth:`Transactions.write`."""
        self.session = session
        self.generation = generation
        self.now = now
        self._numbered: set[type[Base]] = set()
        self._after_event = after_event
        self.after_commit: list[Callable[[], None]] = []
        """Called once the transaction has committed, and never if it has not."""

    def add(self, record: Base) -> None:
        """Inserts a row with the values of ``record``, which stays as it is."""
        values = {field.name: getattr(record, field.name) for field in fields(record)}
        self.session.execute(insert(type(record)).values(values))

    def add_numbered(self, record: Numbered) -> Numbered:
        """Inserts a row that is keyed by its generation, and gives it back with it: the transaction's own for the first row of a
        table, the next ones for further rows.
        """
        number = self.generation
        if type(record) in self._numbered:
            number = self.session.execute(_next_number().returning(Generation.value)).scalar_one()
        self._numbered.add(type(record))
        numbered = replace(record, generation=number)
        self.add(numbered)
        if self._after_event is not None and isinstance(numbered, EventRecord):
            self._after_event(self, numbered)
        return numbered


class Transactions:
    """Makes the transactions of one store; thread-safe."""

    def __init__(self, engine: Engine, clock: Clock | None = None) -> None:
        """Without ``clock``, the process's on SQLite and the database's elsewhere."""
        self._engine = engine
        self._shared = engine.dialect.name != "sqlite"
        # SQLite would let writers of one process wait for each other by polling.
        self._writer = threading.Lock()
        self._write_sessions = sessionmaker(engine, expire_on_commit=False)
        # A read of several statements sees one state. SQLite gives that always.
        same = engine.execution_options(isolation_level="REPEATABLE READ") if self._shared else engine
        self._read_sessions = sessionmaker(same)
        self._database_clock: DatabaseClock | None = None
        if clock is None and self._shared:
            with self.read() as session:
                clock = self._database_clock = DatabaseClock(
                    session.execute(select(_database_time())).scalar_one()
                )
        self._clock = clock or utc_now
        self.after_event: AfterEvent | None = None
        """Writes what belongs to an event into its transaction (``outbox``)."""

    def now(self) -> datetime:
        """The store's time."""
        return self._clock()

    @contextmanager
    def write(self) -> Iterator[Write]:
        """A transaction that is on disk when the block has ended, or has left nothing."""
        what = "the state could not be written"
        with self._writer, storage_errors(what), self._write_sessions.begin() as session:
            generation = self._take(session)
            write = Write(session, generation, stamp(self.now()), self.after_event)
            yield write
        for committed in write.after_commit:
            committed()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view for reading."""
        with storage_errors("the state could not be read"), self._read_sessions() as session:
            yield session

    def close(self) -> None:
        """Closes every connection; idempotent."""
        self._engine.dispose()

    def _take(self, session: Session) -> int:
        """The number of this write. The database tells its time by the way."""
        if self._database_clock is None:
            return session.execute(_next_number().returning(Generation.value)).scalar_one()
        row = session.execute(_next_number().returning(Generation.value, _database_time())).one()
        self._database_clock.set(row[1])
        return int(row[0])


def _next_number() -> Update:
    return update(Generation).values(value=Generation.value + 1).execution_options(synchronize_session=False)


def _database_time() -> Function[datetime]:
    return func.clock_timestamp(type_=DateTime(timezone=True))

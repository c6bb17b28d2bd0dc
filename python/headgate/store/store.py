"""The door to durable state: one transaction per transition, answered after the commit is on disk.

Not here: opening and migrating (``database``), tokens and journals (``tokens``, ``journal``), what states mean (``control``).
Next: ``revisions``, ``journal``, ``tokens``, ``pins``.

Every method blocks on the disk: call it from a thread, never from the event loop.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from headgate.errors import StorageFailed
from headgate.store import journal, revisions
from headgate.store.clock import Clock, utc_now
from headgate.store.database import FolderLock, make_folders, open_engine, storage_errors
from headgate.store.pins import StorePins, add_pins, check_pins
from headgate.store.records import (
    AuditRecord,
    EndpointRecord,
    EventRecord,
    IdempotencyRecord,
    OperationRecord,
    RevisionRecord,
    RevisionStatus,
)
from headgate.store.tokens import StoreTokens


@dataclass(frozen=True)
class Commit:
    """The end of one transition: what becomes of revision ``n`` and everything that is written with it."""

    endpoint: str
    n: int
    status: RevisionStatus
    message: str | None = None
    events: Sequence[EventRecord] = ()
    audit: AuditRecord | None = None
    idempotency: IdempotencyRecord | None = None
    pins: Mapping[str, str] = field(default_factory=dict)
    """Digests that version names stand for from now on."""


def open_store(state: Path, *, url: str | None = None, clock: Clock = utc_now) -> Store:
    """Locks ``state``, makes its folders, opens and migrates the database.

    Raises :class:`~headgate.errors.Conflict` when another gateway holds the folder and
    :class:`~headgate.errors.StorageFailed` when the folder or database cannot be used.
    """
    lock = FolderLock(state)
    try:
        make_folders(state)
        engine = open_engine(state, url)
    except BaseException:
        lock.release()
        raise
    return Store(state, engine, lock, clock)


class Store:
    """Durable state of one gateway; thread-safe, one writer at a time."""

    def __init__(self, state: Path, engine: Engine, lock: FolderLock, clock: Clock) -> None:
        """Use :func:`open_store`."""
        self.state = state
        self.clock = clock
        self._engine = engine
        self._lock = lock
        self._writer = threading.Lock()
        self.pins = StorePins(self)
        self.tokens = StoreTokens(self)

    def close(self) -> None:
        """Closes the database and frees the folder; idempotent."""
        self._engine.dispose()
        self._lock.release()

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that is on disk when the block has ended, or has left nothing."""
        what = "the state could not be written"
        with self._writer, storage_errors(what), Session(self._engine) as session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view for reading."""
        with storage_errors("the state could not be read"), Session(self._engine) as session:
            yield session

    # === revisions ===

    def endpoints(self) -> list[EndpointRecord]:
        """All endpoints, removed ones included, by name."""
        with self.read() as session:
            return revisions.endpoints(session)

    def propose(self, record: RevisionRecord, digests: Mapping[str, str] | None = None) -> None:
        """Appends a revision that is not yet served. Its number must be the next one of its endpoint.

        ``digests`` are those of its versions; :class:`~headgate.errors.Conflict` when a version stands for another one already.
        """
        with self.write() as session:
            check_pins(session, record.endpoint, digests or {})
            revisions.append(session, replace(record, status="proposed"))

    def commit(self, commit: Commit) -> list[EventRecord]:
        """Ends a proposed revision; returns its events with their ids."""
        with self.write() as session:
            return self._commit(session, commit)

    def append_ended(self, record: RevisionRecord, commit: Commit) -> list[EventRecord]:
        """Appends and ends a revision in one transaction: what an emergency call could not write at its time.

        Writing it twice writes it once: the first attempt may have reached the disk although it was reported as failed.
        """
        with self.write() as session:
            present = revisions.get(session, record.endpoint, record.n)
            if present is None:
                revisions.append(session, replace(record, status="proposed"))
            elif present.status != "proposed":
                return []
            return self._commit(session, commit)

    def _commit(self, session: Session, commit: Commit) -> list[EventRecord]:
        if not revisions.finish(session, commit.endpoint, commit.n, commit.status, commit.message):
            raise StorageFailed(f"{commit.endpoint} has no proposed revision {commit.n} to end")
        add_pins(session, commit.endpoint, commit.pins, self.clock())
        if commit.audit is not None:
            journal.add_audit(session, commit.audit)
        if commit.idempotency is not None:
            journal.put_idempotency(session, commit.idempotency, self.clock())
        return [journal.add_event(session, event) for event in commit.events]

    def revision(self, endpoint: str, n: int) -> RevisionRecord | None:
        """One revision, whatever its status."""
        with self.read() as session:
            return revisions.get(session, endpoint, n)

    def revisions(self, endpoint: str, *, limit: int, before: int | None = None) -> list[RevisionRecord]:
        """Newest first, numbers below ``before``."""
        with self.read() as session:
            return revisions.newest(session, endpoint, limit, before)

    def proposed(self, endpoint: str) -> list[RevisionRecord]:
        """Revisions that a stop left between the steps, oldest first."""
        with self.read() as session:
            return revisions.proposed(session, endpoint)

    # === journal ===

    def idempotent(self, principal: str, route: str, key: str) -> IdempotencyRecord | None:
        """The answer stored for a key, unless it has expired."""
        with self.read() as session:
            return journal.get_idempotency(session, (principal, route, key), self.clock())

    def put_idempotent(self, record: IdempotencyRecord) -> None:
        """Stores the answer of a write that needed no revision."""
        with self.write() as session:
            journal.put_idempotency(session, record, self.clock())

    def add_event(self, event: EventRecord) -> EventRecord:
        """Stores an event that belongs to no transition."""
        with self.write() as session:
            return journal.add_event(session, event)

    def events_after(self, cursor: int, *, limit: int, endpoint: str | None = None) -> list[EventRecord]:
        """Events with ids above ``cursor``, oldest first."""
        with self.read() as session:
            return journal.events_after(session, cursor, limit, endpoint)

    def last_event_id(self) -> int:
        """The id of the newest event, 0 when there is none."""
        with self.read() as session:
            return journal.last_event_id(session)

    def audit(self, *, endpoint: str | None, limit: int, before: int | None) -> list[AuditRecord]:
        """Newest first, ids below ``before``."""
        with self.read() as session:
            return journal.audit(session, endpoint, limit, before)

    def put_operation(self, record: OperationRecord) -> None:
        """Inserts or replaces an operation."""
        with self.write() as session:
            journal.put_operation(session, record)

    def operation(self, operation_id: str) -> OperationRecord | None:
        """One operation."""
        with self.read() as session:
            return journal.get_operation(session, operation_id)

    def running_operations(self) -> list[OperationRecord]:
        """What a stop left running."""
        with self.read() as session:
            return journal.running_operations(session)

    def prune(self, *, events: int, operations: int) -> None:
        """Forgets all but the newest ``events``, and all but the newest ``operations`` that have ended. The audit stays whole."""
        with self.write() as session:
            journal.prune(session, events, operations)

    def applied_file(self, path: str) -> str | None:
        """The digest last applied from a file."""
        with self.read() as session:
            return journal.applied_file(session, path)

    def put_applied_file(self, path: str, digest: str) -> None:
        """Remembers the digest last applied from a file."""
        with self.write() as session:
            journal.put_applied_file(session, path, digest, self.clock())

"""The door to durable state: one transaction per transition, answered after the commit is on disk.

Not here: opening and migrating (``database``), tokens and journals (``tokens``, ``journal``), what states mean (``control``).
Next: ``transactions``, ``revisions``, ``journal``, ``tokens``, ``pins``.

Every method but ``now`` blocks on the disk: call it from a thread, never from the event loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from headgate.errors import StorageFailed
from headgate.store import journal, revisions
from headgate.store.chain import Damage, damages
from headgate.store.clock import Clock, stamp
from headgate.store.database import FolderLock, make_folders, open_engine
from headgate.store.models import (
    AppliedDocument,
    AuditRecord,
    EndpointRecord,
    EventRecord,
    IdempotencyRecord,
    OperationRecord,
    RevisionRecord,
    RevisionStatus,
)
from headgate.store.pins import StorePins, add_pins, check_pins
from headgate.store.tokens import StoreTokens
from headgate.store.transactions import Transactions, Write


@dataclass(frozen=True)
class Proposal:
    """A revision that is not served yet. Its number must be the next one of its endpoint."""

    record: RevisionRecord
    content: bytes | None = None
    """Its document; None for one that is stored already."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Those of its versions."""


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
    applied: AppliedDocument | None = None
    """The file that the document was applied from."""


def open_store(state: Path, *, url: str | None = None, clock: Clock | None = None) -> Store:
    """Locks ``state``, makes its folders, opens and migrates the database: ``url``, or a file in ``state``.

    Raises :class:`~headgate.errors.Conflict` when another gateway holds the folder and
    :class:`~headgate.errors.StorageFailed` when the folder or database cannot be used.
    """
    lock = FolderLock(state)
    try:
        make_folders(state)
        return Store(state, Transactions(open_engine(state, url), clock), lock)
    except BaseException:
        lock.release()
        raise


class Store:
    """Durable state of one gateway; thread-safe, one writer at a time."""

    def __init__(self, state: Path, transactions: Transactions, lock: FolderLock) -> None:
        """Use :func:`open_store`."""
        self.state = state
        self.transactions = transactions
        self._lock = lock
        self.pins = StorePins(transactions)
        self.tokens = StoreTokens(transactions)

    def close(self) -> None:
        """Closes the database and frees the folder; idempotent."""
        self.transactions.close()
        self._lock.release()

    def now(self) -> datetime:
        """The present time, by the one clock of everything that is written."""
        return self.transactions.now()

    # === revisions ===

    def endpoints(self) -> list[EndpointRecord]:
        """All endpoints, removed ones included, by name."""
        with self.transactions.read() as session:
            return revisions.endpoints(session)

    def propose(self, proposal: Proposal) -> None:
        """Appends a revision.

        :class:`~headgate.errors.RevisionConflict` when its number is taken, :class:`~headgate.errors.Conflict` when a version
        stands for another digest already.
        """
        with self.transactions.write() as write:
            check_pins(write.session, proposal.record.endpoint, proposal.digests)
            revisions.append(write, proposal.record, proposal.content)

    def commit(self, commit: Commit) -> list[EventRecord]:
        """Ends a proposed revision; returns its events as they are stored."""
        with self.transactions.write() as write:
            return _commit(write, commit)

    def append_ended(self, proposal: Proposal, commit: Commit) -> list[EventRecord]:
        """Appends and ends a revision in one transaction: what an emergency call could not write at its time.

        Writing it twice writes it once: the first attempt may have reached the disk although it was reported as failed.
        """
        record = proposal.record
        with self.transactions.write() as write:
            present = revisions.get(write.session, record.endpoint, record.n)
            if present is None:
                revisions.append(write, record, proposal.content)
            elif present.body != record.body:
                raise revisions.taken(record, record.n)
            elif present.status != "proposed":
                return []
            return _commit(write, commit)

    def revision(self, endpoint: str, n: int) -> RevisionRecord | None:
        """One revision, whatever its status."""
        with self.transactions.read() as session:
            return revisions.get(session, endpoint, n)

    def revisions(self, endpoint: str, *, limit: int, before: int | None = None) -> list[RevisionRecord]:
        """Newest first, numbers below ``before``."""
        with self.transactions.read() as session:
            return revisions.newest(session, endpoint, limit, before)

    def proposed(self, endpoint: str) -> list[RevisionRecord]:
        """Revisions that a stop left between the steps, oldest first."""
        with self.transactions.read() as session:
            return revisions.proposed(session, endpoint)

    def document(self, digest: str) -> bytes:
        """The bytes of a document that a revision names."""
        with self.transactions.read() as session:
            content = revisions.document(session, digest)
        if content is None:
            raise StorageFailed(f"the store has lost the document {digest}")
        return content

    def applied_from(self, path: str) -> frozenset[tuple[str, str]]:
        """Endpoint and digest of every document that was ever applied from a file."""
        with self.transactions.read() as session:
            return revisions.applied_from(session, path)

    def add_applied(self, record: AppliedDocument) -> None:
        """Remembers an apply that had nothing to do, and so no revision of its own."""
        if (record.endpoint, record.digest) not in self.applied_from(record.path):
            with self.transactions.write() as write:
                revisions.add_applied(write, record)

    def check(self, endpoint: str | None = None) -> list[Damage]:
        """Every revision that is not as it was written, of one endpoint or of all; empty when all is whole. Reads everything."""
        with self.transactions.read() as session:
            return list(damages(session, endpoint))

    # === journal ===

    def generation(self) -> int:
        """The number of the newest write: every cursor that was ever given out is at most this."""
        with self.transactions.read() as session:
            return journal.generation(session)

    def idempotent(self, principal: str, route: str, key: str) -> IdempotencyRecord | None:
        """The answer stored for a key, unless it has expired."""
        with self.transactions.read() as session:
            return journal.get_idempotency(session, (principal, route, key), stamp(self.now()))

    def add_audit(self, records: Sequence[AuditRecord], answers: Sequence[IdempotencyRecord] = ()) -> None:
        """Stores rows of the audit that belong to no revision, and answers of writes that needed none."""
        with self.transactions.write() as write:
            for record in records:
                write.add_numbered(record)
            for answer in answers:
                journal.put_idempotency(write, answer)

    def add_event(self, event: EventRecord) -> EventRecord:
        """Stores an event that belongs to no transition."""
        with self.transactions.write() as write:
            return write.add_numbered(event)

    def put_audit(self, records: Sequence[AuditRecord]) -> list[AuditRecord]:
        """Stores rows that count: one without a number is inserted, of the others the detail is replaced. Gives them back numbered."""
        with self.transactions.write() as write:
            return [journal.put_audit(write, record) for record in records]

    def events_after(self, cursor: int, *, limit: int, endpoint: str | None = None) -> list[EventRecord]:
        """Events with generations above ``cursor``, oldest first."""
        with self.transactions.read() as session:
            return journal.events_after(session, cursor, limit, endpoint)

    def audit(self, *, endpoint: str | None, limit: int, before: int | None) -> list[AuditRecord]:
        """Newest first, generations below ``before``."""
        with self.transactions.read() as session:
            return journal.audit(session, endpoint, limit, before)

    def put_operation(self, record: OperationRecord) -> None:
        """Inserts or replaces an operation."""
        with self.transactions.write() as write:
            write.session.merge(record)

    def operation(self, operation_id: str) -> OperationRecord | None:
        """One operation."""
        with self.transactions.read() as session:
            return session.get(OperationRecord, operation_id)

    def running_operations(self) -> list[OperationRecord]:
        """What a stop left running."""
        with self.transactions.read() as session:
            return journal.running_operations(session)

    def prune(self, *, events: int, operations: int) -> None:
        """Forgets all but the newest ``events``, and all but the newest ``operations`` that have ended. The audit stays whole."""
        with self.transactions.write() as write:
            journal.prune(write.session, events, operations)


def _commit(write: Write, commit: Commit) -> list[EventRecord]:
    if not revisions.finish(write, commit.endpoint, commit.n, (commit.status, commit.message)):
        raise StorageFailed(f"{commit.endpoint} has no proposed revision {commit.n} to end")
    add_pins(write, commit.endpoint, commit.pins)
    if commit.audit is not None:
        write.add_numbered(commit.audit)
    if commit.idempotency is not None:
        journal.put_idempotency(write, commit.idempotency)
    if commit.applied is not None:
        revisions.add_applied(write, commit.applied)
    return [write.add_numbered(event) for event in commit.events]

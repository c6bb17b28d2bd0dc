"""The door to durable state: one transaction per transition, answered after the commit is on disk.

Not here: opening and migrating (``database``), tokens and journals (``tokens``, ``journal``), what states mean (``control``).
Next: ``transactions``, ``revisions``, ``journal``, ``tokens``, ``pins``.

Every method but ``now`` blocks on the disk: call it from a thread, never from the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from headgate.errors import StorageFailed
from headgate.store import applied_file, database, journal, revisions, trials
from headgate.store.chain import Damage, damages, damages_in_force
from headgate.store.checksums import damaged_applied, damaged_rows
from headgate.store.clock import Clock, stamp
from headgate.store.database import FolderLock, make_folders, open_engine, open_migrated
from headgate.store.models import (
    AppliedDocument,
    AuditRecord,
    EndpointRecord,
    EventRecord,
    IdempotencyRecord,
    OperationRecord,
    RevisionRecord,
    RevisionStatus,
    TrialRecord,
)
from headgate.store.outbox import StoreOutbox
from headgate.store.pins import StorePins, add_pins, check_pins
from headgate.store.plans import StorePlans
from headgate.store.references import digests_in, referenced_digests
from headgate.store.retention import (
    Journal,
    RetentionLimits,
    drop_journal,
    drop_revisions,
    droppable,
    dropped,
    endpoints_to_drop_from,
    floor,
    old_rows,
)
from headgate.store.revisions import StartRecord
from headgate.store.tokens import StoreTokens
from headgate.store.transactions import Transactions, Write
from headgate.store.trials import TrialKey

_log = logging.getLogger(__name__)


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
        applied = _compared_with(state) if url is None else None
        store = Store(state, Transactions(open_engine(state, url), clock), lock)
        store.applied = applied
        if applied is not None and applied.endpoints and not store.endpoints():
            store.transactions.close()
            raise _lost(state)
        return store
    except BaseException:
        lock.release()
        raise


def open_beside(state: Path) -> Store:
    """The store in a folder on which a gateway may run: it takes no lock and migrates nothing.

    :class:`~headgate.errors.StorageFailed` when there is none, or one of another version of Headgate.
    """
    return Store(state, Transactions(open_migrated(state)), None)


def _compared_with(state: Path) -> applied_file.Applied | None:
    """What was applied last, as the file beside the database says; :class:`StorageFailed` when there is no database to compare."""
    try:
        applied = applied_file.read_applied(state)
    except StorageFailed as error:
        _log.error("%s; it is written anew", error.message)
        return None
    file = state / database.FILE
    if applied is not None and applied.endpoints and not (file.exists() and file.stat().st_size):
        raise _lost(state)
    return applied


def _lost(state: Path) -> StorageFailed:
    """A start that served nothing would look like a new gateway. So it is refused, and somebody decides what is to be served."""
    return StorageFailed(
        f"the database of {state} is lost or empty, and endpoints were served from it: bring a backup back with `headgate state "
        f"restore FILE`, or the last applied state with `headgate state restore {state / applied_file.NAME}`, each into an empty "
        f"folder; to begin with nothing, remove {state / applied_file.NAME}"
    )


class Store:
    """Durable state of one gateway; thread-safe, one writer at a time."""

    def __init__(self, state: Path, transactions: Transactions, lock: FolderLock | None) -> None:
        """Use :func:`open_store`, or :func:`open_beside`."""
        self.state = state
        self.transactions = transactions
        self._lock = lock
        self.applied: applied_file.Applied | None = None
        """The last applied state as it was written beside the database."""
        self._compared = -1
        self.pins = StorePins(transactions)
        self.tokens = StoreTokens(transactions)
        self.plans = StorePlans(transactions)
        self.outbox = StoreOutbox(transactions)

    def close(self) -> None:
        """Closes the database and frees the folder; idempotent."""
        self.transactions.close()
        if self._lock is not None:
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

    def served_at(self, endpoint: str, when: datetime) -> int | None:
        """The number of the revision that was in force at a time; None if there was none, or if it was dropped."""
        with self.transactions.read() as session:
            found = revisions.applied_at(session, endpoint, stamp(when))
        return None if found is None or found.kind == "remove" else found.n

    def start_records(self, endpoint: str | None = None) -> list[StartRecord]:
        """What a start serves and completes, of all endpoints by name or of one: one transaction for all of them."""
        with self.transactions.read() as session:
            return revisions.start_records(session, endpoint)

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

    def damaged_applied(self) -> list[AppliedDocument]:
        """Rows of applied documents of which nobody knows any more what they said."""
        with self.transactions.read() as session:
            return damaged_applied(session)

    def add_applied(self, record: AppliedDocument) -> None:
        """Remembers an apply that had nothing to do, and so no revision of its own."""
        if (record.endpoint, record.digest) not in self.applied_from(record.path):
            with self.transactions.write() as write:
                revisions.add_applied(write, record)

    def check(self, endpoint: str | None = None) -> list[Damage]:
        """Every revision that is not as it was written, of one endpoint or of all; empty when all is whole. Reads everything."""
        with self.transactions.read() as session:
            return list(damages(session, endpoint))

    def check_in_force(self) -> list[Damage]:
        """What is wrong with what a start serves, the file of the last applied state compared; the history is not read."""
        with self.transactions.read() as session:
            found = list(damages_in_force(session))
            known = {(damage.endpoint, damage.n) for damage in found}
            forgotten = [] if self.applied is None else applied_file.lost(session, self.applied)
            return found + [damage for damage in forgotten if (damage.endpoint, damage.n) not in known]

    def check_newest(self) -> list[str]:
        """Whether the database has lost its newest writes: it is behind the file beside it. Call it before anything is written."""
        known = 0 if self.applied is None else self.applied.generation
        found = self.generation()
        if found >= known:
            return []
        return [
            f"the database has lost its newest writes: it is at generation {found}, and {applied_file.NAME} beside it at {known}; what "
            "was changed in between is as before, tokens, what versions stand for and the audit included"
        ]

    def check_rows(self) -> list[str]:
        """Tokens, pins and applied documents that are not as they were written, each with what is done about it."""
        try:
            with self.transactions.read() as session:
                return list(damaged_rows(session))
        except StorageFailed as error:
            return [error.message]

    def check_pages(self) -> list[str]:
        """What the database says of its own pages; empty when they are whole, and where it checks them itself."""
        try:
            with self.transactions.read() as session:
                return database.quick_check(session.connection())
        except StorageFailed as error:
            return [error.message]

    def write_applied(self, without: Collection[str] = ()) -> bool:
        """Brings the file of the last applied state up to date, but for damaged endpoints; whether there was something new."""
        with self.transactions.read() as session:
            if journal.generation(session) == self._compared:
                return False
            now = applied_file.newer(session, self.applied or applied_file.Applied(), without)
        applied_file.write_applied(self.state, now)
        self.applied, self._compared = now, now.generation
        return True

    def referenced_digests(self) -> set[str]:
        """Every digest that a revision, a pin or the file of the last applied state names. Reads all revisions."""
        with self.transactions.read() as session:
            found = referenced_digests(session)
        return found | digests_in(applied_file.text_of(self.state))

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

    def newest_events(self, cursor: int, *, limit: int, endpoint: str | None = None) -> list[EventRecord]:
        """The newest events after an id, oldest first."""
        with self.transactions.read() as session:
            return journal.newest_events(session, cursor, limit, endpoint)

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

    def operations(self, *, limit: int) -> list[OperationRecord]:
        """Operations that run or have ended, newest first."""
        with self.transactions.read() as session:
            return journal.operations(session, limit)

    def running_operations(self) -> list[OperationRecord]:
        """What a stop left running."""
        with self.transactions.read() as session:
            return journal.running_operations(session)

    def prune_operations(self, newest: int) -> None:
        """Forgets all operations that have ended but the newest. Writes nothing if there is nothing to forget."""
        with self.transactions.read() as session:
            if not journal.old_operations(session, newest):
                return
        with self.transactions.write() as write:
            journal.prune_operations(write.session, newest)

    # === trials ===

    def put_trials(self, records: Sequence[TrialRecord], live: Collection[TrialKey] = ()) -> None:
        """Replaces the states of these trials, and forgets the oldest of their endpoints; ``live`` go on and stay whole."""
        with self.transactions.write() as write:
            trials.put(write, records, live)

    def drop_trials_of_removed(self) -> bool:
        """Drops the trials of endpoints that were removed, as many as one transaction may; whether there may be more."""
        with self.transactions.read() as session:
            if not trials.of_removed(session):
                return False
        with self.transactions.write() as write:
            trials.drop_of_removed(write.session)
        return True

    def unfinished_trials(self) -> list[TrialKey]:
        """The trials that had not ended when they were last written. They are read one by one, because a row may be damaged."""
        with self.transactions.read() as session:
            return trials.unfinished(session)

    def trial(self, key: TrialKey) -> TrialRecord | None:
        """One trial as it was last written."""
        with self.transactions.read() as session:
            return session.get(TrialRecord, key)

    # === retention ===

    def drop_journal(self, which: Journal, kept: RetentionLimits) -> int:
        """Drops old rows of the events or the audit, as many as one transaction may; how many. Writes nothing if there are none."""
        with self.transactions.read() as session:
            if not old_rows(session, which, kept):
                return 0
        with self.transactions.write() as write:
            return drop_journal(write, which, kept)

    def floor(self, which: Journal) -> int:
        """The highest generation that was dropped from the events or the audit; 0 when none was."""
        with self.transactions.read() as session:
            return floor(session, which)

    def endpoints_to_drop_from(self, kept: RetentionLimits) -> set[str]:
        """The endpoints of which :meth:`drop_revisions` may drop something."""
        with self.transactions.read() as session:
            return endpoints_to_drop_from(session, kept)

    def drop_revisions(self, endpoint: str, kept: RetentionLimits, numbers: Collection[int]) -> int:
        """Drops old revisions but those with ``numbers``, as many as one transaction may; how many."""
        with self.transactions.write() as write:
            gone = droppable(write.session, endpoint, kept, self._numbers_kept(endpoint, numbers))
            return drop_revisions(write, endpoint, gone)

    def was_dropped(self, endpoint: str, n: int) -> bool:
        """Whether retention dropped revision ``n``."""
        with self.transactions.read() as session:
            return any(one.first <= n <= one.last for one in dropped(session, endpoint))

    def _numbers_kept(self, endpoint: str, numbers: Collection[int]) -> set[int]:
        """The file of the last applied state may lag behind; what it names must not look lost."""
        named = None if self.applied is None else self.applied.endpoints.get(endpoint)
        return {*numbers} if named is None else {*numbers, named.n}


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

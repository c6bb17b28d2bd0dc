"""Queries on idempotency, events, audit and operations, inside a transaction the caller owns.

Not here: transactions (``transactions``). Next: ``tokens``.
"""

from __future__ import annotations

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from headgate.store.columns import LARGEST
from headgate.store.models import AuditRecord, EventRecord, Generation, IdempotencyRecord, OperationRecord
from headgate.store.transactions import Write

_OPERATIONS_AT_ONCE = 5_000


def get_idempotency(session: Session, identity: tuple[str, str, str], now: str) -> IdempotencyRecord | None:
    """The record of ``(principal, route, key)``, unless it has expired."""
    found = session.get(IdempotencyRecord, identity)
    return None if found is None or found.expires <= now else found


def put_idempotency(write: Write, record: IdempotencyRecord) -> None:
    """Inserts or replaces a record and deletes those that have expired."""
    write.session.execute(
        delete(IdempotencyRecord)
        .where(IdempotencyRecord.expires <= write.now)
        .execution_options(synchronize_session=False)
    )
    write.session.merge(record)


def generation(session: Session) -> int:
    """The number of the newest write, 0 when there was none."""
    return session.scalars(select(Generation.value)).one()


def events_after(session: Session, cursor: int, limit: int, endpoint: str | None) -> list[EventRecord]:
    """Oldest first."""
    query = select(EventRecord).where(EventRecord.generation > min(cursor, LARGEST))
    if endpoint is not None:
        query = query.where(EventRecord.endpoint == endpoint)
    return list(session.scalars(query.order_by(EventRecord.generation).limit(limit)))


def audit(session: Session, endpoint: str | None, limit: int, before: int | None) -> list[AuditRecord]:
    """Newest first."""
    query = select(AuditRecord)
    if endpoint is not None:
        query = query.where(AuditRecord.endpoint == endpoint)
    if before is not None:
        query = query.where(AuditRecord.generation < min(before, LARGEST))
    return list(session.scalars(query.order_by(AuditRecord.generation.desc()).limit(limit)))


def newest_events(session: Session, cursor: int, limit: int, endpoint: str | None) -> list[EventRecord]:
    """The newest so many after ``cursor``, oldest first."""
    query = select(EventRecord).where(EventRecord.generation > min(cursor, LARGEST))
    if endpoint is not None:
        query = query.where(EventRecord.endpoint == endpoint)
    found = session.scalars(query.order_by(EventRecord.generation.desc()).limit(limit))
    return list(found)[::-1]


def operations(session: Session, limit: int) -> list[OperationRecord]:
    """Newest first."""
    newest = select(OperationRecord).order_by(OperationRecord.started.desc(), OperationRecord.id).limit(limit)
    return list(session.scalars(newest))


def put_audit(write: Write, record: AuditRecord) -> AuditRecord:
    """Inserts a row, or replaces the detail of one that has a number."""
    if record.generation == 0:
        return write.add_numbered(record)
    write.session.execute(
        update(AuditRecord)
        .where(AuditRecord.generation == record.generation)
        .values(detail=record.detail)
        .execution_options(synchronize_session=False)
    )
    return record


def running_operations(session: Session) -> list[OperationRecord]:
    """Oldest first."""
    query = select(OperationRecord).where(OperationRecord.status == "running")
    return list(session.scalars(query.order_by(OperationRecord.started, OperationRecord.id)))


def old_operations(session: Session, newest: int) -> list[str]:
    """Operations that have ended, but the newest; some of them, if they are many."""
    ended = select(OperationRecord.id).where(OperationRecord.status != "running")
    ordered = ended.order_by(OperationRecord.started.desc(), OperationRecord.id)
    return list(session.scalars(ordered.offset(newest).limit(_OPERATIONS_AT_ONCE)))


def prune_operations(session: Session, newest: int) -> None:
    """Drops :func:`old_operations`."""
    session.execute(delete(OperationRecord).where(OperationRecord.id.in_(old_operations(session, newest))))

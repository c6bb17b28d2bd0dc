"""Queries on idempotency, events, audit, operations and applied files, inside a session the caller owns.

Not here: transactions (``store``). Next: ``tokens``.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime
from typing import Literal, cast

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from headgate.store.clock import stamp
from headgate.store.models import AppliedFile, Audit, Event, Idempotency, Operation
from headgate.store.records import AuditRecord, EventRecord, IdempotencyRecord, OperationRecord


def get_idempotency(
    session: Session, identity: tuple[str, str, str], now: datetime
) -> IdempotencyRecord | None:
    """The record of ``(principal, route, key)``, unless it has expired."""
    row = session.get(Idempotency, identity)
    if row is None or row.expires <= stamp(now):
        return None
    return IdempotencyRecord(row.principal, row.route, row.key, row.request, row.response, row.expires)


def put_idempotency(session: Session, record: IdempotencyRecord, now: datetime) -> None:
    """Inserts or replaces a record and deletes those that have expired."""
    session.execute(delete(Idempotency).where(Idempotency.expires <= stamp(now)))
    session.merge(Idempotency(**asdict(record)))


def add_event(session: Session, event: EventRecord) -> EventRecord:
    """Appends an event and gives it back with its id."""
    values = asdict(event)
    del values["id"]
    row = Event(**values)
    session.add(row)
    session.flush()
    return replace(event, id=row.id)


def events_after(session: Session, cursor: int, limit: int, endpoint: str | None) -> list[EventRecord]:
    """Oldest first."""
    query = select(Event).where(Event.id > cursor).order_by(Event.id).limit(limit)
    if endpoint is not None:
        query = query.where(Event.endpoint == endpoint)
    return [
        EventRecord(row.type, row.when, row.endpoint, row.revision, row.who, row.reason, row.data, row.id)
        for row in session.scalars(query)
    ]


def last_event_id(session: Session) -> int:
    """0 when there is none."""
    return session.scalar(select(func.max(Event.id))) or 0


def add_audit(session: Session, record: AuditRecord) -> None:
    """Appends."""
    values = asdict(record)
    del values["id"]
    session.add(Audit(**values))


def audit(session: Session, endpoint: str | None, limit: int, before: int | None) -> list[AuditRecord]:
    """Newest first."""
    query = select(Audit).order_by(Audit.id.desc()).limit(limit)
    if endpoint is not None:
        query = query.where(Audit.endpoint == endpoint)
    if before is not None:
        query = query.where(Audit.id < before)
    return [
        AuditRecord(
            when=row.when,
            who=row.who,
            role=row.role,
            action=row.action,
            endpoint=row.endpoint,
            revision=row.revision,
            outcome=row.outcome,
            reason=row.reason,
            detail=row.detail,
            id=row.id,
        )
        for row in session.scalars(query)
    ]


def put_operation(session: Session, record: OperationRecord) -> None:
    """Inserts or replaces."""
    session.merge(Operation(**asdict(record)))


def get_operation(session: Session, operation_id: str) -> OperationRecord | None:
    """One operation."""
    row = session.get(Operation, operation_id)
    return None if row is None else _operation(row)


def running_operations(session: Session) -> list[OperationRecord]:
    """Oldest first."""
    rows = session.scalars(select(Operation).where(Operation.status == "running").order_by(Operation.started))
    return [_operation(row) for row in rows]


def _operation(row: Operation) -> OperationRecord:
    status = cast(Literal["running", "done", "failed"], row.status)
    return OperationRecord(
        row.id, row.endpoint, row.kind, status, row.started, row.finished, row.result, row.problem
    )


def prune(session: Session, events: int, operations: int) -> None:
    """Keeps the newest ``events``, the newest ``operations`` that have ended, and those that run."""
    session.execute(delete(Event).where(Event.id <= last_event_id(session) - events))
    ended = select(Operation.id).where(Operation.status != "running")
    old = ended.order_by(Operation.started.desc(), Operation.id).limit(-1).offset(operations)
    session.execute(delete(Operation).where(Operation.id.in_(session.scalars(old).all())))


def applied_file(session: Session, path: str) -> str | None:
    """The digest last applied from ``path``."""
    row = session.get(AppliedFile, path)
    return None if row is None else row.digest


def put_applied_file(session: Session, path: str, digest: str, now: datetime) -> None:
    """Inserts or replaces."""
    session.merge(AppliedFile(path=path, digest=digest, when=stamp(now)))

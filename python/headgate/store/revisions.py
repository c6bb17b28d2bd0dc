"""Queries on revisions, the endpoints' pointers and the blocks in force, inside a session the caller owns.

Not here: transactions (``store``). Next: ``journal``.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import cast

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.orm import Session

from headgate.errors import StorageFailed
from headgate.store.models import Block, Endpoint, Revision
from headgate.store.records import BlockRecord, EndpointRecord, RevisionKind, RevisionRecord, RevisionStatus

_LARGEST = 2**63 - 1
"""More than any database keeps as a number of a revision."""


def endpoints(session: Session) -> list[EndpointRecord]:
    """All endpoints by name."""
    rows = session.scalars(select(Endpoint).order_by(Endpoint.name))
    return [EndpointRecord(row.name, row.applied, row.tail, row.removed) for row in rows]


def append(session: Session, record: RevisionRecord) -> None:
    """Inserts ``record`` and moves the endpoint's tail to it; a number that is not the next one is refused."""
    pointer = session.get(Endpoint, record.endpoint)
    tail = pointer.tail if pointer is not None else 0
    if record.n != tail + 1:
        raise StorageFailed(
            f"{record.endpoint}: revision {record.n} cannot follow revision {tail}: the state was changed by another writer"
        )
    if pointer is None:
        session.add(Endpoint(name=record.endpoint, applied=None, tail=record.n, removed=False))
    else:
        pointer.tail = record.n
    values = asdict(record)
    values["given"] = [list(run) for run in record.given]
    values["blocks"] = [asdict(block) for block in record.blocks]
    session.execute(insert(Revision).values(**values))


def finish(session: Session, endpoint: str, n: int, status: RevisionStatus, message: str | None) -> bool:
    """Moves a proposed revision to ``status``; ``applied`` also moves the pointer and the blocks. False: nothing to move."""
    changed = session.execute(
        update(Revision)
        .where(Revision.endpoint == endpoint, Revision.n == n, Revision.status == "proposed")
        .values(status=status, message=message)
        .returning(Revision.kind, Revision.blocks)
    ).one_or_none()
    if changed is None:
        return False
    if status == "applied":
        _point_to(session, endpoint, n, changed.kind, changed.blocks)
    return True


def _point_to(
    session: Session, endpoint: str, n: int, kind: str, blocks: list[dict[str, str | None]]
) -> None:
    # Revisions that pass each other in the data plane may be confirmed in another order: the highest number is the state.
    moved = session.execute(
        update(Endpoint)
        .where(Endpoint.name == endpoint, or_(Endpoint.applied.is_(None), Endpoint.applied < n))
        .values(applied=n, removed=kind == "remove")
        .returning(Endpoint.name)
    ).one_or_none()
    if moved is None:
        return
    session.execute(delete(Block).where(Block.endpoint == endpoint))
    if blocks:
        session.execute(insert(Block), [{"endpoint": endpoint, **block} for block in blocks])


def get(session: Session, endpoint: str, n: int) -> RevisionRecord | None:
    """One revision."""
    if not 0 < n <= _LARGEST:
        return None
    row = session.get(Revision, (endpoint, n))
    return None if row is None else _record(row)


def newest(session: Session, endpoint: str, limit: int, before: int | None) -> list[RevisionRecord]:
    """Newest first."""
    query = select(Revision).where(Revision.endpoint == endpoint).order_by(Revision.n.desc()).limit(limit)
    if before is not None:
        query = query.where(Revision.n < before)
    return [_record(row) for row in session.scalars(query)]


def proposed(session: Session, endpoint: str) -> list[RevisionRecord]:
    """Oldest first."""
    query = (
        select(Revision)
        .where(Revision.endpoint == endpoint, Revision.status == "proposed")
        .order_by(Revision.n)
    )
    return [_record(row) for row in session.scalars(query)]


def _record(row: Revision) -> RevisionRecord:
    return RevisionRecord(
        endpoint=row.endpoint,
        n=row.n,
        parent=row.parent,
        kind=cast(RevisionKind, row.kind),
        status=cast(RevisionStatus, row.status),
        who=row.who,
        when=row.when,
        reason=row.reason,
        document=row.document,
        document_digest=row.document_digest,
        source=row.source,
        source_digest=row.source_digest,
        champion=row.champion,
        salt=row.salt,
        given=tuple((run[0], run[1], run[2]) for run in row.given),
        attempt=row.attempt,
        last_good=row.last_good,
        since=row.since,
        frozen=row.frozen,
        blocks=tuple(BlockRecord(**block) for block in row.blocks),
        resolved=row.resolved,
        message=row.message,
    )

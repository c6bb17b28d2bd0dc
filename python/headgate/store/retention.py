"""Drops old rows, a bounded number in a transaction, and leaves a trace of what was dropped.

Not here: which revisions must stay whatever their age (``control.writes.retention``). Next: ``chain``.

Revisions that were dropped leave their range of numbers and the digest of the last one, so that the chain goes on from it. Journals
leave a floor: the highest generation that was dropped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import Session

from headgate.store.models import (
    AuditRecord,
    DocumentRecord,
    DroppedRevisions,
    EndpointRecord,
    EventRecord,
    Floor,
    RevisionRecord,
)
from headgate.store.transactions import Write

AT_ONCE = 500
"""Rows that are dropped in one transaction at most."""

Journal = Literal["events", "audit"]
_TABLES: dict[Journal, type[EventRecord] | type[AuditRecord]] = {"events": EventRecord, "audit": AuditRecord}


@dataclass(frozen=True)
class RetentionLimits:
    """What stays: the ``newest`` rows, and all that are not older than ``since`` (a stamp; None: age keeps nothing)."""

    newest: int
    since: str | None = None


def droppable(session: Session, endpoint: str, kept: RetentionLimits, numbers: Collection[int]) -> list[int]:
    """The oldest revisions that neither their age, their place nor ``numbers`` keeps, oldest first; at most ``AT_ONCE``.

    The revision in force, the one before it and all after it stay, and so does what was never ended.
    """
    pointer = session.get(EndpointRecord, endpoint)
    if pointer is None or pointer.applied is None:
        return []
    below = min(pointer.applied - 1, pointer.tail - kept.newest + 1)
    query = select(RevisionRecord.n).where(
        RevisionRecord.endpoint == endpoint, RevisionRecord.n < below, RevisionRecord.status != "proposed"
    )
    if kept.since is not None:
        query = query.where(RevisionRecord.when < kept.since)
    if numbers:
        query = query.where(RevisionRecord.n.not_in(numbers))
    return list(session.scalars(query.order_by(RevisionRecord.n).limit(AT_ONCE)))


def endpoints_to_drop_from(session: Session, kept: RetentionLimits) -> set[str]:
    """The endpoints of which :func:`droppable` finds something if no number is named: one statement for all."""
    query = (
        select(RevisionRecord.endpoint)
        .distinct()
        .join(EndpointRecord, EndpointRecord.name == RevisionRecord.endpoint)
        .where(
            RevisionRecord.n < EndpointRecord.applied - 1,
            RevisionRecord.n < EndpointRecord.tail - kept.newest + 1,
            RevisionRecord.status != "proposed",
        )
    )
    if kept.since is not None:
        query = query.where(RevisionRecord.when < kept.since)
    return set(session.scalars(query))


def drop_revisions(write: Write, endpoint: str, numbers: Collection[int]) -> int:
    """Drops these revisions and the documents that no other revision has; how many were dropped."""
    session = write.session
    where = (RevisionRecord.endpoint == endpoint, RevisionRecord.n.in_(numbers))
    gone = session.execute(
        select(RevisionRecord.n, RevisionRecord.digest, RevisionRecord.document).where(*where)
    ).all()
    if not gone:
        return 0
    session.execute(delete(RevisionRecord).where(*where).execution_options(synchronize_session=False))
    _leave_ranges(write, endpoint, [(row.n, row.n, row.digest) for row in gone])
    documents = {row.document for row in gone}
    used = exists().where(RevisionRecord.document == DocumentRecord.digest)
    session.execute(
        delete(DocumentRecord)
        .where(DocumentRecord.digest.in_(documents), ~used)
        .execution_options(synchronize_session=False)
    )
    return len(gone)


def _leave_ranges(write: Write, endpoint: str, added: Iterable[tuple[int, int, str]]) -> None:
    present = dropped(write.session, endpoint)
    ranges = sorted([*added, *((one.first, one.last, one.digest) for one in present)])
    joined: list[tuple[int, int, str]] = []
    for first, last, digest in ranges:
        if joined and joined[-1][1] + 1 == first:
            first = joined.pop()[0]  # noqa: PLW2901 - the range grows
        joined.append((first, last, digest))
    write.session.execute(
        delete(DroppedRevisions)
        .where(DroppedRevisions.endpoint == endpoint)
        .execution_options(synchronize_session=False)
    )
    for first, last, digest in joined:
        write.add(DroppedRevisions(endpoint, first, last, digest))


def dropped(session: Session, endpoint: str) -> list[DroppedRevisions]:
    """The ranges of revisions that were dropped, the oldest first."""
    query = select(DroppedRevisions).where(DroppedRevisions.endpoint == endpoint)
    return list(session.scalars(query.order_by(DroppedRevisions.first)))


def old_rows(session: Session, journal: Journal, kept: RetentionLimits) -> list[int]:
    """The oldest rows that are neither among the newest nor young; at most ``AT_ONCE``."""
    table = _TABLES[journal]
    newest = select(table.generation).order_by(table.generation.desc()).offset(kept.newest).limit(1)
    last = session.scalar(newest)
    if last is None:
        return []
    query = select(table.generation).where(table.generation <= last)
    if kept.since is not None:
        query = query.where(table.when < kept.since)
    return list(session.scalars(query.order_by(table.generation).limit(AT_ONCE)))


def drop_journal(write: Write, journal: Journal, kept: RetentionLimits) -> int:
    """Drops :func:`old_rows`; how many."""
    table, session = _TABLES[journal], write.session
    gone = old_rows(session, journal, kept)
    if not gone:
        return 0
    session.execute(
        delete(table).where(table.generation.in_(gone)).execution_options(synchronize_session=False)
    )
    present = floor(session, journal)
    session.execute(delete(Floor).where(Floor.journal == journal))
    write.add(Floor(journal, max(present, gone[-1])))
    return len(gone)


def floor(session: Session, journal: Journal) -> int:
    """The highest generation that was dropped from a journal; 0 when none was."""
    return session.scalar(select(func.max(Floor.generation)).where(Floor.journal == journal)) or 0

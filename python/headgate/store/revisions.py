"""Queries on revisions, their documents and the endpoints' pointers, inside a transaction the caller owns.

Not here: transactions (``transactions``). Next: ``journal``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy import exists, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from headgate.errors import RevisionConflict, StorageFailed
from headgate.store.chain import chain_digest
from headgate.store.checksums import checked, damaged_applied, is_whole
from headgate.store.columns import LARGEST, plain
from headgate.store.models import (
    AppliedDocument,
    DocumentRecord,
    EndpointRecord,
    RevisionRecord,
    RevisionStatus,
)
from headgate.store.transactions import Write


def endpoints(session: Session) -> list[EndpointRecord]:
    """All endpoints by name."""
    return list(session.scalars(select(EndpointRecord).order_by(EndpointRecord.name)))


def append(write: Write, record: RevisionRecord, content: bytes | None) -> None:
    """Inserts ``record`` as proposed and moves the endpoint's tail to it.

    :class:`RevisionConflict` when its number is taken: another writer was there first. ``content`` is its document, None for one
    that is stored already.
    """
    session, name = write.session, record.endpoint
    pointer = session.get(EndpointRecord, name)
    tail = 0 if pointer is None else pointer.tail
    if record.n <= tail:
        raise taken(record, tail)
    if record.n > tail + 1:
        raise StorageFailed(
            f"{name}: revision {record.n} cannot follow revision {tail}: the state was exchanged under the running gateway"
        )
    if not session.scalar(select(exists().where(DocumentRecord.digest == record.document))):
        if content is None:
            raise StorageFailed(
                f"{name}: the store has lost the document {record.document} of revision {record.n}"
            )
        write.add(DocumentRecord(record.document, content))
    before = "" if tail == 0 else session.get_one(RevisionRecord, (name, tail)).digest
    digest = chain_digest(before, plain(record.body))
    try:
        write.add(replace(record, status="proposed", digest=digest, generation=write.generation, ended=None))
    except IntegrityError as error:
        # The key is what keeps two revisions of one number apart, whatever was read before.
        raise taken(record, tail) from error
    if pointer is None:
        write.add(EndpointRecord(name, None, record.n, False, write.generation))
    else:
        pointer.tail, pointer.generation = record.n, write.generation


def taken(record: RevisionRecord, present: int) -> RevisionConflict:
    """The exception for a number that another writer took first."""
    return RevisionConflict(
        f"{record.endpoint} is at revision {present} by now, so revision {record.n} cannot be written: read it again",
        detail={"revision": present},
    )


def finish(write: Write, endpoint: str, n: int, ended: tuple[RevisionStatus, str | None]) -> bool:
    """Moves a proposed revision to a status, with a message; ``applied`` also moves the pointer. False: nothing to move."""
    status, message = ended
    kind = write.session.execute(
        update(RevisionRecord)
        .where(
            RevisionRecord.endpoint == endpoint, RevisionRecord.n == n, RevisionRecord.status == "proposed"
        )
        .values(status=status, message=message, ended=write.generation)
        .returning(RevisionRecord.kind)
        .execution_options(synchronize_session=False)
    ).scalar_one_or_none()
    if kind is None:
        return False
    if status == "applied":
        # Revisions that pass each other in the data plane may be confirmed in another order: the highest number is the state.
        write.session.execute(
            update(EndpointRecord)
            .where(
                EndpointRecord.name == endpoint,
                or_(EndpointRecord.applied.is_(None), EndpointRecord.applied < n),
            )
            .values(applied=n, removed=kind == "remove", generation=write.generation)
            .execution_options(synchronize_session=False)
        )
    return True


def get(session: Session, endpoint: str, n: int) -> RevisionRecord | None:
    """One revision."""
    return session.get(RevisionRecord, (endpoint, n)) if 0 < n <= LARGEST else None


def newest(session: Session, endpoint: str, limit: int, before: int | None) -> list[RevisionRecord]:
    """Newest first."""
    query = select(RevisionRecord).where(RevisionRecord.endpoint == endpoint)
    if before is not None:
        query = query.where(RevisionRecord.n < min(before, LARGEST))
    return list(session.scalars(query.order_by(RevisionRecord.n.desc()).limit(limit)))


@dataclass(frozen=True)
class StartRecord:
    """What a start reads of one endpoint: its revision in force, those that a stop left proposed (oldest first), and their documents
    by digest. A row or document that is missing is left out.
    """

    pointer: EndpointRecord
    in_force: RevisionRecord | None
    proposed: tuple[RevisionRecord, ...]
    documents: Mapping[str, bytes]


def applied_at(session: Session, endpoint: str, when: str) -> RevisionRecord | None:
    """The newest one that was applied and is not younger than a stamp; None if the one behind it was dropped, which may be older than
    the stamp as well.
    """
    query = select(RevisionRecord).where(
        RevisionRecord.endpoint == endpoint, RevisionRecord.status == "applied", RevisionRecord.when <= when
    )
    found = session.scalar(query.order_by(RevisionRecord.n.desc()).limit(1))
    pointer = session.get(EndpointRecord, endpoint)
    if found is None or pointer is None:
        return None
    was_dropped = found.n < pointer.tail and get(session, endpoint, found.n + 1) is None
    return None if was_dropped else found


def start_records(session: Session, endpoint: str | None) -> list[StartRecord]:
    """One for each endpoint by name, or that of one endpoint: two statements, however many there are."""
    pointers = select(EndpointRecord).order_by(EndpointRecord.name)
    rows = (
        select(RevisionRecord, DocumentRecord.content)
        .join(EndpointRecord, EndpointRecord.name == RevisionRecord.endpoint)
        .outerjoin(DocumentRecord, DocumentRecord.digest == RevisionRecord.document)
        .where(or_(RevisionRecord.n == EndpointRecord.applied, RevisionRecord.status == "proposed"))
        .order_by(RevisionRecord.endpoint, RevisionRecord.n)
    )
    if endpoint is not None:
        pointers = pointers.where(EndpointRecord.name == endpoint)
        rows = rows.where(RevisionRecord.endpoint == endpoint)
    found: dict[str, list[tuple[RevisionRecord, bytes | None]]] = {}
    for row, content in session.execute(rows):
        found.setdefault(row.endpoint, []).append((row, content))
    return [
        StartRecord(
            pointer,
            next((row for row, _ in found.get(pointer.name, []) if row.n == pointer.applied), None),
            tuple(row for row, _ in found.get(pointer.name, []) if row.status == "proposed"),
            {row.document: content for row, content in found.get(pointer.name, []) if content is not None},
        )
        for pointer in session.scalars(pointers)
    ]


def document(session: Session, digest: str) -> bytes | None:
    """The bytes of a document."""
    return session.scalar(select(DocumentRecord.content).where(DocumentRecord.digest == digest))


def applied_from(session: Session, path: str) -> frozenset[tuple[str, str]]:
    """Endpoint and digest of every document that was ever applied from a file; damaged rows are left out."""
    query = select(AppliedDocument).where(AppliedDocument.path == path)
    return frozenset((row.endpoint, row.digest) for row in session.scalars(query) if is_whole(row))


def add_applied(write: Write, record: AppliedDocument) -> None:
    """Remembers an applied document; the first time stays. It takes the place of damaged rows of its file or its endpoint."""
    for damaged in damaged_applied(write.session, beside=record):
        write.session.delete(damaged)
    write.session.flush()
    if write.session.get(AppliedDocument, (record.path, record.endpoint, record.digest)) is None:
        write.add(checked(replace(record, generation=write.generation)))

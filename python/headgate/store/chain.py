"""The chain of an endpoint's revisions: each digest covers the body of its revision and the digest of the one before it.

Not here: what a body says (``control``), what is done about damage. Next: ``revisions``.

So a byte that was flipped in a body, and a revision that was lost or put in, are found. A document is found by its own digest.
Revisions that retention dropped have left their numbers and the last digest (``DroppedRevisions``): the chain goes on from there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from headgate.store.models import DocumentRecord, DroppedRevisions, EndpointRecord, RevisionRecord

_ROWS = 200
_OTHER_BODY = "its body is not the one that was written, or not after that revision"


@dataclass(frozen=True)
class Damage:
    """What is wrong with a revision."""

    endpoint: str
    n: int
    what: str


def content_digest(content: bytes) -> str:
    """``sha256:`` and the digest in hexadecimal."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def chain_digest(before: str, body: str) -> str:
    """The digest of a revision after the one with the digest ``before`` (empty: the first). A digest holds no line break, so no
    two pairs give the same bytes.
    """
    return content_digest(f"{before}\n{body}".encode())


def damages(session: Session, endpoint: str | None) -> Iterator[Damage]:
    """Every revision that is not as it was written, of one endpoint or of all; reads everything."""
    whole = _whole_documents(session)
    columns = (RevisionRecord.endpoint, RevisionRecord.n, RevisionRecord.body, RevisionRecord.digest,
               RevisionRecord.document, RevisionRecord.status)  # fmt: skip
    query = select(*columns).order_by(RevisionRecord.endpoint, RevisionRecord.n)
    pointers = select(EndpointRecord).order_by(EndpointRecord.name)
    if endpoint is not None:
        query = query.where(RevisionRecord.endpoint == endpoint)
        pointers = pointers.where(EndpointRecord.name == endpoint)
    known = {pointer.name: pointer for pointer in session.scalars(pointers)}
    ranges = _ranges(session)
    rows = session.execute(query.execution_options(yield_per=_ROWS))
    for name, revisions in groupby(rows, key=lambda row: str(row.endpoint)):
        pointer = known.pop(name, None)
        yield from _damages_of(name, pointer, revisions, _ChainContext(whole, ranges.get(name, {})))
    for name, pointer in known.items():
        yield Damage(name, pointer.tail, "all its revisions are missing")


@dataclass(frozen=True)
class _ChainContext:
    """What the revisions of an endpoint are compared with: whole documents, and dropped ranges by their first number."""

    whole: set[str]
    ranges: dict[int, DroppedRevisions]


def _ranges(session: Session) -> dict[str, dict[int, DroppedRevisions]]:
    found: dict[str, dict[int, DroppedRevisions]] = {}
    for one in session.scalars(select(DroppedRevisions)):
        found.setdefault(one.endpoint, {})[one.first] = one
    return found


def _damages_of(
    name: str,
    pointer: EndpointRecord | None,
    rows: Iterator[Any],
    beside: _ChainContext,
) -> Iterator[Damage]:
    before, last, applied = "", 0, None
    for row in rows:
        gone = beside.ranges.pop(last + 1, None)
        if gone is not None:
            before, last = gone.digest, gone.last
        if row.n != last + 1:
            yield Damage(name, row.n, f"revision {row.n - 1} is missing before it")
        elif chain_digest(before, row.body) != row.digest:
            yield Damage(name, row.n, _OTHER_BODY)
        if row.document not in beside.whole:
            yield Damage(name, row.n, f"its document {row.document} is missing or has other bytes")
        before, last = row.digest, row.n
        applied = row.n if row.status == "applied" else applied
    for gone in beside.ranges.values():
        yield Damage(
            name, gone.first, "the row that says which revisions were dropped contradicts the others"
        )
    yield from _pointer_damages(name, pointer, last, applied)


def damages_in_force(session: Session) -> Iterator[Damage]:
    """What is wrong with what a start serves: every endpoint's pointer, and its revisions from the one in force on. Reads no
    history, so that a start can wait for it.
    """
    pointers = {pointer.name: pointer for pointer in session.scalars(select(EndpointRecord))}
    applied = func.max(case((RevisionRecord.status == "applied", RevisionRecord.n)))
    numbers = select(RevisionRecord.endpoint, func.max(RevisionRecord.n), applied).group_by(
        RevisionRecord.endpoint
    )
    known = {name: (last, in_force) for name, last, in_force in session.execute(numbers)}
    for name in sorted(pointers.keys() | known.keys()):
        last, in_force = known.get(name, (0, None))
        yield from _pointer_damages(name, pointers.get(name), last, in_force)
    columns = (RevisionRecord.endpoint, RevisionRecord.n, RevisionRecord.body, RevisionRecord.digest,
               RevisionRecord.kind, EndpointRecord.applied, EndpointRecord.removed, DocumentRecord.digest.label("document"),
               DocumentRecord.content)  # fmt: skip
    rows = session.execute(
        select(*columns)
        .join(EndpointRecord, EndpointRecord.name == RevisionRecord.endpoint)
        .outerjoin(DocumentRecord, DocumentRecord.digest == RevisionRecord.document)
        .where(RevisionRecord.n >= func.coalesce(EndpointRecord.applied, 1) - 1)
        .order_by(RevisionRecord.endpoint, RevisionRecord.n)
        .execution_options(yield_per=_ROWS)
    )
    for name, revisions in groupby(rows, key=lambda row: str(row.endpoint)):
        yield from _damages_in_force(name, revisions)


def _damages_in_force(name: str, rows: Iterator[Any]) -> Iterator[Damage]:
    before, last = "", 0
    for row in rows:
        if row.n >= (row.applied or 1):
            if row.n != last + 1:
                yield Damage(name, row.n, f"revision {row.n - 1} is missing before it")
            elif chain_digest(before, row.body) != row.digest:
                yield Damage(name, row.n, _OTHER_BODY)
            if row.document is None or content_digest(row.content) != row.document:
                yield Damage(name, row.n, "its document is missing or has other bytes")
        if row.n == row.applied and row.removed != (row.kind == "remove"):
            yield Damage(name, row.n, "whether the endpoint was removed contradicts its revision")
        before, last = row.digest, row.n


def _pointer_damages(
    name: str, pointer: EndpointRecord | None, last: int, applied: int | None
) -> Iterator[Damage]:
    if pointer is None:
        yield Damage(name, last, "the line that says which revision is in force is missing")
        return
    tail, points = pointer.tail, pointer.applied
    if tail != last:
        yield Damage(name, max(tail, last), f"the highest number used should be {last}, and is {tail}")
    if points != applied:
        yield Damage(name, points or last, f"the revision in force should be {applied}, and is {points}")


def _whole_documents(session: Session) -> set[str]:
    query = select(DocumentRecord.digest, DocumentRecord.content).execution_options(yield_per=_ROWS)
    return {row.digest for row in session.execute(query) if content_digest(row.content) == row.digest}

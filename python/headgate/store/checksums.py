"""Checksums of rows that stand alone: tokens, pins, applied documents. A revision has the chain instead.

A checksum finds a byte that was flipped, not somebody who computes it anew. When a token was used last is not covered: it is written
every minute, and gives no rights. Not here: what is done about damage. Next: ``tokens``, ``pins``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from headgate.store.chain import content_digest
from headgate.store.clock import stamp, unstamp
from headgate.store.models import AppliedDocument, PinRecord, TokenRecord

Checked = TypeVar("Checked", TokenRecord, PinRecord, AppliedDocument)

_TOKEN_REMEDY = "it is refused: revoke it, and make another one (`headgate token create`)"  # noqa: S105 - words
_PIN_REMEDY = "documents with that version are refused: `headgate models unpin` it, and it is pinned anew to what is served"
_APPLIED_REMEDY = "files are not applied at a start in its place: `headgate apply` the file once by hand"


def checked(record: Checked) -> Checked:
    """The record with its checksum."""
    return replace(record, checksum=_checksum(record))


def is_whole(record: TokenRecord | PinRecord | AppliedDocument) -> bool:
    """Whether a row is as it was written."""
    return _checksum(record) == record.checksum


def damaged_rows(session: Session) -> Iterator[str]:
    """What is damaged, each with what is done about it; reads all three tables."""
    for token in session.scalars(select(TokenRecord).order_by(TokenRecord.id)):
        if not is_whole(token):
            yield f"the row of token {token.id} ({token.name}) has other bytes than were written; {_TOKEN_REMEDY}"
    for pin in session.scalars(select(PinRecord).order_by(PinRecord.endpoint, PinRecord.version)):
        if not is_whole(pin):
            yield f"the pin of version {pin.version} of {pin.endpoint} has other bytes than were written; {_PIN_REMEDY}"
    for file in damaged_applied(session):
        yield (
            f"the row of a document of {file.endpoint}, applied from {file.path}, has other bytes than were written; "
            f"{_APPLIED_REMEDY}"
        )


def damaged_applied(session: Session, beside: AppliedDocument | None = None) -> list[AppliedDocument]:
    """The rows of applied documents that are damaged: all, or those with the file or the endpoint of ``beside``."""
    query = select(AppliedDocument).order_by(AppliedDocument.path, AppliedDocument.endpoint)
    if beside is not None:
        query = query.where(
            or_(AppliedDocument.path == beside.path, AppliedDocument.endpoint == beside.endpoint)
        )
    return [record for record in session.scalars(query) if not is_whole(record)]


def _checksum(record: TokenRecord | PinRecord | AppliedDocument) -> str:
    values = json.dumps(_values(record), ensure_ascii=False, separators=(",", ":"))
    return content_digest(values.encode(errors="surrogatepass"))


def _values(record: TokenRecord | PinRecord | AppliedDocument) -> list[str | int | None]:
    if isinstance(record, TokenRecord):
        named = [record.id, record.sha256, record.role, record.name]
        return [*named, _stamp(record.created), _stamp(record.expires), _stamp(record.revoked)]
    if isinstance(record, PinRecord):
        return [record.endpoint, record.version, record.digest, _stamp(record.when)]
    return [record.path, record.endpoint, record.digest, record.generation]


def _stamp(text: str | None) -> str | None:
    """As the column keeps it; what is no stamp is damage, and stays as it is."""
    try:
        return None if text is None else stamp(unstamp(text))
    except ValueError:
        return text

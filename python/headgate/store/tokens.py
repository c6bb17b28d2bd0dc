"""Bearer tokens at rest. Not here: how a token is made, read from a request or judged (``admin.tokens``). Next: ``pins``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from headgate.store.clock import stamp
from headgate.store.journal import add_audit
from headgate.store.models import Token
from headgate.store.records import AuditRecord, TokenRecord

if TYPE_CHECKING:
    from headgate.store.store import Store


class StoreTokens:
    """The table of tokens; every change is written with its audit entry."""

    def __init__(self, store: Store) -> None:
        """Use ``Store.tokens``."""
        self._store = store

    def add(self, record: TokenRecord, audit: AuditRecord) -> None:
        """Appends a token."""
        with self._store.write() as session:
            session.add(Token(**asdict(record)))
            add_audit(session, audit)

    def get(self, token_id: str) -> TokenRecord | None:
        """One token, revoked and expired ones included."""
        with self._store.read() as session:
            row = session.get(Token, token_id)
            return None if row is None else _record(row)

    def list(self) -> list[TokenRecord]:
        """All tokens, oldest first."""
        with self._store.read() as session:
            return [_record(row) for row in session.scalars(select(Token).order_by(Token.created, Token.id))]

    def revoke(self, token_id: str, audit: AuditRecord) -> TokenRecord | None:
        """Marks a token as revoked now; the time of the first revocation stays. None: no such token."""
        with self._store.write() as session:
            row = session.get(Token, token_id)
            if row is None:
                return None
            if row.revoked is None:
                row.revoked = stamp(self._store.clock())
                add_audit(session, audit)
            session.flush()
            return _record(row)

    def touch(self, token_id: str, when: str) -> None:
        """Notes the last use."""
        with self._store.write() as session:
            session.execute(update(Token).where(Token.id == token_id).values(last_used=when))


def _record(row: Token) -> TokenRecord:
    return TokenRecord(
        row.id, row.sha256, row.role, row.name, row.created, row.expires, row.last_used, row.revoked
    )

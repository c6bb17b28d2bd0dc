"""Bearer tokens at rest. Not here: how a token is made, read from a request or judged (``admin.tokens``). Next: ``pins``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import select, update

from headgate.errors import Conflict
from headgate.store.checksums import checked, is_whole
from headgate.store.models import AuditRecord, TokenRecord
from headgate.store.transactions import Transactions, Write


class StoreTokens:
    """The table of tokens; every change is written with its audit entry."""

    def __init__(self, transactions: Transactions) -> None:
        """Use ``Store.tokens``."""
        self._transactions = transactions

    def add(self, record: TokenRecord, audit: AuditRecord) -> None:
        """Appends a token."""
        with self._transactions.write() as write:
            write.add(checked(record))
            write.add_numbered(audit)

    def get(self, token_id: str) -> TokenRecord | None:
        """One token, revoked and expired ones included."""
        with self._transactions.read() as session:
            return session.get(TokenRecord, token_id)

    def list(self) -> list[TokenRecord]:
        """All tokens, oldest first."""
        with self._transactions.read() as session:
            return list(session.scalars(select(TokenRecord).order_by(TokenRecord.created, TokenRecord.id)))

    def revoke(self, token_id: str, audit: AuditRecord, *, force: bool = False) -> TokenRecord | None:
        """Marks a token as revoked now; the time of the first revocation stays. None: no such token.

        :class:`Conflict` for the last admin token that can be used, unless forced: nobody could make another one.
        """
        with self._transactions.write() as write:
            record = write.session.get(TokenRecord, token_id)
            if record is None:
                return None
            if record.revoked is None and not force and _is_last_admin(write, record):
                raise Conflict(
                    f"{token_id} is the last admin token that can be used: make another one first "
                    "(`headgate token create --role admin`), or revoke it with force"
                )
            write.add_numbered(audit if record.revoked is None else replace(audit, outcome="already"))
            record.revoked = record.revoked or write.now
            # A damaged token that is revoked is whole again: it has no rights that could be wrong.
            record.checksum = checked(record).checksum
            return record

    def touch(self, uses: Mapping[str, str]) -> None:
        """Notes the last use of tokens, by their ids."""
        with self._transactions.write() as write:
            for token_id, when in uses.items():
                write.session.execute(
                    update(TokenRecord).where(TokenRecord.id == token_id).values(last_used=when)
                )


def _is_last_admin(write: Write, record: TokenRecord) -> bool:
    admins = write.session.scalars(select(TokenRecord).where(TokenRecord.role == "admin"))
    usable = [
        one.id
        for one in admins
        if one.revoked is None and is_whole(one) and (one.expires is None or one.expires > write.now)
    ]
    return usable == [record.id]

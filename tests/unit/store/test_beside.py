"""A store beside the one of a gateway that runs."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from headgate.errors import Conflict, StorageFailed
from headgate.store import AuditRecord, TokenRecord, open_beside, open_store

TOKEN = TokenRecord("kid", "hash", "admin", "me", "2027-03-01T03:12:04.000000Z", None, None, None)
AUDIT = AuditRecord(
    "2027-03-01T03:12:04.000000Z", "offline", "admin", "token_create", None, None, "applied", ""
)


def test_it_writes_while_a_gateway_holds_the_folder_and_both_number_their_writes(tmp_path: Path) -> None:
    gateway = open_store(tmp_path)
    try:
        beside = open_beside(tmp_path)
        beside.tokens.add(TOKEN, AUDIT)
        found = gateway.tokens.get("kid")
        assert found is not None
        assert found.name == "me"
        gateway.tokens.touch({"kid": TOKEN.created})
        beside.tokens.revoke("kid", AUDIT, force=True)
        beside.close()
        numbers = [entry.generation for entry in gateway.audit(endpoint=None, limit=10, before=None)]
        assert numbers == sorted(set(numbers), reverse=True)
        with pytest.raises(Conflict):
            open_store(tmp_path)
    finally:
        gateway.close()


def test_a_folder_without_a_database_or_of_another_version_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match=r"no headgate\.db"):
        open_beside(tmp_path)
    assert list(tmp_path.iterdir()) == []
    open_store(tmp_path).close()
    with sqlite3.connect(tmp_path / "headgate.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StorageFailed, match="another version of Headgate"):
        open_beside(tmp_path)


def test_the_last_admin_token_that_can_be_used_stays(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    try:
        expired = TokenRecord(
            "old", "hash", "admin", "a", TOKEN.created, "2020-01-01T00:00:00.000000Z", None, None
        )
        viewer = TokenRecord("see", "hash", "viewer", "b", TOKEN.created, None, None, None)
        for token in (TOKEN, expired, viewer):
            store.tokens.add(token, AUDIT)
        with pytest.raises(Conflict, match="last admin token"):
            store.tokens.revoke("kid", AUDIT)
        for token in ("see", "old"):
            assert store.tokens.revoke(token, AUDIT) is not None
        assert store.tokens.revoke("kid", AUDIT, force=True) is not None
    finally:
        store.close()

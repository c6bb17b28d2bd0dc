"""Tokens, pins and applied documents are compared with their checksums: a flipped byte is named, and gives nobody more rights."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from headgate.admin.tokens import Tokens
from headgate.control import Call
from headgate.errors import Conflict, StorageFailed, Unauthenticated
from headgate.store import AppliedDocument, AuditRecord, Commit, Proposal, Store
from unit.store.test_store import CONTENT, DOCUMENT, NOW, record

AUDIT = AuditRecord(NOW, "ann", "admin", "unpin", "digits", None, "applied", "")
DIGEST = "sha256:" + "a" * 64


def change(store: Store, statement: str) -> None:
    with store.transactions.write() as write:
        assert write.session.execute(text(statement)).rowcount == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "damage",
    [
        "role = 'admin'",
        "expires = NULL",
        "expires = '2999-03-01T03:12:04.000000Z'",
        "expires = 'no stamp'",
        "revoked = NULL",
        "name = 'ann'",
        "checksum = ''",
    ],
)
def test_a_damaged_token_is_refused(store: Store, damage: str) -> None:
    tokens = Tokens(store)
    tokens.create(name="ann", role="admin")
    view, secret = tokens.create(name="ci", role="viewer", expires_seconds=60)
    if damage == "revoked = NULL":
        tokens.revoke(view["id"], Call("ann"))
    tokens.write_uses()
    assert store.check_rows() == []
    change(store, f"UPDATE tokens SET {damage} WHERE id = '{view['id']}'")
    (line,) = store.check_rows()
    assert view["id"] in line
    assert "headgate token create" in line
    with pytest.raises(Unauthenticated, match=f"the row of token {view['id']} is damaged"):
        tokens.authenticate(secret)
    assert not tokens.is_usable(view["id"])
    with pytest.raises(Unauthenticated, match="not known, expired or revoked"):
        tokens.authenticate(secret[:-1] + ("a" if secret[-1] != "a" else "b"))
    # Revoking it ends the alarm.
    tokens.revoke(view["id"], Call("ann"))
    assert store.check_rows() == []


def test_the_use_of_a_token_is_no_damage(store: Store) -> None:
    tokens = Tokens(store)
    view, secret = tokens.create(name="ann", role="admin")
    tokens.authenticate(secret)
    tokens.write_uses()
    assert store.check_rows() == []
    assert next(one for one in tokens.list() if one["id"] == view["id"])["last_used"] is not None


def test_the_last_admin_is_one_that_can_be_used(store: Store) -> None:
    tokens = Tokens(store)
    damaged, _ = tokens.create(name="ann", role="admin")
    good, _ = tokens.create(name="bob", role="admin")
    change(store, f"UPDATE tokens SET name = 'eve' WHERE id = '{damaged['id']}'")
    with pytest.raises(Conflict, match="last admin token"):
        tokens.revoke(good["id"], Call("ann"))


def pinned(store: Store) -> None:
    store.propose(Proposal(record(), CONTENT))
    store.commit(
        Commit(
            "digits",
            1,
            "applied",
            pins={"v1": DIGEST},
            applied=AppliedDocument("/a.yaml", "digits", DOCUMENT),
        )
    )
    assert store.check_rows() == []


def test_a_damaged_pin_stands_for_nothing_until_it_is_renewed(store: Store) -> None:
    pinned(store)
    assert store.pins.renew("digits", "v1", DIGEST, AUDIT) is None
    other = "sha256:" + "b" * 64
    change(store, f"UPDATE pins SET digest = '{other}'")
    (line,) = store.check_rows()
    assert "the pin of version v1 of digits" in line
    for use in (
        lambda: store.pins.get("digits", "v1"),
        lambda: store.pins.snapshot({"digits"}).get("digits", "v1"),
        lambda: store.propose(Proposal(record(2), CONTENT, {"v1": other})),
    ):
        with pytest.raises(StorageFailed, match="headgate models unpin digits v1"):
            use()
    renewed = store.pins.renew("digits", "v1", DIGEST, AUDIT)
    assert renewed is not None
    assert store.pins.get("digits", "v1") == DIGEST
    assert store.audit(endpoint=None, limit=1, before=None)[0].outcome == "renewed"
    assert store.check_rows() == []


@pytest.mark.parametrize("damage", ["path = '/b.yaml'", "endpoint = 'digitz'", f"digest = '{DIGEST}'"])
def test_a_damaged_row_of_an_applied_document_is_written_anew_by_an_apply(store: Store, damage: str) -> None:
    pinned(store)
    change(store, f"UPDATE applied_documents SET {damage}")
    (line,) = store.check_rows()
    assert "headgate apply" in line
    assert store.applied_from("/a.yaml") == frozenset()
    assert len(store.damaged_applied()) == 1
    store.add_applied(AppliedDocument("/a.yaml", "digits", DOCUMENT))
    assert store.check_rows() == []
    assert store.applied_from("/a.yaml") == {("digits", DOCUMENT)}

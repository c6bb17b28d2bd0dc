"""Damage: what was changed, lost or put in behind the store's back is found, and named with its endpoint and number."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import Connection, text

from headgate.store import Commit, EventRecord, Proposal, Store
from headgate.store.chain import chain_digest, damages
from unit.store.test_store import NOW, proposal, record
from unit.store_harness import Place


def fill(store: Store) -> None:
    for endpoint in ("digits", "other"):
        for n in range(1, 5):
            store.propose(proposal(n, endpoint=endpoint))
            store.commit(Commit(endpoint, n, "failed" if n == 4 else "applied"))
    store.propose(Proposal(record(1, endpoint="first"), b"\x00bytes\xff"))


def sql(statement: str, **values: object) -> Callable[[Connection], None]:
    def change(connection: Connection) -> None:
        assert connection.execute(text(statement), values).rowcount >= 1

    return change


SECOND = "WHERE endpoint = 'digits' AND n = 2"
CHANGES: dict[str, tuple[Callable[[Connection], None], set[tuple[str, int]]]] = {
    "body": (sql(f"UPDATE revisions SET body = replace(body, '2', '3') {SECOND}"), {("digits", 2)}),
    "digest": (
        sql(f"UPDATE revisions SET digest = replace(digest, 'a', 'b') {SECOND}"),
        {("digits", 2), ("digits", 3)},
    ),
    "revision lost": (sql(f"DELETE FROM revisions {SECOND}"), {("digits", 3)}),
    "newest lost": (sql("DELETE FROM revisions WHERE endpoint = 'digits' AND n = 4"), {("digits", 4)}),
    "all lost": (sql("DELETE FROM revisions WHERE endpoint = 'digits'"), {("digits", 4)}),
    "endpoint lost": (sql("DELETE FROM endpoints WHERE name = 'digits'"), {("digits", 4)}),
    "pointer": (sql("UPDATE endpoints SET applied = 2 WHERE name = 'digits'"), {("digits", 2)}),
    "status": (
        sql("UPDATE revisions SET status = 'applied' WHERE endpoint = 'digits' AND n = 4"),
        {("digits", 3)},
    ),
    "document": (
        sql("UPDATE documents SET content = :content", content=b"other"),
        {(endpoint, n) for endpoint in ("digits", "other") for n in range(1, 5)} | {("first", 1)},
    ),
}


class Undone(Exception):
    """Rolls a transaction back."""


def test_damage_is_found(place: Place) -> None:
    store = place.open()
    fill(store)
    assert store.check() == []
    for case, (change, expected) in CHANGES.items():
        with suppress(Undone), store.transactions.write() as write:
            change(write.session.connection())
            found = {
                endpoint: {(one.endpoint, one.n) for one in damages(write.session, endpoint)}
                for endpoint in (None, "digits", "other")
            }
            raise Undone
        assert found[None] == expected, case
        for endpoint in ("digits", "other"):
            assert found[endpoint] == {one for one in expected if one[0] == endpoint}, case
    with store.transactions.write() as write:
        CHANGES["body"][0](write.session.connection())
    assert [(one.endpoint, one.n) for one in store.check()] == [("digits", 2)]


def test_a_text_that_is_no_utf_8_any_more_hides_no_other_row(place: Place) -> None:
    if place.postgres:
        return  # PostgreSQL keeps no such text.
    store = place.open()
    fill(store)
    with store.transactions.write() as write:
        sql(f"UPDATE revisions SET body = CAST(:body AS TEXT) {SECOND}", body=b'{"a": "\xc3"}')(
            write.session.connection()
        )
    assert [found.n for found in store.revisions("digits", limit=9)] == [4, 3, 2, 1]
    assert [(found.endpoint, found.n) for found in store.check()] == [("digits", 2)]


def test_json_that_cannot_be_read_hides_no_other_row(place: Place) -> None:
    store = place.open()
    fill(store)
    for _ in range(2):
        store.add_event(EventRecord("alarm", NOW, None, None, "", "", {"a": 1}))
    with store.transactions.write() as write:
        sql("UPDATE events SET data = '{\"a\": ' WHERE generation = (SELECT min(generation) FROM events)")(
            write.session.connection()
        )
    assert [found.data for found in store.events_after(0, limit=9)] == [{"unreadable": '{"a": '}, {"a": 1}]


def test_a_digest_covers_the_body_and_the_digest_before_it() -> None:
    one = chain_digest("", "body")
    assert (
        len({one, chain_digest(one, "body"), chain_digest("", one + "body"), chain_digest("", "\nbody")}) == 4
    )

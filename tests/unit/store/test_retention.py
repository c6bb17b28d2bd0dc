"""Old rows go, a bounded number at a time; the chain goes on over what is gone, and damage is found as before."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import pytest
from sqlalchemy import Connection, func, select

from headgate.store import AuditRecord, Commit, EventRecord, Proposal, RetentionLimits, Store, stamp
from headgate.store import retention as dropping
from headgate.store.chain import damages
from headgate.store.models import DocumentRecord, DroppedRevisions
from unit.control_harness import START
from unit.store.test_chain import Undone, sql
from unit.store.test_store import record
from unit.store_harness import Place


def day(n: int) -> str:
    return stamp(START + timedelta(days=n))


def fill(store: Store, revisions: int, endpoint: str = "digits") -> None:
    """A revision a day, each with a document of its own; the last one is in force."""
    for n in range(1, revisions + 1):
        document = f"sha256:{endpoint}{n}"
        store.propose(Proposal(record(n, endpoint=endpoint, when=day(n), document=document), b"document"))
        store.commit(Commit(endpoint, n, "failed" if n % 5 == 4 else "applied"))


def numbers(store: Store, endpoint: str = "digits") -> list[int]:
    return [one.n for one in store.revisions(endpoint, limit=10_000)][::-1]


def ranges(store: Store, endpoint: str = "digits") -> list[tuple[int, int]]:
    with store.transactions.read() as session:
        return [(one.first, one.last) for one in dropping.dropped(session, endpoint)]


def whole(store: Store) -> bool:
    """Whether nothing but the documents, which are no documents here, is damaged."""
    return not [one for one in store.check() if "document" not in one.what] and not [
        one for one in store.check_in_force() if "document" not in one.what
    ]


@pytest.mark.parametrize(
    ("kept", "stays"),
    [
        (RetentionLimits(3, day(0)), range(1, 13)),
        (RetentionLimits(3, day(6)), range(6, 13)),
        (RetentionLimits(10, day(99)), range(3, 13)),
        (RetentionLimits(1, day(99)), range(11, 13)),
        (RetentionLimits(3), range(10, 13)),
    ],
)
def test_the_newest_and_the_young_stay(store: Store, kept: RetentionLimits, stays: range) -> None:
    fill(store, 12)
    fill(store, 2, "other")
    store.drop_revisions("digits", kept, ())
    assert numbers(store) == list(stays)
    assert numbers(store, "other") == [1, 2]
    assert ranges(store) == ([(1, stays.start - 1)] if stays.start > 1 else [])
    assert whole(store)


def test_what_is_in_force_stays_with_the_one_before_it_and_all_after_it(store: Store) -> None:
    fill(store, 8)
    for n in range(9, 30):
        store.propose(Proposal(record(n, when=day(n)), b"document"))
        if n < 29:
            store.commit(Commit("digits", n, "failed"))
    assert store.drop_revisions("digits", RetentionLimits(1), ()) == 6
    assert numbers(store) == [7, 8, *range(9, 30)]
    assert store.start_records("digits")[0].proposed[0].n == 29
    assert whole(store)


def test_named_numbers_stay_and_the_gaps_between_are_known(store: Store) -> None:
    fill(store, 20)
    assert store.drop_revisions("digits", RetentionLimits(5), (3, 8, 9)) == 12
    assert numbers(store) == [3, 8, 9, *range(16, 21)]
    assert ranges(store) == [(1, 2), (4, 7), (10, 15)]
    assert whole(store)
    assert [store.was_dropped("digits", n) for n in (2, 3, 15, 16, 99)] == [True, False, True, False, False]
    # Later they are no longer wanted, and the gaps grow together.
    fill_after = RetentionLimits(5)
    assert store.drop_revisions("digits", fill_after, (8,)) == 2
    assert ranges(store) == [(1, 7), (9, 15)]
    assert store.drop_revisions("digits", fill_after, ()) == 1
    assert ranges(store) == [(1, 15)]
    assert whole(store)


def test_a_transaction_is_bounded_and_documents_go_with_their_last_revision(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropping, "AT_ONCE", 4)
    fill(store, 12)
    found = [store.drop_revisions("digits", RetentionLimits(2), ()) for _ in range(4)]
    assert found == [4, 4, 2, 0]
    with store.transactions.read() as session:
        assert session.scalar(select(func.count()).select_from(DocumentRecord)) == 2


def test_a_document_that_another_revision_has_stays(store: Store) -> None:
    for n in range(1, 9):
        store.propose(Proposal(record(n, when=day(n)), b"document"))
        store.commit(Commit("digits", n, "applied"))
    store.drop_revisions("digits", RetentionLimits(2), ())
    assert store.document(record().document) == b"document"


def test_writing_goes_on_after_it(store: Store) -> None:
    fill(store, 9)
    store.drop_revisions("digits", RetentionLimits(1), ())
    store.propose(Proposal(record(10, when=day(10)), b"document"))
    store.commit(Commit("digits", 10, "applied"))
    assert numbers(store) == [7, 8, 9, 10]
    assert whole(store)


FIRST = "WHERE endpoint = 'digits' AND first = 1"
DAMAGES: dict[str, Callable[[Connection], None]] = {
    "a kept revision is lost": sql("DELETE FROM revisions WHERE endpoint = 'digits' AND n = 6"),
    "the first one after a gap is lost": sql("DELETE FROM revisions WHERE endpoint = 'digits' AND n = 10"),
    "the first one after a gap was altered": sql(
        "UPDATE revisions SET body = replace(body, '1', '2') WHERE endpoint = 'digits' AND n = 10"
    ),
    "the gap's digest": sql(f"UPDATE dropped_revisions SET digest = replace(digest, 'a', 'b') {FIRST}"),
    "the gap's end": sql(f"UPDATE dropped_revisions SET last = 6 {FIRST}"),
    "the gap's beginning": sql(f"UPDATE dropped_revisions SET first = 2 {FIRST}"),
    "the gap is lost": sql(f"DELETE FROM dropped_revisions {FIRST}"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_around_a_gap_is_found(store: Store, what: str) -> None:
    fill(store, 12)
    store.drop_revisions("digits", RetentionLimits(3), (6,))
    assert numbers(store) == [6, 10, 11, 12]
    with suppress(Undone), store.transactions.write() as write:
        DAMAGES[what](write.session.connection())
        found = [one for one in damages(write.session, None) if "document" not in one.what]
        raise Undone
    assert found, what
    assert whole(store)


def test_journals_have_a_floor(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropping, "AT_ONCE", 3)
    for n in range(8):
        store.add_audit([AuditRecord(day(n), "ann", "admin", "x", None, None, "applied", "")])
        store.add_event(EventRecord("alarm", day(n), None, n, "", ""))
    assert (store.floor("audit"), store.floor("events")) == (0, 0)
    assert [store.drop_journal("audit", RetentionLimits(2, day(5))) for _ in range(3)] == [3, 2, 0]
    left = store.audit(endpoint=None, limit=99, before=None)
    assert [one.when for one in left] == [day(7), day(6), day(5)]
    assert store.floor("audit") == left[-1].generation - 2
    assert [store.drop_journal("events", RetentionLimits(2)) for _ in range(3)] == [3, 3, 0]
    assert store.floor("events") == store.events_after(0, limit=99)[0].generation - 2


def test_nothing_is_written_if_nothing_is_old(store: Store) -> None:
    fill(store, 3)
    before = store.generation()
    assert (
        store.drop_journal("events", RetentionLimits(9))
        == store.drop_journal("audit", RetentionLimits(9))
        == 0
    )
    store.prune_operations(9)
    assert store.generation() == before


def test_a_row_of_a_clock_that_was_wrong_keeps_no_other(store: Store) -> None:
    for n in (9_999, 1, 2, 3):
        store.add_audit([AuditRecord(day(n), "ann", "admin", "x", None, None, "applied", "")])
    assert store.drop_journal("audit", RetentionLimits(1, day(100))) == 2
    assert [one.when for one in store.audit(endpoint=None, limit=9, before=None)] == [day(3), day(9_999)]


def test_a_gap_belongs_to_one_endpoint(place: Place) -> None:
    store = place.open()
    for name in ("digits", "other"):
        fill(store, 6, name)
        store.drop_revisions(name, RetentionLimits(2), ())
    assert ranges(store) == ranges(store, "other") == [(1, 4)]
    with store.transactions.read() as session:
        assert len({one.digest for one in session.scalars(select(DroppedRevisions))}) == 1
    assert whole(store)

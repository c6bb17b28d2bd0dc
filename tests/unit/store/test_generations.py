"""Generations: one number for each write, dense, in the order of the commits, whoever writes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from headgate.errors import StorageFailed
from headgate.store import AuditRecord, Commit, EventRecord, Store, TokenRecord, database
from unit.store.test_store import NOW, proposal
from unit.store_harness import Place


def event(type_: str = "alarm") -> EventRecord:
    return EventRecord(type_, NOW, None, None, "", "")


def audit() -> AuditRecord:
    return AuditRecord(NOW, "", "", "", None, None, "", "")


def test_a_write_takes_one_number_and_more_only_for_more_rows_of_a_table(store: Store) -> None:
    assert store.generation() == 0
    store.propose(proposal(1))
    commit = Commit("digits", 1, "applied", None, [event(), event()], audit())
    assert [one.generation for one in store.commit(commit)] == [2, 3]
    store.tokens.add(TokenRecord("kid", "", "", "", NOW, None, None, None), audit())
    assert [one.generation for one in store.audit(endpoint=None, limit=9, before=None)] == [4, 2]
    assert store.add_event(event()).generation == 5
    assert (store.endpoints()[0].generation, store.generation()) == (2, 5)


def test_a_write_that_fails_leaves_no_gap(store: Store) -> None:
    store.propose(proposal(1))
    with pytest.raises(StorageFailed):
        store.propose(proposal(7))
    with pytest.raises(StorageFailed):
        store.commit(Commit("digits", 5, "applied", None, [event()]))
    assert store.add_event(event()).generation == 2


def test_no_write_is_beside_another_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """So nothing with a higher number can be read before something with a lower one."""
    one = place.open("one")
    monkeypatch.setattr(database, "BUSY_MS", 0)
    impatient = place.open("other", more="&options=-c%20lock_timeout%3D1" if place.postgres else "")
    with one.transactions.write() as write:
        write.add_numbered(event("first"))
        with pytest.raises(StorageFailed):
            impatient.add_event(event("second"))
        assert impatient.events_after(0, limit=9) == []
    assert impatient.add_event(event("second")).generation == 2
    assert [found.type for found in impatient.events_after(0, limit=9)] == ["first", "second"]


def test_a_reader_that_follows_two_writers_misses_nothing(place: Place) -> None:
    writers, reader = [place.open("one"), place.open("other")], place.open("reader")
    each, together = 25, threading.Barrier(len(writers))

    def write(store: Store) -> None:
        together.wait(30)
        for _ in range(each):
            store.add_event(event())

    seen: list[int] = []
    with ThreadPoolExecutor(len(writers)) as threads:
        ends = [threads.submit(write, store) for store in writers]
        over = False
        while not over:
            # Looked at before the page is read: the last page is read after the last write.
            over = all(end.done() for end in ends)
            seen += [found.generation for found in reader.events_after(seen[-1] if seen else 0, limit=999)]
        for end in ends:
            end.result()
    assert seen == list(range(1, len(writers) * each + 1))

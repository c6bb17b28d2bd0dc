"""Trials are replaced as they grow, and the oldest of an endpoint go; on SQLite and PostgreSQL."""

from __future__ import annotations

from headgate.store import Store, TrialRecord, stamp
from headgate.store.models import TrialRecord as Row
from headgate.store.trials import KEPT
from unit.control_harness import START


def record(
    begun: int, ended: int | None = None, endpoint: str = "digits", units: bytes = b"units"
) -> TrialRecord:
    return TrialRecord(endpoint, begun, ended, stamp(START), f"ledger {begun}".encode(), units)


def rows(store: Store) -> dict[tuple[str, int], Row]:
    with store.transactions.read() as session:
        found = session.query(Row).all()
        return {(row.endpoint, row.begun): row for row in found}


def test_a_trial_is_replaced_and_given_back_until_it_ends(store: Store) -> None:
    store.put_trials([record(1), record(1, endpoint="other")])
    store.put_trials([TrialRecord("digits", 1, None, stamp(START), b"\x00newer\xff", b"\x00\xff")])
    found = [one for key in store.unfinished_trials() if (one := store.trial(key)) is not None]
    assert [(one.endpoint, one.ledger, one.units) for one in found] == [
        ("digits", b"\x00newer\xff", b"\x00\xff"),
        ("other", b"ledger 1", b"units"),
    ]
    store.put_trials([record(1, ended=9)])
    assert store.unfinished_trials() == [("other", 1)]


def test_the_newest_trials_of_an_endpoint_stay_and_only_one_has_units(store: Store) -> None:
    for begun in range(1, KEPT + 4):
        store.put_trials([record(begun), record(begun, ended=begun + 1, endpoint="other")])
    found = rows(store)
    newest = range(4, KEPT + 4)
    assert sorted(found) == [(name, begun) for name in ("digits", "other") for begun in newest]
    # Each ended when the next one began, for what a stop left unfinished.
    assert [found["digits", begun].ended for begun in newest] == [*range(5, KEPT + 4), None]
    assert [found["digits", begun].units for begun in newest] == [b""] * (KEPT - 1) + [b"units"]


def test_a_trial_that_goes_on_stays_whole_although_the_clock_was_set_back(store: Store) -> None:
    store.put_trials([record(begun, ended=begun + 50) for begun in range(100, 100 + KEPT)])
    store.put_trials([record(200)])
    # The clock is an hour behind now; the one that a stop left open ends when it began, at the earliest.
    store.put_trials([record(3)])
    assert store.unfinished_trials() == [("digits", 3)]
    found = rows(store)
    assert (found["digits", 3].units, found["digits", 200].ended) == (b"units", 200)
    assert len(found) == KEPT
    # A late count of an ended one is written alone.
    store.put_trials([record(200, ended=200)], live={("digits", 3)})
    assert store.unfinished_trials() == [("digits", 3)]
    assert rows(store)["digits", 3].units == b"units"


def test_what_has_ended_has_no_units(store: Store) -> None:
    store.put_trials([record(1, ended=2)])
    assert rows(store)["digits", 1].units == b""

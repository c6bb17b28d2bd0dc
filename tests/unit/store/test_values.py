"""What a column takes and refuses, on both databases alike; and time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import psycopg
import pytest

from headgate.errors import InvalidArgument
from headgate.store import (
    AuditRecord,
    Commit,
    EventRecord,
    IdempotencyRecord,
    Store,
    TokenRecord,
    json_text,
    seconds,
    stamp,
    unstamp,
)
from headgate.store.clock import DatabaseClock
from unit.control_harness import START
from unit.store.test_store import NOW, proposal, record
from unit.store_harness import Place

NOT_TEXT = {"nul": "a\0b", "surrogate": "a\ud800b"}
EVENT = EventRecord("alarm", NOW, None, None, "", "")


@pytest.mark.parametrize("text", NOT_TEXT.values(), ids=NOT_TEXT)
def test_texts_that_no_database_keeps_are_the_callers_mistake(store: Store, text: str) -> None:
    store.propose(proposal(1))
    audit = AuditRecord(NOW, "", "", "", None, None, "", text)
    key = IdempotencyRecord("kid", "PUT /x", text, "", {}, NOW)
    writes = [
        lambda: store.propose(proposal(2, reason=text)),
        lambda: store.propose(proposal(2, body=text)),
        lambda: store.commit(Commit("digits", 1, "failed", text)),
        lambda: store.commit(Commit("digits", 1, "applied", audit=audit)),
        lambda: store.commit(Commit("digits", 1, "applied", pins={text: "sha256:1"})),
        lambda: store.add_audit([], [key]),
        lambda: store.add_event(replace(EVENT, data={"a": [{"b": text}]})),
        lambda: store.add_event(replace(EVENT, data={text: 1})),
        lambda: store.tokens.add(TokenRecord("kid", "", "", text, NOW, None, None, None), audit),
        # Looking for it is the same mistake.
        lambda: store.idempotent("kid", "PUT /x", text),
        lambda: store.applied_from(text),
        lambda: store.tokens.get(text),
    ]
    for write in writes:
        with pytest.raises(InvalidArgument, match=r"NUL character|surrogate pair"):
            write()
    assert store.generation() == 1
    found = store.revision("digits", 1)
    assert found is not None
    assert (found.status, found.body) == ("proposed", record(1).body)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_has_not_are_the_callers_mistake(store: Store, number: float) -> None:
    with pytest.raises(InvalidArgument, match="not finite"):
        store.add_event(replace(EVENT, data={"a": [1, {"b": number}]}))
    with pytest.raises(InvalidArgument, match="not finite"):
        json_text({"spec": [number]})
    assert store.generation() == 0


def test_all_else_comes_back_as_it_was(store: Store) -> None:
    data = {
        "text": "\\u0000 \u2028 \x01 \U0001f600 \\\\u0000",
        "numbers": [1, 2**62, 1.5, -0.0, 1e308],
        "none": None,
    }
    stored = store.add_event(replace(EVENT, who="\U0001f600" * 500, data=data))
    assert store.events_after(0, limit=9) == [stored]
    assert stored.data == data


def test_stamps_are_of_one_width_and_sort_as_text() -> None:
    assert stamp(START) == NOW
    assert unstamp(NOW) == unstamp("2027-03-01T03:12:04Z") == START
    assert stamp(START.astimezone(timezone(timedelta(hours=5)))) == NOW
    times = [START + timedelta(microseconds=some) for some in (0, 1, 10, 100_000, 999_999, 1_000_000)]
    assert [stamp(time) for time in times] == sorted(stamp(time) for time in reversed(times))
    assert {seconds(stamp(time)) for time in times} == {"2027-03-01T03:12:04Z", "2027-03-01T03:12:05Z"}
    with pytest.raises(ValueError, match="time zone"):
        stamp(START.replace(tzinfo=None))
    with pytest.raises(ValueError, match="time zone"):
        unstamp("2027-03-01T03:12:04")


def test_a_stamp_of_whole_seconds_is_stored_in_full_width(store: Store) -> None:
    stored = store.add_event(replace(EVENT, when="2027-03-01T03:12:04Z"))
    assert store.events_after(0, limit=9) == [replace(stored, when=NOW)]


def test_the_store_has_one_clock(place: Place) -> None:
    store = place.open()
    before = _told_by(place)
    store.propose(proposal(1, when=stamp(store.now())))
    store.commit(Commit("digits", 1, "applied", pins={"v1": "sha256:1"}))
    now = store.now()
    after = _told_by(place)
    assert before <= unstamp(store.pins.all()[0].when) <= now <= after


def _told_by(place: Place) -> datetime:
    """The time of the process, or of the database's server."""
    if not place.postgres:
        return datetime.now(UTC)
    with psycopg.connect(place.url) as connection:
        row = connection.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        told: datetime = row[0]
        return told


def test_the_databases_clock_goes_on_from_what_was_told_last(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("headgate.store.clock.time.monotonic", lambda: now)
    clock = DatabaseClock(START)
    now += 2.5
    assert clock() == START + timedelta(seconds=2.5)
    clock.set(START + timedelta(hours=1))
    assert clock() == START + timedelta(hours=1)

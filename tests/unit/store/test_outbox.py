"""The outbox is written with its event or not at all, in order, and bounded; on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from headgate.errors import StorageFailed
from headgate.store import Envelope, EventRecord, Queue, Store, StoreOutbox, stamp
from unit.control_harness import START, Clock
from unit.store_harness import Place

DIGITS = Queue("digits", "https://example.com/a")
OTHER = Queue("digits", "${env:HOOK}")


def event(words: str = "", endpoint: str = "digits") -> EventRecord:
    return EventRecord("applied", stamp(START), endpoint, 1, "ann", "", {"message": words})


def to(*queues: Queue) -> object:
    def route(told: EventRecord) -> Sequence[Envelope]:
        return [
            Envelope(one, "pause", f"{told.generation} {told.data['message']}".encode(), "${env:KEY}", 5_000)
            for one in queues
        ]

    return route


def routed(store: Store, *queues: Queue) -> StoreOutbox:
    store.outbox.route = to(*queues)  # type: ignore[assignment]
    return store.outbox


def bodies(store: Store, queue: Queue, limit: int = 1_000) -> list[str]:
    return [one.body.decode() for one in store.outbox.messages(queue, limit)]


def test_messages_have_the_numbers_and_the_order_of_their_events(store: Store) -> None:
    outbox = routed(store, DIGITS, OTHER)
    numbers = [store.add_event(event(str(place))).generation for place in range(3)]
    assert bodies(store, DIGITS) == [f"{number} {place}" for place, number in enumerate(numbers)]
    assert bodies(store, OTHER, 2) == bodies(store, DIGITS)[:2]
    first = outbox.messages(DIGITS)[0]
    assert (first.attempts, first.due, first.secret, first.timeout_ms) == (0, None, "${env:KEY}", 5_000)
    found = {one.queue: (one.first, one.due, one.count, one.oldest) for one in outbox.queues()}
    assert found == dict.fromkeys((DIGITS, OTHER), (numbers[0], None, 3, stamp(START)))


def test_a_message_is_written_with_its_event_or_not_at_all(store: Store) -> None:
    outbox = routed(store, DIGITS)

    def broken() -> None:
        with store.transactions.write() as write:
            write.add_numbered(event("lost"))
            raise StorageFailed("the disk is full")

    with pytest.raises(StorageFailed):
        broken()
    assert (outbox.queues(), store.events_after(0, limit=10)) == ([], [])
    assert len(store.events_after(0, limit=10)) == 0
    store.add_event(event("kept"))
    assert len(bodies(store, DIGITS)) == 1


def test_a_route_that_fails_fails_no_write(store: Store) -> None:
    def route(_: EventRecord) -> Sequence[Envelope]:
        raise ValueError("a defect")

    store.outbox.route = route
    store.add_event(event())
    assert len(store.events_after(0, limit=10)) == 1


def test_what_was_delivered_and_what_failed(store: Store) -> None:
    outbox = routed(store, DIGITS, OTHER)
    first, second = (store.add_event(event(word)).generation for word in "ab")
    outbox.failed(DIGITS, first, 3, stamp(START))
    assert [(one.attempts, one.due) for one in outbox.messages(DIGITS)] == [(3, stamp(START)), (0, None)]
    assert next(one for one in outbox.queues() if one.queue == DIGITS).due == stamp(START)
    outbox.delivered(DIGITS, first)
    outbox.delivered(DIGITS, first)
    assert [one.generation for one in outbox.messages(DIGITS)] == [second]
    assert len(outbox.messages(OTHER)) == 2
    assert outbox.drop_queue(OTHER) == 2
    assert outbox.drop_queue(OTHER) == 0
    assert [one.queue for one in outbox.queues()] == [DIGITS]
    assert outbox.dropped() == {(OTHER, "unsubscribed"): 2}


def test_a_queue_that_is_full_loses_its_oldest(store: Store) -> None:
    outbox = store.outbox = StoreOutbox(store.transactions, (3, 100))
    routed(store, DIGITS)
    for place in range(7):
        store.add_event(event(str(place)))
    assert [one.split()[1] for one in bodies(store, DIGITS)] == ["4", "5", "6"]
    assert outbox.dropped() == {(DIGITS, "full"): 4}


def test_an_outbox_that_is_full_loses_the_oldest_of_all(store: Store) -> None:
    outbox = store.outbox = StoreOutbox(store.transactions, (100, 4))
    routed(store, OTHER)
    for place in range(4):
        store.add_event(event(str(place)))
    routed(store, DIGITS)
    for place in range(3):
        store.add_event(event(f"new {place}"))
    assert [one.split()[1] for one in bodies(store, OTHER)] == ["3"]
    assert len(bodies(store, DIGITS)) == 3
    assert outbox.dropped() == {(OTHER, "full"): 3}


def test_what_is_dropped_in_a_write_that_fails_is_neither_gone_nor_counted(store: Store) -> None:
    outbox = store.outbox = StoreOutbox(store.transactions, (2, 100))
    routed(store, DIGITS)
    for place in range(2):
        store.add_event(event(str(place)))

    def broken() -> None:
        with store.transactions.write() as write:
            write.add_numbered(event("lost"))
            raise StorageFailed("the disk is full")

    with pytest.raises(StorageFailed):
        broken()
    assert [one.split()[1] for one in bodies(store, DIGITS)] == ["0", "1"]
    assert outbox.dropped() == {}


def test_what_is_too_old_goes(place: Place) -> None:
    clock = Clock()
    store = place.open(clock=clock)
    outbox = routed(store, DIGITS, OTHER)
    store.add_event(event("old"))
    clock.forward(3_600)
    store.add_event(event("new"))
    before = store.generation()
    assert outbox.drop_older(stamp(START)) == 0
    assert store.generation() == before, "a look that finds nothing writes nothing"
    clock.forward(1)
    assert outbox.drop_older(stamp(clock.now.replace(microsecond=0))) == 4
    assert outbox.dropped() == {(DIGITS, "too_old"): 2, (OTHER, "too_old"): 2}


def test_writers_at_once_leave_every_message_in_the_order_of_the_events(place: Place) -> None:
    stores = [place.open(f"state{number}") for number in range(3)]
    for store in stores:
        routed(store, DIGITS)

    def write(store: Store, who: int) -> None:
        for number in range(10):
            store.add_event(event(f"{who}.{number}"))

    threads = [threading.Thread(target=write, args=(store, who)) for who, store in enumerate(stores)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    found = stores[0].outbox.messages(DIGITS, 100)
    told = [one.body.decode().split() for one in found]
    assert [int(number) for number, _ in told] == sorted(one.generation for one in found)
    assert [word for _, word in told] == [
        str(one.data["message"]) for one in stores[0].events_after(0, limit=100)
    ]
    assert len(told) == 30


def test_a_message_outlives_a_restart(place: Place) -> None:
    store = place.open()
    outbox = routed(store, DIGITS)
    number = store.add_event(event("kept")).generation
    outbox.failed(DIGITS, number, 2, stamp(START))
    store.close()
    again = place.open()
    assert [(one.body, one.attempts) for one in again.outbox.messages(DIGITS)] == [(f"{number} kept".encode(), 2)]  # fmt: skip

"""Deliveries from a real outbox with made-up receivers and a clock that a test moves: order, pauses, bounds, restarts, disks that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from headgate.errors import StorageFailed
from headgate.notify import Deliveries, PostError, Receiver
from headgate.notify.delivery import AT_ONCE, KEPT_SECONDS, LONGEST_PAUSE_SECONDS, pause_seconds
from headgate.store import Envelope, EventRecord, OutboxRecord, Queue, Store, open_store, stamp
from unit.control_harness import Clock

T = TypeVar("T")
A = Queue("digits", "https://a.example/x")
B = Queue("digits", "https://b.example/x")


async def in_thread(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)


@dataclass
class Net:
    """What receivers do: each address takes what is posted, unless it is down or hangs."""

    down: set[str] = field(default_factory=set)
    hanging: dict[str, asyncio.Event] = field(default_factory=dict)
    taken: list[tuple[str, bytes]] = field(default_factory=list)
    tried: list[tuple[str, bytes]] = field(default_factory=list)

    async def post(self, address: str, fields: Mapping[str, str], body: bytes, seconds: float) -> None:
        assert fields["webhook-id"].startswith("evt_")
        self.tried.append((address, body))
        if address in self.hanging:
            await self.hanging[address].wait()
        if address in self.down:
            raise PostError("it answers 500")
        self.taken.append((address, body))

    def of(self, queue: Queue) -> list[str]:
        return [body.decode() for address, body in self.taken if address == queue.webhook]


@dataclass
class Place:
    """A store with an outbox, whose deliveries may be begun anew as after a restart."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    net: Net = field(default_factory=Net)
    gone: set[Queue] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        self.store: Store = open_store(self.folder / "state", clock=self.clock)
        self.deliveries = Deliveries(
            self.store.outbox,
            in_thread,
            self.net.post,
            self.clock,
            receiver=self.receiver,
            jitter=lambda: 0.0,
        )

    def receiver(self, message: OutboxRecord) -> Receiver | None:
        if Queue(message.endpoint, message.webhook) in self.gone:
            return None
        return Receiver(message.webhook, None, ("pause",), 1_000)

    def restart(self) -> None:
        self.store.close()
        self.open()

    def tell(self, words: str, *queues: Queue) -> None:
        self.store.outbox.route = lambda _: [
            Envelope(one, "pause", words.encode(), None, 1_000) for one in queues
        ]
        self.store.add_event(EventRecord("applied", stamp(self.clock.now), "digits", 1, "", "", {}))

    async def once(self) -> None:
        """Delivers what is due now, to the end."""
        await self.deliveries.begin()
        await self.deliveries.settled()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.store.close()


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def body() -> None:
        async with asyncio.timeout(120):
            await work()

    asyncio.run(body())


def test_messages_arrive_in_order_and_are_gone_then(place: Place) -> None:
    async def work() -> None:
        for number in range(50):
            place.tell(str(number), A, B)
        await place.once()
        for queue in (A, B):
            assert place.net.of(queue) == [str(number) for number in range(50)]
        assert place.store.outbox.queues() == []
        assert place.deliveries.delivered == {A: 50, B: 50}
        await place.once()
        assert len(place.net.tried) == 100

    run(work)


def test_a_receiver_that_is_down_keeps_its_order_and_no_other_one(place: Place) -> None:
    async def work() -> None:
        place.net.down.add(A.webhook)
        for number in range(3):
            place.tell(str(number), A, B)
        await place.once()
        assert (place.net.of(A), place.net.of(B)) == ([], ["0", "1", "2"])
        assert [body for address, body in place.net.tried if address == A.webhook] == [b"0"]
        failing = place.deliveries.failing[A]
        assert (failing.attempts, failing.error) == (1, "it answers 500")
        # Not due yet.
        await place.once()
        assert place.deliveries.failed[A] == 1
        place.clock.forward(pause_seconds(1, 0.0))
        await place.once()
        assert (place.deliveries.failing[A].attempts, place.deliveries.failing[A].since) == (2, failing.since)
        place.net.down.clear()
        place.clock.forward(pause_seconds(2, 0.0))
        await place.once()
        assert place.net.of(A) == ["0", "1", "2"]
        assert A not in place.deliveries.failing
        assert place.deliveries.failed[A] == 2

    run(work)


def test_a_receiver_that_hangs_keeps_no_other_one_and_no_write(place: Place) -> None:
    async def work() -> None:
        place.net.hanging[A.webhook] = asyncio.Event()
        place.tell("0", A, B)
        await place.deliveries.begin()
        while place.net.of(B) != ["0"]:
            await asyncio.sleep(0)
        place.tell("1", A, B)
        await place.deliveries.begin()
        while place.net.of(B) != ["0", "1"]:
            await asyncio.sleep(0)
        assert place.net.of(A) == []
        assert [address for address, _ in place.net.tried].count(A.webhook) == 1
        place.net.hanging[A.webhook].set()
        await place.deliveries.settled()
        assert place.net.of(A) == ["0", "1"]

    run(work)


def test_pauses_grow_to_an_hour_and_are_spread() -> None:
    assert [pause_seconds(n, 0.0) for n in (1, 2, 3)] == [2.5, 5.0, 10.0]
    assert pause_seconds(1, 0.999) == pytest.approx(5.0, rel=0.01)
    assert pause_seconds(10**6, 0.0) == LONGEST_PAUSE_SECONDS / 2
    assert max(pause_seconds(n, 0.999) for n in range(1, 100)) <= LONGEST_PAUSE_SECONDS


def test_a_restart_resumes_and_keeps_the_pause(place: Place) -> None:
    async def before() -> None:
        place.net.down.add(A.webhook)
        place.tell("0", A)
        place.tell("1", A)
        await place.once()

    async def after() -> None:
        await place.once()
        assert len(place.net.tried) == 1, "the pause has not passed"
        place.clock.forward(60)
        place.net.down.clear()
        await place.once()
        assert place.net.of(A) == ["0", "1"]

    run(before)
    place.restart()
    run(after)


def test_what_nobody_takes_for_three_days_is_dropped_and_counted(place: Place) -> None:
    async def work() -> None:
        place.net.down.add(A.webhook)
        place.tell("old", A)
        await place.once()
        place.clock.forward(KEPT_SECONDS - 10)
        place.tell("new", A)
        await place.once()
        assert place.store.outbox.dropped() == {}
        place.clock.forward(LONGEST_PAUSE_SECONDS)
        place.net.down.clear()
        await place.once()
        assert place.net.of(A) == ["new"]
        assert place.store.outbox.dropped() == {(A, "too_old"): 1}

    run(work)


def test_a_receiver_that_no_document_names_any_more_gets_nothing(place: Place) -> None:
    async def work() -> None:
        place.net.down.add(A.webhook)
        place.tell("0", A, B)
        await place.once()
        place.gone.add(A)
        place.clock.forward(60)
        await place.once()
        assert place.store.outbox.queues() == []
        assert place.store.outbox.dropped() == {(A, "unsubscribed"): 1}
        await place.once()
        assert place.deliveries.failing == {}

    run(work)


def test_a_disk_that_does_not_take_what_was_delivered_delivers_no_message_twice(place: Place) -> None:
    async def work() -> None:
        place.tell("0", A)
        place.tell("1", A)
        write = place.store.transactions.write

        def full() -> Any:
            raise StorageFailed("the disk is full")

        place.store.transactions.write = full  # type: ignore[method-assign]
        await place.once()
        assert place.net.of(A) == ["0"]
        # It is held for a while: a loop that calls without a pause would be worse than a late message.
        await place.once()
        place.clock.forward(10)
        await place.once()
        assert place.net.of(A) == ["0"]
        place.store.transactions.write = write  # type: ignore[method-assign]
        place.clock.forward(10)
        await place.once()
        assert place.net.of(A) == ["0", "1"]

    run(work)


def test_a_failure_of_ours_is_the_loops_and_the_next_turn_goes_on(place: Place) -> None:
    async def work() -> None:
        place.tell("0", A)
        write = place.store.transactions.write

        def full() -> Any:
            raise StorageFailed("the disk is full")

        place.store.transactions.write = full  # type: ignore[method-assign]
        await place.once()
        place.deliveries.wake()
        with pytest.raises(StorageFailed):
            await place.deliveries.turn()
        place.store.transactions.write = write  # type: ignore[method-assign]
        place.clock.forward(10)
        place.deliveries.wake()
        await place.deliveries.turn()
        await place.deliveries.settled()
        assert place.net.of(A) == ["0"]
        assert place.store.outbox.queues() == []

    run(work)


def test_a_store_that_does_not_answer_is_not_asked_without_a_pause(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        place.net.down.add(A.webhook)
        place.tell("0", A)
        await place.once()
        place.clock.forward(60)

        def broken() -> Any:
            raise StorageFailed("the disk is gone")

        monkeypatch.setattr(place.store.outbox, "queues", broken)
        place.deliveries.wake()
        with pytest.raises(StorageFailed):
            await place.deliveries.turn()
        assert place.deliveries._next is not None
        assert place.deliveries._next > place.clock.now

    run(work)


def test_counts_of_what_nobody_names_go(place: Place) -> None:
    async def work() -> None:
        place.tell("0", A, B)
        await place.once()
        await place.once()
        place.deliveries.forget([A])
        assert place.deliveries.delivered == {A: 1}

    run(work)


def test_a_turn_that_is_cancelled_ends_the_calls_and_loses_nothing(place: Place) -> None:
    async def work() -> None:
        place.net.hanging[A.webhook] = asyncio.Event()
        place.tell("0", A)
        await place.deliveries.begin()
        turn = asyncio.create_task(place.deliveries.turn())
        while not place.net.tried:
            await asyncio.sleep(0)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        await place.deliveries.settled()
        assert [one.queue for one in place.store.outbox.queues()] == [A]

    run(work)


def test_no_more_receivers_are_called_at_once_than_it_may(place: Place) -> None:
    async def work() -> None:
        queues = [Queue("digits", f"https://{number}.example/x") for number in range(AT_ONCE + 10)]
        go = asyncio.Event()
        place.net.hanging = {one.webhook: go for one in queues}
        place.tell("0", *queues)
        await place.deliveries.begin()
        while len(place.net.tried) < AT_ONCE:
            await asyncio.sleep(0)
        await place.deliveries.begin()
        assert len(place.net.tried) == AT_ONCE
        go.set()
        await place.deliveries.settled()
        await place.once()
        assert len(place.net.taken) == len(queues)

    run(work)


def test_a_secret_that_is_not_there_is_a_failure_of_its_receiver(place: Place) -> None:
    async def work() -> None:
        queue = Queue("digits", "${env:HEADGATE_TEST_NO_SUCH_HOOK}")
        place.tell("0", queue, B)
        await place.once()
        assert "HEADGATE_TEST_NO_SUCH_HOOK is not set" in place.deliveries.failing[queue].error
        assert place.net.of(B) == ["0"]

    run(work)

"""Any history of events, failures, restarts and full disks: each queue's messages arrive at least once, and first arrivals in order.

A message arrives twice only if a restart or the disk came between its arrival and its row. Not here: bounds and ages
(``unit/notify/test_delivery``), which lose messages on purpose.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.errors import StorageFailed
from headgate.store import Envelope, EventRecord, Queue, stamp
from unit.notify.test_delivery import Place

QUEUES = (
    Queue("digits", "https://a.example/x"),
    Queue("digits", "https://b.example/x"),
    Queue("other", "https://a.example/x"),
)
WEBHOOKS = sorted({one.webhook for one in QUEUES})
STEPS = st.one_of(
    st.tuples(st.just("tell"), st.sets(st.sampled_from(QUEUES))),
    st.tuples(st.just("down"), st.sets(st.sampled_from(WEBHOOKS))),
    st.tuples(st.just("pass"), st.floats(0.0, 4_000.0)),
    st.tuples(st.just("deliver"), st.none()),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("full"), st.booleans()),
)


class Named(Place):
    """A place whose messages say which queue they are of."""

    def tell(self, words: str, *queues: Queue) -> None:
        self.store.outbox.route = lambda _: [
            Envelope(one, "pause", body(one, words), None, 1_000) for one in queues
        ]
        self.store.add_event(EventRecord("applied", stamp(self.clock.now), "digits", 1, "", "", {}))


def body(queue: Queue, words: str) -> bytes:
    return f"{queue.endpoint} {words}".encode()


def _full() -> Any:
    raise StorageFailed("the disk is full")


async def play(place: Named, steps: list[tuple[str, Any]]) -> dict[Queue, list[bytes]]:
    """Plays a history, and then lets everything end well; what each queue was told."""
    told: dict[Queue, list[bytes]] = {one: [] for one in QUEUES}
    write, number = place.store.transactions.write, 0
    broken = False
    for what, value in steps:
        if what == "tell" and not broken:
            number += 1
            queues = sorted(value)
            place.tell(str(number), *queues)
            for one in queues:
                told[one].append(body(one, str(number)))
        elif what == "down":
            place.net.down = value
        elif what == "pass":
            place.clock.forward(value)
        elif what == "deliver":
            await place.once()
        elif what == "restart":
            place.restart()
            write, broken = place.store.transactions.write, False
        elif what == "full":
            broken = value
            place.store.transactions.write = _full if value else write  # type: ignore[method-assign]
    place.store.transactions.write = write  # type: ignore[method-assign]
    place.net.down = set()
    while place.store.outbox.queues():
        place.clock.forward(4_000.0)
        await place.once()
    return told


@settings(max_examples=30)
@given(st.lists(STEPS, max_size=30))
def test_each_message_arrives_at_least_once_and_in_order(steps: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Named(Path(folder))
        try:
            told = asyncio.run(play(place, steps))
            for webhook in WEBHOOKS:
                came = [one for address, one in place.net.taken if address == webhook]
                for queue in (one for one in QUEUES if one.webhook == webhook):
                    first = list(dict.fromkeys(one for one in came if one in told[queue]))
                    assert first == told[queue]
            uncertain = any(what in ("restart", "full") for what, _ in steps)
            if not uncertain:
                assert len(place.net.taken) == sum(len(messages) for messages in told.values())
        finally:
            place.store.close()

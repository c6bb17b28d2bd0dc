"""The loop that delivers messages from the outbox: each queue by itself, in order, again and again until its receiver has them.

A queue is tried by one task at a time, so a receiver that hangs keeps only its own messages. A message that was delivered is deleted
after that: a stop in between delivers it twice, and never not at all. Not here: one POST (``posting``), the rows (``store.outbox``).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol, TypeVar

from headgate.notify.messages import Receiver, shown
from headgate.notify.posting import Post, PostError
from headgate.notify.signing import read_reference, sign
from headgate.store import OutboxRecord, Queue, QueueState, StoreOutbox, stamp, unstamp

_log = logging.getLogger(__name__)
T = TypeVar("T")
FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 3_600.0
KEPT_SECONDS = 3 * 86_400
"""A message that could not be delivered for so long is dropped."""
AT_ONCE = 64
"""Receivers that are called at the same time."""
_LOOK_SECONDS = 60.0
_HELD_SECONDS = 5.0


class Io(Protocol):
    """Runs what may block."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]:
        """In a thread."""


@dataclass(frozen=True)
class Failing:
    """A receiver that does not take its messages: since when, how often its first message was tried, and why it was not taken."""

    since: str
    attempts: int
    error: str


def pause_seconds(attempts: int, jitter: float) -> float:
    """The pause after so many attempts: exponential, between half and all of it, so that gateways do not come together.

    ``jitter`` is in [0, 1).
    """
    longest = min(FIRST_PAUSE_SECONDS * 2.0 ** min(attempts - 1, 30), LONGEST_PAUSE_SECONDS)
    return longest * (0.5 + jitter / 2)


class Deliveries:
    """The deliveries of one gateway. Belongs to one event loop."""

    def __init__(
        self,
        outbox: StoreOutbox,
        io: Io,
        post: Post,
        now: Callable[[], datetime],
        *,
        receiver: Callable[[OutboxRecord], Receiver | None],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """``receiver`` says how a message is sent by now; None: nobody wants it any more."""
        self._outbox = outbox
        self._io = io
        self._post = post
        self._now = now
        self._receiver = receiver
        self._jitter = jitter
        self._wake = asyncio.Event()
        self._running: dict[Queue, asyncio.Task[None]] = {}
        self._errors: list[BaseException] = []
        self._had: dict[Queue, int] = {}
        """The newest message that a receiver has, while the row may be there still."""
        self._held: dict[Queue, datetime] = {}
        """Queues that wait because the disk did not take what became of a message."""
        self._next: datetime | None = None
        self.waiting: dict[Queue, QueueState] = {}
        self.failing: dict[Queue, Failing] = {}
        self.delivered: Counter[Queue] = Counter()
        self.failed: Counter[Queue] = Counter()

    def wake(self) -> None:
        """Something may be due."""
        self._wake.set()

    async def turn(self) -> None:
        """Waits until something is due, and begins to deliver it. Raises what failed on our side."""
        try:
            await self._due()
            await self.begin()
            errors, self._errors = self._errors, []
            if errors:
                raise errors[0]
        except asyncio.CancelledError:
            await self._cancel()
            raise

    async def _due(self) -> None:
        pause = _LOOK_SECONDS
        if self._next is not None:
            pause = min(max((self._next - self._now()).total_seconds(), 0.0), pause)
        # Not wait_for: in Python 3.11 it may swallow that the loop is cancelled.
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._wake.wait()
        self._wake.clear()

    async def begin(self) -> None:
        """Drops what is too old, and begins to deliver what is due; does not wait for receivers."""
        now = self._now()
        # Should the store not answer, it is asked again after a while, and not without a pause.
        self._next = now + timedelta(seconds=_HELD_SECONDS)
        before = stamp(now - timedelta(seconds=KEPT_SECONDS))
        while await self._io(lambda: self._outbox.drop_older(before)):
            _log.warning("messages to webhooks were dropped, because nobody took them for three days")
        queues = await self._io(self._outbox.queues)
        self.waiting = {one.queue: one for one in queues}
        for known in (self.failing, self._held, self._had):
            for gone in known.keys() - self.waiting.keys() - self._running.keys():
                known.pop(gone)
        self._next = None
        for one in sorted(queues, key=lambda state: state.due or ""):
            self._begin_queue(one, now)

    def forget(self, kept: Collection[Queue]) -> None:
        """Counts nothing more of queues that nobody names and that are empty."""
        for counts in (self.delivered, self.failed):
            for gone in counts.keys() - set(kept) - self.waiting.keys():
                del counts[gone]

    def _begin_queue(self, state: QueueState, now: datetime) -> None:
        if state.queue in self._running:
            return
        due = self._held.get(state.queue) or (None if state.due is None else unstamp(state.due))
        if due is not None and due > now:
            self._next = due if self._next is None else min(self._next, due)
        elif len(self._running) < AT_ONCE:
            self._held.pop(state.queue, None)
            task = asyncio.create_task(self._deliver(state.queue))
            self._running[state.queue] = task
            task.add_done_callback(partial(self._ended, state.queue))

    def _ended(self, queue: Queue, task: asyncio.Task[None]) -> None:
        del self._running[queue]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._errors.append(error)
            self._held[queue] = self._now() + timedelta(seconds=_HELD_SECONDS)
        # Its next message may be due, or another queue may have its place.
        self._wake.set()

    async def settled(self) -> None:
        """Returns when no receiver is called any more."""
        while self._running:
            await asyncio.wait(self._running.values())

    async def _cancel(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _deliver(self, queue: Queue) -> None:
        """Delivers the messages of a queue in their order, until there are none or one is not taken."""
        while messages := await self._io(lambda: self._outbox.messages(queue)):
            for message in messages:
                if not await self._one(queue, message):
                    return
        self._had.pop(queue, None)

    async def _one(self, queue: Queue, message: OutboxRecord) -> bool:
        """Whether the next message of the queue may follow."""
        if message.generation > self._had.get(queue, 0):
            to = self._receiver(message)
            if to is None:
                dropped = await self._io(lambda: self._outbox.drop_queue(queue))
                _log.info(
                    "%s: its document does not name %s any more: %d messages were dropped",
                    queue.endpoint,
                    shown(queue.webhook),
                    dropped,
                )
                return False
            try:
                await self.send(to, message.body)
            except PostError as error:
                await self._not_taken(queue, message, str(error))
                return False
            self._had[queue] = message.generation
            self.delivered[queue] += 1
            if self.failing.pop(queue, None) is not None:
                _log.info("%s: the webhook %s takes messages again", queue.endpoint, shown(queue.webhook))
        await self._io(lambda: self._outbox.delivered(queue, message.generation))
        return True

    async def send(self, to: Receiver, body: bytes) -> None:
        """One attempt; :class:`PostError`."""

        def read() -> tuple[str, str | None]:
            return read_reference(to.webhook), None if to.secret is None else read_reference(to.secret)

        address, secret = await self._io(read)
        fields = sign(body, secret, int(self._now().timestamp()))
        await self._post(address, fields, body, to.timeout_ms / 1000)

    async def _not_taken(self, queue: Queue, message: OutboxRecord, error: str) -> None:
        attempts, now = message.attempts + 1, self._now()
        due = now + timedelta(seconds=pause_seconds(attempts, self._jitter()))
        self.failed[queue] += 1
        before = self.failing.get(queue)
        if before is None or before.error != error:
            _log.warning("%s: the webhook %s does not take a message: %s", queue.endpoint, shown(queue.webhook), error)  # fmt: skip
        self.failing[queue] = Failing(stamp(now) if before is None else before.since, attempts, error)
        await self._io(lambda: self._outbox.failed(queue, message.generation, attempts, stamp(due)))

"""The outbox: messages to webhooks, written in the transaction of the event that they tell of, and kept until they are delivered.

Not here: who is told of what and how (``headgate.notify``). Next: ``models``.

A queue is an endpoint and a webhook. Its messages have the numbers of their events, so they are in the order of the commits.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Literal, NamedTuple

from sqlalchemy import ColumnElement, and_, delete, func, select, tuple_, update
from sqlalchemy.orm import Session

from headgate.store.models import EventRecord, OutboxRecord
from headgate.store.transactions import Transactions, Write

_log = logging.getLogger(__name__)
MOST_OF_A_QUEUE = 1_000
"""Messages that wait for one webhook of one endpoint at most; the oldest goes when another one comes."""
MOST = 20_000
"""Messages that wait at most, for all webhooks together."""
MOST_COUNTED = 10_000
"""Queues whose drops are counted; webhooks that are no more go first."""
_AT_ONCE = 500

DropReason = Literal["full", "too_old", "unsubscribed"]


class Queue(NamedTuple):
    """The messages of one endpoint for one webhook, which is named as the document writes it."""

    endpoint: str
    webhook: str


@dataclass(frozen=True)
class Envelope:
    """What a webhook is to be told of an event: its name for receivers, the bytes, and how they are sent."""

    queue: Queue
    name: str
    body: bytes
    secret: str | None
    timeout_ms: int


@dataclass(frozen=True)
class QueueState:
    """A queue with messages: the number of its first one and when that may be tried (None: now), how many there are, and when the oldest
    was written. Times are stamps.
    """

    queue: Queue
    first: int
    due: str | None
    count: int
    oldest: str


Route = Callable[[EventRecord], Sequence[Envelope]]


class StoreOutbox:
    """The table of messages; thread-safe."""

    def __init__(self, transactions: Transactions, limits: tuple[int, int] = (MOST_OF_A_QUEUE, MOST)) -> None:
        """Use ``Store.outbox``. ``limits`` are those of a queue and of all together."""
        self._transactions = transactions
        self._of_a_queue, self._of_all = limits
        self.route: Route = lambda _event: ()
        """Says who is told of an event. It is called inside the event's transaction, in any thread: it must not wait."""
        self._lock = Lock()
        self._dropped: Counter[tuple[Queue, DropReason]] = Counter()
        transactions.after_event = self._put

    def _put(self, write: Write, event: EventRecord) -> None:
        try:
            envelopes = self.route(event)
        except Exception:
            # A change must not fail because nobody could be told of it.
            _log.exception("an event leaves no message: %s %s", event.type, event.endpoint)
            return
        for one in envelopes:
            self._make_room(write, one.queue)
            write.add(
                OutboxRecord(
                    endpoint=one.queue.endpoint,
                    webhook=one.queue.webhook,
                    generation=event.generation,
                    name=one.name,
                    secret=one.secret,
                    timeout_ms=one.timeout_ms,
                    written=write.now,
                    body=one.body,
                )
            )

    def _make_room(self, write: Write, queue: Queue) -> None:
        session = write.session
        where = _of(queue)
        waiting = session.scalar(select(func.count()).select_from(OutboxRecord).where(where)) or 0
        if waiting >= self._of_a_queue:
            gone = session.scalars(
                select(OutboxRecord.generation)
                .where(where)
                .order_by(OutboxRecord.generation)
                .limit(waiting - self._of_a_queue + 1)
            ).all()
            _delete(session, and_(where, OutboxRecord.generation.in_(gone)))
            self._count(write, queue, "full", len(gone))
            return
        everything = session.scalar(select(func.count()).select_from(OutboxRecord)) or 0
        if everything >= self._of_all:
            # The oldest of all: that of a receiver which has not answered for long.
            oldest = session.execute(
                select(OutboxRecord.endpoint, OutboxRecord.webhook, OutboxRecord.generation)
                .order_by(OutboxRecord.written, OutboxRecord.generation)
                .limit(1)
            ).one()
            last = Queue(oldest.endpoint, oldest.webhook)
            _delete(session, and_(_of(last), OutboxRecord.generation == oldest.generation))
            self._count(write, last, "full", 1)

    def _count(self, write: Write, queue: Queue, reason: DropReason, count: int) -> None:
        """Counts what is gone, once the transaction has committed."""

        def committed() -> None:
            with self._lock:
                self._dropped[queue, reason] += count
                while len(self._dropped) > MOST_COUNTED:
                    del self._dropped[next(iter(self._dropped))]

        if count:
            write.after_commit.append(committed)

    def dropped(self) -> dict[tuple[Queue, DropReason], int]:
        """Messages that were dropped since the start without being delivered, by queue and reason."""
        with self._lock:
            return dict(self._dropped)

    # === what a deliverer does ===

    def queues(self) -> list[QueueState]:
        """Every queue with messages."""
        heads = (
            select(
                OutboxRecord.endpoint,
                OutboxRecord.webhook,
                func.min(OutboxRecord.generation).label("first"),
                func.count().label("waiting"),
                func.min(OutboxRecord.written).label("oldest"),
            )
            .group_by(OutboxRecord.endpoint, OutboxRecord.webhook)
            .subquery()
        )
        same = and_(
            OutboxRecord.endpoint == heads.c.endpoint,
            OutboxRecord.webhook == heads.c.webhook,
            OutboxRecord.generation == heads.c.first,
        )
        query = select(heads, OutboxRecord.due).join(OutboxRecord, same)
        with self._transactions.read() as session:
            return [
                QueueState(Queue(row.endpoint, row.webhook), row.first, row.due, row.waiting, row.oldest)
                for row in session.execute(query.order_by(heads.c.endpoint, heads.c.webhook))
            ]

    def messages(self, queue: Queue, limit: int = 20) -> list[OutboxRecord]:
        """The first messages of a queue."""
        query = select(OutboxRecord).where(_of(queue)).order_by(OutboxRecord.generation).limit(limit)
        with self._transactions.read() as session:
            return list(session.scalars(query))

    def delivered(self, queue: Queue, generation: int) -> None:
        """Forgets a message that a receiver has."""
        with self._transactions.write() as write:
            _delete(write.session, and_(_of(queue), OutboxRecord.generation == generation))

    def failed(self, queue: Queue, generation: int, attempts: int, due: str) -> None:
        """Keeps how often a message was tried, and when it is tried again."""
        with self._transactions.write() as write:
            write.session.execute(
                update(OutboxRecord)
                .where(_of(queue), OutboxRecord.generation == generation)
                .values(attempts=attempts, due=due)
                .execution_options(synchronize_session=False)
            )

    def drop_older(self, before: str) -> int:
        """Drops messages that were written before a stamp, as many as one transaction may; how many. Writes nothing if there are none."""
        old = (
            select(OutboxRecord.endpoint, OutboxRecord.webhook, OutboxRecord.generation)
            .where(OutboxRecord.written < before)
            .order_by(OutboxRecord.written)
            .limit(_AT_ONCE)
        )
        with self._transactions.read() as session:
            if session.execute(old.limit(1)).first() is None:
                return 0
        with self._transactions.write() as write:
            gone = [(row.endpoint, row.webhook, row.generation) for row in write.session.execute(old)]
            key = tuple_(OutboxRecord.endpoint, OutboxRecord.webhook, OutboxRecord.generation)
            _delete(write.session, key.in_(gone))
            for queue, count in Counter(Queue(row[0], row[1]) for row in gone).items():
                self._count(write, queue, "too_old", count)
        return len(gone)

    def drop_queue(self, queue: Queue) -> int:
        """Drops every message of a queue that nobody wants any more; how many."""
        with self._transactions.write() as write:
            count = (
                write.session.scalar(select(func.count()).select_from(OutboxRecord).where(_of(queue))) or 0
            )
            _delete(write.session, _of(queue))
            self._count(write, queue, "unsubscribed", count)
        return count


def _of(queue: Queue) -> ColumnElement[bool]:
    return and_(OutboxRecord.endpoint == queue.endpoint, OutboxRecord.webhook == queue.webhook)


def _delete(session: Session, where: ColumnElement[bool]) -> None:
    session.execute(delete(OutboxRecord).where(where).execution_options(synchronize_session=False))

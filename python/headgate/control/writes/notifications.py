"""Who is told of what happens to an endpoint: its document's ``notify``, joined with the outbox and the deliveries.

Not here: what is told and how (``headgate.notify``), the rows (``store.outbox``). Next: ``drift_watch``.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from typing_extensions import TypedDict

from headgate.background import Background
from headgate.control.domain.calls import Call
from headgate.control.writes.audit import Recorder, audit_record
from headgate.control.writes.context import Context
from headgate.control.writes.endpoint import Endpoints, EndpointState, present
from headgate.errors import Conflict
from headgate.notify import (
    Deliveries,
    Policy,
    Post,
    PostError,
    Receiver,
    envelopes,
    post,
    receivers,
    shown,
    test_message,
)
from headgate.store import Envelope, EventRecord, OutboxRecord, Queue, seconds, unstamp

Pair = tuple[str, str]
"""An endpoint, and what is shown of a webhook."""


class WebhookTest(TypedDict):
    """What became of a test message: ``detail`` says why it was not taken."""

    webhook: str
    events: list[str]
    status: Literal["delivered", "failed"]
    detail: str | None


class WebhookTests(TypedDict):
    """The test messages of an endpoint."""

    webhooks: list[WebhookTest]


@dataclass(frozen=True)
class WebhookFigures:
    """Counts since the start, and what waits now, by endpoint and webhook; drops by reason as well. Ages in seconds."""

    delivered: dict[Pair, int]
    failed: dict[Pair, int]
    waiting: dict[Pair, int]
    oldest: dict[Pair, float]
    dropped: dict[tuple[str, str, str], int]


class Notifications:
    """The webhooks of one gateway. Belongs to one event loop, but for :meth:`route`."""

    def __init__(self, context: Context, endpoints: Endpoints, posting: Post | None = None) -> None:
        """``endpoints`` are all there are, now and later; ``posting`` is what sends, if it is not HTTP."""
        self._context = context
        self._endpoints = endpoints
        self._outbox = context.store.outbox
        self._outbox.route = self.route
        policy = Policy(self._look_up, context.settings.private_webhooks)
        self.deliveries = Deliveries(
            self._outbox,
            context.telling,
            posting or functools.partial(post, policy),
            context.store.now,
            receiver=self._receiver,
        )
        self._dropping: set[Queue] = set()
        """Queues of which it was told that they lose messages."""
        self._told: Counter[Queue] = Counter()
        """The messages that each has lost, as of the last look; they are counted since the start."""
        context.feed.listen(lambda _event: self.deliveries.wake())

    def start(self, background: Background) -> None:
        """Begins the loop."""
        background.run("deliver_webhooks", self.turn)

    async def turn(self) -> None:
        """Delivers what is due, and tells of messages that were lost."""
        await self.deliveries.turn()
        self.deliveries.forget(self._named())
        await self._tell_of_drops()

    async def _tell_of_drops(self) -> None:
        """Once for each time that a receiver fails: what tells of a loss may be lost itself."""
        failing = self.deliveries.failing
        self._dropping &= failing.keys()
        lost: Counter[Queue] = Counter()
        for (queue, reason), count in self._outbox.dropped().items():
            lost[queue] += 0 if reason == "unsubscribed" else count
        for queue in failing:
            is_new = lost[queue] > self._told[queue]
            self._told[queue] = max(self._told[queue], lost[queue])
            if is_new and queue not in self._dropping:
                self._dropping.add(queue)
                words = f"messages to the webhook {shown(queue.webhook)} are lost, because it takes none"
                await self._context.alarm(queue.endpoint, None, words)

    # === who is told ===

    def route(self, event: EventRecord) -> Sequence[Envelope]:
        """The messages of an event. Called in any thread; what it reads is replaced and never changed."""
        state = self._endpoints.get(event.endpoint or "")
        told = self._receivers(state)
        if told is None and event.type == "removed" and state is not None:
            told = receivers(state.notified)
        return envelopes(event, told or ())

    def _receivers(self, state: EndpointState | None) -> tuple[Receiver, ...] | None:
        """The webhooks of the document in force; None: there is none now."""
        current = None if state is None else state.current
        return None if current is None else receivers(current.spec.notify)

    def _receiver(self, message: OutboxRecord) -> Receiver | None:
        """As the document has it now. Of an endpoint that is gone, or not served yet, as it was when the message was written."""
        now = self._receivers(self._endpoints.get(message.endpoint))
        if now is None:
            return Receiver(message.webhook, message.secret, (message.name,), message.timeout_ms)
        return next((one for one in now if one.webhook == message.webhook), None)

    # === what people see ===

    def alarms(self, endpoint: str) -> list[str]:
        """The webhooks of an endpoint that do not take their messages, in words; from memory."""
        found = []
        for queue, failing in self.deliveries.failing.items():
            waiting = self.deliveries.waiting.get(queue)
            if queue.endpoint == endpoint and waiting is not None:
                found.append(
                    f"the webhook {shown(queue.webhook)} takes no message since {seconds(failing.since)}: {failing.error} "
                    f"({failing.attempts} attempts, {waiting.count} messages wait)"
                )
        return found

    def figures(self) -> WebhookFigures:
        """The figures of every webhook that a document in force names, or that has messages; from memory."""
        zero = {(queue.endpoint, shown(queue.webhook)): 0 for queue in self._named()}
        now = self._context.store.now()
        waiting, oldest = dict(zero), dict.fromkeys(zero, 0.0)
        for queue, state in self.deliveries.waiting.items():
            pair = (queue.endpoint, shown(queue.webhook))
            waiting[pair] = waiting.get(pair, 0) + state.count
            age = (now - unstamp(state.oldest)).total_seconds()
            oldest[pair] = max(oldest.get(pair, 0.0), age)
        dropped: dict[tuple[str, str, str], int] = {}
        for (queue, reason), count in self._outbox.dropped().items():
            key = (queue.endpoint, shown(queue.webhook), reason)
            dropped[key] = dropped.get(key, 0) + count
        delivered = _summed(zero, self.deliveries.delivered)
        return WebhookFigures(delivered, _summed(zero, self.deliveries.failed), waiting, oldest, dropped)

    def _named(self) -> list[Queue]:
        return [
            Queue(state.name, one.webhook)
            for state in self._endpoints.values()
            for one in self._receivers(state) or ()
        ]

    async def test(self, endpoint: str, call: Call, audit: Recorder) -> WebhookTests:
        """Sends each webhook of an endpoint a test message, at once and beside the outbox; :class:`Conflict` if there is none."""
        told = receivers(present(self._endpoints.known(endpoint)).spec.notify)
        if not told:
            raise Conflict(f"{endpoint} has no webhook: its document needs notify")
        body = test_message(endpoint, self._context.now(), call.principal)
        found = await asyncio.gather(*(self._tested(one, body) for one in told))
        detail = {one["webhook"]: one["status"] for one in found}
        record = audit_record(
            call, self._context.now(), "notify_test", (endpoint, None), ("applied", {"webhooks": detail})
        )
        await audit.leave(record)
        return WebhookTests(webhooks=list(found))

    async def _tested(self, to: Receiver, body: bytes) -> WebhookTest:
        why: str | None = None
        try:
            await self.deliveries.send(to, body)
        except PostError as error:
            why = str(error)
        return WebhookTest(
            webhook=shown(to.webhook),
            events=list(dict.fromkeys(to.events)),
            status="delivered" if why is None else "failed",
            detail=why,
        )

    async def _look_up(self, host: str, port: int) -> list[str]:
        found = await self._context.looking_up(
            lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _summed(zero: Mapping[Pair, int], counts: Mapping[Queue, int]) -> dict[Pair, int]:
    found = dict(zero)
    for queue, count in counts.items():
        pair = (queue.endpoint, shown(queue.webhook))
        found[pair] = found.get(pair, 0) + count
    return found

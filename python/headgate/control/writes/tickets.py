"""Tickets of the data plane: who waits for which, and the drain of the event queue.

Not here: what an outcome means for a revision (``writer``). Next: ``writer``.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headgate.control.writes.data_plane import DataPlane
from headgate.errors import Draining

Event = dict[str, Any]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ticket:
    """What the data plane was asked for: ``n`` is the revision to serve, None a removal."""

    number: int
    endpoint: str
    n: int | None = None


@dataclass(frozen=True)
class _PendingTicket:
    ticket: Ticket
    future: asyncio.Future[Event]
    seen: Callable[[Event], None]


class Tickets:
    """Resolves the futures of tickets in the order the data plane finished them. Belongs to one event loop."""

    def __init__(self, plane: DataPlane) -> None:
        """Nobody waits yet."""
        self._plane = plane
        self._waiting: dict[int, _PendingTicket] = {}
        self._closed = False

    def expect(self, ticket: Ticket, seen: Callable[[Event], None]) -> asyncio.Future[Event]:
        """A future of the ticket's event. ``seen`` runs first and at once, so that memory follows the data plane's order.

        Must be called in the same step of the loop as the call that returned ``ticket``.
        """
        future: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_exception(Draining("the gateway stops"))
        else:
            self._waiting[ticket.number] = _PendingTicket(ticket, future, seen)
        return future

    def withdraw(self, future: asyncio.Future[Event]) -> bool:
        """Takes back what the data plane was asked for. False: it is served or has failed, and its event is there or about to be."""
        self.pump()
        numbers = [number for number, waiting in self._waiting.items() if waiting.future is future]
        if future.done() or not all(self._plane.withdraw(number) for number in numbers):
            return False
        self.pump()
        for number in numbers:
            # Its event may have given way in a full queue.
            self._waiting.pop(number, None)
        return True

    def pump(self) -> None:
        """Drains the events; never waits."""
        lost = False
        for event in json.loads(self._plane.events()):
            waiting = self._waiting.pop(event.get("ticket"), None)
            if waiting is not None:
                _tell(waiting, event)
            elif event.get("event") == "lost":
                lost = True
            elif not self._closed:
                _log.warning("the data plane answered a ticket that nobody holds: %s", event)
        if lost:
            self._resolve_from_status()

    def close(self) -> None:
        """Everyone who still waits is told that the gateway stops."""
        self._closed = True
        for waiting in self._waiting.values():
            if not waiting.future.done():
                waiting.future.set_exception(
                    Draining("the gateway stops; the change is completed or undone at the next start")
                )
        self._waiting.clear()

    def _resolve_from_status(self) -> None:
        """Events gave way in a full queue: what is live tells the outcome of every ticket that still waits."""
        endpoints = json.loads(self._plane.status()).get("endpoints", {})
        for waiting in list(self._waiting.values()):
            ticket = waiting.ticket
            live = endpoints.get(ticket.endpoint)
            if (None if live is None else live.get("revision")) == ticket.n:
                del self._waiting[ticket.number]
                _tell(waiting, {"event": "removed" if ticket.n is None else "applied"})
            elif not waiting.future.done():
                # Kept: should it load yet and be told of later, memory follows the data plane.
                message = "the data plane had no room to tell the outcome, and does not serve it: ask again"
                _tell(waiting, {"event": "failed", "code": "internal", "message": message})


def _tell(waiting: _PendingTicket, event: Event) -> None:
    """Hands over one outcome; a defect in one receiver keeps no other from its own."""
    try:
        waiting.seen(event)
    except Exception as error:
        _log.exception("the outcome of %s could not be taken over: %s", waiting.ticket, event)
        if not waiting.future.done():
            waiting.future.set_exception(error)
        return
    if not waiting.future.done():
        waiting.future.set_result(event)

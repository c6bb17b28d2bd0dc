"""Tickets of the data plane: who waits for which, and the drain of the event queue.

Not here: what an outcome means for a revision (``writer``). Next: ``writer``.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

from headgate.control.native import DataPlane
from headgate.errors import Draining

Event = dict[str, Any]
_log = logging.getLogger(__name__)


class Tickets:
    """Resolves the futures of tickets in the order the data plane finished them. Belongs to one event loop."""

    def __init__(self, plane: DataPlane) -> None:
        """Nobody waits yet."""
        self._plane = plane
        self._waiting: dict[int, tuple[asyncio.Future[Event], Callable[[Event], None]]] = {}
        self._closed = False

    def expect(self, ticket: int, seen: Callable[[Event], None]) -> asyncio.Future[Event]:
        """A future of the ticket's event. ``seen`` runs first and at once, so that memory follows the data plane's order.

        Must be called in the same step of the loop as the call that returned ``ticket``.
        """
        future: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_exception(Draining("the gateway stops"))
        else:
            self._waiting[ticket] = (future, seen)
        return future

    def pump(self) -> None:
        """Drains the events; never waits."""
        for event in json.loads(self._plane.events()):
            waiting = self._waiting.pop(event.get("ticket"), None)
            if waiting is None:
                _log.warning("the data plane answered a ticket that nobody holds: %s", event)
                continue
            future, seen = waiting
            seen(event)
            if not future.done():
                future.set_result(event)

    def close(self) -> None:
        """Everyone who still waits is told that the gateway stops."""
        self._closed = True
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(
                    Draining("the gateway stops; the change is completed or undone at the next start")
                )
        self._waiting.clear()

"""The emergency calls of one endpoint that are under way, and which of them goes before another.

Not here: what they do (``emergency``). Next: ``emergency``.

One is carried out at a time (``EndpointState.step``). One that waits for a load lets every other go first that was not decided yet on
what is in force. So a call that needs no load waits for none, and a call that needs one is decided once on each state: it can be passed
as often as the state changes, and no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(eq=False)
class UrgentCall:
    """``asks`` is the call and its argument: who asks for the same waits for the same outcome. ``decided_on`` is the state that it was
    decided on last, ``came`` is set when another call has come, and ``reads`` is the argument that its last attempt began to make.
    """

    asks: str
    decided_on: object = field(default_factory=object)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    reads: asyncio.Task[bytes | None] | None = None


class UrgentCalls:
    """Those of one endpoint, in the order in which they came."""

    def __init__(self) -> None:
        """None yet."""
        self._calls: list[UrgentCall] = []

    @contextmanager
    def joined(self, call: UrgentCall) -> Iterator[None]:
        """``call`` is under way, and the others are told."""
        for other in self._calls:
            other.came.set()
        self._calls.append(call)
        try:
            yield
        finally:
            self._calls.remove(call)

    def before(self, call: UrgentCall, current: object) -> UrgentCall | None:
        """One that goes before ``call`` if that waits for a load, while ``current`` is in force."""
        fresh = (one for one in self._calls if one.decided_on is not current)
        return next((one for one in fresh if one.asks != call.asks), None)

"""Loops that run for ever beside the calls, each under a name, with what an operator wants to know of them.

Not here: what a loop does (``control``, ``gateway``). The figures are on ``/metrics`` (``observe.declared``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from headgate.errors import HeadgateError

_log = logging.getLogger(__name__)
_PAUSE_AFTER_DEFECT_SECONDS = 1.0

Turn = Callable[[], Awaitable[None]]


@dataclass
class LoopStatus:
    """What became of a loop's turns; times in seconds since 1970, 0 before the first."""

    last_success: float = 0.0
    last_failure: float = 0.0
    failures: int = 0
    last_error: str = ""


class Background:
    """Supervises loops: a turn that fails is counted, and the next turn tries again. Belongs to one event loop.

    The log has a failure once, however often it comes back without a good turn between.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` gives the time in seconds since 1970."""
        self._clock = clock
        self._status: dict[str, LoopStatus] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._repeated: set[str] = set()
        """The loops whose last turn failed."""

    def run(self, name: str, turn: Turn, pause_seconds: float = 0.0) -> None:
        """Repeats ``turn`` until :meth:`close`, with a pause after each; without one, the turn must wait for its own time."""
        self._status[name] = LoopStatus()
        self._tasks.add(asyncio.create_task(self._repeat(name, turn, pause_seconds), name=name))

    def status(self) -> Mapping[str, LoopStatus]:
        """Every loop by name."""
        return self._status

    async def close(self) -> None:
        """Ends all loops; idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _repeat(self, name: str, turn: Turn, pause_seconds: float) -> None:
        while True:
            pause = pause_seconds
            try:
                await turn()
            except HeadgateError as error:
                if self._failed(name, error.message):
                    _log.error("%s: %s", name, error.message)
            except Exception as error:
                if self._failed(name, repr(error)):
                    _log.exception("%s: a defect; it is tried again", name)
                pause = max(pause, _PAUSE_AFTER_DEFECT_SECONDS)
            else:
                self._status[name].last_success = self._clock()
                self._repeated.discard(name)
            if pause:
                await asyncio.sleep(pause)

    def _failed(self, name: str, error: str) -> bool:
        """Notes a failure; whether it is another one than that of the turn before."""
        status = self._status[name]
        is_new = name not in self._repeated or status.last_error != error
        self._repeated.add(name)
        status.failures += 1
        status.last_failure = self._clock()
        status.last_error = error
        return is_new

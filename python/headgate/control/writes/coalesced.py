"""Work that callers share: one run at a time, and a caller that comes meanwhile joins it.

Not here: what the work is (``write_behind``, ``audit``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

Work = Callable[[], Coroutine[Any, Any, None]]


class Coalesced:
    """One piece of work. A caller that is cancelled leaves it to its end, so that nothing is written twice or half.

    The work must look again for what came meanwhile before it ends: a caller that joins does not begin another run.
    """

    def __init__(self, work: Work) -> None:
        """Begins with the first caller."""
        self._work = work
        self._running: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Returns, or fails, as the work does."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._work())
        await asyncio.shield(self._running)

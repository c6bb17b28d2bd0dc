"""Pages of ``/metrics``: one rendering at a time, whoever asks, and each page served for a while.

Without that, each of six scrapers has a page made of its own, and a rollback waits for them. Not here: what is on a page.
Next: app.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple


class Form(NamedTuple):
    """The forms in which a page can be asked for."""

    open_metrics: bool
    compact: bool


@dataclass(frozen=True)
class _Page:
    text: bytes
    made: float


class Scrapes:
    """The newest page of each form. Belongs to one event loop."""

    def __init__(
        self,
        render: Callable[[Form], Awaitable[bytes]],
        age_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``age_seconds`` is for how long a page is served."""
        self._render = render
        self._age_seconds = age_seconds
        self._clock = clock
        self._pages: dict[Form, _Page] = {}
        self._making: dict[Form, asyncio.Task[bytes]] = {}
        self._turn = asyncio.Lock()

    async def page(self, form: Form) -> bytes:
        """A page that is new enough; whoever asks while one is made gets that one."""
        page = self._pages.get(form)
        if page is not None and self._clock() - page.made < self._age_seconds:
            return page.text
        making = self._making.get(form)
        if making is None:
            making = self._making[form] = asyncio.create_task(self._make(form))
        # A scraper that leaves takes the page from nobody.
        return await asyncio.shield(making)

    async def _make(self, form: Form) -> bytes:
        try:
            async with self._turn:
                text = await self._render(form)
            # Aged from its end: a page that takes longer than it lives would be made without a pause.
            self._pages[form] = _Page(text, self._clock())
            return text
        finally:
            del self._making[form]

"""Whose token a request carries, whatever the disk does; who is not let in is counted and slowed.

Not here: how a token is judged (``tokens``), Host and Origin (``guard``). Next: ``guard``.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

from headgate.admin.tokens import Principal, Tokens
from headgate.control import Control
from headgate.errors import HeadgateError, StorageFailed

_PATIENCE_SECONDS = 0.25
"""How long the store may take to find a token before the one that was found last counts."""
_FIRST_SECONDS = 5.0
"""How long it may take to find a token that was not found before: nothing else can say whether it is good."""
_LOOKS = 64
"""Looks into the store that are on their way at most."""


class Callers:
    """Lets callers in. Belongs to one event loop."""

    def __init__(self, control: Control, tokens: Tokens) -> None:
        """The control plane has the threads and the audit."""
        self._control = control
        self._tokens = tokens
        self._looks = 0
        self._noting: asyncio.Task[None] | None = None

    async def principal(self, text: str) -> Principal:
        """Whose token it is: by the store, or by memory while the store does not answer."""
        try:
            principal = await self._look(text)
        except (StorageFailed, TimeoutError) as error:
            recalled = self._tokens.recall(text)
            if recalled is None:
                raise StorageFailed(
                    "the token cannot be looked up: the state folder does not answer"
                ) from error
            return recalled
        if self._tokens.has_uses() and (self._noting is None or self._noting.done()):
            self._noting = asyncio.create_task(self._note())
        return principal

    async def refused(self, address: str, error: HeadgateError) -> None:
        """Counts a caller that is not let in, and keeps its answer back when there are many."""
        pause = self._control.refused_callers.count(address, error)
        if pause:
            await asyncio.sleep(pause)

    async def _look(self, text: str) -> Principal:
        if self._looks >= _LOOKS:
            raise TimeoutError
        self._looks += 1
        try:
            known = self._tokens.recall(text) is not None
            async with asyncio.timeout(_PATIENCE_SECONDS if known else _FIRST_SECONDS):
                return await self._control.authenticating(partial(self._tokens.authenticate, text))
        finally:
            self._looks -= 1

    async def _note(self) -> None:
        """Writes when tokens were used last; nobody waits for it."""
        with suppress(HeadgateError):
            await self._control.storing(self._tokens.write_uses)

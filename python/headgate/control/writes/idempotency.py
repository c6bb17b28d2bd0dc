"""Idempotency keys: the same key and request give the stored answer, the same key and another request a conflict.

Not here: where the answer is written: with its revision (``transition``) or its row of the audit (``audit``). Next: ``service``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from headgate.control.domain.calls import Call
from headgate.control.writes.context import Context
from headgate.errors import Conflict, StorageFailed
from headgate.store import IdempotencyRecord

_log = logging.getLogger(__name__)
R = TypeVar("R", bound=Mapping[str, Any])
"""The answer of a write: JSON-ready, with ``replayed`` if it is the stored one."""
Work = Callable[[], Coroutine[Any, Any, R]]


@dataclass
class _Turn:
    """One key in use: callers take turns, and the last one to leave forgets it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    callers: int = 0


class Idempotency:
    """Runs work at most once per key."""

    def __init__(self, context: Context) -> None:
        """The context holds the store."""
        self._context = context
        self._running: dict[tuple[str, str, str], _Turn] = {}

    async def run(self, call: Call, work: Work[R], patience_seconds: float | None = None) -> R:
        """The result of ``work``, or the stored one with ``replayed`` set. A store that does not answer in time knows no key."""
        key = call.key
        if key is None or call.dry_run:
            return await work()
        identity = (key.principal, key.route, key.key)
        turn = self._running.setdefault(identity, _Turn())
        turn.callers += 1
        try:
            async with turn.lock:
                return await self._under_key(call, work, patience_seconds)
        finally:
            turn.callers -= 1
            if turn.callers == 0:
                del self._running[identity]

    async def _under_key(self, call: Call, work: Work[R], patience_seconds: float | None) -> R:
        key = call.key
        assert key is not None, "run() comes here with a key only"  # noqa: S101
        try:
            async with asyncio.timeout(patience_seconds):
                stored = await self._context.io(
                    lambda: self._context.store.idempotent(key.principal, key.route, key.key)
                )
        except (StorageFailed, TimeoutError):
            # An emergency call must go through; an ordinary one fails at its own write.
            _log.exception("idempotency keys cannot be read")
            stored = None
        if stored is None:
            return await work()
        if stored.request != key.request:
            raise Conflict(f"Idempotency-Key {key.key!r} was used for another request: take a new key")
        return cast(R, {**stored.response, "replayed": True})


def remembered(context: Context, call: Call, result: Mapping[str, Any]) -> IdempotencyRecord | None:
    """The answer under the call's idempotency key; None when it has none."""
    key = call.key
    if key is None:
        return None
    return IdempotencyRecord(
        key.principal, key.route, key.key, key.request, dict(result), context.key_expiry()
    )

"""The threads of the control plane, by what may keep them: a call waits only for what it needs itself.

Not here: what runs in them. Next: ``context``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from typing import Any, TypeVar

from headgate.control.domain.calls import Settings
from headgate.errors import Draining

T = TypeVar("T")


class Work(Enum):
    """What threads are kept for."""

    READ = "read"
    """Reads of the store, the data plane's status, small files."""
    WRITE = "write"
    """Writes to the store. One thread: the store takes one write at a time, and a disk that hangs keeps no other thread."""
    URGENT = "urgent"
    """What an emergency call needs before it is in force."""
    AUTHENTICATE = "judge"
    """Looks at the tokens of callers, those of emergency calls among them."""
    BEHIND = "behind"
    """What is written after it took effect. One thread: it keeps the order."""
    TELL = "tell"
    """Messages to webhooks: rows, and files of secrets. One thread: a disk that hangs keeps no other one."""
    LOOK_UP = "look_up"
    """Names of hosts. A name server that does not answer keeps nothing else."""
    PARSE = "parse"
    """Documents: a large one takes seconds of CPU."""
    MODEL = "model"
    """Copying, hashing, inspecting, fitting: minutes."""


class Threads:
    """One pool for each kind of work."""

    def __init__(self, settings: Settings) -> None:
        """Threads begin with the first use."""
        sizes = {
            Work.READ: settings.threads,
            Work.WRITE: 1,
            Work.URGENT: settings.urgent_threads,
            Work.AUTHENTICATE: settings.urgent_threads,
            Work.BEHIND: 1,
            Work.TELL: 1,
            Work.LOOK_UP: settings.threads,
            Work.PARSE: settings.parse_threads,
            Work.MODEL: settings.model_threads,
        }
        self._pools = {
            work: ThreadPoolExecutor(size, thread_name_prefix=f"headgate-{work.value}")
            for work, size in sizes.items()
        }
        self._under_way: set[Future[Any]] = set()
        self._long: set[Future[Any]] = set()
        self._refused: frozenset[Work] = frozenset()
        self._closed = False

    def refuse(self, *works: Work) -> None:
        """Takes no more of these."""
        self._refused = frozenset(works)

    async def run(self, work: Work, do: Callable[[], T]) -> T:
        """The result of ``do``; :class:`Draining` after :meth:`close` has begun."""
        if self._closed or work in self._refused:
            raise Draining("the gateway stops")
        future = self._pools[work].submit(do)
        under_way = self._long if work in (Work.MODEL, Work.LOOK_UP) else self._under_way
        under_way.add(future)
        future.add_done_callback(under_way.discard)
        return await asyncio.wrap_future(future)

    async def close(self, patience_seconds: float) -> bool:
        """Takes nothing new; whether everything has ended in time. Work on models, which takes minutes, is not waited for."""
        self._closed = True
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        rest = [asyncio.ensure_future(asyncio.wrap_future(future)) for future in list(self._under_way)]
        if not rest:
            return not self._long
        _, busy = await asyncio.wait(rest, timeout=patience_seconds)
        for one in rest:
            one.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        return not busy and not self._long

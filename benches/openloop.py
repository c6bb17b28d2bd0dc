"""An open loop: requests leave when their time comes, whether answers are there or not. What overload does shows only this way.

One event loop and a pool of HTTP/1.1 connections that grows as requests wait. Read next: ``overload``.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

MAX_CONNECTIONS = 8_000


@dataclass(frozen=True)
class Stream:
    """Requests of one kind: so many a second, spread as a Poisson process."""

    name: str
    request: bytes
    per_second: float


@dataclass
class Outcome:
    """One request: when it was due and when it was answered, from the loop's begin, and with which status; 0 is none."""

    stream: str
    due: float
    answered: float
    status: int

    @property
    def latency(self) -> float:
        """Seconds from when it was due: a client that is late has its own lateness in it."""
        return self.answered - self.due


@dataclass(eq=False)
class Wire(asyncio.Protocol):
    """One connection with at most one request on it."""

    pool: Pool
    waiting: tuple[str, float] | None = None
    transport: asyncio.Transport | None = None
    received: bytearray = field(default_factory=bytearray)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self.transport = cast("asyncio.Transport", transport)

    def send(self, stream: Stream, due: float) -> None:
        """Sends a request that was due then."""
        assert self.transport is not None
        self.waiting = (stream.name, due)
        self.transport.write(stream.request)

    def data_received(self, data: bytes) -> None:
        """A piece of an answer."""
        self.received += data
        head, found, rest = bytes(self.received).partition(b"\r\n\r\n")
        if not found:
            return
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        if len(rest) < length:
            return
        self.received.clear()
        self.over(int(head[9:12]))
        self.pool.idle.append(self)

    def connection_lost(self, _: Exception | None) -> None:
        """The server closed it."""
        self.over(0)
        if self in self.pool.idle:
            self.pool.idle.remove(self)

    def over(self, status: int) -> None:
        """Notes what became of the request."""
        if self.waiting is not None:
            name, due = self.waiting
            self.waiting = None
            self.pool.outcomes.append(Outcome(name, due, time.perf_counter() - self.pool.begun, status))


@dataclass
class Pool:
    """Connections to one server and what came of the requests."""

    host: str
    port: int
    begun: float = 0.0
    idle: list[Wire] = field(default_factory=list)
    opened: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    unsent: int = 0
    """Requests for which there was no connection any more."""

    async def open(self) -> Wire:
        """One more connection."""
        self.opened += 1
        _, wire = await asyncio.get_running_loop().create_connection(lambda: Wire(self), self.host, self.port)
        return wire

    async def play(self, streams: Sequence[Stream], seconds: float, seed: int) -> list[Outcome]:
        """Sends for a while and waits for the answers."""
        draw = random.Random(seed)
        arrivals = sorted(
            ((at, stream) for stream in streams for at in poisson(draw, stream.per_second, seconds)),
            key=lambda arrival: arrival[0],
        )
        self.outcomes, self.unsent, self.begun = [], 0, time.perf_counter()
        tasks = []
        for due, stream in arrivals:
            wait = due - (time.perf_counter() - self.begun)
            if wait > 0:
                await asyncio.sleep(wait)
            if self.idle:
                self.idle.pop().send(stream, due)
            elif self.opened < MAX_CONNECTIONS:
                tasks.append(asyncio.ensure_future(self._later(stream, due)))
            else:
                self.unsent += 1
        if tasks:
            await asyncio.gather(*tasks)
        deadline = time.perf_counter() + 10
        while len(self.outcomes) < len(arrivals) - self.unsent and time.perf_counter() < deadline:
            await asyncio.sleep(0.01)
        return self.outcomes

    async def _later(self, stream: Stream, due: float) -> None:
        (await self.open()).send(stream, due)


def poisson(draw: random.Random, per_second: float, seconds: float) -> list[float]:
    """Arrival times."""
    times, at = [], 0.0
    while per_second > 0:
        at += draw.expovariate(per_second)
        if at >= seconds:
            break
        times.append(at)
    return times

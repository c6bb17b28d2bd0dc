"""The connections of one control-plane port: bounded in number, time and bytes, whatever their clients do.

uvicorn bounds none of it before the first answer, and its limit on concurrency would refuse a rollback with 503. Here a
new connection always gets in: at the bound another one makes room. Not here: what is asked, and the size of a body that
a call takes (headgate.admin). Next: listeners.py.
"""

from __future__ import annotations

import enum
import heapq
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from headgate.control.domain.problems import problem
from headgate.errors import from_code

PIECE_BYTES = 64 << 10
"""Long answers are written in pieces of this size, so that one nobody reads holds no more than that in a buffer."""
_YOUNG_SECONDS = 1.0
"""A client that has just connected is given this long to send a head before it counts as one that sends nothing."""
_LINGER_SECONDS = 1.0
"""A client that was told why its connection ends is given this long to take that in, whatever it still sends."""
_SLOW_SECONDS = 5.0
"""When there is too much that nobody reads, answers that take longer than this go first."""


@dataclass(frozen=True)
class Limits:
    """What the connections of one port may take."""

    connections: int = 512
    head_bytes: int = 16 << 10
    """A request's head, a chunk's head, and a body's trailers."""
    body_bytes: int = 2 << 20
    """A request's body on the wire: twice what the admin API takes, so that its 413 can still be read."""
    unsent_bytes: int = 64 << 20
    """Answers that wait for their readers, all together."""
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    unread_seconds: float = 30.0


class Reason(enum.StrEnum):
    """Why a connection was closed before its client did so."""

    IDLE = "idle"
    HEAD = "head_timeout"
    BODY = "body_timeout"
    BODY_BYTES = "body_too_large"
    UNREAD = "unread"
    CROWDED = "crowded"
    MALFORMED = "malformed"


_STATUS = {Reason.BODY: 408, Reason.BODY_BYTES: 413}
"""What is answered before a close, where no answer has begun."""
_CODES = {408: "request_timeout", 413: "payload_too_large", 431: "payload_too_large", 501: "unsupported"}
_WORDS = {
    "Found multiple Host: headers": "Host is given twice",
    "Missing mandatory Host: header": "HTTP/1.1 needs a Host header",
}
"""What the data port says for what h11 says."""


class Phase(enum.IntEnum):
    """What a connection is about, in the order in which connections make room for a new one."""

    SILENT = 0
    """Its client has connected and sent no head for a while."""
    IDLE = 1
    """It was answered, and its next request is not there."""
    BODY = 2
    """The rest of a request's body is to come."""
    UNREAD = 3
    """Its client does not take the answer."""
    STREAM = 4
    """An answer is on its way."""
    YOUNG = 5
    """Its client has only just connected: its head may be on the way."""
    BUSY = 6
    """The application is at work for it."""


class Connections:
    """The connections of one port. Belongs to one event loop."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        """None yet."""
        self.limits = limits
        self.clock = clock
        self.closed: Counter[Reason] = Counter()
        self.draining = False
        """Whether an answer says that it is its connection's last, if no request is behind it."""
        self._open: set[Connection] = set()

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def add(self, connection: Connection) -> None:
        """Takes one in; at the bound another one makes room."""
        while len(self._open) >= self.limits.connections:
            self.make_room()
        self._open.add(connection)

    def make_room(self) -> None:
        """Closes the connection that can be spared best, and with it a few of those that have no request.

        Not one alone: the search looks at all of them, and under a flood every new connection would pay for it.
        """
        now = self.clock()
        few = max(1, self.limits.connections // 32)
        ranked = heapq.nsmallest(few, ((one.phase(now), one.since, id(one), one) for one in self._open))
        for place, (phase, _, _, connection) in enumerate(ranked):
            if place == 0 or phase <= Phase.IDLE:
                self.end(connection, Reason.CROWDED)

    def discard(self, connection: Connection) -> None:
        """Forgets one that is gone."""
        self._open.discard(connection)

    def end(self, connection: Connection, reason: Reason) -> None:
        """Closes one without waiting for what it has not sent; at once, if its client cannot be told why."""
        if connection not in self._open:
            return
        if not connection.told:
            self.closed[reason] += 1
            if connection.tell(reason):
                return
        self._open.discard(connection)
        connection.transport.abort()

    def sweep(self) -> None:
        """Closes those that have waited for their clients too long. To be called about once a second."""
        now = self.clock()
        for connection in list(self._open):
            reason = connection.overdue(now)
            if reason is not None:
                self.end(connection, reason)
        slow = sorted(
            (one for one in self._open if one.unsent and now - one.since >= _SLOW_SECONDS),
            key=lambda one: one.since,
        )
        excess = sum(one.unsent for one in self._open) - self.limits.unsent_bytes
        for connection in slow:
            if excess <= 0:
                break
            excess -= connection.unsent
            self.end(connection, Reason.UNREAD)


class Connection(H11Protocol):
    """uvicorn's connection over h11, which bounds heads, with limits for everything else."""

    def __init__(self, connections: Connections, **uvicorns: Any) -> None:
        """The other arguments are those that uvicorn makes its protocols with."""
        super().__init__(**uvicorns)
        self._connections = connections
        self._limits = connections.limits
        self._asgi: ASGIApp = self.app
        self.app = self._in_pieces
        self.since = connections.clock()
        """When the present phase began."""
        self.unsent = 0
        """Bytes of the present answer that wait for the client."""
        self._begun = False
        """Whether a byte of the next head is there."""
        self._body = 0
        """Bytes of the present request's body, as they came."""
        self._unread_since: float | None = None
        self.told = False
        """Whether the client was told why the connection ends; what it sends is dropped."""

    def phase(self, now: float) -> Phase:
        """What it is about."""
        cycle = self.cycle
        if self.told:
            return Phase.SILENT
        if self._unread_since is not None:
            return Phase.UNREAD
        if self.conn.their_state is h11.SEND_BODY:
            return Phase.BODY
        if cycle is None:
            return Phase.YOUNG if now - self.since < _YOUNG_SECONDS else Phase.SILENT
        if cycle.response_complete:
            return Phase.IDLE
        return Phase.STREAM if cycle.response_started else Phase.BUSY

    def overdue(self, now: float) -> Reason | None:
        """Why it is to be closed now, if it is."""
        if self.told:
            return Reason.BODY if now - self.since >= _LINGER_SECONDS else None
        if self._unread_since is None and self.transport.is_closing():
            # What was written before the close is waited for without end otherwise.
            self._unread_since = now
        since, phase = self.since, self.phase(now)
        if phase is Phase.UNREAD:
            since = self.since if self._unread_since is None else self._unread_since
            limit, reason = self._limits.unread_seconds, Reason.UNREAD
        elif phase is Phase.BODY:
            limit, reason = self._limits.body_seconds, Reason.BODY
        elif phase not in (Phase.SILENT, Phase.YOUNG, Phase.IDLE):
            return None
        elif self._begun:
            limit, reason = self._limits.head_seconds, Reason.HEAD
        else:
            limit, reason = self._limits.idle_seconds, Reason.IDLE
        return reason if now - since >= limit else None

    # === what the transport calls ===

    def connection_made(self, transport: Any) -> None:
        """Also counts it in."""
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Also counts it out."""
        self._connections.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hands the bytes on in pieces: h11 measures a head only after each of them."""
        if self.told:
            return
        if self.conn.their_state is h11.SEND_BODY:
            self._body += len(data)
            if self._body > self._limits.body_bytes:
                self._connections.end(self, Reason.BODY_BYTES)
                return
        elif not self._begun and self.conn.their_state is h11.IDLE:
            self._begun = True
            self.since = self._connections.clock()
        for start in range(0, len(data), self._limits.head_bytes):
            if self.transport.is_closing():
                return
            super().data_received(data[start : start + self._limits.head_bytes])

    def pause_writing(self) -> None:
        """Also notes that the client does not read."""
        super().pause_writing()
        self._unread_since = self._connections.clock()

    def resume_writing(self) -> None:
        """Also notes that the client reads."""
        super().resume_writing()
        self._unread_since = None

    # === what uvicorn calls ===

    def handle_events(self) -> None:
        """Also notes that a head is complete."""
        cycle = self.cycle
        super().handle_events()
        if self.cycle is not cycle:
            self.since, self._begun, self._body = self._connections.clock(), False, 0

    def on_response_complete(self) -> None:
        """Also notes that nobody waits for anything."""
        self.since = self._connections.clock()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no HTTP, with the status that h11 thinks fit; closes where an answer has begun."""
        self._connections.closed[Reason.MALFORMED] += 1
        self._silence()
        # uvicorn hands on its own words only; the error is the one that it is handling.
        error = sys.exception()
        hint = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        if self._answer(hint, str(error or msg)):
            self.transport.close()
        else:
            self.transport.abort()

    def tell(self, reason: Reason) -> bool:
        """Answers why the connection ends, where no answer has begun; whether it did."""
        status, cycle = _STATUS.get(reason), self.cycle
        if status is None or cycle is None or cycle.response_started or self.transport.is_closing():
            return False
        self._silence()
        words = {
            Reason.BODY: f"the body did not arrive within {self._limits.body_seconds:g} s",
            Reason.BODY_BYTES: f"the body is larger than {self._limits.body_bytes} bytes on the wire",
        }
        if not self._answer(status, words[reason]):
            return False
        self.told, self.since = True, self._connections.clock()
        # A socket that is closed with unread bytes resets the connection, and the client may lose the answer.
        self.flow.resume_reading()
        self.transport.write_eof()
        return True

    def _silence(self) -> None:
        """Has nothing go out that the application says; uvicorn would write a defect of ours into the log for it."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _answer(self, status: int, words: str) -> bool:
        """Writes a refusal, unless an answer has begun; whether it did."""
        error = from_code(_CODES.get(status, "invalid_argument"), _WORDS.get(words, words))
        text = json.dumps(problem(error, status)).encode()
        headers = [
            ("content-type", "application/problem+json"),
            ("content-length", str(len(text))),
            ("connection", "close"),
        ]
        response = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES.get(status, b""))
        try:
            for event in (response, h11.Data(data=text), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            return False
        return True

    def shutdown(self) -> None:
        """As uvicorn's; a connection on which h11 has given up is closed too."""
        with suppress(h11.LocalProtocolError):
            super().shutdown()
            return
        self.transport.abort()

    def _is_last(self) -> bool:
        """Whether the present answer is to be the last one: the gateway stops, and no request is behind this one."""
        behind = self.conn.their_state is h11.DONE and self.conn.trailing_data[0]
        return self._connections.draining and not behind

    async def _in_pieces(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application, its long answers written as the client takes them."""

        async def send_pieces(message: Message) -> None:
            if message["type"] == "http.response.start" and self._is_last():
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            body = message.get("body", b"")
            if message["type"] != "http.response.body" or len(body) <= PIECE_BYTES:
                await send(message)
                return
            try:
                for start in range(0, len(body), PIECE_BYTES):
                    self.unsent = len(body) - start
                    more = message.get("more_body", False) or self.unsent > PIECE_BYTES
                    piece = body[start : start + PIECE_BYTES]
                    await send({"type": "http.response.body", "body": piece, "more_body": more})
            finally:
                self.unsent = 0

        await self._asgi(scope, receive, send_pieces)

"""HTTP/2 frame by frame over a socket: a client that may break every rule.

Frames are bytes, so that a test can send any number of them in one write. Not here: a client that keeps the rules
(``h2_client``).
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import hpack

from support.client import SECONDS, open_socket

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = 9

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
END_STREAM, ACK, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8

#: Error codes.
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = (
    5,
    6,
    7,
    8,
    9,
    11,
)

#: Settings.
HEADER_TABLE_SIZE, ENABLE_PUSH, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 4, 5

Fields = Iterable[tuple[str | bytes, str | bytes]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """A frame; ``length`` is what it claims, if it is not the truth."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(**values: int) -> bytes:
    """A SETTINGS frame; names as in this module, in lower case."""
    pairs = [struct.pack(">HI", globals()[name.upper()], value) for name, value in values.items()]
    return frame(SETTINGS, 0, 0, b"".join(pairs))


def block(fields: Fields) -> bytes:
    """A header block, every field literal and none remembered: names and values go out as they are."""

    def text(value: str | bytes) -> bytes:
        content = value.encode() if isinstance(value, str) else value
        return _integer(len(content), 7) + content

    return b"".join(b"\0" + text(name) + text(value) for name, value in fields)


def _integer(value: int, bits: int) -> bytes:
    """HPACK's integer in a byte of which ``bits`` are free."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([value])
    out, value = bytearray([most]), value - most
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def request(method: str, path: str, extra: Fields = ()) -> list[tuple[str | bytes, str | bytes]]:
    """The fields of a good request, and more."""
    return [(":method", method), (":scheme", "http"), (":authority", "gateway"), (":path", path), *extra]


def headers(stream: int, fields: Fields, end: bool = True) -> bytes:
    """A whole HEADERS frame."""
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block(fields))


def data(stream: int, content: bytes, end: bool = True) -> bytes:
    """A DATA frame."""
    return frame(DATA, END_STREAM if end else 0, stream, content)


def reset(stream: int, code: int = CANCEL) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def window(stream: int, more: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", more))


@dataclass(frozen=True)
class Received:
    """A frame that the gateway sent."""

    kind: int
    flags: int
    stream: int
    payload: bytes


class Frames:
    """A connection whose preface and settings are sent; a context manager that closes it.

    What the gateway said is kept by stream. Its SETTINGS and PING are acknowledged while frames are read, if ``polite``.
    """

    def __init__(self, address: str, first: bytes = PREFACE + settings(), polite: bool = True) -> None:
        self.sock = open_socket(address)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.polite = polite
        self.pending = bytearray()
        self.decoder = hpack.Decoder()
        self.fields: dict[int, dict[str, str]] = {}
        """Headers and trailers."""
        self.bodies: dict[int, bytes] = {}
        self.resets: dict[int, int] = {}
        """The error codes of streams that the gateway ended."""
        self.ended: set[int] = set()
        """Streams on which nothing follows."""
        self.code: int | None = None
        """The error code with which the gateway ended the connection."""
        self.last: int | None = None
        """The last stream that the gateway said it would answer; None until it asked for a new connection."""
        self.send(first)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    @property
    def statuses(self) -> dict[int, int]:
        """The status of HTTP of each stream that was answered."""
        return {stream: int(fields[":status"]) for stream, fields in self.fields.items()}

    def send(self, *frames: bytes) -> None:
        """Sends frames. A gateway that closed meanwhile is no failure: its last words are still to be read."""
        with contextlib.suppress(ConnectionError):
            self.sock.sendall(b"".join(frames))

    def pour(self, content: bytes, reads: bool = True, patience: float = 10.0) -> bool:
        """Sends until the connection is closed or nothing moves for ``patience`` seconds; whether that was all.

        What arrives meanwhile is read, or left where it is.
        """
        self.sock.setblocking(False)
        rest = memoryview(content)
        try:
            while rest:
                readable, writable, _ = select.select([self.sock] if reads else [], [self.sock], [], patience)
                if not (readable or writable) or (readable and not self._take()):
                    return False
                if writable:
                    rest = rest[self.sock.send(rest[: 1 << 16]) :]
        except ConnectionError:
            return False
        finally:
            self.sock.settimeout(SECONDS)
        return True

    def read(self) -> Received | None:
        """The next frame, or None at the end of the connection."""
        while (found := self._whole()) is None:
            try:
                if not self._take():
                    return None
            except ConnectionError:
                return None
        self._keep(found)
        return found

    def until_end(self, *streams: int, seconds: float = SECONDS) -> None:
        """Reads until these streams have ended, or the connection has; a time-out is the test's failure."""
        self._read_while(lambda _: not self.ended.issuperset(streams), seconds)

    def until_answered(self, *streams: int, seconds: float = SECONDS) -> None:
        """Reads until these streams have headers, or the connection has ended."""
        self._read_while(lambda _: not self.fields.keys() >= set(streams), seconds)

    def until_closed(self, seconds: float = SECONDS) -> None:
        """Reads until the gateway closes; a time-out is the test's failure."""
        self._read_while(lambda _: True, seconds)

    def barrier(self, seconds: float = SECONDS) -> bool:
        """A PING to and fro: whatever was sent before is with the gateway. False when the connection has ended."""
        self.send(frame(PING, 0, 0, b"barrier!"))
        return self._read_while(lambda last: last != Received(PING, ACK, 0, b"barrier!"), seconds)

    def _read_while(self, condition: Callable[[Received | None], bool], seconds: float) -> bool:
        deadline, last = time.monotonic() + seconds, None
        while condition(last):
            self.sock.settimeout(max(deadline - time.monotonic(), 0.001))
            if (last := self.read()) is None:
                return False
        self.sock.settimeout(SECONDS)
        return True

    def _take(self) -> bool:
        received = self.sock.recv(1 << 16)
        self.pending += received
        return bool(received)

    def _whole(self) -> Received | None:
        if len(self.pending) < HEAD:
            return None
        length = int.from_bytes(self.pending[:3])
        if len(self.pending) < HEAD + length:
            return None
        content = bytes(self.pending[: HEAD + length])
        del self.pending[: HEAD + length]
        return Received(content[3], content[4], int.from_bytes(content[5:9]) & 0x7FFFFFFF, content[HEAD:])

    def _keep(self, received: Received) -> None:
        kind, stream, payload = received.kind, received.stream, received.payload
        if kind == HEADERS:
            found = {str(name): str(value) for name, value in self.decoder.decode(payload)}
            self.fields.setdefault(stream, {}).update(found)
        elif kind == DATA:
            self.bodies[stream] = self.bodies.get(stream, b"") + payload
        elif kind == RST_STREAM:
            self.resets[stream] = int.from_bytes(payload)
        elif kind == GOAWAY:
            self.last, self.code = int.from_bytes(payload[:4]), int.from_bytes(payload[4:8]) or self.code
        elif self.polite and kind in {SETTINGS, PING} and not received.flags & ACK:
            self.send(frame(kind, ACK, 0, payload if kind == PING else b""))
        if kind == RST_STREAM or (kind in {DATA, HEADERS} and received.flags & END_STREAM):
            self.ended.add(stream)

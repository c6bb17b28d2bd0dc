"""A client of HTTP/2 and gRPC that keeps every rule, and holds the gateway to them: python-hyper's ``h2`` over a socket.

One connection, one call at a time. Not here: messages (``grpc_wire``), and clients that break rules (``h2_frames``).
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events

from support import grpc_wire
from support.client import open_socket

SERVICE = "/inference.GRPCInferenceService/"


@dataclass
class Reply:
    """What came back on one stream; header names in lower case."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    reset: int | None = None
    """The error code with which the gateway ended the stream."""
    ended: bool = False
    is_bare: bool = False
    """Whether nothing came behind the head, not even an empty frame."""

    @property
    def status(self) -> int:
        """The status of HTTP."""
        return int(self.headers[":status"])

    @property
    def grpc_status(self) -> int:
        """The status of the call; in the headers where there is no message."""
        return int((self.headers | self.trailers)["grpc-status"])

    @property
    def grpc_message(self) -> str:
        """Why a call failed."""
        return unquote((self.headers | self.trailers).get("grpc-message", ""))

    @property
    def code(self) -> str | None:
        """Headgate's code of a failure."""
        return (self.headers | self.trailers).get("x-headgate-code")

    @property
    def messages(self) -> list[bytes]:
        """The messages of a call."""
        return grpc_wire.unframe(self.body)


class Http2:
    """One connection; a context manager that closes it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.sock: socket.socket = open_socket(address)
        # Head and body are two writes; the second is not to wait for an acknowledgement of the first.
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Not checked on the way out: a test may want to send what a good client would not.
        config = h2.config.H2Configuration(validate_outbound_headers=False, header_encoding="utf-8")
        self.state = h2.connection.H2Connection(config)
        self.state.initiate_connection()
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """One request and its whole answer."""
        stream, reply = self.begin(method, path, headers, end=not body), Reply()
        if body:
            self._send_body(stream, body, reply)
        while not reply.ended:
            self._receive(stream, reply)
        return reply

    def call(self, method: str, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        """One gRPC call; ``body`` are its messages with their prefixes. ``method`` may be a whole path."""
        path = method if method.startswith("/") else SERVICE + method
        grpc = {"content-type": "application/grpc", "te": "trailers"}
        return self.send("POST", path, body, grpc | dict(headers or {}))

    def begin(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, end: bool = True
    ) -> int:
        """Sends a request's head; the stream."""
        stream = self.state.get_next_available_stream_id()
        head = {":method": method, ":scheme": "http", ":authority": self.address, ":path": path}
        self.state.send_headers(stream, [*(head | dict(headers or {})).items()], end_stream=end)
        self._flush()
        return stream

    def _send_body(self, stream: int, body: bytes, reply: Reply) -> None:
        """Sends what the windows let through, and takes what comes meanwhile; an answer may be earlier than the end."""
        sent = 0
        while sent < len(body) and not reply.ended:
            room = min(self.state.local_flow_control_window(stream), self.state.max_outbound_frame_size)
            if room == 0:
                self._receive(stream, reply)
                continue
            piece = body[sent : sent + room]
            sent += len(piece)
            self.state.send_data(stream, piece, end_stream=sent == len(body))
            self._flush()

    def _receive(self, stream: int, reply: Reply) -> None:
        received = self.sock.recv(1 << 16)
        if not received:
            raise ConnectionError("the gateway closed the connection")
        for event in self.state.receive_data(received):
            self._take(stream, reply, event)
        self._flush()

    def _take(self, stream: int, reply: Reply, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            raise ConnectionError(f"the gateway ended the connection: {event.error_code!r}")
        if getattr(event, "stream_id", None) != stream:
            return
        if isinstance(event, h2.events.ResponseReceived):
            reply.headers, reply.is_bare = _texts(event.headers), event.stream_ended is not None
        elif isinstance(event, h2.events.DataReceived):
            reply.body += event.data or b""
            self.state.acknowledge_received_data(event.flow_controlled_length or 0, stream)
        elif isinstance(event, h2.events.TrailersReceived):
            reply.trailers = _texts(event.headers)
        elif isinstance(event, h2.events.StreamReset):
            reply.reset, reply.ended = int(event.error_code or 0), True
        elif isinstance(event, h2.events.StreamEnded):
            reply.ended = True

    def _flush(self) -> None:
        self.sock.sendall(self.state.data_to_send())


def _texts(headers: object) -> dict[str, str]:
    assert isinstance(headers, list)
    return {str(name): str(value) for name, value in headers}

"""A receiver of webhooks: a small HTTP server on loopback that keeps what it is sent and answers what a test tells it.

Not here: what is right to send (``unit/notify``).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

SECONDS = 60.0


@dataclass(frozen=True)
class Received:
    """One request: its path, its header fields in lower case, its body."""

    path: str
    fields: dict[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def is_signed_by(self, key: bytes) -> bool:
        """By the words of Standard Webhooks, with nothing of the package."""
        signed = b".".join(
            [self.fields["webhook-id"].encode(), self.fields["webhook-timestamp"].encode(), self.body]
        )
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return self.fields["webhook-signature"] == f"v1,{expected}"


@dataclass
class Receiver:
    """A context manager. ``answer`` gives the status of each request, or None to close the connection without one."""

    answer: Callable[[Received], int | None] = lambda _: 204
    tls: ssl.SSLContext | None = None
    received: list[Received] = field(default_factory=list)

    def __enter__(self) -> Self:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                fields = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(fields["content-length"]))
                one = Received(self.path, fields, body)
                with outer._changed:
                    outer.received.append(one)
                    outer._changed.notify_all()
                status = outer.answer(one)
                if status is None:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("location", "http://127.0.0.1:1/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class names it
                pass

        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(SECONDS)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}/hook"

    def wait(self, count: int) -> list[Received]:
        """The requests, once there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.received) >= count, SECONDS), self.received
            return list(self.received)

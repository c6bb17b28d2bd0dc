"""Requests to the data port: over kept-alive connections, pipelined, and as raw bytes over a socket.

Plain sockets and ``http.client``, so that a test says exactly what is on the wire. Real clients of the protocol are
in ``tests/conformance/test_tritonclient.py``.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

SECONDS = 30.0


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON; strict, NaN and Infinity are refused."""
        return json.loads(self.body, parse_constant=_refuse)

    @property
    def code(self) -> str | None:
        """The code of an error body."""
        return str(self.json["code"]) if self.status >= 400 else None

    @property
    def version(self) -> str:
        """The version that answered."""
        return self.headers["x-headgate-version"]


def _refuse(token: str) -> None:
    raise AssertionError(f"{token} is not JSON")


class Connection:
    """One kept-alive HTTP/1.1 connection."""

    def __init__(self, address: str) -> None:
        host, port = address.rsplit(":", 1)
        self.http = http.client.HTTPConnection(host, int(port), timeout=SECONDS)

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request and its answer."""
        self.http.request(method, path, body=body, headers=dict(headers or {}))
        answer = self.http.getresponse()
        content = answer.read()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)

    def infer(self, endpoint: str, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
        """An inference request; ``body`` is JSON."""
        return self.send("POST", f"/v2/models/{endpoint}/infer", json.dumps(body).encode(), headers)

    @property
    def socket(self) -> socket.socket | None:
        """The socket, or None when the last answer closed it."""
        found: socket.socket | None = self.http.sock
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()


def open_socket(address: str) -> socket.socket:
    """A connected socket with a time-out."""
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=SECONDS)


def until_closed(sock: socket.socket) -> bytes:
    """Everything that arrives until the other side closes or resets; a time-out is the test's failure."""
    received = bytearray()
    while True:
        try:
            chunk = sock.recv(65_536)
        except ConnectionError:
            return bytes(received)
        if not chunk:
            return bytes(received)
        received += chunk


def first_answer(sock: socket.socket) -> bytes:
    """One answer with a Content-Length, read whole; the connection stays open."""
    with sock.makefile("rb") as stream:
        lines = list(iter(stream.readline, b"\r\n"))
        length = next(line for line in lines if line.lower().startswith(b"content-length:"))
        return b"".join(lines) + b"\r\n" + stream.read(int(length.split(b":")[1]))


def raw(address: str, content: bytes) -> bytes:
    """Sends bytes on a new connection and returns everything up to its close."""
    with open_socket(address) as sock:
        # Refused before the last byte: the answer, if there is one, is still to be read.
        with contextlib.suppress(ConnectionError):
            sock.sendall(content)
        return until_closed(sock)


def status_of(answer: bytes) -> int | None:
    """The status of a raw answer, or None when nothing was answered."""
    match = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
    return int(match[1]) if match else None


def infer_bytes(endpoint: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of one inference request over HTTP/1.1."""
    lines = [f"POST /v2/models/{endpoint}/infer HTTP/1.1", "Host: gateway", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def pipelined(address: str, requests: Sequence[bytes], batch: int = 100) -> list[Answer]:
    """Sends requests on one connection, ``batch`` at a time without waiting, and returns the answers in order."""
    answers: list[Answer] = []
    with open_socket(address) as sock, sock.makefile("rb") as stream:
        for start in range(0, len(requests), batch):
            group = requests[start : start + batch]
            sock.sendall(b"".join(group))
            answers += [read_answer(stream) for _ in group]
    return answers


def read_answer(stream: Any) -> Answer:
    """The next answer of a stream of them."""
    status = int(stream.readline().split()[1])
    headers = dict(_read_headers(stream))
    return Answer(status, headers, stream.read(int(headers["content-length"])))


def _read_headers(stream: Any) -> Iterator[tuple[str, str]]:
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, value = line.decode("latin-1").split(":", 1)
        yield name.lower(), value.strip()


def assignment(
    address: str, endpoint: str, body: Any, keys: Sequence[str], header: str = "x-user-id"
) -> list[str]:
    """The version that answers each sticky key, in the order of ``keys``."""
    content = json.dumps(body).encode()
    answers = pipelined(address, [infer_bytes(endpoint, content, {header: key}) for key in keys])
    failed = [answer for answer in answers if answer.status != 200]
    assert not failed, failed[:3]
    return [answer.version for answer in answers]

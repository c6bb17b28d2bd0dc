"""The requests that ``profile`` counts: 64 numbers for the digits example on each wire, over one kept connection.

A client asks once and checks that the answer is good. Not here: counting.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
from collections.abc import Callable

import h2.config
import h2.connection
import h2.events
import numpy as np

from benches.servers import PATH, REQUEST
from benches.wires import PATH as GRPC_PATH
from benches.wires import grpc_body, rest_head

SECONDS = 60.0
PREDICT_PATH = "/v1/models/digits:predict"
AS_JSON = "Content-Type: application/json"

Client = Callable[[], None]
"""Asks once and reads the whole answer."""


def connected(address: str) -> socket.socket:
    """A connection to ``host:port`` that sends what it has at once."""
    host, port = address.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), timeout=SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def numbers() -> np.ndarray:
    """The numbers of the example's request, FP32 of shape [1, 64]."""
    return np.array(json.loads(REQUEST.read_bytes())["inputs"][0]["data"], np.float32).reshape(1, 64)


def post(path: str, address: str, body: bytes, *fields: str) -> bytes:
    """A request over HTTP/1.1."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {address}", *fields, f"Content-Length: {len(body)}"]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode() + body


def http1(request: Callable[[str, int], bytes]) -> Callable[[str], Client]:
    """Sends requests over HTTP/1.1, which are made from the address and a number that differs for each."""

    def connect(address: str) -> Client:
        connection = connected(address)
        numbers = itertools.count()

        def ask() -> None:
            connection.sendall(request(address, next(numbers)))
            answer = b""
            while True:
                answer += connection.recv(1 << 16)
                head, end, content = answer.partition(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head)
                if end and length and len(content) >= int(length[1]):
                    break
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"answered {answer[:400]!r}")

        return ask

    return connect


def same(path: str, body: bytes, *fields: str) -> Callable[[str], Client]:
    """The same request each time."""
    return http1(lambda address, _: post(path, address, body, *fields))


def with_ids(address: str, number: int) -> bytes:
    """The request in JSON with an id, a request id, a trace and a sticky key of its own."""
    body = REQUEST.read_bytes().replace(b"{", b'{"id": "%d", ' % number, 1)
    trace = f"00-{number + 1:032x}-{number + 1:016x}-01"
    own = (f"X-Request-Id: {number * 7919}", f"Traceparent: {trace}", f"X-User-Id: user-{number % 1000}")
    return post(PATH, address, body, AS_JSON, *own)


def with_nothing_twice(address: str, number: int) -> bytes:
    """The request in JSON with a header and a key that no other request has."""
    body = REQUEST.read_bytes().replace(b"{", b'{"k%d": 0, ' % number, 1)
    return post(PATH, address, body, f"X-K{number}: 0", AS_JSON)


def grpc(body: bytes) -> Callable[[str], Client]:
    """Calls ``ModelInfer`` over HTTP/2, one stream after the other; head and message are one write."""

    def connect(address: str) -> Client:
        connection = connected(address)
        state = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        state.initiate_connection()
        head = {":method": "POST", ":scheme": "http", ":authority": address, ":path": GRPC_PATH}
        head |= {"content-type": "application/grpc", "te": "trailers"}

        def ask() -> None:
            stream = state.get_next_available_stream_id()
            state.send_headers(stream, [*head.items()])
            state.send_data(stream, body, end_stream=True)
            connection.sendall(state.data_to_send())
            status = b""
            while True:
                for event in state.receive_data(connection.recv(1 << 16)):
                    if isinstance(event, h2.events.DataReceived):
                        state.acknowledge_received_data(event.flow_controlled_length or 0, stream)
                    elif isinstance(event, h2.events.TrailersReceived | h2.events.ResponseReceived):
                        status = dict(event.headers).get(b"grpc-status", status)
                    elif isinstance(event, h2.events.StreamEnded):
                        if status != b"0":
                            raise SystemExit(f"ModelInfer ended with grpc-status {status!r}")
                        connection.sendall(state.data_to_send())
                        return
                connection.sendall(state.data_to_send())

        return ask

    return connect


def wires() -> dict[str, Callable[[str], Client]]:
    """Each wire's client by its name in the tables."""
    values = numbers()
    binary = json.dumps({"inputs": [rest_head(values) | {"parameters": {"binary_data_size": values.nbytes}}]})
    return {
        "JSON": same(PATH, REQUEST.read_bytes(), AS_JSON),
        "JSON, ids vary": http1(with_ids),
        "JSON, nothing repeats": http1(with_nothing_twice),
        "binary REST": same(
            PATH,
            binary.encode() + values.tobytes(),
            "Content-Type: application/octet-stream",
            f"Inference-Header-Content-Length: {len(binary)}",
        ),
        ":predict": same(PREDICT_PATH, json.dumps({"instances": values.tolist()}).encode(), AS_JSON),
        "gRPC ModelInfer": grpc(grpc_body("digits", values)),
    }

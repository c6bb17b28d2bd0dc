"""A gateway that stops: every request on an open connection is answered, and each answer says that it is the last one.

The data plane runs inside this process. That connections have been told to close is known from an HTTP/2 connection that
is told so (GOAWAY). Not here: signals and the whole process (``e2e/test_process``).
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conformance.cases import GOOD
from support import environments, grpc_wire, models
from support import native as plane
from support.client import Answer, first_answer, infer_bytes, open_socket, read_answer, until_closed
from support.grpc_calls import PAIR
from support.h2_frames import Frames, data, headers, request, window
from support.tools import need_native

INFER = "/v2/models/pair/infer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
GRPC = [("content-type", "application/grpc"), ("te", "trailers")]
GRACE_MS = 20_000

PLAIN = infer_bytes("pair", GOOD)
CHUNKED = (
    f"POST {INFER} HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n{len(GOOD):x}\r\n".encode()
    + GOOD
    + b"\r\n0\r\n\r\n"
)
#: The same request for either of the parsers: a connection is hyper's from its first request on that is not plain.
KINDS = pytest.mark.parametrize("one", [PLAIN, CHUNKED], ids=["plain", "chunked"])


@pytest.fixture
def gateway(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Any, str]]:
    """Waits for the next request of a connection for longer than a test takes; ``ENDS_SOON`` has it wait for half a second."""
    need_native()
    model = models.place(models.pair(), tmp_path, "pair")
    # One thread: what one connection was told, all were told.
    with plane.running(io_threads=1, drain_idle_ms=getattr(request, "param", 10_000)) as (started, address):
        plane.serve(started, "pair", model)
        yield started, address


#: For tests in which a connection ends because its client sends nothing more, or sends on and on.
ENDS_SOON = pytest.mark.parametrize("gateway", [500], indirect=True)


@contextmanager
def stopping(gateway: Any, address: str) -> Iterator[Future[bool]]:
    """The gateway once it has told its connections to close; whether it stops without cutting anything off."""
    with ThreadPoolExecutor(1) as executor:
        with Frames(address) as bell:
            assert bell.barrier()
            stopped = executor.submit(gateway.stop, 0, GRACE_MS)
            while bell.last is None:
                assert bell.read() is not None
            bell.barrier()
        yield stopped


def answers(received: bytes) -> list[Answer]:
    """Answers one behind the other."""
    stream, found = io.BytesIO(received), []
    while stream.tell() < len(received):
        found.append(read_answer(stream))
    return found


def last_words(sock: socket.socket) -> list[tuple[int, str | None]]:
    """Status and ``Connection`` of everything up to the end of the connection."""
    return [(answer.status, answer.headers.get("connection")) for answer in answers(until_closed(sock))]


@KINDS
def test_the_next_request_of_an_idle_connection_is_answered_as_its_last(
    gateway: tuple[Any, str], one: bytes
) -> None:
    started, address = gateway
    with open_socket(address) as sock:
        sock.sendall(one)
        assert b"connection: close" not in first_answer(sock).lower()
        with stopping(started, address) as clean:
            sock.sendall(one)
            assert last_words(sock) == [(200, "close")]
            assert clean.result()


@KINDS
def test_requests_in_one_write_are_all_answered_and_the_last_one_says_so(
    gateway: tuple[Any, str], one: bytes
) -> None:
    started, address = gateway
    with open_socket(address) as sock:
        sock.sendall(one)
        first_answer(sock)
        with stopping(started, address) as clean:
            sock.sendall(3 * one + PLAIN + CHUNKED)
            assert last_words(sock) == [(200, None)] * 4 + [(200, "close")]
            assert clean.result()


@KINDS
def test_a_request_in_parts_and_one_on_a_connection_without_a_request_are_answered(
    gateway: tuple[Any, str], one: bytes
) -> None:
    started, address = gateway
    with open_socket(address) as silent, open_socket(address) as begun:
        begun.sendall(one[:20])
        with stopping(started, address) as clean:
            begun.sendall(one[20:-10])
            silent.sendall(one)
            assert last_words(silent) == [(200, "close")]
            begun.sendall(one[-10:])
            assert last_words(begun) == [(200, "close")]
            assert clean.result()


def test_answers_say_that_they_are_the_last_from_the_drain_on(tmp_path: Path) -> None:
    need_native()
    model = models.place(models.pair(), tmp_path, "pair")
    for delay_ms in (1_000, 4_000, 16_000):
        with plane.running(io_threads=1) as (started, address):
            plane.serve(started, "pair", model)
            said = said_during_the_delay(started, address, delay_ms)
        if said is not None:
            break
    assert said == [[(200, "close")], [(200, "close")]]


def said_during_the_delay(
    started: Any, address: str, delay_ms: int
) -> list[list[tuple[int, str | None]]] | None:
    """What an old connection and a new one are told while only readiness is false; None if the delay was over too soon to tell, as
    on a busy machine.
    """
    said: list[list[tuple[int, str | None]]] = []
    with open_socket(address) as sock, ThreadPoolExecutor(1) as executor:
        begun = time.monotonic()
        stopped = executor.submit(started.stop, delay_ms, GRACE_MS)
        while not json.loads(started.status())["draining"]:
            pass
        # After the delay a connection is refused or reset.
        with contextlib.suppress(ConnectionError):
            sock.sendall(PLAIN)
            said.append(last_words(sock))
            # New connections are taken as long as readiness only is false.
            with open_socket(address) as other:
                other.sendall(CHUNKED)
                said.append(last_words(other))
        is_conclusive = time.monotonic() - begun < delay_ms / 1000
        assert stopped.result()
    return said if is_conclusive else None


@KINDS
def test_what_follows_the_last_answer_does_not_take_it_away(gateway: tuple[Any, str], one: bytes) -> None:
    started, address = gateway
    with open_socket(address) as sock, stopping(started, address) as clean:
        sock.sendall(one)
        # The answer and the end are here; a reset would follow these bytes, and take the answer from who is slow to read.
        while len(sock.recv(1 << 16, socket.MSG_PEEK)) == 0:
            pass
        sock.sendall(one)
        sock.sendall(one)
        assert last_words(sock) == [(200, "close")]
        assert clean.result()


@ENDS_SOON
def test_idle_connections_end_by_themselves(gateway: tuple[Any, str]) -> None:
    started, address = gateway
    with open_socket(address) as silent, open_socket(address) as plain, open_socket(address) as odd:
        plain.sendall(PLAIN)
        odd.sendall(CHUNKED)
        first_answer(plain)
        first_answer(odd)
        with stopping(started, address) as clean:
            assert [until_closed(sock) for sock in (silent, plain, odd)] == [b"", b"", b""]
            assert clean.result()


def test_a_stream_that_crosses_the_goodbye_is_answered(gateway: tuple[Any, str]) -> None:
    started, address = gateway
    with Frames(address) as connection:
        connection.send(headers(1, request("GET", "/v2")))
        connection.until_end(1)
        with stopping(started, address) as clean:
            # The GOAWAY lies unread here.
            connection.send(headers(3, request("POST", INFER), False), data(3, GOOD))
            connection.until_end(3)
            connection.until_closed()
            assert connection.statuses == {1: 200, 3: 200}
            assert connection.last is not None
            assert clean.result()


def test_messages_of_a_stream_are_answered_until_it_ends(gateway: tuple[Any, str]) -> None:
    started, address = gateway
    message = grpc_wire.frame(PAIR)
    with Frames(address) as connection:
        connection.send(headers(1, request("POST", STREAM, GRPC), False), data(1, message, False))
        connection.until_answered(1)
        with stopping(started, address) as clean:
            connection.send(data(1, message, False), data(1, message))
            connection.until_end(1)
            connection.until_closed()
            assert connection.fields[1]["grpc-status"] == "0"
            assert len(grpc_wire.unframe(connection.bodies[1])) == 3
            assert clean.result()


@ENDS_SOON
def test_a_stream_without_end_is_ended_long_before_the_grace_and_each_message_is_told(
    gateway: tuple[Any, str],
) -> None:
    started, address = gateway
    message, sent = grpc_wire.frame(PAIR), 1
    with Frames(address) as connection:
        connection.send(headers(1, request("POST", STREAM, GRPC), False), data(1, message, False))
        connection.until_answered(1)
        with stopping(started, address) as clean:
            while 1 not in connection.ended:
                if answered(connection, 1) == sent:
                    connection.send(window(0, 1 << 16), window(1, 1 << 16), data(1, message, False))
                    sent += 1
                assert connection.read() is not None
            # The last message may have crossed the end, which tells its client to ask another gateway.
            assert answered(connection, 1) in (sent - 1, sent)
            assert connection.fields[1]["grpc-status"] == "14"
            assert connection.fields[1]["x-headgate-code"] == "draining"
            assert connection.last is not None
            assert clean.result()


@ENDS_SOON
def test_grpcio_is_told_of_the_end_of_a_stream_in_a_way_that_it_tries_again(gateway: tuple[Any, str]) -> None:
    started, address = gateway
    arguments = [address, STREAM, base64.b64encode(PAIR).decode()]
    environments.python("grpcio")
    with ThreadPoolExecutor(1) as executor:
        client = executor.submit(environments.run, "grpcio", "conformance.clients.endless_stream", arguments)
        while not runs(started):
            assert not client.done(), client.result()
        assert started.stop(0, GRACE_MS)
        ended = client.result()
    assert ended["code"] == "UNAVAILABLE"
    assert ended["sent"] - ended["answered"] in (0, 1)


def runs(gateway: Any) -> int:
    """How often a model was run for a request."""
    families = {family["name"]: family["samples"] for family in json.loads(gateway.metrics())}
    return sum(sample[1] for sample in families["headgate_requests_total"])


# --- restarts ---

RESTARTS = 20


class Client:
    """Sends requests one after the other until it is told to stop, over as many connections as that takes."""

    def __init__(self, address: str, session: Callable[[Client, str], None]) -> None:
        self.address = address
        self.session = session
        self.enough = threading.Event()
        self.answered = 0
        self.lost: list[str] = []

    def run(self) -> None:
        while not self.enough.is_set():
            try:
                self.session(self, self.address)
            except ConnectionRefusedError:
                continue


def over_http1(one: bytes, at_once: int) -> Callable[[Client, str], None]:
    """A kept-alive connection with ``at_once`` requests in each write."""

    def session(client: Client, address: str) -> None:
        with open_socket(address) as sock, sock.makefile("rb") as stream:
            while not client.enough.is_set():
                expected = at_once
                try:
                    sock.sendall(one * at_once)
                    while expected:
                        answer = read_answer(stream)
                        expected -= 1
                        assert answer.status == 200, answer
                        client.answered += 1
                        if answer.headers.get("connection") == "close":
                            break
                except (OSError, IndexError) as error:
                    client.lost.append(f"{error!r} with {expected} of {at_once} to come")
                    return
                if answer.headers.get("connection") == "close":
                    if expected:
                        client.lost.append(f"closed with {expected} of {at_once} to come")
                    return

    return session


def over_http2(client: Client, address: str) -> None:
    """One stream after the other, until the gateway asks for another connection."""
    with Frames(address) as connection:
        for stream in range(1, 1 << 30, 2):
            if client.enough.is_set() or connection.last is not None:
                return
            connection.send(headers(stream, request("POST", INFER), False), data(stream, GOOD))
            connection.until_end(stream)
            connection.send(window(0, len(connection.bodies.get(stream, b" "))))
            if connection.statuses.get(stream) == 200:
                client.answered += 1
            elif connection.last is None or stream <= connection.last:
                client.lost.append(
                    f"stream {stream}: {connection.fields.get(stream)}, last {connection.last}"
                )
                return


def over_streams(client: Client, address: str) -> None:
    """gRPC streams of ten messages, each sent when the one before it is answered."""
    message, messages = grpc_wire.frame(PAIR), 10
    with Frames(address) as connection:
        for stream in range(1, 1 << 30, 2):
            if client.enough.is_set() or connection.last is not None:
                return
            connection.send(headers(stream, request("POST", STREAM, GRPC), False))
            for sent in range(1, messages + 1):
                connection.send(data(stream, message, sent == messages))
                while answered(connection, stream) < sent and connection.read():
                    pass
            connection.until_end(stream)
            connection.send(window(0, len(connection.bodies.get(stream, b" "))))
            count = answered(connection, stream)
            if connection.last is not None and stream > connection.last:
                return
            client.answered += count
            if count < messages:
                client.lost.append(f"stream {stream}: {count} of {messages}, {connection.fields.get(stream)}")
                return


def answered(connection: Frames, stream: int) -> int:
    """The whole messages of a stream."""
    body, count = connection.bodies.get(stream, b""), 0
    while len(body) >= 5 and len(body) >= 5 + int.from_bytes(body[1:5]):
        body, count = body[5 + int.from_bytes(body[1:5]) :], count + 1
    return count


def test_no_request_is_lost_over_twenty_restarts_under_load(tmp_path: Path) -> None:
    need_native()
    from headgate import _native

    model = models.place(models.pair(), tmp_path, "pair")
    sessions = [over_http1(PLAIN, 1), over_http1(CHUNKED, 1), over_http1(PLAIN, 3), over_http1(CHUNKED, 3)]
    sessions += [over_http2, over_streams]
    with plane.running() as (_, address):
        pass
    clients = [Client(address, session) for session in sessions]
    with ThreadPoolExecutor(len(clients)) as executor:
        running = [executor.submit(client.run) for client in clients]
        try:
            for _ in range(RESTARTS):
                before = [client.answered for client in clients]
                started = _native.Gateway(plane.config(http=address))
                # As the process does it: no socket before there is something to answer with.
                plane.serve(started, "pair", model)
                started.start()
                while any(client.answered == old for client, old in zip(clients, before, strict=True)):
                    assert not [done for done in running if done.done()]
                assert started.stop(0, GRACE_MS)
                assert not [client.lost for client in clients if client.lost]
        finally:
            for client in clients:
                client.enough.set()

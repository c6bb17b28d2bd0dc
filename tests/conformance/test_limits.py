"""Clients that claim too much, are too slow or stop half-way: each gets its end, and the gateway goes on.

The data plane runs inside this process. Where a test waits for the end of a time-out, these are short. No test sleeps: each waits
for the gateway to close the connection.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conformance.cases import GOOD
from support import models
from support import native as plane
from support.client import (
    Connection,
    first_answer,
    infer_bytes,
    open_socket,
    raw,
    read_answer,
    status_of,
    until_closed,
)
from support.tools import need_native

MIB = 1 << 20


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """For clients that are to be served or refused, however slow the machine is."""
    with serving(tmp_path_factory.mktemp("models")) as where:
        yield where


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """For clients that do nothing more: their time-outs are short enough to wait for."""
    limits = {"head_timeout_ms": 1_000, "body_timeout_ms": 1_000, "idle_ms": 2_000}
    with serving(tmp_path_factory.mktemp("models"), **limits) as where:
        yield where


@contextmanager
def serving(folder: Path, **limits: int) -> Iterator[str]:
    need_native()
    model = models.place(models.pair(), folder, "pair")
    with plane.running(max_body_bytes=MIB, **limits) as (gateway, where):
        plane.serve(gateway, "pair", model)
        yield where


@pytest.fixture(autouse=True)
def goes_on(address: str, hasty: str) -> Iterator[None]:
    """A good request right after every test."""
    yield
    for where in (address, hasty):
        with Connection(where) as connection:
            assert connection.send("POST", "/v2/models/pair/infer", GOOD).status == 200


def head(*lines: str) -> bytes:
    return "\r\n".join(["POST /v2/models/pair/infer HTTP/1.1", "Host: gateway", *lines, "", ""]).encode()


def test_a_claimed_gibibyte_is_refused_before_it_is_read(address: str) -> None:
    answer = raw(address, head(f"Content-Length: {1 << 30}"))
    assert status_of(answer) == 413
    assert b'"payload_too_large"' in answer


def test_one_byte_over_the_limit_is_refused_and_the_limit_itself_is_not(address: str) -> None:
    for size, status in ((MIB, 200), (MIB + 1, 413)):
        with Connection(address) as connection:
            body = GOOD + b" " * (size - len(GOOD))
            assert connection.send("POST", "/v2/models/pair/infer", body).status == status


def test_a_chunked_body_over_the_limit_is_refused(address: str) -> None:
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    answer = raw(address, head("Transfer-Encoding: chunked") + chunk * 17 + b"0\r\n\r\n")
    assert status_of(answer) == 413


def test_a_chunked_body_is_read_whole(address: str) -> None:
    parts = [GOOD[:10], GOOD[10:11], GOOD[11:]]
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    answer = raw(address, head("Transfer-Encoding: chunked", "Connection: close") + body)
    assert status_of(answer) == 200


def test_a_slow_head_is_cut_off(hasty: str) -> None:
    with open_socket(hasty) as sock:
        sock.sendall(b"POST /v2/models/pair/infer HTTP/1.1\r\nHost: gate")
        assert status_of(until_closed(sock)) in {None, 408}


def test_a_slow_head_is_cut_off_on_a_connection_that_was_good_before(tmp_path: Path) -> None:
    # An idle connection would have longer than the test waits.
    with plane.running(head_timeout_ms=1_000, idle_ms=120_000) as (gateway, where):
        plane.serve(gateway, "pair", models.place(models.pair(), tmp_path, "pair"))
        with open_socket(where) as sock:
            sock.sendall(infer_bytes("pair", GOOD))
            assert status_of(first_answer(sock)) == 200
            sock.sendall(b"POST /v2/models/pair/infer HTTP/1.1\r\nHost: gate")
            assert status_of(until_closed(sock)) in {None, 408}


def test_a_refused_body_is_no_part_of_the_next_request(address: str) -> None:
    body = b" " * 200_000
    refused = b"POST /v2/nowhere HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\n\r\n" % len(body)
    with open_socket(address) as sock, sock.makefile("rb") as stream:
        # All at once: a body that comes late is not waited for.
        sock.sendall(refused + body + infer_bytes("pair", GOOD))
        assert [read_answer(stream).status for _ in range(2)] == [404, 200]


def test_a_shape_without_elements_asks_for_no_memory(address: str) -> None:
    for shape in ([1 << 40, 0], [0, 1 << 40], [1 << 40, 0, 1 << 20]):
        tensor = {"name": "A", "shape": shape, "datatype": "FP32", "data": []}
        with Connection(address) as connection:
            answer = connection.infer("pair", {"inputs": [tensor]})
        assert (answer.status, answer.code) == (400, "invalid_argument")


def test_a_slow_body_gets_a_request_timeout(hasty: str) -> None:
    with open_socket(hasty) as sock:
        sock.sendall(head(f"Content-Length: {len(GOOD)}") + GOOD[:-1])
        answer = until_closed(sock)
    assert status_of(answer) == 408
    assert b'"request_timeout"' in answer


def test_a_connection_that_says_nothing_is_closed(hasty: str) -> None:
    with open_socket(hasty) as sock:
        assert until_closed(sock) == b""


def test_a_client_that_stops_inside_the_head_is_let_go(hasty: str) -> None:
    with open_socket(hasty) as sock:
        sock.sendall(b"POST /v2/models/pair/infer HTTP/1.1\r\nHost: gate")
        sock.shutdown(socket.SHUT_WR)
        assert status_of(until_closed(sock)) in {None, 400, 408}


def test_a_client_that_stops_inside_the_body_is_let_go(hasty: str) -> None:
    with open_socket(hasty) as sock:
        sock.sendall(head(f"Content-Length: {len(GOOD)}") + GOOD[:-1])
        sock.shutdown(socket.SHUT_WR)
        assert status_of(until_closed(sock)) in {None, 400, 408}


def test_a_client_that_sends_all_and_then_shuts_its_side_is_answered_whole_or_let_go(address: str) -> None:
    with open_socket(address) as sock:
        sock.sendall(infer_bytes("pair", GOOD))
        sock.shutdown(socket.SHUT_WR)
        answer = until_closed(sock)
    assert status_of(answer) in {None, 200}
    if answer:
        head_bytes, _, body = answer.partition(b"\r\n\r\n")
        length = next(
            line for line in head_bytes.lower().split(b"\r\n") if line.startswith(b"content-length:")
        )
        assert len(body) == int(length.split(b":")[1])


def test_a_reset_in_the_middle_harms_nobody_else(address: str) -> None:
    with Connection(address) as connection:
        for _ in range(20):
            sock = open_socket(address)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            sock.sendall(infer_bytes("pair", GOOD)[:-1])
            sock.close()
            assert connection.send("POST", "/v2/models/pair/infer", GOOD).status == 200

"""HTTP/2 clients that break its rules or use them against the gateway: floods, resets, stalls, contradictions.

Others are served meanwhile and after, the attacked connection goes on or is closed, and memory stays bounded. Not here:
openings that go wrong (``cases_http``) and messages of gRPC (``test_grpc_malformed``). The table of broken rules is
``support/h2_rules``.
"""

from __future__ import annotations

import gzip
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from conformance.cases import GOOD
from support import grpc_wire, models
from support import native as plane
from support.bystander import GROWTH, resident, unharmed, until_alone
from support.client import SECONDS, Connection
from support.gateway import GatewayProcess
from support.grpc_calls import GOOD as GOOD_CALL
from support.grpc_calls import MAX_BODY, strict
from support.h2_client import Http2
from support.h2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    ENHANCE_YOUR_CALM,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    REFUSED_STREAM,
    Frames,
    block,
    data,
    frame,
    headers,
    request,
    reset,
    settings,
    window,
)  # fmt: skip
from support.h2_rules import BROKEN, LIMIT, TAKEN, Broken, Taken
from support.tools import need_native

INFER = "/v2/models/pair/infer"
GRPC = [("content-type", "application/grpc"), ("te", "trailers")]
SERVICE = "/inference.GRPCInferenceService/"
#: Streams that a connection may have open at once.
STREAMS = 256


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with strict(tmp_path_factory.mktemp("frames")) as started:
        yield started


def post(stream: int, path: str = INFER, end: bool = False) -> bytes:
    return headers(stream, request("POST", path), end)


def get(stream: int) -> bytes:
    return headers(stream, request("GET", "/v2"))


def call_without_message(stream: int, method: str) -> bytes:
    path = method if method.startswith("/") else SERVICE + method
    return headers(stream, request("POST", path, GRPC), False)


def call(stream: int, method: str, message: bytes, end: bool = True) -> bytes:
    # In frames that fit any window that is open at the time.
    content = grpc_wire.frame(message)
    parts = [content[start : start + (1 << 14)] for start in range(0, len(content), 1 << 14)]
    frames = [data(stream, part, end and part is parts[-1]) for part in parts]
    return call_without_message(stream, method) + b"".join(frames)


# --- rules ---


@pytest.mark.parametrize("row", BROKEN, ids=lambda row: row.id)
def test_a_broken_rule_ends_the_stream_or_the_connection_and_no_other(
    gateway: GatewayProcess, row: Broken
) -> None:
    with Connection(gateway.http) as other, Frames(gateway.http) as attacked:
        attacked.send(row.content, get(99))
        attacked.until_end(1, 99)
        assert (attacked.code or attacked.resets.get(1)) in row.codes, attacked.fields
        assert attacked.code or attacked.statuses.get(99) == 200, "neither closed nor served"
        assert row.may_answer or attacked.statuses.get(1) is None, "answered all the same"
        assert other.send("POST", INFER, GOOD).status == 200


@pytest.mark.parametrize("row", TAKEN, ids=lambda row: row.id)
def test_what_is_odd_and_clear_is_answered(gateway: GatewayProcess, row: Taken) -> None:
    with Frames(gateway.http) as connection:
        connection.send(row.content, get(99))
        connection.until_end(1, 99)
        assert connection.statuses == {1: row.status, 99: 200}, row.reading


def test_a_preface_byte_by_byte_opens_a_connection_and_a_cut_one_none(gateway: GatewayProcess) -> None:
    first = PREFACE + settings() + get(1)
    with Frames(gateway.http, b"") as slow:
        for byte in first:
            slow.send(bytes([byte]))
        slow.until_end(1)
        assert slow.statuses == {1: 200}
    for cut in (1, len(PREFACE) - 1, len(PREFACE), len(PREFACE) + 8):
        with Frames(gateway.http, first[:cut]) as gone:
            gone.sock.shutdown(socket.SHUT_WR)
            gone.until_closed()
            assert gone.statuses == {}
    until_alone(gateway)


# --- floods ---

MANY = 20_000
ODD = range(1, 2 * MANY, 2)
TWO_TABLES = settings(header_table_size=0) + settings(header_table_size=65_536)
UNFINISHED = frame(HEADERS, 0, 1, block(request("GET", "/v2")))
REMEMBERED = b"\x40\x01x" + b"\x7f\xa1\x1e" + b"y" * 4000  # x: yyy…, kept in the table at index 62

#: What is sent first and once, then all in one go. None: the connection may end or go on; a code: it must end with it.
FLOODS: dict[str, tuple[bytes, bytes, int | None]] = {
    "settings": (b"", settings() * MANY, None),
    "settings-of-the-table": (b"", TWO_TABLES * MANY, None),
    "ping": (b"", frame(PING, 0, 0, b"12345678") * MANY, None),
    "ping-acknowledged": (b"", frame(PING, ACK, 0, b"12345678") * MANY, None),
    "priority": (b"", frame(PRIORITY, 0, 1, b"\0\0\0\0\1") * MANY, None),
    "unknown-frames": (b"", frame(0xBE, 0, 0, b"x" * 64) * MANY, None),
    "window-updates": (b"", window(0, 1) * MANY, None),
    "empty-data": (post(1), data(1, b"", False) * MANY, ENHANCE_YOUR_CALM),
    "empty-data-refused": (post(1, "/v2/nowhere"), data(1, b"", False) * MANY, ENHANCE_YOUR_CALM),
    "padding-alone": (post(1), frame(DATA, 8, 1, b"\xff" + bytes(255)) * MANY, None),
    "data-in-single-bytes": (post(1), data(1, b" ", False) * MANY, None),
    "rapid-reset": (b"", b"".join(post(stream) + reset(stream) for stream in ODD), ENHANCE_YOUR_CALM),
    "rapid-reset-of-get": (b"", b"".join(get(stream) + reset(stream) for stream in ODD), ENHANCE_YOUR_CALM),
    "made-to-reset": (b"", b"".join(post(stream) + window(stream, LIMIT) for stream in ODD), ENHANCE_YOUR_CALM),
    "streams-left-open": (b"", b"".join(post(stream) for stream in ODD), None),
    "requests-unread": (b"", b"".join(get(stream) for stream in ODD), None),
    "continuation": (UNFINISHED, frame(CONTINUATION, 0, 1, block([("x", "y" * 100)])) * MANY, ENHANCE_YOUR_CALM),
    "continuation-empty": (UNFINISHED, frame(CONTINUATION, 0, 1) * MANY, ENHANCE_YOUR_CALM),
    "header-bomb": (b"", frame(HEADERS, 5, 1, block(request("GET", "/v2")) + REMEMBERED + b"\xbe" * MANY), ENHANCE_YOUR_CALM),
    "header-of-900-kib": (b"", headers(1, request("GET", "/v2", [("x", "y" * 900_000)])), ENHANCE_YOUR_CALM),
    "cookies": (b"", headers(1, request("GET", "/v2", [("cookie", "")] * MANY)), ENHANCE_YOUR_CALM),
}  # fmt: skip


@pytest.mark.parametrize("reads", [True, False], ids=["reading", "deaf"])
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_harms_nobody_else(gateway: GatewayProcess, name: str, reads: bool) -> None:
    first, content, code = FLOODS[name]
    with unharmed(gateway), Frames(gateway.http, polite=reads) as attacker:
        attacker.send(first)
        sent = attacker.pour(content, reads)
        goes_on = attacker.barrier()
        assert sent or not goes_on, "held up without an end"
        assert code is None or not goes_on, "this has no end but the connection's"
        if code is not None and reads:
            assert attacker.code == code


def test_requests_one_after_the_other_in_small_frames_are_no_flood(gateway: GatewayProcess) -> None:
    count = 2_000
    with Http2(gateway.grpc) as connection:
        reply = connection.call("ModelStreamInfer", GOOD_CALL * count)
        assert (reply.grpc_status, len(reply.messages)) == (0, count)
    with Frames(gateway.grpc) as connection:
        connection.send(headers(1, request("POST", INFER), False))
        for start in range(0, len(GOOD), 3):
            connection.send(data(1, GOOD[start : start + 3], start + 3 >= len(GOOD)))
        connection.until_end(1)
        assert connection.statuses == {1: 200}


def test_more_streams_than_allowed_are_refused_and_those_within_go_on(gateway: GatewayProcess) -> None:
    streams = list(range(1, 2 * (STREAMS + 44), 2))
    with unharmed(gateway), Frames(gateway.http) as connection:
        connection.send(*[post(stream) for stream in streams])
        connection.until_end(*streams[STREAMS:])
        assert connection.resets == dict.fromkeys(streams[STREAMS:], REFUSED_STREAM)
        connection.send(*[data(stream, GOOD) for stream in streams[:STREAMS]])
        connection.until_end(*streams[:STREAMS])
        # On a busy machine so many at once may be more than the version can take: it sheds some, and each is answered.
        assert sorted(connection.statuses) == streams[:STREAMS]
        assert set(connection.statuses.values()) <= {200, 503}
        assert list(connection.statuses.values()).count(200) > STREAMS // 2


def test_a_header_list_over_the_limit_is_refused_and_the_connection_goes_on(gateway: GatewayProcess) -> None:
    sizes = {1: [("x", "y" * 70_000)], 3: [(f"x-{number}", "y") for number in range(3_000)]}
    with Frames(gateway.http) as connection:
        for stream, extra in sizes.items():
            connection.send(headers(stream, request("GET", "/v2", extra)))
            connection.until_end(stream)
        connection.send(get(5))
        connection.until_end(5)
        assert connection.statuses == {1: 431, 3: 431, 5: 200}


# --- windows that stay shut ---

#: A client that takes no byte of an answer.
SHUT = PREFACE + settings(initial_window_size=0)
#: A client that has room for anything.
WIDE = PREFACE + settings(initial_window_size=LIMIT) + window(0, LIMIT - 65_535)


def large(elements: int) -> bytes:
    raw = bytes(4 * elements)
    return grpc_wire.request([grpc_wire.tensor("x", "FP32", [elements])], [raw], model="identity-fp32")


def test_a_shut_window_holds_up_nobody_else_and_ends_when_the_client_leaves(gateway: GatewayProcess) -> None:
    with unharmed(gateway) as bystander, Frames(gateway.http, SHUT) as stalled:
        # The gateway's own windows are as wide as it says from here on.
        assert stalled.barrier()
        for stream in range(1, 81, 4):
            stalled.send(call(stream, "ModelInfer", large(10_000)), call(stream + 2, "ServerMetadata", b""))
            bystander.more(1)
        assert stalled.barrier()
        bystander.more()
        assert set(stalled.statuses.values()) == {200}
        assert not stalled.ended


def test_a_window_opened_late_gets_the_whole_answer(gateway: GatewayProcess) -> None:
    with Frames(gateway.http, SHUT) as connection:
        connection.send(call(1, "ModelInfer", large(10_000)))
        assert connection.barrier()
        for _ in range(100):
            connection.send(window(1, 401))
        connection.send(window(1, 1 << 20))
        connection.until_end(1)
        (message,) = grpc_wire.unframe(connection.bodies[1])
        assert grpc_wire.all_of(message, 6) == [bytes(40_000)]


def test_a_client_that_reads_nothing_harms_nobody_else(gateway: GatewayProcess) -> None:
    with unharmed(gateway), Frames(gateway.http, WIDE, polite=False) as deaf:
        deaf.pour(b"".join(get(stream) for stream in range(1, 2 * MANY, 2)), reads=False, patience=1.0)


# --- time-outs: the data plane inside this process, with limits short enough to wait for ---


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """For clients that do nothing more."""
    limits = {"idle_ms": 600, "head_timeout_ms": 300, "body_timeout_ms": 300}
    with limited(tmp_path_factory.mktemp("models"), **limits) as address:
        yield address


@pytest.fixture(scope="module")
def unhurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """For clients that have to do something before the limit of idleness is over, which a busy machine keeps them from for a while."""
    with limited(tmp_path_factory.mktemp("models"), idle_ms=2_000) as address:
        yield address


@contextmanager
def limited(folder: Path, **limits: int) -> Iterator[str]:
    need_native()
    with plane.running(**limits, pool_threads=1, large_request_bytes=8 << 20) as (started, address):
        plane.serve(started, "pair", models.place(models.pair(), folder, "pair"))
        plane.serve(started, "slow", models.place(models.slow(), folder, "slow"))
        identity = Path(models.TESTS / "models" / "identity_fp32.onnx")
        plane.serve(started, "identity-fp32", models.place(identity, folder, "identity-fp32"))
        yield address


def test_a_shut_window_ends_by_the_limit_of_idleness(unhurried: str) -> None:
    contents = {
        "rest": get(1),
        "infer": call(1, "ModelInfer", large(10_000)),
        "stream": call(1, "ModelStreamInfer", large(10_000)),
        "metadata": call(1, "ServerMetadata", b""),
        "watch": call(1, "/grpc.health.v1.Health/Watch", b""),
    }
    with ExitStack() as stack:
        # Side by side, so that the limit is waited out once.
        connections = {name: stack.enter_context(Frames(unhurried, SHUT)) for name in contents}
        for name, stalled in connections.items():
            stalled.send(contents[name])
        for name, stalled in connections.items():
            stalled.until_closed()
            assert stalled.statuses == {1: 200}, name
            assert stalled.bodies == {}, name
            assert not stalled.ended, name


def test_an_answer_that_nobody_reads_loses_no_other_on_its_connection(unhurried: str) -> None:
    with Frames(unhurried, SHUT) as connection:
        assert connection.barrier()
        connection.send(get(1))
        connection.until_answered(1)
        stream, served = 3, 0
        # Others are read, for longer than an answer may lie: the gateway asks for a new connection and answers them all.
        while connection.last is None:
            connection.send(get(stream), window(stream, 1 << 16))
            connection.until_end(stream)
            if connection.last is None:
                assert connection.statuses[stream] == 200
                served += 1
            stream += 2
        assert served > 1
        assert connection.code is None
        connection.until_closed()
        assert 1 not in connection.ended


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(post(1), id="rest"),
        pytest.param(post(1, "/v2/nowhere"), id="nowhere"),
        pytest.param(call(1, "ModelInfer", b"", end=False), id="infer"),
        pytest.param(call(1, "ServerMetadata", b"", end=False), id="metadata-without-end"),
        pytest.param(call_without_message(1, "ServerMetadata"), id="metadata"),
        pytest.param(call_without_message(1, "ModelStreamInfer") + data(1, bytes(3), False), id="stream"),
    ],
)
def test_a_body_that_does_not_come_ends_by_its_limit(hasty: str, content: bytes) -> None:
    with Frames(hasty) as silent:
        silent.send(content)
        silent.until_end(1)
        assert 1 in silent.ended


def test_a_watch_whose_message_does_not_come_ends_by_the_limit_of_bodies(hasty: str) -> None:
    with Frames(hasty) as silent:
        silent.send(call_without_message(1, "/grpc.health.v1.Health/Watch"))
        silent.until_end(1)
        assert 1 in silent.ended


def test_a_stream_may_be_silent_between_messages_while_its_client_is_there(unhurried: str) -> None:
    with Frames(unhurried) as connection:
        connection.send(call_without_message(1, "ModelStreamInfer"))
        asked = 0
        # The gateway asks whenever the limit of idleness is over.
        while asked < 3:
            received = connection.read()
            assert received is not None, "closed"
            asked += received.kind == PING and not received.flags & ACK
        connection.send(data(1, GOOD_CALL))
        connection.until_end(1)
        assert connection.fields[1]["grpc-status"] == "0"


def test_a_connection_without_a_request_is_closed(hasty: str) -> None:
    for first in (PREFACE + settings(), PREFACE + settings() + b"\0\0\5", PREFACE[:10], PREFACE):
        with Frames(hasty, first) as silent:
            silent.until_closed()
            assert silent.code is None


def test_a_stream_of_a_client_that_is_gone_without_a_word_is_closed(hasty: str) -> None:
    with Frames(hasty, polite=False) as gone:
        gone.send(headers(1, request("POST", SERVICE + "ModelStreamInfer", GRPC), False))
        gone.until_closed()


def test_a_request_that_is_cancelled_in_the_queue_is_not_run(unhurried: str) -> None:
    def rounds(stream: int, count: int) -> bytes:
        inputs = [{"name": "rounds", "shape": [1], "datatype": "INT64", "data": [count]}]
        body = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}})
        return post(stream, "/v2/models/slow/infer") + data(stream, body.encode())

    with Frames(unhurried, WIDE) as connection:
        # A run that stalls its IO thread sends the model to the pool, if it was not there.
        connection.send(rounds(1, 400))
        connection.until_end(1)
        # One pool thread: the second waits for the first, and would take minutes.
        connection.send(rounds(3, 1_200), rounds(5, 1_000_000), rounds(7, 1))
        assert connection.barrier()
        # Once more, so that the requests had their turn after their frames.
        assert connection.barrier()
        assert connection.ended == {1}, "the first run was over before the second could be cancelled"
        connection.send(reset(5))
        connection.until_end(3, 7)
        assert connection.statuses == {1: 200, 3: 200, 7: 200}


def test_answers_that_nobody_reads_are_counted_as_the_memory_that_they_are(tmp_path: Path) -> None:
    identity = models.place(models.TESTS / "models" / "identity_fp32.onnx", tmp_path, "identity-fp32")
    message, streams = large((1 << 20) // 4 - 16), range(1, 121, 2)
    with plane.running(large_request_bytes=8 << 20, max_body_bytes=MAX_BODY) as (started, address):
        plane.serve(started, "identity-fp32", identity)
        before = resident(os.getpid())
        with Frames(address, SHUT) as stalled:
            assert stalled.barrier()
            for stream in streams:
                stalled.send(call(stream, "ModelInfer", message))
                assert stalled.barrier()
            stalled.until_answered(*streams)
            assert stalled.barrier()
            assert resident(os.getpid()) - before < GROWTH
            # What is refused has nothing but trailers, which no window holds back.
            refused = {stream for stream in streams if stalled.fields[stream].get("grpc-status") == "14"}
            assert refused == stalled.ended
            assert 0 < len(streams) - len(refused) <= 8
            stalled.send(window(0, LIMIT - 65_535), *[window(stream, 2 << 20) for stream in streams])
            stalled.until_end(*streams)
            assert {stalled.fields[stream]["grpc-status"] for stream in streams} == {"0", "14"}
        # They are read: there is room again.
        with Http2(address) as connection:
            assert connection.call("ModelInfer", grpc_wire.frame(message)).grpc_status == 0


def test_what_decompresses_to_much_is_counted_as_the_memory_that_it_is(tmp_path: Path) -> None:
    identity = models.place(models.TESTS / "models" / "identity_fp32.onnx", tmp_path, "identity-fp32")
    packed = grpc_wire.frame(gzip.compress(large((4 << 20) // 4)), flag=1)
    assert len(packed) < 1 << 16, "what comes is small"
    with plane.running(large_request_bytes=6 << 20) as (started, address):
        plane.serve(started, "identity-fp32", identity)
        with Http2(address) as connection:
            for method in ("ModelInfer", "ModelStreamInfer"):
                reply = connection.call(method, packed, {"grpc-encoding": "gzip"})
                assert (reply.grpc_status, reply.code) == (14, "overloaded"), method
            assert connection.call("ServerLive", grpc_wire.frame(b"")).grpc_status == 0


@pytest.mark.parametrize(
    "method",
    [
        "ModelStreamInfer",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ],
)
def test_a_call_that_goes_on_ends_with_the_drain(method: str) -> None:
    need_native()
    with plane.running() as (started, address), Frames(address) as connection:
        # A question that was answered: the call is open, and neither side has more to say.
        connection.send(call(1, method, grpc_wire.blob(7, "*"), end="Watch" in method))
        connection.until_answered(1)
        with ThreadPoolExecutor(1) as executor:
            clean = executor.submit(started.stop, 0, 10_000)
            connection.until_end(1)
            connection.until_closed()
            assert clean.result(), "the drain waited for the call"
        assert connection.fields[1]["grpc-status"] == "0"


def large_bytes(gateway: Any) -> int:
    """The memory that is counted for large requests."""
    families = {family["name"]: family["samples"] for family in json.loads(gateway.metrics())}
    return int(families["headgate_large_request_bytes"][0][1])


def until_large(gateway: Any, holds: Callable[[int], bool]) -> None:
    """Looks until the memory that is counted is as it should be; that it takes too long is the test's failure."""
    deadline = time.monotonic() + SECONDS
    while not holds(large_bytes(gateway)):
        assert time.monotonic() < deadline, large_bytes(gateway)


def test_tensors_are_counted_until_their_answer_is_out(tmp_path: Path) -> None:
    identity = models.place(models.TESTS / "models" / "identity_fp32.onnx", tmp_path, "identity-fp32")
    size = 1 << 20
    with plane.running() as (started, address):
        plane.serve(started, "identity-fp32", identity)
        with Frames(address, SHUT) as stalled:
            assert stalled.barrier()
            stalled.send(call(1, "ModelInfer", large(size // 4 - 16)))
            stalled.until_answered(1)
            assert stalled.barrier()
            # The body, its tensor, the outputs and the answer.
            assert large_bytes(started) > 3.9 * size
            stalled.send(window(0, LIMIT - 65_535), window(1, 2 << 20))
            stalled.until_end(1)
        until_large(started, lambda held: held == 0)


@pytest.mark.parametrize("path", [INFER, SERVICE + "ModelInfer"])
def test_a_body_that_does_not_say_its_length_is_counted_as_it_comes(path: str, tmp_path: Path) -> None:
    pair = models.place(models.pair(), tmp_path, "pair")
    with plane.running(large_request_bytes=1 << 20) as (started, address):
        plane.serve(started, "pair", pair)
        opening = headers(1, request("POST", path, GRPC if path.startswith("/inf") else []), False)
        with Frames(address) as sending:
            # The windows are open.
            assert sending.barrier()
            sending.send(opening, *[data(1, bytes(1 << 14), False) for _ in range(16)])
            until_large(started, lambda held: held == 512 << 10)
            sending.send(*[data(1, bytes(1 << 14), False) for _ in range(48)])
            sending.until_end(1)
            assert sending.statuses[1] == 503 or sending.fields[1]["grpc-status"] == "14"


def test_an_answer_to_head_has_no_body(gateway: GatewayProcess) -> None:
    with Http2(gateway.http) as connection:
        whole = connection.send("GET", "/v2")
        for path, status in [("/v2", 200), ("/v2/health/ready", 200), ("/nowhere", 404), (INFER, 405)]:
            reply = connection.send("HEAD", path)
            assert (reply.status, reply.body, reply.reset) == (status, b"", None), path
        assert connection.send("HEAD", "/v2").headers["content-length"] == str(len(whole.body))


@pytest.mark.parametrize("method", ["ServerMetadata", "/grpc.health.v1.Health/Watch"])
def test_a_message_that_does_not_come_ends_with_the_deadline(gateway: GatewayProcess, method: str) -> None:
    path = method if method.startswith("/") else SERVICE + method
    with Frames(gateway.http) as connection:
        connection.send(headers(1, request("POST", path, [*GRPC, ("grpc-timeout", "200m")]), False))
        connection.until_end(1)
        assert connection.fields[1]["grpc-status"] == "4"


def test_a_name_that_nothing_can_have_is_unknown_and_not_kept(gateway: GatewayProcess) -> None:
    question = grpc_wire.blob(1, "x" * 500_000)
    with Http2(gateway.http) as connection:
        reply = connection.call("/grpc.health.v1.Health/Check", grpc_wire.frame(question))
        assert (reply.grpc_status, reply.code) == (5, "not_found")
    before = resident(gateway.pid)
    with Frames(gateway.http, WIDE) as connection:
        assert connection.barrier()
        for stream in range(1, 200, 2):
            connection.send(call(stream, "/grpc.health.v1.Health/Watch", question))
            connection.until_answered(stream)
            assert connection.barrier()
        unknown = grpc_wire.frame(grpc_wire.whole(1, 3))
        assert set(connection.bodies.values()) == {unknown}
        assert not connection.ended
        assert resident(gateway.pid) - before < GROWTH


def test_calls_without_tensors_have_a_limit_of_their_own(tmp_path: Path) -> None:
    pair = models.place(models.pair(), tmp_path, "pair")
    with plane.running(max_body_bytes=8 << 20) as (started, address):
        plane.serve(started, "pair", pair)
        for size, status in ((1 << 19, 0), (2 << 20, 8)):
            with Http2(address) as connection:
                # A field that no message has.
                message = grpc_wire.frame(grpc_wire.blob(100, bytes(size)))
                for method in ("ServerLive", "/grpc.health.v1.Health/Check"):
                    reply = connection.call(method, message)
                    assert reply.grpc_status == status, reply.grpc_message
                    assert status == 0 or "the limit of requests without tensors" in reply.grpc_message


@pytest.mark.parametrize(
    "method",
    [
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "ModelStreamInfer",
    ],
)
def test_a_call_that_goes_on_ends_with_its_deadline(gateway: GatewayProcess, method: str) -> None:
    path = method if method.startswith("/") else SERVICE + method
    opening = headers(1, request("POST", path, [*GRPC, ("grpc-timeout", "200m")]), False)
    with Frames(gateway.http) as connection:
        connection.send(opening)
        if "Watch" in method:
            connection.send(data(1, grpc_wire.frame(b""), end=True))
        connection.until_end(1)
        assert connection.fields[1]["grpc-status"] == "4"


def metered(gateway: Any, name: str) -> int:
    """A gauge without labels."""
    families = {family["name"]: family["samples"] for family in json.loads(gateway.metrics())}
    return int(families[name][0][1])


def until_metered(gateway: Any, name: str, holds: Callable[[int], bool]) -> None:
    """Looks until a gauge is as it should be; that it takes too long is the test's failure."""
    deadline = time.monotonic() + SECONDS
    while not holds(metered(gateway, name)):
        assert time.monotonic() < deadline, metered(gateway, name)


@pytest.mark.parametrize("kind", [post, lambda stream: call_without_message(stream, "ModelInfer")])
def test_small_bodies_that_never_end_are_counted_refused_and_given_back(
    tmp_path: Path, kind: Callable[[int], bytes]
) -> None:
    need_native()
    model, body, streams = models.place(models.pair(), tmp_path, "pair"), b" " * 60_000, range(1, 101, 2)
    with plane.running(small_request_bytes=2 << 20) as (started, address):
        plane.serve(started, "pair", model)
        with Connection(address) as other:
            with Frames(address) as attacker:
                assert attacker.barrier(), "the windows are open"
                for stream in streams:
                    pieces = [body[at : at + (1 << 14)] for at in range(0, len(body), 1 << 14)]
                    attacker.send(kind(stream), *(data(stream, piece, False) for piece in pieces))
                # More than there may be: the last ones were refused, and what is held is bounded.
                attacker.until_answered(streams[-1])
                held = metered(started, "headgate_small_request_bytes")
                assert 1 << 20 < held <= 2 << 20
                # A request that is here already, and alone on its connection, is not kept out by them.
                assert other.send("POST", INFER, GOOD).status == 200
            until_metered(started, "headgate_small_request_bytes", lambda held: held == 0)
            assert other.send("POST", INFER, GOOD).status == 200
        with Frames(address) as after:
            after.send(headers(1, request("POST", INFER), False), data(1, GOOD))
            after.until_end(1)
            assert after.statuses == {1: 200}


def test_greedy_connections_leave_room_for_the_small_requests_of_others(tmp_path: Path) -> None:
    need_native()
    model = models.place(models.pair(), tmp_path, "pair")
    identity = models.place(models.TESTS / "models" / "identity_fp32.onnx", tmp_path, "identity")
    tensor = {"name": "x", "shape": [4_000], "datatype": "FP32", "data": [0.5] * 4_000}
    unread, body, streams = json.dumps({"inputs": [tensor]}).encode(), b" " * 60_000, range(1, 101, 2)
    with plane.running(small_request_bytes=8 << 20) as (started, address), ExitStack() as attackers:
        plane.serve(started, "pair", model)
        plane.serve(started, "identity", identity)
        for number in range(12):
            # Half of them send bodies without an end, the others read no answer.
            first = PREFACE + settings(initial_window_size=0) if number % 2 else PREFACE + settings()
            attacker = attackers.enter_context(Frames(address, first))
            assert attacker.barrier(), "the windows are open"
            for stream in streams:
                pieces = [body[at : at + (1 << 14)] for at in range(0, len(body), 1 << 14)]
                if number % 2:
                    attacker.send(post(stream, "/v2/models/identity/infer"), data(stream, unread))
                else:
                    attacker.send(post(stream), *(data(stream, piece, False) for piece in pieces))
            # The last ones were refused: who holds much gets no more.
            attacker.until_answered(streams[-1])
        for stream in (1, 3):
            with Frames(address) as honest:
                honest.send(headers(stream, request("POST", INFER), False), data(stream, GOOD))
                honest.until_end(stream)
                assert honest.statuses == {stream: 200}


@pytest.mark.parametrize(
    ("elements", "streams", "part", "most"),
    [(4_000, 100, "small_request_bytes", 1 << 20), (40_000, 20, "large_request_bytes", 4 << 20)],
    ids=["small", "large"],
)
def test_answers_that_nobody_reads_are_counted(
    tmp_path: Path, elements: int, streams: int, part: str, most: int
) -> None:
    need_native()
    model = models.place(models.TESTS / "models" / "identity_fp32.onnx", tmp_path, "identity")
    tensor = {"name": "x", "shape": [elements], "datatype": "FP32", "data": [0.5] * elements}
    body, last = json.dumps({"inputs": [tensor]}).encode(), 2 * streams - 1
    gauge = f"headgate_{part}"
    with plane.running(**{part: most}) as (started, address):
        plane.serve(started, "identity", model)
        with Frames(address, PREFACE + settings(initial_window_size=0)) as attacker:
            assert attacker.barrier(), "the windows are open"
            for stream in range(1, 2 * streams, 2):
                attacker.send(post(stream, "/v2/models/identity/infer"), data(stream, body))
            attacker.until_answered(*range(1, 2 * streams, 2))
            assert attacker.statuses[1] == 200
            assert attacker.statuses[last] == 503
            assert most // 4 < metered(started, gauge) <= most
        until_metered(started, gauge, lambda held: held == 0)

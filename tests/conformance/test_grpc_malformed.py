"""Every malformed gRPC call gets its status and a message that helps, and a good call right after it gets its answer.

The table is in ``cases_grpc``; here are also the calls that do not come as HTTP/2 POST at all. The gateway is held to
HTTP/2's rules by python-hyper. Read next: ``test_http2_frames``, where the client breaks these rules.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from conformance.cases_binary import CASES as BINARY
from conformance.cases_grpc import CASES as CALLS
from conformance.cases_http import CASES as WIRE
from conformance.cases_json import CASES as JSON
from conformance.cases_routes import CASES as ROUTES
from support.client import Connection, raw, status_of
from support.gateway import GatewayProcess
from support.grpc_calls import (
    DEADLINE,
    DENIED,
    EXHAUSTED,
    GOOD,
    INVALID,
    NOT_FOUND,
    PAIR,
    UNIMPLEMENTED,
    Call,
    assert_good,
    strict,
)
from support.grpc_wire import all_of, frame
from support.h2_client import Http2, Reply

#: Headgate's codes by the status of the call.
CODES = {
    INVALID: {"invalid_argument"},
    DEADLINE: {"deadline_exceeded"},
    NOT_FOUND: {"model_not_found", "version_not_found", "not_found"},
    DENIED: {"permission_denied"},
    EXHAUSTED: {"payload_too_large"},
    UNIMPLEMENTED: {"unsupported"},
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with strict(tmp_path_factory.mktemp("strict")) as started:
        yield started


def test_the_table_is_long_enough_and_names_each_case_once() -> None:
    names = [call.id for call in CALLS]
    assert len(set(names)) == len(names)
    assert len(names) >= 80
    assert len(names) + len(JSON) + len(BINARY) + len(ROUTES) + len(WIRE) >= 300


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.id)
def test_a_malformed_call_is_refused_and_the_connection_goes_on(gateway: GatewayProcess, call: Call) -> None:
    with Http2(gateway.grpc) as connection:
        reply = connection.call(call.method, call.body, call.headers)
        assert reply.reset in {None, 0}, reply
        assert (reply.status, reply.headers["content-type"]) == (200, "application/grpc")
        if call.said:
            assert_said(reply, call.mentions)
        else:
            assert_failed(reply, call)
        assert_good(connection)


def assert_failed(reply: Reply, call: Call) -> None:
    assert reply.grpc_status == call.status, reply
    assert reply.messages == []
    assert reply.grpc_message.strip()
    assert call.mentions in reply.grpc_message
    assert "%20" not in reply.grpc_message, "encoded twice"
    # tonic's own refusals have no code.
    assert reply.code in CODES[call.status] | ({None} if call.method != "ModelInfer" else set())


def assert_said(reply: Reply, mentions: str) -> None:
    assert reply.grpc_status == 0, reply
    (message,) = reply.messages
    (said,) = all_of(message, 1)
    assert mentions in said.decode()


def test_a_status_in_the_head_is_all_of_the_reply(gateway: GatewayProcess) -> None:
    # grpc-go takes a frame behind such a head for a reply without trailers, and the status for none.
    with Http2(gateway.grpc) as connection:
        reply = connection.call("/grpc.reflection.v1.ServerReflection/Nothing", frame(b""))
        assert reply.is_bare, reply
        assert reply.headers["grpc-status"] == str(UNIMPLEMENTED)
        assert_good(connection)


def test_a_bad_request_in_a_stream_does_not_harm_those_around_it(gateway: GatewayProcess) -> None:
    with Http2(gateway.grpc) as connection:
        reply = connection.call("ModelStreamInfer", GOOD + frame(b"\x08") + GOOD)
    assert reply.grpc_status == 0, reply
    assert [bool(all_of(message, 1)) for message in reply.messages] == [False, True, False]


def test_a_get_is_no_call(gateway: GatewayProcess) -> None:
    with Http2(gateway.grpc) as connection:
        for method in ("ModelInfer", "ServerLive"):
            path = f"/inference.GRPCInferenceService/{method}"
            reply = connection.send("GET", path, headers={"content-type": "application/grpc"})
            assert reply.status >= 400 or reply.grpc_status != 0
            assert_good(connection)


@pytest.mark.parametrize(
    "content", ["application/json", "application/grpc-web", "application/grpcx", "", None]
)
def test_what_is_not_grpc_by_its_content_type_is_a_path_that_leads_nowhere(
    gateway: GatewayProcess, content: str | None
) -> None:
    headers = {} if content is None else {"content-type": content}
    with Http2(gateway.grpc) as connection:
        reply = connection.send("POST", "/inference.GRPCInferenceService/ModelInfer", GOOD, headers)
        assert (reply.status, json.loads(reply.body)["code"]) == (404, "not_found")
        assert_good(connection)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("body", [GOOD, frame(PAIR, 2), b""], ids=["good", "bad", "empty"])
def test_a_call_over_http_1_is_told_that_it_needs_http_2(
    gateway: GatewayProcess, version: str, body: bytes
) -> None:
    lines = [
        f"POST /inference.GRPCInferenceService/ModelInfer HTTP/{version}", "Host: gateway", "Connection: close",
        "TE: trailers", "Content-Type: application/grpc", f"Content-Length: {len(body)}", "", "",
    ]  # fmt: skip
    answer = raw(gateway.grpc, "\r\n".join(lines).encode() + body)
    # A client of HTTP/1 has nothing but the status line and the body to see that it was refused.
    assert (status_of(answer) or 0) >= 400
    assert b"HTTP/2" in answer.partition(b"\r\n\r\n")[2]


def test_a_call_over_http_1_leaves_the_connection_in_order(gateway: GatewayProcess) -> None:
    with Connection(gateway.grpc) as connection:
        path = "/inference.GRPCInferenceService/ModelInfer"
        connection.send("POST", path, GOOD, {"Content-Type": "application/grpc"})
        before = connection.socket
        assert connection.send("GET", "/v2").json["name"] == "headgate"
        assert connection.socket is before

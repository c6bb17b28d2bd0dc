"""A gateway that got every malformed request many times is as large as after the first few times, and has no connection left.

Not here: memory during an attack (``test_http2_frames``). The requests are those of all tables beside this file.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from conformance.cases_binary import CASES as BINARY
from conformance.cases_grpc import CASES as CALLS
from conformance.cases_http import CASES as WIRE
from conformance.cases_json import CASES as JSON
from conformance.cases_routes import CASES as ROUTES
from support.bystander import resident, until_alone
from support.client import Connection, raw
from support.gateway import GatewayProcess
from support.grpc_calls import assert_good, strict
from support.h2_client import Http2
from support.h2_frames import Frames
from support.h2_rules import BROKEN

REST = [*JSON, *BINARY, *ROUTES]
#: How often the tables are sent before the first look, which fills every cache and pool, and after it.
WARM, PASSES = 10, 20
#: What the process may grow by then, in bytes. Some 300 bytes kept of each request would be more.
BOUND = 4 << 20


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with strict(tmp_path_factory.mktemp("memory")) as started:
        yield started


def send_all(gateway: GatewayProcess) -> int:
    """Every malformed request once; how many they were."""
    with Connection(gateway.http) as connection:
        for case in REST:
            answer = connection.send(case.method, case.path, case.body, case.headers)
            assert answer.status >= 400, case.id
    with Http2(gateway.grpc) as calls:
        for call in CALLS:
            reply = calls.call(call.method, call.body, call.headers)
            assert reply.ended, call.id
        assert_good(calls)
    for wire in WIRE:
        raw(gateway.http, wire.content)
    for row in BROKEN:
        with Frames(gateway.http) as frames:
            frames.send(row.content)
            frames.barrier()
    until_alone(gateway)
    return len(REST) + len(CALLS) + len(WIRE) + len(BROKEN)


@pytest.mark.alone
def test_memory_is_given_back_and_no_connection_is_left(gateway: GatewayProcess) -> None:
    for _ in range(WARM):
        send_all(gateway)
    before = resident(gateway.pid)
    sent = sum(send_all(gateway) for _ in range(PASSES))
    grown = resident(gateway.pid) - before
    assert sent >= 10_000
    assert grown < BOUND, f"{grown} bytes more after {sent} requests"

"""Every malformed request gets its status and code, and a good request right after it gets its answer.

The tables are in ``cases_*``. A client's mistake is never a 5xx, but for 501, which says that something is not built.
"""

from __future__ import annotations

import pytest

from conformance.cases import GOOD, Case
from conformance.cases_binary import CASES as BINARY
from conformance.cases_http import CASES as WIRE
from conformance.cases_http import Wire
from conformance.cases_json import CASES as JSON
from conformance.cases_routes import CASES as ROUTES
from support.client import Connection, raw, status_of
from support.gateway import GatewayProcess

PROTOCOL = [*JSON, *BINARY, *ROUTES]


def assert_good(connection: Connection) -> None:
    answer = connection.send("POST", "/v2/models/pair/infer", GOOD)
    assert answer.status == 200, answer.body
    assert [output["data"] for output in answer.json["outputs"]] == [[1, 2], [3]]


def test_the_tables_are_long_enough_and_name_each_case_once() -> None:
    names = [case.id for case in PROTOCOL] + [wire.id for wire in WIRE]
    assert len(names) >= 120
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("case", PROTOCOL, ids=lambda case: case.id)
def test_a_malformed_request_is_refused_and_the_connection_goes_on(zoo: GatewayProcess, case: Case) -> None:
    with Connection(zoo.http) as connection:
        answer = connection.send(case.method, case.path, case.body, case.headers)
        assert (answer.status, answer.code) == (case.status, case.code), answer.body
        assert set(answer.json) == {"error", "code"}
        assert answer.json["error"].strip()
        assert case.mentions in answer.json["error"]
        before = connection.socket
        assert before is not None, "the connection was closed"
        assert_good(connection)
        assert connection.socket is before


@pytest.mark.parametrize("wire", WIRE, ids=lambda wire: wire.id)
def test_what_is_not_http_closes_the_connection(zoo: GatewayProcess, wire: Wire) -> None:
    answer = raw(zoo.http, wire.content)
    assert status_of(answer) in wire.statuses | {None}, answer[:200]
    with Connection(zoo.http) as connection:
        assert_good(connection)

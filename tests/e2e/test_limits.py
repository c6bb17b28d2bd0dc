"""Limits and fallbacks from the document to the answer: who is refused, who answers instead, who may stand beside whom.

Not here: how they count (``rust/core``) and what they do to each other (``rust/server/tests/gateway/limits.rs``).
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from support.client import Connection
from support.gateway import GatewayProcess
from support.grpc_calls import MAX_BODY
from support.grpc_wire import frame, request, tensor
from support.h2_client import Http2
from support.models import place, scale, slow
from support.tools import need_native

DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: slow
versions:
  exact: {model: "file:models/slow/1", run: {placement: pool}}
  prior: {constant: {y: 0.5}}
traffic: {champion: exact, fallback: {to: [prior], after: 3s}}
---
apiVersion: headgate/v1
kind: Endpoint
name: limited
versions: {"1": "file:models/double/1"}
traffic: {champion: "1"}
limits: {rate: {by: header.x-tenant, per_second: 0.01, burst: 2}}
"""

INCOMPATIBLE = """\
apiVersion: headgate/v1
kind: Endpoint
name: mixed
versions: {old: "file:models/double/1", new: NEW}
traffic: {champion: old}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    need_native()
    folder = tmp_path_factory.mktemp("limits")
    place(scale(2.0), folder / "models", "double")
    place(scale(2.0, ["rows", 5]), folder / "models", "wider")
    place(slow(), folder / "models", "slow")
    (folder / "document.yaml").write_text(DOCUMENT)
    with GatewayProcess(folder / "state", [str(folder / "document.yaml"), "--root", str(folder)]) as started:
        yield started


ROW = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}


def test_a_caller_that_comes_too_often_is_told_when_to_come_again(gateway: GatewayProcess) -> None:
    def ask(tenant: str) -> httpx.Response:
        url = f"http://{gateway.http}/v2/models/limited/infer"
        return httpx.post(url, json=ROW, headers={"x-tenant": tenant})

    assert [ask("a").status_code for _ in range(3)] == [200, 200, 429]
    refused = ask("a")
    assert refused.json()["code"] == "rate_limited"
    assert 90 <= int(refused.headers["retry-after"]) <= 100
    assert ask("b").status_code == 200
    metrics = gateway.observe("/metrics").text
    assert 'headgate_requests_rate_limited_total{endpoint="limited"} 2.0' in metrics


def test_another_version_answers_for_one_that_takes_too_long(gateway: GatewayProcess) -> None:
    def ask(rounds: int) -> httpx.Response:
        inputs = [{"name": "rounds", "datatype": "INT64", "shape": [1], "data": [rounds]}]
        return httpx.post(f"http://{gateway.http}/v2/models/slow/infer", json={"inputs": inputs}, timeout=60)

    # The second one takes hours, so that it is too late on any machine.
    quick, late = ask(1), ask(10**7)
    assert (quick.status_code, quick.headers["x-headgate-version"]) == (200, "exact")
    assert "x-headgate-fallback" not in quick.headers
    assert (late.status_code, late.headers["x-headgate-version"]) == (200, "prior")
    assert late.headers["x-headgate-fallback"] == "exact; cause=timeout"
    assert set(late.json()["outputs"][0]["data"]) == {0.5}


def test_a_rate_over_grpc_is_resource_exhausted_with_pushback(gateway: GatewayProcess) -> None:
    raw = bytes(16)
    body = frame(request([tensor("X", "FP32", [1, 4])], [raw], model="limited"))
    assert len(body) < MAX_BODY
    with Http2(gateway.grpc) as connection:
        replies = [connection.call("ModelInfer", body, {"x-tenant": "grpc"}) for _ in range(3)]
    assert [reply.grpc_status for reply in replies] == [0, 0, 8]
    assert replies[-1].code == "rate_limited"
    assert 90_000 <= int(replies[-1].trailers["grpc-retry-pushback-ms"]) <= 100_000


def test_a_version_of_another_signature_is_refused_unless_that_is_written(gateway: GatewayProcess) -> None:
    with gateway.admin() as admin:

        def put(new: str) -> httpx.Response:
            return admin.http.put(
                "/v1/endpoints/mixed",
                content=INCOMPATIBLE.replace("NEW", new),
                headers={"If-None-Match": "*", "Content-Type": "application/yaml"},
            )

        refused = put('"file:models/wider/1"')
        assert (refused.status_code, refused.json()["code"]) == (422, "policy_invalid"), refused.text
        assert 'input "X" is FP32 [-1, 5], and FP32 [-1, 4] in the champion old' in refused.text.replace(
            "\\", ""
        )
        assert admin.http.get("/v1/endpoints/mixed").status_code == 404
        taken = put('{model: "file:models/wider/1", compatible: false}')
        assert taken.is_success, taken.text
    with Connection(gateway.http) as connection:
        assert connection.infer("mixed", ROW).status == 200

"""Rules send requests to a version by what they carry, over REST and gRPC; metrics and the explanation say the same.

Not here: which rule matches what (``rust/core/src/rules.rs``), how documents write them (``unit/documents/test_traffic``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support import models
from support.gateway import GatewayProcess
from support.grpc_wire import all_of, blob, entry, frame, int_value, request, tensor, text_value
from support.h2_client import Http2
from support.tools import need_native

DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: scale
versions: {v1: "file:scale/1", v2: "file:scale/2", v3: "file:scale/3"}
traffic:
  champion: v1
  sticky: header.x-user-id
  rules:
    - {when: {header.X-Tester: "1", parameter.tier: 3}, to: v2}
    - {when: {header.x-tester: {prefix: "1"}}, to: v3}
    - {when: {parameter.group: [blue, green]}, to: v2}
    - {when: {header.x-tester: "12"}, to: v2}
"""

Case = tuple[dict[str, str], dict[str, Any], str, int | None]
CASES: list[Case] = [
    ({}, {}, "v1", None),
    ({"x-tester": "1"}, {"tier": 3}, "v2", 0),
    ({"x-tester": "1"}, {"tier": 30}, "v3", 1),
    ({"x-tester": "12"}, {}, "v3", 1),
    ({"x-tester": "2"}, {"tier": 3}, "v1", None),
    ({}, {"group": "green"}, "v2", 2),
    ({}, {"group": "Green"}, "v1", None),
    ({"x-user-id": "u"}, {"group": "blue"}, "v2", 2),
]
MANY = pytest.mark.parametrize(("headers", "parameters", "version", "rule"), CASES)
INFER = "/v2/models/scale/infer"
VALUES = [1.0, 2.0, 3.0, 4.0]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    need_native()
    folder = tmp_path_factory.mktemp("rules")
    for factor in (1, 2, 3):
        models.place(models.scale(float(factor)), folder, "scale", str(factor))
    document = folder / "scale.yaml"
    document.write_text(DOCUMENT)
    with GatewayProcess(folder / "state", [str(document)]) as gateway:
        yield gateway


def infer(
    gateway: GatewayProcess, headers: dict[str, str], parameters: dict[str, Any] | None = None
) -> httpx.Response:
    """A request over REST that must be answered."""
    inputs = [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": VALUES}]
    body = {"inputs": inputs, "parameters": parameters or {}}
    answer = httpx.post(f"http://{gateway.http}{INFER}", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


@MANY
def test_rest_follows_the_rules(
    gateway: GatewayProcess,
    headers: dict[str, str],
    parameters: dict[str, Any],
    version: str,
    rule: int | None,
) -> None:
    answer = infer(gateway, headers, parameters)
    assert answer.headers["x-headgate-version"] == version
    factor = float(version.removeprefix("v"))
    assert answer.json()["outputs"][0]["data"] == [value * factor for value in VALUES]


@MANY
def test_grpc_follows_the_rules(
    gateway: GatewayProcess,
    headers: dict[str, str],
    parameters: dict[str, Any],
    version: str,
    rule: int | None,
) -> None:
    written = {
        name: text_value(value) if isinstance(value, str) else int_value(value)
        for name, value in parameters.items()
    }
    extra = b"".join(blob(4, entry(name, value)) for name, value in written.items())
    message = request([tensor("X", "FP32", [1, 4])], [struct.pack("<4f", *VALUES)], extra, model="scale")
    with Http2(gateway.grpc) as calls:
        for method in ("ModelInfer", "ModelStreamInfer"):
            reply = calls.call(method, frame(message), headers)
            assert reply.grpc_status == 0, reply.grpc_message
            answer = reply.messages[0]
            if method == "ModelStreamInfer":
                (answer,) = all_of(answer, 2)
            assert all_of(answer, 2) == [version.encode()]


@MANY
def test_the_explanation_is_what_is_served(
    gateway: GatewayProcess,
    headers: dict[str, str],
    parameters: dict[str, Any],
    version: str,
    rule: int | None,
) -> None:
    with gateway.admin() as admin:
        found = admin.http.post(
            "/v1/endpoints/scale:explain", json={"headers": headers, "parameters": parameters}
        ).json()
    assert (found["version"], found["rule"]) == (version, rule)
    assert found["by"] == ("champion" if rule is None else "rule")
    assert (rule is not None) == found["why"].startswith("rules[")


def by_rule(gateway: GatewayProcess, version: str) -> float:
    """Requests that a rule sent to a version."""
    for line in gateway.observe("/metrics").text.splitlines():
        if line.startswith("headgate_requests_by_rule_total{") and f'version="{version}"' in line:
            return float(line.split()[-1])
    return 0.0


def test_requests_by_rule_are_counted_apart(gateway: GatewayProcess) -> None:
    before = {version: by_rule(gateway, version) for version in ("v1", "v2", "v3")}
    for headers in ({}, {"x-tester": "1"}, {"x-tester": "1"}):
        infer(gateway, headers)
    after = {version: by_rule(gateway, version) for version in ("v1", "v2", "v3")}
    assert {version: after[version] - before[version] for version in after} == {"v1": 0, "v2": 0, "v3": 2}


def test_the_rules_of_a_blocked_version_are_passed_over(gateway: GatewayProcess) -> None:
    def served() -> str:
        return infer(gateway, {"x-tester": "12"}).headers["x-headgate-version"]

    with gateway.admin() as admin:
        assert served() == "v3"
        admin.act("scale", "block", version="v3")
        # The rule behind it matches as well.
        assert served() == "v2"
        found = admin.http.post("/v1/endpoints/scale:explain", json={"headers": {"x-tester": "12"}}).json()
        assert (found["version"], found["rule"]) == ("v2", 3)
        assert found["notes"] == ["rules[1] is passed over: v3 is blocked"]
        admin.act("scale", "unblock", version="v3")
        assert served() == "v3"


def test_a_rule_that_can_never_match_is_said_by_plan(gateway: GatewayProcess) -> None:
    with gateway.admin() as admin:
        answer = admin.http.put(
            "/v1/endpoints/scale",
            params={"dry_run": "true"},
            content=DOCUMENT,
            headers={"content-type": "application/yaml", "if-match": str(admin.revision("scale"))},
        )
        notes = answer.json()["notes"]
    assert any("traffic.rules[3]: can never match" in note for note in notes), notes

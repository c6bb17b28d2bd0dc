"""Feedback on the real gateway: answers carry receipts, each counts once for its version, a restart changes nothing, and a rollout is
rolled back for it.

Not here: every way in which feedback is refused (``rust/server/tests/gateway/feedback.rs``), what the gate promises
(``docs/design/gates.md``).
"""

from __future__ import annotations

import json
import shutil
import stat
import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.gateway.state_folder import backup, check, restore
from support import models
from support.gateway import GatewayProcess, checked
from support.grpc_wire import all_of, frame, request, tensor
from support.h2_client import Http2
from support.tools import need_native
from support.waiting import until

DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: scale
versions: {v1: "file:scale/1", v2: "file:scale/2"}
traffic:
  champion: v1
  weights: {v2: 50%}
  sticky: header.x-user-id
feedback:
  sale: {kind: label, good: high, within: 1h}
  items: {kind: count, range: [0, 20], good: high, within: 1h}
"""
PLAN = """\
apiVersion: headgate/v1
kind: RolloutPlan
name: sold
steps:
  - {weight: 50%, for: 10m, min_requests: 20}
  - promote
rollback_if: {feedback.sale: 0.1}
"""
VALUES = [9.0] * 4
ANY = {"if-match": "*"}
NEW = {"content-type": "application/yaml", "if-none-match": "*"}


def started(tmp_path: Path, document: str) -> GatewayProcess:
    need_native()
    models.place(models.scale(2.0), tmp_path, "scale", "1")
    models.place(models.scale(3.0), tmp_path, "scale", "2")
    (tmp_path / "scale.yaml").write_text(document)
    return GatewayProcess(tmp_path / "state", [str(tmp_path / "scale.yaml")])


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    with started(tmp_path, DOCUMENT) as gateway:
        yield gateway


def infer(gateway: GatewayProcess, user: str) -> tuple[str, str]:
    """The version and the receipt of an answer over HTTP."""
    inputs = [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": VALUES}]
    url = f"http://{gateway.http}/v2/models/scale/infer"
    answer = httpx.post(url, json={"inputs": inputs}, headers={"x-user-id": user})
    assert answer.status_code == 200, answer.text
    return answer.headers["x-headgate-version"], answer.headers["x-headgate-receipt"]


def infer_by_grpc(calls: Http2, user: str) -> tuple[str, str]:
    message = request([tensor("X", "FP32", [1, 4])], [struct.pack("<4f", *VALUES)], model="scale")
    reply = calls.call("ModelInfer", frame(message), {"x-user-id": user})
    assert reply.grpc_status == 0, reply.grpc_message
    return reply.headers["x-headgate-version"], reply.headers["x-headgate-receipt"]


def infer_by_stream(calls: Http2, user: str, values: list[list[float]]) -> list[tuple[str, str | None]]:
    """The version and the receipt of each answer of one stream; no receipt of one that failed."""
    shape = [1, 4]
    messages = [
        request([tensor("X", "FP32", shape)], [struct.pack(f"<{len(one)}f", *one)], model="scale")
        for one in values
    ]
    reply = calls.call("ModelStreamInfer", b"".join(map(frame, messages)), {"x-user-id": user})
    assert reply.grpc_status == 0, reply.grpc_message
    found = []
    for message in reply.messages:
        (answer,) = all_of(message, 2)
        entries = {all_of(one, 1)[0]: all_of(one, 2)[0] for one in all_of(answer, 4)}
        value = entries.get(b"x-headgate-receipt")
        version = b"".join(all_of(answer, 2)).decode()
        found.append((version, None if value is None else all_of(value, 3)[0].decode()))
    return found


def give(gateway: GatewayProcess, *lines: dict[str, Any]) -> httpx.Response:
    body = "\n".join(json.dumps(line) for line in lines)
    return httpx.post(f"http://{gateway.http}/v2/models/scale/feedback", content=body)


def sale(receipt: str, value: Any) -> dict[str, Any]:
    return {"receipt": receipt, "value": value, "kind": "sale"}


def counted(gateway: GatewayProcess, name: str = "sale") -> dict[str, tuple[int, float | None]]:
    """The values of each version in the trial, and their mean."""
    with gateway.admin() as admin:
        trial = admin.get("/v1/endpoints/scale/trial")["trial"]
    arms: dict[str, Any] = next((one["arms"] for one in trial["feedback"] if one["name"] == name), {})
    return {version: (arm["n"], arm["mean"]) for version, arm in arms.items()}


def test_receipts_count_once_for_their_version_and_outlive_a_restart(gateway: GatewayProcess) -> None:
    answers = [infer(gateway, f"user-{number}") for number in range(20)]
    with Http2(gateway.grpc) as calls:
        answers += [infer_by_grpc(calls, f"user-{number}") for number in range(20, 40)]
    assert all(len(receipt) == 64 for _, receipt in answers)
    of = Counter(version for version, _ in answers)
    assert set(of) == {"v1", "v2"}
    told = give(gateway, *(sale(receipt, version == "v2") for version, receipt in answers)).json()
    assert (told["accepted"], told["refused"]) == (40, 0)
    found = {"v1": (of["v1"], 0.0), "v2": (of["v2"], 1.0)}
    assert counted(gateway) == found
    shown = gateway.observe("/metrics").text
    assert f'headgate_feedback_total{{endpoint="scale",feedback="sale",version="v2"}} {of["v2"]}.0' in shown

    file = gateway.state / "feedback" / "scale.receipts"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    gateway.stop()
    gateway.start()
    assert counted(gateway) == found
    again = give(gateway, *(sale(receipt, True) for _, receipt in answers)).json()
    assert again["refused"] == 40
    assert {line["reason"] for line in again["results"]} == {"duplicate"}
    # Of another feedback they count, and an answer of after the restart as well.
    _, fresh = infer(gateway, "user-0")
    items = {"receipt": answers[0][1], "value": 3, "kind": "items"}
    assert give(gateway, items).json() == {"accepted": 1, "refused": 0, "evidence": "counted"}
    # Its user has given it under these weights.
    assert give(gateway, sale(fresh, True)).json()["evidence"] == "repeated"
    assert counted(gateway) == found
    assert counted(gateway, "items")[answers[0][0]] == (1, 3.0)


def test_each_answer_of_a_stream_has_a_receipt_of_its_own(gateway: GatewayProcess) -> None:
    with Http2(gateway.grpc) as calls:
        first, failed, second = infer_by_stream(calls, "user-1", [VALUES, VALUES[:2], VALUES])
        (other,) = infer_by_stream(calls, "user-2", [VALUES])
    assert failed[1] is None
    answers = [(version, receipt) for version, receipt in (first, second, other) if receipt is not None]
    assert len({receipt for _, receipt in answers}) == 3
    assert all(len(receipt) == 64 for _, receipt in answers)
    told = give(gateway, *(sale(receipt, True) for _, receipt in answers)).json()
    # Requests of one call have one sticky key.
    assert [line["evidence"] for line in told["results"]] == ["counted", "repeated", "counted"]
    assert sum(n for n, _ in counted(gateway).values()) == 2
    (version, receipt), *_ = answers
    items = {"receipt": receipt, "value": 3, "kind": "items"}
    assert give(gateway, items).json()["evidence"] == "counted"
    assert counted(gateway, "items")[version] == (1, 3.0)


def test_receipts_outlive_a_backup_that_is_restored(gateway: GatewayProcess, tmp_path: Path) -> None:
    (_, used), (_, unused) = infer(gateway, "user-1"), infer(gateway, "user-2")
    assert give(gateway, sale(used, True)).json()["evidence"] == "counted"
    gateway.stop()
    backup(gateway.state, tmp_path / "backup.tar")
    gateway.start()
    # After the backup: both are lost with what they counted.
    _, after = infer(gateway, "user-3")
    assert give(gateway, sale(unused, True)).status_code == 200
    assert give(gateway, sale(after, True)).status_code == 200
    gateway.stop()
    # A start is numbered by its second: two copies of a state that begin in the same one would number alike.
    begun = int(time.time())
    until(lambda: int(time.time()) > begun)
    restored = tmp_path / "restored"
    restore(tmp_path / "backup.tar", restored)
    shutil.copy2(gateway.state / "admin-token", restored)
    with GatewayProcess(restored) as again:
        assert sum(n for n, _ in counted(again).values()) == 1
        assert give(again, sale(used, True)).json()["code"] == "conflict"
        _, fresh = infer(again, "user-4")
        for receipt in (unused, after, fresh):
            assert give(again, sale(receipt, True)).json()["evidence"] == "counted"
            assert give(again, sale(receipt, True)).json()["code"] == "conflict"
        assert sum(n for n, _ in counted(again).values()) == 4
        shown = again.observe("/metrics").text
        assert 'headgate_feedback_key_lost{endpoint="scale"} 0.0' in shown


def test_damaged_receipts_are_found_and_no_backup_has_them(gateway: GatewayProcess, tmp_path: Path) -> None:
    _, receipt = infer(gateway, "user-1")
    gateway.stop()
    file = gateway.state / "feedback" / "scale.receipts"
    content = bytearray(file.read_bytes())
    content[20] ^= 1
    file.write_bytes(content)
    (said,) = backup(gateway.state, tmp_path / "backup.tar")
    assert said.startswith("feedback/scale.receipts is damaged: a gateway that runs has the key")
    assert not (tmp_path / "backup.tar").exists()
    gateway.start()
    assert "not issued by this gateway" in give(gateway, sale(receipt, True)).json()["error"]
    assert 'headgate_feedback_key_lost{endpoint="scale"} 1.0' in gateway.observe("/metrics").text
    assert check(gateway.state).lines() == []


def test_a_gateway_that_runs_writes_damaged_receipts_anew_with_its_key(gateway: GatewayProcess) -> None:
    (_, used), (_, unused) = infer(gateway, "user-1"), infer(gateway, "user-2")
    file = gateway.state / "feedback" / "scale.receipts"
    file.write_bytes(b"damaged")
    assert [line for line in check(gateway.state).lines() if "scale.receipts is damaged" in line]
    assert give(gateway, sale(used, True)).status_code == 200
    until(lambda: check(gateway.state).lines() == [], 60.0)
    gateway.stop()
    gateway.start()
    assert give(gateway, sale(used, True)).json()["code"] == "conflict"
    assert give(gateway, sale(unused, True)).status_code == 200


def test_what_is_no_receipt_of_this_endpoint_is_refused_in_words(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    _, receipt = infer(gateway, "user-1")
    forged = receipt[:40] + ("A" if receipt[40] != "A" else "B") + receipt[41:]
    for body, words in [
        (sale(forged, True), "not issued by this gateway"),
        (sale("short", True), "x-headgate-receipt"),
        (sale(receipt, "yes"), "true or false"),
        ({"receipt": receipt, "value": 21, "kind": "items"}, "outside of the range from 0 to 20"),
        ({"receipt": receipt, "value": 1, "kind": "stars"}, "items, sale"),
    ]:
        answer = give(gateway, body)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")
        assert words in answer.json()["error"]
    assert give(gateway, sale(receipt, True)).status_code == 200
    duplicate = give(gateway, sale(receipt, True))
    assert (duplicate.status_code, duplicate.json()["code"]) == (409, "conflict")
    shown = gateway.observe("/metrics").text
    assert 'headgate_feedback_refused_total{endpoint="scale",reason="forged"} 1.0' in shown


def test_worse_feedback_rolls_a_challenger_back(tmp_path: Path) -> None:
    quiet = DOCUMENT.replace("  weights: {v2: 50%}\n", "")
    with started(tmp_path, quiet) as gateway, gateway.admin() as admin:
        unknown = PLAN.replace("name: sold", "name: other").replace("feedback.sale", "feedback.visit")
        for name, text in [("sold", PLAN), ("other", unknown)]:
            checked(admin.http.put(f"/v1/plans/{name}", content=text, headers=NEW))
        rollout = "/v1/endpoints/scale/rollout"
        refused = admin.http.post(
            rollout, json={"version": "v2", "plan": "other", "reason": "test"}, headers=ANY
        )
        assert refused.status_code == 422, refused.text
        assert 'no feedback \\"visit\\" is declared' in refused.text
        checked(
            admin.http.post(rollout, json={"version": "v2", "plan": "sold", "reason": "test"}, headers=ANY)
        )
        asked = 0

        def is_rolled_back() -> bool:
            nonlocal asked
            lines = []
            for _ in range(20):
                version, receipt = infer(gateway, f"user-{asked}")
                lines.append(sale(receipt, version == "v1"))
                asked += 1
            assert give(gateway, *lines).json()["refused"] == 0
            return bool(admin.get(rollout)["phase"] == "rolled_back")

        until(is_rolled_back, 120.0)
        found = admin.get(rollout)
    (gate,) = [gate for gate in found["gates"] if gate["gate"] == "feedback.sale"]
    assert gate["verdict"] == "fail"
    assert (gate["champion"]["mean"], gate["challenger"]["mean"], gate["difference"]) == (1.0, 0.0, -1.0)

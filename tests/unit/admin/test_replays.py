"""The calls about replays: what is handed to the data plane, the operation that follows one, the audit.

Not here: what a replay finds (``e2e/test_replay.py``).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from unit.admin_harness import Port, port, problem
from unit.control_harness import document, run

E = "/v1/endpoints/digits"
NEW = {"content-type": "application/yaml", "if-none-match": "*"}


async def operation(p: Port, number: str) -> dict[str, Any]:
    """An operation, once it has ended."""
    while True:
        found: dict[str, Any] = (await p.viewer.get(f"/v1/operations/{number}")).json()
        if found["status"] != "running":
            return found
        await asyncio.sleep(0.01)


def test_a_replay_is_an_operation_that_ends_with_its_report(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            await p.operator.put(E, content=document("{champion: v1}"), headers=NEW)
            asked = {
                "version": "v2",
                "since": "2027-03-01T00:00:00Z",
                "max_requests": 7,
                "compare": {"score": {"within": "1%"}, "label": "exact"},
                "timeout": "2s",
                "reason": "before the rollout",
            }
            answer = await p.operator.post(f"{E}/replays", json=asked)
            assert answer.status_code == 202, answer.text
            begun = answer.json()
            assert answer.headers["location"] == f"/v1/operations/{begun['id']}"
            assert (begun["kind"], begun["status"]) == ("replay", "running")
            (report,) = p.gate.native.replayed
            assert report["asked"] == {
                "version": "v2",
                "span": {"since_us": 1_803_859_200_000_000},
                "max_requests": 7,
                "compare": {"score": {"within": {"relative": 0.01}}, "label": {"exact": True}},
                "timeout": 2000,
            }
            assert (await p.viewer.get(f"{E}/replays")).json() == {"replays": [report]}
            assert (await p.viewer.get(f"{E}/replays/1")).json() == report
            report["state"] = "done"
            ended = await operation(p, begun["id"])
            assert (ended["status"], ended["result"]) == ("done", report)
            entries = (await p.operator.get("/v1/audit", params={"endpoint": "digits"})).json()["entries"]
            (audited,) = [one for one in entries if one["action"] == "replay"]
            assert (audited["outcome"], audited["reason"]) == ("applied", "before the rollout")
            assert audited["detail"]["replay"] == 1

    run(body)


def test_a_replay_can_be_ended(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            await p.operator.put(E, content=document("{champion: v1}"), headers=NEW)
            begun = (await p.operator.post(f"{E}/replays", json={"version": "v2"})).json()
            assert problem(await p.viewer.delete(f"{E}/replays/1")) == (403, "permission_denied")
            ended = await p.operator.delete(f"{E}/replays/1")
            assert ended.json()["state"] == "cancelled"
            assert (await operation(p, begun["id"]))["result"]["state"] == "cancelled"

    run(body)


def test_a_replay_that_fails_is_a_problem_of_its_operation(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            await p.operator.put(E, content=document("{champion: v1}"), headers=NEW)
            begun = (await p.operator.post(f"{E}/replays", json={"version": "v2"})).json()
            p.gate.native.replayed[0] |= {"state": "failed", "error": "a file: I/O error"}
            ended = await operation(p, begun["id"])
            assert (ended["status"], ended["problem"]["code"]) == ("failed", "storage_failed")
            assert "a file: I/O error" in ended["problem"]["detail"]

    run(body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "version"),
        ({"version": "v2", "since": "yesterday"}, "since"),
        ({"version": "v2", "until": "2027-03-01"}, "until"),
        ({"version": "v2", "max_requests": 0}, "max_requests"),
        ({"version": "v2", "timeout": "2"}, "timeout"),
        ({"version": "v2", "timeout": "0s"}, "timeout: it must be 1ms to 1d"),
        ({"version": "v2", "timeout": "25h"}, "timeout: it must be 1ms to 1d"),
        ({"version": "v2", "compare": {"y": "lable"}}, "must be exact, label"),
        ({"version": "v2", "compare": {"y": {}}}, "y has nothing"),
        ({"version": "v2", "compare": {"y": {"label": True, "top": 3}}}, "y has label and top"),
        (
            {"version": "v2", "compare": {"y": {"within": int("9" * 400)}}},
            "must be a number of at most 1.79769e+308",
        ),
        ({"version": "v2", "compare": {"y": {"threshold": int("9" * 400)}}}, "y.threshold"),
        ({"version": "v2", "compare": {"y": {"top": int("9" * 400)}}}, "y.top"),
        ({"version": "v2", "rows": 3}, "rows"),
    ],
)
def test_what_is_wrong_with_a_body_is_said(tmp_path: Path, body: dict[str, Any], words: str) -> None:
    async def ask() -> None:
        async with port(tmp_path) as p:
            answer = await p.operator.post(f"{E}/replays", json=body)
            assert problem(answer) == (400, "invalid_argument")
            assert words in answer.json()["detail"]
            assert p.gate.native.replayed == []

    run(ask)


def test_a_replay_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            assert problem(await p.viewer.get(f"{E}/replays")) == (404, "model_not_found")
            await p.operator.put(E, content=document("{champion: v1}"), headers=NEW)
            assert (await p.viewer.get(f"{E}/replays")).json() == {"replays": []}
            for path in ("1", "x", "1" * 30):
                assert problem(await p.viewer.get(f"{E}/replays/{path}")) == (404, "not_found")
            assert problem(await p.operator.delete(f"{E}/replays/1")) == (404, "not_found")
            assert problem(await p.viewer.post(f"{E}/replays", json={"version": "v2"})) == (
                403,
                "permission_denied",
            )

    run(body)


def test_the_end_of_a_replay_takes_an_idempotency_key(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            await p.operator.put(E, content=document("{champion: v1}"), headers=NEW)
            await p.operator.post(f"{E}/replays", json={"version": "v2"})
            key = {"idempotency-key": "end-it"}
            first = await p.operator.delete(f"{E}/replays/1", headers=key)
            p.gate.native.replayed[0]["state"] = "changed since"
            again = await p.operator.delete(f"{E}/replays/1", headers=key)
            assert (again.status_code, again.json()) == (200, first.json())
            assert again.headers["idempotency-replayed"] == "true"
            assert "idempotency-replayed" not in first.headers
            other = await p.operator.delete(f"{E}/replays/1?reason=other", headers=key)
            assert problem(other) == (409, "conflict")
            entries = (await p.operator.get("/v1/audit", params={"endpoint": "digits"})).json()["entries"]
            ends = [one["outcome"] for one in entries if one["action"] == "replay_cancel"]
            assert ends == ["refused", "replayed", "applied"]

    run(body)

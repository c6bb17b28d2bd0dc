"""Every call of the admin API over HTTP: statuses, headers, bodies."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from headgate.control.reads.shadow_views import ShadowsView
from support.shadow_reports import report
from unit.admin_harness import Port, port, problem
from unit.control_harness import document, run, until

SHARED = "{champion: v1, weights: {v2: 10%}, sticky: header.x-user-id}"
E = "/v1/endpoints/digits"
YAML = {"content-type": "application/yaml"}
NEW = {**YAML, "if-none-match": "*"}


def at(n: int) -> dict[str, str]:
    return {"if-match": f'"{n}"'}


def test_a_document_is_created_read_changed_and_removed(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            made = await p.operator.put(E, content=document(SHARED), headers=NEW, params={"reason": "first"})
            assert (made.status_code, made.headers["etag"]) == (201, '"1"')
            assert made.json()["plan"]["champion"] == {"from": None, "to": "v1"}
            found = await p.viewer.get(E)
            assert found.headers["etag"] == '"1"'
            assert found.json()["document"] == document(SHARED)
            assert found.json()["versions"]["v2"]["role"] == "challenger"
            listed = (await p.viewer.get("/v1/endpoints")).json()["endpoints"]
            assert [(one["name"], one["state"]) for one in listed] == [("digits", "ready")]
            changed = await p.operator.put(
                E, content=document("{champion: v2}"), headers={**YAML, "if-match": "1"}
            )
            assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
            stale = await p.operator.put(E, content=document(), headers={**YAML, **at(1)})
            assert problem(stale) == (412, "revision_conflict")
            assert stale.json()["facts"] == {"revision": 2}
            gone = await p.admin.delete(E, headers=at(2))
            assert gone.status_code == 200
            assert problem(await p.viewer.get(E)) == (404, "model_not_found")
            history = (await p.viewer.get(f"{E}/revisions")).json()["revisions"]
            assert [one["kind"] for one in history] == ["remove", "apply", "apply"]

    run(body)


def test_json_documents_and_every_fault_at_once(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            wrong = {
                "apiVersion": "headgate/v1",
                "kind": "Endpoint",
                "name": "digits",
                "versions": {},
                "trafic": {},
            }
            answer = await p.operator.put(E, json=wrong, headers={"if-none-match": "*"})
            assert problem(answer) == (422, "policy_invalid")
            paths = {fault["path"] for fault in answer.json()["faults"]}
            assert {"versions", "trafic"} <= paths
            other = document().replace("name: digits", "name: other")
            answer = await p.operator.put(E, content=other, headers=NEW)
            assert answer.json()["faults"] == [
                {
                    "path": "name",
                    "line": None,
                    "message": "the document describes other, the address says digits",
                }
            ]
            files = document().replace("{constant: {score: 0.5}}", '"file:models/1"')
            answer = await p.operator.put(E, content=files, headers=NEW)
            assert problem(answer) == (422, "policy_invalid")
            assert "--root" in answer.json()["faults"][0]["message"]
            outside = {"source": str(tmp_path / "digits.yaml")}
            answer = await p.operator.put(E, content=files, headers=NEW, params=outside)
            assert problem(answer) == (400, "invalid_argument")

    run(body)


def test_preconditions_are_required(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            assert problem(await p.operator.put(E, content=document(), headers=YAML)) == (
                428,
                "precondition_required",
            )
            await p.operator.put(E, content=document(SHARED), headers=NEW)
            again = await p.operator.put(E, content=document(SHARED), headers=NEW)
            assert problem(again) == (412, "revision_conflict")
            for path, body in (
                (f"{E}:restore", {"revision": 1}),
                (f"{E}:unblock", {"version": "v2"}),
                (f"{E}:unfreeze", {}),
            ):
                assert problem(await p.operator.post(path, json=body)) == (428, "precondition_required")
            patch = await p.operator.patch(f"{E}/traffic", json={"weights": {"v2": "5%"}})
            assert problem(patch) == (428, "precondition_required")
            assert problem(await p.admin.delete(E)) == (428, "precondition_required")
            for bad in ("W/x", '"0"', "41a"):
                answer = await p.operator.patch(
                    f"{E}/traffic", json={"weights": {"v2": "5%"}}, headers={"if-match": bad}
                )
                assert problem(answer) == (400, "invalid_argument")
            answer = await p.operator.patch(
                f"{E}/traffic", json={"weights": {"v2": "5%"}}, headers={"if-match": "*"}
            )
            assert answer.status_code == 200

    run(body)


def test_traffic(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            await p.operator.put(E, content=document(SHARED), headers=NEW)
            p.gate.native.requests.update({("digits", "v1"): 75, ("digits", "v2"): 25})
            found = (await p.viewer.get(f"{E}/traffic")).json()
            assert found["share"] == {
                "keys": {"v1": "90%", "v2": "10%"},
                "requests": {"v1": "75%", "v2": "25%"},
            }
            assert found["table"] == [["v2", 0, 999]]
            answer = await p.operator.patch(
                f"{E}/traffic",
                json={"weights": {"v2": "12.5%"}, "champion": None, "reason": "more"},
                headers=at(1),
            )
            assert answer.json()["plan"]["moves"] == {"v1→v2": 250}
            assert (await p.viewer.get(f"{E}/revisions/2")).json()["reason"] == "more"
            for weights in (
                {"v2": "5"},
                {"v9": "5%"},
                {"v1": "5%"},
                {"v2": "100.01%"},
                {"v2": "60%", "v3": "60%"},
            ):
                answer = await p.operator.patch(f"{E}/traffic", json={"weights": weights}, headers=at(2))
                assert problem(answer) == (422, "policy_invalid"), weights
            assert problem(await p.operator.patch(f"{E}/traffic", json={}, headers=at(2))) == (
                400,
                "invalid_argument",
            )
            answer = await p.operator.patch(f"{E}/traffic", json={"champion": "v2"}, headers=at(2))
            assert answer.json()["traffic"] == {
                "champion": "v2", "weights": {}, "shadows_off": [], "capture_off": False
            }  # fmt: skip

    run(body)


def test_emergency_calls_need_no_precondition_and_repeat(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            await p.operator.put(E, content=document(SHARED), headers=NEW)
            plan = await p.operator.post(f"{E}:rollback", json={}, params={"dry_run": "true"})
            assert plan.json()["block"] == ["v2"]
            first = await p.operator.post(f"{E}:rollback", json={"reason": "bad"}, headers=at(99))
            assert first.json()["status"] == "applied"
            second = await p.operator.post(f"{E}:rollback", json={})
            assert second.json()["message"] == "already 100 % v1 since 2027-03-01T03:12:04Z"
            assert second.headers["etag"] == first.headers["etag"]
            assert (await p.operator.post(f"{E}:freeze", json={})).json()["status"] == "applied"
            refused = await p.operator.post(f"{E}:unblock", json={"version": "v2"}, headers=at(3))
            assert problem(refused) == (409, "conflict")
            assert (await p.operator.post(f"{E}:abort", json={})).json()["status"] == "already"
            assert (await p.operator.post(f"{E}:unfreeze", json={}, headers=at(3))).status_code == 200
            assert (
                await p.operator.post(f"{E}:unblock", json={"version": "v2"}, headers=at(4))
            ).status_code == 200
            assert (await p.operator.post(f"{E}:block", json={"version": "v3"})).status_code == 200
            assert problem(await p.operator.post(f"{E}:block", json={})) == (400, "invalid_argument")
            assert problem(await p.operator.post("/v1/endpoints/nope:rollback", json={})) == (
                404,
                "model_not_found",
            )
            answer = await p.operator.post(f"{E}:restore", json={"revision": 1}, headers=at(6))
            assert (answer.json()["kind"], answer.json()["revision"]) == ("restore", 7)
            answer = await p.operator.post(f"{E}:restore", json={"revision": 99}, headers=at(7))
            assert problem(answer) == (404, "not_found")

    run(body)


def test_a_deleted_endpoint_is_created_again_by_a_restore(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            absent = {"if-none-match": "*"}
            await p.operator.put(E, content=document(SHARED), headers=NEW)
            plan = await p.admin.delete(E, params={"dry_run": "true"})
            [undo] = plan.json()["undo"]
            assert (await p.admin.delete(E, headers=at(1))).status_code == 200
            assert problem(await p.operator.post(undo["path"], json=undo["body"])) == (
                428,
                "precondition_required",
            )
            answer = await p.operator.request(undo["method"], undo["path"], json=undo["body"], headers=absent)
            assert (answer.status_code, answer.headers["etag"]) == (201, '"3"')
            assert (await p.viewer.get(f"{E}/traffic")).json()["weights"] == {"v2": "10%"}
            again = await p.operator.post(undo["path"], json=undo["body"], headers=absent)
            assert problem(again) == (412, "revision_conflict")

    run(body)


def test_shadows_and_the_capture_are_switched_beside_weights(tmp_path: Path) -> None:
    shadowed = document("{champion: v1, shadow: [{to: v3, share: 10%}]}") + "capture: {share: 1%}\n"

    async def body() -> None:
        async with port(tmp_path) as p:
            await p.operator.put(E, content=shadowed, headers=NEW)
            answer = await p.operator.patch(
                f"{E}/traffic",
                json={"weights": {"v2": "5%"}, "shadows": {"v3": "off"}, "capture": "off"},
                headers=at(1),
            )
            assert answer.json()["traffic"] == {
                "champion": "v1", "weights": {"v2": "5%"}, "shadows_off": ["v3"], "capture_off": True
            }  # fmt: skip
            live = (await p.viewer.get(f"{E}/traffic")).json()
            assert live["shadows"] == [{"to": "v3", "share": "10%", "state": "off"}]
            assert live["capture"] == {"share": "1%", "state": "off"}
            for wrong in (
                {"shadows": {"v3": "no"}},
                {"capture": True},
                {"shadows": {}, "captures": "on"},
                {"capture": None},
            ):
                refused = await p.operator.patch(f"{E}/traffic", json=wrong, headers=at(2))
                assert problem(refused) == (400, "invalid_argument")
            refused = await p.operator.patch(f"{E}/traffic", json={"shadows": {"v2": "off"}}, headers=at(2))
            assert problem(refused) == (422, "policy_invalid")

    run(body)


def test_the_report_on_shadows(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            answer = await p.viewer.get(f"{E}/shadows")
            assert problem(answer) == (404, "model_not_found")
            await p.operator.put(
                E, content=document("{champion: v1, shadow: [{to: v2, share: 10%}]}"), headers=NEW
            )
            assert (await p.viewer.get(f"{E}/shadows")).json()["shadows"] == []
            p.gate.native.shadow_reports = [report(to="v2")]
            answer = await p.viewer.get(f"{E}/shadows")
            assert (answer.status_code, answer.json()["shadows"]) == (200, [report(to="v2")])
            assert answer.json()["champion"] == "v1"
            TypeAdapter(ShadowsView).validate_python(answer.json(), extra="forbid")
            assert (await p.viewer.get(f"{E}/shadows", params={"watch": "1"})).status_code == 400

    run(body)


def test_an_emergency_call_with_a_full_disk(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            await p.operator.put(E, content=document(SHARED), headers=NEW)
            heal = p.gate.full_disk()
            refused = await p.operator.patch(f"{E}/traffic", json={"weights": {"v2": "1%"}}, headers=at(1))
            assert problem(refused) == (503, "storage_failed")
            assert refused.headers["retry-after"] == "1"
            answer = await p.operator.post(f"{E}:rollback", json={}, headers={"idempotency-key": "now"})
            assert (answer.status_code, answer.json()["durable"]) == (200, False)
            heal()
            await p.gate.flush_healed()
            assert (await p.viewer.get(E)).json()["alarms"] == []
            assert p.gate.store.endpoints()[0].applied == 2

    run(body)


def test_idempotency_keys(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            headers = {**NEW, "idempotency-key": "make-digits"}
            first = await p.operator.put(E, content=document(SHARED), headers=headers)
            again = await p.operator.put(E, content=document(SHARED), headers=headers)
            assert (first.status_code, again.status_code) == (201, 201)
            assert "idempotency-replayed" not in first.headers
            assert again.headers["idempotency-replayed"] == "true"
            assert first.json() == again.json()
            other = await p.operator.put(E, content=document(), headers=headers)
            assert problem(other) == (409, "conflict")
            somebody = await p.admin.put(E, content=document(SHARED), headers=headers)
            assert problem(somebody) == (412, "revision_conflict")
            bad = await p.operator.put(E, content=document(), headers={**NEW, "idempotency-key": "a b"})
            assert problem(bad) == (400, "invalid_argument")

    run(body)


async def ended(p: Port, where: str) -> dict[str, Any]:
    """The operation at ``where`` once it has ended."""
    for _ in range(2000):
        found = (await p.viewer.get(where)).json()
        if found["status"] != "running":
            return found
        await asyncio.sleep(0.001)
    raise AssertionError("the operation never ended")


def test_what_takes_long_becomes_an_operation(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path, answer_seconds=0.01) as p:
            p.gate.native.held.add("v1")
            answer = await p.operator.put(E, content=document(), headers={**NEW, "prefer": "respond-async"})
            assert answer.status_code == 202
            where = answer.headers["location"]
            running = await p.viewer.get(where)
            assert (running.json()["status"], running.headers["retry-after"]) == ("running", "1")
            p.gate.native.release()
            await until(lambda: bool(p.gate.native.served))
            done = await ended(p, where)
            assert (done["status"], done["result"]["revision"]) == ("done", 1)
            p.gate.native.held.add("v4")
            wrong = document("{champion: v1}", "v1 v2 v3 v4")
            answer = await p.operator.put(
                E, content=wrong, headers={**YAML, **at(1), "prefer": "respond-async"}
            )
            p.gate.native.failing["v4"] = "no such operator"
            p.gate.native.release()
            done = await ended(p, answer.headers["location"])
            assert (done["status"], done["problem"]["code"]) == ("failed", "model_load_failed")
            listed = (await p.viewer.get("/v1/operations")).json()["operations"]
            assert done in listed
            one = (await p.viewer.get("/v1/operations", params={"limit": "1"})).json()["operations"]
            assert one == listed[:1]
            assert problem(await p.viewer.get("/v1/operations/nope")) == (404, "not_found")

    run(body)


def test_explain_drift_models_audit_whoami(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            await p.operator.put(E, content=document(SHARED), headers=NEW)
            answer = (await p.viewer.post(f"{E}:explain", json={"key": "user-1"})).json()
            assert answer["version"] == p.gate.native.owner("digits", "user-1")
            both = await p.viewer.post(f"{E}:explain", json={"key": "a", "headers": {}})
            assert problem(both) == (400, "invalid_argument")
            await p.operator.patch(f"{E}/traffic", json={"weights": {"v2": "0%"}}, headers=at(1))
            then = (await p.viewer.post(f"{E}:explain", json={"key": "user-1", "revision": 1})).json()
            assert then == answer
            now = (await p.viewer.post(f"{E}:explain", json={"key": "user-1", "revision": 2})).json()
            assert (now["version"], now["by"], now["revision"]) == ("v1", "champion", 2)
            never = await p.viewer.post(f"{E}:explain", json={"key": "user-1", "revision": 3})
            assert problem(never) == (404, "not_found")
            report = (await p.viewer.get(f"{E}/drift", params={"window": "1h"})).json()
            assert report["window"]["seconds"] == 3600
            assert problem(await p.viewer.get(f"{E}/drift", params={"window": "1"})) == (
                400,
                "invalid_argument",
            )
            models = (await p.viewer.get("/v1/models")).json()
            assert [(m["version"], m["in_use"], m["size"]) for m in models["models"]] == [
                ("v1", True, None),
                ("v2", True, None),
                ("v3", True, None),
            ]
            entries = (await p.operator.get("/v1/audit", params={"endpoint": "digits"})).json()["entries"]
            assert [(one["who"], one["action"], one["outcome"]) for one in entries] == [
                ("the operator", "traffic", "applied"),
                ("the operator", "apply", "applied"),
            ]
            who = (await p.viewer.get("/v1/whoami")).json()
            assert (who["name"], who["role"]) == ("the viewer", "viewer")

    run(body)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", E), ("DELETE", E), ("PATCH", f"{E}/traffic"), ("POST", f"{E}:rollback"), ("POST", f"{E}:abort"),
        ("POST", f"{E}:block"), ("POST", f"{E}:freeze"), ("POST", f"{E}:unblock"), ("POST", f"{E}:unfreeze"),
        ("POST", f"{E}:restore"), ("GET", "/v1/audit"), ("GET", "/v1/tokens"), ("POST", "/v1/tokens"),
        ("DELETE", "/v1/tokens/x"),
    ],
)  # fmt: skip
def test_a_viewer_changes_nothing(tmp_path: Path, method: str, path: str) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            assert problem(await p.viewer.request(method, path, json={})) == (403, "permission_denied")
            assert problem(await p.nobody.request(method, path, json={})) == (401, "unauthenticated")

    run(body)


def test_an_emergency_call_that_may_become_an_operation_is_answered_although_the_disk_hangs(
    tmp_path: Path,
) -> None:
    async def body() -> None:
        async with port(tmp_path, durable_seconds=0.05, retry_seconds=0.01, answer_seconds=0.01) as p:
            assert (await p.operator.put(E, content=document(SHARED), headers=NEW)).status_code == 201
            heal = p.gate.hung_disk()
            try:
                async with asyncio.timeout(20):
                    answer = await p.operator.post(
                        f"{E}:rollback", json={}, headers={"prefer": "respond-async"}
                    )
                    assert answer.status_code == 202
                    found = await ended(p, answer.headers["location"])
                assert (found["status"], found["result"]["durable"]) == ("done", False)
                assert p.gate.live() == ("v1", [], "")
            finally:
                heal()

    run(body)

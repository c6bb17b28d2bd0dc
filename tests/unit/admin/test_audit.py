"""The audit through the admin port: every call that would change something leaves one row, with its token."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from headgate.errors import StorageFailed
from unit.admin_harness import Port, port, problem
from unit.control_harness import document, gateway, run, until

E = "/v1/endpoints/digits"
SHARED = "{champion: v1, weights: {v2: 10%}, sticky: header.x-user-id}"
YAML = {"content-type": "application/yaml"}
NEW = {**YAML, "if-none-match": "*"}


async def rows(p: Port, skip: int = 0) -> list[dict[str, Any]]:
    """Oldest first, without those that were there before."""
    entries = (await p.operator.get("/v1/audit", params={"limit": 1000})).json()["entries"]
    found: list[dict[str, Any]] = entries[::-1][skip:]
    return found


def told(row: dict[str, Any]) -> tuple[str, str]:
    return row["action"], row["outcome"]


async def served(p: Port) -> int:
    """How many rows there are when an endpoint is served."""
    assert (await p.operator.put(E, content=document(SHARED), headers=NEW)).status_code == 201
    return len(await rows(p))


def at(n: int) -> dict[str, str]:
    return {"if-match": f'"{n}"'}


DENIED: list[tuple[str, str, str, dict[str, Any], tuple[int, str]]] = [
    ("viewer", "POST", f"{E}:rollback", {"json": {}}, (403, "rollback")),
    ("viewer", "GET", "/v1/audit", {}, (403, "GET /v1/audit")),
    ("operator", "DELETE", E, {"headers": at(1)}, (403, "remove")),
    ("operator", "PATCH", f"{E}/traffic", {"json": {"weights": {"v2": "1%"}}, "headers": at(9)}, (412, "traffic")),
    ("operator", "PATCH", f"{E}/traffic", {"json": {"weights": {"v2": "1%"}}}, (428, "traffic")),
    ("operator", "PATCH", f"{E}/traffic", {"json": {"weights": {"v2": "x"}}, "headers": at(1)}, (422, "traffic")),
    ("operator", "PATCH", f"{E}/traffic", {"json": {"no": 1}, "headers": at(1)}, (400, "traffic")),
    ("operator", "POST", f"{E}:block", {"json": {"version": "v9"}}, (404, "block")),
    ("operator", "POST", "/v1/endpoints/none:freeze", {"json": {}}, (404, "freeze")),
    ("operator", "PUT", E, {"content": "kind: [", "headers": {**YAML, **at(1)}}, (422, "apply")),
    ("operator", "PUT", E, {"content": document(SHARED), "headers": NEW}, (412, "apply")),
    ("operator", "POST", f"{E}:block", {"json": {"version": "v1"}}, (409, "block")),
    ("admin", "POST", "/v1/tokens", {"json": {"name": "serve", "role": "viewer"}}, (400, "token_create")),
    ("admin", "DELETE", "/v1/tokens/none", {}, (404, "token_revoke")),
]  # fmt: skip


@pytest.mark.parametrize(("who", "method", "path", "given", "expected"), DENIED)
def test_a_call_that_is_refused_leaves_one_row(
    tmp_path: Path, who: str, method: str, path: str, given: dict[str, Any], expected: tuple[int, str]
) -> None:
    async def body() -> None:
        async with port(tmp_path, durable_seconds=60) as p:
            before = await served(p)
            answer = await getattr(p, who).request(method, path, **given)
            assert answer.status_code == expected[0], answer.text
            (row,) = await rows(p, before)
            assert told(row) == (expected[1], "refused")
            assert row["detail"]["status"] == expected[0]
            assert row["detail"]["code"] == answer.json()["code"]
            token = (await getattr(p, who).get("/v1/whoami")).json()
            assert (row["detail"]["token_id"], row["detail"]["token_name"]) == (token["token"], token["name"])
            assert (row["who"], row["role"]) == (f"the {who}", who)

    run(body)


def test_what_changes_nothing_by_itself_leaves_no_row(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path, durable_seconds=60) as p:
            before = await served(p)
            await p.viewer.get(E)
            await p.viewer.get("/v1/endpoints/none")
            await p.viewer.post(f"{E}:explain", json={"no": 1})
            await p.viewer.post(f"{E}:explain", json={"key": "u"})
            await p.operator.post(f"{E}:rollback", json={}, params={"dry_run": "true"})
            await p.operator.post(f"{E}:block", json={"version": "v9"}, params={"dry_run": "true"})
            assert await rows(p, before) == []

    run(body)


def test_each_change_and_each_repetition_leaves_one_row(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path, durable_seconds=60) as p:
            before = await served(p)
            for _ in range(2):
                await p.operator.post(f"{E}:abort", json={"reason": "why"})
            key = {"idempotency-key": "k"}
            for _ in range(2):
                await p.operator.post(f"{E}:freeze", json={}, headers=key)
            await p.operator.post(f"{E}:unfreeze", json={}, headers=at(3))
            await p.operator.put(E, content=document(SHARED), headers={**YAML, **at(4)})
            found = await rows(p, before)
            assert [told(row) for row in found] == [
                ("abort", "applied"),
                ("abort", "already"),
                ("freeze", "applied"),
                ("freeze", "replayed"),
                ("unfreeze", "applied"),
                ("apply", "unchanged"),
            ]
            assert [row["revision"] for row in found] == [2, 2, 3, 3, 4, 4]
            assert all(row["detail"]["token_name"] == "the operator" for row in found)
            assert (await p.viewer.get(f"{E}/revisions")).json()["revisions"][2]["kind"] == "abort"

    run(body)


def test_a_load_that_fails_leaves_the_row_of_its_revision(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path, durable_seconds=60) as p:
            before = await served(p)
            p.gate.native.failing["v4"] = "broken"
            text = document("{champion: v1}", "v1 v2 v3 v4")
            answer = await p.operator.put(E, content=text, headers={**YAML, **at(1)})
            assert problem(answer) == (422, "model_load_failed")
            (row,) = await rows(p, before)
            assert (told(row), row["revision"]) == (("apply", "failed"), 2)

    run(body)


def test_what_a_start_ends_leaves_a_row(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            heal = gate.full_disk()
            await gate.control.rollback("digits")
            state = gate.control._endpoints["digits"]
            # As when the process dies between the two writes: nothing may write the second one meanwhile.
            await gate.control.background.close()
            async with state.storing:
                heal()
                gate.store.propose(state.unsaved[0].proposal)
                state.unsaved.clear()
        async with gateway(tmp_path) as gate:
            row = gate.store.audit(endpoint="digits", limit=1, before=None)[0]
            assert (row.action, row.outcome, row.revision) == ("rollback", "applied", 2)
            assert row.detail["ended_by"] == "headgate"
            assert len(gate.store.audit(endpoint="digits", limit=9, before=None)) == 2

    run(body)


def test_refused_tokens_leave_one_row_for_each_address_and_minute(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path, durable_seconds=60) as p:
            before = len(await rows(p))
            wrong = {"authorization": "Bearer headgate_abcdefgh_0"}
            for _ in range(3):
                assert problem(await p.nobody.get(E, headers=wrong)) == (401, "unauthenticated")
            (row,) = await rows(p, before)
            assert told(row) == ("authenticate", "refused")
            assert (row["detail"]["address"], row["detail"]["count"]) == ("127.0.0.1", 3)
            assert problem(await p.nobody.get(E)) == (401, "unauthenticated")
            assert problem(await p.admin.get(E, headers={"origin": "https://evil.example"})) == (
                403,
                "permission_denied",
            )
            (row,) = await rows(p, before)
            assert row["detail"]["codes"] == {"unauthenticated": 4, "permission_denied": 1}
            p.gate.clock.forward(60)
            await p.nobody.get(E, headers=wrong)
            first, second = await rows(p, before)
            assert (first["detail"]["count"], second["detail"]["count"]) == (5, 1)

    run(body)


def test_the_table_of_refused_callers_is_bounded_and_slows_nobody_else(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            table = gate.control.refused_callers
            error = StorageFailed("no")
            pauses = [table.count("192.0.2.1", error) for _ in range(9)]
            assert pauses[:5] == [0.0] * 5
            assert 0 < pauses[5] <= pauses[6] <= gate.control.settings.refused_pause_seconds
            for n in range(1500):
                table.count(f"2001:db8::{n:x}", error)
            await table.flush()
            records = gate.store.audit(endpoint=None, limit=2000, before=None)
            assert len(records) == 1001
            others = next(row for row in records if row.detail["address"] == "others")
            assert others.detail["count"] == 1500 - 999
            gate.clock.forward(60)
            table.count("192.0.2.1", error)
            assert len(table._table) == 1

    run(body)


def test_a_valid_token_passes_while_the_store_does_not_answer(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path, durable_seconds=0.05, retry_seconds=0.01) as p:
            await served(p)
            go = threading.Event()
            find = p.gate.store.tokens.get

            def hangs(token_id: str) -> Any:
                assert go.wait(60)
                return find(token_id)

            heal = p.gate.hung_disk()
            p.gate.store.tokens.get = hangs  # type: ignore[method-assign]
            try:
                for status in ("applied", "already", "already"):
                    answer = await p.operator.post(f"{E}:rollback", json={})
                    assert (answer.status_code, answer.json()["status"]) == (200, status)
                    assert (answer.json()["durable"], answer.json()["revision"]) == (False, None)
                    assert "etag" not in answer.headers
                unknown = {"authorization": "Bearer headgate_abcdefgh_0"}
                assert problem(await p.nobody.get(E, headers=unknown)) == (503, "storage_failed")
            finally:
                go.set()
                heal()
            assert p.gate.live() == ("v1", [], "")

    run(body)


def test_the_use_of_a_token_is_noted_behind_the_call(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path, durable_seconds=60) as p:
            heal = p.gate.hung_disk()
            try:
                me = (await p.viewer.get("/v1/whoami")).json()["token"]
                listed = (await p.admin.get("/v1/tokens")).json()["tokens"]
                assert next(one for one in listed if one["id"] == me)["last_used"] == "2027-03-01T03:12:04Z"
            finally:
                heal()
            await until(lambda: getattr(p.gate.store.tokens.get(me), "last_used", None) is not None)

    run(body)


def test_why_a_token_was_made_and_revoked_is_kept_if_it_is_a_line_of_text(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path, durable_seconds=60) as p:
            made = await p.admin.post(
                "/v1/tokens", json={"name": "ci", "role": "viewer", "reason": "a new pipeline"}
            )
            path = f"/v1/tokens/{made.json()['id']}"
            assert (await p.admin.delete(path, params={"reason": "it leaked"})).status_code == 200
            kept = [
                (row.action, row.reason) for row in p.gate.store.audit(endpoint=None, limit=2, before=None)
            ]
            assert kept == [("token_revoke", "it leaked"), ("token_create", "a new pipeline")]
            for reason in ("two\nlines", "\x1b[31mred"):
                wrong = {"name": "x", "role": "viewer", "reason": reason}
                assert problem(await p.admin.post("/v1/tokens", json=wrong)) == (400, "invalid_argument")
                assert problem(await p.admin.delete(path, params={"reason": reason})) == (
                    400,
                    "invalid_argument",
                )

    run(body)

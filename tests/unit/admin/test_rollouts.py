"""The calls about rollouts, plans and defaults: answers, roles, preconditions, keys, dry runs, the audit.

Not here: what a rollout decides (``unit/rollout``), what looks do (``unit/control/test_rollouts``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from headgate.control.domain import results
from headgate.control.reads.rollout_views import RolloutSummary, RolloutView
from unit.admin_harness import Port, client, port, problem
from unit.control_harness import document, run

E = "/v1/endpoints/digits"
R = f"{E}/rollout"
YAML = {"content-type": "application/yaml"}
NEW = {**YAML, "if-none-match": "*"}
ANY = {"if-match": "*"}
ANY_YAML = {**YAML, **ANY}
PLAN = """\
apiVersion: headgate/v1
kind: RolloutPlan
name: careful
steps:
  - {weight: 5%, for: 1m, min_requests: 10}
  - approve: {role: approver}
  - promote
rollback_if: {error_rate: 1.5x}
"""
DEFAULTS = "apiVersion: headgate/v1\nkind: Defaults\nlimits: {timeout: 2s}\n"


async def endpoint(p: Port) -> None:
    assert (await p.operator.put(E, content=document(), headers=NEW)).status_code == 201
    assert (await p.operator.put("/v1/plans/careful", content=PLAN, headers=NEW)).status_code == 201


async def begun(p: Port) -> dict[str, Any]:
    await endpoint(p)
    started = await p.operator.post(R, json={"version": "v2", "plan": "careful"}, headers=ANY)
    assert started.status_code == 200, started.text
    return dict(started.json())


async def act(p: Port, verb: str, *, who: httpx.AsyncClient | None = None, **body: Any) -> httpx.Response:
    return await (who or p.operator).post(f"{R}:{verb}", json=body, headers=ANY)


async def view(p: Port) -> dict[str, Any]:
    answer = await p.viewer.get(R)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["etag"] == f'"{found["revision"]}"'
    TypeAdapter(RolloutView).validate_python(found, extra="forbid")
    return found


def approver(p: Port) -> httpx.AsyncClient:
    _, secret = p.tokens.create(name="bob", role="approver")
    return client(p.app, {"authorization": f"Bearer {secret}"})


def test_a_rollout_goes_from_start_to_promotion_by_its_calls(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p, approver(p) as bob:
            started = await begun(p)
            assert (started["kind"], started["status"]) == ("rollout_start", "applied")
            first = await view(p)
            assert (first["phase"], first["step"], first["started_by"]) == (
                "progressing",
                None,
                "the operator",
            )
            assert (await act(p, "promote")).json()["traffic"]["weights"] == {"v2": "5%"}
            held = (await act(p, "pause", reason="lunch")).json()
            assert (held["kind"], held["status"]) == ("rollout_pause", "applied")
            assert (await act(p, "pause")).json()["status"] == "already"
            paused = await view(p)
            assert (paused["pause"]["reason"], paused["pause"]["who"]) == ("manual", "the operator")
            assert "lunch" in paused["pause"]["said"]
            assert (await act(p, "resume")).json()["kind"] == "rollout_resume"
            assert problem(await act(p, "promote", full=True)) == (409, "conflict")
            assert problem(await act(p, "approve")) == (403, "permission_denied")
            other = "sha256:" + "0" * 64
            assert problem(await act(p, "approve", who=bob, digest=other)) == (409, "conflict")
            digest = (await view(p))["digest"]
            assert (await act(p, "approve", who=bob, digest=digest)).json()["kind"] == "rollout_approve"
            ended = (await act(p, "promote", full=True, reason="seen enough")).json()
            assert (ended["kind"], ended["traffic"]["champion"]) == ("rollout_promote", "v2")
            last = await view(p)
            assert (last["phase"], last["end"]["who"]) == ("promoted", "the operator")
            assert last["finished"][-1]["by"] == "the operator"
            assert "error_rate" in last["finished"][-1]["undecided"]
            history = (await p.viewer.get(f"{R}s")).json()["rollouts"]
            (one,) = history
            TypeAdapter(RolloutSummary).validate_python(one, extra="forbid")
            assert (one["id"], one["phase"]) == ("r1", "promoted")
            entries = (await p.operator.get("/v1/audit", params={"endpoint": "digits"})).json()["entries"]
            assert [one["action"] for one in entries if one["outcome"] == "applied"] == [
                "rollout_promote", "rollout_approve", "rollout_resume", "rollout_pause", "rollout_step",
                "rollout_start", "apply",
            ]  # fmt: skip
            refused = [
                (one["action"], one["detail"]["code"]) for one in entries if one["outcome"] == "refused"
            ]
            assert refused == [
                ("rollout_approve", "conflict"),
                ("rollout_approve", "permission_denied"),
                ("rollout_promote", "conflict"),
            ]

    run(body)


def test_an_abort_needs_no_precondition_and_a_retry_names_the_last_challenger(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            await begun(p)
            await act(p, "promote")
            aborted = await p.operator.post(f"{R}:abort", json={"reason": "no"})
            assert (aborted.json()["kind"], aborted.json()["traffic"]["weights"]) == ("rollout_abort", {})
            assert (await view(p))["phase"] == "aborted"
            assert (await p.operator.post(f"{R}:abort", json={})).json()["status"] == "already"
            again = await act(p, "retry", plan="careful")
            assert again.json()["kind"] == "rollout_start", again.text
            shown = await view(p)
            assert (shown["id"], shown["challenger"], shown["attempts"]) == ("r2", "v2", 2)

    run(body)


def test_a_rollback_keeps_its_digest_away_until_a_retry(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            await begun(p)
            await act(p, "promote")
            assert (await p.operator.post(f"{E}:rollback", json={})).status_code == 200
            assert (await view(p))["phase"] == "rolled_back"
            refused = await p.operator.post(R, json={"version": "v2"}, headers=ANY)
            assert problem(refused) == (409, "conflict")
            assert "headgate rollout retry digits v2" in refused.json()["detail"]
            assert (await act(p, "retry", version="v2", plan="careful")).status_code == 200
            busy = await p.operator.post(R, json={"version": "v3"}, headers=ANY)
            assert problem(busy) == (409, "conflict")
            assert "headgate rollout abort digits" in busy.json()["detail"]

    run(body)


WITHOUT = [
    ("GET", R, None, (404, "not_found"), "headgate rollout start digits VERSION"),
    ("POST", f"{R}:pause", {}, (409, "conflict"), "headgate rollout start digits VERSION"),
    ("POST", f"{R}:retry", {}, (409, "conflict"), "headgate rollout start digits VERSION"),
    ("POST", R, {"version": "v9"}, (422, "policy_invalid"), "v9"),
    ("POST", R, {"version": "v1"}, (422, "policy_invalid"), "the champion"),
    ("POST", R, {"version": "v2", "plan": "bold"}, (404, "not_found"), "there are default, careful"),
    ("POST", R, {}, (400, "invalid_argument"), "version"),
    ("POST", R, {"version": "v2", "steps": []}, (400, "invalid_argument"), "steps"),
    ("POST", f"{R}:promote", {"full": "yes"}, (400, "invalid_argument"), "full"),
    ("POST", f"{R}:approve", {"digest": "v2"}, (400, "invalid_argument"), "digest"),
    ("GET", "/v1/plans/bold", None, (404, "not_found"), "there are default, careful"),
    ("GET", "/v1/plans/default", None, (404, "not_found"), "--plan default --dry-run"),
    ("GET", "/v1/defaults", None, (404, "not_found"), "headgate apply"),
    ("DELETE", "/v1/plans/bold", None, (404, "not_found"), "there are default, careful"),
]  # fmt: skip


def test_what_is_refused_names_what_would_be_right(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            await endpoint(p)
            for method, path, sent, wanted, words in WITHOUT:
                told = {} if sent is None else {"json": sent}
                answer = await p.operator.request(method, path, headers=ANY, **told)
                assert problem(answer) == wanted, (method, path)
                assert words in answer.json()["detail"], (method, path, answer.text)

    run(body)


def test_roles_and_preconditions(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            await endpoint(p)
            start = {"version": "v2", "plan": "careful"}
            assert problem(await p.viewer.post(R, json=start, headers=ANY)) == (403, "permission_denied")
            assert problem(await p.operator.post(R, json=start)) == (428, "precondition_required")
            assert problem(await p.operator.post(R, json=start, headers={"if-match": "9"})) == (
                412, "revision_conflict",
            )  # fmt: skip
            assert (await p.operator.post(R, json=start, headers={"if-match": '"1"'})).status_code == 200
            for verb in ("promote", "pause", "resume", "approve", "retry"):
                answer = await p.operator.post(f"{R}:{verb}", json={})
                assert problem(answer) == (428, "precondition_required"), verb
                answer = await p.operator.post(f"{R}:{verb}", json={}, headers={"if-match": "1"})
                assert problem(answer) == (412, "revision_conflict"), verb
                assert problem(await act(p, verb, who=p.viewer)) == (403, "permission_denied")
            assert problem(await p.viewer.put("/v1/plans/careful", content=PLAN, headers=NEW))[0] == 403

    run(body)


def test_a_key_gives_the_same_answer_and_moves_once(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            await begun(p)
            keyed = {**ANY, "idempotency-key": "k1"}
            first = await p.operator.post(f"{R}:promote", json={}, headers=keyed)
            again = await p.operator.post(f"{R}:promote", json={}, headers=keyed)
            assert first.json() == again.json()
            assert again.headers["idempotency-replayed"] == "true"
            assert (await view(p))["step"]["index"] == 1
            other = await p.operator.post(f"{R}:promote", json={"full": True}, headers=keyed)
            assert problem(other) == (409, "conflict")

    run(body)


def test_a_dry_run_says_what_would_happen_and_moves_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            await endpoint(p)
            answer = await p.operator.post(f"{R}?dry_run=true", json={"version": "v2", "plan": "careful"})
            assert answer.status_code == 200, answer.text
            TypeAdapter(results.Plan).validate_python(answer.json(), extra="forbid")
            assert "weight 5%" in answer.json()["text"]
            assert problem(await p.viewer.get(R)) == (404, "not_found")
            await p.operator.post(R, json={"version": "v2", "plan": "careful"}, headers=ANY)
            planned = await p.operator.post(f"{R}:promote?dry_run=true", json={})
            assert planned.json()["moves"] == {"v1→v2": 500}
            assert (await view(p))["weight"] == 0
            for verb in ("pause", "resume", "abort"):
                assert (await p.operator.post(f"{R}:{verb}?dry_run=true", json={})).status_code == 200
            assert (await view(p))["phase"] == "progressing"

    run(body)


def test_plans_are_written_read_and_removed(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            path = "/v1/plans/careful"
            assert problem(await p.operator.put(path, content=PLAN, headers=YAML))[0] == 428
            planned = await p.operator.put(f"{path}?dry_run=true", content=PLAN, headers=YAML)
            assert (planned.status_code, planned.json()["status"]) == (200, "planned")
            assert "+name: careful" in planned.json()["diff"]
            assert problem(await p.viewer.get(path)) == (404, "not_found")
            made = await p.operator.put(path, content=PLAN, headers=NEW)
            assert (made.status_code, made.headers["etag"]) == (201, '"1"')
            TypeAdapter(results.PlanResult).validate_python(made.json(), extra="forbid")
            assert problem(await p.operator.put(path, content=PLAN, headers=NEW))[0] == 412
            same = await p.operator.put(path, content=PLAN, headers={**YAML, "if-match": "1"})
            assert (same.status_code, same.json()["status"], same.json()["n"]) == (200, "unchanged", 1)
            changed = PLAN.replace("5%", "6%")
            stale = await p.operator.put(path, content=changed, headers={**YAML, "if-match": "2"})
            assert problem(stale) == (412, "revision_conflict")
            written = await p.operator.put(path, content=changed, headers={**YAML, "if-match": "1"})
            assert (written.json()["n"], written.headers["etag"]) == (2, '"2"')
            read = await p.viewer.get(path)
            assert (read.headers["etag"], read.json()["document"]["steps"][0]["weight"]) == ('"2"', "6%")
            TypeAdapter(results.PlanDocumentView).validate_python(read.json(), extra="forbid")
            assert [one["name"] for one in (await p.viewer.get("/v1/plans")).json()["plans"]] == ["careful"]
            wrong = await p.operator.put("/v1/plans/bold", content=PLAN, headers=NEW)
            assert problem(wrong) == (422, "policy_invalid")
            assert "the address says plan bold" in wrong.json()["faults"][0]["message"]
            text = document() + "rollout: careful\n"
            assumed = text.replace("careful", "bold")
            missing = await p.operator.put(f"{E}?dry_run=true", content=assumed, headers=YAML)
            assert problem(missing) == (422, "policy_invalid")
            planned = await p.operator.put(
                f"{E}?dry_run=true&with_plans=quick,bold", content=assumed, headers=YAML
            )
            assert planned.status_code == 200, planned.text
            written = await p.operator.put(f"{E}?with_plans=bold", content=assumed, headers=NEW)
            assert problem(written) == (400, "invalid_argument")
            defaults = "apiVersion: headgate/v1\nkind: Defaults\nrollout: bold\n"
            missing = await p.operator.put("/v1/defaults?dry_run=true", content=defaults, headers=YAML)
            assert problem(missing) == (422, "policy_invalid")
            planned = await p.operator.put(
                "/v1/defaults?dry_run=true&with_plans=bold", content=defaults, headers=YAML
            )
            assert (planned.status_code, planned.json()["status"]) == (200, "planned")
            written = await p.operator.put("/v1/defaults?with_plans=bold", content=defaults, headers=NEW)
            assert problem(written) == (400, "invalid_argument")
            await p.operator.put(E, content=text, headers=NEW)
            assert (await p.operator.put(f"{path}?dry_run=true", content=PLAN, headers=YAML)).json()[
                "used_by"
            ] == ["digits"]
            named = await p.operator.delete(path, headers=ANY)
            assert problem(named) == (409, "conflict")
            assert "digits" in named.json()["detail"]
            await p.operator.put(E, content=document(), headers={**YAML, **ANY})
            assert (await p.operator.delete(f"{path}?dry_run=true")).json()[
                "message"
            ] == "plan careful is removed"
            gone = await p.operator.delete(path, headers={"if-match": "2"})
            assert (gone.status_code, gone.json()["status"]) == (200, "applied")
            assert problem(await p.viewer.get(path)) == (404, "not_found")

    run(body)


def test_a_plan_is_written_once_under_a_key_and_its_answer_outlives_a_restart(tmp_path: Path) -> None:
    async def put(p: Port, text: str, **headers: str) -> httpx.Response:
        return await p.operator.put("/v1/plans/careful", content=text, headers={**YAML, **ANY, **headers})

    async def body() -> None:
        changed = PLAN.replace("5%", "6%")
        async with port(tmp_path) as p:
            await p.operator.put("/v1/plans/careful", content=PLAN, headers=NEW)
            first = await put(p, changed, **{"idempotency-key": "k1"})
            again = await put(p, changed, **{"idempotency-key": "k1"})
            assert (first.json(), again.headers["idempotency-replayed"]) == (again.json(), "true")
            assert problem(await put(p, PLAN, **{"idempotency-key": "k1"})) == (409, "conflict")
            entries = (await p.operator.get("/v1/audit")).json()["entries"]
            told = [(one["action"], one["outcome"]) for one in entries]
            assert told[:4] == [
                ("plan_put", "refused"), ("plan_put", "replayed"), ("plan_put", "applied"), ("plan_put", "applied"),
            ]  # fmt: skip
            (secret,) = [p.operator.headers["authorization"]]
        async with port(tmp_path) as p, client(p.app, {"authorization": secret}) as same:
            replayed = await same.put(
                "/v1/plans/careful", content=changed, headers={**YAML, **ANY, "idempotency-key": "k1"}
            )
            assert replayed.headers["idempotency-replayed"] == "true"
            assert replayed.json() == first.json()

    run(body)


def test_defaults_are_written_read_and_removed(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            made = await p.operator.put("/v1/defaults", content=DEFAULTS, headers=NEW)
            assert (made.status_code, made.json()["name"]) == (201, "")
            assert "fill" in made.json()["message"]
            assert (await p.viewer.get("/v1/defaults")).json()["document"]["limits"] == {"timeout": "2s"}
            await p.operator.put(E, content=document(), headers=NEW)
            assert p.gate.native.served["digits"]["timeout_ms"] == 2_000
            unknown = DEFAULTS + "rollout: careful\n"
            refused = await p.operator.put("/v1/defaults", content=unknown, headers={**YAML, **ANY})
            assert problem(refused) == (422, "policy_invalid")
            gone = await p.operator.delete("/v1/defaults", headers={**ANY, "idempotency-key": "k"})
            assert gone.json()["message"] == "the defaults are removed"
            again = await p.operator.delete("/v1/defaults", headers={**ANY, "idempotency-key": "k"})
            assert again.json() == gone.json()
            assert problem(await p.viewer.get("/v1/defaults")) == (404, "not_found")

    run(body)


@pytest.mark.parametrize("kind", ["Defaults", "RolloutPlan"])
def test_a_document_of_an_endpoint_is_no_plan(tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            path = "/v1/defaults" if kind == "Defaults" else "/v1/plans/digits"
            answer = await p.operator.put(path, content=document(), headers=NEW)
            assert problem(answer) == (422, "policy_invalid")
            assert answer.json()["faults"][0]["path"] == "kind"

    run(body)


def test_an_endpoint_its_history_and_its_events_tell_its_rollout_in_a_line(tmp_path: Path) -> None:
    async def lines(p: Port) -> tuple[str | None, str | None]:
        (listed,) = (await p.viewer.get("/v1/endpoints")).json()["endpoints"]
        return (await p.viewer.get(E)).json()["rollout"], listed["rollout"]

    async def body() -> None:
        async with port(tmp_path) as p:
            await endpoint(p)
            assert await lines(p) == (None, None)
            await p.operator.post(R, json={"version": "v2", "plan": "careful"}, headers=ANY)
            assert await lines(p) == ("rollout r1 of v2: before its first step",) * 2
            await act(p, "promote")
            assert await lines(p) == ("rollout r1 of v2: step 1 of 3 (weight 5%)",) * 2
            await p.operator.patch(f"{E}/traffic", json={"weights": {"v2": "1%"}}, headers=ANY)
            told, _ = await lines(p)
            assert told is not None
            assert told.startswith("rollout r1 of v2: paused in step 1 of 3 (weight 5%). ")
            await act(p, "resume")
            await act(p, "promote")
            await p.operator.post(f"{R}:abort", json={"reason": "enough"})
            ended = "rollout r1 of v2: aborted. Aborted by the operator: enough."
            assert await lines(p) == (ended, None)
            p.gate.clock.forward(60)
            await p.operator.put(
                E, content=document("{champion: v1, sticky: header.x-a}"), headers={**YAML, **ANY}
            )
            history = (await p.viewer.get(f"{E}/revisions")).json()["revisions"]
            moved = [(one["kind"], one["rollout"] is not None) for one in history]
            assert moved == [
                ("apply", False), ("rollout_abort", True), ("rollout_pause", True), ("rollout_resume", True), ("traffic", True),
                ("rollout_step", True), ("rollout_start", True), ("apply", False),
            ]  # fmt: skip
            told = [
                one.data.get("rollout")
                for one in await p.gate.control.stored_events(0, limit=100, endpoint="digits")
            ]
            assert [one and one["phase"] for one in told] == [
                None, "progressing", "progressing", "paused", "progressing", "paused", "aborted", None,
            ]  # fmt: skip
            await act(p, "retry", plan="careful")
            assert (await lines(p))[0] == "rollout r2 of v2, attempt 2 of this digest: before its first step"
            assert [one["attempts"] for one in (await p.viewer.get(f"{R}s")).json()["rollouts"]] == [2, 1]

    run(body)


def test_a_promotion_by_hand_says_what_was_undecided(tmp_path: Path) -> None:
    plan = PLAN.replace("  - approve: {role: approver}\n", "  - {weight: 50%}\n")

    async def body() -> None:
        async with port(tmp_path) as p:
            await p.operator.put(E, content=document(), headers=NEW)
            await p.operator.put("/v1/plans/careful", content=plan, headers=NEW)
            await p.operator.post(R, json={"version": "v2", "plan": "careful"}, headers=ANY)
            assert (await act(p, "promote")).json()[
                "message"
            ] == "Step 1 of 3: weight 5%. Promoted by the operator."
            assert (await act(p, "promote")).json()["message"] == (
                "Step 2 of 3: weight 50%. Promoted by the operator; undecided then: error_rate."
            )
            (left,) = (await view(p))["finished"]
            assert (left["by"], left["undecided"]) == ("the operator", ["error_rate"])
            ended = (await act(p, "promote")).json()["message"]
            assert "Undecided then: error_rate. Promoted by the operator." in ended
            assert "safe" not in ended

    run(body)


def test_a_start_without_anything_to_replay_is_a_422_with_the_step_and_the_way_out(tmp_path: Path) -> None:
    async def body() -> None:
        async with port(tmp_path) as p:
            await endpoint(p)
            replays = PLAN.replace("steps:\n", "steps:\n  - {replay: 100}\n")
            assert (
                await p.operator.put("/v1/plans/careful", content=replays, headers=ANY_YAML)
            ).status_code == 200
            refused = await p.operator.post(R, json={"version": "v2", "plan": "careful"}, headers=ANY)
            assert problem(refused) == (422, "policy_invalid")
            (fault,) = refused.json()["faults"]
            assert fault["path"] == "steps[0]"
            assert (
                "write capture: in the endpoint's document, or take a plan without replay" in fault["message"]
            )

    run(body)

"""Writes end to end on a fake data plane: what is served, what is stored, what is answered."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headgate.control import ABSENT, Call, IdempotencyKey
from headgate.control.reads.explanation import HypotheticalRequest
from headgate.errors import (
    Conflict,
    InvalidArgument,
    ModelLoadFailed,
    ModelNotFound,
    PolicyInvalid,
    RevisionConflict,
    StorageFailed,
    VersionNotFound,
)
from unit.control_harness import at, document, gateway, run, until
from unit.fake_native import FakeNative

SHARED = "{champion: v1, weights: {v2: 10%}, sticky: header.x-user-id}"


def test_creation_serves_stores_and_tells(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            result = await gate.apply(document(SHARED), precondition=ABSENT, reason="first")
            assert (result["status"], result["revision"], result["durable"]) == ("applied", 1, True)
            assert result["plan"]["champion"] == {"from": None, "to": "v1"}
            assert result["plan"]["load"] == ["v1", "v2", "v3"]
            champion, given, salt = gate.live()
            assert (champion, given) == ("v1", [["v2", 0, 999]])
            assert salt.startswith("digits/")
            assert salt.endswith("/1")
            record = gate.store.revision("digits", 1)
            assert record is not None
            assert (record.status, record.who, record.reason) == ("applied", "ann", "first")
            assert gate.store.document(record.document) == document(SHARED).encode()
            assert [event.type for event in gate.store.events_after(0, limit=9)] == ["started", "applied"]
            assert gate.store.audit(endpoint="digits", limit=9, before=None)[0].outcome == "applied"
            assert gate.native.applied[-1]["sticky"] == "x-user-id"

    run(body)


def test_a_promotion_survives_the_next_routine_apply(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document("{champion: v1}"))
            await gate.control.patch_traffic("digits", weights={}, champion="v2")
            routine = document("{champion: v1}").replace(
                "name: digits", "name: digits\nlimits: {timeout: 1s}"
            )
            result = await gate.apply(routine)
            assert gate.live()[0] == "v2"
            assert gate.native.applied[-1]["timeout_ms"] == 1000
            kept = "live champion is v2, your document says v1: kept (--take-traffic to move)"
            assert kept in result["plan"]["notes"]
            view = await gate.control.get("digits")
            assert view["notes"] == ["live champion is v2, your document says v1"]
            result = await gate.apply(routine, take_traffic=True)
            assert gate.live()[0] == "v1"
            assert (await gate.apply(routine))["status"] == "unchanged"

    run(body)


def test_preconditions(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            with pytest.raises(RevisionConflict, match="does not exist"):
                await gate.apply(document(), precondition=at(1))
            await gate.apply(document(), precondition=ABSENT)
            with pytest.raises(RevisionConflict, match="exists already at revision 1"):
                await gate.apply(document(), precondition=ABSENT)
            with pytest.raises(RevisionConflict, match="is at revision 1, If-Match says 7"):
                await gate.control.patch_traffic(
                    "digits", weights={"v2": "1%"}, call=Call(precondition=at(7))
                )
            await gate.control.patch_traffic("digits", weights={"v2": "1%"}, call=Call(precondition=at(1)))
            with pytest.raises(ModelNotFound):
                await gate.control.rollback("other")

    run(body)


def test_rollback_blocks_what_it_rolled_back_and_says_already(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            before = len(gate.native.applied)
            result = await gate.control.rollback("digits", call=Call("bob", reason="bad"))
            assert result["status"] == "applied"
            assert gate.live() == ("v1", [], "")
            assert [v["name"] for v in gate.native.served["digits"]["versions"]] == ["v1", "v3"]
            assert result["plan"]["block"] == ["v2"]
            assert result["plan"]["moves"] == {"v2→v1": 1000}
            gate.clock.forward(60)
            again = await gate.control.rollback("digits")
            assert again["status"] == "already"
            assert again["message"] == "already 100 % v1 since 2027-03-01T03:12:04Z"
            assert len(gate.native.applied) == before + 1
            with pytest.raises(PolicyInvalid, match="v2 .* is blocked since .* \\(bad\\): unblock it first"):
                await gate.control.patch_traffic("digits", weights={"v2": "5%"})
            view = await gate.control.get("digits")
            assert view["versions"]["v2"]["state"] == "blocked"
            unblocked = await gate.control.unblock("digits", "v2")
            assert unblocked["plan"]["load"] == ["v2"]
            await gate.control.patch_traffic("digits", weights={"v2": "5%"})
            assert gate.live()[2].endswith("/2")

    run(body)


def test_rollback_returns_to_a_version_the_document_no_longer_has(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document("{champion: v1}", "v1"))
            await gate.apply(document("{champion: v2}", "v2").replace("0.5", "1.5"))
            assert [v["name"] for v in gate.native.served["digits"]["versions"]] == ["v1", "v2"]
            await gate.control.rollback("digits")
            assert gate.live()[0] == "v1"
            view = await gate.control.get("digits")
            assert view["versions"]["v1"]["in_document"] is False

    run(body)


def test_restore_brings_back_document_table_and_salt(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            table = gate.live()
            await gate.apply(document("{champion: v3}"))
            result = await gate.control.restore("digits", 1)
            assert gate.live() == table
            assert result["revision"] == 3
            assert (await gate.control.get("digits"))["document"] == document(SHARED)
            gate.native.failing["v4"] = "broken file"
            with pytest.raises(ModelLoadFailed):
                await gate.apply(document("{champion: v1}", "v1 v2 v3 v4"))
            with pytest.raises(InvalidArgument, match="never served"):
                await gate.control.restore("digits", 4)

    run(body)


def test_a_load_that_fails_leaves_the_running_revision(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document("{champion: v1}", "v1"))
            gate.native.failing["v2"] = "unsupported operator Frob"
            with pytest.raises(ModelLoadFailed, match="digits: unsupported operator Frob"):
                await gate.apply(document("{champion: v2}", "v1 v2"))
            assert gate.live()[0] == "v1"
            assert (await gate.control.list())[0]["revision"] == 1
            assert [r["status"] for r in await gate.control.revisions("digits")] == ["failed", "applied"]
            del gate.native.failing["v2"]
            assert (await gate.apply(document("{champion: v2}", "v1 v2"), precondition=at(1)))[
                "revision"
            ] == 3

    run(body)


def test_an_emergency_call_overtakes_a_load(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            gate.native.held.add("v4")
            slow = asyncio.create_task(gate.apply(document("{champion: v4}", "v1 v2 v3 v4")))
            await until(lambda: len(gate.native.applied) == 2)
            view = await gate.control.get("digits")
            assert view["revision"] == 1
            result = await gate.control.rollback("digits")
            assert gate.native.applied[-1]["urgent"] is True
            assert (result["status"], result["revision"]) == ("applied", 3)
            with pytest.raises(Conflict, match="revision 2 was overtaken by revision 3"):
                await slow
            assert [r["status"] for r in await gate.control.revisions("digits")] == [
                "applied",
                "superseded",
                "applied",
            ]
            assert gate.live()[0] == "v1"

    run(body)


def test_a_write_that_is_passed_between_its_swap_and_its_event_is_told_so(tmp_path: Path) -> None:
    """The emergency call was made up before it could see revision 2, and put revision 1's document back in effect."""

    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            events = gate.native.events
            gate.native.events = lambda: b"[]"  # type: ignore[method-assign]
            passed = asyncio.create_task(gate.control.patch_traffic("digits", weights={"v2": "20%"}))
            await until(lambda: len(gate.native.applied) == 2)
            urgent = asyncio.create_task(gate.control.rollback("digits"))
            await until(lambda: len(gate.native.applied) == 3)
            gate.native.events = events  # type: ignore[method-assign]
            gate.control.pump()
            assert (await urgent)["plan"]["base_revision"] == 1
            with pytest.raises(Conflict, match="revision 2 was overtaken by revision 3"):
                await passed
            assert [r["status"] for r in await gate.control.revisions("digits")] == [
                "applied",
                "superseded",
                "applied",
            ]
            assert gate.store.endpoints()[0].applied == 3

    run(body)


def test_a_key_runs_one_at_a_time_even_after_a_failure(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            call = Call("ann", key=IdempotencyKey("kid", "POST restore", "k", "a"))
            gate.native.failing["v4"] = "broken"
            wrong = await gate.control.parse("digits", document("{champion: v1}", "v1 v2 v3 v4").encode())
            tries = [gate.control.apply(wrong, call=call) for _ in range(3)]
            results = await asyncio.gather(*tries, return_exceptions=True)
            assert [type(result) for result in results] == [ModelLoadFailed] * 3
            del gate.native.failing["v4"]
            tries = [gate.control.apply(wrong, call=call) for _ in range(3)]
            assert sorted(result.get("replayed", False) for result in await asyncio.gather(*tries)) == [
                False,
                True,
                True,
            ]

    run(body)


def test_a_dry_run_of_a_removal(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            result = await gate.control.delete("digits", call=Call(dry_run=True))
            assert result["plan"]["changes"] is True
            assert result["plan"]["unload"] == ["v1", "v2", "v3"]
            assert "digits" in gate.native.served

    run(body)


def test_rollback_to_a_cold_version_loads_it_first(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document("{champion: v1}"))
            await gate.apply(document("{champion: v2}"))
        async with gateway(tmp_path) as gate:
            pass
        native = FakeNative()
        native.failing["v2"] = "not now"
        async with gateway(tmp_path, native) as gate:
            assert "champion v2 did not load" in (await gate.control.get("digits"))["alarms"][0]
            native.held.add("v1")
            task = asyncio.create_task(gate.control.rollback("digits"))
            await until(lambda: gate.native.applied[-1]["urgent"])
            assert gate.native.served == {}
            native.release()
            assert (await task)["status"] == "applied"
            assert gate.live()[0] == "v1"

    run(body)


def test_a_full_disk_stops_writes_but_not_emergencies(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            heal = gate.full_disk()
            with pytest.raises(StorageFailed):
                await gate.control.patch_traffic("digits", weights={"v2": "20%"})
            assert gate.live()[1] == [["v2", 0, 999]]
            result = await gate.control.rollback("digits")
            assert result["durable"] is False
            assert gate.live() == ("v1", [], "")
            alarms = (await gate.control.list())[0]["alarms"]
            assert alarms == ["revision 2 is served but could not be written to disk"]
            with pytest.raises(StorageFailed):
                await gate.control.patch_traffic("digits", weights={"v3": "1%"})
            heal()
            await gate.once_healed(lambda: gate.control.patch_traffic("digits", weights={"v3": "1%"}))
            assert [r["kind"] for r in await gate.control.revisions("digits")] == [
                "traffic",
                "rollback",
                "apply",
            ]
            assert (await gate.control.list())[0]["alarms"] == []

    run(body)


def test_a_commit_that_fails_after_the_swap_swaps_back(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            commit = gate.store.commit

            def fail(*_: object) -> None:
                raise StorageFailed("disk")

            gate.store.commit = fail  # type: ignore[assignment,method-assign]
            with pytest.raises(StorageFailed):
                await gate.control.patch_traffic("digits", weights={"v2": "20%"})
            gate.store.commit = commit  # type: ignore[method-assign]
            assert gate.live()[1] == [["v2", 0, 999]]
            assert (await gate.control.list())[0]["revision"] == 1

    run(body)


def test_freeze_allows_emergencies_only(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            await gate.control.freeze("digits", call=Call("ann", reason="audit"))
            for refused in (
                gate.apply(document("{champion: v3}")),
                gate.control.patch_traffic("digits", weights={"v2": "1%"}),
                gate.control.restore("digits", 1),
                gate.control.delete("digits"),
            ):
                with pytest.raises(Conflict, match="frozen since .* by ann \\(audit\\): unfreeze it first"):
                    await refused
            assert (await gate.control.freeze("digits"))["status"] == "already"
            assert (await gate.control.rollback("digits"))["status"] == "applied"
            await gate.control.unfreeze("digits")
            await gate.apply(document("{champion: v3}"))

    run(body)


def test_block_of_champion_and_of_unknown(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document("{champion: v1}"))
            with pytest.raises(Conflict, match="no other good version"):
                await gate.control.block("digits", "v1")
            with pytest.raises(VersionNotFound, match="it has v1, v2, v3"):
                await gate.control.block("digits", "v9")
            await gate.control.patch_traffic("digits", weights={}, champion="v2")
            result = await gate.control.block("digits", "v2")
            assert gate.live()[0] == "v1"
            assert result["plan"]["block"] == ["v2"]
            assert (await gate.control.block("digits", "v2"))["status"] == "already"

    run(body)


def test_delete_is_refused_under_traffic_and_history_stays(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            gate.native.requests["digits", "v1"] = 5
            with pytest.raises(Conflict, match="answered a request 0 s ago"):
                await gate.control.delete("digits")
            gate.clock.forward(61)
            await gate.control.delete("digits")
            assert gate.native.served == {}
            assert await gate.control.list() == []
            assert len(await gate.control.revisions("digits")) == 2
            result = await gate.apply(document(SHARED), precondition=ABSENT)
            assert result["revision"] == 3
            assert gate.live()[2].endswith("/2")

    run(body)


def test_idempotency_keys(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))

            def call(key: str, request: str) -> Call:
                return Call(
                    "ann", precondition=at(1), key=IdempotencyKey("kid", "PATCH traffic", key, request)
                )

            first, second = await asyncio.gather(
                gate.control.patch_traffic("digits", weights={"v2": "20%"}, call=call("k", "a")),
                gate.control.patch_traffic("digits", weights={"v2": "20%"}, call=call("k", "a")),
            )
            assert first["revision"] == second["revision"] == 2
            assert second.get("replayed") is True
            with pytest.raises(Conflict, match="was used for another request"):
                await gate.control.patch_traffic("digits", weights={"v2": "30%"}, call=call("k", "b"))
            gate.clock.forward(24 * 3600 + 1)
            with pytest.raises(RevisionConflict):
                await gate.control.patch_traffic("digits", weights={"v2": "30%"}, call=call("k", "b"))

    run(body)


def test_dry_run_changes_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            result = await gate.apply(document("{champion: v2}", "v1 v2 v3 v4"), dry_run=True)
            plan = result["plan"]
            assert result["status"] == "planned"
            assert plan["moves"] == {"v1→v2": 9000}
            assert (plan["share_of_keys"], plan["load"], plan["base_revision"], plan["revision"]) == (
                "90%",
                ["v4"],
                1,
                2,
            )
            assert "+traffic: {champion: v2}" in plan["diff"]
            assert len(gate.native.applied) == 1
            assert (await gate.control.list())[0]["revision"] == 1

    run(body)


def test_files_are_applied_once_per_content(tmp_path: Path) -> None:
    async def body() -> None:
        path = tmp_path / "digits.yaml"
        path.write_text(document(SHARED) + "---\n" + document(name="other"))
        async with gateway(tmp_path) as gate:
            assert [r["endpoint"] for r in await gate.control.apply_file(path)] == ["digits", "other"]
            assert await gate.control.apply_file(path) == []
            await gate.control.patch_traffic("digits", weights={}, champion="v2")
        async with gateway(tmp_path) as gate:
            assert await gate.control.apply_file(path) == []
            assert gate.live()[0] == "v2"
            path.write_text(document("{champion: v3}"))
            assert len(await gate.control.apply_file(path)) == 1
            assert gate.live()[0] == "v3"

    run(body)


def test_explain(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            for user in range(50):
                key = f"user-{user}"
                answer = await gate.control.explain("digits", HypotheticalRequest(headers={"X-User-Id": key}))
                assert answer["version"] == gate.native.owner("digits", key)
                assert answer["by"] == ("slot" if answer["version"] == "v2" else "champion")
            answer = await gate.control.explain("digits", HypotheticalRequest())
            assert (answer["version"], answer["by"]) == (None, "draw")
            assert answer["shares"] == {"v1": "90%", "v2": "10%"}

    run(body)

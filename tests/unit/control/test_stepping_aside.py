"""An emergency call that waits for a load steps aside for a newer one, in every step, and is answered when it is in force."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headgate.control import Call, IdempotencyKey
from headgate.errors import Conflict, Draining, StorageFailed
from unit.control.test_models import model, text
from unit.control_harness import Gate, document, gateway, holding, run, until
from unit.fake_native import FakeNative

VERSIONS = "v1 v2 v3 v4"
SOON: dict[str, Any] = {"durable_seconds": 0.05, "retry_seconds": 0.01}
ANN = Call("ann", token="abcdefgh")


@asynccontextmanager
async def cold(folder: Path, **settings: Any) -> AsyncIterator[Gate]:
    """v2 is champion and loaded; v1, where a rollback goes, has left memory, and its load waits."""
    async with gateway(folder, **settings) as gate:
        await gate.apply(document("{champion: v1}", VERSIONS))
        await gate.control.patch_traffic("digits", weights={"v4": "5%"}, champion="v2")
        gate.native.evicted.add("v1")
        gate.native.held.add("v1")
        yield gate


def begin(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.create_task(work)


async def rolling_back(gate: Gate, **call: Any) -> asyncio.Task[Any]:
    """A rollback that was handed over and waits for its load."""
    task = begin(gate.control.rollback("digits", call=Call("ann", token="abcdefgh", **call)))
    await until(lambda: gate.native.applied[-1]["urgent"] and bool(gate.native._pending))
    return task


async def statuses(gate: Gate) -> list[tuple[int, str, str]]:
    return [(r["revision"], r["kind"], r["status"]) for r in await gate.control.revisions("digits")]


def audit(gate: Gate) -> list[tuple[str, str, int | None]]:
    rows = gate.store.audit(endpoint="digits", limit=9, before=None)
    return [(row.action, row.outcome, row.revision) for row in rows if row.detail.get("token_id")]


async def settle(gate: Gate) -> None:
    await until(lambda: not gate.control._endpoints["digits"].unsaved)
    assert gate.store.check() == []


def test_a_newer_call_is_in_force_while_the_load_goes_on(tmp_path: Path) -> None:
    async def body() -> None:
        async with cold(tmp_path) as gate:
            rollback = await rolling_back(gate)
            async with asyncio.timeout(20):
                frozen = await gate.control.freeze("digits", call=ANN)
            assert (frozen["status"], frozen["revision"], frozen["durable"]) == ("applied", 4, True)
            assert not rollback.done()
            assert gate.live()[0] == "v2"
            await until(lambda: gate.native.applied[-1]["revision"] == 5)
            gate.native.release()
            done = await rollback
            assert (done["status"], done["revision"], done["plan"]["base_revision"]) == ("applied", 5, 4)
            assert gate.live()[0] == "v1"
            view = await gate.control.get("digits")
            assert view["frozen"] is not None
            await settle(gate)
            assert (await statuses(gate))[:3] == [
                (5, "rollback", "applied"),
                (4, "freeze", "applied"),
                (3, "rollback", "failed"),
            ]
            failed = (await gate.control.revisions("digits"))[2]
            assert (
                failed["message"]
                == "it stepped aside for freeze, which came while it was loaded, and is tried again"
            )
            assert audit(gate) == [("rollback", "applied", 5), ("freeze", "applied", 4)], (
                "one row for each call"
            )

    run(body)


@pytest.mark.parametrize("newer", ["block", "abort"])
def test_each_kind_goes_first(tmp_path: Path, newer: str) -> None:
    async def body() -> None:
        async with cold(tmp_path) as gate:
            rollback = await rolling_back(gate)
            subject = ("v3",) if newer == "block" else ()
            async with asyncio.timeout(20):
                assert (await getattr(gate.control, newer)("digits", *subject))["revision"] == 4
            gate.native.release()
            assert (await rollback)["revision"] == 5
            current = gate.control._endpoints["digits"].current
            assert current is not None
            blocked = [block.version for block in current.traffic.blocked]
            assert ("v3" in blocked) == (newer == "block")
            assert gate.live()[:2] == ("v1", [])

    run(body)


def test_a_call_whose_target_was_blocked_meanwhile_is_decided_without_it(tmp_path: Path) -> None:
    async def body() -> None:
        async with cold(tmp_path) as gate:
            rollback = await rolling_back(gate)
            await gate.control.block("digits", "v1")
            async with asyncio.timeout(20):
                done = await rollback
            assert gate.live()[:2] == ("v2", []), "it stays, because what a rollback would go to is blocked"
            assert done["status"] == "applied"

    run(body)


def test_what_is_refused_after_it_stepped_aside_is_told(tmp_path: Path) -> None:
    async def body() -> None:
        async with cold(tmp_path) as gate:
            await gate.control.block("digits", "v3")
            # v2 is champion: its heir v1 must be loaded.
            blocking = begin(gate.control.block("digits", "v2", call=ANN))
            await until(lambda: bool(gate.native._pending))
            await gate.control.block("digits", "v1", call=ANN)
            with pytest.raises(Conflict, match="there is no other good version"):
                async with asyncio.timeout(20):
                    await blocking
            await settle(gate)
            assert sorted(audit(gate), key=str) == [("block", "applied", 5), ("block", "refused", None)]

    run(body)


def test_what_changes_nothing_or_is_refused_or_dry_disturbs_no_load(tmp_path: Path) -> None:
    async def body() -> None:
        async with cold(tmp_path) as gate:
            await gate.control.block("digits", "v3")
            rollback = await rolling_back(gate)
            async with asyncio.timeout(20):
                again = await gate.control.block("digits", "v3", call=ANN)
                assert (again["status"], again["durable"], again["revision"]) == ("already", True, 3)
                planned = await gate.control.freeze("digits", call=Call("ann", dry_run=True))
                assert planned["status"] == "planned"
                for name in ("freeze", "rollback", "abort"):
                    await getattr(gate.control, name)("digits", call=Call("ann", dry_run=True))
            assert (gate.native.withdrawn, rollback.done()) == ([], False)
            gate.native.release()
            assert (await rollback)["revision"] == 4

    run(body)


def test_the_same_call_said_again_waits_for_the_outcome(tmp_path: Path) -> None:
    async def body() -> None:
        async with cold(tmp_path) as gate:
            rollbacks = [await rolling_back(gate), begin(gate.control.rollback("digits"))]
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert gate.native.withdrawn == []
            # A third one passes both.
            async with asyncio.timeout(20):
                assert (await gate.control.freeze("digits"))["status"] == "applied"
            assert not any(one.done() for one in rollbacks)
            gate.native.release()
            assert sorted([(await one)["status"] for one in rollbacks]) == ["already", "applied"]

    run(body)


def test_the_swap_that_has_just_happened_stands(tmp_path: Path) -> None:
    async def body() -> None:
        async with cold(tmp_path) as gate:
            rollback = await rolling_back(gate)
            events = gate.native.events
            gate.native.events = lambda: b"[]"  # type: ignore[method-assign]
            gate.native.release()
            freeze = begin(gate.control.freeze("digits"))
            # The event is on its way when the newer call comes: too late.
            await until(lambda: bool(gate.native.withdrawn))
            gate.native.events = events  # type: ignore[method-assign]
            gate.control.pump()
            assert (await rollback)["revision"] == 3
            done = await freeze
            assert (done["revision"], done["plan"]["base_revision"], gate.live()[0]) == (4, 3, "v1")

    run(body)


def test_a_call_whose_row_is_written_is_durable_although_a_newer_one_is_not(tmp_path: Path) -> None:
    async def body() -> None:
        async with cold(tmp_path) as gate:
            rollback = await rolling_back(gate)
            append = gate.store.append_ended

            def no_room(given: Any, commit: Any) -> Any:
                if given.record.kind == "freeze":
                    raise StorageFailed("no room")
                return append(given, commit)

            gate.store.append_ended = no_room  # type: ignore[method-assign]
            events = gate.native.events
            gate.native.events = lambda: b"[]"  # type: ignore[method-assign]
            gate.native.release()
            freeze = begin(gate.control.freeze("digits"))
            await until(lambda: bool(gate.native.withdrawn))
            # Both are in force before either is written.
            gate.native.events = events  # type: ignore[method-assign]
            gate.control.pump()
            done, frozen = await rollback, await freeze
            assert (done["revision"], done["durable"]) == (3, True)
            assert (frozen["revision"], frozen["durable"]) == (None, False)
            gate.store.append_ended = append  # type: ignore[method-assign]
            await gate.flush_healed()

    run(body)


def test_a_load_that_has_just_failed_ends_its_call(tmp_path: Path) -> None:
    async def body() -> None:
        async with cold(tmp_path) as gate:
            rollback = await rolling_back(gate)
            gate.native.failing["v1"] = "broken"
            gate.native.release()
            done, frozen = await asyncio.gather(
                rollback, gate.control.freeze("digits"), return_exceptions=True
            )
            assert isinstance(frozen, dict)
            assert frozen["status"] == "applied"
            assert "broken" in str(done)
            await settle(gate)

    run(body)


def test_two_newer_calls_are_in_force_although_one_of_them_loads_too(tmp_path: Path) -> None:
    async def body() -> None:
        async with cold(tmp_path) as gate:
            rollback = await rolling_back(gate)
            # Its heir is v1: it needs the same load.
            blocking = begin(gate.control.block("digits", "v2"))
            freezing = begin(gate.control.freeze("digits"))
            aborting = begin(gate.control.abort("digits"))
            async with asyncio.timeout(20):
                await asyncio.gather(freezing, aborting)
            assert not rollback.done()
            assert not blocking.done()
            gate.native.release()
            async with asyncio.timeout(20):
                ended = [await rollback, await blocking]
            assert sorted(one["status"] for one in ended) == ["already", "applied"]
            assert gate.live()[:2] == ("v1", [])
            await settle(gate)

    run(body)


def test_calls_that_need_no_load_keep_their_order_and_withdraw_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document("{champion: v1, weights: {v2: 10%}}", VERSIONS))
            calls = [
                begin(gate.control.block("digits", "v3")),
                begin(gate.control.abort("digits")),
                begin(gate.control.block("digits", "v4")),
                begin(gate.control.freeze("digits")),
            ]
            assert [(await call)["revision"] for call in calls] == [2, 3, 4, 5]
            assert gate.native.withdrawn == []

    run(body)


def test_a_call_whose_files_are_read_steps_aside_without_a_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        for name, factor in (("v1", 1.0), ("v2", 2.0), ("v3", 3.0)):
            model(tmp_path / "models" / name, factor)
        path = tmp_path / "scale.yaml"
        path.write_text(text(traffic="{champion: v1}", versions="v1 v2 v3"))
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(path)
            await gate.control.patch_traffic("scale", weights={}, champion="v2")
        native = FakeNative()
        native.failing["v2"] = "not now"
        async with gateway(tmp_path, native) as gate:
            native.failing.clear()
            store = gate.control.registry.store
            store._verified.clear()
            reached, go = holding(monkeypatch, store, "verify")
            rollback = begin(gate.control.rollback("scale"))
            await until(reached.is_set)
            try:
                async with asyncio.timeout(20):
                    assert (await gate.control.freeze("scale"))["status"] == "applied"
                    assert (await gate.control.abort("scale"))["status"] == "already"
                    assert (await gate.control.block("scale", "v3"))["revision"] == 4
                # Its second attempt waits for what the first began to read, and takes no second thread.
                assert not rollback.done()
            finally:
                go.set()
            assert (await rollback)["revision"] == 5
            assert native.served["scale"]["champion"] == "v1"
            kinds = [(r["kind"], r["status"]) for r in await gate.control.revisions("scale")]
            assert kinds[:3] == [("rollback", "applied"), ("block", "applied"), ("freeze", "applied")]

    run(body)


def test_an_ordinary_write_that_loads_keeps_its_rules(tmp_path: Path) -> None:
    async def body() -> None:
        async with cold(tmp_path) as gate:
            rollback = await rolling_back(gate)
            ordinary = begin(gate.control.patch_traffic("digits", weights={"v3": "5%"}))
            await gate.control.block("digits", "v4")
            gate.native.release()
            assert (await rollback)["status"] == "applied"
            # It waited for its turn behind the emergency calls, or was passed by the one that was tried again.
            outcome = (await asyncio.gather(ordinary, return_exceptions=True))[0]
            assert isinstance(outcome, Conflict) or outcome["status"] == "applied"
            await settle(gate)
            assert gate.native.served["digits"]["revision"] == (await gate.control.get("digits"))["revision"]

    run(body)


# === the store, a stop, a crash ===


def test_on_a_disk_that_hangs_both_are_told_the_truth_and_written_in_order(tmp_path: Path) -> None:
    async def body() -> None:
        async with cold(tmp_path, **SOON) as gate:
            heal = gate.hung_disk()
            rollback = await rolling_back(gate)
            frozen = await gate.control.freeze("digits")
            assert (frozen["status"], frozen["durable"], frozen["revision"]) == ("applied", False, None)
            gate.native.release()
            done = await rollback
            assert (done["status"], done["durable"], done["revision"]) == ("applied", False, None)
            assert len((await gate.control.get("digits"))["alarms"]) == 1
            heal()
            await settle(gate)
            assert (await statuses(gate))[:3] == [
                (5, "rollback", "applied"),
                (4, "freeze", "applied"),
                (3, "rollback", "failed"),
            ]

    run(body)


def test_a_key_has_one_answer(tmp_path: Path) -> None:
    async def body() -> None:
        async with cold(tmp_path) as gate:
            key = IdempotencyKey("kid", "POST", "k", "a")
            rollback = await rolling_back(gate, key=key)
            running = await gate.control.operations.adopt(rollback, "digits", "rollback")
            await gate.control.freeze("digits")
            gate.native.release()
            assert (await rollback)["revision"] == 5
            again = await gate.control.rollback("digits", call=Call("ann", token="abcdefgh", key=key))
            assert (again["revision"], again["replayed"]) == (5, True)
            await until(lambda: not gate.control.operations._known)
            operation = await gate.control.operations.get(running["id"])
            assert (operation["status"], (operation["result"] or {})["revision"]) == ("done", 5)

    run(body)


@pytest.mark.parametrize("kept", [True, False])
def test_a_start_after_each_answer_completes_no_order_that_was_withdrawn(tmp_path: Path, kept: bool) -> None:
    async def body() -> None:
        async with cold(tmp_path, retry_seconds=0.01) as gate:
            rollback = await rolling_back(gate)
            await until(lambda: gate.store.revision("digits", 3) is not None)
            if not kept:
                gate.full_disk()
            frozen = await gate.control.freeze("digits")
            assert frozen["durable"] is kept
            if kept:
                # The one that is tried again is proposed on top of what it saw.
                await until(lambda: gate.store.revision("digits", 5) is not None)
                gate.full_disk()
            await gate.control.stop()
            with pytest.raises(Draining):
                await rollback
        async with gateway(tmp_path) as gate:
            view = await gate.control.get("digits")
            assert gate.live()[0] == "v1", "what was proposed last is completed"
            assert (view["frozen"] is not None) is kept, "what was answered as durable is in force"
            rows = {n: (kind, status) for n, kind, status in await statuses(gate)}
            if kept:
                assert rows[3] == ("rollback", "failed")
                assert (rows[4], rows[5]) == (("freeze", "applied"), ("rollback", "applied"))
            else:
                assert rows[3] == ("rollback", "applied")
            assert gate.store.check() == []

    run(body)


def test_a_stop_while_a_call_waits_to_be_decided_anew_changes_nothing_of_it(tmp_path: Path) -> None:
    async def body() -> None:
        async with cold(tmp_path) as gate:
            rollback = await rolling_back(gate)
            blocking = begin(gate.control.block("digits", "v2", call=ANN))
            # It waits for its load, and the rollback for it.
            await until(lambda: gate.native.applied[-1]["revision"] == 4)
            await until(lambda: gate.store.revision("digits", 4) is not None)
            await gate.control.stop()
            async with asyncio.timeout(20):
                for task in (rollback, blocking):
                    with pytest.raises(Draining):
                        await task
            # Their rows are there before the answers, although the loop that writes rows is over.
            assert sorted(audit(gate), key=str) == [("block", "refused", None), ("rollback", "refused", None)]
        async with gateway(tmp_path) as gate:
            assert (await statuses(gate))[:2] == [(4, "block", "applied"), (3, "rollback", "failed")]
            assert gate.live()[0] == "v1"

    run(body)

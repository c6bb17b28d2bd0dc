"""Emergency calls while the store's disk does not answer: what waits, what is told, in which order it is written."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from headgate.control import Call, IdempotencyKey
from headgate.control.writes import sources
from headgate.errors import Conflict, HeadgateError, StorageFailed
from unit.control_harness import Gate, document, gateway, run, until

SHARED = "{champion: v1, weights: {v2: 10%}, sticky: header.x-user-id}"
SOON = {"durable_seconds": 0.05, "retry_seconds": 0.01}


async def statuses(gate: Gate, endpoint: str = "digits") -> list[tuple[int, str, str]]:
    return [(r["revision"], r["kind"], r["status"]) for r in await gate.control.revisions(endpoint)]


async def all_written(gate: Gate) -> None:
    await until(lambda: not any(state.unsaved for state in gate.control._endpoints.values()))


def begin(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.create_task(work)


@pytest.mark.parametrize("act", ["rollback", "abort", "freeze", "block"])
def test_a_write_of_another_endpoint_that_waits_for_the_disk_holds_no_emergency(
    tmp_path: Path, act: str
) -> None:
    async def body() -> None:
        async with gateway(tmp_path, **SOON) as gate:
            await gate.apply(document(SHARED))
            await gate.apply(document(SHARED, name="other"))
            heal = gate.hung_disk()
            # More of them than the store has threads of any kind.
            waiting = [begin(gate.control.patch_traffic("other", weights={"v2": "20%"})) for _ in range(8)]
            await until(lambda: gate.control._endpoints["other"].tail == 2)
            applied = len(gate.native.applied)
            subject = ("v2",) if act == "block" else ()
            result = await getattr(gate.control, act)("digits", *subject)
            assert (result["status"], result["durable"], result["revision"]) == ("applied", False, None)
            assert len(gate.native.applied) == applied + 1
            assert (await gate.control.get("digits"))["alarms"] == [
                "revision 2 is served but could not be written to disk"
            ]
            heal()
            assert (await waiting[0])["revision"] == 2
            await asyncio.gather(*waiting, return_exceptions=True)
            await all_written(gate)
            assert (await statuses(gate))[0] == (2, act, "applied")
            assert (await gate.control.get("digits"))["alarms"] == []

    run(body)


def test_a_write_that_waits_for_the_disk_is_passed_and_told(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path, **SOON) as gate:
            await gate.apply(document(SHARED))
            heal = gate.hung_disk()
            passed = begin(gate.control.patch_traffic("digits", weights={"v2": "20%"}))
            await until(lambda: gate.control._endpoints["digits"].tail == 2)
            assert (await gate.control.rollback("digits"))["durable"] is False
            assert gate.live() == ("v1", [], "")
            heal()
            with pytest.raises(Conflict, match="revision 2 was overtaken by revision 3"):
                await passed
            await all_written(gate)
            assert await statuses(gate) == [
                (3, "rollback", "applied"),
                (2, "traffic", "superseded"),
                (1, "apply", "applied"),
            ]
            assert gate.store.check() == []

    run(body)


def test_a_write_that_the_store_refuses_leaves_no_gap_before_the_emergency_that_passed_it(
    tmp_path: Path,
) -> None:
    async def body() -> None:
        async with gateway(tmp_path, **SOON) as gate:
            await gate.apply(document(SHARED))
            reached, go = threading.Event(), threading.Event()
            propose = gate.store.propose

            def refuses(proposal: Any) -> None:
                if proposal.record.kind == "traffic":
                    reached.set()
                    assert go.wait(60)
                    raise StorageFailed("no room")
                propose(proposal)

            gate.store.propose = refuses  # type: ignore[method-assign]
            passed = begin(gate.control.patch_traffic("digits", weights={"v2": "20%"}))
            await until(reached.is_set)
            assert (await gate.control.freeze("digits"))["durable"] is False
            go.set()
            with pytest.raises(StorageFailed, match="no room"):
                await passed
            await all_written(gate)
            assert (await statuses(gate))[:2] == [(3, "freeze", "applied"), (2, "traffic", "failed")]
            await gate.control.unfreeze("digits")

    run(body)


@pytest.mark.parametrize("fails", [False, True])
def test_an_emergency_on_a_write_that_is_being_confirmed(tmp_path: Path, fails: bool) -> None:
    async def body() -> None:
        async with gateway(tmp_path, **SOON) as gate:
            await gate.apply(document(SHARED))
            reached, go = threading.Event(), threading.Event()
            commit = gate.store.commit

            def slow(given: Any) -> Any:
                reached.set()
                assert go.wait(60)
                if fails:
                    raise StorageFailed("no room")
                return commit(given)

            gate.store.commit = slow  # type: ignore[method-assign]
            write = begin(gate.control.patch_traffic("digits", weights={"v2": "20%"}))
            await until(reached.is_set)
            frozen = await gate.control.freeze("digits")
            assert (frozen["durable"], frozen["plan"]["base_revision"]) == (False, 2)
            go.set()
            if fails:
                with pytest.raises(StorageFailed, match="revision 2 is in force, but not on disk yet"):
                    await write
            else:
                assert (await write)["revision"] == 2
            await all_written(gate)
            assert await statuses(gate) == [
                (3, "freeze", "applied"),
                (2, "traffic", "applied"),
                (1, "apply", "applied"),
            ]
            assert gate.live()[1] == [["v2", 0, 1999]]
            assert gate.store.endpoints()[0].applied == 3

    run(body)


@pytest.mark.parametrize("fails", [False, True])
def test_an_emergency_on_a_write_that_is_being_taken_back(tmp_path: Path, fails: bool) -> None:
    async def body() -> None:
        async with gateway(tmp_path, **SOON) as gate:
            await gate.apply(document("{champion: v1}"))
            await gate.control.patch_traffic("digits", weights={}, champion="v2")
            reached, go = threading.Event(), threading.Event()

            def no_room(_given: Any) -> Any:
                reached.set()
                assert go.wait(60)
                raise StorageFailed("no room")

            gate.store.commit = no_room  # type: ignore[method-assign]
            write = begin(gate.control.patch_traffic("digits", weights={}, champion="v3"))
            await until(reached.is_set)
            events = gate.native.events
            gate.native.events = lambda: b"[]"  # type: ignore[method-assign]
            go.set()
            # What was served before is served again, and its event has not come.
            await until(lambda: gate.native.applied[-1]["revision"] == 2)
            if fails:
                gate.native.evicted.add("v2")
                gate.native.failing["v2"] = "broken"
            urgent = begin(gate.control.rollback("digits") if fails else gate.control.freeze("digits"))
            await until(lambda: gate.native.applied[-1]["revision"] == 4)
            gate.native.events = events  # type: ignore[method-assign]
            gate.control.pump()
            told, outcome = await asyncio.gather(write, urgent, return_exceptions=True)
            await all_written(gate)
            if fails:
                assert "no room" in str(told)
                assert isinstance(outcome, HeadgateError)
                ended, champion = [(4, "rollback", "failed"), (3, "traffic", "failed")], "v2"
            else:
                # It was decided on the write, so it keeps that in force.
                assert "revision 3 is in force, but not on disk yet" in str(told)
                ended, champion = [(4, "freeze", "applied"), (3, "traffic", "applied")], "v3"
            assert (await statuses(gate))[:2] == ended
            assert gate.live()[0] == champion
            assert gate.store.check() == []

    run(body)


def test_a_call_said_again_tells_the_truth_until_it_is_written(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path, **SOON) as gate:
            await gate.apply(document(SHARED))
            heal = gate.hung_disk()
            for status in ("applied", "already", "already"):
                result = await gate.control.rollback("digits")
                assert (result["status"], result["durable"], result["revision"]) == (status, False, None)
            heal()
            await all_written(gate)
            result = await gate.control.rollback("digits")
            assert (result["status"], result["durable"], result["revision"]) == ("already", True, 2)

    run(body)


def test_a_call_said_again_is_not_durable_while_the_write_before_it_is_confirmed(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path, **SOON) as gate:
            await gate.apply(document(SHARED))
            reached, go = threading.Event(), threading.Event()
            commit = gate.store.commit

            def slow(given: Any) -> Any:
                reached.set()
                assert go.wait(60)
                return commit(given)

            gate.store.commit = slow  # type: ignore[method-assign]
            write = begin(gate.control.patch_traffic("digits", weights={"v2": "0%"}))
            await until(reached.is_set)
            again = await gate.control.abort("digits")
            assert (again["status"], again["durable"]) == ("already", False)
            go.set()
            await write

    run(body)


def test_ordinary_writes_are_refused_with_what_is_waited_for(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path, **SOON) as gate:
            await gate.apply(document(SHARED))
            await gate.apply(document(SHARED, name="other"))
            heal = gate.hung_disk()
            await gate.control.rollback("digits", call=Call("ann"))
            for name in ("digits", "other"):
                with pytest.raises(StorageFailed, match=r"revision 2 of digits \(rollback by ann\)") as found:
                    await gate.control.patch_traffic(name, weights={"v3": "1%"})
                assert found.value.detail["waiting"] == ["revision 2 of digits (rollback by ann)"]
                await gate.control.patch_traffic(name, weights={"v3": "1%"}, call=Call("ann", dry_run=True))
            heal()
            await all_written(gate)
            for name in ("digits", "other"):
                await gate.control.patch_traffic(name, weights={"v3": "1%"})

    run(body)


def test_many_emergencies_are_written_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path, **SOON) as gate:
            await gate.apply(document(SHARED))
            heal = gate.hung_disk()
            await gate.control.block("digits", "v3")
            await gate.control.rollback("digits")
            await gate.control.freeze("digits")
            heal()
            await all_written(gate)
            assert [kind for _, kind, _ in await statuses(gate)] == ["freeze", "rollback", "block", "apply"]
            assert gate.store.check() == []
            assert [r.action for r in gate.store.audit(endpoint="digits", limit=9, before=None)] == [
                "freeze",
                "rollback",
                "block",
                "apply",
            ]

    run(body)


def test_a_key_does_not_wait_for_a_store_that_reads_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path, **SOON) as gate:
            await gate.apply(document(SHARED))
            go = threading.Event()
            found = gate.store.idempotent

            def hangs(*given: Any) -> Any:
                assert go.wait(60)
                return found(*given)

            gate.store.idempotent = hangs  # type: ignore[method-assign]
            key = IdempotencyKey("kid", "POST", "k", "a")
            try:
                # More than there are threads that read.
                for _ in range(6):
                    await gate.control.rollback("digits", call=Call("ann", key=key))
                assert gate.live() == ("v1", [], "")
            finally:
                go.set()

    run(body)


def test_documents_that_are_read_hold_no_emergency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            reading, go = threading.Semaphore(0), threading.Event()

            def slow(*_: object) -> Any:
                reading.release()
                assert go.wait(60)
                raise Conflict("the test is over")

            monkeypatch.setattr(sources, "read_one", slow)
            text = document(SHARED).encode()
            dry = [begin(gate.control.put("digits", text, call=Call("ann", dry_run=True))) for _ in range(12)]
            await until(lambda: reading.acquire(blocking=False))
            try:
                assert (await gate.control.rollback("digits"))["status"] == "applied"
                assert await gate.control.revisions("digits")
            finally:
                go.set()
            assert all(
                isinstance(one, HeadgateError) for one in await asyncio.gather(*dry, return_exceptions=True)
            )

    run(body)


def test_a_stop_writes_what_waits_when_the_disk_is_free_again(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path, **SOON) as gate:
            await gate.apply(document(SHARED))
            heal = gate.hung_disk()
            await gate.control.rollback("digits")
            closing = begin(gate.control.close(60))
            await asyncio.sleep(0)
            heal()
            assert await closing == []
            assert not gate.control.is_hung()
            assert gate.store.endpoints()[0].applied == 2

    run(body)


def test_a_stop_names_what_is_lost(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path, **SOON) as gate:
            await gate.apply(document(SHARED))
            heal = gate.hung_disk()
            await gate.control.rollback("digits", call=Call("ann"))
            waits = begin(gate.control.storing(lambda: gate.store.add_audit([])))
            await asyncio.sleep(0)
            try:
                lost = await gate.control.close(0.2)
                assert lost == ["revision 2 of digits (rollback by ann)"]
                assert gate.control.is_hung()
            finally:
                heal()
            await asyncio.gather(waits, return_exceptions=True)

    run(body)

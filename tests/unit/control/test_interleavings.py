"""Calls that meet each other between two steps: refused proposals, a stop, operations and a start on a disk that hangs."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from headgate.control import Call
from headgate.control.domain.traffic import Stamp
from headgate.control.writes import handover, transition
from headgate.control.writes.records import proposal
from headgate.errors import Conflict, Draining, HeadgateError, StorageFailed
from headgate.store import OperationRecord, open_store
from unit import control_harness
from unit.control_harness import Gate, document, gateway, holding, run, until
from unit.fake_native import FakeNative

SHARED = "{champion: v1, weights: {v2: 10%}, sticky: header.x-user-id}"
SOON: dict[str, Any] = {"durable_seconds": 0.05, "retry_seconds": 0.01}


async def statuses(gate: Gate, endpoint: str = "digits") -> list[tuple[int, str, str]]:
    return [(r["revision"], r["kind"], r["status"]) for r in await gate.control.revisions(endpoint)]


async def all_written(gate: Gate) -> None:
    await until(lambda: not any(state.unsaved for state in gate.control._endpoints.values()))


# === proposals that are refused ===


def lost_answer(gate: Gate, kind: str) -> None:
    """The store keeps a proposal and its answer gets lost, once."""
    propose = gate.store.propose

    def kept(proposal: Any) -> None:
        propose(proposal)
        if proposal.record.kind == kind:
            gate.store.propose = propose  # type: ignore[method-assign]
            raise StorageFailed("the answer was lost")

    gate.store.propose = kept  # type: ignore[method-assign]


@pytest.mark.parametrize("urgent", [True, False])
def test_a_proposal_that_is_on_disk_although_it_was_refused_blocks_no_call_behind_it(
    tmp_path: Path, urgent: bool
) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            lost_answer(gate, "traffic")
            with pytest.raises(StorageFailed, match="the answer was lost"):
                await gate.control.patch_traffic("digits", weights={"v2": "20%"})
            if urgent:
                result = await gate.control.rollback("digits")
            else:
                result = await gate.control.patch_traffic("digits", weights={"v2": "30%"})
            assert (result["status"], result["durable"], result["revision"]) == ("applied", True, 3)
            assert [status for _, _, status in await statuses(gate)] == ["applied", "failed", "applied"]
            assert gate.store.check() == []

    run(body)


def test_a_proposal_that_contradicts_a_pin_leaves_no_gap_before_the_emergency_that_passed_it(
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
                    raise Conflict("version v3 of digits is another one")
                propose(proposal)

            gate.store.propose = refuses  # type: ignore[method-assign]
            passed = asyncio.create_task(gate.control.patch_traffic("digits", weights={"v2": "20%"}))
            await until(reached.is_set)
            await gate.control.freeze("digits")
            go.set()
            with pytest.raises(Conflict, match="is another one"):
                await passed
            await all_written(gate)
            assert (await statuses(gate))[:2] == [(3, "freeze", "applied"), (2, "traffic", "failed")]

    run(body)


def test_a_write_that_is_refused_while_an_emergency_is_handed_over_gives_no_number_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
            passed = asyncio.create_task(gate.control.patch_traffic("digits", weights={"v2": "20%"}))
            await until(reached.is_set)
            handed, hand_over = holding(monkeypatch, transition, "native_apply")
            freezing = asyncio.create_task(gate.control.freeze("digits"))
            await until(handed.is_set)
            go.set()
            with pytest.raises(StorageFailed, match="no room"):
                await passed
            hand_over.set()
            assert (await freezing)["status"] == "applied"
            await all_written(gate)
            assert (await statuses(gate))[:2] == [(3, "freeze", "applied"), (2, "traffic", "failed")]
            assert gate.store.check() == []

    run(body)


# === a stop, and outcomes that nobody will know ===


def bounded(state: Any, most: int = 100) -> None:
    """Fails a task that takes the step of an endpoint again and again without waiting in between."""
    times = 0
    acquire = state.step.acquire

    async def counted() -> bool:
        nonlocal times
        times += 1
        assert times < most, "it goes round and round and lets nobody else run"
        return bool(await acquire())

    state.step.acquire = counted


def test_a_write_behind_an_emergency_call_that_a_stop_cuts_off_ends_too(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document("{champion: v1}"))
            await gate.control.patch_traffic("digits", weights={}, champion="v2")
        native = FakeNative()
        native.failing["v2"] = "not now"
        async with gateway(tmp_path, native) as gate:
            native.failing.clear()
            native.held.add("v1")
            state = gate.control._endpoints["digits"]
            urgent = asyncio.create_task(gate.control.rollback("digits"))
            await until(lambda: native.applied[-1]["urgent"])
            behind = asyncio.create_task(gate.control.patch_traffic("digits", weights={"v3": "5%"}))
            await until(lambda: bool(state.step._waiters))
            bounded(state)
            await until(lambda: gate.store.revision("digits", 3) is not None)
            await gate.control.stop()
            for task in (urgent, behind):
                with pytest.raises(Draining):
                    await task
        async with gateway(tmp_path) as gate:
            assert gate.live()[0] == "v1", "what the emergency call wanted is completed"

    run(body)


# === operations ===


def test_an_operation_is_there_although_the_disk_hangs(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path, **SOON) as gate:
            await gate.apply(document(SHARED))
            heal = gate.hung_disk()
            try:
                work = asyncio.create_task(gate.control.rollback("digits"))
                async with asyncio.timeout(20):
                    running = await gate.control.operations.adopt(work, "digits", "rollback")
                assert running["status"] == "running"
                await work
                operations = gate.control.operations
                await until(lambda: operations._known[running["id"]].status == "done")
                done = await operations.get(running["id"])
                assert (done["result"] or {})["durable"] is False
                assert running["id"] in [one["id"] for one in await operations.list(10)]
            finally:
                heal()
            await until(lambda: not operations._known)
            assert (await operations.get(running["id"]))["status"] == "done"
            assert [one["id"] for one in await operations.list(10)] == [running["id"]]

    run(body)


def test_the_end_of_an_operation_is_written_when_the_disk_takes_it(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path, **SOON) as gate:
            await gate.apply(document(SHARED))
            gate.native.held.add("v4")
            work: Any = asyncio.create_task(gate.apply(document("{champion: v1}", "v1 v2 v3 v4")))
            operations = gate.control.operations
            running = await operations.adopt(work, "digits", "apply")
            heal = gate.full_disk()
            gate.native.release()
            await asyncio.wait({work})
            await until(lambda: operations._known[running["id"]].status == "failed")
            assert (await operations.get(running["id"]))["status"] == "failed"
            heal()
            await until(lambda: not operations._known)
            assert (await operations.get(running["id"]))["status"] == "failed"

    run(body)


# === a start on a disk that hangs ===


def test_a_start_waits_for_no_disk_that_takes_no_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            revision = gate.control._endpoints["digits"].current
            assert revision is not None
            left = revision.numbered(2, 1, "traffic", Stamp("ann", gate.store.now().isoformat(), ""))
            gate.store.propose(proposal(left))
            gate.store.put_operation(
                OperationRecord("0011", "digits", "apply", "running", gate.control._context.now())
            )
        stores: list[Any] = []

        def opened(*given: Any, **named: Any) -> Any:
            stores.append(open_store(*given, **named))
            assert stores[0].transactions._writer.acquire(timeout=60)
            return stores[0]

        monkeypatch.setattr(control_harness, "open_store", opened)
        opening = gateway(tmp_path, **SOON)
        starting = asyncio.create_task(opening.__aenter__())
        try:
            async with asyncio.timeout(20):
                gate = await asyncio.shield(starting)
            assert gate.live()[1] == [["v2", 0, 999]]
            assert (await gate.control.rollback("digits"))["status"] == "applied"
        finally:
            stores[0].transactions._writer.release()
        await all_written(gate)
        await until(lambda: stores[0].operation("0011").status == "failed")
        assert await statuses(gate) == [
            (3, "rollback", "applied"),
            (2, "traffic", "failed"),
            (1, "apply", "applied"),
        ]
        await opening.__aexit__(None, None, None)

    run(body)


# === threads and queues ===


def test_emergency_calls_whose_files_do_not_come_hold_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            names = [f"e{n}" for n in range(8)]
            for name in names:
                await gate.apply(document(SHARED, name=name))
            go, came = threading.Event(), threading.Semaphore(0)
            real = handover.native_apply

            def slow(revision: Any, *given: Any) -> bytes:
                if revision.endpoint != names[-1]:
                    came.release()
                    assert go.wait(60)
                return real(revision, *given)

            monkeypatch.setattr(transition, "native_apply", slow)
            waiting = [asyncio.create_task(gate.control.rollback(name)) for name in names[:-1]]
            await until(lambda: came.acquire(blocking=False))
            try:
                async with asyncio.timeout(20):
                    await gate.control.rollback(names[-1])
            finally:
                go.set()
                await asyncio.gather(*waiting)

    run(body)


def test_unpins_on_a_disk_that_hangs_hold_no_read(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path, **SOON) as gate:
            await gate.apply(document(SHARED))
            for name in "abcdefgh":
                await gate.apply(document(SHARED, name=name))
            heal = gate.hung_disk()
            unpins = [
                asyncio.create_task(gate.control.unpin(name, "v9", call=Call("ann"))) for name in "abcdefgh"
            ]
            await until(lambda: all(gate.control._endpoints[name].turn.locked() for name in "abcdefgh"))
            try:
                async with asyncio.timeout(20):
                    await gate.control.revisions("digits")
            finally:
                heal()
                await asyncio.gather(*unpins, return_exceptions=True)

    run(body)


def test_an_unpin_names_its_token(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document("{champion: v1}", "v1 v2"))
            await gate.apply(document("{champion: v1}", "v1"))
            await gate.control.unpin("digits", "v2", call=Call("ann", token="abcdefgh"))
            row = gate.store.audit(endpoint="digits", limit=1, before=None)[0]
            assert (row.detail["token_id"], row.detail["token_name"]) == ("abcdefgh", "ann")

    run(body)


def test_callers_that_are_refused_while_rows_are_written_leave_one_row_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            table, error = gate.control.refused_callers, StorageFailed("no")
            await gate.control.background.close()
            reached, go = holding(monkeypatch, gate.store, "put_audit")
            table.count("192.0.2.1", error)
            first = asyncio.create_task(table.flush())
            await until(reached.is_set)
            table.count("192.0.2.2", error)
            others = [asyncio.create_task(table.flush()) for _ in range(3)]
            await asyncio.sleep(0)
            go.set()
            await asyncio.gather(first, *others)
            rows = gate.store.audit(endpoint=None, limit=9, before=None)
            assert sorted(row.detail["address"] for row in rows) == ["192.0.2.1", "192.0.2.2"]

    run(body)


def test_calls_that_wait_are_bounded_and_keep_no_emergency_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        monkeypatch.setattr("headgate.control.writes.runner.MOST", 3)
        async with gateway(tmp_path, **SOON) as gate:
            await gate.apply(document(SHARED))
            heal = gate.hung_disk()
            waiting = [
                asyncio.create_task(
                    gate.control.patch_traffic("digits", weights={"v2": "20%"}, call=Call("ann"))
                )
                for _ in range(3)
            ]
            await until(lambda: gate.control._endpoints["digits"].tail == 2)
            with pytest.raises(HeadgateError, match="3 changes wait") as refused:
                await gate.control.patch_traffic("digits", weights={"v2": "20%"}, call=Call("ann"))
            assert refused.value.code == "overloaded"
            assert (await gate.control.rollback("digits"))["status"] == "applied"
            heal()
            await asyncio.gather(*waiting, return_exceptions=True)

    run(body)


# === what cannot be stored as it is ===


@pytest.mark.parametrize("text", ["half of a pair: \ud800", "nothing: \0"])
def test_a_text_that_no_store_keeps_holds_up_no_row_of_the_audit(tmp_path: Path, text: str) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            with pytest.raises(HeadgateError):
                await gate.control.patch_traffic("digits", weights={text: "20%"}, call=Call("ann", token="a"))
            with pytest.raises(HeadgateError):
                await gate.control.rollback("digits", call=Call("ann", token="a", reason=text))
            with pytest.raises(HeadgateError):
                await gate.control.patch_traffic("digits", weights={"v9": "20%"}, call=Call("ann", token="a"))
            rows = [
                row.action
                for row in gate.store.audit(endpoint="digits", limit=9, before=None)
                if row.outcome == "refused"
            ]
            assert rows == ["traffic", "rollback", "traffic"]

    run(body)


def test_a_reason_of_the_data_plane_that_no_store_keeps_ends_a_revision_all_the_same(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            gate.native.failing["v4"] = "operator \0 is unknown"
            for _ in range(2):
                with pytest.raises(HeadgateError, match="is unknown"):
                    await gate.apply(document("{champion: v1}", "v1 v2 v3 v4"))
            assert [status for _, _, status in await statuses(gate)] == ["failed", "failed", "applied"]

    run(body)


# === the feed ===


def test_what_is_written_late_is_told_when_it_is_written(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path, **SOON) as gate:
            await gate.apply(document(SHARED))
            heard: list[tuple[str, int | None]] = []
            publish = gate.control._context.feed.publish

            def hear(event: Any) -> None:
                heard.append((event.type, event.revision))
                publish(event)

            gate.control._context.feed.publish = hear  # type: ignore[method-assign]
            commit = gate.store.commit

            def fail(*_: object) -> None:
                raise StorageFailed("disk")

            gate.store.commit = fail  # type: ignore[assignment,method-assign]
            with pytest.raises(StorageFailed):
                await gate.control.patch_traffic("digits", weights={"v2": "20%"})
            gate.store.commit = commit  # type: ignore[method-assign]
            await all_written(gate)
            assert ("failed", 2) in heard

    run(body)

"""What is old is forgotten, and what somebody may need after an accident is not; who asks for what is gone is told so."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.control import Call
from headgate.errors import NotFound, StorageFailed
from headgate.store import EventRecord, RetentionLimits, TrialRecord, stamp
from headgate.store import retention as dropping
from unit.control_harness import Gate, document, gateway, run

DAY = 86_400
SHARED = "{champion: v1, weights: {v2: 10%}}"
SETTINGS = {"revisions": 3, "revision_seconds": 90 * DAY, "audit_seconds": 400 * DAY}


async def numbers(gate: Gate) -> list[int]:
    return [one["revision"] for one in await gate.control.revisions("digits", limit=500)][::-1]


async def weights(gate: Gate, times: int) -> None:
    for n in range(times):
        await gate.control.patch_traffic("digits", weights={"v2": f"{20 + n % 2}%"}, call=Call("ann"))


async def drop(gate: Gate) -> None:
    # What the file of the last applied state names stays as well: it is brought up to date first.
    await gate.control._integrity.write()
    while await gate.control._maintenance.retention.drop():
        pass


def test_old_revisions_go_and_the_young_and_the_newest_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropping, "AT_ONCE", 2)

    async def body() -> None:
        async with gateway(tmp_path, **SETTINGS) as gate:
            await gate.apply(document(SHARED))
            await weights(gate, 9)
            await drop(gate)
            assert await numbers(gate) == list(range(1, 11))
            gate.clock.forward(60 * DAY)
            await weights(gate, 2)
            gate.clock.forward(60 * DAY)
            await drop(gate)
            assert await numbers(gate) == [9, 10, 11]
            assert gate.control.removed()["revision"] == 8
            assert gate.store.check() == []
            with pytest.raises(NotFound, match="revision 4 of digits was dropped because of its age"):
                await gate.control.restore("digits", 4)
            with pytest.raises(NotFound, match="was dropped"):
                await gate.control.revision("digits", 8)
            with pytest.raises(NotFound, match="digits has no revision 99"):
                await gate.control.revision("digits", 99)
            assert "v2" in str((await gate.control.revision("digits", 10))["moves"])
            oldest = await gate.control.revision("digits", 9)
            assert (oldest["diff"], oldest["moves"]) == (
                "revision 8, from which it was made, was dropped because of its age", {},
            )  # fmt: skip
            await gate.control.restore("digits", 10)
        async with gateway(tmp_path, **SETTINGS) as gate:
            assert set(gate.native.served) == {"digits"}
            assert gate.store.check_in_force() == []

    run(body)


def test_the_last_good_and_the_blocked_stay_however_old(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path, **SETTINGS) as gate:
            await gate.apply(document("{champion: v3}"))
            await gate.control.patch_traffic("digits", weights={}, champion="v1")
            await weights(gate, 3)
            await gate.control.rollback("digits")  # revision 6: 100 % v1, v2 blocked; it had traffic until 5
            await gate.control.patch_traffic("digits", weights={}, champion="v3")  # 7: v1 is last good
            await gate.control.patch_traffic("digits", weights={"v1": "5%"})  # 8: v3 is
            await gate.control.patch_traffic("digits", weights={"v1": "0%"})
            await gate.control.patch_traffic("digits", weights={}, champion="v1")  # 10: v3 is last good
            for n in range(20):
                await gate.control.block("digits", f"sha256:{n:064}", call=Call("ann"))
            gate.clock.forward(1000 * DAY)
            await drop(gate)
            # 9 is the newest with v3 as champion, 5 the newest in which v2 had traffic.
            assert await numbers(gate) == [5, 9, 28, 29, 30]
            assert gate.store.check() == []
            await gate.control.rollback("digits")
            assert gate.live()[0] == "v3"

    run(body)


def test_a_removed_endpoint_keeps_its_newest_and_a_damaged_one_everything(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path, **SETTINGS) as gate:
            await gate.apply(document(SHARED))
            await weights(gate, 8)
            gate.clock.forward(1000 * DAY)
            state = gate.control._endpoints["digits"]
            state.damage = ("its history is damaged",)
            await drop(gate)
            assert len(await numbers(gate)) == 9
            state.damage = ()
            await gate.control.delete("digits")
            await drop(gate)
            assert await numbers(gate) == [8, 9, 10]
            assert gate.store.check() == []

    run(body)


def test_the_audit_is_kept_for_its_time_and_its_newest_rows_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.control.writes.retention.KEPT_AUDIT", 2)

    async def body() -> None:
        async with gateway(tmp_path, **SETTINGS) as gate:
            await gate.apply(document(SHARED))
            await weights(gate, 4)
            gate.clock.forward(399 * DAY)
            await drop(gate)
            assert len(gate.store.audit(endpoint=None, limit=99, before=None)) == 5
            gate.clock.forward(2 * DAY)
            await drop(gate)
            assert [one.revision for one in gate.store.audit(endpoint=None, limit=99, before=None)] == [5, 4]
            assert gate.control.removed()["audit"] == 3

    run(body)


def test_a_cursor_before_the_floor_is_told(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            for n in range(9):
                gate.store.add_event(EventRecord("alarm", "2027-03-01T03:12:04Z", None, n, "", ""))
            newest = gate.store.generation()
            gate.store.drop_journal("events", RetentionLimits(3))
            floor = gate.store.floor("events")
            assert 0 < floor < newest
            for cursor in (None, 0, floor, floor + 1, newest):
                await gate.control.check_cursor(cursor)
            with pytest.raises(NotFound, match=rf"events after {floor - 1} were dropped, up to {floor}"):
                await gate.control.check_cursor(floor - 1)
            # One that is read slowly is not left with a hole either.
            with pytest.raises(NotFound, match="were dropped"):
                await anext(gate.control.events(floor - 1))

    run(body)


def test_a_file_that_may_have_been_applied_is_not_applied_at_a_start(tmp_path: Path) -> None:
    async def body() -> None:
        path = tmp_path / "digits.yaml"
        path.write_text(document("{champion: v1}"))
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(path)
            await gate.control.patch_traffic("digits", weights={}, champion="v2")
            with gate.store.transactions.write() as write:
                write.session.connection().exec_driver_sql("UPDATE applied_documents SET digest = 'sha256:0'")
        async with gateway(tmp_path, roots=(tmp_path,)) as gate:
            assert any("applied from" in line for line in gate.control.damage())
            with pytest.raises(StorageFailed, match=f"headgate apply {path}"):
                await gate.control.apply_file(path)
            assert gate.live()[0] == "v2"
            # By hand it is applied, and the row is written anew.
            await gate.control.put(
                "digits", document("{champion: v1}").encode(), source=path, call=Call("ann")
            )
            await gate.control._integrity.write()
            assert gate.control.damage() == []
        async with gateway(tmp_path) as gate:
            assert await gate.control.apply_file(path) == []

    run(body)


def test_the_trials_of_a_removed_endpoint_go(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            for name in ("digits", "other"):
                await gate.apply(document(SHARED, name=name))
                gate.store.put_trials(
                    [TrialRecord(name, 1, None, stamp(gate.clock.now), b"ledger", b"units")]
                )
            await drop(gate)
            assert gate.store.unfinished_trials() == [("digits", 1), ("other", 1)]
            await gate.control.delete("digits", force=True)
            await drop(gate)
            assert gate.store.unfinished_trials() == [("other", 1)]
            assert gate.store.trial(("digits", 1)) is None

    run(body)

"""Trials between the data plane and the store: written when they changed, again after a failure, and given back at a start."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text as sql

from headgate.control.reads.trials import running, trials
from headgate.control.writes.trials import TrialWriter
from headgate.errors import StorageFailed
from headgate.store import Store, TrialRecord
from unit.control_harness import Gate, document, gateway, run

SHARED = "{champion: v1, weights: {v2: 10%}, sticky: header.x-user-id}"
BEGUN = 1_000


def grow(gate: Gate, changes: int, ended: int | None = None) -> None:
    """The trial of ``digits`` has had so many changes."""
    listed = {"endpoint": "digits", "begun_ms": BEGUN, "ended_ms": ended, "changes": changes}
    gate.native.trial_list = [listed]
    gate.native.trial_states["digits", BEGUN] = (f"ledger {changes}".encode(), b"units")


def stored(gate: Gate) -> list[bytes]:
    store = gate.control._context.store
    found = [store.trial(key) for key in store.unfinished_trials()]
    return [zlib.decompress(one.ledger) for one in found if one is not None]


def test_a_trial_is_written_when_it_changed_and_once_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            # It has a writer of its own.
            await gate.control.background.close()
            writer, store = TrialWriter(gate.control._context), gate.control._context.store
            writes: list[int] = []
            put = store.put_trials
            monkeypatch.setattr(
                store, "put_trials", lambda records, live: (writes.append(len(records)), put(records, live))
            )
            grow(gate, 1)
            await writer.write()
            await writer.write()
            assert (writes, stored(gate)) == ([1], [b"ledger 1"])
            grow(gate, 2)
            await writer.write()
            gate.clock.forward(59)
            await writer.write()
            assert (writes, stored(gate)) == ([1, 1], [b"ledger 2"])
            gate.clock.forward(1)
            await writer.write()
            assert writes == [1, 1, 1]
            grow(gate, 3, ended=2_000)
            await writer.write()
            gate.clock.forward(100)
            await writer.write()
            assert (writes, stored(gate)) == ([1, 1, 1, 1], [])

    run(body)


def test_what_could_not_be_written_is_written_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            writer, store = TrialWriter(gate.control._context), gate.control._context.store
            grow(gate, 1)

            def fail(_records: object, _live: object) -> None:
                raise StorageFailed("the disk is full")

            with monkeypatch.context() as broken:
                broken.setattr(store, "put_trials", fail)
                with pytest.raises(StorageFailed):
                    await writer.write()
            await writer.write()
            assert stored(gate) == [b"ledger 1"]

    run(body)


def test_a_trial_that_cannot_be_given_now_is_written_later(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            writer = TrialWriter(gate.control._context)
            grow(gate, 1)
            await writer.write()
            grow(gate, 2, ended=2_000)
            # The receipts of its feedback could not be written before it.
            held = dict(gate.native.trial_states)
            gate.native.trial_states.clear()
            await writer.write()
            assert stored(gate) == [b"ledger 1"]
            gate.native.trial_states.update(held)
            await writer.write()
            assert stored(gate) == []

    run(body)


def test_a_start_gives_back_what_had_not_ended_and_a_stop_writes_it(tmp_path: Path) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document(SHARED))
            grow(gate, 1)
        async with gateway(tmp_path) as gate:
            assert gate.native.restored == [("digits", b"ledger 1", b"units")]

    run(body)


@pytest.mark.parametrize("ledger", [b"no zlib", zlib.compress(b"damaged"), "text", 7, 1.5])
def test_a_trial_that_cannot_be_read_begins_anew(tmp_path: Path, ledger: Any) -> None:
    async def body() -> None:
        async with gateway(tmp_path) as gate:
            context = gate.control._context
            units = zlib.compress(b"units")
            now = context.now()
            context.store.put_trials([TrialRecord("a", 1, None, now, b"", units)])
            with context.store.transactions.write() as write:
                write.session.execute(
                    sql("UPDATE trials SET ledger = :ledger WHERE endpoint = 'a'"), {"ledger": ledger}
                )
            context.store.put_trials([TrialRecord("b", 1, None, now, zlib.compress(b"whole"), units)])
        async with gateway(tmp_path) as gate:
            assert gate.native.restored == [("b", b"whole", b"units")]

    run(body)


def told(**changes: Any) -> dict[str, Any]:
    """A trial as the data plane tells it."""
    times = {"count": 3, "sum_ns": 9, "p50_ns": 1_500, "p95_ns": 2_500, "p99_ns": None, "buckets": []}
    arm = {"version": "v1", "run": times, "reply": times}
    return {
        "attempt": "digits/2/1", "champion": "v1", "sticky": None, "unit": "request", "begun_ms": 0, "ended_ms": None,
        "as_of_ms": 61_000, "written_ms": 0, "arms": [arm], "window": None, "unit_bytes": 0,
        "gaps": [{"from_ms": 1_000, "to_ms": 2_000}], "gaps_dropped": 0, "minutes_dropped": 1, "first_errors_dropped": 2,
        **changes,
    }  # fmt: skip


def test_a_view_has_times_and_microseconds() -> None:
    details = {
        "splits": [{"slots": {"v1": 10_000}, "arms": {"v1": told()["arms"][0]}}],
        "minutes": [{"minute": 1, "split": 0, "window": 0, "arms": {"v1": {"ran": 1}}}],
        "first_errors": [
            {"at_ms": 5_000, "split": 0, "version": "v1", "code": "internal", "after_split": None}
        ],
        "window": {"number": 1, "opened_ms": 3_000, "thresholds": {"v1": {"run_ns": 1, "reply_ns": 2}}},
    }
    answer = {"trial": told(**details), "earlier": [told(ended_ms=9_000)]}
    view = trials("digits", json.dumps(answer).encode())
    trial = view["trial"]
    assert trial is not None
    assert (trial["as_of"], trial["ended"]) == ("1970-01-01T00:01:01Z", None)
    assert trial["arms"][0]["run_us"] == {"count": 3, "p50": 1.5, "p95": 2.5, "p99": None}
    assert trial["minutes"][0]["minute"] == "1970-01-01T00:01:00Z"
    assert trial["first_errors"][0]["when"] == "1970-01-01T00:00:05Z"
    assert trial["gaps"] == [{"since": "1970-01-01T00:00:01Z", "until": "1970-01-01T00:00:02Z"}]
    assert trial["dropped"] == {"minutes": 1, "first_errors": 2, "gaps": 0}
    assert view["earlier"][0]["ended"] == "1970-01-01T00:00:09Z"


def test_only_a_trial_that_is_on_is_running() -> None:
    of = lambda trial: running(json.dumps({"trial": trial, "earlier": []}).encode())  # noqa: E731
    assert of(None) is None
    assert of(told(ended_ms=5)) is None
    assert of(told()) is not None


def test_a_table_of_trials_that_cannot_be_read_keeps_no_gateway_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_store: Store) -> None:
        raise TypeError("string argument without an encoding")

    async def body() -> None:
        monkeypatch.setattr(Store, "unfinished_trials", fail)
        async with gateway(tmp_path) as gate:
            [alarm] = [
                one for one in gate.store.newest_events(0, limit=9, endpoint=None) if one.type == "alarm"
            ]
            assert "no trial is known any more: TypeError" in alarm.data["message"]

    run(body)

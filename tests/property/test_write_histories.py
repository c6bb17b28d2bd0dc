"""After any history of writes, emergencies, loads that fail or hang, and a disk that fills, one state is in force everywhere:
in the data plane, in memory, in the newest row that was applied, and after a restart."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headgate.control import Call
from headgate.control.domain.revision import read_revision
from headgate.control.domain.traffic import LiveTraffic
from headgate.errors import HeadgateError
from unit.control_harness import Gate, document, gateway, run, until
from unit.fake_native import FakeNative, answers

NAME = "digits"
VERSIONS = ("v1", "v2", "v3", "v4")
DOCUMENTS = (
    document("{champion: v1, weights: {v2: 10%}}"),
    document("{champion: v2}"),
    document("{champion: v1}", "v1 v2 v3 v4"),
    document("{champion: v4, weights: {v1: 5%}}", "v1 v2 v3 v4"),
)
SOON: dict[str, Any] = {"durable_seconds": 0.02, "retry_seconds": 0.01}

URGENT = ("rollback", "abort", "freeze", "block")
UNSERVED: dict[str, Any] = {"champion": None, "table": {"given": []}}

version = st.sampled_from(VERSIONS)
step = st.one_of(
    st.tuples(st.just("apply"), st.sampled_from(DOCUMENTS)),
    st.tuples(st.just("weight"), version, st.sampled_from(["0%", "5%", "40%"])),
    st.tuples(st.just("crown"), version),
    st.tuples(st.sampled_from(["rollback", "abort", "freeze", "unfreeze"])),
    st.tuples(st.sampled_from(["block", "unblock"]), version),
    st.tuples(st.just("restore"), st.integers(1, 6)),
    st.tuples(st.sampled_from(["hold", "release", "fail", "mend", "evict"]), version),
    st.tuples(st.sampled_from(["fill", "free", "settle", "forget"])),
)


class History:
    """Carries steps out: calls begin and are not waited for, so that they meet each other in every step."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.calls: list[asyncio.Task[Any]] = []
        self.said: list[str] = []
        self.free: Any = None

    def act(self, what: str, *given: Any) -> None:
        native, calls = self.gate.native, _calls(self.gate)
        if what in URGENT:
            self.urgent(what, *given)
        elif what in calls:
            self.calls.append(asyncio.create_task(calls[what](*given)))
        elif what == "hold":
            native.held.add(given[0])
        elif what == "evict":
            # As the least recently used one: it is loaded again with its next traffic.
            if not answers(native.served.get(NAME) or UNSERVED, given[0]):
                native.evicted.add(given[0])
        elif what == "release":
            native.release(given[0])
        elif what == "fail":
            native.failing[given[0]] = "broken"
        elif what == "mend":
            native.failing.pop(given[0], None)
        elif what == "forget":
            # As if what is not in force had to be loaded anew.
            native._loaded[NAME] = {
                key for key in native._loaded.get(NAME, set()) if key[0] == native.served[NAME]["champion"]
            }
        elif what == "fill" and self.free is None:
            self.free = self.gate.full_disk()
        elif what == "free" and self.free is not None:
            self.free()
            self.free = None

    async def end(self) -> None:
        """Nothing fails or hangs any more, and all calls are over and written."""
        self.act("free")
        self.gate.native.failing.clear()
        self.gate.native.release()
        for outcome in await asyncio.gather(*self.calls, return_exceptions=True):
            assert outcome is None or isinstance(outcome, dict | HeadgateError), outcome
        state, control = self.gate.control._endpoints[NAME], self.gate.control
        await until(lambda: not state.unsaved and state.unconfirmed is None)
        await control.audit_log.flush()
        assert not state.step.locked()
        assert not state.urgent._calls
        assert not state.loading

    def urgent(self, what: str, *given: Any) -> None:
        """Begins an emergency call; an answer that has a revision is compared with what that holds."""
        self.said.append(what)

        async def work() -> Any:
            result = await _calls(self.gate)[what](*given)
            if result["status"] == "applied" and result["revision"] is not None:
                record = self.gate.store.revision(NAME, result["revision"])
                assert record is not None
                assert record.status == "applied"
                assert _holds(what, given, read_revision(record.body).traffic)
            return result

        self.calls.append(asyncio.create_task(work()))


def _holds(what: str, given: tuple[Any, ...], live: LiveTraffic) -> bool:
    """Whether what an emergency call asks for is so."""
    if what == "freeze":
        return live.frozen is not None
    if what == "block":
        return any(block.version == given[0] for block in live.blocked) and given[0] not in live.weights()
    return not live.weights()


def _calls(gate: Gate) -> dict[str, Any]:
    control, call = gate.control, Call("ann", token="abcdefgh")

    def weight(name: str, share: str) -> Coroutine[Any, Any, Any]:
        return control.patch_traffic(NAME, weights={name: share}, call=call)

    def crown(name: str) -> Coroutine[Any, Any, Any]:
        return control.patch_traffic(NAME, weights={}, champion=name, call=call)

    return {
        "apply": gate.apply,
        "weight": weight,
        "crown": crown,
        "rollback": lambda: control.rollback(NAME, call=call),
        "abort": lambda: control.abort(NAME, call=call),
        "freeze": lambda: control.freeze(NAME, call=call),
        "unfreeze": lambda: control.unfreeze(NAME, call=call),
        "block": lambda name: control.block(NAME, name, call=call),
        "unblock": lambda name: control.unblock(NAME, name, call=call),
        "restore": lambda n: control.restore(NAME, n, call=call),
    }


async def one_state_is_in_force(gate: Gate) -> None:
    pointer = gate.store.endpoints()[0]
    served, view = gate.native.served[NAME], await gate.control.get(NAME)
    assert (served["revision"], view["revision"]) == (pointer.applied, pointer.applied)
    record = gate.store.revision(NAME, pointer.applied or 0)
    assert record is not None
    live = read_revision(record.body).traffic
    if not view["alarms"]:
        assert served["champion"] == live.champion
        assert [tuple(given) for given in served["table"]["given"]] == list(live.table.given)
    newest = max(r["revision"] for r in await gate.control.revisions(NAME) if r["status"] == "applied")
    assert newest == pointer.applied
    assert all(r["status"] != "proposed" for r in await gate.control.revisions(NAME))
    assert gate.store.check() == []
    nothing_was_undone_unseen(gate)


def nothing_was_undone_unseen(gate: Gate) -> None:
    """Each revision in force was decided on the one that was in force before it."""
    applied = [row for row in gate.store.revisions(NAME, limit=1000, before=None) if row.status == "applied"]
    bodies = [read_revision(row.body) for row in reversed(applied)]
    assert [later.parent for later in bodies[1:]] == [earlier.n for earlier in bodies[:-1]]


def each_call_left_one_row(gate: Gate, happened: History) -> None:
    rows = gate.store.audit(endpoint=NAME, limit=1000, before=None)
    told = sorted(row.action for row in rows if row.action in URGENT and row.detail.get("token_id"))
    assert told == sorted(happened.said)


@given(st.lists(st.tuples(step, st.integers(0, 3)), min_size=1, max_size=14))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_one_state_is_in_force_after_any_history(history: list[tuple[tuple[Any, ...], int]]) -> None:
    async def body() -> None:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            async with gateway(Path(folder), **SOON) as gate:
                await gate.apply(DOCUMENTS[2])
                happened = History(gate)
                for what, turns in history:
                    happened.act(*what)
                    for _ in range(turns):
                        await asyncio.sleep(0.001)
                await happened.end()
                await one_state_is_in_force(gate)
                each_call_left_one_row(gate, happened)
                before = gate.live(), gate.control._endpoints[NAME].omitted
            async with gateway(Path(folder), **SOON) as gate:
                await one_state_is_in_force(gate)
                if not before[1]:
                    assert gate.live() == before[0]

    run(body)


loads = st.one_of(
    st.tuples(st.sampled_from(["rollback", "abort", "freeze"])),
    st.tuples(st.just("block"), version),
    st.tuples(st.sampled_from(["hold", "release", "evict", "unblock"]), version),
    st.tuples(st.just("apply"), st.sampled_from(DOCUMENTS)),
    st.tuples(st.just("weight"), version, st.sampled_from(["0%", "5%"])),
    st.tuples(st.sampled_from(["fill", "free", "unfreeze"])),
)


@given(
    st.booleans(), st.sets(version), st.lists(st.tuples(loads, st.integers(0, 2)), min_size=2, max_size=14)
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_emergency_calls_whose_loads_end_in_any_order(
    answers: bool, held: set[str], history: list[tuple[tuple[Any, ...], int]]
) -> None:
    async def body() -> None:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            async with gateway(Path(folder), **SOON) as gate:
                await gate.apply(DOCUMENTS[2])
                await gate.control.patch_traffic(NAME, weights={"v4": "5%"}, champion="v2")
            native = FakeNative()
            # Without its champion nothing of the endpoint is loaded.
            native.failing |= {} if answers else {"v2": "broken"}
            async with gateway(Path(folder), native, **SOON) as gate:
                happened = History(gate)
                native.failing.clear()
                native.held |= held
                native.evicted |= held - {"v2", "v4"} if answers else set()
                for what, turns in history:
                    happened.act(*what)
                    for _ in range(turns):
                        await asyncio.sleep(0.001)
                await happened.end()
                if gate.control._endpoints[NAME].loaded:
                    await one_state_is_in_force(gate)
                each_call_left_one_row(gate, happened)
            async with gateway(Path(folder), **SOON) as gate:
                await one_state_is_in_force(gate)

    run(body)

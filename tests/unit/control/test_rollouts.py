"""Rollouts through the control plane on a fake data plane: what becomes of calls, of looks, of a start, of plans.

Not here: what a rollout decides (``unit/rollout``), real models (``e2e/test_rollout``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from headgate.control import Call
from headgate.control.domain.copies import Switches
from headgate.control.writes import clean_stop, rollouts
from headgate.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    PolicyInvalid,
    StorageFailed,
)
from unit.control_harness import Clock, Gate, document, gateway, holding, run, until
from unit.fake_native import FakeNative

PLAN = """\
apiVersion: headgate/v1
kind: RolloutPlan
name: careful
steps:
  - {shadow: 10%, for: 1m, min_requests: 10}
  - {weight: 5%, for: 1m, min_requests: 10}
  - approve: {role: approver}
  - promote
rollback_if: {error_rate: 1.5x}
"""
ANN = Call("ann", reason="better")


def answer(verdict: str, n: int = 100) -> dict[str, Any]:
    arm = {"units": n, "n": n, "bad": n if verdict == "fail" else 0}
    gate = {"gate": "error_rate", "verdict": verdict, "champion": arm, "challenger": arm, "ratio": 3.0}
    few = {"verdict": "pass", "reason": None}
    return {"gates": [gate], "srm": {"verdict": "pass", "reason": None}, "few_keys": few}


def trial(gate: Gate, routed: int) -> dict[str, Any]:
    arm = {
        "routed": routed, "in_flight": 0, "first_errors": 0, "first_errors_after": 0,
        "run": {"count": routed, "sum_ns": routed * 1_000},
    }  # fmt: skip
    current = gate.control.current("digits")
    assert current is not None
    begun = round(gate.store.now().timestamp() * 1000)
    arms = [{"version": version, **arm} for version in ("v1", "v2")]
    return {"attempt": current.traffic.table.salt, "begun_ms": begun, "arms": arms}


async def begun(gate: Gate, plan: str = PLAN) -> None:
    await gate.control.put_plan(plan.encode(), call=Call("ann"))
    await gate.apply(document())
    await gate.control.rollout_start("digits", "v2", "careful", call=ANN)


async def look(gate: Gate, seconds: float = 30.0) -> Any:
    """One look of the loop, after some time with requests."""
    gate.clock.forward(seconds)
    for version in ("v1", "v2"):
        gate.native.requests["digits", version] = gate.native.requests.get(("digits", version), 0) + 50
    await gate.control._rollouts.turn()
    await until(lambda: not gate.control._rollouts._moving or _is_over(gate))
    return await gate.control.rollout_view("digits")


def _is_over(gate: Gate) -> bool:
    return all(task.done() for task in gate.control._rollouts._moving.values())


async def on_trial(gate: Gate) -> None:
    """In the step that gives copies, and then in the one with a weight, by a person."""
    await begun(gate)
    await gate.control.rollout_promote("digits", call=ANN)
    await gate.control.rollout_promote("digits", call=ANN)


def test_a_step_with_copies_gives_the_challenger_one_more_shadow(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await begun(gate)
            assert gate.native.given[-1]["spec"]["traffic"].get("shadow", []) == []
            await gate.control.rollout_promote("digits", call=ANN)
            assert gate.native.given[-1]["spec"]["traffic"]["shadow"] == [{"to": "v2", "share": 1_000}]
            traffic = await gate.control.traffic("digits")
            assert [(one["to"], one["share"], one["state"]) for one in traffic["shadows"]] == [
                ("v2", "10%", "on")
            ]
            await gate.control.rollout_abort("digits", call=ANN)
            assert gate.native.given[-1]["spec"]["traffic"].get("shadow", []) == []

    run(work)


def test_a_version_is_a_shadow_once_with_the_greater_share(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await gate.control.put_plan(PLAN.encode())
            await gate.apply(document("{champion: v1, shadow: [{to: v2, share: 1%}, {to: v3, share: 2%}]}"))
            await gate.control.rollout_start("digits", "v2", "careful", call=ANN)
            await gate.control.rollout_promote("digits", call=ANN)
            shadows = gate.native.given[-1]["spec"]["traffic"]["shadow"]
            assert [(one["to"], one["share"]) for one in shadows] == [("v2", 1_000), ("v3", 200)]

    run(work)


def test_harm_that_a_look_sees_is_rolled_back_at_once_and_also_while_frozen(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await on_trial(gate)
            assert gate.live()[1] == [["v2", 0, 499]]
            await gate.control.freeze("digits", call=ANN)
            gate.native.running["digits"] = trial(gate, 100)
            gate.native.answer = answer("fail")
            view = await look(gate)
            assert (view["phase"], view["end"]["reason"]) == ("rolled_back", "error_rate")
            assert gate.live()[1] == []
            current = gate.control.current("digits")
            assert current is not None
            (block,) = current.traffic.blocked
            assert block.version == "v2"
            assert "error_rate fails" in block.reason
            events = await gate.control.stored_events(0, limit=100, endpoint="digits")
            told = [event.data["rollout"] for event in events if "rollout" in event.data]
            assert told[-1]["phase"] == "rolled_back"
            assert told[-1]["gates"][0]["verdict"] == "fail"

    run(work)


def test_a_freeze_holds_what_a_look_would_pause(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await on_trial(gate)
            gate.native.running["digits"] = trial(gate, 100)
            gate.native.answer = answer("undecided") | {"srm": {"verdict": "fail", "reason": "skewed"}}
            await gate.control.freeze("digits", call=ANN)
            assert (await look(gate))["phase"] == "progressing"
            await gate.control.unfreeze("digits", call=ANN)
            view = await look(gate)
            assert (view["phase"], view["pause"]["reason"]) == ("paused", "srm")
            with pytest.raises(PermissionDenied):
                await gate.control.rollout_approve("digits", "approver", call=ANN)

    run(work)


def test_a_rollback_needs_no_disk_and_one_that_fails_keeps_no_other(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await on_trial(gate)
            await gate.apply(document(name="other"))
            await gate.control.rollout_start("other", "v2", "careful", call=ANN)
            gate.native.running["digits"] = trial(gate, 100)
            gate.native.answer = answer("fail")
            gate.native.running["other"] = {"broken": True}
            heal = gate.full_disk()
            gate.clock.forward(30)
            with pytest.raises(KeyError, match="attempt"):
                await gate.control._rollouts.turn()
            assert gate.live()[1] == []
            heal()
            await gate.flush_healed()

    run(work)


def test_an_unclean_end_takes_the_weight_away_before_anything_is_served(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await on_trial(gate)
        (tmp_path / "state" / clean_stop.NAME).unlink()
        async with gateway(tmp_path) as gate:
            assert [one["traffic"]["table"]["given"] for one in gate.native.given] == [[]]
            view = await gate.control.rollout_view("digits")
            assert view is not None
            assert view["pause"] is not None
            assert (view["phase"], view["pause"]["reason"]) == ("paused", "crash")
            await gate.control.rollout_resume("digits", call=ANN)
            assert gate.live()[1] != []
        (tmp_path / "state" / clean_stop.NAME).unlink()
        async with gateway(tmp_path) as gate:
            view = await gate.control.rollout_view("digits")
            assert view is not None
            assert view["end"] is not None
            assert (view["phase"], view["end"]["reason"]) == ("rolled_back", "crash")
            # It is written behind.
            await gate.control.flush()
            kinds = [(one["kind"], one["status"]) for one in await gate.control.revisions("digits", limit=3)]
            assert kinds[0] == ("rollout_rollback", "applied")
            with pytest.raises(Conflict, match="retry"):
                await gate.control.rollout_start("digits", "v2", "careful", call=ANN)
            await gate.control.rollout_retry("digits", "v2", "careful", call=ANN)
            assert [one["id"] for one in await gate.control.rollouts("digits")] == ["r2", "r1"]

    run(work)


@pytest.mark.parametrize("first", ["shadow", "weight"])
def test_an_unclean_end_before_the_first_step_is_confirmed_is_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    plan = PLAN if first == "shadow" else PLAN.replace("  - {shadow: 10%, for: 1m, min_requests: 10}\n", "")

    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await begun(gate, plan)
            with monkeypatch.context() as patched:
                # The gateway ends after the swap and before the commit, as with a challenger that dies with its first request.
                patched.setattr(gate.store, "commit", lambda _: [])
                view = await look(gate)
            assert view["weight"] or view["shadow"]
        (tmp_path / "state" / clean_stop.NAME).unlink()
        async with gateway(tmp_path) as gate:
            view = await look(gate)
            assert (view["phase"], view["pause"]["reason"]) == ("paused", "crash")
            assert (view["weight"], view["shadow"], gate.live()[1]) == (0, 0, [])
            await gate.control.flush()
            rows = await gate.control.revisions("digits", limit=2)
            assert [(one["kind"], one["status"]) for one in rows] == [
                ("rollout_pause", "applied"),
                ("rollout_step", "failed"),
            ]
            assert gate.store.check() == []

    run(work)


def test_an_unclean_end_before_a_promotion_is_confirmed_is_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = PLAN.replace("  - {weight: 5%, for: 1m, min_requests: 10}\n", "")

    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await begun(gate, plan)
            await gate.control.rollout_promote("digits", call=ANN)
            await gate.control.rollout_promote("digits", call=ANN)
            await gate.control.rollout_approve("digits", "approver", call=Call("bob"))
            with monkeypatch.context() as patched:
                # The challenger has all requests when the gateway ends, and the promotion is not confirmed.
                patched.setattr(gate.store, "commit", lambda _: [])
                await look(gate)
            assert gate.live()[0] == "v2"
        (tmp_path / "state" / clean_stop.NAME).unlink()
        async with gateway(tmp_path) as gate:
            assert gate.live()[0] == "v1"
            view = await look(gate)
            assert (view["phase"], view["pause"]["reason"]) == ("paused", "crash")
            assert "was on its way" in view["pause"]["said"]

    run(work)


def test_each_clean_restart_of_a_paused_step_with_copies_begins_its_tests_anew(tmp_path: Path) -> None:
    async def beginnings() -> int:
        async with gateway(tmp_path) as gate:
            current = gate.control.current("digits")
            assert current is not None
            assert current.traffic.rollout is not None
            assert (current.traffic.rollout.phase, current.traffic.rollout.shadow) == ("paused", 1_000)
            return current.traffic.rollout.beginnings

    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await begun(gate)
            await gate.control.rollout_promote("digits", call=ANN)
            await gate.control.rollout_pause("digits", call=ANN)
        assert [await beginnings() for _ in range(3)] == [2, 3, 4]

    run(work)


def test_a_clean_restart_repeats_the_step(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await on_trial(gate)
            before = await gate.control.rollout_view("digits")
        async with gateway(tmp_path) as gate:
            gate.clock.forward(0)
            after = await gate.control.rollout_view("digits")
            assert before is not None
            assert after is not None
            assert (
                (after["phase"], after["weight"]) == ("progressing", before["weight"]) == ("progressing", 500)
            )
            assert len(gate.live()[1]) == 1

    run(work)


@pytest.mark.parametrize(("times", "frozen"), [(1, False), (1, True), (2, True)])
def test_a_start_whose_states_are_refused_leaves_no_gap(tmp_path: Path, times: int, frozen: bool) -> None:
    class Refusing(FakeNative):
        left = times

        def apply(self, endpoint: bytes) -> int:
            if self.left > 0:
                self.left -= 1
                raise PolicyInvalid("digits: a limit that an earlier build did not know")
            return super().apply(endpoint)

    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await on_trial(gate)
            if frozen:
                # It is proposed, and its end does not reach the disk.
                gate.store.append_ended = lambda row, _: gate.store.propose(row) or []  # type: ignore[method-assign,assignment,func-returns-value]
                await gate.control.freeze("digits", call=ANN)
                await until(lambda: gate.store.revision("digits", 5) is not None)
        async with gateway(tmp_path, Refusing()) as gate:
            await until(lambda: not gate.control._endpoints["digits"].unsaved)
            await gate.apply(document(), take_traffic=True)
            await gate.control.freeze("digits", call=ANN)
            numbers = [row["revision"] for row in await gate.control.revisions("digits")]
            assert numbers == list(range(len(numbers), 0, -1))
            assert gate.store.check() == []

    run(work)


def test_plans_are_kept_counted_and_not_removed_while_they_are_named(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            with pytest.raises(PolicyInvalid, match="careful"):
                await gate.apply(document() + "rollout: careful\n")
            await gate.control.put_plan(PLAN.encode(), call=ANN)
            await gate.apply(document() + "rollout: careful\n")
            changed = await gate.control.put_plan(PLAN.replace("5%", "6%").encode(), call=ANN)
            assert (changed["n"], changed["document"]["steps"][1]["weight"]) == (2, "6%")
            with pytest.raises(Conflict, match="digits"):
                await gate.control.delete_plan("careful", call=ANN)
            await gate.control.put_plan(
                b"apiVersion: headgate/v1\nkind: Defaults\nlimits: {timeout: 2s}\n", call=ANN
            )
        async with gateway(tmp_path) as gate:
            assert [one["name"] for one in gate.control.plans()] == ["careful"]
            assert gate.control.defaults()["document"]["limits"] == {"timeout": "2s"}
            await gate.apply(document(name="other"))
            assert gate.native.served["other"]["timeout_ms"] == 2_000
            await gate.control.delete_defaults(call=ANN)
            with pytest.raises(NotFound):
                gate.control.defaults()

    run(work)


def test_a_rollout_that_cannot_work_is_refused_before_it_begins(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await gate.apply(document())
            with pytest.raises(NotFound, match="default"):
                await gate.control.rollout_start("digits", "v2", "careful", call=ANN)
            with pytest.raises(PolicyInvalid, match="v9"):
                await gate.control.rollout_start("digits", "v9", call=ANN)
            with pytest.raises(Conflict, match="no rollout"):
                await gate.control.rollout_pause("digits", call=ANN)
            twice = PLAN.replace("{error_rate: 1.5x}", "{latency.p95: 1.2x, latency.p50: 1.2x}")
            await gate.control.put_plan(twice.encode())
            with pytest.raises(InvalidArgument, match="two gates"):
                await gate.control.rollout_start("digits", "v2", "careful", call=ANN)
            planned = await gate.control.rollout_start("digits", "v2", call=Call("ann", dry_run=True))
            few = "fewer than 1000 requests a day: the challenger gets copies of all requests first"
            assert planned["plan"]["notes"].count(few) == 1
            # A note of a plan is told beside its text, and not in it as well.
            assert few not in planned["plan"]["text"]

    run(work)


class Steady:
    """Figures of an endpoint that answers a request a second."""

    async def of(self, _endpoint: str) -> Mapping[str, Mapping[str, Any]]:
        one = {"seconds": 300, "requests": 300, "codes": {}, "request_us": {"p50": None, "p95": None}}
        return {"v1": one}


def test_the_busy_share_is_of_the_processors_that_the_process_may_use(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path, cores=0.5) as gate:
            seconds = iter(range(0, 1_000, 5))
            observer = gate.control._rollouts._observer
            observer._cpu_seconds = lambda: float(next(seconds))
            observer._figures = Steady()
            await on_trial(gate)
            gate.native.running["digits"] = trial(gate, 100)
            gate.native.answer = answer("pass")
            await look(gate, 20.0)
            await look(gate, 20.0)
            found = gate.control._rollouts._looks["digits"].observation.load
            assert found is not None
            # 5 s of processor time in 20 s is a quarter of a core; a shadow has 0.12 of it, and there is half a core.
            assert (found.threads, round(found.busy, 2)) == (0.5, 0.26)

    run(work)


def test_a_dry_run_tells_how_busy_a_weight_would_keep_the_threads(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path, cores=0.5) as gate:
            seconds = iter(range(0, 1_000, 5))
            observer = gate.control._rollouts._observer
            observer._cpu_seconds = lambda: float(next(seconds))
            observer._figures = Steady()
            await gate.control.put_plan(PLAN.replace("5%", "50%").encode(), call=ANN)
            await gate.apply(document())
            # The newest trial of these bytes tells their runs: 0.4 s in place of 0.1 s.
            digests = gate.control.current("digits").spec.digests()  # type: ignore[union-attr]
            told = trial(gate, 10)
            for arm, run_s in zip(told["arms"], (0.1, 0.4), strict=True):
                arm |= {
                    "digest": digests[arm["version"]],
                    "run": {"count": 10, "sum_ns": round(10 * run_s * 1e9)},
                }
            gate.native.running["digits"] = told
            for _ in range(2):
                gate.clock.forward(20.0)
                await gate.control._rollouts.turn()
            planned = await gate.control.rollout_start(
                "digits", "v2", "careful", call=Call("ann", dry_run=True)
            )
            # A quarter of a core without 0.12 of a shadow, of half a core, and then 0.3 s more for each second on it.
            text = planned["plan"]["text"]
            assert "The threads are 26 % busy, and would be 86 % busy with all requests at v2." in text
            assert "Warning: steps[3]: promote would keep the threads 86 % busy: it stays undecided." in text
            # Without one: the medians of what ran since the versions were loaded.
            gate.native.running.clear()
            planned = await gate.control.rollout_start(
                "digits", "v2", "careful", call=Call("ann", dry_run=True)
            )
            assert "would be 26 % busy with all requests at v2" in planned["plan"]["text"]

    run(work)


def test_a_person_who_comes_first_is_no_fault_of_the_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await on_trial(gate)
            gate.native.running["digits"] = trial(gate, 100)
            gate.native.answer = answer("fail")
            rollouts = gate.control._rollouts
            carry_out = rollouts._carry_out

            async def late(*decided: Any) -> None:
                await gate.control.rollout_pause("digits", call=ANN)
                monkeypatch.undo()
                await carry_out(*decided)

            monkeypatch.setattr(rollouts, "_carry_out", late)
            view = await look(gate)
            assert (view["phase"], view["pause"]["who"]) == ("paused", "ann")
            assert (await look(gate))["phase"] == "rolled_back"

    run(work)


def test_a_rollout_does_not_go_on_beside_a_third_version(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await on_trial(gate)
            await gate.control.patch_traffic("digits", weights={"v3": "5%"}, call=ANN)
            with pytest.raises(Conflict, match=r"v3 5% is given away beside v2.*\(weights v3=0\)"):
                await gate.control.rollout_resume("digits", call=ANN)
            await gate.control.patch_traffic("digits", weights={"v3": "0%"}, call=ANN)
            await gate.control.rollout_resume("digits", call=ANN)
            view = await gate.control.rollout_view("digits")
            assert view is not None
            assert view["phase"] == "progressing"

    run(work)


def test_a_move_that_is_refused_again_and_again_is_among_what_is_missing(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await begun(gate)
            heal = gate.full_disk()
            for _ in range(2):
                with suppress(StorageFailed):
                    await look(gate)
            view = await gate.control.rollout_view("digits")
            assert view is not None
            assert [said for said in view["missing"] if said.startswith("its next move, which is refused: ")]
            heal()
            await gate.flush_healed()
            # Writes that the full disk failed may be told of by later turns.
            for _ in range(3):
                with suppress(StorageFailed):
                    await look(gate)
            view = await gate.control.rollout_view("digits")
            assert view is not None
            assert view["step"] is not None
            assert (view["step"]["what"], view["phase"]) == ("shadow 10%", "progressing")
            assert not [said for said in view["missing"] if "refused" in said]

    run(work)


def test_an_abort_of_what_is_promoted_says_that_it_did_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await begun(gate, PLAN.replace("  - approve: {role: approver}\n", ""))
            await gate.control.rollout_promote("digits", full=True, call=ANN)
            with pytest.raises(Conflict, match=r"r1 is promoted.*headgate rollback digits"):
                await gate.control.rollout_abort("digits", call=ANN)
            assert gate.live()[0] == "v2"
            await gate.control.rollback("digits", call=ANN)
            again = await gate.control.rollout_abort("digits", call=ANN)
            assert (again["status"], again["message"]) == ("already", "rollout r1 is rolled back already")

    run(work)


SOLD = """\
apiVersion: headgate/v1
kind: RolloutPlan
name: sold
steps: [{weight: 5%, for: 1m, min_requests: 10}, promote]
rollback_if: {feedback.sale: 0.1}
report: [feedback.rating]
"""
SALE = "feedback: {sale: {kind: label, good: high}}\n"
BOTH = "feedback: {sale: {kind: label, good: high}, rating: {kind: count, range: [1, 5], good: high}}\n"


@pytest.mark.parametrize("dry_run", [True, False])
def test_feedback_that_a_gate_of_a_rollout_rests_on_is_not_taken_away(tmp_path: Path, dry_run: bool) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await gate.control.put_plan(SOLD.encode())
            await gate.apply(document() + BOTH)
            await gate.control.rollout_start("digits", "v2", "sold", call=ANN)
            await gate.control.rollout_pause("digits", call=ANN)
            wanted = (
                r"feedback\.sale: the gate feedback\.sale of rollout r1 of v2 \(plan sold\) rests on it"
                r".*headgate rollout abort digits"
            )
            for take in (False, True):
                with pytest.raises(PolicyInvalid, match=wanted) as refused:
                    await gate.apply(document(), dry_run=dry_run, take_traffic=take)
                assert [fault["path"] for fault in refused.value.detail["faults"]] == ["feedback.sale"]
            # What is only shown stops nothing, and may go. So may everything once the rollout is over.
            await gate.apply(document() + SALE)
            await gate.control.rollout_abort("digits", call=ANN)
            await gate.apply(document())

    run(work)


def test_feedback_that_is_taken_away_while_a_start_is_looked_at_refuses_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await gate.control.put_plan(SOLD.encode())
            await gate.apply(document() + SALE)
            reached, go = holding(monkeypatch, rollouts, "problems")
            start = asyncio.create_task(gate.control.rollout_start("digits", "v2", "sold", call=ANN))
            await until(reached.is_set)
            await gate.apply(document())
            go.set()
            with pytest.raises(Conflict, match="does not declare feedback sale any more"):
                await start
            assert await gate.control.rollout_view("digits") is None

    run(work)


@pytest.mark.parametrize("declared", ["{champion: v1}", "{champion: v1, shadow: [{to: v2, share: 1%}]}"])
def test_copies_that_a_rollout_gives_are_not_switched_off_unheard(tmp_path: Path, declared: str) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await gate.control.put_plan(PLAN.encode())
            await gate.apply(document(declared))
            await gate.control.rollout_start("digits", "v2", "careful", call=ANN)
            await gate.control.rollout_promote("digits", call=ANN)
            off = Switches(shadows={"v2": False})
            with pytest.raises(PolicyInvalid, match=r"rollout r1.*headgate rollout abort digits"):
                await gate.control.patch_traffic("digits", switches=off, call=ANN)
            (shadow,) = gate.native.given[-1]["spec"]["traffic"]["shadow"]
            assert (shadow["to"], shadow["share"]) == ("v2", 1_000)

    run(work)


class Ticking(Clock):
    """Each look at it is later than the one before, as on a machine."""

    def __call__(self) -> datetime:
        self.forward(0.003)
        return super().__call__()


@pytest.mark.parametrize("call", ["traffic", "abort", "rollback", "block", "remove"])
def test_the_history_tells_the_rollout_of_the_change_that_moved_it_and_of_no_other(
    tmp_path: Path, call: str
) -> None:
    async def work() -> None:
        async with gateway(tmp_path, clock=Ticking()) as gate:
            await on_trial(gate)
            control = gate.control
            calls = {
                "traffic": lambda: control.patch_traffic("digits", weights={"v2": "1%"}, call=ANN),
                "abort": lambda: control.abort("digits", call=ANN),
                "rollback": lambda: control.rollback("digits", call=ANN),
                "block": lambda: control.block("digits", "v2", call=ANN),
                "remove": lambda: control.delete("digits", force=True, call=ANN),
            }
            await calls[call]()
            if call != "remove":
                await control.freeze("digits", call=ANN)
            await control.flush()
            rows = [
                (row["kind"], row["rollout"] is not None)
                for row in await control.revisions("digits", limit=2)
            ]
            before = ("rollout_step", True)
            assert rows == ([(call, True), before] if call == "remove" else [("freeze", False), (call, True)])

    run(work)


def test_a_rollout_of_an_endpoint_that_was_removed_is_over_in_the_history(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await on_trial(gate)
            gone = await gate.control.delete("digits", force=True, call=ANN)
            assert "rollout r1 of v2 is aborted" in gone["plan"]["notes"]
            for returns in (False, True):
                if returns:
                    await gate.apply(document())
                    assert await gate.control.rollout_view("digits") is None
                (summary,) = await gate.control.rollouts("digits")
                assert (summary["phase"], summary["said"]) == (
                    "aborted",
                    "The endpoint was removed by ann: better.",
                )
            (event,) = [
                one
                for one in await gate.control.stored_events(0, limit=100, endpoint="digits")
                if one.type == "removed"
            ]
            assert (event.data["rollout"]["phase"], event.data["rollout"]["reason"]) == ("aborted", "remove")
            await gate.control.rollout_start("digits", "v2", "careful", call=ANN)
            newest, first = await gate.control.rollouts("digits")
            assert (newest["id"], newest["attempts"], first["id"]) == ("r2", 2, "r1")

    run(work)

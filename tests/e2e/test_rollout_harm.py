"""Rollouts on the real data plane that meet harm, and nights: a slow tail, a breaker, traffic that stops.

Not here: errors and crashes (``test_rollout``), what a replay shows before callers are involved (``test_rollout_replay``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from e2e.rollout_harness import ANN, Running, look_often, run, running
from support import models
from support.tools import need_native

DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: scale
versions: {v1: "file:scale/1", v2: "file:scale/2"}
traffic:
  champion: v1
  sticky: header.x-user-id
  fallback: {to: [v1]}
limits: {breaker: {consecutive: 3}}
"""
PLAN = """\
apiVersion: headgate/v1
kind: RolloutPlan
name: harm
steps:
  - {weight: 50%, for: 10m}
  - promote
"""

# Runs are timed here, and beside other tests the champion gets slower under way.
pytestmark = pytest.mark.quiet


@pytest.fixture(autouse=True)
def _looked_at_often(monkeypatch: pytest.MonkeyPatch) -> None:
    need_native()
    look_often(monkeypatch)


def place(folder: Path, challenger: Any) -> None:
    models.place(models.scale(2.0), folder, "scale", "1")
    models.place(challenger, folder, "scale", "2")


async def begin(gateway: Running, plan: str) -> None:
    """A rollout in its first step. No request came before it, so that there is no earlier latency to compare the champion's with."""
    gateway.sends.clear()
    await gateway.control.put_plan(plan.encode())
    await gateway.control.put("scale", DOCUMENT.encode())
    await gateway.control.rollout_start("scale", "v2", "harm", call=ANN)
    await gateway.until(lambda view: view["step"] is not None)
    gateway.sends.set()


async def kinds(gateway: Running) -> list[str]:
    """What happened, newest first. Emergencies are written behind."""
    await gateway.control.flush()
    return [one["kind"] for one in await gateway.control.revisions("scale")]


#: One request in four has elements above 5, which are slow with the challenger.
def one_in_four(number: int) -> list[float]:
    return [9.0 if number % 4 == 0 else 1.0] * 4


def test_a_challenger_that_is_slow_in_the_tail_alone_is_rolled_back(tmp_path: Path) -> None:
    place(tmp_path, models.slow_tail(2.0, 60))
    plan = PLAN + "rollback_if: {error_rate: 1.5x, latency.p95: {above: 1.2x, ignore_below: 5ms}}\n"

    async def work() -> None:
        async with running(tmp_path, values=one_in_four) as gateway:
            await begin(gateway, plan)
            view = await gateway.until_held()
            assert view["phase"] == "rolled_back", view
            gate, measure = view["end"]["reason"].split()
            assert (gate, measure in ("run", "reply")) == ("latency.p95", True)
            assert f"latency.p95 {measure} fails" in view["end"]["said"]
            (status,) = [one for one in view["gates"] if (one["gate"], one["measure"]) == (gate, measure)]
            # Most of its requests are as fast as the champion's.
            slow = status["challenger"]["bad"] / status["challenger"]["n"]
            assert 0.05 < slow < 0.5
            assert (gateway.served(), gateway.blocked()) == ({"v1": 10_000}, ["v2"])
            assert gateway.refused == 0
            assert await kinds(gateway) == ["rollout_rollback", "rollout_step", "rollout_start", "apply"]

    run(work)


def test_a_challenger_whose_every_run_fails_is_isolated_by_its_breaker(tmp_path: Path) -> None:
    place(tmp_path, models.failing(2.0))
    # So rare a false rollback takes more errors than a breaker lets through.
    plan = PLAN + "rollback_if: {error_rate: 1.5x}\nfalse_rollbacks: 0.01%\n"

    async def work() -> None:
        async with running(tmp_path) as gateway:
            await begin(gateway, plan)
            held = await gateway.until_held()
            assert "rollout_pause" in await kinds(gateway)
            assert held["phase"] == "rolled_back" or held["pause"]["reason"] == "breaker", held
            # Nobody resumes it: the breaker lets a request through from time to time, and each one fails.
            view = await gateway.until(lambda view: view["phase"] != "paused")
            assert (view["phase"], view["end"]["reason"]) == ("rolled_back", "breaker"), view
            assert "The breaker of v2 opened again" in view["end"]["said"]
            assert "no statistical test" in view["end"]["said"]
            assert (gateway.served(), gateway.blocked()) == ({"v1": 10_000}, ["v2"])
            # The champion answered in its place.
            assert gateway.refused == 0
            assert await kinds(gateway) == [
                "rollout_rollback", "rollout_pause", "rollout_step", "rollout_start", "apply",
            ]  # fmt: skip

    run(work)


def test_a_challenger_that_fails_on_every_copy_is_rolled_back_before_a_caller_meets_it(
    tmp_path: Path,
) -> None:
    place(tmp_path, models.failing(2.0))
    plan = PLAN.replace("steps:\n", "steps:\n  - {shadow: 100%, for: 10m}\n")

    async def work() -> None:
        async with running(tmp_path) as gateway:
            await begin(gateway, plan + "rollback_if: {error_rate: 1.5x}\n")
            view = await gateway.until_held()
            assert (view["phase"], view["end"]["reason"]) == ("rolled_back", "error_rate"), view
            assert "of copies of the champion's requests" in view["end"]["said"]
            (status,) = [one for one in view["gates"] if one["gate"] == "error_rate"]
            assert status["challenger"]["bad"] == status["challenger"]["n"] > 0 == status["champion"]["bad"]
            assert (gateway.served(), gateway.blocked(), gateway.refused) == ({"v1": 10_000}, ["v2"], 0)
            assert await kinds(gateway) == ["rollout_rollback", "rollout_step", "rollout_start", "apply"]

    run(work)


def test_a_night_without_traffic_is_no_undecided_time_and_the_rollout_goes_on_after_it(
    tmp_path: Path,
) -> None:
    place(tmp_path, models.scale(2.5))
    plan = PLAN.replace("for: 10m", "for: 1m, min_requests: 150")
    plan += "rollback_if: {error_rate: 1.5x}\nundecided: {after: 15m}\n"

    async def work() -> None:
        async with running(tmp_path) as gateway:
            await begin(gateway, plan)
            await gateway.until(lambda view: view["step"]["requests"] >= 10)
            gateway.sends.clear()
            evening = await gateway.looked()
            seen = evening["step"]["requests"]
            assert seen < 150
            # Each look counts a minute at most, and ten minutes after the last request there is no traffic any more.
            for _ in range(20):
                gateway.clock.forward(60)
                await gateway.looked()
            gateway.clock.forward(8 * 3600)
            night = await gateway.looked()
            assert (night["phase"], night["step"]["index"]) == ("progressing", 1), night
            assert night["step"]["requests"] == seen
            assert night["step"]["served_ms"] < 12 * 60_000
            assert any("requests of v2" in one for one in night["missing"])
            gateway.sends.set()
            view = await gateway.until_held()
            assert view["phase"] == "promoted", view
            assert [one["requests"] >= 150 for one in view["finished"]] == [True]
            assert gateway.refused == 0

    run(work)


def test_traffic_that_decides_nothing_is_undecided_in_the_end(tmp_path: Path) -> None:
    place(tmp_path, models.scale(2.5))
    plan = PLAN.replace("for: 10m", "for: 1m, min_requests: 1000000")
    plan += "rollback_if: {error_rate: 1.5x}\nundecided: {after: 15m}\n"

    async def work() -> None:
        async with running(tmp_path) as gateway:
            await begin(gateway, plan)
            await gateway.until(lambda view: view["step"]["requests"] >= 10)
            minutes = 0
            while (await gateway.looked())["phase"] == "progressing" and minutes < 60:
                gateway.clock.forward(60)
                minutes += 1
            view = await gateway.until_held()
            assert (view["phase"], view["pause"]["reason"]) == ("paused", "undecided"), view
            assert "Undecided for 15m with traffic; missing: " in view["pause"]["said"]
            assert minutes >= 15
            assert gateway.served() == {"v1": 5_000, "v2": 5_000}

    run(work)

"""Rollouts on the real data plane with real models: nobody touches a good one, and a bad one is gone.

Control plane and data plane run in the test's process; an unclean end is one after which nothing was written. Not here: what is decided
(``unit/rollout``), the calls over HTTP (``admin``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from e2e.rollout_harness import ANN, Running, run, running
from headgate.control import Call
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
"""
PLAN = """\
apiVersion: headgate/v1
kind: RolloutPlan
name: quick
steps:
  - {shadow: 100%, for: 1s, min_requests: 20}
  - {weight: 50%, for: 1s, min_requests: 20}
  - {weight: 90%, for: 1s, min_requests: 20}
  - promote
rollback_if: {error_rate: 1.5x}
"""
HELD = PLAN.replace("name: quick", "name: held").replace(
    "for: 1s, min_requests: 20}\n  - {weight: 90%", "for: 10m}\n  - {weight: 90%"
)


# Beside much else the champion gets slower under way, and the rollout pauses for it, as it should.
pytestmark = pytest.mark.quiet


@pytest.fixture(autouse=True)
def _native_is_there() -> None:
    need_native()


async def serve(running: Running, *plans: str) -> None:
    for text in plans or (PLAN,):
        await running.control.put_plan(text.encode())
    await running.control.put("scale", DOCUMENT.encode())


def place(folder: Path, challenger: Any) -> None:
    models.place(models.scale(2.0), folder, "scale", "1")
    models.place(challenger, folder, "scale", "2")


def test_a_good_challenger_is_promoted_without_anybody(tmp_path: Path) -> None:
    place(tmp_path, models.scale(3.0))

    async def work() -> None:
        async with running(tmp_path) as gateway:
            await serve(gateway)
            planned = await gateway.control.rollout_start(
                "scale", "v2", "quick", call=Call("ann", dry_run=True)
            )
            assert "shadow 100%" in planned["plan"]["text"]
            assert await gateway.view() is None
            await gateway.control.rollout_start("scale", "v2", "quick", call=ANN)
            view = await gateway.until(lambda view: view["phase"] != "progressing")
            assert view["phase"] == "promoted", view
            assert "No harm shown." in view["end"]["said"]
            assert [one["step"] for one in view["finished"]] == ["shadow 100%", "weight 50%", "weight 90%"]
            assert all(one["requests"] >= 20 for one in view["finished"])
            assert gateway.served() == {"v2": 10_000}
            kinds = [one["kind"] for one in await gateway.control.revisions("scale")]
            assert kinds == ["rollout_promote", *["rollout_step"] * 3, "rollout_start", "apply"]
            again = await gateway.control.put("scale", DOCUMENT.encode())
            assert gateway.served() == {"v2": 10_000}, again
            (told,) = await gateway.control.rollouts("scale")
            assert (told["id"], told["phase"], told["started_by"]) == ("r1", "promoted", "ann")
            assert gateway.refused == 0

    run(work)


def test_a_challenger_whose_runs_fail_is_rolled_back_and_stays_so(tmp_path: Path) -> None:
    place(tmp_path, models.failing())

    async def work() -> None:
        async with running(tmp_path) as gateway:
            await serve(gateway, PLAN.replace("  - {shadow: 100%, for: 1s, min_requests: 20}\n", ""))
            await gateway.control.rollout_start("scale", "v2", "quick", call=ANN)
            view = await gateway.until(lambda view: view["phase"] != "progressing")
            assert (view["phase"], view["end"]["reason"]) == ("rolled_back", "error_rate"), view
            assert gateway.served() == {"v1": 10_000}
            current = gateway.control.current("scale")
            assert current is not None
            assert [block.version for block in current.traffic.blocked] == ["v2"]
            assert "error_rate fails" in current.traffic.blocked[0].reason
            assert gateway.refused == 0

    run(work)


def test_a_crash_takes_the_weight_away_and_a_clean_restart_goes_on(tmp_path: Path) -> None:
    place(tmp_path, models.scale(3.0))

    async def work() -> None:
        async with running(tmp_path, clean=False) as gateway:
            await serve(gateway, HELD)
            await gateway.control.rollout_start("scale", "v2", "held", call=ANN)
            await gateway.until(lambda view: view["weight"] == 5_000)
        async with running(tmp_path) as gateway:
            view = await gateway.view()
            assert (view["phase"], view["pause"]["reason"]) == ("paused", "crash"), view
            assert gateway.served() == {"v1": 10_000}
            await gateway.control.rollout_resume("scale", call=ANN)
            assert gateway.served() == {"v1": 5_000, "v2": 5_000}
        async with running(tmp_path, clean=False) as gateway:
            view = await gateway.view()
            assert (view["phase"], view["weight"]) == ("progressing", 5_000)
            assert gateway.served() == {"v1": 5_000, "v2": 5_000}
            await gateway.until(lambda view: view["step"]["requests"] > 0)
        async with running(tmp_path) as gateway:
            view = await gateway.view()
            assert (view["phase"], view["end"]["reason"]) == ("rolled_back", "crash"), view
            assert gateway.served() == {"v1": 10_000}

    run(work)

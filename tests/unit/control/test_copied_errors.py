"""Errors on copies through the control plane on a fake data plane: what is counted in a step, and what becomes of the rollout.

Not here: what they prove (``unit/rollout/test_copies``), real ones (``e2e/test_rollout_harm``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.shadow_reports import empty
from unit.control.test_rollouts import ANN, PLAN, begun, look
from unit.control_harness import Gate, gateway, run


def copies(gate: Gate, failed: int, pairs: int = 0, since: str = "2026-11-30T01:00:00Z", **more: Any) -> None:
    """What the data plane tells of the challenger's copies from now on."""
    errors = {"backend_failed": failed} if failed else {}
    compared = {"pairs": pairs, "differing": 0, "rows": pairs, "differing_rows": 0}
    gate.native.shadow_reports = [
        {
            **empty(),
            "to": "v2",
            "since": since,
            "errors": errors,
            "pairs": pairs,
            "compared": compared,
            **more,
        }
    ]


async def in_shadow(gate: Gate, plan: str = PLAN) -> None:
    await begun(gate, plan)
    await gate.control.rollout_promote("digits", call=ANN)


@pytest.mark.parametrize("gates", ["rollback_if", "pause_if"])
def test_a_challenger_that_fails_on_every_copy_is_stopped_as_the_plan_says(
    tmp_path: Path, gates: str
) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            plan = PLAN.replace("rollback_if", gates)
            plan += "" if gates == "rollback_if" else "rollback_if: {availability: 1.5x}\n"
            await in_shadow(gate, plan)
            copies(gate, 0)
            assert (await look(gate))["phase"] == "progressing"
            copies(gate, 9)
            view = await look(gate)
            assert view["phase"] == "progressing"
            (gate_status,) = [one for one in view["gates"] if one["gate"] == "error_rate"]
            assert (gate_status["copies"], gate_status["challenger"]["bad"]) == (True, 9)
            copies(gate, 16)
            view = await look(gate)
            if gates == "rollback_if":
                assert (view["phase"], view["end"]["reason"]) == ("rolled_back", "error_rate")
                current = gate.control.current("digits")
                assert current is not None
                assert [block.version for block in current.traffic.blocked] == ["v2"]
            else:
                assert (view["phase"], view["pause"]["reason"]) == ("paused", "gate")

    run(work)


def test_requests_that_the_champion_failed_on_count_for_the_challenger(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await in_shadow(gate)
            copies(gate, 0)
            await look(gate)
            failed = {
                "requests": 17,
                "by_code": {},
                "shadow_answered": 5,
                "shadow_failed": 5,
                "inputs_lost": 7,
            }
            copies(gate, 16, champion_failed=failed)
            view = await look(gate)
            (status,) = [one for one in view["gates"] if one["gate"] == "error_rate"]
            assert (status["champion"]["bad"], status["challenger"]["bad"]) == (17, 21)
            assert view["phase"] == "progressing"
            copies(gate, 16)
            assert (await look(gate))["phase"] == "rolled_back"

    run(work)


def test_what_was_counted_before_the_step_is_no_evidence_in_it(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            copies(gate, 50)
            await in_shadow(gate)
            assert (await look(gate))["phase"] == "progressing"
            copies(gate, 59)
            assert (await look(gate))["phase"] == "progressing"
            copies(gate, 66)
            assert (await look(gate))["phase"] == "rolled_back"

    run(work)


def test_a_retry_counts_the_copies_that_it_gave_itself(tmp_path: Path) -> None:
    """The document shadows the same version, so that its counts outlive the rollout."""

    async def work() -> None:
        async with gateway(tmp_path) as gate:
            plan = PLAN.replace("rollback_if: {", "rollback_if: {disagreement: 2%, ")
            await in_shadow(gate, plan)
            copies(gate, 0)
            await look(gate)
            different = {"pairs": 100, "differing": 90, "rows": 100, "differing_rows": 90}
            copies(gate, 0, pairs=100, compared=different)
            view = await look(gate)
            assert (view["phase"], view["end"]["reason"]) == ("rolled_back", "disagreement")
            await gate.control.rollout_retry("digits", "v2", "careful", call=ANN)
            await look(gate)
            view = await look(gate)
            assert (view["phase"], view["step"]["what"]) == ("progressing", "shadow 10%")
            (status,) = [one for one in view["gates"] if one["gate"] == "disagreement"]
            assert (status["verdict"], status["challenger"]["n"]) == ("undecided", 0)
            copies(gate, 0, pairs=200, compared={**different, "pairs": 200, "differing": 180})
            assert (await look(gate))["phase"] == "rolled_back"

    run(work)


def test_counters_that_began_with_the_step_count_from_their_beginning(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await in_shadow(gate)
            copies(gate, 20, since=gate.store.now().isoformat())
            assert (await look(gate))["phase"] == "rolled_back"

    run(work)


def test_copies_that_succeed_take_the_rollout_on(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await in_shadow(gate)
            copies(gate, 0)
            await look(gate)
            copies(gate, 2, pairs=20)
            for _ in range(3):
                view = await look(gate)
            assert (view["step"]["what"], view["weight"]) == ("weight 5%", 500)

    run(work)

"""Moves of rollouts that the data plane refuses: how often they are tried, and what they leave in the history.

Not here: moves that the disk refuses (``test_rollouts``).
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from headgate.errors import HeadgateError, PolicyInvalid
from unit.control.test_rollouts import ANN, PLAN, answer, begun, look, on_trial, trial
from unit.control_harness import Gate, gateway, run, until
from unit.fake_native import FakeNative

SHORT = PLAN.replace("  - {shadow: 10%, for: 1m, min_requests: 10}\n", "")


async def looks(gate: Gate, times: int, seconds: float = 2.0) -> Any:
    """Looks of which some may fail; the last view."""
    for _ in range(times):
        with suppress(HeadgateError):
            await look(gate, seconds)
        await until(lambda: all(task.done() for task in gate.control._rollouts._moving.values()))
    return await gate.control.rollout_view("digits")


async def failed(gate: Gate) -> list[str]:
    """The kinds of the revisions that failed, oldest first."""
    rows = await gate.control.revisions("digits", limit=500)
    return [row["kind"] for row in reversed(rows) if row["status"] == "failed"]


def test_a_step_that_does_not_load_leaves_one_failed_revision_and_pauses(tmp_path: Path) -> None:
    async def work() -> None:
        async with gateway(tmp_path) as gate:
            await begun(gate, SHORT)
            gate.native.evicted, gate.native.failing = {"v2"}, {"v2": "the file is damaged"}
            view = await looks(gate, 20)
            assert (view["phase"], view["pause"]["reason"]) == ("paused", "load_failed")
            assert (
                "Step 1 of 3 (weight 5%) could not be entered: digits: the file is damaged. A promotion or a resume tries it again at once."
                in (view["pause"]["said"])
            )
            assert await failed(gate) == ["rollout_step"]
            assert gate.live()[1] == []
            # It is mended, and a person says so.
            gate.native.failing = {}
            await gate.control.rollout_promote("digits", call=ANN)
            view = await gate.control.rollout_view("digits")
            assert view is not None
            assert (view["phase"], gate.live()[1]) == ("progressing", [["v2", 0, 499]])

    run(work)


class Refusing(FakeNative):
    """Takes nothing."""

    refuses = False

    def apply(self, endpoint: bytes) -> int:
        if self.refuses:
            raise PolicyInvalid("digits: a limit that an earlier build did not know")
        return super().apply(endpoint)


def test_what_is_refused_again_and_again_is_tried_less_and_less_often(tmp_path: Path) -> None:
    async def work() -> None:
        native = Refusing()
        async with gateway(tmp_path, native) as gate:
            await begun(gate, SHORT)
            native.refuses = True
            view = await looks(gate, 200)
            # After 0, 4, 12, 28, 60, 124 and 252 s, and the step before.
            assert await failed(gate) == ["rollout_step", *["rollout_pause"] * 7]
            assert [said for said in view["missing"] if "a limit that an earlier build" in said]
            assert view["phase"] == "progressing"
            native.refuses = False
            # The longest pause is over.
            view = await looks(gate, 1, 600.0)
            assert (view["phase"], view["pause"]["reason"]) == ("paused", "load_failed")

    run(work)


def test_a_rollback_that_is_refused_is_tried_at_least_once_a_minute(tmp_path: Path) -> None:
    async def work() -> None:
        native = Refusing()
        async with gateway(tmp_path, native) as gate:
            await on_trial(gate)
            native.running["digits"] = trial(gate, 100)
            native.answer = answer("fail")
            native.refuses = True
            await looks(gate, 200)
            await gate.control.flush()
            # After 0, 4, 12, 28, 60 s, and then once a minute.
            assert await failed(gate) == ["rollout_rollback"] * 10
            native.refuses = False
            view = await looks(gate, 31)
            assert (view["phase"], gate.live()[1]) == ("rolled_back", [])

    run(work)

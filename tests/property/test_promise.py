"""The promise of ``false_rollbacks``: whatever a plan has and whatever becomes of its rollout, all tests that may stop it keep within it.

A test fails a challenger that is no worse with the probability of one over its threshold at most (Ville, 1939), so that the sum of these
over all tests of an attempt is what the plan promises.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.control.domain.rollout import interruptions
from headgate.control.domain.rollout.built_in import BUILT_IN_THRESHOLD
from headgate.control.domain.rollout.compared import copied_errors, pairs_to_judge, replay_seen
from headgate.control.domain.rollout.missing import replay_key
from headgate.control.domain.rollout.observation import Copies, question
from headgate.control.domain.rollout.plan import PlanGate, PlanStep, ResolvedPlan
from headgate.control.domain.rollout.promise import threshold
from headgate.control.domain.rollout.state import RolloutState
from headgate.errors import HeadgateError
from support.shadow_reports import replayed
from unit.rollout_harness import MINUTE, PLAN, Driver, daily, plan_of

GATES = (
    "error_rate",
    "availability",
    "latency.p95",
    "feedback.sale",
    "output_drift",
    "output_drift.score",
    "disagreement",
)
SHADOW = PlanStep(kind="shadow", slots=1_000, min_requests=1)
REPLAY = PlanStep(kind="replay", requests=100, min_requests=1)
WEIGHT = PlanStep(kind="weight", slots=2_500, min_requests=1)
PAIRS = {"output_drift": {"features": [], "left_out": 0}}
ERROR_RATE = PlanGate(gate="error_rate", effect="rollback", above=1.5)
DRIFT = PlanGate(gate="output_drift", effect="rollback", above=0.1)
OPERATIONS = ("look", "look", "promote", "pause", "resume", "resume", "restart", "crash", "restore")

effects = st.sampled_from(["rollback", "rollback", "pause", "report", None])


@st.composite
def plans(draw: st.DrawFn) -> ResolvedPlan:
    kinds = st.sampled_from([SHADOW, SHADOW, REPLAY, PlanStep(kind="pause")])
    steps = draw(st.lists(kinds, min_size=1, max_size=4))
    weights = [
        WEIGHT.model_copy(update={"slots": slots})
        for slots in draw(st.sets(st.integers(1, 9_999), max_size=2))
    ]
    gates = []
    for name in GATES:
        effect = draw(effects)
        if effect is not None:
            above = None if effect == "report" else 1.5
            gates.append(PlanGate(gate=name, effect=effect, above=above))
    promise = draw(st.sampled_from([0.0001, 0.01, 0.2]))
    return plan_of(
        *steps, *sorted(weights, key=lambda step: step.slots), gates=tuple(gates), false_rollbacks=promise
    )


class Watched:
    """A rollout, and how much of the promise each of its tests had so far. A test begins anew if its counts do."""

    def __init__(self, plan: ResolvedPlan) -> None:
        self.driver = Driver().start(plan)
        self.starts = 0
        self.earlier: list[RolloutState] = []
        self.shares: dict[tuple[Any, ...], float] = {}
        self.note()

    def note(self) -> None:
        state = self.driver.state
        self.earlier.append(state)
        if not state.active:
            return
        self._all_of("requests", (), question(state))
        counts = (state.step, state.step_begun_ms, self.starts)
        asked = pairs_to_judge(state, PAIRS)
        self._all_of("copies", counts, None if asked is None else asked[1])
        errors = copied_errors(state, Copies())
        if errors is not None and errors.threshold is not None and _stops(state, "error_rate"):
            self._add(("errors", *counts), 1 / errors.threshold)
        if state.replays:
            for status in replay_seen(replay_key(state), state, replayed()).gates:
                if status.most_chance is not None and _stops(state, status.gate):
                    self._add(("replay", replay_key(state)), status.most_chance)

    def _all_of(self, what: str, counts: tuple[Any, ...], asked: dict[str, Any] | None) -> None:
        gates = (
            []
            if asked is None
            else [(gate["gate"], gate.get("measure")) for gate in asked["gates"] if gate["above"] is not None]
        )
        for gate in gates:
            assert asked is not None
            self._add((what, gate, *counts), asked["false_rollbacks"] / len(gates))

    def _add(self, test: tuple[Any, ...], share: float) -> None:
        self.shares[test] = max(self.shares.get(test, 0.0), share)

    def do(self, operation: str) -> None:
        driver = self.driver
        driver.now += MINUTE
        with contextlib.suppress(HeadgateError):
            if operation == "restore":
                now, then = driver.state, self.earlier[len(self.earlier) // 2]
                found = interruptions.restored(now, then, (), "revision 1", driver.now)
                driver.live = replace(driver.live, rollout=found)
            else:
                getattr(driver, operation)()
        if operation in ("restart", "crash"):
            self.starts += 1
        self.note()


def _stops(state: RolloutState, gate: str) -> bool:
    return any(one.gate == gate and one.effect != "report" for one in state.plan.gates)


@settings(max_examples=100, deadline=None)
@given(plans(), st.lists(st.sampled_from(OPERATIONS), max_size=25))
def test_all_tests_of_a_rollout_together_have_no_more_than_the_promise(
    plan: ResolvedPlan, operations: list[str]
) -> None:
    watched = Watched(plan)
    for operation in operations:
        watched.do(operation)
    assert sum(watched.shares.values()) <= plan.false_rollbacks * (1 + 1e-9)


@pytest.mark.parametrize(
    "plan",
    [
        plan_of(SHADOW, WEIGHT, gates=(ERROR_RATE,)),
        plan_of(SHADOW, SHADOW, WEIGHT, gates=(ERROR_RATE, DRIFT)),
        daily(100_000.0),
        daily(500.0),
    ],
    ids=["copies", "two steps with copies", "built in", "with a replay"],
)
def test_a_rollout_that_is_resumed_again_and_again_keeps_within_the_promise(plan: ResolvedPlan) -> None:
    watched = Watched(plan)
    for operation in ["look", *["pause", "resume", "restart"] * 100]:
        watched.do(operation)
    tests = len(watched.shares)
    assert tests > 100
    found = sum(watched.shares.values())
    assert plan.false_rollbacks * 0.9 < found <= plan.false_rollbacks * (1 + 1e-9)


@pytest.mark.parametrize("requests", [0.0, 500.0, 100_000.0])
def test_the_built_in_plan_is_made_for_the_threshold_that_it_has(requests: float) -> None:
    plan = daily(requests)
    assert threshold(plan) == BUILT_IN_THRESHOLD == pytest.approx(500.0)


def test_a_plan_without_steps_on_pairs_has_the_whole_promise_for_requests() -> None:
    asked = question(Driver().start(plan_of(WEIGHT, gates=(ERROR_RATE, DRIFT))).state)
    assert asked is not None
    assert asked["false_rollbacks"] == PLAN.false_rollbacks

"""Errors on copies: what a step that gives copies and no weight makes of requests that the challenger alone failed on.

Not here: how they are counted (``unit/control/test_copied_errors``).
"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.control.domain.rollout.actions import Rollback
from headgate.control.domain.rollout.compared import copied_errors, paired_e_value
from headgate.control.domain.rollout.observation import Copies
from headgate.control.domain.rollout.plan import PlanGate, PlanStep, ResolvedPlan
from headgate.control.domain.rollout.state import GateStatus
from unit.rollout_harness import ERROR_RATE, HOUR, Driver, plan_of

SHADOW = PlanStep(kind="shadow", slots=1_000, for_ms=HOUR, min_requests=500)
WEIGHT = PlanStep(kind="weight", slots=2_500, for_ms=HOUR, min_requests=500)
PLAN = plan_of(SHADOW, WEIGHT, gates=(ERROR_RATE,))
counts = st.integers(0, 400)


def judged(plan: ResolvedPlan = PLAN, step: int = 0, **copies: int) -> GateStatus | None:
    return copied_errors(Driver().start(plan).until(step).state, Copies(**copies))


def verdict(plan: ResolvedPlan = PLAN, **copies: int) -> str:
    found = judged(plan, **copies)
    assert found is not None
    return found.verdict


@pytest.mark.parametrize(
    ("copies", "expected"),
    [
        ({}, "undecided"),
        ({"pairs": 499}, "undecided"),
        ({"pairs": 500}, "pass"),
        # A few errors prove nothing, and are told.
        ({"pairs": 500, "errors": 3}, "pass"),
        ({"pairs": 0, "errors": 12}, "undecided"),
        ({"pairs": 0, "errors": 13}, "fail"),
        ({"pairs": 500, "errors": 30}, "fail"),
        # The champion errs as often, on the same requests or on others.
        ({"pairs": 500, "errors": 10, "both": 50}, "pass"),
        ({"pairs": 500, "errors": 30, "answered": 30}, "pass"),
        ({"pairs": 500, "errors": 60, "answered": 20}, "fail"),
        # Runs at the lowest priority may be too slow through no fault of their own.
        ({"pairs": 0, "errors": 90, "timeouts": 90}, "undecided"),
        ({"pairs": 500, "errors": 90, "timeouts": 90}, "pass"),
        ({"pairs": 0, "errors": 103, "timeouts": 90}, "fail"),
    ],
)
def test_a_challenger_fails_on_copies_if_chance_does_not_explain_its_errors(
    copies: dict[str, int], expected: str
) -> None:
    assert verdict(**copies) == expected


def test_the_threshold_is_the_promise_over_the_tests_of_the_plan_and_more_with_each_beginning() -> None:
    four = plan_of(
        SHADOW,
        WEIGHT,
        gates=(ERROR_RATE, *(PlanGate(gate=f"feedback.{n}", effect="rollback") for n in "abc")),
    )
    found = judged(four, errors=14)
    assert found is not None
    # Four gates on requests and one on copies, and half of its part for the first beginning.
    assert (found.threshold, found.verdict) == (1_000, "undecided")
    assert verdict(four, errors=15) == "fail"
    driver = Driver().start(four).until(0)
    driver.pause()
    driver.resume()
    driver.restart()
    again = copied_errors(driver.state, Copies(errors=15))
    assert again is not None
    assert (driver.state.beginnings, again.threshold, again.verdict) == (3, 6_000, "undecided")


def test_copies_of_the_document_are_not_judged_after_a_crash_until_a_resume() -> None:
    driver = Driver().start(PLAN).until(0)
    driver.crash()
    assert copied_errors(driver.state, Copies(errors=90)) is None
    driver.resume()
    found = copied_errors(driver.state, Copies(errors=90))
    assert found is not None
    assert (found.threshold, found.verdict) == (1_200, "fail")


def test_strict_asks_for_the_limit_itself_and_few_errors_may_be_ignored() -> None:
    strict = plan_of(SHADOW, WEIGHT, gates=(ERROR_RATE.model_copy(update={"strict": True}),))
    assert (
        verdict(pairs=500, errors=60, answered=20),
        verdict(strict, pairs=500, errors=60, answered=20),
    ) == ("fail", "pass")
    assert verdict(strict, pairs=500, errors=90, answered=20) == "fail"
    lenient = plan_of(SHADOW, WEIGHT, gates=(ERROR_RATE.model_copy(update={"ignore_below": 0.1}),))
    assert (verdict(lenient, pairs=500, errors=50), verdict(lenient, pairs=500, errors=60)) == (
        "pass",
        "fail",
    )


def test_it_is_judged_in_steps_of_copies_alone() -> None:
    assert judged(step=1, pairs=500) is None
    assert judged(plan_of(WEIGHT, SHADOW), step=1, pairs=500) is None
    assert judged(plan_of(SHADOW, WEIGHT, gates=()), pairs=500) is None
    assert copied_errors(Driver().start(PLAN).state, None) is None
    reported = plan_of(SHADOW, WEIGHT, gates=(PlanGate(gate="error_rate", effect="report"),))
    found = judged(reported, pairs=500, errors=90)
    assert found is not None
    assert (found.verdict, found.challenger.bad) == ("undecided", 90)


@pytest.mark.parametrize("effect", ["rollback", "pause"])
@pytest.mark.parametrize("paused", [False, True])
def test_a_challenger_that_fails_on_every_copy_is_stopped_as_the_plan_says(
    effect: str, *, paused: bool
) -> None:
    driver = (
        Driver()
        .start(plan_of(SHADOW, WEIGHT, gates=(ERROR_RATE.model_copy(update={"effect": effect}),)))
        .until(0)
    )
    if paused:
        driver.pause()
    copies = Copies(errors=20)
    found = copied_errors(driver.state, copies)
    assert found is not None
    driver.look(copies=copies, gates=(found,), requests=0)
    if effect == "rollback":
        assert driver.state.phase == "rolled_back"
        move = driver.moved()[-1]
        assert isinstance(move, Rollback)
        assert move.words == (
            "error_rate fails: champion 0 of 20, challenger 20 of 20; evidence 31 150, needed 400; of copies of the champion's requests."
        )
    else:
        assert driver.state.pause is not None
        assert driver.state.pause.reason == ("manual" if paused else "gate")


def test_a_step_is_not_left_before_its_errors_are_known() -> None:
    driver = Driver().start(PLAN).until(0)
    for _ in range(120):
        driver.look(gates=(), requests=0)
    assert driver.state.step == 0
    driver.until(1)
    assert driver.state.step == 1


@given(counts, counts, st.sampled_from([1.0, 1.5, 3.0]))
def test_the_evidence_is_a_fair_wager_against_a_challenger_at_the_limit(
    challenger: int, champion: int, limit: float
) -> None:
    share = limit / (1 + limit)
    now = paired_e_value(challenger, champion, limit)
    after = share * paired_e_value(challenger + 1, champion, limit)
    after += (1 - share) * paired_e_value(challenger, champion + 1, limit)
    assert math.isclose(after, now, rel_tol=1e-9)


def test_evidence_begins_at_one_and_stays_a_number() -> None:
    assert paired_e_value(0, 0) == pytest.approx(1.0)
    assert paired_e_value(4, 3) == pytest.approx(
        sum((2 * d / (1 + d)) ** 4 * (2 / (1 + d)) ** 3 for d in (1.25, 1.5, 2, 3, 5, 10)) / 6
    )
    assert math.isfinite(paired_e_value(10**9, 0))
    assert paired_e_value(0, 10**9) == 0.0

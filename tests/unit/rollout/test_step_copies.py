"""Copies of a step: what a shadow counted before it, in an earlier rollout too, is no evidence in it.

Not here: looks at a control plane (``unit/control/test_copied_errors``).
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import _native
from headgate.control.domain.rollout.compared import copied, distributions, pairs_to_judge
from headgate.control.domain.rollout.plan import PlanGate, PlanStep
from headgate.control.domain.rollout.step_copies import (
    StepCopies,
    difference_interval,
    report_of,
    seen_in_step,
    share_interval,
)
from support.shadow_reports import empty, report
from support.tools import need_native
from unit.rollout_harness import HOUR, Driver, plan_of

EARLY, LATE = "2026-11-30T01:00:00Z", "2026-11-30T05:00:00Z"
BEGUN_MS = 1_796_007_600_000  # 2026-11-30T03:00:00Z
DRIFT = PlanGate(gate="output_drift", effect="rollback", above=0.1)
DISAGREEMENT = PlanGate(gate="disagreement", effect="rollback", above=0.02)
PLAN = plan_of(
    PlanStep(kind="shadow", slots=1_000, for_ms=HOUR, min_requests=100), gates=(DRIFT, DISAGREEMENT)
)


def copies(pairs: int, moved: int = 0, dropped: int = 0, since: str = EARLY, **more: Any) -> dict[str, Any]:
    """A report on so many pairs in three bins, of which some moved from the first to the last one, and differ."""
    sums = {
        "information": float(pairs), "sums": [-moved, 0.0, moved], "squares": [moved, 0.0, moved], "squares_below": [moved, moved],
    }  # fmt: skip
    values = {"champion": pairs, "challenger": pairs}
    feature = {"output": "score", "column": "0", "bins": 3, "values": values, "sums": {"challenger": sums}}
    return {
        **empty(),
        "since": since,
        "pairs": pairs,
        "compared": {"pairs": pairs, "differing": moved, "rows": pairs, "differing_rows": moved},
        "dropped": {**empty()["dropped"], "late": dropped},
        "output_drift": {"features": [feature], "left_out": 0},
        **more,
    }


def judged(told: dict[str, Any]) -> dict[str, str]:
    need_native()
    rollout = Driver().start(PLAN).until(0).state
    asked = pairs_to_judge(rollout, told)
    assert asked is not None
    answer = json.loads(_native.judge(*(json.dumps(one) for one in asked)))
    (drift,) = distributions(answer, told)
    others = copied(rollout, told)
    assert others is not None
    return {drift.key: drift.verdict, others.key: others.verdict}


def test_disagreement_is_not_judged_on_copies_of_the_document() -> None:
    driver = Driver().start(PLAN).until(0)
    told = copies(500, moved=500)
    told = report_of(seen_in_step(None, told, BEGUN_MS - HOUR * 24), told)

    def found() -> str:
        status = copied(driver.state, told)
        assert status is not None
        return status.verdict

    assert found() == "fail"
    driver.crash()
    assert found() == "undecided"
    driver.resume()
    assert found() == "fail"


def test_a_retry_is_not_judged_on_the_copies_of_the_rollout_before_it() -> None:
    before = copies(400, moved=300)
    first = seen_in_step(None, before, BEGUN_MS)
    told = report_of(first, before)
    assert judged(told) == {"output_drift": "undecided", "disagreement": "undecided"}
    assert (
        first.copies.pairs,
        told["disagreement"]["share"],
        told["output_drift"]["features"][0]["values"],
    ) == (
        0,
        None,
        {"champion": 0, "challenger": 0},
    )
    after = copies(1_200, moved=300)
    second = seen_in_step(first, after, BEGUN_MS)
    assert judged(report_of(second, after)) == {"output_drift": "pass", "disagreement": "pass"}
    worse = copies(1_600, moved=800)
    assert judged(report_of(seen_in_step(second, worse, BEGUN_MS), worse)) == {
        "output_drift": "fail",
        "disagreement": "fail",
    }


def test_drops_of_the_step_alone_leave_its_pairs_undecided() -> None:
    before = copies(100, dropped=900)
    first = seen_in_step(None, before, BEGUN_MS)
    after = copies(1_100, dropped=920)
    told = report_of(seen_in_step(first, after, BEGUN_MS), after)
    assert told["disagreement"]["undecided"] is False
    assert judged(told)["output_drift"] == "pass"
    busy = copies(1_100, dropped=960)
    assert report_of(seen_in_step(first, busy, BEGUN_MS), busy)["disagreement"]["undecided"] is True


def test_counters_that_began_with_the_step_are_told_as_they_are() -> None:
    found = report(since=LATE)
    seen = seen_in_step(None, found, BEGUN_MS)
    told = report_of(seen, found)
    for name in ("share", "interval"):
        assert told["disagreement"][name] == pytest.approx(found["disagreement"][name], abs=1e-4)
        assert told["excess"][name] == pytest.approx(found["excess"][name], abs=1e-3)
    assert told["disagreement"]["undecided"] is False
    assert (seen.copies.errors, seen.copies.timeouts, seen.copies.answered, seen.copies.both) == (5, 1, 13, 1)
    assert told["nan"] == {"champion": 0, "shadow": 3, "both": 0}
    drifting = copies(400, moved=300, since=LATE)
    assert (
        report_of(seen_in_step(None, drifting, BEGUN_MS), drifting)["output_drift"]
        == drifting["output_drift"]
    )


def test_counters_that_begin_anew_within_a_step_go_on_where_they_were() -> None:
    first = seen_in_step(None, copies(1_000, moved=10), BEGUN_MS)
    then = seen_in_step(first, copies(1_500, moved=40), BEGUN_MS)
    anew = seen_in_step(then, copies(3, moved=1, since=LATE), BEGUN_MS)
    latest = copies(700, moved=9, since=LATE)
    found = report_of(seen_in_step(anew, latest, BEGUN_MS), latest)
    assert found["compared"] == {"pairs": 1_200, "differing": 39}
    assert found["output_drift"]["features"][0]["sums"]["challenger"]["sums"] == [-39.0, 0.0, 39.0]
    # Another baseline has other bins, in which nothing was counted yet.
    other = copies(5, since=LATE)
    sums = {"information": 5.0, "sums": [0.0] * 4, "squares": [0.0] * 4, "squares_below": [0.0] * 3}
    other["output_drift"]["features"][0] |= {"bins": 4, "sums": {"challenger": sums}}
    told = report_of(seen_in_step(then, other, BEGUN_MS), other)
    assert told["output_drift"]["features"][0]["sums"]["challenger"] == sums
    assert told["compared"]["pairs"] == 505


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.booleans()), min_size=1, max_size=20))
def test_the_counts_of_a_step_are_what_came_since_its_first_look(looks: list[tuple[int, int, bool]]) -> None:
    seen: StepCopies | None = None
    pairs = moved = counters = total = 0
    for at, (same, other, is_anew) in enumerate(looks):
        if is_anew and at:
            pairs, moved, counters = 0, 0, counters + 1
        pairs, moved = pairs + same + other, moved + other
        total += same + other if at else 0
        now = copies(pairs, moved, since=f"2026-11-30T01:00:{counters:02}Z")
        seen = seen_in_step(seen, now, BEGUN_MS)
        assert seen.copies.pairs == total
    assert seen is not None


def test_intervals_match_those_of_the_data_plane() -> None:
    assert share_interval(12, 1_000) == pytest.approx((0.0068776, 0.0208573), rel=2e-4)
    assert share_interval(0, 500) == pytest.approx((0.0, 0.0076243), rel=2e-4)
    assert share_interval(7, 7)[1] == 1.0
    assert difference_interval((22, 5_000), (90, 45_000)) == pytest.approx((0.000839, 0.004684), rel=2e-3)
    assert difference_interval((150, 5_000), (0, 500)) == pytest.approx((0.021207, 0.035101), rel=2e-3)

"""Gates ``feedback.NAME``: they are asked of the judge, their answers are read, and what is said of them has means and no ratios."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate import _native
from headgate.control.domain.rollout import words
from headgate.control.domain.rollout.observation import judged
from headgate.control.domain.rollout.plan import PlanGate, PlanStep, judged_by_trial
from headgate.control.domain.rollout.state import GateStatus
from support.tools import need_native
from unit.rollout_harness import HOUR, plan_of

GATE = PlanGate(gate="feedback.sale", effect="rollback", above=0.02)
PLAN = plan_of(PlanStep(kind="weight", slots=2_500, for_ms=HOUR), gates=(GATE,))


def told(verdict: str = "fail", **fields: Any) -> GateStatus:
    """As the judge answers it."""
    arm = {"units": 900, "n": 900, "bad": 0, "mean": 0.3, "repeated": 4, "answers": 5_000}
    return GateStatus.model_validate(
        {
            "gate": "feedback.sale", "measure": None, "verdict": verdict, "reason": None, "champion": arm,
            "challenger": {**arm, "mean": 0.25}, "ratio": None, "difference": -0.05, "interval": [-0.08, -0.02],
            "e_value": 512.0, "threshold": 100.0, "need": None, "detectable": 0.04, "caught": [], "since_ms": None,
            **fields,
        }
    )  # fmt: skip


def test_the_judge_is_asked_about_them_and_its_answer_is_read() -> None:
    need_native()
    (asked,) = judged_by_trial(PLAN)
    assert (asked["gate"], asked["above"]) == ("feedback.sale", 0.02)
    question = {"challenger": "v8", "gates": [asked], "false_rollbacks": 0.01, "blocks_ms": []}
    answer = json.loads(_native.judge("null", json.dumps(question)))
    (status,) = judged(answer)["gates"]
    assert (status.key, status.verdict, status.difference) == (GATE.key, "undecided", None)


def test_a_gate_that_is_only_shown_is_not_asked_about() -> None:
    shown = PlanGate(gate="feedback.sale", effect="report")
    assert judged_by_trial(plan_of(PlanStep(kind="weight", slots=2_500, for_ms=HOUR), gates=(shown,))) == []


def test_a_status_outlives_json_with_its_means() -> None:
    status = told()
    assert GateStatus.model_validate_json(status.model_dump_json()) == status
    assert (status.difference, status.harmful) == (-0.05, True)
    assert status.model_dump()["challenger"]["mean"] == 0.25


def test_harm_is_said_with_the_difference() -> None:
    assert words.harm([told()], [GATE]) == (
        "feedback.sale fails: difference of feedback.sale -0.05, limit 0.02, -0.08 to -0.02 (anytime 95 %); "
        "champion 900 values, challenger 900; evidence 512, needed 100."
    )


def test_a_promotion_says_what_would_have_been_caught() -> None:
    passed = told("pass", difference=0.01, interval=[-0.02, 0.04])
    assert words.promotion([passed], []) == (
        "No harm shown. Difference of feedback.sale -0.02 to 0.04 (anytime 95 %). "
        "A difference of 0.04 would have been caught in 80 % of such rollouts."
    )


@pytest.mark.parametrize(("reason", "said"), [("no hour has both", "no hour has both"), (None, "900 values")])
def test_what_is_missing_is_said(reason: str | None, said: str) -> None:
    assert words.undecided(told("undecided", reason=reason), GATE) == f"feedback.sale is undecided ({said})"

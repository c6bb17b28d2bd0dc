"""What a rollout says: of its evidence, and before anything moves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from headgate.control.domain.rollout import words
from headgate.control.domain.rollout.built_in import without_replay
from headgate.control.domain.rollout.observation import PoolLoad
from headgate.control.domain.rollout.plan import HARM_GATES, PlanGate, PlanStep, ResolvedPlan
from headgate.control.domain.rollout.preview import Facts, Problem, preview_text, problems, timeline
from headgate.control.domain.rollout.state import ArmNumbers, Trialled
from headgate.documents.hours import parse_hours
from unit.rollout_harness import DIGESTS, HOUR, MINUTE, PLAN, daily, needs, plan_of, status

FACTS = Facts("v7", DIGESTS, needs, requests_a_day=1_000_000.0, sticky=True, captures=True)
CHALLENGER = Trialled(name="v8", digest=DIGESTS["v8"])
WEIGHT = PlanStep(kind="weight", slots=2_500, for_ms=HOUR, min_requests=500)


def test_a_promotion_says_what_was_shown() -> None:
    caught = [
        {"ratio": 2.0, "probability": 0.1},
        {"ratio": 5.0, "probability": 0.84},
        {"ratio": 10.0, "probability": 1.0},
    ]
    shown = status("pass", caught=caught, detectable=4.8)
    assert words.promotion([shown], []) == (
        "No harm shown. Error ratio 0.30-8.4 (anytime 95 %). 5x would have been caught in 84 % of such rollouts."
    )


def test_a_promotion_without_data_says_so() -> None:
    assert words.promotion([], ["error_rate"], "ann") == (
        "No harm shown. No request of the challenger was compared with the champion's. "
        "Undecided then: error_rate. Promoted by ann."
    )


def test_a_promotion_past_a_failure_does_not_say_that_no_harm_was_shown() -> None:
    assert words.promotion([status("fail")], []).startswith("error_rate failed. Error ratio")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"detectable": 3.4}, "3.4x would have been caught in 80 % of such rollouts."),
        (
            {"caught": [{"ratio": 2.0, "probability": 0.04}]},
            "2x would have been caught in 4 % of such rollouts.",
        ),
        (
            {"challenger": {"units": 0, "n": 0, "bad": 0}, "interval": (None, None)},
            "No request of the challenger was compared with the champion's.",
        ),
        (
            {"interval": (0.0, None)},
            "The error ratio is not known: 20 of 10 000 requests of the champion failed and 2 of 1 000 of the challenger.",
        ),
        ({"interval": (0.3, None)}, "Error ratio 0.30 or more (anytime 95 %)."),
        ({}, "No harm shown. Error ratio 0.30-8.4 (anytime 95 %)."),
    ],
)
def test_a_promotion_says_no_more_than_is_known(fields: dict[str, Any], says: str) -> None:
    said = words.promotion([status("pass", **fields)], [])
    assert said.endswith(says)


def test_evidence_beyond_a_million_has_no_digits() -> None:
    told = words.harm([status("fail", e_value=4.5e17)], HARM_GATES)
    assert "; evidence over 1 000 000, needed 600." in told
    assert "; evidence 800, needed 600." in words.harm([status("fail")], HARM_GATES)


def test_no_word_promises_safety() -> None:
    said = [
        words.promotion([status(verdict, detectable=2.0)], ["error_rate"], "ann")
        for verdict in ("pass", "fail", "undecided", "error")
    ]
    said += [words.harm([status("fail")], HARM_GATES), words.both_ways("its breaker is open")]
    said += [words.undecided(status(verdict), HARM_GATES[0]) for verdict in ("undecided", "error", "fail")]
    said += [preview_text(daily(n), CHALLENGER, replace(FACTS, requests_a_day=n)) for n in (10.0, 500.0, 1e6)]
    assert not [one for one in said if "safe" in one.lower()]


def test_an_undecided_gate_says_what_it_needs() -> None:
    gate = HARM_GATES[1]
    told = status("undecided", "latency.p95", measure="run", n=812)
    assert words.undecided(told, gate) == "latency.p95 run is undecided (812 requests; 3x shows after 2 500)"
    assert words.undecided(None, gate) == "latency.p95 run has no data"
    assert words.undecided(status("error", reason="minutes were dropped"), gate).endswith(
        ": minutes were dropped"
    )


def test_harm_names_each_gate_with_its_numbers() -> None:
    slow = status(
        "fail", "latency.p95", measure="reply", ratio=1.9, interval=None, e_value=None,
        challenger=ArmNumbers(units=90, n=100, bad=30),
    )  # fmt: skip
    assert words.harm([slow], HARM_GATES) == (
        "latency.p95 reply fails: ratio of latency.p95 (reply) 1.9, limit 1.2; champion 20 of 10 000, challenger 30 of 100."
    )


# === the built-in plan ===


def labels(plan: ResolvedPlan) -> list[str]:
    return [step.label for step in plan.steps]


def test_the_built_in_plan_needs_nothing() -> None:
    plan = daily(1_000_000)
    assert labels(plan) == ["shadow 10%", "weight 1%", "weight 5%", "weight 25%", "weight 50%", "promote"]
    assert [gate.key for gate in plan.with_effect("rollback")] == [
        "error_rate", "latency.p95 run", "latency.p95 reply", "availability",
    ]  # fmt: skip
    assert {gate.gate for gate in plan.with_effect("report")} == {"disagreement", "output_drift"}
    assert plan.notes == ()
    for step in plan.steps[1:5]:
        assert step.min_requests >= needs(step.slots, 5.0) - 1


@pytest.mark.parametrize("captures", [True, False])
@pytest.mark.parametrize(
    ("a_day", "weights", "left_out"),
    [
        (900, ["weight 5%", "weight 25%", "weight 50%"], "weight 1%"),
        (200, ["weight 50%"], "weight 1%, 5%, 25%"),
        (20, ["pause"], "weight 1%, 5%, 25%, 50%"),
    ],
)
def test_low_traffic_skips_what_cannot_see_tenfold_errors_and_says_so(
    a_day: float, weights: list[str], left_out: str, *, captures: bool
) -> None:
    plan = daily(a_day, captures=captures)
    before = ["replay 10000", "shadow 100%"] if captures else ["shadow 100%"]
    assert labels(plan) == [*before, *weights, "promote"]
    # Every weight that stays shows a tenfold ratio within a week.
    for step in plan.steps:
        if step.kind == "weight":
            assert step.min_requests >= needs(step.slots, 10.0) - 1
            assert step.min_requests <= a_day * 7 * step.slots / 10_000
    assert (
        f"left out: {left_out}, because within 7 days it would not show a tenfold error ratio" in plan.notes
    )
    assert "fewer than 1000 requests a day: the challenger gets copies of all requests first" in plan.notes
    no_replay = "nothing is captured, so there is no replay: capture: would allow one"
    assert (no_replay in plan.notes) != captures
    by_person = "no weight shows a tenfold error ratio: a person decides after the shadow"
    assert (by_person in plan.notes) == (weights == ["pause"])
    # They are told beside the preview, and once.
    told = preview_text(plan, CHALLENGER, replace(FACTS, requests_a_day=a_day))
    assert not [note for note in plan.notes if note in told]
    shadow = plan.steps[len(before) - 1]
    assert shadow.min_requests == min(500, a_day * 7)


def test_enough_traffic_needs_no_replay() -> None:
    assert labels(daily(1_000, captures=True)) == labels(daily(1_000, captures=False))
    assert labels(daily(1_000))[0] == "shadow 10%"


def test_a_replay_without_requests_is_left_out_with_its_reason() -> None:
    plan = without_replay(daily(900), "nothing fits")
    assert labels(plan) == labels(daily(900, captures=False))
    assert plan.notes[-1] == "there is no replay: nothing fits"


# === preview ===


def test_a_preview_tells_slots_times_and_what_each_step_would_see() -> None:
    plan = plan_of(PlanStep(kind="shadow", slots=1_000, for_ms=HOUR, min_requests=500), WEIGHT)
    steps = timeline(plan, CHALLENGER.name, FACTS)
    assert [(one.slots, one.time_ms) for one in steps] == [(0, HOUR), (2_500, HOUR), (7_500, 0)]
    assert steps[1].requests == 10_417
    assert steps[1].smallest_ratio == 2.5
    assert steps[1].words == (
        "2 500 slots (25% of keys) move from v7 to v8; about 60 min, 10 417 requests of it. "
        "It catches an error ratio of 2.5x."
    )
    text = preview_text(plan, CHALLENGER, FACTS)
    assert "At the present traffic it takes about 2 h with traffic" in text
    assert (
        "Rolled back if harm is shown by: error_rate; a challenger that is no worse is rolled back by them in 1 % of rollouts at most."
        in text
    )
    disagreement = PlanGate(gate="disagreement", effect="rollback", above=0.02)
    both = plan.model_copy(update={"gates": (*plan.gates, disagreement)})
    assert "at most, not counting disagreement, for which nothing is promised." in preview_text(
        both, CHALLENGER, FACTS
    )


def found(plan: ResolvedPlan = PLAN, challenger: str = "v8", **facts: Any) -> dict[str, Problem]:
    return {one.path: one for one in problems(plan, challenger, replace(FACTS, **facts))}


def test_a_good_rollout_has_no_problem() -> None:
    plan = plan_of(PlanStep(kind="weight", slots=2_500, for_ms=24 * HOUR, min_requests=500))
    assert found(plan) == {}


def test_contradictions_refuse_and_doubts_warn() -> None:
    assert (
        found(challenger="v88")["challenger"].words == '"v88" is not among the versions; did you mean "v8"?'
    )
    assert found(challenger="v7")["challenger"].refuses
    gates = (PlanGate(gate="feedback.sale", effect="rollback", above=0.1),)
    plan = plan_of(WEIGHT, gates=gates)
    assert found(plan, feedback=frozenset({"click"}))["rollback_if.feedback.sale"].words == (
        'no feedback "sale" is declared (feedback: of the endpoint has click)'
    )
    assert "rollback_if.feedback.sale" not in found(plan, feedback=frozenset({"sale"}))
    reported = plan_of(WEIGHT, gates=(PlanGate(gate="feedback.sale", effect="report"),))
    assert not found(reported)["report.feedback.sale"].refuses
    replayed = plan_of(PlanStep(kind="replay", requests=9), WEIGHT)
    assert found(replayed, captures=False)["steps[0]"].refuses
    compared = plan_of(WEIGHT, gates=(PlanGate(gate="disagreement", effect="pause", above=0.1),))
    assert found(compared)["pause_if.disagreement"].refuses


def test_a_step_that_takes_more_than_a_week_is_told() -> None:
    plan = plan_of(PlanStep(kind="weight", slots=100, for_ms=MINUTE, min_requests=500))
    assert (
        "reaches 500 requests in 50 days"
        in found(plan, requests_a_day=1_000.0)["steps[0].min_requests"].words
    )
    assert "gets no request" in found(plan, requests_a_day=0.0)["steps[0]"].words
    assert "steps[0]" not in found(plan, requests_a_day=None)


def test_a_limit_that_is_not_seen_before_half_of_the_traffic_is_told() -> None:
    problem = found(plan_of(WEIGHT))["rollback_if.error_rate"]
    assert not problem.refuses
    assert (
        "1.5x the champion's error rate is not caught before 50%: the steps before it catch 2.5x"
        in problem.words
    )


def test_no_sticky_key_and_no_room_are_told() -> None:
    assert "errors that come together are not covered" in found(sticky=False)["traffic.sticky"].words
    heavy = PoolLoad(busy=0.5, per_second=100, champion_run_s=0.001, challenger_run_s=0.031, threads=2)
    assert "busy: it stays undecided" in found(load=heavy)["steps[2]"].words


def test_a_preview_tells_how_busy_the_threads_get() -> None:
    plan = plan_of(WEIGHT)
    load = PoolLoad(busy=0.2, per_second=100, champion_run_s=0.001, challenger_run_s=0.005, threads=2)
    text = preview_text(plan, CHALLENGER, replace(FACTS, load=load))
    assert "The threads are 20 % busy, and would be 40 % busy with all requests at v8." in text.splitlines()
    text = preview_text(plan, CHALLENGER, replace(FACTS, busy=0.2))
    assert (
        "What v8 adds is not known before both versions have answered requests, and some came lately" in text
    )
    assert "The threads are 20 % busy." in text
    assert "busy" not in preview_text(plan, CHALLENGER, FACTS)


def test_hours_and_people_are_in_the_preview() -> None:
    plan = plan_of(
        WEIGHT, PlanStep(kind="approve", role="approver"), PlanStep(kind="pause"),
        hours=parse_hours("mon-thu 09:00-16:00 UTC"),
    )  # fmt: skip
    text = preview_text(plan, CHALLENGER, replace(FACTS, requests_a_day=None))
    assert "It advances within mon-thu 09:00-16:00 UTC; it is rolled back at any time." in text
    assert "not the one who started it" in text
    assert "How long it takes is not known: no request came lately." in text


@pytest.mark.parametrize(
    ("kinds", "besides"),
    [
        ([], ""),
        (["approve"], ", plus an approval"),
        (["approve", "approve", "pause"], ", plus 2 approvals and a pause that a person ends"),
        (
            ["replay", "approve", "pause", "pause"],
            ", plus the replay, an approval and 2 pauses that a person ends",
        ),
    ],
)
def test_the_time_of_a_plan_names_what_it_leaves_out(kinds: list[Any], besides: str) -> None:
    plan = plan_of(WEIGHT, *(PlanStep(kind=kind, role="approver", requests=9) for kind in kinds))
    text = preview_text(plan, CHALLENGER, FACTS)
    assert f"it takes about 60 min with traffic{besides}, if nothing is undecided." in text

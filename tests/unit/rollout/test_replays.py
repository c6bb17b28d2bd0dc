"""Steps that replay: what a replay's report says of gates, and what becomes of the rollout.

Not here: how replays are begun, followed and ended (``unit/control/test_step_replays``), real ones (``e2e/test_rollout_replay``).
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.control.domain.rollout import compared
from headgate.control.domain.rollout.actions import Advance, GiveBack, StartReplay
from headgate.control.domain.rollout.compared import binomial_tail, replay_seen
from headgate.control.domain.rollout.missing import replay_key
from headgate.control.domain.rollout.observation import Observation, Replay
from headgate.control.domain.rollout.plan import PlanGate, PlanStep, ResolvedPlan, resolve
from headgate.control.domain.rollout.state import GateStatus
from headgate.documents.rollout import RolloutPlan
from support.shadow_reports import replayed
from unit.rollout_harness import ERROR_RATE, HOUR, Driver, plan_of

REPLAY = PlanStep(kind="replay", requests=1_000, min_requests=500)
WEIGHT = PlanStep(kind="weight", slots=2_500, for_ms=HOUR, min_requests=500)
DISAGREEMENT = PlanGate(gate="disagreement", effect="rollback", above=0.02)
GATES = (ERROR_RATE, DISAGREEMENT)
PLAN = plan_of(REPLAY, WEIGHT, gates=GATES)


def seen_in(plan: ResolvedPlan, report: dict[str, Any]) -> Replay:
    return replay_seen("k", Driver().start(plan).until(0).state, report)


def verdicts(plan: ResolvedPlan = PLAN, **report: Any) -> dict[str, str]:
    seen = seen_in(plan, replayed(**report))
    return {status.gate: status.verdict for status in seen.gates}


def look(driver: Driver, report: dict[str, Any] | None) -> Advance:
    """One look at a rollout in its replay step."""
    key = replay_key(driver.state)
    seen = None if report is None else replay_seen(key, driver.state, report)
    return driver.look(replay=seen, gates=() if seen is None else seen.gates, requests=0)


def in_replay(plan: ResolvedPlan = PLAN) -> Driver:
    driver = Driver().start(plan)
    entered = look(driver, None)
    assert [one for one in entered.actions if isinstance(one, StartReplay)] == [
        StartReplay(replay_key(driver.state), 1_000)
    ]
    return driver


# === verdicts ===


def test_the_same_answers_pass_and_others_fail_beyond_the_noise_floor() -> None:
    assert verdicts() == {"error_rate": "pass", "disagreement": "pass"}
    assert verdicts(differing=200)["disagreement"] == "fail"
    # The estimate is above the limit, and its interval is not: more pairs would tell.
    assert verdicts(pairs=100, differing=2, excess={"share": 0.03, "interval": [0.0, 0.08]})[
        "disagreement"
    ] == ("undecided")
    noisy = replayed(differing=200, excess={"share": 0.01, "interval": [-0.02, 0.04]})
    (_, status) = seen_in(PLAN, noisy).gates
    assert (status.verdict, status.share) == ("pass", 0.01)


@pytest.mark.parametrize(
    ("failed", "champion_failed", "timeouts", "verdict"),
    [
        (0, 0, 0, "pass"),
        (14, 10, 0, "pass"),
        (3, 0, 0, "undecided"),
        (15, 10, 0, "undecided"),
        (60, 0, 0, "fail"),
        (60, 20, 0, "fail"),
        (60, 0, 60, "undecided"),
        (60, 0, 40, "fail"),
    ],
)
def test_errors_fail_if_they_are_more_than_chance_gives(
    failed: int, champion_failed: int, timeouts: int, verdict: str
) -> None:
    found = verdicts(failed=failed, champion_failed=champion_failed, timeouts=timeouts)
    assert found["error_rate"] == verdict


def test_strict_asks_for_the_limit_itself_and_few_errors_may_be_ignored() -> None:
    strict = plan_of(REPLAY, gates=(ERROR_RATE.model_copy(update={"strict": True}),))
    assert verdicts(failed=60, champion_failed=30)["error_rate"] == "fail"
    assert verdicts(strict, failed=60, champion_failed=30)["error_rate"] == "undecided"
    assert verdicts(strict, failed=120, champion_failed=30)["error_rate"] == "fail"
    lenient = plan_of(REPLAY, gates=(ERROR_RATE.model_copy(update={"ignore_below": 0.2}),))
    assert verdicts(lenient, failed=60)["error_rate"] == "pass"


def test_requests_that_both_failed_on_count_for_both() -> None:
    both = {"requests": 50, "by_code": {}, "shadow_answered": 0, "shadow_failed": 50, "inputs_lost": 0}
    report = replayed()
    report["champion_failed"] = both
    (status, _) = seen_in(PLAN, report).gates
    assert (status.verdict, status.champion.bad, status.challenger.bad, status.challenger.n) == (
        "pass",
        50,
        50,
        650,
    )


def test_only_what_is_over_is_judged() -> None:
    running = seen_in(PLAN, replayed(failed=60, state="running"))
    assert (running.state, running.gates, running.replayed) == ("running", (), 660)
    cancelled = seen_in(PLAN, replayed(state="cancelled"))
    assert (cancelled.state, cancelled.problem) == ("failed", "it was ended by a call")


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.5, 0.6, 0.75]))
def test_the_tail_is_that_of_the_binomial(least: int, more: int, probability: float) -> None:
    trials = least + more
    if trials == 0:
        return
    exact = sum(
        compared.math.comb(trials, k) * probability**k * (1 - probability) ** (trials - k)
        for k in range(least, trials + 1)
    )
    found = binomial_tail(least, trials, probability)
    assert found == pytest.approx(exact, rel=1e-9) if least > trials * probability else found == 1.0


def test_a_long_tail_is_finite() -> None:
    assert 0.0 <= binomial_tail(600_000, 1_000_000, 0.5) < 1e-300
    assert 0.0 < binomial_tail(500_600, 1_000_000, 0.5) < 0.2


# === the step ===


def test_a_replay_is_asked_for_until_it_has_begun_and_moves_nothing() -> None:
    driver = in_replay()
    key = replay_key(driver.state)
    for state in (
        None,
        Replay(key="r0/0/1", state="done", pairs=900),
        Replay(key=key, state="waiting", problem="full"),
    ):
        found = driver.look(replay=state, gates=())
        assert found.actions == (StartReplay(key, 1_000),)
    assert driver.look(replay=Replay(key=key, state="running"), gates=()).actions == ()
    assert (driver.state.step, driver.moved()) == (0, [])
    look(driver, replayed())
    look(driver, replayed())
    assert (driver.state.step, driver.weight) == (1, 2_500)
    (left,) = driver.state.evidence
    assert (left.label, left.requests) == ("replay 1000", 600)
    assert {gate.gate: (gate.verdict, gate.replay) for gate in left.gates} == {
        "error_rate": ("pass", 3), "disagreement": ("pass", 3),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("report", "reason", "words"),
    [
        (replayed(differing=200), "disagreement", "33.3 % of answers differ beyond the noise floor"),
        (
            replayed(differing=200),
            "disagreement",
            "200 of 600 pairs differ, and 0 of 500 if the champion is asked again",
        ),
        (
            replayed(differing=200, nan={"champion": 5, "shadow": 200, "both": 5}),
            "disagreement",
            "(195 because the challenger alone answers NaN)",
        ),
        (replayed(failed=60), "error_rate", "champion 0 of 660, challenger 60 of 660"),
        # No pair at all, and yet harm was shown.
        (replayed(pairs=0, failed=60), "error_rate", "challenger 60 of 60"),
    ],
)
def test_harm_in_a_replay_is_rolled_back_with_its_numbers(
    report: dict[str, Any], reason: str, words: str
) -> None:
    driver = in_replay()
    look(driver, report)
    end = driver.state.end
    assert end is not None
    assert (driver.state.phase, end.reason) == ("rolled_back", reason)
    assert words in end.words
    (block,) = driver.live.blocked
    assert words in block.reason


def test_harm_in_a_replay_pauses_if_the_plan_says_so_and_a_resume_replays_again() -> None:
    gates = (DISAGREEMENT.model_copy(update={"effect": "pause"}),)
    driver = in_replay(plan_of(REPLAY, WEIGHT, gates=gates))
    first = replay_key(driver.state)
    look(driver, replayed(differing=200))
    assert driver.state.pause is not None
    assert (driver.state.pause.reason, driver.state.replays) == ("gate", False)
    driver.resume()
    driver.now += 1
    assert driver.state.replays
    again = look(driver, None)
    assert again.actions == (StartReplay(replay_key(driver.state), 1_000),)
    assert replay_key(driver.state) != first


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (replayed(pairs=0), "500 pairs: the replay compared 0"),
        (replayed(pairs=499), "500 pairs: the replay compared 499"),
        (
            replayed(
                pairs=0,
                last_mismatch='no input "Z"',
                requests={"replayed": 9, "skipped": 2, "incompatible": 9, "not_ready": 1},
            ),
            'do not fit v8 (no input "Z"), 1 found their version out of memory, 2 were left out, because rules',
        ),
        (
            replayed(requests={"replayed": 601, "skipped": 0, "incompatible": 1, "not_ready": 0}),
            "requests that fit: 1 do not fit v8",
        ),
        (replayed(failed=3), "error_rate is undecided (603 requests; 3 failed, and 0 on the champion)"),
        (replayed(failed=60, timeouts=60), "60 failed (60 were too slow)"),
        (replayed(excess={"share": 0.03, "interval": [0.0, 0.08]}), "limit 2 %; 0 of 600 pairs differ"),
        (replayed(state="failed", error="the file is gone"), "the replay, which failed: the file is gone"),
    ],
)
def test_a_replay_that_decided_nothing_waits_for_a_person_at_once(report: dict[str, Any], words: str) -> None:
    driver = in_replay()
    look(driver, report)
    pause = driver.state.pause
    assert pause is not None
    assert pause.reason == "undecided"
    assert pause.words.startswith("The replay is over and decided nothing; missing: ")
    assert words in pause.words
    assert (driver.state.step, driver.live.blocked) == (0, ())


def test_a_plan_that_aborts_when_undecided_aborts() -> None:
    driver = in_replay(PLAN.model_copy(update={"undecided_then": "abort"}))
    look(driver, replayed(pairs=0))
    assert driver.state.phase == "aborted"
    assert isinstance(driver.moved()[-1], GiveBack)


def test_a_replay_that_runs_is_no_undecided_time_and_one_that_waits_is() -> None:
    driver = in_replay(PLAN.model_copy(update={"undecided_after_ms": HOUR}))
    for _ in range(90):
        look(driver, replayed(state="running"))
    assert (driver.state.phase, driver.progress.undecided_ms) == ("progressing", 0)
    waiting = Replay(key=replay_key(driver.state), state="waiting", problem="2 replays run already")
    for _ in range(62):
        driver.look(replay=waiting, gates=())
    assert driver.state.pause is not None
    assert "2 replays run already" in driver.state.pause.words


def test_an_unclean_end_while_it_replays_pauses_and_the_second_one_rejects() -> None:
    driver = in_replay()
    driver.crash()
    assert driver.state.pause is not None
    assert (driver.state.pause.reason, driver.weight) == ("crash", 0)
    assert "had a replay" in driver.state.pause.words
    driver.resume()
    driver.crash()
    assert driver.state.phase == "rolled_back"
    assert [block.version for block in driver.live.blocked] == ["v8"]


def test_a_clean_restart_begins_the_replay_again() -> None:
    driver = in_replay()
    before = replay_key(driver.state)
    driver.now += 1
    driver.restart()
    again = look(driver, None)
    assert again.actions == (StartReplay(replay_key(driver.state), 1_000),)
    assert replay_key(driver.state) != before


def test_a_document_asks_for_as_many_pairs_as_a_shadow_or_as_it_replays() -> None:
    def least(requests: int) -> int:
        written = {
            "apiVersion": "headgate/v1", "kind": "RolloutPlan", "name": "p",
            "steps": ({"replay": requests}, "promote"),
        }  # fmt: skip
        return resolve(RolloutPlan.model_validate(written)).steps[0].min_requests

    assert (least(40), least(10_000)) == (40, 500)


def test_what_is_only_shown_has_its_numbers_and_no_verdict() -> None:
    shown = (*(gate.model_copy(update={"effect": "report", "above": None}) for gate in GATES),)
    driver = in_replay(plan_of(REPLAY, WEIGHT, gates=shown))
    look(driver, replayed(differing=200, failed=60))
    assert driver.state.step == 1
    gates: tuple[GateStatus, ...] = driver.state.evidence[0].gates
    assert [(gate.verdict, gate.challenger.bad) for gate in gates] == [("undecided", 60), ("undecided", 200)]


def test_an_observation_counts_what_the_kind_of_step_counts() -> None:
    seen = Observation(requests=3, replay=Replay(key="k", state="done", pairs=5))
    assert [seen.counted(kind) for kind in ("weight", "replay", "shadow")] == [3, 5, 0]

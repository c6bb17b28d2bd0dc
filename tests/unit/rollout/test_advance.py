"""The rules of a rollout, one by one: what moves it on, what stops it, and what must not."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.control.domain.rollout.actions import (
    Advance,
    GiveBack,
    Promote,
    Rollback,
    SetTraffic,
)
from headgate.control.domain.rollout.advance import advance
from headgate.control.domain.rollout.observation import (
    Breaker,
    Observation,
    PoolLatency,
    PoolLoad,
    judged,
)
from headgate.control.domain.rollout.plan import PlanGate, PlanStep
from headgate.control.domain.shares import EMPTY
from headgate.documents.hours import parse_hours
from headgate.errors import Conflict
from unit.rollout_harness import (
    DAY,
    DIGESTS,
    ERROR_RATE,
    HOUR,
    MINUTE,
    PLAN,
    START_MS,
    Driver,
    plan_of,
    status,
)

WEIGHT = PlanStep(kind="weight", slots=100, for_ms=10 * MINUTE, min_requests=100)
MORE = PlanStep(kind="weight", slots=2_500, for_ms=10 * MINUTE, min_requests=100)


def test_a_good_challenger_goes_from_shadow_to_champion_by_itself() -> None:
    driver = Driver().start()
    assert driver.live.weights() == {}
    driver.until(99)
    assert driver.state.phase == "promoted"
    assert driver.moved() == [
        SetTraffic(0, 1_000),
        SetTraffic(100, 0),
        SetTraffic(2_500, 0),
        driver.moved()[-1],
    ]
    assert isinstance(driver.moved()[-1], Promote)
    assert (driver.live.champion, driver.live.last_good, driver.live.table) == ("v8", "v7", EMPTY)
    assert [one.label for one in driver.state.evidence] == ["shadow 10%", "weight 1%", "weight 25%"]
    assert driver.state.blocks_ms == tuple(one.begun_ms for one in driver.state.evidence[1:])
    assert driver.state.end is not None
    assert driver.state.end.words.startswith("No harm shown. Error ratio 0.30-8.4 (anytime 95 %).")


def test_the_salt_stays_through_the_steps_and_is_of_the_attempt() -> None:
    driver = Driver().start().until(1)
    salt = driver.live.table.salt
    assert salt == f"fraud/{DIGESTS['v8'][7:19]}/1"
    assert driver.state.attempt == driver.live.attempt == 1
    driver.until(2)
    assert driver.live.table.salt == salt


def test_a_step_lasts_its_time_with_traffic_and_no_night_counts() -> None:
    driver = Driver().start().until(1)
    for _ in range(9):
        driver.look()
    assert driver.state.step == 1
    before = driver.progress.traffic_ms
    for _ in range(300):
        driver.look(last_request_ms=driver.now - HOUR)
    assert (driver.state.step, driver.progress.traffic_ms) == (1, before)
    assert driver.progress.undecided_ms == 0
    driver.look()
    driver.look()
    assert driver.state.step == 2


def test_time_that_nobody_watched_does_not_count() -> None:
    driver = Driver().start().until(1)
    driver.look(passed=5 * HOUR)
    assert driver.progress.traffic_ms == MINUTE
    driver.look(passed=-HOUR)
    assert driver.progress.traffic_ms == MINUTE


@pytest.mark.parametrize(
    "lacking",
    [
        {"gates": ()},
        {"gates": (status("undecided"),)},
        {"gates": (status("error", reason="minutes were dropped"),)},
        {"gates": (status("pass", n=0),)},
        {"requests": 99},
        {"ready": False},
        {"frozen": True},
        {"load": None},
        {"challenger_breaker": Breaker(state="half_open", openings=1)},
    ],
)
def test_nothing_advances_while_something_is_missing(lacking: dict[str, Any]) -> None:
    driver = Driver().start().until(1)
    for _ in range(60):
        driver.look(**lacking)
    assert (driver.state.phase, driver.state.step) == ("progressing", 1)
    driver.look()
    assert driver.state.step == 2


def test_no_data_never_rolls_back() -> None:
    driver = Driver().start().until(1)
    driver.look(gates=(status("fail", n=0),))
    assert driver.state.phase == "progressing"
    driver.look(gates=())
    assert driver.state.active


def test_hours_bound_advancing_and_no_rollback() -> None:
    # START_MS is midnight between Thursday and Friday.
    driver = Driver().start(plan_of(WEIGHT, MORE, hours=parse_hours("mon-thu 09:00-16:00 UTC")))
    for _ in range(100):
        driver.look()
    assert driver.state.step == -1
    driver.now = START_MS + 3 * DAY + 10 * HOUR
    driver.look()
    assert driver.state.step == 0
    driver.now = START_MS + 4 * DAY
    for _ in range(60):
        driver.look()
    assert driver.state.step == 0
    assert driver.progress.undecided_ms == 0
    driver.look(gates=(status("fail"),))
    assert driver.state.phase == "rolled_back"


# === harm ===


def test_harm_is_one_swap_to_the_table_before_and_a_block_with_its_numbers() -> None:
    driver = Driver().start().until(2)
    found = driver.look(gates=(status("fail", ratio=2.4596),))
    assert isinstance(found.move, Rollback)
    assert (driver.live.champion, driver.live.table, driver.weight) == ("v7", EMPTY, 0)
    block = driver.live.block_of(DIGESTS["v8"])
    assert block is not None
    assert block.reason == (
        "error_rate fails: error ratio 2.5, limit 1.5, 0.30-8.4 (anytime 95 %); "
        "champion 20 of 10 000, challenger 30 of 1 000; evidence 800, needed 600."
    )
    assert driver.state.end is not None
    assert driver.state.end.gates[0].ratio == 2.4596


@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize("paused", [False, True])
def test_harm_gates_run_in_every_step_also_while_paused(step: int, paused: bool) -> None:
    driver = Driver().start().until(step)
    if paused:
        driver.pause()
    driver.look(gates=(status("fail"),))
    assert driver.state.phase == "rolled_back"
    assert driver.live.block_of(DIGESTS["v8"]) is not None


def test_harm_outweighs_a_promotion_that_is_due() -> None:
    driver = Driver().start().until(2)
    for _ in range(9):
        driver.look()
    driver.look(passed=MINUTE, gates=(status("fail"),))
    assert driver.state.phase == "rolled_back"
    assert not any(isinstance(one, Promote) for one in driver.moved())


def test_a_frozen_endpoint_is_rolled_back() -> None:
    driver = Driver().start().until(1)
    driver.look(frozen=True, gates=(status("fail"),))
    assert driver.state.phase == "rolled_back"


def test_a_reported_gate_stops_nothing() -> None:
    gates = (ERROR_RATE, PlanGate(gate="disagreement", effect="report"))
    driver = Driver().start(plan_of(WEIGHT, gates=gates))
    for _ in range(30):
        if driver.state.active:
            driver.look(gates=(status("pass"), status("fail", "disagreement")))
    assert driver.state.phase == "promoted"


def test_a_gate_of_pause_if_pauses() -> None:
    gates = (ERROR_RATE, PlanGate(gate="disagreement", effect="pause", above=0.02))
    driver = Driver().start(PLAN.model_copy(update={"gates": gates})).until(0)
    driver.look(gates=(status("pass"), status("fail", "disagreement")))
    assert driver.state.pause is not None
    assert (driver.state.pause.reason, driver.state.shadow) == ("gate", 1_000)
    assert driver.state.pause.gates[0].gate == "disagreement"


# === the champion ===


@pytest.mark.parametrize(
    "unwell",
    [
        {"champion_breaker": Breaker(state="open", openings=1)},
        {"champion_requests": 1_000, "champion_errors": 201},
    ],
)
@pytest.mark.parametrize("paused", [False, True])
def test_nothing_moves_by_itself_while_the_champion_is_unhealthy(
    unwell: dict[str, Any], paused: bool
) -> None:
    driver = Driver().start().until(1)
    if paused:
        driver.pause()
    for _ in range(3):
        driver.look(
            gates=(status("fail"),),
            challenger_breaker=Breaker(state="open", openings=9, failed_units=9),
            **unwell,
        )
    assert driver.state.pause is not None
    assert driver.state.pause.reason == ("manual" if paused else "champion_unhealthy")
    assert driver.weight == 100
    if not paused:
        assert "Promote the challenger" in driver.state.pause.words
        assert "abort" in driver.state.pause.words
    # Both ways are open.
    driver.promote(full=True, gates=(status("fail"),), **unwell)
    assert driver.live.champion == "v8"


def test_few_requests_of_the_champion_say_nothing_of_its_health() -> None:
    driver = Driver().start().until(1)
    driver.look(champion_requests=49, champion_errors=49)
    assert driver.state.phase == "progressing"


# === the challenger's breaker ===


def test_an_open_breaker_pauses_and_one_reopened_by_three_units_rolls_back() -> None:
    driver = Driver().start().until(1)
    driver.look(challenger_breaker=Breaker(state="open", openings=1, failed_units=9))
    assert driver.state.pause is not None
    assert driver.state.pause.reason == "breaker"
    assert driver.weight == 100
    # Still the same opening, whoever erred before it.
    driver.look(challenger_breaker=Breaker(state="open", openings=1, failed_units=9))
    assert driver.state.phase == "paused"
    driver.look(challenger_breaker=Breaker(state="half_open", openings=1, failed_units=9))
    driver.look(challenger_breaker=Breaker(state="open", openings=2, failed_units=2))
    assert driver.state.phase == "paused"
    driver.look(challenger_breaker=Breaker(state="open", openings=3, failed_units=3))
    assert driver.state.end is not None
    assert (driver.state.phase, driver.state.end.reason) == ("rolled_back", "breaker")
    assert "no statistical test" in driver.state.end.words
    assert driver.live.block_of(DIGESTS["v8"]) is not None


def test_a_breaker_that_opens_after_a_resume_is_reopened() -> None:
    driver = Driver().start().until(1)
    driver.look(challenger_breaker=Breaker(state="open", openings=1, failed_units=1))
    driver.resume()
    driver.look(challenger_breaker=Breaker(state="open", openings=1, failed_units=1))
    assert driver.state.phase == "paused"
    driver.resume()
    driver.look(challenger_breaker=Breaker(state="open", openings=2, failed_units=5))
    assert driver.state.phase == "rolled_back"


def test_a_breaker_counts_from_the_start_of_the_gateway() -> None:
    driver = Driver().start().until(1)
    driver.look(challenger_breaker=Breaker(state="open", openings=5, failed_units=9))
    driver.restart()
    driver.look(challenger_breaker=Breaker(state="open", openings=1, failed_units=9))
    assert driver.state.phase == "paused"
    driver.look(challenger_breaker=Breaker(state="open", openings=2, failed_units=9))
    assert driver.state.phase == "rolled_back"


# === pauses by what was seen ===


def test_a_sample_ratio_mismatch_pauses_and_never_rolls_back() -> None:
    driver = Driver().start().until(1)
    for _ in range(5):
        driver.look(srm="mismatch", srm_words="1 010 units of 11 100 expected")
    assert driver.state.pause is not None
    assert (driver.state.pause.reason, driver.weight) == ("srm", 100)
    assert "1 010 units" in driver.state.pause.words


def test_an_answer_of_the_judge_is_read() -> None:
    gate = {
        "gate": "latency.p95", "measure": "run", "verdict": "undecided", "reason": "there is no trial", "champion": None,
        "challenger": None, "ratio": None, "interval": None, "e_value": None, "threshold": 600.0, "need": None,
        "detectable": None, "caught": [], "since_ms": None,
    }  # fmt: skip
    nothing = {"verdict": "undecided", "reason": "there is no trial"}
    found = Observation(**judged({"gates": [gate], "srm": nothing, "few_keys": nothing}))
    assert found.gates[0].key == "latency.p95 run"
    assert (found.gates[0].challenger.n, found.srm, found.few_keys) == (0, "undecided", None)
    failed = {"verdict": "fail", "reason": "they are not shared out"}
    found = Observation(**judged({"gates": [], "srm": failed, "few_keys": failed}))
    assert (found.srm, found.srm_words, found.few_keys) == ("mismatch", failed["reason"], failed["reason"])


def test_few_keys_pause() -> None:
    driver = Driver().start().until(1)
    driver.look(few_keys="Most errors are from three units.")
    assert driver.state.pause is not None
    assert (driver.state.pause.reason, driver.weight) == ("few_keys", 100)


def neighbour(p95_ns: float, per_second: float = 10.0, count: int = 1_000) -> tuple[PoolLatency, ...]:
    return (PoolLatency(endpoint="other", version="v1", p95_ns=p95_ns, per_second=per_second, count=count),)


@pytest.mark.parametrize(
    ("now", "pauses"),
    [
        (neighbour(7.6e6), True),
        (neighbour(7.4e6), False),
        (neighbour(7.6e6, per_second=13.0), False),
        (neighbour(7.6e6, per_second=7.0), False),
        (neighbour(7.6e6, count=99), False),
        ((), False),
    ],
)
def test_a_neighbour_that_slows_down_at_similar_load_pauses(
    now: tuple[PoolLatency, ...], pauses: bool
) -> None:
    driver = Driver().start()
    while driver.state.step < 1:
        driver.look(pool=neighbour(5e6))
    driver.look(pool=now)
    assert driver.state.phase == ("paused" if pauses else "progressing")
    if driver.state.pause is not None:
        assert driver.state.pause.reason == "interference"
        assert "other/v1" in driver.state.pause.words


@pytest.mark.parametrize(
    ("floor", "p95_ns", "pauses"),
    [(None, 4.9e6, False), (None, 5e6, True), (1e6, 2e6, True), (8e6, 7.9e6, False)],
)
def test_a_fast_neighbour_on_a_busy_machine_pauses_nothing(
    floor: float | None, p95_ns: float, pauses: bool
) -> None:
    gates = (
        [PlanGate(gate="latency.p95", effect="report", measure="run", ignore_below=floor)] if floor else []
    )
    driver = Driver().start(PLAN.model_copy(update={"gates": (*PLAN.gates, *gates)}))
    while driver.state.step < 1:
        driver.look(pool=neighbour(3e5))
    driver.look(pool=neighbour(p95_ns))
    assert driver.state.phase == ("paused" if pauses else "progressing")


def test_interference_compares_with_the_time_before_the_step() -> None:
    driver = Driver().start()
    while driver.state.step < 1:
        driver.look(pool=neighbour(5e6))
    while driver.state.step < 2:
        driver.look(pool=neighbour(7e6))
    driver.look(pool=neighbour(8e6))
    assert driver.state.phase == "progressing"


def test_a_weight_that_would_keep_the_threads_busy_stays_undecided() -> None:
    driver = Driver().start().until(1)
    # 24 points more weight: 0.5 + 100 * 0.24 * 0.030 / 2 = 0.86.
    heavy = PoolLoad(busy=0.5, per_second=100, champion_run_s=0.001, challenger_run_s=0.031, threads=2)
    assert heavy.busy_after(0.24) == pytest.approx(0.86)
    for _ in range(30):
        driver.look(load=heavy)
    assert (driver.state.step, driver.state.phase) == (1, "progressing")
    assert driver.progress.undecided_ms > 0
    driver.look()
    assert driver.state.step == 2


def test_a_promotion_is_a_greater_weight_too() -> None:
    driver = Driver().start().until(2)
    heavy = PoolLoad(busy=0.5, per_second=100, champion_run_s=0.001, challenger_run_s=0.011, threads=2)
    for _ in range(30):
        driver.look(load=heavy)
    assert driver.state.active


def test_undecided_counts_time_with_traffic_and_then_pauses() -> None:
    plan = PLAN.model_copy(update={"undecided_after_ms": 2 * HOUR})
    driver = Driver().start(plan).until(1)
    open_gate = (status("undecided"),)
    for _ in range(100):
        driver.look(gates=open_gate)
    for _ in range(1_000):
        driver.look(gates=open_gate, last_request_ms=driver.now - HOUR)
    assert driver.state.phase == "progressing"
    for _ in range(40):
        driver.look(gates=open_gate)
    assert driver.state.pause is not None
    assert driver.state.pause.reason == "undecided"
    assert "error_rate is undecided (1 000 requests; 3x shows after 2 500)" in driver.state.pause.words
    assert driver.weight == 100


def test_undecided_may_abort_and_blocks_nothing_then() -> None:
    plan = PLAN.model_copy(update={"undecided_after_ms": HOUR, "undecided_then": "abort"})
    driver = Driver().start(plan).until(1)
    for _ in range(80):
        driver.look(gates=(status("undecided"),))
    assert driver.state.phase == "aborted"
    assert isinstance(driver.moved()[-1], GiveBack)
    assert (driver.live.table, driver.live.blocked) == (EMPTY, ())


# === approve, pause ===


def test_a_step_that_pauses_waits_for_a_person() -> None:
    driver = Driver().start(plan_of(WEIGHT, PlanStep(kind="pause"), MORE)).until(1)
    assert driver.state.pause is not None
    assert driver.state.pause.reason == "manual"
    for _ in range(60):
        driver.look()
    assert (driver.state.step, driver.weight) == (1, 100)
    driver.resume()
    driver.look()
    assert driver.state.step == 2


def test_an_observation_of_an_ended_rollout_changes_nothing() -> None:
    driver = Driver().start().until(1)
    driver.abort()
    before = driver.live
    driver.look(gates=(status("fail"),))
    assert driver.live == before


def test_a_digest_that_changed_under_the_name_gets_no_traffic() -> None:
    driver = Driver().start().until(0)
    driver.known = type(driver.known)("fraud", {**DIGESTS, "v8": DIGESTS["v9"]}, driver.known.set_weights)
    for _ in range(9):
        driver.look()
    with pytest.raises(Conflict, match="not sha256:v8v8.* any more"):
        driver.look()
    assert driver.weight == 0


def test_an_empty_observation_moves_nothing() -> None:
    driver = Driver().start().until(1)
    before = driver.live
    for _ in range(20):
        driver.now += HOUR
        driver.carry_out(advance_blind(driver))
    assert driver.live == before


def advance_blind(driver: Driver) -> Advance:
    return advance(driver.state, driver.progress, Observation(), driver.now)


def test_a_step_that_does_not_load_pauses_and_a_promotion_tries_it_again() -> None:
    driver = Driver().start().until(0)
    # Evidence comes first: what is missing is not asked of the data plane.
    assert driver.look(gates=(), requests=0, copies=None, refused="fraud: v8 does not load").state.phase == (
        "progressing"
    )
    for _ in range(20):
        driver.look(refused="fraud: v8 does not load")
    pause = driver.state.pause
    assert pause is not None
    assert (driver.state.step, driver.weight, pause.reason) == (0, 0, "load_failed")
    assert pause.words == (
        "Step 2 of 4 (weight 1%) could not be entered: fraud: v8 does not load. "
        "A promotion tries it again at once, a resume after the present step."
    )
    driver.promote()
    assert (driver.state.step, driver.weight, driver.state.phase) == (1, 100, "progressing")


def test_harm_is_rolled_back_whatever_was_refused() -> None:
    driver = Driver().start().until(1)
    driver.look(gates=(status("fail"),), refused="fraud: v8 does not load")
    assert driver.state.phase == "rolled_back"

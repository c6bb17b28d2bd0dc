"""Laws of rollouts, for any history of looks, calls, other changes of the endpoint, crashes and restarts."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from headgate.control.domain import traffic
from headgate.control.domain.rollout.actions import Advance, GiveBack, Move, Promote, Rollback, SetTraffic
from headgate.control.domain.rollout.advance import advance
from headgate.control.domain.rollout.missing import replay_key
from headgate.control.domain.rollout.observation import Breaker, Copies, Observation, Replay
from headgate.control.domain.rollout.plan import PlanGate, PlanStep, ResolvedPlan
from headgate.control.domain.rollout.state import Progress, RolloutState, tried_of
from headgate.control.domain.traffic import LiveTraffic
from headgate.documents.hours import parse_hours
from headgate.errors import HeadgateError
from unit.rollout_harness import DAY, DIGESTS, ERROR_RATE, HOUR, KNOWN, MINUTE, PLAN, Driver, stamp, status

LIVE = TypeAdapter(LiveTraffic)
PEOPLE = ("ann", "bob", "eve")
PRESENT = "of the present step"
"""Stands for the key of the replay that the present step asked for."""

steps = st.one_of(
    st.builds(
        PlanStep, kind=st.just("replay"), requests=st.just(100), min_requests=st.sampled_from([0, 1, 10, 50])
    ),
    st.builds(
        PlanStep, kind=st.just("shadow"), slots=st.integers(1, 10_000), for_ms=st.integers(0, 3 * MINUTE)
    ),
    st.builds(PlanStep, kind=st.just("approve"), role=st.sampled_from(["operator", "approver", "admin"])),
    st.builds(PlanStep, kind=st.just("pause")),
)


@st.composite
def plans(draw: st.DrawFn) -> ResolvedPlan:
    """Any plan that a document may describe: weights rise, and promote is last."""
    weights = sorted(draw(st.sets(st.integers(1, 9_999), max_size=3)))
    found = draw(st.lists(steps, min_size=0 if weights else 1, max_size=3))
    for slots in weights:
        waits = draw(st.integers(0, 3 * MINUTE))
        found.append(
            PlanStep(kind="weight", slots=slots, for_ms=waits, min_requests=draw(st.integers(1, 200)))
        )
        found += draw(
            st.lists(
                st.sampled_from([PlanStep(kind="pause"), PlanStep(kind="approve", role="operator")]),
                max_size=1,
            )
        )
    gates = [
        ERROR_RATE,
        PlanGate(gate="disagreement", effect=draw(st.sampled_from(["rollback", "pause", "report"]))),
    ]
    return PLAN.model_copy(
        update={
            "steps": (*found, PlanStep(kind="promote")),
            "gates": tuple(gates[: draw(st.integers(0, 2))]),
            "undecided_after_ms": draw(st.integers(MINUTE, 20 * MINUTE)),
            "undecided_then": draw(st.sampled_from(["pause", "abort"])),
            "hours": draw(st.sampled_from([None, None, parse_hours("mon-fri 09:00-16:00 UTC")])),
        }
    )


verdicts = st.sampled_from(["pass", "pass", "undecided", "error", "fail"])


@st.composite
def looks(draw: st.DrawFn) -> dict[str, Any]:
    """What differs from a good look."""
    bad: dict[str, Any] = {}
    if draw(st.booleans()):
        return bad
    if draw(st.booleans()):
        bad["gates"] = tuple(
            status(draw(verdicts), gate, n=draw(st.sampled_from([0, 1_000])))
            for gate in draw(st.sets(st.sampled_from(["error_rate", "disagreement"])))
        )
    choices: dict[str, st.SearchStrategy[Any]] = {
        "requests": st.integers(0, 300),
        "copies": st.sampled_from([None, Copies(pairs=0), Copies(pairs=9_000)]),
        "last_request_ms": st.none(),
        "frozen": st.booleans(),
        "ready": st.booleans(),
        "srm": st.sampled_from(["ok", "undecided", "mismatch"]),
        "few_keys": st.sampled_from([None, "mostly three units"]),
        "load": st.none(),
        "refused": st.just("fraud: v8 does not load"),
        "replay": st.one_of(
            st.none(),
            st.builds(
                Replay,
                key=st.sampled_from(["x", PRESENT]),
                state=st.sampled_from(["waiting", "running", "done", "failed"]),
                pairs=st.sampled_from([0, 9, 60]),
                incompatible=st.sampled_from([0, 0, 1]),
            ),
        ),
        "champion_errors": st.sampled_from([0, 9_000]),
        "challenger_breaker": st.builds(
            Breaker,
            state=st.sampled_from(["closed", "open", "half_open"]),
            openings=st.integers(0, 3),
            failed_units=st.integers(0, 4),
        ),
    }
    for name in draw(st.sets(st.sampled_from(sorted(choices)), max_size=2)):
        bad[name] = draw(choices[name])
    return bad


class History:
    """A driver whose every change is checked."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.driver = Driver()
        self.by_hand = False
        """Whether a person gave a version traffic outside the rollout since it began."""

    @property
    def rollout(self) -> RolloutState | None:
        return self.driver.live.rollout

    def go(self) -> None:
        calls = [self.look] * 8 + [
            self.start, self.start, self.retry, self.pause, self.resume, self.resume, self.promote, self.abort,
            self.approve, self.approve, self.override, self.emergency, self.crash, self.restart, self.round_trip,
            self.forget,
        ]  # fmt: skip
        call = self.data.draw(st.sampled_from(calls))
        before = self.driver.live
        with contextlib.suppress(HeadgateError):
            call()
        self.check(before, call.__name__)

    # === what may happen ===

    def look(self) -> None:
        if self.rollout is None:
            return
        passed = self.data.draw(st.sampled_from([0, MINUTE, MINUTE, MINUTE, 5 * MINUTE, HOUR, DAY, -MINUTE]))
        bad = self.data.draw(looks())
        replay = bad.get("replay")
        if replay is not None and replay.key == PRESENT:
            bad["replay"] = replay.model_copy(update={"key": replay_key(self.rollout)})
        before, progress = self.rollout, self.driver.progress
        self.driver.now += passed
        seen = self.driver.seen(**bad)
        found = advance(before, progress, seen, self.driver.now)
        # A stop before it was written: the same look leads to the same.
        assert advance(before, progress, seen, self.driver.now) == found
        self.check_advance(before, progress, seen, found)
        self.driver.carry_out(found)

    def start(self) -> None:
        self.driver.start(self.data.draw(plans()), who=self.data.draw(st.sampled_from(PEOPLE)))
        self.by_hand = False

    def retry(self) -> None:
        self.driver.start(self.data.draw(plans()), who=self.data.draw(st.sampled_from(PEOPLE)), retry=True)
        self.by_hand = False

    def pause(self) -> None:
        if self.rollout is not None:
            self.driver.pause()

    def resume(self) -> None:
        if self.rollout is not None:
            self.driver.resume()

    def promote(self) -> None:
        if self.rollout is not None:
            self.driver.promote(full=self.data.draw(st.booleans()), **self.data.draw(looks()))

    def abort(self) -> None:
        if self.rollout is None or not self.rollout.active:
            return
        before = self.rollout.before
        self.driver.abort()
        assert self.driver.live.table == before
        assert self.driver.live.champion == "v7" or self.by_hand

    def approve(self) -> None:
        if self.rollout is not None:
            role = self.data.draw(st.sampled_from(["operator", "approver", "admin"]))
            self.driver.approve(self.data.draw(st.sampled_from(PEOPLE)), role)

    def override(self) -> None:
        weights = self.data.draw(
            st.dictionaries(st.sampled_from(["v8", "v9"]), st.integers(0, 4_000), max_size=2)
        )
        if not self.driver.override(weights).already:
            self.by_hand = True

    def emergency(self) -> None:
        live, at = self.driver.live, stamp(self.driver.now, "eve")
        what = self.data.draw(
            st.sampled_from(["rollback", "abort", "block", "unblock", "freeze", "unfreeze"])
        )
        if what == "rollback":
            self.driver.live = traffic.rollback(live, KNOWN, at).live
        elif what == "abort":
            self.driver.live = traffic.abort(live, at).live
        elif what == "block":
            self.driver.live = traffic.block(live, DIGESTS["v8"], "v8", KNOWN, at).live
        elif what == "unblock":
            self.driver.live = traffic.unblock(live, DIGESTS["v8"], "v8", KNOWN).live
        elif what == "freeze":
            self.driver.live = traffic.freeze(live, at).live
        else:
            self.driver.live = traffic.unfreeze(live).live

    def crash(self) -> None:
        exposed = self.rollout is not None and self.rollout.exposed
        self.driver.crash()
        if exposed:
            assert self.rollout is not None
            assert (self.rollout.weight, self.rollout.shadow, self.driver.weight) == (0, 0, 0)
            assert self.rollout.phase == "rolled_back" or (
                self.rollout.pause is not None and self.rollout.pause.reason == "crash"
            )

    def restart(self) -> None:
        if self.rollout is not None:
            table = self.driver.live.table
            self.driver.restart()
            assert self.driver.live.table == table

    def round_trip(self) -> None:
        """A stop: what was written is read again."""
        self.driver.live = LIVE.validate_json(LIVE.dump_json(self.driver.live))
        self.driver.progress = Progress.model_validate_json(self.driver.progress.model_dump_json())

    def forget(self) -> None:
        self.driver.progress = Progress()

    # === what must hold ===

    def check_advance(
        self, before: RolloutState, progress: Progress, seen: Observation, found: Advance
    ) -> None:
        after, moves = found.state, [one for one in found.actions if isinstance(one, Move)]
        assert len(moves) <= 1
        assert before.step <= after.step <= before.step + 1
        assert after.approvals == before.approvals
        if not before.active:
            assert (after, found.actions) == (before, ())
        if before.phase == "paused":
            assert after.phase in ("paused", "rolled_back")
            assert after.step == before.step
        gave = after.active and (after.weight > before.weight or after.shadow > before.shadow)
        if gave or after.phase == "promoted" != before.phase:
            assert before.phase == "progressing"
            self.check_onward(before, seen)
        if after.phase == "rolled_back" != before.phase:
            harmful = any(one.verdict == "fail" and one.challenger.n for one in seen.gates)
            assert harmful or seen.challenger_breaker.state == "open"
            assert seen.champion_unhealthy() is None
        # What was counted may be lost: that never brings the next step nearer.
        blind = advance(before, Progress(), seen, self.driver.now).state
        if blind.step > before.step:
            assert after.step > before.step

    def check_onward(self, before: RolloutState, seen: Observation) -> None:
        """Nothing is given without evidence of the step before it, nor against a fault."""
        assert not seen.frozen
        assert seen.ready
        assert seen.challenger_breaker.state == "closed"
        assert before.plan.hours is None or before.plan.hours.is_open(self.driver.now)
        step = before.present
        if step is None or step.kind in ("approve", "pause"):
            return
        required = before.plan.required_in(step.kind)
        passed = {one.gate for one in seen.gates if one.verdict == "pass" and one.challenger.n > 0}
        assert {gate.gate for gate in required} <= passed
        if step.kind == "weight":
            assert seen.requests >= max(step.min_requests, 1)
        if step.kind == "shadow":
            assert seen.copies is not None
            assert seen.copies.pairs >= max(step.min_requests, 1)
        if step.kind == "replay":
            replay = seen.replay
            assert replay is not None
            assert (replay.key, replay.state, replay.incompatible) == (replay_key(before), "done", 0)
            assert replay.pairs >= max(step.min_requests, 1)

    def check(self, before: LiveTraffic, call: str) -> None:
        live, rollout = self.driver.live, self.driver.live.rollout
        weights = live.weights()
        blocked = {block.digest for block in live.blocked}
        for version in {live.champion, live.last_good, *weights}:
            assert DIGESTS[version] not in blocked
        assert live.champion not in weights
        assert bool(live.table.salt) == bool(live.table.given)
        assert live.attempt >= before.attempt
        if rollout is None:
            return
        assert LIVE.validate_json(LIVE.dump_json(live)) == live
        assert (rollout.pause is not None) == (rollout.phase == "paused")
        assert (rollout.end is not None) == (not rollout.active)
        if rollout.active:
            assert live.champion == rollout.champion.name
            assert rollout.weight == weights.get("v8", 0)
        else:
            assert (rollout.weight, rollout.shadow) == (0, 0)
        self.check_approvals(rollout)
        self.check_rejected(before, call)

    def check_approvals(self, rollout: RolloutState) -> None:
        for approval in rollout.approvals:
            assert approval.who != rollout.started.who
            assert approval.digest == rollout.challenger.digest
        past = len(rollout.plan.steps) if rollout.phase == "promoted" else rollout.step
        for index, step in enumerate(rollout.plan.steps[: max(past, 0)]):
            assert step.kind != "approve" or rollout.approved(index)

    def check_rejected(self, before: LiveTraffic, call: str) -> None:
        """What was rejected gets no traffic but by a retry, or by a person who unblocks it and gives it some."""
        known = tried_of(before.tried, DIGESTS["v8"])
        if known is None or known.rejected is None or call in ("retry", "override"):
            return
        had = before.weights().get("v8", 0)
        assert self.driver.weight <= had
        assert self.driver.live.champion != "v8" or before.champion == "v8"


@given(st.data())
@settings(max_examples=250, deadline=None)
def test_every_history_of_a_rollout_keeps_its_laws(data: st.DataObject) -> None:
    history = History(data)
    history.start()
    for _ in range(data.draw(st.integers(5, 40))):
        history.go()


@given(plans(), st.lists(st.sampled_from([MINUTE, HOUR, DAY]), min_size=1, max_size=60))
@settings(max_examples=100, deadline=None)
def test_without_data_nothing_is_left_and_nothing_is_rolled_back(
    plan: ResolvedPlan, waits: list[int]
) -> None:
    driver = Driver().start(plan)
    for wait in waits:
        before = driver.state
        driver.now += wait
        seen = Observation(last_request_ms=driver.now, srm="ok")
        after = driver.carry_out(advance(before, driver.progress, seen, driver.now)).state
        assert after.phase != "rolled_back"
        entered = before.present
        if entered is not None and entered.kind in ("replay", "shadow", "weight") and after.active:
            assert after.step == before.step
        if after.phase == "promoted":
            assert not before.active or (entered is not None and entered.kind in ("approve", "pause"))


@given(plans(), st.integers(0, 60))
@settings(max_examples=150, deadline=None)
def test_an_abort_at_any_time_restores_champion_and_table(plan: ResolvedPlan, looked: int) -> None:
    driver = Driver()
    before = driver.live
    driver.start(plan)
    for _ in range(looked):
        driver.look()
    if not driver.state.active:
        return
    driver.abort()
    assert (driver.live.champion, driver.live.table) == (before.champion, before.table)
    assert driver.live.blocked == ()


@given(plans(), st.integers(0, 60))
@settings(max_examples=150, deadline=None)
def test_a_state_that_was_read_again_goes_on_as_before(plan: ResolvedPlan, looked: int) -> None:
    driver = Driver().start(plan)
    for _ in range(looked):
        driver.look()
    again = Driver(LIVE.validate_json(LIVE.dump_json(driver.live)), driver.now, driver.progress)
    for _ in range(20):
        for each in (driver, again):
            if each.state.phase == "paused":
                with contextlib.suppress(HeadgateError):
                    each.resume("bob")
        assert driver.look() == again.look()
        assert driver.live == again.live


@given(plans(), st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_traffic_moves_in_a_known_order(plan: ResolvedPlan, looked: int) -> None:
    driver = Driver().start(plan)
    for _ in range(looked):
        driver.look()
        if driver.state.phase == "paused":
            with contextlib.suppress(HeadgateError):
                driver.resume("bob")
    moved = driver.moved()
    weights = [one.weight for one in moved if isinstance(one, SetTraffic)]
    assert weights == sorted(weights)
    assert all(not isinstance(one, Promote | Rollback | GiveBack) for one in moved[:-1])

"""What people ask of a rollout, and what other changes of an endpoint do to one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headgate.control.domain import copies, merge, traffic
from headgate.control.domain.declared import Declared
from headgate.control.domain.merge import Merge
from headgate.control.domain.rollout.actions import GiveBack, Notify, SetTraffic
from headgate.control.domain.rollout.observation import Breaker
from headgate.control.domain.rollout.plan import PlanStep
from headgate.control.domain.rollout.state import Progress, tried_of
from headgate.control.domain.shares import EMPTY
from headgate.control.domain.traffic import Change
from headgate.errors import Conflict, InvalidArgument, PermissionDenied, PolicyInvalid, VersionNotFound
from unit.rollout_harness import DIGESTS, KNOWN, MINUTE, PLAN, Driver, fresh, plan_of, stamp, status

WEIGHT = PlanStep(kind="weight", slots=100, for_ms=10 * MINUTE, min_requests=100)
APPROVE = PlanStep(kind="approve", role="approver")


# === start and retry ===


def test_two_rollouts_on_one_endpoint_are_refused() -> None:
    driver = Driver().start()
    with pytest.raises(Conflict, match="has rollout r1 of v8, which is progressing: abort it first"):
        driver.start(challenger="v9")
    driver.abort()
    assert driver.start(challenger="v9").state.id == "r2"


def test_a_start_needs_a_version_that_is_no_champion_and_all_slots() -> None:
    with pytest.raises(VersionNotFound, match="it has v7, v8, v9"):
        Driver().start(challenger="v10")
    with pytest.raises(InvalidArgument, match="v7 is what the champion v7 is already"):
        Driver().start(challenger="v7")
    with pytest.raises(InvalidArgument, match="promotes at once, without evidence"):
        Driver().start(plan_of())
    with pytest.raises(Conflict, match="cannot be loaded"):
        Driver(known=replace(KNOWN, unloadable={"v8": "it is damaged"})).start()
    driver = Driver()
    driver.override({"v9": 500})
    with pytest.raises(Conflict, match=r"v9 5% is given away: give it back first \(headgate abort fraud\)"):
        driver.start()
    blocked = traffic.block(fresh(), DIGESTS["v8"], "v8", KNOWN, stamp(0, reason="it leaks")).live
    for retry in (False, True):
        with pytest.raises(Conflict, match=r"is blocked since .* \(it leaks\)"):
            Driver(blocked).start(retry=retry)


def test_a_rejected_digest_gets_no_traffic_until_a_retry() -> None:
    driver = Driver().start().until(1)
    driver.look(gates=(status("fail"),))
    with pytest.raises(Conflict, match="v8 is blocked"):
        driver.start()
    # Lifting the block by hand is no retry.
    driver.live = traffic.unblock(driver.live, DIGESTS["v8"], "v8", KNOWN).live
    with pytest.raises(Conflict, match=r"v8 was rolled back in r1 \(error_rate fails: .* retry it"):
        driver.start()
    driver.start(retry=True)
    assert (driver.state.id, driver.state.attempts) == ("r2", 2)
    driver.until(99)
    assert driver.live.champion == "v8"
    known = tried_of(driver.live.tried, DIGESTS["v8"])
    assert known is not None
    assert (known.attempts, known.rejected) == (2, None)


def test_a_retry_lifts_the_block_that_the_rejection_left_and_begins_with_a_new_salt() -> None:
    driver = Driver().start().until(1)
    first = driver.live.table.salt
    driver.look(gates=(status("fail"),))
    driver.start(retry=True)
    assert driver.live.blocked == ()
    assert "attempt 2 of this digest" in driver.done[-1].words  # type: ignore[union-attr]
    driver.until(1)
    assert driver.live.table.salt not in {"", first}
    assert driver.state.attempt == 2


def test_what_was_never_tried_is_not_retried() -> None:
    with pytest.raises(Conflict, match="has not been on trial"):
        Driver().start(retry=True)


def test_an_aborted_rollout_may_begin_again_and_counts_its_attempts() -> None:
    driver = Driver().start().until(1)
    driver.abort()
    assert driver.live.blocked == ()
    assert driver.start().state.attempts == 2


# === promote ===


def test_promote_goes_one_step_on_and_records_what_was_undecided() -> None:
    driver = Driver().start().until(1)
    driver.promote(gates=(status("undecided"),))
    assert (driver.state.step, driver.weight) == (2, 2_500)
    left = driver.state.evidence[-1]
    assert (left.by, left.undecided, left.gates[0].verdict) == ("ann", ("error_rate",), "undecided")


def test_promote_full_makes_it_champion_and_says_what_was_open() -> None:
    driver = Driver().start().until(1)
    driver.promote(full=True, gates=(status("undecided"),))
    assert driver.live.champion == "v8"
    assert driver.state.end is not None
    assert "Undecided then: error_rate. Promoted by ann." in driver.state.end.words


def test_no_promotion_past_harm() -> None:
    driver = Driver().start().until(1)
    for full in (False, True):
        with pytest.raises(Conflict, match="no promotion of v8: error_rate fails"):
            driver.promote(full=full, gates=(status("fail"),))


def test_a_promotion_by_hand_needs_no_hours_and_no_data() -> None:
    driver = Driver().start()
    driver.promote(gates=())
    assert driver.state.shadow == 1_000


# === approve ===


def test_an_approval_is_by_another_person_with_the_role_for_the_digest() -> None:
    driver = Driver().start(plan_of(WEIGHT, APPROVE)).until(1)
    assert driver.state.pause is not None
    assert driver.state.pause.reason == "approve"
    for _ in range(60):
        driver.look()
    assert driver.state.step == 1
    with pytest.raises(PermissionDenied, match="ann started rollout r1: another person approves it"):
        driver.approve("ann")
    with pytest.raises(PermissionDenied, match="with the role approver, not operator"):
        driver.approve("bob", "operator")
    with pytest.raises(Conflict, match="is not what is on trial"):
        driver.approve("bob", digest=DIGESTS["v9"])
    with pytest.raises(Conflict, match="needs the approval"):
        driver.resume("bob")
    for full in (False, True):
        with pytest.raises(Conflict, match="step 2 needs the approval"):
            driver.promote("bob", full=full)
    driver.approve("bob")
    assert driver.state.phase == "progressing"
    driver.look()
    assert driver.live.champion == "v8"
    assert driver.state.approvals[0].who == "bob"


def test_a_step_that_needs_an_approval_waits_for_it_again_after_an_override() -> None:
    driver = Driver().start(plan_of(WEIGHT, APPROVE)).until(1)
    driver.override({"v8": 200})
    driver.resume()
    assert (driver.state.phase, driver.weight) == ("paused", 100)
    assert driver.state.pause is not None
    assert (driver.state.pause.reason, driver.state.step) == ("approve", 1)
    with pytest.raises(Conflict, match="needs the approval"):
        driver.resume()
    driver.approve("bob")
    assert driver.state.phase == "progressing"


def test_a_promotion_by_hand_says_which_approval_it_did_without() -> None:
    driver = Driver().start(plan_of(WEIGHT, APPROVE)).until(1)
    driver.override({}, champion="v8")
    assert driver.state.end is not None
    assert "Without the approval of step 2." in driver.state.end.words
    driver = Driver().start(plan_of(WEIGHT, APPROVE)).until(1)
    driver.approve("bob")
    driver.override({}, champion="v8")
    assert driver.state.end is not None
    assert "Without the approval" not in driver.state.end.words


def test_an_approval_may_come_before_its_step_and_counts_once() -> None:
    driver = Driver().start(plan_of(APPROVE, WEIGHT, APPROVE))
    driver.approve("bob")
    driver.look()
    assert (driver.state.step, driver.state.phase) == (0, "progressing")
    driver.until(2)
    assert driver.state.phase == "paused"
    driver.approve("eve", "admin")
    with pytest.raises(Conflict, match="needs no approval any more"):
        driver.approve("bob")
    driver.look()
    assert driver.live.champion == "v8"


def test_a_full_promotion_skips_no_approval_that_lies_ahead() -> None:
    driver = Driver().start(plan_of(WEIGHT, APPROVE)).until(0)
    with pytest.raises(Conflict, match="step 2 needs the approval"):
        driver.promote(full=True)
    driver.approve("bob")
    driver.promote(full=True)
    assert driver.live.champion == "v8"


# === pause, resume, abort ===


def test_a_pause_holds_and_a_resume_begins_the_step_anew() -> None:
    driver = Driver().start().until(1)
    for _ in range(9):
        driver.look()
    driver.pause()
    before = driver.live
    assert driver.pause().state == before.rollout
    for _ in range(60):
        driver.look()
    assert driver.live == before
    driver.resume()
    driver.look()
    assert (driver.state.step, driver.weight) == (1, 100)
    for _ in range(12):
        driver.look()
    assert driver.state.step == 2


def test_an_abort_brings_the_table_before_it_back_and_is_idempotent() -> None:
    driver = Driver().start().until(2)
    found = driver.abort()
    assert isinstance(found.move, GiveBack)
    assert (driver.live.champion, driver.live.table, driver.live.blocked) == ("v7", EMPTY, ())
    before = driver.live
    assert driver.abort().actions == ()
    assert driver.live == before
    for call in (driver.pause, driver.resume, driver.promote, driver.approve):
        with pytest.raises(Conflict, match="rollout r1 is aborted: nothing to"):
            call()


# === overrides ===


def test_a_manual_weight_pauses_as_override_and_a_resume_takes_the_plan_up_again() -> None:
    driver = Driver().start().until(1)
    driver.override({"v8": 1_000})
    assert driver.state.pause is not None
    assert (driver.state.pause.reason, driver.state.weight, driver.weight) == ("override", 1_000, 1_000)
    assert "Traffic was changed by hand: champion v7, v8 10%" in driver.state.pause.words
    for _ in range(60):
        driver.look()
    assert driver.weight == 1_000
    found = driver.resume()
    assert found.move == SetTraffic(100, 0)
    assert driver.weight == 100


def test_the_same_weight_again_is_no_override() -> None:
    driver = Driver().start().until(1)
    before = driver.live
    assert driver.override({"v8": 100}).already
    assert driver.live == before


def test_switching_copies_is_no_override() -> None:
    driver = Driver().start().until(1)
    declared = Declared("v7", shadows={"v9": 1_000})
    change = copies.switch(
        Change(driver.live, "", already=True), copies.Switches({"v9": False}), declared, "fraud"
    )
    assert change.live.rollout == driver.state


def test_a_third_version_with_weight_keeps_the_rollout_from_going_on() -> None:
    driver = Driver().start().until(1)
    driver.override({"v9": 500})
    assert driver.state.phase == "paused"
    with pytest.raises(Conflict, match="two challengers cannot be told apart"):
        driver.promote()
    driver.abort()
    assert driver.live.table == EMPTY


def test_a_challenger_made_champion_by_hand_is_promoted_without_its_gates() -> None:
    driver = Driver().start().until(1)
    driver.override({}, champion="v8")
    assert driver.state.phase == "promoted"
    assert driver.state.end is not None
    assert (
        "Promoted by hand, and the gates were not looked at (undecided: error_rate)" in driver.state.end.words
    )


def test_another_champion_leaves_nothing_to_compare_with() -> None:
    driver = Driver().start().until(1)
    driver.override({}, champion="v9")
    assert driver.state.phase == "aborted"


# === emergency calls ===


@pytest.mark.parametrize("step", [-1, 0, 1, 2])
def test_a_rollback_pressed_in_any_step_ends_and_blocks(step: int) -> None:
    driver = Driver().start().until(step)
    change = traffic.rollback(driver.live, KNOWN, stamp(driver.now, "eve", "3 a.m."))
    assert change.live.rollout is not None
    assert (change.live.champion, change.live.table) == ("v7", EMPTY)
    assert (change.live.rollout.phase, change.live.rollout.shadow) == ("rolled_back", 0)
    assert change.live.block_of(DIGESTS["v8"]) is not None
    again = traffic.rollback(change.live, KNOWN, stamp(driver.now + 1, "eve"))
    assert again.already
    assert again.live == change.live
    known = tried_of(change.live.tried, DIGESTS["v8"])
    assert known is not None
    assert known.rejected == "Ended by a rollback of eve: 3 a.m."


def test_a_rollback_after_the_promotion_rejects_the_digest() -> None:
    driver = Driver().start().until(99)
    change = traffic.rollback(driver.live, KNOWN, stamp(driver.now, "eve"))
    driver.live = change.live
    assert (change.live.champion, driver.state.phase) == ("v7", "rolled_back")
    with pytest.raises(Conflict, match="v8 is blocked"):
        driver.start()
    assert driver.start(retry=True).state.attempts == 2


def test_a_rollback_after_an_abort_blocks_nothing_and_says_how_to() -> None:
    driver = Driver().start().until(1)
    driver.abort()
    change = traffic.rollback(driver.live, KNOWN, stamp(driver.now, "eve"))
    assert (change.already, change.live) == (True, driver.live)
    assert change.message.endswith(
        "; v8 of rollout r1 has no traffic, so it is not blocked (headgate block fraud v8 blocks it)"
    )
    blocked = traffic.block(driver.live, DIGESTS["v8"], "v8", KNOWN, stamp(driver.now)).live
    assert "not blocked" not in traffic.rollback(blocked, KNOWN, stamp(driver.now)).message
    champion = replace(driver.live, champion="v8", last_good="v8")
    assert "not blocked" not in traffic.rollback(champion, KNOWN, stamp(driver.now)).message
    # A rollback of what is rolled back has nothing to add.
    assert "not blocked" not in traffic.rollback(fresh(), KNOWN, stamp(driver.now)).message


def test_a_rollback_that_is_not_about_the_rollout_leaves_it() -> None:
    driver = Driver().start().until(99)
    driver.override({}, champion="v9")
    driver.live = traffic.rollback(driver.live, KNOWN, stamp(driver.now)).live
    assert (driver.live.champion, driver.state.phase) == ("v8", "promoted")


def test_an_abort_of_the_endpoint_ends_the_rollout_in_its_shadow_too() -> None:
    driver = Driver().start().until(0)
    change = traffic.abort(driver.live, stamp(driver.now, "eve"))
    assert not change.already
    assert change.live.rollout is not None
    assert (change.live.rollout.phase, change.live.rollout.shadow, change.live.blocked) == ("aborted", 0, ())
    assert traffic.abort(change.live, stamp(driver.now)).already


def test_a_block_of_the_challenger_rejects_it_and_one_of_the_champion_aborts() -> None:
    driver = Driver().start().until(1)
    challenger = traffic.block(driver.live, DIGESTS["v8"], "v8", KNOWN, stamp(driver.now)).live
    assert challenger.rollout is not None
    assert (challenger.rollout.phase, challenger.table) == ("rolled_back", EMPTY)
    known = replace(KNOWN, fallback=("v9",))
    champion = traffic.block(driver.live, DIGESTS["v7"], "v7", known, stamp(driver.now)).live
    assert champion.rollout is not None
    assert (champion.champion, champion.rollout.phase, champion.table) == ("v9", "aborted", EMPTY)
    other = traffic.block(driver.live, DIGESTS["v9"], "v9", KNOWN, stamp(driver.now)).live
    assert other.rollout == driver.state


def test_a_freeze_holds_and_keeps_the_state() -> None:
    driver = Driver().start().until(1)
    frozen = traffic.freeze(driver.live, stamp(driver.now)).live
    assert frozen.rollout == driver.state


def test_a_restore_of_a_rollout_under_way_waits_for_a_person() -> None:
    driver = Driver().start().until(1)
    then = driver.live
    driver.abort()
    driver.live = traffic.restore(driver.live, then, KNOWN, stamp(driver.now).when).live
    assert driver.live.table == then.table
    assert driver.state.pause is not None
    assert (driver.state.pause.reason, driver.state.step, driver.weight) == ("override", 1, 100)
    driver.resume()
    driver.until(99)
    assert driver.live.champion == "v8"


def test_a_restore_from_before_ends_the_rollout_and_one_of_what_was_rejected_begins_nothing() -> None:
    driver = Driver()
    before = driver.live
    driver.start().until(1)
    trial = driver.live
    driver.live = traffic.restore(driver.live, before, KNOWN, stamp(driver.now).when).live
    assert (driver.state.phase, driver.live.table) == ("aborted", EMPTY)
    driver = Driver(trial)
    driver.look(gates=(status("fail"),))
    with pytest.raises(Conflict, match="blocked now"):
        traffic.restore(driver.live, trial, KNOWN, stamp(driver.now).when)
    free = traffic.unblock(driver.live, DIGESTS["v8"], "v8", KNOWN).live
    driver.live = traffic.restore(free, trial, KNOWN, stamp(driver.now).when).live
    assert driver.state.phase == "rolled_back"
    with pytest.raises(Conflict):
        driver.resume()


def test_an_endpoint_that_comes_back_remembers_what_was_tried() -> None:
    driver = Driver().start().until(1)
    then = driver.live
    driver.look(gates=(status("fail"),))
    left = driver.live
    created = merge.first(Declared("v7"), left, KNOWN, stamp(driver.now).when).live
    assert (created.tried, created.rollouts, created.rollout) == (left.tried, 1, None)
    with pytest.raises(Conflict):
        Driver(created).start()
    back = traffic.returned(replace(then, table=EMPTY), left, KNOWN, stamp(driver.now).when).live
    assert back.rollout is not None
    assert back.rollout.phase == "rolled_back"


# === documents ===


def merged(driver: Driver, new: Declared, base: Declared, **digests: str) -> Change:
    names = frozenset({"v7", "v8", "v9"})
    known = replace(KNOWN, digests={**DIGESTS, **digests})
    return merge.apply_document(driver.live, Merge(new, base, names, names), known, stamp(driver.now).when)


def test_an_unchanged_document_leaves_a_rollout_and_restarts_no_rejected_one() -> None:
    driver = Driver().start().until(1)
    change = merged(driver, Declared("v7"), Declared("v7"))
    assert change.already
    driver.look(gates=(status("fail"),))
    before = driver.live
    for _ in range(3):
        assert merged(driver, Declared("v7"), Declared("v7")).live == before


def test_an_old_document_leaves_a_promotion() -> None:
    driver = Driver().start().until(99)
    change = merged(driver, Declared("v7"), Declared("v7"))
    assert (change.already, change.live.champion) == (True, "v8")


def test_a_document_that_changes_weights_pauses_as_override() -> None:
    driver = Driver().start().until(1)
    change = merged(driver, Declared("v7", {"v8": 1_000}), Declared("v7"))
    assert change.live.rollout is not None
    assert change.live.rollout.pause is not None
    assert change.live.rollout.pause.reason == "override"
    assert "rollout r1 is paused" in change.notes


def test_another_sticky_key_pauses_because_every_key_draws_anew() -> None:
    driver = Driver().start().until(1)
    change = merged(driver, Declared("v7", sticky="x-user"), Declared("v7"))
    assert change.live.rollout is not None
    assert change.live.rollout.pause is not None
    assert "The sticky key is x-user now, not none" in change.live.rollout.pause.words


def test_other_bytes_under_the_challengers_name_abort_the_rollout() -> None:
    driver = Driver().start().until(1)
    change = merged(driver, Declared("v7"), Declared("v7"), v8="sha256:other")
    assert change.live.rollout is not None
    assert (change.live.rollout.phase, change.live.table) == ("aborted", EMPTY)
    assert any("rollout r1 is aborted: v8 is sha256:other in it" in note for note in change.notes)


def test_a_document_without_the_challenger_aborts_the_rollout() -> None:
    driver = Driver().start().until(0)
    names = frozenset({"v7", "v8"})
    three = Merge(Declared("v7"), Declared("v7"), frozenset({"v7"}), names)
    change = merge.apply_document(driver.live, three, KNOWN, stamp(driver.now).when)
    assert change.live.rollout is not None
    assert (change.live.rollout.phase, change.live.rollout.shadow) == ("aborted", 0)


def test_a_refused_weight_leaves_the_rollout() -> None:
    driver = Driver().start().until(1)
    with pytest.raises(PolicyInvalid):
        driver.override({"v10": 100})
    assert driver.state.phase == "progressing"


# === stops ===


@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize("paused", [False, True])
def test_an_unclean_exit_takes_everything_away_until_a_person_resumes(step: int, paused: bool) -> None:
    driver = Driver().start().until(step)
    if paused:
        driver.pause()
    driver.crash()
    assert driver.state.pause is not None
    assert (driver.state.pause.reason, driver.weight, driver.state.shadow) == ("crash", 0, 0)
    for _ in range(60):
        driver.look()
    assert driver.weight == 0
    driver.resume()
    assert driver.state.step == step
    driver.until(99)
    assert driver.live.champion == "v8"
    assert driver.live.blocked == ()


def test_a_second_crash_blocks_the_digest_whichever_rollout_it_was_in() -> None:
    driver = Driver().start().until(1)
    driver.crash()
    driver.abort()
    driver.start().until(1)
    driver.crash()
    assert (driver.state.phase, driver.live.table) == ("rolled_back", EMPTY)
    assert driver.live.block_of(DIGESTS["v8"]) is not None
    assert driver.state.end is not None
    assert "ended uncleanly 2 times" in driver.state.end.words


def test_an_unclean_exit_before_anything_was_exposed_is_no_crash_of_the_challenger() -> None:
    driver = Driver().start()
    before = driver.live
    driver.crash()
    assert driver.live == before
    driver.until(99)
    promoted = driver.live
    driver.crash()
    assert driver.live == promoted


def test_evidence_begins_anew_with_the_salt_after_a_crash() -> None:
    driver = Driver().start().until(2)
    driver.crash()
    driver.resume()
    assert driver.state.attempt == driver.live.attempt == 2
    assert driver.state.blocks_ms == (driver.now,)


def test_a_drained_restart_repeats_the_step_and_goes_on() -> None:
    driver = Driver().start().until(1)
    for _ in range(9):
        driver.look()
    table, blocks = driver.live.table, driver.state.blocks_ms
    driver.restart()
    assert (driver.live.table, driver.state.blocks_ms) == (table, blocks)
    for _ in range(10):
        driver.look()
    assert driver.state.step == 1
    driver.look()
    assert driver.state.step == 2


def test_lost_counts_repeat_the_step_and_move_nothing() -> None:
    driver = Driver().start().until(1)
    for _ in range(9):
        driver.look()
    driver.progress = Progress()
    driver.look()
    driver.look()
    assert driver.state.step == 1


def test_every_transition_tells_people() -> None:
    driver = Driver().start().until(1)
    driver.look(challenger_breaker=Breaker(state="open", openings=1))
    driver.resume()
    driver.look(gates=(status("fail"),))
    told = [one.event for one in driver.done if isinstance(one, Notify)]
    assert told == ["start", "step", "step", "pause", "resume", "rollback"]


def test_a_plan_is_bound_by_its_digest() -> None:
    again = PLAN.model_copy(update={"name": "other", "notes": ("a note",)})
    assert again.digest == PLAN.digest
    assert plan_of(WEIGHT).digest != PLAN.digest

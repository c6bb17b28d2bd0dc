"""What people ask of a rollout: start, promote, pause, resume, abort, retry, approve. Pure; each refuses with what would be right.

A freeze and ``If-Match`` are checked where every call's are. Not here: what other changes of an endpoint do to a rollout
(``interruptions``), the effect on live traffic (``moves``). Next: ``interruptions``.
"""

from __future__ import annotations

from dataclasses import dataclass

from headgate.control.domain.rollout import words
from headgate.control.domain.rollout.actions import Advance, GiveBack, Notify, Paused, SetTraffic
from headgate.control.domain.rollout.advance import finished, next_step, promoted, waits
from headgate.control.domain.rollout.observation import Observation
from headgate.control.domain.rollout.plan import ResolvedPlan
from headgate.control.domain.rollout.state import (
    Approval,
    Ending,
    Pause,
    Progress,
    RolloutState,
    Trialled,
    Tried,
    tried_of,
)
from headgate.control.domain.shares import Table, format_shares
from headgate.control.domain.stamp import Stamp
from headgate.errors import Conflict, InvalidArgument, PermissionDenied

ROLES = ("viewer", "operator", "approver", "admin")
"""The same as in ``admin.tokens``, from the least to the most."""


@dataclass(frozen=True)
class Start:
    """What a start is about. ``present`` is the endpoint's rollout now, ended or not, ``table`` what is given away now.

    ``number`` counts the endpoint's rollouts from 1; ``retry`` takes a digest that was rejected.
    """

    endpoint: str
    challenger: Trialled
    champion: Trialled
    plan: ResolvedPlan
    number: int
    attempt: int
    table: Table
    present: RolloutState | None = None
    tried: tuple[Tried, ...] = ()
    retry: bool = False


def start(asked: Start, stamp: Stamp) -> Advance:
    """A rollout before its first step; the next look enters that. Nothing moves yet."""
    name, present = asked.challenger.name, asked.present
    if present is not None and present.active:
        raise Conflict(
            f"{asked.endpoint} has rollout {present.id} of {present.challenger.name}, which is {present.phase}: "
            f"abort it first (headgate rollout abort {asked.endpoint})"
        )
    if asked.challenger.digest == asked.champion.digest:
        raise InvalidArgument(f"{name} is what the champion {asked.champion.name} is already")
    if len(asked.plan.steps) < 2:
        raise InvalidArgument(
            f"plan {asked.plan.name} promotes at once, without evidence and without a person"
        )
    given = asked.table.weights()
    if given:
        shown = ", ".join(f"{version} {share}" for version, share in format_shares(given).items())
        raise Conflict(
            f"a rollout begins when the champion has all slots, and {shown} is given away: "
            f"give it back first (headgate abort {asked.endpoint})"
        )
    known = tried_of(asked.tried, asked.challenger.digest)
    if known is not None and known.rejected is not None and not asked.retry:
        raise Conflict(
            f"{name} was rolled back in {known.rollout} ({known.rejected}): to try it again, retry it "
            f"(headgate rollout retry {asked.endpoint} {name})"
        )
    if asked.retry and known is None:
        raise Conflict(f"{name} has not been on trial: start it")
    state = RolloutState(
        id=f"r{asked.number}",
        attempt=asked.attempt,
        attempts=1 if known is None else known.attempts + 1,
        crashes=0 if known is None else known.crashes,
        challenger=asked.challenger,
        champion=asked.champion,
        plan=asked.plan,
        step_begun_ms=stamp.ms,
        before=asked.table,
        started=stamp,
    )
    again = "" if state.attempts == 1 else f", attempt {state.attempts} of this digest"
    said = f"Rollout {state.id} of {name} by plan {asked.plan.name}{again}."
    return Advance(state, Progress(), (Notify("start", said, stamp.who),))


def promote(
    state: RolloutState, progress: Progress, observation: Observation, stamp: Stamp, *, full: bool
) -> Advance:
    """The next step whatever is undecided, or with ``full`` the end; what was undecided is recorded.

    Refused while a gate that rolls back fails, and past an approval that is missing.
    """
    _active(state, "promote")
    _check_harm(state, observation)
    _check_approvals(state, full=full)
    cleared = state.changed(phase="progressing", pause=None)
    if not full:
        return next_step(cleared, progress, observation, stamp.ms, stamp.who)
    left = cleared.changed(
        evidence=(*state.evidence, *finished(state, progress, observation, stamp.ms, stamp.who))
    )
    return promoted(left, observation, stamp.ms, stamp.who)


def _check_harm(state: RolloutState, observation: Observation) -> None:
    if observation.champion_unhealthy() is not None:
        # The comparison says nothing now, and leaving an unhealthy champion is one of the two ways out.
        return
    gates = state.plan.with_effect("rollback")
    keys = {gate.key for gate in gates}
    failed = [status for status in observation.gates if status.key in keys and status.harmful]
    if failed:
        raise Conflict(f"no promotion of {state.challenger.name}: {words.harm(failed, gates)}")


def _check_approvals(state: RolloutState, *, full: bool) -> None:
    """A step that needs an approval is never skipped."""
    last = len(state.plan.steps) - 1 if full else state.step
    for index in range(max(state.step, 0), last + 1):
        step = state.plan.steps[index]
        if step.kind == "approve" and not state.approved(index):
            raise Conflict(
                f"step {index + 1} needs the approval of a person with the role {step.role}, other than "
                f"{state.started.who}: approve it first"
            )


def pause(state: RolloutState, progress: Progress, stamp: Stamp) -> Advance:
    """Holds the rollout where it is; one that is paused already stays so."""
    _active(state, "pause")
    if state.phase == "paused":
        return Advance(state, progress)
    said = stamp.told("Paused by")
    held = Pause(reason="manual", since_ms=stamp.ms, words=said, who=stamp.who)
    return Advance(state.paused(held), progress, (Paused("manual", said), Notify("pause", said, stamp.who)))


def resume(state: RolloutState, progress: Progress, stamp: Stamp) -> Advance:
    """Goes on. A step that is not as it was (after a crash, an override) gets its weight again and begins anew.

    A step that waits for an approval is not resumed, and one that the plan pauses at goes on to the following one.
    """
    _active(state, "resume")
    held = state.pause
    if held is None:
        return Advance(state, progress)
    if held.reason == "approve":
        raise Conflict(held.words)
    back = state.changed(phase="progressing", pause=None, step_begun_ms=stamp.ms)
    weight, shadow = due(state)
    moved = (weight, shadow) != (state.weight, state.shadow)
    back = back.changed(weight=weight, shadow=shadow).tested_anew()
    said = stamp.told("Resumed by")
    step = back.present
    if step is not None and step.kind == "approve":
        # It was paused for another reason meanwhile; the step waits for a person as it did.
        again = waits(back, step.role, stamp.ms)
        back, said = (back, said) if again is None else (back.paused(again), f"{said} {again.words}")
    actions = (Notify("resume", said, stamp.who),)
    return Advance(back, Progress(), (SetTraffic(weight, shadow), *actions) if moved else actions)


def due(state: RolloutState) -> tuple[int, int]:
    """The weight and the share of copies that the present step gives: those of the last step that gives a weight."""
    step = state.present
    shadow = step.slots if step is not None and step.kind == "shadow" else 0
    given = [one.slots for one in state.plan.steps[: state.step + 1] if one.kind == "weight"]
    return (given[-1] if given else 0), shadow


def abort(state: RolloutState, progress: Progress, stamp: Stamp, endpoint: str = "ENDPOINT") -> Advance:
    """Everything as it was before the rollout; nothing is blocked. One that has ended stays as it is; once it is promoted, that is refused,
    because an abort takes no promotion back, and a person who asks for it must not believe so.
    """
    if state.phase == "promoted":
        raise Conflict(
            f"rollout {state.id} is promoted, and no abort takes that back: to leave {state.challenger.name}, "
            f"roll back (headgate rollback {endpoint})"
        )
    if not state.active:
        return Advance(state, progress)
    said = stamp.told("Aborted by")
    end = Ending(reason="abort", at_ms=stamp.ms, words=said, who=stamp.who)
    return Advance(state.ended("aborted", end), progress, (GiveBack(), Notify("abort", said, stamp.who)))


def approve(state: RolloutState, progress: Progress, stamp: Stamp, role: str, digest: str) -> Advance:
    """A yes to the next step that needs one, for exactly ``digest``. The person who started the rollout cannot give it."""
    _active(state, "approve")
    index = next(
        (
            at
            for at, step in enumerate(state.plan.steps)
            if at >= state.step and step.kind == "approve" and not state.approved(at)
        ),
        None,
    )
    if index is None:
        raise Conflict(f"rollout {state.id} needs no approval any more")
    wanted = state.plan.steps[index].role
    if ROLES.index(role) < ROLES.index(wanted):
        raise PermissionDenied(f"step {index + 1} is approved with the role {wanted}, not {role}")
    if stamp.who == state.started.who:
        raise PermissionDenied(f"{stamp.who} started rollout {state.id}: another person approves it")
    if digest != state.challenger.digest:
        raise Conflict(
            f"{digest} is not what is on trial: {state.challenger.name} is {state.challenger.digest}; look again before approving"
        )
    given = Approval(step=index, who=stamp.who, role=role, digest=digest, at_ms=stamp.ms)
    after = state.changed(approvals=(*state.approvals, given))
    if state.step == index and state.pause is not None and state.pause.reason == "approve":
        after = after.changed(phase="progressing", pause=None)
    return Advance(
        after, progress, (Notify("approve", f"Step {index + 1} approved by {stamp.who}.", stamp.who),)
    )


def _active(state: RolloutState, what: str) -> None:
    if not state.active:
        raise Conflict(f"rollout {state.id} is {state.phase.replace('_', ' ')}: nothing to {what}")

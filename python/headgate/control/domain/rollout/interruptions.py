"""What happens to a rollout by other ways than its own: weights that a person changes, emergency calls, documents, restarts. Pure.

All functions take None for an endpoint without a rollout, and leave one that has ended as it is, unless they say otherwise.
Next: ``moves``.
"""

from __future__ import annotations

from typing import Literal

from headgate.control.domain.rollout.actions import Advance, Notify, Paused, SetTraffic
from headgate.control.domain.rollout.advance import rolled_back
from headgate.control.domain.rollout.state import (
    Ending,
    Pause,
    Phase,
    Progress,
    RolloutState,
    Tried,
    tried_of,
)
from headgate.control.domain.stamp import Stamp

_CALLS = {"abort": "an abort", "rollback": "a rollback", "block": "a block"}
CRASHES = 2
"""Crashes with a digest on trial after which it is blocked."""


def overridden(
    state: RolloutState | None, champion: str, weights: dict[str, int], said: str, now_ms: int
) -> RolloutState | None:
    """Live traffic is now ``champion`` and ``weights`` (slots), because somebody wants it so: the rollout waits, and never fights it.

    If its challenger is champion now, it was promoted by hand; if a third version is, there is nothing left to compare with.
    """
    if state is None or not state.active:
        return state
    if champion == state.challenger.name:
        gates = ", ".join(gate.key for gate in state.plan.gates if gate.effect != "report") or "none"
        told = f"Promoted by hand, and the gates were not looked at (undecided: {gates}). {_not_approved(state)}{said}"
        return state.ended("promoted", Ending(reason="override", at_ms=now_ms, words=told))
    if champion != state.champion.name:
        told = f"The champion is {champion} now, and {state.challenger.name} was compared with {state.champion.name}. {said}"
        return state.ended("aborted", Ending(reason="override", at_ms=now_ms, words=told))
    changed = state.changed(weight=weights.get(state.challenger.name, 0))
    return changed.paused(Pause(reason="override", since_ms=now_ms, words=said))


def _not_approved(state: RolloutState) -> str:
    """Which approvals a promotion by hand did without. It is a change of traffic like any other, but not one that the plan allows."""
    steps = [
        at for at, one in enumerate(state.plan.steps) if one.kind == "approve" and not state.approved(at)
    ]
    if not steps:
        return ""
    numbers = ", ".join(str(at + 1) for at in steps)
    return f"Without the approval of step{'s' if len(steps) > 1 else ''} {numbers}. "


def stopped(
    state: RolloutState | None, call: Literal["abort", "rollback", "block"], stamp: Stamp
) -> RolloutState | None:
    """An emergency call gave everything back. Unless it was an abort the challenger is rejected, also after its promotion."""
    if state is None or not (state.active or (state.phase == "promoted" and call != "abort")):
        return state
    said = stamp.told(f"Ended by {_CALLS[call]} of")
    phase: Phase = "aborted" if call == "abort" else "rolled_back"
    return state.ended(phase, Ending(reason=call, at_ms=stamp.ms, words=said, who=stamp.who))


def aborted(state: RolloutState | None, reason: str, said: str, now_ms: int) -> RolloutState | None:
    """What it compared is not there any more: the document names other bytes, or the state is another one."""
    if state is None or not state.active:
        return state
    return state.ended("aborted", Ending(reason=reason, at_ms=now_ms, words=said))


def removed(state: RolloutState | None, stamp: Stamp) -> RolloutState | None:
    """The endpoint is taken away."""
    if state is None or not state.active:
        return state
    said = stamp.told("The endpoint was removed by")
    return state.ended("aborted", Ending(reason="remove", at_ms=stamp.ms, words=said, who=stamp.who))


def restored(
    now: RolloutState | None, then: RolloutState | None, tried: tuple[Tried, ...], revision: str, now_ms: int
) -> RolloutState | None:
    """The rollout after an old revision's traffic came back: one that was under way then waits for a person, with its weight.

    ``tried`` is what the endpoint remembers now: attempts, crashes and beginnings of tests never count backwards, and what was rejected
    since stays so.
    """
    if then is None or not then.active:
        return aborted(now, "restore", f"{revision} came back.", now_ms)
    if now is not None and now.id == then.id:
        then = then.changed(beginnings=max(then.beginnings, now.beginnings))
    then = then.tested_anew()
    known = tried_of(tried, then.challenger.digest)
    if known is not None:
        then = then.changed(
            attempts=max(then.attempts, known.attempts), crashes=max(then.crashes, known.crashes)
        )
    if known is not None and known.rejected is not None:
        said = f"{revision} came back, and {then.challenger.name} was rejected since: {known.rejected}"
        return then.ended("rolled_back", Ending(reason="restore", at_ms=now_ms, words=said))
    said = f"{revision} came back with this rollout under way: resume or abort it."
    return then.paused(Pause(reason="override", since_ms=now_ms, words=said))


def crashed(state: RolloutState, now_ms: int, *, unconfirmed: bool = False) -> Advance:
    """The gateway ended uncleanly while the challenger had requests, copies or a replay: it gets none until a person resumes.

    A second crash with the same digest, in whatever rollout, rolls it back. What was not exposed stays as it is, unless a change that
    exposes it was on its way (``unconfirmed``): it may have been served when the gateway ended.
    """
    if not (state.exposed or unconfirmed):
        return Advance(state, Progress())
    name, crashes = state.challenger.name, state.crashes + 1
    counted = state.changed(crashes=crashes, breaker_openings=None)
    if crashes >= CRASHES:
        said = f"The gateway ended uncleanly {crashes} times while {name} had requests, copies or a replay, or was about to."
        return rolled_back(counted, Progress(), Ending(reason="crash", at_ms=now_ms, words=said))
    said = f"The gateway ended uncleanly while {_exposure(state)}; it gets none until the rollout is resumed."
    held = counted.changed(weight=0, shadow=0).paused(Pause(reason="crash", since_ms=now_ms, words=said))
    return Advance(held, Progress(), (SetTraffic(0, 0), Paused("crash", said), Notify("pause", said)))


def _exposure(state: RolloutState) -> str:
    name = state.challenger.name
    if not state.exposed:
        return f"a change that gives {name} requests or copies was on its way"
    return f"{name} had {'a replay' if state.replays else 'requests or copies'}"


def restarted(state: RolloutState, now_ms: int) -> Advance:
    """The gateway was drained and started again: the step is repeated, with its weight as it was."""
    if not state.active:
        return Advance(state, Progress())
    repeated = state.changed(breaker_openings=None, step_begun_ms=now_ms)
    return Advance(repeated.tested_anew(), Progress())

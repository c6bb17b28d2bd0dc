"""One look at a rollout: from its state and an observation to the next state and what to do. Pure.

The order decides: what is above stops what is below.

    ended                             nothing
    the champion is unhealthy         pause; no automatic move, not even a rollback to it
    a gate of rollback_if fails       roll back, also while paused
    the challenger's breaker          first opening: pause; opened again by three units: roll back
    paused                            nothing more
    a gate of pause_if, srm,
    few keys, interference            pause
    nothing is missing                the next step; pause if the data plane refused it
    undecided for too long, or a
    replay that decided nothing       pause or abort, as the plan says

Not here: what people ask for (``calls``). Next: ``calls``.
"""

from __future__ import annotations

from headgate.control.domain.rollout import words
from headgate.control.domain.rollout.actions import (
    Action,
    Advance,
    GiveBack,
    Notify,
    Paused,
    Promote,
    Rollback,
    SetTraffic,
    StartReplay,
)
from headgate.control.domain.rollout.missing import missing, replay_key, weight_of
from headgate.control.domain.rollout.observation import BREAKER_UNITS, LONGEST_LOOK_MS, Observation
from headgate.control.domain.rollout.state import (
    Ending,
    FinishedStep,
    Pause,
    PauseReason,
    Progress,
    RolloutState,
)
from headgate.documents.values import format_duration


def advance(state: RolloutState, progress: Progress, observation: Observation, now_ms: int) -> Advance:
    """The next state. It equals ``state`` unless something has to be written; ``progress`` changes with every look."""
    if not state.active:
        return Advance(state, progress)
    progress = watched(state, progress, observation, now_ms)
    unwell = observation.champion_unhealthy()
    if unwell is not None:
        if state.phase == "paused":
            return Advance(state, progress)
        return pause(state, progress, "champion_unhealthy", words.both_ways(unwell), now_ms)
    stopped = _harm(state, progress, observation, now_ms) or _breaker(state, progress, observation, now_ms)
    if stopped is not None:
        return stopped
    if state.phase == "paused":
        return Advance(state, progress)
    return _pauses(state, progress, observation, now_ms) or _onward(state, progress, observation, now_ms)


def watched(state: RolloutState, progress: Progress, observation: Observation, now_ms: int) -> Progress:
    """With the time since the last look, as far as there was traffic. Paused time counts for nothing."""
    since = 0 if progress.observed_ms is None else now_ms - progress.observed_ms
    passed = min(max(since, 0), LONGEST_LOOK_MS)
    progress = progress.model_copy(update={"observed_ms": now_ms})
    if state.phase != "progressing" or state.present is None or not observation.has_traffic(now_ms):
        return progress
    progress = progress.model_copy(update={"traffic_ms": progress.traffic_ms + passed})
    if not any(one.evidence for one in missing(state, progress, observation, now_ms)):
        return progress
    return progress.model_copy(update={"undecided_ms": progress.undecided_ms + passed})


def pause(state: RolloutState, progress: Progress, reason: PauseReason, said: str, now_ms: int) -> Advance:
    """Paused: the challenger keeps its weight."""
    paused = state.paused(Pause(reason=reason, since_ms=now_ms, words=said))
    return Advance(paused, progress, (Paused(reason, said), Notify("pause", said)))


def _harm(state: RolloutState, progress: Progress, observation: Observation, now_ms: int) -> Advance | None:
    """Gates that roll back, in every step and also while paused."""
    gates = state.plan.with_effect("rollback")
    keys = {gate.key for gate in gates}
    failed = tuple(status for status in observation.gates if status.key in keys and status.harmful)
    if not failed:
        return None
    said = words.harm(failed, gates)
    end = Ending(reason=failed[0].key, at_ms=now_ms, words=said, gates=failed)
    return rolled_back(state, progress, end)


def rolled_back(state: RolloutState, progress: Progress, end: Ending) -> Advance:
    """Everything given back and the challenger's digest blocked."""
    move = Rollback(end.reason, end.words, end.gates)
    return Advance(state.ended("rolled_back", end), progress, (move, Notify("rollback", end.words, end.who)))


def _breaker(
    state: RolloutState, progress: Progress, observation: Observation, now_ms: int
) -> Advance | None:
    """The challenger's breaker. While it is open the champion answers in its place, so that its errors come to an end before they
    are proven: it is outside the promise of the gates.
    """
    breaker, seen = observation.challenger_breaker, state.breaker_openings
    if seen is not None and breaker.openings < seen:
        # The gateway counts from its own start.
        seen = None
    if breaker.state != "open":
        return None
    name = state.challenger.name
    if seen is not None and breaker.openings > seen and breaker.failed_units >= BREAKER_UNITS:
        said = (
            f"The breaker of {name} opened again, and {breaker.failed_units} units erred on it; "
            "this rollback is no statistical test."
        )
        return rolled_back(state, progress, Ending(reason="breaker", at_ms=now_ms, words=said))
    marked = state if seen is not None else state.changed(breaker_openings=breaker.openings)
    if state.phase == "paused":
        return None if marked is state else Advance(marked, progress)
    said = f"The breaker of {name} is open: the champion answers in its place."
    return pause(marked, progress, "breaker", said, now_ms)


def _pauses(state: RolloutState, progress: Progress, observation: Observation, now_ms: int) -> Advance | None:
    gates = state.plan.with_effect("pause")
    keys = {gate.key for gate in gates}
    failed = tuple(status for status in observation.gates if status.key in keys and status.harmful)
    if failed:
        paused = pause(state, progress, "gate", words.harm(failed, gates), now_ms)
        held = paused.state.pause
        with_gates = paused.state.changed(pause=held and held.model_copy(update={"gates": failed}))
        return paused._replace(state=with_gates)
    if observation.srm == "mismatch":
        said = observation.srm_words or "the units of the two versions are not shared out as the weights say"
        return pause(state, progress, "srm", f"Sample ratio mismatch: {said}.", now_ms)
    if observation.few_keys is not None:
        return pause(state, progress, "few_keys", observation.few_keys, now_ms)
    slower = observation.interference(state.pool, state.plan.ignore_latency_below_ns)
    return (
        None if slower is None else pause(state, progress, "interference", f"Interference: {slower}.", now_ms)
    )


def _onward(state: RolloutState, progress: Progress, observation: Observation, now_ms: int) -> Advance:
    open_ends = missing(state, progress, observation, now_ms)
    if not open_ends and observation.refused is not None:
        return pause(state, progress, "load_failed", words.not_entered(state, observation.refused), now_ms)
    if not open_ends:
        return next_step(state, progress, observation, now_ms)
    final = [one.words for one in open_ends if one.final]
    if final:
        said = f"The replay is over and decided nothing; missing: {'; '.join(final)}."
        return _undecided(state, progress, observation, now_ms, said)
    after_ms = state.plan.undecided_after_ms
    if progress.undecided_ms < after_ms:
        return Advance(state, progress, _replay_of(state, observation))
    said = "; ".join(one.words for one in open_ends)
    said = f"Undecided for {format_duration(after_ms)} with traffic; missing: {said}."
    return _undecided(state, progress, observation, now_ms, said)


def _undecided(
    state: RolloutState, progress: Progress, observation: Observation, now_ms: int, said: str
) -> Advance:
    if state.plan.undecided_then == "abort":
        end = Ending(reason="undecided", at_ms=now_ms, words=said, gates=observation.gates)
        return Advance(state.ended("aborted", end), progress, (GiveBack(), Notify("abort", said)))
    return pause(state, progress, "undecided", said, now_ms)


def _replay_of(state: RolloutState, observation: Observation) -> tuple[Action, ...]:
    """Asks for the replay of a step again as long as it has not begun: a stop may have lost it, or there was no room for it."""
    step, key = state.present, replay_key(state)
    if step is None or step.kind != "replay":
        return ()
    replay = observation.replay
    known = replay is not None and replay.key == key and replay.state != "waiting"
    return () if known else (StartReplay(key, step.requests),)


def next_step(
    state: RolloutState, progress: Progress, observation: Observation, now_ms: int, who: str = ""
) -> Advance:
    """Leaves the present step and enters the following one. ``who`` names the person who skipped what was missing."""
    left = state.changed(evidence=(*state.evidence, *finished(state, progress, observation, now_ms, who)))
    return enter(left, observation, now_ms, who)


def finished(
    state: RolloutState, progress: Progress, observation: Observation, now_ms: int, who: str
) -> tuple[FinishedStep, ...]:
    """The present step with its evidence; none before the first."""
    step = state.present
    if step is None:
        return ()
    entry = FinishedStep(
        index=state.step,
        label=step.label,
        begun_ms=state.step_begun_ms,
        ended_ms=now_ms,
        traffic_ms=progress.traffic_ms,
        requests=observation.counted(step.kind),
        gates=observation.gates,
        by=who,
        undecided=open_gates(state, observation) if who else (),
    )
    return (entry,)


def open_gates(state: RolloutState, observation: Observation) -> tuple[str, ...]:
    """The gates that have not passed, by key: what a promotion by hand records."""
    found = []
    for gate in state.plan.gates:
        status = observation.status(gate.key)
        if gate.effect != "report" and (status is None or status.verdict != "pass"):
            found.append(gate.key)
    return tuple(found)


def enter(state: RolloutState, observation: Observation, now_ms: int, who: str = "") -> Advance:
    """Enters the step after ``state.step``."""
    step = state.following
    if step.kind == "promote":
        return promoted(state, observation, now_ms, who)
    weight = weight_of(step, state.weight)
    shadow = step.slots if step.kind == "shadow" else 0
    entered = state.changed(
        step=state.step + 1,
        step_begun_ms=now_ms,
        weight=weight,
        shadow=shadow,
        pool=observation.pool,
        blocks_ms=(*state.blocks_ms, now_ms) if step.kind == "weight" else state.blocks_ms,
    ).tested_anew()
    said = f"Step {entered.step + 1} of {len(state.plan.steps)}: {step.label}."
    said += "" if not who else f" {_promoted_by(state, who)}"
    moved = (weight, shadow) != (state.weight, state.shadow)
    actions: tuple[Action, ...] = (SetTraffic(weight, shadow),) if moved else ()
    if step.kind == "replay":
        actions += (StartReplay(replay_key(entered), step.requests),)
    held = waits(entered, step.role, now_ms)
    if held is not None:
        entered = entered.paused(held)
        actions += (Paused(held.reason, held.words), Notify("pause", held.words, who))
    else:
        actions += (Notify("step", said, who),)
    return Advance(entered, Progress(observed_ms=now_ms), actions)


def _promoted_by(state: RolloutState, who: str) -> str:
    """Who skipped the rest of the step before, and what was undecided then."""
    left = state.evidence[-1] if state.evidence else None
    undecided = () if left is None else left.undecided
    return f"Promoted by {who}" + (f"; undecided then: {', '.join(undecided)}." if undecided else ".")


def waits(state: RolloutState, role: str, now_ms: int) -> Pause | None:
    """The pause that a step is for."""
    step, name = state.present, state.challenger.name
    if step is not None and step.kind == "pause":
        said = f"The plan pauses here: resume or promote {name}, or abort."
        return Pause(reason="manual", since_ms=now_ms, words=said)
    if step is not None and step.kind == "approve" and not state.approved(state.step):
        said = (
            f"{name} ({state.challenger.digest[:19]}) needs the approval of a person with the role {role}, "
            f"other than {state.started.who}."
        )
        return Pause(reason="approve", since_ms=now_ms, words=said)
    return None


def promoted(state: RolloutState, observation: Observation, now_ms: int, who: str = "") -> Advance:
    """The challenger becomes champion, with what was shown."""
    open_ends = open_gates(state, observation)
    said = words.promotion(observation.gates, open_ends, who)
    end = Ending(reason="promote", at_ms=now_ms, words=said, who=who, gates=observation.gates)
    after = state.ended("promoted", end).changed(step=len(state.plan.steps) - 1)
    return Advance(after, Progress(), (Promote(said, observation.gates), Notify("promote", said, who)))

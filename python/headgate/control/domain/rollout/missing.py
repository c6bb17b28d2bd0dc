"""What keeps the present step from being left. An empty list is the only way on.

Not here: what stops a rollout (``advance``). Next: ``advance``.
"""

from __future__ import annotations

from dataclasses import dataclass

from headgate.control.domain.rollout import words
from headgate.control.domain.rollout.observation import MOST_BUSY, Observation
from headgate.control.domain.rollout.plan import PlanStep
from headgate.control.domain.rollout.state import Progress, RolloutState
from headgate.documents.values import SLOTS, format_duration
from headgate.readable import number


@dataclass(frozen=True)
class Missing:
    """One thing. ``evidence`` says that only more traffic can bring it: such time counts as undecided. ``final`` says that waiting cannot
    bring it at all: what it is about is over.
    """

    words: str
    evidence: bool = False
    final: bool = False


def missing(
    state: RolloutState, progress: Progress, observation: Observation, now_ms: int
) -> tuple[Missing, ...]:
    """Everything that the present step still needs, and what the following one needs to begin."""
    step = state.present
    return (
        *(() if step is None else _to_leave(step, state, progress, observation)),
        *_to_move(state, observation, now_ms),
        *_to_enter(state, observation),
    )


def replay_key(state: RolloutState) -> str:
    """Names the replay of the present step; a step that is repeated has another one."""
    return f"{state.id}/{state.step}/{state.step_begun_ms}"


def _to_leave(
    step: PlanStep, state: RolloutState, progress: Progress, observation: Observation
) -> list[Missing]:
    if step.kind == "approve":
        said = f"{step.role} has to approve {state.challenger.name} ({state.challenger.digest[:19]})"
        return [] if state.approved(state.step) else [Missing(said)]
    if step.kind == "pause":
        return []
    if step.kind == "replay":
        return _replay(step, state, observation)
    found = []
    left = step.for_ms - progress.traffic_ms
    if left > 0:
        found.append(Missing(f"{format_duration(-(-left // 1000) * 1000)} with traffic"))
    what = "requests" if step.kind == "weight" else "pairs"
    seen, wanted = observation.counted(step.kind), max(step.min_requests, 1)
    if seen < wanted:
        found.append(
            Missing(f"{number(wanted - seen)} {what} of {state.challenger.name}", evidence=left <= 0)
        )
    found += [Missing(said, evidence=left <= 0) for said in _gates(step, state, observation)]
    return found


def _gates(step: PlanStep, state: RolloutState, observation: Observation) -> list[str]:
    """The gates that have to pass in the step and have not."""
    found = []
    for gate in state.plan.required_in(step.kind):
        status = observation.status(gate.key)
        if status is None or status.verdict != "pass" or status.challenger.n <= 0:
            found.append(words.undecided(status, gate))
    return found


def _replay(step: PlanStep, state: RolloutState, observation: Observation) -> list[Missing]:
    """What a step that replays needs. When its replay is over, nothing changes any more: another one has to be begun."""
    replay = observation.replay
    if replay is None or replay.key != replay_key(state):
        return [Missing("the replay")]
    if replay.state == "waiting":
        return [Missing(f"the replay, which waits: {replay.problem}", evidence=True)]
    if replay.state == "running":
        return [Missing(f"the replay, which has put {number(replay.replayed)} requests")]
    if replay.state == "failed":
        return [Missing(f"the replay, which failed: {replay.problem}", evidence=True, final=True)]
    found, wanted = [], max(step.min_requests, 1)
    if replay.pairs < wanted:
        why = f" ({replay.problem})" if replay.problem else ""
        found.append(f"{number(wanted)} pairs: the replay compared {number(replay.pairs)}{why}")
    elif replay.incompatible:
        found.append(f"requests that fit: {replay.problem}")
    found += _gates(step, state, observation)
    return [Missing(said, evidence=True, final=True) for said in found]


def _to_move(state: RolloutState, observation: Observation, now_ms: int) -> list[Missing]:
    """What holds for every step: a rollback needs none of it."""
    found = []
    if observation.frozen:
        found.append(Missing("the endpoint is frozen"))
    if state.plan.hours is not None and not state.plan.hours.is_open(now_ms):
        found.append(Missing(f"hours: {state.plan.hours.text}"))
    if not observation.ready:
        found.append(Missing(f"{state.challenger.name} is not loaded"))
    if observation.challenger_breaker.state != "closed":
        found.append(
            Missing(f"the breaker of {state.challenger.name} is {observation.challenger_breaker.state}")
        )
    return found


def weight_of(step: PlanStep, now: int) -> int:
    """The challenger's weight once ``step`` is entered from ``now``: steps without one of their own leave it."""
    if step.kind == "promote":
        return SLOTS
    return step.slots if step.kind == "weight" else now


def _to_enter(state: RolloutState, observation: Observation) -> list[Missing]:
    """Room for a greater weight. The first weight may be given without it: nothing is known of the challenger's runs before."""
    wanted = weight_of(state.following, state.weight)
    if wanted <= state.weight:
        return []
    load = observation.load
    if load is None:
        return [] if state.weight == 0 else [Missing("the load of its threads is not known", evidence=True)]
    busy = load.busy_after((wanted - state.weight) / SLOTS)
    if busy <= MOST_BUSY:
        return []
    said = f"{state.following.label} would keep the threads {busy:.0%} busy, more than {MOST_BUSY:.0%}"
    return [Missing(said, evidence=True)]

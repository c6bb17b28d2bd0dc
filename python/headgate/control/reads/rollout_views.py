"""Rollouts as reads tell them: the present one or the last one with what its step waits for, and those before it.

Not here: what is decided (``domain.rollout``), the looks (``writes.rollouts``). Next: ``queries``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from typing_extensions import TypedDict

from headgate.control.domain.revision import Revision, read_revision
from headgate.control.domain.rollout.plan import PlanGate
from headgate.control.domain.rollout.preview import Facts, left_ms, timeline
from headgate.control.domain.rollout.state import GateStatus, RolloutState
from headgate.control.writes.rollouts import Look
from headgate.store import RevisionRecord, seconds, stamp


class RolloutPause(TypedDict):
    """Why a rollout waits for a person, and since when."""

    reason: str
    since: str
    said: str
    who: str


class RolloutEnd(TypedDict):
    """How a rollout ended."""

    reason: str
    at: str
    said: str
    who: str


class RolloutStep(TypedDict):
    """The present step: ``index`` counts from 1 to ``of``. ``served_ms`` of ``for_ms`` is time with traffic; ``requests`` are pairs in a
    step without a weight.
    """

    index: int
    of: int
    what: str
    begun: str
    for_ms: int
    served_ms: int
    requests: int
    min_requests: int


class GateLimit(TypedDict):
    """A gate of the plan. ``above`` is a ratio to the champion, a share or a value; ``ignore_below`` nanoseconds or a share; ``distance``
    null unless the plan of ``output_drift`` names one.
    """

    gate: str
    measure: str | None
    effect: str
    above: float | None
    ignore_below: float | None
    strict: bool
    distance: str | None


class FinishedStepView(TypedDict):
    """A step that was left, with its evidence; ``by`` names the person who skipped what was undecided."""

    step: str
    begun: str
    ended: str
    served_ms: int
    requests: int
    gates: list[dict[str, Any]]
    by: str
    undecided: list[str]


class RolloutView(TypedDict):
    """A rollout. ``gates`` are the judge's status objects as they are; ``missing`` says what the step waits for. ``revision`` is that of
    the endpoint. ``left_ms`` is the time with traffic that the rest takes at the present traffic, if nobody has to act and nothing is
    undecided; null if it is not known, and after the end.
    """

    endpoint: str
    revision: int
    id: str
    attempt: int
    attempts: int
    challenger: str
    digest: str
    champion: str
    plan: str
    plan_digest: str
    phase: str
    pause: RolloutPause | None
    end: RolloutEnd | None
    step: RolloutStep | None
    weight: int
    shadow: int
    gates: list[dict[str, Any]]
    limits: list[GateLimit]
    missing: list[str]
    left_ms: int | None
    hours: str | None
    timeline: list[dict[str, Any]]
    finished: list[FinishedStepView]
    started: str
    started_by: str
    approvals: list[dict[str, Any]]
    notes: list[str]


class RolloutSummary(TypedDict):
    """A rollout of the history, as its newest revision has it; ``step`` is the present step, or the one that it ended in. ``attempts`` are
    those of the digest so far.
    """

    id: str
    revision: int
    challenger: str
    digest: str
    plan: str
    phase: str
    step: str | None
    attempts: int
    started: str
    started_by: str
    said: str


def rollout_view(
    current: Revision, state: RolloutState, look: Look | None, missing: Sequence[str], facts: Facts | None
) -> RolloutView:
    """The view of a rollout after its newest look."""
    held, end = state.pause, state.end
    gates: Sequence[GateStatus] = () if look is None else look.observation.gates
    if not state.active:
        gates = () if end is None else end.gates
    return RolloutView(
        endpoint=current.endpoint,
        revision=current.n,
        id=state.id,
        attempt=state.attempt,
        attempts=state.attempts,
        challenger=state.challenger.name,
        digest=state.challenger.digest,
        champion=state.champion.name,
        plan=state.plan.name,
        plan_digest=state.plan.digest,
        phase=state.phase,
        pause=None
        if held is None
        else RolloutPause(reason=held.reason, since=_time(held.since_ms), said=held.words, who=held.who),
        end=None
        if end is None
        else RolloutEnd(reason=end.reason, at=_time(end.at_ms), said=end.words, who=end.who),
        step=_step(state, look),
        weight=state.weight,
        shadow=state.shadow,
        gates=_dumped(gates),
        limits=[_limit(gate) for gate in state.plan.gates],
        missing=list(missing),
        left_ms=None
        if facts is None or not state.active
        else left_ms(state.plan, facts, state.step, 0 if look is None else look.progress.traffic_ms),
        hours=None if state.plan.hours is None else state.plan.hours.text,
        timeline=[]
        if facts is None
        else [asdict(step) for step in timeline(state.plan, state.challenger.name, facts)],
        finished=[_finished(one) for one in state.evidence],
        started=seconds(state.started.when),
        started_by=state.started.who,
        approvals=[one.model_dump(mode="json") for one in state.approvals],
        notes=list(state.plan.notes),
    )


def _limit(gate: PlanGate) -> GateLimit:
    return GateLimit(
        gate=gate.gate,
        measure=gate.measure,
        effect=gate.effect,
        above=gate.above,
        ignore_below=gate.ignore_below,
        strict=gate.strict,
        distance=gate.distance,
    )


def _step(state: RolloutState, look: Look | None) -> RolloutStep | None:
    step = state.present
    if step is None or not state.active:
        return None
    # A look from before the step counted what was in the one before.
    is_of_step = look is not None and look.at_ms >= state.step_begun_ms
    seen = look.observation.counted(step.kind) if look is not None and is_of_step else 0
    return RolloutStep(
        index=state.step + 1,
        of=len(state.plan.steps),
        what=step.label,
        begun=_time(state.step_begun_ms),
        for_ms=step.for_ms,
        served_ms=0 if look is None else look.progress.traffic_ms,
        requests=seen,
        min_requests=step.min_requests,
    )


def _finished(one: Any) -> FinishedStepView:
    return FinishedStepView(
        step=one.label,
        begun=_time(one.begun_ms),
        ended=_time(one.ended_ms),
        served_ms=one.traffic_ms,
        requests=one.requests,
        gates=_dumped(one.gates),
        by=one.by,
        undecided=list(one.undecided),
    )


def history(records: Sequence[RevisionRecord]) -> list[RolloutSummary]:
    """The rollouts that revisions (newest first) tell of, newest first; each as the newest of them has it."""
    found: dict[str, RolloutSummary] = {}
    for record in records:
        rollout = None if record.status != "applied" else read_revision(record.body).traffic.rollout
        if rollout is None or rollout.id in found:
            continue
        held = rollout.end or rollout.pause
        # A removal leaves the state as it was, and the rollout is over: a later namesake begins without one.
        gone = record.kind == "remove" and rollout.active
        found[rollout.id] = RolloutSummary(
            id=rollout.id,
            revision=record.n,
            challenger=rollout.challenger.name,
            digest=rollout.challenger.digest,
            plan=rollout.plan.name,
            phase="aborted" if gone else rollout.phase,
            step=None if rollout.present is None else rollout.present.label,
            attempts=rollout.attempts,
            started=seconds(rollout.started.when),
            started_by=rollout.started.who,
            said="The endpoint was removed." if gone else "" if held is None else held.words,
        )
    return list(found.values())


def _dumped(gates: Sequence[GateStatus]) -> list[dict[str, Any]]:
    return [gate.model_dump(mode="json") for gate in gates]


def _time(milliseconds: int) -> str:
    return seconds(stamp(datetime.fromtimestamp(milliseconds / 1000, UTC)))

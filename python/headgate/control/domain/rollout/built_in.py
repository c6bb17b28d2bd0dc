"""The plan that needs no document: shadow 10 % -> 1 % -> 5 % -> 25 % -> 50 % -> promote, with times from the endpoint's traffic.

Not here: how many requests show a ratio (``needs``, which the caller injects). Next: ``state``.
"""

from __future__ import annotations

from collections.abc import Callable

from headgate.control.domain.rollout.plan import DEFAULT_PAIRS, HARM_GATES, PlanGate, PlanStep, ResolvedPlan
from headgate.control.domain.rollout.promise import threshold
from headgate.documents.rollout import BUILT_IN
from headgate.documents.values import SLOTS, format_weight

Needs = Callable[[int, float], float]
"""Expected requests of the challenger until a true error ratio is caught, from the weight in slots and the ratio."""

LOW_TRAFFIC = 1_000
"""Requests a day below which weights are left out that cannot show a tenfold error ratio."""
REPLAYED = 10_000
LONGEST_STEP_MS = 7 * 86_400_000
SEEN_RATIO = 5.0
"""Each step waits for the requests that show this ratio, or ``LOW_RATIO`` if it would wait too long for them."""
LOW_RATIO = 10.0
_DAY_MS = 86_400_000
_SHADOW = 1_000
_SHADOW_MS = 30 * 60_000
_WEIGHTS = ((100, 15 * 60_000), (500, 15 * 60_000), (2_500, 30 * 60_000), (5_000, 60 * 60_000))
_LEAST_REQUESTS = 100

GATES = (
    *HARM_GATES,
    PlanGate(gate="disagreement", effect="report"),
    PlanGate(gate="output_drift", effect="report"),
)
BUILT_IN_THRESHOLD = threshold(
    ResolvedPlan(name=BUILT_IN, steps=(PlanStep(kind="shadow"), PlanStep(kind="promote")), gates=GATES)
)
"""The evidence at which a gate on requests fails: the same whatever the traffic, because each built-in plan has copies."""


def built_in(requests_a_day: float, needs: Needs, *, captures: bool) -> ResolvedPlan:
    """The plan for an endpoint with that many requests a day; ``captures`` says whether there is something to replay."""
    low = requests_a_day < LOW_TRAFFIC
    steps: list[PlanStep] = []
    notes: list[str] = []
    if low:
        steps, notes = _before_low(requests_a_day, captures=captures)
    else:
        steps.append(_shadow(_SHADOW, requests_a_day))
    weights, left_out = _weights(requests_a_day, needs)
    steps += weights
    if left_out:
        shown = ", ".join(format_weight(slots) for slots in left_out)
        notes.append(
            f"left out: weight {shown}, because within 7 days it would not show a tenfold error ratio"
        )
    if not weights:
        steps.append(PlanStep(kind="pause"))
        notes.append("no weight shows a tenfold error ratio: a person decides after the shadow")
    steps.append(PlanStep(kind="promote"))
    return ResolvedPlan(name=BUILT_IN, steps=tuple(steps), gates=GATES, notes=tuple(notes))


def without_replay(plan: ResolvedPlan, because: str) -> ResolvedPlan:
    """The plan without its replay, which has nothing to work on now; a note says why."""
    steps = tuple(step for step in plan.steps if step.kind != "replay")
    return plan.model_copy(update={"steps": steps, "notes": (*plan.notes, f"there is no replay: {because}")})


def _before_low(requests_a_day: float, *, captures: bool) -> tuple[list[PlanStep], list[str]]:
    """What stands in for the weights that are left out: a replay and copies of all requests."""
    notes = [f"fewer than {LOW_TRAFFIC} requests a day: the challenger gets copies of all requests first"]
    # All requests have copies after it, so that few captured ones are enough.
    replay = [PlanStep(kind="replay", requests=REPLAYED, min_requests=1)] if captures else []
    if not captures:
        notes.append("nothing is captured, so there is no replay: capture: would allow one")
    return [*replay, _shadow(SLOTS, requests_a_day)], notes


def _shadow(slots: int, requests_a_day: float) -> PlanStep:
    """As long as the pairs take, and at least half an hour; fewer pairs if they would take longer than a week."""
    most = requests_a_day * slots / SLOTS * LONGEST_STEP_MS / _DAY_MS
    pairs = max(min(DEFAULT_PAIRS, int(most)), 1)
    return PlanStep(kind="shadow", slots=slots, for_ms=_SHADOW_MS, min_requests=pairs)


def _weights(requests_a_day: float, needs: Needs) -> tuple[list[PlanStep], list[int]]:
    """The steps with a weight, and the weights that show too little."""
    steps, left_out = [], []
    for slots, least_ms in _WEIGHTS:
        a_week = requests_a_day * slots / SLOTS * LONGEST_STEP_MS / _DAY_MS
        wanted = next(
            (need for ratio in (SEEN_RATIO, LOW_RATIO) if (need := needs(slots, ratio)) <= a_week), None
        )
        if wanted is None:
            left_out.append(slots)
            continue
        requests = max(round(wanted), _LEAST_REQUESTS)
        steps.append(PlanStep(kind="weight", slots=slots, for_ms=least_ms, min_requests=requests))
    return steps, left_out

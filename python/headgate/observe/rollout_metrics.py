"""The metrics of rollouts, declared once as all others are (``declared``).

An endpoint has samples of the rollout that is under way, or of the last one that ended: so there are as many as endpoints, steps and
gates, however many rollouts there were. Numbers of a rollout begin anew with the next one, and are gauges. Next: app.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, get_args

from headgate.control.domain.rollout.state import Phase
from headgate.observe.facts import Declared, Facts, Samples

_View = Mapping[str, Any]
_ARMS = ("champion", "challenger")


def _each(facts: Facts) -> Iterable[tuple[dict[str, str], _View]]:
    for endpoint, view in facts.rollouts.items():
        yield {"endpoint": endpoint, "version": view["challenger"]}, view


def _per_rollout(value: Callable[[_View], float]) -> Callable[[Facts], Samples]:
    return lambda facts: [(labels, value(view)) for labels, view in _each(facts)]


def _per_step(field: str, unit: float = 1.0) -> Callable[[Facts], Samples]:
    """A figure of the present step; nothing before the first one and after the end."""
    return lambda facts: [
        (labels, view["step"][field] / unit) for labels, view in _each(facts) if view["step"] is not None
    ]


def _gates(facts: Facts) -> Iterable[tuple[dict[str, str], _View]]:
    for labels, view in _each(facts):
        for gate in view["gates"]:
            yield {**labels, "gate": gate["gate"], "measure": gate["measure"] or ""}, gate


def _per_gate(value: Callable[[_View], Any]) -> Callable[[Facts], Samples]:
    """A number of a gate; nothing if the evidence gives none."""

    def samples(facts: Facts) -> Samples:
        for labels, gate in _gates(facts):
            found = value(gate)
            if found is not None:
                yield labels, float(found)

    return samples


def _per_arm(field: str) -> Callable[[Facts], Samples]:
    return lambda facts: [
        ({**labels, "arm": arm}, float(gate[arm][field])) for labels, gate in _gates(facts) for arm in _ARMS
    ]


def _coverage(facts: Facts) -> Samples:
    """Of gates on feedback alone."""
    for labels, gate in _gates(facts):
        for arm in _ARMS:
            found = gate[arm].get("coverage")
            if found is not None:
                yield {**labels, "arm": arm}, float(found)


def _bound(place: int) -> Callable[[_View], Any]:
    """A bound of a gate's ratio; one that is open above is infinite. None for feedback and outputs, which have no ratio."""

    def of(gate: _View) -> Any:
        if gate["interval"] is None or gate["gate"].partition(".")[0] in ("feedback", "output_drift"):
            return None
        found = gate["interval"][place]
        return math.inf if found is None and place else found

    return of


def _distance(of: Callable[[_View], Any]) -> Callable[[_View], Any]:
    """A number of a gate on outputs; None for the others."""
    return lambda gate: of(gate) if gate["gate"].partition(".")[0] == "output_drift" else None


def _phases(facts: Facts) -> Samples:
    for labels, view in _each(facts):
        for phase in get_args(Phase):
            yield {**labels, "phase": phase}, float(view["phase"] == phase)


def _paused(facts: Facts) -> Samples:
    return [
        ({**labels, "reason": view["pause"]["reason"]}, 1.0)
        for labels, view in _each(facts)
        if view["pause"] is not None
    ]


def _since(view: _View) -> float:
    end, held, step = view["end"], view["pause"], view["step"]
    if end is not None:
        when = end["at"]
    elif held is not None:
        when = held["since"]
    else:
        when = view["started"] if step is None else step["begun"]
    return datetime.fromisoformat(when).timestamp()


def _ended(facts: Facts) -> Samples:
    return [
        ({"endpoint": endpoint, "phase": phase, "reason": reason}, float(count))
        for (endpoint, phase, reason), count in facts.rollout_ends.items()
    ]


ROLLOUTS: tuple[Declared, ...] = (
    Declared(
        "headgate_rollout_phase",
        "gauge",
        "1 for the phase of the endpoint's present or last rollout, and 0 for the others: progressing, paused, promoted, rolled_back, "
        "aborted. The version is the challenger.",
        _phases,
    ),
    Declared(
        "headgate_rollout_paused",
        "gauge",
        "1 while a rollout waits for a person, by reason: manual, approve, undecided, override, crash, srm, few_keys, gate, "
        "interference, champion_unhealthy, breaker, load_failed.",
        _paused,
    ),
    Declared(
        "headgate_rollout_pauses_total",
        "counter",
        "How often rollouts were paused, by reason.",
        lambda facts: [
            ({"endpoint": endpoint, "reason": reason}, float(count))
            for (endpoint, reason), count in facts.rollout_pauses.items()
        ],
    ),
    Declared(
        "headgate_rollouts_ended_total",
        "counter",
        "Rollouts that ended, by phase (promoted, rolled_back, aborted) and reason: a gate, breaker, crash, undecided, or what a person "
        "called. One that is rolled back after its promotion counts twice.",
        _ended,
    ),
    Declared(
        "headgate_rollout_attempts",
        "gauge",
        "How often the challenger's digest was on trial, this time included.",
        _per_rollout(lambda view: float(view["attempts"])),
    ),
    Declared(
        "headgate_rollout_weight_ratio",
        "gauge",
        "The share of slots that a rollout gives its challenger; 0 once it has ended.",
        _per_rollout(lambda view: view["weight"] / 10_000),
    ),
    Declared(
        "headgate_rollout_shadow_ratio",
        "gauge",
        "The share of requests that a rollout copies to its challenger; 0 once it has ended.",
        _per_rollout(lambda view: view["shadow"] / 10_000),
    ),
    Declared(
        "headgate_rollout_step",
        "gauge",
        "The present step of a rollout, from 1; 0 before the first one and once the rollout has ended.",
        _per_rollout(lambda view: 0.0 if view["step"] is None else float(view["step"]["index"])),
    ),
    Declared(
        "headgate_rollout_since_timestamp_seconds",
        "gauge",
        "Since when a rollout is as it is, in seconds since 1970: when it ended or was paused, else when its present step began.",
        _per_rollout(_since),
    ),
    Declared("headgate_rollout_steps", "gauge", "The steps of the present plan.", _per_step("of")),
    Declared(
        "headgate_rollout_step_traffic_seconds",
        "gauge",
        "Time with traffic in the present step.",
        _per_step("served_ms", 1000.0),
    ),
    Declared(
        "headgate_rollout_step_planned_seconds",
        "gauge",
        "Time with traffic that the present step needs at least.",
        _per_step("for_ms", 1000.0),
    ),
    Declared(
        "headgate_rollout_step_requests",
        "gauge",
        "Requests of the challenger in the present step, or compared pairs in a step without a weight.",
        _per_step("requests"),
    ),
    Declared(
        "headgate_rollout_step_planned_requests",
        "gauge",
        "Requests or pairs that the present step needs at least.",
        _per_step("min_requests"),
    ),
    Declared(
        "headgate_rollout_waiting_for",
        "gauge",
        "How many things the present step waits for; the rollout itself says which.",
        _per_rollout(lambda view: float(len(view["missing"]))),
    ),
    Declared(
        "headgate_rollout_gate_verdict",
        "gauge",
        "1 for the verdict of a gate at the newest look, or at the end: pass, fail, undecided, error. The measure of a latency is run "
        "or reply.",
        lambda facts: [({**labels, "verdict": gate["verdict"]}, 1.0) for labels, gate in _gates(facts)],
    ),
    Declared(
        "headgate_rollout_gate_ratio",
        "gauge",
        "The estimate of a gate: the challenger's rate in multiples of the champion's.",
        _per_gate(lambda gate: gate["ratio"]),
    ),
    Declared(
        "headgate_rollout_gate_ratio_low",
        "gauge",
        "The lower bound of that estimate, which holds at any time (95 %).",
        _per_gate(_bound(0)),
    ),
    Declared(
        "headgate_rollout_gate_ratio_high",
        "gauge",
        "Its upper bound.",
        _per_gate(_bound(1)),
    ),
    Declared(
        "headgate_rollout_gate_distance",
        "gauge",
        "The distance of the outputs of champion and challenger, 0 to 1, of a gate on output drift.",
        _per_gate(_distance(lambda gate: gate.get("distance"))),
    ),
    Declared(
        "headgate_rollout_gate_distance_low",
        "gauge",
        "The lower bound of that distance, which holds at any time (95 %).",
        _per_gate(_distance(lambda gate: None if gate["interval"] is None else gate["interval"][0])),
    ),
    Declared(
        "headgate_rollout_gate_distance_high",
        "gauge",
        "Its upper bound.",
        _per_gate(_distance(lambda gate: None if gate["interval"] is None else gate["interval"][1])),
    ),
    Declared(
        "headgate_rollout_gate_e_value",
        "gauge",
        "The evidence that the challenger is worse. The gate fails only if it reaches the threshold.",
        _per_gate(lambda gate: gate["e_value"]),
    ),
    Declared(
        "headgate_rollout_gate_threshold",
        "gauge",
        "The evidence that the gate needs: tests / false_rollbacks, more for a test on copies.",
        _per_gate(lambda gate: gate["threshold"]),
    ),
    Declared(
        "headgate_rollout_gate_units",
        "gauge",
        "Distinct units that a gate counted, by arm (champion, challenger).",
        _per_arm("units"),
    ),
    Declared(
        "headgate_rollout_gate_requests", "gauge", "Requests that a gate counted, by arm.", _per_arm("n")
    ),
    Declared(
        "headgate_rollout_gate_bad",
        "gauge",
        "Those of them that count against the arm: errors, refusals, or requests above the threshold of a latency.",
        _per_arm("bad"),
    ),
    Declared(
        "headgate_rollout_gate_coverage_ratio",
        "gauge",
        "The share of an arm's answers that have the feedback of a gate feedback.NAME: of all, or of those older than within, whichever "
        "is more.",
        _coverage,
    ),
)

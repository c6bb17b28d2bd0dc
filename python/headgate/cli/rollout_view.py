"""How a rollout is drawn: where it is, what its gates say with their evidence, what is missing, how long it takes.

What the figures mean is in docs/design/gates.md. Not here: watching one (``rollout_watch``). Next: output.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from headgate.cli.output import Lines, Table
from headgate.readable import evidence, figure, number, percent, span

_RATIOS = ("error_rate", "availability", "latency")
"""Families of gates whose limit is a ratio to the champion."""
_EFFECTS = {"rollback": "rolls back", "pause": "pauses", "report": "is reported"}
_LIKELY = 0.8
ENDED = ("promoted", "rolled_back", "aborted")

View = Mapping[str, Any]


def rollout_view(one: View) -> Lines:
    """Everything about one."""
    lines = [headline(one), *_begun(one), *_state(one)]
    if one["limits"] or one["gates"]:
        lines += ["", *_gates(one), *_reasons(one["gates"])]
    if one["timeline"]:
        lines += ["", *_timeline(one)]
    more = [*_skipped(one), *_approvals(one), *(f"note: {note}" for note in one["notes"])]
    return [*lines, "", *more] if more else lines


def headline(one: View) -> str:
    """``digits  rollout r1 of v2 by plan careful, against v1: progressing``."""
    return (
        f"{one['endpoint']}  rollout {one['id']} of {one['challenger']} by plan {one['plan']}, against {one['champion']}: "
        f"{phase_words(one['phase'])}"
    )


def phase_words(phase: str) -> str:
    """``rolled back``."""
    return phase.replace("_", " ")


def _begun(one: View) -> Iterator[str]:
    again = f", attempt {one['attempts']} of this digest" if one["attempts"] > 1 else ""
    yield f"started {one['started']} by {one['started_by']}{again} ({one['digest'][:19]})"


def _state(one: View) -> Iterator[str]:
    if one["end"] is not None:
        yield f"ended {one['end']['at']}: {one['end']['said']}"
        return
    yield step_words(one)
    if one["pause"] is not None:
        yield f"paused since {one['pause']['since']}: {one['pause']['said']}"
        yield _way_on(one)
    if one["missing"]:
        yield f"waits for: {'; '.join(one['missing'])}"
    if one["left_ms"] is not None:
        yield f"time left: about {span(one['left_ms'])} with traffic, if nothing is undecided and no person has to act"
    if one["hours"] is not None:
        yield f"it advances within {one['hours']}"


def step_words(one: View) -> str:
    """``step 2 of 5: weight 5%, 3 min of 15 min with traffic, 812 of 1 000 requests``."""
    step = one["step"]
    if step is None:
        return "before its first step: nothing has moved yet"
    said = f"step {step['index']} of {step['of']}: {step['what']}"
    if step["for_ms"]:
        said += f", {span(step['served_ms'])} of {span(step['for_ms'])} with traffic"
    if step["min_requests"]:
        what = "pairs" if step["what"].startswith("shadow") else "requests"
        said += f", {number(step['requests'])} of {number(step['min_requests'])} {what}"
    return said


def _way_on(one: View) -> str:
    verb = "approve" if one["pause"]["reason"] == "approve" else "resume"
    name = one["endpoint"]
    return f"to go on: headgate rollout {verb} {name}; to give everything back: headgate rollout abort {name}"


# === gates ===


def gate_key(gate: View) -> str:
    """``latency.p95 run``."""
    return gate["gate"] if gate["measure"] is None else f"{gate['gate']} {gate['measure']}"


def _gates(one: View) -> Lines:
    """The gates of the plan in their order, those that are not judged at present as they were last, and those beside the plan."""
    earlier = {
        gate_key(gate): {**gate, "verdict": f"{gate['verdict']} (in {finished['step']})"}
        for finished in one["finished"]
        for gate in finished["gates"]
    }
    judged = {**earlier, **{gate_key(gate): gate for gate in one["gates"]}}
    limits = {gate_key(limit): limit for limit in one["limits"]}
    made = Table(
        "GATE", "LIMIT", "VERDICT", "ESTIMATE", "INTERVAL (anytime 95 %)", "EVIDENCE", "CHAMPION", "CHALLENGER",
        "CATCHES",
    )  # fmt: skip
    for key in [*limits, *(key for key in judged if key not in limits)]:
        made.row(key, _limit(limits.get(key)), *_judged(judged.get(key)))
    return made.lines()


def _limit(limit: View | None) -> str | None:
    if limit is None:
        return None
    effect = _EFFECTS[limit["effect"]]
    if limit["above"] is None:
        return effect
    ratio = "x" if limit["gate"].partition(".")[0] in _RATIOS else ""
    return f"{limit['above']:g}{ratio} {effect}"


def _judged(gate: View | None) -> list[object]:
    if gate is None:
        return ["no data", *[None] * 6]
    shown = None
    if gate["e_value"] is not None and gate["threshold"] is not None:
        shown = f"{evidence(gate['e_value'])} of {figure(gate['threshold'])}"
    return [
        gate["verdict"],
        _estimate(gate),
        interval_words(gate["interval"]) if _has_ratio(gate) else _difference_words(gate["interval"]),
        shown,
        _counts(gate["champion"]),
        _counts(gate["challenger"]),
        _caught(gate),
    ]


def _has_ratio(gate: View) -> bool:
    """Whether its estimate is a ratio: that of feedback is a difference, and that of outputs a distance."""
    return gate["gate"].partition(".")[0] not in ("feedback", "output_drift")


def _estimate(gate: View) -> str | None:
    """The ratio; of feedback the difference of the means, of outputs the distance with what differs most."""
    if gate["ratio"] is not None:
        return figure(gate["ratio"])
    if gate.get("distance") is not None:
        return f"{gate['distance']:.3g} ({gate['feature']})"
    difference = gate.get("difference")
    return None if difference is None else f"{difference:+.3g}"


def _difference_words(interval: list[float | None] | None) -> str | None:
    """``-0.08 to 0.02``; None without one."""
    low, high = interval or (None, None)
    return None if low is None or high is None else f"{low:.3g} to {high:.3g}"


def interval_words(interval: list[float | None] | None) -> str | None:
    """``0.30-8.4``, ``up to 8.4``; None without one, and for one that has no bound."""
    low, high = interval or (None, None)
    if not low and high is None:
        return None
    if high is None:
        return f"{figure(low or 0.0)} or more"
    return f"up to {figure(high)}" if low is None else f"{figure(low)}-{figure(high)}"


def _counts(arm: View) -> str:
    """``4 of 812``; of feedback ``mean 0.3 of 812 (41 % of answers)``; of outputs, of which none is bad, ``0 of 812``."""
    if "mean" in arm:
        said = f"mean {'-' if arm['mean'] is None else format(arm['mean'], '.3g')} of {number(arm['n'])}"
        covered = arm.get("coverage")
        return said if covered is None else f"{said} ({percent(covered)} of answers)"
    return f"{number(arm['bad'])} of {number(arm['n'])}"


def _caught(gate: View) -> str | None:
    """``5x in 84 %``: what such a rollout would have shown, and how often."""
    caught = gate["caught"]
    if caught:
        likely = [one for one in caught if one["probability"] >= _LIKELY]
        told = min(likely, key=lambda one: one["ratio"], default=max(caught, key=lambda one: one["ratio"]))
        return f"{told['ratio']:.3g}x in {told['probability'] * 100:.0f} %"
    if not _has_ratio(gate) and gate["detectable"] is not None:
        return f"{gate['detectable']:.3g} in {_LIKELY * 100:.0f} %"
    return None if gate["detectable"] is None else f"{gate['detectable']:.3g}x in {_LIKELY * 100:.0f} %"


def _reasons(gates: list[View]) -> Iterator[str]:
    for gate in gates:
        if gate["reason"]:
            yield f"{gate_key(gate)}: {gate['reason']}"


# === steps ===


def _timeline(one: View) -> Lines:
    present = None if one["step"] is None else one["step"]["index"]
    done = {finished["step"]: finished for finished in one["finished"]}
    made = Table("STEP", "", "STATE", "TIME", "REQUESTS", "CATCHES ERRORS OF")
    for step in one["timeline"]:
        number_ = step["index"] + 1
        state = _step_state(one, number_, present, done.get(step["label"]))
        ratio = None if step["smallest_ratio"] is None else f"{step['smallest_ratio']:g}x"
        requests = None if step["requests"] is None else f"about {number(step['requests'])}"
        time = None if not step["time_ms"] else f"about {span(step['time_ms'])}"
        made.row(number_, step["label"], state, time, requests, ratio)
    return made.lines()


def _step_state(one: View, step: int, present: int | None, finished: View | None) -> str | None:
    if present == step:
        return "now"
    if finished is not None:
        return f"done, {span(finished['served_ms'])}, {number(finished['requests'])} requests"
    return "done" if one["phase"] == "promoted" and step == len(one["timeline"]) else None


def _skipped(one: View) -> Iterator[str]:
    """What people skipped, with what was undecided then."""
    for finished in one["finished"]:
        if finished["by"]:
            undecided = (
                f"; undecided then: {', '.join(finished['undecided'])}" if finished["undecided"] else ""
            )
            yield f"{finished['by']} promoted it past {finished['step']} at {finished['ended']}{undecided}"


def _approvals(one: View) -> Iterator[str]:
    for approval in one["approvals"]:
        yield f"step {approval['step'] + 1} approved by {approval['who']} ({approval['role']}) for {approval['digest'][:19]}"


def rollouts_view(rollouts: list[View]) -> Lines:
    """One line for each, newest first."""
    made = Table(
        "ROLLOUT", "CHALLENGER", "ATTEMPT", "PLAN", "PHASE", "STEP", "STARTED", "BY", "REVISION", "SAID"
    )
    for one in rollouts:
        made.row(
            one["id"],
            one["challenger"],
            one["attempts"],
            one["plan"],
            phase_words(one["phase"]),
            one["step"],
            one["started"],
            one["started_by"],
            one["revision"],
            one["said"],
        )
    return made.lines()

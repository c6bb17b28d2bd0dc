"""What a rollout would do, before anything moves: each step with its time, what it would see, and what contradicts itself. Pure.

Not here: how many requests show a ratio (``needs``, injected), memory and sessions (``domain.plan``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from headgate.control.domain.rollout.built_in import LONGEST_STEP_MS, Needs
from headgate.control.domain.rollout.missing import weight_of
from headgate.control.domain.rollout.observation import MOST_BUSY, PoolLoad
from headgate.control.domain.rollout.plan import PlanGate, PlanStep, ResolvedPlan
from headgate.control.domain.rollout.state import Trialled
from headgate.documents.faults import did_you_mean, quoted
from headgate.documents.rollout import JUDGED_IN
from headgate.documents.values import SLOTS, format_weight
from headgate.readable import number, percent, span

RATIOS = (1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0)
"""Error ratios that a step is asked about."""
_DAY_MS = 86_400_000
_HALF = SLOTS // 2
MOST_OUTPUTS = 16
"""Columns of outputs that a trial counts (``rust/core/src/trial/outputs.rs``): the first ones in the order of their names."""


@dataclass(frozen=True)
class Facts:
    """What is known of the endpoint: requests a day, the digest of each version, the champion, and what gates may draw on.

    ``requests_a_day`` is None if it is not known; ``feedback`` are the names that its document declares; ``outputs`` those of outputs and
    their columns in its baseline, None without a baseline, ``uncounted`` further ones that a trial
    has no room for, with their ``left_out`` columns. ``beyond`` says how far beyond its limit a distance of outputs must be to be
    caught, from the weight in slots and the requests. ``no_replay`` says why captured requests cannot be put to the challenger. ``busy`` is
    the share of the processors in use, ``load`` what the challenger adds to.
    """

    champion: str
    digests: Mapping[str, str]
    needs: Needs
    requests_a_day: float | None = None
    sticky: bool = False
    captures: bool = False
    no_replay: str | None = None
    feedback: frozenset[str] = frozenset()
    busy: float | None = None
    outputs: frozenset[str] | None = None
    uncounted: frozenset[str] = frozenset()
    left_out: int = 0
    beyond: Callable[[int, float], float] | None = None
    load: PoolLoad | None = None


@dataclass(frozen=True)
class Problem:
    """What is wrong with a rollout before it begins. ``refuses`` says that it may not begin; otherwise it is a warning."""

    path: str
    words: str
    refuses: bool = False


@dataclass(frozen=True)
class StepPreview:
    """A step: slots that move to the challenger, its expected requests (or pairs) and time, and the smallest error ratio that such a
    step catches in most rollouts; ``smallest_distance`` likewise of outputs, if a gate is on them. None is not known, or nothing.
    """

    index: int
    label: str
    slots: int
    requests: int | None
    time_ms: int | None
    smallest_ratio: float | None
    words: str
    smallest_distance: float | None = None


# === contradictions ===


def problems(plan: ResolvedPlan, challenger: str, facts: Facts) -> tuple[Problem, ...]:
    """Everything at once, what refuses first."""
    found = [
        *_challenger(challenger, facts),
        *_sources(plan, facts),
        *_unreachable(plan, facts),
        *_unseen(plan, facts),
        *_busy(plan, facts),
    ]
    if not facts.sticky:
        said = (
            "the endpoint has no sticky key, so each request counts by itself: "
            "errors that come together are not covered by false_rollbacks"
        )
        found.append(Problem("traffic.sticky", said))
    return tuple(sorted(found, key=lambda problem: not problem.refuses))


def _challenger(name: str, facts: Facts) -> list[Problem]:
    digest = facts.digests.get(name)
    if digest is None:
        said = f"{quoted(name)} is not among the versions; {did_you_mean(name, facts.digests)}"
        return [Problem("challenger", said, refuses=True)]
    if name == facts.champion or digest == facts.digests.get(facts.champion):
        said = f"{name} is what the champion {facts.champion} is already"
        return [Problem("challenger", said, refuses=True)]
    return []


def _sources(plan: ResolvedPlan, facts: Facts) -> list[Problem]:
    """Gates that nothing feeds, and steps that have nothing to work on."""
    kinds = {step.kind for step in plan.steps}
    found = []
    for gate in plan.gates:
        path = f"{gate.effect}_if.{gate.gate}" if gate.effect != "report" else f"report.{gate.gate}"
        stops = gate.effect != "report"
        name = gate.gate.partition(".")[2]
        if gate.family == "feedback" and name not in facts.feedback:
            has = ", ".join(sorted(facts.feedback)) or "none"
            said = f"no feedback {quoted(name)} is declared (feedback: of the endpoint has {has})"
            found.append(Problem(path, said, refuses=stops))
        elif gate.family == "output_drift" and (said := _no_outputs(gate, facts)):
            found.append(Problem(path, said, refuses=stops))
        elif gate.family == "output_drift" and stops and facts.left_out:
            said = f"only the first {MOST_OUTPUTS} columns of the baseline's outputs are compared, and {facts.left_out} are left out"
            found.append(Problem(path, said))
        elif kinds.isdisjoint(JUDGED_IN[gate.family]):
            where = " or ".join(JUDGED_IN[gate.family])
            said = f"it is judged in steps with {where}, and the plan has none"
            found.append(Problem(path, said, refuses=stops and gate.family == "disagreement"))
    for at, step in enumerate(plan.steps):
        if step.kind == "replay" and not facts.captures:
            said = "there is nothing to replay: write capture: in the endpoint's document, or take a plan without replay"
            found.append(Problem(f"steps[{at}]", said, refuses=True))
        elif step.kind == "replay" and facts.no_replay is not None:
            said = (
                f"{facts.no_replay}. Wait until requests are captured that fit, or take a plan without replay"
            )
            found.append(Problem(f"steps[{at}]", said, refuses=True))
    return found


def _no_outputs(gate: PlanGate, facts: Facts) -> str:
    """Why there is nothing to compare the outputs on; empty if there is, and for all outputs if they are only reported."""
    name = gate.gate.partition(".")[2]
    if gate.effect == "report" and not name:
        return ""
    if facts.outputs is None:
        return (
            "outputs are compared on the bins of a baseline, and the endpoint has none: write drift: with a baseline "
            "that has the outputs as well"
        )
    if not facts.outputs:
        return "the baseline of the endpoint has no output: its sample needs the outputs of the model as well"
    if name in facts.uncounted:
        return f"{quoted(name)} is not compared: of the baseline's outputs the first {MOST_OUTPUTS} columns are, by their names"
    if name and name not in facts.outputs:
        return f"the baseline of the endpoint has no output {quoted(name)}; {did_you_mean(name, sorted(facts.outputs))}"
    return ""


def _unreachable(plan: ResolvedPlan, facts: Facts) -> list[Problem]:
    found = []
    for at, step in enumerate(plan.steps):
        time_ms = expected_ms(step, facts.requests_a_day)
        if step.kind in ("shadow", "weight") and facts.requests_a_day is not None:
            if time_ms is None:
                found.append(Problem(f"steps[{at}]", f"{step.label} gets no request at the present traffic"))
            elif time_ms > LONGEST_STEP_MS and step.for_ms <= LONGEST_STEP_MS:
                said = (
                    f"{step.label} reaches {number(step.min_requests)} requests in "
                    f"{span(time_ms)} at the present traffic, not within 7 days"
                )
                found.append(Problem(f"steps[{at}].min_requests", said))
    return found


def _unseen(plan: ResolvedPlan, facts: Facts) -> list[Problem]:
    """A limit that no step below half of the traffic would see broken."""
    limit = next(
        (gate.above for gate in plan.gates if gate.gate == "error_rate" and gate.effect != "report"), None
    )
    small = [step for step in plan.steps if step.kind == "weight" and step.slots < _HALF]
    if limit is None or not small or facts.requests_a_day is None:
        return []
    ratios = [
        smallest_ratio(step, expected_requests(step, facts.requests_a_day), facts.needs) for step in small
    ]
    seen = min((ratio for ratio in ratios if ratio is not None), default=None)
    if seen is not None and seen <= limit:
        return []
    shown = "no ratio up to 100x" if seen is None else f"{seen:g}x"
    said = (
        f"a challenger at {limit:g}x the champion's error rate is not caught before 50%: "
        f"the steps before it catch {shown}"
    )
    return [Problem("rollback_if.error_rate", said)]


def _busy(plan: ResolvedPlan, facts: Facts) -> list[Problem]:
    """Weights for which the threads would have no room, as far as run times are known."""
    load, weight, found = facts.load, 0, []
    for at, step in enumerate(plan.steps):
        wanted = weight_of(step, weight)
        if load is not None and wanted > weight and load.busy_after(wanted / SLOTS) > MOST_BUSY:
            said = f"{step.label} would keep the threads {percent(load.busy_after(wanted / SLOTS))} busy: it stays undecided"
            found.append(Problem(f"steps[{at}]", said))
            break
        weight = wanted
    return found


# === steps and times ===


def expected_requests(step: PlanStep, requests_a_day: float) -> float:
    """Requests (pairs of a shadow) of the challenger in the step at that traffic."""
    a_ms = requests_a_day * step.slots / SLOTS / _DAY_MS
    return max(float(step.min_requests), a_ms * step.for_ms)


def expected_ms(step: PlanStep, requests_a_day: float | None) -> int | None:
    """How long a step lasts at that traffic, without hours, people and undecided gates; None: not known, or never."""
    if step.kind not in ("shadow", "weight"):
        return 0 if step.kind in ("pause", "approve", "promote") else None
    if requests_a_day is None:
        return None
    a_ms = requests_a_day * step.slots / SLOTS / _DAY_MS
    return None if a_ms <= 0 else max(step.for_ms, round(step.min_requests / a_ms))


def smallest_ratio(step: PlanStep, requests: float, needs: Needs) -> float | None:
    """The smallest error ratio that such a step catches in half of the rollouts; None: none up to 100x."""
    if step.kind != "weight":
        return None
    return next((ratio for ratio in RATIOS if needs(step.slots, ratio) <= requests), None)


def smallest_distance(
    plan: ResolvedPlan, step: PlanStep, requests: float | None, facts: Facts
) -> float | None:
    """The smallest distance of outputs that such a step catches in most rollouts, if each request is of another key; None: none, or no
    gate is on outputs.
    """
    limits = [gate.above for gate in plan.gates if gate.family == "output_drift" and gate.above is not None]
    if step.kind != "weight" or requests is None or not limits or facts.beyond is None:
        return None
    found = min(limits) + facts.beyond(step.slots, requests)
    return found if found <= 1 else None


def timeline(plan: ResolvedPlan, challenger: str, facts: Facts) -> tuple[StepPreview, ...]:
    """The steps in their order."""
    found: list[StepPreview] = []
    weight = 0
    for at, step in enumerate(plan.steps):
        wanted = weight_of(step, weight)
        traffic = facts.requests_a_day
        requests = expected_requests(step, traffic) if traffic is not None and step.slots else None
        ratio = None if requests is None else smallest_ratio(step, requests, facts.needs)
        time_ms = expected_ms(step, traffic)
        pair = (wanted - weight, facts.champion, challenger)
        distance = smallest_distance(plan, step, requests, facts)
        words = _words(step, pair, requests, ratio, time_ms)
        words += "" if distance is None else f" It catches outputs that are {distance:.2g} apart."
        found.append(
            StepPreview(
                index=at,
                label=step.label,
                slots=wanted - weight,
                requests=None if requests is None else round(requests),
                time_ms=time_ms,
                smallest_ratio=ratio,
                words=words,
                smallest_distance=distance,
            )
        )
        weight = wanted
    return tuple(found)


def left_ms(plan: ResolvedPlan, facts: Facts, step: int, served_ms: int) -> int | None:
    """How long the rest of a rollout takes at the present traffic, without hours, people and undecided gates: what is left of the present
    ``step`` (-1: before the first) after ``served_ms`` of it, and the steps after it. None: not known.
    """
    total = 0
    for at in range(max(step, 0), len(plan.steps)):
        time_ms = expected_ms(plan.steps[at], facts.requests_a_day)
        if time_ms is None:
            return None
        total += max(time_ms - served_ms, 0) if at == step else time_ms
    return total


def _words(
    step: PlanStep,
    pair: tuple[int, str, str],
    requests: float | None,
    ratio: float | None,
    time_ms: int | None,
) -> str:
    """``pair``: how many slots move, from the champion to the challenger."""
    slots, champion, challenger = pair
    if step.kind == "replay":
        return (
            f"Up to {number(step.requests)} captured requests are put to {challenger}; no caller is involved."
        )
    if step.kind == "approve":
        return f"A person with the role {step.role} has to approve it, and not the one who started it."
    if step.kind == "pause":
        return "It waits until a person resumes or promotes it."
    if step.kind == "promote":
        return f"{number(slots)} slots move from {champion} to {challenger}, which becomes champion."
    gets = f"copies of {format_weight(step.slots)} of requests" if step.kind == "shadow" else None
    said = (
        gets or f"{number(slots)} slots ({format_weight(slots)} of keys) move from {champion} to {challenger}"
    )
    said = said[:1].upper() + said[1:]
    said += f"; about {span(time_ms)}" if time_ms is not None else "; its time is not known"
    said += "" if requests is None else f", {number(round(requests))} requests of it"
    if step.kind == "weight" and requests is not None:
        said += (
            ". It catches no error ratio up to 100x"
            if ratio is None
            else f". It catches an error ratio of {ratio:g}x"
        )
    return said + "."


def _besides(plan: ResolvedPlan) -> str:
    """What the time of a plan leaves out, because it is not about traffic: ``, plus the replay and 2 approvals``."""
    kinds = [step.kind for step in plan.steps]
    replays, approvals, pauses = (kinds.count(kind) for kind in ("replay", "approve", "pause"))
    parts = ["the replay" if replays == 1 else f"{replays} replays"] if replays else []
    parts += ["an approval" if approvals == 1 else f"{approvals} approvals"] if approvals else []
    parts += (
        ["a pause that a person ends" if pauses == 1 else f"{pauses} pauses that a person ends"]
        if pauses
        else []
    )
    if not parts:
        return ""
    *first, last = parts
    return f", plus {', '.join(first)} and {last}" if first else f", plus {last}"


def _busy_words(challenger: str, facts: Facts) -> list[str]:
    """How busy the processors are now and in the end; the steps on the way are among the problems if they get too busy."""
    if facts.load is not None:
        after = max(facts.load.busy_after(1.0), 0.0)
        return [
            f"The threads are {percent(facts.load.busy)} busy, and would be {percent(after)} busy with all requests at {challenger}."
        ]
    if facts.busy is None:
        return []
    return [
        f"The threads are {percent(facts.busy)} busy. What {challenger} adds is not known before both versions have answered "
        "requests, and some came lately; it is looked at before each greater weight."
    ]


def _stops(plan: ResolvedPlan) -> str:
    """What rolls a challenger back, and how often it does so to one that is no worse."""
    gates = plan.with_effect("rollback")
    if not gates:
        return "No gate rolls it back."
    stops = f"Rolled back if harm is shown by: {', '.join(gate.key for gate in gates)}"
    bounded = [gate for gate in gates if gate.family != "disagreement"]
    if not bounded:
        return f"{stops}; nothing is promised of how often that happens to a challenger that is no worse."
    rest = "" if len(bounded) == len(gates) else ", not counting disagreement, for which nothing is promised"
    return (
        f"{stops}; a challenger that is no worse is rolled back by them in "
        f"{percent(plan.false_rollbacks)} of rollouts at most{rest}."
    )


def preview_text(plan: ResolvedPlan, challenger: Trialled, facts: Facts, needs: str = "") -> str:
    """The whole in lines: steps with their times, the sum, what the challenger ``needs``, limits and problems. Notes of the plan are told
    beside it, as those of every change are.
    """
    steps = timeline(plan, challenger.name, facts)
    lines = [f"Rollout of {challenger.name} by plan {plan.name}, against {facts.champion}."]
    lines += [f"  {step.index + 1}. {step.label}: {step.words}" for step in steps]
    times = [step.time_ms for step in steps if step.label.partition(" ")[0] in ("shadow", "weight")]
    known = [time for time in times if time is not None]
    if times and len(known) == len(times):
        lines.append(
            f"At the present traffic it takes about {span(sum(known))} with traffic{_besides(plan)}, if nothing is undecided."
        )
    else:
        why = "" if facts.requests_a_day is not None else ": no request came lately"
        lines.append(f"How long it takes is not known{why}.")
    lines += [needs] if needs else []
    lines += _busy_words(challenger.name, facts)
    if plan.hours is not None:
        lines.append(f"It advances within {plan.hours.text}; it is rolled back at any time.")
    lines.append(_stops(plan))
    for problem in problems(plan, challenger.name, facts):
        lines.append(f"{'Refused' if problem.refuses else 'Warning'}: {problem.path}: {problem.words}.")
    return "\n".join(lines)

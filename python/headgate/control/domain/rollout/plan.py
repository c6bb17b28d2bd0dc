"""A plan as a rollout carries it: steps, gates and times, with nothing left open.

Not here: the document (``documents.rollout``), the plan that needs none (``built_in``). Next: ``state``.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from headgate.documents.hours import Hours
from headgate.documents.rollout import JUDGED_IN, Gate, RolloutPlan, RolloutStep
from headgate.documents.values import SLOTS, format_weight

StepKind = Literal["replay", "shadow", "weight", "approve", "pause", "promote"]
Measure = Literal["run", "reply"]
Effect = Literal["rollback", "pause", "report"]

DEFAULT_PAIRS = 500
"""Pairs that a shadow step compares at least, and requests that a weight step sees, unless written. A replay has to compare as many
pairs, or as many requests as it puts.
"""
DEFAULT_REQUESTS = 200
DEFAULT_IGNORE_BELOW_NS = 5_000_000.0
"""A latency below this is no harm in the built-in plan: machines that are busy double one of microseconds."""
MEASURES: tuple[Measure, ...] = ("run", "reply")

JUDGED_BY_TRIAL = ("error_rate", "availability", "latency", "feedback", "output_drift")
"""The families of gates that the evidence of a trial decides."""
PAIRED: tuple[StepKind, ...] = ("replay", "shadow")
"""The kinds of steps in which both versions are asked the same requests."""
Distance = Literal["ks", "total_variation"]


class Value(BaseModel):
    """A frozen value that JSON gives back as it was."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PlanStep(Value):
    """A step: ``slots`` of a shadow's share or of the weight; ``requests`` that a replay puts at most; ``for_ms`` is time with traffic;
    ``min_requests`` are requests, or pairs of a shadow or a replay.
    """

    kind: StepKind
    slots: int = 0
    requests: int = 0
    role: str = ""
    for_ms: int = 0
    min_requests: int = 0

    @property
    def label(self) -> str:
        """``weight 5%``."""
        if self.kind in ("shadow", "weight"):
            return f"{self.kind} {format_weight(self.slots)}"
        if self.kind == "replay":
            return f"replay {self.requests}"
        return f"approve ({self.role})" if self.kind == "approve" else self.kind


class PlanGate(Value):
    """A gate with its effect. ``above`` is a ratio to the champion, a share or a value; ``ignore_below`` nanoseconds or a share;
    ``distance`` that of ``output_drift``, left out of JSON without one.
    """

    gate: str
    effect: Effect
    measure: Measure | None = None
    above: float | None = None
    strict: bool = False
    ignore_below: float | None = None
    distance: Distance | None = Field(default=None, exclude_if=lambda distance: distance is None)

    @property
    def key(self) -> str:
        """``latency.p95 run``: what tells it from the others."""
        return self.gate if self.measure is None else f"{self.gate} {self.measure}"

    @property
    def family(self) -> str:
        """``latency`` of ``latency.p95``."""
        return self.gate.partition(".")[0]


HARM_GATES = (
    PlanGate(gate="error_rate", effect="rollback", above=1.5),
    PlanGate(
        gate="latency.p95", effect="rollback", measure="run", above=1.2, ignore_below=DEFAULT_IGNORE_BELOW_NS
    ),
    PlanGate(
        gate="latency.p95",
        effect="rollback",
        measure="reply",
        above=1.2,
        ignore_below=DEFAULT_IGNORE_BELOW_NS,
    ),
    PlanGate(gate="availability", effect="rollback", above=1.5),
)
"""What rolls back unless a plan says otherwise."""


class ResolvedPlan(Value):
    """A plan without gaps. The last step is ``promote``, and the only one of its kind."""

    name: str
    steps: tuple[PlanStep, ...]
    gates: tuple[PlanGate, ...]
    false_rollbacks: float = 0.01
    undecided_after_ms: int = 86_400_000
    undecided_then: Literal["pause", "abort"] = "pause"
    hours: Hours | None = None
    notes: tuple[str, ...] = ()
    """What a reader should know: steps that were left out, and why."""

    @property
    def digest(self) -> str:
        """``sha256:...`` of what the plan does; its name and notes do not matter."""
        held = self.model_dump(mode="json", exclude={"name", "notes"})
        return "sha256:" + hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()

    def required_in(self, kind: StepKind) -> tuple[PlanGate, ...]:
        """The gates that have to pass before such a step is left."""
        return tuple(
            gate for gate in self.gates if gate.effect != "report" and kind in JUDGED_IN.get(gate.family, ())
        )

    def with_effect(self, effect: Effect) -> tuple[PlanGate, ...]:
        """The gates with that effect."""
        return tuple(gate for gate in self.gates if gate.effect == effect)

    @property
    def feedback(self) -> frozenset[str]:
        """The names of the feedback that gates with an effect rest on."""
        gates = (gate for gate in self.gates if gate.family == "feedback" and gate.effect != "report")
        return frozenset(gate.gate.partition(".")[2] for gate in gates)

    @property
    def ignore_latency_below_ns(self) -> float:
        """What is no slowness in this plan: the least ``ignore_below`` of its latency gates, that of the built-in plan without one."""
        floors = [gate.ignore_below for gate in self.gates if gate.family == "latency"]
        return min((floor for floor in floors if floor is not None), default=DEFAULT_IGNORE_BELOW_NS)


def resolve(plan: RolloutPlan) -> ResolvedPlan:
    """A document's plan. Without ``promote`` at its end a person promotes: it gets a pause, and promotes after it."""
    steps = [_step(step) for step in plan.steps]
    notes: tuple[str, ...] = ()
    if steps[-1].kind != "promote":
        last = [] if steps[-1].kind in ("pause", "approve") else [PlanStep(kind="pause")]
        steps += [*last, PlanStep(kind="promote")]
        notes = ("the plan ends without promote: a person promotes",)
    gates = [
        *(_built_in(plan) if plan.rollback_if is None else _gates(plan.rollback_if, "rollback")),
        *_gates(plan.pause_if, "pause"),
        *_reported(plan.report),
    ]
    return ResolvedPlan(
        name=plan.name,
        steps=tuple(steps),
        gates=tuple(gates),
        false_rollbacks=plan.false_rollbacks / SLOTS,
        undecided_after_ms=plan.undecided.after,
        undecided_then=plan.undecided.then,
        hours=plan.hours,
        notes=notes,
    )


def _step(step: RolloutStep) -> PlanStep:
    if step.kind == "replay":
        requests = step.replay or 0
        return PlanStep(kind="replay", requests=requests, min_requests=min(requests, DEFAULT_PAIRS))
    if step.kind == "shadow":
        pairs = step.min_requests or DEFAULT_PAIRS
        return PlanStep(kind="shadow", slots=step.shadow or 0, for_ms=step.for_ or 0, min_requests=pairs)
    if step.kind == "weight":
        requests = step.min_requests or DEFAULT_REQUESTS
        return PlanStep(kind="weight", slots=step.weight or 0, for_ms=step.for_ or 0, min_requests=requests)
    if step.approve is not None:
        return PlanStep(kind="approve", role=step.approve.role)
    return PlanStep(kind="promote" if step.promote else "pause")


def _built_in(plan: RolloutPlan) -> list[PlanGate]:
    """The gates of the built-in plan, without those that the plan gives another effect."""
    elsewhere = {*plan.pause_if, *plan.report}
    return [gate for gate in HARM_GATES if gate.gate not in elsewhere]


def _gates(written: dict[str, Gate], effect: Effect) -> list[PlanGate]:
    return [one for name, gate in written.items() for one in gate_of(name, gate, effect)]


def gate_of(name: str, gate: Gate, effect: Effect) -> list[PlanGate]:
    """The gates that one entry stands for: a latency is judged on run time and from admission to reply, each by itself."""
    measures: tuple[Measure | None, ...] = (None,)
    if name.startswith("latency."):
        measures = MEASURES if gate.measure is None else (gate.measure,)
    above = next(iter(gate.above.values()))
    floor = None if gate.ignore_below is None else next(iter(gate.ignore_below.values()))
    return [
        PlanGate(
            gate=name,
            effect=effect,
            measure=measure,
            above=above,
            strict=gate.strict,
            ignore_below=floor,
            distance=gate.distance,
        )
        for measure in measures
    ]


def _reported(names: tuple[str, ...]) -> list[PlanGate]:
    found = []
    for name in names:
        measures: tuple[Measure | None, ...] = MEASURES if name.startswith("latency.") else (None,)
        found += [PlanGate(gate=name, effect="report", measure=measure) for measure in measures]
    return found


def judged_by_trial(plan: ResolvedPlan) -> list[dict[str, Any]]:
    """The ``gates`` of the question to ``_native.judge``: those that the evidence of a trial decides and that stop something, and
    ``output_drift`` also if it is reported, then without a limit.
    """
    found: list[dict[str, Any]] = []
    for gate in plan.gates:
        if gate.family == "output_drift":
            found.append(_outputs(gate))
            continue
        if gate.effect == "report" or gate.family not in JUDGED_BY_TRIAL:
            continue
        asked: dict[str, Any] = {"gate": gate.gate, "above": gate.above, "strict": gate.strict}
        if gate.family == "latency":
            floor = None if gate.ignore_below is None else round(gate.ignore_below)
            asked |= {"ignore_below_ns": floor, "measure": gate.measure}
        elif gate.family == "error_rate":
            asked["ignore_below"] = gate.ignore_below
        found.append(asked)
    return found


def judged_by_pairs(plan: ResolvedPlan) -> list[dict[str, Any]]:
    """The ``gates`` of the question about the answers of copies."""
    return [_outputs(gate) for gate in plan.gates if gate.family == "output_drift"]


def _outputs(gate: PlanGate) -> dict[str, Any]:
    distance = {} if gate.distance is None else {"distance": gate.distance}
    return {"gate": gate.gate, "above": gate.above, **distance}

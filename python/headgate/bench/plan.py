"""How many replicas a target needs, from a result file: by a model that its held-out rates confirm, else by what was measured.

A plan never asks a replica for more than was measured. Rates are per second, times seconds. Not here: the models (``predictors``), the
check (``prediction``). Next: plan_facts.py, which reads a result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from headgate.bench import plan_facts, prediction, replicas
from headgate.bench.plan_facts import Facts, NothingToPlanFrom
from headgate.bench.prediction import Estimate, Fit
from headgate.bench.predictors import BatchSetting, Simulate
from headgate.bench.rates import format_quantile, shown_rate, shown_seconds
from headgate.bench.replicas import Demand
from headgate.bench.results import Result
from headgate.errors import InvalidArgument

Basis = Literal["model", "measured"]


@dataclass(frozen=True)
class Objective:
    """A quantile of responses with its limit in seconds."""

    quantile: float
    limit: float

    def __str__(self) -> str:
        return f"{format_quantile(self.quantile)} within {shown_seconds(self.limit)}"


@dataclass(frozen=True)
class PlanRequest:
    """What is planned: ``objective`` None takes that of the result; ``price`` is of one replica an hour, ``growth`` a share a month."""

    demand: Demand
    objective: Objective | None = None
    price: float | None = None
    growth: float | None = None


@dataclass(frozen=True)
class Plan:
    """A number of replicas, spare ones included, and what it follows from.

    ``holds`` is the rate that one replica is planned to hold; ``fewest`` and ``most`` are the replicas at the ends of the interval;
    ``expected`` is the quantile of the objective while no replica is away, None without a model that holds.
    """

    request: PlanRequest
    objective: Objective
    basis: Basis
    replicas: int
    fewest: int
    most: int
    holds: float
    expected: Estimate | None
    fit: Fit | None
    reasons: tuple[str, ...] = ()

    @property
    def share_rate(self) -> float:
        """What each replica gets of the target with its headroom while the spare ones are away."""
        return self.request.demand.planned / (self.replicas - self.request.demand.spare)

    @property
    def full(self) -> float:
        """The rate that the replicas without the spare ones hold together."""
        return self.holds * (self.replicas - self.request.demand.spare)

    @property
    def cost_per_thousand(self) -> float | None:
        """What 1 000 predictions cost at the target; None without a price."""
        price = self.request.price
        return (
            None
            if price is None
            else replicas.cost_per_thousand(self.replicas, price, self.request.demand.target)
        )

    @property
    def months_until_full(self) -> float | None:
        """How long the replicas last; None without growth, infinite with a growth of 0."""
        growth = self.request.growth
        return (
            None if growth is None else replicas.months_until(self.request.demand.target, self.full, growth)
        )

    def as_json(self) -> dict[str, Any]:
        """As in a result file; times in integer ns."""
        months = self.months_until_full
        return {
            "target": self.request.demand.target,
            "headroom": self.request.demand.headroom,
            "spare": self.request.demand.spare,
            "slo": {format_quantile(self.objective.quantile): round(self.objective.limit * 1e9)},
            "replicas": self.replicas,
            "replicas_interval": [self.fewest, self.most],
            "basis": self.basis,
            "rate_per_replica": self.share_rate,
            "holds_per_replica": self.holds,
            "full": self.full,
            "expected": _estimate_json(self.expected),
            "price_per_hour": self.request.price,
            "cost_per_thousand": self.cost_per_thousand,
            "growth_per_month": self.request.growth,
            "months_until_full": None if months is None or math.isinf(months) else months,
            "model": None if self.fit is None else fit_json(self.fit),
            "reasons": list(self.reasons),
        }


def make_plan(
    result: Result,
    request: PlanRequest,
    setting: BatchSetting | None = None,
    simulate: Simulate | None = None,
) -> Plan:
    """The plan that ``result`` allows. ``setting`` is how the server makes batches, if that is known and it does; ``simulate`` runs
    the engine's policy. :class:`NothingToPlanFrom` if neither a model nor a measured capacity says what a replica holds.
    """
    facts = plan_facts.read(result)
    objective = request.objective or _objective_of(facts)
    fit, reasons = _fitted(facts, objective, setting, simulate)
    measured = facts.capacity_for(objective.quantile, objective.limit)
    if fit is not None and fit.holds:
        found = _by_model(facts, fit, request, objective)
        if found is not None:
            return replace(found, reasons=(*found.reasons, *_limits(facts, measured)))
        reasons.append(f"the model holds, but not {objective} at any rate that was measured")
    if measured is None:
        raise NothingToPlanFrom(
            f"nothing says what one replica holds with {objective}: "
            + "; ".join([*reasons, *facts.why_no_capacity(objective.quantile)]),
            missed=facts.fails_everywhere,
        )
    return _by_measurement(measured, request, objective, fit, [*reasons, *_limits(facts, measured)])


def _limits(facts: Facts, measured: tuple[float, float | None] | None) -> Iterator[str]:
    """What of the measurement makes the plan worth less than it seems."""
    if measured is None or facts.capacity is None:
        return
    rate = shown_rate(measured[0])
    if facts.limited:
        yield f"the client was the limit above {rate}: a replica may hold more than is planned"
    if not facts.capacity.confirmed:
        yield f"no longer run confirmed that a replica holds {rate}: search again before you rely on it"


def _objective_of(facts: Facts) -> Objective:
    found = facts.objective
    if found is None:
        raise InvalidArgument(
            "the result has no objective with a quantile; write one, such as --slo p99=15ms"
        )
    return Objective(*found)


def _fitted(
    facts: Facts, objective: Objective, setting: BatchSetting | None, simulate: Simulate | None
) -> tuple[Fit | None, list[str]]:
    """The model that fits best, and why there is none or why it does not hold."""
    try:
        models = list(plan_facts.candidates(facts, objective.quantile, setting, simulate))
        fit = prediction.fit(
            facts.informative(objective.quantile, objective.limit),
            models,
            objective.quantile,
            planned_to=facts.highest_rate(objective.quantile, objective.limit),
        )
    except InvalidArgument as error:
        return None, [f"no model: {error.message}"]
    return fit, [f"the model does not hold: {refusal}" for refusal in fit.refusals]


def _by_model(facts: Facts, fit: Fit, request: PlanRequest, objective: Objective) -> Plan | None:
    most_rate = facts.highest_rate(objective.quantile, objective.limit)
    reasons = []

    def needed(end: str) -> int | None:
        return replicas.least_replicas(
            request.demand.planned,
            lambda rate: rate <= most_rate and getattr(fit.at(rate), end) <= objective.limit,
        )

    central = needed("seconds")
    if central is None:
        return None
    spare = request.demand.spare
    holds = _highest(fit, objective, most_rate)
    if holds == most_rate:
        reasons.append(
            f"a replica is asked for at most {shown_rate(most_rate)}, the highest rate that was measured within the objective"
        )
    cautious = needed("high")
    if cautious is None:
        reasons.append("at the upper end of the interval no number of replicas holds the objective")
    return Plan(
        request=request,
        objective=objective,
        basis="model",
        replicas=central + spare,
        fewest=(needed("low") or central) + spare,
        most=(cautious or central) + spare,
        holds=holds,
        expected=fit.at(request.demand.target / (central + spare)),
        fit=fit,
        reasons=tuple(reasons),
    )


def _highest(fit: Fit, objective: Objective, most_rate: float) -> float:
    """The highest rate up to ``most_rate`` at which the prediction stays within the objective."""
    if fit.at(most_rate).seconds <= objective.limit:
        return most_rate
    low, high = 0.0, most_rate
    for _ in range(40):
        middle = (low + high) / 2
        if fit.at(middle).seconds <= objective.limit:
            low = middle
        else:
            high = middle
    return low


def _by_measurement(
    measured: tuple[float, float | None],
    request: PlanRequest,
    objective: Objective,
    fit: Fit | None,
    reasons: Sequence[str],
) -> Plan:
    passed, failed = measured
    spare = request.demand.spare
    most = math.ceil(request.demand.planned / passed - 1e-9)
    fewest = most if failed is None else max(1, math.ceil(request.demand.planned / failed - 1e-9))
    return Plan(
        request=request,
        objective=objective,
        basis="measured",
        replicas=most + spare,
        fewest=min(fewest, most) + spare,
        most=most + spare,
        holds=passed,
        expected=None,
        fit=fit,
        reasons=(*reasons, f"planned by the measured capacity of {shown_rate(passed)} alone"),
    )


def fit_json(fit: Fit) -> dict[str, Any]:
    """A fit as a result file has it under ``model``."""
    return {
        "queue": fit.model.name,
        "quantile": fit.quantile,
        "holds": fit.holds,
        "correction": math.exp(fit.log_bias),
        "deviation": fit.log_deviation,
        "fitted": fit.fitted,
        "holdout": [
            {
                "rate": check.measured.rate,
                "measured_ns": round(check.measured.seconds * 1e9),
                "predicted": _estimate_json(check.predicted),
                "inside": check.inside,
            }
            for check in fit.held_out
        ],
        "refusals": list(fit.refusals),
    }


def _estimate_json(estimate: Estimate | None) -> dict[str, int | None] | None:
    if estimate is None:
        return None
    parts = {"value_ns": estimate.seconds, "low_ns": estimate.low, "high_ns": estimate.high}
    return {name: None if math.isinf(value) else round(value * 1e9) for name, value in parts.items()}


def words(plan: Plan) -> Iterator[str]:
    """The plan for a person, the answer first."""
    demand, objective = plan.request.demand, plan.objective
    spare = f" and {demand.spare} spare" if demand.spare else ""
    yield (
        f"{plan.replicas} replica{'s' * (plan.replicas != 1)} for {shown_rate(demand.target)} with {demand.headroom * 100:.3g} % "
        f"headroom{spare}, {objective}"
    )
    yield f"  each gets {shown_rate(plan.share_rate)} with the spare ones away, and holds {shown_rate(plan.holds)}"
    if plan.expected is not None and not math.isinf(plan.expected.seconds):
        said = plan.expected
        yield (
            f"  {format_quantile(objective.quantile)} at the target with all of them: {shown_seconds(said.seconds)} "
            f"[{shown_seconds(said.low)}, {shown_seconds(said.high)}]"
        )
    if plan.fewest != plan.most:
        yield f"  {plan.fewest} to {plan.most} replicas by the interval"
    if plan.cost_per_thousand is not None:
        yield f"  {plan.cost_per_thousand:.3g} per 1 000 predictions, at {plan.request.price:.4g} an hour each"
    months = plan.months_until_full
    if months is not None and plan.request.growth is not None:
        grows = f"at {plan.request.growth * 100:.3g} % growth a month"
        yield (
            f"  never full {grows}"
            if math.isinf(months)
            else f"  full in {months:.1f} months {grows}, at {shown_rate(plan.full)}"
        )
    if plan.fit is not None and plan.fit.holds and plan.basis == "model":
        yield f"  model: {plan.fit.model.name}"
        for check in plan.fit.held_out:
            said = check.predicted
            yield (
                f"    held out {shown_rate(check.measured.rate)}: measured {shown_seconds(check.measured.seconds)}, "
                f"predicted {shown_seconds(said.seconds)} [{shown_seconds(said.low)}, {shown_seconds(said.high)}]"
            )
    for reason in plan.reasons:
        yield f"  note: {reason}"

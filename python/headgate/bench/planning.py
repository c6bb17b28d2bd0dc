"""A plan of a result, with the engine's own policy: what is asked in a scenario's ``plan:``, and how the server makes batches.

Not here: how a number of replicas follows (``plan``). Next: plan.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from headgate.bench import native_functions
from headgate.bench.plan import Objective, Plan, PlanRequest, make_plan
from headgate.bench.plan_facts import NothingToPlanFrom
from headgate.bench.predictors import BatchSetting
from headgate.bench.replicas import Demand
from headgate.bench.results import Result
from headgate.bench.scenario import PlanFor
from headgate.documents.values import parse_delay
from headgate.errors import InvalidArgument


def request_of(asked: PlanFor, objective: Objective | None = None) -> PlanRequest:
    """What a scenario's ``plan:`` asks for; without ``objective``, with that of the result."""
    demand = Demand(asked.target, asked.headroom, asked.spare)
    return PlanRequest(demand, objective, asked.price_per_hour, asked.growth)


def plan_of(result: Result, request: PlanRequest, run: Mapping[str, Any] | None = None) -> Plan:
    """The plan. ``run`` are the settings of the version that was measured; those that the result has unless given."""
    return make_plan(result, request, batch_setting(result, run), native_functions.simulate_batches)


def with_plan(result: Result, plan: Plan) -> Result:
    """The result with the plan, as reports show it."""
    written = plan.as_json()
    return result.model_copy(update={"plan": written, "model": written["model"]})


def planned(result: Result, asked: PlanFor | None) -> tuple[Result, Plan | None]:
    """A search's result with the plan that its scenario asks for; if it allows none, a reason more says why."""
    if asked is None:
        return result, None
    try:
        plan = plan_of(result, request_of(asked))
    except NothingToPlanFrom as error:
        return result.model_copy(update={"reasons": (*result.reasons, f"no plan: {error.message}")}), None
    return with_plan(result, plan), plan


def batch_setting(result: Result, run: Mapping[str, Any] | None = None) -> BatchSetting | None:
    """How the measured server makes batches; None if it makes none, if that is not known, or for a mix of endpoints."""
    if run is None:
        run = result.target.models[0].run if len(result.target.models) == 1 else None
    if run is None:
        return None
    # A version without instances has as many as the server has pool threads, which is one for each processor.
    cpus = len(result.target.cpus or ()) or result.machine.cpus or 1
    try:
        setting = BatchSetting(
            int(run.get("instances") or cpus),
            int(run.get("max_batch") or 1),
            parse_delay(str(run["max_delay"])) / 1e6 if run.get("max_delay") else 0.0,
        )
    except (ValueError, TypeError):
        raise InvalidArgument(f"the result's run settings are none that a document may have: {run}") from None
    return None if setting.max_batch <= 1 or run.get("placement") == "inline" else setting


_COUNT = re.compile(r"[0-9]{1,6}\Z")
_KEYS = ("max_batch", "max_delay", "instances")


def parse_run(text: str) -> dict[str, Any]:
    """``max_batch=32,instances=2,max_delay=1ms`` as settings; ``ValueError`` that says what would be right."""
    found: dict[str, Any] = {}
    for word in text.split(","):
        key, equals, value = (part.strip() for part in word.partition("="))
        if key not in _KEYS or not equals:
            raise ValueError(
                f'"{word.strip()}" is not known: write {", ".join(f"{one}=..." for one in _KEYS)}'
            )
        if key == "max_delay":
            parse_delay(value)
            found[key] = value
        elif _COUNT.match(value) and int(value) > 0:
            found[key] = int(value)
        else:
            raise ValueError(f'{key}: "{value}" is no number of at least 1')
    return found

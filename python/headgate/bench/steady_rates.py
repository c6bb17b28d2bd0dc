"""Rates below a capacity that a search has found, each measured until its quantile is known: what a plan's model is fitted to and
checked with.

A search itself measures close to its answer only, where a model that is wrong by a little is wrong by much. Not here: the model
(``prediction``). Next: plan_facts.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from headgate.bench import loads
from headgate.bench.measuring import Ended, Question
from headgate.bench.rates import format_quantile, shown_rate
from headgate.bench.results import Answer, Result, Window
from headgate.bench.run import Measurement
from headgate.bench.slo import Slo

SHARES = (0.5, 0.85, 0.3, 0.7)
"""Of the capacity, out of order: a machine that gets slower meanwhile does not look like a rate that is too high."""

PRECISION = 0.1
"""Half of the interval over the quantile: a model is refused at twice that."""

_BUDGET_SHARE = 8
"""A rate takes an eighth of the search's budget at most, all of them half of it."""

_SHORTEST_NS = 10_000_000_000
"""Less shows no trend, and the warm-up takes 2 s of it."""


@dataclass
class _Measured:
    windows: list[Window] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    interrupted: bool = False


def with_steady_rates(measurement: Measurement, slo: Slo, result: Result) -> Result:
    """The result of a search with windows of steady rates; if it has found no rate that holds, a reason more says why there are none."""
    if result.verdict in ("interrupted", "unreachable"):
        return result
    passed = None if result.capacity is None else result.capacity.passed
    if passed is None:
        reason = "no steady rates were measured: no rate holds the objective"
        return result.model_copy(update={"reasons": (*result.reasons, reason)})
    found = _measured(measurement, slo, passed)
    return result.model_copy(
        update={
            "windows": (*result.windows, *found.windows),
            "verdict": "interrupted" if found.interrupted else result.verdict,
            "reasons": tuple(dict.fromkeys([*result.reasons, *found.reasons])),
        }
    )


def _measured(measurement: Measurement, slo: Slo, passed: float) -> _Measured:
    found = _Measured()
    measurer = measurement.measurer()
    quantile = max((one for one, _ in slo.quantiles), default=0.99)
    budget = measurement.scenario.search.budget
    for_ns = max(budget // _BUDGET_SHARE, min(_SHORTEST_NS, budget // 5))
    for share in SHARES:
        rate = passed * share
        name = f"steady {share * 100:g} %"
        load = loads.OpenLoad(((rate, rate, for_ns),))
        plan = loads.open_json(load, measurement.scenario.load)
        loading = measurement.loading(name, plan, rate, for_ns, f"capacity {shown_rate(passed)}")
        measured = measurer.measure(loading, Question(slo), lambda answer: _known(answer, quantile))
        answer = measured.answer
        found.windows.append(Window(name=name, rate=rate, for_ns=for_ns, answer=answer))
        if measured.ended is Ended.INTERRUPTED:
            found.interrupted = True
            found.reasons.append("interrupted; what was measured is kept")
            break
        if measured.ended is Ended.UNREACHABLE:
            found.reasons.append(f"steady rates: {measured.why}")
            break
        found.reasons += _caveats(answer, rate, quantile)
    return found


def _known(answer: Answer, quantile: float) -> str | None:
    """Why a rate needs no more."""
    if answer.elapsed_ns < _SHORTEST_NS or answer.steadiness.overload:
        return None
    return "the quantile is known" if _width(answer, quantile) <= PRECISION else None


def _width(answer: Answer, quantile: float) -> float:
    """Half of the interval over the value; infinite if an end is not known."""
    estimate = answer.response.quantile(quantile)
    if estimate is None or not estimate.value_ns or estimate.low_ns is None or estimate.high_ns is None:
        return float("inf")
    return (estimate.high_ns - estimate.low_ns) / (2 * estimate.value_ns)


def _caveats(answer: Answer, rate: float, quantile: float) -> list[str]:
    found = []
    if answer.client.limited:
        found.append(
            f"the client was the limit at the steady rate {shown_rate(rate)}, which no model is fitted to"
        )
    elif _width(answer, quantile) > PRECISION:
        found.append(
            f"the {format_quantile(quantile)} at the steady rate {shown_rate(rate)} is known to no better than "
            f"{PRECISION * 100:g} %; --budget gives it more time"
        )
    return found

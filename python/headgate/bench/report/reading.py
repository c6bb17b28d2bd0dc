"""What a report tells of a result: its loads in one list, the one that matters most, the answer in a sentence, the caveats.

Next: charts.py and page.py, which show it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from headgate.bench.rates import format_quantile, parse_quantile, shown_rate
from headgate.bench.results import Answer, QuantileEstimate, Result
from headgate.bench.unanswered import unanswered_words

SHOWN_QUANTILES = (0.5, 0.9, 0.99, 0.999)
PHASES = ("client", "outside", "decode", "queue", "run", "reply")
"""In the order of a request: waiting in the client, the wire (inferred), then what the server tells."""


@dataclass(frozen=True)
class Load:
    """One window or probe: ``verdict`` is pass, fail, undecided or an empty text."""

    name: str
    rate: float
    verdict: str
    answer: Answer
    confirming: bool = False
    closed: bool = False
    """Whether clients waited for their answers: its rate is what the server made of it, and its times are those of few requests."""


def loads(result: Result) -> list[Load]:
    """Every window and probe, by rate."""
    found = [
        Load(
            one.name or _clients(one.clients),
            one.answer.offered_per_second or one.rate or 0.0,
            _verdict(one.answer),
            one.answer,
            closed=one.clients is not None,
        )
        for one in result.windows
    ]
    found += [
        Load(
            "confirming" if one.confirming else f"probe {at}",
            one.rate,
            one.verdict,
            one.answer,
            one.confirming,
        )
        for at, one in enumerate(result.probes, 1)
    ]
    return sorted(found, key=lambda load: load.rate)


def charted(result: Result) -> list[Load]:
    """The loads that charts against the rate have: open ones, unless there are closed ones only."""
    found = loads(result)
    return [one for one in found if not one.closed] or found


def _clients(clients: int | None) -> str:
    return "window" if clients is None else f"{clients} clients"


def _verdict(answer: Answer) -> str:
    return answer.verdict if answer.objectives else ""


def main_load(result: Result) -> Load | None:
    """The load whose seconds and distribution are shown: the confirming one, else the highest that passed, else the longest."""
    found = charted(result)
    chosen = [one for one in found if one.confirming] or [one for one in found if one.verdict == "pass"][-1:]
    return chosen[-1] if chosen else max(found, key=lambda one: one.answer.counts.due, default=None)


def objectives(result: Result) -> list[tuple[float, int]]:
    """The quantiles of the objective with their limits in ns; those of good answers alone are left out."""
    if result.capacity is not None and result.capacity.slo.quantiles:
        return [(parse_quantile(name), limit) for name, limit in result.capacity.slo.quantiles.items()]
    asked = {(one.quantile, one.limit_ns) for load in loads(result) for one in load.answer.objectives}
    return sorted((quantile, limit) for quantile, limit in asked if limit < 3_600_000_000_000)


def objective_words(result: Result) -> str:
    """``p99 within 15 ms``; an empty text without an objective."""
    said = [f"{format_quantile(quantile)} within {time(limit)}" for quantile, limit in objectives(result)]
    errors = result.capacity.slo.errors if result.capacity is not None else None
    if errors is not None:
        said.append(f"at most {errors * 100:.3g} % without a good answer")
    return " and ".join(said)


def subject(result: Result) -> str:
    """What was measured: the endpoints, else the address."""
    names = [model.endpoint for model in result.target.models]
    return ", ".join(names) if names else result.target.url


def answer_sentence(result: Result) -> str:
    """The answer, for somebody who reads nothing else."""
    who, capacity = subject(result), result.capacity
    unanswered = [unanswered_words(load.answer) for load in loads(result)]
    if unanswered and all(unanswered):
        return f"Of {who}, {unanswered[-1]}."
    if (
        result.client.limited
        and capacity is not None
        and capacity.passed is not None
        and capacity.failed is None
    ):
        within = objective_words(result)
        return f"{who} holds at least {shown_rate(capacity.passed)} with {within}; above that, the client was the limit."
    if result.client.limited and (capacity is None or capacity.passed is None):
        return f"The client was the limit, not the server: what {who} holds is not known, and at least what is shown here."
    if capacity is not None:
        within = f" with {objective_words(result)}" if objective_words(result) else ""
        if capacity.passed is None:
            least = (
                f"below {shown_rate(capacity.failed)}"
                if capacity.failed is not None
                else "at no rate that was tried"
            )
            return f"{who} does not hold the objective ({objective_words(result) or 'none'}): it would, if at all, {least}."
        if capacity.at_least:
            return f"{who} holds at least {shown_rate(capacity.passed)}{within}; no rate that was tried was too much."
        more = f"; {shown_rate(capacity.failed)} is too much" if capacity.failed is not None else ""
        return f"{who} holds {shown_rate(capacity.passed)}{within}{more}."
    load = main_load(result)
    if load is None:
        return f"{who} was not measured."
    quantile = max((one[0] for one in objectives(result)), default=0.99)
    estimate = load.answer.response.quantile(quantile)
    said = f"At {shown_rate(load.rate)}, {format_quantile(quantile)} of {who} is {_in_a_sentence(estimate)}"
    ends = {"pass": f": {objective_words(result)} is met", "fail": f": {objective_words(result)} is missed"}
    return f"{said}{ends.get(load.verdict, '')}."


def _in_a_sentence(estimate: QuantileEstimate | None) -> str:
    if estimate is not None and estimate.censored:
        return f"at least {time(estimate.value_ns)}, since so many requests got no good answer"
    return estimate_words(estimate)


def estimate_words(estimate: QuantileEstimate | None) -> str:
    """A quantile with its interval: ``12.4 ms [11.6, 13.5]``, ``≥ 5 s`` among requests without a good answer."""
    if estimate is None or estimate.value_ns is None:
        return "not known"
    if estimate.censored:
        return f"≥ {time(estimate.value_ns)}"
    if estimate.low_ns is None:
        return time(estimate.value_ns)
    _, size = _unit(estimate.value_ns)
    high = "∞" if estimate.high_ns is None else _three(estimate.high_ns / size)
    return f"{time(estimate.value_ns)} [{_three(estimate.low_ns / size)}, {high}]"


def time(nanoseconds: float | None) -> str:
    """A time of three digits with its unit; a dash if it is not known."""
    if nanoseconds is None:
        return "-"
    unit, size = _unit(nanoseconds)
    return f"{_three(nanoseconds / size)} {unit}"


def _unit(nanoseconds: float) -> tuple[str, float]:
    """The unit in which it has a digit before the point."""
    units = (("s", 1e9), ("ms", 1e6), ("us", 1e3))
    return next(((unit, size) for unit, size in units if nanoseconds >= size * 0.9995), ("ns", 1.0))


def _three(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.3g}"


def phase_means(answer: Answer) -> dict[str, float]:
    """The mean of each phase in ns, in the order of :data:`PHASES`; empty if the server told none."""
    phases = answer.phases
    if not phases.sampled:
        return {}
    waited = (answer.response.mean_ns or 0.0) - (answer.service.mean_ns or 0.0)
    told = {name: getattr(phases, name).mean_ns or 0.0 for name in PHASES[1:]}
    return {"client": max(waited, 0.0), **told}


def blame(result: Result) -> str | None:
    """Which phase takes most at the load that matters, in a sentence; None if the server told none."""
    load = main_load(result)
    means = phase_means(load.answer) if load is not None else {}
    total = sum(means.values())
    if load is None or total <= 0:
        return None
    most = max(means, key=lambda name: means[name])
    meaning = {
        "client": "requests wait in the client until they are sent",
        "outside": "the wire, the client's reading, or requests that the server has not read yet because a model runs inline "
        "(more IO threads, or placement: pool)",
        "decode": "reading requests",
        "queue": "requests wait for an instance: more instances, batches or replicas help",
        "run": "the model itself: a faster model, more threads a run or a device help",
        "reply": "writing answers",
    }[most]
    return f"At {shown_rate(load.rate)}, {most} takes {means[most] / total * 100:.0f} % of the mean response: {meaning}."


def caveats(result: Result) -> Iterator[str]:
    """What limits what the numbers say, one sentence each."""
    yield from result.reasons
    yield from (reason for reason in result.client.reasons if reason not in result.reasons)
    if result.client.shares_cpus:
        yield "The generator shared processors with the server: both took time from each other."
    if not result.target.server_phases:
        yield "The server told no phases, so that it is not known where the time went."
    elif any(load.answer.phases.sampled for load in loads(result)):
        yield "Phases are those of a sample of requests; wire and client are inferred from what the server's total leaves."
    if result.capacity is not None and result.capacity.passed is not None and not result.capacity.confirmed:
        yield "The capacity was not confirmed by a long run."
    for load in loads(result):
        yield from _caveats_of(load)


def _caveats_of(load: Load) -> Iterator[str]:
    said, answer = f"At {shown_rate(load.rate)} ({load.name})", load.answer
    if answer.interrupted:
        yield f"{said}: {answer.interrupted}."
    if answer.warmup.settled is False:
        yield f"{said}: latency did not settle within the warm-up."
    if answer.steadiness.overload:
        yield f"{said}: requests in flight kept growing, so that quantiles depend on how long was measured."
    elif answer.steadiness.steady is False:
        yield f"{said}: latency or requests in flight had a trend."
    if answer.replies.differing:
        yield f"{said}: {answer.replies.differing} of {answer.replies.compared} compared answers differed."
    for error in answer.errors:
        example = f" ({error.example})" if error.example else ""
        yield f"{said}: {error.count} times {error.what}{example}."

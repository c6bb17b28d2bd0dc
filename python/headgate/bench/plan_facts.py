"""What a result says for a plan: steady rates with their quantiles, the distribution of run times, the capacity that was measured.

Next: plan.py for what follows from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headgate.bench import hdr, predictors
from headgate.bench.prediction import Measured, Predictor
from headgate.bench.predictors import BatchSetting, Simulate
from headgate.bench.queueing import RunTimes
from headgate.bench.rates import parse_quantile
from headgate.bench.results import Answer, Capacity, Phases, QuantileEstimate, Result
from headgate.errors import InvalidArgument

_FEWEST_SERVERS, _MOST_SERVERS = 8, 64
_MOST_NOT_GOOD = 0.01
_FAR_ABOVE = 3.0
_SHORTEST_RUN = 0.05
"""Of the mean run: a service time below what surrounds a run would leave nothing of it."""


class NothingToPlanFrom(InvalidArgument):
    """A result that does not say what one replica holds. ``missed``: it says that the objective fails at every rate."""

    def __init__(self, message: str, *, missed: bool = False) -> None:
        super().__init__(message)
        self.missed = missed


@dataclass(frozen=True)
class Facts:
    """The parts of a result that a plan reads. A rate that passed is relied on, also if the client was the limit above it."""

    answers: tuple[tuple[float, Answer], ...]
    """Offered rate and answer of every open load, by rate."""
    capacity: Capacity | None
    cpus: int
    rows: tuple[tuple[int, float], ...]
    limited: bool

    @property
    def fails_everywhere(self) -> bool:
        """Whether the search found that not even its lowest rate holds the objective."""
        return self.capacity is not None and self.capacity.passed is None and self.capacity.failed is not None

    @property
    def objective(self) -> tuple[float, float] | None:
        """The highest quantile of the result's objective with its limit in seconds."""
        if self.capacity is None or not self.capacity.slo.quantiles:
            return None
        quantiles = {parse_quantile(name): limit for name, limit in self.capacity.slo.quantiles.items()}
        highest = max(quantiles)
        return highest, quantiles[highest] / 1e9

    def measured(self, quantile: float) -> list[Measured]:
        """Rates that the server kept up with, with the quantile in seconds; repeated rates by their geometric mean."""
        logs: dict[float, list[float]] = {}
        errors: dict[float, list[float]] = {}
        for rate, answer in self.answers:
            estimate = answer.response.quantile(quantile)
            if estimate is None or estimate.value_ns is None or estimate.censored or not _keeps_up(answer):
                continue
            # Rates within one percent are repetitions: a generator's offered rate is drawn.
            near = next((one for one in logs if abs(one - rate) <= 0.01 * rate), rate)
            logs.setdefault(near, []).append(math.log(max(estimate.value_ns, 1) / 1e9))
            errors.setdefault(near, []).append(_log_error(estimate))
        return [
            Measured(rate, math.exp(math.fsum(found) / len(found)), math.hypot(*errors[rate]) / len(found))
            for rate, found in sorted(logs.items())
        ]

    def capacity_for(self, quantile: float, limit: float) -> tuple[float, float | None] | None:
        """The measured bracket of passed and failed rates for that objective; None if another one was measured, or nothing passed."""
        if self.capacity is None or self.capacity.passed is None:
            return None
        asked = {parse_quantile(name): ns for name, ns in self.capacity.slo.quantiles.items()}
        if asked.get(quantile) != round(limit * 1e9):
            return None
        return self.capacity.passed, self.capacity.failed

    def informative(self, quantile: float, limit: float) -> list[Measured]:
        """The measured rates up to three times the limit: near saturation, what one window shows is mostly chance."""
        return [point for point in self.measured(quantile) if point.seconds <= _FAR_ABOVE * limit]

    def highest_rate(self, quantile: float, limit: float) -> float:
        """The highest rate that a replica may be asked for: the one that passed, else the highest that was measured within ``limit``."""
        bracket = self.capacity_for(quantile, limit)
        if bracket is not None:
            return bracket[0]
        return max((point.rate for point in self.measured(quantile) if point.seconds <= limit), default=0.0)

    def why_no_capacity(self, quantile: float) -> Iterator[str]:
        """Why the measured capacity does not say it."""
        if self.capacity is None:
            yield "the result has no capacity; `headgate bench find` measures one"
        elif self.capacity.passed is None:
            yield "no rate passed in it"
        else:
            yield f"its capacity is that of another objective than p{quantile * 100:g}"


def read(result: Result) -> Facts:
    """The facts of a result; :class:`NothingToPlanFrom` if the client was the limit before any rate passed."""
    passed = None if result.capacity is None else result.capacity.passed
    if result.client.limited and passed is None:
        raise NothingToPlanFrom(
            "the client was the limit of this measurement, so that it does not say what the server holds: "
            + "; ".join(result.client.reasons or ("measure with more processors for the client",))
        )
    loads = [(window.rate, window.answer) for window in result.windows if window.clients is None]
    loads += [(probe.rate, probe.answer) for probe in result.probes]
    answers = [
        (answer.offered_per_second or rate, answer)
        for rate, answer in loads
        if answer.offered_per_second or rate
    ]
    return Facts(
        answers=tuple(sorted(((rate, answer) for rate, answer in answers if rate), key=lambda pair: pair[0])),
        capacity=result.capacity,
        cpus=len(result.target.cpus or ()) or result.machine.cpus or 1,
        rows=_rows(result.scenario),
        limited=result.client.limited,
    )


def _log_error(estimate: QuantileEstimate) -> float:
    """Half of the interval in logarithms."""
    if not estimate.low_ns or not estimate.value_ns:
        return 0.0
    return math.inf if not estimate.high_ns else math.log(estimate.high_ns / estimate.low_ns) / 2


def _keeps_up(answer: Answer) -> bool:
    counts = answer.counts
    answered = max(counts.due - counts.in_flight, 1)
    return (
        not answer.steadiness.overload
        and counts.not_good <= _MOST_NOT_GOOD * answered
        and not answer.client.limited
    )


def _rows(scenario: Mapping[str, Any]) -> tuple[tuple[int, float], ...]:
    """Rows of a request with their shares, over the whole mix; one row unless written."""
    shares: dict[int, float] = {}
    mix: list[Mapping[str, Any]] = scenario.get("mix") or [{}]
    for entry in mix:
        weight = _share(entry.get("share", "100%"))
        for rows, share in (entry.get("rows") or {"1": "100%"}).items():
            shares[int(rows)] = shares.get(int(rows), 0.0) + weight * _share(share)
    total = math.fsum(shares.values()) or 1.0
    return tuple((rows, share / total) for rows, share in sorted(shares.items()))


def _share(written: Any) -> float:
    return float(str(written).removesuffix("%")) / 100


def candidates(
    facts: Facts, quantile: float, setting: BatchSetting | None, simulate: Simulate | None
) -> Iterator[Predictor]:
    """The models that may describe this server; :class:`InvalidArgument` without a histogram of a low rate."""
    times, around = run_times(facts)
    yield from predictors.queues(times, around, min(max(2 * facts.cpus, _FEWEST_SERVERS), _MOST_SERVERS))
    makes_batches = (
        setting is not None and setting.max_batch > 1 and quantile in predictors.SIMULATED_QUANTILES
    )
    if setting is not None and simulate is not None and makes_batches:
        lowest = _lowest(facts)
        rate = lowest.offered_per_second or facts.answers[0][0]
        # Of that rate alone: more requests share a run when there are more.
        run = (lowest.phases.run.mean_ns or times.mean * 1e9) / 1e9
        yield from predictors.batches(simulate, run, around, setting, (rate, facts.rows))


def run_times(facts: Facts) -> tuple[RunTimes, float]:
    """The distribution of run times in seconds, and the mean time around a run and its queue.

    Answers tell of runs only what a sample of them has. The shape is that of the service times at the lowest rate, at which least waits,
    brought to the p50 and p99 of the largest sample and to the mean of all of them. For servers that tell no phases, all of the service
    time counts as run.
    """
    lowest = _lowest(facts)
    if lowest.hdr_v2 is None or lowest.hdr_v2.service is None:
        raise InvalidArgument(_NO_HISTOGRAM)
    histogram = hdr.decode(lowest.hdr_v2.service)
    if not histogram.mean:
        raise InvalidArgument("the histogram of service times at the lowest rate is empty")
    values = [max(value, 1.0) for value, _ in histogram.steps()]
    weights = [float(count) for _, count in histogram.steps()]
    told = [one.phases for _, one in facts.answers if _keeps_up(one) and one.phases.run.mean_ns]
    run = _sampled_mean(told, "run")
    if not run or run >= histogram.mean:
        return RunTimes.of([value / 1e9 for value in values], weights), 0.0
    largest = max(told, key=lambda one: one.sampled).run
    if largest.p50_ns and largest.p99_ns:
        moved = _to_quantiles(values, histogram, (largest.p50_ns, largest.p99_ns))
    else:
        moved = [max(value - (histogram.mean - run), _SHORTEST_RUN * run) for value in values]
    scale = run * math.fsum(weights) / math.fsum(v * w for v, w in zip(moved, weights, strict=True))
    around = math.fsum(_sampled_mean(told, name) for name in _AROUND)
    return RunTimes.of([value * scale / 1e9 for value in moved], weights), around / 1e9


_AROUND = ("outside", "decode", "reply")


def _sampled_mean(told: Sequence[Phases], name: str) -> float:
    """The mean of a phase in ns over the samples of several loads; 0 if none tells it."""
    known = [(getattr(one, name).mean_ns, max(one.sampled, 1)) for one in told]
    parts = [(mean, count) for mean, count in known if mean is not None]
    return math.fsum(mean * count for mean, count in parts) / max(sum(count for _, count in parts), 1)


_NO_HISTOGRAM = "no rate at which neither the server fell behind nor the client was late has a histogram of its service times"


def _lowest(facts: Facts) -> Answer:
    for _, one in facts.answers:
        if one.hdr_v2 is not None and one.hdr_v2.service and _keeps_up(one):
            return one
    raise InvalidArgument(_NO_HISTOGRAM)


def _to_quantiles(values: Sequence[float], histogram: hdr.Histogram, wanted: tuple[int, int]) -> list[float]:
    """The values with their p50 and p99 at ``wanted``: the factor between both is linear in the logarithm of the value."""
    low, high = (math.log(histogram.quantile(share) or 1) for share in (0.5, 0.99))
    ends = (math.log(wanted[0]) - low, math.log(max(wanted[1], wanted[0])) - high)

    def factor(value: float) -> float:
        at = 1.0 if high <= low else min(max((math.log(value) - low) / (high - low), 0.0), 1.0)
        return math.exp(ends[0] + at * (ends[1] - ends[0]))

    return [value * factor(value) for value in values]

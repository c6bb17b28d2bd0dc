"""Servers that are simulated to see how well plans predict them: threads with a queue each, a pool behind one queue, batches.

They are written for this, and share nothing with the models that are fitted. ``python -m support.planned_servers 100`` prints the figures
of docs/design/bench-planning.md for as many seeds. Next: ``tests/unit/bench/test_plan_figures.py``, the short form.
"""

from __future__ import annotations

import heapq
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headgate.bench import hdr, native_functions, plan_facts, prediction
from headgate.bench.prediction import Fit
from headgate.bench.predictors import BatchSetting
from headgate.bench.results import (
    Answer,
    Counts,
    Histograms,
    Latency,
    Phases,
    PhaseTimes,
    Probe,
    QuantileEstimate,
)
from headgate.errors import InvalidArgument
from support.bench_results import result
from support.virtual_load import queue_ns

Times = NDArray[np.float64]
Serve = Callable[[Times, np.random.Generator], tuple[Times, Times]]
"""Due times in seconds to the time in the queue and the time of the run, of each request."""

AROUND = 0.0003
LIMIT = 0.015
QUANTILE = 0.99
SHARES = (0.3, 0.45, 0.6, 0.7, 0.8, 0.87, 0.94)
"""Measured rates as shares of what the server holds; the last one is the highest that passes."""
SECONDS = 30.0


def two_kinds(count: int, random: np.random.Generator) -> Times:
    """Runs of 2 ms and, for one in ten, of 7 ms."""
    return np.where(random.random(count) < 0.1, 0.007, 0.002)


def inline(due: Times, random: np.random.Generator) -> tuple[Times, Times]:
    """Two threads; a request stays with the thread that its connection belongs to."""
    run, queue = two_kinds(len(due), random), np.zeros(len(due))
    thread = random.integers(0, 2, len(due))
    for number in range(2):
        mine = np.flatnonzero(thread == number)
        queue[mine] = queue_ns((due[mine] * 1e9).astype(np.int64), run[mine] * 1e9) / 1e9
    return queue, run


def pool(due: Times, random: np.random.Generator) -> tuple[Times, Times]:
    """Four instances behind one queue."""
    run, queue = two_kinds(len(due), random), np.zeros(len(due))
    free = [0.0] * 4
    for at, now in enumerate(due):
        begin = max(float(now), heapq.heappop(free))
        queue[at] = begin - now
        heapq.heappush(free, begin + float(run[at]))
    return queue, run


def batched(due: Times, random: np.random.Generator) -> tuple[Times, Times]:
    """One instance that takes all that waits, 16 requests at most: 2 ms and 0.4 ms a request, off by some percent."""
    queue, run = np.zeros(len(due)), np.zeros(len(due))
    free, at = 0.0, 0
    while at < len(due):
        begin = max(free, float(due[at]))
        upto = min(int(np.searchsorted(due, begin, side="right")), at + 16)
        took = (0.002 + 0.0004 * (upto - at)) * math.exp(random.normal(0, 0.05))
        queue[at:upto], run[at:upto] = begin - due[at:upto], took
        free, at = begin + took, upto
    return queue, run


SERVERS: dict[str, tuple[Serve, BatchSetting | None]] = {
    "inline": (inline, None),
    "pool": (pool, None),
    "batched": (batched, BatchSetting(1, 16, 0.0)),
}


def responses(serve: Serve, rate: float, seconds: float, seed: int) -> tuple[Times, Times, Times]:
    """Responses, times in the queue and runs, without those of the first tenth."""
    random = np.random.default_rng((seed, round(rate)))
    due = np.cumsum(random.exponential(1 / rate, int(rate * seconds)))
    queue, run = serve(due, random)
    warm = len(due) // 10
    return (queue + run + AROUND)[warm:], queue[warm:], run[warm:]


def capacity(serve: Serve, seconds: float = 150.0) -> float:
    """The rate at which the quantile reaches the limit, by bisection over long runs."""
    low, high = 10.0, 10_000.0
    while high / low > 1.005:
        middle = math.sqrt(low * high)
        found = responses(serve, middle, seconds, 12345)[0]
        low, high = (middle, high) if np.quantile(found, QUANTILE) <= LIMIT else (low, middle)
    return low


def answer(serve: Serve, rate: float, seed: int) -> Answer:
    """What a measurement of that rate says."""
    taken, queue, run = responses(serve, rate, SECONDS, seed)
    mean = float(taken.mean()) * 1e9
    low, value, high = interval(taken)
    estimate = QuantileEstimate(quantile=QUANTILE, value_ns=value, low_ns=low, high_ns=high)
    latency = Latency(mean_ns=mean, quantiles=(estimate,))
    histogram = hdr.encode(hdr.of_values([int(value * 1e9) for value in taken]))
    return Answer(
        counts=Counts(due=len(taken), sent=len(taken), good=len(taken)),
        offered_per_second=rate,
        response=latency,
        service=latency,
        phases=Phases(
            sampled=len(taken) // 50,
            outside=PhaseTimes(mean_ns=AROUND * 1e9),
            queue=PhaseTimes(mean_ns=float(queue[::50].mean()) * 1e9),
            run=PhaseTimes(
                mean_ns=float(run[::50].mean()) * 1e9,
                p50_ns=round(float(np.quantile(run[::50], 0.5)) * 1e9),
                p99_ns=round(float(np.quantile(run[::50], 0.99)) * 1e9),
            ),
        ),
        hdr_v2=Histograms(service=histogram),
    )


def interval(taken: Times) -> tuple[int, int, int | None]:
    """The quantile in ns between the ends of its interval, by 20 batches as in docs/design/bench-statistics.md."""
    value = float(np.quantile(taken, QUANTILE))
    allowed = 1 - QUANTILE
    shares = [float((batch > value).mean()) for batch in np.array_split(taken, 20)]
    inflation = max(1.0, len(taken) / 20 * statistics.variance(shares) / (allowed * QUANTILE))
    half = 2.1 * math.sqrt(allowed * QUANTILE * inflation / len(taken))
    high = None if half >= allowed else round(float(np.quantile(taken, QUANTILE + half)) * 1e9)
    return round(float(np.quantile(taken, QUANTILE - half)) * 1e9), round(value * 1e9), high


@dataclass(frozen=True)
class Outcome:
    """What came of one fit: the rate that it says the server holds, over the true one; the errors of what was held out."""

    holds: bool
    capacity_ratio: float
    errors: tuple[float, ...]
    inside: tuple[bool, ...]


def fitted(name: str, truth: float, seed: int) -> Outcome:
    """A fit to measurements of that server."""
    serve, setting = SERVERS[name]
    probes = tuple(
        Probe(rate=share * truth, verdict="pass", answer=answer(serve, share * truth, seed))
        for share in SHARES
    )
    facts = plan_facts.read(result(probes=probes))
    models = list(plan_facts.candidates(facts, QUANTILE, setting, native_functions.simulate_batches))
    fit = prediction.fit(facts.informative(QUANTILE, LIMIT), models, QUANTILE)
    return Outcome(
        fit.holds,
        held_rate(fit, 2 * truth) / truth,
        tuple(check.error for check in fit.held_out),
        tuple(check.inside for check in fit.held_out),
    )


def held_rate(fit: Fit, most: float) -> float:
    """The rate at which the prediction reaches the limit."""
    low, high = 0.0, most
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if fit.at(middle).seconds <= LIMIT else (low, middle)
    return low


def outcomes(name: str, seeds: range) -> Iterator[Outcome]:
    """One for each seed."""
    truth = capacity(SERVERS[name][0])
    for seed in seeds:
        yield fitted(name, truth, seed)


def main() -> None:
    """Prints the table."""
    print(
        "| server | holds | a model holds | its capacity off by: mean (worst) | held-out rates off by: mean (worst) | the interval holds |"
    )
    print("|---|---|---|---|---|---|")
    for name in SERVERS:
        found = list(outcomes(name, range(int(sys.argv[1]))))
        held = [one for one in found if one.holds]
        if not held:
            raise InvalidArgument(f"no model of {name} holds")
        off = [one.capacity_ratio - 1 for one in held]
        errors = [error for one in found for error in one.errors]
        inside = [good for one in found for good in one.inside]
        print(
            f"| {name} | {capacity(SERVERS[name][0]):.0f}/s | {len(held) / len(found):.0%} | {_signed(off)} | {_signed(errors)} | "
            f"{statistics.fmean(inside):.0%} |"
        )


def _signed(values: list[float]) -> str:
    return f"{statistics.fmean(values):+.1%} ({max(values, key=abs):+.1%})"


if __name__ == "__main__":
    main()

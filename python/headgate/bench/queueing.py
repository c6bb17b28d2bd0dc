"""Waiting and response times of a server with k instances: Erlang C, approximations for general run times, and the tail.

All times are seconds, all rates are per second. The arrivals are Poisson unless a variation is given. A queue that does not keep
up with its arrivals has no finite wait, which is ``math.inf`` here. Not here: batches (simulated by the engine's own policy,
:mod:`.predictors`). Next: predictors.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headgate.errors import InvalidArgument

_BISECTIONS = 200
_RESOLUTION = 1e-10


@dataclass(frozen=True)
class RunTimes:
    """The distribution of the times that a request keeps an instance busy, as values (s) with weights that add up to 1."""

    seconds: tuple[float, ...]
    weights: tuple[float, ...]

    @staticmethod
    def of(seconds: Sequence[float], weights: Sequence[float]) -> RunTimes:
        """Weights of any sum above 0, such as the counts of a histogram; values are finite and more than 0."""
        if not seconds or len(seconds) != len(weights):
            raise InvalidArgument(
                f"{len(seconds)} run times need as many weights, and at least one; there are {len(weights)}"
            )
        if any(not (math.isfinite(value) and value > 0) for value in seconds):
            raise InvalidArgument("every run time must be finite and more than 0 s")
        total = math.fsum(weights)
        if not (math.isfinite(total) and total > 0) or any(weight < 0 for weight in weights):
            raise InvalidArgument("weights of run times must be at least 0, and more than 0 together")
        return RunTimes(tuple(map(float, seconds)), tuple(weight / total for weight in weights))

    @property
    def mean(self) -> float:
        """The mean in seconds."""
        return math.fsum(s * w for s, w in zip(self.seconds, self.weights, strict=True))

    @property
    def squared_variation(self) -> float:
        """cs²: the variance over the squared mean; 0 for constant, 1 for exponential run times."""
        square = math.fsum(s * s * w for s, w in zip(self.seconds, self.weights, strict=True))
        return max(square / self.mean**2 - 1, 0.0)


def erlang_c(servers: int, load: float) -> float:
    """The share of requests that wait in M/M/k: ``load`` is rate times mean service time, in servers that are busy.

    1 if the load reaches the servers. Source: Erlang (1917), by the stable recursion B_i = aB / (i + aB) over Erlang B.
    """
    if servers < 1 or not load >= 0:
        raise InvalidArgument(f"{servers} servers at a load of {load}: at least 1 and at least 0 are needed")
    if load >= servers:
        return 1.0
    blocked = 1.0
    for server in range(1, servers + 1):
        blocked = load * blocked / (server + load * blocked)
    busy = load / servers
    return blocked / (1 - busy * (1 - blocked))


def mmk_wait(rate: float, service: float, servers: int) -> float:
    """The mean wait of M/M/k, without the service."""
    load = rate * service
    if load >= servers:
        return math.inf
    return erlang_c(servers, load) * service / (servers - load)


def mdk_wait(rate: float, service: float, servers: int) -> float:
    """The mean wait of M/D/k: half of M/M/k's, corrected. Source: Cosmetatos, "Approximate explicit formulae for the average
    queueing time in the processes (M/D/r) and (D/M/r)" (1975).
    """
    busy = rate * service / servers
    if busy >= 1:
        return math.inf
    if busy <= 0:
        return 0.0
    correction = (1 - busy) * (servers - 1) * (math.sqrt(4 + 5 * servers) - 2) / (16 * busy * servers)
    # At a low load the correction would exceed what exponential service costs, which no constant service does.
    return min(0.5 * (1 + correction), 1.0) * mmk_wait(rate, service, servers)


def allen_cunneen_wait(
    rate: float, service: float, servers: int, arrivals_squared_variation: float, squared_variation: float
) -> float:
    """The mean wait of G/G/k: M/M/k's, scaled by the mean of both squared variations. Source: Allen, "Probability,
    Statistics, and Queueing Theory" (1990).
    """
    return mmk_wait(rate, service, servers) * (arrivals_squared_variation + squared_variation) / 2


def kimura_wait(rate: float, service: float, servers: int, squared_variation: float) -> float:
    """The mean wait of M/G/k, between M/D/k's and M/M/k's by the squared variation of the service times. Source: Kimura,
    "A two-moment approximation for the mean waiting time in the GI/G/s queue" (1986).
    """
    exponential, constant = mmk_wait(rate, service, servers), mdk_wait(rate, service, servers)
    if math.isinf(exponential) or exponential == 0:
        return exponential
    return (1 + squared_variation) / (
        2 * squared_variation / exponential + (1 - squared_variation) / constant
    )


def response_tail(times: RunTimes, rate: float, servers: int, limit: float) -> float:
    """The share of responses of M/G/k that take longer than ``limit`` seconds: the wait has an exponential tail of Kimura's
    mean above the share that does not wait, and each run time of the distribution stands on top of it.
    """
    waits = erlang_c(servers, rate * times.mean)
    wait = kimura_wait(rate, times.mean, servers, times.squared_variation)
    if math.isinf(wait):
        return 1.0
    run, weight = np.asarray(times.seconds), np.asarray(times.weights)
    left = limit - run
    if wait == 0:
        return float(weight[left < 0].sum())
    longer = np.where(left < 0, 1.0, waits * np.exp(-(waits / wait) * np.maximum(left, 0.0)))
    return float((weight * longer).sum())


def response_quantile(times: RunTimes, rate: float, servers: int, quantile: float) -> float:
    """The quantile of responses of M/G/k in seconds; infinite for a rate that the servers do not keep up with."""
    if not 0 < quantile < 1:
        raise InvalidArgument(f"the quantile {quantile} must lie between 0 and 1")
    if rate * times.mean >= servers:
        return math.inf
    allowed = 1 - quantile
    high = max(times.seconds)
    while response_tail(times, rate, servers, high) > allowed:
        high *= 2
    low = 0.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if response_tail(times, rate, servers, middle) > allowed:
            low = middle
        else:
            high = middle
        if high - low <= _RESOLUTION * high:
            break
    return high


def highest_rate(times: RunTimes, servers: int, quantile: float, limit: float) -> float:
    """The highest rate at which the quantile stays within ``limit`` seconds; 0 if it does not at any rate."""
    low, high = 0.0, servers / times.mean
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if response_quantile(times, middle, servers, quantile) <= limit:
            low = middle
        else:
            high = middle
        if high - low <= _RESOLUTION * high:
            break
    return low


def settled_batch(rate: float, base: float, row: float) -> float:
    """The mean size n* at which batches of one instance settle under load: the n of which ``base + row * n`` seconds bring n more.

    Infinite if the rows alone take all the time. It says where to look; what a limited batch with a delay really does is simulated.
    Source: Inoue, "Queueing analysis of GPU-based inference servers with dynamic batching" (2019).
    """
    busy = rate * row
    return math.inf if busy >= 1 else rate * base / (1 - busy)

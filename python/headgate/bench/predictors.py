"""Models of one server: instances behind one queue, instances that each have their own, and batches by the engine's own policy.

Times are seconds, rates per second. ``plan_facts.candidates`` makes the candidates that a result allows; which one holds, if any, is
decided by measured rates (``prediction``). Next: plan.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headgate.bench import queueing
from headgate.bench.queueing import RunTimes

Simulate = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Runs the engine's batch policy in virtual time: question and answer of ``_native.simulate_batches``."""

_ROW_SHARES = (0.02, 0.05, 0.08, 0.1, 0.13, 0.16, 0.2, 0.26, 0.34, 0.43, 0.53, 0.64, 0.76, 0.9)
_CALIBRATIONS = 3
_MEDIAN = 0.5
_SIMULATED_REQUESTS = 40_000
_SEED = 1
_MAX_QUEUE = 1_000_000
"""So long that nothing is shed: an overload shows as waiting, which is what the objective sees."""


@dataclass(frozen=True)
class SharedQueue:
    """M/G/k: one queue before ``servers`` instances. ``around`` seconds are added for what is neither queue nor run."""

    times: RunTimes
    servers: int
    around: float = 0.0

    @property
    def name(self) -> str:
        """What it is, in words."""
        return f"one queue before {self.servers} instance{'s' * (self.servers != 1)} (M/G/{self.servers}, Kimura)"

    def quantile(self, rate: float, quantile: float) -> float:
        """The response in seconds."""
        return self.around + queueing.response_quantile(self.times, rate, self.servers, quantile)


@dataclass(frozen=True)
class OwnQueues:
    """``servers`` threads that each run what their own connections bring: a random split into as many M/G/1."""

    times: RunTimes
    servers: int
    around: float = 0.0

    @property
    def name(self) -> str:
        """What it is, in words."""
        return f"{self.servers} threads with a queue each (M/G/1, Kimura)"

    def quantile(self, rate: float, quantile: float) -> float:
        """The response in seconds."""
        return self.around + queueing.response_quantile(self.times, rate / self.servers, 1, quantile)


@dataclass(frozen=True)
class BatchSetting:
    """The settings of ``run:`` that decide how rows meet; ``max_delay`` is in seconds."""

    instances: int
    max_batch: int
    max_delay: float = 0.0


@dataclass(frozen=True)
class Curve:
    """A batch of n rows takes ``base + row * n`` seconds."""

    base: float
    row: float


@dataclass(frozen=True)
class Batches:
    """The engine's batch policy in virtual time: a run of n rows takes what the curve says."""

    simulate: Simulate
    setting: BatchSetting
    curve: Curve
    rows: tuple[tuple[int, float], ...] = ((1, 1.0),)
    around: float = 0.0
    requests: int = _SIMULATED_REQUESTS
    seen: dict[float, Mapping[str, Any]] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """What it is, in words."""
        runs = f"{self.setting.instances} instance{'s' * (self.setting.instances != 1)}"
        return (
            f"batches of at most {self.setting.max_batch} rows in {runs} (simulated; a run takes "
            f"{self.curve.base * 1e3:.3g} ms and {self.curve.row * 1e3:.3g} ms a row)"
        )

    @property
    def least_seconds(self) -> float:
        """What a request takes of an instance if batches are full: its part of a batch, or a run of its own if it is as large as one."""
        full = max(self.setting.max_batch, 1)
        parts = (
            share * (self.curve.base * min(n / full, 1.0) + self.curve.row * n) for n, share in self.rows
        )
        return math.fsum(parts)

    def quantile(self, rate: float, quantile: float) -> float:
        """The response in seconds; of the quantiles p50, p90, p95 and p99 only, and the mean is not one of them."""
        if rate * self.least_seconds >= self.setting.instances:
            return math.inf
        value = self.answer(rate)[quantile_key(quantile)]
        # Null if it lies among rejected requests.
        return math.inf if value is None else self.around + int(value) / 1e9

    def answer(self, rate: float) -> Mapping[str, Any]:
        """What the simulation says at ``rate``; the same rate is simulated once."""
        if rate not in self.seen:
            question = batch_question(self.setting, self.curve, self.rows, rate)
            self.seen[rate] = self.simulate({**question, "requests": self.requests})
        return self.seen[rate]


def batch_question(
    setting: BatchSetting, curve: Curve, rows: Sequence[tuple[int, float]], rate: float
) -> dict[str, Any]:
    """The question that ``_native.simulate_batches`` takes: Poisson arrivals, nothing shed, one seed for all settings."""
    return {
        "seed": _SEED,
        "rate": rate,
        "requests": _SIMULATED_REQUESTS,
        "arrivals": {"kind": "poisson"},
        "rows": [[n, share] for n, share in rows],
        "setting": {
            "instances": setting.instances,
            "max_batch": setting.max_batch,
            "max_delay_ns": round(setting.max_delay * 1e9),
            "max_queue": _MAX_QUEUE,
        },
        "curve": {"base_ns": round(curve.base * 1e9), "row_ns": round(curve.row * 1e9)},
        "run_ns": None,
    }


def quantile_key(quantile: float) -> str:
    """The name of a simulated quantile: ``p99_ns`` for 0.99."""
    return f"p{quantile * 100:g}_ns"


SIMULATED_QUANTILES = (0.5, 0.9, 0.95, 0.99)
"""The quantiles that a simulation tells."""


def queues(times: RunTimes, around: float, most_servers: int) -> Iterator[SharedQueue | OwnQueues]:
    """Both kinds of queue for 1 to ``most_servers`` instances: which of them a server is, its measured rates tell."""
    for servers in range(1, most_servers + 1):
        yield SharedQueue(times, servers, around)
        if servers > 1:
            yield OwnQueues(times, servers, around)


def batches(
    simulate: Simulate,
    run_mean: float,
    around: float,
    setting: BatchSetting,
    measured_at: tuple[float, tuple[tuple[int, float], ...]],
) -> Iterator[Batches]:
    """Batches with differing shares of what a run takes for each row.

    ``run_mean`` is the mean run in seconds that requests met at ``measured_at``, a rate and the rows of requests. There may have been
    more than one of them in a run: the curve is that under which the simulation gives that mean.
    """
    rate, rows = measured_at
    mean_rows = math.fsum(n * share for n, share in rows)
    for share in _ROW_SHARES:
        alone = run_mean
        for _ in range(_CALIBRATIONS):
            curve = Curve(alone * (1 - share), alone * share / mean_rows)
            model = Batches(simulate, setting, curve, rows, around)
            if math.isinf(model.quantile(rate, _MEDIAN)):
                break
            together = float(model.answer(rate).get("mean_batch_rows") or mean_rows) / mean_rows
            # A request meets long runs more often than short ones; of batches whose sizes are geometric, by 2 n - 1 for n.
            alone = run_mean / (1 + share * 2 * max(together - 1, 0.0))
        curve = Curve(alone * (1 - share), alone * share / mean_rows)
        yield Batches(simulate, setting, curve, rows, around)

"""What a setting would hold: run times by rows, measured once for each number of threads, and the engine's batch policy in virtual time.

Rates are per second, times seconds. Not here: which settings are measured after it (``sweep``). Next: predictors.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headgate.bench.predictors import Batches, BatchSetting, Curve, Simulate
from headgate.bench.run_settings import Choice

CALIBRATED_ROWS = (1, 2, 4, 8, 16)
"""Rows of a request in a calibration; a request is a run then."""

_BISECTIONS = 9
_SIMULATED_REQUESTS = 10_000
"""All settings see the same arrivals, so that fewer tell them apart: there are hundreds of settings on many cores."""


@dataclass(frozen=True)
class Wanted:
    """What the settings are compared by: the highest rate with this quantile within ``limit`` seconds, for requests of these rows."""

    quantile: float
    limit: float
    rows: tuple[tuple[int, float], ...] = ((1, 1.0),)
    cores: int = 1
    io_threads: int = 1


@dataclass(frozen=True)
class RequestTimes:
    """Median times of a request: the run of the model, and what the server does around it, reading and writing."""

    run: float
    around: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """Both times by the rows of a request, and the most rows that the model took of those that were tried."""

    run: Curve
    around: Curve
    most_rows: int = 1

    def as_json(self) -> dict[str, int]:
        """In whole ns."""
        return {
            "base_ns": round(self.run.base * 1e9),
            "row_ns": round(self.run.row * 1e9),
            "around_base_ns": round(self.around.base * 1e9),
            "around_row_ns": round(self.around.row * 1e9),
        }


def calibration(points: Sequence[tuple[int, RequestTimes]]) -> Calibration:
    """Lines through the times of requests of so many rows."""
    around = [(rows, times.around) for rows, times in points if times.around > 0]
    return Calibration(
        fit_curve([(rows, times.run) for rows, times in points]),
        fit_curve(around) if around else Curve(0.0, 0.0),
        max(rows for rows, _ in points),
    )


def fit_curve(points: Sequence[tuple[int, float]]) -> Curve:
    """The least relative squares of ``base + row * n`` with both at least 0; with one point alone, all of it is base."""
    if len(points) < 2:
        return Curve(points[0][1], 0.0)
    rows, seconds = (
        np.array([p[0] for p in points], dtype=float),
        np.array([p[1] for p in points], dtype=float),
    )
    columns = np.stack([np.ones_like(rows), rows], axis=1) / seconds[:, None]
    base, row = np.linalg.lstsq(columns, np.ones_like(rows), rcond=None)[0]
    if base < 0:
        weights = rows / seconds
        return Curve(0.0, float(weights.sum() / (weights**2).sum()))
    if row < 0:
        weights = 1 / seconds
        return Curve(float(weights.sum() / (weights**2).sum()), 0.0)
    return Curve(float(base), float(row))


def simulated_rate(
    choice: Choice, calibrations: dict[int, Calibration], wanted: Wanted, simulate: Simulate
) -> float:
    """The highest rate at which the simulated quantile stays within the limit; 0 if it does not at any.

    Inline, a thread reads, runs and writes one request after the other. In the pool, only runs wait for each other, and reading and writing
    takes its part of the cores.
    """
    found = (
        calibrations[choice.threads] if choice.threads in calibrations else calibrations[max(calibrations)]
    )
    mean_rows = math.fsum(n * share for n, share in wanted.rows)
    around = found.around.base + found.around.row * mean_rows
    if choice.placement == "inline":
        instances = wanted.io_threads
        curve = Curve(found.run.base + found.around.base, found.run.row + found.around.row)
        around = 0.0
    else:
        instances, curve = choice.instances or wanted.cores, found.run
    # More threads at once than cores take each other's time.
    crowded = max(instances * max(choice.threads, 1) / wanted.cores, 1.0)
    curve = Curve(curve.base * crowded, curve.row * crowded)
    setting = BatchSetting(instances, choice.max_batch, choice.max_delay_us / 1e6)
    model = Batches(simulate, setting, curve, wanted.rows, around, _SIMULATED_REQUESTS)
    of_instance = max(model.least_seconds, 1e-9)
    of_cores = of_instance / crowded * max(choice.threads, 1) + around
    high = min(instances / of_instance, wanted.cores / of_cores)
    return _highest(model, wanted, high)


def _highest(model: Batches, wanted: Wanted, high: float) -> float:
    low = 0.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if model.quantile(middle, wanted.quantile) <= wanted.limit:
            low = middle
        else:
            high = middle
    return low

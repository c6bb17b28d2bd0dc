"""Which ``run:`` settings hold more: calibrate, simulate every candidate, measure the best ones and the present one, choose.

Pure but for a :class:`Workbench`, which serves and measures. Rates are per second, times seconds. Not here: how a document is served
(``sweep_servers``), which settings there are (``run_settings``). Next: run_settings.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from headgate.bench.predictors import Batches, BatchSetting, Curve, Simulate
from headgate.bench.rates import shown_rate
from headgate.bench.run_settings import Choice, candidates
from headgate.errors import InvalidArgument

CALIBRATED_ROWS = (1, 2, 4, 8, 16)
"""Rows of a request in a calibration; a request is a run then."""
MEASURED = 3
ROUNDS = 2
"""Each is measured twice, the second time in the opposite order, so that a drift of the machine is no difference."""

_BISECTIONS = 9


@dataclass(frozen=True)
class Wanted:
    """What the settings are compared by: the highest rate with this quantile within ``limit`` seconds, for requests of these rows."""

    quantile: float
    limit: float
    rows: tuple[tuple[int, float], ...] = ((1, 1.0),)
    cores: int = 1
    io_threads: int = 1


@dataclass(frozen=True)
class Bracket:
    """The highest rate that passed and the lowest that failed; None if there is none."""

    passed: float | None
    failed: float | None


class Workbench(Protocol):
    """Serves a setting and measures it."""

    def run_seconds(self, threads: int, rows: int) -> float | None:
        """The mean run of requests of ``rows`` rows with that many threads; None if the model does not take so many."""
        ...

    def find(self, choice: Choice, number: int) -> Bracket:
        """The rate that the setting holds; ``number`` counts the rounds, and gives all settings of a round the same seed."""
        ...

    def say(self, sentence: str) -> None:
        """Tells how far it is."""
        ...


@dataclass(frozen=True)
class Simulated:
    """A candidate with the rate that its simulation holds."""

    choice: Choice
    rate: float


@dataclass
class Tried:
    """A setting that was measured, with the brackets of its rounds."""

    choice: Choice
    brackets: list[Bracket] = field(default_factory=list)

    @property
    def low(self) -> float:
        """The rate that it held in every round."""
        return min((one.passed or 0.0 for one in self.brackets), default=0.0)

    @property
    def high(self) -> float:
        """The lowest rate that is known to be too much in every round; infinite if a round found none."""
        return max(
            (math.inf if one.failed is None else one.failed for one in self.brackets), default=math.inf
        )


@dataclass(frozen=True)
class Swept:
    """What a sweep found. ``curves`` are the calibrations by threads, ``simulated`` is best first, ``chosen`` may be the present one."""

    curves: dict[int, Curve]
    simulated: tuple[Simulated, ...]
    measured: tuple[Tried, ...]
    present: Choice
    chosen: Choice
    reason: str

    def as_json(self) -> dict[str, Any]:
        """For a program."""
        return {
            "curves": [
                {"threads": threads, "base_ns": round(curve.base * 1e9), "row_ns": round(curve.row * 1e9)}
                for threads, curve in sorted(self.curves.items())
            ],
            "simulated": [{"run": one.choice.written, "rate": one.rate} for one in self.simulated],
            "measured": [
                {
                    "run": one.choice.written,
                    "pass": one.low or None,
                    "fail": None if math.isinf(one.high) else one.high,
                    "present": one.choice == self.present,
                }
                for one in self.measured
            ],
            "chosen": self.chosen.written,
            "changed": self.chosen != self.present,
            "reason": self.reason,
        }


def sweep(present: Choice, wanted: Wanted, bench: Workbench, simulate: Simulate) -> Swept:
    """Calibrates, simulates, measures and chooses."""
    curves = calibrate(present, wanted, bench)
    base_us = {threads: round(curve.base * 1e6) for threads, curve in curves.items()}
    # A model that takes one row only was calibrated with one, and has no row time.
    batches = any(curve.row > 0 for curve in curves.values())
    found = list(dict.fromkeys(candidates(wanted.cores, batches, base_us)))
    bench.say(f"simulating {len(found)} settings")
    simulated = sorted(
        (Simulated(choice, simulated_rate(choice, curves, wanted, simulate)) for choice in found),
        key=lambda one: (-one.rate, complexity(one.choice, present)),
    )
    best = [one.choice for one in simulated if not _same(one.choice, present)][:MEASURED]
    tried = [Tried(choice) for choice in [present, *best]]
    for number in range(ROUNDS):
        for one in tried if number % 2 == 0 else reversed(tried):
            bench.say(f"round {number + 1} of {ROUNDS}: {one.choice}")
            one.brackets.append(bench.find(one.choice, number))
    chosen, reason = choose(tried, present)
    return Swept(curves, tuple(simulated), tuple(tried), present, chosen, reason)


def calibrate(present: Choice, wanted: Wanted, bench: Workbench) -> dict[int, Curve]:
    """What a run of n rows takes, by threads: 1, those of the present setting, and all cores."""
    curves = {}
    for threads in sorted({1, present.threads or wanted.cores, wanted.cores}):
        points = []
        for rows in CALIBRATED_ROWS:
            bench.say(
                f"calibrating {threads} thread{'s' * (threads != 1)} with {rows} row{'s' * (rows != 1)}"
            )
            seconds = bench.run_seconds(threads, rows)
            if seconds is None:
                break
            points.append((rows, seconds))
        if not points:
            raise InvalidArgument(
                "the server tells no run times, without which nothing can be simulated; sweeping needs a Headgate server over HTTP"
            )
        curves[threads] = fit_curve(points)
    return curves


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


def simulated_rate(choice: Choice, curves: dict[int, Curve], wanted: Wanted, simulate: Simulate) -> float:
    """The highest rate at which the simulated quantile stays within the limit; 0 if it does not at any."""
    curve = curves[choice.threads] if choice.threads in curves else curves[max(curves)]
    instances = wanted.io_threads if choice.placement == "inline" else choice.instances or wanted.cores
    # More threads at once than cores take each other's time.
    crowded = max(instances * max(choice.threads, 1) / wanted.cores, 1.0)
    curve = Curve(curve.base * crowded, curve.row * crowded)
    model = Batches(
        simulate, BatchSetting(instances, choice.max_batch, choice.max_delay_us / 1e6), curve, wanted.rows
    )
    mean_rows = math.fsum(n * share for n, share in wanted.rows)
    batch = max(choice.max_batch, 1)
    high = instances * batch / ((curve.base + curve.row * batch) * mean_rows)
    low = 0.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if model.quantile(middle, wanted.quantile) <= wanted.limit:
            low = middle
        else:
            high = middle
    return low


def complexity(choice: Choice, present: Choice) -> tuple[int, int, int]:
    """How much a setting asks of those who read it: the present one is the simplest, then those that write least."""
    return (int(not _same(choice, present)), len(choice.written), choice.max_batch)


def _same(choice: Choice, present: Choice) -> bool:
    return choice == present or replace(choice, placement=present.placement) == present


def choose(tried: Sequence[Tried], present: Choice) -> tuple[Choice, str]:
    """The highest rate that was held in every round; of those whose brackets overlap with it, the simplest."""
    if not any(one.low for one in tried):
        return present, "no setting held the objective at any rate that was measured; the present one stays"
    best = max(tried, key=lambda one: one.low)
    equal = [one for one in tried if one.high >= best.low]
    simplest = min(equal, key=lambda one: (complexity(one.choice, present), -one.low))
    held = shown_rate(simplest.low)
    if simplest.choice == present:
        others = (
            "no other setting is known to hold more" if simplest is not best else "no other setting held more"
        )
        return present, f"the present setting holds {held}; {others}"
    now = next((one.low for one in tried if one.choice == present), 0.0)
    more = f", {(simplest.low / now - 1) * 100:+.0f} %" if now else ""
    return (
        simplest.choice,
        f"it holds {held}, and the present setting {shown_rate(now) if now else 'no rate'}{more}",
    )

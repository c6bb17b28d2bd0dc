"""Which ``run:`` settings hold more: calibrate, simulate every candidate, measure the best ones and the present one, choose.

Pure but for a :class:`Workbench`, which serves and measures. Rates are per second, times seconds. Not here: how a document is served
(``sweep_servers``), which settings there are (``run_settings``). Next: sweep_simulation.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from headgate.bench.predictors import Simulate
from headgate.bench.rates import shown_rate
from headgate.bench.run_settings import Choice, candidates
from headgate.bench.sweep_simulation import (
    CALIBRATED_ROWS,
    Calibration,
    RequestTimes,
    Wanted,
    calibration,
    simulated_rate,
)
from headgate.errors import InvalidArgument

NEARLY = 0.02
"""Simulated rates that differ by less say nothing about which setting is better: the measurements decide at 5 %."""


@dataclass(frozen=True)
class Bracket:
    """The highest rate that passed and the lowest that failed; None if there is none."""

    passed: float | None
    failed: float | None


class SettingRefusedError(Exception):
    """The server does not serve the model with a setting that is tried."""


class Workbench(Protocol):
    """Serves a setting and measures it."""

    def request_times(self, threads: int, rows: int) -> RequestTimes | None:
        """The times of requests of ``rows`` rows with that many threads; None if the model does not take so many."""
        ...

    def rows(self) -> tuple[tuple[int, float], ...]:
        """Rows of the requests that are measured with their shares; known after the first calibration."""
        ...

    def find(self, choice: Choice, number: int) -> Bracket:
        """The rate that the setting holds; ``number`` counts the rounds, and gives all settings of a round the same seed.

        :class:`SettingRefusedError` if another setting than the present one is not served.
        """
        ...

    def fails_at(self, choice: Choice, rate: float) -> bool:
        """Whether a rate is known to be too much for a setting."""
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
    """A setting that was measured, with the brackets of its rounds; ``refused`` says why it was not served.

    ``fails_at`` is a rate that was tested apart from the rounds, and was too much.
    """

    choice: Choice
    brackets: list[Bracket] = field(default_factory=list)
    refused: str | None = None
    fails_at: float = math.inf

    @property
    def low(self) -> float:
        """The rate that it held in every round."""
        return min((one.passed or 0.0 for one in self.brackets), default=0.0)

    @property
    def high(self) -> float:
        """The lowest rate that is known to be too much in every round; infinite if a round found none."""
        failed = (math.inf if one.failed is None else one.failed for one in self.brackets)
        return min(self.fails_at, max(failed, default=math.inf))


@dataclass(frozen=True)
class Plan:
    """How much is measured: settings beside the present one, and how often each.

    The second time is in the opposite order, so that a drift of the machine is no difference.
    """

    measured: int = 3
    rounds: int = 2


@dataclass
class Sweep:
    """A sweep. What it has found so far is there at any time, so that one that is interrupted keeps it.

    ``calibrations`` are by threads, ``simulated`` is best first, ``tried`` begins with the present setting.
    """

    present: Choice
    wanted: Wanted
    bench: Workbench
    simulate: Simulate
    plan: Plan = field(default_factory=Plan)
    calibrations: dict[int, Calibration] = field(default_factory=dict)
    simulated: list[Simulated] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)

    def run(self) -> None:
        """Calibrates, simulates and measures."""
        self._calibrate()
        self.wanted = replace(self.wanted, rows=self.bench.rows())
        self._simulate()
        best = shortlist(self.simulated, self.present, self.plan.measured)
        self.tried = [Tried(choice) for choice in [self.present, *best]]
        for number in range(self.plan.rounds):
            for one in self.tried if number % 2 == 0 else self.tried[::-1]:
                self._measure(one, number)
        self._decide()

    def _decide(self) -> None:
        """Tests whether the present setting holds what the best one does, if its own searches did not say."""
        now = self.tried[0]
        best = max(self.tried, key=lambda one: 0.0 if one.refused else one.low)
        if best is now or not best.low or now.high <= best.low or now.low >= best.low:
            return
        self.bench.say(f"testing {now.choice} at {shown_rate(best.low)}, which {best.choice} holds")
        if self.bench.fails_at(now.choice, best.low):
            now.fails_at = best.low

    def _calibrate(self) -> None:
        """The present threads, one, and all cores."""
        cores = self.wanted.cores
        for threads in sorted({1, self.present.threads or cores, cores}):
            points = []
            for rows in CALIBRATED_ROWS:
                self.bench.say(
                    f"calibrating {threads} thread{'s' * (threads != 1)} with {rows} row{'s' * (rows != 1)}"
                )
                times = self.bench.request_times(threads, rows)
                if times is None:
                    break
                points.append((rows, times))
            if not points:
                raise InvalidArgument(
                    "the server tells no run times, without which nothing can be simulated; a sweep needs the phases of a Headgate server"
                )
            self.calibrations[threads] = calibration(points)

    def _simulate(self) -> None:
        base_us = {threads: round(one.run.base * 1e6) for threads, one in self.calibrations.items()}
        batches = any(one.most_rows > 1 for one in self.calibrations.values())
        found = list(dict.fromkeys([self.present, *candidates(self.wanted.cores, batches, base_us)]))
        self.bench.say(f"simulating {len(found)} settings")
        for choice in found:
            rate = simulated_rate(choice, self.calibrations, self.wanted, self.simulate)
            self.simulated.append(Simulated(choice, rate))
        self.simulated.sort(key=lambda one: (-one.rate, complexity(one.choice, self.present)))

    def _measure(self, one: Tried, number: int) -> None:
        if one.refused is not None:
            return
        self.bench.say(f"round {number + 1} of {self.plan.rounds}: {one.choice}")
        try:
            one.brackets.append(self.bench.find(one.choice, number))
        except SettingRefusedError as error:
            one.refused = str(error)

    def choose(self) -> tuple[Choice, str]:
        """The setting to have, and why."""
        return choose(self.tried, self.present)

    def as_json(self) -> dict[str, Any]:
        """What it has found, for a program."""
        rates = {one.choice: one.rate for one in self.simulated}
        return {
            "calibrations": [
                {"threads": threads, **one.as_json()} for threads, one in sorted(self.calibrations.items())
            ],
            "simulated": [
                {"run": one.choice.written, "rate": None if math.isinf(one.rate) else one.rate}
                for one in self.simulated
            ],
            "measured": [
                {
                    "run": one.choice.written,
                    "present": one.choice == self.present,
                    "simulated": rates.get(one.choice),
                    "pass": one.low or None,
                    "fail": None if math.isinf(one.high) else one.high,
                    "rounds": [{"pass": two.passed, "fail": two.failed} for two in one.brackets],
                    "refused": one.refused,
                }
                for one in self.tried
            ],
        }


def shortlist(simulated: Sequence[Simulated], present: Choice, count: int) -> list[Choice]:
    """The best ``count`` of the candidates, which are best first, without the present setting.

    Of settings that differ in their batches only and hold nearly the same, the simplest stands for all: measuring three sizes of one batch
    would tell nothing.
    """
    found: list[Choice] = []
    left = [one for one in simulated if one.choice != present]
    while left and len(found) < count:
        first = left[0]
        alike = [one for one in left if _family(one.choice) == _family(first.choice)]
        alike = [one for one in alike if one.rate >= first.rate * (1 - NEARLY)]
        found.append(min(alike, key=lambda one: complexity(one.choice, present)).choice)
        left = [one for one in left if one not in alike]
    return found


def _family(choice: Choice) -> tuple[object, ...]:
    return choice.placement, choice.instances, choice.threads


def complexity(choice: Choice, present: Choice) -> tuple[int, int, int]:
    """How much a setting asks of those who read it: the present one is the simplest, then those that write least."""
    return (int(choice != present), len(choice.written), choice.max_batch)


def choose(tried: Sequence[Tried], present: Choice) -> tuple[Choice, str]:
    """The highest rate that was held in every round; of those whose brackets overlap with it, the simplest."""
    served = [one for one in tried if one.refused is None]
    if not any(one.low for one in served):
        return present, "no setting is known to hold the objective at a rate; the present one stays"
    best = max(served, key=lambda one: one.low)
    now = next((one for one in tried if one.choice == present), Tried(present))
    # Another setting than the present one has to hold what is too much for the present one.
    better = [one for one in served if one.high >= best.low >= one.low >= now.high]
    equal = better or [now]
    simplest = min(equal, key=lambda one: (complexity(one.choice, present), -one.low))
    if simplest.choice == present:
        held = f"holds {shown_rate(now.low)}" if now.low else "may hold as much as the best"
        others = "no other held more" if simplest is best else "no other setting is known to hold more"
        return present, f"the present setting {held}; {others}"
    more = f", {(simplest.low / now.low - 1) * 100:+.0f} %" if now.low and simplest.low else ""
    most = "no rate" if not now.low else shown_rate(now.low)
    return (
        simplest.choice,
        f"it holds {shown_rate(simplest.low)}, and the present setting {most}{more}",
    )

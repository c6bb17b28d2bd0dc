"""Which rate is tried next, and what the verdicts so far say: a pure state machine without time and without a server.

Up by half until a rate fails, or down by half until one passes; then the middle of both on a scale of ratios. A rate that stays undecided
lies at the border: the search goes on beside it, at most twice. A rate at which the client was the limit says nothing of the server: the
search goes on at half of it, and ends once a rate passes close below. Each rate has one sequential test, at its part of the 5 % that all
of them may err together. At the end one long run at 95 % of the answer has to pass. Verdicts that contradict each other, a pass above a
fail, are pooled (pool adjacent violators) and count as neither. Next: ``find``, which measures the rates.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from headgate.bench import pava
from headgate.bench.results import Verdict

GROWTH = 1.5
BESIDE = 1.2
"""How far from an undecided rate the next one lies, until one passes below and one fails above it."""
MOST_UNDECIDED = 3
CONFIRM_AT = 0.95
FIRST_SHARE = 0.7
"""The first rate is this share of what a model or a closed loop makes one expect."""


@dataclass(frozen=True)
class Step:
    """A rate to measure; the verdict may be wrong with probability ``alpha``."""

    rate: float
    alpha: float
    confirming: bool = False


@dataclass(frozen=True)
class Tried:
    """What a step found. ``slower`` of ``requests`` were slower than the objective allows; ``inflation`` is of their variance."""

    rate: float
    verdict: Verdict
    slower: int = 0
    requests: int = 0
    inflation: float = 1.0
    confirming: bool = False
    client_limited: bool = False
    """Whether it is undecided because the client was the limit."""

    @property
    def share(self) -> float:
        """The share of slow requests."""
        return self.slower / self.requests if self.requests else (1.0 if self.verdict == "fail" else 0.0)

    @property
    def weight(self) -> float:
        """Independent requests that say as much."""
        return max(1.0, self.requests / max(1.0, self.inflation))


class Prober(Protocol):
    """Measures one rate until there is a verdict or no time is left."""

    def has_time(self, step: Step) -> bool:
        """Whether that rate can be decided, and the answer be confirmed after it."""

    def probe(self, step: Step) -> Tried | None:
        """What it found; None if the search has to end (no time, no server, interrupted)."""


@dataclass(frozen=True)
class SearchSettings:
    """``steps`` is how many rates may be tried; ``alpha`` is shared by them, the confirming run, and one in reserve."""

    start: float
    precision: float = 0.05
    alpha: float = 0.05
    steps: int = 16
    lowest: float = 0.01
    highest: float | None = None

    @property
    def step_alpha(self) -> float:
        """How often one verdict may be wrong."""
        return self.alpha / (self.steps + 2)


class End(Enum):
    """Why a search ended."""

    BRACKET = "the bracket is as narrow as asked for"
    UNDECIDED = "a rate stayed undecided"
    STEPS = "all steps are used"
    HIGHEST = "the highest rate passed"
    LOWEST = "the lowest rate failed"
    CLIENT = "above, the client was the limit"
    STOPPED = "there was no more time"


@dataclass(frozen=True)
class Bracket:
    """The highest rate that passed and the lowest that failed; None where there is none."""

    passed: float | None
    failed: float | None


@dataclass
class Search:
    """Call :meth:`next` for a step and :meth:`take` with what it found, until there is no step."""

    settings: SearchSettings
    tried: list[Tried] = field(default_factory=list)
    end: End | None = None
    _confirm_next: bool = False
    confirmed: bool | None = None
    """None until a confirming run was decided."""

    def next(self) -> Step | None:
        """The next step; None at the end."""
        if self._confirm_next and self.confirmed is None:
            found = bracket(self.tried)
            if found.passed is not None:
                return Step(found.passed * CONFIRM_AT, self.settings.step_alpha, confirming=True)
        if self.end is not None:
            return None
        return Step(self._rate(), self.settings.step_alpha)

    def take(self, found: Tried) -> None:
        """What a step found."""
        self.tried.append(found)
        if found.confirming:
            self.confirmed = found.verdict == "pass"
            self._confirm_next = False
            return
        self._decide_end(found)

    def stop(self) -> None:
        """No more time: the bracket stays as it is and is not confirmed."""
        self._confirm_next = False
        if self.end is None:
            self.end = End.STOPPED

    def confirm(self) -> None:
        """No more rates: what passed so far is confirmed."""
        if self.end is None:
            self.end = End.STOPPED
        self._confirm_next = bracket(self.tried).passed is not None

    def _rate(self) -> float:
        found, open_rates, limited = bracket(self.tried), self._undecided(), self._client_limit()
        passed, failed = found.passed, found.failed
        if passed is None:
            return self._bounded(self._below(failed, open_rates, limited))
        upper = _lowest(failed, limited)
        if upper is None:
            return self._bounded(open_rates[-1] * BESIDE if open_rates else passed * GROWTH)
        low, high = self._gap(passed, upper)
        return math.exp((math.log(low) + math.log(high)) / 2)

    def _below(self, failed: float | None, open_rates: Sequence[float], limited: float | None) -> float:
        """The next rate while none has passed. What the client lost at one rate it loses beside it, too: so by half."""
        lower = [one / 2 for one in (failed, limited) if one is not None]
        if open_rates and (failed is None or open_rates[0] < failed):
            lower = [limited / 2] if limited is not None else []
            lower.append(open_rates[0] / BESIDE)
        return min(lower, default=self.settings.start)

    def _client_limit(self) -> float | None:
        """The lowest rate above every pass at which the client was the limit."""
        passed = bracket(self.tried).passed or 0.0
        return min((one.rate for one in self.tried if one.client_limited and one.rate > passed), default=None)

    def _undecided(self) -> list[float]:
        """The rates that stayed undecided and are not decided by the bracket, from the lowest; without those above the client's limit."""
        found = bracket(self.tried)
        low = found.passed or 0.0
        high = _lowest(found.failed, self._client_limit()) or math.inf
        return sorted(
            one.rate
            for one in self.tried
            if one.verdict == "undecided" and not one.client_limited and low < one.rate < high
        )

    def _gap(self, passed: float, failed: float) -> tuple[float, float]:
        """Where the next rate lies: between the ends of the bracket, or in the wider part beside what is undecided."""
        open_rates = self._undecided()
        if not open_rates:
            return passed, failed
        below, above = (passed, open_rates[0]), (open_rates[-1], failed)
        return below if below[1] / below[0] > above[1] / above[0] else above

    def _bounded(self, rate: float) -> float:
        rate = max(rate, self.settings.lowest)
        return rate if self.settings.highest is None else min(rate, self.settings.highest)

    def _decide_end(self, last: Tried) -> None:
        self.end = self._why_end(last)
        if self.end is not None:
            self._confirm_next = bracket(self.tried).passed is not None

    def _why_end(self, last: Tried) -> End | None:
        found, settings, limited = bracket(self.tried), self.settings, self._client_limit()
        if (
            found.passed is not None
            and limited is not None
            and (found.failed is None or limited < found.failed)
            and limited / found.passed <= GROWTH
        ):
            # No finer: what the client can send is not what is asked for.
            return End.CLIENT
        if found.passed is not None and found.failed is not None:
            if found.failed / found.passed <= 1 + settings.precision:
                return End.BRACKET
            low, high = self._gap(found.passed, found.failed)
            if high / low <= 1 + settings.precision:
                return End.UNDECIDED
        elif last.client_limited:
            # A lower rate may be one that the client holds.
            return None if last.rate > settings.lowest and len(self.tried) < settings.steps else End.CLIENT
        elif settings.highest is not None and last.verdict != "fail" and last.rate >= settings.highest:
            return End.HIGHEST if last.verdict == "pass" else End.UNDECIDED
        elif last.verdict != "pass" and last.rate <= settings.lowest:
            return End.LOWEST if last.verdict == "fail" else End.UNDECIDED
        if sum(one.verdict == "undecided" and not one.client_limited for one in self.tried) >= MOST_UNDECIDED:
            return End.UNDECIDED
        return End.STEPS if len(self.tried) >= settings.steps else None


def _lowest(*rates: float | None) -> float | None:
    """The lowest of those that there are."""
    return min((rate for rate in rates if rate is not None), default=None)


def bracket(tried: Sequence[Tried]) -> Bracket:
    """The highest pass and the lowest fail, without those that contradict each other.

    The share of slow requests cannot fall when the rate rises. Where it seems to, the rates are pooled by PAVA (Ayer et al. 1955), weighted
    with their effective requests; a pool with both verdicts is undecided, and so is a pass with a fail at or below its rate.
    """
    decided = sorted((one for one in tried if one.verdict != "undecided"), key=lambda one: one.rate)
    passes, fails = [], []
    for pool in _pools(decided):
        verdicts = {one.verdict for one in pool}
        if verdicts == {"pass"}:
            passes += [one.rate for one in pool]
        elif verdicts == {"fail"}:
            fails += [one.rate for one in pool]
    # Passes above a fail that no pool has joined: their shares do not violate the order, their verdicts do.
    lowest_fail = min(fails, default=math.inf)
    highest_pass = max((rate for rate in passes if rate < lowest_fail), default=None)
    above = max(passes, default=0.0)
    if above > lowest_fail:
        fails = [rate for rate in fails if rate > above]
        lowest_fail = min(fails, default=math.inf)
    return Bracket(highest_pass, None if math.isinf(lowest_fail) else lowest_fail)


def _pools(tried: Sequence[Tried]) -> list[list[Tried]]:
    """Neighbours by rate whose shares of slow requests fall, joined until none do."""
    pooled = pava.nondecreasing([one.share for one in tried], [one.weight for one in tried])
    together = itertools.groupby(zip(pooled, tried, strict=True), key=lambda pair: pair[0])
    return [[one for _, one in pairs] for _, pairs in together]


def drive(search: Search, prober: Prober) -> None:
    """Runs a search to its end."""
    while (step := search.next()) is not None:
        if not step.confirming and not prober.has_time(step):
            search.confirm()
            continue
        found = prober.probe(step)
        if found is None:
            search.stop()
            return
        search.take(found)

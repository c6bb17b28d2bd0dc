"""The highest rate within the objective: a search over rates, each with a test that ends as soon as it is decided.

Not here: which rate is next (``search``), one load (``measuring``). Next: ``search``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from headgate.bench import far_within, loads
from headgate.bench.measuring import Ended, Measured, Measurer, Question
from headgate.bench.preparing import Asked, prepared_place
from headgate.bench.rates import format_ns, shown_rate
from headgate.bench.results import Answer, Capacity, Outcome, Probe, Result, Verdict, Window
from headgate.bench.run import Measurement, Tools, caveats, undecided_words
from headgate.bench.scenario import Scenario
from headgate.bench.search import (
    CONFIRM_AT,
    FIRST_SHARE,
    Bracket,
    End,
    Search,
    SearchSettings,
    Step,
    Tried,
    bracket,
    drive,
)
from headgate.bench.slo import Slo
from headgate.bench.steady_rates import with_steady_rates
from headgate.bench.target import TargetUnreachable
from headgate.bench.unanswered import unanswered_words
from headgate.errors import InvalidArgument

_CALIBRATION_NS = 3_000_000_000
_CALIBRATION_CLIENTS = 8
_LONGEST_SHARE = 6
"""One rate takes a sixth of the budget at most, or what its requests need: what is undecided then lies at the border."""

_SHORTEST_NS = 4_000_000_000
_CONFIRM_NS = 20_000_000_000
"""A confirming run is longer than a probe: what builds up slowly shows. It takes a third of a short budget."""

_LATE_NS = 10_000_000_000
"""So long a client is late before its probe ends: the first seconds of a load may be."""

_CLIENT_WAS_LIMIT = "the client was the limit"

_WARM_UP_NS = 2_000_000_000
"""The shortest; its requests do not count."""

_SPARE = 3
"""A rate has so much more time than its fewest requests need: some may be slow, and are seldom independent."""

_LOWEST = 0.1
_SETTLE_TRIES = 50
_SETTLE_SECONDS = 0.1


def find(
    asked: Asked, scenario: Scenario, tools: Tools, sleep: Callable[[float], None] = time.sleep
) -> Result:
    """Searches the highest rate that meets ``scenario.slo``, and confirms it."""
    slo = scenario.slo
    if slo is None:
        raise InvalidArgument("find needs an objective: --slo p99=15ms")
    if scenario.load.clients is not None or scenario.load.arrivals == "trace":
        raise InvalidArgument(
            "find sends at rates of its own: remove clients, or arrivals: trace, from the load"
        )
    with tools.interruption.listening(), prepared_place(asked, scenario, tools.generator) as place:
        measurement = Measurement.at(place, scenario, tools)
        try:
            result = find_at(measurement, slo, sleep)
            return with_steady_rates(measurement, slo, result) if scenario.search.steady_rates else result
        finally:
            tools.view.close()


def find_at(measurement: Measurement, slo: Slo, sleep: Callable[[float], None] = time.sleep) -> Result:
    """The same at a place that is prepared."""
    scenario = measurement.scenario
    prober = _RateProber(measurement, measurement.measurer(), slo, sleep)
    start = scenario.search.start or prober.expected()
    search = Search(
        SearchSettings(
            start=max(start, _LOWEST),
            precision=scenario.search.precision,
            lowest=_LOWEST,
            highest=scenario.search.highest,
        )
    )
    prober.search = search
    if not prober.over:
        drive(search, prober)
    else:
        search.stop()
    return prober.result(search)


def fails_at(measurement: Measurement, slo: Slo, rate: float) -> Result:
    """The verdict on one rate, for which all of the budget may be used; its probe is the only one of the result."""
    prober = _RateProber(measurement, measurement.measurer(), slo, time.sleep)
    settings = SearchSettings(start=rate, highest=rate)
    search = Search(settings)
    prober.search = search
    found = prober.probe(Step(rate, settings.step_alpha, confirming=True))
    search.stop()
    if found is not None:
        search.tried.append(replace(found, confirming=False))
    return prober.result(search)


@dataclass
class _RateProber:
    """Measures the rates of a search, and keeps what each showed."""

    measurement: Measurement
    measurer: Measurer
    slo: Slo
    sleep: Callable[[float], None]
    search: Search | None = None
    probes: list[Probe] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    over: Outcome | None = None
    """Why nothing more is measured, if that is no answer of the search."""
    reasons: list[str] = field(default_factory=list)
    no_time: str | None = None
    """Which rate was left out for want of time, and what budget would do."""

    # === one rate ===

    def probe(self, step: Step) -> Tried | None:
        """Measures until there is a verdict; None if the search has to end."""
        for_ns = self._time_for(step)
        self.measurement.client.check(step.rate)
        load = loads.OpenLoad(((step.rate, step.rate, for_ns),))
        title = f"confirm at {shown_rate(step.rate)}" if step.confirming else f"probe {len(self.probes) + 1}"
        plan = loads.open_json(load, self.measurement.scenario.load)
        loading = self.measurement.loading(title, plan, step.rate, for_ns, self._so_far())
        question = Question(self.slo, step.alpha)
        begun = self.measurer.waited_ns
        measured = self.measurer.measure(loading, question, lambda answer: self._decided(answer, step))
        found = self._kept(step, measured, begun)
        if measured.ended in (Ended.INTERRUPTED, Ended.UNREACHABLE):
            return None
        if found.verdict == "fail":
            self._settle()
        return found

    def _kept(self, step: Step, measured: Measured, begun: int) -> Tried:
        answer = measured.answer
        verdict: Verdict = answer.verdict
        why = measured.why
        if verdict == "undecided" and measured.ended is Ended.FINISHED:
            why = undecided_words(answer)
        over = measured.ended in (Ended.INTERRUPTED, Ended.UNREACHABLE)
        limited = verdict != "pass" and answer.client.limited and not over
        if limited:
            # The client was late, not the server: that decides nothing.
            what = "confirming run" if step.confirming else "probe"
            self.measurement.client.note(answer, f"the {what} at {shown_rate(step.rate)}")
            verdict, why = "undecided", _CLIENT_WAS_LIMIT
        if measured.ended is Ended.INTERRUPTED:
            self.over = "interrupted"
        elif measured.ended is Ended.UNREACHABLE:
            self.over = "unreachable"
            self.reasons.append(measured.why or "the server stopped answering")
            verdict = "undecided"
        self.probes.append(
            Probe(
                rate=step.rate,
                verdict=verdict,
                from_ns=begun,
                confirming=step.confirming,
                why=why,
                answer=answer,
            )
        )
        worst = max(answer.objectives, key=lambda one: one.slower / max(1, one.requests), default=None)
        if worst is None:
            return Tried(step.rate, verdict, confirming=step.confirming, client_limited=limited)
        inflation = worst.inflation or 1.0
        return Tried(
            step.rate,
            verdict,
            worst.slower,
            worst.requests,
            inflation,
            step.confirming,
            client_limited=limited,
        )

    def has_time(self, step: Step) -> bool:
        """Whether the budget has room for the requests of a verdict at that rate, and for the confirming run after it."""
        shortest = min(_SHORTEST_NS, self.measurement.scenario.search.budget // 4)
        needed = self._needed_ns(step)
        if self._left(step) >= max(shortest, needed):
            return True
        confirming = replace(step, rate=step.rate * CONFIRM_AT)
        budget = (
            self.measurer.waited_ns + _SPARE * needed + max(_CONFIRM_NS, _SPARE * self._needed_ns(confirming))
        )
        self.no_time = (
            f"{shown_rate(step.rate)} was not tried: the {self.requests_needed(step.alpha)} requests that a verdict needs "
            f"take {format_ns(_rounded_up(needed))} of it; --budget {format_ns(_rounded_up(budget))} would do"
        )
        return False

    def _left(self, step: Step) -> int:
        """The budget's rest without what the confirming run needs, be it of that rate or of a lower one that passed."""
        passed = None if self.search is None else bracket(self.search.tried).passed
        lowest = step.rate if passed is None else min(step.rate, passed)
        confirming = self._needed_ns(replace(step, rate=lowest * CONFIRM_AT))
        reserve = max(self._confirm_ns, confirming)
        return self.measurement.scenario.search.budget - self.measurer.waited_ns - reserve

    def requests_needed(self, alpha: float) -> int:
        """The fewest requests behind the warm-up that can pass: with none of them slow, and independent of each other."""
        tested = self.slo.objectives(alpha)
        return max(far_within.least_requests(one["quantile"], one["alpha"]) for one in tested)

    def _needed_ns(self, step: Step) -> int:
        return _WARM_UP_NS + math.ceil(1e9 * self.requests_needed(step.alpha) / step.rate)

    @property
    def _confirm_ns(self) -> int:
        """The shortest confirming run."""
        return min(_CONFIRM_NS, self.measurement.scenario.search.budget // 3)

    def _time_for(self, step: Step) -> int:
        """The longest that a step may take."""
        budget = self.measurement.scenario.search.budget
        if step.confirming:
            return max(budget - self.measurer.waited_ns, self._confirm_ns)
        longest = max(budget // _LONGEST_SHARE, _SHORTEST_NS, _SPARE * self._needed_ns(step))
        return max(min(self._left(step), longest), 1_000_000_000)

    def _decided(self, answer: Answer, step: Step) -> str | None:
        """Why a load needs no more."""
        if answer.verdict == "fail":
            return "the objective fails"
        if answer.client.limited and answer.elapsed_ns >= _LATE_NS and _misses(answer):
            return _CLIENT_WAS_LIMIT
        if answer.verdict != "pass" or answer.steadiness.overload:
            return None
        if step.confirming and answer.elapsed_ns < self._confirm_ns:
            return None
        return "the objective is met"

    def _so_far(self) -> str:
        found = bracket(self.search.tried) if self.search is not None else Bracket(None, None)
        passed = "-" if found.passed is None else shown_rate(found.passed)
        failed = "-" if found.failed is None else shown_rate(found.failed)
        return f"pass {passed}  fail {failed}"

    def _settle(self) -> None:
        """Waits until the server answers one request within the objective: a queue that a fail left would be the next probe's."""
        place = self.measurement.place
        limit = max((limit for _, limit in self.slo.quantiles), default=10**9) / 1e9
        for _ in range(_SETTLE_TRIES if place.first else 0):
            if self.measurer.interruption.requested:
                return
            begun = time.monotonic()
            try:
                quick = place.server.infer(place.first[0], {}).status == 200
            except TargetUnreachable:
                quick = False
            if quick and time.monotonic() - begun <= max(limit, 0.05):
                return
            self.sleep(_SETTLE_SECONDS)

    # === where to begin ===

    def expected(self) -> float:
        """The first rate: a share of what a short closed loop reaches."""
        self.measurer.view.say(f"looking for a first rate: {_CALIBRATION_CLIENTS} clients for 3 s")
        load = loads.closed_json(_CALIBRATION_CLIENTS, _CALIBRATION_NS)
        loading = self.measurement.loading("first rate", load, None, _CALIBRATION_NS)
        measured = self.measurer.measure(loading, Question(from_ns=0))
        answer = measured.answer
        self.windows.append(
            Window(name="calibration", clients=_CALIBRATION_CLIENTS, for_ns=_CALIBRATION_NS, answer=answer)
        )
        if measured.ended is Ended.INTERRUPTED:
            self.over = "interrupted"
        elif measured.ended is Ended.UNREACHABLE or not answer.counts.good:
            self.over = "unreachable"
            said = (measured.why, unanswered_words(answer))
            self.reasons += [one for one in said if one] or ["no request was sent"]
        return FIRST_SHARE * (answer.good_per_second or _LOWEST)

    # === the answer ===

    def result(self, search: Search) -> Result:
        """The result of a search that has ended."""
        measurement = self.measurement
        found = bracket(search.tried)
        at_least = search.end is End.HIGHEST
        confirming = next((one for one in search.tried if one.confirming), None)
        capacity = Capacity.model_validate(
            {
                "pass": found.passed,
                "fail": None if at_least else found.failed,
                "alpha": min(1.0, len(search.tried) * search.settings.step_alpha),
                "confirmed": bool(search.confirmed),
                "confirmed_rate": confirming.rate if confirming is not None and search.confirmed else None,
                "at_least": at_least,
                "slo": self.slo.facts(),
            }
        )
        verdict, reasons = self._verdict(search, found)
        last = next((one.answer for one in reversed(self.probes) if one.confirming), None)
        return measurement.result("find").model_copy(
            update={
                "windows": tuple(self.windows),
                "probes": tuple(self.probes),
                "capacity": capacity,
                "steadiness": None if last is None else last.steadiness,
                "verdict": verdict,
                "reasons": tuple(
                    dict.fromkeys(
                        [
                            *reasons,
                            *self.reasons,
                            *measurement.client.reasons,
                            *([] if last is None else caveats(last)),
                            *measurement.place.notes,
                        ]
                    )
                ),
            }
        )

    def _verdict(self, search: Search, found: Bracket) -> tuple[Outcome, list[str]]:
        if self.over is not None:
            return self.over, ["interrupted; what was measured is kept"] if self.over == "interrupted" else []
        no_time = [] if self.no_time is None else [self.no_time]
        if found.passed is None:
            if found.failed is not None:
                return "fail", [f"the objective fails at {shown_rate(found.failed)} already", *no_time]
            if self.measurement.client.limited:
                return "client_limited", no_time
            last = self.probes[-1].why if self.probes else None
            too_short = last or "the budget is too short for one rate; give --budget more"
            return "undecided", no_time or [too_short]
        if not search.confirmed:
            how = "was not made" if search.confirmed is None else "did not pass"
            said = f"the confirming run at {shown_rate(found.passed * CONFIRM_AT)} {how}: the answer is not to be relied on"
            confirming = next((one for one in search.tried if one.confirming), None)
            limited = confirming is not None and confirming.client_limited
            return "client_limited" if limited else "undecided", [said]
        if search.end in (End.BRACKET, End.HIGHEST):
            return "pass", []
        why = End.UNDECIDED.value if search.end is None else search.end.value
        more = "" if search.end is End.CLIENT else "; --budget gives it more time"
        first = "no rate failed" if found.failed is None else "the bracket is wider than asked for"
        return "pass", [f"{first}: {why}{more}", *no_time]


def _misses(answer: Answer) -> bool:
    """Whether more requests than allowed were slow so far: such a load is not about to pass."""
    return any(one.slower > (1 - one.quantile) * one.requests for one in answer.objectives)


def _rounded_up(ns: int) -> int:
    """Rounded up, from two minutes on to minutes."""
    unit = 10**9 if ns < 120 * 10**9 else 60 * 10**9
    return math.ceil(ns / unit) * unit

"""The search brackets the true rate of a queue whose quantiles are known, and claims nothing it has not seen.

The queue is M/M/1 with 1000 runs a second: the response time is exponential with the rate 1000 - λ, so that its p99 is 15 ms at
λ = 1000 - ln(100) / 0.015.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.bench.search import Bracket, End, Search, SearchSettings, Step, Tried, bracket, drive
from support import evidence
from support.virtual_load import queue_ns

CAPACITY = 1000.0
LIMIT_NS = 15_000_000
TRUTH = CAPACITY - math.log(100) / (LIMIT_NS / 1e9)
SEEDS = 100


@dataclass
class QueueProber:
    """Measures a rate in the queue until it is decided, with at most ``most`` requests."""

    random: np.random.Generator
    most: int = 300_000
    rates: list[float] = field(default_factory=list)

    def has_time(self, _step: Step) -> bool:
        return True

    def probe(self, step: Step) -> Tried:
        self.rates.append(step.rate)
        due = np.cumsum(self.random.exponential(1e9 / step.rate, self.most))
        runs = self.random.exponential(1e9 / CAPACITY, self.most)
        response = queue_ns(due, runs) + runs
        count = int(2 * step.rate)
        while count < self.most:
            found = self._verdict(response[int(step.rate) : count], step)
            if found.verdict != "undecided":
                return found
            count = int(count * 1.25)
        return self._verdict(response[int(step.rate) :], step)

    @staticmethod
    def _verdict(response: np.ndarray[Any, Any], step: Step) -> Tried:
        found = evidence.verdict(response, 0.99, LIMIT_NS, step.alpha)
        return Tried(
            step.rate,
            found["verdict"],
            found["slower"],
            found["requests"],
            found["inflation"],
            step.confirming,
        )


def test_the_bracket_holds_the_truth_and_no_confirmed_answer_is_off() -> None:
    held, off = 0, 0
    for seed in range(SEEDS):
        random = np.random.default_rng(seed)
        search = Search(SearchSettings(start=float(random.uniform(100, 900))))
        drive(search, QueueProber(random))
        found = bracket(search.tried)
        held += (found.passed or 0) <= TRUTH <= (found.failed or math.inf)
        off += bool(search.confirmed) and found.passed is not None and found.passed > TRUTH * 1.05
    assert held >= 95
    assert off == 0


@dataclass
class Exact:
    """A server that passes up to a rate, without noise."""

    truth: float
    undecided_within: float = 0.0

    def has_time(self, _step: Step) -> bool:
        return True

    def probe(self, step: Step) -> Tried:
        if abs(step.rate / self.truth - 1) < self.undecided_within:
            return Tried(step.rate, "undecided", confirming=step.confirming)
        passes = step.rate <= self.truth
        share = 0.001 if passes else 0.1
        return Tried(
            step.rate, "pass" if passes else "fail", int(share * 10_000), 10_000, confirming=step.confirming
        )


@given(truth=st.floats(5, 50_000), ratio=st.floats(0.05, 8))
def test_without_noise_the_bracket_is_as_narrow_as_asked_for(truth: float, ratio: float) -> None:
    search = Search(SearchSettings(start=truth * ratio, steps=30))
    drive(search, Exact(truth))
    found = bracket(search.tried)
    assert found.passed is not None
    assert found.failed is not None
    assert found.passed <= truth < found.failed
    assert found.failed / found.passed <= 1.05
    assert search.end is End.BRACKET
    assert search.confirmed is True
    last = search.tried[-1]
    assert last.confirming
    assert last.rate == pytest.approx(0.95 * found.passed)


@given(truth=st.floats(50, 5_000), ratio=st.floats(0.1, 4))
def test_rates_that_stay_undecided_are_passed_by_on_both_sides(truth: float, ratio: float) -> None:
    search = Search(SearchSettings(start=truth * ratio, steps=30))
    drive(search, Exact(truth, undecided_within=0.05))
    found = bracket(search.tried)
    assert found.passed is not None
    assert found.failed is not None
    assert found.passed <= truth * 0.95 * 1.0001
    assert found.failed >= truth * 1.05 * 0.9999
    assert found.failed / found.passed < 1.5
    assert sum(one.verdict == "undecided" and not one.confirming for one in search.tried) <= 3
    assert search.end in (End.UNDECIDED, End.BRACKET)


@dataclass
class LateClient(Exact):
    """The same with a client that falls behind above a rate."""

    limit: float = math.inf

    def probe(self, step: Step) -> Tried:
        if step.rate > self.limit:
            return Tried(
                step.rate, "undecided", 9_000, 10_000, confirming=step.confirming, client_limited=True
            )
        return super().probe(step)


@given(limit=st.floats(5, 5_000), start=st.floats(0.05, 100), above=st.floats(1.6, 100))
def test_what_the_client_holds_is_found_below_its_limit(limit: float, start: float, above: float) -> None:
    search = Search(SearchSettings(start=limit * start))
    drive(search, LateClient(limit * above, limit=limit))
    found = bracket(search.tried)
    assert search.end is End.CLIENT
    assert found.failed is None
    assert found.passed is not None
    assert limit / 1.5 <= found.passed <= limit
    assert search.confirmed is True


def test_a_server_that_fails_below_the_limit_of_the_client_has_its_bracket() -> None:
    search = Search(SearchSettings(start=4_000.0))
    drive(search, LateClient(300.0, limit=1_000.0))
    found = bracket(search.tried)
    assert search.end is End.BRACKET
    assert found.passed is not None
    assert found.failed is not None
    assert found.passed <= 300 < found.failed <= found.passed * 1.05


def test_a_client_that_holds_no_rate_ends_the_search_at_the_lowest() -> None:
    search = Search(SearchSettings(start=16.0, lowest=4.0))
    drive(search, LateClient(100.0, limit=1.0))
    assert [one.rate for one in search.tried] == [16.0, 8.0, 4.0]
    assert search.end is End.CLIENT
    assert bracket(search.tried) == Bracket(None, None)


def test_the_highest_rate_passes_and_no_limit_is_invented() -> None:
    search = Search(SearchSettings(start=100.0, highest=300.0))
    drive(search, Exact(10_000.0))
    assert search.end is End.HIGHEST
    assert bracket(search.tried) == Bracket(300.0, None)
    assert search.confirmed is True


def test_the_lowest_rate_fails_and_nothing_is_confirmed() -> None:
    search = Search(SearchSettings(start=16.0, lowest=4.0))
    drive(search, Exact(1.0))
    assert search.end is End.LOWEST
    assert bracket(search.tried) == Bracket(None, 4.0)
    assert search.confirmed is None


def test_a_confirming_run_that_fails_takes_the_pass_back() -> None:
    search = Search(SearchSettings(start=100.0, highest=100.0))
    assert search.next() is not None
    search.take(Tried(100.0, "pass", 5, 10_000))
    step = search.next()
    assert step is not None
    assert step.confirming
    search.take(Tried(step.rate, "fail", 900, 10_000, confirming=True))
    assert search.confirmed is False
    assert search.next() is None
    assert bracket(search.tried).passed is None


def test_no_more_time_confirms_what_there_is() -> None:
    @dataclass
    class Short(Exact):
        left: int = 3

        def has_time(self, _step: Step) -> bool:
            self.left -= 1
            return self.left >= 0

    search = Search(SearchSettings(start=100.0))
    drive(search, Short(1000.0))
    assert [one.rate for one in search.tried] == pytest.approx([100.0, 150.0, 225.0, 0.95 * 225.0])
    assert search.end is End.STOPPED
    assert search.confirmed is True


def test_all_verdicts_together_err_in_at_most_five_percent() -> None:
    settings = SearchSettings(start=1.0)
    assert settings.step_alpha * (settings.steps + 1) <= settings.alpha


def test_verdicts_that_contradict_each_other_count_as_neither() -> None:
    tried = [
        Tried(100, "pass", 10, 10_000),
        Tried(200, "fail", 150, 10_000),
        Tried(220, "pass", 60, 10_000),
        Tried(300, "fail", 5_000, 10_000),
    ]
    assert bracket(tried) == Bracket(100, 300)


@given(
    st.lists(
        st.builds(
            Tried,
            st.floats(1, 1000),
            st.sampled_from(["pass", "fail", "undecided"]),
            st.integers(0, 100),
            st.integers(100, 1000),
            st.floats(1, 50),
        ),
        max_size=12,
    )
)
def test_a_bracket_is_never_upside_down(tried: list[Tried]) -> None:
    found = bracket(tried)
    if found.passed is not None and found.failed is not None:
        assert found.passed < found.failed
    rates = {verdict: {one.rate for one in tried if one.verdict == verdict} for verdict in ("pass", "fail")}
    assert found.passed is None or found.passed in rates["pass"]
    assert found.failed is None or found.failed in rates["fail"]

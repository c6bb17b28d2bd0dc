"""Replicas, their cost and how long they last."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.bench import queueing, replicas
from headgate.bench.queueing import RunTimes
from headgate.errors import InvalidArgument

TIMES = RunTimes.of([0.002, 0.007], [0.9, 0.1])


def test_seven_replicas_hold_what_five_only_have_the_work_for():
    demand = replicas.Demand(6000, headroom=0.2, spare=1)

    least = replicas.least_replicas(
        demand.planned, lambda rate: queueing.response_quantile(TIMES, rate, 4, 0.99) <= 0.015
    )

    assert least is not None
    assert least + demand.spare == 7
    assert math.ceil(demand.planned * TIMES.mean / 4) == 5


def test_cost_and_months():
    assert replicas.cost_per_thousand(6, 0.40, 6000) == pytest.approx(1.111e-4, abs=1e-7)
    assert replicas.months_until(6000, 7200, 0.03) == pytest.approx(6.17, abs=5e-3)
    assert replicas.months_until(6000, 6000, 0.03) == 0
    assert replicas.months_until(6000, 7200, 0) == math.inf


def test_what_no_number_of_replicas_holds_has_none():
    assert replicas.least_replicas(6000, lambda _: False) is None


@pytest.mark.parametrize(
    "made",
    [
        lambda: replicas.Demand(0),
        lambda: replicas.Demand(math.nan),
        lambda: replicas.Demand(1, headroom=-0.1),
        lambda: replicas.Demand(1, spare=-1),
        lambda: replicas.cost_per_thousand(1, -1, 1),
        lambda: replicas.months_until(1, 2, math.nan),
    ],
)
def test_demands_that_are_none_are_refused(made):
    with pytest.raises(InvalidArgument):
        made()


@given(st.floats(1, 1e5), st.floats(1, 1e4))
def test_the_least_number_is_the_least(rate, holds):
    found = replicas.least_replicas(rate, lambda each: each <= holds)

    if found is None:
        assert rate / replicas.MOST_REPLICAS > holds
    else:
        assert rate / found <= holds
        assert found == 1 or rate / (found - 1) > holds


@given(st.floats(100, 1e5), st.floats(1, 3), st.floats(0.008, 0.1))
def test_more_traffic_or_a_tighter_objective_never_needs_fewer(rate, more, limit):
    def needed(target: float, within: float) -> int:
        return replicas.least_replicas(
            target, lambda each: queueing.response_quantile(TIMES, each, 2, 0.99) <= within
        )

    assert needed(rate, limit) <= needed(rate * more, limit)
    assert needed(rate, limit * more) <= needed(rate, limit)

"""What ``make bench-plans`` makes of results: those of a queue that the model describes hold, those of another one do not."""

from __future__ import annotations

from functools import cache

import pytest

from benches import plans
from headgate.bench.results import Capacity, Result, SloFacts, Window
from support import bench_results
from support.tools import need_native

CASE = plans.Case("pool", 64, "{placement: pool}", 15)
CAPACITY = 1_354.0
"""Of the simulated queue, by the reference's formula at 15 ms."""


@cache
def measured(rate: float, servers: int) -> Window:
    said = bench_results.answer(rate, seconds=40, servers=servers, seed=round(rate))
    return Window(name="run", rate=rate, for_ns=40 * 10**9, answer=said)


def results(servers: int = 4) -> tuple[Result, list[Result]]:
    """What a plan is made from, and the rates that it has not seen, which another number of instances may have served."""
    slo = SloFacts(quantiles={"p99": bench_results.LIMIT_NS})
    capacity = Capacity.model_validate(
        {"pass": 1_300.0, "fail": 1_450.0, "alpha": 0.05, "confirmed": True, "at_least": False, "slo": slo}
    )
    windows = tuple(measured(share * CAPACITY, 4) for share in plans.FITTED)
    others = [
        bench_results.result(windows=(measured(share * CAPACITY, servers),)) for share in plans.HELD_OUT
    ]
    return bench_results.result(capacity=capacity, windows=windows), others


def test_a_model_that_describes_the_server_holds() -> None:
    need_native()
    lines, claims, rows = plans.compared(CASE, *results())
    assert [one.holds for one in claims] == [True, True], lines
    assert len(rows) == len(plans.HELD_OUT)
    assert sum(one.inside for one in rows) >= 3


def test_rates_of_another_server_break_the_promise() -> None:
    need_native()
    _, claims, rows = plans.compared(CASE, *results(servers=3))
    assert [one.holds for one in claims] == [True, False]
    assert max(abs(one.error) for one in rows) > 0.2


def test_a_result_without_a_model_promises_nothing() -> None:
    need_native()
    result, others = results()
    lines, claims, rows = plans.compared(
        CASE, result.model_copy(update={"windows": result.windows[:2]}), others
    )
    assert [one.holds for one in claims] == [False]
    assert rows == []
    assert any("no model" in line for line in lines)


@pytest.mark.parametrize(("low", "high", "inside"), [(0.9, 1.1, True), (1.1, 1.2, False)])
def test_a_checked_rate_is_inside_its_interval_or_not(low: float, high: float, inside: bool) -> None:
    one = plans.Checked(100.0, 1.0, 1.05, low, high)
    assert one.inside is inside
    assert one.error == pytest.approx(0.05)

"""The formulas against published and computed values, and what holds for all of them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.bench import queueing
from headgate.bench.queueing import RunTimes
from headgate.errors import InvalidArgument

TWO_AND_SEVEN = RunTimes.of([0.002, 0.007], [0.9, 0.1])


@pytest.mark.parametrize(
    ("servers", "load", "waits"), [(2, 1.5, 0.642857), (4, 3, 0.509434), (8, 6.4, 0.457645)]
)
def test_erlang_c(servers, load, waits):
    assert queueing.erlang_c(servers, load) == pytest.approx(waits, abs=1e-6)


def test_the_mean_waits_of_four_servers():
    at = (1200, 0.0025, 4)

    assert queueing.mmk_wait(*at) == pytest.approx(1.273585e-3, abs=1e-9)
    assert queueing.allen_cunneen_wait(*at, 1, 0.25) == pytest.approx(0.795991e-3, abs=1e-9)
    assert queueing.mdk_wait(*at) == pytest.approx(0.665637e-3, abs=1e-9)
    assert queueing.kimura_wait(*at, 0.25) == pytest.approx(0.822729e-3, abs=1e-9)


def test_a_single_server_waits_as_pollaczek_and_khinchine_say():
    # W = rate * E[s^2] / (2 (1 - busy))
    rate, times = 200, TWO_AND_SEVEN
    square = 0.9 * 0.002**2 + 0.1 * 0.007**2

    wait = queueing.kimura_wait(rate, times.mean, 1, times.squared_variation)

    assert wait == pytest.approx(rate * square / (2 * (1 - rate * times.mean)), rel=1e-9)


@pytest.mark.parametrize(
    ("rate", "milliseconds"), [(800, 7.545), (1000, 8.535), (1200, 10.574), (1400, 17.779)]
)
def test_the_p99_of_a_mixture_of_run_times(rate, milliseconds):
    assert queueing.response_quantile(TWO_AND_SEVEN, rate, 4, 0.99) * 1e3 == pytest.approx(
        milliseconds, abs=5e-4
    )


@pytest.mark.parametrize(("limit", "rate"), [(0.015, 1354.4), (0.010, 1160.7)])
def test_the_highest_rate_within_an_objective(limit, rate):
    assert queueing.highest_rate(TWO_AND_SEVEN, 4, 0.99, limit) == pytest.approx(rate, abs=0.05)


def test_an_objective_below_the_run_time_is_held_at_no_rate():
    assert queueing.highest_rate(TWO_AND_SEVEN, 4, 0.99, 0.006) == 0


def test_a_rate_that_the_servers_do_not_keep_up_with_has_no_finite_response():
    assert queueing.response_quantile(TWO_AND_SEVEN, 1600, 4, 0.5) == math.inf
    assert queueing.response_tail(TWO_AND_SEVEN, 1600, 4, 10) == 1
    assert queueing.kimura_wait(1600, 0.0025, 4, 1) == math.inf
    assert queueing.mdk_wait(1600, 0.0025, 4) == math.inf


@pytest.mark.parametrize(
    ("seconds", "weights"),
    [([], []), ([1.0], [1, 2]), ([0.0], [1]), ([math.inf], [1]), ([1.0], [0]), ([1.0, 2.0], [2, -1])],
)
def test_run_times_that_are_none_are_refused(seconds, weights):
    with pytest.raises(InvalidArgument):
        RunTimes.of(seconds, weights)


mixtures = st.lists(
    st.tuples(st.floats(1e-5, 1.0), st.floats(0.01, 1.0)), min_size=1, max_size=6
).map(lambda pairs: RunTimes.of([s for s, _ in pairs], [w for _, w in pairs]))  # fmt: skip


@given(mixtures, st.integers(1, 32), st.floats(0.01, 0.98), st.floats(0.5, 0.999))
def test_a_response_takes_at_least_its_run_and_more_under_more_load(times, servers, busy, quantile):
    rate = busy * servers / times.mean
    alone = queueing.response_quantile(times, 1e-12, servers, quantile)

    some = queueing.response_quantile(times, rate / 2, servers, quantile)
    more = queueing.response_quantile(times, rate, servers, quantile)

    assert alone * (1 - 1e-6) <= some <= more * (1 + 1e-6)


@given(mixtures, st.integers(1, 32), st.floats(0.01, 0.98))
def test_variable_runs_wait_longer_than_constant_ones(times, servers, busy):
    rate = busy * servers / times.mean

    constant = queueing.mdk_wait(rate, times.mean, servers)
    wait = queueing.kimura_wait(rate, times.mean, servers, times.squared_variation)

    assert constant * (1 - 1e-9) <= wait
    assert constant <= queueing.mmk_wait(rate, times.mean, servers)


@given(st.floats(0, 0.99), st.floats(1e-6, 1.0))
def test_a_settled_batch_brings_as_many_rows_as_it_has(busy, base):
    row = 1e-3
    rate = busy / row

    rows = queueing.settled_batch(rate, base, row)

    assert rows == pytest.approx(rate * (base + row * rows), rel=1e-6, abs=1e-9)
    assert queueing.settled_batch(1 / row, base, row) == math.inf

"""The scalability law against published data, on its own parameters, and within what the data says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.bench import usl
from headgate.errors import InvalidArgument

# SPEC SDM91, from the documentation of R's package usl.
N = [1, 18, 36, 72, 108, 144, 216]
X = [64.9, 995.9, 1652.4, 1853.2, 1828.9, 1775.0, 1702.2]


def test_published_data_relative_to_one_client():
    found = usl.fit_normalised(N, X)

    assert found.rate == 64.9
    assert found.contention == pytest.approx(0.017047, abs=1e-6)
    assert found.crosstalk == pytest.approx(7.8925e-5, abs=1e-8)


def test_published_data_with_all_three_parameters():
    found = usl.fit(N, X)

    assert found.rate == pytest.approx(89.995, abs=1e-3)
    assert found.contention == pytest.approx(0.027728, abs=1e-6)
    assert found.crosstalk == pytest.approx(1.04365e-4, abs=1e-8)
    assert found.best_n == pytest.approx(96.52, abs=0.01)
    assert found.best_throughput == pytest.approx(1883.9, abs=0.1)


def test_nothing_is_said_beyond_one_and_a_half_times_what_was_measured():
    found = usl.fit(N, X)

    assert found.throughput(324) > 0
    with pytest.raises(InvalidArgument, match=r"N = 325 .* at most 324"):
        found.throughput(325)
    with pytest.raises(InvalidArgument):
        found.throughput(0)


def test_a_peak_far_beyond_the_data_is_not_told():
    law = usl.Usl(100.0, 0.01, 1e-6, largest=8)
    measured = [law.rate * n / (1 + 0.01 * (n - 1) + 1e-6 * n * (n - 1)) for n in (1, 2, 4, 8)]

    assert usl.fit([1, 2, 4, 8], measured).best_n is None


def test_faster_than_linear_is_clamped_to_no_contention():
    found = usl.fit([1, 2, 3, 4], [10.0, 22.0, 35.0, 49.0])

    assert found.contention == 0
    assert found.crosstalk == 0
    assert found.best_n is None
    assert found.best_throughput is None


@pytest.mark.parametrize(
    ("n", "x", "what"),
    [
        ([1, 2, 3], [1, 2, 3], "at least 4 different"),
        ([1, 2, 3, 3], [1, 2, 3, 3], "at least 4 different"),
        ([1, 2, 3, 4], [1, 2, 3], "as many throughputs"),
        ([1, 2, 3, 4], [1, 2, 3, 0], "more than 0"),
        ([1, 2, 3, float("nan")], [1, 2, 3, 4], "finite"),
    ],
)
def test_data_that_is_not_enough_is_refused(n, x, what):
    with pytest.raises(InvalidArgument, match=what):
        usl.fit(n, x)


def test_the_relative_fit_needs_one_client():
    with pytest.raises(InvalidArgument, match="N = 1"):
        usl.fit_normalised([2, 4, 8, 16], [1, 2, 3, 4])


@given(st.floats(1, 1e5), st.floats(0, 0.3), st.floats(0, 1e-2), st.floats(0.5, 2))
def test_the_parameters_that_made_the_data_are_found(rate, contention, crosstalk, scale):
    ns = [n * scale for n in (1, 2, 4, 8, 16, 32)]
    xs = [rate * n / (1 + contention * (n - 1) + crosstalk * n * (n - 1)) for n in ns]

    found = usl.fit(ns, xs)

    for n, x in zip(ns, xs, strict=True):
        assert found.throughput(n) == pytest.approx(x, rel=1e-5)
    assert found.rate == pytest.approx(rate, rel=1e-3)
    assert found.contention == pytest.approx(contention, abs=1e-4)
    assert found.crosstalk == pytest.approx(crosstalk, abs=1e-5)

"""Monotone means."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.bench import pava
from headgate.errors import InvalidArgument


def test_neighbours_that_go_down_are_pooled_by_weight():
    assert pava.nondecreasing([1, 3, 2, 2, 5]) == pytest.approx([1, 7 / 3, 7 / 3, 7 / 3, 5])
    assert pava.nondecreasing([4, 1], [1, 3]) == pytest.approx([1.75, 1.75])
    assert pava.nondecreasing([]) == []


@pytest.mark.parametrize(
    ("values", "weights"), [([1, 2], [1]), ([1, 2], [1, 0]), ([1], [-1]), ([1], [float("nan")])]
)
def test_weights_that_are_none_are_refused(values, weights):
    with pytest.raises(InvalidArgument):
        pava.nondecreasing(values, weights)


values_and_weights = st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(0.1, 10)), min_size=1, max_size=12)


@given(values_and_weights, st.randoms(use_true_random=False))
def test_no_other_monotone_values_are_nearer(pairs, random):
    values, weights = [value for value, _ in pairs], [weight for _, weight in pairs]

    found = pava.nondecreasing(values, weights)

    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(found))
    cost = sum(w * (f - v) ** 2 for f, v, w in zip(found, values, weights, strict=True))
    for _ in range(20):
        other = sorted(f + random.uniform(-2, 2) for f in found)
        assert cost <= sum(w * (o - v) ** 2 for o, v, w in zip(other, values, weights, strict=True)) + 1e-6

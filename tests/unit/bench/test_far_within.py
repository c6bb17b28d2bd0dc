"""An objective that is met by far passes whatever the body does, and one at its border never does so.

The border is a p99 that equals the limit, in queues whose requests are correlated: there a pass is wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headgate.bench.far_within import FARTHEST, judged, least_requests
from headgate.bench.native_functions import statistics
from headgate.bench.results import Answer
from headgate.bench.slo import ANY_GOOD_ANSWER_NS
from support import evidence
from support.virtual_load import queue_ns

ALPHA = 0.05 / 18
LIMIT_NS = 2_000_000_000


def answer(response_ns: np.ndarray[Any, Any], quantile: float, limit_ns: int, alpha: float = ALPHA) -> Answer:
    found = evidence.verdict(response_ns, quantile, limit_ns, alpha)
    return Answer.model_validate({"response": {"max_ns": int(response_ns.max())}, "objectives": [found]})


def drifting(count: int) -> np.ndarray[Any, Any]:
    """From 0.3 to 0.4 ms, with some noise."""
    noise = np.random.default_rng(1).normal(1, 0.01, count)
    return np.asarray(np.linspace(300_000, 400_000, count) * noise)


def test_a_body_that_drifts_far_below_the_limit_is_undecided_by_its_ranks_and_passes() -> None:
    found = answer(drifting(12_000), 0.9, LIMIT_NS)
    (before,) = found.objectives
    assert found.verdict == "undecided"
    assert before.inflation is not None
    assert before.inflation > 500, "twenty batches of which none is like another count as twenty requests"
    (after,) = judged(found).objectives
    assert after.verdict == "pass"
    assert after.pass_evidence is not None
    assert after.needed is not None
    assert after.pass_evidence >= after.needed


@pytest.mark.parametrize(
    ("count", "slowest", "quantile", "limit_ns"),
    [
        (12_000, LIMIT_NS // 25, 0.9, LIMIT_NS),
        (12_000, LIMIT_NS + 1, 0.9, LIMIT_NS),
        (900, 400_000, 0.9, LIMIT_NS),
        (2_000, 400_000, 0.999, LIMIT_NS),
        (12_000, 400_000, 0.9, ANY_GOOD_ANSWER_NS),
    ],
    ids=[
        "near the limit",
        "above it",
        "before the first look",
        "too few for the quantile",
        "a share of errors",
    ],
)
def test_what_is_not_far_or_not_enough_stays_undecided(
    count: int, slowest: int, quantile: float, limit_ns: int
) -> None:
    response = drifting(count)
    response[count // 2] = slowest
    found = answer(response, quantile, limit_ns)
    assert found.verdict == "undecided"
    assert judged(found) == found


def queue(random: np.random.Generator, load: float, bursts: bool, count: int) -> np.ndarray[Any, Any]:
    """M/M/1, or with rates of 1.1 in a fifth of the time (bursts of 200 runs in the mean) and less otherwise."""
    gaps = random.exponential(1.0, count)
    if bursts:
        quiet = (load - 0.2 * 1.1) / 0.8
        lengths = random.exponential([[800.0, 200.0]], (count // 300 + 50, 2))
        rates = np.tile([quiet, 1.1], len(lengths))
        # Arrivals at unit rate, put where the sum of the rates over time reaches them.
        ends = np.concatenate([[0.0], np.cumsum(lengths.ravel())])
        sums = np.concatenate([[0.0], np.cumsum(lengths.ravel() * rates)])
        at = np.cumsum(gaps)
        assert at[-1] < sums[-1]
        due = np.interp(at, sums, ends)
    else:
        due = np.cumsum(gaps / load)
    runs = random.exponential(1.0, count)
    return np.asarray((queue_ns(due * 1e6, runs * 1e6) + runs * 1e6)[500:])


@pytest.mark.parametrize(("load", "bursts"), [(0.5, False), (0.8, False), (0.9, False), (0.5, True)])
def test_at_the_border_no_look_of_a_queue_is_far_within(load: float, bursts: bool) -> None:
    long = queue(np.random.default_rng(7), load, bursts, 1_000_000)
    limit = int(np.quantile(long, 0.99))
    for seed in range(100):
        response = queue(np.random.default_rng(seed), load, bursts, 12_500)
        count = 1000
        while count <= len(response):
            assert not (response[:count] <= FARTHEST * limit).all()
            count = int(count * 1.25)


@pytest.mark.parametrize(("quantile", "alpha"), [(0.99, 0.05), (0.99, ALPHA), (0.999, ALPHA), (0.5, ALPHA)])
def test_the_fewest_requests_are_those_whose_evidence_is_enough(quantile: float, alpha: float) -> None:
    least = least_requests(quantile, alpha)

    def of(count: int) -> float:
        found = statistics("evidence", {"slower": 0.0, "faster": float(count), "quantile": quantile})
        return float(found["pass"])

    assert least >= 1000
    assert of(least) >= 1 / alpha
    assert least == 1000 or of(least - 1) < 1 / alpha

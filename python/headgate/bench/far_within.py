"""Objectives that are met by far: a pass where correlation among fast requests cannot matter, and how many requests a pass needs.

The generator's test divides its counts by the largest inflation at the quantile, p90 and p50, since a tail has too few requests to show a
correlation that the body shows. That is by ranks: a body that drifts from 0.3 to 0.4 ms inflates as much as one that drifts to the limit.
If every request took a fiftieth of the limit at most, the body is no part of the tail that the objective is about. Next: ``measuring``.
"""

from __future__ import annotations

from functools import lru_cache

from headgate.bench.native_functions import statistics
from headgate.bench.results import Answer, ObjectiveResult
from headgate.bench.slo import ANY_GOOD_ANSWER_NS

FIRST_LOOK = 1000
"""The fewest requests that a verdict is given on, as the generator has it."""

FARTHEST = 0.02
"""The share of the limit that the slowest request may have taken."""

_DIVISOR = 2.0
"""What requests are divided by: more than the generator's penalty for an estimate from 20 batches, which is 1.4 at alpha 0.1 %."""


def judged(answer: Answer) -> Answer:
    """The same, with each objective passed that is undecided and met by far, if as many requests decide it."""
    slowest = answer.response.max_ns
    if slowest is None or not any(one.verdict == "undecided" for one in answer.objectives):
        return answer
    objectives = tuple(_judged(one, slowest) for one in answer.objectives)
    return answer.model_copy(update={"objectives": objectives})


def _judged(one: ObjectiveResult, slowest_ns: int) -> ObjectiveResult:
    far = one.slower == 0 and slowest_ns <= FARTHEST * one.limit_ns and one.limit_ns < ANY_GOOD_ANSWER_NS
    if one.verdict != "undecided" or not far or one.requests < FIRST_LOOK or one.needed is None:
        return one
    found = _evidence(one.requests / _DIVISOR, one.quantile)
    if found < one.needed:
        return one
    return one.model_copy(update={"verdict": "pass", "pass_evidence": found, "inflation": _DIVISOR})


def _evidence(faster: float, quantile: float) -> float:
    return float(statistics("evidence", {"slower": 0.0, "faster": faster, "quantile": quantile})["pass"])


@lru_cache(maxsize=64)
def least_requests(quantile: float, alpha: float) -> int:
    """The fewest requests whose evidence reaches 1 / ``alpha``, if none is slow and all are independent; FIRST_LOOK at least."""
    low, high = 0, FIRST_LOOK
    while _evidence(high, quantile) < 1 / alpha:
        low, high = high, 2 * high
    if low == 0:
        return high
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _evidence(middle, quantile) >= 1 / alpha else (middle, high)
    return high

"""The sequential test of an objective in Python, independent of the data plane's: what the virtual generator decides with.

The evidence is the ratio of a mixture over exceedance shares below the allowed one and the likelihood at the allowed one, with a beta prior
(a=1, b=1/share-1) cut off there. The incomplete beta is Lentz's continued fraction (Numerical Recipes, 6.4).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

BATCHES = 20


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularized I_x(a, b)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    found = d
    for m in range(1, 2000):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + step * d or tiny)
            c = 1 + step / c or tiny
            found *= c * d
        if abs(c * d - 1) < 1e-12:
            return found
    raise ArithmeticError(f"the continued fraction of I_{x}({a}, {b}) does not settle")


def evidence(share: float, slow: float, quick: float) -> tuple[float, float]:
    """The evidence that fewer, and that more than ``share`` are slow, after ``slow`` and ``quick`` requests that are independent."""
    a, b = 1.0, 1 / share - 1
    log_ratio = (
        math.lgamma(slow + a)
        + math.lgamma(quick + b)
        - math.lgamma(slow + quick + a + b)
        - (math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b))
        - slow * math.log(share)
        - quick * math.log1p(-share)
    )
    below, before = incomplete_beta(slow + a, quick + b, share), incomplete_beta(a, b, share)
    return _exp(log_ratio, below / before), _exp(log_ratio, (1 - below) / (1 - before))


def _exp(log: float, factor: float) -> float:
    return 0.0 if factor <= 0 else math.exp(min(700.0, log + math.log(factor)))


def inflation(slow: np.ndarray[Any, Any], share: float) -> float:
    """By how much the variance of the share of slow requests exceeds that of independent ones: 20 batches, single and in pairs."""
    size = len(slow) // BATCHES
    if size == 0:
        return 1.0
    means = slow[: size * BATCHES].reshape(BATCHES, size).mean(axis=1)
    pairs = means.reshape(-1, 2).mean(axis=1)
    variance = share * (1 - share)
    return float(max(1.0, size * means.var(ddof=1) / variance, 2 * size * pairs.var(ddof=1) / variance))


def _of_ranks(values: np.ndarray[Any, Any], *shares: float) -> list[float]:
    """The values of these ranks, by one partial sort."""
    if not len(values):
        return [0.0] * len(shares)
    ranks = [int(share * (len(values) - 1)) for share in shares]
    found = np.partition(values, ranks)
    return [float(found[rank]) for rank in ranks]


def verdict(
    responses_ns: np.ndarray[Any, Any], quantile: float, limit_ns: int, alpha: float
) -> dict[str, Any]:
    """An objective as the generator answers it."""
    share = 1 - quantile
    slow = responses_ns > limit_ns
    median, p90 = _of_ranks(responses_ns, 0.5, 0.9)
    inflated = max(
        inflation(slow, share),
        inflation(responses_ns > p90, 0.1),
        inflation(responses_ns > median, 0.5),
    )
    count = int(slow.sum())
    passed, failed = evidence(share, count / inflated, (len(slow) - count) / inflated)
    needed = 1 / alpha
    enough = len(slow) >= BATCHES * 50
    found = "pass" if passed >= needed else "fail" if failed >= needed else "undecided"
    return {
        "quantile": quantile,
        "limit_ns": limit_ns,
        "verdict": found if enough else "undecided",
        "pass_evidence": passed,
        "fail_evidence": failed,
        "needed": needed,
        "slower": count,
        "requests": len(slow),
        "inflation": inflated,
    }

"""Monotone means by pooling adjacent violators: probes of one rate after another make one curve that never goes down.

Not here: the search that makes the probes. Next: queueing.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from headgate.errors import InvalidArgument


def nondecreasing(values: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """The nondecreasing values with the least weighted squared distance to ``values``, which are in the order of their rates.

    ``weights`` are positive, one a value; 1 unless given. Source: Ayer, Brunk, Ewing, Reid and Silverman, "An empirical
    distribution function for sampling with incomplete information" (1955), the algorithm of pooling adjacent violators.
    """
    given = [1.0] * len(values) if weights is None else list(weights)
    if len(given) != len(values):
        raise InvalidArgument(f"{len(values)} values need as many weights; there are {len(given)}")
    if any(not weight > 0 for weight in given):
        raise InvalidArgument("every weight must be more than 0")
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many values
    for value, weight in zip(values, given, strict=True):
        pool = (float(value), weight, 1)
        while pools and pools[-1][0] > pool[0]:
            mean, heavier, count = pools.pop()
            total = heavier + pool[1]
            pool = ((mean * heavier + pool[0] * pool[1]) / total, total, count + pool[2])
        pools.append(pool)
    return [mean for mean, _, count in pools for _ in range(count)]

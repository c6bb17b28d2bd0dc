"""The exact tests by plain enumeration, as an oracle for those of the data plane. Slow, and short enough to be read."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np

from headgate.bench.comparison import Interval


class EnumeratedStatistics:
    """The statistics of comparisons by their definitions."""

    def sign_flip(self, differences: Sequence[float], alpha: float) -> Interval:
        """Every mean whose test is not rejected lies between two means of subsets."""
        n = len(differences)
        signs = np.array(list(itertools.product((0.0, 1.0), repeat=n)))[1:]
        means = np.sort(signs @ np.asarray(differences) / signs.sum(axis=1))
        rank = math.floor(alpha * 2**n / 2)
        if rank == 0:
            return Interval(-math.inf, math.inf)
        return Interval(float(means[rank - 1]), float(means[-rank]))

    def mann_whitney(self, first: Sequence[float], second: Sequence[float]) -> float:
        """Twice the smaller tail of U; for values without ties."""
        u = sum(x > y for x in first for y in second)
        counts = _ways(len(first), len(second))
        low, high = sum(counts[: u + 1]), sum(counts[u:])
        return min(1.0, 2 * min(low, high) / sum(counts))


@functools.cache
def _ways(m: int, n: int) -> tuple[int, ...]:
    """How many orders of m and n values have each U."""
    if m == 0 or n == 0:
        return (1,)
    found = [0] * (m * n + 1)
    for at, count in enumerate(_ways(m - 1, n)):
        found[at + n] += count
    for at, count in enumerate(_ways(m, n - 1)):
        found[at] += count
    return tuple(found)

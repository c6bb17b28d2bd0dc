"""The Universal Scalability Law: throughput against the number of clients, cores or replicas, with contention and crosstalk.

It describes throughput only; latency is queueing.py. Next: queueing.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headgate.errors import InvalidArgument

MOST_EXTRAPOLATION = 1.5
"""How far beyond the largest measured N a fit may be asked: leaving the last point out of published data misses it by 14 %."""

_FEWEST = 4
_STEPS = 100
_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Usl:
    """A fit of ``X(N) = rate * N / (1 + contention * (N - 1) + crosstalk * N * (N - 1))``.

    ``rate`` is the throughput of N = 1, ``largest`` the largest N that was measured.
    """

    rate: float
    contention: float
    crosstalk: float
    largest: float

    def throughput(self, n: float) -> float:
        """X(n); :class:`InvalidArgument` beyond 1.5 times the largest measured N, of which the data says nothing."""
        most = MOST_EXTRAPOLATION * self.largest
        if not 0 < n <= most:
            raise InvalidArgument(
                f"N = {n:g} is outside of what the fit can say: more than 0, and at most {most:g}, "
                f"which is {MOST_EXTRAPOLATION} times the largest measured N"
            )
        return self.rate * n / (1 + self.contention * (n - 1) + self.crosstalk * n * (n - 1))

    @property
    def best_n(self) -> float | None:
        """The N of the highest throughput, ``sqrt((1 - contention) / crosstalk)``; None without crosstalk or beyond
        1.5 times the largest measured N.
        """
        if self.crosstalk <= 0 or self.contention >= 1:
            return None
        best = math.sqrt((1 - self.contention) / self.crosstalk)
        return best if best <= MOST_EXTRAPOLATION * self.largest else None

    @property
    def best_throughput(self) -> float | None:
        """The highest throughput; None as :attr:`best_n`."""
        return None if self.best_n is None else self.throughput(self.best_n)


def fit(n: Sequence[float], throughput: Sequence[float]) -> Usl:
    """The least-squares fit of all three parameters, by Gauss-Newton from a weighted linear start.

    ``n`` and ``throughput`` are positive and of one length, with at least four different n. Source: Gunther, "Guerrilla
    Capacity Planning" (2007), chapter 4, for the law.
    """
    ns, xs = _checked(n, throughput)
    start = _linear(ns, xs)
    found = _gauss_newton(ns, xs, start)
    rate, contention, crosstalk = (float(value) for value in found)
    return Usl(rate, contention, crosstalk, largest=float(ns.max()))


def fit_normalised(n: Sequence[float], throughput: Sequence[float]) -> Usl:
    """The fit of contention and crosstalk with ``rate`` fixed at the measured X(1), by linear least squares on N / C - 1.

    It is what R's package ``usl`` does, so that published numbers can be checked. :class:`InvalidArgument` if N = 1 was not
    measured.
    """
    ns, xs = _checked(n, throughput)
    ones = xs[ns == 1]
    if not len(ones):
        raise InvalidArgument(
            "this fit is relative to N = 1, which was not measured; use the fit of all parameters"
        )
    rate = float(ones.mean())
    columns = np.stack([ns - 1, ns * (ns - 1)], axis=1)
    solved = np.linalg.lstsq(columns, ns * rate / xs - 1, rcond=None)[0]
    contention, crosstalk = (max(float(value), 0.0) for value in solved)
    return Usl(rate, contention, crosstalk, largest=float(ns.max()))


def _checked(n: Sequence[float], throughput: Sequence[float]) -> tuple[_Array, _Array]:
    if len(n) != len(throughput):
        raise InvalidArgument(f"{len(n)} values of N need as many throughputs; there are {len(throughput)}")
    ns, xs = np.asarray(n, dtype=float), np.asarray(throughput, dtype=float)
    if not (np.isfinite(ns).all() and np.isfinite(xs).all() and (ns > 0).all() and (xs > 0).all()):
        raise InvalidArgument("every N and every throughput must be finite and more than 0")
    if len(np.unique(ns)) < _FEWEST:
        raise InvalidArgument(
            f"the scalability law has three parameters and needs at least {_FEWEST} different N; there are {len(np.unique(ns))}"
        )
    return ns, xs


def _linear(ns: _Array, xs: _Array) -> _Array:
    """N / X is linear in the parameters; the weights X^2 / N undo what the reciprocal does to the errors of X."""
    weights = np.sqrt(xs**2 / ns)
    columns = np.stack([np.ones_like(ns), ns - 1, ns * (ns - 1)], axis=1)
    base, linear, quadratic = np.linalg.lstsq(columns * weights[:, None], ns / xs * weights, rcond=None)[0]
    if (
        base <= 0
    ):  # a straight line through noise: begin at the throughput of the smallest N, without contention
        smallest = int(np.argmin(ns))
        return np.array([xs[smallest] / ns[smallest], 0.0, 0.0])
    return np.array([1 / base, max(linear / base, 0.0), max(quadratic / base, 0.0)])


def _gauss_newton(ns: _Array, xs: _Array, start: _Array) -> _Array:
    """Steps that are halved until the squares become fewer; contention and crosstalk stay at least 0."""
    at, squares = start, _squares(ns, xs, start)
    for _ in range(_STEPS):
        below = 1 + at[1] * (ns - 1) + at[2] * ns * (ns - 1)
        value = at[0] * ns / below
        slopes = np.stack([ns / below, -value / below * (ns - 1), -value / below * ns * (ns - 1)], axis=1)
        # A parameter at its bound that the step would push out does not take part in the step.
        free = np.array([True, True, True])
        step = _step(slopes, xs - value, free)
        blocked = (at <= 0) & (step < 0)
        if blocked.any():
            free = ~blocked
            step = _step(slopes, xs - value, free)
        scale = 1.0
        while scale > 1e-10:
            tried = np.maximum(at + scale * step, 0.0)
            found = _squares(ns, xs, tried)
            if found < squares:
                break
            scale /= 2
        else:
            return at
        at, gained, squares = tried, squares - found, found
        if gained <= 1e-15 * squares:
            return at
    return at


def _step(slopes: _Array, residuals: _Array, free: NDArray[np.bool_]) -> _Array:
    step = np.zeros(len(free))
    # The columns differ by many orders of magnitude; scaled to 1 the solver sees the rank as it is.
    scales = np.maximum(np.linalg.norm(slopes[:, free], axis=0), 1e-300)
    step[free] = np.linalg.lstsq(slopes[:, free] / scales, residuals, rcond=None)[0] / scales
    return step


def _squares(ns: _Array, xs: _Array, at: _Array) -> float:
    value = at[0] * ns / (1 + at[1] * (ns - 1) + at[2] * ns * (ns - 1))
    return float(((xs - value) ** 2).sum())

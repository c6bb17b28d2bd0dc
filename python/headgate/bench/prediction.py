"""A model's prediction with its interval, checked against measured rates that it was not fitted to; or refused, with the reason.

Times are seconds, rates per second. Not here: the models (``predictors``), what follows from a prediction (``plan``).
Next: predictors.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from headgate.errors import InvalidArgument

FEWEST_FITTED, HELD_OUT = 3, 2
"""Rates that a model is fitted to at least, and those that check it."""
MOST_ERROR = 0.20
"""How far a prediction may be from a held-out measurement: beyond, the model does not describe this server."""
MOST_CORRECTION = 0.5
"""By how much the fit may scale what the model says: beyond, it is the scale that predicts, and not the model."""


@dataclass(frozen=True)
class Measured:
    """One rate with the quantile of responses that was measured there. ``log_error`` is half of its 95 % interval, in logarithms: 0 if it
    is not known, infinite if the interval has no upper end.
    """

    rate: float
    seconds: float
    log_error: float = 0.0


class Predictor(Protocol):
    """A model of one server: the quantile of responses in seconds at a rate, infinite where the server does not keep up."""

    @property
    def name(self) -> str:
        """What it is, in words."""
        ...

    def quantile(self, rate: float, quantile: float) -> float:
        """The response in seconds that a share ``quantile`` of requests does not exceed."""
        ...


@dataclass(frozen=True)
class Estimate:
    """A predicted quantile in seconds with its prediction interval."""

    seconds: float
    low: float
    high: float


@dataclass(frozen=True)
class HeldOut:
    """A measured rate that the fit did not see, beside what was predicted there."""

    measured: Measured
    predicted: Estimate

    @property
    def error(self) -> float:
        """Measured over predicted, less 1."""
        return self.measured.seconds / self.predicted.seconds - 1

    @property
    def inside(self) -> bool:
        """Whether the interval holds the measurement, which has an error of its own.

        Both are independent: their squares add up. Without that, rates near saturation, which are measured least exactly, would refuse
        models that are right.
        """
        if not 0 < self.predicted.low <= self.predicted.high < math.inf:
            return self.predicted.low <= self.measured.seconds <= self.predicted.high
        off = math.log(self.measured.seconds / self.predicted.seconds)
        return abs(off) <= math.hypot(
            math.log(self.predicted.high / self.predicted.seconds), self.measured.log_error
        )


@dataclass(frozen=True)
class Fit:
    """A model with the scale that its fitted rates give it; ``refusals`` says why it does not hold, and is empty if it does.

    ``log_bias`` and ``log_deviation`` are of ln(measured / model) over ``fitted`` rates.
    """

    model: Predictor
    quantile: float
    confidence: float
    log_bias: float
    log_deviation: float
    fitted: int
    held_out: tuple[HeldOut, ...] = ()
    refusals: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the model may be planned with."""
        return not self.refusals

    def at(self, rate: float) -> Estimate:
        """The prediction at ``rate`` with its interval: ln(R / model) = bias ± t s sqrt(1 + 1/m)."""
        centre = self.model.quantile(rate, self.quantile)
        if math.isinf(centre):
            return Estimate(math.inf, math.inf, math.inf)
        t = student_quantile(0.5 + self.confidence / 2, self.fitted - 1)
        half = t * self.log_deviation * math.sqrt(1 + 1 / self.fitted)
        middle = centre * math.exp(self.log_bias)
        return Estimate(middle, middle * math.exp(-half), middle * math.exp(half))


def fit(
    measured: Sequence[Measured],
    models: Iterable[Predictor],
    quantile: float,
    *,
    planned_to: float = math.inf,
    confidence: float = 0.95,
) -> Fit:
    """The model that fits best, checked on two rates that were held out: the highest up to ``planned_to``, the highest rate that
    will be planned with, and the one in the middle of the others.

    ``measured`` are steady rates whose quantile is known. :class:`InvalidArgument` for fewer than five of them, or without models.
    """
    points = sorted(measured, key=lambda point: point.rate)
    if len(points) < FEWEST_FITTED + HELD_OUT:
        raise InvalidArgument(
            f"a model is fitted to {FEWEST_FITTED} measured rates and checked on {HELD_OUT} others: "
            f"{FEWEST_FITTED + HELD_OUT} steady rates with a known p{quantile * 100:g} are needed, there are {len(points)}"
        )
    planned = [at for at, point in enumerate(points) if point.rate <= planned_to * (1 + 1e-9)]
    highest = planned[-1] if planned else len(points) - 1
    others = [at for at in range(len(points)) if at != highest]
    held = {highest, others[(len(others) - 1) // 2]}
    fitted = [point for at, point in enumerate(points) if at not in held]
    fits = [_scaled(model, fitted, quantile, confidence) for model in models]
    possible = [one for one in fits if one is not None]
    if not possible:
        raise InvalidArgument("no model keeps up with the rates that were measured")
    # The scale counts as an error, too: with few rates, a wrong model that is scaled can follow them by chance.
    best = min(possible, key=lambda one: math.hypot(one.log_deviation, one.log_bias))
    checks = tuple(HeldOut(points[at], best.at(points[at].rate)) for at in sorted(held))
    return Fit(
        best.model, quantile, confidence, best.log_bias, best.log_deviation, best.fitted,
        held_out=checks, refusals=tuple(_refusals(best, checks)),
    )  # fmt: skip


def _scaled(model: Predictor, fitted: Sequence[Measured], quantile: float, confidence: float) -> Fit | None:
    ratios = []
    for point in fitted:
        said = model.quantile(point.rate, quantile)
        if math.isinf(said) or said <= 0:
            return None
        ratios.append(math.log(point.seconds / said))
    bias = math.fsum(ratios) / len(ratios)
    deviation = math.sqrt(math.fsum((ratio - bias) ** 2 for ratio in ratios) / (len(ratios) - 1))
    return Fit(model, quantile, confidence, bias, deviation, len(ratios))


def _refusals(best: Fit, checks: Sequence[HeldOut]) -> Iterable[str]:
    level = f"p{best.quantile * 100:g}"
    correction = math.exp(best.log_bias)
    if not 1 / (1 + MOST_CORRECTION) <= correction <= 1 + MOST_CORRECTION:
        yield (
            f"{best.model.name}: measured {level} is {correction:.2f} times what the model says, and more than "
            f"{1 + MOST_CORRECTION:g} times is another server than the one it describes"
        )
    for check in checks:
        where = f"{best.model.name}: at {check.measured.rate:.5g}/s, which was held out, {level} is {_ms(check.measured.seconds)}"
        said = check.predicted
        if math.isinf(said.seconds):
            yield f"{where}, and the model says that the server does not keep up"
        elif abs(check.error) > MOST_ERROR:
            yield f"{where}, {check.error:+.0%} off the predicted {_ms(said.seconds)}; {MOST_ERROR:.0%} is allowed"
        elif not check.inside:
            yield f"{where}, outside of the predicted {_ms(said.low)} to {_ms(said.high)}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"


def student_quantile(share: float, degrees: int) -> float:
    """The quantile of Student's t distribution, for 0.5 <= share < 1 and at least one degree of freedom, by bisection."""
    if degrees < 1 or not 0.5 <= share < 1:
        raise InvalidArgument(f"Student's t at {share} with {degrees} degrees of freedom is not defined here")
    low, high = 0.0, 1.0
    while student_cdf(high, degrees) < share:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if student_cdf(middle, degrees) < share else (low, middle)
    return (low + high) / 2


def student_cdf(t: float, degrees: int) -> float:
    """Student's t distribution for whole degrees of freedom. Source: Abramowitz and Stegun (1964), 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    if degrees % 2:
        term, total = cosine, 0.0
        for step in range(1, degrees - 1, 2):
            total += term
            term *= cosine**2 * (step + 1) / (step + 2)
        within = (angle + sine * total) * 2 / math.pi
    else:
        term, total = 1.0, 0.0
        for step in range(0, degrees, 2):
            total += term
            term *= cosine**2 * (step + 1) / (step + 2)
        within = sine * total
    return 0.5 + within / 2

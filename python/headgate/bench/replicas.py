"""How many replicas a target needs, what they cost, and how long they last while traffic grows.

Rates are per second. A balancer that splits at random gives each replica an equal share of a Poisson stream. Not here: which rate one
replica holds (``prediction``). Next: plan.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from headgate.errors import InvalidArgument

MOST_REPLICAS = 100_000
"""Above that many, the target or the model is taken for a mistake."""


@dataclass(frozen=True)
class Demand:
    """What is asked of the replicas together: ``headroom`` as a share of the target, ``spare`` replicas that may be gone."""

    target: float
    headroom: float = 0.0
    spare: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.target) and self.target > 0):
            raise InvalidArgument(f"the target {self.target:g}/s must be finite and more than 0")
        if not (math.isfinite(self.headroom) and self.headroom >= 0):
            raise InvalidArgument(
                f"the headroom {self.headroom:g} must be a share of at least 0, such as 20%"
            )
        if self.spare < 0:
            raise InvalidArgument(f"{self.spare} spare replicas are not possible; write 0 or more")

    @property
    def planned(self) -> float:
        """The rate that the replicas without the spare ones must hold."""
        return self.target * (1 + self.headroom)


def least_replicas(rate: float, holds: Callable[[float], bool]) -> int | None:
    """The least n for which ``holds(rate / n)``, where a lower rate never holds less; None if not even 100 000 are enough."""
    high = 1
    while not holds(rate / high):
        if high >= MOST_REPLICAS:
            return None
        high = min(2 * high, MOST_REPLICAS)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if holds(rate / middle):
            high = middle
        else:
            low = middle
    return high


def cost_per_thousand(replicas: int, price_per_hour: float, rate: float) -> float:
    """What 1 000 predictions cost at ``rate``, in the currency of ``price_per_hour``, which is that of one replica."""
    if not (math.isfinite(price_per_hour) and price_per_hour >= 0):
        raise InvalidArgument(f"the price {price_per_hour:g} per hour must be at least 0")
    return replicas * price_per_hour / (rate * 3600) * 1000


def months_until(rate: float, full: float, growth_per_month: float) -> float:
    """How many months compound growth takes from ``rate`` to ``full``; 0 if it is there, infinite without growth."""
    if not (math.isfinite(growth_per_month) and growth_per_month >= 0):
        raise InvalidArgument(
            f"the growth {growth_per_month:g} must be a share of at least 0 a month, such as 3%"
        )
    if full <= rate:
        return 0.0
    return math.inf if growth_per_month == 0 else math.log(full / rate) / math.log1p(growth_per_month)

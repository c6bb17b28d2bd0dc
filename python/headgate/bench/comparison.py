"""What a comparison of two servers or files says: a ratio with its interval against a margin. The statistics are the data plane's.

Ratios are b over a: above 1, b is slower. Not here: which runs give the values (``pairs``), what files give (``file_comparison``).
Next: pairs.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from headgate.bench import native_functions
from headgate.bench.rates import format_quantile, shown_seconds
from headgate.bench.results import Answer
from headgate.errors import InvalidArgument

Finding = Literal["not_slower", "slower", "undecided", "too_noisy"]

MOST_MARGIN = 10.0

MOST_LATENESS = 0.10
"""Of the compared time: a client that is later is what is measured."""

_MEDIAN = 0.5


@dataclass(frozen=True)
class Interval:
    """Both ends of an interval; infinite if the data does not bound it there."""

    low: float
    high: float


class Statistics(Protocol):
    """The exact tests that comparisons use."""

    def sign_flip(self, differences: Sequence[float], alpha: float) -> Interval:
        """The interval of the mean of paired differences at confidence 1 - alpha, by inversion of the sign-flip test."""
        ...

    def mann_whitney(self, first: Sequence[float], second: Sequence[float]) -> float:
        """The two-sided p-value of the test of Mann and Whitney."""
        ...


class NativeStatistics:
    """The tests of ``core::stats``."""

    def sign_flip(self, differences: Sequence[float], alpha: float) -> Interval:
        """See :class:`Statistics`."""
        answer = native_functions.statistics("sign_flip", {"differences": list(differences), "alpha": alpha})
        return Interval(_end(answer, "low", -math.inf), _end(answer, "high", math.inf))

    def mann_whitney(self, first: Sequence[float], second: Sequence[float]) -> float:
        """See :class:`Statistics`."""
        answer = native_functions.statistics("mann_whitney", {"first": list(first), "second": list(second)})
        return float(answer["p"])


def _end(answer: Mapping[str, Any], name: str, unbounded: float) -> float:
    return unbounded if answer[name] is None else float(answer[name])


@dataclass(frozen=True)
class Comparison:
    """What was found: ``ratio`` is None if nothing was compared, ``values`` are those of a and b in seconds, in their order."""

    finding: Finding
    metric: str
    margin: float
    ratio: float | None
    interval: Interval | None
    values: tuple[tuple[float, ...], tuple[float, ...]]
    p: float | None = None
    noise: float | None = None
    reasons: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 if b is not slower by more than the margin, 1 if it is, 3 if that is not known."""
        return {"not_slower": 0, "slower": 1}.get(self.finding, 3)

    def as_json(self) -> dict[str, Any]:
        """For a program; an end that is not bounded is null."""
        ends = None if self.interval is None else [_known(self.interval.low), _known(self.interval.high)]
        return {
            "finding": self.finding,
            "metric": self.metric,
            "margin": self.margin,
            "ratio": self.ratio,
            "interval": ends,
            "p": self.p,
            "noise": self.noise,
            "a_seconds": list(self.values[0]),
            "b_seconds": list(self.values[1]),
            "reasons": list(self.reasons),
        }

    def sentence(self, a: str = "A", b: str = "B") -> str:
        """The answer in a sentence."""
        if self.ratio is None or self.interval is None:
            return f"{self.metric}: {b} was not compared with {a}: {'; '.join(self.reasons)}"
        span = f"{_percent(self.ratio)} [{_percent(self.interval.low)}, {_percent(self.interval.high)}]"
        within = f"by more than the margin of {self.margin * 100:.3g} %"
        said = {
            "not_slower": f"{b} is not slower than {a} {within}",
            "slower": f"{b} is slower than {a} {within}",
        }.get(self.finding, f"it is not decided whether {b} is slower than {a} {within}")
        return f"{self.metric}: {said}: {span}"


def client_lateness(answer: Answer, quantile: float) -> str | None:
    """Why the times at ``quantile`` are too much the client's to be compared; None if they are the server's.

    What the client is late by is added to both sides alike: 10 % of the time make a difference look a tenth smaller than it is. A few
    late requests, as on a machine with other work, change no median.
    """
    late = answer.lateness.p50_ns if quantile <= _MEDIAN else answer.lateness.p99_ns
    estimate = answer.response.quantile(quantile)
    if (
        late is None
        or estimate is None
        or estimate.value_ns is None
        or late <= MOST_LATENESS * estimate.value_ns
    ):
        return None
    level = format_quantile(quantile)
    return (
        f"requests were sent late by {shown_seconds(late / 1e9)} at {'p50' if quantile <= _MEDIAN else 'p99'}, more than "
        f"{MOST_LATENESS:.0%} of the {level} of {shown_seconds(estimate.value_ns / 1e9)}"
    )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _percent(ratio: float) -> str:
    if math.isinf(ratio):
        return "unbounded"
    return f"{(ratio - 1) * 100:+.1f} %" if ratio > 0 else "unbounded"


def checked_margin(margin: float) -> float:
    """``margin`` itself; :class:`InvalidArgument` unless it is more than 0 and at most 1000 %."""
    if not 0 < margin <= MOST_MARGIN:
        raise InvalidArgument(
            f"the margin {margin:.3%} is not in range: more than 0% and at most {MOST_MARGIN:.0%}"
        )
    return margin


def decide(interval: Interval, margin: float) -> Finding:
    """What an interval of ratios says of the margin."""
    if interval.high < 1 + margin:
        return "not_slower"
    return "slower" if interval.low > 1 + margin else "undecided"


def unpaired(
    a: Sequence[float],
    b: Sequence[float],
    metric: str,
    margin: float,
    statistics: Statistics,
    alpha: float = 0.05,
) -> Comparison:
    """Two samples of positive values without pairs: the test of Mann and Whitney, and the interval of the ratio by its inversion.

    The ratio is that of Hodges and Lehmann, "Estimates of location based on rank tests" (1963): the median of all b over a.
    """
    first, second = [math.log(value) for value in a], [math.log(value) for value in b]
    differences = sorted(y - x for y in second for x in first)
    p = statistics.mann_whitney(first, second)
    rejected = _rejected(differences, first, second, statistics, alpha)
    interval = Interval(0.0, math.inf)
    if rejected > 0:
        interval = Interval(math.exp(differences[rejected - 1]), math.exp(differences[-rejected]))
    ratio = math.exp(_median(differences))
    return Comparison(decide(interval, margin), metric, margin, ratio, interval, (tuple(a), tuple(b)), p=p)


def _rejected(
    differences: Sequence[float],
    first: Sequence[float],
    second: Sequence[float],
    statistics: Statistics,
    alpha: float,
) -> int:
    """How many of the sorted differences lie below every shift that the test accepts: the shift between two neighbours decides
    how many pairs are in order, which is all that the test sees.
    """
    low, high = 0, len(differences) // 2
    while low < high:
        middle = (low + high) // 2
        below = differences[middle - 1] if middle else differences[0] - 1.0
        shift = (below + differences[middle]) / 2
        if statistics.mann_whitney(first, [value - shift for value in second]) > alpha:
            high = middle
        else:
            low = middle + 1
    return low


def _median(ordered: Sequence[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2

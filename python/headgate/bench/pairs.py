"""Two servers measured in turn: which one runs next, and when the comparison ends. Pure; the runs are the caller's.

The first runs measure a against itself: what differs there is noise of the machine. Then pairs follow in the order ABBA, so that a
drift of the machine adds to both alike. A look at the data spends a part of the error rate. Next: comparison.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from headgate.bench.comparison import Comparison, Finding, Interval, Statistics, checked_margin, decide
from headgate.bench.prediction import student_quantile
from headgate.errors import InvalidArgument

Side = Literal["a", "b"]

FEWEST_PAIRS, MOST_PAIRS = 6, 20
"""Fewer cannot show anything at 5 %; with more, all ways to turn their signs become too many."""


@dataclass(frozen=True)
class PairRules:
    """``margin`` is a share; ``alpha`` is the error rate of the whole comparison, over all looks."""

    margin: float = 0.03
    max_pairs: int = 12
    noise_pairs: int = 6
    alpha: float = 0.05

    def __post_init__(self) -> None:
        checked_margin(self.margin)
        if not FEWEST_PAIRS <= self.max_pairs <= MOST_PAIRS:
            raise InvalidArgument(
                f"{self.max_pairs} pairs are not in range: write {FEWEST_PAIRS} to {MOST_PAIRS}"
            )
        if not 2 <= self.noise_pairs <= MOST_PAIRS:
            raise InvalidArgument(
                f"{self.noise_pairs} pairs for the noise are not in range: write 2 to {MOST_PAIRS}"
            )
        if not 2 / 2**self.max_pairs <= self.alpha < 1:
            raise InvalidArgument(
                f"{self.max_pairs} pairs cannot show anything at an error rate of {self.alpha:g}"
            )

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of pairs at which the data is looked at, each with an equal part of ``alpha``.

        With n pairs no p-value is below 2 / 2^n, so that a look earlier than that could show nothing.
        """
        found = [n for n in range(FEWEST_PAIRS, self.max_pairs + 1) if n % 2 == 0 or n == self.max_pairs]
        while 2 / 2 ** found[0] > self.alpha / len(found):
            found.pop(0)
        return tuple(found)


@dataclass
class PairedComparison:
    """The state of a comparison: ask :meth:`next_run`, run it, and :meth:`record` what came of it, until there is none left."""

    rules: PairRules
    metric: str
    statistics: Statistics
    _noise: list[float] = field(default_factory=list)
    _pairs: list[float] = field(default_factory=list)
    """Values in seconds in the order of the runs."""
    _ended: Comparison | None = None

    @property
    def pairs(self) -> int:
        """Pairs of a and b that are complete."""
        return len(self._pairs) // 2

    @property
    def measures_noise(self) -> bool:
        """Whether the next run is one of a against itself."""
        return len(self._noise) < 2 * self.rules.noise_pairs

    def next_run(self) -> Side | None:
        """The server that is measured next; None if the comparison has ended."""
        if self._ended is not None:
            return None
        if self.measures_noise:
            return "a"
        return "abba"[len(self._pairs) % 4]  # type: ignore[return-value]

    def record(self, seconds: float) -> None:
        """What the run of :meth:`next_run` measured."""
        if self._ended is not None:
            raise InvalidArgument("the comparison has ended; nothing more is recorded")
        if not (math.isfinite(seconds) and seconds > 0):
            raise InvalidArgument(
                f"a run measured {seconds:g} s; a time that is finite and more than 0 is needed"
            )
        if self.measures_noise:
            self._noise.append(seconds)
            if not self.measures_noise:
                self._look_at_noise()
            return
        self._pairs.append(seconds)
        if len(self._pairs) % 2 == 0 and self.pairs in self.rules.looks:
            self._look()

    def result(self, *reasons: str) -> Comparison:
        """What was found; undecided, with ``reasons``, if the comparison was ended from outside."""
        return self._ended or self._found("undecided", *(reasons or ("ended before it was decided",)))

    @property
    def noise(self) -> float | None:
        """The smallest margin that all the pairs together could decide, as a share: how far a differed from itself, by Student's t."""
        if self.measures_noise:
            return None
        ratios = _log_ratios(self._noise, [(at, at + 1) for at in range(0, len(self._noise), 2)])
        deviation = math.sqrt(math.fsum(ratio**2 for ratio in ratios) / len(ratios))
        t = student_quantile(1 - self.rules.alpha / 2 / len(self.rules.looks), len(ratios))
        return math.expm1(t * deviation / math.sqrt(self.rules.max_pairs))

    def _look_at_noise(self) -> None:
        noise = self.noise
        if noise is not None and noise > self.rules.margin:
            self._ended = self._found(
                "too_noisy",
                f"the same server differs from itself so much that {self.rules.max_pairs} pairs decide no margin below "
                f"{noise * 100:.2g} %; measure longer, allow more pairs, or a margin above that",
            )

    def _look(self) -> None:
        finding = decide(self._interval(), self.rules.margin)
        if finding != "undecided":
            self._ended = self._found(finding)
        elif self.pairs == self.rules.max_pairs:
            self._ended = self._found(
                "undecided",
                f"the interval still contains the margin after {self.pairs} pairs; measure longer",
            )

    def _interval(self) -> Interval:
        found = self.statistics.sign_flip(self._ratios(), self.rules.alpha / len(self.rules.looks))
        return Interval(math.exp(found.low), math.exp(found.high))

    def _ratios(self) -> list[float]:
        # Every second pair was run as B then A.
        order = [(at, at + 1) if at % 4 == 0 else (at + 1, at) for at in range(0, 2 * self.pairs, 2)]
        return _log_ratios(self._pairs, order)

    def _found(self, finding: Finding, *reasons: str) -> Comparison:
        ratios = self._ratios()
        sides: dict[str, list[float]] = {"a": [], "b": []}
        for at, value in enumerate(self._pairs):
            sides["abba"[at % 4]].append(value)
        return Comparison(
            finding,
            self.metric,
            self.rules.margin,
            math.exp(math.fsum(ratios) / len(ratios)) if ratios else None,
            self._interval() if ratios else None,
            (tuple(sides["a"]), tuple(sides["b"])),
            noise=self.noise,
            reasons=reasons,
        )


def _log_ratios(values: list[float], order: list[tuple[int, int]]) -> list[float]:
    return [math.log(values[b] / values[a]) for a, b in order]

"""What each version did in the last minutes: requests, errors, times, rows. Made of the data plane's counters, which only grow.

A sample keeps the counters; what happened since is the difference to an older sample. So nothing is counted twice, and a version that
was loaded again counts from 0. Not here: what the counters mean (``docs/reference/metrics.md``). Next: ``endpoints``.
"""

from __future__ import annotations

import asyncio
import json
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from headgate.control.domain.plan_facts import RecentRequests
from headgate.control.reads.views import RecentView
from headgate.documents.values import SLOTS, format_weight

WINDOW_SECONDS = 300.0
PAUSE_SECONDS = 15.0
_SHARE_OF_TIME = 200
"""Sampling takes at most one part in so many of the time: a gateway with many versions is sampled less often."""
_FRESH_SECONDS = 1.0
_QUICK_SECONDS = 0.05
"""A sample that took longer is not taken again for a call that waits for it."""

Version = tuple[str, str]
"""Endpoint and version."""


@dataclass(frozen=True)
class Durations:
    """The buckets that are not empty: their places and their counts. Ten bytes each, because a gateway keeps some twenty samples of each
    of its versions, with up to a hundred buckets.
    """

    places: array[int] = field(default_factory=lambda: array("H"))
    counts: array[int] = field(default_factory=lambda: array("Q"))

    def since(self, before: Durations) -> Durations:
        """What came to be counted since ``before``."""
        difference = Counter(dict(zip(self.places, self.counts, strict=True)))
        difference.subtract(dict(zip(before.places, before.counts, strict=True)))
        return _durations(sorted((place, count) for place, count in difference.items() if count > 0))


@dataclass(frozen=True)
class Counters:
    """The counters of one version: requests by code, durations by the place of their bucket, rows."""

    codes: Counter[str] = field(default_factory=Counter)
    durations: Durations = field(default_factory=Durations)
    seen: int = 0
    sketched: int = 0

    def since(self, before: Counters) -> Counters:
        """What came to be counted since ``before``; all of it when a counter was begun anew."""
        if any(count > self.codes[code] for code, count in before.codes.items()) or before.seen > self.seen:
            return self
        return Counters(
            self.codes - before.codes,
            self.durations.since(before.durations),
            self.seen - before.seen,
            self.sketched - before.sketched,
        )


@dataclass(frozen=True)
class Sample:
    """All counters at one time; ``bounds`` are the upper ends of the buckets in nanoseconds, None for none."""

    when: float
    bounds: Sequence[int | None]
    versions: Mapping[Version, Counters]


def _durations(pairs: Sequence[Sequence[int]]) -> Durations:
    return Durations(array("H", [place for place, _ in pairs]), array("Q", [count for _, count in pairs]))


def read_counters(totals: bytes, when: float, last: Sample | None = None) -> Sample:
    """The counters in what the data plane tells (``_native.Gateway.totals``). What did not change since ``last`` is shared with it."""
    told = json.loads(totals)
    known = {} if last is None else last.versions
    versions = {}
    for one in told["versions"]:
        version, durations = (one["endpoint"], one["version"]), _durations(one["durations"])
        counters = Counters(Counter(one["codes"]), durations, one["seen"], one["sketched"])
        versions[version] = known[version] if known.get(version) == counters else counters
    bounds = told["upper_ns"]
    return Sample(when, last.bounds if last is not None and last.bounds == bounds else bounds, versions)


def quantile(share: float, bounds: Sequence[int | None], durations: Durations) -> float | None:
    """The value that this share of all is at most, in nanoseconds: within its bucket as if all were spread evenly there."""
    wanted, below = share * sum(durations.counts), 0
    for place, count in zip(durations.places, durations.counts, strict=True):
        if below + count >= wanted and count:
            low, high = (bounds[place - 1] or 0 if place else 0), bounds[place]
            return float(low) if high is None else low + (high - low) * (wanted - below) / count
        below += count
    return None


class Recent:
    """The samples of the last minutes. Belongs to one event loop."""

    def __init__(self, totals: Callable[[], bytes], clock: Callable[[], float] = time.monotonic) -> None:
        """``totals`` gives the data plane's counters; it blocks."""
        self._totals = totals
        self._clock = clock
        self._samples: deque[Sample] = deque([Sample(clock(), (), {})])
        self._took = 0.0
        self._turn = asyncio.Lock()

    async def turn(self) -> None:
        """A pause and a sample: what the loop repeats."""
        await asyncio.sleep(self.pause_seconds)
        await self.sample()

    @property
    def pause_seconds(self) -> float:
        """How long to wait until the next sample."""
        return max(PAUSE_SECONDS, self._took * _SHARE_OF_TIME)

    async def sample(self) -> None:
        """Notes the counters, and forgets what is older than the window."""
        async with self._turn:
            await self._take()

    async def refresh(self) -> None:
        """Takes a sample, unless the newest one is fresh or taking one is dear."""
        async with self._turn:
            if self._is_stale():
                await self._take()

    def requests(self, endpoint: str, versions: Collection[str]) -> RecentRequests:
        """The requests that each of these versions answered in the last minutes, as of the newest sample."""
        first, last = self._samples[0].versions, self._samples[-1].versions
        answered = {}
        for version in versions:
            key = (endpoint, version)
            if key in last:
                answered[version] = last[key].since(first.get(key, Counters())).codes.total()
        counted = {version: count for version, count in answered.items() if count}
        return RecentRequests(round(self._samples[-1].when - self._samples[0].when), counted)

    async def of(self, endpoint: str) -> dict[str, RecentView]:
        """The figures of an endpoint's versions that answered requests in the last minutes."""
        await self.refresh()
        first, last = self._samples[0], self._samples[-1]
        counted = {
            version: counters.since(first.versions.get((name, version), Counters()))
            for (name, version), counters in last.versions.items()
            if name == endpoint
        }
        total = sum(one.codes.total() for one in counted.values())
        seconds = round(last.when - first.when)
        return {
            version: _view(one, last.bounds, total, seconds)
            for version, one in counted.items()
            if one.codes.total()
        }

    def _is_stale(self) -> bool:
        """Whether a call takes a sample of its own: the newest one is old, and taking one is cheap."""
        never = len(self._samples) == 1
        return never or (
            self._clock() - self._samples[-1].when > _FRESH_SECONDS and self._took < _QUICK_SECONDS
        )

    async def _take(self) -> None:
        begun = self._clock()
        sample = await asyncio.to_thread(lambda: read_counters(self._totals(), begun, self._samples[-1]))
        self._took = self._clock() - begun
        if len(self._samples) > 1 and self._samples[-1].when - self._samples[-2].when < PAUSE_SECONDS:
            # Calls come at any rate; one sample for each pause is kept.
            self._samples.pop()
        self._samples.append(sample)
        # The newest sample that is older than the window stays: figures begin there.
        while len(self._samples) > 2 and begun - self._samples[1].when >= WINDOW_SECONDS:
            self._samples.popleft()


def _view(counted: Counters, bounds: Sequence[int | None], total: int, seconds: int) -> RecentView:
    requests = counted.codes.total()
    p50, p95 = (quantile(share, bounds, counted.durations) for share in (0.5, 0.95))
    return RecentView(
        seconds=seconds,
        requests=requests,
        share=format_weight(round(requests * SLOTS / total)),
        errors=requests - counted.codes["ok"],
        codes=dict(sorted(counted.codes.items())),
        request_us={"p50": _micros(p50), "p95": _micros(p95)},
        rows={"seen": counted.seen, "sketched": counted.sketched},
    )


def _micros(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else round(nanoseconds / 1e3, 1)

"""What each version did in the last minutes: requests, errors, times, rows. Made of the data plane's counters, which only grow.

A sample keeps the counters; what happened since is the difference to an older sample. So nothing is counted twice, and a version that
was loaded again counts from 0. Not here: what the counters mean (``docs/reference/metrics.md``). Next: ``endpoints``.
"""

from __future__ import annotations

import asyncio
import re
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from headgate.control.reads.views import RecentView
from headgate.documents.values import SLOTS, format_weight

WINDOW_SECONDS = 300.0
PAUSE_SECONDS = 15.0
_SHARE_OF_TIME = 200
"""Sampling takes at most one part in so many of the time: a gateway with many versions is sampled less often."""
_FRESH_SECONDS = 1.0
_QUICK_SECONDS = 0.05
"""A sample that took longer is not taken again for a call that waits for it."""

_FAMILIES = {
    "requests": b"headgate_requests_total",
    "durations": b"headgate_request_duration_seconds",
    "seen": b"headgate_tap_rows_seen_total",
    "sketched": b"headgate_tap_rows_sampled_total",
}
_LINE = re.compile(
    rb'^\w+?(_sum|_count)?\{(?:code="([^"]*)",)?endpoint="([^"]*)",(?:le="([^"]*)",)?version="([^"]*)"\} (\S+)$',
    re.M,
)
Version = tuple[str, str]
"""Endpoint and version."""


@dataclass
class Counters:
    """The counters of one version; ``durations`` are cumulative, a bucket each."""

    codes: Counter[str] = field(default_factory=Counter)
    durations: array[float] = field(default_factory=lambda: array("d"))
    seen: int = 0
    sketched: int = 0

    def since(self, before: Counters) -> Counters:
        """What came to be counted since ``before``; all of it when a counter was begun anew."""
        if any(count > self.codes[code] for code, count in before.codes.items()) or before.seen > self.seen:
            return self
        longest = max(len(self.durations), len(before.durations))
        padded = array("d", [*before.durations, *[0.0] * (longest - len(before.durations))])
        return Counters(
            self.codes - before.codes,
            array("d", (new - old for new, old in zip(self.durations, padded, strict=False))),
            self.seen - before.seen,
            self.sketched - before.sketched,
        )


@dataclass(frozen=True)
class Sample:
    """All counters at one time; ``bounds`` are the upper ends of the buckets in seconds."""

    when: float
    bounds: Sequence[float]
    versions: Mapping[Version, Counters]


def read_counters(text: bytes, when: float) -> Sample:
    """The counters in a page of metrics (Prometheus' text format)."""
    versions: dict[Version, Counters] = {}
    bounds: dict[bytes, None] = {}
    for family, name in _FAMILIES.items():
        for code, endpoint, bound, version, value in _family(text, name):
            one = versions.setdefault((endpoint.decode(), version.decode()), Counters())
            if family == "requests":
                one.codes[code.decode()] += int(float(value))
            elif family == "durations":
                bounds[bound] = None
                one.durations.append(float(value))
            else:
                setattr(one, family, int(float(value)))
    return Sample(when, [float(bound) for bound in bounds], versions)


def quantile(share: float, bounds: Sequence[float], cumulative: Sequence[float]) -> float | None:
    """The value that this share of all is at most, in seconds: within its bucket as if all were spread evenly there."""
    if not cumulative or cumulative[-1] <= 0:
        return None
    wanted = share * cumulative[-1]
    at = next(place for place, count in enumerate(cumulative) if count >= wanted)
    low, high = (bounds[at - 1] if at else 0.0), bounds[at]
    if high == float("inf"):
        return low
    below = cumulative[at - 1] if at else 0.0
    return low + (high - low) * (wanted - below) / max(cumulative[at] - below, 1e-9)


class Recent:
    """The samples of the last minutes. Belongs to one event loop."""

    def __init__(self, page: Callable[[], bytes], clock: Callable[[], float] = time.monotonic) -> None:
        """``page`` gives the data plane's metrics as text; it blocks."""
        self._page = page
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

    async def of(self, endpoint: str) -> dict[str, RecentView]:
        """The figures of an endpoint's versions that answered requests in the last minutes."""
        async with self._turn:
            if self._is_stale():
                await self._take()
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
        sample = await asyncio.to_thread(lambda: read_counters(self._page(), begun))
        self._took = self._clock() - begun
        if len(self._samples) > 1 and self._samples[-1].when - self._samples[-2].when < PAUSE_SECONDS:
            # Calls come at any rate; one sample for each pause is kept.
            self._samples.pop()
        self._samples.append(sample)
        # The newest sample that is older than the window stays: figures begin there.
        while len(self._samples) > 2 and begun - self._samples[1].when >= WINDOW_SECONDS:
            self._samples.popleft()


def _view(counted: Counters, bounds: Sequence[float], total: int, seconds: int) -> RecentView:
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


def _family(text: bytes, family: bytes) -> Iterator[tuple[bytes, bytes, bytes, bytes, bytes]]:
    begin = text.find(b"# TYPE " + family + b" ")
    if begin < 0:
        return
    begin = text.find(b"\n", begin) + 1
    end = text.find(b"\n# ", begin)
    for found in _LINE.finditer(text, begin, len(text) if end < 0 else end + 1):
        summed, code, endpoint, bound, version, value = found.groups()
        if summed is None:
            yield code, endpoint, bound, version, value


def _micros(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e6, 1)

"""The figures of the last minutes, from counters and a clock that the test moves."""

from __future__ import annotations

import asyncio
import json
from array import array
from collections.abc import Mapping

import pytest

from headgate.control.reads.recent import (
    PAUSE_SECONDS,
    WINDOW_SECONDS,
    Durations,
    Recent,
    quantile,
    read_counters,
)
from unit.control_harness import run

BOUNDS = (1_000_000, 2_000_000, 4_000_000, None)


class Plane:
    """A data plane's counters; ``counts`` are requests by endpoint, version and code, all of them within one bucket."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str, str], int] = {}
        self.bucket: dict[tuple[str, str], int] = {}
        self.now = 0.0
        self.asked = 0

    def page(self) -> bytes:
        self.asked += 1
        versions = [
            {
                "endpoint": endpoint,
                "version": version,
                "codes": {
                    code: n for (e, v, code), n in self.counts.items() if (e, v) == (endpoint, version)
                },
                "durations": [[self.bucket.get((endpoint, version), 0), total]],
                "seen": total * 2,
                "sketched": total,
            }
            for (endpoint, version), total in self.totals().items()
        ]
        return json.dumps({"upper_ns": BOUNDS, "versions": versions}).encode()

    def totals(self) -> Mapping[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        for (endpoint, version, _), count in self.counts.items():
            found[endpoint, version] = found.get((endpoint, version), 0) + count
        return found


def durations(counts: Mapping[int, int]) -> Durations:
    return Durations(array("H", counts.keys()), array("Q", counts.values()))


@pytest.fixture
def plane() -> Plane:
    return Plane()


@pytest.fixture
def recent(plane: Plane) -> Recent:
    return Recent(plane.page, lambda: plane.now)


def test_errors_times_shares_and_rows_by_version(plane: Plane, recent: Recent) -> None:
    plane.counts = {
        ("a", "v1", "ok"): 890,
        ("a", "v1", "internal"): 10,
        ("a", "v2", "ok"): 100,
        ("b", "v1", "ok"): 7,
    }
    plane.bucket[("a", "v2")] = 2
    plane.now = 60.0
    found = asyncio.run(recent.of("a"))
    assert found["v1"] == {
        "seconds": 60, "requests": 900, "share": "90%", "errors": 10, "codes": {"internal": 10, "ok": 890},
        "request_us": {"p50": 500.0, "p95": 950.0}, "rows": {"seen": 1800, "sketched": 900},
    }  # fmt: skip
    assert found["v2"]["share"] == "10%"
    assert found["v2"]["request_us"] == {"p50": 3000.0, "p95": 3900.0}
    assert set(asyncio.run(recent.of("b"))) == {"v1"}
    assert asyncio.run(recent.of("c")) == {}


def test_what_is_older_than_the_window_does_not_count(plane: Plane, recent: Recent) -> None:
    async def work() -> None:
        plane.counts = {("a", "v1", "ok"): 1000}
        for _ in range(100):
            plane.now += PAUSE_SECONDS
            await recent.sample()
        assert await recent.of("a") == {}
        plane.counts[("a", "v1", "ok")] += 3
        plane.now += PAUSE_SECONDS
        found = (await recent.of("a"))["v1"]
        assert found["requests"] == 3
        assert WINDOW_SECONDS <= found["seconds"] <= WINDOW_SECONDS + PAUSE_SECONDS
        assert len(recent._samples) <= WINDOW_SECONDS / PAUSE_SECONDS + 2

    asyncio.run(work())


def test_calls_at_any_rate_keep_no_more_samples_and_share_one(plane: Plane, recent: Recent) -> None:
    async def work() -> None:
        plane.counts = {("a", "v1", "ok"): 1}
        plane.now = 2.0
        await asyncio.gather(*(recent.of("a") for _ in range(50)))
        assert plane.asked == 1
        for _ in range(100):
            plane.now += 2.0
            await recent.of("a")
        assert len(recent._samples) <= 200 / PAUSE_SECONDS + 2

    asyncio.run(work())


def test_a_version_that_was_loaded_again_counts_from_nothing(plane: Plane, recent: Recent) -> None:
    async def work() -> None:
        plane.counts = {("a", "v1", "ok"): 1000}
        plane.now = PAUSE_SECONDS
        await recent.sample()
        plane.now += WINDOW_SECONDS
        await recent.sample()
        plane.counts = {("a", "v1", "ok"): 5}
        plane.now += PAUSE_SECONDS
        assert (await recent.of("a"))["v1"]["requests"] == 5

    asyncio.run(work())


def test_a_gateway_whose_page_takes_long_samples_less_often(plane: Plane) -> None:
    def slow() -> bytes:
        plane.now += 0.5
        return plane.page()

    async def work() -> None:
        recent = Recent(slow, lambda: plane.now)
        assert recent.pause_seconds == PAUSE_SECONDS
        await recent.sample()
        assert recent.pause_seconds == 100.0
        plane.now += 50
        await recent.of("a")
        assert plane.asked == 1

    asyncio.run(work())


def test_quantiles_stay_within_their_bucket() -> None:
    bounds = [1, 2, 4, None]
    assert quantile(0.5, bounds, durations({0: 10, 1: 10})) == 1.0
    assert quantile(0.75, bounds, durations({0: 10, 1: 10})) == 1.5
    assert quantile(0.95, bounds, durations({3: 5})) == 4.0
    assert quantile(0.95, bounds, durations({0: 0, 3: 5})) == 4.0
    assert quantile(0.5, bounds, durations({})) is None


def test_a_gateway_without_versions_has_no_counters() -> None:
    assert read_counters(b'{"upper_ns": [], "versions": []}', 1.0).versions == {}


def test_durations_are_told_since_an_earlier_sample() -> None:
    newer = durations({1: 5, 3: 2, 9: 4}).since(durations({1: 5, 9: 1}))
    assert newer == durations({3: 2, 9: 3})


def test_what_did_not_change_is_shared_with_the_last_sample(plane: Plane) -> None:
    plane.counts = {("a", "v1", "ok"): 10, ("a", "v2", "ok"): 10}
    first = read_counters(plane.page(), 1.0)
    plane.counts[("a", "v2", "ok")] += 1
    second = read_counters(plane.page(), 2.0, first)
    assert second.bounds is first.bounds
    assert second.versions["a", "v1"] is first.versions["a", "v1"]
    assert second.versions["a", "v2"].codes["ok"] == 11


def test_requests_are_read_from_the_newest_sample_alone(plane: Plane, recent: Recent) -> None:
    async def body() -> None:
        assert recent.requests("a", ["v1"]).seconds == 0
        plane.counts = {("a", "v1", "ok"): 7, ("a", "v2", "internal"): 3, ("b", "v1", "ok"): 1}
        plane.now = 60.0
        await recent.refresh()
        asked = plane.asked
        told = recent.requests("a", ["v1", "v2", "v3"])
        assert (told.seconds, dict(told.answered), told.total) == (60, {"v1": 7, "v2": 3}, 10)
        assert plane.asked == asked, "a plan waits for no counters"
        await recent.refresh()
        assert plane.asked == asked, "the sample is fresh"

    run(body)

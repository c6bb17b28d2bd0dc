from __future__ import annotations

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry

from headgate.observe import native

DESCRIBED = [
    {
        "name": "headgate_requests_total",
        "help": "Requests.",
        "type": "counter",
        "samples": [
            [{"endpoint": "digits", "version": "v1", "code": "ok"}, 123],
            [{"endpoint": 'a"b\\c\n'}, 1],
        ],
    },
    {"name": "headgate_connections", "help": "Open connections.", "type": "gauge", "samples": [[{}, 3]]},
    {
        "name": "headgate_request_duration_seconds",
        "help": "Time of a request.",
        "type": "histogram",
        "samples": [
            [
                {"endpoint": "digits"},
                {"buckets": [[0.000001, 5], [0.25, 98], [1.0, 98]], "sum": 0.12, "count": 99},
            ]
        ],
    },
]


class _Page:
    def collect(self) -> list[native.Metric]:
        return native.families(DESCRIBED)


def parsed() -> dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]]:
    registry = CollectorRegistry()
    registry.register(_Page())
    text = generate_latest(registry).decode()
    return {
        family.name: {(s.name, tuple(sorted(s.labels.items()))): s.value for s in family.samples}
        for family in text_string_to_metric_families(text)
    }


def test_counters_and_gauges_come_back_as_they_went_in() -> None:
    found = parsed()
    assert found["headgate_requests"] == {
        ("headgate_requests_total", (("code", "ok"), ("endpoint", "digits"), ("version", "v1"))): 123,
        ("headgate_requests_total", (("endpoint", 'a"b\\c\n'),)): 1,
    }
    assert found["headgate_connections"] == {("headgate_connections", ()): 3}


def test_a_histogram_keeps_its_cumulative_buckets_and_gains_the_infinite_one() -> None:
    name = "headgate_request_duration_seconds"
    one = ("endpoint", "digits")
    assert parsed()[name] == {
        (f"{name}_bucket", (one, ("le", "1e-06"))): 5,
        (f"{name}_bucket", (one, ("le", "0.25"))): 98,
        (f"{name}_bucket", (one, ("le", "1.0"))): 98,
        (f"{name}_bucket", (one, ("le", "+Inf"))): 99,
        (f"{name}_count", (one,)): 99,
        (f"{name}_sum", (one,)): 0.12,
    }


def test_an_unknown_type_is_an_error_and_not_a_missing_metric() -> None:
    described = [{"name": "x", "help": "", "type": "summary", "samples": [[{}, 1]]}]
    with pytest.raises(ValueError, match="summary"):
        native.families(described)

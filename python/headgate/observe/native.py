"""Turns the data plane's own metrics into Prometheus families, value for value.

The families are declared where they are counted, in the data plane; nothing here knows their names. The
metrics of the control plane are declared in declared.py. Next: app.py.
"""

from __future__ import annotations

from typing import Any, Protocol

from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString


class Metered(Protocol):
    """The part of the data plane that this port reads."""

    def metrics(self) -> bytes:
        """All metric families with their samples: JSON, see :func:`families`."""


def families(described: list[dict[str, Any]]) -> list[Metric]:
    """Prometheus families of ``[{"name", "help", "type", "samples": [[labels, value], ...]}, ...]``.

    A histogram's value is ``{"buckets": [[upper bound, cumulative count], ...], "sum", "count"}`` without the
    ``+Inf`` bucket, which equals ``count`` and is added here.
    """
    return [_family(one) for one in described]


def _family(described: dict[str, Any]) -> Metric:
    kind = described["type"]
    name = described["name"].removesuffix("_total") if kind == "counter" else described["name"]
    metric = Metric(name, described["help"], kind)
    for labels, value in described["samples"]:
        if kind == "counter":
            metric.add_sample(f"{name}_total", labels, value)
        elif kind == "gauge":
            metric.add_sample(name, labels, value)
        elif kind == "histogram":
            _add_histogram(metric, labels, value)
        else:
            raise ValueError(f"metric {described['name']} has the unknown type {kind!r}")
    return metric


def _add_histogram(metric: Metric, labels: dict[str, str], value: dict[str, Any]) -> None:
    for bound, count in value["buckets"]:
        metric.add_sample(f"{metric.name}_bucket", {**labels, "le": _bound(bound)}, count)
    metric.add_sample(f"{metric.name}_bucket", {**labels, "le": "+Inf"}, value["count"])
    metric.add_sample(f"{metric.name}_count", labels, value["count"])
    metric.add_sample(f"{metric.name}_sum", labels, value["sum"])


def _bound(value: float) -> str:
    """An upper bound as Prometheus' own clients write it, so that queries by ``le`` match."""
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return text

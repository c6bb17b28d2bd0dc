"""The data plane's counters under the names that Triton's dashboards read, from the same numbers at the same moment.

Triton's counters do not end in ``_total`` as Prometheus' libraries want it, so the families have no declared type;
their values are counters all the same. Next: app.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.metrics_core import Metric

Sample = tuple[dict[str, str], float]
Families = Mapping[str, Sequence[tuple[Mapping[str, str], Any]]]
"""Samples of the data plane by family name: labels, and a number or a histogram's object."""


@dataclass(frozen=True)
class TritonFamily:
    """One of Triton's families and where its values come from."""

    name: str
    help: str
    samples: Callable[[Families], Iterable[Sample]]


def _model(labels: Mapping[str, str]) -> dict[str, str]:
    return {"model": labels["endpoint"], "version": labels["version"]}


def _succeeded(families: Families) -> Iterable[Sample]:
    for labels, count in families["headgate_requests_total"]:
        if labels["code"] == "ok":
            yield _model(labels), count


def _failed(families: Families) -> Iterable[Sample]:
    for labels, count in families["headgate_requests_total"]:
        if labels["code"] == "ok":
            # Shown from the start, as a counter should be.
            yield {**_model(labels), "reason": "OTHER"}, 0
        else:
            reason = "CANCELED" if labels["code"] == "cancelled" else "OTHER"
            if labels["code"] == "overloaded":
                reason = "REJECTED"
            elif labels["code"] in ("backend_failed", "internal"):
                reason = "BACKEND"
            yield {**_model(labels), "reason": reason}, count


def _counter(family: str) -> Callable[[Families], Iterable[Sample]]:
    return lambda families: [(_model(labels), count) for labels, count in families[family]]


def _microseconds(family: str) -> Callable[[Families], Iterable[Sample]]:
    return lambda families: [(_model(labels), round(held["sum"] * 1e6)) for labels, held in families[family]]


RENAMED: tuple[TritonFamily, ...] = (
    TritonFamily("nv_inference_request_success", "Inference requests that succeeded.", _succeeded),
    TritonFamily("nv_inference_request_failure", "Inference requests that failed, by reason.", _failed),
    TritonFamily("nv_inference_count", "Rows of requests that succeeded.", _counter("headgate_rows_total")),
    TritonFamily("nv_inference_exec_count", "Runs of the model.", _counter("headgate_runs_total")),
    TritonFamily(
        "nv_inference_request_duration_us",
        "Time of requests that succeeded, from the first byte to the last.",
        lambda families: [
            (_model(labels), round(seconds * 1e6))
            for labels, seconds in families["headgate_request_success_seconds_total"]
        ],
    ),
    TritonFamily(
        "nv_inference_queue_duration_us",
        "Time spent waiting for a thread.",
        _microseconds("headgate_queue_duration_seconds"),
    ),
    TritonFamily(
        "nv_inference_compute_input_duration_us",
        "Time spent on reading inputs.",
        _microseconds("headgate_decode_duration_seconds"),
    ),
    TritonFamily(
        "nv_inference_compute_infer_duration_us",
        "Time spent running the model.",
        _microseconds("headgate_run_duration_seconds"),
    ),
    TritonFamily(
        "nv_inference_compute_output_duration_us",
        "Time spent on writing outputs.",
        _microseconds("headgate_reply_duration_seconds"),
    ),
)


def families(merged: Sequence[Mapping[str, Any]]) -> list[Metric]:
    """Triton's families from those of ``_native.Gateway.metrics()``."""
    by_name = {family["name"]: family["samples"] for family in merged}
    out = []
    for renamed in RENAMED:
        metric = Metric(renamed.name, renamed.help, "unknown")
        for labels, value in _summed(renamed.samples(by_name)):
            metric.add_sample(renamed.name, labels, value)
        out.append(metric)
    return out


def _summed(samples: Iterable[Sample]) -> Iterable[Sample]:
    """One sample for each set of labels: several codes are one reason."""
    totals: dict[tuple[tuple[str, str], ...], float] = {}
    for labels, value in samples:
        key = tuple(labels.items())
        totals[key] = totals.get(key, 0) + value
    return [(dict(key), value) for key, value in totals.items()]

"""The numbers of a result as CSV: seconds of windows, and one line for each load. Times are integer ns; what is not known is empty."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from headgate.bench.rates import format_quantile
from headgate.bench.report import reading
from headgate.bench.report.reading import Load
from headgate.bench.results import Result

_SECONDS = ("from_ns", "due", "sent", "good", "shed", "failed", "unsent", "p50_ns", "p99_ns", "in_flight")
_COUNTS = ("due", "sent", "good", "shed", "failed", "timed_out", "unsent")


def windows(result: Result) -> str:
    """Every second of every load."""
    rows = (
        [_safe(load.name), load.rate, *(_value(getattr(one, name)) for name in _SECONDS)]
        for load in reading.loads(result)
        for one in load.answer.slices
    )
    return _written(["load", "rate", *_SECONDS], rows)


def probes(result: Result) -> str:
    """Every load with its verdict, counts and quantiles."""
    found = reading.loads(result)
    quantiles = sorted({one.quantile for load in found for one in load.answer.response.quantiles})
    columns = [
        f"{format_quantile(one)}_{part}"
        for one in quantiles
        for part in ("ns", "low_ns", "high_ns", "censored")
    ]
    head = [
        "load",
        "rate",
        "verdict",
        "confirming",
        "offered_per_second",
        "good_per_second",
        *_COUNTS,
        *columns,
        "lateness_p99_ns",
    ]
    return _written(head, (list(_row(load, quantiles)) for load in found))


def _row(load: Load, quantiles: Sequence[float]) -> Iterator[object]:
    answer = load.answer
    yield from (_safe(load.name), load.rate, load.verdict, int(load.confirming))
    yield from (_value(answer.offered_per_second), _value(answer.good_per_second))
    yield from (getattr(answer.counts, name) for name in _COUNTS)
    for quantile in quantiles:
        estimate = answer.response.quantile(quantile)
        if estimate is None:
            yield from ("", "", "", "")
        else:
            yield from (
                _value(estimate.value_ns),
                _value(estimate.low_ns),
                _value(estimate.high_ns),
                int(estimate.censored),
            )
    yield _value(answer.lateness.p99_ns)


def _value(value: float | None) -> object:
    return "" if value is None else value


def _safe(text: str) -> str:
    """A text that a spreadsheet takes for a text: what begins like a formula gets a quote before it."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _written(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return out.getvalue()

"""The histograms of a result as an HdrHistogram log (version 1.3, encoding V2), which that project's tools and plotters read.

Intervals have tags ``KIND`` (response, service, lateness) and begin when their load began; values are ns, maxima ms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

from headgate.bench import hdr
from headgate.bench.results import Answer, Result

_KINDS = ("response", "service", "lateness")
_NS_PER_MS = 1e6
_NAME = re.compile(r"[^A-Za-z0-9_.-]")


def log(result: Result) -> str:
    """The whole log."""
    begin = _seconds(result.started_at)
    lines = [
        "#[Logged by headgate bench]",
        "#[Histogram log format version 1.3]",
        f"#[StartTime: {begin:.3f} (seconds since epoch), {_NAME.sub('-', result.started_at)}]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]
    for start, several, answer in _answers(result):
        lines += [
            f"Tag={several}{tag},{start:.3f},{answer.elapsed_ns / 1e9:.3f},{rest}"
            for tag, rest in _histograms(answer)
        ]
    return "\n".join(lines) + "\n"


def _answers(result: Result) -> Iterator[tuple[float, str, Answer]]:
    """Each load with its begin in seconds after the start, and what its tags begin with: nothing if it is the only one."""
    total = len(result.windows) + len(result.probes)
    begin = 0.0
    for at, window in enumerate(result.windows, 1):
        yield begin, f"w{at}-" if total > 1 else "", window.answer
        begin += window.answer.elapsed_ns / 1e9
    for at, probe in enumerate(result.probes, 1):
        yield probe.from_ns / 1e9, f"p{at}-" if total > 1 else "", probe.answer


def _histograms(answer: Answer) -> Iterator[tuple[str, str]]:
    for kind in _KINDS:
        encoded = getattr(answer.hdr_v2, kind) if answer.hdr_v2 is not None else None
        if encoded:
            highest = max((value for value, _ in hdr.decode(encoded).steps()), default=0)
            yield kind, f"{highest / _NS_PER_MS:.3f},{encoded}"


def _seconds(started_at: str) -> float:
    try:
        return datetime.fromisoformat(started_at).timestamp()
    except ValueError:
        return 0.0

"""A comparison in words: the answer in a sentence, both sides, what limits what they say. Next: bench_compare.py."""

from __future__ import annotations

import math
import statistics

from headgate.bench.comparison import Comparison
from headgate.bench.rates import shown_seconds
from headgate.cli.output import Lines, Table
from headgate.cli.text import escape
from headgate.readable import percent


def comparison_view(found: Comparison) -> Lines:
    """What a person reads."""
    return [escape(found.sentence()), *_sides(found), *_statistics(found), *_notes(found)]


def _sides(found: Comparison) -> Lines:
    made = Table("", "VALUES", "MEDIAN", "LOWEST", "HIGHEST")
    for name, values in zip("AB", found.values, strict=True):
        if values:
            times = (statistics.median(values), min(values), max(values))
            made.row(name, len(values), *map(shown_seconds, times))
    return ["", *made.lines()] if any(found.values) else []


def _statistics(found: Comparison) -> Lines:
    said = []
    if found.noise is not None:
        said.append(f"the smallest margin that is decided beside the noise of A: {percent(found.noise)}")
    if found.p is not None and math.isfinite(found.p):
        said.append(f"p-value of their being equal: {found.p:.3g}")
    return ["", *said] if said else []


def _notes(found: Comparison) -> Lines:
    if found.ratio is None or not found.reasons:  # the sentence has them
        return []
    return ["", *(f"note: {escape(reason)}" for reason in found.reasons)]

"""The grammar of rates, durations and objectives' quantiles: ``200/s``, ``1.5ms``, ``p99.9``. Pure functions.

Every function raises ``ValueError`` with a sentence that says what would be right; the caller knows the path. Next: ``slo``.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

from headgate.documents.faults import quoted

MAX_RATE = 10_000_000.0
"""More requests a second than any generator here sends."""

MIN_RATE = 0.001
"""One request in a thousand seconds."""

MAX_NS = 24 * 3_600_000_000_000

_RATE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?/ ?(s|min|h)\Z")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")
_DURATION = re.compile(r"([0-9]{1,14}(?:\.[0-9]{1,9})?)(ns|us|ms|s|m|h)\Z")
_QUANTILE = re.compile(r"p([0-9]{1,9}(?:\.[0-9]{1,6})?)\Z")

_PER_SECOND = {"s": 1.0, "min": 1 / 60, "h": 1 / 3600}
_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def parse_rate(text: str) -> float:
    """A rate such as ``200/s``, ``90/min``, ``5000/h`` in requests a second."""
    match = _RATE.match(text.strip())
    if match is None:
        if text.strip().lower() in ("nan", "inf", "+inf", "-inf", ".nan", ".inf"):
            raise ValueError(f"{quoted(text)} is no rate: write {_range()}")
        if _NUMBER.match(text.strip()):
            raise ValueError(f'{quoted(text)} needs a unit, such as "{text.strip().lstrip("-+")}/s"')
        if text.strip().startswith("-"):
            raise ValueError(f"{quoted(text)} is negative: write {_range()}")
        raise ValueError(f'{quoted(text)} is not a rate: write a number and a unit, such as "200/s"')
    rate = float(match[1]) * _PER_SECOND[match[2]]
    if not MIN_RATE <= rate <= MAX_RATE:
        raise ValueError(f"{quoted(text)} is not in range: write {_range()}")
    return rate


def _range() -> str:
    return f"{MIN_RATE:g}/s to {MAX_RATE:,.0f}/s".replace(",", " ")


def format_rate(per_second: float) -> str:
    """``200/s``: the shortest text that :func:`parse_rate` reads back to nine digits."""
    return f"{per_second:.9f}".rstrip("0").rstrip(".") + "/s"


def shown_rate(per_second: float) -> str:
    """A rate for a person, three digits or more: ``812/s``, ``4.5/s``."""
    return f"{per_second:.0f}/s" if per_second >= 100 else f"{per_second:.3g}/s"


def shown_seconds(seconds: float) -> str:
    """A time for a person, three digits: ``1.24 s``, ``12.4 ms``, ``90.1 us``; ``unbounded`` if it is infinite."""
    if math.isinf(seconds):
        return "unbounded"
    if seconds >= 1:
        return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:.0f} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def parse_ns(text: str) -> int:
    """A duration such as ``500us``, ``15ms``, ``1.5s``, ``10m`` in nanoseconds, exactly; more than 0, at most a day."""
    match = _DURATION.match(text)
    if match is None:
        if _NUMBER.match(text):
            raise ValueError(f'{quoted(text)} needs a unit, such as "{text}ms" or "{text}s"')
        raise ValueError(
            f'{quoted(text)} is not a duration: write a number and a unit, such as "15ms", "30s", "10m"'
        )
    value = Decimal(match[1]) * _NS[match[2]]
    if value != int(value):
        raise ValueError(f"{quoted(text)} is finer than a nanosecond")
    if not 0 < value <= MAX_NS:
        raise ValueError(f"{quoted(text)} is not in range: write more than 0 and at most 24h")
    return int(value)


def format_ns(nanoseconds: int) -> str:
    """``15000000`` as ``15ms``: the largest unit that divides it; :func:`parse_ns` reads it back."""
    unit = next(u for u in ("h", "m", "s", "ms", "us", "ns") if nanoseconds % _NS[u] == 0)
    return f"{nanoseconds // _NS[unit]}{unit}"


def parse_quantile(text: str) -> float:
    """``p99.9`` as 0.999; p50 to p99.999."""
    match = _QUANTILE.match(text)
    if match is None:
        raise ValueError(f"{quoted(text)} is not a quantile: write p50, p90, p95, p99, p99.9")
    percent = Decimal(match[1])
    # p999 is how many write p99.9, and nothing else that is possible.
    if percent >= 100 and match[1].startswith("99") and "." not in match[1] and set(match[1]) == {"9"}:
        percent = percent / Decimal(10) ** (len(match[1]) - 2)
    if not Decimal(1) <= percent <= Decimal("99.999"):
        raise ValueError(f"{quoted(text)} is not in range: write p1 to p99.999")
    return float(percent / 100)


def format_quantile(quantile: float) -> str:
    """0.999 as ``p99.9``."""
    return f"p{round(quantile * 100, 6):g}"

"""Figures with units, for a person. Not here: the forms that documents are written in (``documents.values``)."""

from __future__ import annotations


def duration(microseconds: float) -> str:
    """``1.9 us``, ``12 ms``, ``0.2 s``, ``3.5 min``."""
    value, unit = _in_unit(microseconds)
    return f"{value} {unit}"


def durations(*microseconds: float) -> str:
    """Several of them, such as two quantiles: ``1.9/3.1 us``, and ``900 us/1.2 ms`` where the units differ."""
    pairs = [_in_unit(one) for one in microseconds]
    if len({unit for _, unit in pairs}) == 1:
        return f"{'/'.join(value for value, _ in pairs)} {pairs[0][1]}"
    return "/".join(f"{value} {unit}" for value, unit in pairs)


def size(count: float) -> str:
    """``900 B``, ``1.5 MiB``, ``12 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{_rounded(count)} {unit}"
        count /= 1024
    return f"{_rounded(count)} TiB"


def number(count: int) -> str:
    """``500``, ``10 000``."""
    return f"{count:,}".replace(",", " ")


def percent(share: float) -> str:
    """``0.42 %``, ``9.3 %``, ``12.5 %``, ``100 %``: two digits or three. What is less than all never reads as all."""
    if 0 < share < 0.0001:
        return "less than 0.01 %"
    if 0.9995 <= share < 1:
        return "more than 99.9 %"
    digits = 2 if share < 0.1 else 3
    return f"{share * 100:.{digits}g} %"


def figure(value: float) -> str:
    """A ratio with two digits: ``0.30``, ``8.4``, ``12``."""
    if value >= 100:
        return number(round(value))
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def evidence(value: float) -> str:
    """An e-value with two digits: ``1.8``, ``12``. Beyond a million its size says nothing more."""
    return "over 1 000 000" if value > 1_000_000 else figure(value)


def span(milliseconds: float) -> str:
    """A time that a person waits: ``45 s``, ``15 min``, ``3.2 h``, ``2.5 days``."""
    minutes = milliseconds / 60_000
    if minutes < 2:
        return f"{milliseconds / 1_000:.0f} s"
    if minutes < 90:
        return f"{minutes:.0f} min"
    if minutes < 48 * 60:
        return f"{minutes / 60:.2g} h"
    days = minutes / 1440
    return f"{days:.2g} days" if days < 10 else f"{number(round(days))} days"


def _in_unit(microseconds: float) -> tuple[str, str]:
    if microseconds < 1_000:
        return ("<0.1" if 0 < microseconds < 0.05 else _rounded(microseconds)), "us"
    if microseconds < 100_000:
        return _rounded(microseconds / 1e3), "ms"
    if microseconds < 120_000_000:
        return _rounded(microseconds / 1e6), "s"
    return _rounded(microseconds / 60e6), "min"


def _rounded(value: float) -> str:
    """Two digits or more, and no ``.0``."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}".removesuffix(".0")

"""Time as the control plane writes it: RFC 3339, UTC, whole seconds; the clock itself is always injected.

Not here: durations and monotonic time. Next: ``records``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

Clock: TypeAlias = Callable[[], datetime]
"""Gives the present time with a time zone."""

_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def utc_now() -> datetime:
    """The clock of production."""
    return datetime.now(UTC)


def stamp(when: datetime) -> str:
    """``2027-03-01T03:12:04Z``; stamps sort as text. ``when`` must carry a time zone."""
    if when.tzinfo is None:
        raise ValueError("a stamp needs a time with a time zone")
    return when.astimezone(UTC).strftime(_FORMAT)


def unstamp(text: str) -> datetime:
    """The inverse of :func:`stamp`."""
    return datetime.strptime(text, _FORMAT).replace(tzinfo=UTC)

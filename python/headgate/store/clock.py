"""Time as the store writes it: RFC 3339, UTC, microseconds of fixed width, so that stamps sort as text.

Not here: durations. Next: ``columns``.

A store has one clock (``Store.now``): the one that a test gives, else the process's on SQLite and the database's on PostgreSQL,
because the gateways that share a database must agree.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

Clock: TypeAlias = Callable[[], datetime]
"""Gives the present time with a time zone."""

_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"
_TO_SECONDS = len("2027-03-01T03:12:04")


def utc_now() -> datetime:
    """The clock of this process."""
    return datetime.now(UTC)


def stamp(when: datetime) -> str:
    """``2027-03-01T03:12:04.000000Z``. ``when`` must carry a time zone."""
    if when.tzinfo is None:
        raise ValueError("a stamp needs a time with a time zone")
    return when.astimezone(UTC).strftime(_FORMAT)


def unstamp(text: str) -> datetime:
    """The time of a stamp, with or without a fraction of a second."""
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        raise ValueError(f"{text!r} is no stamp: it needs a time zone")
    return when


def seconds(text: str) -> str:
    """A stamp as people read it: ``2027-03-01T03:12:04Z``."""
    return text[:_TO_SECONDS] + "Z"


class DatabaseClock:
    """The database's clock, carried on by this machine's monotonic one from the last time that the database told.

    So a wall clock that is set on this machine moves no stamp.
    """

    def __init__(self, told: datetime) -> None:
        """``told`` is the database's time of now."""
        self.set(told)

    def set(self, told: datetime) -> None:
        """The database has told its time again."""
        self._told = (told, time.monotonic())

    def __call__(self) -> datetime:
        """The present time."""
        told, at = self._told
        return told + timedelta(seconds=time.monotonic() - at)

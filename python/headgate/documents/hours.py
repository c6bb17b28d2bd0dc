"""Hours of the week in which a rollout may advance: ``mon-thu 09:00-16:00, fri 09:00-12:00 Europe/Berlin``.

A window holds from its first minute to the minute before its last, by the clocks of the time zone: a change of the clocks moves it.
Next: ``rollout``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from headgate.documents.faults import quoted

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MAX_WINDOWS = 20
_DAY_MINUTES = 24 * 60
_WINDOW = re.compile(r"(?:([a-z]{3})(?:-([a-z]{3}))? )?([0-2][0-9]):([0-5][0-9])-([0-2][0-9]):([0-5][0-9])\Z")
_EXAMPLE = '"mon-thu 09:00-16:00 Europe/Berlin"'


@dataclass(frozen=True)
class Window:
    """The days (0 is Monday) and the minutes of a day in which it is open; ``until`` is not in it."""

    days: tuple[int, ...]
    since: int
    until: int


@dataclass(frozen=True)
class Hours:
    """When a rollout may advance."""

    text: str
    windows: tuple[Window, ...]
    zone: str

    def is_open(self, now_ms: int) -> bool:
        """Whether some window is open at ``now_ms`` (milliseconds since 1970)."""
        local = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(ZoneInfo(self.zone))
        minute = local.hour * 60 + local.minute
        return any(
            local.weekday() in window.days and window.since <= minute < window.until
            for window in self.windows
        )

    def minutes_a_week(self) -> int:
        """How many minutes of a week are open, without those that two windows share."""
        open_minutes = {
            day * _DAY_MINUTES + minute
            for window in self.windows
            for day in window.days
            for minute in range(window.since, window.until)
        }
        return len(open_minutes)


def parse_hours(text: str) -> Hours:
    """Windows, separated by commas, and one time zone for all. ``ValueError`` says what would be right."""
    windows, space, zone = text.strip().rpartition(" ")
    if not space or _WINDOW.match(zone) or ":" in zone:
        raise ValueError(
            f"{quoted(text)} names no time zone: write for example {_EXAMPLE}, or UTC at its end"
        )
    _check_zone(zone)
    parts = [part.strip() for part in windows.split(",")]
    if len(parts) > MAX_WINDOWS:
        raise ValueError(f"has {len(parts)} windows; at most {MAX_WINDOWS} are read")
    return Hours(text.strip(), tuple(_window(part) for part in parts), zone)


def _check_zone(zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError(
            f"{quoted(zone)} is no time zone: write a name such as Europe/Berlin, or UTC"
        ) from None


def _window(text: str) -> Window:
    match = _WINDOW.match(text)
    if match is None:
        raise ValueError(f"{quoted(text)} is not a window of hours such as {_EXAMPLE}")
    first, last = match[1] or "mon", match[2] or match[1] or "sun"
    for day in (first, last):
        if day not in DAYS:
            raise ValueError(f"{quoted(day)} is no day: write {', '.join(DAYS)}")
    since, until = int(match[3]) * 60 + int(match[4]), int(match[5]) * 60 + int(match[6])
    if until > _DAY_MINUTES:
        raise ValueError(f"{quoted(text)} ends after 24:00")
    if until == since:
        raise ValueError(f"{quoted(text)} never opens: it ends when it begins")
    if until < since:
        raise ValueError(
            f"{quoted(text)} ends before it begins: write two windows, one until 24:00 and one from 00:00"
        )
    begin, end = DAYS.index(first), DAYS.index(last)
    return Window(tuple((begin + n) % 7 for n in range((end - begin) % 7 + 1)), since, until)

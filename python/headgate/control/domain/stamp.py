"""Who changes something, when and why. A value. Next: ``traffic``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Stamp:
    """Who changes something, when (RFC 3339) and why."""

    who: str
    when: str
    reason: str

    def told(self, what: str) -> str:
        """``Paused by ann: it is late.``"""
        why = self.reason.strip().rstrip(".")
        return f"{what} {self.who}: {why}." if why else f"{what} {self.who}."

    @property
    def ms(self) -> int:
        """When, in milliseconds since 1970."""
        return ms_of(self.when)


def ms_of(when: str) -> int:
    """A time (RFC 3339) in milliseconds since 1970."""
    return round(datetime.fromisoformat(when).timestamp() * 1000)

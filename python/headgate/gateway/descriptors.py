"""File descriptors: how many the process may have, and who gets how many of them.

A port that has used up the process's descriptors shuts out every other one, rollback included. So each has a share of
its own, and some are left for files. Next: connections.py, process.py.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass

MOST = 65_536
"""As many as the soft limit is raised to; it is never lowered."""
DATA_MOST = 10_000
LEAST = 256
"""Below this the shares are at their smallest and do not fit."""


@dataclass(frozen=True)
class Shares:
    """How one limit is shared out."""

    data: int
    """Connections of the data ports together."""
    control: int
    """Connections of each control-plane port."""


def raise_limit() -> int:
    """Raises the soft limit as far as the hard one and :data:`MOST` allow; returns what holds then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST
    wanted = MOST if hard == resource.RLIM_INFINITY else min(MOST, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


def share(limit: int) -> Shares:
    """What each may have, by the limit on open files."""
    control = _between(16, limit // 8, 512)
    # The store, models that are loaded, logs, the threads' own, and connections that are about to be counted.
    files = _between(96, limit // 8, 512)
    data = _between(16, limit - files - 2 * control, DATA_MOST)
    return Shares(data, control)


def _between(least: int, value: int, most: int) -> int:
    return max(least, min(value, most))

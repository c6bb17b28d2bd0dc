"""Waits for what a gateway does by itself: a loop that looks now and then, a load that ends."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Looks until it is true; the limit is there against hanging."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)

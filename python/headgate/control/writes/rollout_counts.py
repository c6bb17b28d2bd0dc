"""How often rollouts ended and were paused since the start, by endpoint and reason: made of the events that tell of them.

Not here: what is on a page of metrics (``observe.rollout_metrics``). Next: ``rollouts``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Mapping
from typing import TypeVar

from headgate.store import EventRecord

MOST_REASONS = 64
"""Reasons that are counted by themselves for each endpoint; gates may have any name, and further ones are counted as other."""
MOST_GONE = 100
"""Endpoints that are gone and keep their counts: how their last rollout ended is read after that."""
_OTHER = "other"
_Key = TypeVar("_Key", bound=Hashable)


class RolloutCounts:
    """The counts of one gateway. Belongs to one event loop."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self._ends: dict[str, Counter[tuple[str, str]]] = {}
        self._pauses: dict[str, Counter[str]] = {}
        self._newest: dict[str, tuple[str, str, str]] = {}
        """By endpoint: rollout, phase and reason that were counted last."""
        self._gone: dict[str, None] = {}
        """The endpoints that are gone, in the order in which that was seen."""

    def saw(self, event: EventRecord) -> None:
        """Counts what an event tells. An event of a change that did not come to be counts nothing."""
        told = event.data.get("rollout")
        endpoint = event.endpoint
        if event.type not in ("applied", "removed") or endpoint is None or not isinstance(told, Mapping):
            return
        now = (str(told["id"]), str(told["phase"]), str(told.get("reason") or ""))
        before, self._newest[endpoint] = self._newest.get(endpoint), now
        if now == before:
            return
        _, phase, reason = now
        if phase == "paused":
            _count(self._pauses.setdefault(endpoint, Counter()), reason, _OTHER)
        elif phase != "progressing":
            _count(self._ends.setdefault(endpoint, Counter()), (phase, reason), (phase, _OTHER))

    def ends(self) -> dict[tuple[str, str, str], int]:
        """By endpoint, phase and reason."""
        return {(name, *key): count for name, counts in self._ends.items() for key, count in counts.items()}

    def pauses(self) -> dict[tuple[str, str], int]:
        """By endpoint and reason."""
        return {(name, key): count for name, counts in self._pauses.items() for key, count in counts.items()}

    def keep(self, present: Collection[str]) -> None:
        """Forgets the endpoints that are not ``present``, but for those that went last: a counter that ends with its endpoint would hide
        how the rollout ended.
        """
        for name in self._newest:
            if name in present:
                self._gone.pop(name, None)
            else:
                self._gone.setdefault(name)
        while len(self._gone) > MOST_GONE:
            oldest = next(iter(self._gone))
            del self._gone[oldest]
            for counts in (self._ends, self._pauses, self._newest):
                counts.pop(oldest, None)


def _count(counts: Counter[_Key], key: _Key, other: _Key) -> None:
    counts[key if key in counts or len(counts) < MOST_REASONS else other] += 1

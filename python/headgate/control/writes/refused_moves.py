"""Moves of rollouts that were not carried out: why, and when they are tried again.

A look comes every two seconds, and a move that the data plane refuses leaves a failed revision each time. So it is tried less and less
often, and what is refused for good is told to the rollout, which pauses. Kept in memory: a start tries once more. Next: ``rollouts``.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from headgate.control.domain.revision import Kind
from headgate.control.domain.rollout.actions import Advance
from headgate.control.domain.rollout.state import RolloutState
from headgate.control.writes.rollout_decisions import is_urgent, kind_of
from headgate.errors import HeadgateError

FIRST_PAUSE_SECONDS = 4.0
LONGEST_PAUSE_SECONDS = 600.0
LONGEST_URGENT_SECONDS = 60.0
"""Of a rollback or an abort: the challenger has its traffic meanwhile."""
_LASTING = frozenset({"model_load_failed", "policy_invalid"})
"""Codes of what the data plane refuses again, until a person does something about it."""


@dataclass(frozen=True)
class _Refused:
    """``state`` is what the move would have led from, ``times`` how often it was refused in a row. ``lasting`` says what was refused for
    good from that state; it stays while other moves are refused.
    """

    state: RolloutState
    kind: Kind
    why: str
    times: int
    again_ms: int
    lasting: str | None


class RefusedMoves:
    """The newest refused move of each endpoint. Belongs to one event loop."""

    def __init__(self) -> None:
        """Nothing was refused."""
        self._refused: dict[str, _Refused] = {}

    def note(
        self,
        endpoint: str,
        move: tuple[RolloutState, Advance],
        error: HeadgateError,
        now_ms: int,
        *,
        is_left: bool,
    ) -> None:
        """A move from a state was refused; ``is_left`` says that it left a revision."""
        (state, advanced), known = move, self._of(endpoint, move[0])
        kind = kind_of(advanced)
        times = known.times + 1 if known is not None and known.kind == kind else 1
        longest = LONGEST_URGENT_SECONDS if is_urgent(advanced) else LONGEST_PAUSE_SECONDS
        # More doublings than these are longer than any pause.
        pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(times - 1, 20), longest) if is_left else 0.0
        lasting = None if known is None else known.lasting
        if lasting is None and is_left and error.code in _LASTING:
            lasting = error.message
        again_ms = now_ms + round(pause * 1000)
        self._refused[endpoint] = _Refused(state, kind, error.message, times, again_ms, lasting)

    def carried_out(self, endpoint: str) -> None:
        """The newest move was not refused."""
        self._refused.pop(endpoint, None)

    def keep(self, endpoints: Container[str]) -> None:
        """Forgets those of all other endpoints."""
        self._refused = {name: one for name, one in self._refused.items() if name in endpoints}

    def waits(self, endpoint: str, state: RolloutState, advanced: Advance, now_ms: int) -> bool:
        """Whether the same move was refused just now."""
        known = self._of(endpoint, state)
        return known is not None and known.kind == kind_of(advanced) and now_ms < known.again_ms

    def why(self, endpoint: str, state: RolloutState) -> str | None:
        """Why the newest move from that state was refused; None: it was not."""
        known = self._of(endpoint, state)
        return None if known is None else known.why

    def lasting(self, endpoint: str, state: RolloutState) -> str | None:
        """What keeps every next step from being entered; None: nothing does, as far as is known."""
        known = self._of(endpoint, state)
        return None if known is None else known.lasting

    def _of(self, endpoint: str, state: RolloutState) -> _Refused | None:
        known = self._refused.get(endpoint)
        return known if known is not None and known.state == state else None

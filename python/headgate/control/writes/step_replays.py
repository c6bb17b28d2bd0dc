"""The replays that steps of rollouts ask for: each is begun once for its key, and followed by its number.

What is known of them is in memory: a stop loses the replay itself, and the step that is repeated asks for another one.
Not here: replays (``replays``). Next: ``rollouts``.
"""

from __future__ import annotations

from dataclasses import dataclass

from headgate.control.domain.calls import Call
from headgate.control.domain.rollout.actions import StartReplay
from headgate.control.domain.rollout.observation import Replay
from headgate.control.writes.replays import ReplayRequest, Replays
from headgate.errors import HeadgateError


@dataclass(frozen=True)
class _Begun:
    key: str
    number: int
    problem: str = ""


class StepReplays:
    """The newest replay of each endpoint's rollout."""

    def __init__(self, replays: Replays) -> None:
        """``replays`` runs them."""
        self._replays = replays
        self._begun: dict[str, _Begun] = {}

    async def begin(self, endpoint: str, challenger: str, asked: StartReplay) -> None:
        """Begins a replay, unless it was begun. One that cannot begin is a failed one: the step says why."""
        known = self._begun.get(endpoint)
        if known is not None and known.key == asked.key:
            return
        request = ReplayRequest(challenger, max_requests=asked.requests)
        try:
            number = await self._replays.begin(
                endpoint, request, Call("headgate", reason=f"replay {asked.key}")
            )
        except HeadgateError as error:
            self._begun[endpoint] = _Begun(asked.key, 0, error.message)
            return
        self._begun[endpoint] = _Begun(asked.key, number)

    async def seen(self, endpoint: str) -> Replay | None:
        """How far the newest one is; None if none was begun since the start."""
        begun = self._begun.get(endpoint)
        if begun is None:
            return None
        if begun.problem:
            return Replay(key=begun.key, state="failed", problem=begun.problem)
        report = await self._replays.get(endpoint, begun.number)
        pairs = int(report.get("pairs", 0))
        if report["state"] == "running":
            return Replay(key=begun.key, state="running", pairs=pairs)
        if report["state"] == "done":
            return Replay(key=begun.key, state="done", pairs=pairs)
        problem = report["error"] or f"it was {report['state']}"
        return Replay(key=begun.key, state="failed", pairs=pairs, problem=problem)

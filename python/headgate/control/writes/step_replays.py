"""The replays that steps of rollouts ask for: each is begun once for its key, followed by its number, and ended with its step.

What is known of them is in memory: a stop loses the replay itself, and the step that is repeated asks for another one.
Not here: replays (``replays``), what they say of gates (``domain.rollout.compared``). Next: ``rollouts``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from headgate.control.domain.calls import Call
from headgate.control.domain.revision import Revision
from headgate.control.domain.rollout.actions import StartReplay
from headgate.control.domain.rollout.compared import replay_seen
from headgate.control.domain.rollout.missing import replay_key
from headgate.control.domain.rollout.observation import Replay
from headgate.control.domain.rollout.state import RolloutState
from headgate.control.writes.replays import ReplayRequest, Replays
from headgate.errors import HeadgateError, NotFound, PolicyInvalid

_LATER = frozenset({"overloaded", "model_not_ready", "draining"})
"""Codes of errors that go away by themselves: each look tries again."""


@dataclass(frozen=True)
class _Begun:
    """``number`` is None while the data plane is asked to begin it, and 0 if that failed."""

    key: str
    number: int | None = None
    problem: str = ""
    waits: bool = False
    ended: bool = False


class StepReplays:
    """The newest replay of each endpoint's rollout. Belongs to one event loop."""

    def __init__(self, replays: Replays) -> None:
        """``replays`` runs them."""
        self._replays = replays
        self._begun: dict[str, _Begun] = {}

    async def refused(self, current: Revision, challenger: str) -> str | None:
        """Why captured requests cannot be put to a version of an endpoint, in words; None: they can, as far as is known now.

        No version is asked. What may be otherwise once the step begins (room for a replay, memory) is no reason.
        """
        try:
            await self._replays.check(current.endpoint, _request(current, challenger, 0))
        except PolicyInvalid as error:
            return _why(error)
        except HeadgateError:
            # A challenger that was rejected is loaded by the retry; the step says what it finds then.
            return None
        return None

    async def begin(self, current: Revision, asked: StartReplay) -> None:
        """Begins a replay, unless it was begun. One that cannot begin is a failed one, or waits: the step says why."""
        endpoint, rollout = current.endpoint, current.traffic.rollout
        known = self._begun.get(endpoint)
        if rollout is None or (known is not None and known.key == asked.key and not known.waits):
            return
        marked = _Begun(asked.key)
        self._begun[endpoint] = marked
        if known is not None:
            await self._end(endpoint, known)
        request = _request(current, rollout.challenger.name, asked.requests)
        call = Call("headgate", reason=f"rollout {rollout.id}: {asked.requests} captured requests")
        try:
            begun = replace(marked, number=await self._replays.begin(endpoint, request, call))
        except HeadgateError as error:
            begun = replace(marked, number=0, problem=_why(error), waits=error.code in _LATER)
        if self._begun.get(endpoint) is marked:
            self._begun[endpoint] = begun
        else:
            # Another one was asked for meanwhile.
            await self._end(endpoint, begun)

    async def seen(self, endpoint: str, rollout: RolloutState) -> Replay | None:
        """How far the replay of the present step is; None if none was begun for it since the start."""
        begun = self._begun.get(endpoint)
        if begun is None or begun.key != replay_key(rollout):
            return None
        if begun.problem:
            return Replay(key=begun.key, state="waiting" if begun.waits else "failed", problem=begun.problem)
        if begun.number is None:
            return Replay(key=begun.key, state="running")
        try:
            report = await self._replays.get(endpoint, begun.number)
        except NotFound as error:
            return Replay(key=begun.key, state="failed", number=begun.number, problem=error.message)
        return replay_seen(begun.key, rollout, report)

    async def end_others(self, rollouts: Mapping[str, RolloutState]) -> None:
        """Ends the replays that no rollout among those under way waits for: their steps were left, paused or given up."""
        for endpoint, begun in list(self._begun.items()):
            rollout = rollouts.get(endpoint)
            if rollout is not None and rollout.replays and replay_key(rollout) == begun.key:
                continue
            if begun.number is None:
                # It is being begun: the next turn knows its number.
                continue
            await self._end(endpoint, begun)
            if self._begun.get(endpoint) is not begun:
                continue
            if rollout is None:
                del self._begun[endpoint]
            else:
                # What it found counts for a step that is paused.
                self._begun[endpoint] = replace(begun, ended=True)

    async def _end(self, endpoint: str, begun: _Begun) -> None:
        if begun.number and not begun.ended:
            await self._replays.end(endpoint, begun.number)


def _why(error: HeadgateError) -> str:
    """What is refused. The advice after it is for a caller of a replay, who names a version and a time, as a rollout does not."""
    return error.message.partition("; ")[0] if isinstance(error, PolicyInvalid) else error.message


def _request(current: Revision, challenger: str, requests: int) -> ReplayRequest:
    """Compared as the document compares the challenger's copies, if it shadows it."""
    shadow = next((one for one in current.spec.traffic.shadow if one.to == challenger), None)
    written = {} if shadow is None else shadow.model_extra or {}
    return ReplayRequest(
        challenger,
        max_requests=requests,
        compare=written.get("compare"),
        timeout_ms=written.get("timeout"),
    )

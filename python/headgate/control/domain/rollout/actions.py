"""What a transition asks a driver to do. Values; at most one of them moves traffic. Next: ``missing``.

The state that comes with the actions is the state after them: it is written together with what they change, in one transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from headgate.control.domain.rollout.state import GateStatus, PauseReason, Progress, RolloutState

Event = Literal["start", "step", "pause", "resume", "approve", "promote", "rollback", "abort"]


@dataclass(frozen=True)
class SetTraffic:
    """The challenger gets exactly this weight and this share of copies, in slots."""

    weight: int
    shadow: int


@dataclass(frozen=True)
class GiveBack:
    """Champion, table and salt as they were before the rollout; nothing is blocked."""


@dataclass(frozen=True)
class Promote:
    """The challenger becomes champion."""

    words: str
    gates: tuple[GateStatus, ...] = ()


@dataclass(frozen=True)
class Rollback:
    """As :class:`GiveBack`, and the challenger's digest is blocked; ``words`` are the reason with its numbers."""

    reason: str
    words: str
    gates: tuple[GateStatus, ...] = ()


@dataclass(frozen=True)
class Paused:
    """The rollout waits for a person. It moves nothing."""

    reason: PauseReason
    words: str


@dataclass(frozen=True)
class StartReplay:
    """Put captured requests to the challenger. The same ``key`` is the same replay: asking twice begins one."""

    key: str
    requests: int


@dataclass(frozen=True)
class Notify:
    """Tell people. ``who`` is empty if the evidence decided."""

    event: Event
    words: str
    who: str = ""


Move = SetTraffic | GiveBack | Promote | Rollback
Action = Move | Paused | StartReplay | Notify


class Advance(NamedTuple):
    """A state, what was counted in its step, and what it asks for."""

    state: RolloutState
    progress: Progress
    actions: tuple[Action, ...] = ()

    @property
    def move(self) -> Move | None:
        """The action that moves traffic, if there is one."""
        return next((one for one in self.actions if isinstance(one, Move)), None)

    @property
    def said(self) -> str | None:
        """What people are told; None: there is nothing to tell."""
        return next((one.words for one in self.actions if isinstance(one, Notify)), None)

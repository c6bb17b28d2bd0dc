"""What a start does about a rollout before its endpoint is served: takes traffic away after an unclean end, repeats the step otherwise.

Not here: how a start goes on (``start_recovery``), what follows (``domain.rollout.interruptions``). Next: ``start_recovery``.
"""

from __future__ import annotations

from dataclasses import dataclass

from headgate.control.domain.calls import Call
from headgate.control.domain.revision import Revision
from headgate.control.domain.rollout import interruptions
from headgate.control.domain.rollout.actions import Advance
from headgate.control.domain.rollout.state import RolloutState
from headgate.control.domain.stamp import Stamp
from headgate.control.writes.context import Context
from headgate.control.writes.decisions import Decisions
from headgate.control.writes.endpoint import EndpointState, Row
from headgate.control.writes.rollout_decisions import RolloutMove
from headgate.control.writes.transition import commit_of, prepare

_RESTARTED = "the gateway was restarted: the step begins anew"


@dataclass(frozen=True)
class Interrupted:
    """The revision to serve in the place of the stored one, and its row, which is written behind: a full disk keeps nothing from
    being served.
    """

    revision: Revision
    row: Row


class Interruptions:
    """Decides for each endpoint of a start."""

    def __init__(self, context: Context, decisions: Decisions) -> None:
        """Until :meth:`ended` says otherwise, the last end was unclean."""
        self._context = context
        self._decisions = decisions
        self._clean = False

    def ended(self, *, clean: bool) -> None:
        """How the gateway before this one ended."""
        self._clean = clean

    def of(self, state: EndpointState) -> Interrupted | None:
        """What becomes of the endpoint's revision (``state.current``), which is not served yet; None: it is served as it is."""
        rollout = None if state.current is None else state.current.traffic.rollout
        if rollout is None or not rollout.active:
            return None
        crashed = rollout.exposed and not self._clean
        if not crashed and rollout.phase == "paused":
            # A resume begins its step anew.
            return None
        now, said = self._context.now(), _RESTARTED
        ms = Stamp("headgate", now, "").ms

        def move(present: RolloutState) -> Advance:
            return (interruptions.crashed if crashed else interruptions.restarted)(present, ms)

        if crashed:
            said = move(rollout).said or said
        decide = RolloutMove(self._decisions, move, Stamp("headgate", now, said), frozen_too=True)
        transition = prepare(self._context, state, Call("headgate", reason=said), decide(state))
        state.tail = transition.revision.n
        return Interrupted(
            transition.revision, Row(transition.proposal, commit_of(self._context, transition, "applied"))
        )

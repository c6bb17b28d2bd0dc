"""What a start does about a rollout before its endpoint is served: takes traffic away after an unclean end, repeats the step otherwise.

Not here: how a start goes on (``start_recovery``), what follows (``domain.rollout.interruptions``). Next: ``start_recovery``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headgate.control.domain.calls import Call
from headgate.control.domain.revision import Revision, read_revision
from headgate.control.domain.rollout import interruptions
from headgate.control.domain.rollout.actions import Advance
from headgate.control.domain.rollout.state import RolloutState
from headgate.control.domain.stamp import Stamp
from headgate.control.writes.context import Context
from headgate.control.writes.decisions import Decisions
from headgate.control.writes.endpoint import EndpointState, Row
from headgate.control.writes.rollout_decisions import RolloutMove
from headgate.control.writes.transition import commit_of, prepare
from headgate.errors import StorageFailed
from headgate.store import RevisionRecord

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

    def of(self, state: EndpointState, proposed: Sequence[RevisionRecord] = ()) -> Interrupted | None:
        """What becomes of the endpoint's revision (``state.current``), which is not served yet; None: it is served as it is. Those
        that were ``proposed`` and not confirmed may have been served when the gateway ended.
        """
        rollout = None if state.current is None else state.current.traffic.rollout
        if rollout is None or not rollout.active:
            return None
        unconfirmed = not rollout.exposed and any(_exposes(one, rollout) for one in proposed)
        crashed = (rollout.exposed or unconfirmed) and not self._clean
        if not crashed and rollout.phase == "paused" and not rollout.shadow:
            # A resume begins its step anew. The copies of a paused step are still judged, and are counted anew from now on.
            return None
        now, said = self._context.now(), _RESTARTED
        ms = Stamp("headgate", now, "").ms

        def move(present: RolloutState) -> Advance:
            if crashed:
                return interruptions.crashed(present, ms, unconfirmed=unconfirmed)
            return interruptions.restarted(present, ms)

        if crashed:
            said = move(rollout).said or said
        decide = RolloutMove(self._decisions, move, Stamp("headgate", now, said), frozen_too=True)
        transition = prepare(self._context, state, Call("headgate", reason=said), decide(state))
        state.tail = transition.revision.n
        return Interrupted(
            transition.revision, Row(transition.proposal, commit_of(self._context, transition, "applied"))
        )


def _exposes(record: RevisionRecord, rollout: RolloutState) -> bool:
    """Whether a revision gives the challenger of that rollout requests or copies. A replay begins once its step is confirmed."""
    try:
        then = read_revision(record.body).traffic.rollout
    except StorageFailed:
        # A doubt counts as a crash.
        return True
    if then is None or then.id != rollout.id:
        return False
    return then.weight > 0 or then.shadow > 0 or then.phase == "promoted"

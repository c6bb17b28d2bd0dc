"""What a rollout's moves mean: from the state of an endpoint to the decision on its next revision.

Not here: what a rollout decides (``domain.rollout``), when anything is asked (``rollouts``). Next: ``observing``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from headgate.control.domain.revision import EMERGENCIES, Kind, Revision
from headgate.control.domain.rollout import moves
from headgate.control.domain.rollout.actions import Advance, Notify, SetTraffic
from headgate.control.domain.rollout.state import RolloutState
from headgate.control.domain.stamp import Stamp
from headgate.control.writes.decisions import Decisions, decision_of, not_frozen
from headgate.control.writes.endpoint import EndpointState, present
from headgate.control.writes.transition import Decision
from headgate.errors import Conflict

Move = Callable[[RolloutState], Advance]
"""What is asked of a rollout that is under way."""


def kind_of(advanced: Advance) -> Kind:
    """The kind of the revision that an advance becomes."""
    event = next((one.event for one in advanced.actions if isinstance(one, Notify)), "step")
    return cast(Kind, f"rollout_{event}")


def is_urgent(advanced: Advance) -> bool:
    """Whether it is carried out as an emergency call is: also while the endpoint is frozen, whatever the disk does."""
    return kind_of(advanced) in EMERGENCIES


def rollout_of(revision: Revision) -> RolloutState:
    """The newest rollout of an endpoint; :class:`Conflict` if it never had one."""
    rollout = revision.traffic.rollout
    if rollout is None:
        raise Conflict(
            f"{revision.endpoint} has no rollout: start one (headgate rollout start {revision.endpoint} VERSION)"
        )
    return rollout


class RolloutStart:
    """The ``decide`` of a start; ``advanced`` is what it decided last."""

    def __init__(self, decisions: Decisions, wanted: moves.Wanted, stamp: Stamp) -> None:
        """``wanted`` names challenger and plan."""
        self._decisions = decisions
        self._wanted = wanted
        self._stamp = stamp
        self.advanced: Advance | None = None

    def __call__(self, state: EndpointState) -> Decision:
        """The decision on an endpoint as it is now."""
        before = present(state)
        not_frozen(state.name, before)
        gone = sorted(self._wanted.plan.feedback - before.spec.feedback.keys())
        if gone:
            # It was there when the start was looked at.
            raise Conflict(
                f"{state.name} does not declare feedback {', '.join(gone)} any more, which gates of plan {self._wanted.plan.name} "
                "rest on: declare it again (feedback:), or start with another plan"
            )
        known = self._decisions.known_versions(state, before)
        change, self.advanced = moves.begin(before.traffic, self._wanted, known, self._stamp)
        decision = decision_of("rollout_start", change, state, before.moved(change.live))
        name = self._wanted.challenger
        # A retry lifts a block, and what was blocked was not loaded.
        return replace(decision, subject=name, needed=decision.needed | {name}, serves_more=True)


class RolloutChanged(Conflict):
    """The rollout is not the one that a move was decided on."""


class RolloutMove:
    """The ``decide`` of what is asked of a rollout; ``advanced`` is what it decided last.

    With ``expected`` it raises :class:`RolloutChanged` if the rollout is not that any more: it was decided on what was seen then. A
    freeze holds all but emergencies, unless ``frozen_too``.
    """

    def __init__(
        self,
        decisions: Decisions,
        move: Move,
        stamp: Stamp,
        expected: RolloutState | None = None,
        *,
        frozen_too: bool = False,
    ) -> None:
        """``stamp`` says who asks, when and why."""
        self._frozen_too = frozen_too
        self._decisions = decisions
        self._move = move
        self._stamp = stamp
        self._expected = expected
        self.advanced: Advance | None = None

    def __call__(self, state: EndpointState) -> Decision:
        """The decision on an endpoint as it is now."""
        before = present(state)
        rollout = rollout_of(before)
        if self._expected is not None and rollout != self._expected:
            raise RolloutChanged(
                f"rollout {rollout.id} of {state.name} changed meanwhile: it is looked at again"
            )
        advanced = self._move(rollout)
        kind = kind_of(advanced)
        if kind not in EMERGENCIES and not self._frozen_too:
            not_frozen(state.name, before)
        known = self._decisions.known_versions(state, before)
        change = moves.carry_out(before.traffic, advanced, known, self._stamp)
        self.advanced = advanced
        decision = decision_of(kind, change, state, before.moved(change.live))
        move, name = advanced.move, rollout.challenger.name
        gives = isinstance(move, SetTraffic) and (move.weight or move.shadow)
        return replace(decision, subject=name, needed=decision.needed | ({name} if gives else set()))

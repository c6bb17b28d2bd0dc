"""Emergency calls: decide, hand to the data plane, answer. The disk is asked last, and not waited for long.

Not here: ordinary writes (``writer``), the writing of the rows (``write_behind``). Next: ``service``.

    decide (in memory)  ->  data plane: ticket ... event  ->  answer
                                 \\->  store, in order: proposed, then applied | failed

Nothing on the way from the call to the data plane waits for the store, for a parser, or for another endpoint.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace

from headgate.control.domain.calls import Call
from headgate.control.domain.results import Result
from headgate.control.domain.shares import Table
from headgate.control.domain.traffic import LiveTraffic
from headgate.control.writes.context import Context
from headgate.control.writes.endpoint import EmergencyInFlight, EndpointState, Row
from headgate.control.writes.tickets import Event
from headgate.control.writes.transition import (
    Decide,
    Transition,
    argument_of,
    commit_of,
    hand_over,
    prepare,
    result_of,
)
from headgate.control.writes.write_behind import WriteBehind
from headgate.errors import Conflict, Draining, HeadgateError, Internal, from_code
from headgate.store import EventRecord, RevisionStatus

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Attempt:
    """What became of a decision: its row, if it changes something, and why it is not in force."""

    transition: Transition
    row: Row | None = None
    refused: HeadgateError | None = None


class _Overtaken(Conflict):
    """A newer emergency call was in force first."""


class Emergency:
    """Carries emergency calls out. None waits for the load of another one, unless both want the same."""

    def __init__(self, context: Context, behind: WriteBehind) -> None:
        """``behind`` writes the rows."""
        self._context = context
        self._behind = behind

    async def write(self, state: EndpointState, call: Call, decide: Decide) -> Result:
        """Carries one call out. ``decide`` sees what is served, and nothing of what a call in flight may lead to.

        A call that another one passed is decided again, on what that one left: none is lost.
        """
        while True:
            attempt = await self._attempt(state, call, decide)
            if attempt is None:
                continue
            if not (isinstance(attempt.refused, _Overtaken) and await self._was_passed(attempt.transition)):
                return await self._answer(attempt)
            self._behind.wake()

    async def _answer(self, attempt: _Attempt) -> Result:
        transition, row = attempt.transition, attempt.row
        if transition.call.dry_run:
            return result_of(transition, "planned")
        durable = await self._behind.settled(transition.state)
        if attempt.refused is not None:
            attempt.refused.audited = True
            raise attempt.refused
        if row is not None and row in transition.state.unsaved:
            self._answered_without(transition, row)
        status = "applied" if row is not None else transition.decision.status
        return result_of(transition, status, durable=durable)

    async def _attempt(self, state: EndpointState, call: Call, decide: Decide) -> _Attempt | None:
        """Decides and carries out; ``None``: it must be decided again, because something else came meanwhile."""
        async with state.step:
            self._context.tickets.pump()
            transition = prepare(self._context, state, call, decide(state))
            if not transition.changes:
                return _Attempt(transition)
            ahead = next((one for one in state.emergencies if _must_wait(one, transition)), None)
            if ahead is None:
                flight = EmergencyInFlight(transition.revision)
                state.emergencies.append(flight)
        if ahead is not None:
            await ahead.over.wait()
            return None
        try:
            return await self._carry_out(transition, flight)
        finally:
            state.emergencies.remove(flight)
            flight.over.set()

    async def _carry_out(self, transition: Transition, flight: EmergencyInFlight) -> _Attempt | None:
        """Hands a decision over and waits for its outcome; ``None`` if what it was decided on has changed before.

        The row of a call that a stop cuts off stays proposed: the next start completes it.
        """
        state, n = transition.state, transition.revision.n
        argument, refused = await self._argument(transition)
        async with state.step:
            self._context.tickets.pump()
            if state.current is not transition.before or state.tail != n - 1:
                return None
            try:
                future = None if refused else hand_over(self._context, transition, argument, confirms=False)
            except Draining:
                raise
            except HeadgateError as error:
                future, refused = None, error
            row = Row(transition.proposal)
            state.tail = n
            state.unsaved.append(row)
            if _is_only_recorded(transition):
                for one in state.emergencies:
                    if one is not flight:
                        state.passed.add(one.revision.n)
                        one.passed.set()
        if future is not None:
            # A load may take minutes: should the gateway die meanwhile, the next start completes what is written of it.
            self._behind.wake()
            refused = await self._outcome(transition, flight, future)
        status = _status(refused)
        row.commit = commit_of(
            self._context, transition, status, None if refused is None else refused.message
        )
        return _Attempt(transition, row, refused)

    async def _argument(self, transition: Transition) -> tuple[bytes | None, HeadgateError | None]:
        """What the data plane is told, or why there is no such thing."""
        try:
            if _is_only_recorded(transition):
                return None, None
            return await argument_of(self._context.urgent, self._context, transition, urgent=True), None
        except Draining:
            raise
        except HeadgateError as error:
            return None, error

    async def _outcome(
        self, transition: Transition, flight: EmergencyInFlight, future: asyncio.Future[Event]
    ) -> HeadgateError | None:
        """Why it is not served, or ``None``. Versions that do not load are left out one by one, as far as possible."""
        again: asyncio.Future[Event] | None = future
        try:
            while again is not None and (event := await flight.first(again)) is not None:
                if event["event"] != "failed" or not transition.leaves_out(
                    event.get("version"), event["message"]
                ):
                    return _refused(transition, event)
                again = await self._handed_over_again(transition)
        except Draining:
            raise
        except HeadgateError as error:
            return error
        except Exception as error:
            _log.exception("%s: the outcome of %s is not known", transition.state.name, transition.revision.n)
            return Internal(f"{transition.state.name}: a defect of Headgate: {error!r}")
        return _overtaken(transition)

    async def _handed_over_again(self, transition: Transition) -> asyncio.Future[Event] | None:
        """``None`` if a newer call was handed over meanwhile: this one must not replace it."""
        state = transition.state
        argument = await argument_of(self._context.urgent, self._context, transition, urgent=True)
        async with state.step:
            self._context.tickets.pump()
            if state.tail > transition.revision.n:
                return None
            return hand_over(self._context, transition, argument, confirms=False)

    async def _was_passed(self, transition: Transition) -> bool:
        """Whether newer calls were handed over; waits until none of them is in flight, since they have the say meanwhile."""
        state, n = transition.state, transition.revision.n
        while later := [one for one in state.emergencies if one.revision.n > n]:
            await later[0].over.wait()
        return state.tail > n

    def _answered_without(self, transition: Transition, row: Row) -> None:
        """Tells people at once; the store would not take an alarm either."""
        state, revision, call = transition.state, transition.revision, transition.call
        row.late = row.told = True
        message = f"revision {revision.n} is served but could not be written to disk"
        _log.error("%s: %s", state.name, message)
        now = self._context.now()
        alarm = EventRecord("alarm", now, state.name, revision.n, "headgate", "", {"message": message})
        told = commit_of(self._context, transition, "applied").events
        self._context.publish([alarm, *(replace(event, generation=0) for event in told)])
        _log.info("%s by %s: it is written as soon as the store takes it", revision.kind, call.principal)


def _must_wait(flight: EmergencyInFlight, transition: Transition) -> bool:
    """Whether a call waits for the outcome of one in flight, and is decided then.

    It does if both want the same: a second load of the same versions would only replace the first one. And it does if nothing is
    served and it takes something away that the other one may be loading: there is nothing to stop meanwhile.
    """
    one, other = flight.revision, transition.revision
    if one.kind == other.kind and _effect(one.traffic) == _effect(other.traffic):
        return True
    return not transition.state.loaded and other.kind == "block" and not transition.decision.serves_more


def _is_only_recorded(transition: Transition) -> bool:
    """Whether a call changes nothing that is loaded or loads, and passes those in flight; they are decided again on what it leaves."""
    state = transition.state
    others = any(one.revision is not transition.revision for one in state.emergencies)
    return others and not state.loaded and not transition.decision.serves_more


def _effect(live: LiveTraffic) -> tuple[str, Table, frozenset[str], bool]:
    return (
        live.champion,
        live.table,
        frozenset(block.digest for block in live.blocked),
        live.frozen is not None,
    )


def _status(refused: HeadgateError | None) -> RevisionStatus:
    if refused is None:
        return "applied"
    return "superseded" if isinstance(refused, _Overtaken) else "failed"


def _refused(transition: Transition, event: Event) -> HeadgateError | None:
    """What became of it other than that it is served."""
    state, n = transition.state, transition.revision.n
    if event["event"] == "failed":
        detail = {"version": event.get("version"), "revision": n}
        return from_code(event["code"], f"{state.name}: {event['message']}", detail)
    if event["event"] == "superseded" or n in state.overtaken:
        state.overtaken.discard(n)
        return _overtaken(transition)
    return None


def _overtaken(transition: Transition) -> _Overtaken:
    state, n = transition.state, transition.revision.n
    by = f" by revision {state.tail}" if state.tail > n else ""
    return _Overtaken(f"{state.name}: revision {n} was overtaken{by} and is not in effect: read it again")

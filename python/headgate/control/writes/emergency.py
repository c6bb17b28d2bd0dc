"""Emergency calls: decide, hand to the data plane, answer. The disk is asked last, and not waited for long.

Not here: ordinary writes (``writer``), the writing of the rows (``write_behind``). Next: ``service``.

    decide (in memory)  ->  data plane: ticket ... event  ->  answer
                                 \\->  store, in order: proposed, then applied | failed

Nothing on the way from the call to the data plane waits for the store, for a parser, or for another endpoint.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from headgate.control.domain.calls import Call
from headgate.control.domain.results import Result
from headgate.control.writes.context import Context
from headgate.control.writes.endpoint import EndpointState, Row
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


class Emergency:
    """Carries emergency calls out, one per endpoint at a time."""

    def __init__(self, context: Context, behind: WriteBehind) -> None:
        """``behind`` writes the rows."""
        self._context = context
        self._behind = behind

    async def write(self, state: EndpointState, call: Call, decide: Decide) -> Result:
        """Carries one call out. ``decide`` runs when the one before it is over, and sees what that left."""
        refused: HeadgateError | None = None
        row: Row | None = None
        if call.dry_run:
            await self._context.facts.refresh(state)
        async with state.step:
            self._context.tickets.pump()
            transition = prepare(self._context, state, call, decide(state))
            if transition.changes:
                row, refused = await self._carry_out(transition)
        if call.dry_run:
            return result_of(transition, "planned")
        durable = await self._behind.settled(state)
        if refused is not None:
            refused.audited = True
            raise refused
        if row is not None and row in state.unsaved:
            self._answered_without(transition, row)
        status = "applied" if row is not None else transition.decision.status
        return result_of(transition, status, durable=durable)

    async def _carry_out(self, transition: Transition) -> tuple[Row, HeadgateError | None]:
        """The revision's row, and why it is not in force.

        The row of a call that a stop cuts off stays proposed: the next start completes it.
        """
        state, row = transition.state, Row(transition.proposal)
        refused: HeadgateError | None = None
        try:
            future = await self._handed_over(transition)
        except Draining:
            raise
        except HeadgateError as error:
            refused = error
        state.tail = transition.revision.n
        state.unsaved.append(row)
        if refused is None:
            # A load may take minutes: should the gateway die meanwhile, the next start completes what is written of it.
            self._behind.wake()
            refused = await self._outcome(transition, future)
        status: RevisionStatus = "applied" if refused is None else "failed"
        message = None if refused is None else refused.message
        row.commit = commit_of(self._context, transition, status, message)
        return row, refused

    async def _outcome(self, transition: Transition, future: asyncio.Future[Event]) -> HeadgateError | None:
        """What became of it other than that it is served. Versions that do not load are left out one by one, as far as possible."""
        try:
            event = await future
            while event["event"] == "failed" and transition.leaves_out(
                event.get("version"), event["message"]
            ):
                event = await (await self._handed_over(transition))
        except Draining:
            raise
        except HeadgateError as error:
            return error
        except Exception as error:
            _log.exception("%s: the outcome of %s is not known", transition.state.name, transition.revision.n)
            return Internal(f"{transition.state.name}: a defect of Headgate: {error!r}")
        return _refused(transition, event)

    async def _handed_over(self, transition: Transition) -> asyncio.Future[Event]:
        argument = await argument_of(self._context.urgent, self._context, transition, urgent=True)
        return hand_over(self._context, transition, argument, confirms=False)

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


def _refused(transition: Transition, event: Event) -> HeadgateError | None:
    """What became of it other than that it is served."""
    name, n = transition.state.name, transition.revision.n
    if event["event"] == "failed":
        detail = {"version": event.get("version"), "revision": n}
        return from_code(event["code"], f"{name}: {event['message']}", detail)
    if event["event"] == "superseded":
        return Conflict(f"{name}: revision {n} was overtaken and is not in effect: read it again")
    return None

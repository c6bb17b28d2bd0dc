"""Emergency calls: decide, hand to the data plane, answer. The disk is asked last, and not waited for long.

Not here: ordinary writes (``writer``), the writing of the rows (``write_behind``), which call goes first (``urgent_calls``). Next:
``service``.

    decide (in memory)  ->  data plane: ticket ... event  ->  answer
                                 \\->  store, in order: proposed, then applied | failed

Nothing on the way from the call to the data plane waits for the store, for a parser, or for another endpoint. A call that waits for a
load steps aside for one that comes meanwhile: its order is withdrawn, and it is decided anew on what the other one leaves.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from typing import Any

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
from headgate.control.writes.urgent_calls import UrgentCall
from headgate.control.writes.write_behind import WriteBehind
from headgate.errors import Conflict, Draining, HeadgateError, Internal, from_code
from headgate.store import EventRecord, RevisionStatus

_log = logging.getLogger(__name__)
_Ended = tuple[Row, HeadgateError | None]
"""The revision's row, and why it is not in force."""


class _SteppedAside(Exception):
    """Another call goes first, and this one is decided anew after it."""

    def __init__(self, first: UrgentCall) -> None:
        super().__init__(
            f"it stepped aside for {first.asks}, which came while it was loaded, and is tried again"
        )


class Emergency:
    """Carries emergency calls out, one per endpoint at a time."""

    def __init__(self, context: Context, behind: WriteBehind) -> None:
        """``behind`` writes the rows."""
        self._context = context
        self._behind = behind

    async def write(self, state: EndpointState, call: Call, decide: Decide) -> Result:
        """Carries one call out. ``decide`` runs on what is in force, again for each attempt.

        A call that changes nothing of that, or is refused, has no turn and keeps no other from its own; nor does a dry run.
        """
        if call.dry_run:
            await self._context.facts.refresh(state)
        transition, ended = self._decided(state, call, decide), None
        if transition.changes:
            transition, ended = await self._in_turn(transition, decide)
        if call.dry_run:
            return result_of(transition, "planned")
        durable = await self._behind.settled(state)
        if ended is None:
            return result_of(transition, transition.decision.status, durable=durable)
        row, refused = ended
        if refused is not None:
            refused.audited = True
            raise refused
        # What came after it may wait still, and is not its own.
        durable = row not in state.unsaved
        if not durable:
            self._answered_without(transition, row)
        return result_of(transition, "applied", durable=durable)

    def _decided(self, state: EndpointState, call: Call, decide: Decide) -> Transition:
        self._context.tickets.pump()
        return prepare(self._context, state, call, decide(state))

    async def _in_turn(self, wanted: Transition, decide: Decide) -> tuple[Transition, _Ended | None]:
        """Decides anew when its turn comes, because another call may have come first, and once more each time that it stepped aside."""
        state, decision = wanted.state, wanted.decision
        mine = UrgentCall(f"{decision.kind} {decision.subject}".rstrip())
        with state.urgent.joined(mine):
            while True:
                async with state.step:
                    if self._context.is_stopping():
                        raise Draining("the gateway stops; nothing was changed")
                    transition = self._decided(state, wanted.call, decide)
                    mine.decided_on = state.current
                    if not transition.changes:
                        return transition, None
                    with suppress(_SteppedAside):
                        return transition, await self._carry_out(transition, mine)

    async def _carry_out(self, transition: Transition, mine: UrgentCall) -> _Ended:
        """The row of a call that a stop cuts off stays proposed: the next start completes it. That of one that steps aside ends before
        another is written, so no start completes it after that.
        """
        state, row = transition.state, Row(transition.proposal)
        takes_over = transition.takes_over
        refused: HeadgateError | None = None
        # Taken before anything is waited for: a write that is refused meanwhile gives its own number back only if it is the last one.
        state.tail = transition.revision.n
        try:
            future = await self._handed_over(transition, mine)
        except Exception as error:
            if isinstance(error, Draining) or not isinstance(error, HeadgateError):
                state.tail -= 1
                raise
            refused = error
        state.unsaved.append(row)
        if refused is None:
            # A load may take minutes: should the gateway die meanwhile, the next start completes what is written of it.
            self._behind.wake()
            try:
                refused = await self._outcome(transition, future, mine)
            except _SteppedAside as aside:
                # The call leaves its row of the audit when it ends.
                row.commit = replace(commit_of(self._context, transition, "failed", str(aside)), audit=None)
                state.taken_over = state.taken_over or takes_over
                self._behind.wake()
                raise
        if takes_over:
            # It loaded in place of the first load, and that is its outcome. A call with a load of its own says nothing of it, unless
            # that is served.
            state.taken_over = False
        status: RevisionStatus = "applied" if refused is None else "failed"
        message = None if refused is None else refused.message
        row.commit = commit_of(self._context, transition, status, message)
        return row, refused

    async def _outcome(
        self, transition: Transition, future: asyncio.Future[Event], mine: UrgentCall
    ) -> HeadgateError | None:
        """What became of it other than that it is served. Versions that do not load are left out one by one, as far as possible."""
        try:
            event = await self._event(transition.state, future, mine)
            while event["event"] == "failed" and transition.leaves_out(
                event.get("version"), event["message"]
            ):
                future = await self._handed_over(transition, mine)
                event = await self._event(transition.state, future, mine)
        except (Draining, _SteppedAside):
            raise
        except HeadgateError as error:
            return error
        except Exception as error:
            _log.exception("%s: the outcome of %s is not known", transition.state.name, transition.revision.n)
            return Internal(f"{transition.state.name}: a defect of Headgate: {error!r}")
        return _refused(transition, event)

    async def _handed_over(self, transition: Transition, mine: UrgentCall) -> asyncio.Future[Event]:
        if transition.loads and mine.reads is not None:
            # The files that it read when it stepped aside are read once, and keep one thread.
            await _read(transition.state, mine.reads, mine)
        mine.reads = asyncio.ensure_future(
            argument_of(self._context.urgent, self._context, transition, urgent=True)
        )
        mine.reads.add_done_callback(_seen)
        if transition.loads:
            await _read(transition.state, mine.reads, mine)
        return hand_over(self._context, transition, await mine.reads, confirms=False)

    async def _event(self, state: EndpointState, future: asyncio.Future[Event], mine: UrgentCall) -> Event:
        # What is in memory is served already.
        self._context.tickets.pump()
        first = await _passed(state, future, mine)
        if first is not None and self._context.tickets.withdraw(future):
            raise _SteppedAside(first)
        return await future

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


async def _read(state: EndpointState, reads: asyncio.Future[Any], mine: UrgentCall) -> None:
    first = await _passed(state, reads, mine)
    if first is not None:
        raise _SteppedAside(first)


async def _passed(state: EndpointState, work: asyncio.Future[Any], mine: UrgentCall) -> UrgentCall | None:
    """Waits for ``work``, but not while another call is to go first: that is the result."""
    while not work.done():
        first = state.urgent.before(mine, state.current)
        if first is not None:
            return first
        mine.came.clear()
        came = asyncio.ensure_future(mine.came.wait())
        try:
            await asyncio.wait({work, came}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            came.cancel()
    return None


def _seen(reads: asyncio.Task[bytes | None]) -> None:
    """A call that stepped aside may end without what it read, and the loop would complain of a failure that nobody asks for."""
    if not reads.cancelled():
        reads.exception()

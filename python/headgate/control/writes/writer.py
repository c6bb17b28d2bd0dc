"""Ordinary writes: propose to the store, hand to the data plane, wait, confirm to the store, tell.

Not here: what a write means (``decisions``), emergency calls (``emergency``), the state at start (``start_recovery``). Next: ``emergency``.

    decide (in memory)  ->  store: proposed  ->  data plane: ticket ... event  ->  store: applied | failed | superseded  ->  feed

A step that fails before the swap leaves the running revision untouched. When the last commit fails after the swap, the write swaps
back and is refused. An emergency call may pass a write in every step; the write looks for that before its next one (``endpoint``).
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from headgate.control.domain.calls import Call
from headgate.control.domain.results import Result
from headgate.control.domain.revision import Revision
from headgate.control.writes import swap
from headgate.control.writes.context import Context
from headgate.control.writes.endpoint import EndpointState, Row
from headgate.control.writes.handover import Load, native_apply
from headgate.control.writes.rehearsal import rehearse
from headgate.control.writes.swap import EndpointUpdate
from headgate.control.writes.tickets import Event
from headgate.control.writes.transition import (
    Decide,
    Transition,
    applied_document,
    argument_of,
    commit_of,
    hand_over,
    prepare,
    refusal,
    result_of,
)
from headgate.control.writes.write_behind import WriteBehind
from headgate.errors import Conflict, Draining, HeadgateError, StorageFailed
from headgate.store import Commit, Proposal, RevisionStatus

_log = logging.getLogger(__name__)


class Writer:
    """Carries ordinary writes out, one per endpoint at a time."""

    def __init__(self, context: Context, behind: WriteBehind) -> None:
        """``behind`` holds the rows of emergency calls, which come first."""
        self._context = context
        self._behind = behind

    async def write(self, state: EndpointState, call: Call, decide: Decide) -> Result:
        """Carries one write out. ``decide`` runs when its turn has come and sees the state of that moment.

        A dry run has no turn: it sees what is served now.
        """
        if call.dry_run:
            await self._context.facts.refresh(state)
            async with state.step:
                transition = self._decide(state, call, decide)
            return await rehearse(self._context, transition)
        state.writes += 1
        came = state.writes
        async with state.turn:
            transition = await self._begin(state, call, decide)
            if not transition.changes:
                return await self._nothing_to_do(transition)
            await self._propose(transition)
            state.in_load = transition.revision
            try:
                event = await self._load(transition, came)
            finally:
                state.in_load = None
            return await self._conclude(transition, event)

    def cancel_older_loads(self, state: EndpointState, newer: bytes = b"") -> bool:
        """Cancels the load that an ordinary write waits for, unless that is of ``newer`` itself; whether there was one.

        The loads of writes that wait for their turn are cancelled as they begin. Who waits for a cancelled one is told that a newer
        write came, and the newer one need not wait for a load that may hang.
        """
        state.cancelled_before = (state.writes, newer)
        loading = state.in_load
        if loading is None or loading.text == newer:
            return False
        self._cancel(state, loading)
        return True

    def _cancel(self, state: EndpointState, loading: Revision) -> None:
        state.cancelled.add(loading.n)
        self._context.plane.cancel(state.name)

    # === the steps ===

    async def _begin(self, state: EndpointState, call: Call, decide: Decide) -> Transition:
        """Decides when no emergency call is on its way and the rows of those before are written."""
        while True:
            await self._behind.require(state)
            async with state.step:
                if not state.unsaved:
                    return self._decide(state, call, decide)
                for row in state.unsaved:
                    if row.commit is None:
                        # Its call is over without an outcome: the gateway stops, and the next start completes it.
                        raise Draining(f"what becomes of {row.named()} is not known before the next start")

    def _decide(self, state: EndpointState, call: Call, decide: Decide) -> Transition:
        self._context.tickets.pump()
        call.precondition.check(state.name, state.revision)
        transition = prepare(self._context, state, call, decide(state))
        if transition.changes:
            state.tail = transition.revision.n
        return transition

    async def _nothing_to_do(self, transition: Transition) -> Result:
        applied = applied_document(transition)
        if applied is not None:
            await self._context.write(lambda: self._context.store.add_applied(applied))
        return result_of(transition, transition.decision.status)

    async def _propose(self, transition: Transition) -> None:
        state = transition.state
        async with state.storing:
            try:
                await self._context.write(partial(self._context.store.propose, transition.proposal))
            except HeadgateError as error:
                await self._not_proposed(transition, error)
                raise

    async def _not_proposed(self, transition: Transition, error: HeadgateError) -> None:
        """Gives the number back; where that cannot be, a failed row takes it, because the store keeps no gaps.

        An emergency call may have taken the next number meanwhile, and a proposal whose answer was lost may be on disk.
        """
        state, n = transition.state, transition.revision.n
        is_kept = await self._is_kept(transition.proposal)
        if state.tail == n and not is_kept:
            state.tail = n - 1
            return
        error.audited = True
        commit = commit_of(self._context, transition, "failed", error.message)
        state.unsaved.appendleft(Row(transition.proposal, commit))
        self._behind.wake()

    async def _is_kept(self, proposal: Proposal) -> bool:
        record = proposal.record
        try:
            found = await self._context.io(lambda: self._context.store.revision(record.endpoint, record.n))
        except HeadgateError:
            return True  # nobody knows
        return found is not None and found.body == record.body

    async def _load(self, transition: Transition, came: int) -> Event:
        """What became of it in the data plane. Versions that it cannot load are left out one by one, as far as that is possible."""
        event = await self._load_once(transition, came)
        while event["event"] == "failed" and transition.leaves_out(event.get("version"), event["message"]):
            event = await self._load_once(transition, came)
        return event

    async def _load_once(self, transition: Transition, came: int) -> Event:
        state, context = transition.state, self._context
        try:
            argument = await argument_of(context.io, context, transition, urgent=False)
            async with state.step:
                if state.current is not transition.before:
                    return {"event": "superseded"}
                future = hand_over(context, transition, argument, confirms=True)
        except HeadgateError as error:
            await self._end(transition, "failed", error)
            raise
        before, newer = state.cancelled_before
        if came <= before and transition.revision.text != newer:
            # It waited for its turn behind a load that a newer write has ended, and that write is behind it.
            self._cancel(state, transition.revision)
        return await future

    async def _conclude(self, transition: Transition, event: Event) -> Result:
        what, state, n = event["event"], transition.state, transition.revision.n
        cancelled = n in state.cancelled
        state.cancelled.discard(n)
        if what == "failed":
            failure = refusal(transition, event)
            failure.detail["revision"] = n
            await self._end(transition, "failed", failure)
            raise failure
        async with state.step:
            # An emergency call that loads may be about to take its place.
            self._context.tickets.pump()
        if what == "superseded" or n in state.overtaken:
            state.overtaken.discard(n)
            overtaken = _overtaken(transition, cancelled=cancelled)
            self._confirmed(transition)
            await self._end(transition, "superseded", overtaken)
            raise overtaken
        return await self._confirm(transition)

    async def _confirm(self, transition: Transition) -> Result:
        context, state = self._context, transition.state
        commit = commit_of(context, transition, "applied")
        try:
            async with state.storing:
                context.publish(await context.write(partial(context.store.commit, commit)))
        except StorageFailed as error:
            swapped_back = await self._swap_back(transition)
            async with state.step:
                # An emergency call that was decided before that may be on its way, and made from it.
                context.tickets.pump()
            self._confirmed(transition)
            if swapped_back and state.built_on != transition.revision.n:
                self._write_later(transition, commit_of(context, transition, "failed", error.message))
                error.audited = True
                raise
            # An emergency call was made from it meanwhile, or it cannot be undone: it is in force.
            self._write_later(transition, commit)
            n, name = transition.revision.n, state.name
            told = StorageFailed(f"{name}: revision {n} is in force, but not on disk yet: {error.message}")
            told.audited = True
            raise told from error
        self._confirmed(transition)
        return result_of(transition, "applied")

    def _write_later(self, transition: Transition, commit: Commit) -> None:
        """The end of a proposed revision, in front of what was made from it."""
        late = commit.status == "applied"
        row = Row(transition.proposal, commit, proposed=True, late=late)
        transition.state.unsaved.appendleft(row)
        self._behind.wake()

    def _confirmed(self, transition: Transition) -> None:
        """Its end is told, whatever it was."""
        if transition.state.unconfirmed == transition.revision.n:
            transition.state.unconfirmed = None

    async def _swap_back(self, transition: Transition) -> bool:
        """The commit failed after the swap: what is not durable must not be served. False when that did not come about."""
        try:
            future = await self._hand_back(transition)
            event = (
                {"event": "failed", "message": "something newer is served"}
                if future is None
                else await future
            )
        except HeadgateError as error:
            event = {"event": "failed", "message": error.message}
        if event["event"] == "failed" and transition.state.current is transition.revision:
            n = transition.revision.n
            message = f"revision {n} is served but was refused: {event['message']}"
            await self._context.alarm(transition.state.name, n, message)
        return event["event"] in ("applied", "removed", "recorded")

    async def _hand_back(self, transition: Transition) -> asyncio.Future[Event] | None:
        """Hands over what was served before; None when something newer is served already."""
        state, before, context = transition.state, transition.before, self._context
        back = None
        if before is not None:
            load = Load(state.loaded, transition.omitted, urgent=True)
            back = await context.io(lambda: native_apply(before, context.paths, load))
        async with state.step:
            context.tickets.pump()
            if state.current is not (None if transition.decision.after is None else transition.revision):
                return None
            return _back(context, transition, back)

    async def _end(self, transition: Transition, status: RevisionStatus, why: HeadgateError) -> None:
        """Marks a revision that is not served; later, when that cannot be written now."""
        commit = commit_of(self._context, transition, status, why.message)
        why.audited = True
        try:
            async with transition.state.storing:
                events = await self._context.write(partial(self._context.store.commit, commit))
            self._context.publish(events)
        except StorageFailed:
            _log.exception("%s: revision %d could not be ended", transition.state.name, commit.n)
            self._write_later(transition, commit)


def _overtaken(transition: Transition, *, cancelled: bool) -> Conflict:
    state, n = transition.state, transition.revision.n
    newest = state.revision or 0
    by = f"revision {newest}" if newest > n else "an emergency call"
    if cancelled:
        by = "a newer write, which cancelled its load,"
    return Conflict(
        f"{state.name}: revision {n} was overtaken by {by} and is not in effect: read it again",
        detail={"revision": state.revision},
    )


def _back(context: Context, transition: Transition, argument: bytes | None) -> asyncio.Future[Event]:
    state, before = transition.state, transition.before
    if before is not None and not state.loaded and not transition.decision.serves_more:
        state.recorded(before)
        return swap.at_once("recorded")
    if argument is None or before is None:
        return swap.remove(context, state, transition.revision.n)
    return swap.serve(context, state, EndpointUpdate(before, transition.omitted, argument))

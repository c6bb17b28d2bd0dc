"""The write path: propose to the store, hand to the data plane, wait, confirm to the store, tell.

Not here: what a write means (``changes``), the state at start (``repair``). Next: ``changes``.

    decide (in memory)  ->  store: proposed  ->  data plane: ticket ... event  ->  store: applied | failed | superseded  ->  feed

A step that fails before the swap leaves the running revision untouched. When the last commit fails after the swap, an ordinary
write swaps back and is refused; an emergency call stands, answers ``durable: false``, and is written as soon as that is possible.

An emergency call goes through these steps as one; an ordinary write lets it pass while it loads, and looks before it is confirmed
whether that happened (``endpoint``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from headgate.control.domain.calls import Call
from headgate.control.domain.plan import live_view, make_plan, slots_moved
from headgate.control.domain.results import Plan, Result
from headgate.control.domain.revision import Held, Text, write_down
from headgate.control.domain.shares import format_shares
from headgate.control.domain.spec import Content, Load, native_apply
from headgate.control.domain.traffic import LiveTraffic, Stamp
from headgate.control.writes.context import Workshop
from headgate.control.writes.endpoint import EndpointState
from headgate.control.writes.tickets import Event, Ticket
from headgate.errors import Conflict, HeadgateError, StorageFailed, from_code
from headgate.store import (
    AppliedDocument,
    AuditRecord,
    Commit,
    EventRecord,
    IdempotencyRecord,
    Proposal,
    RevisionKind,
    RevisionStatus,
)

_log = logging.getLogger(__name__)
Urgency = Literal["ordinary", "emergency"]


@dataclass(frozen=True)
class Draft:
    """What a write wants: the next state (``None`` removes the endpoint), or that nothing needs to be done (``status``)."""

    kind: RevisionKind
    message: str
    after: tuple[Text, Content, LiveTraffic] | None
    status: Literal["applied", "unchanged", "already"] = "applied"
    notes: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    revive: frozenset[str] = frozenset()
    """Versions that were left out because they did not load, and are to be tried again."""
    serves_more: bool = True
    """False: no version gets anything that it had not, so that there is nothing to load."""


Decide = Callable[[EndpointState], Draft]


@dataclass(frozen=True)
class _Flight:
    """A proposed revision on its way through the data plane."""

    state: EndpointState
    call: Call
    draft: Draft
    urgency: Urgency
    before: Held | None
    held: Held
    proposal: Proposal
    plan: Plan
    omitted: dict[str, str]
    durable: bool


class Writer:
    """Carries writes out, one ordinary one per endpoint at a time; emergency calls pass it."""

    def __init__(self, workshop: Workshop) -> None:
        """The workshop holds the store, the data plane, the tickets and the feed."""
        self._shop = workshop

    async def write(
        self, state: EndpointState, call: Call, decide: Decide, urgency: Urgency = "ordinary"
    ) -> Result:
        """Carries one write out. ``decide`` runs when its turn has come and sees the state of that moment."""
        if urgency == "emergency":
            async with state.step:
                begun = await self._begin(state, call, decide, urgency)
                return begun if isinstance(begun, dict) else await self._land(begun[0], await begun[1])
        state.writes += 1
        came = state.writes
        async with state.turn:
            async with state.step:
                begun = await self._begin(state, call, decide, urgency)
            if isinstance(begun, dict):
                return begun
            flight, future = begun
            state.in_load = flight.held
            before, newer = state.way
            if came <= before and flight.held.text.raw != newer:
                # It waited for its turn behind a load that a newer write has ended, and that write is behind it.
                self._cancel(state, flight.held)
            try:
                event = await future
            finally:
                state.in_load = None
            async with state.step:
                return await self._land(flight, event)

    def make_way(self, state: EndpointState, newer: Text | None = None) -> bool:
        """Cancels the load that an ordinary write waits for, unless that is of ``newer`` itself; whether there was one.

        The loads of writes that wait for their turn are cancelled as they begin. Who waits for a cancelled one is told that a newer
        write came, and the newer one need not wait for a load that may hang.
        """
        raw = b"" if newer is None else newer.raw
        state.way = (state.writes, raw)
        loading = state.in_load
        if loading is None or loading.text.raw == raw:
            return False
        self._cancel(state, loading)
        return True

    def _cancel(self, state: EndpointState, loading: Held) -> None:
        state.cancelled.add(loading.n)
        self._shop.plane.cancel(state.name)

    # === the steps ===

    async def _begin(
        self, state: EndpointState, call: Call, decide: Decide, urgency: Urgency
    ) -> Result | tuple[_Flight, asyncio.Future[Event]]:
        """Decides and hands over; the result at once when nothing is to be done."""
        self._shop.tickets.pump()
        if urgency == "ordinary" and not call.dry_run:
            call.precondition.check(state.name, state.revision)
        draft = decide(state)
        flight = self._draw_up(state, call, draft, urgency)
        if call.dry_run or draft.status != "applied":
            applied = _applied_document(flight)
            if applied is not None and not call.dry_run:
                await self._shop.io(lambda: self._shop.store.add_applied(applied))
            return self._result(flight, "planned" if call.dry_run else draft.status)
        return await self._launch(flight)

    def _draw_up(self, state: EndpointState, call: Call, draft: Draft, urgency: Urgency) -> _Flight:
        before = state.current
        stamp = Stamp(call.principal, self._shop.now(), call.reason)
        parent = None if before is None else before.n
        plan_after: Held | None = None
        if draft.after is not None:
            text, content, live = draft.after
            plan_after = held = Held(state.tail + 1, text, content.serving(live), live, parent)
        elif before is not None:
            held = replace(before, n=state.tail + 1, parent=parent)
        else:
            raise Conflict(f"{state.name} does not exist")
        if draft.status != "applied" and before is not None:
            plan_after = replace(held, n=before.n)
        plan = make_plan(state.step_to(plan_after, draft.notes, draft.blocks))
        omitted = {version: why for version, why in state.omitted.items() if version not in draft.revive}
        proposal = write_down(state.name, held, draft.kind, stamp)
        return _Flight(state, call, draft, urgency, before, held, proposal, plan, omitted, durable=True)

    async def _launch(self, flight: _Flight) -> tuple[_Flight, asyncio.Future[Event]]:
        state, shop = flight.state, self._shop
        try:
            await self.flush(state)
            await shop.io(lambda: shop.store.propose(flight.proposal))
        except StorageFailed:
            if flight.urgency == "ordinary":
                raise
            _log.exception("%s: revision %d is swapped in without being written", state.name, flight.held.n)
            flight = replace(flight, durable=False)
        state.tail = flight.held.n
        try:
            return flight, await self._hand_over(flight)
        except HeadgateError as error:
            await self._end(flight, "failed", error.message)
            raise

    async def _hand_over(self, flight: _Flight) -> asyncio.Future[Event]:
        state, held, shop = flight.state, flight.held, self._shop
        if flight.draft.after is None:
            # Also when nothing is loaded: the data plane says of it why it is not served.
            ticket, n = shop.plane.remove(state.name), None
        else:
            if not (state.loaded or state.loading or flight.draft.serves_more):
                state.recorded(held)
                return _at_once("recorded")
            urgent, fresh = flight.urgency == "emergency", flight.draft.kind == "apply"
            load = Load(state.loaded, flight.omitted, urgent, fresh)
            # In a thread: the first use of an artifact hashes it.
            argument = await shop.io(lambda: native_apply(state.name, held, shop.paths, load))
            ticket, n = shop.plane.apply(argument), held.n
        state.loading[ticket] = frozenset(flight.plan["load"])

        def seen(event: Event) -> None:
            state.loading.pop(ticket, None)
            if event["event"] == "applied":
                state.served(held, flight.omitted, event)
            elif event["event"] == "removed":
                state.gone(held.n)

        return shop.tickets.expect(Ticket(ticket, state.name, n), seen)

    async def _land(self, flight: _Flight, event: Event) -> Result:
        what, state = event["event"], flight.state
        cancelled = flight.held.n in state.cancelled
        state.cancelled.discard(flight.held.n)
        if what == "failed":
            message = f"{state.name}: {event['message']}"
            await self._end(flight, "failed", message)
            detail = {"version": event.get("version"), "revision": flight.held.n}
            raise from_code(event["code"], message, detail)
        if what == "superseded" or flight.held.n in state.overtaken:
            state.overtaken.discard(flight.held.n)
            newest = state.revision or 0
            by = f"revision {newest}" if newest > flight.held.n else "an emergency call"
            if cancelled:
                by = "a newer write, which cancelled its load,"
            message = f"{state.name}: revision {flight.held.n} was overtaken by {by} and is not in effect: read it again"
            await self._end(flight, "superseded", message)
            raise Conflict(message, detail={"revision": state.revision})
        return await self._confirm(flight)

    async def _confirm(self, flight: _Flight) -> Result:
        shop, state = self._shop, flight.state
        result = self._result(flight, "applied")
        commit = self._commit(flight, "applied", None, result)
        if flight.durable:
            try:
                shop.publish(await shop.io(lambda: shop.store.commit(commit)))
                return result
            except StorageFailed:
                if flight.urgency == "ordinary":
                    await self._swap_back(flight)
                    raise
                _log.exception(
                    "%s: revision %d is served but could not be written", state.name, flight.held.n
                )
        state.unsaved.append((flight.proposal, commit))
        shop.retry_later()
        await shop.alarm(
            state.name, flight.held.n, f"revision {flight.held.n} is served but could not be written to disk"
        )
        shop.publish([replace(event, generation=0) for event in commit.events])
        return {**result, "durable": False, "message": f"{result['message']} (not written to disk yet)"}

    async def _swap_back(self, flight: _Flight) -> None:
        """The commit failed after the swap: what is not durable must not be served, unless something newer is served already."""
        state, before, shop = flight.state, flight.before, self._shop
        shop.tickets.pump()
        if state.current is not None and state.current.n != flight.held.n:
            return
        if before is not None and not state.loaded and not flight.draft.serves_more:
            state.recorded(before)
            return
        if before is None:
            asked = Ticket(shop.plane.remove(state.name), state.name)
        else:
            load = Load(state.loaded, flight.omitted, urgent=True)
            argument = await shop.io(lambda: native_apply(state.name, before, shop.paths, load))
            asked = Ticket(shop.plane.apply(argument), state.name, before.n)

        def seen(event: Event) -> None:
            if event["event"] == "removed":
                state.gone(flight.held.n)
            elif event["event"] == "applied" and before is not None:
                state.served(before, flight.omitted, event)

        event = await shop.tickets.expect(asked, seen)
        if event["event"] == "failed":
            await shop.alarm(
                state.name,
                flight.held.n,
                f"revision {flight.held.n} is served but was refused: {event['message']}",
            )

    async def _end(self, flight: _Flight, status: RevisionStatus, message: str) -> None:
        """Marks a revision that is not served. When that cannot be written, the next start marks it."""
        commit = self._commit(flight, status, message, None)
        if not flight.durable:
            commit_later = (flight.proposal, commit)
            flight.state.unsaved.append(commit_later)
            self._shop.retry_later()
            return
        try:
            self._shop.publish(await self._shop.io(lambda: self._shop.store.commit(commit)))
        except StorageFailed:
            _log.exception("%s: revision %d could not be marked %s", flight.state.name, flight.held.n, status)

    # === what is written with a revision ===

    def _commit(
        self, flight: _Flight, status: RevisionStatus, message: str | None, result: Result | None
    ) -> Commit:
        call, held, name, now = flight.call, flight.held, flight.state.name, self._shop.now()
        kind = "removed" if status == "applied" and flight.draft.after is None else status
        data = {
            "kind": flight.draft.kind,
            "champion": held.live.champion,
            "weights": format_shares(held.live.weights()),
            "moves": slots_moved(flight.before, held),
            "notes": list(flight.draft.notes),
            "message": message or flight.draft.message,
        }
        event = EventRecord(kind, now, name, held.n, call.principal, call.reason, data)
        audit = AuditRecord(
            now, call.principal, call.role, flight.draft.kind, name, held.n, status, call.reason, data
        )
        key = call.key
        remembered = None
        if key is not None and result is not None:
            remembered = IdempotencyRecord(
                key.principal, key.route, key.key, key.request, dict(result), self._shop.key_expiry()
            )
        if status != "applied":
            return Commit(name, held.n, status, message, [event], audit, remembered)
        applied = _applied_document(flight)
        return Commit(name, held.n, status, message, [event], audit, remembered, held.spec.digests(), applied)

    def _result(
        self, flight: _Flight, status: Literal["applied", "unchanged", "already", "planned"]
    ) -> Result:
        stays = flight.draft.status != "applied" and flight.before is not None
        revision = flight.before.n if stays and flight.before is not None else flight.held.n
        return Result(
            endpoint=flight.state.name,
            revision=revision,
            status=status,
            kind=flight.draft.kind,
            durable=flight.durable,
            message=flight.draft.message,
            traffic=live_view(flight.held.live),
            plan=flight.plan,
        )

    # === what could not be written at its time ===

    async def flush(self, state: EndpointState) -> None:
        """Writes what emergency calls could not; :class:`StorageFailed` when it still cannot be written."""
        shop = self._shop
        while state.unsaved:
            proposal, commit = state.unsaved[0]
            await shop.io(partial(shop.store.append_ended, proposal, commit))
            state.unsaved.popleft()
            _log.info("%s: revision %d was written late", commit.endpoint, commit.n)


def _applied_document(flight: _Flight) -> AppliedDocument | None:
    """The file that a document was applied from, to be remembered; None when it came without one."""
    source = flight.held.text.source
    if flight.draft.kind != "apply" or source is None or not Path(source).is_absolute():
        return None
    return AppliedDocument(source, flight.state.name, flight.held.text.digest)


def _at_once(what: str) -> asyncio.Future[Event]:
    """The event of a change that the data plane has no part in: it does not know an endpoint of which nothing is loaded."""
    done: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
    done.set_result({"event": what})
    return done

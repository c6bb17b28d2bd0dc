"""The write path: propose to the store, hand to the data plane, wait, confirm to the store, tell.

Not here: what a write means (``decisions``), the state at start (``repair``). Next: ``decisions``.

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
from headgate.control.domain.revision import Kind, Revision
from headgate.control.domain.shares import format_shares
from headgate.control.domain.spec import answering
from headgate.control.domain.traffic import Stamp
from headgate.control.writes.context import Context
from headgate.control.writes.endpoint import EndpointState
from headgate.control.writes.handover import Load, native_apply
from headgate.control.writes.records import proposal
from headgate.control.writes.tickets import Event, Ticket
from headgate.errors import Conflict, HeadgateError, StorageFailed, from_code
from headgate.store import (
    AppliedDocument,
    AuditRecord,
    Commit,
    EventRecord,
    IdempotencyRecord,
    RevisionStatus,
)

_log = logging.getLogger(__name__)
Urgency = Literal["ordinary", "emergency"]


@dataclass(frozen=True)
class Decision:
    """What a write wants: the next state (``None`` removes the endpoint), or that nothing needs to be done (``status``)."""

    kind: Kind
    message: str
    after: Revision | None
    status: Literal["applied", "unchanged", "already"] = "applied"
    notes: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    retried: frozenset[str] = frozenset()
    """Versions that were left out because they did not load, and are to be tried again."""
    needed: frozenset[str] = frozenset()
    """Versions that must load. Others that do not are left out: they keep nobody from moving away from them."""
    serves_more: bool = True
    """False: no version gets anything that it had not, so that there is nothing to load."""


Decide = Callable[[EndpointState], Decision]


@dataclass(frozen=True)
class _Transition:
    """A proposed revision on its way through the data plane."""

    state: EndpointState
    call: Call
    decision: Decision
    urgency: Urgency
    before: Revision | None
    revision: Revision
    plan: Plan
    omitted: dict[str, str]
    durable: bool

    def leaves_out(self, version: str | None, why: str) -> bool:
        """Whether the write can do without a version that does not load; then it is left out from here on."""
        revision, dispensable = self.revision, version is not None and version not in self.decision.needed
        if version is None or not dispensable or version in self.omitted or version in self.state.loaded:
            return False
        if answering(revision.spec, revision.traffic, {*self.omitted, version}) is None:
            return False
        self.omitted[version] = why
        _log.warning("%s: %s is left out, because it did not load: %s", revision.endpoint, version, why)
        return True


class Writer:
    """Carries writes out, one ordinary one per endpoint at a time; emergency calls pass it."""

    def __init__(self, context: Context) -> None:
        """The context holds the store, the data plane, the tickets and the feed."""
        self._context = context

    async def write(
        self, state: EndpointState, call: Call, decide: Decide, urgency: Urgency = "ordinary"
    ) -> Result:
        """Carries one write out. ``decide`` runs when its turn has come and sees the state of that moment."""
        if urgency == "emergency":
            async with state.step:
                begun = await self._begin(state, call, decide, urgency)
                if isinstance(begun, dict):
                    return begun
                return await self._conclude(begun[0], await self._outcome(*begun))
        state.writes += 1
        came = state.writes
        async with state.turn:
            async with state.step:
                begun = await self._begin(state, call, decide, urgency)
            if isinstance(begun, dict):
                return begun
            transition, future = begun
            state.in_load = transition.revision
            before, newer = state.cancelled_before
            if came <= before and transition.revision.text != newer:
                # It waited for its turn behind a load that a newer write has ended, and that write is behind it.
                self._cancel(state, transition.revision)
            try:
                event = await self._outcome(transition, future)
            finally:
                state.in_load = None
            async with state.step:
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

    async def _begin(
        self, state: EndpointState, call: Call, decide: Decide, urgency: Urgency
    ) -> Result | tuple[_Transition, asyncio.Future[Event]]:
        """Decides and hands over; the result at once when nothing is to be done."""
        self._context.tickets.pump()
        if urgency == "ordinary" and not call.dry_run:
            call.precondition.check(state.name, state.revision)
        decision = decide(state)
        transition = self._prepare(state, call, decision, urgency)
        if call.dry_run or decision.status != "applied":
            applied = _applied_document(transition)
            if applied is not None and not call.dry_run:
                await self._context.io(lambda: self._context.store.add_applied(applied))
            return self._result(transition, "planned" if call.dry_run else decision.status)
        return await self._launch(transition)

    def _prepare(self, state: EndpointState, call: Call, decision: Decision, urgency: Urgency) -> _Transition:
        before = state.current
        stamp = Stamp(call.principal, self._context.now(), call.reason)
        parent = None if before is None else before.n
        wanted = decision.after or before
        if wanted is None:
            raise Conflict(f"{state.name} does not exist")
        revision = wanted.numbered(state.tail + 1, parent, decision.kind, stamp)
        plan_after = None if decision.after is None else revision
        if decision.status != "applied" and before is not None:
            plan_after = wanted
        plan = make_plan(state.step_to(plan_after, decision.notes, decision.blocks))
        omitted = {version: why for version, why in state.omitted.items() if version not in decision.retried}
        return _Transition(state, call, decision, urgency, before, revision, plan, omitted, durable=True)

    async def _launch(self, transition: _Transition) -> tuple[_Transition, asyncio.Future[Event]]:
        state, context = transition.state, self._context
        try:
            await self.flush(state)
            await context.io(lambda: context.store.propose(proposal(transition.revision)))
        except StorageFailed:
            if transition.urgency == "ordinary":
                raise
            _log.exception(
                "%s: revision %d is swapped in without being written", state.name, transition.revision.n
            )
            transition = replace(transition, durable=False)
        state.tail = transition.revision.n
        try:
            return transition, await self._hand_over_what_loads(transition)
        except HeadgateError as error:
            await self._end(transition, "failed", error.message)
            raise

    async def _hand_over_what_loads(self, transition: _Transition) -> asyncio.Future[Event]:
        """Without the versions whose artifacts are damaged, as far as the write can do without them."""
        while True:
            try:
                return await self._hand_over(transition)
            except HeadgateError as error:
                version = error.detail.get("version")
                if not transition.leaves_out(version, error.message):
                    raise
                transition.state.damaged.add(str(version))

    async def _outcome(self, transition: _Transition, future: asyncio.Future[Event]) -> Event:
        """The event that ends it. Versions that the data plane cannot load are left out one by one, as far as that is possible."""
        event = await future
        while event["event"] == "failed" and transition.leaves_out(event.get("version"), event["message"]):
            event = await (await self._hand_over_what_loads(transition))
        return event

    async def _hand_over(self, transition: _Transition) -> asyncio.Future[Event]:
        state, revision, context = transition.state, transition.revision, self._context
        if transition.decision.after is None:
            # Also when nothing is loaded: the data plane says of it why it is not served.
            ticket, n = context.plane.remove(state.name), None
        else:
            if not (state.loaded or state.loading or transition.decision.serves_more):
                state.recorded(revision)
                return _at_once("recorded")
            urgent, fresh = transition.urgency == "emergency", transition.decision.kind == "apply"
            load = Load(state.loaded, transition.omitted, urgent, fresh)
            # In a thread: the first use of an artifact hashes it.
            argument = await context.io(lambda: native_apply(revision, context.paths, load))
            ticket, n = context.plane.apply(argument), revision.n
        state.loading[ticket] = frozenset(transition.plan["load"])

        def seen(event: Event) -> None:
            state.loading.pop(ticket, None)
            if event["event"] == "applied":
                state.served(revision, transition.omitted, event)
                state.no_drift = context.paths.baselines.fault(revision.spec.baseline)
            elif event["event"] == "removed":
                state.gone(revision.n)

        return context.tickets.expect(Ticket(ticket, state.name, n), seen)

    async def _conclude(self, transition: _Transition, event: Event) -> Result:
        what, state = event["event"], transition.state
        cancelled = transition.revision.n in state.cancelled
        state.cancelled.discard(transition.revision.n)
        if what == "failed":
            message = f"{state.name}: {event['message']}"
            await self._end(transition, "failed", message)
            detail = {"version": event.get("version"), "revision": transition.revision.n}
            raise from_code(event["code"], message, detail)
        if what == "superseded" or transition.revision.n in state.overtaken:
            state.overtaken.discard(transition.revision.n)
            newest = state.revision or 0
            by = f"revision {newest}" if newest > transition.revision.n else "an emergency call"
            if cancelled:
                by = "a newer write, which cancelled its load,"
            message = f"{state.name}: revision {transition.revision.n} was overtaken by {by} and is not in effect: read it again"
            await self._end(transition, "superseded", message)
            raise Conflict(message, detail={"revision": state.revision})
        return await self._confirm(transition)

    async def _confirm(self, transition: _Transition) -> Result:
        context, state = self._context, transition.state
        result = self._result(transition, "applied")
        commit = self._commit(transition, "applied", None, result)
        if transition.durable:
            try:
                context.publish(await context.io(lambda: context.store.commit(commit)))
                return result
            except StorageFailed:
                if transition.urgency == "ordinary":
                    await self._swap_back(transition)
                    raise
                _log.exception(
                    "%s: revision %d is served but could not be written", state.name, transition.revision.n
                )
        state.unsaved.append((proposal(transition.revision), commit))
        context.retry_later()
        await context.alarm(
            state.name,
            transition.revision.n,
            f"revision {transition.revision.n} is served but could not be written to disk",
        )
        context.publish([replace(event, generation=0) for event in commit.events])
        return {**result, "durable": False, "message": f"{result['message']} (not written to disk yet)"}

    async def _swap_back(self, transition: _Transition) -> None:
        """The commit failed after the swap: what is not durable must not be served, unless something newer is served already."""
        state, before, context = transition.state, transition.before, self._context
        context.tickets.pump()
        if state.current is not None and state.current.n != transition.revision.n:
            return
        if before is not None and not state.loaded and not transition.decision.serves_more:
            state.recorded(before)
            return
        if before is None:
            asked = Ticket(context.plane.remove(state.name), state.name)
        else:
            load = Load(state.loaded, transition.omitted, urgent=True)
            argument = await context.io(lambda: native_apply(before, context.paths, load))
            asked = Ticket(context.plane.apply(argument), state.name, before.n)

        def seen(event: Event) -> None:
            if event["event"] == "removed":
                state.gone(transition.revision.n)
            elif event["event"] == "applied" and before is not None:
                state.served(before, transition.omitted, event)

        event = await context.tickets.expect(asked, seen)
        if event["event"] == "failed":
            await context.alarm(
                state.name,
                transition.revision.n,
                f"revision {transition.revision.n} is served but was refused: {event['message']}",
            )

    async def _end(self, transition: _Transition, status: RevisionStatus, message: str) -> None:
        """Marks a revision that is not served. When that cannot be written, the next start marks it."""
        commit = self._commit(transition, status, message, None)
        if not transition.durable:
            commit_later = (proposal(transition.revision), commit)
            transition.state.unsaved.append(commit_later)
            self._context.retry_later()
            return
        try:
            self._context.publish(await self._context.io(lambda: self._context.store.commit(commit)))
        except StorageFailed:
            _log.exception(
                "%s: revision %d could not be marked %s", transition.state.name, transition.revision.n, status
            )

    # === what is written with a revision ===

    def _commit(
        self, transition: _Transition, status: RevisionStatus, message: str | None, result: Result | None
    ) -> Commit:
        call, revision, name, now = (
            transition.call,
            transition.revision,
            transition.state.name,
            self._context.now(),
        )
        kind = "removed" if status == "applied" and transition.decision.after is None else status
        data = {
            "kind": transition.decision.kind,
            "champion": revision.traffic.champion,
            "weights": format_shares(revision.traffic.weights()),
            "moves": slots_moved(transition.before, revision),
            "notes": list(transition.decision.notes),
            "message": message or transition.decision.message,
        }
        event = EventRecord(kind, now, name, revision.n, call.principal, call.reason, data)
        audit = AuditRecord(
            now,
            call.principal,
            call.role,
            transition.decision.kind,
            name,
            revision.n,
            status,
            call.reason,
            data,
        )
        key = call.key
        remembered = None
        if key is not None and result is not None:
            remembered = IdempotencyRecord(
                key.principal, key.route, key.key, key.request, dict(result), self._context.key_expiry()
            )
        if status != "applied":
            return Commit(name, revision.n, status, message, [event], audit, remembered)
        applied = _applied_document(transition)
        return Commit(
            name, revision.n, status, message, [event], audit, remembered, revision.spec.digests(), applied
        )

    def _result(
        self, transition: _Transition, status: Literal["applied", "unchanged", "already", "planned"]
    ) -> Result:
        stays = transition.decision.status != "applied" and transition.before is not None
        revision = transition.before.n if stays and transition.before is not None else transition.revision.n
        return Result(
            endpoint=transition.state.name,
            revision=revision,
            status=status,
            kind=transition.decision.kind,
            durable=transition.durable,
            message=transition.decision.message,
            traffic=live_view(transition.revision.traffic),
            plan=transition.plan,
        )

    # === what could not be written at its time ===

    async def flush(self, state: EndpointState) -> None:
        """Writes what emergency calls could not; :class:`StorageFailed` when it still cannot be written."""
        context = self._context
        while state.unsaved:
            proposal, commit = state.unsaved[0]
            await context.io(partial(context.store.append_ended, proposal, commit))
            state.unsaved.popleft()
            _log.info("%s: revision %d was written late", commit.endpoint, commit.n)


def _applied_document(transition: _Transition) -> AppliedDocument | None:
    """The file that a document was applied from, to be remembered; None when it came without one."""
    source = transition.revision.document.source
    if transition.decision.kind != "apply" or source is None or not Path(source).is_absolute():
        return None
    return AppliedDocument(source, transition.state.name, transition.revision.document.digest)


def _at_once(what: str) -> asyncio.Future[Event]:
    """The event of a change that the data plane has no part in: it does not know an endpoint of which nothing is loaded."""
    done: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
    done.set_result({"event": what})
    return done

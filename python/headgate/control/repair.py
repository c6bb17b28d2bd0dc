"""The start: what a stop left between the steps is completed or undone, then every endpoint is served again.

Not here: ordinary writes (``writer``). Next: ``reads``.

A proposed emergency revision is completed, because somebody wanted a model stopped; any other is marked failed, because nobody was
told that it took effect. Either way the served state equals an acknowledged revision or the next committed one.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from headgate.control.endpoint import EndpointState
from headgate.control.record import Held, hold
from headgate.control.spec import loadable, native_apply
from headgate.control.tickets import Event
from headgate.control.workshop import Workshop
from headgate.errors import HeadgateError
from headgate.store import Commit, EndpointRecord, EventRecord, RevisionRecord

_log = logging.getLogger(__name__)
_COMPLETED = frozenset({"rollback", "block", "freeze"})


class Repair:
    """Brings endpoints up, each on its own: one that is broken keeps no other from starting."""

    def __init__(self, workshop: Workshop) -> None:
        """The workshop holds store and data plane."""
        self._shop = workshop

    async def start(self) -> dict[str, EndpointState]:
        """All endpoints of the store, served or marked broken, the removed ones included without being served."""
        pointers = await self._shop.io(self._shop.store.endpoints)
        states = await asyncio.gather(*(self._endpoint(pointer) for pointer in pointers))
        return {state.name: state for state in states}

    async def _endpoint(self, pointer: EndpointRecord) -> EndpointState:
        state = EndpointState(pointer.name, tail=pointer.tail)
        try:
            left = await self._shop.io(lambda: self._shop.store.proposed(pointer.name))
            completed = await self._settle(state, pointer, left)
            if completed or pointer.applied is None:
                return state
            record = await self._read(pointer.name, pointer.applied)
            if pointer.removed:
                state.carried = hold(record).live
            else:
                await self._serve(state, hold(record))
        except HeadgateError as error:
            state.broken = error.message
            await self._shop.alarm(
                pointer.name, pointer.applied, f"{pointer.name} does not start: {error.message}"
            )
        return state

    async def _settle(
        self, state: EndpointState, pointer: EndpointRecord, left: list[RevisionRecord]
    ) -> bool:
        """Ends what was proposed; true when one of them is served now."""
        newest = left[-1] if left else None
        complete = newest is not None and newest.kind in _COMPLETED and newest.n > (pointer.applied or 0)
        for record in left:
            if record is newest and complete:
                continue
            await self._mark(record, "the gateway stopped before this revision was confirmed")
        if newest is None or not complete:
            return False
        try:
            await self._serve(state, hold(newest))
        except HeadgateError as error:
            await self._mark(newest, error.message)
            return False
        if state.broken is not None:
            await self._mark(newest, state.broken)
            state.broken = None
            return False
        await self._confirm(newest)
        return True

    async def _mark(self, record: RevisionRecord, why: str) -> None:
        event = self._event("failed", record, why)
        commit = Commit(record.endpoint, record.n, "failed", why, [event])
        self._shop.publish(await self._shop.io(lambda: self._shop.store.commit(commit)))

    async def _confirm(self, record: RevisionRecord) -> None:
        event = self._event("applied", record, "completed at start")
        commit = Commit(record.endpoint, record.n, "applied", "completed at start", [event])
        self._shop.publish(await self._shop.io(lambda: self._shop.store.commit(commit)))

    def _event(self, kind: str, record: RevisionRecord, why: str) -> EventRecord:
        data = {"kind": record.kind, "message": why}
        return EventRecord(kind, self._shop.now(), record.endpoint, record.n, record.who, record.reason, data)

    async def _read(self, endpoint: str, n: int) -> RevisionRecord:
        record = await self._shop.io(lambda: self._shop.store.revision(endpoint, n))
        if record is None:
            raise HeadgateError(f"{endpoint}: revision {n} is applied, but the store has lost it")
        return record

    async def _serve(self, state: EndpointState, held: Held) -> None:
        """Loads a revision; challengers that do not load are left out one by one, with an alarm each."""
        state.current = held
        omitted = await self._damaged(held)
        while held.live.champion not in omitted:
            event = await self._apply(state, held, omitted)
            if event["event"] == "applied":
                break
            version = event.get("version")
            if version is None or version in omitted:
                state.broken = f"{state.name} does not answer: {event['message']}"
                break
            omitted[version] = event["message"]
        else:
            why = omitted[held.live.champion]
            state.broken = (
                f"{state.name} does not answer: its champion {held.live.champion} did not load: {why}"
            )
        for alarm in state.alarms():
            await self._shop.alarm(state.name, held.n, alarm)

    async def _damaged(self, held: Held) -> dict[str, str]:
        """Versions whose artifacts are not whole, with the reason."""
        omitted: dict[str, str] = {}
        for version in loadable(held.spec, held.live):
            entry = held.spec.versions[version]
            if entry.constant is None:
                try:
                    await self._shop.io(partial(self._shop.paths.model, entry.digest))
                except HeadgateError as error:
                    omitted[version] = error.message
        return omitted

    async def _apply(self, state: EndpointState, held: Held, omitted: dict[str, str]) -> Event:
        shop = self._shop
        argument = await shop.io(
            lambda: native_apply(state.name, held, shop.paths, omitted=omitted, urgent=False)
        )

        def seen(event: Event) -> None:
            if event["event"] == "applied":
                state.served(held, omitted, event)

        return await shop.tickets.expect(shop.plane.apply(argument), seen)

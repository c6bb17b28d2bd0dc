"""The start: what a stop left between the steps is completed or undone, then every endpoint is served again.

Not here: ordinary writes (``writer``). Next: ``reads``.

The newest proposed emergency revision is completed, because somebody wanted a model stopped; any other is marked failed, because
nobody was told that it took effect. Either way the served state equals an acknowledged revision or the next committed one. Serving
comes before writing: a full disk keeps nothing from being served.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from headgate.control.domain.calls import Call
from headgate.control.domain.revision import EMERGENCIES, Revision, read_revision
from headgate.control.domain.spec import answering, loadable
from headgate.control.writes import swap
from headgate.control.writes.audit import audit_record
from headgate.control.writes.context import Context
from headgate.control.writes.endpoint import EndpointState, Row
from headgate.control.writes.handover import Load, Paths, native_apply, no_answer
from headgate.control.writes.interrupted import Interruptions
from headgate.control.writes.swap import EndpointUpdate
from headgate.errors import HeadgateError, StorageFailed
from headgate.store import (
    Commit,
    EndpointRecord,
    EventRecord,
    Proposal,
    RevisionRecord,
    RevisionStatus,
    StartRecord,
    keepable,
)

_log = logging.getLogger(__name__)
_COMPLETED_NOW = "completed at start"
_UNCONFIRMED = "the gateway stopped before this revision was confirmed"
_TAKEN_OVER = "its load was ended before its time"
_End = tuple[RevisionStatus, str]


class StartRecovery:
    """Brings endpoints up, each on its own: one that is broken keeps no other from starting."""

    def __init__(
        self, context: Context, interruptions: Interruptions, wake: Callable[[], None] = swap.nothing
    ) -> None:
        """The context holds store and data plane; ``interruptions`` knows what becomes of rollouts, ``wake`` has rows
        written.
        """
        self._context = context
        self._interruptions = interruptions
        self._wake = wake
        self._rows: dict[str, Row] = {}
        """What a start made of an endpoint's rollout, to be written after what the stop left."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.begun = asyncio.Event()
        """Set once every endpoint is being loaded."""

    async def start(self, states: dict[str, EndpointState], damaged: Mapping[str, str]) -> None:
        """Puts all endpoints of the store into ``states``, served or marked broken, the removed ones included without being served.

        Those that are ``damaged`` are not served, for the reason given: no older revision takes the place of one that was in force.
        Nothing else may write meanwhile.
        """
        pointers, records = await self._context.io(self._stored)
        for name, why in damaged.items():
            pointer = pointers.get(name, EndpointRecord(name, None, 0, False, 0))
            states[name] = EndpointState(name, tail=pointer.tail)
            await self._broken(states[name], pointer, why)
        for name, pointer in pointers.items():
            if name not in damaged:
                state = states[name] = EndpointState(name, tail=pointer.tail)
                self._tasks[name] = asyncio.create_task(self._endpoint(state, pointer, records.get(name)))
        self.begun.set()
        try:
            await asyncio.gather(*self._tasks.values())
        finally:
            for task in self._tasks.values():
                task.cancel()

    def loading(self) -> dict[str, asyncio.Task[None]]:
        """Those that are not over."""
        return {name: task for name, task in self._tasks.items() if not task.done()}

    def _stored(self) -> tuple[dict[str, EndpointRecord], dict[str, StartRecord]]:
        """All endpoints, and what a start reads of them. They are read at once, because 1 000 transactions take seconds.

        If that fails there are no records: each endpoint reads its own, so that rows that cannot be read concern one endpoint.
        """
        store = self._context.store
        try:
            records = store.start_records()
        # A value of another type than its column's, as after damage, is one of the latter.
        except (StorageFailed, TypeError, ValueError):
            _log.exception("the endpoints are read one by one")
            return {pointer.name: pointer for pointer in store.endpoints()}, {}
        return {one.pointer.name: one.pointer for one in records}, {one.pointer.name: one for one in records}

    async def _endpoint(
        self, state: EndpointState, pointer: EndpointRecord, record: StartRecord | None
    ) -> None:
        try:
            if record is None:
                (record,) = await self._context.io(lambda: self._context.store.start_records(pointer.name))
            ends = await self._serve_newest(state, record)
            for left in record.proposed:
                await self._end(state, left, *ends.get(left.n, ("failed", _UNCONFIRMED)))
        except HeadgateError as error:
            await self._broken(state, pointer, error.message)
        except Exception as error:
            # A row that cannot be understood is this endpoint's trouble, not that of the others.
            _log.exception("%s does not start", pointer.name)
            await self._broken(state, pointer, f"what is stored of it cannot be read ({error!r})")
        if pointer.name in self._rows:
            # It has its number, served or not, and the store takes no later one without it.
            state.unsaved.append(self._rows.pop(pointer.name))
            self._wake()

    async def _broken(self, state: EndpointState, pointer: EndpointRecord, why: str) -> None:
        state.broken = f"{pointer.name} does not start: {why}"
        await self._context.io(lambda: self._context.plane.mark_unavailable(pointer.name, why))
        await self._context.alarm(pointer.name, pointer.applied, state.broken)

    async def _serve_newest(self, state: EndpointState, record: StartRecord) -> dict[int, _End]:
        """Serves the newest emergency revision left, else the one in force; how that revision ends."""
        pointer, in_force = record.pointer, record.in_force
        if in_force is None and pointer.applied is not None:
            raise HeadgateError(
                f"{pointer.name}: revision {pointer.applied} is applied, but the store has lost it"
            )
        urgent = [
            left for left in record.proposed if left.kind in EMERGENCIES and left.n > (pointer.applied or 0)
        ]
        ends: dict[int, _End] = {}
        if urgent:
            newest = urgent[-1]
            why = await self._serve_urgent(state, newest, record)
            ends[newest.n] = ("applied", _COMPLETED_NOW) if why is None else ("failed", why)
            if why is None:
                return ends
        if in_force is not None and pointer.removed:
            state.carried = read_revision(in_force.body).traffic
        elif in_force is not None:
            await self._serve(state, in_force, record)
        return ends

    async def _serve_urgent(
        self, state: EndpointState, newest: RevisionRecord, record: StartRecord
    ) -> str | None:
        """Why it cannot be completed. One that keeps a champion which does not load changes what is written, and is completed."""
        try:
            await self._serve(state, newest, record)
        except HeadgateError as error:
            why = error.message
        else:
            in_force = record.in_force
            if state.broken is None or (in_force is not None and _champion(in_force) == _champion(newest)):
                return None
            why = state.broken
        state.broken = state.current = None
        state.omitted = {}
        # What was made of its rollout is not kept either, and gives its number back.
        state.tail = record.pointer.tail
        self._rows.pop(state.name, None)
        return why

    async def _end(
        self, state: EndpointState, record: RevisionRecord, status: RevisionStatus, why: str
    ) -> None:
        """Ends what was proposed; what cannot be written now is written later, and what is served is served all the same."""
        why = keepable(why)
        data = {"kind": record.kind, "message": why}
        event = EventRecord(
            status, self._context.now(), record.endpoint, record.n, record.who, record.reason, data
        )
        call = Call(record.who, "", reason=record.reason)
        told = {**data, "ended_by": "headgate"}
        audit = audit_record(call, event.when, record.kind, (record.endpoint, record.n), (status, told))
        commit = Commit(record.endpoint, record.n, status, why, [event], audit)
        try:
            async with asyncio.timeout(self._context.settings.durable_seconds):
                self._context.publish(await self._context.write(lambda: self._context.store.commit(commit)))
        except (StorageFailed, TimeoutError):
            _log.exception("%s: revision %d could not be marked %s", record.endpoint, record.n, status)
            state.unsaved.append(Row(Proposal(record), commit, proposed=True, late=status == "applied"))

    async def _serve(self, state: EndpointState, record: RevisionRecord, stored: StartRecord) -> None:
        """Loads a revision; versions that do not load are left out one by one, with an alarm each."""
        context = self._context
        first = await context.io(partial(_first_load, context.paths, record, stored.documents))
        revision, omitted, argument = first.revision, first.omitted, first.argument
        state.current, state.damaged = revision, set(omitted)
        state.omitted = dict(omitted)
        interrupted = self._interruptions.of(state, stored.proposed)
        if interrupted is not None:
            state.current = revision = interrupted.revision
            self._rows[state.name], argument = interrupted.row, None
        while answering(revision.spec, revision.traffic, omitted) is not None:
            if argument is None:
                load = Load(omitted=omitted)
                argument = await context.io(partial(native_apply, revision, context.paths, load))
            event = await swap.serve(context, state, EndpointUpdate(revision, omitted, argument))
            if event["event"] == "applied":
                break
            version, why, argument = event.get("version"), event.get("message", _TAKEN_OVER), None
            if version is None or version in omitted:
                await self._mark_unanswered(state, why, omitted)
                break
            omitted[version] = why
        else:
            await self._mark_unanswered(state, no_answer(revision, omitted).message, omitted)
        for alarm in state.alarms():
            await context.alarm(state.name, revision.n, alarm)

    async def _mark_unanswered(self, state: EndpointState, why: str, omitted: dict[str, str]) -> None:
        """Nothing of an endpoint can answer: its calls are told why."""
        state.broken, state.omitted = f"{state.name} does not answer: {why}", omitted
        await self._context.io(lambda: self._context.plane.mark_unavailable(state.name, why))


@dataclass(frozen=True)
class _FirstLoad:
    """A stored revision without the versions that are damaged, and how it is handed over; no ``argument``: it cannot be."""

    revision: Revision
    omitted: dict[str, str]
    argument: bytes | None


def _first_load(paths: Paths, record: RevisionRecord, documents: Mapping[str, bytes]) -> _FirstLoad:
    """Reads a revision, compares its artifacts with their digests and makes the argument: one job in a thread. Blocks."""
    if record.document not in documents:
        raise StorageFailed(f"the store has lost the document {record.document}")
    revision = read_revision(record.body, documents[record.document])
    omitted = _damaged(paths, revision)
    try:
        return _FirstLoad(revision, omitted, native_apply(revision, paths, Load(omitted=omitted)))
    except HeadgateError:
        # The loop that loads it finds out why.
        return _FirstLoad(revision, omitted, None)


def _damaged(paths: Paths, revision: Revision) -> dict[str, str]:
    """Versions whose artifacts are not whole, with the reason."""
    omitted: dict[str, str] = {}
    for version in loadable(revision.spec, revision.traffic):
        entry = revision.spec.versions[version]
        if entry.constant is None:
            try:
                paths.model(entry.digest)
            except HeadgateError as error:
                omitted[version] = error.message
    return omitted


def _champion(record: RevisionRecord) -> str:
    return read_revision(record.body).traffic.champion

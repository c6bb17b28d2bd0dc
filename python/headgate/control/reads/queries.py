"""What can be asked: the reading half of ``Control``. Nothing here changes anything; memory answers where it can.

Not here: how the answers are filled (``endpoints``), their shapes (``views``). Next: ``service``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, cast

from headgate.background import Background
from headgate.control.domain.revision import Revision
from headgate.control.reads import endpoints, explanation, trials
from headgate.control.reads.explanation import HypotheticalRequest
from headgate.control.reads.recent import Recent
from headgate.control.reads.routing import unloaded_reason
from headgate.control.reads.shadow_views import ShadowsView
from headgate.control.reads.trials import TrialsView, TrialView
from headgate.control.reads.views import (
    AuditView,
    EndpointSummary,
    EndpointView,
    Explanation,
    Models,
    RefusalView,
    RevisionSummary,
    RevisionView,
    TrafficView,
)
from headgate.control.writes.context import Context
from headgate.control.writes.data_plane import Status, status_of, statuses_of
from headgate.control.writes.drift_watch import DriftWatch
from headgate.control.writes.endpoint import Endpoints, EndpointState
from headgate.control.writes.notifications import Notifications
from headgate.control.writes.records import missing, stored
from headgate.control.writes.refused_callers import RefusedCallers
from headgate.errors import InvalidArgument, ModelNotFound, ModelNotReady, NotFound
from headgate.registry import Registry
from headgate.store import EventRecord

History = list[RevisionSummary]
AuditLog = list[AuditView]
Refusals = list[RefusalView]
Replayed = list[EventRecord]
Summaries = list[EndpointSummary]

_DAY_SECONDS = 86_400
_SUMMARIES = 64
"""Lines of the list of endpoints that are written in one turn of the event loop."""
_EVENTS = 500
"""Events that are read from the store at a time."""


class Queries:
    """What one control plane tells."""

    def __init__(self, context: Context, endpoints: Endpoints, registry: Registry, recent: Recent) -> None:
        """``endpoints`` are all there are, now and later; ``recent`` counts their requests."""
        self.registry = registry
        self.refused_callers = RefusedCallers(context)
        self.drift_watch = DriftWatch(context, endpoints)
        self.notifications = Notifications(context, endpoints)
        self._context = context
        self._endpoints = endpoints
        self._recent = recent

    def watch(self, background: Background) -> None:
        """Begins the loops that look and tell: they change nothing that is served."""
        self.drift_watch.start(background)
        self.notifications.start(background)

    async def list(self) -> list[EndpointSummary]:
        """All endpoints by name, those included that are not served because they were refused."""
        states = [state for _, state in sorted(self._endpoints.items()) if state.current or state.broken]
        statuses = await self._context.io(lambda: statuses_of(self._context.plane.status()))
        summaries: Summaries = []
        for place, state in enumerate(states):
            if place % _SUMMARIES == 0:
                # A thousand of them take a while, and a rollback may be waiting.
                await asyncio.sleep(0)
            if state.current or state.broken:
                why = self._endpoints.refused(state.name)
                summary = endpoints.summary(state, statuses.get(state.name, {}), why)
                summary["alarms"] += self.notifications.alarms(state.name)
                summaries.append(summary)
        return sorted([*summaries, *self._never_served()], key=lambda one: one["name"])

    def _never_served(self) -> Summaries:
        names = {one.endpoint for one in self.registry.refusals() if one.endpoint is not None}
        states = (self._endpoints.get(name) or EndpointState(name) for name in names if self._is_absent(name))
        return [endpoints.never_served(state, self._endpoints.refused(state.name)) for state in states]

    def _is_absent(self, name: str) -> bool:
        state = self._endpoints.get(name)
        return state is None or (state.current is None and state.broken is None)

    def is_empty(self) -> bool:
        """Whether there is no endpoint, served or damaged. Reads memory alone."""
        return all(map(self._is_absent, self._endpoints))

    def current(self, endpoint: str) -> Revision | None:
        """The revision in force; None if there is no such endpoint. Reads memory alone."""
        state = self._endpoints.get(endpoint)
        return None if state is None else state.current

    async def get(self, endpoint: str) -> EndpointView:
        """One endpoint."""
        state = self._endpoints.known(endpoint)
        recent = await self._recent.of(endpoint)
        why = self._endpoints.refused(endpoint)
        view = endpoints.endpoint(state, await self._status(endpoint), recent, why)
        view["trial"] = await self._running_trial(endpoint)
        view["alarms"] += self.notifications.alarms(endpoint)
        return view

    async def traffic(self, endpoint: str) -> TrafficView:
        """Live traffic of one endpoint."""
        state = self._endpoints.known(endpoint)
        return endpoints.traffic(state, await self._recent.of(endpoint))

    async def explain(
        self, endpoint: str, request: HypotheticalRequest, *, at: int | datetime | None = None
    ) -> Explanation:
        """Which version a request gets and why: now, or ``at`` a revision that was served, or at a time."""
        if isinstance(at, datetime):
            at = await self._served_at(endpoint, at)
        state = self._endpoints.known(endpoint) if at is None else await self._at(endpoint, at)
        return await self._context.io(lambda: explanation.explain(state, self._context.plane, request))

    async def revisions(self, endpoint: str, *, limit: int = 50, before: int | None = None) -> History:
        """History, newest first; of removed endpoints too."""
        self._endpoints.ever(endpoint)
        records = await self._context.io(
            lambda: self._context.store.revisions(endpoint, limit=limit, before=before)
        )
        return [endpoints.revision_summary(record) for record in records]

    async def revision(self, endpoint: str, n: int) -> RevisionView:
        """One revision in full."""
        self._endpoints.ever(endpoint)
        return await self._context.io(lambda: endpoints.revision(self._context.store, endpoint, n))

    async def drift(self, endpoint: str, window_seconds: int | None = None) -> dict[str, Any]:
        """The data plane's drift report; without a window, of a day."""
        state = self._endpoints.known(endpoint)
        window = window_seconds or _DAY_SECONDS
        report: dict[str, Any] = json.loads(
            await self._context.long(lambda: self._context.plane.drift(endpoint, window))
        )
        if state.no_drift is not None:
            report["fault"] = state.no_drift
        return report

    async def trial(self, endpoint: str) -> TrialsView:
        """The evidence of the endpoint's newest trial, and in short of those before it."""
        self._endpoints.known(endpoint)
        return trials.trials(endpoint, await self._context.io(lambda: self._told_trial(endpoint, whole=True)))

    async def _running_trial(self, endpoint: str) -> TrialView | None:
        return trials.running(await self._context.io(lambda: self._told_trial(endpoint, whole=False)))

    def _told_trial(self, endpoint: str, *, whole: bool) -> bytes:
        try:
            return self._context.plane.trial(endpoint, whole)
        except (ModelNotFound, ModelNotReady):
            # The data plane does not serve it now, and knows no trial of it.
            return b'{"trial": null, "earlier": []}'

    async def shadows(self, endpoint: str) -> ShadowsView:
        """What the shadows of an endpoint answered beside its champion."""
        state = self._endpoints.known(endpoint)
        try:
            told = await self._context.io(lambda: self._context.plane.shadows(endpoint))
        except ModelNotFound as error:
            raise ModelNotReady(f"{endpoint} is not served yet: its models are loaded") from error
        report: ShadowsView = json.loads(told)
        for shadow in report["shadows"]:
            # The sums that a gate judges its pairs by: a rollout shows what they say.
            cast(dict[str, Any], shadow).pop("output_drift", None)
            # The data plane knows what is not loaded, and the control plane why.
            if shadow["state"] == "not_loaded":
                shadow["reason"] = unloaded_reason(state, shadow["to"]) or shadow["reason"]
        return report

    async def models(self) -> Models:
        """Every name and version with the digest it stands for, and what was refused."""
        serving = {
            version.digest
            for state in self._endpoints.values()
            if state.current is not None
            for version in state.current.spec.versions.values()
        }
        return await self._context.io(lambda: endpoints.models(self._context.store, self.registry, serving))

    def refusals(self) -> Refusals:
        """The models that came with other bytes and still do; reads memory alone."""
        return endpoints.refusals(self.registry)

    async def audit(self, *, endpoint: str | None, limit: int, before: int | None) -> AuditLog:
        """Newest first."""
        await self.refused_callers.drain(self._context.settings.durable_seconds)
        records = await self._context.io(
            lambda: self._context.store.audit(endpoint=endpoint, limit=limit, before=before)
        )
        return [endpoints.audit_entry(record) for record in records]

    def events(self, after: int | None) -> AsyncIterator[EventRecord]:
        """Events as they happen; with ``after`` what came since that id first. Ends when the gateway stops."""
        store = self._context.store

        async def replay(cursor: int) -> Replayed:
            # Again with each page: what is read slowly may be dropped meanwhile.
            await self.check_cursor(cursor)
            return await self._context.io(lambda: store.events_after(cursor, limit=_EVENTS))

        return self._context.feed.read(after, replay, lambda: self._context.io(store.generation))

    async def check_cursor(self, after: int | None) -> None:
        """:class:`NotFound` when events after that id were dropped. 0 and None ask for what there is."""
        floor = await self._context.io(lambda: self._context.store.floor("events")) if after else 0
        if after is not None and 0 < after < floor:
            raise NotFound(
                f"events after {after} were dropped, up to {floor}: begin after {floor}, or after 0 with all that are kept",
                detail={"floor": floor},
            )

    async def stored_events(self, after: int, *, limit: int, endpoint: str | None) -> Replayed:
        """The newest events after that id that are stored, oldest first."""
        store = self._context.store
        return await self._context.io(lambda: store.newest_events(after, limit=limit, endpoint=endpoint))

    async def _at(self, endpoint: str, n: int) -> EndpointState:
        """The endpoint as it was at a revision, with nothing left out."""
        self._endpoints.ever(endpoint)
        return EndpointState(endpoint, current=await self.served_once(endpoint, n))

    async def _served_at(self, endpoint: str, when: datetime) -> int:
        """The revision that was served at a time."""
        self._endpoints.ever(endpoint)
        found = await self._context.io(lambda: self._context.store.served_at(endpoint, when))
        if found is None:
            raise NotFound(
                f"no revision of {endpoint} that is kept was served at {when.isoformat()}: it came later, or retention dropped what "
                "was served then"
            )
        return found

    async def served_once(self, endpoint: str, n: int) -> Revision:
        """A revision that was served once."""
        record = await self._context.io(lambda: self._context.store.revision(endpoint, n))
        if record is None:
            raise await self._context.io(lambda: missing(self._context.store, endpoint, n))
        if record.status != "applied" or record.kind == "remove":
            raise InvalidArgument(
                f"revision {n} of {endpoint} was never served ({record.kind}, {record.status})"
            )
        return await self._context.io(lambda: stored(self._context.store, record))

    async def _status(self, endpoint: str) -> Status:
        return status_of(await self._context.io(lambda: self._context.plane.status(endpoint)), endpoint)

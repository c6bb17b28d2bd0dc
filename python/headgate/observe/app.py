"""The read-only port: ``/metrics``, ``/healthz``, ``/readyz``. It changes nothing and needs no token.

``/healthz`` answers as long as the event loop turns; ``/readyz`` says whether to send traffic, with reasons;
``/metrics`` is the data plane's counters and the control plane's state in Prometheus text or OpenMetrics; with
``?form=compact`` its histograms are those of endpoints. The data plane writes its part itself, outside Python's lock.
Nothing about endpoints' documents or tokens is shown. Next: declared.py for the metrics' meaning.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import anyio.to_thread
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from headgate.background import Background
from headgate.errors import HeadgateError
from headgate.observe import declared, triton
from headgate.observe.facts import ConnectionCounts, Facts, WebhookFacts
from headgate.observe.scrapes import Form, Scrapes

_log = logging.getLogger("headgate.observe")


class ObservedDataPlane(Protocol):
    """The part of the data plane that this port reads."""

    def exposition(self, open_metrics: bool, compact: bool) -> bytes:
        """All metric families as text."""

    def metrics(self) -> bytes:
        """All metric families with their samples (JSON), for those that are shown under other names as well."""


class DriftVerdicts(Protocol):
    """The part of the control plane that looks at drift."""

    def verdicts(self) -> Mapping[tuple[str, str, str], int]:
        """Features by endpoint, version and verdict; from memory."""


class Webhooks(Protocol):
    """The part of the control plane that tells receivers."""

    def figures(self) -> WebhookFacts:
        """What became of messages; from memory."""


class ObservedControl(Protocol):
    """The part of the control plane that this port reads; headgate.control.Control has it."""

    async def list(self) -> Sequence[Any]:
        """``EndpointSummary`` objects of the admin API."""

    async def rollout_figures(self) -> Any:
        """``RolloutFigures``: the newest rollout of each endpoint, and how those before it ended."""

    def refusals(self) -> Sequence[Any]:
        """``Refusal`` objects of the admin API; from memory: a scrape reads no files."""

    def damage(self) -> Sequence[str]:
        """What is wrong with the database as a whole; from memory."""

    def audit_lost(self) -> int:
        """Rows of the audit that were dropped."""

    def removed(self) -> Mapping[str, int]:
        """Rows and files that were removed since the start, by kind; from memory."""

    @property
    def drift_watch(self) -> DriftVerdicts:
        """What the newest looks at drift found."""

    @property
    def notifications(self) -> Webhooks:
        """Who is told of what happens."""

    @property
    def background(self) -> Background:
        """The loops that run beside the calls."""


@dataclass(frozen=True)
class Sources:
    """What this port reads."""

    native: ObservedDataPlane
    control: ObservedControl
    reasons: Callable[[], Sequence[str]]
    """Why no traffic should come now; empty means ready."""
    connections: Callable[[], Mapping[str, ConnectionCounts]] = dict
    """The connections of the control plane's ports, by the port's name."""
    triton_names: bool = False
    """Whether the data plane's counters are shown under Triton's names as well."""
    restarts: int = 0
    """How often the supervisor began a new process."""
    age_seconds: float = 1.0
    """For how long a page of metrics is served before the next one is made."""


class _Page(Collector):
    """The families of one scrape, already collected."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        """What was handed in."""
        return self._families


def _encoder(form: Form) -> tuple[Callable[[Collector], bytes], str]:
    """What writes the control plane's part of a page, and the page's content type: one for each form, whatever else is accepted."""
    return choose_encoder("application/openmetrics-text; version=1.0.0" if form.open_metrics else "")


def create_app(sources: Sources) -> Starlette:
    """The ASGI app; its paths answer ``GET`` and ``HEAD`` only."""
    port = _Port(sources)
    return Starlette(
        routes=[
            Route("/metrics", port.metrics),
            Route("/healthz", port.healthz),
            Route("/readyz", port.readyz),
        ]
    )


class _Port:
    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._read_failures = 0
        self._scrapes = Scrapes(self._page, sources.age_seconds)
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)
        GCCollector(registry=self._process)

    async def metrics(self, request: Request) -> Response:
        written = request.query_params.get("form", "full")
        if written not in ("full", "compact"):
            return PlainTextResponse(f"form is {written!r}; it must be full or compact\n", status_code=400)
        _, wanted = choose_encoder(request.headers.get("accept", ""))
        form = Form(wanted.startswith("application/openmetrics-text"), written == "compact")
        page = await self._scrapes.page(form)
        return Response(page, headers={"content-type": _encoder(form)[1]})

    async def _page(self, form: Form) -> bytes:
        facts = await self._facts()
        encode, _ = _encoder(form)

        def render() -> bytes:
            counted = self._sources.native.exposition(form.open_metrics, form.compact)
            renamed = []
            if self._sources.triton_names:
                renamed = triton.families(json.loads(self._sources.native.metrics()))
            return counted + encode(_Page([*renamed, *declared.families(facts), *self._process.collect()]))

        # Merging the data plane's shards may wait and a page can be long: not on the event loop.
        return await anyio.to_thread.run_sync(render)

    async def healthz(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(self, _: Request) -> Response:
        reasons = list(self._sources.reasons())
        body = {"ready": not reasons, "reasons": reasons}
        return JSONResponse(body, status_code=503 if reasons else 200, headers={"cache-control": "no-store"})

    async def _facts(self) -> Facts:
        ready = not self._sources.reasons()
        rollouts = await self._sources.control.rollout_figures()
        try:
            endpoints = await self._sources.control.list()
        except HeadgateError as error:
            # The data plane's counters stay readable when the store is not: that is when they are needed.
            self._read_failures += 1
            _log.warning("metrics: the control plane's state could not be read: %s", error.message)
            endpoints = []
        sources = self._sources
        return Facts(
            endpoints,
            sources.control.refusals(),
            ready,
            self._read_failures,
            sources.connections(),
            sources.restarts,
            sources.control.background.status(),
            len(sources.control.damage()),
            sources.control.audit_lost(),
            sources.control.removed(),
            rollouts.views,
            rollouts.ends,
            rollouts.pauses,
            sources.control.drift_watch.verdicts(),
            sources.control.notifications.figures(),
        )

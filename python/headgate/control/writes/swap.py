"""Tells the data plane what to serve, and has memory follow its answer. Everything that is served comes about here.

Not here: when a swap is allowed (``writer``, ``emergency``, ``start_recovery``, ``artifact_repair``), its argument (``handover``).
Next: ``tickets``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from headgate.control.domain.revision import Revision
from headgate.control.domain.spec import loadable
from headgate.control.writes.context import Context
from headgate.control.writes.endpoint import EndpointState
from headgate.control.writes.tickets import Event, Ticket


@dataclass(frozen=True)
class EndpointUpdate:
    """A revision to serve without the versions that are ``omitted``, as the data plane takes it (``argument``)."""

    revision: Revision
    omitted: dict[str, str]
    argument: bytes


def nothing() -> None:
    """Nothing follows a swap."""


def serve(
    context: Context, state: EndpointState, wanted: EndpointUpdate, swapped: Callable[[], None] = nothing
) -> asyncio.Future[Event]:
    """The future of the data plane's event. ``swapped`` runs when it serves the revision, before anything else does."""
    revision, omitted = wanted.revision, wanted.omitted
    ticket = context.plane.apply(wanted.argument)
    state.loading[ticket] = frozenset(loadable(revision.spec, revision.traffic, omitted)) - state.loaded

    def seen(event: Event) -> None:
        state.loading.pop(ticket, None)
        if event["event"] == "applied":
            state.served(revision, omitted, event)
            state.no_drift = context.paths.baselines.fault(revision.spec.baseline)
            swapped()

    return context.tickets.expect(Ticket(ticket, state.name, revision.n), seen)


def remove(
    context: Context, state: EndpointState, n: int, swapped: Callable[[], None] = nothing
) -> asyncio.Future[Event]:
    """Takes the endpoint away; ``n`` is the revision that does so. As :func:`serve`.

    Also when nothing of it is loaded: the data plane says of it why it is not served.
    """

    def seen(event: Event) -> None:
        if event["event"] == "removed":
            state.gone(n)
            swapped()

    return context.tickets.expect(Ticket(context.plane.remove(state.name), state.name), seen)


def at_once(what: str) -> asyncio.Future[Event]:
    """The event of a change that the data plane has no part in: it does not know an endpoint of which nothing is loaded."""
    done: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
    done.set_result({"event": what})
    return done

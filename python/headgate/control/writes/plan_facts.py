"""The facts for plans, from memory: an emergency call waits for none of them. A dry run has them looked up anew first.

Not here: the sentences made of them (``domain.plan_text``), how requests are counted (``reads.recent``). Next: ``transition``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Protocol

from headgate.control.domain.plan_facts import PlanFacts, RecentRequests, VersionMemory
from headgate.control.writes.data_plane import DataPlane, Status, status_of
from headgate.control.writes.endpoint import EndpointState


class RequestCounts(Protocol):
    """What counts requests (``reads.recent.Recent``)."""

    async def refresh(self) -> None:
        """Reads the counters, unless that was done just now."""

    def requests(self, endpoint: str, versions: Collection[str]) -> RecentRequests:
        """The requests that these versions answered in the last minutes. Reads memory alone."""


class Facts:
    """The facts of all endpoints. Belongs to one event loop."""

    def __init__(self, plane: DataPlane, counts: RequestCounts) -> None:
        """The data plane knows memory, ``counts`` requests."""
        self._plane = plane
        self._counts = counts

    def of(self, state: EndpointState, file_bytes: Mapping[str, int]) -> PlanFacts:
        """What is known of an endpoint now; ``file_bytes`` are the sizes of a document's models. Reads memory alone."""
        # Versions that are not in the document any more may have answered some of the requests.
        recent = self._counts.requests(state.name, state.details.keys())
        return PlanFacts(recent, state.memory, {**state.file_bytes, **file_bytes})

    async def refresh(self, state: EndpointState) -> None:
        """Asks for memory and counters."""
        status, _ = await asyncio.gather(
            asyncio.to_thread(lambda: status_of(self._plane.status(state.name), state.name)),
            self._counts.refresh(),
        )
        state.memory = memory_of(status)


def memory_of(status: Status) -> dict[str, VersionMemory]:
    """Where each version is; a data plane that does not know the bytes says 0."""
    found: dict[str, VersionMemory] = {}
    for name, version in status.get("versions", {}).items():
        said = version.get("memory")
        if said is not None:
            found[name] = VersionMemory(said["state"], said["bytes"] or None)
    return found

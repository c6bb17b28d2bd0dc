"""Rollouts in figures, for ``/metrics``: the newest one of each endpoint, and how those before it ended.

Not here: the metrics (``observe.rollout_metrics``). Next: ``rollout_views``.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from headgate.control.reads.rollout_views import RolloutView, rollout_view
from headgate.control.writes.endpoint import Endpoints
from headgate.control.writes.rollouts import Rollouts

_VIEWS = 64
"""Views that are made in one turn of the event loop."""


@dataclass(frozen=True)
class RolloutFigures:
    """The views by endpoint; ends since the start by endpoint, phase and reason; pauses by endpoint and reason."""

    views: dict[str, RolloutView]
    ends: dict[tuple[str, str, str], int]
    pauses: dict[tuple[str, str], int]


async def rollout_figures(endpoints: Endpoints, rollouts: Rollouts) -> RolloutFigures:
    """The figures of the endpoints that are there now; reads memory alone."""
    views: dict[str, RolloutView] = {}
    for place, (name, state) in enumerate(sorted(endpoints.items())):
        if place % _VIEWS == 0:
            # A rollback may be waiting.
            await asyncio.sleep(0)
        current = state.current
        if current is not None and (rollout := current.traffic.rollout) is not None:
            missing = [one.words for one in rollouts.missing(name, rollout)]
            views[name] = rollout_view(current, rollout, rollouts.look_of(name, rollout), missing, None)
    return RolloutFigures(views, rollouts.counts.ends(), rollouts.counts.pauses())

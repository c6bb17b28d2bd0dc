"""Looks at the drift of every endpoint with a baseline, and tells people when features of a version begin to fail.

It reports and never moves traffic. Not here: how drift is judged (``rust/sketch``), who is told (``notifications``). Next:
``maintenance``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from headgate.background import Background
from headgate.control.writes.context import Context
from headgate.control.writes.endpoint import EndpointState
from headgate.errors import HeadgateError, ModelNotFound, ModelNotReady
from headgate.store import EventRecord

LOOK_SECONDS = 300.0
"""Between two looks at all endpoints. The window is a day, so a verdict seldom changes faster."""
_WINDOW_SECONDS = 86_400
_VERDICTS = ("fail", "pass", "undecided")
_NAMED = 10
"""Features that an event names; it says how many there are."""

Verdicts = dict[tuple[str, str, str], int]
"""Features by endpoint, version and verdict."""


class DriftWatch:
    """The looks of one gateway. Belongs to one event loop."""

    def __init__(self, context: Context, endpoints: Mapping[str, EndpointState]) -> None:
        """``endpoints`` are all there are, now and later."""
        self._context = context
        self._endpoints = endpoints
        self._counts: dict[str, dict[str, Counter[str]]] = {}

    def start(self, background: Background) -> None:
        """Begins the loop."""
        background.run("watch_drift", self.turn, LOOK_SECONDS)

    async def turn(self) -> None:
        """Looks at every endpoint once. One that cannot be looked at keeps no other from it; raises what failed then."""
        watched = {state.name: state for state in self._endpoints.values() if _has_baseline(state)}
        self._counts = {name: counts for name, counts in self._counts.items() if name in watched}
        failed: HeadgateError | None = None
        for name, state in watched.items():
            try:
                await self._look(name, state)
            except (ModelNotFound, ModelNotReady):
                self._counts.pop(name, None)  # it is not served now, which is told elsewhere
            except HeadgateError as error:
                failed = error
        if failed is not None:
            raise failed

    async def _look(self, name: str, state: EndpointState) -> None:
        plane = self._context.plane
        report = json.loads(await self._context.long(lambda: plane.drift(name, _WINDOW_SECONDS)))
        failing: dict[str, list[str]] = {}
        counts: dict[str, Counter[str]] = {}
        for feature in report["features"]:
            counts.setdefault(feature["version"], Counter())[feature["verdict"]] += 1
            if feature["verdict"] == "fail":
                failing.setdefault(feature["version"], []).append(_name(feature))
        before, self._counts[name] = self._counts.get(name, {}), counts
        for version, features in failing.items():
            if not before.get(version, Counter())["fail"]:
                await self._context.tell(self._event(state, version, features))

    def _event(self, state: EndpointState, version: str, features: list[str]) -> EventRecord:
        which = "a feature" if len(features) == 1 else f"{len(features)} features"
        words = f"{which} of {state.name}/{version} drift from the baseline"
        data = {"version": version, "message": words, "count": len(features), "features": features[:_NAMED]}
        revision = None if state.current is None else state.current.n
        return EventRecord("drift", self._context.now(), state.name, revision, "headgate", "", data)

    def verdicts(self) -> Verdicts:
        """Features by verdict as of the newest look; from memory."""
        return {
            (name, version, verdict): counts[verdict]
            for name, versions in self._counts.items()
            for version, counts in versions.items()
            for verdict in _VERDICTS
        }


def _has_baseline(state: EndpointState) -> bool:
    return state.current is not None and bool(state.loaded) and state.current.spec.baseline is not None


def _name(feature: Mapping[str, Any]) -> str:
    column = feature["column"]
    return str(column) if column.startswith(f"{feature['tensor']}[") else f"{feature['tensor']}.{column}"

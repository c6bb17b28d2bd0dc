"""What was refused and why, for as long as it stands: models with other bytes, models that do not load, folders that hold none,
documents that a start could not apply.

Each source of refusals replaces its own as it finds them mended or new; nobody else's. Not here: what is refused (``registry``,
``tree``, gateway/models_folder.py, gateway/first_loads.py). Next: ``registry``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

MAX_REFUSALS = 1000
"""How many refusals of a source are kept; beyond them, the last one says how many more there are."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refusal that stands."""

    message: str
    endpoint: str | None = None
    version: str | None = None
    folder: str | None = None
    """Where it lies, if a folder and not a name is at fault."""
    pinned: str | None = None
    """The digest that goes on serving, if the version came with other bytes,"""
    found: str | None = None
    """and that of the other bytes, as they came last."""
    count: int = 1
    """How often it was refused since the start."""


class Refusals:
    """The refusals of every source; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        self._of: dict[str, dict[tuple[str, ...], Refusal]] = {}
        self._told: Callable[[list[Refusal]], None] | None = None

    def tell(self, told: Callable[[list[Refusal]], None]) -> None:
        """Has ``told`` called with all that stand after each change, in whatever thread made it."""
        self._told = told

    def put(self, source: str, key: tuple[str, ...], refusal: Refusal) -> None:
        """A refusal that stands from now on, or once more."""
        with self._lock:
            mine = self._of.setdefault(source, {})
            known = mine.get(key)
            if known is not None:
                mine[key] = replace(refusal, count=known.count + 1)
            elif len(mine) < MAX_REFUSALS:
                mine[key] = refusal
        self._tell()

    def drop(self, source: str, key: tuple[str, ...]) -> None:
        """The refusal stands no more."""
        with self._lock:
            gone = self._of.get(source, {}).pop(key, None)
        if gone is not None:
            self._tell()

    def replace(self, source: str, standing: Mapping[tuple[str, ...], Refusal]) -> None:
        """All that stand of one source."""
        kept = dict(sorted(standing.items())[:MAX_REFUSALS])
        if len(standing) > len(kept):
            last = max(kept)
            more = len(standing) - len(kept) + 1
            kept[last] = Refusal(f"{more} more are refused, and not listed")
        with self._lock:
            same = self._of.get(source, {}) == kept
            self._of[source] = kept
        if not same:
            self._tell()

    def all(self) -> list[Refusal]:
        """Every refusal that stands, by endpoint, version and folder."""
        with self._lock:
            found = [refusal for mine in self._of.values() for refusal in mine.values()]
        return sorted(found, key=lambda one: (one.endpoint or "", one.version or "", one.folder or ""))

    def why(self, endpoint: str) -> list[str]:
        """What was refused of an endpoint, each with its version."""
        return [
            f"{one.version}: {one.message}" if one.version is not None else one.message
            for one in self.all()
            if one.endpoint == endpoint
        ]

    def _tell(self) -> None:
        if self._told is None:
            return
        with self._telling:  # so that what is told last is what stands
            self._told(self.all())


def by_name(refusals: Iterable[Refusal]) -> dict[str, dict[str, str]]:
    """What was refused of each endpoint and version, and why; an empty version stands for the endpoint."""
    found: dict[str, dict[str, str]] = {}
    for one in refusals:
        if one.endpoint is not None:
            versions, version = found.setdefault(one.endpoint, {}), one.version or ""
            said = versions.get(version)
            versions[version] = one.message if said is None else f"{said}; {one.message}"
    return found

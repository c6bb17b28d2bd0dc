"""Keeping up with a model tree: what is new, what is refused, what did not change and is not read again.

One pass is a method that takes what a scan found; the loop around it is the caller's. A version that
disappears from the tree stays in the store and in use: a source that is gone never unloads anything.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from headgate.errors import HeadgateError, ModelLoadFailed, StorageFailed
from headgate.registry import source as sources
from headgate.registry.manifest import MAX_FILES
from headgate.registry.registry import Pins, Refused, Registry
from headgate.registry.tree import Found

SETTLE_SECONDS = 2.0
"""How long a folder must have lain still before a pass with a clock takes it in."""

_log = logging.getLogger(__name__)
_Key = tuple[str, str]
_Status = tuple[tuple[str, tuple[int, ...] | None], ...]


@dataclass(frozen=True, slots=True)
class Admitted:
    """A version taken in by this pass, with its digest."""

    found: Found
    digest: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A version that could not be taken in: the error; tried again once its files change (or at once if
    unsettled)."""

    found: Found
    error: HeadgateError


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What one pass did; ``settling`` are folders too fresh to be read, ``gone`` those no longer in the tree."""

    new: list[Admitted] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    settling: list[Found] = field(default_factory=list)
    gone: list[tuple[str, str]] = field(default_factory=list)
    unchanged: int = 0


class TreeSync:
    """Passes over one tree; remembers each folder's file status, so that an unchanged tree is not read again."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._seen: dict[_Key, tuple[Path, _Status]] = {}
        self._failures: dict[_Key, Failed] = {}

    def sync(self, found: Iterable[Found], *, now: float | None = None) -> SyncResult:
        """One pass; blocking, so never on an event loop.

        ``now`` is the wall clock in seconds since 1970. With it, a folder whose files changed within
        ``SETTLE_SECONDS`` waits for a later pass; without it (the first pass of a start) all are taken at
        once.
        """
        tally = _Tally()
        present: set[_Key] = set()
        changed: list[tuple[Found, _Status]] = []
        for one in found:
            key = (one.endpoint, one.version)
            present.add(key)
            status = _status(one.folder)
            if self._seen.get(key) == (one.folder, status):
                tally.unchanged += 1
            elif now is not None and abs(now - _newest(status)) < SETTLE_SECONDS:
                tally.settling.append(one)
            else:
                changed.append((one, status))
        pins = self._pins_of(changed)
        for one, status in changed:
            self._admit(one, status, tally, pins)
        gone = sorted((self._seen.keys() | self._failures.keys()) - present)
        for key in gone:
            self._seen.pop(key, None)
            self._failures.pop(key, None)
            self._registry.forget(*key)
        return tally.result(gone)

    def _pins_of(self, changed: list[tuple[Found, _Status]]) -> Pins | None:
        """The pins of what is to be admitted. They are read at once: a transaction for each version of a large tree takes seconds.

        ``None`` if there is nothing to read, or if that fails: each version then reads its own, and says why it cannot.
        """
        try:
            return self._registry.snapshot({one.endpoint for one, _ in changed}) if changed else None
        except StorageFailed:
            return None

    def failures(self) -> list[Failed]:
        """The versions in the tree that could not be taken in when they were last tried, by endpoint and
        version."""
        return [self._failures[key] for key in sorted(self._failures)]

    def _admit(self, one: Found, status: _Status, tally: _Tally, pins: Pins | None) -> None:
        key = (one.endpoint, one.version)
        self._failures.pop(key, None)
        self._seen.pop(key, None)
        try:
            digest = self._registry.admit(one.endpoint, one.version, one.folder, pins=pins)
            tally.new.append(Admitted(one, digest))
        except Refused as refused:
            tally.refused.append(refused)
        except ModelLoadFailed as error:
            self._failures[key] = Failed(one, error)
            tally.failed.append(self._failures[key])
        except HeadgateError as error:
            # Not the model's fault (still being written, disk full): tried again at the next pass.
            self._failures[key] = Failed(one, error)
            tally.failed.append(self._failures[key])
            return
        except Exception as error:
            # One folder must not keep the others from being seen, whatever is in it.
            _log.exception("%s could not be taken in", one.folder)
            self._failures[key] = Failed(one, ModelLoadFailed(f"{one.folder} cannot be read: {error}"))
            tally.failed.append(self._failures[key])
        # The status from before the read: what changed during it differs at the next pass.
        self._seen[key] = (one.folder, status)


@dataclass(slots=True)
class _Tally:
    """A :class:`SyncResult` while its pass runs."""

    new: list[Admitted] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    settling: list[Found] = field(default_factory=list)
    unchanged: int = 0

    def result(self, gone: list[_Key]) -> SyncResult:
        return SyncResult(self.new, self.refused, self.failed, self.settling, gone, self.unchanged)


def _status(folder: Path) -> _Status:
    """What changes when any file below ``folder`` does: the model, its external data, extras and what else is
    there."""
    status: list[tuple[str, tuple[int, ...] | None]] = []
    for here, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(here) / name
            status.append((str(path), sources.identity(path)))
            if len(status) >= MAX_FILES:
                return tuple(status)
    return tuple(status)


def _newest(status: _Status) -> float:
    """The newest change time of the files, in seconds since 1970; 0 when there are none."""
    return max((identity[-1] / 1e9 for _, identity in status if identity is not None), default=0.0)

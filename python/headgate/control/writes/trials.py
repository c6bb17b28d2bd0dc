"""The counts of trials between the data plane and the store: written while they grow, and given back at the start.

What was counted after the last write is lost with the process. The data plane notes that as a gap, and never as zero.
Not here: what is counted (``docs/design/evidence.md``), the table (``store.trials``). Next: ``maintenance``.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Mapping
from typing import Any

from headgate.background import Background
from headgate.control.writes.context import Context
from headgate.errors import HeadgateError
from headgate.store import TrialKey, TrialRecord, stamp

_log = logging.getLogger(__name__)
_WRITE_SECONDS = 10.0
_LEVEL = 1
"""Of zlib: a million units take 10 ms."""
_QUIET_SECONDS = 60.0
"""A trial without a change is written as often, so that a gap begins when it really did."""


class TrialWriter:
    """Writes the trials that changed. Belongs to one event loop."""

    def __init__(self, context: Context) -> None:
        """The context holds store and data plane."""
        self._context = context
        self._written: dict[TrialKey, tuple[int, float]] = {}
        """For each trial the change that was written last, and when."""

    def start(self, background: Background) -> None:
        """Begins the loop."""
        background.run("write_trials", self.write, _WRITE_SECONDS)

    async def restore(self) -> None:
        """Gives the trials back that were not over. Call it before endpoints are served. What cannot be read begins anew."""
        try:
            await self._context.io(self._restore)
        except Exception as error:
            why = error.message if isinstance(error, HeadgateError) else repr(error)
            await self._context.alarm(None, None, f"no trial is known any more: {why}")

    def _restore(self) -> None:
        for key in self._context.store.unfinished_trials():
            try:
                self._restore_one(key)
            except Exception as error:
                # A damaged row may hold any type, and a gateway that does not start costs more than counts.
                _log.error("%s: its trial begins anew, what was counted cannot be read: %s", key[0], error)

    def _restore_one(self, key: TrialKey) -> None:
        record = self._context.store.trial(key)
        if record is not None:
            ledger, units = zlib.decompress(record.ledger), zlib.decompress(record.units)
            self._context.plane.restore_trial(record.endpoint, ledger, units)

    async def write(self) -> None:
        """Writes the trials that changed since the last time, in one transaction."""
        await self._context.write(self._write)

    def _write(self) -> None:
        now = self._context.store.now()
        listed = {(one["endpoint"], one["begun_ms"]): one for one in json.loads(self._context.plane.trials())}
        changed = {key: one for key, one in listed.items() if self._is_due(key, one, now.timestamp())}
        found = {
            key: record for key, one in changed.items() if (record := self._record(key, one)) is not None
        }
        records = list(found.values())
        if records:
            live = {key for key, one in listed.items() if one["ended_ms"] is None}
            self._context.store.put_trials(records, live)
        # Only once it is on disk: a failed write is made again, and so is that of a trial that could not be given.
        self._written = {key: was for key, was in self._written.items() if key in listed}
        self._written |= {key: (changed[key]["changes"], now.timestamp()) for key in found}

    def _is_due(self, key: TrialKey, one: Mapping[str, Any], now: float) -> bool:
        changes, when = self._written.get(key, (0, 0.0))
        return one["changes"] != changes or (one["ended_ms"] is None and now - when >= _QUIET_SECONDS)

    def _record(self, key: TrialKey, one: Mapping[str, Any]) -> TrialRecord | None:
        endpoint, begun = key
        stored = self._context.plane.stored_trial(endpoint, begun)
        if stored is None:
            return None
        ledger, units = (zlib.compress(part, _LEVEL) for part in stored)
        written = stamp(self._context.store.now())
        return TrialRecord(endpoint, begun, one["ended_ms"], written, ledger, units)

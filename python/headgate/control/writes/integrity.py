"""Whether what is stored is as it was written: looked at when the gateway starts and now and then, and told until it is repaired.

Not here: how damage is found (``store.chain``), what is served instead (``start_recovery``). Next: ``start_recovery``.

A start looks at what it serves; the history is read behind, because it may be long. The last applied state is kept as a file beside
the database (``store.applied_file``), so that a start notices a database that was lost, or that has lost its newest writes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from itertools import groupby

from headgate.background import Background
from headgate.control.writes.context import Context
from headgate.control.writes.endpoint import EndpointState
from headgate.store import Damage

REMEDY = "`headgate state check` says what is damaged, `headgate state restore` brings a backup back"
_log = logging.getLogger(__name__)
_WRITE_SECONDS = 1.0
_HISTORY_SECONDS = 3600.0


class Integrity:
    """What is damaged in the store of one gateway."""

    def __init__(self, context: Context, endpoints: Mapping[str, EndpointState]) -> None:
        """``endpoints`` are all there are, now and later."""
        self._context = context
        self._endpoints = endpoints
        self._database: list[str] = []
        """What is wrong with the database as a whole."""
        self._rows: list[str] = []
        """Tokens, pins and applied documents that are damaged."""

    async def at_start(self) -> dict[str, str]:
        """What is wrong with the endpoints that cannot be served as they were, by name; alarms of what is wrong with the database."""
        store = self._context.store
        pages = await self._context.io(store.check_pages)
        newest = await self._context.io(store.check_newest)
        self._database = [*(f"pages of the database are damaged: {line}" for line in pages), *newest]
        self._rows = await self._context.io(store.check_rows)
        for line in self.alarms():
            await self._context.alarm(None, None, line)
        return {
            name: f"{what}; {REMEDY}"
            for name, what in _damage_by_endpoint(await self._context.io(store.check_in_force)).items()
        }

    def alarms(self) -> list[str]:
        """What is wrong with the database as a whole."""
        return [f"{line}; {REMEDY}" for line in self._database] + self._rows

    def start(self, background: Background) -> None:
        """Begins the loops."""
        background.run("write_applied_state", self.write, _WRITE_SECONDS)
        background.run("check_history", self._check_later)

    async def write(self) -> None:
        """Brings the file of the last applied state up to date. What is damaged stays in it as it was. Looks at damaged rows again."""
        damaged = {
            name
            for name, state in self._endpoints.items()
            if state.current is None and state.broken is not None
        }
        await self._context.write(lambda: self._context.store.write_applied(damaged))
        if self._rows:
            # An alarm ends as soon as its cause does.
            await self._check_rows()

    async def check_history(self) -> None:
        """Reads every revision, token and pin; damage that was not known is an alarm."""
        await self._check_rows()
        found = _damage_by_endpoint(await self._context.long(self._context.store.check))
        for name, state in list(self._endpoints.items()):
            known, state.damage = (
                state.damage,
                (f"its history is damaged: {found[name]}; {REMEDY}",) if name in found else (),
            )
            for line in set(state.damage) - set(known):
                await self._context.alarm(name, state.revision, line)

    async def _check_rows(self) -> None:
        known, self._rows = self._rows, await self._context.io(self._context.store.check_rows)
        for line in sorted(set(self._rows) - set(known)):
            await self._context.alarm(None, None, line)

    async def _check_later(self) -> None:
        await asyncio.sleep(_HISTORY_SECONDS)
        await self.check_history()


def _damage_by_endpoint(damages: Iterable[Damage]) -> dict[str, str]:
    """What is wrong with each endpoint, in words."""
    ordered = sorted(damages, key=lambda damage: (damage.endpoint, damage.n))
    return {
        name: "; ".join(f"revision {damage.n}: {damage.what}" for damage in found)
        for name, found in groupby(ordered, key=lambda damage: damage.endpoint)
    }

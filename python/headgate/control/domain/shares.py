"""The slot table as a value: who was given which slot, and what moves between two tables.

Not here: how slots move (``_native.set_weights`` decides, ``traffic`` asks), shares as text (``documents.values``). Next: ``traffic``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headgate.documents.values import SLOTS, format_weight

Run = tuple[str, int, int]
"""A version and the slots it was given, ends included, in the order given; from > to counts downwards."""


def format_shares(slots: Mapping[str, int]) -> dict[str, str]:
    """Shares as text, by version: ``{"v8": "2.5%"}``."""
    return {version: format_weight(slots[version]) for version in sorted(slots)}


@dataclass(frozen=True)
class Table:
    """The slots that are given away, oldest first, and the salt that keys are hashed with.

    A table that gives nothing away has no salt: taking everything back restores exactly the table before.
    """

    salt: str = ""
    given: tuple[Run, ...] = ()

    def weights(self) -> dict[str, int]:
        """Slots of each version that has some."""
        slots: dict[str, int] = {}
        for version, first, last in self.given:
            slots[version] = slots.get(version, 0) + abs(last - first) + 1
        return slots

    def without(self, versions: frozenset[str]) -> Table:
        """The table with the runs of ``versions`` left to the champion and every other slot where it was."""
        given = tuple(run for run in self.given if run[0] not in versions)
        return Table(self.salt, given) if given else Table()

    def owner(self, slot: int) -> tuple[str, Run] | None:
        """The version that a slot was given to, with its run; None: the champion's."""
        for run in self.given:
            if min(run[1], run[2]) <= slot <= max(run[1], run[2]):
                return run[0], run
        return None


EMPTY = Table()
"""Nothing is given away."""


def owners(champion: str, table: Table) -> list[str]:
    """The version of each of the 10 000 slots."""
    slots = [champion] * SLOTS
    for version, first, last in table.given:
        low, high = min(first, last), max(first, last)
        slots[low : high + 1] = [version] * (high - low + 1)
    return slots


def moves(before: list[str], after: list[str]) -> dict[str, int]:
    """Slots that change hands, by pair: ``{"v1→v2": 400}``. A change of salt is not seen here."""
    count: dict[str, int] = {}
    for old, new in zip(before, after, strict=True):
        if old != new:
            pair = f"{old}→{new}"
            count[pair] = count.get(pair, 0) + 1
    return dict(sorted(count.items()))

"""The plan of a write: what moves, what loads, what the reader should know. Pure.

Not here: computing the new state (``traffic``, ``merge``). Next: ``writes``.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from headgate.control.domain.results import ChampionMove, LiveView, Plan
from headgate.control.domain.revision import Revision
from headgate.control.domain.shares import Table, format_shares, moves, owners
from headgate.control.domain.spec import loadable
from headgate.control.domain.traffic import KnownVersions, LiveTraffic, rollback_target
from headgate.documents.values import format_weight


@dataclass(frozen=True)
class Step:
    """From one state of an endpoint to the next; ``before`` is None at creation, ``after`` None at removal."""

    endpoint: str
    n: int
    before: Revision | None
    after: Revision | None
    loaded: Collection[str] = ()
    notes: tuple[str, ...] = ()
    blocks: tuple[str, ...] = field(default=())
    unloadable: Mapping[str, str] = field(default_factory=dict)
    """Versions that cannot be loaded, with the reason."""


def make_plan(step: Step) -> Plan:
    """The plan; ``changes`` is false when nothing would be different afterwards."""
    before, after = step.before, step.after
    moved = slots_moved(before, after)
    wanted = [] if after is None else loadable(after.spec, after.traffic)
    return Plan(
        endpoint=step.endpoint,
        base_revision=None if before is None else before.n,
        revision=step.n,
        changes=_differs(before, after),
        champion=_champion(before, after),
        moves=moved,
        share_of_keys=format_weight(sum(moved.values())),
        rollback_to=None if after is None else rollback_to(after, step.unloadable),
        load=[version for version in wanted if version not in step.loaded],
        unload=sorted(version for version in step.loaded if version not in wanted),
        block=list(step.blocks),
        notes=list(step.notes),
        diff=document_diff(before, after),
    )


def rollback_to(revision: Revision, unloadable: Mapping[str, str]) -> str | None:
    """Where a rollback would go; None: nowhere, because nothing that it may go to can be loaded."""
    spec = revision.spec
    known = KnownVersions(revision.endpoint, spec.digests(), _moves_nothing, unloadable, spec.fallback)
    return rollback_target(revision.traffic, known)


def _moves_nothing(table: Table, _weights: Mapping[str, int]) -> Table:
    return table


def slots_moved(before: Revision | None, after: Revision | None) -> dict[str, int]:
    """Slots that change hands, by pair; none at creation and removal."""
    if before is None or after is None:
        return {}
    return moves(
        owners(before.traffic.champion, before.traffic.table),
        owners(after.traffic.champion, after.traffic.table),
    )


def document_diff(before: Revision | None, after: Revision | None) -> str:
    """A unified diff of the two documents' text; empty when they are equal."""
    old = "" if before is None else before.text.decode(errors="replace")
    new = "" if after is None else after.text.decode(errors="replace")
    if old == new:
        return ""
    names = (
        "nothing" if before is None else f"revision {before.n}",
        "nothing" if after is None else f"revision {after.n}",
    )
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), *names, lineterm="")
    return "\n".join(lines)


def live_view(live: LiveTraffic) -> LiveView:
    """The short form."""
    return LiveView(champion=live.champion, weights=format_shares(live.weights()))


def _differs(before: Revision | None, after: Revision | None) -> bool:
    if before is None or after is None:
        return before is not after
    return not before.same_state(after)


def _champion(before: Revision | None, after: Revision | None) -> ChampionMove:
    old = None if before is None else before.traffic.champion
    new = old if after is None else after.traffic.champion
    return {"from": old, "to": new or ""}

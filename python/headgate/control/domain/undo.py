"""How a change is undone: calls of the admin API in their order, and what they leave different. Pure.

The calls follow from the two states alone, whatever made the one of the other. Not here: the other sentences of a plan
(``plan_text``). Next: ``plan``.

    a digest that is blocked now and was not           unblock it
    other champion, table, switches, or document       restore the revision before
    a digest that is not blocked now and was           block it
    frozen before or after                             unfreeze first, freeze last
    created                                            delete
    deleted                                            restore, which brings the endpoint back
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headgate.control.domain import traffic
from headgate.control.domain.results import UndoCall
from headgate.control.domain.revision import Revision
from headgate.control.domain.step import Step
from headgate.control.domain.traffic import Block, KnownVersions, LiveTraffic, Stamp
from headgate.errors import Conflict


@dataclass(frozen=True)
class Undo:
    """The calls, each in words too, and what is not as before after them. ``impossible`` says why there are none."""

    calls: tuple[UndoCall, ...] = ()
    words: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    impossible: str | None = None


def undo_of(step: Step) -> Undo:
    """The undo of a step; empty if nothing changes."""
    before, after = step.before, step.after
    if before is None and after is None:
        return Undo()
    if before is None and step.broken is not None:
        return Undo(impossible=step.broken)
    if before is None:
        return _joined([("delete it", _call(step, "remove", force=True))])
    if after is None:
        return _joined([_restored(step, before)])
    if before.same_state(after):
        return Undo()
    gone, added = _blocks(after, before), _blocks(before, after)
    moved = not before.same_content(after) or _restorable(before.traffic) != _restorable(after.traffic)
    parts = [(f"unblock {_name(block)}", _call(step, "unblock", digest=block.digest)) for block in gone]
    parts += [_restored(step, before)] if moved else []
    if after.traffic.frozen is not None and (parts or before.traffic.frozen is None):
        parts.insert(0, ("unfreeze", _call(step, "unfreeze")))
    parts += [(f"block {_name(block)}", _call(step, "block", digest=block.digest)) for block in added]
    if before.traffic.frozen is not None and (after.traffic.frozen is None or len(parts) > len(added)):
        parts.append(("freeze", _call(step, "freeze")))
    try:
        left = _undone(before, after, moved=moved, gone=gone)
    except Conflict as error:
        return Undo(impossible=error.message)
    return _joined(parts, _differences(step, before, after, left))


def _joined(parts: list[tuple[str, UndoCall]], differences: tuple[str, ...] = ()) -> Undo:
    words, calls = tuple(word for word, _ in parts), tuple(call for _, call in parts)
    return Undo(calls, words, differences)


def _restored(step: Step, before: Revision) -> tuple[str, UndoCall]:
    return f"restore revision {before.n}", _call(step, "restore", revision=before.n)


def _call(step: Step, action: str, *, force: bool = False, **body: Any) -> UndoCall:
    place = f"/v1/endpoints/{step.endpoint}"
    removes = action == "remove"
    return UndoCall(
        action=action,
        method="DELETE" if removes else "POST",
        path=place if removes else f"{place}:{action}",
        query={"force": "true"} if force else {},
        body=body,
    )


def _blocks(of: Revision, without: Revision) -> list[Block]:
    """The blocks of one state that the other has not."""
    return [block for block in of.traffic.blocked if without.traffic.block_of(block.digest) is None]


def _restorable(live: LiveTraffic) -> tuple[Any, ...]:
    """What a restore brings back of live traffic."""
    return live.champion, live.table, live.shadows_off, live.capture_off, live.rollout


def _name(block: Block) -> str:
    return block.version or block.digest


def _undone(before: Revision, after: Revision, *, moved: bool, gone: list[Block]) -> LiveTraffic:
    """The traffic after the calls. Blocks are made anew last: they move no slot, because none was theirs before."""
    live = after.traffic
    for block in gone:
        live = traffic.unblock(live, block.digest, _name(block)).live
    if moved:
        spec = before.spec.including({live.champion, live.last_good}, after.spec)
        known = KnownVersions(before.endpoint, spec.digests(), _moves_nothing)
        live = traffic.restore(live, before.traffic, known, before.when).live
    for block in _blocks(before, after):
        known = KnownVersions(before.endpoint, before.spec.digests(), _moves_nothing)
        stamp = Stamp(block.who, block.since, block.reason)
        live = traffic.block(live, block.digest, block.version, known, stamp).live
    return live


def _moves_nothing(table: Any, _weights: Any) -> Any:
    return table


def _differences(step: Step, before: Revision, after: Revision, left: LiveTraffic) -> tuple[str, ...]:
    """What the calls do not bring back, and what may keep them from being carried out."""
    found = []
    if left.last_good != before.traffic.last_good:
        found.append(f"after it a rollback goes to {left.last_good}, not to {before.traffic.last_good}")
    rollout, was = left.rollout, before.traffic.rollout
    if rollout is not None and rollout != was:
        waits = "waits for a person" if rollout.active else f"stays {rollout.phase}"
        found.append(f"rollout {rollout.id} then {waits}")
    had = {**after.traffic.weights(), after.traffic.champion: None}
    gains = [
        version
        for version, slots in {**before.traffic.weights(), before.traffic.champion: None}.items()
        if version in step.unloadable and (version not in had or slots != had[version])
    ]
    found += [f"it is refused as long as {version} does not load" for version in gains]
    return tuple(found)

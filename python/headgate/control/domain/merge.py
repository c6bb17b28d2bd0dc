"""The three-way merge: a document changes live traffic only where its ``traffic`` differs from the document before it.

Not here: reading documents (``documents``), the other changes of live traffic (``traffic``). Next: ``spec``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from headgate.control.domain import copies
from headgate.control.domain.declared import Declared
from headgate.control.domain.rollout import interruptions
from headgate.control.domain.stamp import ms_of
from headgate.control.domain.traffic import (
    Change,
    KnownVersions,
    LiveTraffic,
    blocked_fault,
    describe,
    faults,
    move,
    overridden,
    put_weights,
    too_much_fault,
    with_rollout,
)
from headgate.documents.values import format_weight


@dataclass(frozen=True)
class Merge:
    """The document to apply (``new``), the last applied one (``base``), and the versions that each of them names.

    ``take`` makes live traffic what the document declares, whatever it is now.
    """

    new: Declared
    base: Declared
    versions: frozenset[str]
    base_versions: frozenset[str]
    take: bool = False


def first(declared: Declared, carried: LiveTraffic | None, known: KnownVersions, when: str) -> Change:
    """The first document of an endpoint; ``carried`` is what a removed endpoint of that name left: blocks and attempts."""
    live = LiveTraffic(
        champion=declared.champion,
        last_good=declared.champion,
        since=when,
        attempt=carried.attempt if carried else 0,
        blocked=carried.blocked if carried else (),
        tried=carried.tried if carried else (),
        rollouts=carried.rollouts if carried else 0,
    )
    found = blocked_fault(live, declared.champion, "traffic.champion", known)
    for version in declared.weights:
        found |= blocked_fault(live, version, f"traffic.weights.{version}", known)
    if found:
        raise faults(found)
    live = put_weights(live, declared.weights, known)
    return Change(live, describe(live))


def apply_document(live: LiveTraffic, merge: Merge, known: KnownVersions, when: str) -> Change:
    """Merges a document into live traffic.

    ``known`` must know the digests of the document's versions and of the live champion and last good champion. The notes say
    what was kept against the document and what returned to the champion.
    """
    champion, notes = _champion(live, merge)
    weights, more = _weights(live, merge, champion)
    notes += more
    found = too_much_fault(weights)
    if champion != live.champion:
        found |= blocked_fault(live, champion, "traffic.champion", known)
    for version, slots in weights.items():
        if slots:
            found |= blocked_fault(live, version, f"traffic.weights.{version}", known)
    if found:
        # What is refused may not be in the document, but live.
        raise faults({path: "; ".join([why, *notes]) for path, why in found.items()})
    after = move(live, champion, weights, known, when)
    after, more = _rollout(live, after, merge, known, when)
    notes += more
    if after.last_good not in known.digests:
        after = replace(after, last_good=after.champion)
    after, more = copies.merged(after, merge.new, merge.base, take=merge.take)
    notes += more
    return Change(after, describe(after), already=after == live, notes=tuple(notes))


def _rollout(
    live: LiveTraffic, after: LiveTraffic, merge: Merge, known: KnownVersions, when: str
) -> tuple[LiveTraffic, list[str]]:
    """What a document does to a rollout under way: nothing, unless it moves traffic, changes the sticky key or takes the challenger away.
    A rollout that has ended stays so: a document that is applied again starts nothing.
    """
    rollout = after.rollout
    if rollout is None or not rollout.active:
        return after, []
    name, digest = rollout.challenger.name, rollout.challenger.digest
    gone = name in merge.base_versions and name not in merge.versions
    if (gone or known.digests.get(name) != digest) and after.champion != name:
        what = (
            "is not in it any more"
            if gone
            else f"is {known.digests.get(name, 'nothing')} in it, not {digest}"
        )
        said = f"A document was applied, and {name} {what}."
        after = replace(after, table=after.table.without(frozenset({name})))
        ended = interruptions.aborted(rollout, "document", said, ms_of(when))
        return with_rollout(after, ended), [f"rollout {rollout.id} is aborted: {name} {what}"]
    after = overridden(live, after, "A document changed the traffic", when)
    if after.rollout == rollout and merge.new.sticky != merge.base.sticky:
        said = f"The sticky key is {merge.new.sticky or 'none'} now, not {merge.base.sticky or 'none'}: every key draws anew."
        weights = after.weights()
        state = interruptions.overridden(rollout, after.champion, weights, said, ms_of(when))
        after = with_rollout(after, state)
    changed = after.rollout != rollout and after.rollout is not None
    return after, [f"rollout {rollout.id} is {after.rollout.phase}"] if changed and after.rollout else []


def differences(live: LiveTraffic, declared: Declared) -> list[str]:
    """What a reader should know: where live traffic is not what the document says."""
    notes = []
    if live.champion != declared.champion:
        notes.append(f"live champion is {live.champion}, your document says {declared.champion}")
    present = live.weights()
    for version in sorted({*present, *declared.weights} - {live.champion}):
        now, said = present.get(version, 0), declared.weights.get(version, 0)
        if now != said:
            notes.append(
                f"live weight of {version} is {format_weight(now)}, your document says {format_weight(said)}"
            )
    return [*notes, *copies.differences(live, declared)]


def _champion(live: LiveTraffic, merge: Merge) -> tuple[str, list[str]]:
    said = merge.new.champion
    if merge.take or said != merge.base.champion or said == live.champion:
        return said, []
    notes = [f"live champion is {live.champion}, your document says {said}: kept (--take-traffic to move)"]
    if live.champion not in merge.versions:
        notes.append(
            f"{live.champion} is not among your document's versions and stays loaded, because it is live"
        )
    return live.champion, notes


def _weights(live: LiveTraffic, merge: Merge, champion: str) -> tuple[dict[str, int], list[str]]:
    """Slots per version after the merge, the champion left out."""
    present = live.weights()
    merged: dict[str, int] = {}
    notes = []
    for version in sorted({*present, *merge.new.weights, *merge.base.weights} - {champion}):
        now = present.get(version, 0)
        said = merge.new.weights.get(version, 0)
        removed = version in merge.base_versions or merge.take
        if version not in merge.versions and removed:
            merged[version] = 0
            if now:
                notes.append(f"{version} is removed: its {now} slots return to the champion {champion}")
        elif version not in merge.versions:
            merged[version] = now
            if now:
                notes.append(
                    f"{version} is not among your document's versions and keeps its live weight of {format_weight(now)} "
                    "(--take-traffic to move)"
                )
        elif merge.take or said != merge.base.weights.get(version, 0):
            merged[version] = said
        else:
            merged[version] = now
            if now != said:
                notes.append(
                    f"live weight of {version} is {format_weight(now)}, your document says {format_weight(said)}: "
                    "kept (--take-traffic to move)"
                )
    if champion == live.champion and merge.new.weights.get(champion, 0) != merge.base.weights.get(
        champion, 0
    ):
        notes.append(f"{champion} is the live champion: the weight your document gives it has no effect")
    return merged, notes

"""Live traffic of one endpoint and every way it may change. Pure: values in, values out, no clock, no store, no data plane.

Not here: who may ask and when it takes effect (``service``), how slots move within a table (``SetWeights``, Rust).
Next: ``merge`` (a document against live traffic).

Where a rollback goes, as a state machine of ``(champion, last_good)``:

    creation of A                 (A, A)
    first weight given under A    (A, A)    the challenger is judged against A
    move from A to B              (B, A)    if B is not the last good champion: a step forward
    move from B to A, A last good (A, A)    a return: B is under suspicion
    rollback from (B, A)          (A, A)    B and all challengers are blocked
    block of B in (B, A)          (A, A)    block of A in (B, A): (B, B)
    rollback from (B, A), A damaged (B, B)  B stays: a version that cannot be loaded is never gone back to
    promotion of B by a rollout   (B, A)    the rollout's own moves are in ``rollout.moves``
    restore                       as the restored revision says, unless its champion is the last good one: a return

Invariants that hold after each function: champion and owners of slots are not blocked; the champion owns no run of the table;
a table without runs has no salt; ``last_good`` is not blocked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from headgate.control.domain.live import Block, Change, KnownVersions, LiveTraffic
from headgate.control.domain.rollout import interruptions
from headgate.control.domain.rollout.state import RolloutState, remembered
from headgate.control.domain.shares import EMPTY, Table
from headgate.control.domain.stamp import Stamp, ms_of
from headgate.documents.faults import Fault
from headgate.documents.values import SLOTS, format_weight
from headgate.errors import Conflict, PolicyInvalid
from headgate.store import seconds

__all__ = ["Block", "Change", "KnownVersions", "LiveTraffic", "Stamp"]
"""The values are ``live``'s, and are imported from here as well, beside the functions that take them."""


def full(live: LiveTraffic) -> str:
    """``already 100 % v7 since 2027-03-01T03:12:04Z``."""
    return f"already 100 % {live.champion} since {seconds(live.since)}"


def settle(before: LiveTraffic, after: LiveTraffic, when: str) -> LiveTraffic:
    """Dates ``after`` when champion or table differ from ``before``."""
    same = (before.champion, before.table) == (after.champion, after.table)
    return replace(after, since=before.since if same else when)


def with_rollout(live: LiveTraffic, state: RolloutState | None) -> LiveTraffic:
    """With a rollout's state, and what is remembered of its digest."""
    if state is None or state == live.rollout:
        return live
    return replace(live, rollout=state, tried=remembered(live.tried, state))


def overridden(before: LiveTraffic, after: LiveTraffic, who: str, when: str) -> LiveTraffic:
    """``after`` with the rollout paused, if a person moved traffic under it."""
    if (before.champion, before.table) == (after.champion, after.table):
        return after
    said = f"{who}: {describe(replace(after, rollout=None))}."
    state = interruptions.overridden(after.rollout, after.champion, after.weights(), said, ms_of(when))
    return with_rollout(after, state)


def put_weights(live: LiveTraffic, weights: Mapping[str, int], known: KnownVersions) -> LiveTraffic:
    """Gives each challenger exactly ``weights`` (slots; absent = 0). Giving the first weight makes a fresh salt."""
    wanted = {version: slots for version, slots in sorted(weights.items()) if slots > 0}
    too_much = too_much_fault(wanted)
    if too_much:
        raise faults(too_much)
    if wanted == live.weights():
        return live
    if not wanted:
        return replace(live, table=EMPTY)
    table, attempt = live.table, live.attempt
    if not table.given:
        attempt += 1
        challenger = known.digests[next(iter(wanted))].removeprefix("sha256:")[:12]
        table = Table(f"{known.endpoint}/{challenger}/{attempt}")
    return replace(live, table=known.set_weights(table, wanted), attempt=attempt)


def move(
    live: LiveTraffic, champion: str, weights: Mapping[str, int], known: KnownVersions, when: str
) -> LiveTraffic:
    """Champion and weights in one step.

    A new champion keeps its slots and gets the old one's. ``last_good`` follows :func:`succession`. Without a change of champion,
    giving the first weight declares the present champion good: it is what the challenger is judged against.
    """
    crowned = champion != live.champion
    after = live
    if crowned:
        table = live.table.without(frozenset({champion}))
        after = replace(live, champion=champion, last_good=succession(live, champion, known), table=table)
    had_none = not after.table.given
    others = {version: slots for version, slots in weights.items() if version != champion}
    after = put_weights(after, others, known)
    if had_none and after.table.given and not crowned:
        after = replace(after, last_good=champion)
    return settle(live, after, when)


def succession(live: LiveTraffic, champion: str, known: KnownVersions) -> str:
    """The last good champion once ``champion`` takes over.

    Moving to the version that a rollback would choose is a return: that version stays the last good one, and the version that
    was left is under suspicion. Any other move is a step forward: the version that was left is what a rollback goes back to.
    """
    returns = known.digests.get(champion) == known.digests.get(live.last_good)
    return champion if returns else live.champion


def patch(
    live: LiveTraffic, champion: str | None, weights: Mapping[str, int], known: KnownVersions, when: str
) -> Change:
    """An override: the versions named get these weights, the others keep theirs."""
    target = champion or live.champion
    found: dict[str, str] = {}
    for version in [*weights, *([champion] if champion else [])]:
        path = "champion" if version == champion else f"weights.{version}"
        if version not in known.digests:
            names = ", ".join(sorted(known.digests))
            found[path] = f"{known.endpoint} has no version {version!r}; it has {names}"
        elif version == target and weights.get(version, 0):
            found[path] = (
                f"{version} is the champion: it takes what is not given away and has no weight of its own"
            )
        elif version == champion or weights.get(version, 0):
            found |= blocked_fault(live, version, path, known)
    if found:
        raise faults(found)
    merged = {**live.weights(), **weights}
    after = move(live, target, merged, known, when)
    if after == live:
        return Change(live, "the traffic is as asked already", already=True)
    after = overridden(live, after, "Traffic was changed by hand", when)
    return Change(after, describe(after))


def rollback(live: LiveTraffic, known: KnownVersions, stamp: Stamp) -> Change:
    """100 % on :func:`rollback_target`; every other version that had traffic is blocked. Idempotent."""
    target = rollback_target(live, known)
    if target is None:
        raise Conflict(
            f"no rollback of {known.endpoint}: {_unloadable(known, (live.last_good, live.champion))}; "
            f"{_another(live, known, frozenset())}"
        )
    ruled = {version for version in known.ruled if known.usable(live, version)}
    on_trial = {version for version in live.on_trial() if version in known.digests}
    losers = sorted(({live.champion} | set(live.weights()) | ruled | on_trial) - {target})
    note = (
        ""
        if target == live.last_good
        else f"; {_unloadable(known, (live.last_good,))}, so {target} {_keeps(live, target)}"
    )
    if not losers:
        return Change(live, full(live) + note + _free(live, known), already=True)
    kept = known.digests[target]
    bad = [version for version in losers if known.digests[version] != kept]
    after = replace(
        live,
        champion=target,
        last_good=target,
        table=EMPTY,
        since=stamp.when,
        blocked=with_blocks(live, bad, known, stamp),
    )
    rollout = live.rollout
    if rollout is not None and rollout.challenger.name not in losers:
        rollout = interruptions.aborted(rollout, "rollback", f"Rolled back by {stamp.who}.", stamp.ms)
    else:
        rollout = interruptions.stopped(rollout, "rollback", stamp)
    after = with_rollout(after, rollout)
    names = ", ".join(bad)
    message = f"100 % {target}" + (f"; {names} blocked until unblocked" if bad else "") + note
    return Change(after, message, blocks=tuple(bad))


def _free(live: LiveTraffic, known: KnownVersions) -> str:
    """What a rollback leaves alone, because an aborted rollout gave it back before: a person who asks for a rollback expects a block."""
    rollout = live.rollout
    if rollout is None or rollout.phase != "aborted":
        return ""
    name, digest = rollout.challenger.name, rollout.challenger.digest
    if known.digests.get(name) != digest or not known.usable(live, name):
        return ""
    if digest == known.digests.get(live.champion):
        return ""
    return (
        f"; {name} of rollout {rollout.id} has no traffic, so it is not blocked "
        f"(headgate block {known.endpoint} {name} blocks it)"
    )


def rollback_target(live: LiveTraffic, known: KnownVersions) -> str | None:
    """Where a rollback goes: to the last good champion if it can be loaded. Else the champion stays, and if that cannot be loaded
    either, its fallback takes over. None: no such version can be loaded.
    """
    wanted = (live.last_good, live.champion, *known.fallback)
    return next((version for version in wanted if known.usable(live, version)), None)


def _keeps(live: LiveTraffic, target: str) -> str:
    return "stays" if target == live.champion else "takes over as the fallback"


def _unloadable(known: KnownVersions, versions: tuple[str, ...]) -> str:
    """Which of the versions cannot be loaded, each once, and why."""
    found = [
        f"{name} cannot be loaded ({known.unloadable[name]})"
        for name in dict.fromkeys(versions)
        if name in known.unloadable
    ]
    return ", ".join(found) or f"{', '.join(dict.fromkeys(versions))} cannot be used"


def _another(live: LiveTraffic, known: KnownVersions, without: frozenset[str]) -> str:
    """What helps when no version may take over by itself."""
    able = [name for name in sorted(known.digests) if name not in without and known.usable(live, name)]
    if not able:
        return "apply a document with a version that can be loaded, or delete the endpoint"
    return f"make another version champion ({', '.join(able)} can be loaded), or delete the endpoint"


def abort(live: LiveTraffic, stamp: Stamp, ruled: tuple[str, ...] = ()) -> Change:
    """Every slot back to the champion, nothing blocked. Idempotent. Rules, which send requests to ``ruled``, stay."""
    rest = f"; rules still send requests to {', '.join(sorted(set(ruled)))}" if ruled else ""
    if not live.table.given and not live.on_trial():
        return Change(live, full(live) + rest, already=True)
    table = live.rollout.before if live.rollout is not None and live.rollout.active else EMPTY
    after = with_rollout(live, interruptions.stopped(live.rollout, "abort", stamp))
    after = settle(live, replace(after, table=table), stamp.when)
    return Change(after, f"100 % {live.champion}{rest}")


def block(live: LiveTraffic, digest: str, version: str | None, known: KnownVersions, stamp: Stamp) -> Change:
    """No traffic for ``digest``: its slots go to the champion; if it is the champion, the last good one takes over."""
    name = version or digest
    present = live.block_of(digest)
    if present is not None:
        return Change(live, f"{name} is blocked already since {seconds(present.since)}", already=True)
    names = frozenset(known for known, known_digest in known.digests.items() if known_digest == digest)
    record = Block(digest, version, stamp.when, stamp.who, stamp.reason)
    after = replace(live, table=live.table.without(names), blocked=(*live.blocked, record))
    if live.champion in names:
        heirs = (live.last_good, *known.fallback)
        heir = next((one for one in heirs if one not in names and known.usable(live, one)), None)
        if heir is None:
            raise Conflict(
                f"{name} is the champion of {known.endpoint} and there is no other good version to take its traffic: first "
                f"{_another(live, known, names)}"
            )
        table = after.table.without(frozenset({heir}))
        after = replace(after, champion=heir, last_good=heir, table=table)
    elif live.last_good in names:
        after = replace(after, last_good=live.champion)
    after = _blocked_under(after, live, digest, stamp)
    return Change(settle(live, after, stamp.when), f"{name} blocked until unblocked", blocks=(name,))


def _blocked_under(after: LiveTraffic, before: LiveTraffic, digest: str, stamp: Stamp) -> LiveTraffic:
    """A block of the challenger rejects it; one that takes the champion away leaves nothing to compare with."""
    rollout = before.rollout
    if rollout is not None and rollout.challenger.digest == digest:
        return with_rollout(after, interruptions.stopped(rollout, "block", stamp))
    if not before.on_trial() or after.champion == before.champion:
        return after
    said = f"Its champion {before.champion} was blocked by {stamp.who}."
    after = replace(after, table=after.table.without(before.on_trial()))
    return with_rollout(after, interruptions.aborted(rollout, "block", said, stamp.ms))


def unblock(live: LiveTraffic, digest: str, name: str, known: KnownVersions | None = None) -> Change:
    """Lifts a block. Slots stay as they are; what ``known`` names for rules, fallback and shadows gets what those give."""
    if live.block_of(digest) is None:
        return Change(live, f"{name} is not blocked", already=True)
    kept = tuple(block for block in live.blocked if block.digest != digest)
    again = [] if known is None else _given_again(live, name, known)
    rest = ", ".join(again) or "it has no traffic until it is given some"
    return Change(replace(live, blocked=kept), f"{name} unblocked; {rest}")


def _given_again(live: LiveTraffic, name: str, known: KnownVersions) -> list[str]:
    """What a version that is not blocked any more gets without slots."""
    found = ["rules send requests to it again"] if name in known.ruled else []
    found += ["it answers as a fallback again"] if name in known.fallback else []
    copied = name in known.shadows and name not in live.shadows_off
    return found + (["it gets copies of requests again"] if copied else [])


def freeze(live: LiveTraffic, stamp: Stamp) -> Change:
    """Only emergency calls change the endpoint from now on."""
    if live.frozen is not None:
        return Change(
            live, f"already frozen since {seconds(live.frozen.when)} by {live.frozen.who}", already=True
        )
    return Change(replace(live, frozen=stamp), "frozen: only emergency calls change it until it is unfrozen")


def unfreeze(live: LiveTraffic) -> Change:
    """Lifts a freeze."""
    if live.frozen is None:
        return Change(live, "not frozen", already=True)
    return Change(replace(live, frozen=None), "unfrozen")


def removed(live: LiveTraffic, stamp: Stamp) -> LiveTraffic:
    """As it was, with its rollout ended: that is what is written of an endpoint that is taken away."""
    return with_rollout(live, interruptions.removed(live.rollout, stamp))


def restore(live: LiveTraffic, then: LiveTraffic, known: KnownVersions, when: str) -> Change:
    """Champion, table, salt and last good champion of an old revision; blocks stay as they are now, attempts never count backwards."""
    _check_unblocked(live, then, known)
    after = replace(
        live,
        champion=then.champion,
        table=then.table,
        attempt=max(live.attempt, then.attempt),
        shadows_off=then.shadows_off,
        capture_off=then.capture_off,
        last_good=_restored_good(live, then, known),
    )
    after = _with_restored(after, live, then, when)
    after = settle(live, after, when)
    return Change(after, describe(after))


def returned(then: LiveTraffic, carried: LiveTraffic | None, known: KnownVersions, when: str) -> Change:
    """An endpoint that was removed, as an old revision had it; ``carried`` is what it left: blocks and attempts."""
    left = carried or then
    blocked = replace(then, blocked=left.blocked, frozen=None)
    _check_unblocked(blocked, then, known)
    good = then.last_good if known.usable(blocked, then.last_good) else then.champion
    attempt, rollouts = max(left.attempt, then.attempt), max(left.rollouts, then.rollouts)
    live = replace(blocked, last_good=good, attempt=attempt, since=when, tried=left.tried, rollouts=rollouts)
    live = _with_restored(live, replace(live, rollout=None), then, when)
    return Change(live, describe(live))


def _with_restored(after: LiveTraffic, now: LiveTraffic, then: LiveTraffic, when: str) -> LiveTraffic:
    said, tried = f"The state of {seconds(then.since)}", now.tried
    return with_rollout(after, interruptions.restored(now.rollout, then.rollout, tried, said, ms_of(when)))


def _check_unblocked(live: LiveTraffic, then: LiveTraffic, known: KnownVersions) -> None:
    """:class:`Conflict` if an old revision gives traffic to what is blocked now."""
    found: dict[str, str] = {}
    for version in [then.champion, *then.weights()]:
        found |= blocked_fault(live, version, version, known)
    if found:
        raise Conflict("the revision gives traffic to what is blocked now: " + "; ".join(found.values()))


def _restored_good(live: LiveTraffic, then: LiveTraffic, known: KnownVersions) -> str:
    """Where a rollback goes after a restore: where it would have gone then, unless the restore is itself a return."""
    if then.champion == live.champion:
        wanted = [live.last_good]
    elif succession(live, then.champion, known) == then.champion:
        wanted = []
    else:
        wanted = [then.last_good, live.champion]
    usable = (good for good in wanted if good in known.digests and not live.block_of(known.digests[good]))
    return next(usable, then.champion)


def describe(live: LiveTraffic) -> str:
    """``champion v7, v8 5%``, and what is switched off: ``shadow v9 off``."""
    weights = [f"{version} {format_weight(slots)}" for version, slots in sorted(live.weights().items())]
    off = [f"shadow {version} off" for version in live.shadows_off] + ["capture off"] * live.capture_off
    rollout = live.rollout
    trial = (
        [f"rollout {rollout.id} of {rollout.challenger.name} {rollout.phase}"]
        if live.on_trial() and rollout
        else []
    )
    return ", ".join([f"champion {live.champion}", *weights, *off, *trial])


def blocked_fault(live: LiveTraffic, version: str, path: str, known: KnownVersions) -> dict[str, str]:
    """One fault when ``version`` is blocked, else none."""
    found = live.block_of(known.digests.get(version))
    if found is None:
        return {}
    why = f" ({found.reason})" if found.reason else ""
    return {
        path: f"{version} ({found.digest}) is blocked since {seconds(found.since)}{why}: unblock it first"
    }


def too_much_fault(weights: Mapping[str, int]) -> dict[str, str]:
    """One fault when more than all slots would be given away, else none."""
    total = sum(weights.values())
    if total <= SLOTS:
        return {}
    each = ", ".join(
        f"{version} {format_weight(slots)}" for version, slots in sorted(weights.items()) if slots
    )
    return {
        "traffic.weights": f"the weights add up to {total / 100:g}% ({each}); at most 100% can be given away"
    }


def faults(found: Mapping[str, str]) -> PolicyInvalid:
    """One exception that names every fault with its path."""
    listed = [Fault(path, None, message).as_dict() for path, message in found.items()]
    text = "; ".join(f"{path}: {message}" for path, message in found.items())
    return PolicyInvalid(text, detail={"faults": listed})


def with_blocks(
    live: LiveTraffic, versions: list[str], known: KnownVersions, stamp: Stamp
) -> tuple[Block, ...]:
    """The blocks with those of ``versions`` added."""
    added: dict[str, Block] = {}
    for version in versions:
        digest = known.digests[version]
        if live.block_of(digest) is None:
            added.setdefault(digest, Block(digest, version, stamp.when, stamp.who, stamp.reason))
    return (*live.blocked, *added.values())

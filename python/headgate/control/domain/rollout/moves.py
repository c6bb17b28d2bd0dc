"""The effect of a rollout on live traffic: the one place where its actions become a champion, a table and blocks. Pure.

The state and what it moves are one change, and so one revision: what is written is what is served, whichever step a stop hits.
Not here: when anything happens (``advance``). Next: ``words``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from headgate.control.domain import traffic
from headgate.control.domain.rollout import calls
from headgate.control.domain.rollout.actions import Advance, GiveBack, Promote, Rollback, SetTraffic
from headgate.control.domain.rollout.plan import ResolvedPlan
from headgate.control.domain.rollout.state import RolloutState, Trialled, tried_of
from headgate.control.domain.shares import format_shares
from headgate.control.domain.stamp import Stamp
from headgate.control.domain.traffic import Change, KnownVersions, LiveTraffic
from headgate.errors import Conflict, VersionNotFound
from headgate.store import seconds


@dataclass(frozen=True)
class Wanted:
    """A challenger by name, its plan, and whether a digest that was rejected is taken again."""

    challenger: str
    plan: ResolvedPlan
    retry: bool = False


def begin(live: LiveTraffic, wanted: Wanted, known: KnownVersions, stamp: Stamp) -> tuple[Change, Advance]:
    """A rollout of a version of the endpoint, before its first step. A retry lifts the block that the rejection left."""
    digest = known.digests.get(wanted.challenger)
    if digest is None:
        names = ", ".join(sorted(known.digests))
        raise VersionNotFound(f"{known.endpoint} has no version {wanted.challenger!r}; it has {names}")
    if wanted.challenger in known.unloadable:
        why = known.unloadable[wanted.challenger]
        raise Conflict(f"{wanted.challenger} cannot be loaded ({why}): nothing can be tried")
    blocked = live.block_of(digest)
    known_digest = tried_of(live.tried, digest)
    rejected = known_digest is not None and known_digest.rejected is not None
    if blocked is not None and not (wanted.retry and rejected):
        ways = f"unblock it first (headgate unblock {known.endpoint} {wanted.challenger})"
        if rejected:
            ways = f"to try it again, retry it (headgate rollout retry {known.endpoint} {wanted.challenger})"
        why = f" ({blocked.reason})" if blocked.reason else ""
        raise Conflict(f"{wanted.challenger} is blocked since {seconds(blocked.since)}{why}: {ways}")
    asked = calls.Start(
        endpoint=known.endpoint,
        challenger=Trialled(name=wanted.challenger, digest=digest),
        champion=Trialled(name=live.champion, digest=known.digests[live.champion]),
        plan=wanted.plan,
        number=live.rollouts + 1,
        attempt=live.attempt,
        table=live.table,
        present=live.rollout,
        tried=live.tried,
        retry=wanted.retry,
    )
    begun = calls.start(asked, stamp)
    free = replace(live, blocked=tuple(one for one in live.blocked if one.digest != digest))
    after = replace(traffic.with_rollout(free, begun.state), rollouts=asked.number)
    return Change(after, begun.said or "", notes=wanted.plan.notes), begun


def carry_out(live: LiveTraffic, advanced: Advance, known: KnownVersions, stamp: Stamp) -> Change:
    """Live traffic after an advance or a call. ``already`` if nothing has to be written.

    Raises what :mod:`traffic` raises for a challenger that is blocked or not there any more.
    """
    state, move = advanced.state, advanced.move
    said = advanced.said or traffic.describe(live)
    if state == live.rollout and move is None:
        if not state.active:
            said = f"rollout {state.id} is {state.phase.replace('_', ' ')} already"
        return Change(live, said, already=True)
    if state.phase == "progressing" and live.rollout is not None and live.rollout.phase == "paused":
        _check_alone(live, state)
    if isinstance(move, SetTraffic):
        return Change(_given(live, state, move, known, stamp), said)
    if isinstance(move, Promote):
        moved = traffic.move(_apart(live), state.challenger.name, {}, known, stamp.when)
        return Change(traffic.with_rollout(moved, state), said)
    if isinstance(move, GiveBack | Rollback):
        back = traffic.settle(
            live, replace(live, table=state.before, champion=state.champion.name), stamp.when
        )
        after = traffic.with_rollout(back, state)
        if isinstance(move, GiveBack):
            return Change(after, said)
        blocked = traffic.with_blocks(after, [state.challenger.name], _bound(known, state), stamp)
        return Change(replace(after, blocked=blocked), said, blocks=(state.challenger.name,))
    return Change(traffic.with_rollout(live, state), said)


def _apart(live: LiveTraffic) -> LiveTraffic:
    """Without the rollout, so that its own move is no override."""
    return replace(live, rollout=None)


def _bound(known: KnownVersions, state: RolloutState) -> KnownVersions:
    """A block is about the digest that was on trial, whatever the name stands for now."""
    digests: Mapping[str, str] = {**known.digests, state.challenger.name: state.challenger.digest}
    return replace(known, digests=digests)


def _check_alone(live: LiveTraffic, state: RolloutState) -> None:
    """:class:`Conflict` while a third version has slots: whom an error is due to could not be told."""
    name = state.challenger.name
    others = {version: slots for version, slots in live.weights().items() if version != name}
    if not others:
        return
    shown = ", ".join(f"{version} {share}" for version, share in format_shares(others).items())
    zeros = " ".join(f"{version}=0" for version in sorted(others))
    raise Conflict(
        f"{shown} is given away beside {name}, and two challengers cannot be told apart: "
        f"give it back first (weights {zeros}), or abort the rollout"
    )


def _given(
    live: LiveTraffic, state: RolloutState, move: SetTraffic, known: KnownVersions, stamp: Stamp
) -> LiveTraffic:
    """The challenger with its weight. The first weight begins an attempt, with a salt and evidence of its own."""
    name = state.challenger.name
    if known.digests.get(name) != state.challenger.digest:
        raise Conflict(
            f"{name} is not {state.challenger.digest} any more, which is on trial: abort the rollout"
        )
    found = traffic.blocked_fault(live, name, name, known)
    if found and (move.weight or move.shadow):
        raise Conflict(found[name])
    if move.weight:
        _check_alone(live, state)
    others = {version: slots for version, slots in live.weights().items() if version != name}
    moved = traffic.put_weights(live, {**others, name: move.weight}, known)
    if not live.table.given and moved.table.given:
        # The same as for a weight that a person gives: the champion is what the challenger is judged against.
        moved = replace(moved, last_good=live.champion)
    moved = traffic.settle(live, moved, stamp.when)
    if moved.attempt != state.attempt:
        state = state.changed(attempt=moved.attempt, blocks_ms=(state.step_begun_ms,) if move.weight else ())
    return traffic.with_rollout(moved, state)

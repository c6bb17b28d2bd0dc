"""The plan of a write: what moves, what loads, what the reader should know. Pure.

Not here: computing the new state (``traffic``, ``merge``), the words (``plan_text``), the undo (``undo``). Next: ``writes``.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

from headgate.control.domain.plan_facts import VersionMemory
from headgate.control.domain.plan_text import copies_of, plan_text, share_of_requests
from headgate.control.domain.results import ChampionMove, LiveView, Plan, VersionNeeds
from headgate.control.domain.revision import Revision
from headgate.control.domain.shares import Table, format_shares, moves, owners
from headgate.control.domain.spec import loadable
from headgate.control.domain.step import Step
from headgate.control.domain.traffic import KnownVersions, LiveTraffic, rollback_target
from headgate.control.domain.undo import undo_of
from headgate.documents.values import SLOTS, format_weight


def make_plan(step: Step) -> Plan:
    """The plan; ``changes`` is false when nothing would be different afterwards."""
    before, after = step.before, step.after
    moved = slots_moved(before, after)
    wanted = [] if after is None else loadable(after.spec, after.traffic)
    loaded = (
        [] if step.loads_nothing else [name for name in wanted if name not in {*step.loaded, *step.left_out}]
    )
    undo = undo_of(step)
    plan = Plan(
        endpoint=step.endpoint,
        base_revision=None if before is None else before.n,
        revision=step.n,
        changes=_differs(before, after),
        text="",
        champion=_champion(before, after),
        moves=moved,
        share_of_keys=format_weight(sum(moved.values())),
        share_of_requests=_share_of_requests(step, moved),
        rollback_to=None if after is None else rollback_to(after, step.left_out),
        load=loaded,
        unload=sorted(version for version in step.loaded if version not in wanted),
        needs={},
        block=list(step.blocks),
        notes=list(step.notes),
        undo=list(undo.calls),
        diff=document_diff(before, after),
    )
    plan["needs"] = _needs(step, plan)
    target = None if before is None else rollback_to(before, step.unloadable)
    plan["text"] = plan_text(step, plan, undo, target)
    return plan


def bare_plan(step: Step) -> Plan:
    """The plan of a change whose own could not be made: what moves, and no more."""
    before, after = step.before, step.after
    moved = slots_moved(before, after)
    return Plan(
        endpoint=step.endpoint,
        base_revision=None if before is None else before.n,
        revision=step.n,
        changes=_differs(before, after),
        text="The plan could not be made because of a defect of Headgate, which the gateway's log tells. The change does not need it.",
        champion=_champion(before, after),
        moves=moved,
        share_of_keys=format_weight(sum(moved.values())),
        share_of_requests=None,
        rollback_to=None,
        load=[],
        unload=[],
        needs={},
        block=list(step.blocks),
        notes=list(step.notes),
        undo=[],
        diff="",
    )


def _share_of_requests(step: Step, moved: Mapping[str, int]) -> str | None:
    """The share of the newest requests that these moves stand for."""
    if step.before is None:
        return None
    shares = [
        share_of_requests(step, step.before, pair.split("→")[0], slots) for pair, slots in moved.items()
    ]
    known = [share for share in shares if share is not None]
    return format_weight(round(sum(known) * SLOTS)) if known and len(known) == len(shares) else None


def _needs(step: Step, plan: Plan) -> dict[str, VersionNeeds]:
    """What the versions take that are loaded, or get requests that they had not."""
    if step.after is None:
        return {}
    gains = {pair.split("→")[1] for pair in plan["moves"]}
    if plan["champion"]["from"] != plan["champion"]["to"]:
        gains.add(plan["champion"]["to"])
    copied = copies_of(step.after, step.left_out)
    gains |= copied.keys() - copies_of(step.before, step.unloadable).keys()
    if step.kind == "rollout_start":
        # Nothing moves yet, and what the challenger takes is asked before it does.
        gains.add(step.subject)
    # What is not in memory and is not loaded answers nothing, whoever owns slots.
    gains &= set(step.loaded)
    facts, versions = step.facts, step.after.spec.versions
    found: dict[str, VersionNeeds] = {}
    for name in sorted(gains | set(plan["load"])):
        memory = facts.memory.get(name) if name in step.loaded else VersionMemory("unloaded", None)
        found[name] = VersionNeeds(
            state=None if memory is None else memory.state,
            sessions=versions[name].sessions,
            file_bytes=facts.file_bytes.get(versions[name].digest),
            memory_bytes=None if memory is None else memory.bytes,
        )
    return found


def rollback_to(revision: Revision, left_out: Collection[str]) -> str | None:
    """Where a rollback would go; None: nowhere, because nothing that it may go to can be loaded."""
    spec, unloadable = revision.spec, dict.fromkeys(left_out, "it does not load")
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
    return LiveView(
        champion=live.champion,
        weights=format_shares(live.weights()),
        shadows_off=list(live.shadows_off),
        capture_off=live.capture_off,
    )


def _differs(before: Revision | None, after: Revision | None) -> bool:
    if before is None or after is None:
        return before is not after
    return not before.same_state(after)


def _champion(before: Revision | None, after: Revision | None) -> ChampionMove:
    old = None if before is None else before.traffic.champion
    new = old if after is None else after.traffic.champion
    return {"from": old, "to": new or ""}

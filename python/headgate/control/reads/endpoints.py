"""What can be read: endpoints, traffic, versions, history. Nothing here changes anything.

Not here: writes (``writes``). Next: ``service``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from headgate.control.domain.copies import shadow_shares
from headgate.control.domain.declared import Declared
from headgate.control.domain.merge import differences
from headgate.control.domain.plan import document_diff, live_view, rollback_to, slots_moved
from headgate.control.domain.revision import Revision, read_revision
from headgate.control.domain.rollout.words import line
from headgate.control.domain.shares import format_shares
from headgate.control.domain.stamp import ms_of
from headgate.control.domain.traffic import Block, LiveTraffic
from headgate.control.reads import capture
from headgate.control.reads.routing import capture_view, rule_views, shadow_views
from headgate.control.reads.views import (
    AuditView,
    BlockView,
    DeclaredView,
    EndpointSummary,
    EndpointView,
    FrozenView,
    Models,
    ModelView,
    RecentView,
    RefusalView,
    RevisionSummary,
    RevisionView,
    ShareView,
    State,
    TrafficView,
    VersionView,
)
from headgate.control.writes.data_plane import Status
from headgate.control.writes.endpoint import EndpointState, present
from headgate.control.writes.endpoint import never_served as told_never_served
from headgate.control.writes.records import missing, stored
from headgate.documents.values import SLOTS, format_weight
from headgate.errors import HeadgateError
from headgate.registry import ArtifactStore, Registry
from headgate.store import AuditRecord, RevisionRecord, Store, seconds


def summary(state: EndpointState, status: Status, refused: Sequence[str] = ()) -> EndpointSummary:
    """One line of the list; of one whose state is damaged, only that. ``refused`` is what was refused of it."""
    if state.current is None and state.broken is not None:
        return _absent(state, state.alarms())
    current = present(state)
    live = current.traffic
    return EndpointSummary(
        name=state.name,
        revision=current.n,
        state=_state(state, status),
        champion=live.champion,
        weights=format_shares(live.weights()),
        frozen=live.frozen is not None,
        blocked=len(live.blocked),
        since=seconds(live.since),
        notes=differences(live, current.spec.declared),
        alarms=[*state.alarms(), *capture.alarms(status), *_refused(refused)],
        rollout=None if live.rollout is None or not live.rollout.active else line(live.rollout),
    )


def never_served(state: EndpointState, refused: Sequence[str]) -> EndpointSummary:
    """The line of an endpoint that is there and was refused."""
    return _absent(state, [told_never_served(state.name, refused)])


def _refused(refused: Sequence[str]) -> list[str]:
    return [f"refused: {one}" for one in refused]


def _absent(state: EndpointState, alarms: list[str]) -> EndpointSummary:
    return EndpointSummary(
        name=state.name,
        revision=state.tail,
        state="failed",
        champion="",
        weights={},
        frozen=False,
        blocked=0,
        since="",
        notes=[],
        alarms=alarms,
        rollout=None,
    )


def endpoint(
    state: EndpointState, status: Status, recent: Mapping[str, RecentView], refused: Sequence[str] = ()
) -> EndpointView:
    """Everything about one endpoint; ``refused`` is what was refused of it."""
    current = present(state)
    live, spec = current.traffic, current.spec
    frozen = live.frozen
    return EndpointView(
        name=state.name,
        revision=current.n,
        state=_state(state, status),
        document=current.text.decode(),
        document_digest=current.document.digest,
        source=current.document.source,
        declared=_declared(spec.declared),
        traffic=traffic(state, recent),
        trial=None,
        rollout=None if live.rollout is None else line(live.rollout),
        versions=_versions(state, current, status, recent),
        blocks=[_block(block) for block in live.blocked],
        frozen=None
        if frozen is None
        else FrozenView(since=seconds(frozen.when), who=frozen.who, reason=frozen.reason),
        notes=differences(live, spec.declared),
        alarms=[*state.alarms(), *capture.alarms(status), *_refused(refused)],
        capture=capture.capture(status),
        columns=spec.columns,
        timeout_ms=spec.limits.timeout,
        baseline=spec.baseline,
    )


def traffic(state: EndpointState, recent: Mapping[str, RecentView]) -> TrafficView:
    """Live traffic."""
    current = present(state)
    live = current.traffic
    return TrafficView(
        endpoint=state.name,
        revision=current.n,
        champion=live.champion,
        last_good=live.last_good,
        rollback_to=rollback_to(current, state.omitted),
        weights=format_shares(live.weights()),
        sticky=current.spec.declared.sticky,
        salt=live.table.salt,
        attempt=live.attempt,
        table=list(live.table.given),
        since=seconds(live.since),
        share=ShareView(keys=key_shares(current), requests=_request_shares(recent)),
        rules=rule_views(current, state.omitted),
        shadows=shadow_views(current, state.omitted),
        capture=capture_view(current),
        declared=_declared(current.spec.declared),
        notes=differences(live, current.spec.declared),
    )


_MOVING = frozenset({"apply", "restore", "traffic"})
"""Kinds that may pause or end a rollout beside what they are for."""
_ENDING = frozenset({"abort", "block", "remove", "rollback"})
"""Kinds that a rollout ends with, by that name."""
_SAME_MS = 1_000
"""The clock is read when a change is decided, and again when its revision is made: what lies within this time is one change."""
_WAITED_MS = 600_000
"""It is read when one of these calls comes, which may wait for a load before it is decided."""


def revision_summary(record: RevisionRecord) -> RevisionSummary:
    """One line of the history."""
    live = read_revision(record.body).traffic
    return RevisionSummary(
        revision=record.n,
        parent=record.parent,
        kind=record.kind,
        status=record.status,
        who=record.who,
        when=seconds(record.when),
        reason=record.reason,
        document_digest=record.document,
        **live_view(live),
        message=record.message,
        rollout=_rollout_moved(record, live),
    )


def _rollout_moved(record: RevisionRecord, live: LiveTraffic) -> str | None:
    """The rollout of a revision that moved it: by a call of its own, or another one that ended or paused it."""
    rollout = live.rollout
    if rollout is None:
        return None
    if record.kind.startswith("rollout_"):
        return line(rollout)
    moments = [(one.at_ms, one.reason) for one in (rollout.end,) if one is not None]
    moments += [(one.since_ms, one.reason) for one in (rollout.pause,) if one is not None]
    passed_ms = [(ms_of(record.when) - at_ms, reason) for at_ms, reason in moments]
    if record.kind in _ENDING:
        moved = any(reason == record.kind and 0 <= ms <= _WAITED_MS for ms, reason in passed_ms)
    else:
        moved = record.kind in _MOVING and any(0 <= ms <= _SAME_MS for ms, _ in passed_ms)
    return line(rollout) if moved else None


def revision(store: Store, name: str, n: int) -> RevisionView:
    """One revision with its differences from its parent; blocks on the disk."""
    record = store.revision(name, n)
    if record is None:
        raise missing(store, name, n)
    parent = None if record.parent is None else store.revision(name, record.parent)
    current = stored(store, record)
    before = None if parent is None else stored(store, parent)
    lost = record.parent is not None and parent is None
    live = current.traffic
    return RevisionView(
        **revision_summary(record),
        document=current.text.decode(),
        source=current.document.source,
        source_digest=current.document.source_digest,
        salt=live.table.salt,
        attempt=live.attempt,
        last_good=live.last_good,
        table=list(live.table.given),
        blocks=[_block(block) for block in live.blocked],
        frozen=live.frozen is not None,
        diff=f"revision {record.parent}, from which it was made, was dropped because of its age"
        if lost
        else document_diff(before, current),
        moves={} if lost else slots_moved(before, current),
    )


def audit_entry(record: AuditRecord) -> AuditView:
    """One line of the audit."""
    values = asdict(record)
    return cast(AuditView, {"id": values.pop("generation"), **values, "when": seconds(record.when)})


def models(store: Store, registry: Registry, serving: Collection[str]) -> Models:
    """Every name and version with the digest it stands for, and what was refused; blocks on the disk."""
    known = [
        ModelView(
            endpoint=pin.endpoint,
            version=pin.version,
            digest=pin.digest,
            pinned=seconds(pin.when),
            in_use=pin.digest in serving,
            size=_size(registry.store, pin.digest),
        )
        for pin in store.pins.all()
    ]
    return Models(models=known, refusals=refusals(registry))


def refusals(registry: Registry) -> list[RefusalView]:
    """The refusals that stand; reads memory alone."""
    return [
        RefusalView(
            endpoint=refusal.endpoint,
            version=refusal.version,
            folder=refusal.folder,
            pinned=refusal.pinned,
            found=refusal.found,
            count=refusal.count,
            message=refusal.message,
        )
        for refusal in registry.refusals()
    ]


def _size(artifacts: ArtifactStore, digest: str) -> int | None:
    """The bytes of an artifact; None for a constant, and for one that is missing or damaged."""
    try:
        return artifacts.manifest(digest).size
    except HeadgateError:
        return None


def _block(block: Block) -> BlockView:
    return BlockView(
        digest=block.digest,
        version=block.version,
        since=seconds(block.since),
        who=block.who,
        reason=block.reason,
    )


def _state(state: EndpointState, status: Status) -> State:
    if state.broken is not None:
        return "failed"
    if status.get("unloaded"):
        return "unloaded"
    return "ready" if state.loaded else "loading"


def _declared(declared: Declared) -> DeclaredView:
    return DeclaredView(
        champion=declared.champion,
        weights=format_shares(declared.weights),
        sticky=declared.sticky,
        shadows=format_shares(declared.shadows),
        capture=None if declared.capture is None else format_weight(declared.capture),
    )


def key_shares(current: Revision) -> dict[str, str]:
    """The share of the sticky keys of each version that has some."""
    given = current.traffic.weights()
    rest = SLOTS - sum(given.values())
    return format_shares({**given, current.traffic.champion: rest} if rest else given)


def _request_shares(recent: Mapping[str, RecentView]) -> dict[str, str] | None:
    return {name: one["share"] for name, one in sorted(recent.items())} or None


def _versions(
    state: EndpointState, current: Revision, status: Status, recent: Mapping[str, RecentView]
) -> dict[str, VersionView]:
    live = current.traffic
    known: dict[str, Any] = status.get("versions", {})
    waiting = frozenset().union(*state.loading.values()) if state.loading else frozenset()
    views: dict[str, VersionView] = {}
    for name, version in sorted(current.spec.versions.items()):
        said: dict[str, Any] = known.get(name, {})
        detail = state.details.get(name, {})
        shown = "ready" if name in state.loaded else "failed"
        if live.block_of(version.digest) is not None:
            shown = "blocked"
        elif name in state.omitted:
            shown = "failed"
        elif name in waiting:
            shown = "loading"
        elif status.get("unloaded"):
            shown = "unloaded"
        views[name] = VersionView(
            digest=version.digest,
            kind="artifact" if version.constant is None else "constant",
            role=_role(name, current),  # type: ignore[typeddict-item]
            state=shown,  # type: ignore[typeddict-item]
            in_document=name not in current.kept,
            placement=said.get("placement"),
            placement_fixed=said.get("placement_fixed"),
            placed_by=said.get("placed_by"),
            device=said.get("device"),
            shedding=said.get("shedding"),
            batches=said.get("batches"),
            run_us=said.get("run_us"),
            requests=said.get("requests"),
            recent=recent.get(name),
            signature=said.get("signature") or detail.get("signature"),
            load_ms=detail.get("load_ms"),
            memory=said.get("memory"),
            breaker=said.get("breaker"),
            runs=said.get("runs"),
            probes=said.get("probes"),
            message=state.omitted.get(name) or said.get("note"),
        )
    return views


def _role(name: str, current: Revision) -> str:
    if name == current.traffic.champion:
        return "champion"
    if current.traffic.weights().get(name):
        return "challenger"
    if name == current.traffic.last_good:
        return "last_good"
    return "shadow" if name in shadow_shares(current.spec, current.traffic) else "idle"

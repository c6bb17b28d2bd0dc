"""What can be read: endpoints, traffic, versions, history, explanations. Nothing here changes anything.

Not here: writes (``changes``, ``writer``). Next: ``service``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from headgate.control.changes import not_found, present
from headgate.control.endpoint import EndpointState
from headgate.control.merge import Declared, differences
from headgate.control.native import DataPlane
from headgate.control.plan import document_diff, slots_moved
from headgate.control.record import Held, hold
from headgate.control.shares import format_shares, owners
from headgate.control.views import (
    BlockView,
    DeclaredView,
    EndpointSummary,
    EndpointView,
    Explanation,
    FrozenView,
    Models,
    ModelView,
    RefusalView,
    RevisionSummary,
    RevisionView,
    ShareView,
    State,
    TrafficView,
    VersionView,
)
from headgate.documents.values import SLOTS, format_weight
from headgate.errors import HeadgateError, InvalidArgument
from headgate.registry import ArtifactStore, Registry
from headgate.store import BlockRecord, RevisionRecord, Store

Status = dict[str, Any]
"""``_native.Gateway.status()`` of one endpoint."""


def statuses_of(status: bytes) -> dict[str, Status]:
    """What the data plane says about each endpoint that it knows."""
    found: dict[str, Status] = json.loads(status).get("endpoints", {})
    return found


def status_of(status: bytes, endpoint: str) -> Status:
    """What the data plane says about one endpoint; empty when it does not know it."""
    return statuses_of(status).get(endpoint, {})


def requests_of(status: Status) -> dict[str, int]:
    """Requests answered by each version since it was loaded."""
    return {name: int(version.get("requests", 0)) for name, version in status.get("versions", {}).items()}


def summary(state: EndpointState, status: Status) -> EndpointSummary:
    """One line of the list."""
    held = present(state)
    live = held.live
    return EndpointSummary(
        name=state.name,
        revision=held.n,
        state=_state(state, status),
        champion=live.champion,
        weights=format_shares(live.weights()),
        frozen=live.frozen is not None,
        blocked=len(live.blocked),
        since=live.since,
        notes=differences(live, held.spec.declared),
        alarms=state.alarms(),
    )


def endpoint(state: EndpointState, status: Status) -> EndpointView:
    """Everything about one endpoint."""
    held = present(state)
    live, spec = held.live, held.spec
    frozen = live.frozen
    return EndpointView(
        name=state.name,
        revision=held.n,
        state=_state(state, status),
        document=held.text.raw.decode(),
        document_digest=held.text.digest,
        source=held.text.source,
        declared=_declared(spec.declared),
        traffic=traffic(state, status),
        versions=_versions(state, held, status),
        blocks=[_block(block) for block in live.blocked],
        frozen=None
        if frozen is None
        else FrozenView(since=frozen.when, who=frozen.who, reason=frozen.reason),
        notes=differences(live, spec.declared),
        alarms=state.alarms(),
        columns={tensor: list(names) for tensor, names in spec.columns.items()},
        timeout_ms=spec.timeout_ms,
        baseline=spec.baseline,
    )


def traffic(state: EndpointState, status: Status) -> TrafficView:
    """Live traffic."""
    held = present(state)
    live = held.live
    return TrafficView(
        endpoint=state.name,
        revision=held.n,
        champion=live.champion,
        last_good=live.last_good,
        weights=format_shares(live.weights()),
        sticky=held.spec.declared.sticky,
        salt=live.table.salt,
        attempt=live.attempt,
        table=list(live.table.given),
        since=live.since,
        share=ShareView(keys=_key_shares(held), requests=_request_shares(status)),
        declared=_declared(held.spec.declared),
        notes=differences(live, held.spec.declared),
    )


def explain(
    state: EndpointState, plane: DataPlane, key: str | None, headers: Mapping[str, str] | None
) -> Explanation:
    """Which version a key gets. ``headers`` are searched for the sticky one, case apart."""
    held = present(state)
    live, sticky = held.live, held.spec.declared.sticky
    if key is None and headers is not None and sticky is not None:
        wanted = sticky.removeprefix("header.").lower()
        key = next((value for name, value in headers.items() if name.lower() == wanted), None)
    key = (key or "").strip() or None
    if key is not None and sticky is None:
        raise InvalidArgument(
            f'{state.name} has no sticky key: write traffic.sticky in its document, as "header.x-user-id"'
        )
    table = live.table.without(frozenset(state.omitted))
    salt = table.salt
    slot: int | None = None
    version: str | None = live.champion
    if not table.given:
        by, why = "champion", f"no weight is given away: {live.champion} takes every request"
        left_out = sorted(set(live.weights()) & set(state.omitted))
        if left_out:
            why = (
                f"{', '.join(left_out)} did not load: {live.champion} takes every request for the time being"
            )
    elif key is None:
        name = "" if sticky is None else f" {sticky}"
        by, why, version = "draw", f"without a sticky key{name} each request draws a slot of its own", None
    else:
        slot = plane.slot_of(salt, key.encode())
        found = table.owner(slot)
        if found is None:
            missing = live.table.owner(slot)
            by, why = "champion", f"slot {slot} of {SLOTS} is not given away"
            if missing is not None:
                why = f"slot {slot} belongs to {missing[0]}, which did not load: the champion answers for the time being"
        else:
            version, run = found
            by, why = "slot", f"slot {slot} of {SLOTS} is in the run {run[1]} to {run[2]} given to {version}"
    return Explanation(
        endpoint=state.name,
        revision=held.n,
        sticky=sticky,
        key=key,
        slot=slot,
        salt=salt,
        version=version,
        by=by,  # type: ignore[typeddict-item]
        why=why,
        shares=_key_shares(held),
    )


def revision_summary(record: RevisionRecord) -> RevisionSummary:
    """One line of the history."""
    return RevisionSummary(
        revision=record.n,
        parent=record.parent,
        kind=record.kind,
        status=record.status,
        who=record.who,
        when=record.when,
        reason=record.reason,
        document_digest=record.document_digest,
        champion=record.champion,
        weights=format_shares(hold(record).live.weights()),
        message=record.message,
    )


def revision(store: Store, name: str, n: int) -> RevisionView:
    """One revision with its differences from its parent; blocks on the disk."""
    record = store.revision(name, n)
    if record is None:
        raise not_found(name, n)
    parent = None if record.parent is None else store.revision(name, record.parent)
    held, before = hold(record), None if parent is None else hold(parent)
    return RevisionView(
        **revision_summary(record),
        document=record.document.decode(),
        source=record.source,
        source_digest=record.source_digest,
        salt=record.salt,
        attempt=record.attempt,
        last_good=record.last_good,
        table=list(record.given),
        blocks=[_block(block) for block in record.blocks],
        frozen=record.frozen is not None,
        diff=document_diff(before, held),
        moves=slots_moved(before, held),
    )


def models(store: Store, registry: Registry, serving: Collection[str]) -> Models:
    """Every name and version with the digest it stands for, and what was refused; blocks on the disk."""
    known = [
        ModelView(
            endpoint=pin.endpoint,
            version=pin.version,
            digest=pin.digest,
            pinned=pin.when,
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


def _block(block: BlockRecord) -> BlockView:
    return BlockView(
        digest=block.digest, version=block.version, since=block.since, who=block.who, reason=block.reason
    )


def _state(state: EndpointState, status: Status) -> State:
    if state.broken is not None:
        return "failed"
    if status.get("unloaded"):
        return "unloaded"
    return "ready" if state.loaded else "loading"


def _declared(declared: Declared) -> DeclaredView:
    return DeclaredView(
        champion=declared.champion, weights=format_shares(declared.weights), sticky=declared.sticky
    )


def _key_shares(held: Held) -> dict[str, str]:
    count: dict[str, int] = {}
    for owner in owners(held.live.champion, held.live.table):
        count[owner] = count.get(owner, 0) + 1
    return format_shares(count)


def _request_shares(status: Status) -> dict[str, str] | None:
    counts = requests_of(status)
    total = sum(counts.values())
    if total == 0:
        return None
    return {name: format_weight(round(count * SLOTS / total)) for name, count in sorted(counts.items())}


def _versions(state: EndpointState, held: Held, status: Status) -> dict[str, VersionView]:
    live = held.live
    known: dict[str, Any] = status.get("versions", {})
    waiting = frozenset().union(*state.loading.values()) if state.loading else frozenset()
    views: dict[str, VersionView] = {}
    for name, version in sorted(held.spec.versions.items()):
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
            role=_role(name, held),  # type: ignore[typeddict-item]
            state=shown,  # type: ignore[typeddict-item]
            in_document=version.in_document,
            placement=said.get("placement"),
            placement_fixed=said.get("placement_fixed"),
            placed_by=said.get("placed_by"),
            device=said.get("device"),
            shedding=said.get("shedding"),
            batches=said.get("batches"),
            run_us=said.get("run_us"),
            requests=said.get("requests"),
            signature=said.get("signature") or detail.get("signature"),
            load_ms=detail.get("load_ms"),
            memory=said.get("memory"),
            breaker=said.get("breaker"),
            runs=said.get("runs"),
            probes=said.get("probes"),
            message=state.omitted.get(name) or said.get("note"),
        )
    return views


def _role(name: str, held: Held) -> str:
    if name == held.live.champion:
        return "champion"
    if held.live.weights().get(name):
        return "challenger"
    return "last_good" if name == held.live.last_good else "idle"

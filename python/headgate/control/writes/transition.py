"""One change on its way: from a decision to a numbered revision, to the data plane, and to what is written of it.

Not here: the order of these steps (``writer``, ``emergency``), what a change means (``decisions``). Next: ``writer``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from headgate.control.domain.calls import Call
from headgate.control.domain.copies import routing_summary
from headgate.control.domain.plan import bare_plan, live_view, make_plan, slots_moved
from headgate.control.domain.results import Plan, Result
from headgate.control.domain.revision import EMERGENCIES, Kind, Revision
from headgate.control.domain.rollout.words import told
from headgate.control.domain.shares import format_shares
from headgate.control.domain.spec import answering, loadable
from headgate.control.domain.step import Step
from headgate.control.domain.traffic import Stamp
from headgate.control.writes import swap
from headgate.control.writes.audit import audit_record
from headgate.control.writes.context import Context
from headgate.control.writes.endpoint import EndpointState
from headgate.control.writes.handover import Load, native_apply
from headgate.control.writes.idempotency import remembered
from headgate.control.writes.records import proposal
from headgate.control.writes.swap import EndpointUpdate
from headgate.control.writes.tickets import Event
from headgate.errors import Conflict, HeadgateError, PolicyInvalid, from_code
from headgate.store import AppliedDocument, Commit, EventRecord, Proposal, RevisionStatus, keepable

_log = logging.getLogger(__name__)
Run = Callable[[Callable[[], bytes]], Awaitable[bytes]]
"""Runs work in a thread."""


@dataclass(frozen=True)
class Decision:
    """What a write wants: the next state (``None`` removes the endpoint), or that nothing needs to be done (``status``)."""

    kind: Kind
    message: str
    after: Revision | None
    status: Literal["applied", "unchanged", "already"] = "applied"
    notes: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    retried: frozenset[str] = frozenset()
    """Versions that were left out because they did not load, and are to be tried again."""
    needed: frozenset[str] = frozenset()
    """Versions that must load. Others that do not are left out: they keep nobody from moving away from them."""
    serves_more: bool = True
    """False: no version gets anything that it had not, so that there is nothing to load."""
    sources: Mapping[str, Path] = field(default_factory=dict)
    """The models of a dry run's document by digest: they are not taken in."""
    subject: str = ""
    """What the call names, for the plan: a version, a digest, a revision."""
    file_bytes: Mapping[str, int] = field(default_factory=dict)
    """The sizes of a document's models by digest."""
    last: Revision | None = None
    """What is written of an endpoint that is taken away: its state, with its rollout ended."""


Decide = Callable[[EndpointState], Decision]


@dataclass(frozen=True)
class Transition:
    """A numbered revision that is not served yet."""

    state: EndpointState
    call: Call
    decision: Decision
    before: Revision | None
    revision: Revision
    proposal: Proposal
    """What is written of it before its end."""
    plan: Plan
    omitted: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)
    """Those of ``omitted`` that the plan does not know of, because their load failed after it was made."""

    @property
    def changes(self) -> bool:
        """Whether it is to be carried out."""
        return self.decision.status == "applied" and not self.call.dry_run

    @property
    def loads_nothing(self) -> bool:
        """Whether the data plane has no part in it: nothing of the endpoint is loaded, and no version gets anything new."""
        return _loads_nothing(self.state, self.decision)

    @property
    def loads(self) -> bool:
        """Whether it needs a version that is not in memory."""
        return not self.state.loaded.issuperset(
            loadable(self.revision.spec, self.revision.traffic, self.omitted)
        )

    @property
    def takes_over(self) -> bool:
        """Whether it loads only because a load of all that is served is on its way, which would undo it."""
        return not (self.loads_nothing or self.state.loaded or self.decision.serves_more)

    def leaves_out(self, version: str | None, why: str) -> bool:
        """Whether the change can do without a version that does not load; then it is left out from here on."""
        revision, dispensable = self.revision, version is not None and version not in self.decision.needed
        if version is None or not dispensable or version in self.omitted or version in self.state.loaded:
            return False
        if answering(revision.spec, revision.traffic, {*self.omitted, version}) is None:
            return False
        self.omitted[version] = self.left_out[version] = why
        if not self.call.dry_run:
            _log.warning("%s: %s is left out, because it did not load: %s", revision.endpoint, version, why)
        return True


def _loads_nothing(state: EndpointState, decision: Decision) -> bool:
    loading = state.loading or state.taken_over
    return decision.after is not None and not (state.loaded or loading or decision.serves_more)


def prepare(context: Context, state: EndpointState, call: Call, decision: Decision) -> Transition:
    """The next revision of an endpoint, numbered. What no store could keep is refused here, before it is in force anywhere."""
    before = state.current
    stamp = Stamp(call.principal, context.now(), call.reason)
    parent = None if before is None else before.n
    wanted = decision.after or decision.last or before
    if wanted is None:
        raise Conflict(f"{state.name} does not exist")
    revision = wanted.numbered(state.tail + 1, parent, decision.kind, stamp)
    plan_after = None if decision.after is None else revision
    if decision.status != "applied" and before is not None:
        plan_after = wanted
    plan = _plan(_step(context, state, decision, plan_after))
    omitted = {version: why for version, why in state.omitted.items() if version not in decision.retried}
    return Transition(state, call, decision, before, revision, proposal(revision), plan, omitted)


def _plan(step: Step) -> Plan:
    """The plan. An emergency call is carried out although there is none."""
    try:
        return make_plan(step)
    except Exception:
        if step.kind not in EMERGENCIES:
            raise
        _log.exception("%s: the plan of %s could not be made", step.endpoint, step.kind)
        return bare_plan(step)


def _step(context: Context, state: EndpointState, decision: Decision, after: Revision | None) -> Step:
    stays = decision.status != "applied" or _loads_nothing(state, decision)
    return Step(
        endpoint=state.name,
        n=state.tail + 1,
        before=state.current,
        after=after,
        kind=decision.kind,
        subject=decision.subject,
        message=decision.message,
        loaded=state.loaded,
        notes=decision.notes,
        blocks=decision.blocks,
        unloadable=state.omitted,
        left_out=frozenset(state.omitted) - (frozenset() if stays else decision.retried),
        loads_nothing=stays,
        broken=state.broken,
        facts=context.facts.of(state, decision.file_bytes),
    )


async def argument_of(run: Run, context: Context, transition: Transition, *, urgent: bool) -> bytes | None:
    """What the data plane is told; None where it has no part in it, and at a removal.

    ``run`` runs it in a thread, because a cold artifact is hashed. Versions whose artifacts are damaged are left out, as far as the
    change can do without them.
    """
    if transition.decision.after is None or transition.loads_nothing:
        return None
    decision = transition.decision
    while True:
        load = Load(
            transition.state.loaded, transition.omitted, urgent, decision.kind == "apply", decision.sources
        )
        try:
            return await run(partial(native_apply, transition.revision, context.paths, load))
        except HeadgateError as error:
            version = error.detail.get("version")
            if not transition.leaves_out(version, error.message):
                raise
            if not transition.call.dry_run:
                transition.state.damaged.add(str(version))


def hand_over(
    context: Context, transition: Transition, argument: bytes | None, *, confirms: bool
) -> asyncio.Future[Event]:
    """Tells the data plane; the future of its event. With ``confirms`` the revision counts as unconfirmed from the swap on."""
    state, revision = transition.state, transition.revision

    def swapped() -> None:
        if confirms:
            state.unconfirmed = revision.n

    if transition.decision.after is None:
        return swap.remove(context, state, revision.n, swapped)
    if argument is None:
        state.recorded(revision)
        swapped()
        return swap.at_once("recorded")
    return swap.serve(context, state, EndpointUpdate(revision, transition.omitted, argument), swapped)


def commit_of(
    context: Context, transition: Transition, status: RevisionStatus, message: str | None = None
) -> Commit:
    """What is written with the end of a revision."""
    call, revision, name, now = transition.call, transition.revision, transition.state.name, context.now()
    removed = status == "applied" and transition.decision.after is None
    # A message quotes what it is about, and the end of a revision must be written all the same.
    message = None if message is None else keepable(message)
    data = {
        "kind": transition.decision.kind,
        "champion": revision.traffic.champion,
        "weights": format_shares(revision.traffic.weights()),
        **routing_summary(revision.spec, revision.traffic, transition.omitted),
        "moves": slots_moved(transition.before, revision),
        "notes": list(transition.decision.notes),
        "message": message or transition.decision.message,
        **_rollout_told(transition),
    }
    event = EventRecord(
        "removed" if removed else status, now, name, revision.n, call.principal, call.reason, data
    )
    audit = audit_record(call, now, transition.decision.kind, (name, revision.n), (status, data))
    if status != "applied":
        return Commit(name, revision.n, status, message, [event], audit)
    key = remembered(context, call, result_of(transition, "applied"))
    digests, document = revision.spec.digests(), applied_document(transition)
    return Commit(name, revision.n, status, message, [event], audit, key, digests, document)


def _rollout_told(transition: Transition) -> dict[str, Any]:
    """What an event says of a rollout whose state changed with the revision."""
    before = None if transition.before is None else transition.before.traffic.rollout
    after = transition.revision.traffic.rollout
    return {} if after is None or after == before else {"rollout": told(after)}


def result_of(
    transition: Transition,
    status: Literal["applied", "unchanged", "already", "planned"],
    *,
    durable: bool = True,
) -> Result:
    """The answer; what is not on disk has no revision yet that would outlive a crash."""
    stays = transition.decision.status != "applied" and transition.before is not None
    revision = transition.before.n if stays and transition.before is not None else transition.revision.n
    message = transition.decision.message
    return Result(
        endpoint=transition.state.name,
        revision=revision if durable else None,
        status=status,
        kind=transition.decision.kind,
        durable=durable,
        message=message if durable else f"{message} (not written to disk yet)",
        traffic=live_view(transition.revision.traffic),
        plan=_corrected(transition, status),
    )


def _corrected(transition: Transition, status: str) -> Plan:
    """The plan with a note on what it takes for loaded and was left out."""
    verb = ("would be", "does") if status == "planned" else ("is", "did")
    notes = [
        f"{version} {verb[0]} left out, because it {verb[1]} not load: {why}"
        for version, why in transition.left_out.items()
    ]
    return {**transition.plan, "notes": [*transition.plan["notes"], *notes]} if notes else transition.plan


def applied_document(transition: Transition) -> AppliedDocument | None:
    """The file that a document was applied from, to be remembered; None when it came without one."""
    source = transition.revision.document.source
    if transition.decision.kind != "apply" or source is None or not Path(source).is_absolute():
        return None
    return AppliedDocument(source, transition.state.name, transition.revision.document.digest)


def refusal(transition: Transition, refused: Mapping[str, Any]) -> HeadgateError:
    """What the data plane refuses a change for, as ``{"version", "code", "message"}``.

    What a document does not fit may be live and not in it, so the notes of a merge are told as well.
    """
    notes = transition.decision.notes if refused["code"] == PolicyInvalid.code else ()
    message = "; ".join([f"{transition.state.name}: {refused['message']}", *notes])
    return from_code(refused["code"], message, {"version": refused.get("version") or None})

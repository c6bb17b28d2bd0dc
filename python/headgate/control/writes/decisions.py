"""What each write means: from the state of an endpoint to the decision on its next one. Pure but for the slot arithmetic.

Not here: durability and order (``writer``), reading documents (``resolve``). Next: ``service``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from headgate.control.domain import copies, merge, traffic
from headgate.control.domain.copies import Switches
from headgate.control.domain.revision import EMERGENCIES, DocumentIdentity, Kind, Revision
from headgate.control.domain.spec import Spec
from headgate.control.domain.traffic import Change, KnownVersions, LiveTraffic, Stamp
from headgate.control.writes.context import Context
from headgate.control.writes.endpoint import EndpointState, present
from headgate.control.writes.transition import Decide, Decision
from headgate.errors import Conflict, ModelNotReady, VersionNotFound
from headgate.store import seconds


@dataclass(frozen=True)
class ResolvedDocument:
    """A document with everything it refers to in the artifact store; that of a dry run has it at ``sources``, by digest."""

    identity: DocumentIdentity
    text: bytes
    spec: Spec
    sources: Mapping[str, Path] = field(default_factory=dict)
    file_bytes: Mapping[str, int] = field(default_factory=dict)
    """The sizes of its models by digest."""
    warnings: tuple[str, ...] = ()
    """What is allowed and probably not meant."""


class Decisions:
    """Makes the ``decide`` of each write."""

    def __init__(self, context: Context) -> None:
        """The context gives the clock and the slot arithmetic."""
        self._context = context

    def apply(self, document: ResolvedDocument, *, take_traffic: bool) -> Decide:
        """A document: three-way merge, or creation."""

        def decide(state: EndpointState) -> Decision:
            decision = merged(state)
            notes = (*decision.notes, *document.warnings)
            return replace(decision, notes=notes, file_bytes=document.file_bytes)

        def merged(state: EndpointState) -> Decision:
            before = state.current
            if before is None and state.broken is not None and not take_traffic:
                raise ModelNotReady(
                    f"{state.broken}; to begin anew with the document's own traffic, apply it with --take-traffic"
                )
            if before is None:
                return self._creation(state, document)
            not_frozen(state.name, before)
            named, live = frozenset(document.spec.versions), before.traffic
            spec = document.spec.including(live.named(), before.spec)
            known = self._context.known_versions(state.name, spec.digests())
            three = merge.Merge(
                spec.declared, before.spec.declared, named, before.in_document(), take_traffic
            )
            change = merge.apply_document(live, three, known, self._context.now())
            _keeps_evidence(before, spec, change.live)
            after = before.documented(document.identity, document.text, (spec, named), change.live)
            if (
                change.already
                and after.same_content(before)
                and not (state.omitted or state.broken or state.no_drift)
            ):
                message = f"{state.name} is as the document says already"
                same = before.model_copy(update={"document": document.identity})
                return Decision("apply", message, same, status="unchanged", notes=change.notes)
            decision = decision_of("apply", replace(change, already=False), state, after)
            return replace(decision, retried=frozenset(state.omitted), sources=document.sources)

        return decide

    def _creation(self, state: EndpointState, document: ResolvedDocument) -> Decision:
        known = self._context.known_versions(state.name, document.spec.digests())
        change = merge.first(document.spec.declared, state.carried, known, self._context.now())
        first = Revision(
            endpoint=state.name,
            n=0,
            parent=None,
            kind="apply",
            who="",
            when="",
            reason="",
            document=document.identity,
            spec=document.spec,
            traffic=change.live,
            text=document.text,
        )
        return replace(decision_of("apply", change, state, first), sources=document.sources)

    def patch(self, weights: Mapping[str, int], champion: str | None, switches: Switches) -> Decide:
        """An override of live traffic."""

        def change(before: Revision, known: KnownVersions) -> Change:
            moved = traffic.patch(before.traffic, champion, weights, known, self._context.now())
            return copies.switch(moved, switches, before.spec.declared, before.endpoint)

        decide = self._live("traffic", change)
        on = frozenset(name for name, is_on in switches.shadows.items() if is_on)

        def with_shadows(state: EndpointState) -> Decision:
            decision = decide(state)
            return replace(decision, retried=decision.retried | (on & state.omitted.keys()))

        return with_shadows

    def rollback(self, stamp: Stamp) -> Decide:
        """100 % on the last good champion."""

        def decide(state: EndpointState) -> Decision:
            before = present(state)
            change = traffic.rollback(before.traffic, self.known_versions(state, before), stamp)
            return decision_of("rollback", change, state, before.moved(change.live))

        return decide

    def abort(self, stamp: Stamp) -> Decide:
        """Every slot back to the champion."""
        return self._live(
            "abort", lambda before, known: traffic.abort(before.traffic, stamp, known.ruled), frozen_too=True
        )

    def block(self, subject: str, stamp: Stamp) -> Decide:
        """No traffic for a version or digest."""

        def change(before: Revision, known: KnownVersions) -> Change:
            digest, version = _subject(before, subject, known)
            return traffic.block(before.traffic, digest, version, known, stamp)

        return _about(subject, self._live("block", change, frozen_too=True))

    def unblock(self, subject: str) -> Decide:
        """Lifts a block."""

        def change(before: Revision, known: KnownVersions) -> Change:
            digest, version = _subject(before, subject, known)
            return traffic.unblock(before.traffic, digest, version or digest, known)

        return _about(subject, self._live("unblock", change))

    def freeze(self, stamp: Stamp) -> Decide:
        """Only emergency calls from now on."""
        return self._live("freeze", lambda before, _: traffic.freeze(before.traffic, stamp), frozen_too=True)

    def unfreeze(self) -> Decide:
        """Lifts a freeze."""
        return self._live("unfreeze", lambda before, _: traffic.unfreeze(before.traffic), frozen_too=True)

    def restore(self, then: Revision) -> Decide:
        """Document and traffic of an old revision; of an endpoint that was removed, it brings that back."""

        def decide(state: EndpointState) -> Decision:
            if state.is_removed():
                return self._return(state, then)
            before = present(state)
            not_frozen(state.name, before)
            live, in_document = before.traffic, then.in_document()
            spec = then.spec.including({live.champion, live.last_good}, before.spec)
            known = self._context.known_versions(state.name, spec.digests())
            change = traffic.restore(live, then.traffic, known, self._context.now())
            change = replace(change, message=f"as revision {then.n}: {change.message}")
            after = before.documented(then.document, then.text, (spec, in_document), change.live)
            return decision_of("restore", change, state, after)

        return _about(f"revision {then.n}", decide)

    def _return(self, state: EndpointState, then: Revision) -> Decision:
        known = self._context.known_versions(state.name, then.spec.digests())
        change = traffic.returned(then.traffic, state.carried, known, self._context.now())
        change = replace(change, message=f"back as revision {then.n}: {change.message}")
        return decision_of("restore", change, state, then.moved(change.live))

    def delete(self, busy: Callable[[EndpointState], str | None], stamp: Stamp) -> Decide:
        """Takes the endpoint away; ``busy`` says why that must not be."""

        def decide(state: EndpointState) -> Decision:
            before = present(state)
            not_frozen(state.name, before)
            reason = busy(state)
            if reason is not None:
                raise Conflict(reason)
            last = before.moved(traffic.removed(before.traffic, stamp))
            ended = last.traffic.rollout
            notes: tuple[str, ...] = ()
            if ended is not None and ended != before.traffic.rollout:
                notes = (f"rollout {ended.id} of {ended.challenger.name} is aborted",)
            return Decision(
                "remove", f"{state.name} removed; its history stays", None, notes=notes, last=last
            )

        return decide

    def known_versions(self, state: EndpointState, before: Revision) -> KnownVersions:
        """What the pure functions need to know of an endpoint that is served."""
        known = self._context.known_versions(state.name, before.spec.digests())
        spec = before.spec
        return replace(
            known, unloadable=state.omitted, fallback=spec.fallback, ruled=spec.ruled, shadows=spec.shadows
        )

    def _live(
        self, kind: Kind, change: Callable[[Revision, KnownVersions], Change], *, frozen_too: bool = False
    ) -> Decide:
        """A change of live traffic that leaves the document as it is."""

        def decide(state: EndpointState) -> Decision:
            before = present(state)
            if not frozen_too:
                not_frozen(state.name, before)
            changed = change(before, self.known_versions(state, before))
            return decision_of(kind, changed, state, before.moved(changed.live))

        return decide


def _about(subject: str, decide: Decide) -> Decide:
    """A decision that says what its call names."""
    return lambda state: replace(decide(state), subject=subject)


def noted(decide: Decide, notes: tuple[str, ...]) -> Decide:
    """A decision with these notes as well."""

    def with_notes(state: EndpointState) -> Decision:
        decision = decide(state)
        return replace(decision, notes=(*decision.notes, *notes))

    return with_notes


def not_frozen(name: str, revision: Revision) -> None:
    """:class:`Conflict` while the endpoint is frozen."""
    frozen = revision.traffic.frozen
    if frozen is not None:
        why = f" ({frozen.reason})" if frozen.reason else ""
        raise Conflict(
            f"{name} is frozen since {seconds(frozen.when)} by {frozen.who}{why}: unfreeze it first"
        )


def _keeps_evidence(before: Revision, spec: Spec, live: LiveTraffic) -> None:
    """:class:`PolicyInvalid` for a document that takes away the feedback or the baseline that a gate of the rollout under way rests on: the
    gate would be undecided for ever, and harm that it has seen so far would be forgotten. On other bins it is forgotten too, and keys that
    were counted do not count again.
    """
    rollout = live.rollout
    if rollout is None or not rollout.active:
        return
    gone = (before.spec.feedback.keys() - spec.feedback.keys()) & rollout.plan.feedback
    end = f"let the rollout end first, or end it (headgate rollout abort {before.endpoint}), or keep the declaration until then"
    found = {
        f"feedback.{name}": f"the gate feedback.{name} of rollout {rollout.id} of {rollout.challenger.name} (plan {rollout.plan.name}) "
        f"rests on it, and could never be decided without it: {end}"
        for name in sorted(gone)
    }
    outputs = [
        gate for gate in rollout.plan.gates if gate.family == "output_drift" and gate.effect != "report"
    ]
    if outputs and before.spec.baseline not in (None, spec.baseline):
        found["drift.baseline"] = (
            f"the gate {outputs[0].key} of rollout {rollout.id} of {rollout.challenger.name} (plan {rollout.plan.name}) counts on the bins "
            f"of the present baseline, and would forget what it has seen: {end}"
        )
    if found:
        raise traffic.faults(found)


def decision_of(kind: Kind, change: Change, state: EndpointState, after: Revision) -> Decision:
    """The decision of a change. Versions that were left out are tried again when they get traffic that they had not."""
    before = state.current
    had = {} if before is None else before.traffic.weights()
    gets = {version for version, slots in change.live.weights().items() if slots > had.get(version, 0)}
    champion = change.live.champion
    crowned = before is None or champion != before.traffic.champion
    gains = frozenset(gets | {champion} if crowned else gets)
    written = {} if before is None or kind != "apply" else before.spec.versions
    named = [] if kind != "apply" else after.spec.versions.items()
    # An emergency call does not try again what has just failed, unless nothing else is there.
    retried = gains if kind in EMERGENCIES and state.loaded else gains | {champion}
    return Decision(
        kind,
        change.message,
        after,
        "already" if change.already else "applied",
        change.notes,
        change.blocks,
        frozenset(state.omitted) & retried,
        needed=gains | {name for name, version in named if written.get(name) != version},
        serves_more=crowned or bool(gets) or kind in ("apply", "restore"),
    )


def _subject(revision: Revision, subject: str, known: KnownVersions) -> tuple[str, str | None]:
    """The digest and name of what is to be blocked or unblocked."""
    if subject.startswith("sha256:"):
        name = next((version for version, digest in known.digests.items() if digest == subject), None)
        return subject, name
    if subject in known.digests:
        return known.digests[subject], subject
    for block in revision.traffic.blocked:
        if block.version == subject:
            return block.digest, subject
    names = ", ".join(sorted(known.digests))
    raise VersionNotFound(
        f"{known.endpoint} has no version {subject!r}; it has {names}; a digest is possible too"
    )

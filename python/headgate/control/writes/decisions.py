"""What each write means: from the state of an endpoint to a draft of its next one. Pure but for the slot arithmetic.

Not here: durability and order (``writer``), reading documents (``resolve``). Next: ``service``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from headgate.control.domain import merge, traffic
from headgate.control.domain.revision import Held, Text
from headgate.control.domain.spec import Content, same_content
from headgate.control.domain.traffic import Change, Fleet, Stamp
from headgate.control.writes.context import Workshop
from headgate.control.writes.endpoint import EndpointState
from headgate.control.writes.writer import Decide, Draft
from headgate.errors import Conflict, ModelNotFound, NotFound, VersionNotFound
from headgate.store import RevisionKind, seconds


@dataclass(frozen=True)
class Ready:
    """A document with everything it refers to in the artifact store."""

    text: Text
    content: Content


class Changes:
    """Makes the ``decide`` of each write."""

    def __init__(self, workshop: Workshop) -> None:
        """The workshop gives the clock and the slot arithmetic."""
        self._shop = workshop

    def apply(self, ready: Ready, *, take_traffic: bool) -> Decide:
        """A document: three-way merge, or creation."""

        def decide(state: EndpointState) -> Draft:
            text, content, before = ready.text, ready.content, state.current
            declared, now = content.spec.declared, self._shop.now()
            if before is None:
                fleet = self._shop.fleet(state.name, content.spec.digests())
                change = merge.first(declared, state.carried, fleet, now)
                return _draft("apply", change, state, (text, content))
            not_frozen(state.name, before)
            named = frozenset(content.spec.versions)
            content = content.keeping({before.live.champion, before.live.last_good}, before.spec)
            fleet = self._shop.fleet(state.name, content.spec.digests())
            three = merge.Merge(declared, before.spec.declared, named, take_traffic)
            change = merge.apply_document(before.live, three, fleet, now)
            content = content.serving(change.live)
            same = change.already and text.raw == before.text.raw and same_content(content, before.content)
            if same and not state.omitted and state.broken is None:
                after = (text, before.content, before.live)
                unchanged = Draft("apply", f"{state.name} is as the document says already", after)
                return replace(unchanged, status="unchanged", notes=change.notes)
            draft = _draft("apply", replace(change, already=False), state, (text, content))
            return replace(draft, revive=frozenset(state.omitted))

        return decide

    def patch(self, weights: Mapping[str, int], champion: str | None) -> Decide:
        """An override of live traffic."""

        def change(before: Held, fleet: Fleet) -> Change:
            return traffic.patch(before.live, champion, weights, fleet, self._shop.now())

        return self._live("traffic", change)

    def rollback(self, stamp: Stamp) -> Decide:
        """100 % on the last good champion."""

        def decide(state: EndpointState) -> Draft:
            before = present(state)
            change = traffic.rollback(before.live, self._fleet(state.name, before), stamp)
            return _draft("rollback", change, state, (before.text, before.content))

        return decide

    def abort(self, stamp: Stamp) -> Decide:
        """Every slot back to the champion."""
        return self._live("traffic", lambda before, _: traffic.abort(before.live, stamp), frozen_too=True)

    def block(self, subject: str, stamp: Stamp) -> Decide:
        """No traffic for a version or digest."""

        def change(before: Held, fleet: Fleet) -> Change:
            digest, version = _subject(before, subject, fleet)
            return traffic.block(before.live, digest, version, fleet, stamp)

        return self._live("block", change, frozen_too=True)

    def unblock(self, subject: str) -> Decide:
        """Lifts a block."""

        def change(before: Held, fleet: Fleet) -> Change:
            digest, version = _subject(before, subject, fleet)
            return traffic.unblock(before.live, digest, version or digest)

        return self._live("unblock", change)

    def freeze(self, stamp: Stamp) -> Decide:
        """Only emergency calls from now on."""
        return self._live("freeze", lambda before, _: traffic.freeze(before.live, stamp), frozen_too=True)

    def unfreeze(self) -> Decide:
        """Lifts a freeze."""
        return self._live("unfreeze", lambda before, _: traffic.unfreeze(before.live), frozen_too=True)

    def restore(self, then: Held) -> Decide:
        """Document and traffic of an old revision."""

        def decide(state: EndpointState) -> Draft:
            before = present(state)
            not_frozen(state.name, before)
            content = then.content.keeping({before.live.champion, before.live.last_good}, before.spec)
            fleet = self._shop.fleet(state.name, content.spec.digests())
            change = traffic.restore(before.live, then.live, fleet, self._shop.now())
            message = f"as revision {then.n}: {change.message}"
            return _draft("restore", replace(change, message=message), state, (then.text, content))

        return decide

    def delete(self, busy: Callable[[EndpointState], str | None]) -> Decide:
        """Takes the endpoint away; ``busy`` says why that must not be."""

        def decide(state: EndpointState) -> Draft:
            before = present(state)
            not_frozen(state.name, before)
            reason = busy(state)
            if reason is not None:
                raise Conflict(reason)
            return Draft("remove", f"{state.name} removed; its history stays", None)

        return decide

    def _fleet(self, name: str, before: Held) -> Fleet:
        return self._shop.fleet(name, before.spec.digests())

    def _live(
        self, kind: RevisionKind, change: Callable[[Held, Fleet], Change], *, frozen_too: bool = False
    ) -> Decide:
        """A change of live traffic that leaves the document as it is."""

        def decide(state: EndpointState) -> Draft:
            before = present(state)
            if not frozen_too:
                not_frozen(state.name, before)
            changed = change(before, self._fleet(state.name, before))
            return _draft(kind, changed, state, (before.text, before.content))

        return decide


def present(state: EndpointState) -> Held:
    """What is served; :class:`ModelNotFound` when nothing is."""
    if state.current is None:
        raise ModelNotFound(f"no endpoint is named {state.name!r}")
    return state.current


def not_frozen(name: str, held: Held) -> None:
    """:class:`Conflict` while the endpoint is frozen."""
    frozen = held.live.frozen
    if frozen is not None:
        why = f" ({frozen.reason})" if frozen.reason else ""
        raise Conflict(
            f"{name} is frozen since {seconds(frozen.when)} by {frozen.who}{why}: unfreeze it first"
        )


def not_found(name: str, n: int) -> NotFound:
    """The exception for a revision that is not there."""
    return NotFound(f"{name} has no revision {n}")


def _draft(kind: RevisionKind, change: Change, state: EndpointState, what: tuple[Text, Content]) -> Draft:
    """The draft of a change. Versions that were left out are tried again when they get traffic that they had not."""
    before = state.current
    had = {} if before is None else before.live.weights()
    gets = {version for version, slots in change.live.weights().items() if slots > had.get(version, 0)}
    crowned = before is None or change.live.champion != before.live.champion
    return Draft(
        kind,
        change.message,
        (*what, change.live),
        "already" if change.already else "applied",
        change.notes,
        change.blocks,
        frozenset(state.omitted) & (gets | {change.live.champion}),
        serves_more=crowned or bool(gets) or kind in ("apply", "restore"),
    )


def _subject(held: Held, subject: str, fleet: Fleet) -> tuple[str, str | None]:
    """The digest and name of what is to be blocked or unblocked."""
    if subject.startswith("sha256:"):
        name = next((version for version, digest in fleet.digests.items() if digest == subject), None)
        return subject, name
    if subject in fleet.digests:
        return fleet.digests[subject], subject
    for block in held.live.blocked:
        if block.version == subject:
            return block.digest, subject
    known = ", ".join(sorted(fleet.digests))
    raise VersionNotFound(
        f"{fleet.endpoint} has no version {subject!r}; it has {known}; a digest is possible too"
    )

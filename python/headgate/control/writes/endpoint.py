"""What the control plane remembers of one endpoint between calls. Belongs to one event loop.

Not here: the steps of a write (``writer``). Next: ``writer``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from headgate.control.domain.plan_facts import VersionMemory
from headgate.control.domain.revision import Revision
from headgate.control.domain.spec import answering, loadable
from headgate.control.domain.traffic import LiveTraffic
from headgate.control.writes.urgent_calls import UrgentCalls
from headgate.documents import check_name
from headgate.errors import ModelNotFound, ModelNotReady
from headgate.store import Commit, Proposal

Signature = dict[str, Any]


@dataclass(eq=False)
class Row:
    """A revision that was handed to the data plane before it was written; ``commit`` comes when its outcome is known.

    ``late`` is one whose call was answered without it, ``told`` one whose outcome the feed has without it.
    """

    proposal: Proposal
    commit: Commit | None = None
    proposed: bool = False
    late: bool = False
    told: bool = False

    def can_be_written(self) -> bool:
        """Whether there is something to write of it now."""
        return self.commit is not None or not self.proposed

    def is_in_force(self, current: int | None) -> bool:
        """Whether it is served, while revision ``current`` is."""
        if self.commit is None:
            return self.proposal.record.n == current
        return self.commit.status == "applied"

    def named(self) -> str:
        """As an operator knows it."""
        record = self.proposal.record
        return f"revision {record.n} of {record.endpoint} ({record.kind} by {record.who})"


@dataclass
class EndpointState:
    """``current`` is what the data plane serves. The store may be behind it: by the rows in ``unsaved``, and by ``unconfirmed``.

    ``turn`` lets one ordinary write in at a time, waiting for its load included. ``step`` guards ``current`` and ``tail``: an ordinary
    write takes it to decide and to look whether it was passed, and never while it waits for anything else; an emergency call holds it
    from its decision until the data plane has answered, or until it steps aside for another of the ``urgent`` calls. So an emergency
    call waits neither for a load nor for the disk, and a write that was passed learns it before it is answered. ``storing`` keeps the
    rows in order: its holder writes a row.
    """

    name: str
    tail: int = 0
    current: Revision | None = None
    carried: LiveTraffic | None = None
    notified: Sequence[Mapping[str, Any]] = ()
    """The webhooks (``notify``) of the document that was in force when it was taken away: they are told of that."""
    loaded: frozenset[str] = frozenset()
    omitted: dict[str, str] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    """Those of ``omitted`` whose files were damaged when they were to be loaded: a repair may bring them back."""
    broken: str | None = None
    damage: tuple[str, ...] = ()
    """What is not as it was written in its history."""
    no_drift: str | None = None
    """Why drift is not measured although the document says with what."""
    loading: dict[int, frozenset[str]] = field(default_factory=dict)
    taken_over: bool = False
    """Whether an emergency call took a first load over and stepped aside: the next one that is decided loads in its place."""
    newest: int | None = None
    """The revision that the data plane told of last, a removal included."""
    overtaken: set[int] = field(default_factory=set)
    """Revisions that were served until one took their place that was not made from them."""
    in_load: Revision | None = None
    """The revision whose load an ordinary write waits for."""
    cancelled: set[int] = field(default_factory=set)
    """Revisions whose load was cancelled by a newer write."""
    writes: int = 0
    """Ordinary writes that have come."""
    cancelled_before: tuple[int, bytes] = (0, b"")
    """How many ordinary writes had come when the newest of them cancelled the loads of those before it, and the document that it
    brought: none of these is loaded any more, unless it is of that document."""
    unsaved: deque[Row] = field(default_factory=deque)
    unconfirmed: int | None = None
    """The revision of an ordinary write that is served while its end is written."""
    built_on: int | None = None
    """The last such revision that one was made from that was served after it."""
    details: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)
    answered: datetime | None = None
    memory: Mapping[str, VersionMemory] = field(default_factory=dict)
    """Where its versions are, as the data plane said last."""
    file_bytes: dict[str, int] = field(default_factory=dict)
    """The sizes of its models by digest, as far as somebody looked at them."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    step: asyncio.Lock = field(default_factory=asyncio.Lock)
    storing: asyncio.Lock = field(default_factory=asyncio.Lock)
    urgent: UrgentCalls = field(default_factory=UrgentCalls)
    """The emergency calls that are under way."""

    @property
    def revision(self) -> int | None:
        """The number that If-Match is compared with; None: there is no such endpoint."""
        return None if self.current is None else self.current.n

    def is_removed(self) -> bool:
        """Whether it was taken away, and is not there again."""
        return self.current is None and self.broken is None and self.carried is not None

    def is_durable(self) -> bool:
        """Whether what is served is on disk."""
        return self.unconfirmed is None and not any(row.is_in_force(self.revision) for row in self.unsaved)

    def served(self, revision: Revision, omitted: dict[str, str], event: dict[str, Any]) -> None:
        """The data plane says that it serves ``revision``."""
        self._follows(revision)
        self.current = revision
        self.omitted = {version: why for version, why in omitted.items() if version in revision.spec.versions}
        self.damaged &= self.omitted.keys()
        self.loaded = frozenset(loadable(revision.spec, revision.traffic, self.omitted))
        self.broken, self.taken_over = None, False
        for version, detail in event.get("versions", {}).items():
            self.details[version] = detail

    def recorded(self, revision: Revision) -> None:
        """``revision`` is in force although nothing of it is loaded: the champion does not answer, before and after."""
        self._follows(revision)
        self.current = revision

    def gone(self, n: int) -> None:
        """Revision ``n`` took the endpoint away; its blocks and attempts are carried to a later namesake."""
        self.newest = n
        self.carried = None if self.current is None else self.current.traffic
        self.notified = () if self.current is None else self.current.spec.notify
        self.current = None
        self.loaded = frozenset()
        self.omitted = {}
        self.details = {}
        self.broken = None

    def _follows(self, revision: Revision) -> None:
        if (
            self.newest is not None
            and revision.parent is not None
            and revision.parent != self.newest < revision.n
        ):
            self.overtaken.add(self.newest)
        if revision.parent is not None and revision.parent == self.unconfirmed:
            self.built_on = revision.parent
        self.newest = revision.n

    def alarms(self) -> list[str]:
        """What somebody should look at now."""
        found = [] if self.broken is None else [self.broken]
        if self.broken is None:
            found += [self._left_out(version, why) for version, why in self.omitted.items()]
        found += self.damage
        if self.no_drift is not None:
            found.append(self.no_drift)
        unsaved = [row.proposal.record.n for row in self.unsaved if row.late]
        if unsaved:
            numbers = ", ".join(str(n) for n in unsaved)
            found.append(f"revision {numbers} is served but could not be written to disk")
        return found

    def _left_out(self, version: str, why: str) -> str:
        said = f"{version} is left out, because it did not load: {why}"
        current = self.current
        if current is None or version != current.traffic.champion:
            return said
        return (
            f"{said}; {answering(current.spec, current.traffic, self.omitted)}, its fallback, answers for it"
        )


def never_served(name: str, why: Sequence[str]) -> str:
    """What is said of an endpoint that is not served because it was refused."""
    return f"{name} was never served: {'; '.join(why)}"


def present(state: EndpointState) -> Revision:
    """What is served; :class:`ModelNotFound` when nothing is, :class:`ModelNotReady` when it is not known what."""
    if state.current is None and state.broken is not None:
        raise ModelNotReady(state.broken)
    if state.current is None:
        raise ModelNotFound(f"no endpoint is named {state.name!r}")
    return state.current


class Endpoints(dict[str, EndpointState]):
    """Every endpoint that there is or was, by name."""

    def __init__(self, refused: Callable[[str], Sequence[str]] = lambda _name: ()) -> None:
        """``refused`` says what was refused of a name, whatever is served under it."""
        super().__init__()
        self.refused = refused

    def known(self, name: str) -> EndpointState:
        """One that is served; the errors of :func:`present`, and :class:`ModelNotReady` for one that never was, with the reason."""
        state = self.get(name) or EndpointState(name)
        if state.current is None and state.broken is None and (why := self.refused(name)):
            raise ModelNotReady(never_served(name, why))
        present(state)
        return state

    def removed(self, name: str) -> EndpointState | None:
        """One that was taken away and is not there again; None for any other."""
        state = self.get(name)
        return state if state is not None and state.is_removed() else None

    def ever(self, name: str) -> EndpointState:
        """One that has a history; :class:`ModelNotFound`."""
        state = self.get(name)
        if state is None or state.tail == 0:
            raise ModelNotFound(f"no endpoint is named {name!r}")
        return state

    def made(self, name: str) -> EndpointState:
        """One that is, or is about to be."""
        if name not in self:
            check_name("endpoint", name)
            self[name] = EndpointState(name)
        return self[name]

"""What a gateway must do, in pure Python: the meaning of each write, and what may be there after a crash.

It shares no code with ``headgate``: a fault in the rules there is found here. Not here: calls and processes (``suite``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import xxhash

SLOTS = 10_000
VERSIONS = ("v1", "v2", "v3")
Weights = tuple[tuple[str, int], ...]
"""Slots by version, sorted, without zeros."""


class Refused(Exception):
    """The gateway must refuse this write."""


@dataclass(frozen=True)
class Declared:
    """The traffic that a document asks for."""

    champion: str = "v1"
    weights: Weights = ()


@dataclass(frozen=True)
class State:
    """One endpoint. A model is named by its factor, which stands for its digest."""

    champion: str
    last_good: str
    factors: tuple[tuple[str, int], ...]
    weights: Weights = ()
    blocked: frozenset[int] = frozenset()
    frozen: bool = False
    declared: Declared = Declared()
    removed: bool = False

    def factor(self, version: str) -> int:
        """The model that a version stands for."""
        return dict(self.factors)[version]

    def is_blocked(self, version: str) -> bool:
        """Whether a version may answer nobody."""
        return self.factor(version) in self.blocked

    def forbidden(self) -> frozenset[str]:
        """Versions that may answer nobody."""
        return frozenset(version for version, factor in self.factors if factor in self.blocked)

    def same_traffic(self, other: State) -> bool:
        """Whether no key may move between the two."""
        return (self.champion, self.weights, self.removed) == (other.champion, other.weights, other.removed)


@dataclass(frozen=True)
class Write:
    """One write of the admin API, drawn before it is known what it will meet."""

    kind: str
    endpoint: str
    version: str = "v1"
    other: str = "v2"
    slots: int = 0
    pick: float = 0.0
    """Chooses among what is there: a revision, a variant."""


def made(weights: Mapping[str, int]) -> Weights:
    """Weights in their one form."""
    return tuple(sorted((version, slots) for version, slots in weights.items() if slots))


def crowned(state: State, champion: str, weights: Mapping[str, int]) -> State:
    """Champion and weights in one step; who is gone back to afterwards."""
    kept = {version: slots for version, slots in weights.items() if version != champion and slots}
    if sum(kept.values()) > SLOTS:
        raise Refused("more than 100 % is given away")
    after = replace(state, champion=champion, weights=made(kept))
    if champion != state.champion:
        returns = state.factor(champion) == state.factor(state.last_good)
        return replace(after, last_good=champion if returns else state.champion)
    if not state.weights and kept:
        return replace(after, last_good=champion)
    return after


def refuse_blocked(state: State, versions: Sequence[str]) -> None:
    """No write gives a blocked version anything."""
    for version in versions:
        if state.is_blocked(version):
            raise Refused(f"{version} is blocked")


def traffic(state: State, write: Write) -> State:
    """Weights of one version, or (by ``pick``) a new champion as well."""
    if state.frozen:
        raise Refused("frozen")
    champion = write.other if write.pick < 0.4 else state.champion
    asked = {write.version: write.slots}
    if write.version == champion:
        if write.slots:
            raise Refused("the champion has no weight of its own")
        asked = {}
    changed = [write.other] if champion != state.champion or write.pick < 0.4 else []
    refuse_blocked(state, [*(version for version, slots in asked.items() if slots), *changed])
    return crowned(state, champion, {**dict(state.weights), **asked})


def rollback(state: State, _write: Write) -> State:
    """100 % on the last good champion; every other version that had traffic is blocked."""
    losers = {state.champion, *dict(state.weights)} - {state.last_good}
    if not losers:
        return state
    blocked = state.blocked | {state.factor(version) for version in losers}
    return replace(state, champion=state.last_good, weights=(), blocked=blocked)


def abort(state: State, _write: Write) -> State:
    """Every slot back to the champion."""
    return replace(state, weights=())


def block(state: State, write: Write) -> State:
    """No traffic for a version; the last good champion takes over from a champion."""
    version = write.version
    if state.is_blocked(version):
        return state
    after = replace(state, blocked=state.blocked | {state.factor(version)})
    gone = {version}
    if state.champion == version:
        heir = state.last_good
        if heir == version or state.is_blocked(heir):
            raise Refused("there is no other good version")
        after = replace(after, champion=heir, last_good=heir)
        gone = {version, heir}
    elif state.last_good == version:
        after = replace(after, last_good=state.champion)
    return replace(after, weights=made({v: n for v, n in state.weights if v not in gone}))


def unblock(state: State, write: Write) -> State:
    """Lifts a block."""
    if state.frozen:
        raise Refused("frozen")
    return replace(state, blocked=state.blocked - {state.factor(write.version)})


def freeze(state: State, _write: Write) -> State:
    """Only emergency calls from now on."""
    return replace(state, frozen=True)


def unfreeze(state: State, _write: Write) -> State:
    """Lifts a freeze."""
    return replace(state, frozen=False)


def restore(state: State, then: State) -> State:
    """Document and traffic as they were; blocks as they are."""
    if state.frozen:
        raise Refused("frozen")
    refuse_blocked(state, [then.champion, *dict(then.weights)])
    if then.champion == state.champion:
        wanted = [state.last_good]
    elif state.factor(then.champion) == state.factor(state.last_good):
        wanted = []
    else:
        wanted = [then.last_good, state.champion]
    good = next((version for version in wanted if not state.is_blocked(version)), then.champion)
    return replace(
        state, champion=then.champion, weights=then.weights, last_good=good, declared=then.declared
    )


def apply(state: State, declared: Declared, take: bool) -> State:
    """A document on an endpoint that is there: live traffic changes where the document differs from the one before."""
    if state.frozen:
        raise Refused("frozen")
    base = state.declared
    champion = declared.champion if take or declared.champion != base.champion else state.champion
    live, said, was = dict(state.weights), dict(declared.weights), dict(base.weights)
    merged = {}
    for version in {*live, *said, *was} - {champion}:
        asked = said.get(version, 0)
        merged[version] = asked if take or asked != was.get(version, 0) else live.get(version, 0)
    if champion != state.champion:
        refuse_blocked(state, [champion])
    refuse_blocked(state, [version for version, slots in merged.items() if slots])
    return replace(crowned(state, champion, merged), declared=declared)


def create(left: State | None, declared: Declared, factors: tuple[tuple[str, int], ...]) -> State:
    """The first document of an endpoint; what was removed leaves its blocks."""
    blocked = frozenset() if left is None else left.blocked
    state = State(declared.champion, declared.champion, factors, declared.weights, blocked, False, declared)
    refuse_blocked(state, [declared.champion, *dict(declared.weights)])
    return state


def returned(left: State, then: State) -> State:
    """A removed endpoint as it was; with the blocks that it left."""
    state = replace(then, blocked=left.blocked, frozen=False, removed=False)
    refuse_blocked(state, [then.champion, *dict(then.weights)])
    good = then.champion if state.is_blocked(then.last_good) else then.last_good
    return replace(state, last_good=good)


def delete(state: State, _write: Write) -> State:
    """Takes the endpoint away."""
    if state.frozen:
        raise Refused("frozen")
    return replace(state, removed=True, frozen=False)


SIMPLE: Mapping[str, Callable[[State, Write], State]] = {
    "traffic": traffic,
    "rollback": rollback,
    "abort": abort,
    "block": block,
    "unblock": unblock,
    "freeze": freeze,
    "unfreeze": unfreeze,
    "delete": delete,
}
EMERGENCIES = ("rollback", "abort", "block", "freeze")


@dataclass(frozen=True)
class Table:
    """Who was given which slots, and the salt of the keys, as the gateway says it."""

    champion: str
    salt: str
    runs: tuple[tuple[str, int, int], ...]

    def version_of(self, key: str) -> str:
        """The version that a sticky key must be answered by."""
        hashed = xxhash.xxh64_intdigest(self.salt.encode() + b"\0" + key.encode())
        slot = hashed * SLOTS >> 64
        for version, first, last in self.runs:
            if min(first, last) <= slot <= max(first, last):
                return version
        return self.champion

    def weights(self) -> Weights:
        """Slots by version."""
        found: dict[str, int] = {}
        for version, first, last in self.runs:
            found[version] = found.get(version, 0) + abs(last - first) + 1
        return made(found)


@dataclass
class Endpoint:
    """What is known of one endpoint: what must be there after a crash, what may be, and what is in force."""

    durable: State | None = None
    """Acknowledged with ``durable: true``, or seen after a start. None: never made."""
    uncertain: list[State] = field(default_factory=list)
    """In force without being on disk, or not answered: each may be there after a crash, in this order."""
    late: bool = False
    """Whether a call was answered without its row, and none with it since."""
    now: State | None = None
    table: Table | None = None
    history: dict[int, State] = field(default_factory=dict)
    """Every revision that was acknowledged."""

    def acknowledged(self, after: State, revision: int | None) -> None:
        """An answer with ``durable: true``."""
        self.now = self.durable = after
        self.uncertain, self.late = [], False
        if revision is not None:
            self.history[revision] = after

    def in_force(self, after: State) -> None:
        """An answer with ``durable: false``."""
        self.now, self.late = after, True
        if after != self.durable or self.uncertain:
            self.uncertain.append(after)

    def unanswered(self, after: State) -> None:
        """No answer: it may be in force or not, on disk or not."""
        self.uncertain.append(after)

    def allowed(self) -> list[State | None]:
        """What may be there after a crash."""
        return [self.durable, *self.uncertain]

    def started(self, found: State | None) -> None:
        """What a start serves is on disk."""
        self.now = self.durable = found
        self.uncertain, self.late = [], False
